/* seal.c: an X-bit file is a GGUF whose matrices are I8 tensors NAME.xbit and whose input pipelines are I8 tensors xinput.N. Norms, biases
 * and routers are stored as f32. */
#include "quantizer/seal.h"

#include "engine/error.h"

#include <math.h>
#include <string.h>

enum { ALIGNMENT = 64, FORMAT_VERSION = 1 };

typedef struct {
  const EngTensor *source;
  guint number;
  guint64 n;
} Vector;

struct QzSeal {
  const QzSource *source;
  QzTransform *const *transforms;
  EngGgufWriter *writer;
  guint *matrices, *inputs; /* tensor numbers */
  guint (*own)[QZ_N_SIDES]; /* [n_matrices] of pipelines of their own, 0: none */
  QzPackedSize *sizes;      /* [n_matrices] */
  GArray *vectors;          /* Vector: tensors that are not matrices */
};

void qz_seal_free (QzSeal *seal)
{
  if (seal == NULL)
    return;
  eng_gguf_writer_free (seal->writer);
  g_free (seal->matrices);
  g_free (seal->inputs);
  g_free (seal->own);
  g_free (seal->sizes);
  g_array_unref (seal->vectors);
  g_free (seal);
}

/* Every value has a fixed width, so the size of the header does not depend on them. */
static void set_metadata (EngGgufWriter *writer, const QzSource *source, const QzPackedSize *sizes, const QzPromise *promise)
{
  g_autofree float *nothing = g_new0 (float, source->n_matrices);
  g_autofree guint8 *kept = g_malloc (source->n_matrices);
  for (guint m = 0; m < source->n_matrices; m++)
    kept[m] = sizes[m].kept;
  eng_gguf_writer_set_u32 (writer, "valise.version", FORMAT_VERSION);
  eng_gguf_writer_set_u64 (writer, "valise.fit.target_bytes", promise->target.bytes);
  eng_gguf_writer_set_u32 (writer, "valise.fit.context", promise->target.n_ctx);
  eng_gguf_writer_set_u32 (writer, "valise.fit.kv_bits", (guint32) promise->target.kv_bits);
  eng_gguf_writer_set_f64 (writer, "valise.fit.expected_kl", promise->expected_kl);
  eng_gguf_writer_set_f64 (writer, "valise.fit.bpw", promise->bpw);
  eng_gguf_writer_set_f64 (writer, "valise.fit.measured_kl", NAN);
  eng_gguf_writer_set_f64 (writer, "valise.fit.measured_top1", NAN);
  eng_gguf_writer_set_f32s (writer, "valise.fit.losses", nothing, source->n_matrices);
  eng_gguf_writer_set_u8s (writer, "valise.fit.kept", kept, source->n_matrices);
  eng_gguf_writer_set_string (writer, "valise.fit.calibration", promise->calibration);
  const char *const *more = promise->target.metadata;
  for (guint i = 0; more != NULL && more[i] != NULL; i += 2)
    eng_gguf_writer_set_string (writer, more[i], more[i + 1]);
  eng_gguf_writer_copy_metadata (writer, source->gguf);
}

static guint64 input_bytes (const QzSource *source, QzTransform *const *transforms, guint input)
{
  if (transforms != NULL)
    return transforms[input]->bytes;
  guint cols = source->inputs[input].cols;
  g_autofree guint16 *diagonal = g_new0 (guint16, cols);
  g_autofree guint8 *signs = g_new0 (guint8, (cols + 7) / 8);
  xb_input_layout layout = { .cols = cols, .block = QZ_HADAMARD_BLOCK, .diagonal = diagonal, .signs = signs };
  xb_error why = NULL;
  return xb_input_bytes (&layout, &why);
}

/* Returns its tensor's number. */
static guint add_pipeline (QzSeal *seal, guint *n_pipelines, guint64 bytes)
{
  g_autofree char *name = g_strdup_printf ("xinput.%u", (*n_pipelines)++);
  return eng_gguf_writer_add_tensor (seal->writer, name, ENG_TYPE_I8, 1, &bytes);
}

