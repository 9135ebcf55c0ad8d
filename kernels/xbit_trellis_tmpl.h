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
  xi table[3];       /* the first carries the bias of unsigned codes */
  xi back[4];        /* [rows] shuffles of each quarter's bytes: so many rows back, 4 places each */
  byte_mask last[4]; /* [rows] bytes of a quad's last rows, where its neighbour to the right reads */
  xi turn[7];        /* [places] the shuffle that comes with moving the quarters; with XI_PERMUTE both at once */
  byte_mask end[7];  /* [places] bytes of a quad's last places */
  /* Of the tile to the left: its line of 1 bit, the second of 2 bits, that made of the 1-bit plane, the last pairs. */
  xi bits[PARTS], twos[PARTS], made_twos[PARTS], upper[PARTS], lower[PARTS];
} trellis;

/* Byte 4 i + c of a quarter holds its row i, column c: where to find the code so many rows back, but for the column before the quad. */
#define ROWS_BACK_0 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15
#define ROWS_BACK_1 15, 12, 13, 14, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11
#define ROWS_BACK_2 11, 8, 9, 10, 15, 12, 13, 14, 0, 1, 2, 3, 4, 5, 6, 7
#define ROWS_BACK_3 7, 4, 5, 6, 11, 8, 9, 10, 15, 12, 13, 14, 0, 1, 2, 3
static const uint8_t rows_back[4][16] = { { ROWS_BACK_0 }, { ROWS_BACK_1 }, { ROWS_BACK_2 }, { ROWS_BACK_3 } };
static const uint64_t last_rows[4] = { 0, 0x8000800080008000, 0x8800880088008800, 0x8880888088808880 };

/* Bytes that lie in the last k places of a quad: the last k % 4 quarters have a row more of them. */
ALWAYS uint64_t last_places (const int k)
{
  const uint64_t turned = ~(~0ull >> 16 * (k % 4));
  return (last_rows[k / 4 + 1] & turned) | (last_rows[k / 4] & ~turned);
}

ALWAYS void begin_trellis (trellis *t, const int8_t (*tables)[16], const int depth)
{
  UNROLL for (int k = 0; k < (int) xb_trellis_tables ((uint32_t) depth); k++)
    t->table[k] = load_table (tables[k], k == 0 && !XI_SIGNED);
  UNROLL for (int rows = 0; rows < 4; rows++) {
    t->back[rows] = xi_repeat16 (rows_back[rows]);
    t->last[rows] = bytes_of (last_rows[rows]);
  }
  UNROLL for (int k = 1; k < 7; k++) {
    t->turn[k] = CHOOSE (bytes_of ((1ull << 16 * (k % 4)) - 1), t->back[k / 4 + 1], t->back[k / 4]);
#ifdef XI_PERMUTE
    UNROLL for (int i = 0; i < PART_BYTES; i++)
      t->turn[k][i] += (uint8_t) ((i / 16 - k) % 4 * 16 & 63);
#endif
    t->end[k] = bytes_of (last_places (k) >> (64 - PART_BYTES));
  }
  UNROLL for (int part = 0; part < PARTS; part++)
    t->bits[part] = t->twos[part] = t->made_twos[part] = t->upper[part] = t->lower[part] = xi_set (0);
}

ALWAYS xi chain_rows_back (const trellis *t, const xi in, const xi before, const int rows)
{
  return rows ? XI_SHUFFLE (CHOOSE (t->last[rows], before, in), t->back[rows]) : in;
}

/* out = the codes k places back in the chain, before = in of the quads to the left; k is 1, 2, 3, 6 or a multiple of 4. Quarters move k % 4 on; those that go round, and all by
 * k / 4, are a row further back. */
