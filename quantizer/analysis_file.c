/* analysis_file.c: an analysis beside its model: eight bytes of magic, version, size and checksum of a GVariant with everything small,
 * then the factors. The curves can be read without the factors. Nothing in the file is trusted. */
#include "quantizer/analysis.h"

#include "engine/error.h"
#include "quantizer/spill.h"

#include <errno.h>
#include <fcntl.h>
#include <glib/gstdio.h>
#include <math.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ANALYSIS_VERSION = 13, HEADER_BYTES = 64, MOST_HEAD_BYTES = 1 << 30, COPY_BYTES = 1 << 20 };

/* fingerprint, calibration, seed, pipelines, pivots, Fisher, held-out sequences and tokens, their states, curves, orders of channels, offsets
 * of factors, columns factored together, method, learned sequences' tokens, offset of their states */
#define HEAD_TYPE "(sstaayaayaayuaiay(ta(suuyyytdd)ay)aayatuuait)"

typedef struct {
  char magic[8];
  guint32 version, reserved;
  guint64 head_bytes;
  guint8 checksum[32];
  guint64 factor_bytes;
} Header;
G_STATIC_ASSERT (sizeof (Header) == HEADER_BYTES);

static const char magic[8] = { 'V', 'A', 'L', 'I', 'S', 'A', 'N', 'A' };

static void checksum_of (const void *data, gsize size, guint8 out[32])
{
  g_autoptr (GChecksum) sum = g_checksum_new (G_CHECKSUM_SHA256);
  gsize length = 32;
  g_checksum_update (sum, data, size);
  g_checksum_get_digest (sum, out, &length);
}

/* ---- saving ------------------------------------------------------------------------------------------------------------- */

static GVariant *bytes_variant (const void *data, gsize size)
{
  return g_variant_new_fixed_array (G_VARIANT_TYPE_BYTE, data, size, 1);
}

static GVariant *head_of (const QzAnalysis *a)
{
  GVariantBuilder transforms, pivots, fisher;
  g_variant_builder_init (&transforms, G_VARIANT_TYPE ("aay"));
  g_variant_builder_init (&pivots, G_VARIANT_TYPE ("aay"));
  g_variant_builder_init (&fisher, G_VARIANT_TYPE ("aay"));
  for (guint i = 0; i < a->n_inputs; i++)
    g_variant_builder_add_value (&transforms, bytes_variant (a->transforms[i]->blob, a->transforms[i]->bytes));
  for (guint f = 0; f < a->n_factors; f++)
    g_variant_builder_add_value (&pivots, bytes_variant (a->pivots[f], a->pivots[f] != NULL ? sizeof (float) * a->factor_cols[f] : 0));
  for (guint m = 0; m < a->n_matrices; m++)
    g_variant_builder_add_value (&fisher, bytes_variant (a->row_fisher[m], sizeof (float) * a->curves->matrices[m].shape.rows));
  GVariantBuilder orders;
  g_variant_builder_init (&orders, G_VARIANT_TYPE ("aay"));
  for (guint u = 0; u < a->n_units; u++)
    g_variant_builder_add_value (&orders, bytes_variant (a->order[u], sizeof (guint32) * a->order_lengths[u]));
  gsize held = (gsize) a->held_sequences * a->held_tokens, learned = (gsize) a->n_learned * a->held_tokens;
  return g_variant_ref_sink (g_variant_new ("(sst@aay@aay@aayu@ai@ay@(ta(suuyyytdd)ay)@aay@atuu@ait)", a->fingerprint, a->calibration, a->seed,
                                            g_variant_builder_end (&transforms), g_variant_builder_end (&pivots), g_variant_builder_end (&fisher),
                                            a->held_sequences, g_variant_new_fixed_array (G_VARIANT_TYPE_INT32, a->held, held, sizeof (gint32)),
                                            bytes_variant (a->held_hidden, held * a->n_embd * sizeof (guint16)), qz_curves_to_variant (a->curves),
                                            g_variant_builder_end (&orders),
                                            g_variant_new_fixed_array (G_VARIANT_TYPE_UINT64, a->offsets, a->n_factors, sizeof (guint64)), a->widest,
                                            (guint32) a->method,
                                            g_variant_new_fixed_array (G_VARIANT_TYPE_INT32, a->learned, learned, sizeof (gint32)), a->states_offset));
}

