/* pretokenize_staged.c: patterns that cut in passes (DeepSeek, Falcon), and those that tell upper from lower case (GPT-4o, Tekken).
 * A pass matches at the text's beginning or leaves a gap up to its next match. */
#include "engine/tokenizer/pretokenize_private.h"

#include "engine/tokenizer/utf8.h"

#include <string.h>

typedef enum { UPPER = 1, LOWER = 2, LETTER = 4, MARK = 8, NUMBER = 16, PUNCTUATION = 32, SYMBOL = 64, SPACE = 128 } Class;

static guint classify (guint32 c)
{
  if (c == ENG_UTF8_BROKEN)
    return 0;
  if (eng_pre_is_space (c))
    return SPACE;
  switch (g_unichar_type (c)) {
  case G_UNICODE_UPPERCASE_LETTER:
  case G_UNICODE_TITLECASE_LETTER:
    return LETTER | UPPER;
  case G_UNICODE_LOWERCASE_LETTER:
    return LETTER | LOWER;
  case G_UNICODE_MODIFIER_LETTER:
  case G_UNICODE_OTHER_LETTER:
    return LETTER | UPPER | LOWER;
  case G_UNICODE_NON_SPACING_MARK:
  case G_UNICODE_SPACING_MARK:
  case G_UNICODE_ENCLOSING_MARK:
    return MARK | UPPER | LOWER;
  case G_UNICODE_DECIMAL_NUMBER:
  case G_UNICODE_LETTER_NUMBER:
  case G_UNICODE_OTHER_NUMBER:
    return NUMBER;
  case G_UNICODE_CONNECT_PUNCTUATION:
  case G_UNICODE_DASH_PUNCTUATION:
  case G_UNICODE_OPEN_PUNCTUATION:
  case G_UNICODE_CLOSE_PUNCTUATION:
  case G_UNICODE_INITIAL_PUNCTUATION:
  case G_UNICODE_FINAL_PUNCTUATION:
  case G_UNICODE_OTHER_PUNCTUATION:
    return PUNCTUATION;
  case G_UNICODE_MATH_SYMBOL:
  case G_UNICODE_CURRENCY_SYMBOL:
  case G_UNICODE_MODIFIER_SYMBOL:
  case G_UNICODE_OTHER_SYMBOL:
    return SYMBOL;
  default:
    return 0;
  }
}

static guint class_at (const char *p, const char *end, guint *length)
{
  guint32 c;
  *length = eng_utf8_next (p, end, &c);
  return classify (c);
}

/* End of the run of characters of any of these classes, of at most `most`. */
static const char *run_end (const char *p, const char *end, guint classes, gsize most)
{
  guint n;
  for (; p < end && most > 0 && (class_at (p, end, &n) & classes) != 0; most--)
    p += n;
  return p;
}

static gboolean is_break (char c)
{
  return c == '\r' || c == '\n';
}

/* \s*[\r\n]+|\s+(?!\S)|\s+ */
static gsize breaks_and_spaces (const char *text, const char *end)
{
  const char *stop = run_end (text, end, SPACE, G_MAXSIZE);
  for (const char *p = stop; p > text; p--)
    if (is_break (p[-1]))
      return (gsize) (p - text);
  return stop > text ? eng_pre_space_piece (text, stop, stop < end) : 0;
}

/* ---- character sets that patterns list ------------------------------------------------------------------------------------ */

typedef struct { guint32 first, last; } Range;

