/* pretokenize.c: the cuts of published tokenizers, by the name that GGUF files give or by the "pre_tokenizer" of a tokenizer.json.
 * Patterns: as the models' own tokenizer.json has them; the names are llama.cpp's. */
#include "engine/tokenizer/pretokenize.h"

#include "engine/error.h"
#include "engine/json_reader.h"
#include "engine/tokenizer/utf8.h"

#include <string.h>

/* What becomes of a match and of the gap up to the next one. Names: the tokenizers package's. */
typedef enum { ISOLATED, REMOVED, KEPT /* gaps go instead */, WITH_PREVIOUS, WITH_NEXT, CONTIGUOUS } Behavior;

struct EngPretokenizer {
  guint n;
  EngPattern *patterns[ENG_PRE_MAX_STAGES];
  char *sources[ENG_PRE_MAX_STAGES];
  Behavior behaviors[ENG_PRE_MAX_STAGES];
  EngPretokenizerTraits traits;
  EngPrefix prefix;
  guint prefix_stage;
  guint n_characters; /* stages before text was written in the byte-level alphabet: those behind see bytes */
};

/* ---- what is published ---------------------------------------------------------------------------------------------------- */

#define CONTRACTION "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
#define BREAKS_AND_SPACES "\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+"
#define GPT2 "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"
#define WORDS_DIGITS(digits) "[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|" digits "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" BREAKS_AND_SPACES
#define LLAMA3(digits) CONTRACTION "|" WORDS_DIGITS (digits)
#define UPPER "[\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}]"
#define LOWER "[\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}]"
#define GPT4O(contraction, digits) \
  "[^\\r\\n\\p{L}\\p{N}]?" UPPER "*" LOWER "+" contraction "|[^\\r\\n\\p{L}\\p{N}]?" UPPER "+" LOWER "*" contraction "|" digits \
  "| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]*|" BREAKS_AND_SPACES
#define HAN_AND_KANA "[一-龥\\u3040-ゟ゠-ヿ]+"
#define WIDE "[一-龥ࠀ-一가-\\uD7FF]+"
#define PUNCTUATED_WORD "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\\r\\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+"
#define DEEPSEEK3 PUNCTUATED_WORD "| ?[\\p{P}\\p{S}]+[\\r\\n]*|" BREAKS_AND_SPACES
#define DEEPSEEK_LETTERS \
  "\\s?[A-Za-z\\u00B5À-ÖØ-öø-ƺƼ-ƿ\\u01C4-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-\\u03F5Ϸ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\\u1F7D" \
  "ᾀ-ᾴᾶ-ᾼ\\u1FBEῂ-ῄῆ-ῌῐ-\\u1FD3ῖ-\\u1FDBῠ-Ῥῲ-ῴῶ-ῼ\\u2102\\u2107\\u210A-\\u2113\\u2115\\u2119-\\u211D\\u2124\\u2126\\u2128\\u212A-" \
  "\\u212D\\u212F-\\u2134\\u2139\\u213C-\\u213F\\u2145-\\u2149ⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿ\\uFB00-\\uFB06\\uFB13-\\uFB17\\uFF21" \
  "-\\uFF3A\\uFF41-\\uFF5A𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃]+"
#define KIMI_LETTERS(categories) "[" categories "&&[^\\p{Han}]]"
#define KIMI \
  "[\\p{Han}]+|[^\\r\\n\\p{L}\\p{N}]?" KIMI_LETTERS ("\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}") "*" KIMI_LETTERS ("\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}") "+" CONTRACTION \
  "?|[^\\r\\n\\p{L}\\p{N}]?" KIMI_LETTERS ("\\p{Lu}\\p{Lt}\\p{Lm}\\p{Lo}\\p{M}") "+" KIMI_LETTERS ("\\p{Ll}\\p{Lm}\\p{Lo}\\p{M}") "*" CONTRACTION \
  "?|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|" BREAKS_AND_SPACES
#define PUNCTUATION "[!-/:-@\\[-`{-~\\p{P}]"
#define BLOOM " ?[^(\\s|.,!?…。，、।۔،)]+"

typedef struct {
  const char *patterns[ENG_PRE_MAX_STAGES];
  EngPretokenizerTraits traits;
  const char *name, *others; /* one that is written, and those that are read */
} Known;

