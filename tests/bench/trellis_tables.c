/* trellis_tables.c: fits the tables of a trellis (quantizer/trellis.c) to the unit Gaussian: alternately encodes random chains with the tables as
 * they are and sets the tables to the least squares of what was encoded, as Lloyd did for scalars; a little noise that dies away keeps them out
 * of poor minima. Prints them as they are stored, the error that they leave then, and what the search takes.
 *   trellis_tables DEPTH [ROUNDS] [SEED] [CHAINS] [WORD BITS: 12, 16] */
#include "kernels/trellis.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { CHAIN = 1024, WORDS = 1 << XB_MOST_WORD_BITS, TABLES = 3, ENTRIES = TABLES * 16, CHECK_CHAINS = 250 };

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

static xb_trellis trellis;
static uint32_t word_bits, depth, n_tables;
static float largest; /* value */
static float finer = 32; /* values are counted in so many parts while they are fitted: bytes as they are */
static uint8_t entry[WORDS][TABLES]; /* k * 16 + index of table k */
static float tables[ENTRIES];

/* Which entries a word adds up, asked of the definition. */
static void find_entries (void)
{
  for (uint32_t k = 0; k < n_tables; k++) {
    int8_t probe[TABLES][16] = { 0 };
    for (int i = 0; i < 16; i++)
      probe[k][i] = (int8_t) i;
    for (uint32_t word = 0; word < 1u << word_bits; word++)
      entry[word][k] = (uint8_t) (k * 16 + (uint32_t) xb_trellis_word (word_bits, depth, (const int8_t (*)[16]) probe, word));
  }
}

static void sum_tables (void)
{
  static float values[WORDS];
  memset (values, 0, sizeof values);
  for (uint32_t word = 0; word < 1u << word_bits; word++)
    for (uint32_t k = 0; k < n_tables; k++)
      values[word] += tables[entry[word][k]] * finer;
  for (uint32_t word = 0; word < 1u << word_bits; word++)
    values[word] = fmaxf (-127, fminf (127, values[word]));
  xb_trellis_set (&trellis, word_bits, depth, values);
  largest = 0;
  for (uint32_t word = 0; word < 1u << word_bits; word++)
    largest = fmaxf (largest, fabsf (values[word] / finer));
}

/* Words of the best chain; its squared error. `unit`: what the values are counted in. */
static double encode (const float *from, float unit, uint16_t *words)
{
  static const float clip[XB_TRELLIS_DEPTH + 1] = { 0, 12, 3.5f, 3, 1.5f, 0.6f, 0.3f };
  static uint16_t cost[WORDS / 2];
  static uint8_t back[CHAIN * WORDS / 2];
  const uint32_t states = xb_trellis_states (&trellis);
  float weight[CHAIN], x[CHAIN];
  for (int i = 0; i < CHAIN; i++) {
    weight[i] = (float) xb_trellis_most_cost (&trellis) * unit * unit / (clip[depth] * finer * finer);
    x[i] = fmaxf (-largest, fminf (largest, from[i])) / unit * finer;
  }
  for (uint32_t s = 0; s < states; s++)
    cost[s] = s ? XB_COST_BARRED : 0;
  xb_trellis_extend (&trellis, cost, x, weight, CHAIN, back);
  uint32_t state = 0;
  for (uint32_t s = 0; s < states; s++)
    state = cost[s] < cost[state] ? s : state;
  double error = 0;
  for (uint32_t i = CHAIN; i-- > 0;) {
    words[i] = (uint16_t) xb_trellis_trace (&trellis, back + i * states, state);
    state = words[i] >> depth;
    const float miss = from[i] - xb_trellis_value_of (&trellis, words[i]) * unit / finer;
    error += (double) (miss * miss);
  }
  return error;
}

/* Least squares of all entries at once, with a little pull towards where they are; noise. */
static void refit (const float *x, const uint16_t *words, size_t n, double noise)
{
  static double a[ENTRIES][ENTRIES + 1];
  const uint32_t size = n_tables * 16;
  memset (a, 0, sizeof a);
  for (size_t i = 0; i < n; i++)
    for (uint32_t k = 0; k < n_tables; k++) {
      double *row = a[entry[words[i]][k]];
      for (uint32_t j = 0; j < n_tables; j++)
        row[entry[words[i]][j]]++;
      row[ENTRIES] += (double) x[i];
    }
  for (uint32_t i = 0; i < size; i++) {
    const double pull = (double) n * 2e-5;
    a[i][i] += pull;
    a[i][ENTRIES] += pull * (double) tables[i];
  }
  for (uint32_t i = 0; i < size; i++)
    for (uint32_t r = 0; r < size; r++) {
      const double m = r == i ? 0 : a[r][i] / a[i][i];
      for (uint32_t j = i; j <= ENTRIES && m != 0; j++)
        a[r][j] -= m * a[i][j];
    }
  for (uint32_t i = 0; i < size; i++)
    tables[i] = (float) (a[i][ENTRIES] / a[i][i] + noise * (double) normal ());
}

