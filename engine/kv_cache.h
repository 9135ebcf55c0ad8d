/* kv_cache.h: keys and values in blocks out of one pool, which sequences share where they begin alike (Kwon et al. 2023, PagedAttention).
 * Internal to the engine. One thread at a time, but for eng_kv_store. */
#ifndef ENG_KV_CACHE_H
#define ENG_KV_CACHE_H

#include "engine/model.h"
#include "engine/session.h"
#include "kernels/ops.h"

enum { ENG_KV_PAGE_TOKENS = 32 };

/* Layers that see everything, and those that see a window only: their blocks are apart, because the latter's are given back as the
 * window moves on. */
enum { ENG_KV_WHOLE, ENG_KV_WINDOWED, ENG_KV_KINDS };

/* Blocks of one kind. A block is every page (layer x KV head x key or value) of ENG_KV_PAGE_TOKENS positions. Fresh ones follow each
 * other in memory, which so becomes resident only as it is needed. */
typedef struct {
  guint n_layers, n_blocks;
  gsize block_bytes;
  guint8 *memory;
  guint32 *references; /* [n_blocks] of sequences that hold it */
  guint32 *free;       /* [n_blocks] a stack of those given back */
  guint n_free, n_fresh;
} EngKvStore;

typedef struct {
  guint n_kv_heads, key_dim, value_dim, value_width;
  int bits;         /* 16, 8 or 4, and what each is stored in: */
  int key_bits, value_bits;
  guint hadamard;   /* block of the transform in front of quantized keys and values, 0: none */
  gsize key_bytes, value_bytes; /* of a page; values that are the beginnings of keys take none */
  gsize reference_at; /* in a page of keys of 4 bits; 0: none */
  const float *first_keys; /* [n_layers][n_kv_heads][key_dim] transformed, what keys of the first block are stored less; or NULL. Whoever sets it keeps it. */
  guint window;     /* positions a windowed layer sees, its own included */
  guint kept;       /* positions before a sequence's end that its windowed layers keep; G_MAXUINT: all */
  guint16 place[ENG_MAX_LAYERS]; /* of a layer among those of its kind ... */
  guint8 kind[ENG_MAX_LAYERS];   /* ... and that kind */
  EngKvStore stores[ENG_KV_KINDS];
  void *mapped;
  gsize mapped_bytes;
} EngKvPool;

/* The blocks of one sequence: block i holds positions from i * ENG_KV_PAGE_TOKENS on. */
typedef struct {
  EngKvPool *pool;
  guint n_table;
  const void **blocks[ENG_KV_KINDS]; /* [n_table], NULL outside first .. end - 1 */
  guint first[ENG_KV_KINDS], end[ENG_KV_KINDS];
} EngKvSequence;

/* What a pool of these options needs when it is full, its sequences' tables included. */
guint64 eng_kv_pool_bytes (const EngTraits *traits, const EngSessionOptions *options);
gboolean eng_kv_pool_init (EngKvPool *pool, const EngTraits *traits, const EngSessionOptions *options, GError **error);
void eng_kv_pool_clear (EngKvPool *pool);
/* Blocks of a kind that no sequence holds. */
guint eng_kv_pool_n_available (const EngKvPool *pool, guint kind);

void eng_kv_sequence_init (EngKvSequence *sequence, EngKvPool *pool, guint n_ctx);
void eng_kv_sequence_clear (EngKvSequence *sequence);
/* Blocks of a kind that eng_kv_sequence_extend would take. */
guint eng_kv_sequence_n_missing (const EngKvSequence *sequence, guint kind, guint n_past, guint n);
/* Makes positions n_past .. n_past + n - 1 writable; what other sequences hold as well is copied first. There must be blocks enough. */
void eng_kv_sequence_extend (EngKvSequence *sequence, guint n_past, guint n);
/* An empty sequence takes blocks first .. end - 1 of a kind, to be filled. There must be so many. */
void eng_kv_sequence_take (EngKvSequence *sequence, guint kind, guint first, guint end);
/* Gives back what a sequence that goes on at n_past needs no more. */
void eng_kv_sequence_settle (EngKvSequence *sequence, guint n_past);
/* Whether the sequence can go on at position n: its windows may have moved on. */
gboolean eng_kv_sequence_reaches (const EngKvSequence *sequence, guint n);
/* An empty sequence holds what `from` does of the positions below n. */
void eng_kv_sequence_share (EngKvSequence *to, const EngKvSequence *from, guint n);

/* Stores the key and value (turned by rope, not yet transformed; both are overwritten) of one head at a position. Different heads and sequences
 * from any threads; one head's positions in rising order. value NULL: it is the beginning of the key. */
void eng_kv_store (EngKvSequence *sequence, guint layer, guint kv_head, guint position, float *key, float *value);
/* What is stored at a position, of 16 bits. value is left alone where it is the beginning of the key. */
void eng_kv_load (const EngKvSequence *sequence, guint layer, guint kv_head, guint position, float *key, float *value);
/* Fills where things are, their format and the layer's window. */
void eng_kv_view (const EngKvSequence *sequence, guint layer, guint kv_head, xb_attention *attention);

#endif
