/* test_dequantize.c: blocks of every readable type hold the numbers that the gguf package says they hold, to the bit. */
#include "engine/checkpoint/gguf.h"

#include <string.h>

typedef struct {
  guint type;
  const guint8 *blocks;
  const float *expected;
  guint weights;
} Case;

static GBytes *fixture;

static GArray *read_cases (void)
{
  GArray *cases = g_array_new (FALSE, FALSE, sizeof (Case));
  gsize size, at = 0;
  const guint8 *data = g_bytes_get_data (fixture, &size);
  while (at < size) {
    guint32 head[3];
    memcpy (head, data + at, sizeof head);
    Case one = { .type = head[0], .weights = head[1], .blocks = data + at + sizeof head };
    at += sizeof head + head[2];
    one.expected = (const float *) (data + at);
    at += one.weights * sizeof (float);
    g_array_append_val (cases, one);
  }
  g_assert_cmpuint (at, ==, size);
  return cases;
}

static void test_same_bits (gconstpointer data)
{
  const Case *one = data;
  g_autofree float *out = g_new (float, one->weights);
  eng_type_dequantize (one->type, one->blocks, out, one->weights);
  for (guint i = 0; i < one->weights; i++) {
    float expected;
    memcpy (&expected, (const guint8 *) one->expected + i * sizeof expected, sizeof expected);
    if (out[i] != expected) /* +0 and -0 are the same number */
      g_error ("weight %u is %a instead of %a", i, (double) out[i], (double) expected);
  }
}

static void test_every_readable_type_is_held (void)
{
  g_autoptr (GArray) cases = read_cases ();
  for (guint type = 0; type < 64; type++) {
    const EngTypeTraits *traits = eng_type_traits (type);
    gboolean held = FALSE;
    for (guint i = 0; i < cases->len; i++)
      held |= g_array_index (cases, Case, i).type == type;
    if (traits && traits->readable && !held)
      g_error ("%s is readable, but no fixture holds it to the reference", traits->name);
  }
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  g_autofree char *path = g_build_filename (g_getenv ("G_TEST_SRCDIR"), "fixtures", "gguf_blocks.bin", NULL);
  char *content = NULL;
  gsize size = 0;
  g_autoptr (GError) error = NULL;
  if (!g_file_get_contents (path, &content, &size, &error))
    g_error ("%s", error->message);
  fixture = g_bytes_new_take (content, size);
  g_autoptr (GArray) cases = read_cases ();
  for (guint i = 0; i < cases->len; i++) {
    const Case *one = &g_array_index (cases, Case, i);
    g_autofree char *name = g_strdup_printf ("/gguf/dequantize/same-bits-as-ggml/%s", eng_type_traits (one->type)->name);
    g_test_add_data_func (name, one, test_same_bits);
  }
  g_test_add_func ("/gguf/dequantize/every-readable-type-is-held-to-the-reference", test_every_readable_type_is_held);
  int result = g_test_run ();
  g_bytes_unref (fixture);
  return result;
}