static double run (const float *x, float unit, uint16_t *words, size_t chains)
{
  double error = 0, energy = 0;
  for (size_t i = 0; i < chains; i++)
    error += encode (x + i * CHAIN, unit, words + i * CHAIN);
  for (size_t i = 0; i < chains * CHAIN; i++)
    energy += (double) (x[i] * x[i]);
  return error / energy;
}

/* Rounds them to bytes: the largest sum is 127. */
static float store (int8_t stored[TABLES][16])
{
  const float unit = largest / (127 - 0.5f * (float) n_tables);
  for (uint32_t i = 0; i < n_tables * 16; i++)
    stored[i / 16][i % 16] = (int8_t) lrintf (tables[i] / unit);
  return unit;
}

int main (int argc, char **argv)
{
  depth = argc > 1 ? (uint32_t) atoi (argv[1]) : 0;
  const int rounds = argc > 2 ? atoi (argv[2]) : 150;
  const size_t chains = argc > 4 ? (size_t) atoi (argv[4]) : 60, most = chains > CHECK_CHAINS ? chains : CHECK_CHAINS;
  const uint32_t codebook = argc > 5 && atoi (argv[5]) == XB_MOST_WORD_BITS ? XB_TRELLIS16 : XB_TRELLIS;
  word_bits = xb_word_bits (codebook);
  if (depth < 1 || !xb_trellis_has (codebook, depth) || (argc > 5 && (uint32_t) atoi (argv[5]) != word_bits) || rounds < 0 || chains < 1 || chains > 1000000) {
    fprintf (stderr, "usage: trellis_tables DEPTH [ROUNDS] [SEED] [CHAINS] [WORD BITS: 12, 16]\n");
    return 2;
  }
  random_state = argc > 3 ? strtoull (argv[3], NULL, 10) : 11;
  n_tables = xb_trellis_tables (depth);
  find_entries ();
  for (uint32_t i = 0; i < n_tables * 16; i++)
    tables[i] = normal () / sqrtf ((float) n_tables);
  sum_tables ();
  float *x = malloc (most * CHAIN * sizeof *x);
  uint16_t *words = malloc (most * CHAIN * sizeof *words);
  if (!x || !words)
    return 1;
  for (int round = 0; round < rounds; round++) {
    for (size_t i = 0; i < chains * CHAIN; i++)
      x[i] = normal ();
    const double error = run (x, 1, words, chains), left = 1 - (double) round / rounds;
    if (round % 30 == 0)
      fprintf (stderr, "round %d: mean squared error %.5f\n", round, error);
    refit (x, words, chains * CHAIN, round < rounds * 3 / 4 ? 0.3 * left * left / (1 << depth) : 0);
    sum_tables ();
  }
  random_state = 1;
  for (size_t i = 0; i < CHECK_CHAINS * CHAIN; i++)
    x[i] = normal ();
  int8_t stored[TABLES][16] = { 0 };
  const double before = run (x, 1, words, CHECK_CHAINS);
  const float unit = store (stored);
  finer = 1;
  xb_trellis_init (&trellis, word_bits, depth, (const int8_t (*)[16]) stored);
  const clock_t begun = clock ();
  const double after = run (x, unit, words, CHECK_CHAINS), microseconds = (double) (clock () - begun) * 1e6 / CLOCKS_PER_SEC;
  printf ("depth %u, seed %s: mean squared error %.5f; as bytes of %.5f: %.5f; %.3f microseconds a weight\n", depth, argc > 3 ? argv[3] : "11", before, (double) unit,
          after, microseconds / (CHECK_CHAINS * CHAIN));
  for (uint32_t k = 0; k < n_tables; k++) {
    printf ("{");
    for (int i = 0; i < 16; i++)
      printf (" %d%s", stored[k][i], i < 15 ? "," : " },\n");
  }
  free (x);
  free (words);
  return 0;
}
