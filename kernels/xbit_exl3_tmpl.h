/* xbit_exl3_tmpl.h: tiles of EXL3 cells to floats, part of xbit_product_tmpl.h; the layout is that of xbit_exl3.h, what a state stands for that of
 * xb_exl3_value.
 *
 * Lane l of a line belongs to row l % 8 and, in the right ring, to columns 16 further on; step q of 32 yields the weights of one column and one half of the
 * rows: every lane of a register is shifted alike. */

typedef uint32_t vu __attribute__ ((vector_size (XB_VL * 4)));
typedef uint32_t vu_memory __attribute__ ((vector_size (XB_VL * 4), may_alias));

/* Lane by lane the last word of the eighth before; 4 lanes are half of a ring. */
#if XB_VL == 16
#define EIGHTH_BEFORE(own, other) __builtin_shufflevector (own, own, 7, 0, 1, 2, 3, 4, 5, 6, 15, 8, 9, 10, 11, 12, 13, 14)
#elif XB_VL == 8
#define EIGHTH_BEFORE(own, other) __builtin_shufflevector (own, own, 7, 0, 1, 2, 3, 4, 5, 6)
#else
#define EIGHTH_BEFORE(own, other) __builtin_shufflevector (own, other, 7, 0, 1, 2)
#endif

/* Column (of the left ring) and half of the rows of step q. */
#define STEP_COLUMN(q) (((q) >> 3) * 2 + ((q) &1) + ((q) >> 1 & 1) * 8)
#define STEP_HALF(q) ((q) >> 2 & 1)

ALWAYS vu exl3_line (const uint8_t *tile, int k, int part)
{
  return *(const vu_memory *) (const void *) (tile + k * 64 + part * PART_BYTES);
}

/* [32 steps][16 lanes] */
ALWAYS void all_states (const uint8_t *tile, const int depth, uint32_t *states)
{
  for (int part = 0; part < PARTS; part++) {
    vu line[XB_MAX_DEPTH + 1];
    UNROLL for (int k = 0; k < depth; k++)
      line[k + 1] = exl3_line (tile, k, part);
    line[0] = EIGHTH_BEFORE (line[depth], exl3_line (tile, depth - 1, PARTS == 4 ? part ^ 1 : part));
    _Pragma ("GCC unroll 32") for (int q = 0; q < 32; q++)
    {
      const int last = q * depth + depth - 1, k = last / 32, shift = 31 - last % 32;
      vu state = line[k + 1] >> shift;
      if (shift > 16)
        state |= line[k] << (32 - shift);
      *(vu_memory *) (void *) (states + q * 16 + part * XB_VL) = state & 0xffff;
    }
  }
}

#define STATES(depth)                                                      \
  static void states##depth (const uint8_t *tile, uint32_t *states)       \
  {                                                                        \
    all_states (tile, depth, states);                                      \
  }
STATES (1) STATES (2) STATES (3) STATES (4) STATES (5) STATES (6) STATES (7) STATES (8)
static void (*const exl3_states[XB_MAX_DEPTH + 1]) (const uint8_t *tile, uint32_t *states)
    = { NULL, states1, states2, states3, states4, states5, states6, states7, states8 };

