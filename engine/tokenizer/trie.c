/* trie.c: a trie made from its texts in order. */
#include "engine/tokenizer/trie.h"

#include <string.h>

enum { LONGEST = 255 };

typedef struct {
  const char *text;
  guint32 length, value, place;
} Entry;

static gint compare_entries (gconstpointer a, gconstpointer b)
{
  const Entry *x = a, *y = b;
  int order = memcmp (x->text, y->text, MIN (x->length, y->length));
  if (order != 0 || x->length != y->length)
    return order != 0 ? order : x->length < y->length ? -1 : 1;
  return (x->place > y->place) - (x->place < y->place);
}

EngTrie *eng_trie_new (const char *const *texts, const guint32 *lengths, const guint32 *values, guint32 n)
{
  g_autoptr (GArray) entries = g_array_new (FALSE, FALSE, sizeof (Entry));
  GArray *nodes = g_array_new (FALSE, FALSE, sizeof (EngTrieNode));
  guint32 path[LONGEST + 1] = { 0 }, depth = 0; /* the node of each byte of the text before */
  EngTrieNode root = { 0, ENG_TRIE_NONE, 0, 0 };
  for (guint32 i = 0; i < n; i++) {
    Entry entry = { texts[i], lengths[i], values[i], i };
    if (lengths[i] > 0 && lengths[i] <= LONGEST)
      g_array_append_val (entries, entry);
  }
  g_array_sort (entries, compare_entries);
  g_array_append_val (nodes, root);
  const char *before = "";
  for (guint32 i = 0; i < entries->len; i++) {
    const Entry *entry = &g_array_index (entries, Entry, i);
    guint32 common = 0;
    while (common < depth && common < entry->length && before[common] == entry->text[common])
      common++;
    for (; depth > common; depth--)
      g_array_index (nodes, EngTrieNode, path[depth]).end = nodes->len;
    for (; depth < entry->length; depth++) {
      EngTrieNode node = { 0, ENG_TRIE_NONE, (guint8) entry->text[depth], (guint8) (depth + 1) };
      path[depth + 1] = nodes->len;
      g_array_append_val (nodes, node);
    }
    EngTrieNode *last = &g_array_index (nodes, EngTrieNode, path[depth]);
    if (last->value == ENG_TRIE_NONE)
      last->value = entry->value;
    before = entry->text;
  }
  for (; depth > 0; depth--)
    g_array_index (nodes, EngTrieNode, path[depth]).end = nodes->len;
  g_array_index (nodes, EngTrieNode, 0).end = nodes->len;
  EngTrie *trie = g_new (EngTrie, 1);
  trie->n_nodes = nodes->len;
  trie->nodes = (EngTrieNode *) (gpointer) g_array_free (nodes, FALSE);
  memset (trie->first, 0xFF, sizeof trie->first);
  for (guint32 child = 1; child < trie->n_nodes; child = trie->nodes[child].end)
    trie->first[trie->nodes[child].byte] = child;
  return trie;
}

void eng_trie_free (EngTrie *trie)
{
  if (trie == NULL)
    return;
  g_free (trie->nodes);
  g_free (trie);
}
