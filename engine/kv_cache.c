/* kv_cache.c: one reserved mapping, touched as contexts fill; blocks with counted references. Keys and values of 8 and 4 bits are
 * transformed first, so that outliers spread over a head (Ashkboos et al. 2024, QuaRot, section 4.3); queries and outputs then need
 * the same transform. What keys have in common is most of them (Hooper et al. 2024, KVQuant, section 3.1; large biases, as Qwen's, all the more): with
 * 4 bits the codes stand for what is left beyond the mean of the block before, which changes slowly in spite of rope; in the first block beyond the biases of
 * the keys, where the model has some. They are of 5 bits, for keys lose three times as much as values do. The first key of all, which is like no other and is looked at from everywhere, is kept as it is. */
#include "engine/kv_cache.h"
#include "engine/decoder.h"
#include "engine/error.h"

#include <string.h>
#include <sys/mman.h>

static gsize round_up (gsize n, gsize to)
{
  return (n + to - 1) / to * to;
}

static guint blocks_of (guint n)
{
  return (n + ENG_KV_PAGE_TOKENS - 1) / ENG_KV_PAGE_TOKENS;
}

/* ---- the pool ------------------------------------------------------------------------------------------------------------ */

/* Where a sequence's windowed layers begin to forget: a window before the earliest place to which it is likely to be cut back, another
 * window ago. Where that saves nothing, never. */
static void plan_windows (EngKvPool *pool, const EngTraits *t, const EngSessionOptions *options, guint whole_blocks, guint n_sessions)
{
  EngKvStore *windowed = &pool->stores[ENG_KV_WINDOWED];
  guint64 ring = (guint64)2 * t->window + eng_batch_of (options);
  windowed->n_blocks = whole_blocks;
  pool->window = t->window;
  pool->kept = G_MAXUINT;
  if (windowed->n_layers == 0 || ring + 2 * ENG_KV_PAGE_TOKENS >= options->n_ctx)
    return;
  /* Both ends of a ring may lie within a block. */
  guint64 blocks = (guint64)n_sessions * (blocks_of ((guint)ring) + 1);
  if (blocks >= whole_blocks)
    return;
  windowed->n_blocks = (guint)blocks;
  pool->kept = 2 * t->window;
}

/* Fills everything but memory; returns the bytes of the mapping. */
static gsize lay_out (EngKvPool *pool, const EngTraits *t, const EngSessionOptions *options)
{
  int bits = options->kv_bits;
  guint n_sessions = MAX (options->n_sessions, 1);
  memset (pool, 0, sizeof *pool);
  pool->n_kv_heads = t->n_kv_heads;
  pool->key_dim = t->head_dim;
  pool->value_dim = t->value_dim;
  pool->value_width = t->latent > 0 ? t->head_dim : t->value_dim;
  pool->bits = bits;
  pool->key_bits = bits == 4 ? 5 : bits;
  pool->value_bits = t->latent > 0 ? pool->key_bits : bits;
  pool->hadamard = bits == 16 ? 0 : (t->head_dim | t->value_dim) & -(t->head_dim | t->value_dim);
  gsize codes_bytes = xb_kv_page_bytes (ENG_KV_PAGE_TOKENS, t->head_dim, pool->key_bits);
  pool->reference_at = bits == 4 ? codes_bytes : 0;
  pool->key_bytes = round_up (codes_bytes + (bits == 4 ? t->head_dim * sizeof (guint16) : 0), 64);
  pool->value_bytes = t->latent > 0 ? 0 : round_up (xb_kv_page_bytes (ENG_KV_PAGE_TOKENS, t->value_dim, pool->value_bits), 64);
  for (guint i = 0; i < t->n_layers; i++) {
    pool->kind[i] = eng_traits_windowed (t, i) ? ENG_KV_WINDOWED : ENG_KV_WHOLE;
    pool->place[i] = pool->stores[pool->kind[i]].n_layers++;
  }
  /* Every session may leave a block half filled. */
  pool->stores[ENG_KV_WHOLE].n_blocks = blocks_of (options->n_ctx) + n_sessions - 1;
  plan_windows (pool, t, options, pool->stores[ENG_KV_WHOLE].n_blocks, n_sessions);
  gsize bytes = 0;
  for (guint kind = 0; kind < ENG_KV_KINDS; kind++) {
    EngKvStore *store = &pool->stores[kind];
    store->block_bytes = (gsize)store->n_layers * pool->n_kv_heads * (pool->key_bytes + pool->value_bytes);
    store->n_blocks = store->n_layers > 0 ? store->n_blocks : 0;
    bytes += store->n_blocks * (store->block_bytes + 2 * sizeof (guint32));
  }
  return round_up (bytes, 4096);
}

