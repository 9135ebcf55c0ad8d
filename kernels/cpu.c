/* cpu.c: cpuid and xgetbv (or the auxiliary vector) to flags, flags to the function table. */
#include "kernels/cpu.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/table.h"

#if defined __x86_64__ || defined __i386__
#include <cpuid.h>
#endif

static const char *const names[XB_N_ISAS] = {
  "scalar", "sse4.1", "avx2", "avx-vnni", "avx512bw", "avx512-vnni", "neon", "neon-dotprod", "neon-i8mm",
};

static xb_table table;
static xb_isa selected;
static const char *reason = "not chosen yet";
static const char *failure;
static pthread_once_t once = PTHREAD_ONCE_INIT;

const char *xb_isa_name (xb_isa isa)
{
  return isa < XB_N_ISAS ? names[isa] : "unknown";
}

bool xb_isa_built (xb_isa isa)
{
#if defined XB_X86
  return isa == XB_ISA_SCALAR || isa == XB_ISA_AVX2 || isa == XB_ISA_AVX512VNNI;
#else
  return isa == XB_ISA_SCALAR;
#endif
}

#if defined __x86_64__ || defined __i386__
static uint64_t xgetbv (void)
{
  uint32_t low, high;
  __asm__ volatile ("xgetbv" : "=a" (low), "=d" (high) : "c" (0));
  return (uint64_t) high << 32 | low;
}

bool xb_isa_available (xb_isa isa)
{
  unsigned a, b, c, d, b7 = 0, c7 = 0, a71 = 0, unused;
  if (isa == XB_ISA_SCALAR)
    return true;
  if (!__get_cpuid (1, &a, &b, &c, &d))
    return false;
  if (isa == XB_ISA_SSE41)
    return c & bit_SSE4_1;
  if (__get_cpuid_count (7, 0, &a, &b7, &c7, &d) && a >= 1)
    __get_cpuid_count (7, 1, &a71, &unused, &unused, &unused);
  uint64_t saved = c & bit_OSXSAVE ? xgetbv () : 0; /* the registers the operating system saves */
  bool avx2 = (saved & 6) == 6 && b7 & bit_AVX2 && c & bit_FMA && c & bit_F16C;
  bool avx512 = avx2 && (saved & 0xe6) == 0xe6 && b7 & bit_AVX512F && b7 & bit_AVX512BW && b7 & bit_AVX512VL && b7 & bit_AVX512DQ;
  switch (isa) {
  case XB_ISA_AVX2: return avx2;
  case XB_ISA_AVXVNNI: return avx2 && a71 & 1u << 4;
  case XB_ISA_AVX512BW: return avx512;
  case XB_ISA_AVX512VNNI: return avx512 && c7 & bit_AVX512VNNI;
  default: return false;
  }
}
#else
bool xb_isa_available (xb_isa isa)
{
  return isa == XB_ISA_SCALAR;
}
#endif

static void fill (xb_isa isa)
{
  xb_table next;
  xb_ops_init_generic (&next.ops);
  xb_product_init_scalar (&next.product);
#if defined XB_X86
  if (isa == XB_ISA_AVX2) {
    xb_ops_init_avx2 (&next.ops);
    xb_product_init_avx2 (&next.product);
  }
  if (isa == XB_ISA_AVX512VNNI) {
    xb_ops_init_avx512 (&next.ops);
    xb_product_init_avx512vnni (&next.product);
  }
#endif
  table = next;
  selected = isa;
}

static void choose (void)
{
  xb_isa best = XB_ISA_SCALAR;
  for (xb_isa isa = 0; isa < XB_N_ISAS; isa++)
    if (xb_isa_built (isa) && xb_isa_available (isa))
      best = isa;
  reason = "the best this CPU offers";
  const char *wanted = getenv ("VALISE_ISA");
  if (wanted && *wanted) {
    failure = "VALISE_ISA names an instruction set that does not exist; use one that `valise hardware` lists";
    for (xb_isa isa = 0; isa < XB_N_ISAS; isa++)
      if (strcmp (wanted, names[isa]) == 0) {
        bool usable = xb_isa_built (isa) && xb_isa_available (isa);
        failure = usable ? NULL : "VALISE_ISA names an instruction set that this CPU or this build lacks; use one that `valise hardware` lists";
        if (usable) {
          best = isa;
          reason = "VALISE_ISA asks for it";
        }
      }
  }
  fill (best);
}

const char *xb_cpu_init (void)
{
  pthread_once (&once, choose);
  return failure;
}

const xb_table *xb_table_get (void)
{
  pthread_once (&once, choose);
  return &table;
}

bool xb_cpu_select (xb_isa isa)
{
  pthread_once (&once, choose);
  if (!xb_isa_built (isa) || !xb_isa_available (isa))
    return false;
  fill (isa);
  reason = "selected by the program";
  return true;
}

xb_isa xb_cpu_selected (void)
{
  pthread_once (&once, choose);
  return selected;
}

const char *xb_cpu_reason (void)
{
  pthread_once (&once, choose);
  return reason;
}

static char model[128] = "unknown CPU";
static pthread_once_t model_once = PTHREAD_ONCE_INIT;

static void read_model (void)
{
#if defined __x86_64__ || defined __i386__
  unsigned words[12], max = __get_cpuid_max (0x80000000, NULL);
  if (max >= 0x80000004) {
    for (unsigned i = 0; i < 3; i++)
      __get_cpuid (0x80000002 + i, words + i * 4, words + i * 4 + 1, words + i * 4 + 2, words + i * 4 + 3);
    memcpy (model, words, 48);
    model[48] = 0;
  }
#else
  FILE *file = fopen ("/proc/cpuinfo", "r");
  char line[256];
  while (file && fgets (line, sizeof line, file)) {
    char *colon = strchr (line, ':');
    if (colon && (strncmp (line, "model name", 10) == 0 || strncmp (line, "CPU part", 8) == 0)) {
      snprintf (model, sizeof model, "%.100s", colon + 2);
      model[strcspn (model, "\n")] = 0;
      break;
    }
  }
  if (file)
    fclose (file);
#endif
  size_t begin = strspn (model, " "), end = strlen (model);
  while (end > begin && model[end - 1] == ' ')
    model[--end] = 0;
  memmove (model, model + begin, end - begin + 1);
}

const char *xb_cpu_model (void)
{
  pthread_once (&model_once, read_model);
  return model;
}