static const Known known[] = {
  { { GPT2 }, { 0 }, "gpt-2",
    "gpt2 default phi-2 olmo mpt jais trillion granite-docling exaone4 gigachat a.x-4.0 mellum modern-bert roberta-bpe jina-es jina-de jina-v1-en jina-v2-code jina-v2-es"
    " jina-v2-de" },
  { { "\\p{N}", GPT2 }, { 0 }, "smollm", "starcoder refact command-r codeshell exaone minerva-7b mellum2" },
  { { LLAMA3 ("\\p{N}{1,3}") }, { .whole_words = TRUE, .adds_bos = TRUE }, "llama-bpe", "llama3 llama-v3 falcon3 falcon-h1 lfm2 pixtral midm-2.0 jina-v5-nano" },
  { { LLAMA3 ("\\p{N}{1,3}") }, { .whole_words = TRUE }, "glm4", "glm5" },
  { { LLAMA3 ("\\p{N}{1,3}") }, { 0 }, "dbrx", "smaug-bpe chatglm-bpe" },
  { { LLAMA3 ("\\p{N}") }, { 0 }, "qwen2", "deepseek-r1-qwen stablelm2 hunyuan megrez solar-open kormo grok-2 f2llmv2" },
  { { CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?[\\p{L}\\p{M}]+|\\p{N}| ?[^\\s\\p{L}\\p{M}\\p{N}]+[\\r\\n]*|" BREAKS_AND_SPACES }, { 0 }, "qwen35", "" },
  { { GPT4O (CONTRACTION "?", "\\p{N}{1,3}") }, { 0 }, "gpt-4o", "llama4 kanana2 minimax-m2 talkie" },
  { { GPT4O (CONTRACTION "?", "\\p{N}{1,3}") }, { .whole_words = TRUE }, "granite-embed-multi-97m", "" },
  { { GPT4O ("", "\\p{N}") }, { .whole_words = TRUE, .adds_bos = TRUE }, "tekken", "" },
  { { "[\\r\\n]", DEEPSEEK_LETTERS, "\\s?[!-/:-~！-／：-～‘-‟　-。]+", "\\s+$", WIDE, "\\p{N}+" }, { 0 }, "deepseek-llm", "" },
  { { "[\\r\\n]", "\\s?\\p{L}+", "\\s?\\p{P}+", WIDE, "\\p{N}" }, { 0 }, "deepseek-coder", "" },
  { { "\\p{N}{1,3}", HAN_AND_KANA, DEEPSEEK3 }, { 0 }, "deepseek-v3", "hunyuan-dense joyai-llm hy_v4" },
  { { "\\p{N}{1,3}", HAN_AND_KANA, PUNCTUATED_WORD "| ?[\\p{P}\\p{S}]+|[\\r\\n]|\\s+(?!\\S)|\\s+", "\\p{N}" }, { 0 }, "spark2_5", "" },
  { { "[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥\\u3040-ゟ゠-ヿ]+", GPT4O (CONTRACTION "?", "\\p{N}") }, { .whole_words = TRUE }, "youtu", "" },
  { { "[\\p{P}\\$\\+<=>\\^~\\|`]+", GPT2, "[0-9][0-9][0-9]" }, { 0 }, "falcon", "" },
  { { KIMI }, { .by_rank = TRUE }, "kimi-k2", "" },
  { { BLOOM }, { 0 }, "bloom", "poro-chat gpt3-finnish" },
  { { BLOOM, "\\p{N}" }, { 0 }, "viking", "" },
  { { "'(?i:[sdmt]|ll|ve|re)|[^\\r\\n\\p{L}\\p{N}]?+\\p{L}+|\\p{N}| ?[^\\s\\p{L}\\p{N}]++[\\r\\n]*|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+" }, { 0 },
    "bailingmoe", "bailingmoe2 llada-moe" },
  { { CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\\r\\n]+|" BREAKS_AND_SPACES }, { 0 }, "seed-coder", "" },
  { { CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?(?:\\p{L}\\p{M}*(?: \\p{L}\\p{M}*)*)+|\\p{N}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n/]?|\\s*[\\r\\n]|\\s+(?!\\S)|\\s+" }, { 0 },
    "exaone-moe", "" },
  { { CONTRACTION "|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s{512}(?!\\S)|\\s{256}(?!\\S)|\\s{128}(?!\\S)|"
      "\\s{64}(?!\\S)|\\s{32}(?!\\S)|\\s{16}(?!\\S)|\\s{8}(?!\\S)|\\s{4}(?!\\S)|\\s{1,2}(?!\\S)|\\s{1}" }, { 0 }, "jais-2", "" },
  { { "\\p{N}{1,3}", LLAMA3 ("\\p{N}+") }, { .whole_words = TRUE }, "minicpm5", "" },
  { { WORDS_DIGITS ("\\p{N}") }, { 0 }, "ufakzeka", "" },
  { { "[^\\n]+|[\\n]+", LLAMA3 ("\\p{N}") }, { 0 }, "laguna", "" },
  { { "[^\\n]+|[\\n]+" }, { .characters = TRUE }, "gemma4", "granite-embed-multi-311m sarvam-moe" },
};

static gboolean is_named (const Known *entry, const char *name)
{
  g_auto (GStrv) others = g_strsplit (entry->others, " ", -1);
  return g_str_equal (entry->name, name) || (*name != '\0' && g_strv_contains ((const char *const *) others, name));
}

/* ---- making one ----------------------------------------------------------------------------------------------------------- */

static gboolean add_stage (EngPretokenizer *pre, const char *regex, Behavior behavior, GError **error)
{
  if (pre->n == ENG_PRE_MAX_STAGES) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "text is cut in more than %d passes; choose another model", ENG_PRE_MAX_STAGES);
    return FALSE;
  }
  EngPattern *pattern = eng_pattern_new (regex, error);
  if (pattern == NULL)
    return FALSE;
  pre->patterns[pre->n] = pattern;
  pre->sources[pre->n] = g_strdup (regex);
  pre->behaviors[pre->n++] = behavior;
  if (pre->traits.characters)
    pre->n_characters = pre->n;
  return TRUE;
}

EngPretokenizer *eng_pretokenizer_new (const char *name, GError **error)
{
  g_autoptr (EngPretokenizer) pre = g_new0 (EngPretokenizer, 1);
  for (gsize i = 0; i < G_N_ELEMENTS (known); i++) {
    if (!is_named (&known[i], name))
      continue;
    pre->traits = known[i].traits;
    for (guint k = 0; k < G_N_ELEMENTS (known[i].patterns) && known[i].patterns[k] != NULL; k++)
      if (!add_stage (pre, known[i].patterns[k], ISOLATED, error))
        return NULL;
    pre->n_characters = pre->n;
    return g_steal_pointer (&pre);
  }
  g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "the pre-tokenizer '%s' is not known; choose another model", name);
  return NULL;
}

