/* grammar_compile.c: a tree of rules to states and edges over bytes. A set of characters becomes the ranges of bytes that UTF-8 writes
 * them with. */
#include "engine/grammar/grammar_private.h"

#include "engine/error.h"
#include "engine/tokenizer/charset.h"

#include <string.h>

enum { MAX_STATES = 1 << 17, MAX_EDGES = 1 << 19, MAX_EMITTED = 1 << 19 };

typedef struct { guint32 from; EngEdge edge; } Edge;

typedef struct {
  const EngGrammarTree *tree;
  GArray *edges;     /* of Edge, in any order */
  guint32 n_states;
  guint emitted;     /* nodes made into edges, those within repetitions again each time */
} Compiler;

static guint32 new_state (Compiler *c)
{
  return c->n_states++;
}

static void add_edge (Compiler *c, guint32 from, EngEdgeKind kind, guint8 first, guint8 last, guint32 rule, guint32 to)
{
  Edge edge = { from, { (guint8) kind, first, last, rule, to } };
  g_array_append_val (c->edges, edge);
}

/* ---- characters to bytes -------------------------------------------------------------------------------------------------- */

/* Characters first..last of one length n in UTF-8: where only the last byte differs, or all behind the first ones, one chain of ranges. */
static void add_bytes (Compiler *c, guint32 from, guint32 to, guint32 first, guint32 last, guint n)
{
  for (guint shift = 6 * (n - 1); shift > 0; shift -= 6) { /* cut where the bytes behind do not run over all their values */
    guint32 low = (1u << shift) - 1;
    if ((first & ~low) == (last & ~low))
      continue;
    if ((first & low) != 0) {
      add_bytes (c, from, to, first, first | low, n);
      add_bytes (c, from, to, (first | low) + 1, last, n);
      return;
    }
    if ((last & low) != low) {
      add_bytes (c, from, to, first, (last & ~low) - 1, n);
      add_bytes (c, from, to, last & ~low, last, n);
      return;
    }
  }
  static const guint8 heads[] = { 0, 0, 0xC0, 0xE0, 0xF0 };
  for (guint i = 0; i < n; i++) {
    guint shift = 6 * (n - 1 - i);
    guint8 mark = i == 0 ? heads[n] : 0x80, mask = i == 0 ? 0x7F : 0x3F;
    guint32 next = i + 1 == n ? to : new_state (c);
    add_edge (c, from, ENG_EDGE_BYTES, (guint8) (mark | (first >> shift & mask)), (guint8) (mark | (last >> shift & mask)), 0, next);
    from = next;
  }
}

static void add_characters (Compiler *c, guint32 from, guint32 to, const GArray *set)
{
  static const struct { guint32 first, last; guint n; } lengths[] = { { 0, 0x7F, 1 }, { 0x80, 0x7FF, 2 }, { 0x800, 0xD7FF, 3 }, { 0xE000, 0xFFFF, 3 }, { 0x10000, ENG_LAST_CODE, 4 } };
  for (guint i = 0; i < set->len; i++) {
    const EngRange *range = &g_array_index (set, EngRange, i);
    for (guint k = 0; k < G_N_ELEMENTS (lengths); k++) {
      guint32 first = MAX (range->first, lengths[k].first), last = MIN (range->last, lengths[k].last);
      if (first <= last)
        add_bytes (c, from, to, first, last, lengths[k].n);
    }
  }
}

/* ---- nodes to edges ------------------------------------------------------------------------------------------------------- */

static gboolean emit (Compiler *c, int node, guint32 from, guint32 to);

/* A left-deep list of one kind, first to last. */
static GArray *list_of (const EngGrammarTree *tree, int node, EngNodeKind kind)
{
  GArray *list = g_array_new (FALSE, FALSE, sizeof (int));
  for (; g_array_index (tree->nodes, EngGrammarNode, node).kind == kind; node = g_array_index (tree->nodes, EngGrammarNode, node).a)
    g_array_append_val (list, g_array_index (tree->nodes, EngGrammarNode, node).b);
  g_array_append_val (list, node);
  for (guint i = 0; i < list->len / 2; i++) {
    int other = g_array_index (list, int, i);
    g_array_index (list, int, i) = g_array_index (list, int, list->len - 1 - i);
    g_array_index (list, int, list->len - 1 - i) = other;
  }
  return list;
}

static gboolean emit_repeat (Compiler *c, const EngGrammarNode *node, guint32 from, guint32 to)
{
  for (int i = 0; i < node->min; i++) {
    guint32 next = new_state (c);
    if (!emit (c, node->a, from, next))
      return FALSE;
    from = next;
  }
  if (node->max == ENG_REPEAT_ENDLESS) {
    guint32 loop = new_state (c);
    add_edge (c, from, ENG_EDGE_EMPTY, 0, 0, 0, loop);
    add_edge (c, loop, ENG_EDGE_EMPTY, 0, 0, 0, to);
    return emit (c, node->a, loop, loop);
  }
  for (int i = node->min; i < node->max; i++) {
    guint32 next = new_state (c);
    add_edge (c, from, ENG_EDGE_EMPTY, 0, 0, 0, to);
    if (!emit (c, node->a, from, next))
      return FALSE;
    from = next;
  }
  add_edge (c, from, ENG_EDGE_EMPTY, 0, 0, 0, to);
  return TRUE;
}

