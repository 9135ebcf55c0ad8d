/* trellis_tmpl.h: the Viterbi step, one source per instruction set (ops_isa.h). */
#include "kernels/table.h"
#include "kernels/trellis.h"
#include "kernels/vec.h"

enum { TRELLIS_LOW = 1 << 11 };

typedef uint8_t trellis_bytes __attribute__ ((vector_size (XB_VL)));

/* The best of the states that end in the same low bits: all of them lead to the same successors. */
static inline __attribute__ ((always_inline)) void trellis_merge (const float *cost, float *best, uint8_t *back, uint32_t n_low, const uint32_t branches)
{
  for (uint32_t low = 0; low < n_low; low += XB_VL) {
    vf least = v_load (cost + low);
    vi which = { 0 };
    for (uint32_t high = 1; high < branches; high++) {
      const vf other = v_load (cost + high * n_low + low);
      const vi less = other < least;
      least = (vf) (((vi) other & less) | ((vi) least & ~less));
      which = (less & (int) high) | (which & ~less);
    }
    v_store (best + low, least);
    const trellis_bytes bytes = __builtin_convertvector (which, trellis_bytes);
    memcpy (back + low, &bytes, sizeof bytes);
  }
}

static inline __attribute__ ((always_inline)) void trellis_step (const xb_trellis *t, float *cost, float *best, float x, float weight, uint8_t *back,
                                                                 const uint32_t branches)
{
  const uint32_t n_low = (1u << t->bits) / branches;
  trellis_merge (cost, best, back, n_low, branches);
  /* cost[low * branches + branch] = best[low] + error: each best is written `branches` times first, a vector at once. */
  if (branches >= XB_VL) {
    for (uint32_t low = 0; low < n_low; low++)
      for (uint32_t branch = 0; branch < branches; branch += XB_VL) {
        const uint32_t state = low * branches + branch;
        const vf miss = v_set (x) - v_load (t->values + state);
        v_store (cost + state, v_set (best[low]) + v_set (weight) * miss * miss);
      }
    return;
  }
  for (uint32_t low = 0; low < n_low; low++)
    v_store (cost + low * branches, v_set (best[low])); /* what it writes too much the next one corrects; the last one's is room */
  for (uint32_t state = 0; state < n_low * branches; state += XB_VL) {
    const vf miss = v_set (x) - v_load (t->values + state);
    v_store (cost + state, v_load (cost + state) + v_set (weight) * miss * miss);
  }
}

static void trellis_extend (const xb_trellis *t, float *cost, const float *x, const float *weight, uint32_t n, uint8_t *back)
{
  float best[TRELLIS_LOW], work[2 * TRELLIS_LOW + XB_VL];
  const uint32_t states = 1u << t->bits, n_low = states >> t->depth;
  memcpy (work, cost, states * sizeof *cost);
  for (uint32_t i = 0; i < n; i++, back += n_low)
    switch (t->depth) {
    case 1: trellis_step (t, work, best, x[i], weight[i], back, 2); break;
    case 2: trellis_step (t, work, best, x[i], weight[i], back, 4); break;
    case 3: trellis_step (t, work, best, x[i], weight[i], back, 8); break;
    default: trellis_step (t, work, best, x[i], weight[i], back, 16); break;
    }
  memcpy (cost, work, states * sizeof *cost);
}
