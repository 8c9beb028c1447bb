/* cpu_avxvnni_int.c: the integer path for x86-64 with AVX2, FMA, F16C and AVX-VNNI. */
#include "cpu/cpu_tables.h"

#ifdef __AVXVNNI__
#include <immintrin.h>
#include <string.h>

#include "base/bits.h"
#include "cpu/cpu_math.h"

typedef int32_t vi __attribute__((vector_size(32)));

static inline __attribute__((always_inline)) vi i_dot(vi acc, vi w, vi x, int bits) {
    (void)bits;
    return (vi)_mm256_dpbusd_avx_epi32((__m256i)acc, (__m256i)w, (__m256i)x);
}

#include "cpu/kernels_int_256.inc"

#include "cpu/kernels_int.inc"

void cpu_quantize_avxvnni(const cpu_actq *a, int t, const float *x) { quantize(a, t, x); }

void cpu_matmul_int_avxvnni(const cpu_matmul_int *m, int row_begin, int row_end) {
    matmul_int(m, row_begin, row_end);
}
#endif
