/* test_quantized.c: checkpoints that other programs quantized. Each is packed here by the format's published packing, from codes and scales that the
 * test keeps; what they stand for is computed from those in double precision. Rows read are that, rounded once; a packed matrix holds it;
 * and a whole model answers as one of plain floats with the same weights does. */
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/hf_checkpoint.h"
#include "engine/checkpoint/packed.h"
#include "engine/model.h"
#include "engine/session.h"
#include "tests/fixtures/st_folder.h"

#include <glib/gstdio.h>
#include <math.h>
#include <string.h>
#include <sys/resource.h>

enum { EMBD = 128, FF = 256, HEADS = 4, KV = 2, DIM = 32, LAYERS = 2, VOCAB = 128, MAX_SIDE = 256 };

typedef struct Format Format;
struct Format {
  const char *name, *config;                 /* quantization_config */
  void (*pack) (const Format *f, StFile *st, const char *module, guint rows, guint cols, double *w);
  guint bits, group;
  gboolean flag, other, is_mixture;
  double tolerance;                          /* of a weight, relative to the largest of the matrix: 0: exact */
};

static char *folder, *plain_folder, *packed_path;
static GRand *rng;
static EngWorkers *workers;

static void add (StFile *st, const char *module, const char *part, const char *dtype, guint n_dims, guint64 d0, guint64 d1, guint64 d2, const void *data, gsize bytes)
{
  g_autofree char *name = g_strconcat (module, ".", part, NULL);
  const guint64 dims[3] = { d0, d1, d2 };
  st_add (st, name, dtype, n_dims, dims, data, bytes);
}

static guint code (guint bits)
{
  return (guint) g_rand_int_range (rng, 0, 1 << bits);
}

/* A scale such that codes of `bits` bits make weights of about one over the root of the width. */
static float half_scale (guint bits, guint cols)
{
  return xb_round_scale ((float) (g_rand_double_range (rng, 0.5, 1.5) * 3 / sqrt (cols) / (1 << bits)));
}

static float bfloat (float x)
{
  guint32 word;
  memcpy (&word, &x, 4);
  word &= 0xffff0000;
  memcpy (&x, &word, 4);
  return x;
}

/* Codes put one behind the other from the lowest bit up. */
static void put_bits (guint32 *words, gsize stride, gsize at, guint value, guint bits)
{
  for (guint i = 0; i < bits; i++, at++)
    words[at / 32 * stride] |= (guint32) (value >> i & 1) << (at % 32);
}

/* ---- GPTQ: flag: columns by importance, other: version 2, zero points as they are ------------------------------------------------ */

static void pack_gptq (const Format *f, StFile *st, const char *module, guint rows, guint cols, double *w)
{
  guint group = f->group ? f->group : cols, groups = cols / group, bits = f->bits;
  g_autofree guint32 *codes = g_new0 (guint32, cols * bits / 32 * rows), *zeros = g_new0 (guint32, groups * rows * bits / 32), *group_of = g_new (guint32, cols);
  g_autofree guint16 *scales = g_new (guint16, groups * rows);
  g_autofree int *zero = g_new (int, groups * rows);
  for (guint i = 0; i < cols; i++)
    group_of[i] = i / group;
  for (guint i = cols - 1; i > 0 && f->flag; i--) {
    guint k = (guint) g_rand_int_range (rng, 0, (gint) i + 1), t = group_of[i];
    group_of[i] = group_of[k];
    group_of[k] = t;
  }
  for (guint i = 0; i < groups * rows; i++) {
    scales[i] = xb_float_to_half (half_scale (bits, cols));
    zero[i] = f->name[4] == '-' ? 1 << (bits - 1) : g_rand_int_range (rng, f->other ? 0 : 1, 1 << bits); /* GPTQ-...: symmetric */
    put_bits (zeros + i / rows * (rows * bits / 32), 1, (gsize) (i % rows) * bits, (guint) (zero[i] - !f->other), bits);
  }
  for (guint o = 0; o < rows; o++)
    for (guint i = 0; i < cols; i++) {
      guint q = code (bits), g = group_of[i] * rows + o;
      put_bits (codes + o, rows, (gsize) i * bits, q, bits);
      w[o * cols + i] = (double) xb_half_to_float (scales[g]) * ((int) q - zero[g]);
    }
  add (st, module, "qweight", "I32", 2, cols * bits / 32, rows, 0, codes, cols * bits / 8 * rows);
  add (st, module, "qzeros", "I32", 2, groups, rows * bits / 32, 0, zeros, groups * rows * bits / 8);
  add (st, module, "scales", "F16", 2, groups, rows, 0, scales, groups * rows * 2);
  add (st, module, "g_idx", "I32", 1, cols, 0, 0, group_of, cols * 4);
}

/* ---- AWQ ------------------------------------------------------------------------------------------------------------------------------ */

static void pack_awq (const Format *f, StFile *st, const char *module, guint rows, guint cols, double *w)
{
  static const guint order[8] = { 0, 2, 4, 6, 1, 3, 5, 7 };
  guint groups = cols / f->group;
  g_autofree guint8 *q = g_new (guint8, rows * cols), *z = g_new (guint8, rows * groups);
  g_autofree guint16 *scales = g_new (guint16, groups * rows);
  g_autofree guint32 *codes = g_new0 (guint32, cols * rows / 8), *zeros = g_new0 (guint32, groups * rows / 8);
  for (guint i = 0; i < groups * rows; i++) {
    scales[i] = xb_float_to_half (half_scale (4, cols));
    z[i] = (guint8) code (4);
  }
  for (guint i = 0; i < rows * cols; i++)
    q[i] = (guint8) code (4);
  for (guint in = 0; in < cols; in++)
    for (guint word = 0; word < rows / 8; word++)
      for (guint k = 0; k < 8; k++) {
        guint o = word * 8 + order[k];
        codes[in * (rows / 8) + word] |= (guint32) q[o * cols + in] << (k * 4);
        w[o * cols + in] = (double) xb_half_to_float (scales[in / f->group * rows + o]) * ((int) q[o * cols + in] - z[in / f->group * rows + o]);
      }
  for (guint g = 0; g < groups; g++)
    for (guint word = 0; word < rows / 8; word++)
      for (guint k = 0; k < 8; k++)
        zeros[g * (rows / 8) + word] |= (guint32) z[g * rows + word * 8 + order[k]] << (k * 4);
  add (st, module, "qweight", "I32", 2, cols, rows / 8, 0, codes, cols * rows / 2);
  add (st, module, "qzeros", "I32", 2, groups, rows / 8, 0, zeros, groups * rows / 2);
  add (st, module, "scales", "F16", 2, groups, rows, 0, scales, groups * rows * 2);
}

/* ---- compressed-tensors: signed codes; flag: zero points -------------------------------------------------------------------------------- */

