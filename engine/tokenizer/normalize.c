/* normalize.c: a list of steps, each from one text to the next. Names and meaning: the tokenizers package's; the map of characters is
 * SentencePiece's, a double-array trie (Aoe 1989) from sequences of bytes to texts. */
#include "engine/tokenizer/normalize.h"

#include "engine/error.h"
#include "engine/json_reader.h"
#include "engine/tokenizer/charset.h"
#include "engine/tokenizer/normal_form.h"
#include "engine/tokenizer/pattern.h"
#include "engine/tokenizer/utf8.h"

#include <string.h>

typedef enum { PREPEND, REPLACE, NORMAL_FORM, CHARSMAP, LOWERCASE, STRIP, STRIP_ACCENTS, CLEAN, SPACE_HAN, TRIM_SPACES } StepKind;

typedef struct {
  StepKind kind;
  EngPattern *pattern;            /* REPLACE */
  char *text;                     /* PREPEND, REPLACE: what is put there */
  gboolean compatible, composed;  /* NORMAL_FORM */
  gboolean left, right;           /* STRIP */
  GBytes *map;                    /* CHARSMAP: the trie, and behind it the texts, each with a NUL at its end */
  gsize n_units;
} Step;

struct EngNormalizer { GArray *steps; };

static void clear_step (gpointer data)
{
  Step *step = data;
  eng_pattern_free (step->pattern);
  g_free (step->text);
  g_clear_pointer (&step->map, g_bytes_unref);
}

static EngNormalizer *normalizer_new (void)
{
  EngNormalizer *n = g_new (EngNormalizer, 1);
  n->steps = g_array_new (FALSE, TRUE, sizeof (Step));
  g_array_set_clear_func (n->steps, clear_step);
  return n;
}

void eng_normalizer_free (EngNormalizer *normalizer)
{
  if (normalizer == NULL)
    return;
  g_array_unref (normalizer->steps);
  g_free (normalizer);
}

/* ---- reading -------------------------------------------------------------------------------------------------------------- */

static gboolean read_step (EngNormalizer *n, JsonObject *object, guint depth, GError **error);

static gboolean refuse (GError **error, const char *format, const char *what)
{
  g_autofree char *why = g_strdup_printf (format, what);
  g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "the normalizer %s; choose another model", why);
  return FALSE;
}

static gboolean add (EngNormalizer *n, Step step)
{
  g_array_append_val (n->steps, step);
  return TRUE;
}

/* Takes the bytes: a length, so many bytes of trie, texts. */
static gboolean add_charsmap (EngNormalizer *n, GBytes *bytes, GError **error)
{
  gsize size;
  const guint8 *data = g_bytes_get_data (bytes, &size);
  guint32 trie = size < 4 ? G_MAXUINT32 : (guint32) data[0] | (guint32) data[1] << 8 | (guint32) data[2] << 16 | (guint32) data[3] << 24;
  if (trie > size - MIN (size, 4) || trie % 4 != 0 || trie == 0 || (size > 4 + (gsize) trie && data[size - 1] != '\0')) {
    g_bytes_unref (bytes);
    return refuse (error, "has a map of characters that is %s", "damaged");
  }
  Step step = { .kind = CHARSMAP, .n_units = trie / 4, .map = g_bytes_new_from_bytes (bytes, 4, size - 4) };
  g_bytes_unref (bytes);
  return add (n, step);
}

static const char *string_of (JsonObject *object, const char *name)
{
  JsonNode *node = json_object_get_member (object, name);
  return node != NULL && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING ? json_node_get_string (node) : NULL;
}

/* TRUE, FALSE, or -1 when it is null or missing. */
static int bool_of (JsonObject *object, const char *name)
{
  JsonNode *node = json_object_get_member (object, name);
  return node != NULL && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_BOOLEAN ? json_node_get_boolean (node) : -1;
}

