/* plain.c: a checkpoint as a GGUF file of standard types: which type each matrix gets, and the writing. */
#include "quantizer/plain.h"

#include "engine/error.h"
#include "quantizer/curves.h"
#include "quantizer/ggml_encode.h"

#include <string.h>

enum { N_TYPES = 8, N_SAMPLES = 32, ROWS_AT_ONCE = 64, ALIGNMENT = 32 };

/* By size. K types take rows of whole 256 weights. */
static const guint k_types[N_TYPES]
  = { ENG_TYPE_Q2_K, ENG_TYPE_Q3_K, ENG_TYPE_IQ4_XS, ENG_TYPE_Q4_K, ENG_TYPE_Q5_K, ENG_TYPE_Q6_K, ENG_TYPE_Q8_0, ENG_TYPE_F16 };
static const guint small_types[] = { ENG_TYPE_IQ4_NL, ENG_TYPE_Q4_1, ENG_TYPE_Q5_0, ENG_TYPE_Q5_1, ENG_TYPE_Q8_0, ENG_TYPE_F16 };
static const guint no_blocks[] = { ENG_TYPE_F16 };

typedef struct {
  const EngTensor *tensor;
  guint n_types, chosen;        /* chosen: place in types */
  const guint *types;
  guint64 bytes[N_TYPES];       /* with padding */
  double loss[N_TYPES];         /* weight times squared error over squared weights */
  double weight;                /* nats */
  guint head_dim, n_rot;        /* rows of each head whose first n_rot are to turn as neighbours; 0: rows stay where they are */
} Item;

typedef struct {
  EngGguf *source;
  EngWorkers *workers;
  const QzCurves *curves;
  GArray *items;                /* Item, one for each tensor */
  EngProgress progress;
  gpointer data;
  GCancellable *cancellable;
} Plain;

static const guint numbers[] = { ENG_TYPE_F32 };

/* ---- what each tensor may become ------------------------------------------------------------------------------------------------ */

static gboolean is_matrix (const EngTensor *t)
{
  return eng_tensor_n_rows (t) > 1 && t->n_dims >= 2 && g_str_has_suffix (t->name, ".weight") && !strstr (t->name, "norm") && !strstr (t->name, "ffn_gate_inp")
         && strcmp (t->name, "position_embd.weight") != 0;
}

static guint64 bytes_of (const EngTensor *t, guint type)
{
  const EngTypeTraits *traits = eng_type_traits (type);
  guint64 size = t->dims[0] / traits->block * traits->block_bytes * eng_tensor_n_rows (t);
  return (size + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

/* Where a folder's rows of queries and keys turn halves of a head, a GGUF's turn neighbours. */
static gboolean note_rope (const Plain *p, Item *item, GError **error)
{
  const char *architecture = eng_gguf_get_string (p->source, "general.architecture", ""), *name = item->tensor->name;
  if (!eng_gguf_get_bool (p->source, "valise.rope.halves", FALSE))
    return TRUE;
  if (strstr (name, ".attn_qkv.") || strstr (name, ".attn_q_b.") || strstr (name, ".attn_q_norm.")) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s: tensor %s cannot be told to programs that turn neighbours (rope); export a GGUF of this model instead",
                 eng_gguf_path (p->source), name);
    return FALSE;
  }
  if (!strstr (name, ".attn_q.") && !strstr (name, ".attn_k."))
    return TRUE;
  g_autofree char *dim = g_strconcat (architecture, ".attention.key_length", NULL), *rot = g_strconcat (architecture, ".rope.dimension_count", NULL);
  item->head_dim = (guint) CLAMP (eng_gguf_get_int (p->source, dim, 0), 0, 4096);
  item->n_rot = (guint) CLAMP (eng_gguf_get_int (p->source, rot, item->head_dim), 0, item->head_dim);
  return TRUE;
}

/* The row of the source that becomes row `row`. */
static guint64 source_row (const Item *item, guint64 row)
{
  guint64 inside = item->head_dim ? row % item->head_dim : 0;
  return inside < item->n_rot / 2 * 2 ? row - inside + inside % 2 * (item->n_rot / 2) + inside / 2 : row;
}

/* What it would cost the model, in nats, to have nothing in the matrix's place: a relative error costs that share of it. Of one that no curve is about,
 * because the graph does not compute it, nothing. */
static double weight_of (const Plain *p, const EngTensor *t)
{
  const QzCurves *c = p->curves;
  double sum = 0;
  for (guint m = 0; m < c->n_matrices; m++) {
    guint end = m + 1 < c->n_matrices ? c->matrices[m + 1].first_cell : c->n_cells;
    for (guint i = c->matrices[m].first_cell; i < end && strcmp (c->matrices[m].name, t->name) == 0; i++)
      sum += c->cells[i].loss[0];
  }
  return sum;
}

