/* pretokenize.c: the patterns that published tokenizers cut text with, as state machines over Unicode classes.
 * Definitions: the "pre_tokenizer" of the models' own tokenizer.json; the pattern stands above each machine. */
#include "engine/tokenizer/pretokenize_private.h"

#include "engine/tokenizer/utf8.h"

typedef enum { LETTER, NUMBER, SPACE, OTHER } Class;

/* Names that share a machine come from the models that publish the same pattern. */
static const EngPretokenizerTraits known[] = {
  { "gpt2", ENG_PRE_GPT2, FALSE, FALSE },          { "gpt-2", ENG_PRE_GPT2, FALSE, FALSE },
  { "default", ENG_PRE_GPT2, FALSE, FALSE },       { "phi-2", ENG_PRE_GPT2, FALSE, FALSE },
  { "mpt", ENG_PRE_GPT2, FALSE, FALSE },           { "olmo", ENG_PRE_GPT2, FALSE, FALSE },
  { "jais", ENG_PRE_GPT2, FALSE, FALSE },          { "trillion", ENG_PRE_GPT2, FALSE, FALSE },
  { "granite-docling", ENG_PRE_GPT2, FALSE, FALSE }, { "exaone4", ENG_PRE_GPT2, FALSE, FALSE },
  { "gigachat", ENG_PRE_GPT2, FALSE, FALSE },      { "a.x-4.0", ENG_PRE_GPT2, FALSE, FALSE },
  { "mellum", ENG_PRE_GPT2, FALSE, FALSE },
  { "smollm", ENG_PRE_SMOLLM, FALSE, FALSE },      { "starcoder", ENG_PRE_SMOLLM, FALSE, FALSE },
  { "refact", ENG_PRE_SMOLLM, FALSE, FALSE },      { "command-r", ENG_PRE_SMOLLM, FALSE, FALSE },
  { "codeshell", ENG_PRE_SMOLLM, FALSE, FALSE },   { "exaone", ENG_PRE_SMOLLM, FALSE, FALSE },
  { "minerva-7b", ENG_PRE_SMOLLM, FALSE, FALSE },
  { "llama3", ENG_PRE_LLAMA3, TRUE, TRUE },        { "llama-bpe", ENG_PRE_LLAMA3, TRUE, TRUE },
  { "llama-v3", ENG_PRE_LLAMA3, TRUE, TRUE },      { "falcon3", ENG_PRE_LLAMA3, TRUE, TRUE },
  { "falcon-h1", ENG_PRE_LLAMA3, TRUE, TRUE },     { "lfm2", ENG_PRE_LLAMA3, TRUE, TRUE },
  { "pixtral", ENG_PRE_LLAMA3, TRUE, TRUE },       { "dbrx", ENG_PRE_LLAMA3, FALSE, FALSE },
  { "smaug-bpe", ENG_PRE_LLAMA3, FALSE, FALSE },   { "glm4", ENG_PRE_LLAMA3, TRUE, FALSE },
  { "chatglm-bpe", ENG_PRE_LLAMA3, FALSE, FALSE }, { "midm-2.0", ENG_PRE_LLAMA3, TRUE, TRUE },
  { "qwen2", ENG_PRE_QWEN2, FALSE, FALSE },        { "deepseek-r1-qwen", ENG_PRE_QWEN2, FALSE, FALSE },
  { "stablelm2", ENG_PRE_QWEN2, FALSE, FALSE },    { "hunyuan", ENG_PRE_QWEN2, FALSE, FALSE },
  { "megrez", ENG_PRE_QWEN2, FALSE, FALSE },       { "solar-open", ENG_PRE_QWEN2, FALSE, FALSE },
  { "kormo", ENG_PRE_QWEN2, FALSE, FALSE },        { "grok-2", ENG_PRE_QWEN2, FALSE, FALSE },
  { "qwen35", ENG_PRE_QWEN35, FALSE, FALSE },
  { "gpt-4o", ENG_PRE_GPT4O, FALSE, FALSE },       { "llama4", ENG_PRE_GPT4O, FALSE, FALSE },
  { "kanana2", ENG_PRE_GPT4O, FALSE, FALSE },      { "minimax-m2", ENG_PRE_GPT4O, FALSE, FALSE },
  { "tekken", ENG_PRE_TEKKEN, TRUE, TRUE },
  { "deepseek-llm", ENG_PRE_DEEPSEEK_LLM, FALSE, FALSE },
  { "deepseek-coder", ENG_PRE_DEEPSEEK_CODER, FALSE, FALSE },
  { "deepseek-v3", ENG_PRE_DEEPSEEK3, FALSE, FALSE },
  { "hunyuan-dense", ENG_PRE_DEEPSEEK3, FALSE, FALSE },
  { "falcon", ENG_PRE_FALCON, FALSE, FALSE },
};