/* To the 11 bits of an f16, nearest even; numbers so small that an f16 has fewer are sums of a few bits already. */
ALWAYS vf round_to_half (vf v)
{
#if XB_VL == 16 && defined __AVX512F__
  return (vf) _mm512_cvtph_ps (_mm512_cvtps_ph ((__m512) v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif XB_VL == 8 && defined __F16C__
  return (vf) _mm256_cvtph_ps (_mm256_cvtps_ph ((__m256) v, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
#elif XB_VL == 4 && defined __aarch64__
  return (vf) vcvt_f32_f16 (vcvt_f16_f32 ((float32x4_t) v));
#else
  const vu bits = (vu) v;
  return (vf) ((bits + 0xfff + (bits >> 13 & 1)) & 0xffffe000);
#endif
}

ALWAYS vf state_values (const uint32_t *states, const int function)
{
  const vu state = *(const vu_memory *) (const void *) states;
  if (function == XB_EXL3_MUL1) { /* the bytes' sum */
    vu x = state * 0x83dcd12du;
    x = (x & 0xff00ff) + (x >> 8 & 0xff00ff);
    x = (x + (x >> 16)) & 0xffff;
    return round_to_half (__builtin_convertvector ((vi) x, vf) * v_set (0x1.bb8p-8f) + v_set (0x1.bb8p+2f - 0x1.4c4p+3f)); /* exact but for the rounding */
  }
  const vu x = function == XB_EXL3_3INST ? state * 89226354u + 64248484u : state * 0xcbac1fedu;
  /* Both halves of x are f16 of 1/8 to 2: where the exclusive or is done, their 12 low bits and sign lie in an f32 of the same value. */
  const vi high = ((vi) x >> 3 & (int32_t) 0x81ffe000) ^ 0x3f6c0000, low = ((vi) (x << 16) >> 3 & (int32_t) 0x81ffe000) ^ 0x3f6c0000;
  return round_to_half ((vf) low + (vf) high);
}

/* w[32 columns][16 rows] of a tile's states. */
ALWAYS void all_values (const uint32_t *states, const int function, float *w)
{
  enum { WIDTH = XB_VL < 8 ? XB_VL : 8 }; /* lanes of one column */
  for (int q = 0; q < 32; q++)
    UNROLL for (int part = 0; part < PARTS; part++) {
      const vf v = state_values (states + q * 16 + part * XB_VL, function);
      UNROLL for (int lane = 0; lane < XB_VL; lane += WIDTH) {
        const int at = part * XB_VL + lane;
        memcpy (w + (STEP_COLUMN (q) + at / 8 * 16) * 16 + STEP_HALF (q) * 8 + at % 8, (const float *) &v + lane, WIDTH * sizeof (float));
      }
    }
}

static void exl3_tile (const uint8_t *tile, uint32_t depth, uint32_t function, float *w)
{
  uint32_t states[512] __attribute__ ((aligned (64)));
  exl3_states[depth](tile, states);
  switch (function) {
  case XB_EXL3_3INST: all_values (states, XB_EXL3_3INST, w); break;
  case XB_EXL3_MCG: all_values (states, XB_EXL3_MCG, w); break;
  default: all_values (states, XB_EXL3_MUL1, w);
  }
}

/* The weights of one step, in all parts, times their inputs x[32]. */
ALWAYS void add_step (const uint32_t *states, const int function, const float *x, int q, vf sum[PARTS])
{
#if XB_VL == 16
  const vf inputs = (vf) _mm512_mask_broadcastss_ps (_mm512_set1_ps (x[STEP_COLUMN (q)]), 0xff00, _mm_load_ss (x + STEP_COLUMN (q) + 16));
  sum[0] += state_values (states + q * 16, function) * inputs;
#else
  UNROLL for (int part = 0; part < PARTS; part++)
    sum[part] += state_values (states + q * 16 + part * XB_VL, function) * v_set (x[STEP_COLUMN (q) + part * XB_VL / 8 * 16]);
#endif
}

/* y[16] += a tile times x[32], the sums of both halves of the rows in sum. */
ALWAYS void add_tile (const uint32_t *states, const int function, const float *x, vf sum[2][PARTS])
{
  for (int q = 0; q < 32; q += 8)
    UNROLL for (int i = 0; i < 8; i++)
      add_step (states, function, x, q + i, sum[i >> 2]);
}

/* y[16] += the tiles of a run times one vector, in registers. */
static void exl3_one (const run *r, const float_vectors *in, uint32_t i, float *y)
{
  vf sum[2][PARTS];
  float ends[2][16] __attribute__ ((aligned (64))), local[32];
  uint32_t states[512] __attribute__ ((aligned (64)));
  UNROLL for (int part = 0; part < PARTS; part++)
    sum[0][part] = sum[1][part] = v_set (0);
  const uint8_t *tile = r->tiles, *ahead = r->ahead;
  for (uint32_t t = 0; t < r->n_tiles; t++, tile += r->tile_bytes, ahead += r->ahead_step) {
    for (uint32_t line = 0; line <= r->depth; line++)
      __builtin_prefetch (ahead + line * 64, 0, 2);
    const float *x = tile_inputs (in, i, r->tile0 + t, local);
    exl3_states[r->depth](tile, states);
    switch (r->function) {
    case XB_EXL3_3INST: add_tile (states, XB_EXL3_3INST, x, sum); break;
    case XB_EXL3_MCG: add_tile (states, XB_EXL3_MCG, x, sum); break;
    default: add_tile (states, XB_EXL3_MUL1, x, sum);
    }
  }
  for (int half = 0; half < 2; half++)
    UNROLL for (int part = 0; part < PARTS; part++)
      v_store (ends[half] + part * XB_VL, sum[half][part]);
  for (uint32_t row = 0; row < 16; row++)
    y[row] += ends[row / 8][row % 8] + ends[row / 8][8 + row % 8];
}
