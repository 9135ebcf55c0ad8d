/* test_ops.c: the rest of a decoder's arithmetic, on each instruction set this CPU has, against double precision: random and extreme numbers, odd
 * sizes, in memory that ends at a forbidden page. The bounds are stated beside each check, in units of f32's rounding (EPS). */
#include <glib.h>
#include <math.h>
#include <string.h>

#include "kernels/cpu.h"
#include "kernels/dense.h"
#include "kernels/ops.h"
#include "kernels/xbit.h"

#include "guarded.h"
#include "sets.h"

#define EPS 0x1p-24

static const guint sizes[] = { 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 63, 64, 65, 100, 576, 1001 };

/* n floats that end at the guard, from -spread to spread. */
static float *floats (GRand *rand, guint n, double spread)
{
  float *x = (float *) (void *) guarded_new (n * sizeof (float));
  for (guint i = 0; i < n; i++)
    x[i] = (float) g_rand_double_range (rand, -spread, spread);
  return x;
}

static void release (float *x, guint n)
{
  guarded_free ((guint8 *) x, n * sizeof (float));
}

static void near_enough (const char *what, guint n, guint i, double value, double wanted, double bound)
{
  if (!(fabs (value - wanted) <= bound))
    g_error ("%s of %u on %s: value %u is %g instead of %g", what, n, set_name (selected_set), i, value, wanted);
}

static void check_norms (GRand *rand)
{
  for (guint s = 0; s < G_N_ELEMENTS (sizes); s++)
    for (int flags = 0; flags < 8; flags++) {
      guint n = sizes[s];
      float *x = floats (rand, n, flags & 4 ? 1e15 : 3), *gain = floats (rand, n, 2), *bias = floats (rand, n, 2), *out = floats (rand, n, 1);
      double square = 0, mean = 0, variance = 0;
      for (guint i = 0; i < n; i++) {
        square += (double) x[i] * (double) x[i];
        mean += (double) x[i] / n;
      }
      for (guint i = 0; i < n; i++)
        variance += ((double) x[i] - mean) * ((double) x[i] - mean) / n;
      double scale = 1 / sqrt (square / n + (double) 1e-5f), scale_layer = 1 / sqrt (variance + (double) 1e-5f), most = 0;
      for (guint i = 0; i < n; i++)
        most = MAX (most, fabs ((double) x[i]));
      xb_rms_norm (x, flags & 1 ? gain : NULL, out, n, 1e-5f);
      for (guint i = 0; i < n; i++) {
        double want = (double) x[i] * scale * (flags & 1 ? (double) gain[i] : 1);
        near_enough ("rms_norm", n, i, (double) out[i], want, fabs (want) * EPS * (8 + n / 4.0)); /* one rounding for each square of a lane */
      }
      xb_layer_norm (x, flags & 1 ? gain : NULL, flags & 2 ? bias : NULL, out, n, 1e-5f);
      for (guint i = 0; i < n; i++) {
        double g = flags & 1 ? (double) gain[i] : 1, want = ((double) x[i] - mean) * scale_layer * g + (flags & 2 ? (double) bias[i] : 0);
        near_enough ("layer_norm", n, i, (double) out[i], want, EPS * (8 * fabs (want) + 8 * most * scale_layer * fabs (g) + 4));
      }
      xb_rms_norm (x, gain, out, n, 1e-5f);
      xb_rms_norm (x, gain, x, n, 1e-5f); /* in place */
      g_assert_cmpmem (x, n * sizeof (float), out, n * sizeof (float));
      release (x, n);
      release (gain, n);
      release (bias, n);
      release (out, n);
    }
}

static void check_rope (GRand *rand)
{
  for (guint n = 2; n <= 256; n += n < 40 ? 2 : 54)
    for (int halves = 0; halves < 2; halves++) {
      float *x = floats (rand, n, 5), *cs = floats (rand, n, 1), before[256];
      memcpy (before, x, n * sizeof (float));
      if (halves)
        xb_rope_halves (x, cs, n);
      else
        xb_rope_pairs (x, cs, n);
      for (guint i = 0; i < n / 2; i++) {
        guint first = halves ? i : 2 * i, second = halves ? i + n / 2 : 2 * i + 1;
        double a = (double) before[first], b = (double) before[second], c = (double) cs[2 * i], s = (double) cs[2 * i + 1];
        near_enough ("rope", n, first, (double) x[first], a * c - b * s, EPS * 3 * (fabs (a * c) + fabs (b * s)));
        near_enough ("rope", n, second, (double) x[second], a * s + b * c, EPS * 3 * (fabs (a * s) + fabs (b * c)));
      }
      release (x, n);
      release (cs, n);
    }
}

