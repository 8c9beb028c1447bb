/* cpu_neonmm_int.c: the integer path for 64-bit ARM with the matrix instructions of bytes (i8mm):
 * weights are unsigned in them, so 8 bits are no special case. */
#include "cpu/cpu_tables.h"

#ifdef __ARM_FEATURE_MATMUL_INT8
#include <arm_neon.h>
#include <string.h>

#include "base/bits.h"
#include "cpu/cpu_math.h"

typedef int32_t vi __attribute__((vector_size(16)));

static inline __attribute__((always_inline)) vi i_dot(vi acc, vi w, vi x, int bits) {
    (void)bits;
    return (vi)vusdotq_s32((int32x4_t)acc, (uint8x16_t)w, (int8x16_t)x);
}

#define TILES_OF_PAIRS

#include "cpu/kernels_int_neon.inc"

#include "cpu/kernels_int.inc"

void cpu_quantize_neonmm(const cpu_actq *a, int t, const float *x) { quantize(a, t, x); }

void cpu_matmul_int_neonmm(const cpu_matmul_int *m, int row_begin, int row_end) {
    matmul_int(m, row_begin, row_end);
}
#endif