void eng_pretokenizer_free (EngPretokenizer *pre)
{
  if (pre == NULL)
    return;
  for (guint i = 0; i < pre->n; i++) {
    eng_pattern_free (pre->patterns[i]);
    g_free (pre->sources[i]);
  }
  g_free (pre);
}

EngPretokenizerTraits eng_pretokenizer_traits (const EngPretokenizer *pre)
{
  return pre->traits;
}

guint eng_pretokenizer_n_stages (const EngPretokenizer *pre)
{
  return pre->n;
}

EngPrefix eng_pretokenizer_prefix (const EngPretokenizer *pre, guint *stage)
{
  *stage = pre->prefix_stage;
  return pre->prefix;
}

static gboolean same_cuts (const EngPretokenizer *a, const EngPretokenizer *b)
{
  if (a->n != b->n || a->prefix != b->prefix || a->prefix_stage != b->prefix_stage || a->n_characters != b->n_characters)
    return FALSE;
  for (guint i = 0; i < a->n; i++)
    if (a->behaviors[i] != b->behaviors[i] || !eng_pattern_equal (a->patterns[i], b->patterns[i]))
      return FALSE;
  return TRUE;
}

const char *eng_pretokenizer_find_name (const EngPretokenizer *pre, const EngPretokenizerTraits *traits)
{
  for (gsize i = 0; i < G_N_ELEMENTS (known); i++) {
    const EngPretokenizerTraits *t = &known[i].traits;
    if (t->whole_words != traits->whole_words || t->characters != traits->characters || t->by_rank != traits->by_rank)
      continue;
    g_autoptr (EngPretokenizer) candidate = eng_pretokenizer_new (known[i].name, NULL);
    if (candidate != NULL && same_cuts (pre, candidate))
      return known[i].name;
  }
  return NULL;
}

/* ---- tokenizer.json ------------------------------------------------------------------------------------------------------- */

static gboolean read_step (EngPretokenizer *pre, JsonObject *step, GError **error);

static gboolean refuse (GError **error, const char *format, const char *what)
{
  g_autofree char *why = g_strdup_printf (format, what);
  g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "the pre-tokenizer of tokenizer.json %s; choose another model", why);
  return FALSE;
}

