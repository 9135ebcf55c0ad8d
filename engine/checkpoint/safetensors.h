/* safetensors.h: one or several .safetensors files, mapped, as a table of named arrays. Every length and offset is checked; nothing is copied.
 * Format: the README of the safetensors project. Immutable after opening: any thread may read. */
#ifndef ENG_SAFETENSORS_H
#define ENG_SAFETENSORS_H

#include <glib.h>

typedef enum {
  ENG_ST_F64, ENG_ST_F32, ENG_ST_F16, ENG_ST_BF16, ENG_ST_F8_E4M3, ENG_ST_F8_E5M2, ENG_ST_I64, ENG_ST_I32, ENG_ST_I16, ENG_ST_I8, ENG_ST_U8,
  ENG_ST_BOOL, ENG_ST_OTHER /* U16 to U64 and newer ones: their sizes are checked, nothing reads them */
} EngStType;

typedef struct {
  const char *name;
  EngStType type;
  guint n_dims;
  guint64 dims[4];     /* as written: the last one is contiguous; unused are 1 */
  guint64 bytes;
  const guint8 *data;
} EngStTensor;

typedef struct EngSafetensors EngSafetensors;

/* paths: NULL-terminated. A name may be there once in all files. */
EngSafetensors *eng_safetensors_open (char **paths, GError **error);
void eng_safetensors_free (EngSafetensors *st);
guint eng_safetensors_n (const EngSafetensors *st);
const EngStTensor *eng_safetensors_tensor (const EngSafetensors *st, guint i);
const EngStTensor *eng_safetensors_find (const EngSafetensors *st, const char *name); /* NULL if absent */
guint64 eng_safetensors_bytes (const EngSafetensors *st); /* of all files */
/* n numbers from place `first` on as f32; not of ENG_ST_OTHER. */
void eng_st_read (const EngStTensor *tensor, guint64 first, guint64 n, float *out);
/* An array of one number, else `fallback`. */
float eng_st_scalar (const EngStTensor *tensor, float fallback);
const char *eng_st_type_name (EngStType type);
void eng_st_drop (const EngStTensor *tensor); /* its pages are no longer needed */

#endif