static void check_gates (GRand *rand)
{
  static const float extremes[] = { 0, -0.0f, 1e-30f, 88, -88, 90, -90, 1000, -1000, 1e12f, -1e12f };
  for (guint s = 0; s < G_N_ELEMENTS (sizes); s++)
    for (int gelu = 0; gelu < 2; gelu++) {
      guint n = sizes[s];
      float *gate = floats (rand, n, 10), *up = floats (rand, n, 3), *out = floats (rand, n, 1);
      for (guint i = 0; i < n; i += 3)
        gate[i] = extremes[(i + s) % G_N_ELEMENTS (extremes)];
      (gelu ? xb_gelu_mul : xb_silu_mul) (gate, up, out, n);
      for (guint i = 0; i < n; i++) {
        double g = (double) gate[i], u = gelu ? sqrt (8 / G_PI) * (g + 0.044715 * g * g * g) : g, want = g / (1 + exp (-u)) * (double) up[i];
        /* a rounding of the exponent u counts |u| times in its exponential; below e^-87 that is 0 */
        near_enough (gelu ? "gelu" : "silu", n, i, (double) out[i], want, EPS * (12 + 8 * MIN (fabs (u), 100)) * fabs (want) + 1e-34 * (1 + fabs (g)));
      }
      (gelu ? xb_gelu_mul : xb_silu_mul) (gate, up, gate, n); /* in place */
      g_assert_cmpmem (gate, n * sizeof (float), out, n * sizeof (float));
      release (gate, n);
      release (up, n);
      release (out, n);
    }
}

static void check_softmax (GRand *rand)
{
  for (guint s = 0; s < G_N_ELEMENTS (sizes); s++)
    for (int kind = 0; kind < 4; kind++) {
      guint n = sizes[s];
      float *x = floats (rand, n, kind == 1 ? 1e4 : kind == 2 ? 1e30 : 5);
      if (kind == 3)
        for (guint i = 0; i + 1 < n; i += 2)
          x[i] = -INFINITY;
      double max = -INFINITY, sum = 0;
      for (guint i = 0; i < n; i++)
        max = MAX (max, (double) x[i]);
      for (guint i = 0; i < n; i++)
        sum += exp ((double) x[i] - max);
      float before[1001];
      memcpy (before, x, n * sizeof (float));
      double bound = EPS * (16 + 2 * fabs (max));
      near_enough ("log_sum_exp", n, 0, (double) xb_log_sum_exp (x, n), max + log (sum), bound);
      near_enough ("softmax's normaliser", n, 0, (double) xb_softmax (x, n), max + log (sum), bound);
      for (guint i = 0; i < n; i++) {
        double below = (double) before[i] - max, want = exp (below) / sum;
        near_enough ("softmax", n, i, (double) x[i], want, EPS * (16 + 2 * MIN (fabs (below), 100)) * want + 1e-37);
      }
      release (x, n);
    }
}

static void check_argmax (GRand *rand)
{
  for (guint s = 0; s < G_N_ELEMENTS (sizes); s++)
    for (guint at = 0; at < sizes[s]; at += 1 + sizes[s] / 37) {
      guint n = sizes[s];
      float *x = floats (rand, n, 5);
      g_assert_cmpuint (xb_argmax (x, n), <, n);
      x[at] = 7;
      x[n - 1] = 7; /* the first of equals */
      g_assert_cmpuint (xb_argmax (x, n), ==, at);
      for (guint i = 0; i < n; i++)
        x[i] = -INFINITY;
      g_assert_cmpuint (xb_argmax (x, n), ==, 0);
      release (x, n);
    }
}