static gboolean add_item (Plain *p, const EngTensor *t, GError **error)
{
  Item item = { .tensor = t, .weight = weight_of (p, t), .types = numbers, .n_types = 1 };
  if (!eng_tensor_is_readable (t) || t->type == ENG_TYPE_NVFP4) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s: tensor %s is of type %s, which cannot be exported as a standard one", eng_gguf_path (p->source), t->name,
                 eng_tensor_type_name (t));
    return FALSE;
  }
  if (is_matrix (t)) {
    item.types = t->dims[0] % 256 == 0 ? k_types : t->dims[0] % 32 == 0 ? small_types : no_blocks;
    item.n_types = t->dims[0] % 256 == 0 ? N_TYPES : t->dims[0] % 32 == 0 ? G_N_ELEMENTS (small_types) : 1;
  }
  for (guint i = 0; i < item.n_types; i++)
    item.bytes[i] = bytes_of (t, item.types[i]);
  if (!note_rope (p, &item, error))
    return FALSE;
  g_array_append_val (p->items, item);
  return TRUE;
}

/* ---- what each type costs ------------------------------------------------------------------------------------------------------------ */

static void measure_items (gpointer data, guint begin, guint end, guint worker)
{
  Plain *p = data;
  for (guint n = begin; n < end; n++) {
    Item *item = &g_array_index (p->items, Item, n);
    guint64 cols = item->tensor->dims[0], rows = eng_tensor_n_rows (item->tensor), samples = MIN (rows, N_SAMPLES);
    if (item->n_types < 2 || g_cancellable_is_cancelled (p->cancellable))
      continue;
    g_autofree float *x = g_new (float, 2 * cols);
    g_autofree guint8 *blocks = g_malloc (cols * sizeof (float));
    double all = 0;
    for (guint64 k = 0; k < samples; k++) {
      eng_tensor_read_rows (item->tensor, rows * k / samples, 1, x);
      for (guint64 i = 0; i < cols; i++)
        all += (double) x[i] * x[i];
      for (guint type = 0; type < item->n_types; type++) {
        qz_ggml_encode (item->types[type], x, cols, blocks);
        eng_type_dequantize (item->types[type], blocks, x + cols, cols);
        for (guint64 i = 0; i < cols; i++)
          item->loss[type] += ((double) x[i] - x[cols + i]) * ((double) x[i] - x[cols + i]);
      }
    }
    for (guint type = 0; type < item->n_types && all > 0; type++)
      item->loss[type] *= item->weight / all;
  }
}

/* From the smallest types up, always the step that saves most for its bytes among those that still fit: the lower hulls of all curves. */
static void choose_types (const Plain *p, guint64 room)
{
  for (;;) {
    Item *best = NULL;
    guint to = 0;
    double slope = 0;
    for (guint n = 0; n < p->items->len; n++) {
      Item *item = &g_array_index (p->items, Item, n);
      for (guint type = item->chosen + 1; type < item->n_types; type++) {
        guint64 more = item->bytes[type] - item->bytes[item->chosen];
        double saved = (item->loss[item->chosen] - item->loss[type]) / (double) MAX (more, 1);
        if (more <= room && saved > slope) {
          slope = saved;
          best = item;
          to = type;
        }
      }
    }
    if (!best)
      return;
    room -= best->bytes[to] - best->bytes[best->chosen];
    best->chosen = to;
  }
}

/* ---- the file --------------------------------------------------------------------------------------------------------------------------- */

typedef struct {
  const Item *item;
  guint64 row0;
  gsize row_bytes;
  guint8 *out;
} Rows;

static void encode_rows (gpointer data, guint begin, guint end, guint worker)
{
  const Rows *r = data;
  guint64 cols = r->item->tensor->dims[0];
  g_autofree float *x = g_new (float, cols);
  for (guint i = begin; i < end; i++) {
    eng_tensor_read_rows (r->item->tensor, source_row (r->item, r->row0 + i), 1, x);
    qz_ggml_encode (r->item->types[r->item->chosen], x, cols, r->out + i * r->row_bytes);
  }
}

/* A vector whose numbers stand for rows: a bias of queries or keys. */
static gboolean write_vector (const Item *item, EngGgufWriter *writer, guint n, GError **error)
{
  guint64 count = item->tensor->dims[0];
  g_autofree float *x = g_new (float, 2 * count);
  eng_tensor_read_rows (item->tensor, 0, 1, x);
  for (guint64 i = 0; i < count; i++)
    x[count + i] = x[source_row (item, i)];
  return eng_gguf_writer_write (writer, n, 0, x + count, count * sizeof *x, error);
}

