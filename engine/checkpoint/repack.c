/* repack.c: a checkpoint written again as an X-bit file that holds the very same numbers, a few bands of a matrix at a time. */
#include <string.h>

#include "engine/checkpoint/packing.h"
#include "engine/error.h"
#include "engine/model.h"

enum { BANDS_AT_ONCE = 64, PACKED_BYTES = 512 << 10 /* at once, too */, COPY_BYTES = 1 << 20 };

/* What becomes of a tensor. */
typedef enum {
  COPIED,   /* as it is, in this machine's order of bytes */
  PACKED,   /* an X-bit matrix */
  NUMBERS,  /* floats */
  FOLDED    /* no tensor of its own any more: the scale of an NVFP4 matrix, or what its makers scaled activations by */
} Fate;

typedef struct {
  EngGguf *source;
  EngGgufWriter *writer;
  GArray *outputs;      /* Output, one for each tensor of the source */
  GPtrArray *inputs;    /* GBytes: the pipelines declared so far */
  guint first_input;    /* the writer's number of the first of them */
  EngProgress progress;
  gpointer data;
  GCancellable *cancellable;
  guint64 done, total;  /* bytes of the source */
} Repack;

typedef struct {
  Fate fate;
  guint number;          /* the writer's */
  guint type;            /* NUMBERS: F32 or F16 */
  EngPacking packing;    /* PACKED: its layout with the numbers of its pipelines */
} Output;

static void clear_output (Output *output)
{
  eng_packing_clear (&output->packing);
}

/* Vectors stay what they are, but floats: those that are read are converted when a model is opened. */
static Fate fate_of (const EngGguf *gguf, const EngTensor *tensor)
{
  const EngTypeTraits *traits = eng_type_traits (tensor->type);
  if (eng_tensor_is_packable (gguf, tensor))
    return PACKED;
  if (tensor->packed)
    return NUMBERS;
  if (eng_tensor_is_folded (gguf, tensor))
    return FOLDED;
  return tensor->n_dims < 2 || traits->is_float ? COPIED : NUMBERS;
}

gboolean eng_gguf_is_computable (const EngGguf *gguf)
{
  for (guint i = 0; i < eng_gguf_n_tensors (gguf); i++) {
    const EngTensor *tensor = eng_gguf_tensor (gguf, i);
    if (fate_of (gguf, tensor) != COPIED || (tensor->swapped && tensor->type != ENG_TYPE_I8))
      return FALSE;
  }
  return TRUE;
}

static gboolean fail (const Repack *r, const EngTensor *tensor, const char *why, GError **error)
{
  g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s: tensor %s cannot be packed: %s", eng_gguf_path (r->source), tensor->name, why);
  return FALSE;
}

static gboolean report (Repack *r, const EngTensor *tensor, guint64 bytes, GError **error)
{
  r->done += bytes;
  if (r->progress)
    r->progress (r->total ? (double) r->done / (double) r->total : 1, tensor->name, r->data);
  if (g_cancellable_is_cancelled (r->cancellable)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_CANCELLED, "%s: packing was stopped", eng_gguf_path (r->source));
    return FALSE;
  }
  return TRUE;
}

/* ---- declaring --------------------------------------------------------------------------------------------------------------- */

/* 1 + the number of the pipeline, which matrices that have the very same one share. */
static gboolean declare_pipeline (Repack *r, const EngTensor *tensor, const xb_input_layout *layout, guint *id, GError **error)
{
  xb_error why = NULL;
  gsize size = xb_input_bytes (layout, &why);
  g_autofree guint8 *blob = size ? g_malloc (size) : NULL;
  if (size)
    why = xb_input_init (blob, size, layout);
  if (why)
    return fail (r, tensor, why, error);
  g_autoptr (GBytes) bytes = g_bytes_new_take (g_steal_pointer (&blob), size);
  for (guint i = 0; i < r->inputs->len; i++)
    if (g_bytes_equal (r->inputs->pdata[i], bytes)) {
      *id = i + 1;
      return TRUE;
    }
  g_ptr_array_add (r->inputs, g_steal_pointer (&bytes));
  *id = r->inputs->len;
  return TRUE;
}

