/* xbit_layout.c: from a layout to bytes and, for a blob nobody trusts, back.
 *
 * Header of 64 bytes: u32 magic "XBIT", version 1, rows, cols, group, kind (scale kind | has_offset << 8), input_id, n_stripes, n_panels,
 * n_tables, n_grids, grid_bytes, u64 size, u32 output_id, u32 0. Then, each padded to 64 bytes: stripe ends (u32), panel ends (u32), cells (u8 depth, u8 codebook,
 * u16 z2, u32 table), tables (16 x i8), grids (xb_grid), their values, stripe offsets (u64, from the blob's start). Then the bands. */
#include "kernels/xbit_layout.h"

#include <stdlib.h>
#include <string.h>

#include "kernels/half.h"

enum { MAGIC = 0x54494258, VERSION = 1, HEADER = 64, MAX_SIDE = 1 << 28, MAX_CELLS = 1 << 24, MAX_GRIDS = 256, EARLY_TRELLIS = 3 };

typedef struct {
  uint32_t magic, version, rows, cols, group, kind, input_id, n_stripes, n_panels, n_tables, n_grids, grid_bytes;
  uint64_t size;
  uint32_t output_id, zero;
} header;

typedef struct {
  size_t stripes, panels, cells, tables, grids, values, offsets, bands;
} places;

static places place (const xb_layout *l)
{
  places p;
  p.stripes = HEADER;
  p.panels = p.stripes + xb_pad64 ((size_t) l->n_stripes * 4);
  p.cells = p.panels + xb_pad64 ((size_t) l->n_panels * 4);
  p.tables = p.cells + xb_pad64 ((size_t) l->n_stripes * l->n_panels * sizeof (xb_cell));
  p.grids = p.tables + xb_pad64 ((size_t) l->n_tables * 16);
  p.values = p.grids + xb_pad64 ((size_t) l->n_grids * sizeof (xb_grid));
  p.offsets = p.values + xb_pad64 (l->grid_bytes);
  p.bands = p.offsets + xb_pad64 ((size_t) l->n_stripes * 8);
  return p;
}

static xb_error check_counts (const xb_layout *l)
{
  if (l->rows == 0 || l->cols == 0 || l->rows > MAX_SIDE || l->cols > MAX_SIDE)
    return "an X-bit matrix has an impossible size";
  if (l->scale_kind >= XB_N_SCALE_KINDS || l->has_offset > XB_OFFSET_ZERO || (l->has_offset == XB_OFFSET_STORED && l->scale_kind > XB_SCALE_GROUP_I8))
    return "an X-bit matrix has scales of an unknown kind; it was made by a newer version";
  if (!xb_scale_per_row (l) && l->group != 16 && l->group != 32 && l->group != 64 && l->group != 128 && l->group != 256)
    return "an X-bit matrix has groups of a size other than 16, 32, 64, 128 or 256";
  if (l->n_stripes == 0 || l->n_panels == 0 || l->n_stripes > (l->rows + 15) / 16 || l->n_panels > (l->cols + 31) / 32
      || (uint64_t) l->n_stripes * l->n_panels > MAX_CELLS || l->n_tables > MAX_CELLS
      || l->n_grids > MAX_GRIDS || l->grid_bytes > MAX_GRIDS * (8u << 12))
    return "an X-bit matrix has an impossible number of cells";
  return NULL;
}

static xb_error check_borders (const uint32_t *end, uint32_t n, uint32_t last, uint32_t unit)
{
  for (uint32_t i = 0; i < n; i++)
    if (end[i] <= (i ? end[i - 1] : 0) || (i + 1 < n ? end[i] % unit != 0 || end[i] >= last : end[i] != last))
      return "an X-bit matrix's cells do not tile it";
  return NULL;
}

static xb_error check_grids (const xb_layout *l)
{
  for (uint32_t i = 0; i < l->n_grids; i++) {
    const xb_grid *g = &l->grids[i];
    if ((g->dim != 4 && g->dim != 8) || g->index_bits < 8 || g->index_bits > 12 || (g->sign_bits != 0 && g->sign_bits != 7 && g->sign_bits != 8)
        || g->offset > l->grid_bytes || (size_t) g->dim << g->index_bits > l->grid_bytes - g->offset)
      return "an X-bit matrix has a grid of an unknown shape; it was made by a newer version";
  }
  return NULL;
}