static void pack_compressed (const Format *f, StFile *st, const char *module, guint rows, guint cols, double *w)
{
  guint group = f->group ? f->group : cols, groups = cols / group, per_word = 32 / f->bits, words = (cols + per_word - 1) / per_word;
  guint zero_words = (rows + per_word - 1) / per_word;
  int half = 1 << (f->bits - 1);
  g_autofree guint32 *codes = g_new0 (guint32, rows * words), *zeros = g_new0 (guint32, zero_words * groups);
  g_autofree guint16 *scales = g_new (guint16, rows * groups);
  g_autofree int *z = g_new0 (int, rows * groups);
  const gint64 shape[2] = { rows, cols };
  for (guint i = 0; i < rows * groups; i++) {
    float s = bfloat (half_scale (f->bits, cols));
    guint32 word;
    memcpy (&word, &s, 4);
    scales[i] = (guint16) (word >> 16);
    z[i] = f->flag ? g_rand_int_range (rng, -half, half) : 0;
    zeros[i / groups / per_word * groups + i % groups] |= (guint32) (z[i] + half) << (i / groups % per_word * f->bits);
  }
  for (guint o = 0; o < rows; o++)
    for (guint i = 0; i < cols; i++) {
      int q = g_rand_int_range (rng, -half, half);
      guint32 word = (guint32) scales[o * groups + i / group] << 16;
      float s;
      memcpy (&s, &word, 4);
      codes[o * words + i / per_word] |= (guint32) (q + half) << (i % per_word * f->bits);
      w[o * cols + i] = (double) s * (q - z[o * groups + i / group]);
    }
  add (st, module, "weight_packed", "I32", 2, rows, words, 0, codes, rows * words * 4);
  add (st, module, "weight_scale", "BF16", 2, rows, groups, 0, scales, rows * groups * 2);
  if (f->flag)
    add (st, module, "weight_zero_point", "I32", 2, zero_words, groups, 0, zeros, zero_words * groups * 4);
  add (st, module, "weight_shape", "I64", 1, 2, 0, 0, shape, sizeof shape);
}

/* int8 as it is; flag: bitsandbytes, whose scale is the largest weight. */
static void pack_int8 (const Format *f, StFile *st, const char *module, guint rows, guint cols, double *w)
{
  g_autofree gint8 *codes = g_new (gint8, rows * cols);
  g_autofree float *scales = g_new (float, rows);
  for (guint o = 0; o < rows; o++) {
    scales[o] = (float) (g_rand_double_range (rng, 1, 3) / sqrt (cols) / (f->flag ? 1 : 127));
    for (guint i = 0; i < cols; i++) {
      codes[o * cols + i] = (gint8) g_rand_int_range (rng, -127, 128);
      w[o * cols + i] = (double) scales[o] * codes[o * cols + i] / (f->flag ? 127 : 1);
    }
  }
  add (st, module, "weight", "I8", 2, rows, cols, 0, codes, rows * cols);
  if (f->flag)
    add (st, module, "SCB", "F32", 1, rows, 0, 0, scales, rows * 4);
  else
    add (st, module, "weight_scale", "F32", 2, rows, 1, 0, scales, rows * 4);
}

/* ---- 8-bit floats: group: of a block's side, else a scale to a row; flag: E5M2 --------------------------------------------------------------- */

static double float8 (guint byte, gboolean wide)
{
  guint mantissa_bits = wide ? 2 : 3, bias = wide ? 15 : 7, exponent = byte >> mantissa_bits & (wide ? 31 : 15), mantissa = byte & ((1u << mantissa_bits) - 1);
  double size = exponent ? ldexp (1 + ldexp (mantissa, -(int) mantissa_bits), (int) exponent - (int) bias) : ldexp (mantissa, 1 - (int) bias - (int) mantissa_bits);
  return byte & 128 ? -size : size;
}

static void pack_fp8 (const Format *f, StFile *st, const char *module, guint rows, guint cols, double *w)
{
  guint height = f->group ? f->group : 1, width = f->group ? f->group : cols, across = (cols + width - 1) / width, n = (rows + height - 1) / height * across;
  g_autofree guint8 *codes = g_new (guint8, rows * cols);
  g_autofree float *scales = g_new (float, n);
  for (guint i = 0; i < n; i++)
    scales[i] = (float) (g_rand_double_range (rng, 0.5, 1.5) / sqrt (cols) / 8);
  for (guint o = 0; o < rows; o++)
    for (guint i = 0; i < cols; i++) {
      guint byte = (guint) g_rand_int_range (rng, 0, f->flag ? 0x4c : 0x58) | (g_rand_boolean (rng) ? 128 : 0);
      codes[o * cols + i] = (guint8) byte;
      w[o * cols + i] = float8 (byte, f->flag) * (double) scales[o / height * across + i / width];
    }
  add (st, module, "weight", f->flag ? "F8_E5M2" : "F8_E4M3", 2, rows, cols, 0, codes, rows * cols);
  if (f->group)
    add (st, module, "weight_scale_inv", "F32", 2, n / across, across, 0, scales, n * 4);
  else
    add (st, module, "weight_scale", "F32", 2, rows, 1, 0, scales, rows * 4);
}

/* ---- bitsandbytes' 4 bits; flag: scales quantized as well -------------------------------------------------------------------------------------- */

static void pack_fp4 (const Format *f, StFile *st, const char *module, guint rows, guint cols, double *w)
{
  guint n = rows * cols, blocks = (n + 63) / 64, outer = (blocks + 255) / 256;
  float table[16], nested_table[256];
  g_autofree guint8 *codes = g_new0 (guint8, n / 2), *small = g_new (guint8, blocks);
  g_autofree float *peaks = g_new (float, blocks), *nested = g_new (float, outer);
  const float offset = 0.05f;
  for (guint i = 0; i < 16; i++)
    table[i] = (float) (sinh ((i - 7.5) / 4) / sinh (1.9));
  for (guint i = 0; i < 256; i++)
    nested_table[i] = (float) i / 127.5f - 1;
  for (guint i = 0; i < outer; i++)
    nested[i] = 0.04f;
  for (guint b = 0; b < blocks; b++) {
    small[b] = (guint8) code (8);
    peaks[b] = f->flag ? (float) ((double) nested_table[small[b]] * (double) nested[b / 256] + (double) offset) : (float) g_rand_double_range (rng, 0.05, 0.2);
  }
  for (guint i = 0; i < n; i++) {
    guint q = code (4);
    codes[i / 2] |= (guint8) (q << (i % 2 ? 0 : 4));
    w[i] = (double) table[q] * (double) peaks[i / 64];
  }
  g_autofree char *state = g_strdup_printf ("{\"quant_type\":\"nf4\",\"blocksize\":64,\"dtype\":\"bfloat16\",\"shape\":[%u,%u],\"nested_blocksize\":256,"
                                            "\"nested_dtype\":\"float32\",\"nested_offset\":%.9g}", rows, cols, (double) offset);
  add (st, module, "weight", "U8", 2, n / 2, 1, 0, codes, n / 2);
  add (st, module, "weight.absmax", f->flag ? "U8" : "F32", 1, blocks, 0, 0, f->flag ? (void *) small : (void *) peaks, f->flag ? blocks : blocks * 4);
  add (st, module, "weight.quant_map", "F32", 1, 16, 0, 0, table, sizeof table);
  add (st, module, "weight.quant_state.bitsandbytes__nf4", "U8", 1, strlen (state), 0, 0, state, strlen (state));
  if (f->flag) {
    add (st, module, "weight.nested_absmax", "F32", 1, outer, 0, 0, nested, outer * 4);
    add (st, module, "weight.nested_quant_map", "F32", 1, 256, 0, 0, nested_table, sizeof nested_table);
  }
}

