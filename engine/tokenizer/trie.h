/* trie.h: texts by their bytes, as one array of nodes in the order of a walk: a node's first child follows it, and its next sibling stands
 * where its own part ends. Immutable after creation: any thread. */
#ifndef ENG_TRIE_H
#define ENG_TRIE_H

#include <glib.h>

#define ENG_TRIE_NONE G_MAXUINT32

typedef struct {
  guint32 end;   /* of the part below this node, itself included: where the next sibling, if there is one, stands */
  guint32 value; /* of the text that ends here, or ENG_TRIE_NONE */
  guint8 byte;
  guint8 depth;  /* of a text of this one's length, at most 255: bytes from the root */
} EngTrieNode;

typedef struct {
  EngTrieNode *nodes; /* the first one is the root, of no byte */
  guint32 n_nodes;
  guint32 first[256]; /* the root's child of a byte, or ENG_TRIE_NONE */
} EngTrie;

/* texts[n], lengths[n] of at most 255 bytes (longer and empty ones are left out), each with its value; of equal ones the first counts. */
EngTrie *eng_trie_new (const char *const *texts, const guint32 *lengths, const guint32 *values, guint32 n);
void eng_trie_free (EngTrie *trie);

/* The child of a byte, or ENG_TRIE_NONE. */
static inline guint32 eng_trie_child (const EngTrie *trie, guint32 node, guint8 byte)
{
  if (node == 0)
    return trie->first[byte];
  for (guint32 child = node + 1; child < trie->nodes[node].end; child = trie->nodes[child].end)
    if (trie->nodes[child].byte == byte)
      return child;
  return ENG_TRIE_NONE;
}

#endif
