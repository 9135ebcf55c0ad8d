/* models_page.h: the checkpoints with the fits made of them, and what is under way. */
#ifndef VALISE_MODELS_PAGE_H
#define VALISE_MODELS_PAGE_H

#include <adwaita.h>

G_BEGIN_DECLS

#define VALISE_TYPE_MODELS_PAGE (valise_models_page_get_type ())
G_DECLARE_FINAL_TYPE (ValiseModelsPage, valise_models_page, VALISE, MODELS_PAGE, AdwBin)
/* Property: "folded". */

G_END_DECLS
#endif
