/* trellis_tables.c: fits the tables of a trellis codebook (quantizer/trellis.c) to the unit Gaussian: alternately encodes random rings with
 * the tables as they are and sets each table to the least squares of what is left, as Lloyd did for scalars.
 *   trellis_tables DEPTH CODES_PER_INDEX N_TABLES [ROUNDS] [SEED] [RINGS]      (those of the tree: 1 4 2, 2 2 2, 3 1 3, 4 1 2; 120 rounds, seeds 11 to 18) */
#include "kernels/trellis.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { RING = 64, HALF = 32, MOST_STATES = 1 << 12 };

static uint64_t random_state = 1;

static double uniform (void)
{
  random_state += 0x9e3779b97f4a7c15u; /* splitmix64 */
  uint64_t z = random_state;
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9u;
  z = (z ^ (z >> 27)) * 0x94d049bb133111ebu;
  return (double) ((z ^ (z >> 31)) >> 11) * 0x1p-53;
}

static float normal (void)
{
  double u = uniform () + 1e-300, v = uniform ();
  return (float) (sqrt (-2 * log (u)) * cos (6.283185307179586 * v));
}

static uint32_t depth, width, n_tables, n_states, n_low;
static float tables[4][16], values[MOST_STATES];

static void sum_tables (void)
{
  for (uint32_t s = 0; s < n_states; s++) {
    values[s] = 0;
    for (uint32_t k = 0; k < n_tables; k++)
      values[s] += tables[k][s >> (k * width) & ((1u << width) - 1)];
  }
}

static uint32_t before (uint32_t state, const uint8_t *back)
{
  uint32_t low = state >> depth;
  return low | (uint32_t) back[low] * n_low;
}

static uint32_t best_of (const float *cost, uint32_t from, uint32_t step)
{
  uint32_t best = from;
  for (uint32_t s = from; s < n_states; s += step)
    best = cost[s] < cost[best] ? s : best;
  return best;
}

/* States of the best closed path found, as quantizer/trellis.c finds it; its squared error. */
static double encode (const xb_trellis *t, const float *x, uint16_t *states)
{
  static float cost[MOST_STATES];
  static uint8_t back[RING * MOST_STATES / 2];
  float weight[RING];
  for (int i = 0; i < RING; i++)
    weight[i] = 1;
  memset (cost, 0, n_states * sizeof *cost);
  xb_trellis_extend (t, cost, x + HALF, weight, HALF, back);
  xb_trellis_extend (t, cost, x, weight, HALF, back + HALF * n_low);
  uint32_t state = best_of (cost, 0, 1);
  for (int i = RING; i-- > HALF;)
    state = before (state, back + (uint32_t) i * n_low);
  const uint32_t seam = state & (n_low - 1);
  for (uint32_t s = 0; s < n_states; s++)
    cost[s] = (s & (n_low - 1)) == seam ? 0 : 1e30f;
  xb_trellis_extend (t, cost, x, weight, RING, back);
  state = best_of (cost, seam, n_low);
  const double error = (double) cost[state];
  for (int i = RING; i-- > 0;) {
    states[i] = (uint16_t) state;
    state = before (state, back + (uint32_t) i * n_low);
  }
  return error;
}

static void refit (const float *x, const uint16_t *states, size_t n)
{
  for (int sweep = 0; sweep < 6; sweep++)
    for (uint32_t k = 0; k < n_tables; k++) {
      double sum[16] = { 0 }, count[16] = { 0 };
      for (size_t i = 0; i < n; i++) {
        const uint32_t index = states[i] >> (k * width) & ((1u << width) - 1);
        double rest = (double) x[i];
        for (uint32_t other = 0; other < n_tables; other++)
          rest -= other == k ? 0 : (double) tables[other][states[i] >> (other * width) & ((1u << width) - 1)];
        sum[index] += rest;
        count[index]++;
      }
      for (uint32_t i = 0; i < 1u << width; i++)
        if (count[i] > 2)
          tables[k][i] = (float) (sum[i] / count[i]);
    }
}

int main (int argc, char **argv)
{
  if (argc < 4) {
    fprintf (stderr, "usage: trellis_tables DEPTH CODES_PER_INDEX N_TABLES [ROUNDS] [SEED] [RINGS]\n");
    return 2;
  }
  const uint32_t codes = (uint32_t) atoi (argv[2]);
  const int rounds = argc > 4 ? atoi (argv[4]) : 120;
  const size_t rings = argc > 6 ? (size_t) atoi (argv[6]) : 500;
  depth = (uint32_t) atoi (argv[1]);
  n_tables = (uint32_t) atoi (argv[3]);
  width = depth * codes;
  if (depth < 1 || depth > 4 || width < 3 || width > 4 || n_tables < 2 || n_tables > 4 || width * n_tables > 12 || width * n_tables < depth + 4 || rounds < 0
      || rings < 1 || rings > 1000000) {
    fprintf (stderr, "trellis_tables: a depth of 1 to 4, an index of 3 or 4 bits and 2 to 4 tables of at most 12 bits in all\n");
    return 2;
  }
  random_state = argc > 5 ? strtoull (argv[5], NULL, 10) : 11;
  n_states = 1u << (width * n_tables);
  n_low = n_states >> depth;
  for (uint32_t k = 0; k < n_tables; k++)
    for (uint32_t i = 0; i < 1u << width; i++)
      tables[k][i] = normal () * sqrtf (0.9f / (float) n_tables);
  sum_tables ();
  float *x = malloc (rings * RING * sizeof *x);
  uint16_t *states = malloc (rings * RING * sizeof *states);
  if (!x || !states)
    return 1;
  const xb_trellis t = { depth, width * n_tables, values };
  for (int round = 0;; round++) {
    double error = 0, energy = 0;
    for (size_t i = 0; i < rings * RING; i++) {
      x[i] = normal ();
      energy += (double) (x[i] * x[i]);
    }
    for (size_t i = 0; i < rings; i++)
      error += encode (&t, x + i * RING, states + i * RING);
    if (round % 20 == 0 || round == rounds)
      printf ("round %d: mean squared error %.5f\n", round, error / energy);
    if (round == rounds)
      break;
    refit (x, states, rings * RING);
    sum_tables ();
  }
  for (uint32_t k = 0; k < n_tables; k++) {
    printf ("{");
    for (uint32_t i = 0; i < 1u << width; i++)
      printf (" %.3ff%s", (double) tables[k][i], i + 1 < 1u << width ? "," : " }\n");
  }
  free (x);
  free (states);
  return 0;
}
