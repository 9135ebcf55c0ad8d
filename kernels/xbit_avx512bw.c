/* xbit_avx512bw.c: the vocabulary of AVX-512 without VNNI: a quad is one register of 16 rows. There is no vpsignb of this width. */
#include <immintrin.h>

#define XB_VL 16
#define XB_SUFFIX avx512bw
#include "kernels/xbit_bytes.h"
#define XI_SHUFFLE(table, codes) ((xi) _mm512_shuffle_epi8 ((__m512i) (table), (__m512i) (codes)))
#define MADDUBS(size, x) _mm512_maddubs_epi16 ((__m512i) (size), (__m512i) (x))
#define MADD_WORDS(a, b) _mm512_madd_epi16 ((__m512i) (a), (__m512i) (b))
#define MAGNITUDE(w) _mm512_abs_epi8 ((__m512i) (w))
#define MOVE_SIGN(x, w) _mm512_mask_sub_epi8 ((__m512i) (x), _mm512_movepi8_mask ((__m512i) (w)), _mm512_setzero_si512 (), (__m512i) (x))
#include "kernels/xbit_maddubs.h"
#include "kernels/xbit_product_tmpl.h"