/* [A-Za-zµÀ-Ö…]: the cased letters that DeepSeek's first pattern lists. */
static const Range deepseek_letters[] = {
  { 0x41, 0x5A }, { 0x61, 0x7A }, { 0xB5, 0xB5 }, { 0xC0, 0xD6 }, { 0xD8, 0xF6 }, { 0xF8, 0x1BA }, { 0x1BC, 0x1BF },
  { 0x1C4, 0x293 }, { 0x295, 0x2AF }, { 0x370, 0x373 }, { 0x376, 0x377 }, { 0x37B, 0x37D }, { 0x37F, 0x37F }, { 0x386, 0x386 },
  { 0x388, 0x38A }, { 0x38C, 0x38C }, { 0x38E, 0x3A1 }, { 0x3A3, 0x3F5 }, { 0x3F7, 0x481 }, { 0x48A, 0x52F }, { 0x531, 0x556 },
  { 0x10A0, 0x10C5 }, { 0x13A0, 0x13F5 }, { 0x13F8, 0x13FD }, { 0x1C90, 0x1CBA }, { 0x1CBD, 0x1CBF }, { 0x1D00, 0x1D2B },
  { 0x1D6B, 0x1D77 }, { 0x1D79, 0x1D9A }, { 0x1E00, 0x1F15 }, { 0x1F18, 0x1F1D }, { 0x1F20, 0x1F45 }, { 0x1F48, 0x1F4D },
  { 0x1F50, 0x1F57 }, { 0x1F59, 0x1F59 }, { 0x1F5B, 0x1F5B }, { 0x1F5D, 0x1F5D }, { 0x1F5F, 0x1F7D }, { 0x1F80, 0x1FB4 },
  { 0x1FB6, 0x1FBC }, { 0x1FBE, 0x1FBE }, { 0x1FC2, 0x1FC4 }, { 0x1FC6, 0x1FCC }, { 0x1FD0, 0x1FD3 }, { 0x1FD6, 0x1FDB },
  { 0x1FE0, 0x1FEC }, { 0x1FF2, 0x1FF4 }, { 0x1FF6, 0x1FFC }, { 0x2102, 0x2102 }, { 0x2107, 0x2107 }, { 0x210A, 0x2113 },
  { 0x2115, 0x2115 }, { 0x2119, 0x211D }, { 0x2124, 0x2124 }, { 0x2126, 0x2126 }, { 0x2128, 0x2128 }, { 0x212A, 0x212D },
  { 0x212F, 0x2134 }, { 0x2139, 0x2139 }, { 0x213C, 0x213F }, { 0x2145, 0x2149 }, { 0x214E, 0x214E }, { 0x2183, 0x2184 },
  { 0x2C00, 0x2C7B }, { 0x2C7E, 0x2CE4 }, { 0x2CEB, 0x2CEE }, { 0x2CF2, 0x2CF3 }, { 0xA640, 0xA66D }, { 0xA680, 0xA69B },
  { 0xA722, 0xA76F }, { 0xA771, 0xA787 }, { 0xA78B, 0xA78E }, { 0xAB70, 0xABBF }, { 0xFB00, 0xFB06 }, { 0xFB13, 0xFB17 },
  { 0xFF21, 0xFF3A }, { 0xFF41, 0xFF5A }, { 0x10400, 0x1044F }, { 0x104B0, 0x104D3 }, { 0x104D8, 0x104FB }, { 0x10C80, 0x10CB2 },
  { 0x10CC0, 0x10CF2 }, { 0x118A0, 0x118DF }, { 0x1E900, 0x1E943 },
};
/* [!-/:-~！-／：-～‘-‟　-。] */
static const Range deepseek_signs[] = { { 0x21, 0x2F }, { 0x3A, 0x7E }, { 0x2018, 0x201F }, { 0x3000, 0x3002 }, { 0xFF01, 0xFF0F }, { 0xFF1A, 0xFF5E } };
/* [一-龥ࠀ-一가-퟿] */
static const Range deepseek_wide[] = { { 0x800, 0x9FA5 }, { 0xAC00, 0xD7FF } };
/* [一-龥぀-ゟ゠-ヿ] */
static const Range han_and_kana[] = { { 0x3040, 0x309F }, { 0x30A0, 0x30FF }, { 0x4E00, 0x9FA5 } };

static gboolean listed (guint32 c, const Range *ranges, guint n)
{
  guint low = 0, high = n;
  while (low < high) {
    guint middle = (low + high) / 2;
    if (c > ranges[middle].last)
      low = middle + 1;
    else
      high = middle;
  }
  return low < n && c >= ranges[low].first;
}

static const char *listed_end (const char *p, const char *end, const Range *ranges, guint n)
{
  while (p < end) {
    guint32 c;
    guint length = eng_utf8_next (p, end, &c);
    if (!listed (c, ranges, n))
      break;
    p += length;
  }
  return p;
}

#define LISTED_END(p, end, ranges) listed_end (p, end, ranges, G_N_ELEMENTS (ranges))

/* ---- one pass each: the length of a match at p, or 0 ---------------------------------------------------------------------- */

typedef gsize (*Match) (const char *p, const char *end);

static gsize match_break (const char *p, const char *end)
{
  return is_break (*p);
}

/* After \s?. */
static const char *after_space (const char *p, const char *end)
{
  guint n;
  return (class_at (p, end, &n) & SPACE) != 0 ? p + n : p;
}