static const char *member_string (JsonObject *object, const char *name)
{
  JsonNode *node = json_object_get_member (object, name);
  return node != NULL && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_STRING ? json_node_get_string (node) : "";
}

static gboolean member_bool (JsonObject *object, const char *name, gboolean fallback)
{
  JsonNode *node = json_object_get_member (object, name);
  return node != NULL && JSON_NODE_HOLDS_VALUE (node) && json_node_get_value_type (node) == G_TYPE_BOOLEAN ? json_node_get_boolean (node) : fallback;
}

static JsonObject *member_object (JsonObject *object, const char *name)
{
  JsonNode *node = json_object_get_member (object, name);
  return node != NULL && JSON_NODE_HOLDS_OBJECT (node) ? json_node_get_object (node) : NULL;
}

static gboolean read_behavior (JsonObject *step, gboolean invert, Behavior *behavior, GError **error)
{
  static const char *const names[] = { "Isolated", "Removed", "", "MergedWithPrevious", "MergedWithNext", "Contiguous" };
  const char *name = member_string (step, "behavior");
  for (guint i = 0; i < G_N_ELEMENTS (names); i++)
    if (*names[i] != '\0' && g_str_equal (names[i], name)) {
      *behavior = invert && i == REMOVED ? KEPT : (Behavior) i;
      return !invert || i <= REMOVED || refuse (error, "inverts '%s', which is not known", name);
    }
  return refuse (error, "has a behavior '%s', which is not known", name);
}

static gboolean read_split (EngPretokenizer *pre, JsonObject *step, GError **error)
{
  Behavior behavior;
  JsonObject *pattern = member_object (step, "pattern");
  if (pattern == NULL || !read_behavior (step, member_bool (step, "invert", FALSE), &behavior, error))
    return pattern != NULL ? FALSE : refuse (error, "has a %s without a pattern", "Split");
  const char *regex = member_string (pattern, "Regex"), *literal = member_string (pattern, "String");
  g_autofree char *quoted = eng_pattern_quote (literal);
  if (*regex == '\0' && *literal == '\0')
    return refuse (error, "has a %s without a pattern", "Split");
  return add_stage (pre, *regex != '\0' ? regex : quoted, behavior, error);
}

static void set_prefix (EngPretokenizer *pre, EngPrefix prefix)
{
  pre->prefix = prefix;
  pre->prefix_stage = prefix != ENG_PREFIX_NEVER ? pre->n : 0;
}

static gboolean read_metaspace (EngPretokenizer *pre, JsonObject *step, GError **error)
{
  const char *replacement = member_string (step, "replacement"), *scheme = member_string (step, "prepend_scheme");
  if (!g_str_equal (replacement, "▁"))
    return refuse (error, "writes a space as '%s', which is not known", replacement);
  if (*scheme == '\0')
    scheme = member_bool (step, "add_prefix_space", TRUE) ? "always" : "never";
  set_prefix (pre, g_str_equal (scheme, "always") ? ENG_PREFIX_ALWAYS : g_str_equal (scheme, "first") ? ENG_PREFIX_FIRST : ENG_PREFIX_NEVER);
  return !member_bool (step, "split", TRUE) || add_stage (pre, "[ ▁]", WITH_NEXT, error);
}

static gboolean read_byte_level (EngPretokenizer *pre, JsonObject *step, GError **error)
{
  if (member_bool (step, "add_prefix_space", TRUE))
    set_prefix (pre, ENG_PREFIX_ALWAYS);
  gboolean ok = !member_bool (step, "use_regex", TRUE) || add_stage (pre, GPT2, ISOLATED, error);
  pre->traits.characters = FALSE;
  return ok;
}

static gboolean read_sequence (EngPretokenizer *pre, JsonObject *step, GError **error)
{
  JsonNode *list = json_object_get_member (step, "pretokenizers");
  JsonArray *steps = list != NULL && JSON_NODE_HOLDS_ARRAY (list) ? json_node_get_array (list) : NULL;
  for (guint i = 0; steps != NULL && i < json_array_get_length (steps); i++) {
    JsonNode *next = json_array_get_element (steps, i);
    if (!JSON_NODE_HOLDS_OBJECT (next))
      return refuse (error, "has a step that is no %s", "object");
    if (!read_step (pre, json_node_get_object (next), error))
      return FALSE;
  }
  return TRUE;
}