static gboolean write_all (int fd, const void *data, gsize size)
{
  const guint8 *p = data;
  while (size > 0) {
    gssize done = write (fd, p, size);
    if (done < 0 && errno == EINTR)
      continue;
    if (done <= 0)
      return FALSE;
    p += done;
    size -= done;
  }
  return TRUE;
}

static gboolean write_failed (GError **error)
{
  g_set_error (error, ENG_ERROR, ENG_ERROR_IO, "the analysis cannot be written (%s): free some space", g_strerror (errno));
  return FALSE;
}

static gboolean write_analysis (const QzAnalysis *a, int fd, GError **error)
{
  g_autoptr (GVariant) head = head_of (a);
  g_autofree guint8 *buffer = g_malloc (COPY_BYTES);
  Header header = { .version = ANALYSIS_VERSION, .head_bytes = g_variant_get_size (head), .factor_bytes = a->factor_end };
  memcpy (header.magic, magic, sizeof magic);
  checksum_of (g_variant_get_data (head), header.head_bytes, header.checksum);
  if (!write_all (fd, &header, sizeof header) || !write_all (fd, g_variant_get_data (head), header.head_bytes))
    return write_failed (error);
  for (guint64 offset = 0; offset < header.factor_bytes; offset += COPY_BYTES) {
    gsize size = MIN (COPY_BYTES, header.factor_bytes - offset);
    if (!qz_store_read (a->factors, offset, buffer, size, error))
      return FALSE;
    if (!write_all (fd, buffer, size))
      return write_failed (error);
  }
  return fsync (fd) == 0 || write_failed (error);
}

gboolean qz_analysis_save (const QzAnalysis *a, const char *path, GError **error)
{
  g_autofree char *temporary = g_strdup_printf ("%s.XXXXXX.tmp", path);
  int fd = g_mkstemp_full (temporary, O_RDWR | O_CLOEXEC, 0644);
  if (fd < 0) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_IO, "the analysis %s cannot be written: %s", path, g_strerror (errno));
    return FALSE;
  }
  gboolean ok = write_analysis (a, fd, error);
  close (fd);
  if (ok && g_rename (temporary, path) != 0) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_IO, "the analysis %s cannot be put in its place: %s", path, g_strerror (errno));
    ok = FALSE;
  }
  if (!ok)
    g_unlink (temporary);
  return ok;
}

/* ---- loading ------------------------------------------------------------------------------------------------------------ */

static void *foreign (const char *path, GError **error)
{
  g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s is not an analysis of this model by this version of Valise: analyse the model again", path);
  return NULL;
}

/* The checked head, and where the factors begin. */
static GVariant *read_head (const char *path, const EngGguf *gguf, guint64 *base, guint64 *factor_bytes, GError **error)
{
  struct stat status;
  Header header;
  QzStore *store = qz_store_open (path, 0, error);
  if (store == NULL)
    return NULL;
  g_autofree guint8 *data = NULL;
  gboolean ok = stat (path, &status) == 0 && status.st_size >= HEADER_BYTES && qz_store_read (store, 0, &header, sizeof header, NULL)
                && memcmp (header.magic, magic, sizeof magic) == 0 && header.version == ANALYSIS_VERSION && header.head_bytes <= MOST_HEAD_BYTES
                && (guint64) status.st_size == HEADER_BYTES + header.head_bytes + header.factor_bytes;
  if (ok) {
    guint8 checksum[32];
    data = g_malloc (header.head_bytes);
    ok = qz_store_read (store, HEADER_BYTES, data, header.head_bytes, NULL);
    if (ok)
      checksum_of (data, header.head_bytes, checksum);
    ok = ok && memcmp (checksum, header.checksum, sizeof checksum) == 0;
  }
  qz_store_free (store);
  if (!ok)
    return foreign (path, error);
  *base = HEADER_BYTES + header.head_bytes;
  *factor_bytes = header.factor_bytes;
  gsize size = header.head_bytes;
  guint8 *owned = g_steal_pointer (&data);
  g_autoptr (GVariant) head = g_variant_ref_sink (g_variant_new_from_data (G_VARIANT_TYPE (HEAD_TYPE), owned, size, FALSE, g_free, owned));
  const char *fingerprint;
  g_autofree char *expected = qz_fingerprint (gguf);
  g_variant_get_child (head, 0, "&s", &fingerprint);
  if (!g_variant_is_normal_form (head) || !g_str_equal (fingerprint, expected))
    return foreign (path, error);
  return g_steal_pointer (&head);
}

