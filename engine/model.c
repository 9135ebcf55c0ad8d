/* model.c: the tensors of an open file bound to their places in the decoder. Weights stay in the mapping; only norms and biases
 * stored in another type than f32 are converted, once. */
#include "engine/error.h"
#include "engine/model.h"

#include <stdatomic.h>
#include <string.h>

struct EngModel {
  atomic_int references;
  EngGguf *gguf;
  EngTraits traits;
  EngTokenizer *tokenizer;
  EngChatTemplate *chat_template; /* or NULL and the reason */
  GError *template_error;

  EngLayer *layers;
  EngMatrix embedding, head;
  const float *output_norm, *rope_factors;

  GPtrArray *matrices; /* of const EngMatrix *, in file order */
  GPtrArray *opened;   /* xb_matrix views to free */
  GHashTable *inputs;  /* number -> xb_input */
  GPtrArray *owned;    /* names and converted vectors */
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

/* The pipeline in front of a packed matrix: opened once, shared by all that name it. */
static gboolean bind_input (EngModel *model, EngMatrix *matrix, guint input_id, GError **error)
{
  guint number = input_id - 1;
  xb_input *input = g_hash_table_lookup (model->inputs, GUINT_TO_POINTER (number));
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
    g_hash_table_insert (model->inputs, GUINT_TO_POINTER (number), input);
  }
  if (xb_input_get_layout (input)->cols != matrix->cols)
    return fail (model, error, ENG_ERROR_FORMAT, matrix->name, "and its input pipeline differ in columns: the file is damaged");
  matrix->input = input;
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
  if (layout->rows != matrix->rows || layout->cols != matrix->cols) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT,
                 "%s: tensor %s is %u x %u, but the model's metadata asks for %u x %u: the file is damaged",
                 eng_gguf_path (model->gguf), tensor->name, layout->rows, layout->cols, matrix->rows, matrix->cols);
    return FALSE;
  }
  return layout->input_id == 0 || bind_input (model, matrix, layout->input_id, error);
}

static gboolean bind_raw (EngModel *model, EngMatrix *matrix, const EngTensor *tensor, GError **error)
{
  if (!raw_type_of (tensor->type, &matrix->raw_type)) {
    const EngTypeTraits *type = eng_type_traits (tensor->type);
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED,
                 "%s: tensor %s is stored as %s, which has to be packed before it can be computed with: import the file",
                 eng_gguf_path (model->gguf), tensor->name, type != NULL ? type->name : "an unknown type");
    return FALSE;
  }
  if (tensor->dims[0] != matrix->cols || tensor->dims[1] != matrix->rows || tensor->dims[2] != 1 || tensor->dims[3] != 1) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT,
                 "%s: tensor %s is %" G_GUINT64_FORMAT " x %" G_GUINT64_FORMAT
                 ", but the model's metadata asks for %u x %u: the file is damaged",
                 eng_gguf_path (model->gguf), tensor->name, tensor->dims[1], tensor->dims[0], matrix->rows, matrix->cols);
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
  *matrix = (EngMatrix){ .name = name, .rows = rows, .cols = cols };
  if (tensor != NULL)
    return bind_xbit (model, matrix, tensor, error);
  tensor = eng_gguf_find_tensor (model->gguf, name);
  if (tensor == NULL)
    return fail (model, error, ENG_ERROR_FORMAT, name, "is missing: the file is incomplete");
  return bind_raw (model, matrix, tensor, error);
}

static gboolean bind_vector (EngModel *model, const float **vector, const char *name, guint n, gboolean required, GError **error)
{
  const EngTensor *tensor = eng_gguf_find_tensor (model->gguf, name);
  *vector = NULL;
  if (tensor == NULL)
    return !required || fail (model, error, ENG_ERROR_FORMAT, name, "is missing: the file is incomplete");
  const EngTypeTraits *type = eng_type_traits (tensor->type);
  if (tensor->dims[0] != n || tensor->dims[1] != 1 || tensor->dims[2] != 1 || tensor->dims[3] != 1)
    return fail (model, error, ENG_ERROR_FORMAT, name,
                 "has not the length that the model's metadata asks for: the file is damaged");
  if (type == NULL || !type->readable)
    return fail (model, error, ENG_ERROR_UNSUPPORTED, name, "is stored in a type that Valise cannot read");
  if (tensor->type == ENG_TYPE_F32 && (guintptr)tensor->data % sizeof (float) == 0) {
    *vector = (const float *)tensor->data;
    return TRUE;
  }
  float *converted = g_new (float, n);
  eng_type_dequantize (tensor->type, tensor->data, converted, n);
  g_ptr_array_add (model->owned, converted);
  *vector = converted;
  return TRUE;
}