static gboolean read_step (EngPretokenizer *pre, JsonObject *step, GError **error)
{
  const char *type = member_string (step, "type");
  Behavior behavior = ISOLATED;
  if (g_str_equal (type, "Sequence"))
    return read_sequence (pre, step, error);
  if (g_str_equal (type, "Split"))
    return read_split (pre, step, error);
  if (g_str_equal (type, "ByteLevel"))
    return read_byte_level (pre, step, error);
  if (g_str_equal (type, "Metaspace"))
    return read_metaspace (pre, step, error);
  if (g_str_equal (type, "Digits"))
    return add_stage (pre, "\\p{N}", member_bool (step, "individual_digits", FALSE) ? ISOLATED : CONTIGUOUS, error);
  if (g_str_equal (type, "Punctuation"))
    return (!json_object_has_member (step, "behavior") || read_behavior (step, FALSE, &behavior, error)) &&
           add_stage (pre, PUNCTUATION, behavior, error);
  if (g_str_equal (type, "Whitespace"))
    return add_stage (pre, "\\w+|[^\\w\\s]+", KEPT, error);
  if (g_str_equal (type, "WhitespaceSplit"))
    return add_stage (pre, "\\s", REMOVED, error);
  if (g_str_equal (type, "BertPreTokenizer"))
    return add_stage (pre, "\\s", REMOVED, error) && add_stage (pre, PUNCTUATION, ISOLATED, error);
  return refuse (error, "has a step '%s', which is not known", type);
}

EngPretokenizer *eng_pretokenizer_new_json (const char *json, GError **error)
{
  g_autoptr (JsonNode) node = eng_json_parse (json, strlen (json), error);
  g_autoptr (EngPretokenizer) pre = g_new0 (EngPretokenizer, 1);
  if (node == NULL)
    return NULL;
  pre->traits.characters = TRUE; /* until a step makes bytes of them */
  if (JSON_NODE_HOLDS_OBJECT (node) && !read_step (pre, json_node_get_object (node), error))
    return NULL;
  return g_steal_pointer (&pre);
}

/* ---- cutting -------------------------------------------------------------------------------------------------------------- */

void eng_cut_init (EngCut *cut, const EngPretokenizer *pre, guint first, guint last)
{
  memset (cut, 0, sizeof *cut);
  cut->pre = pre;
  cut->first = first;
  cut->last = last;
  for (guint i = pre->n_characters; i < pre->n; i++)
    cut->stages[i].trail.of_bytes = TRUE;
}

void eng_cut_clear (EngCut *cut)
{
  for (guint i = 0; i < G_N_ELEMENTS (cut->stages); i++)
    eng_pattern_trail_clear (&cut->stages[i].trail);
}

/* Where the gap that begins at text ends: at the next match, whose length is *n, or at the end. */
static const char *gap_end (const EngPattern *pattern, EngPatternTrail *trail, const char *text, const char *end, gsize *n)
{
  *n = 0;
  while (text < end && (*n = eng_pattern_match (pattern, trail, text, end)) == 0) {
    guint32 c;
    text += trail->of_bytes ? 1 : eng_utf8_next (text, end, &c);
  }
  return text;
}

/* The piece of one stage that begins at text, or at the end of the match there. */
static const char *stage_piece (EngCut *cut, guint i, const char *text, const char *end, gboolean *dropped)
{
  const EngPattern *pattern = cut->pre->patterns[i];
  EngPatternTrail *trail = &cut->stages[i].trail;
  Behavior behavior = cut->pre->behaviors[i];
  gsize n = eng_pattern_match (pattern, trail, text, end), following = 0;
  *dropped = behavior == (n > 0 ? REMOVED : KEPT);
  if (n == 0) {
    const char *stop = gap_end (pattern, trail, text, end, &following);
    return behavior == WITH_PREVIOUS ? stop + following : stop;
  }
  text += n;
  if (behavior == WITH_NEXT)
    return gap_end (pattern, trail, text, end, &following);
  while (behavior == CONTIGUOUS && text < end && (n = eng_pattern_match (pattern, trail, text, end)) > 0)
    text += n;
  return text;
}

gsize eng_cut_next (EngCut *cut, const char *text, const char *end, gboolean *dropped)
{
  *dropped = FALSE;
  for (guint i = cut->first; i < cut->last && !*dropped; i++) {
    if (cut->stages[i].piece_end == NULL || cut->stages[i].piece_end <= text)
      cut->stages[i].piece_end = stage_piece (cut, i, text, end, &cut->stages[i].dropped);
    end = cut->stages[i].piece_end;
    *dropped = cut->stages[i].dropped;
  }
  return (gsize) (end - text);
}