/* Element i of an "aay" as n floats, all finite and not negative. */
static float *floats_of (GVariant *list, guint i, gsize n)
{
  gsize size = 0;
  g_autoptr (GVariant) element = g_variant_get_child_value (list, i);
  const void *data = g_variant_get_fixed_array (element, &size, 1);
  if (size != n * sizeof (float))
    return NULL;
  float *out = g_memdup2 (data, size);
  for (gsize k = 0; k < n; k++)
    if (!isfinite (out[k]) || out[k] < 0) {
      g_free (out);
      return NULL;
    }
  return out;
}

static gboolean take_orders (QzAnalysis *a, QzSource *source, GVariant *head)
{
  g_autoptr (GVariant) orders = g_variant_get_child_value (head, 10);
  if (g_variant_n_children (orders) != a->n_units)
    return FALSE;
  for (guint u = 0; u < a->n_units; u++) {
    gsize size = 0;
    g_autoptr (GVariant) order = g_variant_get_child_value (orders, u);
    const void *data = g_variant_get_fixed_array (order, &size, 1);
    if (size != sizeof (guint32) * a->order_lengths[u])
      return FALSE;
    a->order[u] = g_memdup2 (data, size);
  }
  return qz_analysis_apply_order (a, source);
}

/* Where the factors are, all of them within factor_bytes. */
static gboolean take_offsets (QzAnalysis *a, GVariant *head, guint64 factor_bytes)
{
  gsize n = 0;
  g_autoptr (GVariant) offsets = g_variant_get_child_value (head, 11);
  const guint64 *data = g_variant_get_fixed_array (offsets, &n, sizeof (guint64));
  g_variant_get_child (head, 12, "u", &a->widest);
  if (n != a->n_factors || a->widest == 0)
    return FALSE;
  a->factor_end = factor_bytes;
  for (guint f = 0; f < a->n_factors; f++) {
    guint64 bytes = qz_analysis_factor_bytes (a, f);
    a->offsets[f] = data[f];
    if (data[f] > factor_bytes || bytes > factor_bytes - data[f])
      return FALSE;
  }
  return TRUE;
}

static gboolean take_arrays (QzAnalysis *a, QzSource *source, GVariant *head)
{
  g_autoptr (GVariant) transforms = g_variant_get_child_value (head, 3), pivots = g_variant_get_child_value (head, 4),
                       fisher = g_variant_get_child_value (head, 5);
  if (g_variant_n_children (transforms) != a->n_inputs || g_variant_n_children (pivots) != a->n_factors
      || g_variant_n_children (fisher) != a->n_matrices)
    return FALSE;
  for (guint i = 0; i < a->n_inputs; i++) {
    gsize size = 0;
    g_autoptr (GVariant) blob = g_variant_get_child_value (transforms, i);
    const void *data = g_variant_get_fixed_array (blob, &size, 1);
    a->transforms[i] = qz_transform_new_from_bytes (source->inputs[i].cols, data, size);
    if (a->transforms[i] == NULL)
      return FALSE;
    /* Only experts may be without. */
    for (guint k = 0; k <= source->inputs[i].n_experts; k++) {
      guint f = source->inputs[i].first_factor + k;
      g_autoptr (GVariant) none = g_variant_get_child_value (pivots, f);
      if (k > 0 && g_variant_n_children (none) == 0)
        continue;
      a->pivots[f] = floats_of (pivots, f, source->inputs[i].cols);
      if (a->pivots[f] == NULL)
        return FALSE;
    }
  }
  for (guint m = 0; m < a->n_matrices; m++) {
    a->row_fisher[m] = floats_of (fisher, m, source->matrices[m].rows);
    if (a->row_fisher[m] == NULL)
      return FALSE;
  }
  return TRUE;
}