/* FALSE: it is too large. */
static gboolean emit (Compiler *c, int i, guint32 from, guint32 to)
{
  const EngGrammarNode *node = &g_array_index (c->tree->nodes, EngGrammarNode, i);
  gboolean ok = TRUE;
  if (++c->emitted > MAX_EMITTED || c->n_states > MAX_STATES || c->edges->len > MAX_EDGES)
    return FALSE;
  switch (node->kind) {
  case ENG_NODE_EMPTY:
    add_edge (c, from, ENG_EDGE_EMPTY, 0, 0, 0, to);
    return TRUE;
  case ENG_NODE_SET:
    add_characters (c, from, to, g_ptr_array_index (c->tree->sets, (guint) node->a));
    return TRUE;
  case ENG_NODE_RULE:
    add_edge (c, from, ENG_EDGE_CALL, 0, 0, (guint32) node->a, to);
    return TRUE;
  case ENG_NODE_SEQUENCE: {
    g_autoptr (GArray) list = list_of (c->tree, i, ENG_NODE_SEQUENCE);
    for (guint k = 0; ok && k < list->len; k++) {
      guint32 next = k + 1 == list->len ? to : new_state (c);
      ok = emit (c, g_array_index (list, int, k), from, next);
      from = next;
    }
    return ok;
  }
  case ENG_NODE_CHOICE: {
    g_autoptr (GArray) list = list_of (c->tree, i, ENG_NODE_CHOICE);
    for (guint k = 0; ok && k < list->len; k++)
      ok = emit (c, g_array_index (list, int, k), from, to);
    return ok;
  }
  default:
    return emit_repeat (c, node, from, to);
  }
}

/* ---- rules that begin with themselves ------------------------------------------------------------------------------------- */

typedef struct {
  const EngGrammar *g;
  gboolean *nullable; /* [n_rules] */
  guint8 *mark;       /* [n_states] */
} Check;

/* States that one comes to from a rule's beginning without taking a byte, into `out`. */
static void reach_empty (Check *check, guint32 rule, GArray *out)
{
  g_array_set_size (out, 0);
  g_array_append_val (out, check->g->starts[rule]);
  check->mark[check->g->starts[rule]] = 1;
  for (guint i = 0; i < out->len; i++) {
    const EngState *state = &check->g->states[g_array_index (out, guint32, i)];
    for (guint32 k = 0; k < state->n_edges; k++) {
      const EngEdge *edge = &check->g->edges[state->first_edge + k];
      gboolean passes = edge->kind == ENG_EDGE_EMPTY || (edge->kind == ENG_EDGE_CALL && check->nullable[edge->rule]);
      if (passes && !check->mark[edge->target]) {
        check->mark[edge->target] = 1;
        g_array_append_val (out, edge->target);
      }
    }
  }
  for (guint i = 0; i < out->len; i++)
    check->mark[g_array_index (out, guint32, i)] = 0;
}

typedef struct { guint32 caller, next; } Call; /* in a list of those that call one rule; next: place + 1, or 0 */

static void add_call (GArray *calls, guint32 *heads, guint32 called, guint32 caller)
{
  Call call = { caller, heads[called] };
  g_array_append_val (calls, call);
  heads[called] = calls->len;
}

/* Which rules can take nothing: each is looked at again when one that it calls turns out to be one of them. */
static void find_nullable (Check *check, GArray *reached)
{
  const EngGrammar *g = check->g;
  g_autofree guint32 *heads = g_new0 (guint32, g->n_rules);
  g_autoptr (GArray) calls = g_array_new (FALSE, FALSE, sizeof (Call)), waiting = g_array_new (FALSE, FALSE, sizeof (guint32));
  for (guint32 rule = 0; rule < g->n_rules; rule++) {
    guint32 end = rule + 1 < g->n_rules ? g->starts[rule + 1] : g->n_states; /* a rule's states are together */
    for (guint32 s = g->starts[rule]; s < end; s++)
      for (guint32 k = 0; k < g->states[s].n_edges; k++)
        if (g->edges[g->states[s].first_edge + k].kind == ENG_EDGE_CALL)
          add_call (calls, heads, g->edges[g->states[s].first_edge + k].rule, rule);
    g_array_append_val (waiting, rule);
  }
  for (guint i = 0; i < waiting->len; i++) {
    guint32 rule = g_array_index (waiting, guint32, i);
    if (check->nullable[rule])
      continue;
    reach_empty (check, rule, reached);
    for (guint k = 0; k < reached->len && !check->nullable[rule]; k++)
      check->nullable[rule] = g->states[g_array_index (reached, guint32, k)].ends;
    for (guint32 call = check->nullable[rule] ? heads[rule] : 0; call != 0; call = g_array_index (calls, Call, call - 1).next)
      g_array_append_val (waiting, g_array_index (calls, Call, call - 1).caller);
  }
}

