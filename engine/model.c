/* model.c: the tensors of an open file bound to their places in the decoder. Weights stay in the mapping; only norms and biases
 * stored in another type than f32 are converted, once. */
#include "engine/error.h"
#include "engine/families.h"
#include "engine/model.h"
#include "engine/segments.h"

#include <stdatomic.h>
#include <string.h>

struct EngModel {
  atomic_int references;
  EngGguf *gguf;
  EngTraits traits;
  EngTokenizer *tokenizer;
  EngChatTemplate *chat_template; /* or NULL and the reason */
  GError *template_error;
  GMutex mutex;
  EngTokenBytes *token_bytes[2]; /* without and with marks; NULL until asked for */

  EngLayer *layers;
  EngMatrix embedding, head, positions;
  EngNorm output_norm, embedding_norm;
  const EngFamily *family;
  const float *head_bias, *rotation, *rope_factors, *rope_short, *rope_long;

  GPtrArray *matrices; /* of const EngMatrix *, in file order */
  GPtrArray *opened;   /* xb_matrix views to free */
  GHashTable *pipelines; /* number -> xb_input */
  GPtrArray *owned;    /* names and converted vectors */
  GHashTable *bound;   /* names of tensors that have a place; while opening only */
};

#define CHATML                                                                                                                     \
  "{% for message in messages %}{{ '<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n' }}{% "       \
  "endfor %}"                                                                                                                      \
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"

/* ---- binding tensors ----------------------------------------------------------------------------------------------------- */

static gboolean fail (const EngModel *model, GError **error, EngError code, const char *tensor, const char *sentence)
{
  g_set_error (error, ENG_ERROR, code, "%s: tensor %s %s", eng_gguf_path (model->gguf), tensor, sentence);
  return FALSE;
}

static gboolean raw_type_of (guint type, xb_raw_type *raw)
{
  switch (type) {
  case ENG_TYPE_F32:
    *raw = XB_RAW_F32;
    return TRUE;
  case ENG_TYPE_F16:
    *raw = XB_RAW_F16;
    return TRUE;
  case ENG_TYPE_BF16:
    *raw = XB_RAW_BF16;
    return TRUE;
  default:
    return FALSE;
  }
}

/* The pipeline in front of a packed matrix or behind it: opened once, shared by all that name it. id 0: none. */
static gboolean bind_pipeline (EngModel *model, const xb_input **pipeline, const EngMatrix *matrix, guint id, GError **error)
{
  if (id == 0)
    return TRUE;
  guint number = id - 1;
  xb_input *input = g_hash_table_lookup (model->pipelines, GUINT_TO_POINTER (number));
  if (input == NULL) {
    g_autofree char *name = g_strdup_printf ("xinput.%u", number);
    const EngTensor *tensor = eng_gguf_find_tensor (model->gguf, name);
    xb_error why = NULL;
    if (tensor == NULL || tensor->type != ENG_TYPE_I8) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s: tensor %s needs %s, which is missing: the file is damaged",
                   eng_gguf_path (model->gguf), matrix->name, name);
      return FALSE;
    }
    input = xb_input_open (tensor->data, tensor->bytes, &why);
    if (input == NULL) {
      g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s: tensor %s is damaged: %s", eng_gguf_path (model->gguf), name, why);
      return FALSE;
    }
    g_hash_table_insert (model->pipelines, GUINT_TO_POINTER (number), input);
  }
  *pipeline = input;
  return TRUE;
}

/* Whether so many of a matrix' rows or columns are stored for n of them: no more than fill the last block of their pipeline. */
static gboolean is_filled (const xb_input_layout *pipeline, guint n, guint stored)
{
  return stored == n
         || (pipeline != NULL && pipeline->permutation == NULL && pipeline->block % XB_TILE_ROWS == 0 && pipeline->block > 0 && pipeline->block <= ENG_MAX_FILLED
             && stored > n && stored % pipeline->block == 0 && stored - n < pipeline->block);
}

