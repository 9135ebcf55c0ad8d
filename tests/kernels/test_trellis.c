/* test_trellis.c: the search for the codes of a trellis cell, on each instruction set, against the plain recursion over all words; its costs are whole numbers,
 * so every one must be the same. */
#include <glib.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/cpu.h"
#include "kernels/trellis.h"

#include "sets.h"

enum { STEPS = 40 };

/* What the header says that an error counts; that this is weight (x - value)^2 at all, up to where it says: but for what rounding x, a factor of 15 bits and cutting off may do. */
static guint32 error_of (const xb_trellis *t, guint word, float x, float weight)
{
  xb_trellis_count count = xb_trellis_counting (t, x, weight);
  guint miss = (guint) abs (count.x - (int) (128 * xb_trellis_value_of (t, word))), near = MIN (miss, count.most_miss);
  guint root = (near << count.shift) * count.factor >> 16, counted = ((root * root >> 16) + ((miss - near) * count.beyond >> 16)) & ~(guint) xb_trellis_marks (t);
  double apart = (double) x - (double) xb_trellis_value_of (t, word), exact = (double) weight * apart * apart, most = xb_trellis_most_cost (t);
  g_assert_cmpfloat (counted, <=, most);
  g_assert_cmpfloat (counted, <=, exact * 1.001 + 2 * sqrt (exact * weight) / 128 + 1);
  exact = MIN (exact, 0.75 * most);
  g_assert_cmpfloat (counted, >=, exact * 0.998 - 2 * sqrt (exact * weight) / 128 - sqrt (exact) / 64 - 1 - xb_trellis_marks (t));
  return counted;
}

/* Cost of the best path into each state; returns the least before the last weight of which it is taken away. */
static guint32 recursion (const xb_trellis *t, const float *x, const float *weight, guint n, guint32 *cost)
{
  guint32 taken = 0, next[XB_MOST_STATES];
  guint states = xb_trellis_states (t);
  for (guint i = 0; i < n; i++) {
    guint32 least = UINT32_MAX;
    for (guint s = 0; s < states; s++) {
      least = MIN (least, cost[s]);
      next[s] = UINT32_MAX;
    }
    if (i % XB_TRELLIS_LOWERED == 0)
      taken = least;
    for (guint word = 0; word < 1u << t->word_bits; word++) {
      guint32 c = cost[word >> t->depth] + error_of (t, word, x[i], weight[i]);
      next[word % states] = MIN (next[word % states], c);
    }
    memcpy (cost, next, states * sizeof *cost);
  }
  return taken;
}

static void check_depth (xb_codebook codebook, guint depth, gboolean is_barred, GRand *rand)
{
  gint8 tables[3][16];
  xb_trellis t;
  float x[STEPS], weight[STEPS];
  guint16 cost[XB_MOST_STATES], *start = g_new (guint16, XB_MOST_STATES);
  guint32 want[XB_MOST_STATES];
  guint bits = xb_word_bits (codebook);
  for (guint i = 0; i < 48; i++)
    tables[i / 16][i % 16] = (gint8) g_rand_int_range (rand, -42, 43);
  xb_trellis_init (&t, bits, depth, (const gint8 (*)[16]) tables);
  guint states = xb_trellis_states (&t), begin = (guint) g_rand_int_range (rand, 0, (gint) states);
  guint8 *back = g_malloc (STEPS * states);
  for (guint i = 0; i < STEPS; i++) {
    x[i] = (float) g_rand_double_range (rand, -128, 128);
    weight[i] = i % 5 == 4 ? 0 : (float) g_rand_double_range (rand, 0, i % 3 ? 2 : 100);
  }
  for (guint word = 0; word < 1u << bits; word += 37)
    g_assert_cmpfloat (xb_trellis_value_of (&t, word), ==, xb_trellis_word (bits, depth, (const gint8 (*)[16]) tables, word));
  for (guint s = 0; s < states; s++)
    want[s] = start[s] = cost[s] = is_barred && s != begin ? XB_COST_BARRED : 0;
  guint32 taken = recursion (&t, x, weight, STEPS, want);
  xb_trellis_extend (&t, cost, x, weight, STEPS, back);
  for (guint s = 0; s < states; s++)
    g_assert_cmpuint (cost[s], ==, want[s] - taken);
  /* The way back costs what it says, and ends where a path may begin. */
  for (guint end = 0; end < states; end += states / 16) {
    guint32 sum = 0;
    guint state = end;
    for (guint i = STEPS; i-- > 0;) {
      guint word = xb_trellis_trace (&t, back + i * states, state);
      g_assert_cmpuint (word % states, ==, state);
      sum += error_of (&t, word, x[i], weight[i]);
      state = word >> depth;
    }
    g_assert_cmpuint (sum + start[state], ==, want[end]);
    g_assert_true (!is_barred || state == begin);
  }
  g_free (start);
  g_free (back);
}

static void test_search (gconstpointer data)
{
  if (!select_set (GPOINTER_TO_INT (data)))
    return;
  g_autoptr (GRand) rand = g_rand_new_with_seed (3);
  for (guint depth = 1; depth <= XB_TRELLIS_DEPTH; depth++)
    for (int is_barred = 0; is_barred < 2; is_barred++) {
      check_depth (XB_TRELLIS, depth, is_barred, rand);
      if (xb_trellis_has (XB_TRELLIS16, depth))
        check_depth (XB_TRELLIS16, depth, is_barred, rand);
    }
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  for (int set = 0; set < N_SETS; set++) {
    g_autofree char *path = g_strdup_printf ("/kernels/trellis/%s", set_name (set));
    g_test_add_data_func (path, GINT_TO_POINTER (set), test_search);
  }
  return g_test_run ();
}
