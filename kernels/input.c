/* input.c: the input pipeline in front of a matrix: permutation, diagonal, signs, block Hadamard; its blob is untrusted.
 *
 * Blob: u32 magic "XINP", version 1, cols, block, flags (1 permutation, 2 diagonal, 4 signs), then 44 bytes 0, then the parts in
 * that order, each padded to 64 bytes. */
#include <stdlib.h>
#include <string.h>

#include "kernels/ops.h"
#include "kernels/xbit.h"

enum { MAGIC = 0x504e4958, VERSION = 1, HEADER = 64, HAS_PERMUTATION = 1, HAS_DIAGONAL = 2, HAS_SIGNS = 4, AT_ONCE = 256 };

struct xb_input {
  xb_input_layout layout;
};

typedef struct {
  uint32_t magic, version, cols, block, flags;
} header;

static size_t padded (size_t n)
{
  return (n + XB_ALIGN - 1) / XB_ALIGN * XB_ALIGN;
}

static const char *check (uint32_t cols, uint32_t block)
{
  if (cols == 0 || cols > 1u << 28)
    return "an input pipeline has an impossible width";
  if (block > 1u << 20 || (block & (block - 1)) != 0)
    return "an input pipeline's Hadamard block is no power of two";
  return NULL;
}

static size_t place (uint32_t cols, uint32_t flags, size_t *permutation, size_t *diagonal, size_t *signs)
{
  size_t at = HEADER;
  *permutation = at;
  at += flags & HAS_PERMUTATION ? padded ((size_t) cols * 4) : 0;
  *diagonal = at;
  at += flags & HAS_DIAGONAL ? padded ((size_t) cols * 2) : 0;
  *signs = at;
  at += flags & HAS_SIGNS ? padded (((size_t) cols + 7) / 8) : 0;
  return at;
}

static uint32_t flags_of (const xb_input_layout *l)
{
  return (l->permutation ? HAS_PERMUTATION : 0) | (l->diagonal ? HAS_DIAGONAL : 0) | (l->signs ? HAS_SIGNS : 0);
}

size_t xb_input_bytes (const xb_input_layout *layout, xb_error *error)
{
  size_t p, d, s;
  const char *wrong = check (layout->cols, layout->block);
  if (error)
    *error = wrong;
  return wrong ? 0 : place (layout->cols, flags_of (layout), &p, &d, &s);
}

xb_error xb_input_init (void *data, size_t size, const xb_input_layout *l)
{
  size_t p, d, s;
  xb_error error;
  size_t bytes = xb_input_bytes (l, &error);
  if (!bytes)
    return error;
  if (size != bytes)
    return "an input pipeline is written into a buffer of another size";
  header h = { MAGIC, VERSION, l->cols, l->block, flags_of (l) };
  memset (data, 0, size);
  memcpy (data, &h, sizeof h);
  place (l->cols, h.flags, &p, &d, &s);
  uint8_t *out = data;
  if (l->permutation)
    memcpy (out + p, l->permutation, (size_t) l->cols * 4);
  if (l->diagonal)
    memcpy (out + d, l->diagonal, (size_t) l->cols * 2);
  if (l->signs)
    memcpy (out + s, l->signs, ((size_t) l->cols + 7) / 8);
  return NULL;
}

static const char *check_permutation (const uint32_t *permutation, uint32_t cols)
{
  uint8_t *seen = calloc (cols, 1);
  if (!seen)
    return "there is not enough memory to check an input pipeline";
  const char *wrong = NULL;
  for (uint32_t i = 0; i < cols && !wrong; i++) {
    if (permutation[i] >= cols || seen[permutation[i]])
      wrong = "an input pipeline's permutation names a column twice or not at all";
    else
      seen[permutation[i]] = 1;
  }
  free (seen);
  return wrong;
}

static const char *check_diagonal (const uint16_t *diagonal, uint32_t cols)
{
  for (uint32_t i = 0; i < cols; i++)
    if ((diagonal[i] & 0x7c00) == 0x7c00)
      return "an input pipeline's diagonal holds what is no number";
  return NULL;
}

xb_input *xb_input_open (const void *data, size_t size, xb_error *error)
{
  header h = { 0 };
  size_t p, d, s;
  xb_error unused;
  error = error ? error : &unused;
  *error = "an input pipeline is cut short or damaged";
  if (size < HEADER || (uintptr_t) data % 4)
    return NULL;
  memcpy (&h, data, sizeof h);
  if (h.magic != MAGIC || h.version != VERSION || h.flags & ~7u)
    return NULL;
  const char *wrong = check (h.cols, h.block);
  if (wrong) {
    *error = wrong;
    return NULL;
  }
  if (place (h.cols, h.flags, &p, &d, &s) != size)
    return NULL;
  const uint8_t *base = data;
  xb_input *input = calloc (1, sizeof *input);
  if (!input) {
    *error = "there is not enough memory for an input pipeline";
    return NULL;
  }
  input->layout = (xb_input_layout) {
    .cols = h.cols, .block = h.block,
    .permutation = h.flags & HAS_PERMUTATION ? (const uint32_t *) (const void *) (base + p) : NULL,
    .diagonal = h.flags & HAS_DIAGONAL ? (const uint16_t *) (const void *) (base + d) : NULL,
    .signs = h.flags & HAS_SIGNS ? base + s : NULL,
  };
  *error = input->layout.permutation ? check_permutation (input->layout.permutation, h.cols) : NULL;
  if (!*error && input->layout.diagonal)
    *error = check_diagonal (input->layout.diagonal, h.cols);
  if (*error) {
    xb_input_free (input);
    return NULL;
  }
  return input;
}

