/* layer_weights.c: a layer's weights as f32. Matrices that multiply the same input lie one below the other, so that they are one product. */
#include "quantizer/layer.h"

#include "engine/error.h"

#include <string.h>

static gsize attention_floats (const EngTraits *t)
{
  gsize q = (gsize) t->n_heads * t->head_dim, kv = (gsize) t->n_kv_heads * (t->head_dim + t->value_dim), out = (gsize) t->n_heads * t->value_dim;
  if (t->latent > 0) {
    gsize whole = (gsize) t->n_heads * (t->latent_key + t->n_rot), values = (gsize) t->n_heads * t->latent_value;
    gsize first = (t->latent_query > 0 ? t->latent_query : whole) + t->latent + t->n_rot;
    return (first + values) * t->n_embd + whole * t->latent_query + t->n_heads * (gsize) (t->latent_key + t->latent_value) * t->latent;
  }
  return (q + kv + out) * t->n_embd;
}

static gsize unit_floats (const EngTraits *t)
{
  return (gsize) (t->ungated ? 2 : 3) * MAX (MAX (t->n_ff, t->n_ff_shared), t->n_ff_dense) * t->n_embd;
}

gsize qz_layer_weights_floats (const QzSource *source)
{
  return MAX (attention_floats (&source->traits), unit_floats (&source->traits));
}

gboolean qz_layer_weights_init (QzLayerWeights *w, const QzSource *source, GError **error)
{
  *w = (QzLayerWeights){ .matrices = g_try_malloc_n (qz_layer_weights_floats (source), sizeof (float)) };
  if (w->matrices == NULL) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY, "there is not enough memory to hold one layer of %s: close other programs and try again",
                 eng_gguf_path (source->gguf));
    return FALSE;
  }
  w->vectors = g_ptr_array_new_with_free_func (g_free);
  return TRUE;
}

void qz_layer_weights_clear (QzLayerWeights *w)
{
  g_clear_pointer (&w->vectors, g_ptr_array_unref);
  g_free (w->matrices);
  *w = (QzLayerWeights){ 0 };
}

/* ---- vectors ------------------------------------------------------------------------------------------------------------- */

typedef struct {
  QzLayerWeights *w;
  const QzSource *source;
  guint layer;
  GError **error; /* the first one; nothing is read after it */
  gboolean ok;
} Reader;

static const EngTensor *find (const Reader *r, const char *name)
{
  g_autofree char *full = g_strdup_printf ("blk.%u.%s", r->layer, name);
  return eng_gguf_find_tensor (r->source->gguf, full);
}

static gsize length_of (const EngTensor *tensor)
{
  return (gsize) tensor->dims[0] * eng_tensor_n_rows (tensor);
}

/* Into out [n]; FALSE where there is none. */
static gboolean read_into (Reader *r, const char *name, gsize n, float *out)
{
  const EngTensor *tensor = r->ok ? find (r, name) : NULL;
  if (tensor == NULL)
    return FALSE;
  if (length_of (tensor) != n) {
    g_set_error (r->error, ENG_ERROR, ENG_ERROR_FORMAT, "the tensor %s of %s has %" G_GSIZE_FORMAT " values instead of %" G_GSIZE_FORMAT
                 ": the file is damaged, download it again", tensor->name, eng_gguf_path (r->source->gguf), length_of (tensor), n);
    r->ok = FALSE;
    return FALSE;
  }
  r->ok = qz_source_read_vector (r->source, tensor, out, r->error);
  return r->ok;
}

/* A vector of n values, or NULL where there is none. */
static const float *read_vector (Reader *r, const char *name, gsize n)
{
  if (!r->ok || find (r, name) == NULL)
    return NULL;
  float *out = g_new0 (float, n);
  g_ptr_array_add (r->w->vectors, out);
  return read_into (r, name, n, out) ? out : NULL;
}

/* Vectors of two or three parts one behind the other, zeros for those that are missing; NULL where all are. */
static const float *read_parts (Reader *r, guint n_parts, const char *const *names, const guint *lengths)
{
  gsize n = 0, at = 0;
  gboolean any = FALSE;
  for (guint i = 0; i < n_parts; i++) {
    n += lengths[i];
    any = any || find (r, names[i]) != NULL;
  }
  if (!any)
    return NULL;
  float *out = g_new0 (float, n);
  g_ptr_array_add (r->w->vectors, out);
  for (guint i = 0; i < n_parts; at += lengths[i++])
    read_into (r, names[i], lengths[i], out + at);
  return out;
}

static QzNorm read_norm (Reader *r, const char *name, guint n, gboolean wanted)
{
  const EngTraits *t = &r->source->traits;
  g_autofree char *gain = g_strconcat (name, ".weight", NULL), *bias = g_strconcat (name, ".bias", NULL);
  QzNorm norm = { .centred = t->layer_norm, .eps = t->norm_eps };
  if (!wanted || t->plain_norm)
    return norm;
  norm.gain = read_vector (r, gain, n);
  norm.bias = read_vector (r, bias, n);
  if (r->ok && norm.gain == NULL) {
    g_set_error (r->error, ENG_ERROR, ENG_ERROR_FORMAT, "%s has no tensor blk.%u.%s, so the model is not complete: download it again",
                 eng_gguf_path (r->source->gguf), r->layer, gain);
    r->ok = FALSE;
  }
  return norm;
}

