/* grammar.h: what an answer may look like: a context-free grammar over bytes, written as GBNF or made from a JSON Schema. Immutable after
 * creation: any thread. A grammar is a file of anybody's: its size is bounded, and what is wrong is one sentence with the line. */
#ifndef ENG_GRAMMAR_H
#define ENG_GRAMMAR_H

#include <json-glib/json-glib.h>

typedef struct EngGrammar EngGrammar; /* reference counted */

/* GBNF, as llama.cpp defines it but for matching tokens by their number: rules `name ::= ...` of literals, [classes], (groups), alternatives
 * and repetition; `root` is the whole answer. A rule that begins with itself is refused: write it as a repetition. */
EngGrammar *eng_grammar_new (const char *gbnf, GError **error);
/* The JSON texts that a schema (JSON Schema 2020-12) allows, properties in the order in which it names them. A keyword that would have to be
 * obeyed and cannot be is refused by name and place, so that every text of the grammar is valid. `name`: for errors, "the schema". */
EngGrammar *eng_grammar_new_from_schema (JsonNode *schema, const char *name, GError **error);
/* Any JSON object. */
EngGrammar *eng_grammar_new_json_object (void);
EngGrammar *eng_grammar_ref (EngGrammar *grammar);
void eng_grammar_unref (EngGrammar *grammar);
G_DEFINE_AUTOPTR_CLEANUP_FUNC (EngGrammar, eng_grammar_unref)

/* A schema as GBNF, rules and all: `root` is the value. */
char *eng_schema_to_gbnf (JsonNode *schema, const char *name, GError **error);
/* The same for a larger grammar: eng_schema_begin's rules stand in it once, `object` among them; then come those of each schema, numbered from *n_rules on. Returns the name
 * of the value's rule, to be freed with g_free. */
GString *eng_schema_begin (void);
char *eng_schema_append (GString *rules, guint *n_rules, JsonNode *schema, const char *name, GError **error);
/* What GBNF writes a text as. */
char *eng_gbnf_literal (const char *text);

#endif
