/* fuzz_answer.c: any text as an answer with calls of functions: it is taken apart, each call is one of JSON, and no piece is lost to its cuts. */
#include "engine/json_reader.h"
#include "engine/segments.h"
#include "tests/fuzz/fuzz.h"

#include <string.h>

static void check (EngTextKind kind, const char *text, gpointer data)
{
  g_assert_true (g_utf8_validate (text, -1, NULL));
  if (kind == ENG_TEXT_CALL) {
    g_autoptr (JsonNode) call = eng_json_parse (text, strlen (text), NULL);
    g_assert_nonnull (call);
    g_assert_true (json_object_has_member (json_node_get_object (call), "name"));
    g_assert_true (JSON_NODE_HOLDS_OBJECT (json_object_get_member (json_node_get_object (call), "arguments")));
  }
  g_string_append_printf (data, "%d%s", kind, kind == ENG_TEXT_CALL ? text : "");
}

int LLVMFuzzerTestOneInput (const guint8 *data, gsize size)
{
  static const char tools_text[] = "[{\"type\":\"function\",\"function\":{\"name\":\"f\",\"parameters\":{\"properties\":{\"s\":{\"type\":\"string\"}}}}}]";
  g_autoptr (JsonNode) tools = eng_json_parse (tools_text, strlen (tools_text), NULL);
  g_autofree char *raw = g_strndup ((const char *) data, size), *text = g_utf8_make_valid (raw, -1);
  for (guint step = 1; step < 9; step += 7) {
    g_autoptr (GString) seen = g_string_new (NULL);
    g_autoptr (EngSegments) segments = eng_segments_new (NULL, json_node_get_array (tools), check, seen);
    for (const char *p = text, *end; *p != '\0'; p = end) {
      end = p;
      for (guint i = 0; i < step && *end != '\0'; i++)
        end = g_utf8_next_char (end);
      g_autofree char *piece = g_strndup (p, (gsize) (end - p));
      eng_segments_push (segments, piece);
    }
    eng_segments_end (segments);
  }
  return 0;
}

GByteArray *fuzz_seed (guint i)
{
  static const char *const seeds[] = {
    "<think>Hm.</think>\n<tool_call>\n{\"name\": \"f\", \"arguments\": {\"s\": \"x\\\"y\", \"n\": [1, {\"a\": null}]}}\n</tool_call>\n<tool_call>f\n<arg_key>s</arg_key>\n<arg_value>1</arg_value></tool_call>",
    "One.\n<tool_call><function=f><parameter=s>\n1\n</parameter><parameter=n>[1]</parameter></function></tool_call><minimax:tool_call><invoke name=\"f\"><parameter name=\"s\">x</parameter></invoke></minimax:tool_call>",
    "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant to=functions.f<|channel|>commentary <|constrain|>json<|message|>{\"s\": \"1\"}",
    "[TOOL_CALLS]f[CALL_ID]abc[ARGS]{\"s\": 1}[TOOL_CALLS][{\"name\": \"f\", \"arguments\": {}}]",
    "<|tool_call_start|>[f(s='a\\'b', n={'x': [1, 2.5, None]}), f()]<|tool_call_end|><|tool_call>call:f{s:<|\"|>x<|\"|>,n:[1]}<tool_call|>",
    "<｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f\n```json\n{\"s\": 1}\n```<｜tool▁call▁end｜><｜tool▁calls▁end｜>{\"name\": \"f\", \"parameters\": {}}",
  };
  return i < G_N_ELEMENTS (seeds) ? g_byte_array_new_take ((guint8 *) g_strdup (seeds[i]), strlen (seeds[i])) : NULL;
}