ALWAYS void chain_back (const trellis *t, const xi in[PARTS], const xi before[PARTS], xi out[PARTS], const int k)
{
  const int rows = k / 4, quarters = k % 4;
  if (quarters == 0) {
    UNROLL for (int part = 0; part < PARTS; part++)
      out[part] = chain_rows_back (t, in[part], before[part], rows);
    return;
  }
#if defined XI_PERMUTE
  out[0] = XI_PERMUTE (CHOOSE (t->end[k], before[0], in[0]), t->turn[k]);
#elif XB_VL == 16
  const xi_quads v = (xi_quads) CHOOSE (t->end[k], before[0], in[0]);
  out[0] = XI_SHUFFLE (quarters == 1   ? (xi) __builtin_shufflevector (v, v, 6, 7, 0, 1, 2, 3, 4, 5)
                       : quarters == 2 ? (xi) __builtin_shufflevector (v, v, 4, 5, 6, 7, 0, 1, 2, 3)
                                       : (xi) __builtin_shufflevector (v, v, 2, 3, 4, 5, 6, 7, 0, 1), t->turn[k]);
#elif XB_VL == 8
  if (quarters == 2) {
    out[0] = chain_rows_back (t, in[1], before[1], rows + 1);
    out[1] = chain_rows_back (t, in[0], before[0], rows);
    return;
  }
  /* k is 1 or 3: the last bytes of the upper quarter come from the left, with 3 also those of part 1's lower one. */
  const xi_quads plain = (xi_quads) in[0], low = (xi_quads) CHOOSE (t->end[1], before[0], in[0]);
  const xi_quads high = (xi_quads) CHOOSE (k == 1 ? t->end[1] : t->last[1], before[1], in[1]);
  if (k == 1) {
    out[0] = XI_SHUFFLE ((xi) __builtin_shufflevector (high, plain, 2, 3, 4, 5), t->turn[1]);
    out[1] = (xi) __builtin_shufflevector (plain, high, 2, 3, 4, 5);
  } else {
    out[0] = XI_SHUFFLE ((xi) __builtin_shufflevector (low, high, 2, 3, 4, 5), t->back[1]);
    out[1] = XI_SHUFFLE ((xi) __builtin_shufflevector (high, plain, 2, 3, 4, 5), t->turn[1]);
  }
#else
  UNROLL for (int part = 0; part < PARTS; part++) {
    const int from = (part - quarters) & (PARTS - 1);
    out[part] = chain_rows_back (t, in[from], before[from], rows + (part < quarters));
  }
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
  }
  if (depth == 3 || depth == 5)
    step_pairs (p->lower, t->lower);
  step_pairs (p->upper, t->upper);
}

ALWAYS xi low_or_high (const xi pair, const int high)
{
  return XI_NIBBLE (high ? xi_right (pair, 4) : pair);
}

/* out ^= the bits `mask` of the codes k places back. */
ALWAYS void mix (const trellis *t, const xi pair[5][PARTS], const int i, xi out[PARTS], const int k, const uint8_t mask)
{
  xi back[PARTS];
  chain_back (t, pair[i], pair[i ? i - 1 : 4], back, k);
  UNROLL for (int part = 0; part < PARTS; part++)
    out[part] ^= mask == 255 ? back[part] : back[part] & xi_set (mask);
}

/* Values of the quads i (low) and i + 4 (high). */
ALWAYS void trellis_pair (const trellis *t, const trellis_planes *p, const int i, xi low[PARTS], xi high[PARTS], const int depth, const int codebook)
{
  const int is_long = codebook == XB_TRELLIS16, n_tables = depth > 4 ? 3 : 2;
  const int pair = depth == 1 ? 4 : depth == 2 ? 2 : 1; /* codes in four bits */
  xi index[3][PARTS];
  UNROLL for (int part = 0; part < PARTS; part++) {
    index[0][part] = p->upper[i][part];
    index[1][part] = depth == 3 || depth > 4 ? p->lower[i][part] : p->upper[i][part];
    index[2][part] = xi_set (0);
  }
  if (depth == 3) {
    mix (t, p->upper, i, index[1], 2, 255);
    if (is_long) {
      mix (t, p->upper, i, index[0], 4, 0x33);
      mix (t, p->lower, i, index[1], 4, 0x33);
    }
  } else if (depth > 4) {
    mix (t, p->upper, i, index[2], 1, 255);
    if (depth == 5)
      mix (t, p->lower, i, index[2], 2, 0x33);
    if (is_long)
      mix (t, p->upper, i, index[0], 2, 255);
  } else if (is_long) {
    mix (t, p->upper, i, index[0], 2 * pair, 255);
    mix (t, p->upper, i, index[1], pair, 255);
    mix (t, p->upper, i, index[1], 3 * pair, 255);
  } else {
    mix (t, p->upper, i, index[1], 2 * pair, 255);
    if (depth == 4)
      mix (t, p->upper, i, index[1], pair, 255);
  }
  UNROLL for (int part = 0; part < PARTS; part++) {
    low[part] = XI_LOOKUP (t->table[0], low_or_high (index[0][part], 0)) + XI_LOOKUP (t->table[1], low_or_high (index[1][part], 0));
    high[part] = XI_LOOKUP (t->table[0], low_or_high (index[0][part], 1)) + XI_LOOKUP (t->table[1], low_or_high (index[1][part], 1));
    if (n_tables > 2) {
      low[part] += XI_LOOKUP (t->table[2], low_or_high (index[2][part], 0));
      high[part] += XI_LOOKUP (t->table[2], low_or_high (index[2][part], 1));
    }
  }
}

/* All values of a tile, of which the one to the left has been seen last. */
ALWAYS void trellis_values (trellis *t, const uint8_t *tile, xi values[PARTS][8], const int depth, const int codebook)
{
  trellis_planes planes;
  load_planes (t, &planes, tile, depth);
  UNROLL for (int i = 0; i < 4; i++) {
    xi low[PARTS], high[PARTS];
    trellis_pair (t, &planes, i, low, high, depth, codebook);
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
