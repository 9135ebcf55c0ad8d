/* describe.c: how a checkpoint's weights were made, as far as its files say, and what Valise does with them. */
#include "engine/checkpoint/blocks.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/packed.h"

#include <string.h>

enum { MOST_PARTS = 3 };

/* A kind of matrix and how much of the model it is. */
typedef struct {
  char *text;
  guint64 weights;
} Part;

static void clear_part (gpointer data)
{
  g_free (((Part *) data)->text);
}

/* Takes the text over. */
static void count (GArray *parts, char *text, guint64 weights)
{
  for (guint i = 0; i < parts->len; i++) {
    Part *part = &g_array_index (parts, Part, i);
    if (strcmp (part->text, text) == 0) {
      part->weights += weights;
      g_free (text);
      return;
    }
  }
  const Part part = { text, weights };
  g_array_append_val (parts, part);
}

static int by_weights (gconstpointer a, gconstpointer b)
{
  guint64 x = ((const Part *) a)->weights, y = ((const Part *) b)->weights;
  return x < y ? 1 : x > y ? -1 : 0;
}

/* ---- what Valise does ------------------------------------------------------------------------------------------------------------ */

static char *name_cells (guint least, guint most, xb_codebook codebook)
{
  if (codebook == XB_GRID)
    return g_strdup ("cells of their own grid and size");
  if (codebook == XB_EXL3)
    return g_strdup_printf ("%u-bit cells of their own trellis", least);
  const char *table = codebook == XB_TABLE ? " with a table" : "";
  return least == most ? g_strdup_printf ("%u-bit cells%s", least, table) : g_strdup_printf ("cells of %u to %u bits%s", least, most, table);
}

static char *name_packed (const EngPacked *packed)
{
  const xb_layout *l = packed->layout;
  if (!l) {
    const char *type = eng_type_traits (packed->number_type)->name;
    return packed->loss == ENG_LOSS_HALF ? g_strdup_printf ("rounded to %s", type) : g_strdup_printf ("turned into %s without loss", type);
  }
  guint least = XB_MAX_DEPTH, most = 0;
  for (guint i = 0; i < l->n_stripes * l->n_panels; i++) {
    least = MIN (least, l->cells[i].depth);
    most = MAX (most, l->cells[i].depth);
  }
  g_autofree char *cells = name_cells (least, most, l->cells[0].codebook);
  return packed->loss == ENG_LOSS_NONE ? g_strdup_printf ("carried without loss into %s", cells)
                                       : g_strdup_printf ("carried into %s, each weight within a step of f32", cells);
}

static char *name_tensor (const EngTensor *tensor)
{
  const EngTypeTraits *traits = eng_type_traits (tensor->type);
  if (tensor->packed)
    return name_packed (tensor->packed);
  if (g_str_has_suffix (tensor->name, ".xbit"))
    return g_strdup ("computed with as it is");
  const EngBlockKind *kind = eng_block_kind (tensor->type);
  if (kind) {
    g_autofree char *cells = name_cells (kind->depth, kind->depth, kind->grid ? XB_GRID : kind->table ? XB_TABLE : XB_UNIFORM);
    return g_strdup_printf ("carried without loss into %s", cells);
  }
  return traits->is_float ? g_strdup_printf ("computed with as %s", traits->name) : g_strdup ("rounded to F32");
}

static char *join (GArray *parts)
{
  guint64 all = 0;
  g_array_sort (parts, by_weights);
  for (guint i = 0; i < parts->len; i++)
    all += g_array_index (parts, Part, i).weights;
  GString *text = g_string_new (NULL);
  for (guint i = 0; i < MIN (parts->len, (guint) MOST_PARTS); i++) {
    const Part *part = &g_array_index (parts, Part, i);
    if (parts->len == 1)
      g_string_append (text, part->text);
    else
      g_string_append_printf (text, "%s%.*f%% %s", i ? "; " : "", part->weights * 100 < all ? 1 : 0, 100.0 * (double) part->weights / (double) all, part->text);
  }
  return g_string_free (text, FALSE);
}

