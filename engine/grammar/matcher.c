/* matcher.c: a grammar's automaton run over bytes. A configuration is a set of threads, each a state and the stack of states that its rule and
 * those around it go on in; stacks share their tails. Configurations and what a byte makes of them are numbered and kept, and so is the
 * mask of tokens of each: the automaton becomes a finite one where the text has been. */
#include "engine/grammar/matcher.h"

#include "engine/grammar/grammar_private.h"
#include "engine/tokenizer/trie.h"

#include <string.h>

enum {
  MAX_CONFIGS = 1 << 14, MAX_STACKS = 1 << 18, /* beyond, what was remembered is given up */
  MAX_THREADS = 1 << 12, /* of one configuration: more of them means that a grammar reads one text in as many ways */
  MAX_MASKS = 64,
  MAX_TOKEN_BYTES = 255
};
#define UNKNOWN G_MAXUINT32
enum { DEAD = 0, EMPTY_STACK = 0 };

typedef struct { guint32 state, stack; } Thread;
typedef struct { guint32 state, below; } Frame; /* where a rule goes on, and what is around it */

typedef struct {
  guint32 first, n;   /* threads, in order */
  gboolean may_end;
  guint32 *next;      /* [256] configuration, or UNKNOWN */
  guint32 *mask;      /* or NULL */
  guint64 used;       /* when its mask was asked for last */
} Config;

struct EngMatcher {
  EngGrammar *grammar;
  GArray *threads;       /* of Thread, of all configurations */
  GArray *configs;       /* of Config; DEAD is number 0 */
  GHashTable *numbers;   /* hash of threads -> first configuration + 1 with it; others by `chain` */
  GArray *chain;         /* of guint32: [configuration] the next one with the same hash, or 0 */
  GArray *stacks;        /* of Frame; EMPTY_STACK is number 0 */
  GHashTable *stack_numbers; /* Frame as a 64-bit number -> stack */
  GArray *work, *seen;   /* of Thread: the closure that is being made, and those in it that take a byte */
  GHashTable *visited;   /* work as a set, where it is more than a few */
  gboolean work_may_end, overflowed;
  guint32 current;
  guint n_masks;
  guint64 clock;
};

struct EngTokenBytes {
  const EngTokenizer *tokenizer;
  EngMarkFunc marks;
  guint n_tokens;
  EngTrie *trie;
  guint32 *same; /* [n_tokens] the next token with the same bytes, or ENG_TRIE_NONE */
};

/* ---- tokens --------------------------------------------------------------------------------------------------------------- */

const char *eng_token_bytes_piece (const EngTokenBytes *b, gint32 token, gsize *length)
{
  const char *piece = eng_tokenizer_piece (b->tokenizer, token, b->marks != NULL, length);
  if (eng_tokenizer_is_end (b->tokenizer, token) || (b->marks != NULL && eng_tokenizer_is_control (b->tokenizer, token) && !b->marks (piece, *length)))
    *length = 0;
  return piece;
}

EngTokenBytes *eng_token_bytes_new (const EngTokenizer *tokenizer, EngMarkFunc marks)
{
  EngTokenBytes *b = g_new0 (EngTokenBytes, 1);
  b->tokenizer = tokenizer;
  b->marks = marks;
  guint n = b->n_tokens = eng_tokenizer_n_tokens (tokenizer);
  g_autofree const char **texts = g_new (const char *, n);
  g_autofree guint32 *lengths = g_new (guint32, n), *values = g_new (guint32, n);
  for (guint i = 0; i < n; i++) {
    gsize length;
    texts[i] = eng_token_bytes_piece (b, (gint32) i, &length);
    lengths[i] = length > MAX_TOKEN_BYTES ? 0 : (guint32) length;
    values[i] = i;
  }
  b->trie = eng_trie_new (texts, lengths, values, n);
  b->same = g_new (guint32, n);
  memset (b->same, 0xFF, n * sizeof *b->same);
  for (guint i = 0; i < n; i++) { /* the trie holds the first of those with the same bytes */
    guint32 node = 0;
    for (guint32 k = 0; k < lengths[i]; k++)
      node = eng_trie_child (b->trie, node, (guint8) texts[i][k]);
    guint32 first = lengths[i] > 0 ? b->trie->nodes[node].value : i;
    if (first != i) {
      b->same[i] = b->same[first];
      b->same[first] = i;
    }
  }
  return b;
}