void xb_input_free (xb_input *input)
{
  free (input);
}

const xb_input_layout *xb_input_get_layout (const xb_input *input)
{
  return &input->layout;
}

/* Orthonormal and its own inverse: whole blocks, then the largest powers of two that fit. */
static void transform (float *x, uint32_t cols, uint32_t block)
{
  if (block < 2)
    return;
  uint32_t whole = cols / block * block;
  xb_hadamard (x, whole, block);
  for (uint32_t at = whole; at < cols;) {
    uint32_t b = block;
    while (b > cols - at)
      b /= 2;
    xb_hadamard (x + at, b, b);
    at += b;
  }
}

typedef uint32_t four __attribute__ ((vector_size (16), aligned (4), may_alias));

/* The signs of 8 numbers by the bits of a byte. */
static inline void flip (float *x, uint32_t byte)
{
  static const four bits[2] = { { 1, 2, 4, 8 }, { 16, 32, 64, 128 } };
  for (int half = 0; half < 2; half++)
    *(four *) (void *) (x + half * 4) ^= (four) ((bits[half] & byte) != 0) << 31;
}

/* Diagonal and sign of n columns from `begin` on. */
static void read_factors (const xb_input_layout *l, uint32_t begin, uint32_t n, float *factor)
{
  if (l->diagonal)
    xb_raw_to_f32 (XB_RAW_F16, l->diagonal + begin, factor, n);
  for (uint32_t i = 0; !l->diagonal && i < n; i++)
    factor[i] = 1;
  uint32_t i = 0;
  for (; l->signs && begin % 8 == 0 && i + 8 <= n; i += 8)
    flip (factor + i, l->signs[(begin + i) / 8]);
  for (; l->signs && i < n; i++)
    factor[i] = l->signs[(begin + i) / 8] >> ((begin + i) % 8) & 1 ? -factor[i] : factor[i];
}

/* out may be x. */
static void scale (const xb_input_layout *l, const float *x, float *out, uint32_t begin, uint32_t end)
{
  float factor[AT_ONCE];
  for (uint32_t at = begin; at < end; at += AT_ONCE, x += AT_ONCE, out += AT_ONCE) {
    const uint32_t n = end - at < AT_ONCE ? end - at : AT_ONCE;
    read_factors (l, at, n, factor);
    for (uint32_t i = 0; i < n; i++)
      out[i] = x[i] * factor[i];
  }
}

void xb_input_apply_columns (const xb_input *input, const float *x, float *out, uint32_t begin, uint32_t end)
{
  scale (&input->layout, x, out, begin, end);
  transform (out, end - begin, input->layout.block);
}

void xb_input_apply (const xb_input *input, const float *x, float *out)
{
  const xb_input_layout *l = &input->layout;
  for (uint32_t i = 0; l->permutation && i < l->cols; i++)
    out[i] = x[l->permutation[i]];
  xb_input_apply_columns (input, l->permutation ? out : x, out, 0, l->cols);
}

void xb_input_transform_row (const xb_input *input, const float *row, float *out)
{
  const xb_input_layout *l = &input->layout;
  float factor[AT_ONCE];
  for (uint32_t i = 0; i < l->cols; i++) {
    if (i % AT_ONCE == 0)
      read_factors (l, i, l->cols - i < AT_ONCE ? l->cols - i : AT_ONCE, factor);
    const float f = factor[i % AT_ONCE];
    out[i] = f == 0 ? 0 : row[l->permutation ? l->permutation[i] : i] / f; /* such a column is 0 whatever is kept */
  }
  transform (out, l->cols, l->block);
}

void xb_input_restore (const xb_input *input, float *x, uint32_t begin, uint32_t end)
{
  transform (x, end - begin, input->layout.block);
  scale (&input->layout, x, x, begin, end);
}

void xb_input_restore_row (const xb_input *input, const float *stored, float *out)
{
  const xb_input_layout *l = &input->layout;
  float local[4096], *work = l->cols <= 4096 ? local : malloc ((size_t) l->cols * sizeof (float));
  if (!work)
    abort ();
  memcpy (work, stored, (size_t) l->cols * sizeof (float));
  xb_input_restore (input, work, 0, l->cols);
  if (l->permutation)
    for (uint32_t i = 0; i < l->cols; i++)
      out[l->permutation[i]] = work[i];
  else
    memcpy (out, work, (size_t) l->cols * sizeof (float));
  if (work != local)
    free (work);
}