/* A rule that calls itself before anything is taken, or G_MAXUINT32: rules that no such call leads out of are taken away until none is
 * left. */
static guint32 find_left_recursion (Check *check, GArray *reached)
{
  const EngGrammar *g = check->g;
  g_autofree guint32 *n_calls = g_new0 (guint32, g->n_rules), *heads = g_new0 (guint32, g->n_rules);
  g_autoptr (GArray) calls = g_array_new (FALSE, FALSE, sizeof (Call)), ready = g_array_new (FALSE, FALSE, sizeof (guint32));
  for (guint32 rule = 0; rule < g->n_rules; rule++) {
    reach_empty (check, rule, reached);
    for (guint i = 0; i < reached->len; i++) {
      const EngState *state = &g->states[g_array_index (reached, guint32, i)];
      for (guint32 k = 0; k < state->n_edges; k++)
        if (g->edges[state->first_edge + k].kind == ENG_EDGE_CALL) {
          add_call (calls, heads, g->edges[state->first_edge + k].rule, rule);
          n_calls[rule]++;
        }
    }
  }
  for (guint32 rule = 0; rule < g->n_rules; rule++)
    if (n_calls[rule] == 0)
      g_array_append_val (ready, rule);
  for (guint i = 0; i < ready->len; i++)
    for (guint32 call = heads[g_array_index (ready, guint32, i)]; call != 0; call = g_array_index (calls, Call, call - 1).next) {
      guint32 caller = g_array_index (calls, Call, call - 1).caller;
      if (--n_calls[caller] == 0)
        g_array_append_val (ready, caller);
    }
  for (guint32 rule = 0; rule < g->n_rules; rule++)
    if (n_calls[rule] > 0)
      return rule;
  return G_MAXUINT32;
}

/* ---- the whole ------------------------------------------------------------------------------------------------------------ */

/* Edges by the state they leave. */
static void lay_out (EngGrammar *g, const GArray *edges)
{
  g->edges = g_new (EngEdge, edges->len);
  for (guint i = 0; i < edges->len; i++)
    g->states[g_array_index (edges, Edge, i).from].n_edges++;
  for (guint32 s = 0, at = 0; s < g->n_states; at += g->states[s++].n_edges) {
    g->states[s].first_edge = at;
  }
  g_autofree guint32 *filled = g_new0 (guint32, g->n_states);
  for (guint i = 0; i < edges->len; i++) {
    const Edge *edge = &g_array_index (edges, Edge, i);
    g->edges[g->states[edge->from].first_edge + filled[edge->from]++] = edge->edge;
  }
}

EngGrammar *eng_grammar_compile (const EngGrammarTree *tree, guint32 root, GError **error)
{
  Compiler c = { .tree = tree, .edges = g_array_new (FALSE, FALSE, sizeof (Edge)) };
  EngGrammar *g = g_new0 (EngGrammar, 1);
  g_atomic_ref_count_init (&g->refs);
  g->n_rules = tree->bodies->len;
  g->root = root;
  g->starts = g_new (guint32, g->n_rules);
  g_autofree guint32 *ends = g_new (guint32, g->n_rules);
  gboolean fits = TRUE;
  for (guint32 rule = 0; rule < g->n_rules && fits; rule++) {
    g->starts[rule] = new_state (&c);
    ends[rule] = new_state (&c);
    fits = emit (&c, g_array_index (tree->bodies, int, rule), g->starts[rule], ends[rule]);
  }
  if (fits) {
    g->n_states = c.n_states;
    g->states = g_new0 (EngState, g->n_states);
    for (guint32 rule = 0; rule < g->n_rules; rule++)
      g->states[ends[rule]].ends = TRUE;
    lay_out (g, c.edges);
  }
  g_array_unref (c.edges);
  guint32 recursive = G_MAXUINT32;
  if (fits) {
    Check check = { g, g_new0 (gboolean, g->n_rules), g_new0 (guint8, g->n_states) };
    g_autoptr (GArray) reached = g_array_new (FALSE, FALSE, sizeof (guint32));
    find_nullable (&check, reached);
    recursive = find_left_recursion (&check, reached);
    g_free (check.nullable);
    g_free (check.mark);
  }
  if (fits && recursive == G_MAXUINT32)
    return g;
  if (!fits)
    g_set_error_literal (error, ENG_ERROR, ENG_ERROR_FORMAT, "the grammar is too large: simplify it, or repeat less often");
  else
    g_set_error (error, ENG_ERROR, ENG_ERROR_FORMAT, "the grammar's rule '%s' can begin with itself: write it as a repetition", (char *) g_ptr_array_index (tree->names, recursive));
  eng_grammar_unref (g);
  return NULL;
}

EngGrammar *eng_grammar_ref (EngGrammar *g)
{
  g_atomic_ref_count_inc (&g->refs);
  return g;
}

void eng_grammar_unref (EngGrammar *g)
{
  if (g == NULL || !g_atomic_ref_count_dec (&g->refs))
    return;
  g_free (g->states);
  g_free (g->edges);
  g_free (g->starts);
  g_free (g);
}