static void check_vectors (GRand *rand)
{
  for (guint s = 0; s < G_N_ELEMENTS (sizes); s++) {
    guint n = sizes[s];
    float *x = floats (rand, n, 5), *y = floats (rand, n, 5), sum[1001], product[1001];
    for (guint i = 0; i < n; i++) {
      sum[i] = x[i] + y[i];
      product[i] = sum[i] * 0.37f;
    }
    xb_add (x, y, n);
    g_assert_cmpmem (x, n * sizeof (float), sum, n * sizeof (float));
    xb_scale (x, 0.37f, n);
    g_assert_cmpmem (x, n * sizeof (float), product, n * sizeof (float));
    release (x, n);
    release (y, n);
  }
}

/* y[i] = 1/sqrt(n) sum over j of (-1)^popcount(i & j) x[j] */
static void hadamard_reference (const float *x, guint n, double *y)
{
  for (guint i = 0; i < n; i++) {
    y[i] = 0;
    for (guint j = 0; j < n; j++)
      y[i] += (__builtin_popcount (i & j) & 1 ? -1 : 1) * (double) x[j] / sqrt (n);
  }
}

static void check_hadamard (GRand *rand)
{
  for (guint block = 2; block <= 1024; block *= 2) {
    guint n = block < 512 ? block * 3 : block;
    float *x = floats (rand, n, 4), before[1024];
    g_autofree double *want = g_new (double, block);
    memcpy (before, x, n * sizeof (float));
    xb_hadamard (x, n, block);
    for (guint at = 0; at < n; at += block) {
      hadamard_reference (before + at, block, want);
      for (guint i = 0; i < block; i++)
        near_enough ("hadamard", block, i, (double) x[at + i], want[i], EPS * 4 * 12 * sqrt (block)); /* log2 (block) + 2 roundings of sums this large */
    }
    xb_hadamard (x, n, block); /* its own inverse */
    for (guint i = 0; i < n; i++)
      near_enough ("hadamard twice", block, i, (double) x[i], (double) before[i], EPS * 4 * 24 * sqrt (block));
    release (x, n);
  }
}

/* Widths that are no power of two fall apart into blocks that are. */
static void check_split_hadamard (GRand *rand)
{
  static const struct {
    guint cols, block, parts[4];
  } cases[] = { { 576, 512, { 512, 64 } }, { 640, 512, { 512, 128 } }, { 896, 512, { 512, 256, 128 } }, { 1536, 1024, { 1024, 512 } },
                { 576, 64, { 64, 64, 64, 64 } }, { 100, 64, { 64, 32, 4 } } };
  for (guint c = 0; c < G_N_ELEMENTS (cases); c++) {
    guint n = cases[c].cols;
    g_autofree guint8 *signs = g_malloc0 (n / 8 + 1);
    for (guint i = 0; i < n / 8 + 1; i++)
      signs[i] = (guint8) g_rand_int_range (rand, 0, 256);
    xb_input_layout layout = { .cols = n, .block = cases[c].block, .signs = signs };
    gsize size = xb_input_bytes (&layout, NULL);
    guint8 *blob = guarded_new (size);
    g_assert_null (xb_input_init (blob, size, &layout));
    xb_input *input = xb_input_open (blob, size, NULL);
    g_assert_nonnull (input);
    float *x = floats (rand, n, 4), *out = floats (rand, n, 1), *back = floats (rand, n, 1);
    xb_input_apply (input, x, out);
    guint at = 0;
    for (guint p = 0; p < 4 && cases[c].parts[p]; p++) {
      guint block = cases[c].parts[p];
      g_autofree double *want = g_new (double, block);
      g_autofree float *turned = g_new (float, block);
      for (guint i = 0; i < block; i++)
        turned[i] = signs[(at + i) / 8] >> ((at + i) % 8) & 1 ? -x[at + i] : x[at + i];
      hadamard_reference (turned, block, want);
      for (guint i = 0; i < block; i++)
        near_enough ("split hadamard", n, at + i, (double) out[at + i], want[i], EPS * 4 * 12 * sqrt (block));
      at += block;
    }
    xb_input_restore_row (input, out, back);
    for (guint i = 0; i < n; i++)
      near_enough ("split hadamard and back", n, i, (double) back[i], (double) x[i], EPS * 4 * 24 * sqrt (n));
    for (guint begin = 0, block = cases[c].block; begin < n; begin += block) /* in place, a block at a time: the same, to the last bit */
      xb_input_restore (input, out + begin, begin, MIN (begin + block, n));
    g_assert_cmpmem (out, n * sizeof (float), back, n * sizeof (float));
    xb_input_apply (input, x, out);
    for (guint begin = 0, block = cases[c].block; begin < n; begin += block)
      xb_input_apply_columns (input, x + begin, back + begin, begin, MIN (begin + block, n));
    g_assert_cmpmem (out, n * sizeof (float), back, n * sizeof (float));
    xb_input_free (input);
    release (x, n);
    release (out, n);
    release (back, n);
    guarded_free (blob, size);
  }
}