/* Of a matrix of so many experts (else 1) the pipeline in front may be one to each, all behind one another; what mixes rows must end where an expert does. */
static gboolean check_pipelines (EngModel *model, const EngMatrix *matrix, guint n_experts, gboolean by_row, GError **error)
{
  const xb_input_layout *in = matrix->input != NULL ? xb_input_get_layout (matrix->input) : NULL;
  const xb_input_layout *out = matrix->output != NULL ? xb_input_get_layout (matrix->output) : NULL;
  gboolean apart = in != NULL && n_experts > 1 && in->permutation == NULL && in->cols == (guint64)matrix->stored_cols * n_experts
                   && (in->block == 0 || matrix->stored_cols % in->block == 0);
  if ((in != NULL && in->cols != matrix->stored_cols && !apart) || (out != NULL && out->cols != matrix->stored_rows))
    return fail (model, error, ENG_ERROR_FORMAT, matrix->name, "and its pipeline differ in width: the file is damaged");
  if (out != NULL && (by_row || out->permutation != NULL || (n_experts > 1 && out->block > 0 && matrix->stored_rows / n_experts % out->block != 0)))
    return fail (model, error, ENG_ERROR_FORMAT, matrix->name, "has a pipeline behind it that mixes rows which are wanted apart: the file is damaged");
  if (matrix->stored_rows % n_experts != 0 || (by_row && (matrix->stored_rows != matrix->rows || matrix->stored_cols != matrix->cols))
      || !is_filled (out, matrix->rows / n_experts, matrix->stored_rows / n_experts) || !is_filled (in, matrix->cols, matrix->stored_cols))
    return fail (model, error, ENG_ERROR_FORMAT, matrix->name, "is larger than the model's metadata asks for: the file is damaged");
  return TRUE;
}

static gboolean bind_xbit (EngModel *model, EngMatrix *matrix, const EngTensor *tensor, GError **error)
{
  xb_error why = NULL;
  if (tensor->type != ENG_TYPE_I8)
    return fail (model, error, ENG_ERROR_FORMAT, tensor->name, "is not stored as bytes: the file is damaged");
  xb_matrix *xbit = xb_matrix_open (tensor->data, tensor->bytes, &why);
  if (xbit == NULL) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s: tensor %s is damaged: %s", eng_gguf_path (model->gguf), tensor->name,
                 why);
    return FALSE;
  }
  g_ptr_array_add (model->opened, xbit);
  const xb_layout *layout = xb_matrix_layout (xbit);
  matrix->xbit = xbit;
  matrix->bytes = tensor->bytes;
  matrix->stored_rows = layout->rows;
  matrix->stored_cols = layout->cols;
  if (layout->rows < matrix->rows || layout->cols < matrix->cols || (layout->rows > matrix->rows && layout->output_id == 0)
      || (layout->cols > matrix->cols && layout->input_id == 0)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT,
                 "%s: tensor %s is %u x %u, but the model's metadata asks for %u x %u: the file is damaged",
                 eng_gguf_path (model->gguf), tensor->name, layout->rows, layout->cols, matrix->rows, matrix->cols);
    return FALSE;
  }
  return bind_pipeline (model, &matrix->input, matrix, layout->input_id, error)
         && bind_pipeline (model, &matrix->output, matrix, layout->output_id, error);
}

static gboolean bind_raw (EngModel *model, EngMatrix *matrix, const EngTensor *tensor, GError **error)
{
  if (!raw_type_of (tensor->type, &matrix->raw_type) || tensor->swapped) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED,
                 "%s: tensor %s is stored as %s, which has to be packed before it can be computed with: import the file",
                 eng_gguf_path (model->gguf), tensor->name, eng_tensor_type_name (tensor));
    return FALSE;
  }
  /* Experts stand one behind the other. */
  guint64 rows = tensor->dims[2] <= matrix->rows ? tensor->dims[1] * tensor->dims[2] : 0;
  if (tensor->dims[0] != matrix->cols || tensor->dims[1] > matrix->rows || rows != matrix->rows || tensor->dims[3] != 1) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT,
                 "%s: tensor %s is %" G_GUINT64_FORMAT " x %" G_GUINT64_FORMAT
                 ", but the model's metadata asks for %u x %u: the file is damaged",
                 eng_gguf_path (model->gguf), tensor->name, rows, tensor->dims[0], matrix->rows, matrix->cols);
    return FALSE;
  }
  matrix->raw = tensor->data;
  matrix->bytes = tensor->bytes;
  return TRUE;
}

