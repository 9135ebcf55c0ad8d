/* traits.c: what a file's metadata says about its decoder, checked. A family is a row of a table, not a file. */
#include "engine/error.h"
#include "engine/model.h"

#include <string.h>

typedef struct {
  const char *name; /* general.architecture, and the prefix of its keys */
  gboolean rope_halves;
  gboolean qkv_bias;
} Family;

static const Family families[] = {
  { "llama", FALSE, FALSE },
};

static const Family *find_family (const char *name)
{
  for (guint i = 0; i < G_N_ELEMENTS (families); i++)
    if (strcmp (families[i].name, name) == 0)
      return &families[i];
  return NULL;
}

static char *known_families (void)
{
  GString *names = g_string_new (NULL);
  for (guint i = 0; i < G_N_ELEMENTS (families); i++)
    g_string_append_printf (names, "%s%s", i > 0 ? ", " : "", families[i].name);
  return g_string_free (names, FALSE);
}

/* ---- reading checked values ---------------------------------------------------------------------------------------------- */

typedef struct {
  const EngGguf *gguf;
  const char *prefix;
  GError **error;
} Reader;

static gboolean read_count (const Reader *reader, const char *suffix, gint64 fallback, guint max, guint *value)
{
  g_autofree char *key = g_strconcat (reader->prefix, ".", suffix, NULL);
  if (!eng_gguf_has (reader->gguf, key) && fallback == 0) {
    g_set_error (reader->error, ENG_ERROR, ENG_ERROR_FORMAT, "%s has no %s: the file is incomplete, download it again",
                 eng_gguf_path (reader->gguf), key);
    return FALSE;
  }
  EngKvType kind;
  gsize length = eng_gguf_array_length (reader->gguf, key, &kind);
  gint64 n = length > 0 ? eng_gguf_array_int (reader->gguf, key, 0) : eng_gguf_get_int (reader->gguf, key, fallback);
  for (gsize i = 1; i < length; i++)
    if (eng_gguf_array_int (reader->gguf, key, i) != n) {
      g_set_error (reader->error, ENG_ERROR, ENG_ERROR_UNSUPPORTED,
                   "%s: %s differs from layer to layer, which Valise does not know yet", eng_gguf_path (reader->gguf), key);
      return FALSE;
    }
  if (n < 1 || n > max) {
    g_set_error (reader->error, ENG_ERROR, ENG_ERROR_FORMAT,
                 "%s: %s is %" G_GINT64_FORMAT ", but must be 1 to %u: the file is damaged", eng_gguf_path (reader->gguf), key, n,
                 max);
    return FALSE;
  }
  *value = n;
  return TRUE;
}

static gboolean read_positive (const Reader *reader, const char *suffix, double fallback, float *value)
{
  g_autofree char *key = g_strconcat (reader->prefix, ".", suffix, NULL);
  *value = eng_gguf_get_float (reader->gguf, key, fallback);
  if (*value > 0 && *value < 1e30f)
    return TRUE;
  g_set_error (reader->error, ENG_ERROR, ENG_ERROR_FORMAT, "%s: %s is %g, but must be a positive number: the file is damaged",
               eng_gguf_path (reader->gguf), key, *value);
  return FALSE;
}

/* Sets rope_scale. Llama 3's own scaling arrives as a tensor of factors, not as a kind. */
static gboolean read_rope_scaling (const Reader *reader, EngTraits *traits)
{
  g_autofree char *type_key = g_strconcat (reader->prefix, ".rope.scaling.type", NULL);
  const char *type = eng_gguf_get_string (reader->gguf, type_key, "none");
  float factor = 1;
  if (strcmp (type, "linear") == 0) {
    if (!read_positive (reader, "rope.scaling.factor", 1, &factor))
      return FALSE;
  } else if (strcmp (type, "none") != 0) {
    g_set_error (reader->error, ENG_ERROR, ENG_ERROR_UNSUPPORTED,
                 "%s: rope scaling \"%s\" is not known to Valise (none and linear are)", eng_gguf_path (reader->gguf), type);
    return FALSE;
  } else if (!read_positive (reader, "rope.scale_linear", 1, &factor)) {
    return FALSE;
  }
  traits->rope_scale = 1 / factor;
  return TRUE;
}

static gboolean read_vocabulary (const Reader *reader, EngTraits *traits)
{
  EngKvType kind;
  gsize n = eng_gguf_array_length (reader->gguf, "tokenizer.ggml.tokens", &kind);
  if (n == 0)
    return read_count (reader, "vocab_size", 0, 1 << 24, &traits->n_vocab);
  if (n > 1 << 24) {
    g_set_error (reader->error, ENG_ERROR, ENG_ERROR_FORMAT,
                 "%s: a vocabulary of %" G_GSIZE_FORMAT " tokens is beyond reason: the file is damaged",
                 eng_gguf_path (reader->gguf), n);
    return FALSE;
  }
  traits->n_vocab = n;
  return TRUE;
}

