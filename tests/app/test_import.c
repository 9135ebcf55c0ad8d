/* test_import.c: what comes into the library is whole, known and safe, or it is refused with a sentence and nothing is left behind. */
#include "app/library/library.h"
#include "app/library/unpack.h"
#include "engine/error.h"
#include "tests/fixtures/scratch.h"
#include "tests/fixtures/tiny_model.h"

#include <glib/gstdio.h>
#include <string.h>
#include <sys/stat.h>

static ValiseLibrary *fresh (void)
{
  static guint n;
  g_autoptr (GError) error = NULL;
  g_autofree char *name = g_strdup_printf ("library-%u", n++), *home = scratch_path (name);
  ValiseLibrary *library = valise_library_open (home, &error);
  g_assert_no_error (error);
  return library;
}

static GBytes *model_bytes (const TinyModel *model)
{
  g_autofree char *path = scratch_path ("made.gguf");
  g_autofree char *folder = g_path_get_dirname (path);
  g_assert_true (g_file_test (folder, G_FILE_TEST_IS_DIR));
  tiny_model_write (model, path);
  GBytes *bytes = scratch_read (path);
  g_unlink (path);
  return bytes;
}

static GBytes *tiny (void)
{
  static GBytes *bytes;
  const TinyModel model = TINY_MODEL_DEFAULTS;
  if (!bytes)
    bytes = model_bytes (&model);
  return bytes;
}

static ScratchEntry file_entry (const char *name, GBytes *bytes)
{
  return (ScratchEntry) { .name = name, .data = g_bytes_get_data (bytes, NULL), .size = g_bytes_get_size (bytes) };
}

/* Nothing in the library, nothing on its way there. */
static void expect_empty (ValiseLibrary *library)
{
  static const char *const folders[] = { "objects", "tmp", "cache", "analysis" };
  for (guint i = 0; i < G_N_ELEMENTS (folders); i++) {
    g_autofree char *folder = g_build_filename (valise_library_get_home (library), folders[i], NULL);
    g_assert_cmpuint (scratch_count (folder), ==, 0);
  }
  g_autoptr (GPtrArray) models = valise_library_list_models (library, NULL);
  g_assert_cmpuint (models->len, ==, 0);
}

static void expect_refused (const char *source, GQuark domain, int code, const char *part)
{
  g_autoptr (ValiseLibrary) library = fresh ();
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseModel) model = valise_library_import (library, source, NULL, NULL, NULL, NULL, &error);
  g_test_message ("%s: %s", source, error ? error->message : "imported");
  g_assert_null (model);
  g_assert_error (error, domain, code);
  g_assert_nonnull (strstr (error->message, part));
  g_assert_nonnull (strstr (error->message, source));
  g_assert_null (strstr (error->message, valise_library_get_home (library))); /* our own temporaries mean nothing to anybody */
  g_assert_true (g_utf8_validate (error->message, -1, NULL));
  g_assert_null (strchr (error->message, '\n'));
  expect_empty (library);
}

