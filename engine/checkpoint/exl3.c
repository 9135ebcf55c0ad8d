/* exl3.c: EXL3: tiles of 16 inputs x 16 outputs as a ring of bits, each weight a function of 16 of them; signs and Hadamard transforms of 128 on both
 * sides. Layout: the exllamav3 project's reconstruct, exl3_dq and codebook; the trellis is QTIP's (Tseng et al. 2024). X-bit matrices hold the same bits
 * (XB_EXL3), with a pipeline on either side. */
#include "engine/checkpoint/hf_quantized.h"

#include "kernels/ops.h"

#include <math.h>
#include <string.h>

enum { TILE = 16, BLOCK = 128 };

typedef struct {
  EngPacked packed;
  const EngStTensor *trellis;
  guint rows, cols, bits;         /* stored, whole blocks; */
  guint wanted_rows, wanted_cols; /* what the model has of them, the first: the others mean nothing */
  float *inputs, *outputs;  /* [cols], [rows]: signs and sizes before and after the transforms */
  const float *values;      /* what 16 bits stand for */
  guint16 *diagonals;       /* [cols], [rows]: the same signs and sizes, as f16 */
  xb_layout layout;
  xb_cell cell;
  xb_input_layout before, behind;
} Exl3;

static const float *values_of (xb_exl3_function function)
{
  static float *made[XB_N_EXL3_FUNCTIONS];
  if (g_once_init_enter (&made[function])) {
    float *values = g_new (float, 1 << 16);
    for (guint i = 0; i < 1 << 16; i++)
      values[i] = xb_exl3_value (function, i);
    g_once_init_leave (&made[function], values);
  }
  return made[function];
}

/* Sixteen bits that end with weight t's: the ring's words hold their first bit highest, and each word's halves are exchanged. */
static guint ring_state (const guint8 *tile, guint bits, guint t)
{
  guint n = 256 * bits, begin = (t * bits + bits + n - 16) % n, state = 0;
  for (guint i = 0; i < 2; i++) { /* the 16 bits lie in two half words at most */
    guint at = (begin / 16 + i) % (n / 16), half = at ^ 1u;
    state = state << 16 | (guint) tile[half * 2] | (guint) tile[half * 2 + 1] << 8;
  }
  return state >> (16 - begin % 16) & 0xffff;
}

/* The tile's weights, [16 inputs][16 outputs]. */
static void open_tile (const Exl3 *e, guint64 tile, float out[TILE][TILE])
{
  const guint8 *data = e->trellis->data + tile * (32u * e->bits);
  for (guint t = 0; t < TILE * TILE; t++)
    out[xb_exl3_column (t)][xb_exl3_row (t)] = e->values[ring_state (data, e->bits, t)];
}

static void fill_band (const EngPacked *packed, guint band, EngBand *out)
{
  const Exl3 *e = (const Exl3 *) packed;
  for (guint k = 0; k < e->cols / TILE; k++) {
    const guint8 *data = e->trellis->data + ((guint64) k * (e->rows / TILE) + band) * (32u * e->bits);
    guint64 bits = 0;
    for (guint t = 0, there = 0; t < TILE * TILE; t++, there -= e->bits) {
      if (there < e->bits) {
        guint32 word;
        memcpy (&word, data, 4);
        data += 4;
        bits = bits << 32 | GUINT32_FROM_LE (word);
        there += 32;
      }
      out->codes[xb_exl3_row (t) * e->cols + k * TILE + xb_exl3_column (t)] = (guint8) (bits >> (there - e->bits) & ((1u << e->bits) - 1));
    }
  }
  for (guint i = 0; i < TILE; i++)
    out->scale[i] = 1;
}

/* 128 outputs from `block` on: their rows [128][cols] as before both transforms. */
static void read_block (const Exl3 *e, guint64 block, float *out)
{
  float tile[TILE][TILE], column[BLOCK];
  guint tiles = e->rows / TILE;
  for (guint k = 0; k < e->cols / TILE; k++)
    for (guint n = 0; n < BLOCK / TILE; n++) {
      open_tile (e, (guint64) k * tiles + block * (BLOCK / TILE) + n, tile);
      for (guint row = 0; row < TILE; row++)
        for (guint i = 0; i < TILE; i++)
          out[(gsize) (n * TILE + i) * e->cols + k * TILE + row] = tile[row][i];
    }
  for (guint row = 0; row < BLOCK; row++)
    xb_hadamard (out + (gsize) row * e->cols, e->cols, BLOCK);
  for (guint col = 0; col < e->cols; col++) {
    for (guint row = 0; row < BLOCK; row++)
      column[row] = out[(gsize) row * e->cols + col];
    xb_hadamard (column, BLOCK, BLOCK);
    for (guint row = 0; row < BLOCK; row++)
      out[(gsize) row * e->cols + col] = column[row] * e->inputs[col] * e->outputs[block * BLOCK + row];
  }
}