static xb_error check_cells (const xb_layout *l)
{
  for (uint64_t i = 0; i < (uint64_t) l->n_stripes * l->n_panels; i++) {
    const xb_cell *c = &l->cells[i];
    if (c->codebook == EARLY_TRELLIS)
      return "an X-bit matrix was made by an early version of Valise with another trellis; fit the model again";
    if (c->depth > XB_MAX_DEPTH || (c->codebook != XB_UNIFORM && c->codebook != XB_TABLE && c->codebook != XB_GRID && !xb_is_trellis (c->codebook)
                                     && c->codebook != XB_EXL3))
      return "an X-bit matrix has a cell of an unknown depth or codebook; it was made by a newer version";
    if (c->codebook == XB_TABLE && (c->depth > 4 || c->table >= l->n_tables))
      return "an X-bit matrix has a cell whose table is missing";
    if (c->codebook == XB_GRID && c->depth
        && (c->table >= l->n_grids || c->depth != (xb_grid_tile_bytes (&l->grids[c->table]) + 63) / 64))
      return "an X-bit matrix has a cell whose grid is missing";
    if (xb_is_trellis (c->codebook) && (!xb_trellis_has (c->codebook, c->depth) || c->table >= l->n_tables || l->n_tables - c->table < xb_trellis_tables (c->depth)))
      return "an X-bit matrix has a trellis cell whose tables are missing";
    if (xb_is_trellis (c->codebook) && !xb_scale_per_row (l) && l->group == 16)
      return "an X-bit matrix has a trellis cell in groups of 16";
    if (c->codebook == XB_EXL3 && (c->z2 >= XB_N_EXL3_FUNCTIONS || !xb_scale_per_row (l)))
      return "an X-bit matrix has an EXL3 cell of an unknown function or with scales of groups; it was made by a newer version";
    if ((c->codebook == XB_UNIFORM && c->z2 > 510) || (c->codebook == XB_GRID && c->z2 > 15))
      return "an X-bit matrix has a cell with an impossible zero point";
    if (l->has_offset && (c->codebook != XB_UNIFORM || c->z2 != 0))
      return "an X-bit matrix has both offsets and a zero point";
  }
  return NULL;
}

static xb_error check (const xb_layout *l)
{
  xb_error e = check_counts (l);
  if (!e)
    e = check_borders (l->stripe_end, l->n_stripes, l->rows, 16);
  if (!e)
    e = check_borders (l->panel_end, l->n_panels, l->cols, 32);
  if (!e)
    e = check_grids (l);
  return e ? e : check_cells (l);
}

uint32_t xb_layout_groups (const xb_layout *l)
{
  uint32_t n = 0;
  if (xb_scale_per_row (l))
    return 1;
  for (uint32_t p = 0; p < l->n_panels; p++)
    n += xb_panel_groups (l, p);
  return n;
}

uint32_t xb_layout_group_start (const xb_layout *l, uint32_t group)
{
  if (xb_scale_per_row (l))
    return group == 0 ? 0 : l->cols;
  for (uint32_t p = 0; p < l->n_panels; p++) {
    uint32_t n = xb_panel_groups (l, p);
    if (group < n)
      return xb_panel_begin (l, p) + group * l->group;
    group -= n;
  }
  return l->cols;
}

static size_t band_size (const xb_layout *l, uint32_t stripe, uint32_t n_groups)
{
  return xb_tiles_before (l, stripe, l->n_panels) + xb_scale_bytes (l, n_groups);
}

static uint32_t stripe_bands (const xb_layout *l, uint32_t s)
{
  return (l->stripe_end[s] - (s ? l->stripe_end[s - 1] : 0) + 15) / 16;
}