/* Only a suggestion: what makes no sense is as good as unsaid. */
static void read_planned_session (const EngGguf *gguf, EngTraits *traits)
{
  gint64 n_ctx = eng_gguf_get_int (gguf, "valise.fit.context", 0), kv_bits = eng_gguf_get_int (gguf, "valise.fit.kv_bits", 0);
  if (n_ctx < 1 || n_ctx > traits->n_ctx_train || (kv_bits != 16 && kv_bits != 8 && kv_bits != 4))
    return;
  traits->n_ctx_planned = (guint) n_ctx;
  traits->kv_bits_planned = (int) kv_bits;
}

static gboolean check_consistency (const Reader *reader, const EngTraits *t)
{
  g_autofree char *fault = NULL;
  if (t->n_heads % t->n_kv_heads != 0)
    fault = g_strdup_printf ("%u heads cannot share %u key and value heads evenly", t->n_heads, t->n_kv_heads);
  else if (t->n_rot > t->head_dim || t->n_rot % 2 != 0)
    fault = g_strdup_printf ("rope turns %u values of a head of %u", t->n_rot, t->head_dim);
  if (fault == NULL)
    return TRUE;
  g_set_error (reader->error, ENG_ERROR, ENG_ERROR_FORMAT, "%s: %s: the file is damaged", eng_gguf_path (reader->gguf), fault);
  return FALSE;
}

static guint64 count_parameters (const EngTraits *t)
{
  guint64 embd = t->n_embd, q = (guint64)t->n_heads * t->head_dim, kv = (guint64)t->n_kv_heads * t->head_dim;
  guint64 layer = 2 * embd * q + 2 * embd * kv + 3 * embd * t->n_ff + 2 * embd + (t->qkv_bias ? q + 2 * kv : 0);
  return t->n_vocab * embd * (t->tied_head ? 1 : 2) + t->n_layers * layer + embd;
}

gboolean eng_traits_read (EngTraits *traits, const EngGguf *gguf, GError **error)
{
  const char *name = eng_gguf_get_string (gguf, "general.architecture", NULL);
  if (name == NULL) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT,
                 "%s does not say which architecture it is (general.architecture): it is no language model", eng_gguf_path (gguf));
    return FALSE;
  }
  const Family *family = find_family (name);
  if (family == NULL) {
    g_autofree char *known = known_families (), *shown = g_utf8_substring (name, 0, MIN (g_utf8_strlen (name, -1), 40));
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s is of architecture \"%s\", which Valise cannot compute; it knows: %s",
                 eng_gguf_path (gguf), shown, known);
    return FALSE;
  }
  gint64 version = eng_gguf_get_int (gguf, "valise.version", 0);
  if (version > ENG_FILE_VERSION) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED,
                 "%s was written by a newer Valise (file version %" G_GINT64_FORMAT ", this one reads up to %d): update Valise",
                 eng_gguf_path (gguf), version, ENG_FILE_VERSION);
    return FALSE;
  }

  Reader reader = { gguf, family->name, error };
  EngTraits t = { .rope_halves = family->rope_halves, .qkv_bias = family->qkv_bias, .file_bytes = eng_gguf_file_bytes (gguf) };
  g_strlcpy (t.architecture, family->name, sizeof t.architecture);
  g_autofree char *experts_key = g_strconcat (family->name, ".expert_count", NULL);
  if (eng_gguf_get_int (gguf, experts_key, 0) > 0) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s is a mixture of experts, which Valise cannot compute yet",
                 eng_gguf_path (gguf));
    return FALSE;
  }
  if (!read_count (&reader, "block_count", 0, 4096, &t.n_layers) || !read_count (&reader, "embedding_length", 0, 1 << 20, &t.n_embd)
      || !read_count (&reader, "feed_forward_length", 0, 1 << 22, &t.n_ff)
      || !read_count (&reader, "attention.head_count", 0, 4096, &t.n_heads)
      || !read_count (&reader, "attention.head_count_kv", t.n_heads, 4096, &t.n_kv_heads)
      || !read_count (&reader, "attention.key_length", MAX (1, t.n_embd / t.n_heads), 512, &t.head_dim)
      || !read_count (&reader, "rope.dimension_count", t.head_dim, 4096, &t.n_rot)
      || !read_count (&reader, "context_length", 2048, G_MAXINT, &t.n_ctx_train)
      || !read_positive (&reader, "attention.layer_norm_rms_epsilon", 1e-5, &t.norm_eps)
      || !read_positive (&reader, "rope.freq_base", 10000, &t.rope_theta) || !read_rope_scaling (&reader, &t)
      || !read_vocabulary (&reader, &t) || !check_consistency (&reader, &t))
    return FALSE;
  guint value_length;
  if (!read_count (&reader, "attention.value_length", t.head_dim, 4096, &value_length))
    return FALSE;
  if (value_length != t.head_dim) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "%s: values of %u beside keys of %u are not known to Valise",
                 eng_gguf_path (gguf), value_length, t.head_dim);
    return FALSE;
  }
  t.tied_head = eng_gguf_find_tensor (gguf, "output.weight") == NULL && eng_gguf_find_tensor (gguf, "output.weight.xbit") == NULL;
  t.n_parameters = count_parameters (&t);
  read_planned_session (gguf, &t);
  *traits = t;
  return TRUE;
}