static gboolean take_held_out (QzAnalysis *a, const QzSource *source, GVariant *head)
{
  gsize n_tokens = 0, n_bytes = 0;
  g_autoptr (GVariant) tokens = g_variant_get_child_value (head, 7), states = g_variant_get_child_value (head, 8);
  g_variant_get_child (head, 6, "u", &a->held_sequences);
  const gint32 *ids = g_variant_get_fixed_array (tokens, &n_tokens, sizeof (gint32));
  const void *hidden = g_variant_get_fixed_array (states, &n_bytes, 1);
  if (a->held_sequences == 0 || n_tokens == 0 || n_tokens % a->held_sequences != 0 || n_bytes != n_tokens * a->n_embd * sizeof (guint16))
    return FALSE;
  for (gsize i = 0; i < n_tokens; i++)
    if (ids[i] < 0 || (guint) ids[i] >= source->traits.n_vocab)
      return FALSE;
  a->held_tokens = n_tokens / a->held_sequences;
  a->held = g_memdup2 (ids, n_tokens * sizeof (gint32));
  a->held_hidden = g_memdup2 (hidden, n_bytes);
  return TRUE;
}

static gboolean take_learned (QzAnalysis *a, const QzSource *source, GVariant *head)
{
  gsize n = 0;
  g_autoptr (GVariant) tokens = g_variant_get_child_value (head, 14);
  const gint32 *ids = g_variant_get_fixed_array (tokens, &n, sizeof (gint32));
  g_variant_get_child (head, 15, "t", &a->states_offset);
  guint64 row_bytes = qz_spill_row_bytes (a->n_embd);
  if (n == 0 || n % a->held_tokens != 0 || a->states_offset > a->factor_end || n > (a->factor_end - a->states_offset) / row_bytes)
    return FALSE;
  for (gsize i = 0; i < n; i++)
    if (ids[i] < 0 || (guint) ids[i] >= source->traits.n_vocab)
      return FALSE;
  a->n_learned = n / a->held_tokens;
  a->learned = g_memdup2 (ids, n * sizeof (gint32));
  return TRUE;
}

QzAnalysis *qz_analysis_load (EngGguf *gguf, const char *path, GError **error)
{
  guint64 base, factor_bytes;
  guint32 method;
  g_autoptr (QzSource) source = qz_source_new (gguf, error);
  g_autoptr (GVariant) head = source != NULL ? read_head (path, gguf, &base, &factor_bytes, error) : NULL;
  if (head == NULL)
    return NULL;
  g_autoptr (QzAnalysis) a = qz_analysis_alloc (source);
  g_autoptr (GVariant) curves = g_variant_get_child_value (head, 9);
  g_variant_get_child (head, 0, "s", &a->fingerprint);
  g_variant_get_child (head, 1, "s", &a->calibration);
  g_variant_get_child (head, 2, "t", &a->seed);
  g_variant_get_child (head, 13, "u", &method);
  a->method = MIN (method, QZ_N_METHODS);
  if (a->method == QZ_N_METHODS || !take_arrays (a, source, head) || !take_offsets (a, head, factor_bytes) || !take_orders (a, source, head)
      || !take_held_out (a, source, head) || !take_learned (a, source, head))
    return foreign (path, error);
  a->curves = qz_curves_from_variant (curves, source, error);
  if (a->curves == NULL)
    return NULL;
  a->factors = qz_store_open (path, base, error);
  return a->factors != NULL ? g_steal_pointer (&a) : NULL;
}

QzCurves *qz_curves_load (const EngGguf *gguf, const char *path, GError **error)
{
  guint64 base, factor_bytes;
  g_autoptr (QzSource) source = qz_source_new ((EngGguf *) gguf, error);
  g_autoptr (GVariant) head = source != NULL ? read_head (path, gguf, &base, &factor_bytes, error) : NULL;
  if (head == NULL)
    return NULL;
  g_autoptr (GVariant) curves = g_variant_get_child_value (head, 9);
  return qz_curves_from_variant (curves, source, error);
}