size_t xb_layout_bytes (const xb_layout *l, xb_error *error)
{
  xb_error e = check (l);
  if (error)
    *error = e;
  if (e)
    return 0;
  size_t size = place (l).bands;
  uint32_t n_groups = xb_layout_groups (l);
  for (uint32_t s = 0; s < l->n_stripes; s++)
    size += (size_t) stripe_bands (l, s) * band_size (l, s, n_groups);
  return size;
}

xb_error xb_matrix_init (void *data, size_t size, const xb_layout *l)
{
  xb_error e;
  size_t bytes = xb_layout_bytes (l, &e);
  if (e)
    return e;
  if (bytes != size)
    return "an X-bit matrix is written into a buffer of another size";
  memset (data, 0, size);
  xb_layout_write_directory (data, l);
  return NULL;
}

size_t xb_layout_directory_bytes (const xb_layout *l)
{
  return place (l).bands;
}

void xb_layout_write_directory (void *data, const xb_layout *l)
{
  places p = place (l);
  header h = { MAGIC, VERSION, l->rows, l->cols, xb_scale_per_row (l) ? 0 : l->group,
               (uint32_t) l->scale_kind | (uint32_t) l->has_offset << 8, l->input_id, l->n_stripes, l->n_panels, l->n_tables, l->n_grids,
               l->grid_bytes, xb_layout_bytes (l, NULL), l->output_id, 0 };
  uint8_t *out = data;
  memset (out, 0, p.bands);
  memcpy (out, &h, sizeof h);
  memcpy (out + p.stripes, l->stripe_end, (size_t) l->n_stripes * 4);
  memcpy (out + p.panels, l->panel_end, (size_t) l->n_panels * 4);
  memcpy (out + p.cells, l->cells, (size_t) l->n_stripes * l->n_panels * sizeof (xb_cell));
  if (l->n_tables)
    memcpy (out + p.tables, l->tables, (size_t) l->n_tables * 16);
  if (l->n_grids) {
    memcpy (out + p.grids, l->grids, l->n_grids * sizeof (xb_grid));
    memcpy (out + p.values, l->grid_values, l->grid_bytes);
  }
  uint64_t at = p.bands;
  uint32_t n_groups = xb_layout_groups (l);
  for (uint32_t s = 0; s < l->n_stripes; s++) {
    memcpy (out + p.offsets + (size_t) s * 8, &at, 8);
    at += (uint64_t) stripe_bands (l, s) * band_size (l, s, n_groups);
  }
}

static xb_error index_bands (xb_matrix *m, const uint64_t *offsets, uint64_t begin)
{
  const xb_layout *l = &m->layout;
  uint32_t band = 0;
  uint64_t at = begin;
  m->panel_group[0] = 0;
  for (uint32_t p = 0; p < l->n_panels; p++)
    m->panel_group[p + 1] = xb_scale_per_row (l) ? 0 : m->panel_group[p] + xb_panel_groups (l, p);
  m->n_groups = xb_layout_groups (l);
  for (uint32_t s = 0; s < l->n_stripes; s++) {
    if (offsets[s] != at)
      return "an X-bit matrix's directory is damaged";
    m->stripe_offset[s] = at;
    m->tile_bytes[s] = xb_tiles_before (l, s, l->n_panels);
    m->band_bytes[s] = band_size (l, s, m->n_groups);
    uint32_t n = stripe_bands (l, s);
    for (uint32_t i = 0; i < n; i++)
      m->band_stripe[band++] = s;
    at += (uint64_t) n * m->band_bytes[s];
  }
  return at == m->size ? NULL : "an X-bit matrix is cut short or too long";
}

static xb_layout layout_of (const header *h)
{
  return (xb_layout) {
    .rows = h->rows, .cols = h->cols, .group = h->group, .scale_kind = (uint8_t) (h->kind & 255), .has_offset = (uint8_t) (h->kind >> 8),
    .input_id = h->input_id, .output_id = h->output_id, .n_stripes = h->n_stripes, .n_panels = h->n_panels, .n_tables = h->n_tables,
    .n_grids = h->n_grids, .grid_bytes = h->grid_bytes,
  };
}

