/* attention_tmpl.h: attention over paged KV, a block of query rows against a chunk of keys at a time, with a running softmax (Milakov &
 * Gimelshein 2018). Part of ops_tmpl.h: the same vectors. A chunk of keys and values becomes f32 once for all rows. */

enum {
  CHUNK = 32,                                     /* keys scored before the running softmax moves on */
  MAX_ROWS = 64,                                  /* query rows (token x head) that share a chunk */
  BLOCK = XB_VL == 16 ? 4 : XB_VL == 8 ? 2 : 1,   /* rows whose sums stay in registers together */
  CHUNK_VECS = CHUNK / XB_VL,
  FEW_ROWS = 8                                    /* fewer do not repay turning the keys */
};

/* Sums are in registers only where the loops over them are gone, which -O2 does not do by itself. */
#define UNROLL_4 _Pragma ("GCC unroll 4")
#define UNROLL_8 _Pragma ("GCC unroll 8")

typedef struct {
  const float *q;
  float *out;
  uint32_t begin, end; /* first, and one past the last, visible position */
  uint32_t head;
  float max, sum;
} attention_row;

/* Lanes without bit k take a's pair sums, those with it b's. */
#define XB_FROM(l, k) (l + ((l & k) ? XB_VL : 0))
#define XB_OVER(l, k) ((l ^ k) + ((l & k) ? XB_VL : 0))
#define XB_PAIR(a, b, k) (__builtin_shufflevector (a, b, XB_LANES (XB_FROM, k)) + __builtin_shufflevector (a, b, XB_LANES (XB_OVER, k)))

/* Lane l is the sum of v[l]'s lanes. */
static inline vf v_sum_each (vf *v)
{
#pragma GCC unroll 16
  for (int i = 0; i < XB_VL / 2; i++)
    v[i] = XB_PAIR (v[2 * i], v[2 * i + 1], 1);
#pragma GCC unroll 16
  for (int i = 0; i < XB_VL / 4; i++)
    v[i] = XB_PAIR (v[2 * i], v[2 * i + 1], 2);
#if XB_VL >= 8
  for (int i = 0; i < XB_VL / 8; i++)
    v[i] = XB_PAIR (v[2 * i], v[2 * i + 1], 4);
#endif
#if XB_VL >= 16
  v[0] = XB_PAIR (v[0], v[1], 8);
#endif
  return v[0];
}

/* Scores of one row against keys[CHUNK][d]. */
static void score_row (const float *q, const float *keys, uint32_t d, float *scores)
{
  uint32_t whole = d / XB_VL * XB_VL;
  for (uint32_t t = 0; t < CHUNK; t += XB_VL) {
    vf part[XB_VL];
#pragma GCC unroll 16
    for (int l = 0; l < XB_VL; l++) {
      const float *key = keys + (size_t) (t + (uint32_t) l) * d;
      vf acc = v_set (0);
      for (uint32_t i = 0; i < whole; i += XB_VL)
        acc += v_load (q + i) * v_load (key + i);
      part[l] = acc;
    }
    v_store (scores + t, v_sum_each (part));
    for (uint32_t l = 0; whole < d && l < XB_VL; l++)
      for (uint32_t i = whole; i < d; i++)
        scores[t + l] += q[i] * keys[(size_t) (t + l) * d + i];
  }
}

/* Scores of n rows (n <= BLOCK) against turned keys [d][CHUNK]. */
static inline void score_block (const attention_row *rows, int n, const float *turned, uint32_t d, float (*scores)[CHUNK])
{
  vf acc[BLOCK][CHUNK_VECS];
  UNROLL_4 for (int r = 0; r < n; r++)
    UNROLL_8 for (int c = 0; c < CHUNK_VECS; c++)
      acc[r][c] = v_set (0);
  for (uint32_t i = 0; i < d; i++)
    UNROLL_4 for (int r = 0; r < n; r++)
      UNROLL_8 for (int c = 0; c < CHUNK_VECS; c++)
        acc[r][c] += v_set (rows[r].q[i]) * v_load (turned + (size_t) i * CHUNK + c * XB_VL);
  UNROLL_4 for (int r = 0; r < n; r++)
    UNROLL_8 for (int c = 0; c < CHUNK_VECS; c++)
      v_store (scores[r] + c * XB_VL, acc[r][c]);
}

