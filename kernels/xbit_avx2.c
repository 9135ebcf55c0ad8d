/* xbit_avx2.c: the vocabulary of AVX2: a quad is two registers of 8 rows. */
#include <immintrin.h>

#define XB_VL 8
#define XB_SUFFIX avx2
#include "kernels/xbit_bytes.h"
#define XI_SHUFFLE(table, codes) ((xi) _mm256_shuffle_epi8 ((__m256i) (table), (__m256i) (codes)))
#define MADDUBS(size, x) _mm256_maddubs_epi16 ((__m256i) (size), (__m256i) (x))
#define MADD_WORDS(a, b) _mm256_madd_epi16 ((__m256i) (a), (__m256i) (b))
#define MAGNITUDE(w) _mm256_abs_epi8 ((__m256i) (w))
#define MOVE_SIGN(x, w) _mm256_sign_epi8 ((__m256i) (x), (__m256i) (w))
#include "kernels/xbit_maddubs.h"
#include "kernels/xbit_product_tmpl.h"
