/* chat_template.h: the model's own chat template, a Jinja program, executed. A template is downloaded code: steps, depth and output are
 * bounded. Immutable after creation: any thread. Oracle: Python's jinja2 as transformers configures it (trim_blocks, lstrip_blocks,
 * loopcontrols, tojson, raise_exception, strftime_now). */
#ifndef ENG_CHAT_TEMPLATE_H
#define ENG_CHAT_TEMPLATE_H

#include "engine/span.h"

#include <json-glib/json-glib.h>

typedef struct EngChatTemplate EngChatTemplate;

/* Parses; the error names line and what was expected. */
EngChatTemplate *eng_chat_template_new (const char *source, GError **error);
void eng_chat_template_free (EngChatTemplate *t);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngChatTemplate, eng_chat_template_free)

/* context: the object with messages, tools, documents, add_generation_prompt, bos_token, eos_token, ...
 * literals (may be NULL): filled with the EngSpan of every stretch of the output that came from a string value of the context (a person's
 * text), not from the template's own literals: control tokens are not recognised inside it. Not marked, because the model and the
 * application chose them: top-level strings whose name ends in "_token" (bos_token, eos_token), and a message's role where it is a word of
 * ASCII letters (templates write '<|' + role + '|>'). */
char *eng_chat_template_render (const EngChatTemplate *t, JsonObject *context, GArray *literals, GError **error);

#endif
