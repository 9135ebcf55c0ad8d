/* xbit_trellis_tmpl.h: tiles of a trellis cell to values, part of xbit_product_tmpl.h; what a code stands for is defined by xb_trellis_word.
 *
 * Everything is done on pairs: registers whose bytes hold 4 bits of quad i low and of quad i + 4 high, as the lines of the 4-bit plane do. A chain goes
 * through the rows 0, 4, 8, 12, 1, ... of a column, so that the codes some places back lie in another quarter of 4 rows, or in the same one under
 * one fixed shuffle of its 16 bytes; only a few bytes come from the quad before. */

typedef uint64_t xi_quads __attribute__ ((vector_size (PART_BYTES)));

/* A choice of bytes, and one of two registers by it. */
#if XB_VL == 16
typedef __mmask64 byte_mask;
#define CHOOSE(mask, there, elsewhere) ((xi) _mm512_mask_blend_epi8 (mask, (__m512i) (elsewhere), (__m512i) (there)))
#else
typedef xi byte_mask;
#if XB_VL == 8
#define CHOOSE(mask, there, elsewhere) ((xi) _mm256_blendv_epi8 ((__m256i) (elsewhere), (__m256i) (there), (__m256i) (mask)))
#elif defined __SSE4_1__
#define CHOOSE(mask, there, elsewhere) ((xi) _mm_blendv_epi8 ((__m128i) (elsewhere), (__m128i) (there), (__m128i) (mask)))
#else
#define CHOOSE(mask, there, elsewhere) (((there) & (mask)) | ((elsewhere) & ~(mask)))
#endif
#endif

ALWAYS byte_mask bytes_of (const uint64_t bits)
{
#if XB_VL == 16
  return (byte_mask) bits;
#else
  uint8_t bytes[PART_BYTES] __attribute__ ((aligned (64)));
  for (int i = 0; i < PART_BYTES; i++)
    bytes[i] = bits >> i & 1 ? 255 : 0;
  return xi_load (bytes);
#endif
}

ALWAYS xi choose_bits (const uint8_t mask, const xi there, const xi elsewhere)
{
  return (there & xi_set (mask)) | (elsewhere & xi_set ((uint8_t) ~mask));
}

typedef struct {
  xi table[3];     /* the first carries the bias of unsigned codes */
  xi back4, back8; /* shuffles of the bytes: 4 and 8 places back */
  xi wrap1, wrap2; /* 4 places back in the first quarter only, or in the first two; with XI_PERMUTE the quarters are moved as well */
  byte_mask end1, end2, end4, end8; /* bytes that lie so many places before the end of a quad: where its neighbour to the right reads */
  /* Of the tile to the left: its line of 1 bit, the second of 2 bits, that made of the 1-bit plane, the last pairs. */
  xi bits[PARTS], twos[PARTS], made_twos[PARTS], upper[PARTS], lower[PARTS];
} trellis;

/* Byte 4 i + c of a quarter holds its row i, column c: where to find the code 4 and 8 places back in the chain, but for the column before the quad. */
#define STAY 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#define BACK4 15, 12, 13, 14, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
#define BACK8 11, 8, 9, 10, 15, 12, 13, 14, 0, 1, 2, 3, 4, 5, 6, 7
static const uint8_t all_back4[16] = { BACK4 }, all_back8[16] = { BACK8 };
#ifdef XI_PERMUTE
#define QUARTER(k, at) (at) + 16 * (k)
#define QUARTER_STAY(k) QUARTER (k, 0), QUARTER (k, 1), QUARTER (k, 2), QUARTER (k, 3), QUARTER (k, 4), QUARTER (k, 5), QUARTER (k, 6), QUARTER (k, 7), \
  QUARTER (k, 8), QUARTER (k, 9), QUARTER (k, 10), QUARTER (k, 11), QUARTER (k, 12), QUARTER (k, 13), QUARTER (k, 14), QUARTER (k, 15)
#define QUARTER_BACK4(k) QUARTER (k, 15), QUARTER (k, 12), QUARTER (k, 13), QUARTER (k, 14), QUARTER (k, 0), QUARTER (k, 1), QUARTER (k, 2), QUARTER (k, 3), \
  QUARTER (k, 4), QUARTER (k, 5), QUARTER (k, 6), QUARTER (k, 7), QUARTER (k, 8), QUARTER (k, 9), QUARTER (k, 10), QUARTER (k, 11)
static const uint8_t places_back1[64] __attribute__ ((aligned (64))) = { QUARTER_BACK4 (3), QUARTER_STAY (0), QUARTER_STAY (1), QUARTER_STAY (2) };
static const uint8_t places_back2[64] __attribute__ ((aligned (64))) = { QUARTER_BACK4 (2), QUARTER_BACK4 (3), QUARTER_STAY (0), QUARTER_STAY (1) };
#else
static const uint8_t places_back1[64] __attribute__ ((aligned (64))) = { BACK4, STAY, STAY, STAY };
static const uint8_t places_back2[64] __attribute__ ((aligned (64))) = { BACK4, BACK4, STAY, STAY };
#endif

