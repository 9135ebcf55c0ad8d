/* hf_quantized.h: what the readers of quantized modules share. Internal to engine/checkpoint. */
#ifndef ENG_HF_QUANTIZED_H
#define ENG_HF_QUANTIZED_H

#include "engine/checkpoint/hf.h"

/* NULL, and the sentence "FOLDER: tensor MODULE why". */
EngPacked *hf_refuse (const Hf *hf, const char *module, const char *why, GError **error);

/* 8-bit floats with scales of blocks (weight_scale_inv), of rows or of the whole matrix (weight_scale). */
EngPacked *hf_scaled_open (const Hf *hf, const char *module, guint *rows, guint *cols, GError **error);
/* bitsandbytes' NF4 and FP4, with or without scales that are quantized themselves. */
EngPacked *hf_fp4_open (const Hf *hf, const char *module, guint *rows, guint *cols, GError **error);
/* gpt-oss' experts (MXFP4 in MODULE_blocks and MODULE_scales), compressed-tensors' MXFP4. */
EngPacked *hf_mxfp4_open (const Hf *hf, const char *module, guint *rows, guint *cols, GError **error);
/* compressed-tensors' NVFP4. */
EngPacked *hf_nvfp4_open (const Hf *hf, const char *module, guint *rows, guint *cols, GError **error);
/* exl2.c, exl3.c */
EngPacked *hf_exl2_open (const Hf *hf, const char *module, guint *rows, guint *cols, GError **error);
EngPacked *hf_exl3_open (const Hf *hf, const char *module, guint *rows, guint *cols, GError **error);

#endif