static gsize head_norm_length (const EngTraits *t, guint n_heads)
{
  return (gsize) (t->qk_norm == ENG_QK_NORM_HEAD ? 1 : n_heads) * t->head_dim;
}

gboolean qz_layer_weights_read_vectors (QzLayerWeights *w, const QzSource *source, guint layer, GError **error)
{
  const EngTraits *t = &source->traits;
  guint q = t->n_heads * t->head_dim, k = t->n_kv_heads * t->head_dim, v = t->n_kv_heads * t->value_dim, embd = t->n_embd;
  gboolean mixture = eng_traits_has_experts (t, layer);
  Reader r = { w, source, layer, error, TRUE };
  g_ptr_array_set_size (w->vectors, 0);
  w->layer = layer;
  /* Falcon's 40B norms twice, the second time for attention; then the plain name is the feed-forward's. Some call that one
   * post_attention_norm, though what attention adds is not normed. */
  gboolean two = find (&r, "attn_norm_2.weight") != NULL, after = !t->post_norm && find (&r, "post_attention_norm.weight") != NULL;
  w->attn_norm = read_norm (&r, two ? "attn_norm_2" : "attn_norm", embd, !t->no_pre_norm);
  w->ffn_norm = read_norm (&r, two ? "attn_norm" : after ? "post_attention_norm" : "ffn_norm", embd, !t->no_pre_norm && !t->shared_norm);
  w->attn_post_norm = read_norm (&r, "post_attention_norm", embd, t->post_norm);
  w->ffn_post_norm = read_norm (&r, "post_ffw_norm", embd, t->post_norm);
  w->attn_sub_norm = read_norm (&r, "attn_sub_norm", t->n_heads * t->value_dim, t->sub_norm);
  w->q_a_norm = read_norm (&r, "attn_q_a_norm", t->latent_query, t->latent_query > 0);
  w->kv_a_norm = read_norm (&r, "attn_kv_a_norm", t->latent, t->latent > 0);
  w->q_norm = t->qk_norm != ENG_QK_NORM_NONE ? read_vector (&r, "attn_q_norm.weight", head_norm_length (t, t->n_heads)) : NULL;
  w->k_norm = t->qk_norm != ENG_QK_NORM_NONE ? read_vector (&r, "attn_k_norm.weight", head_norm_length (t, t->n_kv_heads)) : NULL;
  w->qkv_bias = t->latent > 0 ? NULL : t->fused_qkv ? read_vector (&r, "attn_qkv.bias", q + k + v)
                             : read_parts (&r, 3, (const char *const[]){ "attn_q.bias", "attn_k.bias", "attn_v.bias" }, (guint[]){ q, k, v });
  w->output_bias = read_vector (&r, "attn_output.bias", embd);
  w->sinks = read_vector (&r, "attn_sinks.weight", t->n_heads);
  w->router = mixture ? read_vector (&r, "ffn_gate_inp.weight", (gsize) t->n_experts * embd) : NULL;
  w->router_bias = mixture ? read_vector (&r, "ffn_gate_inp.bias", t->n_experts) : NULL;
  w->expert_correction = mixture ? read_vector (&r, "exp_probs_b.bias", t->n_experts) : NULL;
  w->shared_gate = mixture ? read_vector (&r, "ffn_gate_inp_shexp.weight", embd) : NULL;
  if (r.ok && ((t->qk_norm != ENG_QK_NORM_NONE && (w->q_norm == NULL || w->k_norm == NULL)) || (mixture && w->router == NULL))) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s has no router, or no norms of queries and keys, in layer %u: download it again",
                 eng_gguf_path (source->gguf), layer);
    return FALSE;
  }
  return r.ok;
}

/* ---- matrices ------------------------------------------------------------------------------------------------------------ */

static gboolean read_rows (const QzSource *source, guint matrix, guint row0, guint rows, EngWorkers *workers, float **at, GError **error)
{
  if (!qz_source_read_range (source, matrix, row0, row0 + rows, workers, *at, error))
    return FALSE;
  *at += (gsize) rows * source->matrices[matrix].cols;
  eng_gguf_drop_tensor (source->gguf, source->matrices[matrix].tensor);
  return TRUE;
}

