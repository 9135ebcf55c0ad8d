/* vocab_sentencepiece.c: a vocabulary from a tokenizer.model of SentencePiece, a message of protocol buffers (sentencepiece_model.proto):
 * fields with a number and one of four wire types, those not needed passed over. */
#include "engine/tokenizer/vocab_private.h"

#include "engine/error.h"

#include <string.h>

enum { MAX_TOKENS = 1 << 24, VARINT = 0, FIXED64 = 1, BYTES = 2, FIXED32 = 5 };
enum { MODEL_PIECES = 1, MODEL_TRAINER = 2, MODEL_NORMALIZER = 3 };
enum { PIECE_TEXT = 1, PIECE_SCORE = 2, PIECE_TYPE = 3 };
enum { TRAINER_TYPE = 3, TRAINER_SUFFIX = 24, TRAINER_UNK = 40, TRAINER_BOS = 41, TRAINER_EOS = 42, TRAINER_PAD = 43 };
enum { NORMALIZER_MAP = 2, NORMALIZER_PREFIX = 3, NORMALIZER_TRIM = 4, NORMALIZER_ESCAPE = 5 };
enum { TYPE_UNIGRAM = 1, TYPE_BPE = 2 };

typedef struct { const guint8 *at, *end; } Message;

typedef struct {
  guint number, wire;
  guint64 value;  /* VARINT, FIXED32, FIXED64 */
  Message bytes;  /* BYTES */
} Field;

static gboolean read_varint (Message *m, guint64 *value)
{
  *value = 0;
  for (guint shift = 0; shift < 64 && m->at < m->end; shift += 7) {
    guint8 byte = *m->at++;
    *value |= (guint64) (byte & 0x7F) << shift;
    if ((byte & 0x80) == 0)
      return TRUE;
  }
  return FALSE;
}

/* FALSE: damaged. At the end of the message there is no field: look before. */
static gboolean read_field (Message *m, Field *field)
{
  guint64 key, n;
  if (!read_varint (m, &key) || key >> 3 == 0 || key >> 3 > G_MAXINT32)
    return FALSE;
  field->number = (guint) (key >> 3);
  field->wire = (guint) (key & 7);
  if (field->wire == VARINT)
    return read_varint (m, &field->value);
  if (field->wire == BYTES) {
    if (!read_varint (m, &n) || n > (gsize) (m->end - m->at))
      return FALSE;
    field->bytes = (Message){ m->at, m->at + n };
    m->at += n;
    return TRUE;
  }
  n = field->wire == FIXED32 ? 4 : field->wire == FIXED64 ? 8 : 0;
  if (n == 0 || n > (gsize) (m->end - m->at))
    return FALSE;
  field->value = 0;
  for (guint i = 0; i < n; i++)
    field->value |= (guint64) m->at[i] << (8 * i);
  m->at += n;
  return TRUE;
}

typedef struct {
  EngVocab *vocab;
  GArray *texts, *scores, *types;
  int ids[ENG_N_IDS];
  guint64 type;
  gboolean suffix, escapes;
} Reader;

static gboolean read_piece (Reader *r, Message m)
{
  Field field;
  EngText text = { "", 0 };
  float score = 0;
  guint8 type = ENG_TOKEN_TYPE_NORMAL;
  while (m.at < m.end) {
    if (!read_field (&m, &field))
      return FALSE;
    if (field.number == PIECE_TEXT && field.wire == BYTES) {
      text.length = (guint32) (field.bytes.end - field.bytes.at);
      text.text = g_string_chunk_insert_len (r->vocab->text, (const char *) field.bytes.at, (gssize) text.length);
    } else if (field.number == PIECE_SCORE && field.wire == FIXED32) {
      guint32 bits = (guint32) field.value;
      memcpy (&score, &bits, sizeof score);
    } else if (field.number == PIECE_TYPE && field.wire == VARINT) {
      type = (guint8) MIN (field.value, 255);
    }
  }
  g_array_append_val (r->texts, text);
  g_array_append_val (r->scores, score);
  g_array_append_val (r->types, type);
  return r->texts->len <= MAX_TOKENS;
}

