/* unigram.c: the likeliest way to divide a text into pieces (Kudo 2018, "Subword Regularization", section 3.2): Viterbi over its bytes, where
 * pieces begin and end between characters. Linear in the text: a piece is at most 255 bytes. */
#include "engine/tokenizer/tokenizer_private.h"

#include <math.h>

#include "engine/tokenizer/utf8.h"

/* SentencePiece adds in single precision, and its ties are those of single precision. */
static double sum (const EngTokenizer *t, double a, double b)
{
  return t->wide_sums ? a + b : (double) ((float) a + (float) b);
}

static void improve (GArray *best, gsize at, double score, gsize begin, guint32 token)
{
  EngBestPiece *piece = &g_array_index (best, EngBestPiece, at);
  if (score > piece->score)
    *piece = (EngBestPiece){ score, (guint32) begin, token };
}

/* All pieces that begin at `begin`, and the character there by itself when it is none. */
static void extend (const EngTokenizer *t, GArray *best, const char *text, gsize begin, gsize length, gsize n_char)
{
  double so_far = g_array_index (best, EngBestPiece, begin).score;
  gboolean has_character = FALSE;
  guint32 node = 0;
  for (gsize end = begin; end < length;) {
    node = eng_trie_child (t->pieces, node, (guint8) text[end++]);
    if (node == ENG_TRIE_NONE)
      break;
    guint32 token = t->pieces->nodes[node].value;
    if (token == ENG_TRIE_NONE)
      continue;
    has_character |= end - begin == n_char;
    improve (best, end, sum (t, so_far, t->scores[token]), begin, token);
  }
  if (!has_character)
    improve (best, begin + n_char, sum (t, so_far, t->unknown_score), begin, ENG_NO_TOKEN);
}

void eng_unigram_piece (const EngTokenizer *t, GArray *best, const char *text, gsize length, GArray *out)
{
  EngBestPiece none = { -INFINITY, 0, ENG_NO_TOKEN };
  g_array_set_size (best, 0);
  for (gsize i = 0; i <= length; i++)
    g_array_append_val (best, none);
  g_array_index (best, EngBestPiece, 0).score = 0;
  for (gsize at = 0; at < length;) {
    guint32 c;
    guint n = eng_utf8_next (text + at, text + length, &c);
    extend (t, best, text, at, length, n);
    at += n;
  }
  /* Backwards, then turned round: each place holds the end of the piece that begins there. */
  gsize end = length;
  while (end > 0) {
    EngBestPiece *piece = &g_array_index (best, EngBestPiece, end);
    gsize begin = piece->begin;
    g_array_index (best, EngBestPiece, begin).score = (double) end;
    end = begin;
  }
  gboolean unknown = FALSE;
  while (end < length) {
    gsize next = (gsize) g_array_index (best, EngBestPiece, end).score;
    guint32 token = g_array_index (best, EngBestPiece, next).token;
    if (token == ENG_NO_TOKEN) {
      unknown = eng_emit_unknown (t, text + end, next - end, unknown, out);
    } else {
      g_array_append_val (out, token);
      unknown = FALSE;
    }
    end = next;
  }
}
