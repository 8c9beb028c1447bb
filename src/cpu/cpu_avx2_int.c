/* cpu_avx2_int.c: the integer path for x86-64 with AVX2, FMA and F16C. */
#include "cpu/cpu_tables.h"

#ifdef __AVX2__
#include <immintrin.h>
#include <string.h>

#include "base/bits.h"
#include "cpu/cpu_math.h"

typedef int32_t vi __attribute__((vector_size(32)));

/* vpmaddubsw saturates sums of two products at 16 bits: 63 * 127 * 2 fits, 255 * 127 * 2 does not.
 * Of 8 bits the highest is taken apart, and comes back with the factor of the next step. */
static inline __attribute__((always_inline)) vi i_dot(vi acc, vi w, vi x, int bits) {
    __m256i q = (__m256i)w, sum = (__m256i)acc;
    if (bits == 8) {
        __m256i high = _mm256_and_si256(_mm256_srli_epi16(q, 7), _mm256_set1_epi8(1));
        __m256i pairs = _mm256_maddubs_epi16(high, (__m256i)x);
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(128)));
        q = _mm256_and_si256(q, _mm256_set1_epi8(127));
    }
    __m256i pairs = _mm256_maddubs_epi16(q, (__m256i)x);
    return (vi)_mm256_add_epi32(sum, _mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}

#include "cpu/kernels_int_256.inc"

#include "cpu/kernels_int.inc"

void cpu_quantize_avx2(const cpu_actq *a, int t, const float *x) { quantize(a, t, x); }

void cpu_matmul_int_avx2(const cpu_matmul_int *m, int row_begin, int row_end) {
    matmul_int(m, row_begin, row_end);
}
#endif
