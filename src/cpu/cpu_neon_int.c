/* cpu_neon_int.c: the integer path for every 64-bit ARM. */
#include "cpu/cpu_tables.h"

#ifdef __aarch64__
#include <arm_neon.h>
#include <string.h>

#include "base/bits.h"
#include "cpu/cpu_math.h"

typedef int32_t vi __attribute__((vector_size(16)));

/* Sums of two products of bytes fit 16 bits up to 63 * 127 * 2; of 8 bits the weights are taken
 * less 128, whose part is added again. */
static inline __attribute__((always_inline)) vi i_dot(vi acc, vi w, vi x, int bits) {
    int8x16_t q = (int8x16_t)w, a = (int8x16_t)x;
    int32x4_t sum = (int32x4_t)acc;
    if (bits == 8) {
        q = vreinterpretq_s8_u8(veorq_u8((uint8x16_t)w, vdupq_n_u8(128)));
        int32x4_t whole = vpaddlq_s16(vpaddlq_s8(a));
        sum = vaddq_s32(sum, vshlq_n_s32(whole, 7));
    }
    int32x4_t low = vpaddlq_s16(vmull_s8(vget_low_s8(q), vget_low_s8(a)));
    int32x4_t high = vpaddlq_s16(vmull_high_s8(q, a));
    return (vi)vaddq_s32(sum, vpaddq_s32(low, high));
}

#include "cpu/kernels_int_neon.inc"

#include "cpu/kernels_int.inc"

void cpu_quantize_neon(const cpu_actq *a, int t, const float *x) { quantize(a, t, x); }

void cpu_matmul_int_neon(const cpu_matmul_int *m, int row_begin, int row_end) {
    matmul_int(m, row_begin, row_end);
}
#endif