/* out += weights x values[CHUNK][d] for n rows and vecs vectors of columns from `at` on. */
static inline void add_values (const attention_row *rows, int n, int vecs, const float *values, uint32_t d, uint32_t at, float (*weights)[CHUNK])
{
  vf acc[BLOCK][4];
  UNROLL_4 for (int r = 0; r < n; r++)
    UNROLL_4 for (int c = 0; c < vecs; c++)
      acc[r][c] = v_load (rows[r].out + at + c * XB_VL);
  for (uint32_t t = 0; t < CHUNK; t++)
    UNROLL_4 for (int r = 0; r < n; r++)
      UNROLL_4 for (int c = 0; c < vecs; c++)
        acc[r][c] += v_set (weights[r][t]) * v_load (values + (size_t) t * d + at + c * XB_VL);
  UNROLL_4 for (int r = 0; r < n; r++)
    UNROLL_4 for (int c = 0; c < vecs; c++)
      v_store (rows[r].out + at + c * XB_VL, acc[r][c]);
}

static inline void add_all_values (const attention_row *rows, int n, const float *values, uint32_t d, float (*weights)[CHUNK])
{
  uint32_t at = 0;
  for (; at + 4 * XB_VL <= d; at += 4 * XB_VL)
    add_values (rows, n, 4, values, d, at, weights);
  for (; at + XB_VL <= d; at += XB_VL)
    add_values (rows, n, 1, values, d, at, weights);
  for (; at < d; at++)
    for (int r = 0; r < n; r++)
      for (uint32_t t = 0; t < CHUNK; t++)
        rows[r].out[at] += weights[r][t] * values[(size_t) t * d + at];
}

/* Scores become weights against the row's running maximum; what was summed before shrinks when that grows. */
static void soften (const xb_attention *a, attention_row *row, uint32_t begin, float *scores)
{
  uint32_t seen = row->end <= begin ? 0 : row->end - begin < CHUNK ? row->end - begin : CHUNK, first = row->begin > begin ? row->begin - begin : 0;
  vf sum = v_set (0);
  if (first >= seen) {
    memset (scores, 0, CHUNK * sizeof (float));
    return;
  }
  for (uint32_t t = 0; t < CHUNK; t += XB_VL)
    v_store (scores + t, v_load (scores + t) * v_set (a->scale));
  for (uint32_t t = 0; a->slopes && t < seen; t++)
    scores[t] -= a->slopes[row->head] * (float) (row->end - 1 - begin - t);
  for (uint32_t t = 0; a->soft_cap > 0 && t < seen; t++)
    scores[t] = a->soft_cap * tanhf (scores[t] / a->soft_cap);
  for (uint32_t t = 0; t < first; t++)
    scores[t] = -INFINITY;
  for (uint32_t t = seen; t < CHUNK; t++)
    scores[t] = -INFINITY;
  float top = largest (scores, CHUNK);
  if (top > row->max) {
    float shrink = row->max > -INFINITY ? s_exp (row->max - top) : 0;
    row->sum *= shrink;
    scale (row->out, shrink, a->value_dim);
    row->max = top;
  }
  for (uint32_t t = 0; t < CHUNK; t += XB_VL) {
    vf e = v_exp (v_load (scores + t) - v_set (row->max));
    v_store (scores + t, e);
    sum += e;
  }
  row->sum += v_sum (sum);
}

/* A sink is one more score, whose value is nothing. */
static void finish_row (const xb_attention *a, attention_row *row)
{
  float share = 1;
  if (a->sinks) {
    float sink = a->sinks[row->head], max = sink > row->max ? sink : row->max;
    share = row->max > -INFINITY ? s_exp (row->max - max) : 0;
    row->sum = row->sum * share + s_exp (sink - max);
  }
  scale (row->out, row->sum > 0 ? share / row->sum : 0, a->value_dim);
}

