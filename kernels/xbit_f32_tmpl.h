/* xbit_f32_tmpl.h: the product with exact f32 activations (A16): a tile becomes 32 columns of 16 f32 weights once and is used for all vectors.
 * The including file provides tile_bytes (), exl3_tile () and XB_VL, and before it float_vectors. */

enum { ROW_VECTORS = 16 / XB_VL, AT_ONCE = 4 };

/* w[32][16] of tile t: scale u + zero. */
static void tile_weights (const run *r, uint32_t t, float *w)
{
  uint8_t bytes[512] __attribute__ ((aligned (64)));
  tile_bytes (r, t, bytes);
  for (uint32_t half = 0; half < 2; half++) {
    size_t group = r->per_group ? t / r->per_group : t * 2 + half;
    for (uint32_t v = 0; v < ROW_VECTORS; v++) {
      const vf scale = v_load (r->scale + group * 16 + v * XB_VL), zero = v_load (r->zero + group * 16 + v * XB_VL);
      for (uint32_t q = half * 4; q < half * 4 + 4; q++) {
        vi four; /* a row's codes of four columns in each lane */
        memcpy (&four, bytes + q * 64 + v * sizeof four, sizeof four);
        for (uint32_t c = 0; c < 4; c++)
          v_store (w + (q * 4 + c) * 16 + v * XB_VL, scale * __builtin_convertvector (four >> (int) (c * 8) & 255, vf) + zero);
      }
    }
  }
}

static inline __attribute__ ((always_inline)) void columns (const float *w, const float *x, size_t ldx, uint32_t n_cols, float *acc, const uint32_t n)
{
  vf sum[AT_ONCE][ROW_VECTORS];
  for (uint32_t i = 0; i < n; i++)
    for (uint32_t v = 0; v < ROW_VECTORS; v++)
      sum[i][v] = v_set (0);
  for (uint32_t c = 0; c < n_cols; c++)
    for (uint32_t i = 0; i < n; i++)
      for (uint32_t v = 0; v < ROW_VECTORS; v++)
        sum[i][v] += v_load (w + c * 16 + v * XB_VL) * v_set (x[i * ldx + c]);
  for (uint32_t i = 0; i < n; i++)
    for (uint32_t v = 0; v < ROW_VECTORS; v++)
      v_store (acc + i * 16 + v * XB_VL, v_load (acc + i * 16 + v * XB_VL) + sum[i][v]);
}

/* y[n][16] += the tiles of an EXL3 run, each made floats once, times n vectors. */
static void exl3_many (const run *r, const float_vectors *in, uint32_t i0, uint32_t n, float *y)
{
  float w[512] __attribute__ ((aligned (64))), x[AT_ONCE][32];
  for (uint32_t t = 0; t < r->n_tiles; t++) {
    exl3_tile (r->tiles + (size_t) t * r->tile_bytes, r->depth, r->function, w);
    for (uint32_t i = 0, some; i < n; i += some) {
      some = n - i < AT_ONCE ? 1 : AT_ONCE;
      for (uint32_t k = 0; k < some; k++) {
        const float *from = tile_inputs (in, i0 + i + k, r->tile0 + t, x[k]);
        if (from != x[k])
          memcpy (x[k], from, sizeof x[k]);
      }
      if (some == 1)
        columns (w, x[0], 32, 32, y + i * 16, 1);
      else
        columns (w, x[0], 32, 32, y + i * 16, AT_ONCE);
    }
  }
}

#ifndef XI_EXL3_ONE
#define XI_EXL3_ONE(r, in, i, y) exl3_many (r, in, i, 1, y)
#endif

/* Both kinds of vectors: the tiles of an EXL3 cell are floats in any case. */
static void run_exl3 (const run *r, const float_vectors *in, uint32_t i0, uint32_t n, float *acc)
{
  float sums[VECTOR_BLOCK * 16] __attribute__ ((aligned (64))), stored[16];
  const float *scale = r->scale;
  if (!scale) {
    half_to_f32 ((const uint16_t *) (const void *) r->stored, stored, 16);
    scale = stored;
  }
  memset (sums, 0, n * 16 * sizeof (float));
  if (n == 1)
    XI_EXL3_ONE (r, in, i0, sums);
  else
    exl3_many (r, in, i0, n, sums);
  for (uint32_t i = 0; i < n * 16; i++)
    acc[i] += scale[i % 16] * sums[i];
}

static void run_exl3_acts (const run *r, const xb_acts *acts, uint32_t i0, uint32_t n, float *acc)
{
  const float_vectors in = { .acts = acts };
  run_exl3 (r, &in, i0, n, acc);
}

static void run_f32 (const run *r, const void *vectors, uint32_t i0, uint32_t n, float *acc)
{
  const float_vectors *in = vectors;
  if (r->codebook == XB_EXL3) {
    run_exl3 (r, in, i0, n, acc);
    return;
  }
  float w[512] __attribute__ ((aligned (64)));
  for (uint32_t t = 0; t < r->n_tiles; t++) {
    uint32_t begin = (r->tile0 + t) * 32, n_cols = in->cols - begin < 32 ? in->cols - begin : 32, i = 0;
    const float *x = in->x + i0 * in->ldx + begin;
    tile_weights (r, t, w);
    for (; i + AT_ONCE <= n; i += AT_ONCE)
      columns (w, x + i * in->ldx, in->ldx, n_cols, acc + i * 16, AT_ONCE);
    for (; i < n; i++)
      columns (w, x + i * in->ldx, in->ldx, n_cols, acc + i * 16, 1);
  }
}

static void matmul_f32 (const xb_matrix *m, const float *x, size_t ldx, uint32_t n, float *y, size_t ldy, uint32_t row0, uint32_t row1)
{
  const float_vectors in = { .x = x, .ldx = ldx, .cols = m->layout.cols };
  walk_vectors (m, &in, n, y, ldy, row0, row1, false, run_f32);
}
