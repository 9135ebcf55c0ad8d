/* test_gguf_hostile.c: whatever bytes a file holds, opening it gives a reader that stays inside them or one clear sentence. */
#include "engine/error.h"
#include "tests/fixtures/gguf_bytes.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

static char *folder, *path;

static EngGguf *open_bytes (const guint8 *data, gsize size, GError **error)
{
  g_unlink (path); /* an earlier reader may still map the old one */
  FILE *file = fopen (path, "wb");
  g_assert_nonnull (file);
  g_assert_cmpuint (fwrite (data, 1, size, file), ==, size);
  g_assert_cmpint (fclose (file), ==, 0);
  return eng_gguf_open (path, error);
}

static void assert_sentence (const GError *error)
{
  g_assert_nonnull (error);
  g_assert_true (error->domain == ENG_ERROR);
  g_assert_nonnull (strstr (error->message, path));
  g_assert_null (strchr (error->message, '\n'));
  g_assert_true (g_utf8_validate (error->message, -1, NULL));
  g_assert_cmpuint (strlen (error->message), >, strlen (path) + 20);
}

/* Opens and walks, or is refused with a sentence; returns whether it opened. */
static gboolean survives (const guint8 *data, gsize size)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = open_bytes (data, size, &error);
  if (!gguf) {
    assert_sentence (error);
    return FALSE;
  }
  g_assert_no_error (error);
  gguf_walk (gguf);
  return TRUE;
}

static void test_good_file (void)
{
  g_autoptr (GByteArray) good = bytes_good_file ();
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) gguf = open_bytes (good->data, good->len, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (eng_gguf_n_keys (gguf), ==, 17);
  g_assert_cmpuint (eng_gguf_n_tensors (gguf), ==, 4);
  g_assert_cmpstr (eng_gguf_get_string (gguf, "kind.8", ""), ==, "Grüße");
  g_assert_cmpint (eng_gguf_get_int (gguf, "kind.2", 0), ==, 257);
  g_assert_cmpint (eng_gguf_get_int (gguf, "kind.10", 0), ==, G_GINT64_CONSTANT (0x0101010101010101));
  g_assert_cmpint (eng_gguf_get_int (gguf, "absent", -5), ==, -5);
  g_assert_cmpint (eng_gguf_get_int (gguf, "kind.8", -5), ==, -5);
  EngKvType kind = ENG_KV_U8;
  gsize length = 0;
  g_assert_cmpuint (eng_gguf_array_length (gguf, "tokens", &kind), ==, 35);
  g_assert_cmpuint (kind, ==, ENG_KV_STRING);
  for (gsize i = 0; i < 35; i++) {
    const char *token = eng_gguf_array_string (gguf, "tokens", i, &length);
    g_assert_cmpuint (length, ==, i % 5);
    for (gsize k = 0; k < length; k++)
      g_assert_cmpint ((guint8) token[k], ==, 200 + i % 50);
  }
  g_assert_null (eng_gguf_array_string (gguf, "tokens", 35, &length));
  g_assert_cmpfloat (eng_gguf_array_float (gguf, "scores", 0), ==, 1);
  g_assert_cmpuint (eng_gguf_find_tensor (gguf, "matrix")->bytes, ==, 54);
  gguf_walk (gguf);
}

static void test_truncated_anywhere (void)
{
  g_autoptr (GByteArray) good = bytes_good_file ();
  for (guint n = 0; n < good->len; n++) {
    g_autoptr (GError) error = NULL;
    g_autoptr (EngGguf) gguf = open_bytes (good->data, n, &error);
    if (gguf)
      g_error ("%u of %u bytes are taken for a whole file", n, good->len);
    assert_sentence (error);
  }
}

static void test_any_bit_flipped (void)
{
  g_autoptr (GByteArray) good = bytes_good_file ();
  guint refused = 0;
  for (guint bit = 0; bit < (good->len - 263) * 8; bit++) {
    good->data[bit / 8] ^= (guint8) (1 << bit % 8);
    refused += !survives (good->data, good->len);
    good->data[bit / 8] ^= (guint8) (1 << bit % 8);
  }
  g_assert_cmpuint (refused, >, good->len); /* most flips of lengths, counts and types cannot pass */
}

/* ---- one malformation each ---------------------------------------------------------------------------------------------------- */

typedef struct {
  const char *name;
  void (*make) (GByteArray *out);
  const char *expected; /* in the sentence; NULL: the file is sound */
} Malformed;

