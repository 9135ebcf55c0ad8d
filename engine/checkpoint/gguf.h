/* gguf.h: a model's files in GGUF's vocabulary: keys, and tensors under its names. GGUF files are read with every length, offset and count
 * checked, and written whole or not at all; readers of other formats (checkpoint.h) translate into the same view.
 * Format: the GGUF specification of the ggml project. A reader is immutable after open: any thread may use it. */
#ifndef ENG_GGUF_H
#define ENG_GGUF_H

#include <gio/gio.h>

/* ggml's numbers for tensor types. */
typedef enum {
  ENG_TYPE_F32 = 0, ENG_TYPE_F16 = 1, ENG_TYPE_Q4_0 = 2, ENG_TYPE_Q4_1 = 3, ENG_TYPE_Q5_0 = 6, ENG_TYPE_Q5_1 = 7, ENG_TYPE_Q8_0 = 8,
  ENG_TYPE_Q2_K = 10, ENG_TYPE_Q3_K = 11, ENG_TYPE_Q4_K = 12, ENG_TYPE_Q5_K = 13, ENG_TYPE_Q6_K = 14,
  ENG_TYPE_IQ2_XXS = 16, ENG_TYPE_IQ2_XS = 17, ENG_TYPE_IQ3_XXS = 18, ENG_TYPE_IQ1_S = 19, ENG_TYPE_IQ4_NL = 20, ENG_TYPE_IQ3_S = 21,
  ENG_TYPE_IQ2_S = 22, ENG_TYPE_IQ4_XS = 23,
  ENG_TYPE_I8 = 24, ENG_TYPE_I16 = 25, ENG_TYPE_I32 = 26, ENG_TYPE_I64 = 27, ENG_TYPE_F64 = 28, ENG_TYPE_IQ1_M = 29, ENG_TYPE_BF16 = 30,
  ENG_TYPE_TQ1_0 = 34, ENG_TYPE_TQ2_0 = 35, ENG_TYPE_MXFP4 = 39, ENG_TYPE_NVFP4 = 40, ENG_TYPE_Q1_0 = 41, ENG_TYPE_Q2_0 = 42,
  ENG_TYPE_PACKED = 0x10000 /* not in a GGUF file: a matrix in another format's own form (packed.h) */
} EngType;

typedef struct EngPacked EngPacked;

typedef struct {
  const char *name;     /* "Q4_K" */
  guint block;          /* weights per block */
  guint block_bytes;
  gboolean is_float;    /* F32 F16 BF16 */
  gboolean readable;    /* eng_type_dequantize knows it */
} EngTypeTraits;
/* NULL for a number ggml has not defined. */
const EngTypeTraits *eng_type_traits (guint type);
/* n weights (a multiple of the block) from data to f32, in ggml's own order of operations. */
void eng_type_dequantize (guint type, const void *data, float *out, gsize n);

typedef enum {
  ENG_KV_U8, ENG_KV_I8, ENG_KV_U16, ENG_KV_I16, ENG_KV_U32, ENG_KV_I32, ENG_KV_F32, ENG_KV_BOOL, ENG_KV_STRING, ENG_KV_ARRAY,
  ENG_KV_U64, ENG_KV_I64, ENG_KV_F64
} EngKvType;

typedef struct {
  const char *name;
  guint type;           /* EngType */
  guint n_dims;
  guint64 dims[4];      /* dims[0] is the contiguous one: columns; dims[1] rows; ... ; unused are 1 */
  guint64 bytes;
  const guint8 *data;   /* inside the mapping; NULL of ENG_TYPE_PACKED */
  gboolean swapped;     /* the numbers in it are big-endian */
  const EngPacked *packed; /* of ENG_TYPE_PACKED */
} EngTensor;

/* Rows row0 .. row0+n-1 as f32 [n][dims[0]], whatever they are stored as; rows are counted through dims[1] to dims[3]. */
void eng_tensor_read_rows (const EngTensor *tensor, guint64 row0, guint64 n, float *out);
/* Number of rows: dims[1] dims[2] dims[3]. */
guint64 eng_tensor_n_rows (const EngTensor *tensor);
/* Whether eng_tensor_read_rows knows the type. */
gboolean eng_tensor_is_readable (const EngTensor *tensor);
/* "Q4_K", "GPTQ", ... */
const char *eng_tensor_type_name (const EngTensor *tensor);

typedef struct EngGguf EngGguf; /* reference counted */

/* Maps and validates a file (sharded files: the first shard's path). */
EngGguf *eng_gguf_open (const char *path, GError **error);
EngGguf *eng_gguf_ref (EngGguf *gguf);
void eng_gguf_unref (EngGguf *gguf);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngGguf, eng_gguf_unref)

const char *eng_gguf_path (const EngGguf *gguf);
guint64 eng_gguf_file_bytes (const EngGguf *gguf);
guint eng_gguf_n_tensors (const EngGguf *gguf);
const EngTensor *eng_gguf_tensor (const EngGguf *gguf, guint i);
const EngTensor *eng_gguf_find_tensor (const EngGguf *gguf, const char *name); /* NULL if absent */
/* Advise the system that the pages of a tensor are no longer needed. */
void eng_gguf_drop_tensor (EngGguf *gguf, const EngTensor *tensor);
/* The same of n of its rows. */
void eng_gguf_drop_rows (EngGguf *gguf, const EngTensor *tensor, guint64 row0, guint64 n);

