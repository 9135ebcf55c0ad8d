/* cpu.h: which instruction sets this CPU offers, and the one in use. */
#ifndef VALISE_CPU_H
#define VALISE_CPU_H

#include <stdbool.h>

typedef enum {
  XB_ISA_SCALAR,
  XB_ISA_SSE41,
  XB_ISA_AVX2,
  XB_ISA_AVXVNNI,
  XB_ISA_AVX512BW,
  XB_ISA_AVX512VNNI,
  XB_ISA_AVX512VBMI,
  XB_ISA_NEON,
  XB_ISA_NEON_DOTPROD,
  XB_ISA_NEON_I8MM,
  XB_N_ISAS
} xb_isa;

/* "scalar", "sse4.1", "avx2", "avx-vnni", "avx512bw", "avx512-vnni", "avx512-vbmi", "neon", "neon-dotprod", "neon-i8mm" */
const char *xb_isa_name (xb_isa isa);
/* Built into this program (per-file flags) / offered by this CPU and operating system (cpuid and xgetbv, hwcap). */
bool xb_isa_built (xb_isa isa);
bool xb_isa_available (xb_isa isa);

/* Fills the function table once: the best available ISA, or the one named in the environment variable VALISE_ISA. Returns NULL,
 * or one sentence when VALISE_ISA names an unknown or absent one. Thread-safe; every other function calls it if nobody has
 * (and then falls back to the best one on error, so programs call it first and report). */
const char *xb_cpu_init (void);
/* For tests and benches: switch the table. False if not available. Not thread-safe against running products. */
bool xb_cpu_select (xb_isa isa);
xb_isa xb_cpu_selected (void);
/* Why the selected one was chosen, one short sentence. */
const char *xb_cpu_reason (void);
/* CPU model name from cpuid / /proc/cpuinfo; a static string. */
const char *xb_cpu_model (void);

#endif
