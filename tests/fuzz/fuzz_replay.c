/* fuzz_replay.c: runs a fuzz target without a fuzzer: on the files named, or on its seeds changed in a fixed sequence of random ways.
 * With --seeds FOLDER it writes the seeds there, for a fuzzer to begin with. */
#include "tests/fuzz/fuzz.h"

#include <string.h>

#ifndef FUZZ_ROUNDS
#define FUZZ_ROUNDS 4000 /* of each seed */
#endif

static guint64 state = 1;

/* splitmix64 */
static guint64 next_random (void)
{
  guint64 z = state += G_GUINT64_CONSTANT (0x9e3779b97f4a7c15);
  z = (z ^ z >> 30) * G_GUINT64_CONSTANT (0xbf58476d1ce4e5b9);
  z = (z ^ z >> 27) * G_GUINT64_CONSTANT (0x94d049bb133111eb);
  return z ^ z >> 31;
}

/* Early bytes are headers, where a change matters most. */
static gsize place (gsize size)
{
  gsize at = next_random () % size;
  return next_random () % 2 ? at : at * at / size;
}

static void mutate (GByteArray *bytes)
{
  static const guint64 odd[] = { 0, 1, 15, 31, 255, 4096, G_MAXUINT16, G_MAXINT32, G_MAXUINT32, G_MAXINT64, G_MAXUINT64 };
  for (guint n = 1 + (guint) (next_random () % 3); n > 0 && bytes->len > 8; n--) {
    gsize at = place (bytes->len - 8);
    guint64 value = odd[next_random () % G_N_ELEMENTS (odd)];
    switch (next_random () % 6) {
    case 0: bytes->data[at] ^= (guint8) (1 << next_random () % 8); break;
    case 1: bytes->data[at] = (guint8) next_random (); break;
    case 2: memcpy (bytes->data + at, &value, 4); break;
    case 3: memcpy (bytes->data + at / 8 * 8, &value, 8); break;
    case 4: memmove (bytes->data + at, bytes->data + place (bytes->len - 8), 8); break;
    default:
      if (next_random () % 4 == 0)
        g_byte_array_set_size (bytes, (guint) (at + 8));
      break;
    }
  }
}

static void replay_seed (gconstpointer number)
{
  for (guint round = 0; round < FUZZ_ROUNDS; round++) {
    g_autoptr (GByteArray) bytes = fuzz_seed (GPOINTER_TO_UINT (number));
    if (round > 0)
      mutate (bytes);
    LLVMFuzzerTestOneInput (bytes->data, bytes->len);
  }
}

static void replay_file (gconstpointer name)
{
  char *content = NULL;
  gsize size = 0;
  g_autoptr (GError) error = NULL;
  if (!g_file_get_contents (name, &content, &size, &error))
    g_error ("%s", error->message);
  LLVMFuzzerTestOneInput ((const guint8 *) content, size);
  g_free (content);
}

static int write_seeds (const char *folder)
{
  for (guint i = 0;; i++) {
    g_autoptr (GByteArray) seed = fuzz_seed (i);
    g_autofree char *path = g_strdup_printf ("%s/seed-%u", folder, i);
    g_autoptr (GError) error = NULL;
    if (!seed)
      return 0;
    if (!g_file_set_contents (path, (const char *) seed->data, (gssize) seed->len, &error)) {
      g_printerr ("%s\n", error->message);
      return 1;
    }
  }
}

int main (int argc, char **argv)
{
  if (argc == 3 && g_str_equal (argv[1], "--seeds"))
    return write_seeds (argv[2]);
  g_test_init (&argc, &argv, NULL);
  for (int i = 1; i < argc; i++) {
    g_autofree char *name = g_strdup_printf ("/fuzz/file/%d", i);
    g_test_add_data_func (name, argv[i], replay_file);
  }
  for (guint i = 0; argc == 1; i++) {
    GByteArray *seed = fuzz_seed (i);
    if (!seed)
      break;
    g_byte_array_unref (seed);
    g_autofree char *name = g_strdup_printf ("/fuzz/seed/%u", i);
    g_test_add_data_func (name, GUINT_TO_POINTER (i), replay_seed);
  }
  return g_test_run ();
}
