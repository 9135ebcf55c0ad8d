/* xbit_avx512vnni.c: the vocabulary of AVX-512 with VNNI: a quad is one register of 16 rows. */
#include <immintrin.h>

#define XB_VL 16
#define XB_SUFFIX avx512vnni
#include "kernels/xbit_bytes.h"
#define XI_SHUFFLE(table, codes) ((xi) _mm512_shuffle_epi8 ((__m512i) (table), (__m512i) (codes)))
#define DPBUSD(acc, codes, x) _mm512_dpbusd_epi32 ((__m512i) (acc), (__m512i) (codes), (__m512i) (x))
#define XI_TOGETHER 2
#include "kernels/xbit_vnni.h"
#include "kernels/xbit_product_tmpl.h"