/* ---- NVFP4 --------------------------------------------------------------------------------------------------------------------------------------- */

static void pack_nvfp4 (const Format *f, StFile *st, const char *module, guint rows, guint cols, double *w)
{
  static const double values[16] = { 0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6 };
  g_autofree guint8 *codes = g_new0 (guint8, rows * cols / 2), *scales = g_new (guint8, rows * cols / 16);
  const float global = 1234.5f;
  for (guint i = 0; i < rows * cols / 16; i++)
    scales[i] = (guint8) g_rand_int_range (rng, 1, 0x6c);
  for (guint i = 0; i < rows * cols; i++) {
    guint q = code (4);
    codes[i / 2] |= (guint8) (q << (i % 2 * 4));
    w[i] = values[q] * float8 (scales[i / 16], FALSE) / (double) global;
  }
  add (st, module, "weight_packed", "U8", 2, rows, cols / 2, 0, codes, rows * cols / 2);
  add (st, module, "weight_scale", "F8_E4M3", 2, rows, cols / 16, 0, scales, rows * cols / 16);
  add (st, module, "weight_global_scale", "F32", 1, 1, 0, 0, &global, 4);
}

/* ---- MXFP4: two codes to a byte, a power of two to 32 of them ------------------------------------------------------------------------------------- */

static void pack_mxfp4 (const Format *f, StFile *st, const char *module, guint rows, guint cols, double *w)
{
  static const double values[16] = { 0, 0.5, 1, 1.5, 2, 3, 4, 6, -0.0, -0.5, -1, -1.5, -2, -3, -4, -6 };
  g_autofree guint8 *codes = g_new0 (guint8, rows * cols / 2), *scales = g_new (guint8, rows * cols / 32);
  for (guint i = 0; i < rows * cols / 32; i++)
    scales[i] = (guint8) g_rand_int_range (rng, 119, 125);
  for (guint i = 0; i < rows * cols; i++) {
    guint q = code (4);
    codes[i / 2] |= (guint8) (q << (i % 2 * 4));
    w[i] = ldexp (values[q], scales[i / 32] - 127);
  }
  add (st, module, "weight_packed", "U8", 2, rows, cols / 2, 0, codes, rows * cols / 2);
  add (st, module, "weight_scale", "U8", 2, rows, cols / 32, 0, scales, rows * cols / 32);
}

/* ---- BitNet: -1, 0 and 1, a quarter of the rows in each two bits of a byte; flag: the scale multiplies --------------------------------------------- */

static void pack_bitnet (const Format *f, StFile *st, const char *module, guint rows, guint cols, double *w)
{
  g_autofree guint8 *codes = g_new0 (guint8, rows / 4 * cols);
  double size = sqrt (1.5 / cols) * g_rand_double_range (rng, 0.8, 1.2);
  float scale = bfloat ((float) (f->flag ? size : 1 / size));
  guint16 stored;
  memcpy (&stored, (const char *) &scale + 2, 2);
  for (guint row = 0; row < rows; row++)
    for (guint col = 0; col < cols; col++) {
      guint q = (guint) g_rand_int_range (rng, 0, 3);
      codes[row % (rows / 4) * cols + col] |= (guint8) (q << (row / (rows / 4) * 2));
      w[row * cols + col] = f->flag ? ((double) q - 1) * (double) scale : ((double) q - 1) / (double) scale;
    }
  add (st, module, "weight", "U8", 2, rows / 4, cols, 0, codes, rows / 4 * cols);
  add (st, module, "weight_scale", "BF16", 1, 1, 0, 0, &stored, 2);
}

/* ---- EXL2: groups of several depths, columns in the order of importance --------------------------------------------------------------------------- */

static void pack_exl2 (const Format *f, StFile *st, const char *module, guint rows, guint cols, double *w)
{
  static const guint depths[] = { 8, 6, 5, 4, 3, 2 };
  guint n_groups = 0, bits[16], first[17] = { 0 }, words = 0, of[2 * 16];
  for (guint at = 0; at < cols; n_groups++) { /* wider groups first, all depths where there is room */
    guint n = MIN (cols - at, f->flag && at == 0 ? 64u : 32u);
    bits[n_groups] = depths[MIN (n_groups * (cols > 128 ? 1 : 2) / (cols > 128 ? 1 : 1), 5)];
    of[n_groups * 2] = bits[n_groups];
    of[n_groups * 2 + 1] = words;
    words += n * bits[n_groups] / 32;
    first[n_groups + 1] = at += n;
  }
  g_autofree guint32 *codes = g_new0 (guint32, words * rows), *scales = g_new0 (guint32, n_groups * rows / 8);
  g_autofree guint16 *peaks = g_new (guint16, n_groups), *groups = g_new (guint16, n_groups * 2);
  g_autofree gint32 *order = g_new (gint32, cols), *inverse = g_new (gint32, cols);
  for (guint i = 0; i < cols; i++)
    order[i] = (gint32) (i * 37 % cols); /* 37 and the widths have no factor in common */
  for (guint i = 0; i < cols; i++)
    inverse[order[i]] = (gint32) i;
  for (guint g = 0; g < n_groups; g++) {
    guint n = first[g + 1] - first[g];
    peaks[g] = xb_float_to_half (half_scale (bits[g], cols) * 2.5f);
    groups[g * 2] = (guint16) of[g * 2];
    groups[g * 2 + 1] = (guint16) of[g * 2 + 1];
    for (guint o = 0; o < rows; o++) {
      guint root = code (4);
      scales[g * (rows / 8) + o / 8] |= (guint32) root << (o % 8 * 4);
      double scale = (double) xb_half_to_float (peaks[g]) / 256 * (root + 1) * (root + 1);
      for (guint k = 0; k < n; k++) {
        guint q = code (bits[g]);
        put_bits (codes + of[g * 2 + 1] * rows + o, rows, (gsize) k * bits[g], q, bits[g]);
        w[o * cols + (guint) order[first[g] + k]] = scale * ((int) q - (1 << (bits[g] - 1)));
      }
    }
  }
  add (st, module, "q_weight", "I32", 2, words, rows, 0, codes, words * rows * 4);
  add (st, module, "q_scale", "I32", 2, n_groups, rows / 8, 0, scales, n_groups * rows / 2);
  add (st, module, "q_scale_max", "F16", 1, n_groups, 0, 0, peaks, n_groups * 2);
  add (st, module, "q_groups", "I16", 1, n_groups * 2, 0, 0, groups, n_groups * 4);
  if (f->other)
    add (st, module, "q_perm", "I32", 1, cols, 0, 0, order, cols * 4);
  else
    add (st, module, "q_invperm", "I32", 1, cols, 0, 0, inverse, cols * 4);
}

