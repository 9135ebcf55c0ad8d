/* trellis.c: tables, and the search over a quad's ring. */
#include "quantizer/trellis.h"

#include <math.h>
#include <string.h>

enum { RING = QZ_TRELLIS_ROWS * QZ_TRELLIS_COLS, MOST_STATES = 1 << QZ_TRELLIS_MOST_BITS, MOST_LOW = MOST_STATES / 2 };

/* Entries for weights of unit variance, the best of seeds 11 to 18 of tests/bench/trellis_tables.c, and the mean squared error it measured. */
static const struct {
  guint n_tables, codes; /* codes to an index */
  float error, entries[3][16];
} made[QZ_TRELLIS_MOST_DEPTH] = {
  { 2, 4, 0.29618f, /* seed 12 */
    { { -0.456f, 0.700f, -0.507f, 0.775f, 0.214f, -0.018f, 0.980f, -0.749f, 0.415f, -0.199f, 0.780f, -0.931f, 0.358f, -0.159f, -0.716f, 0.953f },
      { -0.761f, 0.548f, 0.519f, -0.755f, -0.912f, 0.976f, 0.075f, 0.071f, 0.740f, -0.942f, -0.554f, 0.140f, 0.563f, -0.683f, -0.209f, -0.155f } } },
  { 2, 2, 0.08207f, /* seed 17 */
    { { -0.500f, -0.078f, 0.632f, -1.261f, -0.535f, 0.119f, -1.509f, 0.534f, -0.750f, 1.104f, -0.271f, 0.264f, -0.909f, 0.251f, 1.153f, -0.185f },
      { -1.148f, 0.332f, 0.980f, -0.234f, -0.267f, 1.155f, 0.244f, -0.712f, 1.404f, -0.124f, -0.790f, 1.174f, 0.491f, -0.967f, 0.039f, 0.421f } } },
  { 3, 1, 0.02116f, /* seed 18 */
    { { -0.343f, -0.832f, 1.020f, -0.385f, -1.338f, 0.178f, 0.476f, 0.022f },
      { 0.238f, -0.165f, 0.074f, -0.671f, 0.109f, -1.109f, -0.108f, 0.577f },
      { -0.990f, 0.439f, 0.024f, 1.090f, -0.057f, -0.478f, 1.590f, 0.751f } } },
  { 2, 1, 0.00612f, /* seed 18 */
    { { -0.395f, -0.533f, 1.640f, 0.081f, -0.717f, 1.068f, 0.778f, -0.070f, 0.654f, -0.232f, 0.132f, -1.173f, 0.332f, -1.627f, -0.907f, 0.534f },
      { -0.631f, 0.807f, -0.402f, 1.344f, -0.003f, -0.117f, 1.712f, 0.605f, -1.917f, 0.177f, -1.250f, -0.301f, 1.043f, 0.442f, -0.944f, 0.357f } } },
};

static QzTrellis trellises[QZ_TRELLIS_MOST_DEPTH + 1];

static void make_trellis (QzTrellis *t, guint depth)
{
  guint n = made[depth - 1].n_tables, width = depth * made[depth - 1].codes, n_entries = 1u << width;
  float low = 0, high = 0;
  for (guint k = 0; k < n; k++) {
    float least = INFINITY, most = -INFINITY;
    for (guint i = 0; i < n_entries; i++) {
      least = MIN (least, made[depth - 1].entries[k][i]);
      most = MAX (most, made[depth - 1].entries[k][i]);
    }
    low += least;
    high += most;
  }
  /* The largest sum is the largest byte, with room for the tables' rounding. */
  t->unit_scale = MAX (-low, high) / (127 - n * 0.5f);
  t->depth = depth;
  t->n_tables = n;
  t->unit_error = made[depth - 1].error;
  for (guint k = 0; k < n; k++)
    for (guint i = 0; i < n_entries; i++)
      t->tables[k][i] = lrintf (made[depth - 1].entries[k][i] / t->unit_scale);
  for (guint state = 0; state < 1u << n * width; state++)
    for (guint k = 0; k < n; k++)
      t->values[state] += t->tables[k][state >> (k * width) & (n_entries - 1)];
  t->search = (xb_trellis){ depth, n * width, t->values };
}

const QzTrellis *qz_trellis (guint depth)
{
  static gsize done = 0;
  if (g_once_init_enter (&done)) {
    for (guint d = QZ_TRELLIS_LEAST_DEPTH; d <= QZ_TRELLIS_MOST_DEPTH; d++)
      make_trellis (&trellises[d], d);
    g_once_init_leave (&done, 1);
  }
  return &trellises[depth];
}

typedef struct {
  const QzTrellis *t;
  const QzQuad *quad;
  guint n_states, n_low;
  float inverse[QZ_TRELLIS_ROWS], weight[QZ_TRELLIS_ROWS]; /* of an error in units of the scale */
  float target[QZ_TRELLIS_COLS][QZ_TRELLIS_ROWS];
  float cost[MOST_STATES];
  guint8 back[RING * MOST_LOW]; /* [steps][n_low] */
} Search;