void eng_token_bytes_free (EngTokenBytes *b)
{
  if (b == NULL)
    return;
  eng_trie_free (b->trie);
  g_free (b->same);
  g_free (b);
}

/* ---- stacks and configurations -------------------------------------------------------------------------------------------- */

static guint64 key_of (guint32 a, guint32 b)
{
  return (guint64) a << 32 | b;
}

static guint32 push (EngMatcher *m, guint32 state, guint32 below)
{
  gint64 key = (gint64) key_of (state, below);
  guint number = GPOINTER_TO_UINT (g_hash_table_lookup (m->stack_numbers, &key));
  if (number > 0)
    return number;
  Frame frame = { state, below };
  number = m->stacks->len;
  g_array_append_val (m->stacks, frame);
  g_hash_table_insert (m->stack_numbers, g_memdup2 (&key, sizeof key), GUINT_TO_POINTER (number));
  return number;
}

/* Whether the thread is in work already; else it counts as such from now on. */
static gboolean is_known (EngMatcher *m, guint32 state, guint32 stack)
{
  enum { FEW = 24 };
  if (m->work->len < FEW) {
    for (guint i = 0; i < m->work->len; i++)
      if (g_array_index (m->work, Thread, i).state == state && g_array_index (m->work, Thread, i).stack == stack)
        return TRUE;
    return FALSE;
  }
  for (guint i = 0; m->work->len == FEW && i < FEW; i++) {
    gint64 key = (gint64) key_of (g_array_index (m->work, Thread, i).state, g_array_index (m->work, Thread, i).stack);
    g_hash_table_add (m->visited, g_memdup2 (&key, sizeof key));
  }
  gint64 key = (gint64) key_of (state, stack);
  return g_hash_table_contains (m->visited, &key) || !g_hash_table_add (m->visited, g_memdup2 (&key, sizeof key));
}

static void add_thread (EngMatcher *m, guint32 state, guint32 stack)
{
  Thread thread = { state, stack };
  m->overflowed |= m->work->len >= MAX_THREADS;
  if (m->work->len < MAX_THREADS && !is_known (m, state, stack))
    g_array_append_val (m->work, thread);
}

/* A state in which nothing is left to do but to end: calls before it need not come back. */
static gboolean only_ends (const EngGrammar *g, guint32 state)
{
  return g->states[state].ends && g->states[state].n_edges == 0;
}

/* Follows empty edges, calls and ends from the threads in work; those that can take a byte are left in seen. */
static void close_threads (EngMatcher *m)
{
  const EngGrammar *g = m->grammar;
  g_array_set_size (m->seen, 0);
  m->work_may_end = FALSE;
  for (guint i = 0; i < m->work->len; i++) {
    Thread thread = g_array_index (m->work, Thread, i);
    const EngState *state = &g->states[thread.state];
    gboolean takes = FALSE;
    for (guint32 k = 0; k < state->n_edges; k++) {
      const EngEdge *edge = &g->edges[state->first_edge + k];
      if (edge->kind == ENG_EDGE_BYTES)
        takes = TRUE;
      else if (edge->kind == ENG_EDGE_EMPTY)
        add_thread (m, edge->target, thread.stack);
      else
        add_thread (m, g->starts[edge->rule], only_ends (g, edge->target) ? thread.stack : push (m, edge->target, thread.stack));
    }
    if (state->ends && thread.stack == EMPTY_STACK) {
      m->work_may_end = TRUE;
    } else if (state->ends) {
      Frame frame = g_array_index (m->stacks, Frame, thread.stack);
      add_thread (m, frame.state, frame.below);
    }
    if (takes)
      g_array_append_val (m->seen, thread);
  }
}