/* `name` is taken over. */
static gboolean bind_matrix (EngModel *model, EngMatrix *matrix, char *name, guint rows, guint cols, GError **error)
{
  g_autofree char *packed = g_strconcat (name, ".xbit", NULL);
  const EngTensor *tensor = eng_gguf_find_tensor (model->gguf, packed);
  g_ptr_array_add (model->owned, name);
  g_ptr_array_add (model->matrices, matrix);
  *matrix = (EngMatrix){ .name = name, .rows = rows, .cols = cols, .stored_rows = rows, .stored_cols = cols };
  gboolean is_packed = tensor != NULL;
  if (!is_packed)
    tensor = eng_gguf_find_tensor (model->gguf, name);
  if (tensor == NULL)
    return fail (model, error, ENG_ERROR_FORMAT, name, "is missing: the file is incomplete");
  g_hash_table_add (model->bound, (gpointer)tensor->name);
  if (is_packed)
    return bind_xbit (model, matrix, tensor, error);
  return bind_raw (model, matrix, tensor, error);
}

/* n values of any shape. */
static gboolean bind_values (EngModel *model, const float **vector, const char *name, guint n, gboolean required, GError **error)
{
  const EngTensor *tensor = eng_gguf_find_tensor (model->gguf, name);
  *vector = NULL;
  if (tensor == NULL)
    return !required || fail (model, error, ENG_ERROR_FORMAT, name, "is missing: the file is incomplete");
  g_hash_table_add (model->bound, (gpointer)tensor->name);
  if (tensor->dims[0] > n || tensor->dims[1] > n || tensor->dims[0] * tensor->dims[1] != n || tensor->dims[2] != 1 || tensor->dims[3] != 1)
    return fail (model, error, ENG_ERROR_FORMAT, name,
                 "has not the length that the model's metadata asks for: the file is damaged");
  if (!eng_tensor_is_readable (tensor))
    return fail (model, error, ENG_ERROR_UNSUPPORTED, name, "is stored in a type that Valise cannot read");
  if (tensor->type == ENG_TYPE_F32 && !tensor->swapped && (guintptr)tensor->data % sizeof (float) == 0) {
    *vector = (const float *)tensor->data;
    return TRUE;
  }
  float *converted = g_new (float, n);
  eng_tensor_read_rows (tensor, 0, n / tensor->dims[0], converted);
  g_ptr_array_add (model->owned, converted);
  *vector = converted;
  return TRUE;
}

static gboolean bind_vector (EngModel *model, const float **vector, const char *name, guint n, gboolean required, GError **error)
{
  const EngTensor *tensor = eng_gguf_find_tensor (model->gguf, name);
  if (tensor != NULL && tensor->dims[0] != n)
    return fail (model, error, ENG_ERROR_FORMAT, name,
                 "has not the length that the model's metadata asks for: the file is damaged");
  return bind_values (model, vector, name, n, required, error);
}

/* The name of a tensor of a layer; free with g_free. */
static char *layer_name (guint layer, const char *name)
{
  return g_strdup_printf ("blk.%u.%s", layer, name);
}

/* A norm of width n of a layer; where the family's norms have no gains there is nothing to bind. */
static gboolean bind_norm (EngModel *model, EngNorm *norm, guint layer, const char *name, guint n, GError **error)
{
  g_autofree char *gain = g_strdup_printf ("blk.%u.%s.weight", layer, name), *bias = g_strdup_printf ("blk.%u.%s.bias", layer, name);
  return model->traits.plain_norm
         || (bind_vector (model, &norm->gain, gain, n, TRUE, error) && bind_vector (model, &norm->bias, bias, n, FALSE, error));
}

/* Falcon's 40B norms twice, the second time for attention; then the plain name is the feed-forward's. */
static gboolean bind_norms (EngModel *model, guint i, GError **error)
{
  const EngTraits *t = &model->traits;
  EngLayer *layer = &model->layers[i];
  guint embd = t->n_embd;
  g_autofree char *second = layer_name (i, "attn_norm_2.weight");
  gboolean two = eng_gguf_find_tensor (model->gguf, second) != NULL;
  const char *ffn_name = two ? "attn_norm" : model->family->flags & ENG_FAMILY_FFN_NORM_AFTER ? "post_attention_norm" : "ffn_norm";
  if (t->post_norm
      && (!bind_norm (model, &layer->attn_post_norm, i, "post_attention_norm", embd, error)
          || !bind_norm (model, &layer->ffn_post_norm, i, "post_ffw_norm", embd, error)))
    return FALSE;
  if (t->sub_norm
      && (!bind_norm (model, &layer->attn_sub_norm, i, "attn_sub_norm", t->n_heads * t->value_dim, error)
          || !bind_norm (model, &layer->ffn_sub_norm, i, "ffn_sub_norm", t->n_ff, error)))
    return FALSE;
  if (t->no_pre_norm)
    return TRUE;
  return bind_norm (model, &layer->attn_norm, i, two ? "attn_norm_2" : "attn_norm", embd, error)
         && (t->shared_norm || bind_norm (model, &layer->ffn_norm, i, ffn_name, embd, error));
}