guint64 eng_kv_pool_bytes (const EngTraits *traits, const EngSessionOptions *options)
{
  EngKvPool pool;
  guint64 bytes = lay_out (&pool, traits, options);
  return bytes + (guint64)MAX (options->n_sessions, 1) * ENG_KV_KINDS * blocks_of (options->n_ctx) * sizeof (void *);
}

gboolean eng_kv_pool_init (EngKvPool *pool, const EngTraits *traits, const EngSessionOptions *options, GError **error)
{
  int bits = options->kv_bits;
  memset (pool, 0, sizeof *pool);
  if (bits != 16 && bits != 8 && bits != 4) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_ARGUMENT, "a KV cache of %d bits is not known: choose 16, 8 or 4", bits);
    return FALSE;
  }
  if (bits != 16 && (traits->head_dim % 32 != 0 || traits->value_dim % 32 != 0)) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_UNSUPPORTED, "heads of %u values cannot have a KV cache of %d bits: choose 16",
                 traits->head_dim, bits);
    return FALSE;
  }
  gsize bytes = lay_out (pool, traits, options);
  void *mapped = mmap (NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) {
    g_set_error (error, ENG_ERROR, ENG_ERROR_MEMORY,
                 "a context of %u tokens needs %" G_GSIZE_FORMAT " MB, which the system does not give: choose a shorter one", options->n_ctx,
                 bytes / 1000000);
    return FALSE;
  }
  pool->mapped = mapped;
  pool->mapped_bytes = bytes;
  guint8 *at = mapped;
  for (guint kind = 0; kind < ENG_KV_KINDS; at += pool->stores[kind].n_blocks * pool->stores[kind].block_bytes, kind++)
    pool->stores[kind].memory = at;
  for (guint kind = 0; kind < ENG_KV_KINDS; at += pool->stores[kind].n_blocks * 2 * sizeof (guint32), kind++) {
    pool->stores[kind].references = (guint32 *)(gpointer)at;
    pool->stores[kind].free = pool->stores[kind].references + pool->stores[kind].n_blocks;
  }
  return TRUE;
}

void eng_kv_pool_clear (EngKvPool *pool)
{
  if (pool->mapped != NULL)
    munmap (pool->mapped, pool->mapped_bytes);
  memset (pool, 0, sizeof *pool);
}

guint eng_kv_pool_n_available (const EngKvPool *pool, guint kind)
{
  const EngKvStore *store = &pool->stores[kind];
  return store->n_free + store->n_blocks - store->n_fresh;
}

/* ---- blocks -------------------------------------------------------------------------------------------------------------- */

static guint32 *references_of (const EngKvStore *store, const void *block)
{
  return &store->references[(gsize)((const guint8 *)block - store->memory) / store->block_bytes];
}

static void *take_block (EngKvStore *store)
{
  g_assert (store->n_free > 0 || store->n_fresh < store->n_blocks);
  guint i = store->n_free > 0 ? store->free[--store->n_free] : store->n_fresh++;
  store->references[i] = 1;
  return store->memory + i * store->block_bytes;
}

static void release_block (EngKvStore *store, const void **block)
{
  guint32 *references = references_of (store, *block);
  if (--*references == 0)
    store->free[store->n_free++] = (guint32)(references - store->references);
  *block = NULL;
}

/* ---- sequences ----------------------------------------------------------------------------------------------------------- */

void eng_kv_sequence_init (EngKvSequence *sequence, EngKvPool *pool, guint n_ctx)
{
  memset (sequence, 0, sizeof *sequence);
  sequence->pool = pool;
  sequence->n_table = blocks_of (n_ctx);
  sequence->blocks[0] = g_new0 (const void *, (gsize)sequence->n_table * ENG_KV_KINDS);
  for (guint kind = 1; kind < ENG_KV_KINDS; kind++)
    sequence->blocks[kind] = sequence->blocks[0] + (gsize)kind * sequence->n_table;
}

/* Keeps blocks first .. end - 1 at most. */
static void keep_blocks (EngKvSequence *s, guint kind, guint first, guint end)
{
  EngKvStore *store = &s->pool->stores[kind];
  for (; s->end[kind] > MAX (end, s->first[kind]); s->end[kind]--)
    release_block (store, &s->blocks[kind][s->end[kind] - 1]);
  for (; s->first[kind] < MIN (first, s->end[kind]); s->first[kind]++)
    release_block (store, &s->blocks[kind][s->first[kind]]);
  if (s->first[kind] == s->end[kind])
    s->first[kind] = s->end[kind] = 0;
}

