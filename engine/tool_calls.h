/* tool_calls.h: calls of functions in what a model wrote, in any of the forms that published chat templates teach: JSON, one or a list (Hermes,
 * Qwen, Llama 3, Mistral, Granite, Command R, Nemotron, Apertus), a name and JSON (Mistral, DeepSeek, Kimi), tags (Qwen3-Coder, Seed, GLM, MiniMax),
 * and Python's calls or dictionaries (LFM2, Gemma 4). */
#ifndef ENG_TOOL_CALLS_H
#define ENG_TOOL_CALLS_H

#include <json-glib/json-glib.h>

/* Texts end with a NUL behind length. Appends each call of text[length] to calls (GPtrArray of char *, to be freed with g_free) as {"name": ..., "arguments": {...}}. FALSE, and nothing
 * appended, when the text is something else. tools: as in OpenAI's requests, or NULL; values in tags are of the types that it names. known: a call of a
 * function that is not among them is something else. */
gboolean eng_tool_calls_parse (const char *text, gsize length, JsonArray *tools, gboolean known, GPtrArray *calls);
/* Whether such a text, which may go on, is or can become calls. */
gboolean eng_tool_calls_may_begin (const char *text, gsize length, JsonArray *tools, gboolean known);
/* One call whose name stood elsewhere; arguments is a JSON object, or empty. */
gboolean eng_tool_calls_add (const char *name, gsize name_length, const char *arguments, gsize length, GPtrArray *calls);
#endif