static gboolean read_replace (EngNormalizer *n, JsonObject *object, GError **error)
{
  JsonNode *node = json_object_get_member (object, "pattern");
  JsonObject *pattern = node != NULL && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
  const char *regex = pattern != NULL ? string_of (pattern, "Regex") : NULL, *literal = pattern != NULL ? string_of (pattern, "String") : NULL;
  const char *content = string_of (object, "content");
  if ((regex == NULL && literal == NULL) || content == NULL)
    return refuse (error, "has a %s without pattern or content", "Replace");
  g_autofree char *quoted = literal != NULL ? eng_pattern_quote (literal) : NULL;
  EngPattern *compiled = eng_pattern_new (quoted != NULL ? quoted : regex, error);
  return compiled != NULL && add (n, (Step){ .kind = REPLACE, .pattern = compiled, .text = g_strdup (content) });
}

static gboolean read_bert (EngNormalizer *n, JsonObject *object)
{
  gboolean lower = bool_of (object, "lowercase") != FALSE;
  int accents = bool_of (object, "strip_accents");
  if (bool_of (object, "clean_text") != FALSE)
    add (n, (Step){ .kind = CLEAN });
  if (bool_of (object, "handle_chinese_chars") != FALSE)
    add (n, (Step){ .kind = SPACE_HAN });
  if (accents == TRUE || (accents < 0 && lower)) {
    add (n, (Step){ .kind = NORMAL_FORM });
    add (n, (Step){ .kind = STRIP_ACCENTS });
  }
  if (lower)
    add (n, (Step){ .kind = LOWERCASE });
  return TRUE;
}

static gboolean read_sequence (EngNormalizer *n, JsonObject *object, guint depth, GError **error)
{
  JsonNode *list = json_object_get_member (object, "normalizers");
  JsonArray *steps = list != NULL && JSON_NODE_HOLDS_ARRAY (list) ? json_node_get_array (list) : NULL;
  for (guint i = 0; steps != NULL && i < json_array_get_length (steps); i++) {
    JsonNode *step = json_array_get_element (steps, i);
    if (!JSON_NODE_HOLDS_OBJECT (step))
      return refuse (error, "has a step that is no %s", "object");
    if (!read_step (n, json_node_get_object (step), depth + 1, error))
      return FALSE;
  }
  return TRUE;
}

static gboolean read_step (EngNormalizer *n, JsonObject *object, guint depth, GError **error)
{
  const char *type = string_of (object, "type"), *text;
  if (type == NULL)
    return refuse (error, "has a step without a %s", "type");
  if (n->steps->len > 64 || depth > 8)
    return refuse (error, "has more %s than make sense", "steps");
  if (g_str_equal (type, "Sequence"))
    return read_sequence (n, object, depth, error);
  if (g_str_equal (type, "NFC") || g_str_equal (type, "NFD") || g_str_equal (type, "NFKC") || g_str_equal (type, "NFKD"))
    return add (n, (Step){ .kind = NORMAL_FORM, .compatible = type[2] == 'K', .composed = type[strlen (type) - 1] == 'C' });
  if (g_str_equal (type, "Prepend") && (text = string_of (object, "prepend")) != NULL)
    return add (n, (Step){ .kind = PREPEND, .text = g_strdup (text) });
  if (g_str_equal (type, "Replace"))
    return read_replace (n, object, error);
  if (g_str_equal (type, "Lowercase"))
    return add (n, (Step){ .kind = LOWERCASE });
  if (g_str_equal (type, "StripAccents"))
    return add (n, (Step){ .kind = STRIP_ACCENTS });
  if (g_str_equal (type, "Strip"))
    return add (n, (Step){ .kind = STRIP, .left = bool_of (object, "strip_left") != FALSE, .right = bool_of (object, "strip_right") != FALSE });
  if (g_str_equal (type, "BertNormalizer"))
    return read_bert (n, object);
  if (g_str_equal (type, "Precompiled") && (text = string_of (object, "precompiled_charsmap")) != NULL) {
    gsize size;
    guint8 *data = g_base64_decode (text, &size);
    return add_charsmap (n, g_bytes_new_take (data, size), error);
  }
  return refuse (error, "has a step '%s', which is not known", type);
}