static void pad (GByteArray *out, gsize n)
{
  for (gsize i = 0; i < n; i++)
    g_byte_array_append (out, (const guint8 *) "", 1);
}

static void head (GByteArray *out, guint64 n_tensors, guint64 n_keys)
{
  bytes_header (out, 3, n_tensors, n_keys);
}

static void body (GByteArray *out, gsize bytes)
{
  bytes_align (out, 32);
  pad (out, bytes);
}

static void not_gguf (GByteArray *out)
{
  g_byte_array_append (out, (const guint8 *) "<!DOCTYPE html><html><body>", 27);
}

static void lfs_pointer (GByteArray *out)
{
  const char *text = "version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n";
  g_byte_array_append (out, (const guint8 *) text, (guint) strlen (text));
}

static void version_1 (GByteArray *out)
{
  bytes_header (out, 1, 0, 0);
}

static void version_2 (GByteArray *out)
{
  bytes_header (out, 2, 0, 0);
}

static void version_99 (GByteArray *out)
{
  bytes_header (out, 99, 0, 0);
}

static void big_endian (GByteArray *out)
{
  bytes_header (out, 0x03000000, 0, 0);
}

static void big_endian_9 (GByteArray *out)
{
  bytes_header (out, 0x09000000, 0, 0);
}

static void big_endian_huge (GByteArray *out)
{
  bytes_header (out, 0x03000000, 1, 0);
}

static void huge_tensor_count (GByteArray *out)
{
  head (out, G_MAXUINT64, 0);
  pad (out, 4096);
}

static void huge_key_count (GByteArray *out)
{
  head (out, 0, G_MAXUINT64 / 2);
  pad (out, 4096);
}

static void huge_name (GByteArray *out)
{
  head (out, 0, 1);
  bytes_u64 (out, G_MAXUINT64);
  pad (out, 64);
}

static void control_name (GByteArray *out)
{
  head (out, 0, 1);
  bytes_key (out, "a\nb", ENG_KV_U32);
  pad (out, 64);
}

static void empty_name (GByteArray *out)
{
  head (out, 0, 1);
  bytes_key (out, "", ENG_KV_U32);
  pad (out, 64);
}

static void unknown_kind (GByteArray *out)
{
  head (out, 0, 1);
  bytes_key (out, "odd", 13);
  pad (out, 64);
}

static void huge_string (GByteArray *out)
{
  head (out, 0, 1);
  bytes_key (out, "long", ENG_KV_STRING);
  bytes_u64 (out, G_MAXINT64);
  pad (out, 64);
}

static void array_of (GByteArray *out, guint32 element, guint64 count)
{
  head (out, 0, 1);
  bytes_key (out, "list", ENG_KV_ARRAY);
  bytes_u32 (out, element);
  bytes_u64 (out, count);
  pad (out, 64);
}

static void huge_array (GByteArray *out)
{
  array_of (out, ENG_KV_U64, G_MAXUINT64 / 8 + 1);
}

static void huge_string_array (GByteArray *out)
{
  array_of (out, ENG_KV_STRING, 1u << 30);
}

static void odd_array (GByteArray *out)
{
  array_of (out, 77, 1);
}

static void endless_nesting (GByteArray *out)
{
  head (out, 0, 1);
  bytes_key (out, "nest", ENG_KV_ARRAY);
  for (guint i = 0; i < 100000; i++) {
    bytes_u32 (out, ENG_KV_ARRAY);
    bytes_u64 (out, 1);
  }
}

static void key_twice (GByteArray *out)
{
  head (out, 0, 2);
  for (guint i = 0; i < 2; i++) {
    bytes_key (out, "same", ENG_KV_U32);
    bytes_u32 (out, i);
  }
}

static void alignment_of (GByteArray *out, guint32 alignment)
{
  head (out, 1, 1);
  bytes_key (out, "general.alignment", ENG_KV_U32);
  bytes_u32 (out, alignment);
  bytes_tensor (out, "t", 1, (const guint64[]) { 8 }, ENG_TYPE_F32, 0);
  body (out, 32);
}

static void alignment_zero (GByteArray *out)
{
  alignment_of (out, 0);
}

static void alignment_odd (GByteArray *out)
{
  alignment_of (out, 24);
}

static void alignment_huge (GByteArray *out)
{
  alignment_of (out, 1u << 31);
}

static void alignment_text (GByteArray *out)
{
  head (out, 0, 1);
  bytes_key (out, "general.alignment", ENG_KV_STRING);
  bytes_string (out, "32");
}