static void point_into (xb_layout *l, const uint8_t *base, const places *p)
{
  l->stripe_end = (const uint32_t *) (const void *) (base + p->stripes);
  l->panel_end = (const uint32_t *) (const void *) (base + p->panels);
  l->cells = (const xb_cell *) (const void *) (base + p->cells);
  l->tables = (const int8_t (*)[16]) (const void *) (base + p->tables);
  l->grids = (const xb_grid *) (const void *) (base + p->grids);
  l->grid_values = (const int8_t *) (base + p->values);
}

const uint64_t *xb_blob_layout (const void *data, size_t size, xb_layout *layout)
{
  header h;
  if (size < HEADER)
    return NULL;
  memcpy (&h, data, sizeof h);
  if (h.magic != MAGIC || h.size != size)
    return NULL;
  *layout = layout_of (&h);
  places p = place (layout);
  point_into (layout, data, &p);
  return (const uint64_t *) (const void *) ((const uint8_t *) data + p.offsets);
}

static void turn_grid (const xb_grid *g, const int8_t *values, uint8_t *columns)
{
  for (uint32_t i = 0; i < 1u << g->index_bits; i++)
    for (uint32_t c = 0; c < g->dim; c++)
      columns[g->offset + ((size_t) c << g->index_bits) + i] = (uint8_t) values[g->offset + (size_t) i * g->dim + c] ^ 128;
}

xb_matrix *xb_matrix_open (const void *data, size_t size, xb_error *error)
{
  header h;
  xb_error unused;
  error = error ? error : &unused;
  *error = "an X-bit matrix is cut short or damaged";
  if (size < HEADER || (uintptr_t) data % XB_ALIGN)
    return NULL;
  memcpy (&h, data, sizeof h);
  if (h.magic != MAGIC || h.kind >> 10 || h.size != size || h.zero)
    return NULL;
  if (h.version != VERSION) {
    *error = "an X-bit matrix was made by a newer version; update Valise";
    return NULL;
  }
  xb_layout l = layout_of (&h);
  xb_error e = check_counts (&l);
  if (e) {
    *error = e;
    return NULL;
  }
  places p = place (&l);
  if (p.bands > size)
    return NULL;
  const uint8_t *base = data;
  point_into (&l, base, &p);
  e = check (&l);
  if (e) {
    *error = e;
    return NULL;
  }
  uint32_t bands = xb_bands (&l);
  /* A band holds at least its scales, so the number of bands is bounded by the size before anything of that length is allocated. */
  if ((uint64_t) bands * 64 > size - p.bands)
    return NULL;
  xb_matrix *m = calloc (1, sizeof *m);
  if (m) {
    *m = (xb_matrix) { .layout = l, .data = base, .size = size };
    m->stripe_offset = malloc ((size_t) l.n_stripes * 8);
    m->band_bytes = malloc ((size_t) l.n_stripes * 8);
    m->tile_bytes = malloc ((size_t) l.n_stripes * 8);
    m->panel_group = malloc (((size_t) l.n_panels + 1) * 4);
    m->band_stripe = malloc ((size_t) bands * 4);
    m->grid_columns = malloc (l.grid_bytes + 1u);
  }
  if (!m || !m->grid_columns || !m->stripe_offset || !m->band_bytes || !m->tile_bytes || !m->panel_group || !m->band_stripe)
    e = "there is not enough memory to open an X-bit matrix";
  else
    e = index_bands (m, (const uint64_t *) (const void *) (base + p.offsets), p.bands);
  for (uint32_t i = 0; !e && i < l.n_grids; i++)
    turn_grid (&l.grids[i], l.grid_values, m->grid_columns);
  *error = e;
  if (e) {
    xb_matrix_free (m);
    return NULL;
  }
  return m;
}

void xb_matrix_free (xb_matrix *m)
{
  if (!m)
    return;
  free (m->stripe_offset);
  free (m->band_bytes);
  free (m->tile_bytes);
  free (m->panel_group);
  free (m->band_stripe);
  free (m->grid_columns);
  free (m);
}

const xb_layout *xb_matrix_layout (const xb_matrix *m)
{
  return &m->layout;
}

size_t xb_matrix_size (const xb_matrix *m)
{
  return m->size;
}

float xb_round_scale (float scale)
{
  return half_to (half_from (scale));
}
