/* segments.h: what a model writes, divided into its reasoning, its answer and its calls of functions, while it comes. Marks are those of published
 * chat templates: <think> and its kin, gpt-oss's channels, <tool_call> and its kin (tool_calls.h). One thread at a time. */
#ifndef ENG_SEGMENTS_H
#define ENG_SEGMENTS_H

#include <json-glib/json-glib.h>

typedef enum {
  ENG_TEXT_ANSWER,
  ENG_TEXT_REASONING,
  ENG_TEXT_CALL /* one whole call: {"name": ..., "arguments": {...}} */
} EngTextKind;

/* Called for each new stretch of whole characters. */
typedef void (*EngTextFunc) (EngTextKind kind, const char *text, gpointer data);

typedef struct EngSegments EngSegments;
/* prompt: what the model goes on from, whose end may have opened its reasoning (or have closed it), or NULL. tools: as in OpenAI's requests; calls are looked for
 * where there are some. */
EngSegments *eng_segments_new (const char *prompt, JsonArray *tools, EngTextFunc text, gpointer data);
void eng_segments_free (EngSegments *segments);
/* What comes is an answer from its first word on: neither reasoning nor a call without marks opens it. */
void eng_segments_begin_answer (EngSegments *segments);
/* Whatever comes is text, as it is. */
void eng_segments_divide_nothing (EngSegments *segments);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngSegments, eng_segments_free)

/* Whether a control token's text is a mark: such tokens are to be pushed like text. */
gboolean eng_segments_is_mark (const char *piece, gsize length);
/* Whether that text opens a model's reasoning. */
gboolean eng_segments_opens_reasoning (const char *piece, gsize length);
/* Cuts what opens reasoning, or what encloses none, and white space from the end of a prompt. */
void eng_segments_strip_reasoning (char *prompt);
/* What stands in text, before `end`, behind the last end of reasoning and white space; text where there is none. */
const char *eng_segments_after_reasoning (const char *text, const char *end);
void eng_segments_push (EngSegments *segments, const char *text);
/* Nothing comes any more: gives what was held back. */
void eng_segments_end (EngSegments *segments);
/* Whether what comes next is no part of the answer yet: reasoning, or a channel's name. */
gboolean eng_segments_before_answer (const EngSegments *segments);
/* Whether it is reasoning that goes on. */
gboolean eng_segments_in_reasoning (const EngSegments *segments);
/* Whether nothing but white space has come, and reasoning may still be opened. */
gboolean eng_segments_at_start (const EngSegments *segments);

#endif
