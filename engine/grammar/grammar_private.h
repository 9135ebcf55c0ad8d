/* grammar_private.h: a grammar as an automaton with a stack: states with edges, grouped into rules that call one another. */
#ifndef ENG_GRAMMAR_PRIVATE_H
#define ENG_GRAMMAR_PRIVATE_H

#include "engine/grammar/grammar.h"

typedef enum {
  ENG_EDGE_BYTES, /* takes one byte of first..last */
  ENG_EDGE_CALL,  /* takes what the rule `rule` takes */
  ENG_EDGE_EMPTY  /* takes nothing */
} EngEdgeKind;

typedef struct {
  guint8 kind, first, last;
  guint32 rule;
  guint32 target;
} EngEdge;

typedef struct {
  guint32 first_edge, n_edges; /* in edges */
  gboolean ends;               /* a rule may end here */
} EngState;

struct EngGrammar {
  gatomicrefcount refs;
  EngState *states;
  guint32 n_states;
  EngEdge *edges;
  guint32 *starts; /* [n_rules] the state a rule begins in */
  guint32 n_rules, root;
};

/* ---- what the parsers make: a tree, whose nodes are numbers ---- */

typedef enum { ENG_NODE_EMPTY, ENG_NODE_SET, ENG_NODE_RULE, ENG_NODE_SEQUENCE, ENG_NODE_CHOICE, ENG_NODE_REPEAT } EngNodeKind;

enum { ENG_NODE_NONE = -1, ENG_REPEAT_ENDLESS = -1 };

typedef struct {
  EngNodeKind kind;
  int a, b;     /* children; SET: a is the number of a set; RULE: of a rule */
  int min, max; /* REPEAT */
} EngGrammarNode;

typedef struct {
  GArray *nodes;      /* of EngGrammarNode */
  GPtrArray *sets;    /* of GArray of EngRange: characters */
  GPtrArray *names;   /* of char *, by rule */
  GArray *bodies;     /* of int, by rule: a node, or ENG_NODE_NONE */
  GHashTable *numbers; /* name -> rule + 1 */
} EngGrammarTree;

/* grammar_compile.c: NULL with a sentence when it is too large or begins with itself. */
EngGrammar *eng_grammar_compile (const EngGrammarTree *tree, guint32 root, GError **error);

#endif