static gboolean write_item (const Plain *p, const Item *item, EngGgufWriter *writer, guint n, GError **error)
{
  guint64 rows = eng_tensor_n_rows (item->tensor), cols = item->tensor->dims[0];
  const EngTypeTraits *traits = eng_type_traits (item->types[item->chosen]);
  Rows r = { .item = item, .row_bytes = cols / traits->block * traits->block_bytes };
  if (rows == 1 && item->head_dim)
    return write_vector (item, writer, n, error);
  g_autofree guint8 *out = g_malloc (ROWS_AT_ONCE * r.row_bytes);
  r.out = out;
  for (; r.row0 < rows; r.row0 += ROWS_AT_ONCE) {
    guint some = (guint) MIN (rows - r.row0, ROWS_AT_ONCE);
    if (g_cancellable_set_error_if_cancelled (p->cancellable, error))
      return FALSE;
    eng_workers_run (p->workers, encode_rows, &r, some, 1);
    if (!eng_gguf_writer_write (writer, n, r.row0 * r.row_bytes, out, some * r.row_bytes, error))
      return FALSE;
  }
  eng_gguf_drop_tensor (p->source, item->tensor);
  return TRUE;
}

static EngGgufWriter *declare (const Plain *p)
{
  EngGgufWriter *writer = eng_gguf_writer_new (ALIGNMENT);
  g_autofree char *own = g_strconcat (eng_gguf_get_string (p->source, "general.architecture", ""), ".", NULL);
  eng_gguf_writer_set_u32 (writer, "general.quantization_version", 2);
  eng_gguf_writer_copy_keys (writer, p->source, "general.");
  eng_gguf_writer_copy_keys (writer, p->source, own);
  eng_gguf_writer_copy_keys (writer, p->source, "tokenizer.");
  for (guint n = 0; n < p->items->len; n++) {
    const Item *item = &g_array_index (p->items, Item, n);
    eng_gguf_writer_add_tensor (writer, item->tensor->name, item->types[item->chosen], item->tensor->n_dims, item->tensor->dims);
  }
  return writer;
}

static gboolean write_file (Plain *p, const char *path, GError **error)
{
  g_autoptr (EngGgufWriter) writer = declare (p);
  guint64 done = 0, total = eng_gguf_writer_file_bytes (writer);
  if (!eng_gguf_writer_begin (writer, path, error))
    return FALSE;
  for (guint n = 0; n < p->items->len; n++) {
    const Item *item = &g_array_index (p->items, Item, n);
    if (p->progress)
      p->progress ((double) done / (double) total, "Writing", p->data);
    if (!write_item (p, item, writer, n, error))
      return FALSE;
    done += item->bytes[item->chosen];
  }
  return eng_gguf_writer_finish (writer, error);
}

static gboolean choose (Plain *p, guint64 bytes, GError **error)
{
  for (guint i = 0; i < eng_gguf_n_tensors (p->source); i++)
    if (!add_item (p, eng_gguf_tensor (p->source, i), error))
      return FALSE;
  g_autoptr (EngGgufWriter) least = declare (p);
  guint64 smallest = eng_gguf_writer_file_bytes (least);
  if (smallest > bytes) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY, "%s needs at least %" G_GUINT64_FORMAT " bytes as a GGUF of standard types: ask for a larger size, or fit it",
                 eng_gguf_path (p->source), smallest);
    return FALSE;
  }
  if (p->progress)
    p->progress (0, "Measuring", p->data);
  eng_workers_run (p->workers, measure_items, p, p->items->len, 1);
  if (g_cancellable_set_error_if_cancelled (p->cancellable, error))
    return FALSE;
  choose_types (p, bytes - smallest);
  return TRUE;
}

gboolean qz_plain_export (EngGguf *source, const char *path, const QzCurves *curves, guint64 bytes, EngWorkers *workers, EngProgress progress,
                          gpointer data, GCancellable *cancellable, GError **error)
{
  if (eng_gguf_has (source, "valise.version")) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "%s is packed for Valise already; export the model that it was made of", eng_gguf_path (source));
    return FALSE;
  }
  Plain p = { source, workers, curves, g_array_new (FALSE, TRUE, sizeof (Item)), progress, data, cancellable };
  gboolean ok = choose (&p, bytes, error) && write_file (&p, path, error);
  g_array_unref (p.items);
  return ok;
}
