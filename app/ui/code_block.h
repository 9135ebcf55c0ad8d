/* code_block.h: a stretch of code in an answer: highlighted, named after its language, with a Copy button. */
#ifndef VALISE_CODE_BLOCK_H
#define VALISE_CODE_BLOCK_H

#include <adwaita.h>

G_BEGIN_DECLS

#define VALISE_TYPE_CODE_BLOCK (valise_code_block_get_type ())
G_DECLARE_FINAL_TYPE (ValiseCodeBlock, valise_code_block, VALISE, CODE_BLOCK, AdwBin)

GtkWidget *valise_code_block_new (void);
/* Code that only grew is appended, not set anew. */
void valise_code_block_set_code (ValiseCodeBlock *self, const char *code, const char *language);

G_END_DECLS
#endif