static gint compare_threads (gconstpointer a, gconstpointer b)
{
  const Thread *x = a, *y = b;
  guint64 k = key_of (x->state, x->stack), l = key_of (y->state, y->stack);
  return (k > l) - (k < l);
}

static guint hash_threads (const Thread *threads, guint n)
{
  guint64 hash = n;
  for (guint i = 0; i < n; i++)
    hash = (hash ^ key_of (threads[i].state, threads[i].stack)) * G_GUINT64_CONSTANT (0x9E3779B97F4A7C15) + (hash >> 29);
  return (guint) (hash >> 17);
}

/* The number of the configuration with these threads, which are in order. */
static guint32 intern_threads (EngMatcher *m, const Thread *threads, guint n, gboolean may_end)
{
  if (n == 0 && !may_end)
    return DEAD;
  gpointer hash = GUINT_TO_POINTER (hash_threads (threads, n) | 1u);
  guint32 first = GPOINTER_TO_UINT (g_hash_table_lookup (m->numbers, hash));
  for (guint32 i = first; i != 0; i = g_array_index (m->chain, guint32, i)) {
    const Config *config = &g_array_index (m->configs, Config, i);
    if (config->n == n && config->may_end == may_end &&
        (n == 0 || memcmp (&g_array_index (m->threads, Thread, config->first), threads, n * sizeof *threads) == 0))
      return i;
  }
  Config config = { m->threads->len, n, may_end, NULL, NULL, 0 };
  if (n > 0)
    g_array_append_vals (m->threads, threads, n);
  g_array_append_val (m->configs, config);
  g_array_append_val (m->chain, first);
  g_hash_table_insert (m->numbers, hash, GUINT_TO_POINTER (m->configs->len - 1));
  return m->configs->len - 1;
}

/* The number of the configuration that the threads in work come to. */
static guint32 intern (EngMatcher *m)
{
  close_threads (m);
  g_array_sort (m->seen, compare_threads);
  return intern_threads (m, (const Thread *) (gpointer) m->seen->data, m->seen->len, m->work_may_end);
}

static void begin_work (EngMatcher *m)
{
  g_array_set_size (m->work, 0);
  g_hash_table_remove_all (m->visited);
}

static guint32 step (EngMatcher *m, guint32 from, guint8 byte)
{
  Config *config = &g_array_index (m->configs, Config, from);
  if (config->next != NULL && config->next[byte] != UNKNOWN)
    return config->next[byte];
  const EngGrammar *g = m->grammar;
  begin_work (m);
  for (guint i = 0; i < config->n; i++) {
    Thread thread = g_array_index (m->threads, Thread, config->first + i);
    const EngState *state = &g->states[thread.state];
    for (guint32 k = 0; k < state->n_edges; k++) {
      const EngEdge *edge = &g->edges[state->first_edge + k];
      if (edge->kind == ENG_EDGE_BYTES && byte >= edge->first && byte <= edge->last)
        add_thread (m, edge->target, thread.stack);
    }
  }
  guint32 next = m->work->len > 0 ? intern (m) : DEAD;
  config = &g_array_index (m->configs, Config, from); /* the array may have moved */
  if (config->next == NULL) {
    config->next = g_new (guint32, 256);
    memset (config->next, 0xFF, 256 * sizeof *config->next);
  }
  config->next[byte] = next;
  return next;
}

static void clear_config (gpointer data)
{
  Config *config = data;
  g_free (config->next);
  g_free (config->mask);
}

