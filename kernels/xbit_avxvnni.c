/* xbit_avxvnni.c: the vocabulary of AVX2 with VNNI in its VEX encoding: a quad is two registers of 8 rows. */
#include <immintrin.h>

#define XB_VL 8
#ifdef XB_EVEX_TWIN /* the tests run the same source with AVX-512's encoding where this one is absent */
#define XB_SUFFIX avxvnni_evex
#define DPBUSD(acc, codes, x) _mm256_dpbusd_epi32 ((__m256i) (acc), (__m256i) (codes), (__m256i) (x))
#else
#define XB_SUFFIX avxvnni
#define DPBUSD(acc, codes, x) _mm256_dpbusd_avx_epi32 ((__m256i) (acc), (__m256i) (codes), (__m256i) (x))
#endif
#include "kernels/xbit_bytes.h"
#define XI_SHUFFLE(table, codes) ((xi) _mm256_shuffle_epi8 ((__m256i) (table), (__m256i) (codes)))
#define XI_TOGETHER 2
#include "kernels/xbit_vnni.h"
#include "kernels/xbit_product_tmpl.h"