static void read_rows (const EngPacked *packed, guint64 row0, guint64 n, float *out)
{
  const Exl3 *e = (const Exl3 *) packed;
  g_autofree float *rows = g_new (float, (gsize) BLOCK * e->cols);
  for (guint64 row = row0, end = row0 + n; row < end;) {
    guint64 block = row / BLOCK, some = MIN (end, (block + 1) * BLOCK) - row;
    read_block (e, block, rows);
    for (guint64 i = 0; i < some; i++, row++, out += e->wanted_cols)
      memcpy (out, rows + row % BLOCK * e->cols, e->wanted_cols * sizeof (float));
  }
}

static void drop (const EngPacked *packed)
{
  eng_st_drop (((const Exl3 *) packed)->trellis);
}

static void free_exl3 (EngPacked *packed)
{
  Exl3 *e = (Exl3 *) packed;
  g_free (e->inputs);
  g_free (e->outputs);
  g_free (e->diagonals);
  g_free (e);
}

static const EngPackedClass exl3_class = { "EXL3", read_rows, fill_band, drop, free_exl3 };

/* Signs as f16 numbers (suh) or, in older files, a bit each (su: 1 = minus). */
static float *read_signs (const EngStTensor *halves, const EngStTensor *bits, guint n)
{
  float *signs = NULL;
  if (halves && halves->type == ENG_ST_F16 && halves->n_dims == 1 && halves->dims[0] == n) {
    signs = g_new (float, n);
    eng_st_read (halves, 0, n, signs);
  } else if (!halves && bits && bits->type == ENG_ST_I16 && bits->n_dims == 1 && bits->dims[0] == n / 16) {
    signs = g_new (float, n);
    for (guint i = 0; i < n; i++)
      signs[i] = bits->data[i / 16 * 2 + i % 16 / 8] >> i % 8 & 1 ? -1 : 1;
  }
  return signs;
}

static gboolean are_finite (const float *x, guint n)
{
  gboolean finite = TRUE;
  for (guint i = 0; i < n; i++)
    finite = finite && isfinite (x[i]);
  return finite;
}

static void choose_layout (Exl3 *e, xb_exl3_function function)
{
  e->diagonals = g_new (guint16, (gsize) e->cols + e->rows);
  xb_f32_to_f16 (e->inputs, e->diagonals, e->cols);
  xb_f32_to_f16 (e->outputs, e->diagonals + e->cols, e->rows);
  e->cell = (xb_cell) { .depth = (guint8) e->bits, .codebook = XB_EXL3, .z2 = (guint16) function };
  e->layout = (xb_layout) { .rows = e->rows, .cols = e->cols, .scale_kind = XB_SCALE_ROW_F16, .n_stripes = 1, .n_panels = 1,
                            .stripe_end = &e->rows, .panel_end = &e->cols, .cells = &e->cell };
  e->before = (xb_input_layout) { .cols = e->cols, .block = BLOCK, .diagonal = e->diagonals };
  e->behind = (xb_input_layout) { .cols = e->rows, .block = BLOCK, .diagonal = e->diagonals + e->cols };
  e->packed.layout = &e->layout;
  e->packed.input = &e->before;
  e->packed.output = &e->behind;
}

/* The model's own width where the stored one is that, filled up to whole blocks. */
static guint width (guint wanted, guint stored)
{
  return wanted > 0 && (wanted + BLOCK - 1) / BLOCK * BLOCK == stored ? wanted : stored;
}

EngPacked *hf_exl3_open (const Hf *hf, const char *module, guint *rows, guint *cols, GError **error)
{
  const EngStTensor *trellis = hf_part (hf, module, "trellis");
  if (trellis->type != ENG_ST_I16 || trellis->n_dims != 3 || trellis->dims[0] < 8 || trellis->dims[1] < 8 || trellis->dims[0] % 8 != 0 || trellis->dims[1] % 8 != 0
      || trellis->dims[0] > 1 << 20 || trellis->dims[1] > 1 << 20 || trellis->dims[2] % 16 != 0 || trellis->dims[2] < 16 || trellis->dims[2] > 128)
    return hf_refuse (hf, module, "has EXL3 tiles of an impossible shape; the files are damaged", error);
  Exl3 *e = g_new0 (Exl3, 1);
  e->packed = (EngPacked) { .class = &exl3_class };
  e->trellis = trellis;
  e->cols = (guint) trellis->dims[0] * TILE;
  e->rows = (guint) trellis->dims[1] * TILE;
  e->wanted_cols = *cols = width (*cols, e->cols);
  e->wanted_rows = *rows = width (*rows, e->rows);
  e->bits = (guint) trellis->dims[2] / 16;
  e->inputs = read_signs (hf_part (hf, module, "suh"), hf_part (hf, module, "su"), e->cols);
  e->outputs = read_signs (hf_part (hf, module, "svh"), hf_part (hf, module, "sv"), e->rows);
  xb_exl3_function function = hf_part (hf, module, "mcg") ? XB_EXL3_MCG : hf_part (hf, module, "mul1") ? XB_EXL3_MUL1 : XB_EXL3_3INST;
  e->values = values_of (function);
  if (e->inputs && e->outputs && are_finite (e->inputs, e->cols) && are_finite (e->outputs, e->rows)) {
    choose_layout (e, function);
    return &e->packed;
  }
  free_exl3 (&e->packed);
  return hf_refuse (hf, module, "lacks the signs (suh, svh) that its EXL3 tiles need, or has too few or infinite ones; the files are damaged", error);
}