void eng_kv_sequence_clear (EngKvSequence *sequence)
{
  for (guint kind = 0; sequence->pool != NULL && kind < ENG_KV_KINDS; kind++)
    keep_blocks (sequence, kind, 0, 0);
  g_free (sequence->blocks[0]);
  memset (sequence, 0, sizeof *sequence);
}

guint eng_kv_sequence_n_missing (const EngKvSequence *s, guint kind, guint n_past, guint n)
{
  const EngKvStore *store = &s->pool->stores[kind];
  guint missing = 0;
  for (guint i = n_past / ENG_KV_PAGE_TOKENS; store->n_layers > 0 && i < blocks_of (n_past + n); i++)
    missing += s->blocks[kind][i] == NULL || *references_of (store, s->blocks[kind][i]) > 1;
  return missing;
}

void eng_kv_sequence_extend (EngKvSequence *s, guint n_past, guint n)
{
  for (guint kind = 0; kind < ENG_KV_KINDS; kind++) {
    EngKvStore *store = &s->pool->stores[kind];
    if (store->n_layers == 0)
      continue;
    if (s->end[kind] == 0)
      s->first[kind] = s->end[kind] = n_past / ENG_KV_PAGE_TOKENS;
    for (guint i = n_past / ENG_KV_PAGE_TOKENS; i < blocks_of (n_past + n); i++) {
      const void **block = &s->blocks[kind][i];
      if (*block != NULL && *references_of (store, *block) == 1)
        continue;
      void *own = take_block (store);
      if (*block != NULL) {
        memcpy (own, *block, store->block_bytes);
        release_block (store, block);
      }
      *block = own;
      s->end[kind] = MAX (s->end[kind], i + 1);
    }
  }
}

void eng_kv_sequence_take (EngKvSequence *s, guint kind, guint first, guint end)
{
  for (guint i = first; i < end; i++)
    s->blocks[kind][i] = take_block (&s->pool->stores[kind]);
  s->first[kind] = first < end ? first : 0;
  s->end[kind] = first < end ? end : 0;
}

void eng_kv_sequence_settle (EngKvSequence *s, guint n_past)
{
  guint kept = s->pool->kept;
  keep_blocks (s, ENG_KV_WHOLE, 0, blocks_of (n_past));
  keep_blocks (s, ENG_KV_WINDOWED, n_past > kept ? (n_past - kept) / ENG_KV_PAGE_TOKENS : 0, blocks_of (n_past));
}

gboolean eng_kv_sequence_reaches (const EngKvSequence *s, guint n)
{
  for (guint kind = 0; kind < ENG_KV_KINDS; kind++) {
    if (s->pool->stores[kind].n_layers == 0 || n == 0)
      continue;
    guint seen = kind == ENG_KV_WINDOWED && n >= s->pool->window ? n + 1 - s->pool->window : 0;
    if (s->end[kind] < blocks_of (n) || (seen < n && s->first[kind] > seen / ENG_KV_PAGE_TOKENS))
      return FALSE;
  }
  return TRUE;
}

void eng_kv_sequence_share (EngKvSequence *to, const EngKvSequence *from, guint n)
{
  for (guint kind = 0; kind < ENG_KV_KINDS; kind++) {
    const EngKvStore *store = &from->pool->stores[kind];
    guint end = MIN (from->end[kind], blocks_of (n));
    for (guint i = from->first[kind]; i < end; i++) {
      to->blocks[kind][i] = from->blocks[kind][i];
      ++*references_of (store, from->blocks[kind][i]);
    }
    to->first[kind] = from->first[kind] < end ? from->first[kind] : 0;
    to->end[kind] = from->first[kind] < end ? end : 0;
  }
}

/* ---- pages --------------------------------------------------------------------------------------------------------------- */

/* Where in a block of its kind the key page of a layer's head begins; its value page follows. */
static gsize page_offset (const EngKvPool *pool, guint layer, guint kv_head)
{
  return ((gsize)pool->place[layer] * pool->n_kv_heads + kv_head) * (pool->key_bytes + pool->value_bytes);
}

static const float *first_keys_of (const EngKvPool *pool, guint layer, guint kv_head)
{
  return pool->first_keys != NULL ? pool->first_keys + ((gsize)layer * pool->n_kv_heads + kv_head) * pool->key_dim : NULL;
}

