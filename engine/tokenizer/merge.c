/* merge.c: byte-pair merging of one piece of text: a linked list of symbols and a heap of candidate pairs, the best rank first and
 * of equal ranks the leftmost: O(n log n) for a piece of n bytes, whatever it holds.
 * BPE: Sennrich et al. 2016, merges ranked by a list, or by the number of their result. SPM: Kudo and Richardson 2018, by its score. */
#include "engine/tokenizer/tokenizer_private.h"

#include <string.h>

#include "engine/tokenizer/utf8.h"

#define NONE G_MAXUINT32

typedef struct {
  guint32 begin, end;  /* bytes of the piece */
  guint32 prev, next;  /* symbols, or NONE */
  guint32 token;       /* ENG_NO_TOKEN: a character the vocabulary lacks */
  guint32 key, merged; /* rank of the pair with `next` (NONE: it does not merge), and its token */
} Symbol;

typedef struct { guint32 key, symbol; } Candidate;

struct EngMergeScratch {
  GArray *symbols;
  GArray *heap;
};

EngMergeScratch *eng_merge_scratch_new (void)
{
  EngMergeScratch *scratch = g_new (EngMergeScratch, 1);
  scratch->symbols = g_array_new (FALSE, FALSE, sizeof (Symbol));
  scratch->heap = g_array_new (FALSE, FALSE, sizeof (Candidate));
  return scratch;
}

void eng_merge_scratch_free (EngMergeScratch *scratch)
{
  g_array_unref (scratch->symbols);
  g_array_unref (scratch->heap);
  g_free (scratch);
}

static gboolean before (Candidate a, Candidate b)
{
  return a.key < b.key || (a.key == b.key && a.symbol < b.symbol);
}

static void heap_push (GArray *heap, Candidate candidate)
{
  g_array_append_val (heap, candidate);
  Candidate *h = (Candidate *) (gpointer) heap->data;
  guint i = heap->len - 1;
  for (; i > 0 && before (candidate, h[(i - 1) / 2]); i = (i - 1) / 2)
    h[i] = h[(i - 1) / 2];
  h[i] = candidate;
}

static Candidate heap_pop (GArray *heap)
{
  Candidate *h = (Candidate *) (gpointer) heap->data;
  Candidate top = h[0], last = h[heap->len - 1];
  guint n = heap->len - 1, i = 0;
  for (guint child = 1; child < n; child = 2 * i + 1) {
    if (child + 1 < n && before (h[child + 1], h[child]))
      child++;
    if (!before (h[child], last))
      break;
    h[i] = h[child];
    i = child;
  }
  if (n > 0)
    h[i] = last;
  g_array_set_size (heap, n);
  return top;
}

/* Scores as ranks: a higher score is a lower key. */
static guint32 score_key (float score)
{
  guint32 bits;
  memcpy (&bits, &score, sizeof bits);
  guint32 ascending = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
  return MIN (~ascending, NONE - 1);
}

/* Looks the pair of symbol i and its next up, and queues it if it merges. */
static void consider (const EngTokenizer *t, EngMergeScratch *scratch, const char *text, guint32 i)
{
  Symbol *symbols = (Symbol *) (gpointer) scratch->symbols->data;
  Symbol *a = &symbols[i];
  a->key = NONE;
  if (a->next == NONE)
    return;
  const Symbol *b = &symbols[a->next];
  if (t->model == ENG_VOCAB_BPE && !t->by_rank) {
    a->key = eng_vocab_find_pair (t, a->token, b->token);
    a->merged = a->key == NONE ? ENG_NO_TOKEN : t->merges[a->key].result;
  } else {
    a->merged = eng_vocab_find_text (t, text + a->begin, b->end - a->begin);
    a->key = a->merged == ENG_NO_TOKEN ? NONE : t->by_rank ? a->merged : score_key (t->scores[a->merged]);
  }
  if (a->key != NONE)
    heap_push (scratch->heap, (Candidate){ a->key, i });
}

static void add_symbol (GArray *symbols, guint32 begin, guint32 end, guint32 token)
{
  guint32 i = symbols->len;
  Symbol symbol = { begin, end, i == 0 ? NONE : i - 1, i + 1, token, NONE, ENG_NO_TOKEN };
  g_array_append_val (symbols, symbol);
}

gboolean eng_emit_unknown (const EngTokenizer *t, const char *text, gsize length, gboolean unknown_before, GArray *out)
{
  if (t->has_all_bytes) {
    for (gsize i = 0; i < length; i++)
      g_array_append_val (out, t->byte_tokens[(guint8) text[i]]);
    return FALSE;
  }
  if (t->unknown >= 0 && !(unknown_before && t->fuses_unknown))
    g_array_append_val (out, t->unknown);
  return TRUE;
}

void eng_merge_piece (const EngTokenizer *t, EngMergeScratch *scratch, const char *text, gsize length, GArray *out)
{
  GArray *symbols = scratch->symbols;
  g_array_set_size (symbols, 0);
  g_array_set_size (scratch->heap, 0);
  for (gsize i = 0, n = 1; i < length; i += n) {
    guint32 code, token;
    if (t->model == ENG_VOCAB_BPE && !t->characters) {
      token = t->byte_tokens[(guint8) text[i]];
      if (token == ENG_NO_TOKEN)
        continue; /* a vocabulary without this byte: nothing can stand for it */
    } else {
      n = eng_utf8_next (text + i, text + length, &code);
      token = eng_vocab_find_text (t, text + i, n);
    }
    add_symbol (symbols, (guint32) i, (guint32) (i + n), token);
  }
  if (symbols->len == 0)
    return;
  Symbol *s = (Symbol *) (gpointer) symbols->data;
  s[symbols->len - 1].next = NONE;
  for (guint32 i = 0; i + 1 < symbols->len; i++)
    consider (t, scratch, text, i);
  while (scratch->heap->len > 0) {
    Candidate best = heap_pop (scratch->heap);
    Symbol *a = &s[best.symbol];
    if (a->key != best.key)
      continue; /* one of the two has merged with another since */
    Symbol *b = &s[a->next];
    a->token = a->merged;
    a->end = b->end;
    a->next = b->next;
    b->key = NONE;
    if (a->next != NONE)
      s[a->next].prev = best.symbol;
    consider (t, scratch, text, best.symbol);
    if (a->prev != NONE)
      consider (t, scratch, text, a->prev);
  }
  gboolean unknown = FALSE;
  for (guint32 i = 0; i != NONE; i = s[i].next) {
    if (s[i].token == ENG_NO_TOKEN) {
      unknown = eng_emit_unknown (t, text + s[i].begin, s[i].end - s[i].begin, unknown, out);
    } else {
      g_array_append_val (out, s[i].token);
      unknown = FALSE;
    }
  }
}