/* q_norm or k_norm: the gains of one head, of each head, or of all heads' width. */
static gboolean bind_head_norm (EngModel *model, const float **gain, char *name, guint n_heads, GError **error)
{
  const EngTraits *t = &model->traits;
  g_autofree char *owned = name;
  const EngTensor *tensor = eng_gguf_find_tensor (model->gguf, owned);
  if (t->qk_norm == ENG_QK_NORM_HEADS && tensor != NULL && (tensor->dims[0] != t->head_dim || tensor->dims[1] != n_heads))
    return fail (model, error, ENG_ERROR_FORMAT, owned, "has not the shape that the model's metadata asks for: the file is damaged");
  return bind_values (model, gain, owned, t->qk_norm == ENG_QK_NORM_HEAD ? t->head_dim : n_heads * t->head_dim, TRUE, error);
}

/* The matrices of latent attention: newer files hold the heads' two projections apart and the keys' transposed. */
static gboolean bind_latent (EngModel *model, guint i, GError **error)
{
  const EngTraits *t = &model->traits;
  EngLayer *layer = &model->layers[i];
  guint q = t->n_heads * (t->latent_key + t->n_rot), k_b = t->n_heads * t->latent, v_b = t->n_heads * t->latent_value;
  g_autofree char *q_norm = layer_name (i, "attn_q_a_norm.weight"), *kv_norm = layer_name (i, "attn_kv_a_norm.weight");
  g_autofree char *whole = layer_name (i, "attn_kv_b.weight"), *packed = g_strconcat (whole, ".xbit", NULL);
  gboolean older = eng_gguf_find_tensor (model->gguf, whole) != NULL || eng_gguf_find_tensor (model->gguf, packed) != NULL;
  if (t->latent_query > 0
      && (!bind_matrix (model, &layer->q_a, layer_name (i, "attn_q_a.weight"), t->latent_query, t->n_embd, error)
          || !bind_matrix (model, &layer->q_b, layer_name (i, "attn_q_b.weight"), q, t->latent_query, error)
          || !bind_vector (model, &layer->q_a_norm, q_norm, t->latent_query, TRUE, error)))
    return FALSE;
  if ((t->latent_query == 0 && !bind_matrix (model, &layer->attn_q, layer_name (i, "attn_q.weight"), q, t->n_embd, error))
      || !bind_matrix (model, &layer->kv_a, layer_name (i, "attn_kv_a_mqa.weight"), t->head_dim, t->n_embd, error)
      || !bind_vector (model, &layer->kv_a_norm, kv_norm, t->latent, TRUE, error))
    return FALSE;
  if (older && !bind_matrix (model, &layer->kv_b, g_steal_pointer (&whole), t->n_heads * (t->latent_key + t->latent_value), t->latent, error))
    return FALSE;
  if (!older
      && (!bind_matrix (model, &layer->k_b, layer_name (i, "attn_k_b.weight"), k_b, t->latent_key, error)
          || !bind_matrix (model, &layer->v_b, layer_name (i, "attn_v_b.weight"), v_b, t->latent, error)))
    return FALSE;
  gboolean is_packed = layer->kv_b.xbit != NULL || layer->k_b.xbit != NULL || layer->v_b.xbit != NULL;
  if (is_packed && (t->latent | t->latent_key | t->latent_value) % XB_TILE_ROWS != 0)
    return fail (model, error, ENG_ERROR_FORMAT, layer->kv_a.name, "is packed, but its heads' rows are no multiple of 16");
  return bind_matrix (model, &layer->attn_output, layer_name (i, "attn_output.weight"), t->n_embd, v_b, error);
}