static char *describe_keeping (const EngGguf *gguf)
{
  g_autoptr (GArray) parts = g_array_new (FALSE, FALSE, sizeof (Part));
  g_array_set_clear_func (parts, clear_part);
  if (eng_gguf_has (gguf, "valise.fit.bpw")) {
    const char *source = eng_gguf_get_string (gguf, "valise.source", "");
    return g_strdup_printf ("fitted by Valise%s%s to %.2f bits per weight", *source ? " from " : "", source, eng_gguf_get_float (gguf, "valise.fit.bpw", 0));
  }
  for (guint i = 0; i < eng_gguf_n_tensors (gguf); i++) {
    const EngTensor *tensor = eng_gguf_tensor (gguf, i);
    if (tensor->n_dims > 1 || g_str_has_suffix (tensor->name, ".xbit"))
      count (parts, name_tensor (tensor), tensor->dims[0] * eng_tensor_n_rows (tensor));
  }
  return join (parts);
}

/* ---- what its makers did --------------------------------------------------------------------------------------------------------- */

/* The type that most weights of a GGUF have. */
static const EngTensor *main_tensor (const EngGguf *gguf)
{
  guint64 best = 0;
  const EngTensor *found = NULL;
  g_autoptr (GHashTable) weights = g_hash_table_new_full (g_str_hash, g_str_equal, NULL, g_free);
  for (guint i = 0; i < eng_gguf_n_tensors (gguf); i++) {
    const EngTensor *tensor = eng_gguf_tensor (gguf, i);
    const char *type = eng_tensor_type_name (tensor);
    guint64 *sum = g_hash_table_lookup (weights, type);
    if (!sum)
      g_hash_table_insert (weights, (gpointer) type, sum = g_new0 (guint64, 1));
    *sum += tensor->dims[0] * eng_tensor_n_rows (tensor);
    if (*sum > best) {
      best = *sum;
      found = tensor;
    }
  }
  return found;
}

static void describe_gguf (const EngGguf *gguf, EngCheckpointSource *s)
{
  const EngTensor *tensor = main_tensor (gguf);
  const EngTypeTraits *traits = tensor && !tensor->packed ? eng_type_traits (tensor->type) : NULL;
  const EngBlockKind *kind = traits ? eng_block_kind (tensor->type) : NULL;
  const char *dataset = eng_gguf_get_string (gguf, "quantize.imatrix.dataset", eng_gguf_get_string (gguf, "quantize.imatrix.file", NULL));
  gint64 chunks = eng_gguf_get_int (gguf, "quantize.imatrix.chunks_count", 0);
  s->method = g_strdup (tensor ? eng_tensor_type_name (tensor) : "nothing");
  s->bits = traits ? 8.0 * traits->block_bytes / traits->block : 0;
  s->group = kind ? kind->group : 0;
  if (dataset && chunks > 0)
    s->calibration = g_strdup_printf ("%s (%" G_GINT64_FORMAT " chunks)", dataset, chunks);
  else
    s->calibration = g_strdup (dataset);
}

EngCheckpointSource *eng_checkpoint_describe (const EngGguf *gguf)
{
  EngCheckpointSource *s = g_new0 (EngCheckpointSource, 1);
  s->kept = describe_keeping (gguf);
  if (eng_gguf_has (gguf, "valise.fit.bpw")) {
    const char *calibration = eng_gguf_get_string (gguf, "valise.fit.calibration", "");
    s->format = g_strdup ("GGUF");
    s->method = g_strdup ("X-bit");
    s->bits = eng_gguf_get_float (gguf, "valise.fit.bpw", 0);
    s->calibration = *calibration ? g_strdup (calibration) : NULL;
    return s;
  }
  s->format = g_strdup (eng_gguf_get_string (gguf, "valise.source.format", "GGUF"));
  if (!eng_gguf_has (gguf, "valise.source.method")) {
    describe_gguf (gguf, s);
    s->is_mixed = strcmp (s->format, "GGUF") == 0;
    return s;
  }
  s->method = g_strdup (eng_gguf_get_string (gguf, "valise.source.method", ""));
  s->bits = eng_gguf_get_float (gguf, "valise.source.bits", 0);
  s->group = (gint) eng_gguf_get_float (gguf, "valise.source.group", 0);
  s->is_ordered = eng_gguf_get_bool (gguf, "valise.source.ordered", FALSE);
  s->calibration = g_strdup (eng_gguf_get_string (gguf, "valise.source.calibration", NULL));
  return s;
}

void eng_checkpoint_source_free (EngCheckpointSource *s)
{
  if (!s)
    return;
  g_free (s->format);
  g_free (s->method);
  g_free (s->calibration);
  g_free (s->kept);
  g_free (s);
}