/* ---- EXL3: any symbols are a way through the trellis; group: the codebook ------------------------------------------------------------------------------ */

/* f16 sums and products as the codebooks define them. */
static double exl3_value (guint state, guint book)
{
  guint32 x = book == 0 ? state * 89226354u + 64248484u : book == 1 ? state * 0xCBAC1FEDu : state * 0x83DCD12Du;
  if (book == 2) {
    double sum = 0;
    for (guint i = 0; i < 4; i++)
      sum += x >> (8 * i) & 255;
    return (double) xb_round_scale ((float) ((sum + 1024) * (double) xb_half_to_float (0x1eee) + (double) xb_half_to_float (0xc931)));
  }
  x = (x & 0x8fff8fff) ^ 0x3b603b60;
  return (double) xb_round_scale (xb_half_to_float ((guint16) (x & 0xffff)) + xb_half_to_float ((guint16) (x >> 16)));
}

static void hadamard_128 (double *x, gsize stride)
{
  double out[128];
  for (guint i = 0; i < 128; i++) {
    out[i] = 0;
    for (guint k = 0; k < 128; k++)
      out[i] += (__builtin_parity (i & k) ? -1 : 1) * x[k * stride];
  }
  for (guint i = 0; i < 128; i++)
    x[i * stride] = out[i] / sqrt (128);
}

static void pack_exl3 (const Format *f, StFile *st, const char *module, guint rows, guint cols, double *w)
{
  guint bits = f->other && strstr (module, "experts.1") ? f->bits + 1 : f->bits, units = 16 * bits;
  g_autofree guint16 *trellis = g_new0 (guint16, cols / 16 * (rows / 16) * units), *in = g_new (guint16, cols), *out = g_new (guint16, rows);
  g_autofree guint16 *in_bits = g_new0 (guint16, cols / 16), *out_bits = g_new0 (guint16, rows / 16);
  for (guint tile = 0; tile < cols / 16 * (rows / 16); tile++) {
    guint8 ring[256 * 8];
    for (guint t = 0; t < 256 * bits; t++)
      ring[t] = (guint8) g_rand_boolean (rng);
    for (guint t = 0; t < 256 * bits; t++) /* the first bit is a word's highest; pairs of 16 bits change places */
      trellis[tile * units + (t / 16 ^ 1)] |= (guint16) (ring[t] << (15 - t % 16));
    for (guint t = 0; t < 256; t++) {
      guint state = 0, lane = t / 8, j = t % 8;
      for (guint b = 0; b < 16; b++)
        state = state << 1 | ring[((t + 1) * bits + 256 * bits - 16 + b) % (256 * bits)];
      guint row = lane % 4 * 2 + j % 2 + j / 2 % 2 * 8, col = lane / 4 + j / 4 * 8;
      w[(tile % (rows / 16) * 16 + col) * cols + tile / (rows / 16) * 16 + row] = exl3_value (state, f->group);
    }
  }
  for (guint o = 0; o < rows; o++)
    for (guint i = 0; i < cols; i += 128)
      hadamard_128 (w + o * cols + i, 1);
  for (guint i = 0; i < cols; i++)
    for (guint o = 0; o < rows; o += 128)
      hadamard_128 (w + o * cols + i, cols);
  for (guint i = 0; i < cols; i++) {
    gboolean minus = g_rand_boolean (rng);
    in_bits[i / 16] |= (guint16) (minus << i % 16);
    in[i] = xb_float_to_half ((float) ((minus ? -1 : 1) * (f->flag ? 1 : g_rand_double_range (rng, 0.5, 1.5) / sqrt (cols))));
  }
  for (guint o = 0; o < rows; o++) {
    gboolean minus = g_rand_boolean (rng);
    out_bits[o / 16] |= (guint16) (minus << o % 16);
    out[o] = xb_float_to_half ((float) ((minus ? -1 : 1) * (f->flag ? 1 : g_rand_double_range (rng, 0.5, 1.5))));
  }
  for (guint o = 0; o < rows; o++)
    for (guint i = 0; i < cols; i++)
      w[o * cols + i] *= (double) xb_half_to_float (in[i]) * (double) xb_half_to_float (out[o]);
  add (st, module, "trellis", "I16", 3, cols / 16, rows / 16, units, trellis, cols / 16 * (rows / 16) * units * 2);
  if (f->flag) {
    add (st, module, "su", "I16", 1, cols / 16, 0, 0, in_bits, cols / 8);
    add (st, module, "sv", "I16", 1, rows / 16, 0, 0, out_bits, rows / 8);
  } else {
    add (st, module, "suh", "F16", 1, cols, 0, 0, in, cols * 2);
    add (st, module, "svh", "F16", 1, rows, 0, 0, out, rows * 2);
  }
  const gint32 one = 1;
  if (f->group)
    add (st, module, f->group == 1 ? "mcg" : "mul1", "I32", 1, 1, 0, 0, &one, 4);
}

#define GPTQ(bits, more) "{\"quant_method\":\"gptq\",\"bits\":" #bits more "}"
#define CT(bits, group, strategy) \
  "{\"quant_method\":\"compressed-tensors\",\"format\":\"pack-quantized\",\"config_groups\":{\"group_0\":{\"targets\":[\"Linear\"],\"weights\":{\"num_bits\":" #bits \
  ",\"type\":\"int\",\"strategy\":\"" strategy "\",\"group_size\":" #group "}}}}"
