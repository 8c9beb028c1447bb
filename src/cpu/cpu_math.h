/* cpu_math.h: exp, log and their relatives for one float. kernels_f32.inc has the same operations
 * in the same order for a vector; nothing here is left to a library, whose last bit differs.
 *
 *   exp   x = n ln2 + r, |r| <= ln2 / 2; Taylor to r^7 (5e-9); 2^n in two factors, so that results
 *         fade through the subnormals and end in infinity without a branch
 *   log   x = 2^e m, m in [2/3, 4/3); s = (m - 1) / (m + 1); 2 atanh(s) to s^11 (2e-9)
 *
 * Measured against double over all exponents: exp within 0.9 units in the last place, log
 * within 2.6, log1p within 3.1. */
#ifndef CPU_CPU_MATH_H
#define CPU_CPU_MATH_H

#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/bits.h"

#define EXP_LOW   -104.0f /* exp rounds to 0 */
#define EXP_HIGH  89.0f   /* exp is infinite */
#define LOG2E     0x1.715476p+0f
#define LN2_HIGH  0x1.62e4p-1f /* 15 bits: n * LN2_HIGH is exact */
#define LN2_LOW   0x1.7f7d1cp-20f
#define ROUND_BIG 0x1.8p+23f /* adding and subtracting it rounds to nearest even */

#define EXP_C2 (1.0f / 2)
#define EXP_C3 (1.0f / 6)
#define EXP_C4 (1.0f / 24)
#define EXP_C5 (1.0f / 120)
#define EXP_C6 (1.0f / 720)
#define EXP_C7 (1.0f / 5040)

#define LOG_C3  (2.0f / 3)
#define LOG_C5  (2.0f / 5)
#define LOG_C7  (2.0f / 7)
#define LOG_C9  (2.0f / 9)
#define LOG_C11 (2.0f / 11)

/* Bits of the float in [2/3, 1.0) where the mantissa range of log starts: (1 + 1/3) / 2. */
#define LOG_SPLIT 0x3f2aaaabu

static inline uint32_t float_bits(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    return bits;
}

static inline float bits_float(uint32_t bits) {
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

static inline float exp_1(float x) {
    x = x < EXP_LOW ? EXP_LOW : x;
    x = x > EXP_HIGH ? EXP_HIGH : x;
    float big = fmaf(x, LOG2E, ROUND_BIG);
    float n = big - ROUND_BIG;
    float r = fmaf(n, -LN2_HIGH, x);
    r = fmaf(n, -LN2_LOW, r);
    float p = fmaf(EXP_C7, r, EXP_C6);
    p = fmaf(p, r, EXP_C5);
    p = fmaf(p, r, EXP_C4);
    p = fmaf(p, r, EXP_C3);
    p = fmaf(p, r, EXP_C2);
    p = fmaf(p, r, 1.0f);
    p = fmaf(p, r, 1.0f);
    /* The low bits of big are n + 2^22. */
    int32_t whole = (int32_t)(float_bits(big) - float_bits(ROUND_BIG));
    int32_t half = whole >> 1;
    float a = bits_float((uint32_t)(half + 127) << 23);
    float b = bits_float((uint32_t)(whole - half + 127) << 23);
    return p * a * b;
}

/* x positive, normal and finite. */
static inline float log_1(float x) {
    uint32_t shifted = float_bits(x) - LOG_SPLIT;
    float e = (float)((int32_t)shifted >> 23);
    float m = bits_float((shifted & 0x7fffffu) + LOG_SPLIT);
    float s = (m - 1.0f) / (m + 1.0f);
    float z = s * s;
    float p = fmaf(LOG_C11, z, LOG_C9);
    p = fmaf(p, z, LOG_C7);
    p = fmaf(p, z, LOG_C5);
    p = fmaf(p, z, LOG_C3);
    p = fmaf(p, z, 2.0f);
    return fmaf(e, LN2_HIGH, fmaf(e, LN2_LOW, p * s));
}

/* log(1 + u), 0 <= u < 2^60; the second term repairs what 1 + u rounded away. */
static inline float log1p_1(float u) {
    float w = 1.0f + u;
    return log_1(w) + (u - (w - 1.0f)) / w;
}

static inline float softplus_1(float x) {
    float low = x > 20.0f ? 20.0f : x;
    float soft = log1p_1(exp_1(low));
    return x > 20.0f ? x : soft;
}

/* to_q8 of cpu.h for one group of n values. */
static inline uint16_t q8_group(uint8_t *out, const float *x, int n) {
    uint32_t top = 0; /* magnitudes as bits: order is no question, NaN is the largest */
    for (int i = 0; i < n; i++) {
        uint32_t bits = float_bits(x[i]) & 0x7fffffffu;
        top = bits > top ? bits : top;
    }
    uint16_t stored = f32_to_f16(bits_float(top) / 127.0f);
    float scale = f16_to_f32(stored), steps = scale > 0 ? 1.0f / scale : 0;
    for (int i = 0; i < n; i++) {
        float v = x[i] * steps;
        v = v <= 127.0f ? v : 127.0f; /* so is NaN */
        v = v >= -127.0f ? v : -127.0f;
        out[i] = (uint8_t)(float_bits(v + ROUND_BIG) - float_bits(ROUND_BIG));
    }
    return stored;
}

static inline float sigmoid_1(float x) { return 1.0f / (1.0f + exp_1(-x)); }
static inline float silu_1(float x) { return x / (1.0f + exp_1(-x)); }

#endif
