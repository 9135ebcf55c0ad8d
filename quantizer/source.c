/* source.c: finds the matrices of a checkpoint by what its traits say about the decoder, and checks that nothing in the file is left over. */
#include "quantizer/source.h"

#include "engine/checkpoint/packed.h"
#include "engine/error.h"
#include "quantizer/fit.h"

#include <string.h>

static gboolean bind_matrix (QzSource *source, const char *name, guint rows, guint cols, QzMatrix *matrix, GError **error)
{
  const EngTensor *tensor = eng_gguf_find_tensor (source->gguf, name);
  const char *path = eng_gguf_path (source->gguf);
  if (tensor == NULL) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s has no tensor %s, so the model is not complete: download it again", path, name);
    return FALSE;
  }
  if (!eng_tensor_is_readable (tensor)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "the tensor %s of %s has type %s, which cannot be fitted: choose another file of this model",
                 name, path, eng_tensor_type_name (tensor));
    return FALSE;
  }
  /* Experts stand one behind the other in a third dimension. */
  guint64 found = tensor->dims[2] <= rows ? tensor->dims[1] * tensor->dims[2] : 0;
  if (tensor->dims[0] != cols || tensor->dims[1] > rows || found != rows || tensor->dims[3] != 1) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "the tensor %s of %s is %" G_GUINT64_FORMAT " x %" G_GUINT64_FORMAT ", but its metadata says %u x %u",
                 name, path, tensor->dims[1] * tensor->dims[2], tensor->dims[0], rows, cols);
    return FALSE;
  }
  g_hash_table_add (source->bound, (gpointer) tensor->name);
  *matrix = (QzMatrix){ .name = tensor->name, .tensor = tensor, .rows = rows, .cols = cols, .unit = QZ_NONE };
  return TRUE;
}

/* Puts a matrix at the end of the list; its number in *number. */
static gboolean add_matrix (QzSource *source, const char *name, QzRole role, guint layer, guint rows, guint cols, guint input, guint *number, GError **error)
{
  QzMatrix *matrix = &source->matrices[source->n_matrices];
  if (!bind_matrix (source, name, rows, cols, matrix, error))
    return FALSE;
  matrix->role = role;
  matrix->layer = layer;
  matrix->input = input;
  *number = source->n_matrices++;
  return TRUE;
}

static guint add_input (QzSource *source, guint cols, guint n_experts)
{
  source->inputs[source->n_inputs] = (QzInput){ cols, n_experts, source->n_factors };
  source->n_factors += 1 + n_experts;
  return source->n_inputs++;
}

static gboolean add_layer_matrix (QzSource *source, guint layer, const char *name, QzRole role, guint rows, guint cols, guint input, guint *number,
                                  GError **error)
{
  g_autofree char *full = g_strdup_printf ("blk.%u.%s.weight", layer, name);
  return add_matrix (source, full, role, layer, rows, cols, input, number, error);
}

/* ---- what a layer is made of --------------------------------------------------------------------------------------------- */

/* Newer files hold the heads' projections of keys and of values apart, and the keys' transposed. */
static gboolean add_latent (QzSource *source, guint l, GError **error)
{
  const EngTraits *t = &source->traits;
  QzLayer *layer = &source->layers[l];
  guint heads = t->n_heads, q = heads * (t->latent_key + t->n_rot), embd = t->n_embd;
  g_autofree char *whole = g_strdup_printf ("blk.%u.attn_kv_b.weight", l);
  gboolean older = eng_gguf_find_tensor (source->gguf, whole) != NULL;
  layer->n_qkv = 2;
  layer->latent_input = add_input (source, t->latent, 0);
  if (t->latent_query > 0)
    layer->q_b_input = add_input (source, t->latent_query, 0);
  if (!older)
    layer->k_b_input = add_input (source, t->latent_key, 0);
  gboolean ok = t->latent_query > 0 ? add_layer_matrix (source, l, "attn_q_a", QZ_ROLE_Q_A, t->latent_query, embd, layer->attn_input, &layer->qkv[0], error)
                                          && add_layer_matrix (source, l, "attn_q_b", QZ_ROLE_Q_B, q, t->latent_query, layer->q_b_input, &layer->q_b, error)
                                    : add_layer_matrix (source, l, "attn_q", QZ_ROLE_Q, q, embd, layer->attn_input, &layer->qkv[0], error);
  if (!ok || !add_layer_matrix (source, l, "attn_kv_a_mqa", QZ_ROLE_KV_A, t->latent + t->n_rot, embd, layer->attn_input, &layer->qkv[1], error))
    return FALSE;
  if ((t->latent | t->latent_key | t->latent_value) % XB_TILE_ROWS != 0) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s cannot be fitted: its latent vector is %u wide, its heads' keys %u and values %u, and all must "
                 "be multiples of %d", eng_gguf_path (source->gguf), t->latent, t->latent_key, t->latent_value, XB_TILE_ROWS);
    return FALSE;
  }
  return older ? add_layer_matrix (source, l, "attn_kv_b", QZ_ROLE_KV_B, heads * (t->latent_key + t->latent_value), t->latent, layer->latent_input, &layer->kv_b,
                                   error)
               : add_layer_matrix (source, l, "attn_k_b", QZ_ROLE_K_B, heads * t->latent, t->latent_key, layer->k_b_input, &layer->k_b, error)
                     && add_layer_matrix (source, l, "attn_v_b", QZ_ROLE_V_B, heads * t->latent_value, t->latent, layer->latent_input, &layer->v_b, error);
}