ALWAYS void begin_trellis (trellis *t, const int8_t (*tables)[16], const int depth)
{
  UNROLL for (int k = 0; k < (int) xb_trellis_tables ((uint32_t) depth); k++)
    t->table[k] = load_table (tables[k], k == 0 && !XI_SIGNED);
  t->back4 = xi_repeat16 (all_back4);
  t->back8 = xi_repeat16 (all_back8);
  t->wrap1 = xi_load (places_back1);
  t->wrap2 = xi_load (places_back2);
  t->end1 = bytes_of (1ull << (PART_BYTES - 1));
  t->end2 = bytes_of (0x8000800000000000);
  t->end4 = bytes_of (0x8000800080008000);
  t->end8 = bytes_of (0x8800880088008800);
  UNROLL for (int part = 0; part < PARTS; part++)
    t->bits[part] = t->twos[part] = t->made_twos[part] = t->upper[part] = t->lower[part] = xi_set (0);
}

/* out = the codes k places back in the chain, before = in of the quads to the left; k is 1, 2, 4 or 8. */
ALWAYS void chain_back (const trellis *t, const xi in[PARTS], const xi before[PARTS], xi out[PARTS], const int k)
{
  if (k >= 4) {
    UNROLL for (int part = 0; part < PARTS; part++)
      out[part] = XI_SHUFFLE (CHOOSE (k == 4 ? t->end4 : t->end8, before[part], in[part]), k == 4 ? t->back4 : t->back8);
    return;
  }
#if defined XI_PERMUTE
  out[0] = XI_PERMUTE (CHOOSE (k == 1 ? t->end1 : t->end2, before[0], in[0]), k == 1 ? t->wrap1 : t->wrap2);
#elif XB_VL == 16
  const xi_quads v = (xi_quads) CHOOSE (k == 1 ? t->end1 : t->end2, before[0], in[0]);
  out[0] = k == 1 ? XI_SHUFFLE ((xi) __builtin_shufflevector (v, v, 6, 7, 0, 1, 2, 3, 4, 5), t->wrap1)
                  : XI_SHUFFLE ((xi) __builtin_shufflevector (v, v, 4, 5, 6, 7, 0, 1, 2, 3), t->wrap2);
#elif XB_VL == 8
  const xi last = CHOOSE (k == 1 ? t->end1 : t->end4, before[1], in[1]);
  if (k == 1) {
    const xi_quads low = (xi_quads) in[0], high = (xi_quads) last;
    out[0] = XI_SHUFFLE ((xi) __builtin_shufflevector (high, low, 2, 3, 4, 5), t->wrap1);
    out[1] = (xi) __builtin_shufflevector (low, high, 2, 3, 4, 5);
  } else {
    out[0] = XI_SHUFFLE (last, t->back4);
    out[1] = in[0];
  }
#else
  UNROLL for (int part = 0; part < PARTS; part++)
    out[part] = part >= k ? in[part - k] : XI_SHUFFLE (CHOOSE (t->end4, before[part - k + PARTS], in[part - k + PARTS]), t->back4);
#endif
}

/* Two lines of 2 bits, of quads j, j + 2, j + 4, j + 6 each, become 4 pairs of 4 bits: theirs, and those k places back above them. last: line 1 of the
 * tile to the left, replaced. */
ALWAYS void widen (const trellis *t, const xi line[2][PARTS], xi last[PARTS], xi pair[4][PARTS], const int k)
{
  xi before[PARTS], back[PARTS];
  UNROLL for (int part = 0; part < PARTS; part++) {
    before[part] = choose_bits (0xfc, xi_left (line[1][part], 2), xi_right (last[part], 6));
    last[part] = line[1][part];
  }
  UNROLL for (int j = 0; j < 2; j++) {
    chain_back (t, line[j], j ? line[0] : before, back, k);
    UNROLL for (int part = 0; part < PARTS; part++) {
      pair[j][part] = choose_bits (0x33, line[j][part], xi_left (back[part], 2));
      pair[j + 2][part] = choose_bits (0x33, xi_right (line[j][part], 2), back[part]);
    }
  }
}

/* The line of 1 bit: 4 pairs of the bits of the last four codes. */
ALWAYS void widen_bits (trellis *t, const xi line[PARTS], xi pair[4][PARTS])
{
  xi before[PARTS], back[PARTS], twos[2][PARTS];
  UNROLL for (int part = 0; part < PARTS; part++) {
    before[part] = choose_bits (0xfe, xi_left (line[part], 1), xi_right (t->bits[part], 7));
    t->bits[part] = line[part];
  }
  chain_back (t, line, before, back, 1);
  UNROLL for (int part = 0; part < PARTS; part++) {
    twos[0][part] = choose_bits (0x55, line[part], xi_left (back[part], 1));
    twos[1][part] = choose_bits (0x55, xi_right (line[part], 1), back[part]);
  }
  widen (t, twos, t->made_twos, pair, 2);
}