static const Format formats[] = {
  { "GPTQ4", GPTQ (4, ",\"group_size\":32"), pack_gptq, 4, 32 },
  { "GPTQ2", GPTQ (2, ",\"group_size\":64"), pack_gptq, 2, 64 },
  { "GPTQ3", GPTQ (3, ",\"group_size\":128"), pack_gptq, 3, 128 },
  { "GPTQ8", GPTQ (8, ",\"group_size\":-1"), pack_gptq, 8, 0 },
  { "GPTQ-symmetric", GPTQ (4, ",\"group_size\":64"), pack_gptq, 4, 64 },
  { "GPTQ4-act-order", GPTQ (4, ",\"group_size\":32,\"desc_act\":true"), pack_gptq, 4, 32, TRUE },
  { "GPTQ-act-order-symmetric", GPTQ (3, ",\"group_size\":32,\"desc_act\":true"), pack_gptq, 3, 32, TRUE },
  { "GPTQ4-version-2", GPTQ (4, ",\"group_size\":32,\"checkpoint_format\":\"gptq_v2\""), pack_gptq, 4, 32, FALSE, TRUE },
  { "AWQ", "{\"quant_method\":\"awq\",\"bits\":4,\"group_size\":64,\"version\":\"gemm\",\"zero_point\":true}", pack_awq, 4, 64 },
  { "compressed-int4", CT (4, 32, "group"), pack_compressed, 4, 32 },
  { "compressed-int4-zero-points", CT (4, 64, "group"), pack_compressed, 4, 64, TRUE },
  { "compressed-int4-channel", CT (4, null, "channel"), pack_compressed, 4, 0 },
  { "compressed-int8", CT (8, 128, "group"), pack_compressed, 8, 128 },
  { "compressed-int3", CT (3, 32, "group"), pack_compressed, 3, 32 },
  { "compressed-w8a8", CT (8, null, "channel"), pack_int8, 8, 0, .tolerance = 1.2e-7 },
  { "bitsandbytes-int8", "{\"quant_method\":\"bitsandbytes\",\"load_in_8bit\":true}", pack_int8, 8, 0, TRUE, .tolerance = 1.2e-7 },
  { "FP8-blocks", "{\"quant_method\":\"fp8\",\"weight_block_size\":[128,128]}", pack_fp8, 8, 128, .tolerance = 5e-4 },
  { "FP8-rows", "{\"quant_method\":\"compressed-tensors\",\"format\":\"float-quantized\"}", pack_fp8, 8, 0, .tolerance = 5e-4 },
  { "FP8-wide", "{\"quant_method\":\"fp8\",\"weight_block_size\":[64,64]}", pack_fp8, 8, 64, TRUE, .tolerance = 5e-4 },
  { "bitsandbytes-nf4", "{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true,\"bnb_4bit_quant_type\":\"nf4\"}", pack_fp4, 4, 0, .tolerance = 5e-4 },
  { "bitsandbytes-nf4-nested", "{\"quant_method\":\"bitsandbytes\",\"load_in_4bit\":true,\"bnb_4bit_quant_type\":\"nf4\"}", pack_fp4, 4, 0, TRUE, .tolerance = 5e-4 },
  { "NVFP4", "{\"quant_method\":\"compressed-tensors\",\"format\":\"nvfp4-pack-quantized\"}", pack_nvfp4, 4, 0, .tolerance = 2.5e-7 },
  { "EXL2", "{\"quant_method\":\"exl2\",\"bits\":4.25}", pack_exl2, 0, 0, .tolerance = 1.2e-7 },
  { "EXL2-wide-groups", "{\"quant_method\":\"exl2\",\"bits\":4.25}", pack_exl2, 0, 0, TRUE, TRUE, .tolerance = 1.2e-7 },
  { "EXL3-1", "{\"quant_method\":\"exl3\",\"bits\":1.0}", pack_exl3, 1, 0, .tolerance = 1e-6 },
  { "EXL3-2-mcg", "{\"quant_method\":\"exl3\",\"bits\":2.0}", pack_exl3, 2, 1, .tolerance = 1e-6 },
  { "EXL3-3-mul1", "{\"quant_method\":\"exl3\",\"bits\":3.0}", pack_exl3, 3, 2, .tolerance = 1e-6 },
  { "EXL3-4-signs-as-bits", "{\"quant_method\":\"exl3\",\"bits\":4.0}", pack_exl3, 4, 0, TRUE, .tolerance = 1e-6 },
  { "EXL3-5", "{\"quant_method\":\"exl3\",\"bits\":5.0}", pack_exl3, 5, 1, .tolerance = 1e-6 },
  { "EXL3-6", "{\"quant_method\":\"exl3\",\"bits\":6.0}", pack_exl3, 6, 2, .tolerance = 1e-6 },
  { "EXL3-7", "{\"quant_method\":\"exl3\",\"bits\":7.0}", pack_exl3, 7, 0, .tolerance = 1e-6 },
  { "EXL3-8", "{\"quant_method\":\"exl3\",\"bits\":8.0}", pack_exl3, 8, 1, .tolerance = 1e-6 },
  { "EXL3-3-experts", "{\"quant_method\":\"exl3\",\"bits\":3.0}", pack_exl3, 3, 0, .is_mixture = TRUE, .tolerance = 1e-6 },
  { "EXL3-2-experts-of-two-sizes", "{\"quant_method\":\"exl3\",\"bits\":2.0}", pack_exl3, 2, 0, .is_mixture = TRUE, .other = TRUE, .tolerance = 5e-4 },
  { "MXFP4", "{\"quant_method\":\"compressed-tensors\",\"format\":\"mxfp4-pack-quantized\"}", pack_mxfp4, 4, 0 },
  { "BitNet", "{\"quant_method\":\"bitnet\",\"linear_class\":\"bitlinear\"}", pack_bitnet, 2, 0, .tolerance = 1.2e-7 },
  { "BitNet-multiplied", "{\"quant_method\":\"bitnet\",\"linear_class\":\"autobitlinear\"}", pack_bitnet, 2, 0, TRUE, .tolerance = 1.2e-7 },
};

/* ---- a model of it ------------------------------------------------------------------------------------------------------------------------------------- */

static void clear_folder (const char *path)
{
  g_autoptr (GDir) dir = g_dir_open (path, 0, NULL);
  for (const char *name; dir && (name = g_dir_read_name (dir));) {
    g_autofree char *file = g_build_filename (path, name, NULL);
    g_unlink (file);
  }
}

static void add_values (StFile *quantized, StFile *plain, const char *module, guint n_dims, guint64 d0, guint64 d1, double center, double spread)
{
  guint n = (guint) (d0 * (n_dims > 1 ? d1 : 1));
  g_autofree float *x = g_new (float, n);
  for (guint i = 0; i < n; i++)
    x[i] = (float) (center + spread * g_rand_double_range (rng, -1, 1));
  add (quantized, module, "weight", "F32", n_dims, d0, d1, 0, x, n * 4);
  add (plain, module, "weight", "F32", n_dims, d0, d1, 0, x, n * 4);
}

typedef struct {
  GPtrArray *names; /* GGUF's */
  GPtrArray *weights; /* double [rows][cols] */
} Oracle;

