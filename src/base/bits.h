/* bits.h: sizes that come from a file, and the little number helpers that every layer needs.
 *
 * Every size that was read from a file goes through size_mul / size_add: they fail instead of
 * wrapping. */
#ifndef BASE_BITS_H
#define BASE_BITS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

/* *out = a * b; false (and *out = 0) if it does not fit. */
static inline bool size_mul(size_t a, size_t b, size_t *out) {
    if (__builtin_mul_overflow(a, b, out)) {
        *out = 0;
        return false;
    }
    return true;
}

/* *out = a + b; false (and *out = 0) if it does not fit. */
static inline bool size_add(size_t a, size_t b, size_t *out) {
    if (__builtin_add_overflow(a, b, out)) {
        *out = 0;
        return false;
    }
    return true;
}

/* The next multiple of `align` (a power of two) at or above n. n + align must not overflow. */
static inline size_t round_up(size_t n, size_t align) { return (n + align - 1) & ~(align - 1); }

static inline int int_min(int a, int b) { return a < b ? a : b; }
static inline int int_max(int a, int b) { return a > b ? a : b; }
static inline size_t size_min(size_t a, size_t b) { return a < b ? a : b; }

/* Float formats of checkpoints. bf16 is the upper half of a float32, so the conversion is exact. */
static inline float bf16_to_f32(uint16_t h) {
    uint32_t bits = (uint32_t)h << 16;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Exact, for every half including subnormals, infinities and NaN. */
static inline float f16_to_f32(uint16_t h) {
    uint32_t sign = (uint32_t)(h & 0x8000u) << 16;
    uint32_t rest = (uint32_t)(h & 0x7fffu) << 13;
    uint32_t bits = rest + 0x38000000u; /* exponent bias 127 - 15 */
    if (rest >= 0x0f800000u) {
        bits += 0x38000000u; /* infinity or NaN: exponent all ones */
    } else if (rest < 0x00800000u) {
        float small =
            (float)rest * 0x1p-37f; /* subnormal: value = mantissa * 2^-24, rest = mantissa << 13 */
        memcpy(&bits, &small, sizeof bits);
    }
    bits |= sign;
    float f;
    memcpy(&f, &bits, sizeof f);
    return f;
}

/* Round to nearest even. NaN stays NaN. */
static inline uint16_t f32_to_bf16(float f) {
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

/* Round to nearest even; too large becomes infinity, NaN stays NaN. */
uint16_t f32_to_f16(float f);

/* xoshiro256**: the generator of sampling and of tests. Same stream on every platform for a seed.
 */
typedef struct rng {
    uint64_t s[4];
} rng;

void rng_seed(rng *r, uint64_t seed);
uint64_t rng_next(rng *r);
/* Uniform in [0, 1), 53 bits. */
double rng_unit(rng *r);

#endif