typedef struct {
  EngMatrix *matrix;
  const char *name;
  guint rows, cols;
  gboolean wanted;
} Wanted;

static gboolean bind_matrices (EngModel *model, guint layer, const Wanted *matrices, guint n, GError **error)
{
  for (guint i = 0; i < n; i++)
    if (matrices[i].wanted
        && !bind_matrix (model, matrices[i].matrix, g_strdup_printf ("blk.%u.%s.weight", layer, matrices[i].name), matrices[i].rows, matrices[i].cols, error))
      return FALSE;
  return TRUE;
}

static gboolean bind_attention (EngModel *model, guint i, GError **error)
{
  const EngTraits *t = &model->traits;
  EngLayer *layer = &model->layers[i];
  guint q = t->n_heads * t->head_dim, k = t->n_kv_heads * t->head_dim, v = t->n_kv_heads * t->value_dim, apart = !t->fused_qkv;
  const Wanted matrices[] = {
    { &layer->attn_qkv, "attn_qkv", q + k + v, t->n_embd, t->fused_qkv },
    { &layer->attn_q, "attn_q", q, t->n_embd, apart },
    { &layer->attn_k, "attn_k", k, t->n_embd, apart },
    { &layer->attn_v, "attn_v", v, t->n_embd, apart },
    { &layer->attn_output, "attn_output", t->n_embd, t->n_heads * t->value_dim, TRUE },
  };
  if (t->latent > 0)
    return bind_latent (model, i, error);
  return bind_matrices (model, i, matrices, G_N_ELEMENTS (matrices), error)
         && (t->qk_norm == ENG_QK_NORM_NONE
             || (bind_head_norm (model, &layer->q_norm, layer_name (i, "attn_q_norm.weight"), t->n_heads, error)
                 && bind_head_norm (model, &layer->k_norm, layer_name (i, "attn_k_norm.weight"), t->n_kv_heads, error)));
}

static gboolean bind_feed_forward (EngModel *model, guint i, GError **error)
{
  const EngTraits *t = &model->traits;
  EngLayer *layer = &model->layers[i];
  guint mixture = eng_traits_has_experts (t, i), dense = !mixture, ff = t->n_experts > 0 ? t->n_ff_dense : t->n_ff, shared = mixture && t->n_ff_shared > 0;
  const Wanted matrices[] = {
    { &layer->ffn_gate, "ffn_gate", ff, t->n_embd, dense && !t->ungated && !t->fused_gate_up },
    { &layer->ffn_up, "ffn_up", ff * (t->fused_gate_up ? 2 : 1), t->n_embd, dense },
    { &layer->ffn_down, "ffn_down", t->n_embd, ff, dense },
    { &layer->router, "ffn_gate_inp", t->n_experts, t->n_embd, mixture },
    { &layer->gate_experts, "ffn_gate_exps", t->n_experts * t->n_ff, t->n_embd, mixture },
    { &layer->up_experts, "ffn_up_exps", t->n_experts * t->n_ff, t->n_embd, mixture },
    { &layer->down_experts, "ffn_down_exps", t->n_experts * t->n_embd, t->n_ff, mixture },
    { &layer->ffn_gate, "ffn_gate_shexp", t->n_ff_shared, t->n_embd, shared },
    { &layer->ffn_up, "ffn_up_shexp", t->n_ff_shared, t->n_embd, shared },
    { &layer->ffn_down, "ffn_down_shexp", t->n_embd, t->n_ff_shared, shared },
  };
  if (!bind_matrices (model, i, matrices, G_N_ELEMENTS (matrices), error))
    return FALSE;
  const EngMatrix *const experts[] = { &layer->gate_experts, &layer->up_experts, &layer->down_experts };
  for (guint k = 0; mixture && k < G_N_ELEMENTS (experts); k++)
    if (experts[k]->xbit != NULL && experts[k]->stored_rows % (t->n_experts * XB_TILE_ROWS) != 0)
      return fail (model, error, ENG_ERROR_FORMAT, experts[k]->name, "is packed, but its experts' rows are no multiple of 16");
  return TRUE;
}

