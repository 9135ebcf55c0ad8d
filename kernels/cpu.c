/* cpu.c: cpuid and xgetbv (or the auxiliary vector) to flags, flags to the function table. */
#include "kernels/cpu.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "kernels/table.h"

#if defined __x86_64__
#include <cpuid.h>
#define X86(init) init
#define ARM(init) NULL
#elif defined __aarch64__
#include <asm/hwcap.h>
#include <sys/auxv.h>
#define X86(init) NULL
#define ARM(init) init
#else
#define X86(init) NULL
#define ARM(init) NULL
#endif

/* What a set needs; AVX and wider count only where the operating system saves their registers. */
enum { SSE41 = 1, AVX2 = 2, AVXVNNI = 4, AVX512BW = 8, AVX512VNNI = 16, NEON = 32, DOTPROD = 64, I8MM = 128, AVX512VBMI = 256, AVX512BF16 = 512 };

/* In the order of cpu.h, from the least to the best of each architecture. */
static const struct {
  const char *name;
  unsigned needs;
  void (*ops) (xb_ops_table *t);
  void (*product) (xb_product_table *t); /* NULL: not in this build */
} isas[XB_N_ISAS] = {
  { "scalar", 0, xb_ops_init_generic, xb_product_init_scalar },
  { "sse4.1", SSE41, xb_ops_init_generic, X86 (xb_product_init_sse41) },
  { "avx2", AVX2, X86 (xb_ops_init_avx2), X86 (xb_product_init_avx2) },
  { "avx-vnni", AVX2 | AVXVNNI, X86 (xb_ops_init_avx2), X86 (xb_product_init_avxvnni) },
  { "avx512bw", AVX512BW, X86 (xb_ops_init_avx512), X86 (xb_product_init_avx512bw) },
  { "avx512-vnni", AVX512BW | AVX512VNNI, X86 (xb_ops_init_avx512), X86 (xb_product_init_avx512vnni) },
  { "avx512-vbmi", AVX512BW | AVX512VNNI | AVX512VBMI, X86 (xb_ops_init_avx512), X86 (xb_product_init_avx512vbmi) },
  { "neon", NEON, xb_ops_init_generic, ARM (xb_product_init_neon) },
  { "neon-dotprod", NEON | DOTPROD, xb_ops_init_generic, ARM (xb_product_init_neon_dotprod) },
  { "neon-i8mm", NEON | DOTPROD | I8MM, xb_ops_init_generic, ARM (xb_product_init_neon_i8mm) },
};

static xb_table table;
static xb_isa selected;
static const char *reason = "not chosen yet";
static const char *failure;
static pthread_once_t once = PTHREAD_ONCE_INIT;

#if defined __x86_64__
static uint64_t xgetbv (void)
{
  uint32_t low, high;
  __asm__ volatile ("xgetbv" : "=a" (low), "=d" (high) : "c" (0));
  return (uint64_t) high << 32 | low;
}

static unsigned probe (void)
{
  unsigned a, b, c, d, b7 = 0, c7 = 0, a71 = 0, unused, found = 0;
  if (!__get_cpuid (1, &a, &b, &c, &d))
    return 0;
  if (__get_cpuid_count (7, 0, &a, &b7, &c7, &d) && a >= 1)
    __get_cpuid_count (7, 1, &a71, &unused, &unused, &unused);
  const uint64_t saved = c & bit_OSXSAVE ? xgetbv () : 0; /* the registers the operating system saves */
  if (c & bit_SSSE3 && c & bit_SSE4_1)
    found |= SSE41;
  if ((saved & 6) == 6 && b7 & bit_AVX2 && c & bit_FMA && c & bit_F16C)
    found |= AVX2 | (a71 & 1u << 4 ? AVXVNNI : 0);
  if (found & AVX2 && (saved & 0xe6) == 0xe6 && b7 & bit_AVX512F && b7 & bit_AVX512BW && b7 & bit_AVX512VL && b7 & bit_AVX512DQ)
    found |= AVX512BW | (c7 & bit_AVX512VNNI ? AVX512VNNI : 0) | (c7 & bit_AVX512VBMI ? AVX512VBMI : 0) | (a71 & 1u << 5 ? AVX512BF16 : 0);
  return found;
}
#elif defined __aarch64__
static unsigned probe (void)
{
  const unsigned long first = getauxval (AT_HWCAP), second = getauxval (AT_HWCAP2);
  return (first & HWCAP_ASIMD ? NEON : 0) | (first & HWCAP_ASIMDDP ? DOTPROD : 0) | (second & HWCAP2_I8MM ? I8MM : 0);
}
#else
static unsigned probe (void)
{
  return 0;
}
#endif

const char *xb_isa_name (xb_isa isa)
{
  return isa < XB_N_ISAS ? isas[isa].name : "unknown";
}

bool xb_isa_built (xb_isa isa)
{
  return isa < XB_N_ISAS && isas[isa].product;
}

bool xb_isa_available (xb_isa isa)
{
  return isa < XB_N_ISAS && (isas[isa].needs & ~probe ()) == 0;
}

static void fill (xb_isa isa)
{
  isas[isa].ops (&table.ops);
#if defined __x86_64__
  if (isas[isa].needs & AVX512BW && probe () & AVX512BF16)
    xb_ops_add_avx512bf16 (&table.ops);
#endif
  isas[isa].product (&table.product);
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
      if (strcmp (wanted, isas[isa].name) == 0) {
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
#if defined __x86_64__
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