/* The first `first` of `width` values of positions begin .. begin + n - 1 as f32; the rest of the chunk is zero. */
static void load_chunk (const xb_attention *a, size_t offset, int bits, uint32_t width, uint32_t first, uint32_t begin, uint32_t n, float *out)
{
  float reference[XB_MAX_KEY];
  const uint8_t *referred = NULL;
  for (uint32_t t = 0; t < n; t++) {
    const uint8_t *block = a->blocks[(begin + t) / a->page_tokens];
    float *row = out + (size_t) t * first;
    kv_load_first (block + offset, (begin + t) % a->page_tokens, row, a->page_tokens, width, first, bits);
    if (a->reference_offset == 0 || offset != a->k_offset)
      continue;
    if (begin + t > 0 && begin + t < a->page_tokens) {
      if (a->first_keys != NULL)
        add (row, a->first_keys, first);
      continue;
    }
    if (referred != block)
      half_to_f32 ((const uint16_t *) (const void *) (block + a->reference_offset), reference, first);
    referred = block;
    add (row, reference, first);
  }
  memset (out + (size_t) n * first, 0, (size_t) (CHUNK - n) * first * sizeof (float));
}

static void attend_block (const xb_attention *a, attention_row *rows, uint32_t n_rows)
{
  float loaded[CHUNK * XB_MAX_KEY], turned[CHUNK * XB_MAX_KEY], scores[MAX_ROWS][CHUNK];
  uint32_t d = a->key_dim, dv = a->value_dim, whole = n_rows / BLOCK * BLOCK, begin = UINT32_MAX, last = 0;
  for (uint32_t r = 0; r < n_rows; r++) {
    begin = rows[r].begin < begin ? rows[r].begin : begin;
    last = rows[r].end > last ? rows[r].end : last;
    rows[r].max = -INFINITY;
    rows[r].sum = 0;
    memset (rows[r].out, 0, dv * sizeof (float));
  }
  for (; begin < last; begin += CHUNK) {
    uint32_t n = last - begin < CHUNK ? last - begin : CHUNK;
    load_chunk (a, a->k_offset, a->key_bits, d, d, begin, n, loaded);
    if (n_rows < FEW_ROWS) {
      for (uint32_t r = 0; r < n_rows; r++)
        score_row (rows[r].q, loaded, d, scores[r]);
    } else {
      pack_lines (turned, CHUNK, loaded, d, CHUNK, d);
      for (uint32_t r = 0; r < whole; r += BLOCK)
        score_block (rows + r, BLOCK, turned, d, scores + r);
      for (uint32_t r = whole; r < n_rows; r++)
        score_block (rows + r, 1, turned, d, scores + r);
    }
    for (uint32_t r = 0; r < n_rows; r++)
      soften (a, &rows[r], begin, scores[r]);
    load_chunk (a, a->v_offset, a->value_bits, a->value_width, dv, begin, n, loaded);
    for (uint32_t r = 0; r < whole; r += BLOCK)
      add_all_values (rows + r, BLOCK, loaded, dv, scores + r);
    for (uint32_t r = whole; r < n_rows; r++)
      add_all_values (rows + r, 1, loaded, dv, scores + r);
  }
  for (uint32_t r = 0; r < n_rows; r++)
    finish_row (a, &rows[r]);
}

static void attend_tokens (const xb_attention *a, const float *q, size_t ldq, size_t ldt, uint32_t n_q, uint32_t n_tokens, float *out, size_t ldo,
                           size_t ldot)
{
  attention_row rows[MAX_ROWS];
  uint32_t n = 0;
  for (uint32_t i = 0; i < n_tokens; i++)
    for (uint32_t h = 0; h < n_q; h++) {
      uint32_t end = a->kv_end + i, begin = a->window > 0 && end > a->window ? end - a->window : 0;
      rows[n++] = (attention_row) { .q = q + i * ldt + h * ldq, .out = out + i * ldot + h * ldo, .begin = begin, .end = end, .head = h };
      if (n == MAX_ROWS || (i + 1 == n_tokens && h + 1 == n_q)) {
        attend_block (a, rows, n);
        n = 0;
      }
    }
}