static gsize match_deepseek_letters (const char *p, const char *end)
{
  const char *word = after_space (p, end), *stop = LISTED_END (word, end, deepseek_letters);
  return stop > word ? (gsize) (stop - p) : 0;
}

static gsize match_deepseek_signs (const char *p, const char *end)
{
  const char *word = after_space (p, end), *stop = LISTED_END (word, end, deepseek_signs);
  /* The ideographic space is both: alone, it is a sign. */
  return stop > word ? (gsize) (stop - p) : (gsize) (LISTED_END (p, end, deepseek_signs) - p);
}

static gsize match_last_spaces (const char *p, const char *end)
{
  const char *stop = run_end (p, end, SPACE, G_MAXSIZE);
  return stop == end ? (gsize) (stop - p) : 0;
}

static gsize match_deepseek_wide (const char *p, const char *end)
{
  return (gsize) (LISTED_END (p, end, deepseek_wide) - p);
}

static gsize match_han_and_kana (const char *p, const char *end)
{
  return (gsize) (LISTED_END (p, end, han_and_kana) - p);
}

static gsize match_number (const char *p, const char *end)
{
  return (gsize) (run_end (p, end, NUMBER, 1) - p);
}

static gsize match_numbers (const char *p, const char *end)
{
  return (gsize) (run_end (p, end, NUMBER, G_MAXSIZE) - p);
}

static gsize match_numbers3 (const char *p, const char *end)
{
  return (gsize) (run_end (p, end, NUMBER, 3) - p);
}

static gsize match_letters (const char *p, const char *end)
{
  const char *word = after_space (p, end), *stop = run_end (word, end, LETTER, G_MAXSIZE);
  return stop > word ? (gsize) (stop - p) : 0;
}

static gsize match_punctuation (const char *p, const char *end)
{
  const char *word = after_space (p, end), *stop = run_end (word, end, PUNCTUATION, G_MAXSIZE);
  return stop > word ? (gsize) (stop - p) : 0;
}

/* [!-/:-@[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
static gsize match_deepseek3 (const char *p, const char *end)
{
  guint n;
  guint first = class_at (p, end, &n);
  const char *stop = p + n;
  if (g_ascii_ispunct (*p)) {
    while (stop < end && g_ascii_isalpha (*stop))
      stop++;
    if (stop > p + n)
      return (gsize) (stop - p);
  }
  const char *word = (first & (LETTER | PUNCTUATION | SYMBOL)) == 0 && !is_break (*p) ? p + n : p;
  stop = run_end (word, end, LETTER | MARK, G_MAXSIZE);
  if (stop > word)
    return (gsize) (stop - p);
  if ((first & MARK) != 0)
    return n;
  word = *p == ' ' ? p + 1 : p;
  stop = run_end (word, end, PUNCTUATION | SYMBOL, G_MAXSIZE);
  if (stop > word) {
    while (stop < end && is_break (*stop))
      stop++;
    return (gsize) (stop - p);
  }
  return breaks_and_spaces (p, end);
}

/* [\p{P}$+<=>^~|`]+ */
static gsize match_falcon_signs (const char *p, const char *end)
{
  const char *start = p;
  guint n;
  for (; p < end && ((class_at (p, end, &n) & PUNCTUATION) != 0 || (*p != '\0' && strchr ("$+<=>^~|`", *p) != NULL)); p += n)
    ;
  return (gsize) (p - start);
}

static gsize match_gpt2 (const char *p, const char *end)
{
  return eng_pre_gpt2_piece (p, end, FALSE);
}

static gsize match_three_digits (const char *p, const char *end)
{
  return end - p >= 3 && g_ascii_isdigit (p[0]) && g_ascii_isdigit (p[1]) && g_ascii_isdigit (p[2]) ? 3 : 0;
}

/* ---- passes one within the other ------------------------------------------------------------------------------------------ */

static const struct {
  EngPretokenizer rules;
  guint n;
  Match stages[ENG_PRE_MAX_STAGES];
} staged[] = {
  { ENG_PRE_DEEPSEEK_LLM, 6, { match_break, match_deepseek_letters, match_deepseek_signs, match_last_spaces, match_deepseek_wide, match_numbers } },
  { ENG_PRE_DEEPSEEK_CODER, 5, { match_break, match_letters, match_punctuation, match_deepseek_wide, match_number } },
  { ENG_PRE_DEEPSEEK3, 3, { match_numbers3, match_han_and_kana, match_deepseek3 } },
  { ENG_PRE_FALCON, 3, { match_falcon_signs, match_gpt2, match_three_digits } },
};