/* An empty memory, but for DEAD and the empty stack. */
static void forget_all (EngMatcher *m)
{
  Config dead = { 0, 0, FALSE, NULL, NULL, 0 };
  Frame none = { 0, 0 };
  guint32 no_other = 0;
  g_array_set_size (m->configs, 0);
  g_array_set_size (m->threads, 0);
  g_array_set_size (m->chain, 0);
  g_array_set_size (m->stacks, 0);
  g_hash_table_remove_all (m->numbers);
  g_hash_table_remove_all (m->stack_numbers);
  g_array_append_val (m->configs, dead);
  g_array_append_val (m->chain, no_other);
  g_array_append_val (m->stacks, none);
  m->n_masks = 0;
}

typedef struct {
  GArray *states, *begins; /* of guint32: each thread's state and then those of its stack, the top first */
  gboolean may_end;
} Kept;

static Kept keep (const EngMatcher *m, guint32 number)
{
  const Config *config = &g_array_index (m->configs, Config, number);
  Kept kept = { g_array_new (FALSE, FALSE, sizeof (guint32)), g_array_new (FALSE, FALSE, sizeof (guint32)), config->may_end };
  for (guint i = 0; i < config->n; i++) {
    Thread thread = g_array_index (m->threads, Thread, config->first + i);
    g_array_append_val (kept.begins, kept.states->len);
    g_array_append_val (kept.states, thread.state);
    for (guint32 s = thread.stack; s != EMPTY_STACK; s = g_array_index (m->stacks, Frame, s).below)
      g_array_append_val (kept.states, g_array_index (m->stacks, Frame, s).state);
  }
  g_array_append_val (kept.begins, kept.states->len);
  return kept;
}

static guint32 take_up (EngMatcher *m, Kept kept)
{
  g_array_set_size (m->seen, 0);
  for (guint i = 0; i + 1 < kept.begins->len; i++) {
    guint32 begin = g_array_index (kept.begins, guint32, i);
    Thread thread = { g_array_index (kept.states, guint32, begin), EMPTY_STACK };
    for (guint32 k = g_array_index (kept.begins, guint32, i + 1); k > begin + 1; k--)
      thread.stack = push (m, g_array_index (kept.states, guint32, k - 1), thread.stack);
    g_array_append_val (m->seen, thread);
  }
  g_array_unref (kept.states);
  g_array_unref (kept.begins);
  g_array_sort (m->seen, compare_threads);
  return intern_threads (m, (const Thread *) (gpointer) m->seen->data, m->seen->len, kept.may_end);
}

/* Where there is too much to remember, these configurations alone are kept, under new numbers; the first one is the current one. */
static void trim (EngMatcher *m, guint32 *configs, guint n)
{
  if (m->configs->len < MAX_CONFIGS && m->stacks->len < MAX_STACKS)
    return;
  g_autofree Kept *kept = g_new (Kept, n);
  for (guint i = 0; i < n; i++)
    kept[i] = keep (m, configs[i]);
  forget_all (m);
  for (guint i = 0; i < n; i++)
    configs[i] = take_up (m, kept[i]);
  m->current = configs[0];
}

/* ---- the public part ------------------------------------------------------------------------------------------------------ */

EngMatcher *eng_matcher_new (EngGrammar *grammar)
{
  EngMatcher *m = g_new0 (EngMatcher, 1);
  m->grammar = eng_grammar_ref (grammar);
  m->threads = g_array_new (FALSE, FALSE, sizeof (Thread));
  m->configs = g_array_new (FALSE, FALSE, sizeof (Config));
  g_array_set_clear_func (m->configs, clear_config);
  m->chain = g_array_new (FALSE, FALSE, sizeof (guint32));
  m->stacks = g_array_new (FALSE, FALSE, sizeof (Frame));
  m->work = g_array_new (FALSE, FALSE, sizeof (Thread));
  m->seen = g_array_new (FALSE, FALSE, sizeof (Thread));
  m->numbers = g_hash_table_new (NULL, NULL);
  m->stack_numbers = g_hash_table_new_full (g_int64_hash, g_int64_equal, g_free, NULL);
  m->visited = g_hash_table_new_full (g_int64_hash, g_int64_equal, g_free, NULL);
  forget_all (m);
  begin_work (m);
  add_thread (m, grammar->starts[grammar->root], EMPTY_STACK);
  m->current = intern (m);
  return m;
}

