/* hf_ints.h: matrices of integer codes with a scale and perhaps a zero point per row and group of columns: GPTQ, AWQ, compressed-tensors'
 * integers, bitsandbytes' int8, BitNet. They differ in how the codes are packed; what they mean is the same. Internal to engine/checkpoint. */
#ifndef ENG_HF_INTS_H
#define ENG_HF_INTS_H

#include "engine/checkpoint/packed.h"
#include "engine/checkpoint/safetensors.h"

typedef enum {
  HF_INTS_COLUMNS,   /* int32 [cols bits / 32][rows]: a stream of codes down each row of the matrix (GPTQ) */
  HF_INTS_ROWS,      /* int32 [rows][ceil (cols / (32 / bits))]: whole codes, low bits first (compressed-tensors) */
  HF_INTS_AWQ,       /* int32 [cols][rows / 8]: eight rows to a word, even ones first */
  HF_INTS_BYTES,     /* int8 [rows][cols] */
  HF_INTS_QUARTERS   /* uint8 [rows / 4][cols]: bits 2 i are of row i rows / 4 + the byte's (BitNet) */
} HfIntsPacking;

typedef enum {
  HF_ZEROS_NONE,     /* `zero` for all */
  HF_ZEROS_STREAM,   /* int32 [groups][rows bits / 32]: a stream along the rows (GPTQ), plus zero_more */
  HF_ZEROS_AWQ,      /* int32 [groups][rows / 8] */
  HF_ZEROS_ROWS,     /* int32 [rows / (32 / bits)][groups] (compressed-tensors) */
  HF_ZEROS_BYTES     /* int8 [rows][groups], plus zero_more */
} HfZerosPacking;

typedef struct {
  const char *method;
  guint rows, cols, bits;
  guint group;                 /* columns to a scale; cols where a row has one */
  HfIntsPacking packing;
  HfZerosPacking zeros_packing;
  int zero, zero_more;
  gboolean scales_by_group;    /* [groups][rows]; else [rows][groups] */
  gboolean one_scale;          /* of the whole matrix, ... */
  gboolean divides;            /* by which numbers are divided */
  double divisor;              /* of all scales */
  const EngStTensor *codes, *scales, *zeros, *group_of; /* the last: int32 [cols], or NULL where groups follow each other */
} HfInts;

/* Checks the arrays' shapes; NULL with what is wrong. */
EngPacked *hf_ints_open (const HfInts *ints, const char **why);

#endif