static gboolean add_attention (QzSource *source, guint l, GError **error)
{
  const EngTraits *t = &source->traits;
  QzLayer *layer = &source->layers[l];
  guint q = t->n_heads * t->head_dim, k = t->n_kv_heads * t->head_dim, v = t->n_kv_heads * t->value_dim, embd = t->n_embd;
  guint out = t->n_heads * (t->latent > 0 ? t->latent_value : t->value_dim);
  layer->q_b = layer->kv_b = layer->k_b = layer->v_b = layer->q_b_input = layer->latent_input = layer->k_b_input = QZ_NONE;
  layer->attn_input = add_input (source, embd, t->shared_norm && eng_traits_has_experts (t, l) ? t->n_experts : 0);
  layer->output_input = add_input (source, out, 0);
  layer->n_qkv = t->fused_qkv ? 1 : 3;
  gboolean ok = t->latent > 0  ? add_latent (source, l, error)
                : t->fused_qkv ? add_layer_matrix (source, l, "attn_qkv", QZ_ROLE_QKV, q + k + v, embd, layer->attn_input, &layer->qkv[0], error)
                               : add_layer_matrix (source, l, "attn_q", QZ_ROLE_Q, q, embd, layer->attn_input, &layer->qkv[0], error)
                                     && add_layer_matrix (source, l, "attn_k", QZ_ROLE_K, k, embd, layer->attn_input, &layer->qkv[1], error)
                                     && add_layer_matrix (source, l, "attn_v", QZ_ROLE_V, v, embd, layer->attn_input, &layer->qkv[2], error);
  return ok && add_layer_matrix (source, l, "attn_output", QZ_ROLE_OUTPUT, embd, out, layer->output_input, &layer->output, error);
}

/* suffix "": a plain unit; "_exps": experts; "_shexp": what every token goes through beside them. */
static gboolean add_unit (QzSource *source, guint l, const char *suffix, guint n_ff, guint n_experts, gboolean is_mixture, GError **error)
{
  const EngTraits *t = &source->traits;
  QzLayer *layer = &source->layers[l];
  guint number = source->n_units++, rows = n_ff * n_experts, first = source->n_matrices;
  QzUnit *unit = &source->units[number];
  *unit = (QzUnit){ .layer = l, .n_ff = n_ff, .n_experts = n_experts, .is_mixture = is_mixture, .gate = QZ_NONE, .input = layer->ffn_input,
                    .down_input = add_input (source, n_ff, is_mixture ? n_experts : 0) };
  layer->units[layer->n_units++] = number;
  g_autofree char *gate = g_strconcat ("ffn_gate", suffix, NULL), *up = g_strconcat ("ffn_up", suffix, NULL), *down = g_strconcat ("ffn_down", suffix, NULL);
  gboolean fused = t->fused_gate_up;
  if ((!t->ungated && !fused && !add_layer_matrix (source, l, gate, QZ_ROLE_GATE, rows, t->n_embd, unit->input, &unit->gate, error))
      || !add_layer_matrix (source, l, up, fused ? QZ_ROLE_GATE_UP : QZ_ROLE_UP, fused ? 2 * rows : rows, t->n_embd, unit->input, &unit->up, error)
      || !add_layer_matrix (source, l, down, QZ_ROLE_DOWN, t->n_embd * n_experts, n_ff, unit->down_input, &unit->down, error))
    return FALSE;
  for (guint m = first; m < source->n_matrices; m++)
    source->matrices[m].unit = number;
  if (!is_mixture || (n_ff % XB_TILE_ROWS == 0 && t->n_embd % XB_TILE_ROWS == 0))
    return TRUE;
  g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s cannot be fitted: its experts are %u wide in a stream of %u, and both must be multiples of %d",
               eng_gguf_path (source->gguf), n_ff, t->n_embd, XB_TILE_ROWS);
  return FALSE;
}