QzSeal *qz_seal_new (const QzSource *source, QzTransform *const *transforms, const QzPackedSize *sizes, const QzPromise *promise, GError **error)
{
  g_autoptr (QzSeal) seal = g_new0 (QzSeal, 1);
  seal->source = source;
  seal->transforms = transforms;
  seal->writer = eng_gguf_writer_new (ALIGNMENT);
  seal->matrices = g_new (guint, source->n_matrices);
  seal->inputs = g_new (guint, source->n_inputs);
  seal->own = g_malloc0_n (source->n_matrices, sizeof *seal->own);
  seal->sizes = g_memdup2 (sizes, sizeof *sizes * source->n_matrices);
  seal->vectors = g_array_new (FALSE, FALSE, sizeof (Vector));
  set_metadata (seal->writer, source, sizes, promise);
  for (guint i = 0; i < eng_gguf_n_tensors (source->gguf); i++) {
    const EngTensor *tensor = eng_gguf_tensor (source->gguf, i);
    if (qz_source_matrix_of (source, tensor) != QZ_NONE || qz_source_is_beyond (source, tensor->name))
      continue;
    guint64 n = tensor->dims[0] * eng_tensor_n_rows (tensor);
    if (!eng_tensor_is_readable (tensor)) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "the tensor %s of %s has type %s, which cannot be read", tensor->name,
                   eng_gguf_path (source->gguf), eng_tensor_type_name (tensor));
      return NULL;
    }
    Vector vector = { tensor, eng_gguf_writer_add_tensor (seal->writer, tensor->name, ENG_TYPE_F32, tensor->n_dims, tensor->dims), n };
    g_array_append_val (seal->vectors, vector);
  }
  guint n_pipelines = 0;
  for (guint i = 0; i < source->n_inputs; i++)
    seal->inputs[i] = add_pipeline (seal, &n_pipelines, input_bytes (source, transforms, i));
  for (guint m = 0; m < source->n_matrices; m++)
    for (QzSide side = 0; side < QZ_N_SIDES; side++)
      if (sizes[m].pipelines[side] > 0)
        seal->own[m][side] = add_pipeline (seal, &n_pipelines, sizes[m].pipelines[side]);
  for (guint m = 0; m < source->n_matrices; m++) {
    g_autofree char *name = g_strdup_printf ("%s.xbit", source->matrices[m].name);
    seal->matrices[m] = eng_gguf_writer_add_tensor (seal->writer, name, ENG_TYPE_I8, 1, &sizes[m].matrix);
  }
  return g_steal_pointer (&seal);
}

guint64 qz_seal_file_bytes (const QzSeal *seal)
{
  return eng_gguf_writer_file_bytes (seal->writer);
}

gboolean qz_seal_begin (QzSeal *seal, const char *path, GError **error)
{
  if (!eng_gguf_writer_begin (seal->writer, path, error))
    return FALSE;
  for (guint i = 0; i < seal->vectors->len; i++) {
    const Vector *vector = &g_array_index (seal->vectors, Vector, i);
    g_autofree float *values = g_new (float, vector->n);
    if (!qz_source_read_vector (seal->source, vector->source, values, error)
        || !eng_gguf_writer_write (seal->writer, vector->number, 0, values, vector->n * sizeof (float), error))
      return FALSE;
  }
  for (guint i = 0; i < seal->source->n_inputs; i++)
    if (!eng_gguf_writer_write (seal->writer, seal->inputs[i], 0, seal->transforms[i]->blob, seal->transforms[i]->bytes, error))
      return FALSE;
  return TRUE;
}

/* Pipelines' tensors follow one another. */
guint qz_seal_pipeline_id (const QzSeal *seal, guint matrix, QzSide side)
{
  guint tensor = seal->own[matrix][side];
  return tensor > 0 ? tensor - seal->inputs[0] + 1 : 0;
}

gboolean qz_seal_write_pipeline (QzSeal *seal, guint matrix, QzSide side, const void *blob, GError **error)
{
  return eng_gguf_writer_write (seal->writer, seal->own[matrix][side], 0, blob, seal->sizes[matrix].pipelines[side], error);
}

gboolean qz_seal_write_matrix (QzSeal *seal, guint matrix, const void *blob, gsize size, GError **error)
{
  return eng_gguf_writer_write (seal->writer, seal->matrices[matrix], 0, blob, size, error);
}

gboolean qz_seal_rewrite_matrix (QzSeal *seal, guint matrix, const void *blob, GError **error)
{
  return eng_gguf_writer_rewrite (seal->writer, seal->matrices[matrix], blob, error);
}

gboolean qz_seal_set_outcome (QzSeal *seal, double measured_kl, double measured_top1, const float *loss, GError **error)
{
  return eng_gguf_writer_replace_f64 (seal->writer, "valise.fit.measured_kl", measured_kl, error)
         && eng_gguf_writer_replace_f64 (seal->writer, "valise.fit.measured_top1", measured_top1, error)
         && eng_gguf_writer_replace_f32s (seal->writer, "valise.fit.losses", loss, seal->source->n_matrices, error);
}

const char *qz_seal_unfinished (const QzSeal *seal)
{
  return eng_gguf_writer_temporary (seal->writer);
}

gboolean qz_seal_finish (QzSeal *seal, GError **error)
{
  return eng_gguf_writer_finish (seal->writer, error);
}

gboolean qz_seal_other_bytes (const QzSource *source, QzTransform *const *transforms, const QzPromise *promise, guint64 *bytes, GError **error)
{
  static const QzPromise plain = { .calibration = "bundled 0123456789abcdef" };
  g_autofree QzPackedSize *nothing = g_new0 (QzPackedSize, source->n_matrices);
  for (guint m = 0; m < source->n_matrices; m++)
    nothing[m].matrix = ALIGNMENT; /* matrices are whole multiples of it: the rest of the file does not move */
  g_autoptr (QzSeal) seal = qz_seal_new (source, transforms, nothing, promise != NULL ? promise : &plain, error);
  if (seal == NULL)
    return FALSE;
  *bytes = qz_seal_file_bytes (seal) - (guint64) source->n_matrices * ALIGNMENT;
  return TRUE;
}
