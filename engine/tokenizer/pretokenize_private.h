/* pretokenize_private.h: what the machines of pretokenize.c and pretokenize_staged.c share. */
#ifndef ENG_PRETOKENIZE_PRIVATE_H
#define ENG_PRETOKENIZE_PRIVATE_H

#include "engine/tokenizer/pretokenize.h"

/* 's 't 're 've 'm 'll 'd: their length, or 0. */
gsize eng_pre_contraction (const char *p, const char *end, gboolean any_case);
/* \s, and \s+(?!\S)|\s+ over white space up to `stop`. */
gboolean eng_pre_is_space (guint32 c);
gsize eng_pre_space_piece (const char *text, const char *stop, gboolean word_follows);
/* GPT-2's pattern, with digits one by one or in runs. */
gsize eng_pre_gpt2_piece (const char *text, const char *end, gboolean single_digits);

/* Pieces of the rules that cut in several passes, each within the pieces of the one before. */
guint eng_pre_n_stages (EngPretokenizer rules); /* 0: the rules have one pass, in pretokenize.c */
gsize eng_pre_stage_piece (EngPretokenizer rules, guint stage, const char *text, const char *end);
/* GPT-4o's pattern and its kin. */
gsize eng_pre_gpt4o_piece (const char *text, const char *end, guint max_digits, gboolean contractions);

/* Qwen2's pattern where combining marks are letters. */
gsize eng_pre_qwen35_piece (const char *text, const char *end);

#endif
