/* affine.c: rows of affine quantised matrices, value = q * scale + bias per group of 32, 64 or 128.
 *
 *     bit stream of a row, 3 bits:   byte 0          byte 1          byte 2
 *                                    c2'c1 c1 c1 c0 c0 c0 ...        value c at bits [3c, 3c + 3)
 *
 * Little-endian 32-bit words filled from the low bit are the same as bytes filled from the low bit,
 * so values are cut out of bytes: at most two each. Plain code on purpose: the oracle. */
#include "quant/blocks.h"

#include <float.h>
#include <math.h>
#include <string.h>

#include "base/bits.h"

void affine_unpack_row(uint8_t *q, const void *w, int bits, int cols) {
    const uint8_t *bytes = w;
    unsigned mask = (1u << bits) - 1;
    for (int c = 0; c < cols; c++) {
        size_t bit = (size_t)c * (size_t)bits;
        unsigned shift = bit & 7;
        unsigned two = bytes[bit >> 3];
        if (shift + (unsigned)bits > 8) two |= (unsigned)bytes[(bit >> 3) + 1] << 8;
        q[c] = (uint8_t)(two >> shift & mask);
    }
}

/* Eight values are `bits` whole bytes. Four and eight bits, the usual cases, apart: they become
 * wide instructions. */
void affine_pack_row(void *w, const uint8_t *q, int bits, int cols) {
    uint8_t *bytes = w;
    if (bits == 4) {
        for (int i = 0; i < cols / 2; i++) bytes[i] = (uint8_t)(q[2 * i] | q[2 * i + 1] << 4);
        return;
    }
    if (bits == 8) {
        memcpy(w, q, (size_t)cols);
        return;
    }
    for (int c = 0; c < cols; c += 8) {
        uint64_t eight = 0;
        for (int i = 0; i < 8; i++) eight |= (uint64_t)q[c + i] << (i * bits);
        for (int i = 0; i < bits; i++) *bytes++ = (uint8_t)(eight >> (8 * i));
    }
}

float affine_scale_f32(const void *scales, bool scales_f16, size_t i) {
    uint16_t half;
    memcpy(&half, (const uint8_t *)scales + i * 2, sizeof half);
    return scales_f16 ? f16_to_f32(half) : bf16_to_f32(half);
}

void affine_row_f32(float *out, const qmat *m, int row) {
    enum { PIECE = 32 }; /* divides every group */
    qformat f = m->format;
    const uint8_t *w = (const uint8_t *)m->w + (size_t)row * qformat_row_bytes(f, m->cols);
    size_t first = (size_t)row * (size_t)(m->cols / f.group);
    for (int c = 0; c < m->cols; c += PIECE) {
        uint8_t q[PIECE];
        affine_unpack_row(q, w + (size_t)(c / 8) * (size_t)f.bits, f.bits, PIECE);
        float scale = affine_scale_f32(m->scales, f.scales_f16, first + (size_t)(c / f.group));
        float bias = affine_scale_f32(m->biases, f.scales_f16, first + (size_t)(c / f.group));
        for (int i = 0; i < PIECE; i++) out[c + i] = fmaf((float)q[i], scale, bias);
    }
}

/* x in the stored 16-bit format, never infinite. */
static uint16_t round_half(float x, bool f16) {
    float limit = f16 ? 65504.0f : 0x1.fep127f;
    if (x > limit) x = limit;
    if (x < -limit) x = -limit;
    return f16 ? f32_to_f16(x) : f32_to_bf16(x);
}

#define LANES 4
typedef float lanes __attribute__((vector_size(4 * LANES)));
typedef int32_t lanes_int __attribute__((vector_size(4 * LANES)));

/* x where mask is all ones, else y. */
static inline lanes pick_lanes(lanes_int mask, lanes x, lanes y) {
    return (lanes)((mask & (lanes_int)x) | (~mask & (lanes_int)y));
}

/* Smallest and largest of x[n], n a multiple of LANES. Spelled out in lanes: as plain loops the
 * compilers leave these one by one. */
static inline void range_of(const float *x, int n, float *low, float *high) {
    lanes l, h, next;
    memcpy(&l, x, sizeof l);
    h = l;
    for (int i = LANES; i < n; i += LANES) {
        memcpy(&next, x + i, sizeof next);
        l = pick_lanes(next < l, next, l);
        h = pick_lanes(next > h, next, h);
    }
    *low = l[0];
    *high = h[0];
    for (int k = 1; k < LANES; k++) {
        *low = l[k] < *low ? l[k] : *low;
        *high = h[k] > *high ? h[k] : *high;
    }
}

static void quantise_group(uint8_t *q, uint16_t *scale, uint16_t *bias, const float *x, qformat f) {
    float low, high, top = (float)((1 << f.bits) - 1);
    range_of(x, f.group, &low, &high);
    *scale = round_half(high / top - low / top, f.scales_f16);
    *bias = round_half(low, f.scales_f16);
    float s = affine_scale_f32(scale, f.scales_f16, 0), b = affine_scale_f32(bias, f.scales_f16, 0);
    if (!(s > 0)) {
        memset(q, 0, (size_t)f.group);
        return;
    }
    for (int i = 0; i < f.group; i++) {
        float steps = (x[i] - b) / s;
        steps = steps > 0 ? steps : 0;
        steps = steps < top ? steps : top;
        q[i] = (uint8_t)(int)(steps + 0.5f);
    }
}

void affine_quantise_row(const affine_row *out, const float *x) {
    qformat f = out->format;
    for (int g = 0; g < out->cols / f.group; g++) {
        uint8_t q[128];
        uint16_t scale, bias;
        quantise_group(q, &scale, &bias, x + (size_t)g * (size_t)f.group, f);
        size_t group_bytes = (size_t)f.group * (size_t)f.bits / 8;
        affine_pack_row((uint8_t *)out->w + (size_t)g * group_bytes, q, f.bits, f.group);
        memcpy((uint8_t *)out->scales + (size_t)g * 2, &scale, 2);
        memcpy((uint8_t *)out->biases + (size_t)g * 2, &bias, 2);
    }
}