static gboolean bind_vectors (EngModel *model, guint i, GError **error)
{
  const EngTraits *t = &model->traits;
  EngLayer *layer = &model->layers[i];
  guint q = t->n_heads * t->head_dim, k = t->n_kv_heads * t->head_dim, v = t->n_kv_heads * t->value_dim, apart = !t->fused_qkv;
  guint ff = t->n_experts > 0 ? t->n_ff_dense : t->n_ff, expert_rows = t->n_experts * t->n_ff;
  const struct {
    const float **vector;
    const char *name;
    guint n;
    gboolean required;
  } vectors[] = {
    { &layer->q_bias, "attn_q.bias", q, t->qkv_bias && apart },
    { &layer->k_bias, "attn_k.bias", k, t->qkv_bias && apart },
    { &layer->v_bias, "attn_v.bias", v, t->qkv_bias && apart },
    { &layer->qkv_bias, "attn_qkv.bias", q + k + v, t->qkv_bias && t->fused_qkv },
    { &layer->output_bias, "attn_output.bias", t->n_embd },
    { &layer->sinks, "attn_sinks.weight", t->n_heads },
    { &layer->gate_bias, "ffn_gate.bias", ff },
    { &layer->up_bias, "ffn_up.bias", ff * (t->fused_gate_up ? 2 : 1) },
    { &layer->down_bias, "ffn_down.bias", t->n_embd },
    { &layer->shared_gate, "ffn_gate_inp_shexp.weight", t->n_embd },
    { &layer->router_bias, "ffn_gate_inp.bias", t->n_experts },
    { &layer->expert_correction, "exp_probs_b.bias", t->n_experts },
    { &layer->gate_experts_bias, "ffn_gate_exps.bias", expert_rows },
    { &layer->up_experts_bias, "ffn_up_exps.bias", expert_rows },
    { &layer->down_experts_bias, "ffn_down_exps.bias", t->n_experts * t->n_embd },
  };
  for (guint j = 0; j < G_N_ELEMENTS (vectors); j++) {
    g_autofree char *name = layer_name (i, vectors[j].name);
    if (!bind_values (model, vectors[j].vector, name, vectors[j].n, vectors[j].required, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean bind_layer (EngModel *model, guint i, GError **error)
{
  return bind_norms (model, i, error) && bind_attention (model, i, error) && bind_feed_forward (model, i, error) && bind_vectors (model, i, error);
}

static gboolean bind_factors (EngModel *model, const float **factors, const char *name, GError **error)
{
  guint n = model->traits.n_rot / 2;
  if (!bind_vector (model, factors, name, n, FALSE, error))
    return FALSE;
  for (guint i = 0; *factors != NULL && i < n; i++)
    if (!((*factors)[i] > 0))
      return fail (model, error, ENG_ERROR_FORMAT, name, "holds a factor that is not positive: the file is damaged");
  return TRUE;
}

static gboolean bind_rotation (EngModel *model, GError **error)
{
  static const char name[] = "stream_rotation.weight";
  const EngTensor *tensor = eng_gguf_find_tensor (model->gguf, name);
  guint n = model->traits.n_embd;
  if (tensor != NULL && (n > G_MAXUINT16 || tensor->dims[0] != n))
    return fail (model, error, ENG_ERROR_FORMAT, name, "has not the shape that the model's metadata asks for: the file is damaged");
  return bind_values (model, &model->rotation, name, n * n, FALSE, error);
}

/* A tensor of a layer behind the decoder's own. */
static gboolean is_of_later_layer (const EngModel *model, const char *name)
{
  return g_str_has_prefix (name, "blk.") && g_ascii_strtoull (name + 4, NULL, 10) >= model->traits.n_layers;
}

/* A tensor that the graph has no place for would be lost without a word, and the answers be another model's. */
static gboolean check_nothing_left (EngModel *model, GError **error)
{
  for (guint i = 0; i < eng_gguf_n_tensors (model->gguf); i++) {
    const char *name = eng_gguf_tensor (model->gguf, i)->name;
    if (!g_hash_table_contains (model->bound, name) && !g_str_has_prefix (name, "xinput.") && !is_of_later_layer (model, name))
      return fail (model, error, ENG_ERROR_UNSUPPORTED, name,
                   "has no place in the decoder that Valise knows by this architecture's name, so the model would answer wrongly");
  }
  g_clear_pointer (&model->bound, g_hash_table_unref);
  return TRUE;
}

static gboolean check_all_pipelines (EngModel *model, GError **error)
{
  const EngTraits *t = &model->traits;
  g_autoptr (GHashTable) by_row = g_hash_table_new (NULL, NULL), experts = g_hash_table_new (NULL, NULL);
  g_hash_table_add (by_row, &model->embedding);
  g_hash_table_add (by_row, &model->positions);
  for (guint i = 0; i < t->n_layers; i++) {
    EngLayer *l = &model->layers[i];
    EngMatrix *const of_heads[] = { &l->kv_b, &l->k_b, &l->v_b }, *const of_experts[] = { &l->gate_experts, &l->up_experts, &l->down_experts };
    for (guint k = 0; k < 3; k++) {
      g_hash_table_add (by_row, of_heads[k]);
      g_hash_table_add (experts, of_experts[k]);
    }
  }
  for (guint i = 0; i < model->matrices->len; i++) {
    EngMatrix *matrix = model->matrices->pdata[i];
    if (!check_pipelines (model, matrix, g_hash_table_contains (experts, matrix) ? t->n_experts : 1, g_hash_table_contains (by_row, matrix), error))
      return FALSE;
  }
  return TRUE;
}

static gboolean bind_all (EngModel *model, GError **error)
{
  const EngTraits *t = &model->traits;
  for (guint i = 0; i < t->n_layers; i++)
    if (!bind_layer (model, i, error))
      return FALSE;
  return bind_matrix (model, &model->embedding, g_strdup ("token_embd.weight"), t->n_vocab, t->n_embd, error)
         && (t->tied_head || bind_matrix (model, &model->head, g_strdup ("output.weight"), t->n_vocab, t->n_embd, error))
         && bind_vector (model, &model->head_bias, "output.bias", t->n_vocab, FALSE, error)
         && (!t->learned_positions || bind_matrix (model, &model->positions, g_strdup ("position_embd.weight"), t->n_ctx_train, t->n_embd, error))
         && bind_vector (model, &model->embedding_norm.gain, "token_embd_norm.weight", t->n_embd, FALSE, error)
         && bind_vector (model, &model->embedding_norm.bias, "token_embd_norm.bias", t->n_embd, FALSE, error)
         && bind_vector (model, &model->output_norm.gain, "output_norm.weight", t->n_embd, !t->plain_norm, error)
         && bind_vector (model, &model->output_norm.bias, "output_norm.bias", t->n_embd, FALSE, error)
         && bind_rotation (model, error) && bind_factors (model, &model->rope_factors, "rope_freqs.weight", error)
         && bind_factors (model, &model->rope_short, "rope_factors_short.weight", error)
         && bind_factors (model, &model->rope_long, "rope_factors_long.weight", error) && check_all_pipelines (model, error) && check_nothing_left (model, error);
}

/* ---- life ---------------------------------------------------------------------------------------------------------------- */

EngModel *eng_model_new (EngGguf *gguf, GError **error)
{
  EngTraits traits;
  if (!eng_traits_read (&traits, gguf, error))
    return NULL;
  /* A hostile count of layers is refused before anything is allocated for it. */
  if (traits.n_layers > eng_gguf_n_tensors (gguf)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s: %u layers but %u tensors: the file is damaged", eng_gguf_path (gguf),
                 traits.n_layers, eng_gguf_n_tensors (gguf));
    return NULL;
  }
  g_autoptr (EngModel) model = g_new0 (EngModel, 1);
  atomic_init (&model->references, 1);
  g_mutex_init (&model->mutex);
  model->gguf = eng_gguf_ref (gguf);
  model->traits = traits;
  model->family = eng_family_find (traits.architecture);
  model->layers = g_new0 (EngLayer, traits.n_layers);
  model->matrices = g_ptr_array_new ();
  model->opened = g_ptr_array_new_with_free_func ((GDestroyNotify)xb_matrix_free);
  model->bound = g_hash_table_new (g_str_hash, g_str_equal);
  model->pipelines = g_hash_table_new_full (NULL, NULL, NULL, (GDestroyNotify)xb_input_free);
  model->owned = g_ptr_array_new_with_free_func (g_free);
  if (!bind_all (model, error))
    return NULL;
  model->tokenizer = eng_tokenizer_new (gguf, error);
  if (model->tokenizer == NULL)
    return NULL;
  if (eng_tokenizer_n_tokens (model->tokenizer) != traits.n_vocab) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "%s: the tokenizer has %u tokens, the model %u: the file is damaged",
                 eng_gguf_path (gguf), eng_tokenizer_n_tokens (model->tokenizer), traits.n_vocab);
    return NULL;
  }
  /* A model with a broken template still computes: the error waits for whoever asks for the template. */
  model->chat_template
      = eng_chat_template_new (eng_gguf_chat_template (gguf), &model->template_error);
  return g_steal_pointer (&model);
}

const char *eng_gguf_chat_template (const EngGguf *gguf)
{
  return eng_gguf_get_string (gguf, "tokenizer.chat_template", CHATML);
}

EngModel *eng_model_open (const char *path, GError **error)
{
  g_autoptr (EngGguf) gguf = eng_gguf_open (path, error);
  return gguf != NULL ? eng_model_new (gguf, error) : NULL;
}

EngModel *eng_model_ref (EngModel *model)
{
  atomic_fetch_add (&model->references, 1);
  return model;
}

void eng_model_unref (EngModel *model)
{
  if (model == NULL || atomic_fetch_sub (&model->references, 1) > 1)
    return;
  g_clear_pointer (&model->chat_template, eng_chat_template_free);
  g_clear_pointer (&model->tokenizer, eng_tokenizer_free);
  g_clear_error (&model->template_error);
  g_clear_pointer (&model->token_bytes[0], eng_token_bytes_free);
  g_clear_pointer (&model->token_bytes[1], eng_token_bytes_free);
  g_mutex_clear (&model->mutex);
  g_clear_pointer (&model->bound, g_hash_table_unref);
  g_ptr_array_unref (model->matrices);
  g_ptr_array_unref (model->opened);
  g_hash_table_unref (model->pipelines);
  g_ptr_array_unref (model->owned);
  g_free (model->layers);
  eng_gguf_unref (model->gguf);
  g_free (model);
}

/* ---- looking ------------------------------------------------------------------------------------------------------------- */

const EngTraits *eng_model_traits (const EngModel *model)
{
  return &model->traits;
}

EngGguf *eng_model_gguf (const EngModel *model)
{
  return model->gguf;
}

const EngTokenizer *eng_model_tokenizer (const EngModel *model)
{
  return model->tokenizer;
}

const EngTokenBytes *eng_model_token_bytes (EngModel *model, gboolean marks)
{
  G_GNUC_UNUSED g_autoptr (GMutexLocker) locker = g_mutex_locker_new (&model->mutex);
  EngTokenBytes **bytes = &model->token_bytes[marks ? 1 : 0];
  if (*bytes == NULL)
    *bytes = eng_token_bytes_new (model->tokenizer, marks ? eng_segments_is_mark : NULL);
  return *bytes;
}

const EngChatTemplate *eng_model_template (const EngModel *model, GError **error)
{
  if (model->chat_template == NULL && error != NULL)
    *error = g_error_copy (model->template_error);
  return model->chat_template;
}

const EngLayer *eng_model_layer (const EngModel *model, guint i)
{
  return &model->layers[i];
}

const EngMatrix *eng_model_embedding (const EngModel *model)
{
  return &model->embedding;
}

const EngMatrix *eng_model_head (const EngModel *model)
{
  return model->traits.tied_head ? &model->embedding : &model->head;
}

const EngNorm *eng_model_output_norm (const EngModel *model)
{
  return &model->output_norm;
}

const EngNorm *eng_model_embedding_norm (const EngModel *model)
{
  return model->embedding_norm.gain != NULL ? &model->embedding_norm : NULL;
}

const float *eng_model_rotation (const EngModel *model)
{
  return model->rotation;
}

const EngMatrix *eng_model_positions (const EngModel *model)
{
  return model->traits.learned_positions ? &model->positions : NULL;
}

const float *eng_model_head_bias (const EngModel *model)
{
  return model->head_bias;
}

const float *eng_model_rope_factors (const EngModel *model, guint n_ctx)
{
  if (model->rope_factors != NULL)
    return model->rope_factors;
  return n_ctx > model->traits.rope_n_ctx ? model->rope_long : model->rope_short;
}

guint eng_model_n_matrices (const EngModel *model)
{
  return model->matrices->len;
}

const EngMatrix *eng_model_matrix (const EngModel *model, guint i)
{
  return g_ptr_array_index (model->matrices, i);
}
