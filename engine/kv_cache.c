/* kv_cache.c: one reserved mapping, pages touched as the context fills. Keys and values of 8 and 4 bits are transformed first, so
 * that outliers spread over a head (Ashkboos et al. 2024, QuaRot, section 4.3); queries and outputs then need the same transform.
 */
#include "engine/kv_cache.h"
#include "engine/error.h"

#include <string.h>
#include <sys/mman.h>

static gsize round_up (gsize n, gsize to)
{
  return (n + to - 1) / to * to;
}

typedef struct {
  gsize page_bytes, block_bytes, table_bytes, total_bytes;
  guint n_blocks;
} Layout;

static Layout layout_of (const EngTraits *traits, guint n_ctx, int bits)
{
  Layout l;
  gsize heads = (gsize)traits->n_layers * traits->n_kv_heads;
  l.n_blocks = (n_ctx + ENG_KV_PAGE_TOKENS - 1) / ENG_KV_PAGE_TOKENS;
  l.page_bytes = round_up (xb_kv_page_bytes (ENG_KV_PAGE_TOKENS, traits->head_dim, bits), 64);
  l.block_bytes = heads * 2 * l.page_bytes;
  l.table_bytes = round_up (heads * 2 * l.n_blocks * sizeof (void *), 4096);
  l.total_bytes = l.table_bytes + l.n_blocks * l.block_bytes;
  return l;
}

guint64 eng_kv_cache_bytes (const EngTraits *traits, guint n_ctx, int bits)
{
  return layout_of (traits, n_ctx, bits).total_bytes;
}

gboolean eng_kv_cache_init (EngKvCache *cache, const EngTraits *traits, guint n_ctx, int bits, GError **error)
{
  memset (cache, 0, sizeof *cache);
  if (bits != 16 && bits != 8 && bits != 4) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "a KV cache of %d bits is not known: choose 16, 8 or 4", bits);
    return FALSE;
  }
  if (bits != 16 && traits->head_dim % 32 != 0) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "heads of %u values cannot have a KV cache of %d bits: choose 16",
                 traits->head_dim, bits);
    return FALSE;
  }
  Layout l = layout_of (traits, n_ctx, bits);
  cache->pool = mmap (NULL, l.total_bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (cache->pool == MAP_FAILED) {
    cache->pool = NULL;
    g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY,
                 "a context of %u tokens needs %" G_GSIZE_FORMAT " MB, which the system does not give: choose a shorter one", n_ctx,
                 l.total_bytes / 1000000);
    return FALSE;
  }
  cache->n_layers = traits->n_layers;
  cache->n_kv_heads = traits->n_kv_heads;
  cache->head_dim = traits->head_dim;
  cache->n_blocks = l.n_blocks;
  cache->bits = bits;
  cache->hadamard = bits == 16 ? 0 : traits->head_dim & -traits->head_dim;
  cache->page_bytes = l.page_bytes;
  cache->block_bytes = l.block_bytes;
  cache->mapped_bytes = l.total_bytes;
  cache->pages = (const void **)cache->pool;
  return TRUE;
}

void eng_kv_cache_clear (EngKvCache *cache)
{
  if (cache->pool != NULL)
    munmap (cache->pool, cache->mapped_bytes);
  memset (cache, 0, sizeof *cache);
}

/* Row of the page table: pages of one layer, head and side. */
static const void **page_row (const EngKvCache *cache, guint layer, guint kv_head, guint side)
{
  return cache->pages + (((gsize)layer * cache->n_kv_heads + kv_head) * 2 + side) * cache->n_blocks;
}

void eng_kv_cache_extend (EngKvCache *cache, guint n)
{
  guint8 *first = cache->pool + (cache->mapped_bytes - cache->n_blocks * cache->block_bytes);
  for (; cache->n_used_blocks * ENG_KV_PAGE_TOKENS < n; cache->n_used_blocks++) {
    guint8 *page = first + cache->n_used_blocks * cache->block_bytes;
    for (guint layer = 0; layer < cache->n_layers; layer++)
      for (guint head = 0; head < cache->n_kv_heads; head++)
        for (guint side = 0; side < 2; side++, page += cache->page_bytes)
          page_row (cache, layer, head, side)[cache->n_used_blocks] = page;
  }
}

void eng_kv_cache_store (EngKvCache *cache, guint layer, guint kv_head, guint position, float *key, float *value)
{
  guint block = position / ENG_KV_PAGE_TOKENS, slot = position % ENG_KV_PAGE_TOKENS;
  float *sides[2] = { key, value };
  for (guint side = 0; side < 2; side++) {
    if (cache->hadamard > 1)
      xb_hadamard (sides[side], cache->head_dim, cache->hadamard);
    xb_kv_store ((void *)page_row (cache, layer, kv_head, side)[block], slot, sides[side], ENG_KV_PAGE_TOKENS, cache->head_dim,
                 cache->bits);
  }
}

void eng_kv_cache_view (const EngKvCache *cache, guint layer, guint kv_head, xb_attention *attention)
{
  attention->k_pages = page_row (cache, layer, kv_head, 0);
  attention->v_pages = page_row (cache, layer, kv_head, 1);
  attention->page_tokens = ENG_KV_PAGE_TOKENS;
  attention->head_dim = cache->head_dim;
  attention->k_bits = attention->v_bits = cache->bits;
}