/* Metadata. The getters convert between integer (and float) kinds and return the fallback when absent, of another kind or too large. */
guint eng_gguf_n_keys (const EngGguf *gguf);
const char *eng_gguf_key (const EngGguf *gguf, guint i);
gboolean eng_gguf_has (const EngGguf *gguf, const char *key);
EngKvType eng_gguf_kv_type (const EngGguf *gguf, const char *key);
gint64 eng_gguf_get_int (const EngGguf *gguf, const char *key, gint64 fallback);
double eng_gguf_get_float (const EngGguf *gguf, const char *key, double fallback);
gboolean eng_gguf_get_bool (const EngGguf *gguf, const char *key, gboolean fallback);
const char *eng_gguf_get_string (const EngGguf *gguf, const char *key, const char *fallback); /* valid UTF-8, NUL-terminated */
/* Arrays: element kind and length; 0 when absent. Strings may hold any bytes (tokens) and end without a NUL; lengths apart. They lie in
 * the mapping. Arrays of arrays are checked but not reached by these. */
gsize eng_gguf_array_length (const EngGguf *gguf, const char *key, EngKvType *kind);
const char *eng_gguf_array_string (const EngGguf *gguf, const char *key, gsize i, gsize *length);
gint64 eng_gguf_array_int (const EngGguf *gguf, const char *key, gsize i);
double eng_gguf_array_float (const EngGguf *gguf, const char *key, gsize i);

/* ---- writing: metadata, then tensor declarations, then data. -----------------------------------------------------------------
 * The file is made as ".NAME.valise-PID.tmp" beside `path`, held under flock while it is written, then fsync and rename: `path` appears
 * whole or not at all. A temporary that can be locked belongs to no one (its writer was killed) and may be removed,
 * which the next writer of the same path does. */
typedef struct EngGgufWriter EngGgufWriter;
EngGgufWriter *eng_gguf_writer_new (guint alignment);
void eng_gguf_writer_free (EngGgufWriter *writer); /* removes an unfinished temporary */
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngGgufWriter, eng_gguf_writer_free)
/* The first value set for a key stays: set what must differ before copying. */
void eng_gguf_writer_set_string (EngGgufWriter *writer, const char *key, const char *value);
void eng_gguf_writer_set_u32 (EngGgufWriter *writer, const char *key, guint32 value);
void eng_gguf_writer_set_u64 (EngGgufWriter *writer, const char *key, guint64 value);
void eng_gguf_writer_set_f32 (EngGgufWriter *writer, const char *key, float value);
void eng_gguf_writer_set_f64 (EngGgufWriter *writer, const char *key, double value);
void eng_gguf_writer_set_bool (EngGgufWriter *writer, const char *key, gboolean value);
/* Arrays; strings may hold any bytes. */
void eng_gguf_writer_set_strings (EngGgufWriter *writer, const char *key, const char *const *values, const gsize *lengths, gsize n);
void eng_gguf_writer_set_i32s (EngGgufWriter *writer, const char *key, const gint32 *values, gsize n);
void eng_gguf_writer_set_f32s (EngGgufWriter *writer, const char *key, const float *values, gsize n);
void eng_gguf_writer_set_u8s (EngGgufWriter *writer, const char *key, const guint8 *values, gsize n);
/* Every key of `source` but general.alignment (and those already set), byte for byte. */
void eng_gguf_writer_copy_metadata (EngGgufWriter *writer, const EngGguf *source);
/* Those that begin with `prefix` alone. */
void eng_gguf_writer_copy_keys (EngGgufWriter *writer, const EngGguf *source, const char *prefix);
/* Returns the tensor's number. */
guint eng_gguf_writer_add_tensor (EngGgufWriter *writer, const char *name, guint type, guint n_dims, const guint64 *dims);
/* Size the finished file will have, from the declarations. */
guint64 eng_gguf_writer_file_bytes (const EngGgufWriter *writer);
gboolean eng_gguf_writer_begin (EngGgufWriter *writer, const char *path, GError **error); /* creates the temporary, checks free space */
/* Data of tensor i, in pieces and in any order, every byte exactly once; one thread at a time. */
gboolean eng_gguf_writer_write (EngGgufWriter *writer, guint i, guint64 offset, const void *data, gsize size, GError **error);
/* All of tensor i anew, once it is written. */
gboolean eng_gguf_writer_rewrite (EngGgufWriter *writer, guint i, const void *data, GError **error);
/* Another value, of the same length, for a key that was set as such; after begin the file's is written over. */
gboolean eng_gguf_writer_replace_f64 (EngGgufWriter *writer, const char *key, double value, GError **error);
gboolean eng_gguf_writer_replace_f32s (EngGgufWriter *writer, const char *key, const float *values, gsize n, GError **error);
/* The temporary, from begin to finish: to be read once everything is written. */
const char *eng_gguf_writer_temporary (const EngGgufWriter *writer);
gboolean eng_gguf_writer_finish (EngGgufWriter *writer, GError **error);

#endif
