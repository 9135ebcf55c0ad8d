/* pattern_private.h: a regular expression between its parsing and its automaton: a program for a machine with many threads, in order of
 * preference (Thompson 1968; Cox 2010, "Regular Expression Matching in the Wild"). */
#ifndef ENG_PATTERN_PRIVATE_H
#define ENG_PATTERN_PRIVATE_H

#include "engine/tokenizer/charset.h"
#include "engine/tokenizer/pattern.h"

typedef enum {
  ENG_OP_SET,   /* takes one character of sets[a] */
  ENG_OP_LOOK,  /* goes on if the next character is of sets[a], or at the end of the text if b */
  ENG_OP_SPLIT, /* goes on at a, and with less preference at b */
  ENG_OP_JUMP,  /* goes on at a */
  ENG_OP_MATCH
} EngOp;

typedef struct { EngOp op; guint32 a, b; } EngInstruction;

typedef struct {
  GArray *code;    /* of EngInstruction */
  GPtrArray *sets; /* of GArray of EngRange */
} EngProgram;

/* pattern_parse.c. ascii: \d and \w are ASCII's, as in ECMAScript. */
gboolean eng_program_compile (EngProgram *program, const char *regex, gboolean ascii, GError **error);
void eng_program_clear (EngProgram *program);

#endif