static void one_tensor (GByteArray *out, guint32 n_dims, const guint64 *dims, guint32 type, guint64 offset)
{
  head (out, 1, 0);
  bytes_tensor (out, "t", n_dims, dims, type, offset);
  body (out, 4096);
}

static void dims_none (GByteArray *out)
{
  one_tensor (out, 0, NULL, ENG_TYPE_F32, 0);
}

static void dims_five (GByteArray *out)
{
  one_tensor (out, 5, (const guint64[]) { 1, 1, 1, 1, 1 }, ENG_TYPE_F32, 0);
}

static void dims_many (GByteArray *out)
{
  head (out, 1, 0);
  bytes_string (out, "t");
  bytes_u32 (out, G_MAXUINT32);
  pad (out, 4096);
}

static void dim_zero (GByteArray *out)
{
  one_tensor (out, 2, (const guint64[]) { 32, 0 }, ENG_TYPE_F32, 0);
}

static void dims_overflow (GByteArray *out)
{
  one_tensor (out, 4, (const guint64[]) { 1u << 31, 1u << 31, 1u << 31, 1u << 31 }, ENG_TYPE_F32, 0);
}

static void bytes_overflow (GByteArray *out)
{
  one_tensor (out, 1, (const guint64[]) { (guint64) 1 << 62 }, ENG_TYPE_F32, 0);
}

static void part_of_a_block (GByteArray *out)
{
  one_tensor (out, 2, (const guint64[]) { 33, 2 }, ENG_TYPE_Q4_0, 0);
}

static void unknown_type (GByteArray *out)
{
  one_tensor (out, 1, (const guint64[]) { 32 }, 4, 0);
}

static void type_beyond (GByteArray *out)
{
  one_tensor (out, 1, (const guint64[]) { 32 }, G_MAXUINT32, 0);
}

static void misaligned (GByteArray *out)
{
  one_tensor (out, 1, (const guint64[]) { 32 }, ENG_TYPE_F32, 4);
}

static void beyond_the_end (GByteArray *out)
{
  one_tensor (out, 1, (const guint64[]) { 32 }, ENG_TYPE_F32, 1 << 20);
}

static void offset_overflow (GByteArray *out)
{
  one_tensor (out, 1, (const guint64[]) { 32 }, ENG_TYPE_F32, G_MAXUINT64 - 31);
}

static void two_tensors (GByteArray *out, const char *second, guint64 offset)
{
  head (out, 2, 0);
  bytes_tensor (out, "t", 1, (const guint64[]) { 64 }, ENG_TYPE_F32, 0);
  bytes_tensor (out, second, 1, (const guint64[]) { 64 }, ENG_TYPE_F32, offset);
  body (out, 4096);
}

static void tensor_twice (GByteArray *out)
{
  two_tensors (out, "t", 256);
}

static void overlapping (GByteArray *out)
{
  two_tensors (out, "u", 224);
}

static void same_place (GByteArray *out)
{
  two_tensors (out, "u", 0);
}

static void reversed_order (GByteArray *out)
{
  head (out, 2, 0);
  bytes_tensor (out, "t", 1, (const guint64[]) { 64 }, ENG_TYPE_F32, 256);
  bytes_tensor (out, "u", 1, (const guint64[]) { 64 }, ENG_TYPE_F32, 0);
  body (out, 512);
}

static void split_without_end (GByteArray *out)
{
  head (out, 0, 1);
  bytes_key (out, "split.count", ENG_KV_U64);
  bytes_u64 (out, G_MAXINT64);
}