/* Each of the 65,536 halves becomes the same float, and back; floats between halves go to the nearest, ties to even, as one by one. */
static void check_halves (GRand *rand)
{
  enum { N = 65536 };
  g_autofree guint16 *halves = g_new (guint16, N), *back = g_new (guint16, N);
  g_autofree float *x = g_new (float, N);
  for (guint i = 0; i < N; i++)
    halves[i] = (guint16) i;
  xb_raw_to_f32 (XB_RAW_F16, halves, x, N);
  xb_f32_to_f16 (x, back, N);
  for (guint i = 0; i < N; i++) {
    float one = xb_half_to_float (halves[i]);
    gboolean is_nan = (i & 0x7fff) > 0x7c00;
    g_assert_true (is_nan ? isnan (x[i]) : memcmp (&one, &x[i], 4) == 0);
    g_assert_true (is_nan ? (back[i] & 0x7fff) > 0x7c00 : back[i] == halves[i]);
  }
  for (guint i = 0; i < N; i++)
    x[i] = i < 1000 ? xb_half_to_float ((guint16) (i * 31)) * (1 + 0x1p-11f) : (float) ldexp (g_rand_double_range (rand, -1, 1), g_rand_int_range (rand, -30, 20));
  xb_f32_to_f16 (x, back, N);
  for (guint i = 0; i < N; i++)
    g_assert_cmpuint (back[i], ==, xb_float_to_half (x[i]));
}

static void check_raw_and_gemm (GRand *rand)
{
  static const guint shapes[][3] = { { 1, 1, 1 }, { 3, 5, 7 }, { 17, 33, 65 }, { 5, 100, 300 }, { 2, 40, 513 } };
  for (guint s = 0; s < G_N_ELEMENTS (shapes); s++) {
    guint n = shapes[s][0], rows = shapes[s][1], cols = shapes[s][2];
    float *x = floats (rand, n * cols, 2), *w = floats (rand, rows * cols, 2), *y = floats (rand, n * rows, 1);
    guint16 *half = (guint16 *) (void *) guarded_new ((gsize) rows * cols * 2);
    for (int type = XB_RAW_F32; type <= XB_RAW_BF16; type++) {
      for (guint i = 0; i < rows * cols; i++) {
        guint32 bits;
        if (type == XB_RAW_BF16) {
          memcpy (&bits, &w[i], 4);
          half[i] = (guint16) (bits >> 16);
          bits &= 0xffff0000;
          memcpy (&w[i], &bits, 4);
        } else if (type == XB_RAW_F16) {
          half[i] = xb_float_to_half (w[i]);
          w[i] = xb_half_to_float (half[i]);
        }
      }
      for (int how = 0; how < 9; how++) { /* four orders of the dense product, the raw one, the four of rounded factors */
        g_autofree float *a = g_new (float, n * cols), *b = g_new (float, rows * cols);
        gboolean turned_a = how != 4 && (how < 4 ? how : how - 5) & 1, turned_b = how != 4 && (how < 4 ? how : how - 5) & 2, rounded = how > 4;
        for (guint i = 0; i < n; i++)
          for (guint k = 0; k < cols; k++)
            a[turned_a ? k * n + i : i * cols + k] = x[i * cols + k];
        for (guint r = 0; r < rows; r++)
          for (guint k = 0; k < cols; k++)
            b[turned_b ? r * cols + k : k * rows + r] = w[r * cols + k];
        if (how == 4)
          xb_raw_matmul ((xb_raw_type) type, type == XB_RAW_F32 ? (const void *) w : half, cols, x, cols, n, y, rows, 0, rows);
        else
          (rounded ? xb_gemm_bf16 : xb_gemm) (turned_a, turned_b, 0, n, rows, cols, a, turned_a ? n : cols, b, turned_b ? cols : rows, 0, y, rows);
        for (guint i = 0; i < n; i++)
          for (guint r = 0; r < rows; r++) {
            double want = 0, size = 0;
            for (guint k = 0; k < cols; k++) {
              want += (double) x[i * cols + k] * (double) w[r * cols + k];
              size += fabs ((double) x[i * cols + k] * (double) w[r * cols + k]);
            }
            near_enough (how == 4 ? "raw product" : rounded ? "rounded product" : "dense product", cols, i * rows + r, (double) y[i * rows + r], want,
                         (EPS * (8 + cols / 4.0) + (rounded ? 0x1.01p-7 : 0)) * size);
          }
      }
    }
    guarded_free ((guint8 *) half, (gsize) rows * cols * 2);
    release (x, n * cols);
    release (w, rows * cols);
    release (y, n * rows);
  }
}