static ValiseModel *expect_imported (ValiseLibrary *library, const char *source, const char *name)
{
  g_autoptr (GError) error = NULL;
  ValiseModel *model = valise_library_import (library, source, name, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_nonnull (model);
  g_autofree char *sha256 = scratch_sha256 (valise_model_get_path (model));
  g_assert_cmpstr (sha256, ==, valise_model_get_sha256 (model));
  return model;
}

/* ---- archives ---- */

/* Every entry beside a good model: one bad one refuses the whole archive. */
static void test_unsafe (void)
{
  static const struct {
    ScratchEntry entry;
    const char *part;
  } cases[] = {
    { { .name = "../escaped.txt", .size = 5 }, "points out of its folder" },
    { { .name = "../../../../../../tmp/escaped.gguf", .size = 5 }, "points out of its folder" },
    { { .name = "a/../../escaped.gguf", .size = 5 }, "points out of its folder" },
    { { .name = "/tmp/escaped.gguf", .size = 5 }, "points out of its folder" },
    { { .name = "a\\..\\..\\escaped.gguf", .size = 5 }, "points out of its folder" },
    { { .name = "C:escaped.gguf", .size = 5 }, "points out of its folder" },
    { { .name = "link", .symlink = "/etc/passwd" }, "is a link" },
    { { .name = "link.gguf", .symlink = "../../library.db" }, "is a link" },
    { { .name = "hard.gguf", .hardlink = "model.gguf" }, "is a link" },
    { { .name = "hard", .hardlink = "/etc/passwd" }, "is a link" },
    { { .name = "pipe", .type = S_IFIFO }, "neither a file nor a folder" },
    { { .name = "pipe.gguf", .type = S_IFIFO }, "neither a file nor a folder" },
    { { .name = "device", .type = S_IFCHR }, "neither a file nor a folder" },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    /* The tar format knows them all. */
    const ScratchEntry entries[] = { file_entry ("model.gguf", tiny ()), cases[i].entry };
    g_autofree char *source = scratch_path ("unsafe.tar");
    scratch_archive (source, entries, G_N_ELEMENTS (entries));
    expect_refused (source, VALISE_ERROR, VALISE_ERROR_UNSAFE, cases[i].part);
    const ScratchEntry swapped[] = { cases[i].entry, entries[0] };
    if (!cases[i].entry.hardlink) {
      scratch_archive (source, swapped, G_N_ELEMENTS (swapped));
      expect_refused (source, VALISE_ERROR, VALISE_ERROR_UNSAFE, cases[i].part);
    }
    if (cases[i].entry.hardlink || cases[i].entry.type)
      continue;
    g_autofree char *zip = scratch_path ("unsafe.zip");
    scratch_archive (zip, entries, G_N_ELEMENTS (entries));
    expect_refused (zip, VALISE_ERROR, VALISE_ERROR_UNSAFE, cases[i].part);
  }
  g_autofree char *escaped = scratch_path ("escaped.txt"), *outside = scratch_path ("escaped.gguf");
  g_assert_false (g_file_test (escaped, G_FILE_TEST_EXISTS) || g_file_test (outside, G_FILE_TEST_EXISTS));
  g_assert_false (g_file_test ("/tmp/escaped.gguf", G_FILE_TEST_EXISTS));
}

/* Many times its own size: in what is kept, and in what is only passed over. */
static void test_bombs (void)
{
  static const char *const archives[] = { "bomb.zip", "bomb.tar.gz", "bomb.tar.zst" };
  static const char *const names[] = { "bomb.gguf", "bomb.txt" };
  for (guint i = 0; i < G_N_ELEMENTS (archives); i++) {
    for (guint j = 0; j < G_N_ELEMENTS (names); j++) {
      const ScratchEntry entries[] = { { .name = names[j], .size = 70 << 20 }, file_entry ("model.gguf", tiny ()) };
      g_autofree char *source = scratch_path (archives[i]);
      scratch_archive (source, entries, G_N_ELEMENTS (entries));
      expect_refused (source, VALISE_ERROR, VALISE_ERROR_UNSAFE, "more than 100 times its own size");
      g_unlink (source);
    }
  }
  g_autofree ScratchEntry *many = g_new0 (ScratchEntry, 10001);
  for (guint i = 0; i < 10001; i++)
    many[i] = (ScratchEntry) { .name = "x/" };
  g_autofree char *source = scratch_path ("many.tar.gz");
  scratch_archive (source, many, 10001);
  expect_refused (source, VALISE_ERROR, VALISE_ERROR_UNSAFE, "more than 10000 entries");
}

/* Sizes in a zip's headers may be lies: what an entry really yields is what counts. */
static void test_lying_sizes (void)
{
  const ScratchEntry entry = { .name = "model.gguf", .size = 80 << 20 };
  g_autofree char *source = scratch_path ("lying.zip");
  scratch_archive (source, &entry, 1);
  g_autoptr (GBytes) bytes = scratch_read (source);
  g_autofree guint8 *data = g_memdup2 (g_bytes_get_data (bytes, NULL), g_bytes_get_size (bytes));
  const guint32 size = GUINT32_TO_LE (80 << 20), lie = GUINT32_TO_LE (1000);
  guint found = 0;
  for (gsize i = 0; i + 4 <= g_bytes_get_size (bytes); i++)
    if (memcmp (data + i, &size, 4) == 0) {
      memcpy (data + i, &lie, 4);
      found++;
    }
  g_assert_cmpuint (found, >, 0);
  scratch_write (source, data, g_bytes_get_size (bytes));
  g_autoptr (ValiseLibrary) library = fresh ();
  g_autoptr (GError) error = NULL;
  g_assert_null (valise_library_import (library, source, NULL, NULL, NULL, NULL, &error));
  g_assert_true (error->domain == VALISE_ERROR && (error->code == VALISE_ERROR_UNSAFE || error->code == VALISE_ERROR_DAMAGED));
  expect_empty (library);
}

static void test_harmless_names (void)
{
  static const char *const names[] = { "model.gguf", "a/b/c/d/e/f/g/model.gguf", "./model.gguf", "..model.gguf", "a/..b/model.gguf", "MODEL.GGUF",
                                       "mödel-東京.gguf", "a//b.gguf" };
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autoptr (ValiseLibrary) library = fresh ();
    const ScratchEntry entries[] = { { .name = "a/" }, { .name = "notes.txt", .size = 10 }, file_entry (names[i], tiny ()) };
    g_autofree char *source = scratch_path (i % 2 ? "names.zip" : "names.tar.gz");
    scratch_archive (source, entries, G_N_ELEMENTS (entries));
    g_autoptr (ValiseModel) model = expect_imported (library, source, NULL);
    g_test_message ("%s is named %s", names[i], valise_model_get_name (model));
    g_assert_null (strchr (valise_model_get_name (model), '/'));
    g_assert_cmpstr (valise_model_get_source (model), ==, source);
  }
}