void eng_matcher_free (EngMatcher *m)
{
  if (m == NULL)
    return;
  g_array_unref (m->threads);
  g_array_unref (m->configs);
  g_array_unref (m->chain);
  g_array_unref (m->stacks);
  g_array_unref (m->work);
  g_array_unref (m->seen);
  g_hash_table_unref (m->numbers);
  g_hash_table_unref (m->stack_numbers);
  g_hash_table_unref (m->visited);
  eng_grammar_unref (m->grammar);
  g_free (m);
}

gboolean eng_matcher_take (EngMatcher *m, const char *bytes, gsize length)
{
  trim (m, &m->current, 1);
  guint32 config = m->current;
  for (gsize i = 0; i < length && config != DEAD; i++)
    config = step (m, config, (guint8) bytes[i]);
  if (config != DEAD)
    m->current = config;
  return config != DEAD;
}

gboolean eng_matcher_may_end (const EngMatcher *m)
{
  return g_array_index (m->configs, Config, m->current).may_end;
}

gboolean eng_matcher_overflowed (const EngMatcher *m)
{
  return m->overflowed;
}

gboolean eng_matcher_is_complete (const EngMatcher *m)
{
  const Config *config = &g_array_index (m->configs, Config, m->current);
  return config->may_end && config->n == 0;
}

/* Another mask's memory, where there are many. */
static guint32 *take_mask (EngMatcher *m, gsize words)
{
  if (m->n_masks < MAX_MASKS) {
    m->n_masks++;
    return g_new (guint32, words);
  }
  Config *oldest = NULL;
  for (guint i = 0; i < m->configs->len; i++) {
    Config *config = &g_array_index (m->configs, Config, i);
    if (config->mask != NULL && (oldest == NULL || config->used < oldest->used))
      oldest = config;
  }
  return g_steal_pointer (&oldest->mask);
}

const guint32 *eng_matcher_mask (EngMatcher *m, const EngTokenBytes *b)
{
  gsize words = (b->n_tokens + 31) / 32;
  trim (m, &m->current, 1);
  Config *current = &g_array_index (m->configs, Config, m->current);
  current->used = ++m->clock;
  if (current->mask != NULL)
    return current->mask;
  guint32 *mask = take_mask (m, words);
  memset (mask, 0, words * sizeof *mask);
  guint32 path[MAX_TOKEN_BYTES + 1] = { m->current }; /* the configuration behind each byte on the way ... */
  const guint32 *steps[MAX_TOKEN_BYTES + 1] = { current->next }; /* ... and what is known of its steps, or NULL */
  for (guint32 i = 1; i < b->trie->n_nodes;) {
    const EngTrieNode *node = &b->trie->nodes[i];
    guint depth = node->depth;
    guint32 next = steps[depth - 1] != NULL ? steps[depth - 1][node->byte] : UNKNOWN;
    if (next == UNKNOWN) {
      trim (m, path, depth);
      next = step (m, path[depth - 1], node->byte);
      for (guint k = 0; k < depth; k++)
        steps[k] = g_array_index (m->configs, Config, path[k]).next;
    }
    if (next == DEAD) {
      i = node->end;
      continue;
    }
    path[depth] = next;
    steps[depth] = next == path[depth - 1] ? steps[depth - 1] : g_array_index (m->configs, Config, next).next;
    for (guint32 token = node->value; token != ENG_TRIE_NONE; token = b->same[token])
      mask[token / 32] |= 1u << token % 32;
    i++;
  }
  g_array_index (m->configs, Config, m->current).mask = mask;
  return mask;
}