static gsize llama3_piece (const char *text, const char *end, guint max_digits);

const EngPretokenizerTraits *eng_pretokenizer_find (const char *name)
{
  for (gsize i = 0; i < G_N_ELEMENTS (known); i++)
    if (g_str_equal (known[i].name, name))
      return &known[i];
  return NULL;
}

static gsize whole_piece (EngPretokenizer rules, const char *text, const char *end)
{
  switch (rules) {
  case ENG_PRE_SMOLLM:
    return eng_pre_gpt2_piece (text, end, TRUE);
  case ENG_PRE_LLAMA3:
    return llama3_piece (text, end, 3);
  case ENG_PRE_QWEN2:
    return llama3_piece (text, end, 1);
  case ENG_PRE_QWEN35:
    return eng_pre_qwen35_piece (text, end);
  case ENG_PRE_GPT4O:
    return eng_pre_gpt4o_piece (text, end, 3, TRUE);
  case ENG_PRE_TEKKEN:
    return eng_pre_gpt4o_piece (text, end, 1, FALSE);
  default:
    return eng_pre_gpt2_piece (text, end, FALSE);
  }
}

gsize eng_pretokenize (EngCut *cut, const char *text, const char *end)
{
  guint n = eng_pre_n_stages (cut->rules);
  if (n == 0)
    return whole_piece (cut->rules, text, end);
  for (guint i = 0; i < n; i++) {
    if (cut->stage_end[i] == NULL || cut->stage_end[i] <= text)
      cut->stage_end[i] = text + eng_pre_stage_piece (cut->rules, i, text, end);
    end = cut->stage_end[i];
  }
  return (gsize) (end - text);
}

/* \s is the White_Space property, which g_unichar_isspace does not follow for vertical tab and U+0085. */
gboolean eng_pre_is_space (guint32 c)
{
  if (c < 0x80)
    return c == ' ' || (c >= 9 && c <= 13);
  return c == 0x85 || c == 0xA0 || c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 || c == 0x202F ||
         c == 0x205F || c == 0x3000;
}

static Class classify (guint32 c)
{
  if (c < 0x80)
    return ((c | 0x20) >= 'a' && (c | 0x20) <= 'z') ? LETTER : c >= '0' && c <= '9' ? NUMBER : eng_pre_is_space (c) ? SPACE : OTHER;
  if (c == ENG_UTF8_BROKEN)
    return OTHER;
  if (eng_pre_is_space (c))
    return SPACE;
  switch (g_unichar_type (c)) {
  case G_UNICODE_UPPERCASE_LETTER:
  case G_UNICODE_LOWERCASE_LETTER:
  case G_UNICODE_TITLECASE_LETTER:
  case G_UNICODE_MODIFIER_LETTER:
  case G_UNICODE_OTHER_LETTER:
    return LETTER;
  case G_UNICODE_DECIMAL_NUMBER:
  case G_UNICODE_LETTER_NUMBER:
  case G_UNICODE_OTHER_NUMBER:
    return NUMBER;
  default:
    return OTHER;
  }
}

static Class class_at (const char *p, const char *end, guint *length)
{
  guint32 c;
  *length = eng_utf8_next (p, end, &c);
  return classify (c);
}