EngNormalizer *eng_normalizer_new_json (const char *json, GError **error)
{
  g_autoptr (JsonNode) node = eng_json_parse (json, strlen (json), error);
  if (node == NULL)
    return NULL;
  g_autoptr (EngNormalizer) n = normalizer_new ();
  if (JSON_NODE_HOLDS_OBJECT (node) && !read_step (n, json_node_get_object (node), 0, error))
    return NULL;
  return g_steal_pointer (&n);
}

EngNormalizer *eng_normalizer_new_sentencepiece (GBytes *charsmap, gboolean trims_spaces, GError **error)
{
  g_autoptr (EngNormalizer) n = normalizer_new ();
  if (charsmap != NULL && g_bytes_get_size (charsmap) > 0 && !add_charsmap (n, g_bytes_ref (charsmap), error))
    return NULL;
  if (trims_spaces)
    add (n, (Step){ .kind = TRIM_SPACES });
  return g_steal_pointer (&n);
}

/* ---- the steps: each appends what it makes of text[length] to out ---------------------------------------------------------- */

static void replace (const Step *step, const char *text, const char *end, GString *out)
{
  EngPatternTrail trail = { 0 };
  while (text < end) {
    guint32 c;
    gsize n = eng_pattern_match (step->pattern, &trail, text, end);
    if (n > 0) {
      g_string_append (out, step->text);
    } else {
      n = eng_utf8_next (text, end, &c);
      g_string_append_len (out, text, (gssize) n);
    }
    text += n;
  }
  eng_pattern_trail_clear (&trail);
}

static guint32 unit_at (const guint8 *data, gsize i)
{
  const guint8 *p = data + 4 * i;
  return (guint32) p[0] | (guint32) p[1] << 8 | (guint32) p[2] << 16 | (guint32) p[3] << 24;
}

/* Length of the longest key at text, 0: none; *replacement is what it becomes. The layout of a unit is Darts-clone's. */
static gsize find_mapped (const Step *step, const char *text, const char *end, const char **replacement)
{
  enum { LONGEST = 256 };
  gsize size, found = 0;
  const guint8 *data = g_bytes_get_data (step->map, &size);
  const char *texts = (const char *) data + 4 * step->n_units;
  gsize n_texts = size - 4 * step->n_units;
  guint32 unit = unit_at (data, 0);
  gsize at = (unit >> 10) << ((unit & 0x200) >> 6);
  for (gsize i = 0; text + i < end && i < LONGEST; i++) {
    at ^= (guint8) text[i];
    if (at >= step->n_units)
      break;
    unit = unit_at (data, at);
    if ((unit & 0x800000FFu) != (guint8) text[i])
      break;
    at ^= (unit >> 10) << ((unit & 0x200) >> 6);
    if ((unit & 0x100) != 0 && at < step->n_units) {
      guint32 value = unit_at (data, at) & 0x7FFFFFFFu;
      if (value < n_texts) {
        *replacement = texts + value;
        found = i + 1;
      }
    }
  }
  return found;
}

static void map_characters (const Step *step, const char *text, const char *end, GString *out)
{
  while (text < end) {
    const char *replacement;
    guint32 c;
    gsize n = find_mapped (step, text, end, &replacement);
    if (n > 0) {
      g_string_append (out, replacement);
    } else {
      n = eng_utf8_next (text, end, &c);
      g_string_append_len (out, text, (gssize) n);
    }
    text += n;
  }
}

static void trim_spaces (const char *text, const char *end, GString *out)
{
  gsize begin = out->len;
  for (; text < end; text++)
    if (*text != ' ' || (out->len > begin && out->str[out->len - 1] != ' '))
      g_string_append_c (out, *text);
  if (out->len > begin && out->str[out->len - 1] == ' ')
    g_string_truncate (out, out->len - 1);
}

