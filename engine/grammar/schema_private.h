/* schema_private.h: a JSON Schema on its way to GBNF. */
#ifndef ENG_SCHEMA_PRIVATE_H
#define ENG_SCHEMA_PRIVATE_H

#include "engine/grammar/grammar.h"

typedef struct {
  JsonNode *root;
  const char *name;     /* of the schema, for errors */
  GString *rules;       /* finished ones */
  GHashTable *references; /* JSON pointer -> name of its rule */
  GPtrArray *merged;    /* JsonNode made on the way */
  guint n_rules, depth;
  GError **error;
} EngSchema;

/* "the schema at #/properties/a: ...". Returns NULL. */
char *eng_schema_refuse (EngSchema *s, const char *path, const char *format, ...) G_GNUC_PRINTF (3, 4);
/* A rule of its own for an expression, which is taken; returns its name. NULL stays NULL. */
char *eng_schema_rule (EngSchema *s, char *expression);

/* schema_merge.c */
/* The node that "#/..." names, or NULL. */
JsonNode *eng_schema_resolve (EngSchema *s, const char *reference);
/* One schema that demands what both do, or NULL with an error. Kept by s. */
JsonNode *eng_schema_merge (EngSchema *s, JsonNode *a, JsonNode *b, const char *path);
/* Whether no value can be valid under both, as far as their types, constants and required properties show. */
gboolean eng_schema_disjoint (EngSchema *s, JsonNode *a, JsonNode *b, const char *path);
/* The schema without one of its keywords, kept by s; and whether it has another that says something of a value. */
JsonNode *eng_schema_without (EngSchema *s, JsonObject *schema, const char *keyword);
gboolean eng_schema_says_more (JsonObject *schema, const char *keyword);
gboolean eng_json_equal (JsonNode *a, JsonNode *b);

/* schema_scalar.c: expressions */
char *eng_schema_string (EngSchema *s, JsonObject *schema, const char *path);
char *eng_schema_number (EngSchema *s, JsonObject *schema, gboolean integer, const char *path);

#endif