/* End of the run of one class from p on, of at most `most` characters. */
static const char *run_end (const char *p, const char *end, Class of, gsize most)
{
  guint n;
  for (; p < end && most > 0 && class_at (p, end, &n) == of; most--)
    p += n;
  return p;
}

/* 's 't 're 've 'm 'll 'd: their length, or 0. Ignoring case, the long s is an s too. */
gsize eng_pre_contraction (const char *p, const char *end, gboolean any_case)
{
  gsize left = (gsize) (end - p);
  if (left < 2 || p[0] != '\'')
    return 0;
  if (any_case && left >= 3 && (guint8) p[1] == 0xC5 && (guint8) p[2] == 0xBF)
    return 3;
  char a = any_case ? g_ascii_tolower (p[1]) : p[1];
  if (a == 's' || a == 't' || a == 'm' || a == 'd')
    return 2;
  if (left < 3)
    return 0;
  char b = any_case ? g_ascii_tolower (p[2]) : p[2];
  return (a == 'r' && b == 'e') || (a == 'v' && b == 'e') || (a == 'l' && b == 'l') ? 3 : 0;
}

/* \s+(?!\S)|\s+ : white space up to `stop`. Its last character is left for the word that follows, unless it is all there is. */
gsize eng_pre_space_piece (const char *text, const char *stop, gboolean word_follows)
{
  if (!word_follows)
    return (gsize) (stop - text);
  const char *last = stop - 1;
  while (last > text && ((guint8) *last & 0xC0) == 0x80)
    last--;
  return (gsize) ((last > text ? last : stop) - text);
}

/* 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
 * With single_digits \p{N} cuts first, and what lies between two digits is matched as a text of its own. */
gsize eng_pre_gpt2_piece (const char *text, const char *end, gboolean single_digits)
{
  gsize n_contraction = eng_pre_contraction (text, end, FALSE);
  if (n_contraction > 0)
    return n_contraction;
  guint n, n_next = 0;
  Class first = class_at (text, end, &n);
  if (first == NUMBER && single_digits)
    return n;
  if (first != SPACE)
    return (gsize) (run_end (text, end, first, G_MAXSIZE) - text);
  if (*text == ' ' && text + 1 < end) {
    Class next = class_at (text + 1, end, &n_next);
    if (next != SPACE && !(single_digits && next == NUMBER))
      return (gsize) (run_end (text + 1, end, next, G_MAXSIZE) - text);
  }
  const char *stop = run_end (text, end, SPACE, G_MAXSIZE);
  gboolean word_follows = stop < end && !(single_digits && class_at (stop, end, &n_next) == NUMBER);
  return eng_pre_space_piece (text, stop, word_follows);
}

/* (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,max_digits}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
static gsize llama3_piece (const char *text, const char *end, guint max_digits)
{
  gsize n_contraction = eng_pre_contraction (text, end, TRUE);
  if (n_contraction > 0)
    return n_contraction;
  guint n, n_next;
  Class first = class_at (text, end, &n), next = OTHER;
  if (first == NUMBER)
    return (gsize) (run_end (text, end, NUMBER, max_digits) - text);
  if (first == LETTER)
    return (gsize) (run_end (text, end, LETTER, G_MAXSIZE) - text);
  gboolean more = text + n < end;
  if (more)
    next = class_at (text + n, end, &n_next);
  if (more && next == LETTER && *text != '\r' && *text != '\n')
    return (gsize) (run_end (text + n, end, LETTER, G_MAXSIZE) - text);
  if (first == OTHER || (*text == ' ' && more && next == OTHER)) {
    const char *p = run_end (first == OTHER ? text : text + 1, end, OTHER, G_MAXSIZE);
    while (p < end && (*p == '\r' || *p == '\n'))
      p++;
    return (gsize) (p - text);
  }
  const char *stop = run_end (text, end, SPACE, G_MAXSIZE);
  for (const char *p = stop; p > text; p--)
    if (p[-1] == '\n' || p[-1] == '\r')
      return (gsize) (p - text);
  return eng_pre_space_piece (text, stop, stop < end);
}