static void strip (const Step *step, const char *text, const char *end, GString *out)
{
  guint32 c;
  while (step->left && text < end) {
    guint n = eng_utf8_next (text, end, &c);
    if (!eng_is_space (c))
      break;
    text += n;
  }
  const char *last = step->right ? text : end;
  for (const char *p = text; step->right && p < end;) {
    p += eng_utf8_next (p, end, &c);
    if (!eng_is_space (c))
      last = p;
  }
  g_string_append_len (out, text, last - text);
}

static gboolean is_han (guint32 c)
{
  return (c >= 0x4E00 && c <= 0x9FFF) || (c >= 0x3400 && c <= 0x4DBF) || (c >= 0x20000 && c <= 0x2A6DF) || (c >= 0x2A700 && c <= 0x2B73F) ||
         (c >= 0x2B740 && c <= 0x2B81F) || (c >= 0x2B920 && c <= 0x2CEAF) || (c >= 0xF900 && c <= 0xFAFF) || (c >= 0x2F800 && c <= 0x2FA1F);
}

/* Categories C*: control, format, unassigned, private use, surrogate. */
static gboolean is_other (guint32 c)
{
  switch (g_unichar_type (c)) {
  case G_UNICODE_CONTROL:
  case G_UNICODE_FORMAT:
  case G_UNICODE_UNASSIGNED:
  case G_UNICODE_PRIVATE_USE:
  case G_UNICODE_SURROGATE:
    return TRUE;
  default:
    return FALSE;
  }
}

/* Steps that go character by character. */
static void change_character (StepKind kind, guint32 c, GString *out)
{
  switch (kind) {
  case LOWERCASE:
    if (c == 0x130) /* the one letter whose lower case is two characters wherever it stands */
      g_string_append (out, "i\xCC\x87");
    else
      g_string_append_unichar (out, g_unichar_tolower (c));
    break;
  case STRIP_ACCENTS:
    if (g_unichar_type (c) != G_UNICODE_NON_SPACING_MARK)
      g_string_append_unichar (out, c);
    break;
  case CLEAN:
    if (eng_is_space (c))
      g_string_append_c (out, ' ');
    else if (c != 0xFFFD && !is_other (c))
      g_string_append_unichar (out, c);
    break;
  default: /* SPACE_HAN */
    if (is_han (c)) {
      g_string_append_c (out, ' ');
      g_string_append_unichar (out, c);
      g_string_append_c (out, ' ');
    } else {
      g_string_append_unichar (out, c);
    }
    break;
  }
}

static void change_characters (StepKind kind, const char *text, const char *end, GString *out)
{
  while (text < end) {
    guint32 c;
    guint n = eng_utf8_next (text, end, &c);
    if (c == ENG_UTF8_BROKEN)
      g_string_append_c (out, *text);
    else
      change_character (kind, c, out);
    text += n;
  }
}

void eng_normalizer_apply (const EngNormalizer *normalizer, GString *text)
{
  g_autoptr (GString) source = g_string_new (NULL);
  for (guint i = 0; i < normalizer->steps->len; i++) {
    const Step *step = &g_array_index (normalizer->steps, Step, i);
    GString swapped = *source; /* what there is becomes the source, and the other buffer takes the result */
    *source = *text;
    *text = swapped;
    g_string_truncate (text, 0);
    const char *begin = source->str, *end = begin + source->len;
    switch (step->kind) {
    case PREPEND:
      if (source->len > 0)
        g_string_append (text, step->text);
      g_string_append_len (text, begin, end - begin);
      break;
    case REPLACE:
      replace (step, begin, end, text);
      break;
    case NORMAL_FORM:
      eng_normal_form (begin, source->len, step->compatible, step->composed, text);
      break;
    case CHARSMAP:
      map_characters (step, begin, end, text);
      break;
    case STRIP:
      strip (step, begin, end, text);
      break;
    case TRIM_SPACES:
      trim_spaces (begin, end, text);
      break;
    default:
      change_characters (step->kind, begin, end, text);
      break;
    }
  }
}
