/* sets.h: the instruction sets a test goes through: those of cpu.h, and AVX-VNNI's source in AVX-512's encoding, so that it is executed where
 * only that is there. */
#ifndef TEST_SETS_H
#define TEST_SETS_H

#include <glib.h>
#include <stdlib.h>

#include "kernels/cpu.h"
#include "kernels/table.h"

enum { SET_AVXVNNI_EVEX = XB_N_ISAS, N_SETS };

static int selected_set;

static inline const char *set_name (int set)
{
  return set == SET_AVXVNNI_EVEX ? "avx-vnni-in-evex" : xb_isa_name ((xb_isa) set);
}

/* False, and the test is skipped, where it cannot run. */
static inline gboolean select_set (int set)
{
  xb_isa isa = set == SET_AVXVNNI_EVEX ? XB_ISA_AVX512VNNI : (xb_isa) set;
  if (!xb_cpu_select (isa)) {
    g_test_skip (xb_isa_built (isa) ? "not on this CPU" : "not in this build");
    return FALSE;
  }
#ifdef HAVE_EVEX_TWIN
  if (set == SET_AVXVNNI_EVEX)
    xb_product_init_avxvnni_evex ((xb_product_table *) &xb_table_get ()->product);
#endif
  selected_set = set;
  return TRUE;
}

/* On an emulated CPU only every n-th case is run (KERNELS_SHARE=n): n has no factor in common with the loops' lengths, so all values occur. */
static inline gboolean in_share (void)
{
  static guint count;
  const char *n = getenv ("KERNELS_SHARE");
  return count++ % (n ? (guint) atoi (n) : 1) == 0;
}

#endif
