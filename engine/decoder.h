/* decoder.h: the forward pass of a batch of tokens through a described decoder. Internal to the engine; session.h is the door. */
#ifndef ENG_DECODER_H
#define ENG_DECODER_H

#include "engine/kv_cache.h"
#include "engine/session.h"

enum { ENG_DEFAULT_BATCH = 512 };

/* Where everything lies in the one scratch mapping of a decoder; the memory plan reads the same layout. Offsets in bytes.
 * Attention's buffers and the feed-forward's are never alive together and overlap. */
typedef struct {
  guint batch;
  gsize hidden, normed;  /* f32 [batch][n_embd] */
  gsize branch;          /* f32 [batch][n_embd], parallel decoders only: what attention adds */
  gsize places;          /* EngPlace [batch]: where each token stands */
  gsize units;           /* EngAttentionUnit [batch] */
  gsize q;               /* f32 [batch][q_stride] */
  gsize attended;        /* f32 [batch][n_heads * value_dim] */
  gsize q_a, q_whole, values; /* latent attention: f32 [batch][latent_query], [n_heads * (latent_key + n_rot)], [n_heads * latent_value] */
  gsize k, v;            /* f32 [batch][k_stride], [v_stride]; fused: behind a token's q, as one product writes them */
  guint q_stride, k_stride, v_stride;
  gsize gate, up;        /* f32 [batch][width of the unit]; ungated: no up; fused: behind a token's gate */
  guint ff_stride;
  gsize router;          /* f32 [batch + 2][n_experts], as the next three only where there are experts */
  gsize choices;         /* EngChoice [batch][n_experts_used] */
  gsize gathered, mixed; /* f32 [batch][n_embd]: inputs, then results, of one expert's tokens; the sum over experts */
  gsize prepared[3];     /* inputs as the products take them: A8, or f32 for the exact path */
  gsize cos_sin, cos_sin_local; /* f32 [batch][n_rot] */
  gsize rows, row_bytes; /* one f32 row of the widest input for each worker */
  guint logit_rows;
  gsize logits;          /* f32 [logit_rows][n_vocab]: a row for each session that shares the decoder, or for each guess */
  gsize balance;         /* f32 [n_layers][head_dim], and ... */
  gsize first_keys;      /* ... [n_layers][n_kv_heads][head_dim], where a cache of 4 bits asks for them; else 0 */
  gsize bytes;
} EngScratchLayout;

/* Most tokens of a pass under these options. */
guint eng_batch_of (const EngSessionOptions *options);
void eng_scratch_layout (EngScratchLayout *layout, const EngTraits *traits, const EngSessionOptions *options, guint n_workers);

typedef struct EngDecoder EngDecoder;
EngDecoder *eng_decoder_new (EngModel *model, EngWorkers *workers, const EngSessionOptions *options, GError **error);
void eng_decoder_free (EngDecoder *decoder);
/* What a pool's first_keys may be for this model: the biases of its keys, turned as in the middle of the first block. The decoder's; NULL where the keys have
 * none, or the pool refers to nothing. */
const float *eng_decoder_first_keys (EngDecoder *decoder, const EngKvPool *pool);
guint eng_decoder_batch (const EngDecoder *decoder);

/* Tokens at positions n_past .. n_past + n - 1 of one sequence, whose blocks reach that far. */
typedef struct {
  EngKvSequence *sequence;
  const gint32 *tokens;
  guint n, n_past;
  EngLogitsWanted wanted;
  guint logits_row; /* out: of its first token that has any */
} EngSlice;

/* One pass over slices of different sequences, of at most a batch of tokens together. Logits go to rows of eng_decoder_logits (room for more
 * rows than there are sessions is mapped when first wanted). FALSE with ENG_ERROR_CANCELLED between layers. */
gboolean eng_decoder_forward (EngDecoder *decoder, EngSlice *slices, guint n_slices, EngObserver observer, gpointer observer_data,
                              GCancellable *cancellable, GError **error);
/* Valid until the next pass that makes logits. */
float *eng_decoder_logits (EngDecoder *decoder, guint row);

#endif
