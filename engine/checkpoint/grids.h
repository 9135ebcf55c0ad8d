/* grids.h: the stored vectors of IQ1, IQ2 and IQ3: the one an index names is 4 or 8 neighbouring weights. */
#ifndef ENG_GRIDS_H
#define ENG_GRIDS_H

#include "kernels/xbit.h"

#include <glib.h>

typedef enum { ENG_GRID_NONE, ENG_GRID_IQ2_XXS, ENG_GRID_IQ2_XS, ENG_GRID_IQ2_S, ENG_GRID_IQ3_XXS, ENG_GRID_IQ3_S, ENG_GRID_IQ1 } EngGrid;

/* Its shape as an X-bit matrix has it. IQ1's vectors are eight times theirs, shifted by -1 where bit 11 of an index is set and by 1 where it is not. */
const xb_grid *eng_grid_shape (EngGrid grid);
/* [2^index_bits][dim] */
const gint8 *eng_grid_values (EngGrid grid);

#endif
