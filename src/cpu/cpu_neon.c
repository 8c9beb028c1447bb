/* cpu_neon.c: the float32 kernels for 64-bit ARM. */
#include "cpu/cpu_tables.h"

#ifdef __aarch64__
#include <arm_neon.h>
#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "cpu/cpu_bf16.h"
#include "cpu/cpu_math.h"

#define VW 4
enum { DOT_X = 6, GEMM_ROWS = 3 };

typedef float vf __attribute__((vector_size(16)));
typedef int32_t vi __attribute__((vector_size(16)));

static inline vf v_set(float a) { return (vf)vdupq_n_f32(a); }

static inline vf v_fma(vf a, vf b, vf c) {
    return (vf)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
}

static inline float v_half(uint16_t h) {
    __fp16 half;
    memcpy(&half, &h, sizeof half);
    return (float)half;
}

static inline float v_sum_one(vf a) { return (a[0] + a[2]) + (a[1] + a[3]); }

static inline vf v_load_half(const uint16_t *p) {
    return (vf)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(p)));
}

static inline void v_store_half(uint16_t *p, vf v) {
    vst1_u16(p, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)v)));
}

/* out[0], out[1]: a0 b0 a1 b1 ... */
static inline __attribute__((always_inline)) void v_zip(vf *out, vf a, vf b) {
    out[0] = (vf)vzip1q_f32((float32x4_t)a, (float32x4_t)b);
    out[1] = (vf)vzip2q_f32((float32x4_t)a, (float32x4_t)b);
}

static inline vf v_load_bytes(const int8_t *p) {
    int32_t four;
    memcpy(&four, p, sizeof four);
    int16x8_t wide = vmovl_s8(vreinterpret_s8_s32(vdup_n_s32(four)));
    return (vf)vcvtq_f32_s32(vmovl_s16(vget_low_s16(wide)));
}

static inline vf v_load_bf16(const uint16_t *p) { return (vf)vshll_n_u16(vld1_u16(p), 16); }

/* Integers [8j, 8j + 8) lie in `bits` bytes, four of them fit 32 bits. */
static inline __attribute__((always_inline)) void unpack_32(vf *q, const uint8_t *p, int bits) {
    const int32_t right[4] = {0, -bits, -2 * bits, -3 * bits};
    const int32x4_t shift = vld1q_s32(right);
    const uint32x4_t mask = vdupq_n_u32((1u << bits) - 1);
    for (int j = 0; j < 4; j++) {
        uint64_t eight = 0;
        memcpy(&eight, p + j * bits, (size_t)bits);
        uint32x4_t low = vshlq_u32(vdupq_n_u32((uint32_t)eight), shift);
        uint32x4_t high = vshlq_u32(vdupq_n_u32((uint32_t)(eight >> 4 * bits)), shift);
        q[2 * j] = (vf)vcvtq_f32_u32(vandq_u32(low, mask));
        q[2 * j + 1] = (vf)vcvtq_f32_u32(vandq_u32(high, mask));
    }
}

static inline vf v_min(vf a, vf b) { return (vf)vminq_f32((float32x4_t)a, (float32x4_t)b); }
static inline vf v_max(vf a, vf b) { return (vf)vmaxq_f32((float32x4_t)a, (float32x4_t)b); }

static inline void v_range(vf low, vf high, float *least, float *most) {
    *least = vminvq_f32((float32x4_t)low);
    *most = vmaxvq_f32((float32x4_t)high);
}

static inline void v_store_bytes(uint8_t *p, vf v) {
    uint16x4_t q = vmovn_u32(vcvtq_u32_f32((float32x4_t)v));
    uint8x8_t bytes = vmovn_u16(vcombine_u16(q, q));
    memcpy(p, &bytes, 4);
}

static inline void v_store_nibbles(uint8_t *p, vf a, vf b) {
    uint16x4_t low = vmovn_u32(vcvtq_u32_f32((float32x4_t)a));
    uint16x4_t high = vmovn_u32(vcvtq_u32_f32((float32x4_t)b));
    uint32x4_t two = vreinterpretq_u32_u16(vcombine_u16(low, high));
    uint16x4_t q = vmovn_u32(vsraq_n_u32(two, two, 12)); /* the even one, above it the odd one */
    uint8x8_t bytes = vmovn_u16(vcombine_u16(q, q));
    memcpy(p, &bytes, 4);
}

#include "cpu/kernels_f32.inc"

#include "cpu/kernels_gemm.inc"

#include "cpu/kernels_attn.inc"

#include "cpu/kernels_seq.inc"

#include "cpu/kernels_bf16.inc"

#include "cpu/kernels_pack.inc"

static const cpu_kernels table = KERNEL_TABLE("neon", neon, round_bf16, matmul_bf16);
static const cpu_kernels table_neondot = KERNEL_TABLE("neondot", neondot, round_bf16, matmul_bf16);
static const cpu_kernels table_neonmm = KERNEL_TABLE("neonmm", neonmm, round_bf16, matmul_bf16);

const cpu_kernels *cpu_table_neon(void) { return &table; }
const cpu_kernels *cpu_table_neondot(void) { return &table_neondot; }
const cpu_kernels *cpu_table_neonmm(void) { return &table_neonmm; }
#else
const cpu_kernels *cpu_table_neon(void) { return NULL; }
const cpu_kernels *cpu_table_neondot(void) { return NULL; }
const cpu_kernels *cpu_table_neonmm(void) { return NULL; }
#endif
