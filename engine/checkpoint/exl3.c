/* exl3.c: EXL3: tiles of 16 inputs x 16 outputs as a ring of bits, each weight a function of 16 of them; signs and Hadamard transforms of 128 on both
 * sides. Layout: the exllamav3 project's reconstruct, exl3_dq and codebook; the trellis is QTIP's (Tseng et al. 2024). */
#include "engine/checkpoint/hf_quantized.h"

#include "kernels/ops.h"

#include <math.h>
#include <string.h>

enum { TILE = 16, BLOCK = 128 };

typedef enum { EXL3_SUM, EXL3_SUM_MCG, EXL3_BYTES } Exl3Book;

typedef struct {
  EngPacked packed;
  const EngStTensor *trellis;
  guint rows, cols, bits;
  float *inputs, *outputs;  /* [cols], [rows]: signs and sizes before and after the transforms */
  const float *book;        /* what 16 bits stand for, as an f16 holds it */
} Exl3;

static float half_sum (guint32 x)
{
  x = (x & 0x8fff8fffu) ^ 0x3b603b60u;
  return xb_round_scale (xb_half_to_float ((guint16) x) + xb_half_to_float ((guint16) (x >> 16)));
}

static float state_value (Exl3Book book, guint32 state)
{
  switch (book) {
  case EXL3_SUM: return half_sum (state * 89226354u + 64248484u);
  case EXL3_SUM_MCG: return half_sum (state * 0xCBAC1FEDu);
  default: {
    guint32 x = state * 0x83DCD12Du, sum = (x & 255) + (x >> 8 & 255) + (x >> 16 & 255) + (x >> 24);
    return xb_round_scale ((float) fma (1024.0 + sum, (double) xb_half_to_float (0x1eee), (double) xb_half_to_float (0xc931)));
  }
  }
}

static const float *book_values (Exl3Book book)
{
  static float *made[EXL3_BYTES + 1];
  if (g_once_init_enter (&made[book])) {
    float *values = g_new (float, 1 << 16);
    for (guint i = 0; i < 1 << 16; i++)
      values[i] = state_value (book, i);
    g_once_init_leave (&made[book], values);
  }
  return made[book];
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
  for (guint t = 0; t < 256; t++) {
    guint lane = t / 8, row = lane % 4 * 2 + (t & 1) + (t >> 1 & 1) * 8, col = lane / 4 + (t >> 2 & 1) * 8;
    out[row][col] = e->book[ring_state (data, e->bits, t)];
  }
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
    memcpy (out + (row - row0) * e->cols, rows + row % BLOCK * e->cols, some * e->cols * sizeof (float));
    row += some;
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
  g_free (e);
}

static const EngPackedClass exl3_class = { "EXL3", read_rows, NULL, drop, free_exl3 };

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

EngPacked *hf_exl3_open (const Hf *hf, const char *module, guint *rows, guint *cols, GError **error)
{
  const EngStTensor *trellis = hf_part (hf, module, "trellis");
  if (trellis->type != ENG_ST_I16 || trellis->n_dims != 3 || trellis->dims[0] < 8 || trellis->dims[1] < 8 || trellis->dims[0] % 8 != 0 || trellis->dims[1] % 8 != 0
      || trellis->dims[0] > 1 << 20 || trellis->dims[1] > 1 << 20 || trellis->dims[2] % 16 != 0 || trellis->dims[2] < 16 || trellis->dims[2] > 128)
    return hf_refuse (hf, module, "has EXL3 tiles of an impossible shape; the files are damaged", error);
  Exl3 *e = g_new0 (Exl3, 1);
  e->packed = (EngPacked) { .class = &exl3_class, .number_type = ENG_TYPE_F16, .loss = ENG_LOSS_HALF };
  e->trellis = trellis;
  e->cols = *cols = (guint) trellis->dims[0] * TILE;
  e->rows = *rows = (guint) trellis->dims[1] * TILE;
  e->bits = (guint) trellis->dims[2] / 16;
  e->inputs = read_signs (hf_part (hf, module, "suh"), hf_part (hf, module, "su"), e->cols);
  e->outputs = read_signs (hf_part (hf, module, "svh"), hf_part (hf, module, "sv"), e->rows);
  e->book = book_values (hf_part (hf, module, "mcg") ? EXL3_SUM_MCG : hf_part (hf, module, "mul1") ? EXL3_BYTES : EXL3_SUM);
  if (e->inputs && e->outputs)
    return &e->packed;
  free_exl3 (&e->packed);
  return hf_refuse (hf, module, "lacks the signs (suh, svh) that its EXL3 tiles need, or has too few; the files are damaged", error);
}