static gboolean declare_packed (Repack *r, const EngTensor *tensor, Output *out, GError **error)
{
  const char *why = NULL;
  if (!eng_packing_open (&out->packing, r->source, tensor, error))
    return FALSE;
  const EngPacked *packed = out->packing.packed;
  xb_layout *layout = &out->packing.layout;
  if ((packed->input && !declare_pipeline (r, tensor, packed->input, &layout->input_id, error))
      || (packed->output && !declare_pipeline (r, tensor, packed->output, &layout->output_id, error)))
    return FALSE;
  guint64 bytes = xb_layout_bytes (layout, &why);
  if (bytes == 0)
    return fail (r, tensor, why, error);
  g_autofree char *name = g_strconcat (tensor->name, ".xbit", NULL);
  if (eng_gguf_find_tensor (r->source, name))
    return fail (r, tensor, "the file holds a packed copy of it as well", error);
  out->number = eng_gguf_writer_add_tensor (r->writer, name, ENG_TYPE_I8, 1, &bytes);
  return TRUE;
}

static gboolean declare (Repack *r, GError **error)
{
  eng_gguf_writer_set_u32 (r->writer, "valise.version", ENG_FILE_VERSION);
  eng_gguf_writer_copy_metadata (r->writer, r->source);
  for (guint i = 0; i < eng_gguf_n_tensors (r->source); i++) {
    const EngTensor *tensor = eng_gguf_tensor (r->source, i);
    Output out = { .fate = fate_of (r->source, tensor), .type = tensor->type };
    r->total += tensor->bytes;
    if (out.fate == NUMBERS)
      out.type = tensor->packed ? tensor->packed->number_type : ENG_TYPE_F32;
    gboolean ok = out.fate != PACKED || declare_packed (r, tensor, &out, error);
    if (out.fate == COPIED || out.fate == NUMBERS)
      out.number = eng_gguf_writer_add_tensor (r->writer, tensor->name, out.type, tensor->n_dims, tensor->dims);
    g_array_append_val (r->outputs, out);
    if (!ok)
      return FALSE;
  }
  for (guint i = 0; i < r->inputs->len; i++) {
    g_autofree char *name = g_strdup_printf ("xinput.%u", i);
    guint64 bytes = g_bytes_get_size (r->inputs->pdata[i]);
    guint number = eng_gguf_writer_add_tensor (r->writer, name, ENG_TYPE_I8, 1, &bytes);
    r->first_input = i == 0 ? number : r->first_input;
  }
  return TRUE;
}

/* ---- writing ----------------------------------------------------------------------------------------------------------------- */