/* spoil: changes the header of the quantized file before it is written, or NULL. */
static void write_folders (const Format *f, Oracle *oracle, void (*spoil) (GString *header, gpointer data), gpointer data)
{
  static const struct {
    const char *theirs, *ours; /* or NULL: an expert's */
    guint rows, cols;
  } matrices[] = { { "self_attn.q_proj", "attn_q", HEADS * DIM, EMBD }, { "self_attn.k_proj", "attn_k", KV * DIM * 2, EMBD }, { "self_attn.v_proj", "attn_v", KV * DIM * 2, EMBD },
                   { "self_attn.o_proj", "attn_output", EMBD, HEADS * DIM }, { "mlp.gate_proj", "ffn_gate", FF, EMBD }, { "mlp.up_proj", "ffn_up", FF, EMBD },
                   { "mlp.down_proj", "ffn_down", EMBD, FF }, { "block_sparse_moe.experts.0.w1", NULL, FF, EMBD }, { "block_sparse_moe.experts.0.w2", NULL, EMBD, FF },
                   { "block_sparse_moe.experts.0.w3", NULL, FF, EMBD }, { "block_sparse_moe.experts.1.w1", NULL, FF, EMBD },
                   { "block_sparse_moe.experts.1.w2", NULL, EMBD, FF }, { "block_sparse_moe.experts.1.w3", NULL, FF, EMBD } };
  StFile quantized, plain;
  st_init (&quantized);
  st_init (&plain);
  add_values (&quantized, &plain, "model.embed_tokens", 2, VOCAB, EMBD, 0, 0.2);
  add_values (&quantized, &plain, "model.norm", 1, EMBD, 0, 1, 0.2);
  add_values (&quantized, &plain, "lm_head", 2, VOCAB, EMBD, 0, 0.2);
  for (guint l = 0; l < LAYERS; l++) {
    g_autofree char *first = g_strdup_printf ("model.layers.%u.input_layernorm", l), *second = g_strdup_printf ("model.layers.%u.post_attention_layernorm", l);
    add_values (&quantized, &plain, first, 1, EMBD, 0, 1, 0.2);
    add_values (&quantized, &plain, second, 1, EMBD, 0, 1, 0.2);
    if (f->is_mixture) {
      g_autofree char *router = g_strdup_printf ("model.layers.%u.block_sparse_moe.gate", l);
      add_values (&quantized, &plain, router, 2, 2, EMBD, 0, 0.2);
    }
    for (guint m = 0; m < G_N_ELEMENTS (matrices); m++) {
      guint rows = matrices[m].rows, cols = matrices[m].cols;
      gboolean is_attention = m < 4, is_expert = matrices[m].ours == NULL;
      if (!is_attention && is_expert != f->is_mixture)
        continue;
      g_autofree char *module = g_strdup_printf ("model.layers.%u.%s", l, matrices[m].theirs);
      g_autofree float *rounded = g_new (float, rows * cols);
      double *w = g_new (double, rows * cols);
      f->pack (f, &quantized, module, rows, cols, w);
      for (guint i = 0; i < rows * cols; i++)
        rounded[i] = (float) w[i];
      add (&plain, module, "weight", "F32", 2, rows, cols, 0, rounded, rows * cols * 4);
      if (is_expert) {
        g_free (w);
        continue;
      }
      g_ptr_array_add (oracle->names, g_strdup_printf ("blk.%u.%s.weight", l, matrices[m].ours));
      g_ptr_array_add (oracle->weights, w);
    }
  }
  const char *config = "{\"model_type\":\"llama\",\"hidden_size\":128,\"intermediate_size\":256,\"num_attention_heads\":4,\"num_key_value_heads\":4,\"head_dim\":32,"
                       "\"num_hidden_layers\":2,\"vocab_size\":128,\"max_position_embeddings\":256,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,"
                       "\"tie_word_embeddings\":false";
  g_autoptr (GString) model = g_string_new (config);
  if (f->is_mixture) {
    g_string_replace (model, "\"llama\"", "\"mixtral\"", 1);
    g_string_append (model, ",\"num_local_experts\":2,\"num_experts_per_tok\":2");
  }
  g_autofree char *with = g_strconcat (model->str, ",\"quantization_config\":", f->config, "}", NULL), *without = g_strconcat (model->str, "}", NULL);
  if (spoil)
    spoil (quantized.header, data);
  g_autoptr (GByteArray) a = st_finish (&quantized), b = st_finish (&plain);
  st_write (folder, "model.safetensors", a->data, a->len);
  st_write (folder, "config.json", with, strlen (with));
  st_write (plain_folder, "model.safetensors", b->data, b->len);
  st_write (plain_folder, "config.json", without, strlen (without));
}

static EngGguf *open_with_letters (const char *path)
{
  g_autofree char *file = g_test_build_filename (G_TEST_DIST, "fixtures", "decoders", "llama.gguf", NULL);
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGguf) vocabulary = eng_gguf_open (file, &error);
  g_assert_no_error (error);
  EngGguf *view = eng_hf_open (path, vocabulary, &error);
  g_assert_no_error (error);
  return view;
}

static xb_input *open_pipeline (EngGguf *packed, guint id)
{
  if (!id)
    return NULL;
  g_autofree char *name = g_strdup_printf ("xinput.%u", id - 1);
  const EngTensor *tensor = eng_gguf_find_tensor (packed, name);
  xb_input *pipeline = xb_input_open (tensor->data, tensor->bytes, NULL);
  g_assert_nonnull (pipeline);
  return pipeline;
}

/* All rows as the packed matrix and its pipelines hold them. */
static void read_packed (EngGguf *packed, const EngTensor *tensor, guint rows, guint cols, float *out)
{
  if (tensor->type != ENG_TYPE_I8) {
    eng_tensor_read_rows (tensor, 0, rows, out);
    return;
  }
  xb_matrix *matrix = xb_matrix_open (tensor->data, tensor->bytes, NULL);
  const xb_layout *layout = xb_matrix_layout (matrix);
  xb_input *input = open_pipeline (packed, layout->input_id), *output = open_pipeline (packed, layout->output_id);
  g_autofree float *stored = g_new (float, cols), *column = g_new (float, rows);
  xb_dequantize_rows (matrix, 0, rows, out);
  for (guint row = 0; input && row < rows; row++) {
    memcpy (stored, out + row * cols, cols * sizeof (float));
    xb_input_restore_row (input, stored, out + row * cols);
  }
  for (guint col = 0; output && col < cols; col++) {
    for (guint row = 0; row < rows; row++)
      column[row] = out[row * cols + col];
    xb_input_restore (output, column, 0, rows);
    for (guint row = 0; row < rows; row++)
      out[row * cols + col] = column[row];
  }
  xb_input_free (input);
  xb_input_free (output);
  xb_matrix_free (matrix);
}

/* Rows as they are read, and as they are packed. */
static void check_weights (const Format *f, EngGguf *view, EngGguf *packed, const char *name, const double *w)
{
  const EngTensor *tensor = eng_gguf_find_tensor (view, name);
  g_autofree char *xbit = g_strconcat (name, ".xbit", NULL);
  const EngTensor *made = eng_gguf_find_tensor (packed, xbit) ? eng_gguf_find_tensor (packed, xbit) : eng_gguf_find_tensor (packed, name);
  g_assert_nonnull (tensor);
  g_assert_nonnull (made);
  guint cols = (guint) tensor->dims[0], rows = (guint) tensor->dims[1];
  g_autofree float *read = g_new (float, rows * cols), *stored = g_new (float, rows * cols);
  double largest = 0;
  for (guint i = 0; i < rows * cols; i++)
    largest = MAX (largest, fabs (w[i]));
  eng_tensor_read_rows (tensor, 0, rows, read);
  read_packed (packed, made, rows, cols, stored);
  for (guint i = 0; i < rows * cols; i++) {
    if (f->pack == pack_exl3 ? fabs ((double) read[i] - w[i]) > 1e-6 * largest : read[i] != (float) w[i])
      g_error ("%s: row %u column %u is read as %a instead of %a", name, i / cols, i % cols, (double) read[i], w[i]);
    if (fabs ((double) stored[i] - (double) (float) w[i]) > f->tolerance * largest)
      g_error ("%s: row %u column %u is packed as %a instead of %a", name, i / cols, i % cols, (double) stored[i], w[i]);
  }
  if (f->pack == pack_exl3) /* no more than is published, a scale to a row, and the directory */
    g_assert_cmpuint (made->bytes, <=, rows * cols * f->bits / 8 + rows * 4 + 320);
}