static void test_nothing_to_import (void)
{
  g_autofree char *zip = scratch_path ("empty.zip"), *tar = scratch_path ("empty.tar"), *words = scratch_path ("words.zip"),
                  *two = scratch_path ("two.zip"), *nothing = scratch_path ("nothing.zip"), *nested = scratch_path ("nested.zip"),
                  *part = scratch_path ("part.zip");
  scratch_archive (zip, NULL, 0);
  expect_refused (zip, VALISE_ERROR, VALISE_ERROR_DAMAGED, "empty or not an archive");
  scratch_archive (tar, NULL, 0);
  expect_refused (tar, VALISE_ERROR, VALISE_ERROR_DAMAGED, "empty or not an archive");
  const ScratchEntry readme = { .name = "README.md", .size = 100 };
  scratch_archive (words, &readme, 1);
  expect_refused (words, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "there is no .gguf model in");
  const ScratchEntry both[] = { file_entry ("one.gguf", tiny ()), file_entry ("folder/two.gguf", tiny ()) };
  scratch_archive (two, both, 2);
  expect_refused (two, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "holds 2 models or parts (one.gguf, folder/two.gguf)");
  const ScratchEntry first = file_entry ("big-00001-of-00002.gguf", tiny ());
  scratch_archive (part, &first, 1);
  expect_refused (part, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "only one part");
  scratch_write (nothing, "", 0);
  expect_refused (nothing, VALISE_ERROR, VALISE_ERROR_DAMAGED, "");
  /* An archive within an archive is no model. */
  g_autoptr (GBytes) inner = scratch_read (two);
  const ScratchEntry outer = file_entry ("inner.zip", inner);
  scratch_archive (nested, &outer, 1);
  expect_refused (nested, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "there is no .gguf model in");
}

/* A download that broke off, and one that got a bit wrong: told, or harmless; nothing half is kept. */
/* libarchive ends some of its sentences with a line's end, which is none of ours. */
static void test_one_line (void)
{
  static const char licence[] = "Metadata-Version: 2.1\nName: a\nLicense-Expression: MIT\n";
  const ScratchEntry entry = { .name = "a-1.dist-info/METADATA", .data = licence, .size = sizeof licence - 1 };
  g_autofree char *source = scratch_path ("line.zip"), *folder = scratch_path ("line");
  scratch_archive (source, &entry, 1);
  g_autoptr (GBytes) whole = scratch_read (source);
  gsize size;
  const guint8 *sound = g_bytes_get_data (whole, &size);
  guint refused = 0;
  g_assert_cmpint (g_mkdir (folder, 0755), ==, 0);
  for (gsize at = 0; at < size; at++) {
    g_autofree guint8 *bad = g_memdup2 (sound, size);
    g_autoptr (GError) error = NULL;
    g_auto (ValiseArchive) archive = { 0 };
    bad[at] ^= 8; /* one of these bits says that the entry is compressed */
    scratch_write (source, bad, size);
    if (!valise_archive_extract (&archive, source, folder, NULL, NULL, NULL, &error)) {
      g_assert_null (strchr (error->message, '\n'));
      refused++;
    }
  }
  g_assert_cmpuint (refused, >, 20);
}