/* The mean of the keys of a whole page, which lies in block i. */
static void mean_key (const EngKvPool *pool, const guint8 *page, guint i, const float *first_keys, float *mean)
{
  float key[XB_MAX_KEY];
  guint begin = i == 0 ? 1 : 0; /* the first of all is left out */
  memset (mean, 0, pool->key_dim * sizeof (float));
  for (guint slot = begin; slot < ENG_KV_PAGE_TOKENS; slot++) {
    xb_kv_load (page, slot, key, ENG_KV_PAGE_TOKENS, pool->key_dim, pool->key_bits);
    xb_add (mean, key, pool->key_dim);
  }
  xb_scale (mean, 1.0f / (ENG_KV_PAGE_TOKENS - begin), pool->key_dim);
  if (i == 0 && first_keys != NULL)
    xb_add (mean, first_keys, pool->key_dim);
  for (guint j = 0; i > 0 && j < pool->key_dim; j++)
    mean[j] += xb_half_to_float (((const guint16 *)(gconstpointer)(page + pool->reference_at))[j]);
}

/* Takes from the key what its page's reference will give back; a page's first key decides the reference. */
static void refer (const EngKvSequence *sequence, guint layer, guint kv_head, guint position, float *key)
{
  const EngKvPool *pool = sequence->pool;
  const float *first_keys = first_keys_of (pool, layer, kv_head);
  gsize offset = page_offset (pool, layer, kv_head);
  const void *const *blocks = sequence->blocks[pool->kind[layer]];
  guint i = position / ENG_KV_PAGE_TOKENS;
  guint16 *reference = (guint16 *)(gpointer)((guint8 *)blocks[i] + offset + pool->reference_at);
  if (i == 0 && position > 0) {
    for (guint j = 0; first_keys != NULL && j < pool->key_dim; j++)
      key[j] -= first_keys[j];
    return;
  }
  if (i == 0) {
    xb_f32_to_f16 (key, reference, pool->key_dim);
  } else if (position % ENG_KV_PAGE_TOKENS == 0) {
    float mean[XB_MAX_KEY];
    mean_key (pool, (const guint8 *)blocks[i - 1] + offset, i - 1, first_keys, mean);
    xb_f32_to_f16 (mean, reference, pool->key_dim);
  }
  for (guint j = 0; j < pool->key_dim; j++)
    key[j] -= xb_half_to_float (reference[j]);
}

void eng_kv_store (EngKvSequence *sequence, guint layer, guint kv_head, guint position, float *key, float *value)
{
  const EngKvPool *pool = sequence->pool;
  guint slot = position % ENG_KV_PAGE_TOKENS;
  const void *block = sequence->blocks[pool->kind[layer]][position / ENG_KV_PAGE_TOKENS];
  guint8 *page = (guint8 *)block + page_offset (pool, layer, kv_head);
  if (pool->hadamard > 1)
    xb_hadamard (key, pool->key_dim, pool->hadamard);
  if (pool->reference_at > 0)
    refer (sequence, layer, kv_head, position, key);
  xb_kv_store (page, slot, key, ENG_KV_PAGE_TOKENS, pool->key_dim, pool->key_bits);
  if (value == NULL)
    return;
  if (pool->hadamard > 1)
    xb_hadamard (value, pool->value_dim, pool->hadamard);
  xb_kv_store (page + pool->key_bytes, slot, value, ENG_KV_PAGE_TOKENS, pool->value_dim, pool->value_bits);
}

void eng_kv_load (const EngKvSequence *sequence, guint layer, guint kv_head, guint position, float *key, float *value)
{
  const EngKvPool *pool = sequence->pool;
  const guint8 *page = (const guint8 *)sequence->blocks[pool->kind[layer]][position / ENG_KV_PAGE_TOKENS] + page_offset (pool, layer, kv_head);
  xb_kv_load (page, position % ENG_KV_PAGE_TOKENS, key, ENG_KV_PAGE_TOKENS, pool->key_dim, pool->key_bits);
  if (pool->value_bytes > 0)
    xb_kv_load (page + pool->key_bytes, position % ENG_KV_PAGE_TOKENS, value, ENG_KV_PAGE_TOKENS, pool->value_dim, pool->value_bits);
}

void eng_kv_view (const EngKvSequence *sequence, guint layer, guint kv_head, xb_attention *attention)
{
  const EngKvPool *pool = sequence->pool;
  attention->blocks = sequence->blocks[pool->kind[layer]];
  attention->k_offset = page_offset (pool, layer, kv_head);
  attention->v_offset = attention->k_offset + (pool->value_bytes > 0 ? pool->key_bytes : 0);
  attention->reference_offset = pool->reference_at > 0 ? attention->k_offset + pool->reference_at : 0;
  attention->first_keys = first_keys_of (pool, layer, kv_head);
  attention->page_tokens = ENG_KV_PAGE_TOKENS;
  attention->key_dim = pool->key_dim;
  attention->value_dim = pool->value_dim;
  attention->value_width = pool->value_width;
  attention->key_bits = pool->key_bits;
  attention->value_bits = pool->value_bits;
  attention->window = pool->kind[layer] == ENG_KV_WINDOWED ? pool->window : 0;
}