/* The planes of a tile as pairs; number 4 stands for the quads before those of number 0. */
typedef struct {
  xi upper[5][PARTS]; /* the 4-bit plane, or the 2-bit one widened, or that of 1 bit alone */
  xi lower[5][PARTS]; /* the plane below, widened; depth 5: the lowest four bits */
} trellis_planes;

/* Pair 4 from pair 3 and that of the tile to the left. */
ALWAYS void step_pairs (xi pair[5][PARTS], xi last[PARTS])
{
  UNROLL for (int part = 0; part < PARTS; part++) {
    pair[4][part] = choose_bits (0xf0, xi_left (pair[3][part], 4), xi_right (last[part], 4));
    last[part] = pair[3][part];
  }
}

ALWAYS void load_planes (trellis *t, trellis_planes *p, const uint8_t *tile, const int depth)
{
  xi line[2][PARTS];
  if (depth >= 4)
    UNROLL for (int i = 0; i < 4; i++)
      UNROLL for (int part = 0; part < PARTS; part++)
        p->upper[i][part] = xi_load (tile + i * 64 + part * PART_BYTES);
  const uint8_t *rest = tile + (depth >= 4 ? 256 : 0);
  if (depth & 2) {
    UNROLL for (int j = 0; j < 2; j++)
      UNROLL for (int part = 0; part < PARTS; part++)
        line[j][part] = xi_load (rest + j * 64 + part * PART_BYTES);
    widen (t, line, t->twos, depth >= 4 ? p->lower : p->upper, 1);
    rest += 128;
  }
  if (depth & 1)
    UNROLL for (int part = 0; part < PARTS; part++)
      line[0][part] = xi_load (rest + part * PART_BYTES);
  if (depth == 1 || depth == 3)
    widen_bits (t, line[0], depth == 1 ? p->upper : p->lower);
  if (depth == 5) {
    UNROLL for (int i = 0; i < 4; i++)
      UNROLL for (int part = 0; part < PARTS; part++)
        p->lower[i][part] = choose_bits (0x11, xi_right (line[0][part], i), xi_left (p->upper[i][part], 1));
    step_pairs (p->lower, t->lower);
  }
  step_pairs (p->upper, t->upper);
}

ALWAYS xi low_or_high (const xi pair, const int high)
{
  return XI_NIBBLE (high ? xi_right (pair, 4) : pair);
}

/* Values of the quads i (low) and i + 4 (high). */
ALWAYS void trellis_pair (const trellis *t, const trellis_planes *p, const int i, xi low[PARTS], xi high[PARTS], const int depth)
{
  const int before = i ? i - 1 : 4;
  xi second[PARTS], third[PARTS], back[PARTS], back2[PARTS];
  chain_back (t, p->upper[i], p->upper[before], back, depth == 1 ? 8 : depth == 2 ? 4 : depth == 3 ? 2 : 1);
  if (depth == 4)
    chain_back (t, p->upper[i], p->upper[before], back2, 2);
  if (depth == 5)
    chain_back (t, p->lower[i], p->lower[before], back2, 2);
  UNROLL for (int part = 0; part < PARTS; part++) {
    second[part] = depth < 3    ? p->upper[i][part] ^ back[part]
                   : depth == 3 ? p->lower[i][part] ^ back[part]
                   : depth == 4 ? p->upper[i][part] ^ back[part] ^ back2[part]
                                : p->lower[i][part];
    third[part] = depth == 5 ? back[part] ^ (back2[part] & xi_set (0x33)) : back[part];
    low[part] = XI_LOOKUP (t->table[0], low_or_high (p->upper[i][part], 0)) + XI_LOOKUP (t->table[1], low_or_high (second[part], 0));
    high[part] = XI_LOOKUP (t->table[0], low_or_high (p->upper[i][part], 1)) + XI_LOOKUP (t->table[1], low_or_high (second[part], 1));
    if (depth > 4) {
      low[part] += XI_LOOKUP (t->table[2], low_or_high (third[part], 0));
      high[part] += XI_LOOKUP (t->table[2], low_or_high (third[part], 1));
    }
  }
}

/* All values of a tile, of which the one to the left has been seen last. */
ALWAYS void trellis_values (trellis *t, const uint8_t *tile, xi values[PARTS][8], const int depth)
{
  trellis_planes planes;
  load_planes (t, &planes, tile, depth);
  UNROLL for (int i = 0; i < 4; i++) {
    xi low[PARTS], high[PARTS];
    trellis_pair (t, &planes, i, low, high, depth);
    UNROLL for (int part = 0; part < PARTS; part++) {
      values[part][i] = low[part];
      values[part][i + 4] = high[part];
    }
  }
}

/* Sees a tile without its values. What its neighbour reads of it does not depend on what lies farther left. */
ALWAYS void enter_trellis (trellis *t, const uint8_t *tile, const int depth)
{
  trellis_planes planes;
  load_planes (t, &planes, tile, depth);
}
