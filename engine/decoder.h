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
  gsize q, attended;     /* f32 [batch][q_stride] */
  gsize k, v;            /* f32 [batch][kv_stride]; fused: behind a token's q, as one product writes them */
  guint q_stride, kv_stride;
  gsize gate, up;        /* f32 [batch][ff_stride]; ungated: no up; fused: behind a token's gate */
  guint ff_stride;
  gsize router;          /* f32 [batch][n_experts], as the next three only where there are experts */
  gsize choices;         /* EngChoice [batch][n_experts_used] */
  gsize gathered, mixed; /* f32 [batch][n_embd]: inputs, then results, of one expert's tokens; the sum over experts */
  gsize prepared[3];     /* inputs as the products take them: A8, or f32 for the exact path */
  gsize cos_sin, cos_sin_local; /* f32 [batch][n_rot] */
  gsize rows, row_bytes; /* one f32 row of the widest input for each worker */
  gsize logits;          /* f32 [n_vocab] of one token */
  gsize bytes;
} EngScratchLayout;

/* An expert that a token goes to. */
typedef struct {
  guint32 expert;
  float weight;
} EngChoice;

void eng_scratch_layout (EngScratchLayout *layout, const EngTraits *traits, const EngSessionOptions *options, guint n_workers);

typedef struct EngDecoder EngDecoder;
EngDecoder *eng_decoder_new (EngModel *model, EngWorkers *workers, const EngSessionOptions *options, GError **error);
void eng_decoder_free (EngDecoder *decoder);
guint eng_decoder_batch (const EngDecoder *decoder);

typedef enum { ENG_LOGITS_NONE, ENG_LOGITS_LAST, ENG_LOGITS_ALL } EngLogitsWanted;

/* Tokens at positions n_past .. n_past + n - 1, n <= batch; the cache must reach that far. Logits go to rows 0.. of
 * eng_decoder_logits (room for more than one row is mapped when all are first wanted). FALSE with ENG_ERROR_CANCELLED between
 * layers. */
gboolean eng_decoder_forward (EngDecoder *decoder, EngKvCache *cache, const gint32 *tokens, guint n, guint n_past,
                              EngLogitsWanted wanted, EngObserver observer, gpointer observer_data, GCancellable *cancellable,
                              GError **error);
/* Row 0 also after ENG_LOGITS_LAST; valid until the next pass that makes logits. */
float *eng_decoder_logits (EngDecoder *decoder, guint row);

#endif