/* A8 and A4: the integers and sums of the scalar reference, bit by bit; each value within half a step. */
static void check_activations (GRand *rand)
{
  for (guint s = 0; s < G_N_ELEMENTS (sizes); s++)
    for (int kind = 0; kind < 8; kind++) {
      guint cols = sizes[s], padded = (cols + 31) / 32 * 32, bits = kind & 1 ? 4 : 8;
      float *x = floats (rand, cols, kind & 2 ? 1e-20 : kind & 4 ? 1e20 : 3);
      if (kind & 4)
        for (guint i = 0; i < cols; i++)
          x[i] = ldexpf (x[i], g_rand_int_range (rand, -40, 1));
      gsize bytes = xb_acts_bytes (cols, 1);
      guint8 *memory[2] = { guarded_new (bytes), guarded_new (bytes) };
      xb_acts acts[2];
      int set = selected_set;
      for (int i = 0; i < 2; i++) {
        memset (memory[i], 0x55, bytes);
        xb_acts_init (&acts[i], memory[i], cols, 1);
        g_assert_true (select_set (i ? XB_ISA_SCALAR : set));
        xb_acts_quantize (&acts[i], 0, x, (int) bits);
      }
      g_assert_true (select_set (set));
      g_assert_cmpmem (acts[0].q, padded, acts[1].q, padded);
      g_assert_cmpmem (acts[0].sum, padded / 8, acts[1].sum, padded / 8);
      g_assert_cmpmem (acts[0].scale, padded / 8, acts[1].scale, padded / 8);
      g_assert_cmpmem (acts[0].sum16, padded / 4, acts[1].sum16, padded / 4);
      g_assert_cmpmem (acts[0].sum32, padded / 8, acts[1].sum32, padded / 8);
      for (guint i = 0; i < padded; i++) {
        double scale = (double) acts[0].scale[i / 32], q = (double) acts[0].q[i];
        g_assert_cmpfloat (fabs (q), <=, bits == 4 ? 7 : 127);
        near_enough ("activation", cols, i, q * scale, i < cols ? (double) x[i] : 0, scale * (0.5 + 1e-4) + 1e-30); /* smaller ones are 0 */
      }
      guarded_free (memory[0], bytes);
      guarded_free (memory[1], bytes);
      release (x, cols);
    }
}

typedef void (*Check) (GRand *rand);

static const struct {
  const char *name;
  Check check;
} checks[] = {
  { "activations", check_activations }, { "norms", check_norms }, { "rope", check_rope }, { "silu-gelu", check_gates }, { "softmax", check_softmax },
  { "argmax", check_argmax }, { "add-scale", check_vectors }, { "hadamard", check_hadamard }, { "hadamard-split", check_split_hadamard },
  { "halves", check_halves }, { "raw-dense", check_raw_and_gemm },
};

static void test_check (gconstpointer data)
{
  guint which = (guint) GPOINTER_TO_INT (data) / N_SETS;
  if (!select_set (GPOINTER_TO_INT (data) % N_SETS))
    return;
  g_autoptr (GRand) rand = g_rand_new_with_seed (17 + which);
  checks[which].check (rand);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  for (int set = 0; set < N_SETS; set++)
    for (guint i = 0; i < G_N_ELEMENTS (checks); i++) {
      g_autofree char *path = g_strdup_printf ("/kernels/ops/%s/%s", set_name (set), checks[i].name);
      g_test_add_data_func (path, GINT_TO_POINTER ((int) i * N_SETS + set), test_check);
    }
  return g_test_run ();
}
