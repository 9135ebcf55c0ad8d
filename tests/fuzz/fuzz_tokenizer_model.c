/* fuzz_tokenizer_model.c: any bytes as a tokenizer.model of SentencePiece: refused with a sentence, or a text can be encoded. */
#include "tests/fuzz/fuzz.h"
#include "tests/fuzz/tokenizer_files.h"

#include <string.h>

int LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  g_autoptr (GBytes) bytes = g_bytes_new (data, size);
  EngVocabFiles files = { .folder = "fuzz", .tokenizer_model = bytes };
  check_tokenizer_files (&files);
  return 0;
}

static void put_piece (GByteArray *model, const char *piece, float score, guint8 type)
{
  guint8 n = (guint8) strlen (piece), head[] = { 0x0A, (guint8) (2 + n + 5 + 2), 0x0A, n }, tail[] = { 0x15, 0, 0, 0, 0, 0x18, type };
  memcpy (tail + 1, &score, 4);
  g_byte_array_append (model, head, sizeof head);
  g_byte_array_append (model, (const guint8 *) piece, n);
  g_byte_array_append (model, tail, sizeof tail);
}

GByteArray *fuzz_seed (guint i)
{
  static const guint8 map[] = { 12, 0, 0, 0, 0x41, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 'b', 0 };
  if (i > 1)
    return NULL;
  GByteArray *model = g_byte_array_new ();
  guint8 trainer[] = { 0x12, 2, 0x18, (guint8) (2 - i) }, normalizer[] = { 0x1A, 2 + sizeof map + 4, 0x12, sizeof map }, rest[] = { 0x18, 1, 0x20, 1 };
  put_piece (model, "<unk>", 0, 2);
  put_piece (model, "<s>", 0, 3);
  put_piece (model, "<0x41>", 0, 6);
  put_piece (model, "\xE2\x96\x81", -1, 1);
  put_piece (model, "a", -2, 1);
  put_piece (model, "ab", -3, 1);
  put_piece (model, "b", -4, 4);
  g_byte_array_append (model, trainer, sizeof trainer);
  g_byte_array_append (model, normalizer, sizeof normalizer);
  g_byte_array_append (model, map, sizeof map);
  g_byte_array_append (model, rest, sizeof rest);
  return model;
}