/* The heads' projections of keys and values, each head's keys' rows above its values': newer files hold them apart, the keys' transposed. */
static gboolean read_projections (QzLayerWeights *w, const QzSource *source, const QzLayer *l, EngWorkers *workers, float **at, GError **error)
{
  const EngTraits *t = &source->traits;
  guint key = t->latent_key, value = t->latent_value, latent = t->latent;
  w->kv_b = *at;
  if (l->kv_b != QZ_NONE)
    return read_rows (source, l->kv_b, 0, source->matrices[l->kv_b].rows, workers, at, error);
  g_autofree float *keys = g_new (float, (gsize) t->n_heads * latent * key), *values = g_new (float, (gsize) t->n_heads * value * latent);
  float *keys_at = keys, *values_at = values;
  if (!read_rows (source, l->k_b, 0, t->n_heads * latent, workers, &keys_at, error)
      || !read_rows (source, l->v_b, 0, t->n_heads * value, workers, &values_at, error))
    return FALSE;
  for (guint h = 0; h < t->n_heads; h++) {
    float *out = w->kv_b + (gsize) h * (key + value) * latent;
    for (guint i = 0; i < key; i++)
      for (guint j = 0; j < latent; j++)
        out[(gsize) i * latent + j] = keys[((gsize) h * latent + j) * key + i];
    memcpy (out + (gsize) key * latent, values + (gsize) h * value * latent, sizeof (float) * value * latent);
  }
  *at += (gsize) t->n_heads * (key + value) * latent;
  return TRUE;
}

gboolean qz_layer_weights_read_attention (QzLayerWeights *w, const QzSource *source, guint layer, EngWorkers *workers, GError **error)
{
  const QzLayer *l = &source->layers[layer];
  float *at = w->matrices;
  w->qkv = at;
  for (guint i = 0; i < l->n_qkv; i++)
    if (!read_rows (source, l->qkv[i], 0, source->matrices[l->qkv[i]].rows, workers, &at, error))
      return FALSE;
  w->output = at;
  if (!read_rows (source, l->output, 0, source->matrices[l->output].rows, workers, &at, error))
    return FALSE;
  w->q_b = at;
  return source->traits.latent == 0
         || ((l->q_b == QZ_NONE || read_rows (source, l->q_b, 0, source->matrices[l->q_b].rows, workers, &at, error))
             && read_projections (w, source, l, workers, &at, error));
}

/* Rows of one expert out of a vector that holds all experts'; NULL where there is none. */
static const float *read_slice (Reader *r, const char *name, gsize n_all, guint first)
{
  const float *all = read_vector (r, name, n_all);
  return all != NULL ? all + first : NULL;
}

/* The unit's biases and norm; gate's and up's one behind the other. */
static gboolean read_unit_vectors (QzLayerWeights *w, const QzSource *source, const QzUnit *unit, guint expert, GError **error)
{
  const EngTraits *t = &source->traits;
  guint n_ff = unit->n_ff, up_rows = w->n_gate_up - (unit->gate != QZ_NONE ? n_ff : 0);
  Reader r = { w, source, unit->layer, error, TRUE };
  w->gate_up_bias = w->down_bias = NULL;
  w->ffn_sub_norm = read_norm (&r, "ffn_sub_norm", n_ff, t->sub_norm);
  if (unit->is_mixture) {
    const float *gate = read_slice (&r, "ffn_gate_exps.bias", (gsize) unit->n_experts * n_ff, expert * n_ff);
    const float *up = read_slice (&r, "ffn_up_exps.bias", (gsize) unit->n_experts * up_rows, expert * up_rows);
    w->down_bias = read_slice (&r, "ffn_down_exps.bias", (gsize) unit->n_experts * t->n_embd, expert * t->n_embd);
    if (gate == NULL && up == NULL)
      return r.ok;
    float *both = g_new0 (float, w->n_gate_up);
    g_ptr_array_add (w->vectors, both);
    if (gate != NULL)
      memcpy (both, gate, sizeof (float) * n_ff);
    if (up != NULL)
      memcpy (both + w->n_gate_up - up_rows, up, sizeof (float) * up_rows);
    w->gate_up_bias = both;
  } else if (!eng_traits_has_experts (t, unit->layer)) { /* what stands beside experts has no biases */
    w->gate_up_bias = unit->gate != QZ_NONE
                          ? read_parts (&r, 2, (const char *const[]){ "ffn_gate.bias", "ffn_up.bias" }, (guint[]){ n_ff, n_ff })
                          : read_vector (&r, "ffn_up.bias", up_rows);
    w->down_bias = read_vector (&r, "ffn_down.bias", t->n_embd);
  }
  return r.ok;
}

gboolean qz_layer_weights_read_unit (QzLayerWeights *w, const QzSource *source, guint number, guint expert, EngWorkers *workers, GError **error)
{
  const EngTraits *t = &source->traits;
  const QzUnit *unit = &source->units[number];
  guint up_rows = qz_source_expert_rows (source, unit->up), n_ff = unit->n_ff;
  float *at = w->matrices;
  w->n_ff = n_ff;
  w->n_gate_up = up_rows + (unit->gate != QZ_NONE ? n_ff : 0);
  w->gate_up = at;
  if ((unit->gate != QZ_NONE && !read_rows (source, unit->gate, expert * n_ff, n_ff, workers, &at, error))
      || !read_rows (source, unit->up, expert * up_rows, up_rows, workers, &at, error))
    return FALSE;
  w->down = at;
  return read_rows (source, unit->down, expert * t->n_embd, t->n_embd, workers, &at, error) && read_unit_vectors (w, source, unit, expert, error);
}
