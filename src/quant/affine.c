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

/* Eight values are `bits` whole bytes. */
void affine_pack_row(void *w, const uint8_t *q, int bits, int cols) {
    uint8_t *bytes = w;
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

affine_pair affine_fit(float low, float high, qformat f) {
    float top = (float)((1 << f.bits) - 1);
    low += 0.0f; /* no -0: which of two zeroes was met first is no question then */
    high += 0.0f;
    return (affine_pair){.scale = round_half(high / top - low / top, f.scales_f16),
                         .bias = round_half(low, f.scales_f16)};
}

/* False: a number of x that is not finite. */
static bool quantise_group(uint8_t *q, affine_pair *fitted, const float *x, qformat f) {
    float low = x[0], high = x[0], top = (float)((1 << f.bits) - 1);
    for (int i = 0; i < f.group; i++) {
        if (!(fabsf(x[i]) <= FLT_MAX)) return false;
        low = x[i] < low ? x[i] : low;
        high = x[i] > high ? x[i] : high;
    }
    *fitted = affine_fit(low, high, f);
    float s = affine_scale_f32(&fitted->scale, f.scales_f16, 0);
    float b = affine_scale_f32(&fitted->bias, f.scales_f16, 0);
    for (int i = 0; i < f.group; i++) {
        float steps = s > 0 ? (x[i] - b) / s : 0;
        steps = steps > 0 ? steps : 0;
        steps = steps < top ? steps : top;
        q[i] = (uint8_t)(int)(steps + 0.5f);
    }
    return true;
}

bool affine_quantise_row(const affine_row *out, const void *x, qkind kind) {
    qformat f = out->format;
    qmat row = {.format = {.kind = kind}, .rows = 1, .cols = f.group, .w = x};
    size_t source = qformat_row_bytes(row.format, f.group), packed = qformat_row_bytes(f, f.group);
    for (int g = 0; g < out->cols / f.group; g++) {
        float values[AFFINE_GROUP_MAX];
        uint8_t q[AFFINE_GROUP_MAX];
        affine_pair fitted;
        row.w = (const uint8_t *)x + (size_t)g * source;
        dense_row_f32(values, &row, 0);
        if (!quantise_group(q, &fitted, values, f)) return false;
        affine_pack_row((uint8_t *)out->w + (size_t)g * packed, q, f.bits, f.group);
        memcpy((uint8_t *)out->scales + (size_t)g * 2, &fitted.scale, 2);
        memcpy((uint8_t *)out->biases + (size_t)g * 2, &fitted.bias, 2);
    }
    return true;
}