static gboolean add_feed_forward (QzSource *source, guint l, GError **error)
{
  const EngTraits *t = &source->traits;
  QzLayer *layer = &source->layers[l];
  layer->ffn_input = t->shared_norm ? layer->attn_input : add_input (source, t->n_embd, eng_traits_has_experts (t, l) ? t->n_experts : 0);
  if (!eng_traits_has_experts (t, l))
    return add_unit (source, l, "", t->n_experts > 0 ? t->n_ff_dense : t->n_ff, 1, FALSE, error);
  return add_unit (source, l, "_exps", t->n_ff, t->n_experts, TRUE, error)
         && (t->n_ff_shared == 0 || add_unit (source, l, "_shexp", t->n_ff_shared, 1, FALSE, error));
}

/* ---- everything else ----------------------------------------------------------------------------------------------------- */

/* Vectors of a layer that the pass reads where they are. */
static const char *const layer_vectors[] = {
  "attn_norm.weight", "attn_norm.bias", "attn_norm_2.weight", "attn_norm_2.bias", "ffn_norm.weight", "ffn_norm.bias",
  "post_attention_norm.weight", "post_attention_norm.bias", "post_ffw_norm.weight", "post_ffw_norm.bias",
  "attn_q_norm.weight", "attn_k_norm.weight", "attn_q_a_norm.weight", "attn_kv_a_norm.weight",
  "attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_qkv.bias", "attn_output.bias",
  "attn_sub_norm.weight", "attn_sub_norm.bias", "ffn_sub_norm.weight", "ffn_sub_norm.bias", "attn_sinks.weight",
  "ffn_gate.bias", "ffn_up.bias", "ffn_down.bias", "ffn_gate_inp.weight", "ffn_gate_inp.bias", "ffn_gate_inp_shexp.weight", "exp_probs_b.bias",
  "ffn_gate_exps.bias", "ffn_up_exps.bias", "ffn_down_exps.bias",
};
static const char *const model_vectors[] = { "output_norm.weight", "output_norm.bias", "output.bias", "position_embd.weight",
                                             "token_embd_norm.weight", "token_embd_norm.bias", "stream_rotation.weight", "rope_freqs.weight",
                                             "rope_factors_short.weight", "rope_factors_long.weight" };

static void bind_vector (QzSource *source, const char *name)
{
  const EngTensor *tensor = eng_gguf_find_tensor (source->gguf, name);
  if (tensor != NULL)
    g_hash_table_add (source->bound, (gpointer) tensor->name);
}

guint qz_source_matrix_of (const QzSource *source, const EngTensor *tensor)
{
  for (guint m = 0; m < source->n_matrices; m++)
    if (source->matrices[m].tensor == tensor)
      return m;
  return QZ_NONE;
}

gboolean qz_source_is_beyond (const QzSource *source, const char *name)
{
  return g_str_has_prefix (name, "blk.") && g_ascii_strtoull (name + 4, NULL, 10) >= source->traits.n_layers;
}

/* A tensor that no step of the graph uses would be lost without a word: refuse it instead. */
static gboolean check_nothing_left (QzSource *source, GError **error)
{
  for (guint i = 0; i < G_N_ELEMENTS (model_vectors); i++)
    bind_vector (source, model_vectors[i]);
  for (guint l = 0; l < source->traits.n_layers; l++)
    for (guint i = 0; i < G_N_ELEMENTS (layer_vectors); i++) {
      g_autofree char *name = g_strdup_printf ("blk.%u.%s", l, layer_vectors[i]);
      bind_vector (source, name);
    }
  for (guint i = 0; i < eng_gguf_n_tensors (source->gguf); i++) {
    const char *name = eng_gguf_tensor (source->gguf, i)->name;
    if (!qz_source_is_beyond (source, name) && !g_hash_table_contains (source->bound, name)) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "the tensor %s of %s has no place in the graph of %s models, so it cannot be fitted",
                   name, eng_gguf_path (source->gguf), source->traits.architecture);
      return FALSE;
    }
  }
  return TRUE;
}

static gboolean read_rotation (QzSource *source, GError **error)
{
  const EngTensor *tensor = eng_gguf_find_tensor (source->gguf, "stream_rotation.weight");
  guint embd = source->traits.n_embd;
  if (tensor == NULL)
    return TRUE;
  if (tensor->dims[0] != embd || tensor->dims[1] != embd || tensor->n_dims != 2) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "the tensor %s of %s is not %u x %u: fit the model it was made from anew", tensor->name,
                 eng_gguf_path (source->gguf), embd, embd);
    return FALSE;
  }
  source->rotation = g_new (float, (gsize) embd * embd);
  return qz_source_read_vector (source, tensor, source->rotation, error);
}