static void test_damaged_archives (void)
{
  static const char *const archives[] = { "cut.zip", "cut.tar", "cut.tar.gz", "cut.tar.bz2", "cut.tar.xz", "cut.tar.zst" };
  g_autoptr (GRand) random = g_rand_new_with_seed (11);
  for (guint i = 0; i < G_N_ELEMENTS (archives); i++) {
    const ScratchEntry entries[] = { { .name = "notes.txt", .size = 100 }, file_entry ("model.gguf", tiny ()) };
    g_autofree char *source = scratch_path (archives[i]);
    scratch_archive (source, entries, G_N_ELEMENTS (entries));
    g_autoptr (GBytes) whole = scratch_read (source);
    gsize size = g_bytes_get_size (whole);
    g_autoptr (ValiseLibrary) library = fresh ();
    for (guint j = 0; j < 24; j++) {
      g_autofree guint8 *bad = g_memdup2 (g_bytes_get_data (whole, NULL), size);
      gboolean cut = j % 2;
      gsize length = cut ? (gsize) g_rand_int_range (random, 0, (gint32) (size / 10 * 9)) : size;
      for (guint k = 0; !cut && k < 1 + j / 4; k++)
        bad[g_rand_int_range (random, 0, j % 4 ? (gint32) size : 512)] ^= (guint8) (1 << g_rand_int_range (random, 0, 8));
      scratch_write (source, bad, length);
      g_autoptr (GError) error = NULL;
      g_autoptr (ValiseModel) model = valise_library_import (library, source, NULL, NULL, NULL, NULL, &error);
      g_assert_true ((model != NULL) == (error == NULL));
      g_assert_true (!cut || !model);
      if (error)
        g_assert_true (error->domain == VALISE_ERROR || error->domain == ENG_ERROR);
      else
        g_assert_true (valise_library_remove (library, model, NULL, NULL));
      expect_empty (library);
    }
  }
}

/* ---- GGUF ---- */

static void test_truncated (void)
{
  gsize size;
  const guint8 *data = g_bytes_get_data (tiny (), &size);
  g_autofree char *source = scratch_path ("truncated.gguf");
  for (guint i = 0; i < 40; i++) {
    gsize length = i < 20 ? i * 7 : i < 30 ? (size * (i - 19)) / 12 : size - 1 - (39 - i) * 13;
    scratch_write (source, data, length);
    expect_refused (source, ENG_ERROR, ENG_ERROR_FORMAT, "");
  }
}

static void test_flipped (void)
{
  gsize size;
  const guint8 *data = g_bytes_get_data (tiny (), &size);
  g_autoptr (GRand) random = g_rand_new_with_seed (3);
  g_autoptr (ValiseLibrary) library = fresh ();
  g_autofree char *source = scratch_path ("flipped.gguf");
  guint refused = 0;
  for (guint i = 0; i < 300; i++) {
    g_autofree guint8 *bad = g_memdup2 (data, size);
    bad[g_rand_int_range (random, 0, 8000)] ^= (guint8) (1 << g_rand_int_range (random, 0, 8)); /* metadata and directory */
    scratch_write (source, bad, size);
    g_autoptr (GError) error = NULL;
    g_autoptr (ValiseModel) model = valise_library_import (library, source, NULL, NULL, NULL, NULL, &error);
    g_assert_true ((model != NULL) == (error == NULL));
    if (error) {
      refused++;
      g_assert_nonnull (strstr (error->message, source));
      g_assert_null (strstr (error->message, valise_library_get_home (library)));
      g_assert_true (g_utf8_validate (error->message, -1, NULL));
    } else {
      g_assert_true (valise_library_remove (library, model, NULL, NULL));
    }
    expect_empty (library);
  }
  g_assert_cmpuint (refused, >, 20);
}

static void test_unknown (void)
{
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autofree char *source = scratch_path ("unknown.gguf");
  model.architecture = "clippy9000";
  tiny_model_write (&model, source);
  expect_refused (source, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "clippy9000");
  model.architecture = "llama";
  model.leave_out = "tokenizer.ggml.tokens";
  tiny_model_write (&model, source);
  expect_refused (source, ENG_ERROR, ENG_ERROR_FORMAT, "the file is incomplete");
}

/* ---- names and repetition ---- */