static gboolean bind_layer (EngModel *model, guint i, GError **error)
{
  const EngTraits *t = &model->traits;
  EngLayer *layer = &model->layers[i];
  guint q = t->n_heads * t->head_dim, kv = t->n_kv_heads * t->head_dim;
  const struct {
    EngMatrix *matrix;
    const char *name;
    guint rows, cols;
  } matrices[] = {
    { &layer->attn_q, "attn_q", q, t->n_embd },           { &layer->attn_k, "attn_k", kv, t->n_embd },
    { &layer->attn_v, "attn_v", kv, t->n_embd },          { &layer->attn_output, "attn_output", t->n_embd, q },
    { &layer->ffn_gate, "ffn_gate", t->n_ff, t->n_embd }, { &layer->ffn_up, "ffn_up", t->n_ff, t->n_embd },
    { &layer->ffn_down, "ffn_down", t->n_embd, t->n_ff },
  };
  const struct {
    const float **vector;
    const char *name;
    guint n;
    gboolean wanted, required;
  } vectors[] = {
    { &layer->attn_norm, "attn_norm.weight", t->n_embd, TRUE, TRUE },
    { &layer->ffn_norm, "ffn_norm.weight", t->n_embd, TRUE, TRUE },
    { &layer->q_bias, "attn_q.bias", q, t->qkv_bias, TRUE },
    { &layer->k_bias, "attn_k.bias", kv, t->qkv_bias, TRUE },
    { &layer->v_bias, "attn_v.bias", kv, t->qkv_bias, TRUE },
  };
  for (guint j = 0; j < G_N_ELEMENTS (matrices); j++)
    if (!bind_matrix (model, matrices[j].matrix, g_strdup_printf ("blk.%u.%s.weight", i, matrices[j].name), matrices[j].rows,
                      matrices[j].cols, error))
      return FALSE;
  for (guint j = 0; j < G_N_ELEMENTS (vectors); j++) {
    g_autofree char *name = g_strdup_printf ("blk.%u.%s", i, vectors[j].name);
    if (vectors[j].wanted && !bind_vector (model, vectors[j].vector, name, vectors[j].n, vectors[j].required, error))
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
  if (!bind_matrix (model, &model->embedding, g_strdup ("token_embd.weight"), t->n_vocab, t->n_embd, error)
      || (!t->tied_head && !bind_matrix (model, &model->head, g_strdup ("output.weight"), t->n_vocab, t->n_embd, error))
      || !bind_vector (model, &model->output_norm, "output_norm.weight", t->n_embd, TRUE, error)
      || !bind_vector (model, &model->rope_factors, "rope_freqs.weight", t->n_rot / 2, FALSE, error))
    return FALSE;
  for (guint i = 0; model->rope_factors != NULL && i < t->n_rot / 2; i++)
    if (!(model->rope_factors[i] > 0))
      return fail (model, error, ENG_ERROR_FORMAT, "rope_freqs.weight", "holds a factor that is not positive: the file is damaged");
  return TRUE;
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
  model->gguf = eng_gguf_ref (gguf);
  model->traits = traits;
  model->layers = g_new0 (EngLayer, traits.n_layers);
  model->matrices = g_ptr_array_new ();
  model->opened = g_ptr_array_new_with_free_func ((GDestroyNotify)xb_matrix_free);
  model->inputs = g_hash_table_new_full (NULL, NULL, NULL, (GDestroyNotify)xb_input_free);
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
  g_ptr_array_unref (model->matrices);
  g_ptr_array_unref (model->opened);
  g_hash_table_unref (model->inputs);
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

const float *eng_model_output_norm (const EngModel *model)
{
  return model->output_norm;
}

const float *eng_model_rope_factors (const EngModel *model)
{
  return model->rope_factors;
}

guint eng_model_n_matrices (const EngModel *model)
{
  return model->matrices->len;
}

const EngMatrix *eng_model_matrix (const EngModel *model, guint i)
{
  return g_ptr_array_index (model->matrices, i);
}