QzSource *qz_source_new (EngGguf *gguf, GError **error)
{
  if (eng_gguf_has (gguf, "valise.version")) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "%s is a fit already: fit the model it was made from instead", eng_gguf_path (gguf));
    return NULL;
  }
  g_autoptr (QzSource) source = g_new0 (QzSource, 1);
  source->gguf = eng_gguf_ref (gguf);
  if (!eng_traits_read (&source->traits, gguf, error))
    return NULL;
  const EngTraits *t = &source->traits;
  if (t->n_layers > eng_gguf_n_tensors (gguf)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s: %u layers but %u tensors: the file is damaged", eng_gguf_path (gguf), t->n_layers,
                 eng_gguf_n_tensors (gguf));
    return NULL;
  }
  /* A layer has six matrices of attention at most, and three of each of two units; five inputs, one more, and one of each unit. */
  source->matrices = g_new0 (QzMatrix, 2 + t->n_layers * 12);
  source->inputs = g_new0 (QzInput, 2 + t->n_layers * 8);
  source->units = g_new0 (QzUnit, t->n_layers * 2);
  source->layers = g_new0 (QzLayer, t->n_layers);
  source->bound = g_hash_table_new (g_str_hash, g_str_equal);
  guint number;
  if (!add_matrix (source, "token_embd.weight", QZ_ROLE_EMBEDDING, 0, t->n_vocab, t->n_embd, add_input (source, t->n_embd, 0), &number, error))
    return NULL;
  for (guint l = 0; l < t->n_layers; l++)
    if (!add_attention (source, l, error) || !add_feed_forward (source, l, error))
      return NULL;
  if (!t->tied_head
      && !add_matrix (source, "output.weight", QZ_ROLE_HEAD, 0, t->n_vocab, t->n_embd, add_input (source, t->n_embd, 0), &number, error))
    return NULL;
  if (!check_nothing_left (source, error) || !read_rotation (source, error))
    return NULL;
  return g_steal_pointer (&source);
}

/* In cells, or in less than a byte to a weight of what is kept as numbers (NF4). */
static gboolean is_quantized (const EngTensor *tensor)
{
  if (tensor->packed == NULL)
    return eng_type_traits (tensor->type)->block > 1;
  return tensor->packed->layout != NULL || tensor->bytes < tensor->dims[0] * eng_tensor_n_rows (tensor);
}

double qz_source_bits (const EngGguf *gguf)
{
  double weights = 0, quantized = 0, bits = 0;
  for (guint i = 0; i < eng_gguf_n_tensors (gguf); i++) {
    const EngTensor *tensor = eng_gguf_tensor (gguf, i);
    double n = (double) tensor->dims[0] * eng_tensor_n_rows (tensor);
    if (tensor->n_dims < 2)
      continue;
    weights += n;
    quantized += is_quantized (tensor) ? n : 0;
    bits += is_quantized (tensor) ? 8.0 * tensor->bytes : 0;
  }
  return 2 * quantized > weights ? bits / quantized : 0;
}

void qz_source_free (QzSource *source)
{
  if (source == NULL)
    return;
  for (guint u = 0; u < source->n_units; u++)
    g_free (source->units[u].order);
  g_clear_pointer (&source->bound, g_hash_table_unref);
  eng_gguf_unref (source->gguf);
  g_free (source->matrices);
  g_free (source->inputs);
  g_free (source->units);
  g_free (source->layers);
  g_free (source->rotation);
  g_free (source);
}

gboolean qz_source_set_order (QzSource *source, guint number, guint expert, const guint32 *order)
{
  QzUnit *unit = &source->units[number];
  guint n = unit->n_ff;
  g_autofree guint8 *seen = g_malloc0 (n);
  for (guint i = 0; i < n; i++) {
    if (order[i] >= n || seen[order[i]])
      return FALSE;
    seen[order[i]] = TRUE;
  }
  if (unit->order == NULL) {
    unit->order = g_new (guint32, (gsize) unit->n_experts * n);
    for (gsize i = 0; i < (gsize) unit->n_experts * n; i++)
      unit->order[i] = i % n;
  }
  memcpy (unit->order + (gsize) expert * n, order, sizeof (guint32) * n);
  return TRUE;
}

guint qz_source_head (const QzSource *source)
{
  return source->traits.tied_head ? 0 : source->n_matrices - 1;
}

guint qz_source_find (const QzSource *source, guint layer, QzRole role)
{
  for (guint m = 0; m < source->n_matrices; m++)
    if (source->matrices[m].layer == layer && source->matrices[m].role == role)
      return m;
  return QZ_NONE;
}

guint qz_source_expert_rows (const QzSource *source, guint matrix)
{
  const QzMatrix *m = &source->matrices[matrix];
  return m->unit == QZ_NONE ? m->rows : m->rows / source->units[m->unit].n_experts;
}
