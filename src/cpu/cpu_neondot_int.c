/* cpu_neondot_int.c: the integer path for 64-bit ARM with the dot product instructions. */
#include "cpu/cpu_tables.h"

#ifdef __ARM_FEATURE_DOTPROD
#include <arm_neon.h>
#include <string.h>

#include "base/bits.h"
#include "cpu/cpu_math.h"

typedef int32_t vi __attribute__((vector_size(16)));

/* Both bytes are signed: of 8 bits the weights are taken less 128 = 127 + 1, whose part is added
 * again. */
static inline __attribute__((always_inline)) vi i_dot(vi acc, vi w, vi x, int bits) {
    int8x16_t q = (int8x16_t)w, a = (int8x16_t)x;
    int32x4_t sum = (int32x4_t)acc;
    if (bits == 8) {
        q = vreinterpretq_s8_u8(veorq_u8((uint8x16_t)w, vdupq_n_u8(128)));
        sum = vdotq_s32(vdotq_s32(sum, a, vdupq_n_s8(127)), a, vdupq_n_s8(1));
    }
    return (vi)vdotq_s32(sum, q, a);
}

#include "cpu/kernels_int_neon.inc"

#include "cpu/kernels_int.inc"

void cpu_quantize_neondot(const cpu_actq *a, int t, const float *x) { quantize(a, t, x); }

void cpu_matmul_int_neondot(const cpu_matmul_int *m, int row_begin, int row_end) {
    matmul_int(m, row_begin, row_end);
}
#endif
