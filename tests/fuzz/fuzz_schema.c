/* fuzz_schema.c: any bytes as a JSON Schema: refused with a sentence, or it is a grammar that texts can be held against. */
#include "engine/grammar/matcher.h"
#include "engine/json_reader.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

int LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  static const char text[] = "{\"a\": 12, \"b\": [\"x\", null, 2.5], \"c\": {}}";
  g_autoptr (GError) error = NULL;
  g_autoptr (JsonNode) schema = eng_json_parse ((const char *) data, size, &error);
  g_assert_true ((schema == NULL) == (error != NULL));
  g_autoptr (EngGrammar) grammar = schema != NULL ? eng_grammar_new_from_schema (schema, "the schema", &error) : NULL;
  g_assert_true ((grammar == NULL) == (error != NULL));
  if (grammar != NULL) {
    g_autoptr (EngMatcher) matcher = eng_matcher_new (grammar);
    for (const char *p = text; *p != '\0'; p++)
      eng_matcher_take (matcher, p, 1);
  }
  return 0;
}

GByteArray *fuzz_seed (guint i)
{
  static const char *const seeds[] = {
    ("{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"integer\",\"minimum\":-5,\"exclusiveMaximum\":120},\"b\":{\"type\":\"array\",\"items\":{\"$ref\":\"#/$defs/x\"},\"minItems\":1,\"maxItems\":4},"
     "\"c\":{\"type\":[\"string\",\"null\"],\"pattern\":\"^[a-z]{2,5}(x|y)*$\"}},\"required\":[\"b\"],\"additionalProperties\":false,\"$defs\":{\"x\":{\"anyOf\":[{\"const\":1},{\"enum\":[\"p\",{\"q\":[2]}]}]}}}"),
    "{\"allOf\":[{\"type\":\"object\",\"properties\":{\"a\":{\"type\":\"number\",\"minimum\":0,\"maximum\":7}}},{\"required\":[\"a\"],\"properties\":{\"t\":{\"type\":\"string\",\"format\":\"date-time\"}}}]}",
    "{\"oneOf\":[{\"type\":\"array\",\"prefixItems\":[{\"type\":\"string\",\"maxLength\":9},true],\"items\":false},{\"type\":\"object\",\"additionalProperties\":{\"type\":\"boolean\"},\"minProperties\":1}]}",
  };
  return i < G_N_ELEMENTS (seeds) ? g_byte_array_new_take ((guint8 *) g_strdup (seeds[i]), strlen (seeds[i])) : NULL;
}