static gboolean read_trainer (Reader *r, Message m)
{
  Field field;
  while (m.at < m.end) {
    if (!read_field (&m, &field))
      return FALSE;
    int id = field.wire == VARINT ? (int) (gint64) field.value : -1;
    if (field.wire != VARINT)
      continue;
    switch (field.number) {
    case TRAINER_TYPE:
      r->type = field.value;
      break;
    case TRAINER_SUFFIX:
      r->suffix = field.value != 0;
      break;
    case TRAINER_UNK:
      r->ids[ENG_ID_UNKNOWN] = id;
      break;
    case TRAINER_BOS:
      r->ids[ENG_ID_BOS] = id;
      break;
    case TRAINER_EOS:
      r->ids[ENG_ID_EOS] = id;
      break;
    case TRAINER_PAD:
      r->ids[ENG_ID_PAD] = id;
      break;
    default:
      break;
    }
  }
  return TRUE;
}

static gboolean read_normalizer (Reader *r, Message m)
{
  Field field;
  while (m.at < m.end) {
    if (!read_field (&m, &field))
      return FALSE;
    if (field.number == NORMALIZER_MAP && field.wire == BYTES && field.bytes.at < field.bytes.end) {
      g_clear_pointer (&r->vocab->charsmap, g_bytes_unref);
      r->vocab->charsmap = g_bytes_new (field.bytes.at, (gsize) (field.bytes.end - field.bytes.at));
    } else if (field.wire == VARINT && field.number == NORMALIZER_PREFIX) {
      r->vocab->space_prefix = field.value != 0;
    } else if (field.wire == VARINT && field.number == NORMALIZER_TRIM) {
      r->vocab->trims_spaces = field.value != 0;
    } else if (field.wire == VARINT && field.number == NORMALIZER_ESCAPE) {
      r->escapes = field.value != 0;
    }
  }
  return TRUE;
}

static gboolean read_model (Reader *r, Message m)
{
  Field field;
  while (m.at < m.end) {
    if (!read_field (&m, &field))
      return FALSE;
    if (field.wire == BYTES && ((field.number == MODEL_PIECES && !read_piece (r, field.bytes)) ||
                                (field.number == MODEL_TRAINER && !read_trainer (r, field.bytes)) ||
                                (field.number == MODEL_NORMALIZER && !read_normalizer (r, field.bytes))))
      return FALSE;
  }
  return TRUE;
}

static gboolean finish (Reader *r, GError **error)
{
  EngVocab *v = r->vocab;
  if (r->type != TYPE_UNIGRAM && r->type != TYPE_BPE)
    return eng_vocab_refuse (v, error, ENG_ERROR_UNSUPPORTED, "tokenizer.model is neither BPE nor unigram, which are known; choose another model");
  if (r->suffix || !r->escapes)
    return eng_vocab_refuse (v, error, ENG_ERROR_UNSUPPORTED, "tokenizer.model treats spaces in a way that is not known; choose another model");
  v->model = r->type == TYPE_BPE ? ENG_VOCAB_SPM : ENG_VOCAB_UNIGRAM;
  v->n_tokens = r->texts->len;
  for (guint i = 0; i < ENG_N_IDS; i++)
    v->ids[i] = r->ids[i] >= 0 && (guint) r->ids[i] < v->n_tokens ? r->ids[i] : -1;
  v->tokens = (EngText *) (gpointer) g_array_steal (r->texts, NULL);
  v->scores = (float *) (gpointer) g_array_steal (r->scores, NULL);
  v->types = (guint8 *) g_array_steal (r->types, NULL);
  return TRUE;
}

gboolean eng_vocab_read_sentencepiece (EngVocab *vocab, const guint8 *data, gsize length, GError **error)
{
  Reader r = { .vocab = vocab, .texts = g_array_new (FALSE, FALSE, sizeof (EngText)), .scores = g_array_new (FALSE, FALSE, sizeof (float)),
               .types = g_array_new (FALSE, FALSE, sizeof (guint8)), .type = TYPE_UNIGRAM, .escapes = TRUE };
  for (guint i = 0; i < ENG_N_IDS; i++)
    r.ids[i] = -1;
  r.ids[ENG_ID_UNKNOWN] = 0; /* the proto's defaults */
  r.ids[ENG_ID_BOS] = 1;
  r.ids[ENG_ID_EOS] = 2;
  vocab->space_prefix = vocab->trims_spaces = vocab->fuses_unknown = TRUE;
  gboolean ok = read_model (&r, (Message){ data, data + length }) && r.texts->len > 0;
  if (!ok)
    eng_vocab_refuse (vocab, error, ENG_ERROR_FORMAT, "tokenizer.model is not one of SentencePiece's, or damaged; get an undamaged file");
  else
    ok = finish (&r, error);
  g_array_unref (r.texts);
  g_array_unref (r.scores);
  g_array_unref (r.types);
  return ok;
}
