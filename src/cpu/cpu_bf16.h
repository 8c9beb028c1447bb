/* cpu_bf16.h: rows of activations in BF16, the part that is the same on every instruction set; the
 * compiler makes vectors of these loops. Private to this folder.
 *
 * A row is scaled by a power of two that puts its largest magnitude into [2^40, 2^41), and what is
 * then below 2^14 becomes 0. Weights that are subnormal count as 0 too. So every product, and with
 * it every sum, is a multiple of 2^(14 - 7) 2^(-126 - 7) = 2^-126: nothing is ever subnormal, and
 * instructions that flush subnormal numbers give the same bits as those that do not. */
#ifndef CPU_CPU_BF16_H
#define CPU_CPU_BF16_H

#include "cpu/cpu_math.h"
#include "cpu/cpu_tables.h"

#define BF16_TOP_EXPONENT 40
#define BF16_LEAST        0x46800000u /* bits of 2^14 */
#define BF16_NAN          0x7fc00000u

/* What row t is multiplied with; 0 when it holds an infinity or NaN. back[t] is its inverse. */
static inline float bf16_scale(const cpu_actb *a, int t, const float *x) {
    uint32_t top = 0; /* magnitudes as bits: order is no question, NaN is the largest */
    for (int c = 0; c < a->cols; c++) {
        uint32_t bits = float_bits(x[c]) & 0x7fffffffu;
        top = bits > top ? bits : top;
    }
    int exponent = (int)(top >> 23) - 127;
    int up = BF16_TOP_EXPONENT - exponent;
    up = up < 126 ? up : 126; /* a row of numbers below 2^-112 becomes 0 */
    a->back[t] = bits_float((uint32_t)(127 - up) << 23);
    return exponent == 128 ? 0 : bits_float((uint32_t)(127 + up) << 23);
}

/* The bits of x * scale in BF16, in the upper half. */
static inline uint32_t bf16_bits(float x, float scale) {
    uint32_t bits = float_bits(x * scale);
    uint32_t near = (bits + 0x7fffu + ((bits >> 16) & 1u)) & 0xffff0000u;
    near = (bits & 0x7fffffffu) < BF16_LEAST ? 0 : near;
    return scale > 0 ? near : BF16_NAN;
}

/* One weight as the products take it. */
static inline float bf16_weight(uint16_t w) {
    uint32_t bits = (uint32_t)w << 16;
    return bits_float(bits & 0x7f800000u ? bits : 0);
}

#endif