static void test_twice (void)
{
  g_autoptr (ValiseLibrary) library = fresh ();
  g_autofree char *source = scratch_path ("twice.gguf"), *copy = scratch_path ("copy.gguf"), *objects
    = g_build_filename (valise_library_get_home (library), "objects", NULL);
  gsize size;
  const guint8 *data = g_bytes_get_data (tiny (), &size);
  scratch_write (source, data, size);
  scratch_write (copy, data, size);
  g_autoptr (ValiseModel) first = expect_imported (library, source, NULL);
  g_assert_cmpstr (valise_model_get_name (first), ==, "twice");
  g_autoptr (EngCheckpointSource) weights = valise_model_describe_weights (first, NULL);
  g_autofree char *made = valise_weights_text (weights);
  g_assert_true (g_str_has_prefix (made, "GGUF, mostly F"));
  /* The same content, asked for under no name or its own, is that model. */
  g_autoptr (ValiseModel) again = expect_imported (library, source, NULL), other = expect_imported (library, copy, NULL),
                          named = expect_imported (library, copy, "TWICE");
  g_assert_cmpint (valise_model_get_id (again), ==, valise_model_get_id (first));
  g_assert_cmpint (valise_model_get_id (other), ==, valise_model_get_id (first));
  g_assert_cmpint (valise_model_get_id (named), ==, valise_model_get_id (first));
  /* Under another name it is another model in the same file. */
  g_autoptr (ValiseModel) second = expect_imported (library, copy, "second");
  g_assert_cmpstr (valise_model_get_path (second), ==, valise_model_get_path (first));
  g_assert_cmpuint (scratch_count (objects), ==, 1);
  guint64 freed = 77;
  g_assert_true (valise_library_remove (library, first, &freed, NULL));
  g_assert_cmpuint (freed, ==, 0);
  g_assert_true (valise_library_verify (library, second, NULL, NULL, NULL, NULL));
  g_assert_true (valise_library_remove (library, second, &freed, NULL));
  g_assert_cmpuint (freed, ==, size);
  expect_empty (library);
  g_autoptr (GError) error = NULL;
  g_assert_false (valise_library_remove (library, second, &freed, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_NOT_FOUND);
}

/* An exported archive comes back as the same model; one whose model was changed on the way does not. */
static void test_archive_comes_back (void)
{
  static const char *const names[] = { "back.zip", "back.tar.zst", "back.tar" };
  g_autoptr (GError) error = NULL;
  gsize size;
  const guint8 *data = g_bytes_get_data (tiny (), &size);
  g_autofree char *source = scratch_path ("goes.gguf");
  scratch_write (source, data, size);
  for (guint i = 0; i < G_N_ELEMENTS (names); i++) {
    g_autoptr (ValiseLibrary) library = fresh ();
    g_autofree char *path = scratch_path (names[i]), *bytes = NULL;
    gsize length;
    g_autoptr (ValiseModel) model = expect_imported (library, source, NULL);
    g_assert_true (valise_library_export_archive (library, model, path, NULL, NULL, NULL, &error));
    g_assert_no_error (error);
    g_assert_false (valise_library_export_archive (library, model, path, NULL, NULL, NULL, &error));
    g_assert_error (error, VALISE_ERROR, VALISE_ERROR_EXISTS);
    g_clear_error (&error);
    g_assert_true (valise_library_remove (library, model, NULL, &error));
    g_autoptr (ValiseModel) back = valise_library_import (library, path, NULL, NULL, NULL, NULL, &error);
    g_assert_no_error (error);
    g_assert_cmpstr (valise_model_get_sha256 (back), ==, valise_model_get_sha256 (model));
    g_assert_cmpstr (valise_model_get_name (back), ==, "goes");
    g_assert_true (valise_library_remove (library, back, NULL, &error));
    if (i < 2)
      continue; /* what is compressed or a zip notices by itself */
    g_assert_true (g_file_get_contents (path, &bytes, &length, NULL));
    char *weights = memmem (bytes, length, data + size - 64, 64);
    g_assert_nonnull (weights);
    weights[5] ^= 1;
    scratch_write (path, (const guint8 *) bytes, length);
    g_assert_null (valise_library_import (library, path, NULL, NULL, NULL, NULL, &error));
    g_assert_error (error, VALISE_ERROR, VALISE_ERROR_DAMAGED);
    g_assert_nonnull (strstr (error->message, "SHA256SUMS"));
    g_clear_error (&error);
    expect_empty (library);
  }
}

/* A checkpoint of safetensors in an archive: one, whole, and what its files say of themselves; what lies around it is nothing to it. */
static void test_archived_checkpoint (void)
{
  static const char header[] = "\x08\0\0\0\0\0\0\0{}      ", config[] = "{\"model_type\":\"clippy9000\"}", other[] = "{\"weight_map\":{\"a\":\"b.safetensors\"}}";
  const ScratchEntry weights = { .name = "a/model.safetensors", .data = header, .size = sizeof header - 1 }, words = { .name = "a/config.json", .data = config, .size = sizeof config - 1 };
  const struct {
    ScratchEntry entries[4];
    guint n;
    GQuark domain;
    int code;
    const char *part;
  } cases[] = {
    { { words, weights }, 2, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "clippy9000" },
    { { weights }, 1, VALISE_ERROR, VALISE_ERROR_NOT_FOUND, "there is no .gguf model in" },
    { { words }, 1, ENG_ERROR, ENG_ERROR_FORMAT, "no .safetensors files" },
    { { words, { .name = "a/model.safetensors.index.json", .data = other, .size = sizeof other - 1 } }, 2, ENG_ERROR, ENG_ERROR_FORMAT, "b.safetensors is missing" },
    { { words, weights, words }, 3, VALISE_ERROR, VALISE_ERROR_UNSAFE, "is there twice" },
    { { words, weights, { .name = "b/config.json", .data = config, .size = sizeof config - 1 } }, 3, VALISE_ERROR, VALISE_ERROR_ARGUMENT, "holds 2 models (a, b)" },
    { { words, weights, { .name = "a/../config.json", .data = config, .size = sizeof config - 1 } }, 3, VALISE_ERROR, VALISE_ERROR_UNSAFE, "points out of its folder" },
    { { words, { .name = "a/model.safetensors", .symlink = "/etc/passwd" } }, 2, VALISE_ERROR, VALISE_ERROR_UNSAFE, "is a link" },
    { { words, { .name = "a/model.safetensors", .size = 70 << 20 } }, 2, VALISE_ERROR, VALISE_ERROR_UNSAFE, "more than 100 times its own size" },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *source = scratch_path (i + 1 == G_N_ELEMENTS (cases) ? "checkpoint.tar.gz" : "checkpoint.tar");
    scratch_archive (source, cases[i].entries, cases[i].n);
    expect_refused (source, cases[i].domain, cases[i].code, cases[i].part);
  }
  /* Beside a GGUF it is no second model. */
  g_autoptr (ValiseLibrary) library = fresh ();
  g_autofree char *both = scratch_path ("both.zip");
  const ScratchEntry entries[] = { words, weights, file_entry ("model.gguf", tiny ()) };
  scratch_archive (both, entries, G_N_ELEMENTS (entries));
  g_autoptr (ValiseModel) model = expect_imported (library, both, NULL);
  g_assert_cmpstr (valise_model_get_architecture (model), ==, "llama");
}

/* A linked model's file is used where it is, and stays when the model goes; a copy takes its place. */
static void test_link (void)
{
  g_autoptr (ValiseLibrary) library = fresh ();
  g_autoptr (GError) error = NULL;
  g_autofree char *source = scratch_path ("stays.gguf"), *archive = scratch_path ("stays.zip");
  gsize size;
  const guint8 *data = g_bytes_get_data (tiny (), &size);
  scratch_write (source, data, size);
  g_autoptr (ValiseModel) model = valise_library_link (library, source, NULL, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_cmpstr (valise_model_get_path (model), ==, source);
  g_assert_cmpstr (valise_model_get_name (model), ==, "stays");
  g_assert_true (valise_library_verify (library, model, NULL, NULL, NULL, NULL));
  g_autoptr (ValiseModel) found = valise_library_find_model (library, "stays", &error);
  g_assert_cmpstr (valise_model_get_path (found), ==, source);
  g_autoptr (EngModel) opened = valise_library_open_model (library, found, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_nonnull (opened);
  guint64 freed = 7;
  g_assert_true (valise_library_remove (library, found, &freed, &error));
  g_assert_cmpuint (freed, ==, 0);
  g_assert_true (g_file_test (source, G_FILE_TEST_IS_REGULAR));
  expect_empty (library);
  /* Linked, then copied: the copy is what is used from then on. */
  g_autoptr (ValiseModel) again = valise_library_link (library, source, NULL, NULL, NULL, NULL, &error);
  g_autoptr (ValiseModel) copied = expect_imported (library, source, NULL);
  g_assert_cmpint (valise_model_get_id (copied), ==, valise_model_get_id (again));
  g_assert_cmpstr (valise_model_get_path (copied), !=, source);
  g_assert_true (valise_library_remove (library, copied, &freed, &error));
  g_assert_cmpuint (freed, ==, size);
  /* A file that has changed is not taken for what it was. */
  g_autoptr (ValiseModel) third = valise_library_link (library, source, NULL, NULL, NULL, NULL, &error);
  g_autofree guint8 *longer = g_malloc0 (size + 64);
  memcpy (longer, data, size);
  scratch_write (source, longer, size + 64);
  g_assert_null (valise_library_open_model (library, third, NULL, NULL, NULL, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_DAMAGED);
  g_clear_error (&error);
  g_assert_false (valise_library_verify (library, third, NULL, NULL, NULL, &error));
  g_clear_error (&error);
  scratch_write (archive, (const guint8 *) "PK", 2);
  g_assert_null (valise_library_link (library, archive, NULL, NULL, NULL, NULL, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT);
}

/* What other programs keep: Ollama's manifest and blob, the hub's snapshot. */
static void test_caches (void)
{
  g_autoptr (ValiseLibrary) library = fresh ();
  g_autoptr (GError) error = NULL;
  gsize size;
  const guint8 *data = g_bytes_get_data (tiny (), &size);
  const char *hash = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";
  g_autofree char *root = scratch_path ("ollama/models"), *manifests = g_build_filename (root, "manifests/registry.ollama.ai/library/tiny", NULL);
  g_autofree char *manifest = g_build_filename (manifests, "1b", NULL), *blobs = g_build_filename (root, "blobs", NULL);
  g_autofree char *blob = g_strconcat (blobs, "/sha256-", hash, NULL);
  g_autofree char *text = g_strdup_printf ("{\"schemaVersion\":2,\"layers\":[{\"mediaType\":\"application/vnd.ollama.image.license\",\"digest\":\"sha256:%s\"},"
                                           "{\"mediaType\":\"application/vnd.ollama.image.model\",\"digest\":\"sha256:%s\"}]}", "00", hash);
  g_mkdir_with_parents (manifests, 0700);
  g_mkdir_with_parents (blobs, 0700);
  scratch_write (manifest, (const guint8 *) text, strlen (text));
  scratch_write (blob, data, size);
  g_autoptr (ValiseModel) ollama = valise_library_link (library, manifest, NULL, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_cmpstr (valise_model_get_name (ollama), ==, "tiny-1b");
  g_assert_cmpstr (valise_model_get_path (ollama), ==, blob);
  g_assert_true (valise_library_remove (library, ollama, NULL, &error));
  scratch_write (manifest, (const guint8 *) "{\"layers\":[{\"digest\":\"sha256:../../etc\"}]}", 44);
  g_assert_null (valise_library_link (library, manifest, NULL, NULL, NULL, NULL, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT);
  g_clear_error (&error);
  g_autofree char *hub = scratch_path ("models--maker--pocket"), *snapshot = g_build_filename (hub, "snapshots", "abc123", NULL), *refs = g_build_filename (hub, "refs", NULL);
  g_autofree char *ref = g_build_filename (refs, "main", NULL), *file = g_build_filename (snapshot, "pocket.gguf", NULL);
  g_mkdir_with_parents (snapshot, 0700);
  g_mkdir_with_parents (refs, 0700);
  scratch_write (ref, (const guint8 *) "abc123\n", 7);
  scratch_write (file, data, size);
  g_autoptr (ValiseModel) snap = valise_library_link (library, hub, NULL, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  g_assert_cmpstr (valise_model_get_name (snap), ==, "pocket");
  g_assert_cmpstr (valise_model_get_path (snap), ==, file);
}

static void test_name_taken (void)
{
  g_autoptr (ValiseLibrary) library = fresh ();
  g_autoptr (GError) error = NULL;
  TinyModel model = TINY_MODEL_DEFAULTS;
  g_autofree char *folder = scratch_path ("other"), *source = scratch_path ("name.gguf"), *other = g_build_filename (folder, "name.gguf", NULL);
  scratch_write (other, "", 0);
  tiny_model_write (&model, source);
  model.f16 = TRUE;
  tiny_model_write (&model, other);
  g_autoptr (ValiseModel) first = expect_imported (library, source, NULL), second = expect_imported (library, other, NULL);
  g_assert_cmpstr (valise_model_get_name (first), ==, "name");
  g_assert_cmpstr (valise_model_get_name (second), ==, "name-2");
  g_assert_null (valise_library_import (library, other, "NAME", NULL, NULL, NULL, &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_EXISTS);
  g_clear_error (&error);
  g_assert_false (valise_library_rename (library, second, "Name", &error));
  g_assert_error (error, VALISE_ERROR, VALISE_ERROR_EXISTS);
  g_clear_error (&error);
  g_assert_true (valise_library_rename (library, second, "Zweites Modell ü", &error));
  g_assert_true (valise_library_rename (library, first, "NAME", &error)); /* its own, written otherwise */
  g_assert_no_error (error);
  g_autoptr (ValiseModel) found = valise_library_find_model (library, "zweites modell ü", &error);
  g_assert_no_error (error);
  g_assert_cmpint (valise_model_get_id (found), ==, valise_model_get_id (second));
  static const char *const bad[] = { "", " ", "a/b", "-a", "a.gguf", "a\nb", "a ", "\x1b[2J", "\xff" };
  for (guint i = 0; i < G_N_ELEMENTS (bad); i++) {
    g_assert_false (valise_library_rename (library, first, bad[i], &error));
    g_assert_error (error, VALISE_ERROR, VALISE_ERROR_ARGUMENT);
    g_clear_error (&error);
  }
}

/* ---- at once ---- */

typedef struct {
  const char *home, *source, *name;
} Importer;

static gpointer import_one (gpointer data)
{
  const Importer *importer = data;
  g_autoptr (GError) error = NULL;
  g_autoptr (ValiseLibrary) library = valise_library_open (importer->home, &error);
  g_assert_no_error (error);
  ValiseModel *model = valise_library_import (library, importer->source, importer->name, NULL, NULL, NULL, &error);
  g_assert_no_error (error);
  return model;
}

/* Two programs that import one file at once have imported it once. */
static void test_at_once (void)
{
  g_autofree char *home = scratch_path ("at-once"), *source = scratch_path ("at-once.gguf");
  gsize size;
  const guint8 *data = g_bytes_get_data (tiny (), &size);
  scratch_write (source, data, size);
  for (guint round = 0; round < 10; round++) {
    Importer importer = { home, source, round % 2 ? "chosen" : NULL };
    GThread *threads[6];
    gint64 id = 0;
    for (guint i = 0; i < G_N_ELEMENTS (threads); i++)
      threads[i] = g_thread_new ("importer", import_one, &importer);
    for (guint i = 0; i < G_N_ELEMENTS (threads); i++) {
      g_autoptr (ValiseModel) model = g_thread_join (threads[i]);
      id = id ? id : valise_model_get_id (model);
      g_assert_cmpint (valise_model_get_id (model), ==, id);
    }
    g_autoptr (ValiseLibrary) library = valise_library_open (home, NULL);
    g_autoptr (GPtrArray) models = valise_library_list_models (library, NULL);
    g_assert_cmpuint (models->len, ==, 1);
    g_assert_true (valise_library_verify (library, models->pdata[0], NULL, NULL, NULL, NULL));
    g_assert_true (valise_library_remove (library, models->pdata[0], NULL, NULL));
    expect_empty (library);
  }
}

static void test_metadata_license (void)
{
  static const struct {
    const char *metadata, *license;
  } cases[] = {
    { "License-Expression: MIT\nLicense: other\n", "MIT" },
    { "License: Apache-2.0\r\nClassifier: License :: OSI Approved :: MIT License\r\n", "Apache-2.0" },
    { "Classifier: License :: OSI Approved :: MIT License\n", "MIT License" },
    { "Name: x\n\nLicense: in the description\n", NULL },
    { "License:\n", NULL },
    { "License: \xff\xfe\n", NULL },
    { "", NULL },
  };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    g_autofree char *license = valise_metadata_license (cases[i].metadata, strlen (cases[i].metadata));
    g_assert_cmpstr (license, ==, cases[i].license);
  }
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_test_add_func ("/import/archive/unsafe", test_unsafe);
  g_test_add_func ("/import/archive/bombs", test_bombs);
  g_test_add_func ("/import/archive/lying-sizes", test_lying_sizes);
  g_test_add_func ("/import/archive/harmless-names", test_harmless_names);
  g_test_add_func ("/import/archive/nothing-to-import", test_nothing_to_import);
  g_test_add_func ("/import/archive/damaged", test_damaged_archives);
  g_test_add_func ("/import/archive/damage-is-told-in-one-line", test_one_line);
  g_test_add_func ("/import/archive/license", test_metadata_license);
  g_test_add_func ("/import/gguf/truncated", test_truncated);
  g_test_add_func ("/import/gguf/flipped-bits", test_flipped);
  g_test_add_func ("/import/gguf/unknown-is-named", test_unknown);
  g_test_add_func ("/import/twice-is-once", test_twice);
  g_test_add_func ("/import/name-taken", test_name_taken);
  g_test_add_func ("/import/link-leaves-the-file-where-it-is", test_link);
  g_test_add_func ("/import/caches-of-other-programs", test_caches);
  g_test_add_func ("/import/archive-comes-back", test_archive_comes_back);
  g_test_add_func ("/import/archive/checkpoint", test_archived_checkpoint);
  g_test_add_func ("/import/at-once-is-once", test_at_once);
  int status = g_test_run ();
  scratch_clean ();
  return status;
}