static gboolean copy_tensor (Repack *r, const Output *out, const EngTensor *tensor, GError **error)
{
  g_autofree guint8 *turned = tensor->swapped ? g_malloc (COPY_BYTES) : NULL;
  const EngTypeTraits *traits = eng_type_traits (tensor->type);
  guint64 step = COPY_BYTES / traits->block_bytes * traits->block_bytes;
  for (guint64 at = 0; at < tensor->bytes; at += step) {
    gsize size = (gsize) MIN (step, tensor->bytes - at);
    const guint8 *bytes = tensor->data + at;
    if (turned) {
      memcpy (turned, bytes, size);
      eng_type_swap (tensor->type, turned, size);
      bytes = turned;
    }
    if (!eng_gguf_writer_write (r->writer, out->number, at, bytes, size, error) || !report (r, tensor, size, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean write_numbers (Repack *r, const Output *out, const EngTensor *tensor, GError **error)
{
  guint64 cols = tensor->dims[0], rows = eng_tensor_n_rows (tensor), step = MAX (1, COPY_BYTES / (cols * sizeof (float)));
  guint width = out->type == ENG_TYPE_F32 ? 4 : 2;
  g_autofree float *numbers = g_new (float, step * cols);
  g_autofree guint16 *halves = width == 2 ? g_new (guint16, step * cols) : NULL;
  for (guint64 row = 0; row < rows; row += step) {
    guint64 n = MIN (step, rows - row);
    eng_tensor_read_rows (tensor, row, n, numbers);
    if (out->type == ENG_TYPE_F16)
      xb_f32_to_f16 (numbers, halves, n * cols);
    for (guint64 i = 0; i < n * cols && out->type == ENG_TYPE_BF16; i++) {
      guint32 bits;
      memcpy (&bits, &numbers[i], sizeof bits);
      halves[i] = (guint16) (bits >> 16); /* what is kept as BF16 was one: nothing is lost */
    }
    if (!eng_gguf_writer_write (r->writer, out->number, row * cols * width, halves ? (void *) halves : (void *) numbers, n * cols * width, error)
        || !report (r, tensor, tensor->bytes / rows * n, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean pack_tensor (Repack *r, const Output *out, const EngTensor *tensor, GError **error)
{
  const xb_layout *layout = &out->packing.layout;
  guint bands = (layout->rows + XB_TILE_ROWS - 1) / XB_TILE_ROWS;
  gsize directory = xb_layout_directory_bytes (layout), band_bytes = (xb_layout_bytes (layout, NULL) - directory) / bands;
  guint at_once = (guint) CLAMP (PACKED_BYTES / band_bytes, 1, MIN (bands, (guint) BANDS_AT_ONCE));
  g_autofree guint8 *blob = g_try_malloc (directory + band_bytes * at_once);
  if (!blob) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY, "%s: packing tensor %s needs %" G_GSIZE_FORMAT " bytes of memory, which are not free; close other "
                 "programs and try again", eng_gguf_path (r->source), tensor->name, directory + band_bytes * at_once);
    return FALSE;
  }
  xb_layout_write_directory (blob, layout);
  if (!eng_gguf_writer_write (r->writer, out->number, 0, blob, directory, error))
    return FALSE;
  xb_error why = NULL;
  gboolean ok = TRUE;
  for (guint band = 0; band < bands && ok && !why; band += at_once) {
    guint n = MIN (at_once, bands - band);
    why = eng_packing_write (&out->packing, blob, band, n);
    ok = why || (eng_gguf_writer_write (r->writer, out->number, directory + band * band_bytes, blob + directory, n * band_bytes, error)
                 && report (r, tensor, tensor->bytes / bands * n + (band + n == bands ? tensor->bytes % bands : 0), error));
  }
  return why ? fail (r, tensor, why, error) : ok;
}

static gboolean write_tensor (Repack *r, guint i, GError **error)
{
  const EngTensor *tensor = eng_gguf_tensor (r->source, i);
  const Output *out = &g_array_index (r->outputs, Output, i);
  switch (out->fate) {
  case COPIED: return copy_tensor (r, out, tensor, error);
  case PACKED: return pack_tensor (r, out, tensor, error);
  case NUMBERS: return write_numbers (r, out, tensor, error);
  default: return report (r, tensor, tensor->bytes, error);
  }
}

static gboolean write_all (Repack *r, const char *path, GError **error)
{
  if (!declare (r, error) || !eng_gguf_writer_begin (r->writer, path, error))
    return FALSE;
  for (guint i = 0; i < eng_gguf_n_tensors (r->source); i++) {
    gboolean ok = write_tensor (r, i, error);
    eng_gguf_drop_tensor (r->source, eng_gguf_tensor (r->source, i));
    if (!ok)
      return FALSE;
  }
  for (guint i = 0; i < r->inputs->len; i++) {
    gsize size;
    const void *blob = g_bytes_get_data (r->inputs->pdata[i], &size);
    if (!eng_gguf_writer_write (r->writer, r->first_input + i, 0, blob, size, error))
      return FALSE;
  }
  return eng_gguf_writer_finish (r->writer, error);
}

gboolean eng_repack (EngGguf *source, const char *path, EngProgress progress, gpointer data, GCancellable *cancellable, GError **error)
{
  g_autoptr (EngGgufWriter) writer = eng_gguf_writer_new (XB_ALIGN);
  Repack r = { .source = source, .writer = writer, .progress = progress, .data = data, .cancellable = cancellable };
  r.outputs = g_array_new (FALSE, FALSE, sizeof (Output));
  g_array_set_clear_func (r.outputs, (GDestroyNotify) clear_output);
  r.inputs = g_ptr_array_new_with_free_func ((GDestroyNotify) g_bytes_unref);
  gboolean ok = write_all (&r, path, error);
  g_array_unref (r.outputs);
  g_ptr_array_unref (r.inputs);
  return ok;
}
