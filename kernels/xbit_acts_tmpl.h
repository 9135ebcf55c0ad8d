/* xbit_acts_tmpl.h: activations to integers, 32 columns at a time: peak, scale, round to nearest even, sums. Part of xbit_product_tmpl.h. */

typedef int8_t act_bytes __attribute__ ((vector_size (XB_VL)));

static void acts_quantize (xb_acts *acts, uint32_t i, const float *x, int bits)
{
  enum { VECTORS = 32 / XB_VL };
  int8_t *q = acts->q + (size_t) i * acts->cols_padded;
  const float limit = bits == 4 ? 7.0f : 127.0f;
  const vf round = v_set (12582912.0f); /* 1.5 2^23: adding it leaves the nearest integer, ties to even, in the low bits */
  for (uint32_t t = 0; t < acts->cols_padded / 32; t++) {
    const size_t tile = (size_t) i * (acts->cols_padded / 32) + t;
    float local[32] = { 0 };
    const float *from = x + t * 32;
    if (acts->cols - t * 32 < 32) {
      memcpy (local, from, (acts->cols - t * 32) * sizeof (float));
      from = local;
    }
    vf v[VECTORS], most = v_set (0);
    for (int j = 0; j < VECTORS; j++) {
      v[j] = v_load (from + j * XB_VL);
      most = v_max (most, (vf) ((vi) v[j] & 0x7fffffff));
    }
    const float peak = v_largest (most), scale = peak / limit, inverse = peak > LEAST_PEAK ? limit / peak : 0;
    vi sums[2] = { vi_set (0), vi_set (0) };
    for (int j = 0; j < VECTORS; j++) {
      /* The clamp also keeps the product's rounding apart from the sum's, so that all sets agree. */
      const vf scaled = v_min (v_max (v[j] * v_set (inverse), v_set (-limit)), v_set (limit));
      const vi w = (vi) (scaled + round) - (vi) round;
      const act_bytes bytes = __builtin_convertvector (w, act_bytes);
      memcpy (q + t * 32 + j * XB_VL, &bytes, sizeof bytes);
      sums[j * XB_VL / 16] += w;
    }
    acts->scale[tile] = scale;
    int total = 0;
    for (int h = 0; h < 2; h++) {
      const int sum = vi_sum (sums[h]);
      acts->sum[tile * 2 + (size_t) h] = (int16_t) sum;
      acts->sum16[tile * 2 + (size_t) h] = scale * (float) sum;
      total += sum;
    }
    acts->sum32[tile] = scale * (float) total;
  }
}
