/* xbit_sse41.c: the vocabulary of SSE4.1: a quad is four registers of 4 rows. */
#include <smmintrin.h>

#define XB_VL 4
#define XB_SUFFIX sse41
#include "kernels/xbit_bytes.h"
#define XI_SHUFFLE(table, codes) ((xi) _mm_shuffle_epi8 ((__m128i) (table), (__m128i) (codes)))
#define MADDUBS(size, x) _mm_maddubs_epi16 ((__m128i) (size), (__m128i) (x))
#define MADD_WORDS(a, b) _mm_madd_epi16 ((__m128i) (a), (__m128i) (b))
#define MAGNITUDE(w) _mm_abs_epi8 ((__m128i) (w))
#define MOVE_SIGN(x, w) _mm_sign_epi8 ((__m128i) (x), (__m128i) (w))
#include "kernels/xbit_maddubs.h"
#include "kernels/xbit_product_tmpl.h"
