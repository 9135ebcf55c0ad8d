/* fuzz_grammar.c: any bytes as GBNF: refused with a sentence, or texts can be held against it. */
#include "engine/grammar/matcher.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  static const char *const texts[] = { "aaaabbbb", "((1+2)*3)", "{\"a\":[1,2]}", "\xE4\xB8\x96\xF0\x9F\x91\x8B", "\xFF\xC3" };
  g_autofree char *gbnf = g_strndup ((const char *) data, size);
  g_autoptr (GError) error = NULL;
  g_autoptr (EngGrammar) grammar = eng_grammar_new (gbnf, &error);
  g_assert_true ((grammar == NULL) == (error != NULL));
  if (grammar == NULL)
    g_assert_true (g_utf8_validate (error->message, -1, NULL) && strchr (error->message, '\n') == NULL);
  for (gsize i = 0; grammar != NULL && i < G_N_ELEMENTS (texts); i++) {
    g_autoptr (EngMatcher) matcher = eng_matcher_new (grammar);
    for (const char *p = texts[i]; *p != '\0'; p++)
      eng_matcher_take (matcher, p, 1);
    eng_matcher_is_complete (matcher);
  }
  return 0;
}

GByteArray *fuzz_seed (guint i)
{
  static const char *const seeds[] = {
    "root ::= expr # a sum\nexpr ::= term ([-+*/] term)*\nterm ::= [0-9]+ | \"(\" expr \")\"\n",
    "root ::= \"{\" (pair (\",\" pair){0,3})? \"}\"\npair ::= \"\\\"\" [^\"\\\\\\x00-\\x1F]+ \"\\\"\" \":\" (\"[\" value* \"]\" | value)\nvalue ::= [a-z\\u4e00-\\u9fff]{1,4} | . | \"\\U0001F44B\"\n",
    "root ::= (\n  a{2,} |\n  b? root2\n)\na ::= \"a\"\nb ::= \"b\"\nroot2 ::= \"c\" root2 | \"\"\n",
  };
  return i < G_N_ELEMENTS (seeds) ? g_byte_array_new_take ((guint8 *) g_strdup (seeds[i]), strlen (seeds[i])) : NULL;
}