static void greedy (EngGguf *gguf, gint32 *tokens, guint n)
{
  g_autoptr (GError) error = NULL;
  g_autoptr (EngModel) model = eng_model_new (gguf, &error);
  g_assert_no_error (error);
  EngSessionOptions options = { .n_ctx = 96, .activation_bits = 32 };
  g_autoptr (EngSession) session = eng_session_new (model, workers, &options, &error);
  g_assert_no_error (error);
  gint32 token = 5;
  for (guint step = 0; step < n; step++) {
    g_assert_true (eng_session_eval (session, &token, 1, FALSE, NULL, &error));
    const float *logits = eng_session_logits (session);
    token = 0;
    for (guint i = 1; i < VOCAB; i++)
      token = logits[i] > logits[token] ? (gint32) i : token;
    tokens[step] = token;
  }
}

/* The settings as the configuration has them, and a word on what packing does that agrees with how far the packed weights may be off. */
static void check_description (const Format *f, const EngGguf *view)
{
  static const struct {
    const char *name, *method; /* how both begin */
  } methods[] = { { "GPTQ", "GPTQ" }, { "AWQ", "AWQ" }, { "compressed", "compressed-tensors" }, { "bitsandbytes-int8", "bitsandbytes" }, { "bitsandbytes-nf4", "bitsandbytes nf4" },
                  { "FP8-rows", "compressed-tensors" }, { "FP8", "FP8" }, { "NVFP4", "compressed-tensors" }, { "EXL2", "EXL2" }, { "EXL3", "EXL3" },
                  { "MXFP4", "compressed-tensors" }, { "BitNet", "BitNet" } };
  g_autoptr (EngCheckpointSource) source = eng_checkpoint_describe (view);
  g_assert_cmpstr (source->format, ==, "safetensors");
  gboolean found = FALSE;
  for (guint i = 0; i < G_N_ELEMENTS (methods) && !found; i++)
    if ((found = g_str_has_prefix (f->name, methods[i].name)))
      g_assert_cmpstr (source->method, ==, methods[i].method);
  g_assert_true (found);
  if (f->pack == pack_gptq || f->pack == pack_awq || f->pack == pack_compressed) {
    g_assert_cmpfloat (source->bits, ==, f->bits);
    g_assert_cmpint (source->group, ==, f->group > 0 ? (gint) f->group : -1);
  } else if (f->pack == pack_exl3) {
    g_assert_cmpfloat (source->bits, ==, f->bits);
  }
  g_assert_true (source->is_ordered == (strstr (f->name, "act-order") != NULL || f->pack == pack_exl2));
  g_assert_true ((strstr (source->kept, "rounded to F16") != NULL) == (f->tolerance > 1e-4));
  if (f->pack == pack_exl3)
    g_assert_nonnull (strstr (source->kept, "without loss into "));
  if (f->tolerance == 0)
    g_assert_nonnull (strstr (source->kept, "carried without loss into "));
  if (f->tolerance > 0 && f->tolerance < 1e-4 && strstr (source->kept, "within a step") == NULL)
    g_assert_nonnull (strstr (source->kept, "without loss"));
  g_autofree char *cells = g_strdup_printf ("into %u-bit cells", f->bits);
  if (f->tolerance == 0)
    g_assert_nonnull (strstr (source->kept, cells));
  g_test_message ("%s: %s, %s", f->name, source->method, source->kept);
}

static void test_calibration_is_named (void)
{
  static const struct {
    const char *config, *said;
  } cases[] = { { "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"dataset\":\"c4\"}", "c4" },
                { "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"dataset\":[\"a b\",\"c\"]}", "2 texts of its makers" },
                { "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"calibration\":{\"rows\":115,\"length\":2048,\"dataset\":\"(default)\"}}", "(default), 115 x 2048 tokens" },
                { "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32,\"calibration\":{\"rows\":100,\"cols\":2048}}", "100 x 2048 tokens" },
                { "{\"quant_method\":\"gptq\",\"bits\":4,\"group_size\":32}", NULL } };
  for (guint i = 0; i < G_N_ELEMENTS (cases); i++) {
    Format f = formats[0];
    f.config = cases[i].config;
    Oracle oracle = { g_ptr_array_new_with_free_func (g_free), g_ptr_array_new_with_free_func (g_free) };
    write_folders (&f, &oracle, NULL, NULL);
    g_autoptr (EngGguf) view = open_with_letters (folder);
    g_autoptr (EngCheckpointSource) source = eng_checkpoint_describe (view);
    g_assert_cmpstr (source->calibration, ==, cases[i].said);
    g_ptr_array_unref (oracle.names);
    g_ptr_array_unref (oracle.weights);
  }
}

static void test_format (gconstpointer data)
{
  const Format *f = data;
  g_autoptr (GError) error = NULL;
  Oracle oracle = { g_ptr_array_new_with_free_func (g_free), g_ptr_array_new_with_free_func (g_free) };
  write_folders (f, &oracle, NULL, NULL);
  g_autoptr (EngGguf) view = open_with_letters (folder), plain_view = open_with_letters (plain_folder);
  g_assert_false (eng_gguf_is_computable (view));
  check_description (f, view);
  g_assert_true (eng_repack (view, packed_path, NULL, NULL, NULL, &error));
  g_assert_no_error (error);
  g_autoptr (EngGguf) packed = eng_gguf_open (packed_path, &error);
  g_assert_no_error (error);
  for (guint i = 0; i < oracle.names->len; i++)
    check_weights (f, view, packed, oracle.names->pdata[i], oracle.weights->pdata[i]);
  gint32 want[48], got[48];
  g_autofree char *plain_path = NULL;
  if (!eng_gguf_is_computable (plain_view)) { /* experts that have to be put together */
    plain_path = g_strconcat (plain_folder, ".xbit.gguf", NULL);
    g_assert_true (eng_repack (plain_view, plain_path, NULL, NULL, NULL, &error));
  }
  g_autoptr (EngGguf) plain = plain_path ? eng_gguf_open (plain_path, &error) : eng_gguf_ref (plain_view);
  g_assert_no_error (error);
  greedy (plain, want, 48);
  greedy (packed, got, 48);
  if (plain_path)
    g_unlink (plain_path);
  g_assert_cmpmem (got, sizeof got, want, sizeof want);
  g_ptr_array_unref (oracle.names);
  g_ptr_array_unref (oracle.weights);
}