static const Malformed malformed[] = {
  { "not-gguf", not_gguf, "not a GGUF" },
  { "git-lfs-pointer", lfs_pointer, "Git LFS" },
  { "version-1", version_1, "version 1" },
  { "version-2-is-read", version_2, NULL },
  { "version-99", version_99, "version 99" },
  { "big-endian-is-read", big_endian, NULL },
  { "big-endian-version-9", big_endian_9, "version 9" },
  { "big-endian-huge-count", big_endian_huge, "72057594037927936 tensors" },
  { "huge-tensor-count", huge_tensor_count, "18446744073709551615 tensors" },
  { "huge-key-count", huge_key_count, "9223372036854775807 keys" },
  { "huge-name", huge_name, "cut short" },
  { "control-characters-in-a-name", control_name, "not text" },
  { "empty-name", empty_name, "is empty" },
  { "unknown-kind", unknown_kind, "key odd" },
  { "huge-string", huge_string, "cut short" },
  { "huge-array", huge_array, "key list" },
  { "huge-string-array", huge_string_array, "key list" },
  { "array-of-unknown-kind", odd_array, "unknown kind 77" },
  { "endless-nesting", endless_nesting, "too deeply" },
  { "key-twice", key_twice, "key same appears twice" },
  { "alignment-zero", alignment_zero, "general.alignment" },
  { "alignment-odd", alignment_odd, "general.alignment" },
  { "alignment-huge", alignment_huge, "general.alignment" },
  { "alignment-text", alignment_text, "general.alignment" },
  { "no-dimensions", dims_none, "tensor t has 0 dimensions" },
  { "five-dimensions", dims_five, "tensor t has 5 dimensions" },
  { "billions-of-dimensions", dims_many, "4294967295 dimensions" },
  { "dimension-zero", dim_zero, "tensor t has an impossible size" },
  { "dimensions-overflow", dims_overflow, "tensor t has an impossible size" },
  { "bytes-overflow", bytes_overflow, "tensor t has an impossible size" },
  { "part-of-a-block", part_of_a_block, "rows of 33 weights" },
  { "withdrawn-type", unknown_type, "tensor t is of type 4" },
  { "type-beyond", type_beyond, "type 4294967295" },
  { "misaligned", misaligned, "tensor t is not aligned" },
  { "beyond-the-end", beyond_the_end, "cut short" },
  { "offset-overflow", offset_overflow, "cut short" },
  { "tensor-twice", tensor_twice, "tensor t appears twice" },
  { "overlapping", overlapping, "overlap" },
  { "same-place", same_place, "overlap" },
  { "any-order-of-data-is-read", reversed_order, NULL },
  { "split-without-end", split_without_end, "one part of" },
};

static void test_malformed (gconstpointer data)
{
  const Malformed *one = data;
  g_autoptr (GByteArray) out = g_byte_array_new ();
  g_autoptr (GError) error = NULL;
  one->make (out);
  g_autoptr (EngGguf) gguf = open_bytes (out->data, out->len, &error);
  if (!one->expected) {
    g_assert_no_error (error);
    g_assert_nonnull (gguf);
    return;
  }
  g_assert_null (gguf);
  assert_sentence (error);
  if (!strstr (error->message, one->expected))
    g_error ("“%s” says nothing of “%s”", error->message, one->expected);
}

static void test_no_file (void)
{
  g_autoptr (GError) error = NULL;
  g_unlink (path);
  g_assert_null (eng_gguf_open (path, &error));
  assert_sentence (error);
  g_clear_error (&error);
  g_assert_cmpint (mkfifo (path, 0600), ==, 0);
  g_assert_null (eng_gguf_open (path, &error)); /* and does not wait for a writer */
  assert_sentence (error);
  g_clear_error (&error);
  g_unlink (path);
  g_mkdir (path, 0700);
  g_assert_null (eng_gguf_open (path, &error));
  assert_sentence (error);
  g_rmdir (path);
}

/* A few bytes of header can claim petabytes: none of it may be allocated. */
static void test_claims_allocate_nothing (void)
{
  struct rusage before, after;
  getrusage (RUSAGE_SELF, &before);
  for (gsize i = 0; i < G_N_ELEMENTS (malformed); i++) {
    g_autoptr (GByteArray) out = g_byte_array_new ();
    malformed[i].make (out);
    survives (out->data, out->len);
  }
  getrusage (RUSAGE_SELF, &after);
  g_assert_cmpint (after.ru_maxrss - before.ru_maxrss, <, 32 << 10); /* KiB */
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  folder = g_dir_make_tmp ("valise-hostile-XXXXXX", NULL);
  path = g_build_filename (folder, "model.gguf", NULL);
  g_test_add_func ("/gguf/claims-allocate-nothing", test_claims_allocate_nothing);
  g_test_add_func ("/gguf/good-file-is-read", test_good_file);
  g_test_add_func ("/gguf/truncated-anywhere-is-one-sentence", test_truncated_anywhere);
  g_test_add_func ("/gguf/any-bit-flipped-stays-inside", test_any_bit_flipped);
  g_test_add_func ("/gguf/no-ordinary-file-is-one-sentence", test_no_file);
  for (gsize i = 0; i < G_N_ELEMENTS (malformed); i++) {
    g_autofree char *name = g_strconcat ("/gguf/malformed/", malformed[i].name, NULL);
    g_test_add_data_func (name, &malformed[i], test_malformed);
  }
  int result = g_test_run ();
  g_unlink (path);
  g_rmdir (folder);
  g_free (path);
  g_free (folder);
  return result;
}
