/* packed.h: a matrix stored in a form of its own, as its reader gives it away: rows of f32, and, where there is one, the X-bit matrix of the very
 * same numbers, band by band. Internal to the checkpoint readers and to what packs them. Objects are immutable: any thread may read. */
#ifndef ENG_PACKED_H
#define ENG_PACKED_H

#include "engine/checkpoint/gguf.h"
#include "kernels/xbit.h"

/* One band of 16 rows as xb_pack_band takes it; all parts have room for the layout's numbers. */
typedef struct {
  guint8 *codes;                                /* [16][cols, rounded up to 32] */
  float *scale, *offset, *super, *super_offset; /* [groups][16], the supers as the kind of scales has them */
} EngBand;

typedef struct {
  const char *method; /* "GPTQ" */
  /* Rows row0 .. row0+n-1 as f32 [n][cols]: what is stored, in real arithmetic, rounded once. */
  void (*read_rows) (const EngPacked *packed, guint64 row0, guint64 n, float *out);
  /* Fills rows band*16 .. +15 of a matrix of packed->layout; everything is zero before. NULL where there is no layout. */
  void (*fill_band) (const EngPacked *packed, guint band, EngBand *out);
  void (*drop) (const EngPacked *packed); /* its pages are no longer needed; may be NULL */
  void (*free) (EngPacked *packed);
} EngPackedClass;

/* What packing loses of the numbers that read_rows gives. */
typedef enum {
  ENG_LOSS_NONE,
  ENG_LOSS_STEP, /* a scale is a product that is rounded in another place: within a step or two of f32 */
  ENG_LOSS_HALF  /* rounded to the 11 bits of F16 */
} EngLoss;

struct EngPacked {
  const EngPackedClass *class;
  const xb_layout *layout;       /* NULL: it is kept as numbers of number_type. Larger than the matrix where pipelines fill it up */
  const xb_input_layout *input;  /* the pipeline in front of the X-bit matrix, or NULL; its input_id is given when it is written */
  const xb_input_layout *output; /* whose inverse is behind it, or NULL; likewise */
  guint number_type;             /* F32, F16 or BF16 */
  EngLoss loss;
};

/* A tensor of one of ggml's block types that way (data must outlive it); NULL when its shape is none of an X-bit matrix: *why says so. Free with
 * eng_packed_free. */
EngPacked *eng_packed_from_blocks (const EngTensor *tensor, float tensor_scale, const char **why);
void eng_packed_free (EngPacked *packed);

/* The numbers of `bytes` bytes (whole blocks) of a type turned to the other order of bytes. */
void eng_type_swap (guint type, guint8 *data, gsize bytes);
/* A row's bytes in this machine's order: in the file, or turned into `swapped`. */
const guint8 *eng_tensor_row_bytes (const EngTensor *tensor, guint64 row, GByteArray *swapped);

#endif