guint eng_pre_n_stages (EngPretokenizer rules)
{
  for (guint i = 0; i < G_N_ELEMENTS (staged); i++)
    if (staged[i].rules == rules)
      return staged[i].n;
  return 0;
}

gsize eng_pre_stage_piece (EngPretokenizer rules, guint stage, const char *text, const char *end)
{
  guint i = 0;
  while (staged[i].rules != rules)
    i++;
  Match match = staged[i].stages[stage];
  gsize n = match (text, end);
  const char *p = text;
  while (n == 0) {
    guint32 c;
    const char *skipped = match == match_last_spaces ? run_end (p, end, SPACE, G_MAXSIZE) : p; /* or a run would be walked again and again */
    p = skipped > p ? skipped : p + eng_utf8_next (p, end, &c);
    if (p >= end || match (p, end) > 0)
      return (gsize) (p - text);
  }
  return n;
}

/* ---- GPT-4o --------------------------------------------------------------------------------------------------------------- */

/* [\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+ : the end, or NULL. What is both gives way to the second part. */
static const char *lower_word (const char *p, const char *end)
{
  const char *both = NULL;
  guint n, class;
  for (; p < end && ((class = class_at (p, end, &n)) & UPPER) != 0; p += n)
    if ((class & LOWER) != 0)
      both = p + n;
  const char *stop = run_end (p, end, LOWER, G_MAXSIZE);
  return stop > p ? stop : both;
}

/* The same with + and * exchanged; where the first has failed no lower case follows. */
static const char *upper_word (const char *p, const char *end)
{
  const char *stop = run_end (p, end, UPPER, G_MAXSIZE);
  return stop > p ? run_end (stop, end, LOWER, G_MAXSIZE) : NULL;
}

/* [^\r\n\p{L}\p{N}]?{lower word}{contraction}?|[^\r\n\p{L}\p{N}]?{upper word}{contraction}?|\p{N}{1,max_digits}
 * | ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
gsize eng_pre_gpt4o_piece (const char *text, const char *end, guint max_digits, gboolean contractions)
{
  guint n;
  guint first = class_at (text, end, &n);
  const char *led = (first & (LETTER | NUMBER)) == 0 && !is_break (*text) ? text + n : text;
  const char *(*const words[]) (const char *, const char *) = { lower_word, upper_word };
  for (guint i = 0; i < G_N_ELEMENTS (words); i++) {
    const char *stop = led < end ? words[i](led, end) : NULL;
    if (stop == NULL && led > text)
      stop = words[i](text, end);
    if (stop != NULL)
      return (gsize) (stop - text) + (contractions && stop < end ? eng_pre_contraction (stop, end, TRUE) : 0);
  }
  if ((first & NUMBER) != 0)
    return (gsize) (run_end (text, end, NUMBER, max_digits) - text);
  const char *signs = *text == ' ' ? text + 1 : text, *stop = signs;
  while (stop < end && (class_at (stop, end, &n) & (SPACE | LETTER | NUMBER)) == 0)
    stop += n;
  if (stop > signs) {
    while (stop < end && (is_break (*stop) || *stop == '/'))
      stop++;
    return (gsize) (stop - text);
  }
  return breaks_and_spaces (text, end);
}

/* (?i:'s|…)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+ */
gsize eng_pre_qwen35_piece (const char *text, const char *end)
{
  guint n;
  gsize n_contraction = eng_pre_contraction (text, end, TRUE);
  if (n_contraction > 0)
    return n_contraction;
  guint first = class_at (text, end, &n);
  if ((first & NUMBER) != 0)
    return n;
  const char *word = (first & (LETTER | MARK)) == 0 && !is_break (*text) ? text + n : text;
  const char *stop = run_end (word, end, LETTER | MARK, G_MAXSIZE);
  if (stop > word)
    return (gsize) (stop - text);
  const char *signs = *text == ' ' ? text + 1 : text;
  stop = signs;
  while (stop < end && (class_at (stop, end, &n) & (SPACE | LETTER | MARK | NUMBER)) == 0)
    stop += n;
  if (stop > signs) {
    while (stop < end && is_break (*stop))
      stop++;
    return (gsize) (stop - text);
  }
  return breaks_and_spaces (text, end);
}
