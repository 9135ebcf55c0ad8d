/* call_form.h: how a model writes a call of a function, learned from its own chat template: a call with names that stand for names is rendered, and what the template puts around
 * them is the form. Where that is no JSON, or the template knows no calls, the form is <tool_call>{"name": ..., "arguments": ...}</tool_call>. Immutable: any thread. */
#ifndef ENG_CALL_FORM_H
#define ENG_CALL_FORM_H

#include "engine/model.h"

typedef struct {
  char *before, *between, *after; /* before NAME between ARGUMENTS after */
  gboolean own;                   /* the template's, else the common one */
  gboolean text;                  /* the template takes past calls' arguments as JSON text, not as an object */
} EngCallForm;

/* variables: what else the template is given (tools, enable_thinking, ...), or NULL. */
EngCallForm *eng_call_form_new (EngModel *model, JsonObject *variables);
void eng_call_form_free (EngCallForm *form);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngCallForm, eng_call_form_free)

/* Exactly one call in that form, of one of tools (as in OpenAI's requests), or of the one named `only` unless that is NULL. Arguments are what the function's parameters allow; where their
 * schema cannot be obeyed any object, unless it is said to be "strict": then the error names it. */
EngGrammar *eng_call_grammar_new (const EngCallForm *form, JsonArray *tools, const char *only, GError **error);

#endif