/* ---- files that are wrong somewhere -------------------------------------------------------------------------------------------------------------------- */

typedef struct {
  guint number, kind;
  gboolean found;
} Spoil;

enum { GONE, OTHER_TYPE, TURNED, FLAT, ONE_LESS, N_SPOILS };

/* Changes the number-th part of the first layer's q_proj so that the file as such stays sound. */
static void spoil_part (GString *header, gpointer data)
{
  Spoil *spoil = data;
  static const char *const types[][2] = { { "I32", "F32" }, { "F16", "BF16" }, { "BF16", "F16" }, { "U8", "I8" }, { "I8", "U8" }, { "F32", "I32" }, { "I16", "F16" },
                                          { "I64", "F64" }, { "F8_E4M3", "U8" }, { "F8_E5M2", "BOOL" } };
  const char *module = "\"model.layers.0.self_attn.q_proj.";
  char *at = header->str;
  for (guint i = 0; (at = strstr (at, module)) != NULL && i < spoil->number; i++)
    at++;
  spoil->found = at != NULL;
  if (!at)
    return;
  gssize begin = at - header->str, end = strchr (at, '}') - header->str;
  g_autofree char *entry = g_strndup (at, (gsize) (end - begin));
  char *type = strstr (entry, "\"dtype\":\"") + 9, *shape = strstr (entry, "\"shape\":[") + 9;
  g_autofree char *old_type = g_strndup (type, strcspn (type, "\"")), *old_shape = g_strndup (shape, strcspn (shape, "]")), *changed = NULL;
  guint64 a = 1, b = 1, c = 1;
  int n = sscanf (old_shape, "%" G_GUINT64_FORMAT ",%" G_GUINT64_FORMAT ",%" G_GUINT64_FORMAT, &a, &b, &c);
  g_autoptr (GString) out = g_string_new (entry);
  switch (spoil->kind) {
  case GONE: g_string_replace (out, "self_attn.q_proj", "self_attn.rotary_emb", 1); break;
  case OTHER_TYPE:
    for (guint i = 0; i < G_N_ELEMENTS (types); i++)
      if (strcmp (types[i][0], old_type) == 0) {
        g_autofree char *from = g_strdup_printf ("\"dtype\":\"%s\"", old_type), *to = g_strdup_printf ("\"dtype\":\"%s\"", types[i][1]);
        g_string_replace (out, from, to, 1);
        break;
      }
    break;
  case TURNED: changed = n == 1 ? g_strdup_printf ("1,%" G_GUINT64_FORMAT, a) : n == 2 ? g_strdup_printf ("%" G_GUINT64_FORMAT ",%" G_GUINT64_FORMAT, b, a)
                                  : g_strdup_printf ("%" G_GUINT64_FORMAT ",%" G_GUINT64_FORMAT ",%" G_GUINT64_FORMAT, c, b, a); break;
  case FLAT: changed = g_strdup_printf ("%" G_GUINT64_FORMAT, a * b * c); break;
  default: changed = g_strdup_printf ("%" G_GUINT64_FORMAT "%s", a * 2, strchr (old_shape, ',') ? strchr (old_shape, ',') : ""); break; /* no longer its size */
  }
  if (changed)
    g_string_replace (out, old_shape, changed, 1);
  g_string_erase (header, begin, end - begin);
  g_string_insert (header, begin, out->str);
}

static void assert_sentence (const GError *error)
{
  g_assert_nonnull (error);
  g_assert_null (strchr (error->message, '\n'));
  g_assert_true (g_utf8_validate (error->message, -1, NULL));
  g_assert_true (g_str_has_prefix (error->message, folder));
  g_assert_cmpuint (strlen (error->message), >, strlen (folder) + 20);
}

/* Each part of each format gone, of another type or of another shape: refused in one sentence, or still sound and readable. */
static void test_spoiled (gconstpointer data)
{
  const Format *f = data;
  g_autofree char *file = g_test_build_filename (G_TEST_DIST, "fixtures", "decoders", "llama.gguf", NULL);
  g_autoptr (EngGguf) vocabulary = eng_gguf_open (file, NULL);
  struct rusage before, after;
  guint refused = 0, tried = 0;
  getrusage (RUSAGE_SELF, &before);
  for (guint number = 0;; number++) {
    Spoil spoil = { .number = number };
    for (spoil.kind = 0; spoil.kind < N_SPOILS; spoil.kind++) {
      Oracle oracle = { g_ptr_array_new_with_free_func (g_free), g_ptr_array_new_with_free_func (g_free) };
      write_folders (f, &oracle, spoil_part, &spoil);
      g_ptr_array_unref (oracle.names);
      g_ptr_array_unref (oracle.weights);
      if (!spoil.found)
        break;
      g_autoptr (GError) error = NULL;
      g_autoptr (EngGguf) view = eng_hf_open (folder, vocabulary, &error);
      tried++;
      if (view && eng_repack (view, packed_path, NULL, NULL, NULL, &error))
        continue;
      assert_sentence (error);
      refused++;
    }
    if (!spoil.found)
      break;
  }
  getrusage (RUSAGE_SELF, &after);
  g_assert_cmpint (after.ru_maxrss - before.ru_maxrss, <, 256 << 10); /* KiB */
  g_assert_cmpuint (refused, >, tried / 3); /* the rest is sound all the same: a list that is not needed, a shape that is as good */
  g_test_message ("%u of %u refused", refused, tried);
}

int main (int argc, char **argv)
{
  g_test_init (&argc, &argv, NULL);
  folder = g_dir_make_tmp ("valise-quantized-XXXXXX", NULL);
  plain_folder = g_dir_make_tmp ("valise-plain-XXXXXX", NULL);
  packed_path = g_strconcat (folder, ".xbit.gguf", NULL);
  workers = eng_workers_new (1);
  rng = g_rand_new_with_seed (8);
  for (gsize i = 0; i < G_N_ELEMENTS (formats); i++) {
    g_autofree char *name = g_strconcat ("/quantized/", formats[i].name, NULL);
    g_test_add_data_func (name, &formats[i], test_format);
    /* Of a format's variants the first is spoiled. */
    if (i > 0 && formats[i].pack == formats[i - 1].pack)
      continue;
    g_autofree char *spoiled = g_strconcat ("/quantized/spoiled/", formats[i].name, NULL);
    g_test_add_data_func (spoiled, &formats[i], test_spoiled);
  }
  g_test_add_func ("/quantized/calibration-is-named", test_calibration_is_named);
  int result = g_test_run ();
  clear_folder (folder);
  clear_folder (plain_folder);
  g_rmdir (folder);
  g_rmdir (plain_folder);
  g_unlink (packed_path);
  eng_workers_free (workers);
  g_rand_free (rng);
  g_free (folder);
  g_free (plain_folder);
  g_free (packed_path);
  return result;
}
