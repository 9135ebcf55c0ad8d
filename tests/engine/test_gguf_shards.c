/* test_gguf_shards.c: a model in several files is one model; a part that is missing, foreign or opened alone is said. */
#include "engine/error.h"
#include "tests/fixtures/gguf_bytes.h"

#include <glib/gstdio.h>
#include <string.h>

enum { PARTS = 3 };

static char *folder;

static char *part_path (guint part)
{
  return g_strdup_printf ("%s/model-%05u-of-%05u.gguf", folder, part + 1, (guint) PARTS);
}

/* Part i holds tensor "t<name>" of eight floats with the value i, after as many keys as its number. */
static void write_part (guint part, guint name, guint total)
{
  g_autoptr (GByteArray) out = g_byte_array_new ();
  g_autoptr (GError) error = NULL;
  g_autofree char *tensor = g_strdup_printf ("t%u", name), *path = part_path (part);
  bytes_header (out, 3, 1, 2 + part);
  bytes_key (out, "split.count", ENG_KV_U16);
  g_byte_array_append (out, (const guint8[]) { PARTS, 0 }, 2);
  bytes_key (out, "split.tensors.count", ENG_KV_I32);
  bytes_u32 (out, total);
  for (guint i = 0; i < part; i++) {
    g_autofree char *key = g_strdup_printf ("own.%u", i);
    bytes_key (out, key, ENG_KV_U32);
    bytes_u32 (out, i);
  }
  bytes_tensor (out, tensor, 1, (const guint64[]) { 8 }, ENG_TYPE_F32, 0);
  bytes_align (out, 32);
  float values[8];
  for (guint i = 0; i < 8; i++)
    values[i] = (float) part;
  g_byte_array_append (out, (const guint8 *) values, sizeof values);
  g_assert_true (g_file_set_contents (path, (const char *) out->data, (gssize) out->len, &error));
}

static void write_parts (guint total)
{
  for (guint part = 0; part < PARTS; part++)
    write_part (part, part, total);
}

static void assert_refused (guint part, const char *expected)
{
  g_autoptr (GError) error = NULL;
  g_autofree char *path = part_path (part);
  g_assert_null (eng_gguf_open (path, &error));
  g_assert_true (error && error->domain == ENG_ERROR);
  if (!strstr (error->message, expected))
    g_error ("“%s” says nothing of “%s”", error->message, expected);
}

static void test_one_model (void)
{
  write_parts (PARTS);
  g_autoptr (GError) error = NULL;
  g_autofree char *path = part_path (0);
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, &error);
  g_assert_no_error (error);
  g_assert_cmpuint (eng_gguf_n_tensors (gguf), ==, PARTS);
  guint64 bytes = 0;
  for (guint part = 0; part < PARTS; part++) {
    g_autofree char *name = g_strdup_printf ("t%u", part), *file = part_path (part);
    GStatBuf info;
    g_assert_cmpint (g_stat (file, &info), ==, 0);
    bytes += (guint64) info.st_size;
    g_assert_cmpfloat (((const float *) eng_gguf_find_tensor (gguf, name)->data)[7], ==, (float) part);
  }
  g_assert_cmpuint (eng_gguf_file_bytes (gguf), ==, bytes);
  g_assert_false (eng_gguf_has (gguf, "own.0")); /* metadata is the first part's */
  gguf_walk (gguf);

  /* Written again it is one file, which says nothing of parts. */
  g_autofree char *whole = g_build_filename (folder, "whole.gguf", NULL);
  g_autoptr (EngGgufWriter) writer = eng_gguf_writer_new (32);
  eng_gguf_writer_copy_metadata (writer, gguf);
  g_assert_true (eng_gguf_writer_begin (writer, whole, &error) && eng_gguf_writer_finish (writer, &error));
  g_autoptr (EngGguf) again = eng_gguf_open (whole, &error);
  g_assert_no_error (error);
  g_assert_false (eng_gguf_has (again, "split.count"));
  g_unlink (whole);
}

static void test_missing_part (void)
{
  write_parts (PARTS);
  g_autofree char *path = part_path (1);
  g_unlink (path);
  assert_refused (0, "model-00002-of-00003.gguf");
}

static void test_later_part_alone (void)
{
  write_parts (PARTS);
  assert_refused (1, "-00001-of-00003.gguf");
}

static void test_foreign_part (void)
{
  write_parts (PARTS);
  write_part (2, 0, PARTS);
  assert_refused (0, "tensor t0 appears twice");
}

static void test_wrong_total (void)
{
  write_parts (PARTS + 4);
  assert_refused (0, "3 tensors instead of 7");
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  folder = g_dir_make_tmp ("valise-shards-XXXXXX", NULL);
  g_test_add_func ("/gguf/shards/are-one-model", test_one_model);
  g_test_add_func ("/gguf/shards/missing-one-is-named", test_missing_part);
  g_test_add_func ("/gguf/shards/later-one-names-the-first", test_later_part_alone);
  g_test_add_func ("/gguf/shards/foreign-one-is-refused", test_foreign_part);
  g_test_add_func ("/gguf/shards/wrong-total-is-refused", test_wrong_total);
  int result = g_test_run ();
  for (guint part = 0; part < PARTS; part++) {
    g_autofree char *path = part_path (part);
    g_unlink (path);
  }
  g_rmdir (folder);
  g_free (folder);
  return result;
}
