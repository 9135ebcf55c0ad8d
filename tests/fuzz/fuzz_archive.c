/* fuzz_archive.c: any bytes as an archive with a model in it: refused with a sentence, or what is taken out lies in the folder it was meant for. */
#include "app/library/unpack.h"
#include "tests/fixtures/scratch.h"
#include "tests/fuzz/fuzz.h"

#include <glib/gstdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const endings[] = { ".zip", ".tar", ".tar.gz", ".tar.zst", ".tar.xz", ".tar.bz2" };

/* How many there were, in this folder and those in it: nothing else may be. */
static guint remove_files (const char *folder)
{
  g_autoptr (GDir) dir = g_dir_open (folder, 0, NULL);
  guint files = 0;
  for (const char *name; (name = g_dir_read_name (dir));) {
    g_autofree char *file = g_build_filename (folder, name, NULL);
    g_assert_false (g_file_test (file, G_FILE_TEST_IS_SYMLINK));
    if (g_file_test (file, G_FILE_TEST_IS_DIR)) {
      files += remove_files (file);
      g_rmdir (file);
      continue;
    }
    g_assert_true (g_file_test (file, G_FILE_TEST_IS_REGULAR));
    g_unlink (file);
    files++;
  }
  return files;
}

int LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  static char *path, *folder;
  g_autoptr (GError) error = NULL;
  g_auto (ValiseArchive) archive = { 0 };
  if (!path) {
    atexit (scratch_clean);
    path = scratch_path ("archive");
    folder = scratch_path ("out");
    g_assert_cmpint (g_mkdir (folder, 0755), ==, 0);
  }
  scratch_write (path, data, size);
  gboolean taken = valise_archive_extract (&archive, path, folder, NULL, NULL, NULL, &error);
  g_assert_true (taken == (error == NULL));
  if (error && strchr (error->message, '\n'))
    g_error ("more than a line: %s", error->message);
  guint files = remove_files (folder);
  g_assert_true (!taken || files == archive.files->len + archive.parts->len);
  return 0;
}

/* A model, its licence and its checksums, and a checkpoint's files, in an archive of each kind. */
GByteArray *fuzz_seed (guint i)
{
  static const char model[] = "GGUF\3\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
  static const char licence[] = "Metadata-Version: 2.1\nName: a\nLicense-Expression: MIT\n";
  const ScratchEntry entries[] = { { .name = "a/" }, { .name = "a/model.gguf", .data = model, .size = sizeof model - 1 },
                                   { .name = "a-1.dist-info/METADATA", .data = licence, .size = sizeof licence - 1 },
                                   { .name = "a/config.json", .data = "{}", .size = 2 }, { .name = "b/c/x.safetensors", .data = model, .size = sizeof model - 1 } };
  if (i >= G_N_ELEMENTS (endings))
    return NULL;
  g_autofree char *name = g_strconcat ("seed", endings[i], NULL), *path = scratch_path (name);
  scratch_archive (path, entries, G_N_ELEMENTS (entries));
  g_autoptr (GBytes) bytes = scratch_read (path);
  gsize size;
  const guint8 *content = g_bytes_get_data (bytes, &size);
  g_unlink (path);
  return g_byte_array_append (g_byte_array_new (), content, (guint) size);
}
