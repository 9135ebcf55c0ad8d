/* kv_cache.h: keys and values of one sequence, in pages out of one pool. Internal to the engine. */
#ifndef ENG_KV_CACHE_H
#define ENG_KV_CACHE_H

#include "engine/model.h"
#include "kernels/ops.h"

enum { ENG_KV_PAGE_TOKENS = 32 };

/* A block is every page (layer x KV head x key or value) of ENG_KV_PAGE_TOKENS positions. Blocks follow each other in the pool, so
 * memory becomes resident only as the context fills. */
typedef struct {
  guint n_layers, n_kv_heads, head_dim, n_blocks;
  int bits;
  guint hadamard; /* block of the transform in front of quantized keys and values, 0: none */
  gsize page_bytes, block_bytes;
  guint n_used_blocks; /* those whose pages are in `pages` */
  guint8 *pool;
  gsize mapped_bytes;
  const void **pages; /* [layer][kv head][key, value][n_blocks] */
} EngKvCache;

/* What a cache of this shape needs when it is full, tables included. */
guint64 eng_kv_cache_bytes (const EngTraits *traits, guint n_ctx, int bits);

gboolean eng_kv_cache_init (EngKvCache *cache, const EngTraits *traits, guint n_ctx, int bits, GError **error);
void eng_kv_cache_clear (EngKvCache *cache);

/* Makes positions below n usable. */
void eng_kv_cache_extend (EngKvCache *cache, guint n);
/* Stores the key and value (turned by rope, not yet transformed; both are overwritten) of one head at a position. Any thread. */
void eng_kv_cache_store (EngKvCache *cache, guint layer, guint kv_head, guint position, float *key, float *value);
/* Fills the pages and format of `attention`. */
void eng_kv_cache_view (const EngKvCache *cache, guint layer, guint kv_head, xb_attention *attention);

#endif