static void begin (Search *s, const QzTrellis *t, const QzQuad *quad)
{
  s->t = t;
  s->quad = quad;
  s->n_states = 1u << t->search.bits;
  s->n_low = s->n_states >> t->depth;
  float most = 0;
  for (guint r = 0; r < QZ_TRELLIS_ROWS; r++) {
    gboolean is_there = r < quad->n_rows && quad->scale[r] != 0;
    s->inverse[r] = is_there ? 1 / quad->scale[r] : 0;
    s->weight[r] = is_there ? quad->scale[r] * quad->scale[r] * (quad->importance != NULL ? quad->importance[r] : 1) : 0;
    most = MAX (most, s->weight[r]);
  }
  for (guint r = 0; r < QZ_TRELLIS_ROWS && most > 0; r++)
    s->weight[r] /= most;
  memset (s->target, 0, sizeof s->target);
  for (guint j = 0; j < quad->n_cols; j++)
    memcpy (s->target[j], quad->target + j * quad->ld, sizeof (float) * quad->n_rows);
}

/* Extends the paths by a column, from that step on. */
static void extend (Search *s, guint j, guint from)
{
  float x[QZ_TRELLIS_ROWS], weight[QZ_TRELLIS_ROWS] = { 0 };
  float first = s->quad->pivots[0], share = j < s->quad->n_cols && first > 0 ? s->quad->pivots[j] / first : 0;
  for (guint r = 0; r < QZ_TRELLIS_ROWS; r++) {
    x[r] = s->target[j][r] * s->inverse[r];
    weight[r] = s->weight[r] * share;
  }
  xb_trellis_extend (&s->t->search, s->cost, x, weight, QZ_TRELLIS_ROWS, s->back + from * s->n_low);
}

static guint before (const Search *s, guint state, guint step)
{
  guint low = state >> s->t->depth;
  return low | (guint) s->back[step * s->n_low + low] * s->n_low;
}

/* The best state, of those that end in `low` where that is not above n_low. */
static guint best_state (const Search *s, guint low)
{
  guint best = low < s->n_low ? low : 0, step = low < s->n_low ? s->n_low : 1;
  for (guint state = best; state < s->n_states; state += step)
    if (s->cost[state] < s->cost[best])
      best = state;
  return best;
}

/* States along the path that ends in `state` after n steps. */
static void trace (const Search *s, guint state, guint n, guint16 *states)
{
  for (guint i = n; i-- > 0;) {
    states[i] = state;
    state = before (s, state, i);
  }
}

/* The ring is closed by guessing where its best path crosses its end: the last column and the first, without what comes between. */
static guint guess_seam (Search *s)
{
  memset (s->cost, 0, sizeof (float) * s->n_states);
  extend (s, QZ_TRELLIS_COLS - 1, 0);
  extend (s, 0, QZ_TRELLIS_ROWS);
  guint state = best_state (s, s->n_low);
  for (guint i = 2 * QZ_TRELLIS_ROWS; i-- > QZ_TRELLIS_ROWS;)
    state = before (s, state, i);
  return state & (s->n_low - 1);
}

/* What the errors of column j, as the best path has it now, add to the columns after it. */
static void carry (Search *s, guint j, const guint16 *states)
{
  const QzQuad *quad = s->quad;
  for (guint r = 0; r < quad->n_rows; r++) {
    float delta = quad->weight[j * quad->ld + r] - s->t->values[states[j * QZ_TRELLIS_ROWS + r]] * quad->scale[r];
    for (guint k = j + 1; k < quad->n_cols; k++)
      s->target[k][r] += quad->factor[j * quad->ld_factor + k] * delta;
  }
}

void qz_trellis_encode (const QzTrellis *t, const QzQuad *quad, guint8 codes[QZ_TRELLIS_COLS][QZ_TRELLIS_ROWS],
                        float values[QZ_TRELLIS_COLS][QZ_TRELLIS_ROWS])
{
  Search s;
  guint16 states[RING];
  begin (&s, t, quad);
  guint seam = guess_seam (&s);
  for (guint state = 0; state < s.n_states; state++)
    s.cost[state] = (state & (s.n_low - 1)) == seam ? 0 : 1e30f;
  for (guint j = 0; j < QZ_TRELLIS_COLS; j++) {
    extend (&s, j, j * QZ_TRELLIS_ROWS);
    if (quad->factor != NULL && j + 1 < quad->n_cols) {
      trace (&s, best_state (&s, s.n_low), (j + 1) * QZ_TRELLIS_ROWS, states);
      carry (&s, j, states);
    }
  }
  trace (&s, best_state (&s, seam), RING, states);
  for (guint j = 0; j < QZ_TRELLIS_COLS; j++)
    for (guint r = 0; r < QZ_TRELLIS_ROWS; r++) {
      guint state = states[j * QZ_TRELLIS_ROWS + r];
      codes[j][r] = state & ((1u << t->depth) - 1);
      values[j][r] = r < quad->n_rows ? t->values[state] * quad->scale[r] : 0;
    }
}
