/* test_quant.c: weight formats against twins that look at one bit at a time. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "base/bits.h"
#include "quant/blocks.h"

static const int all_bits[] = {2, 3, 4, 5, 6, 8};
static const int all_groups[] = {32, 64, 128};

#define LENGTH(a) ((int)(sizeof(a) / sizeof *(a)))

static float random_float(rng *r) { return (float)(rng_unit(r) * 2 - 1); }

/* Value c of a row, from 32-bit words, bit by bit. */
static unsigned twin_value(const uint32_t *words, int bits, int c) {
    unsigned q = 0;
    for (int b = 0; b < bits; b++) {
        int at = c * bits + b;
        q |= (words[at / 32] >> (at % 32) & 1u) << b;
    }
    return q;
}

static void test_pack(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 1);
    for (int i = 0; i < LENGTH(all_bits); i++) {
        for (int cols = 32; cols <= 160; cols += 32) {
            uint8_t q[160], back[160];
            uint32_t words[40 + 1];
            words[cols * all_bits[i] / 32] = 0xfeedf00d;
            for (int c = 0; c < cols; c++) q[c] = (uint8_t)(rng_next(&r) % (1u << all_bits[i]));
            affine_pack_row(words, q, all_bits[i], cols);
            assert_int_equal(words[cols * all_bits[i] / 32], 0xfeedf00d);
            for (int c = 0; c < cols; c++)
                assert_int_equal(twin_value(words, all_bits[i], c), q[c]);
            affine_unpack_row(back, words, all_bits[i], cols);
            assert_memory_equal(back, q, (size_t)cols);
        }
    }
}

/* The bytes in a known order: what MLX writes for 0, 1, 2 ... */
static void test_pack_known(void **state) {
    (void)state;
    uint8_t q[32], w[32];
    for (int c = 0; c < 32; c++) q[c] = (uint8_t)(c & 15);
    affine_pack_row(w, q, 4, 32);
    const uint8_t four[] = {0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe};
    assert_memory_equal(w, four, sizeof four);
    for (int c = 0; c < 32; c++) q[c] = (uint8_t)(c & 7);
    affine_pack_row(w, q, 3, 32);
    const uint8_t three[] = {0x88, 0xc6, 0xfa}; /* 111 110 101 100 011 010 001 000 */
    assert_memory_equal(w, three, sizeof three);
}

static void test_affine_rows(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 2);
    enum { ROWS = 3, COLS = 256 };
    uint32_t words[ROWS * COLS / 4];
    uint16_t scales[ROWS * COLS / 32], biases[ROWS * COLS / 32];
    for (int i = 0; i < LENGTH(all_bits) * LENGTH(all_groups) * 2; i++) {
        qformat f = {QK_AFFINE, all_bits[i % 6], all_groups[i / 6 % 3], i / 18 == 1};
        for (int k = 0; k < LENGTH(words); k++) words[k] = (uint32_t)rng_next(&r);
        for (int k = 0; k < LENGTH(scales); k++) {
            scales[k] = f.scales_f16 ? f32_to_f16(random_float(&r)) : f32_to_bf16(random_float(&r));
            biases[k] = f.scales_f16 ? f32_to_f16(random_float(&r)) : f32_to_bf16(random_float(&r));
        }
        qmat m = {f, ROWS, COLS, words, scales, biases};
        for (int row = 0; row < ROWS; row++) {
            float out[COLS];
            qmat_row_f32(out, &m, row);
            for (int c = 0; c < COLS; c++) {
                int g = row * (COLS / f.group) + c / f.group;
                float s = f.scales_f16 ? f16_to_f32(scales[g]) : bf16_to_f32(scales[g]);
                float b = f.scales_f16 ? f16_to_f32(biases[g]) : bf16_to_f32(biases[g]);
                unsigned q = twin_value(words + row * COLS * f.bits / 32, f.bits, c);
                float product = (float)q * s; /* exact, so two roundings are one */
                float want = product + b;
                assert_memory_equal(&out[c], &want, sizeof want);
            }
        }
    }
}

static void test_dense_rows(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 3);
    enum { ROWS = 2, COLS = 37 };
    float x[ROWS * COLS], out[COLS];
    uint8_t w[sizeof x];
    for (int i = 0; i < ROWS * COLS; i++) x[i] = random_float(&r);
    for (int kind = QK_F32; kind <= QK_BF16; kind++) {
        qmat m = {{(qkind)kind, 0, 0, false}, ROWS, COLS, w, NULL, NULL};
        for (int row = 0; row < ROWS; row++) {
            dense_pack_row(w + (size_t)row * qformat_row_bytes(m.format, COLS), x + row * COLS,
                           (qkind)kind, COLS);
        }
        for (int row = 0; row < ROWS; row++) {
            qmat_row_f32(out, &m, row);
            for (int c = 0; c < COLS; c++) {
                float v = x[row * COLS + c];
                float want = kind == QK_F32   ? v
                             : kind == QK_F16 ? f16_to_f32(f32_to_f16(v))
                                              : bf16_to_f32(f32_to_bf16(v));
                assert_memory_equal(&out[c], &want, sizeof want);
            }
        }
        qmat view = qmat_rows(&m, 1, 1);
        float again[COLS];
        qmat_row_f32(again, &view, 0);
        assert_memory_equal(again, out, sizeof out);
    }
}

/* Every value ends within half a step of the original, plus what rounding scale and bias costs. */
static void test_quantise(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 4);
    enum { COLS = 256 };
    float x[COLS], out[COLS];
    for (int i = 0; i < LENGTH(all_bits) * LENGTH(all_groups) * 2; i++) {
        qformat f = {QK_AFFINE, all_bits[i % 6], all_groups[i / 6 % 3], i / 18 == 1};
        uint32_t words[COLS / 4];
        uint16_t scales[COLS / 32], biases[COLS / 32];
        for (int c = 0; c < COLS; c++) x[c] = random_float(&r) * 0.1f;
        for (int c = 0; c < f.group; c++) x[c] = 0.25f; /* a constant group is exact */
        affine_row to = {words, scales, biases, f, COLS};
        assert_true(affine_quantise_row(&to, x, QK_F32));
        qmat m = {f, 1, COLS, words, scales, biases};
        qmat_row_f32(out, &m, 0);
        for (int c = 0; c < COLS; c++) {
            float s = affine_scale_f32(scales, f.scales_f16, (size_t)(c / f.group));
            float edge = 0.1f / 128 + s * (float)((1 << f.bits) - 1) / 128;
            assert_true(fabsf(out[c] - x[c]) <= s / 2 + edge);
            if (c < f.group) assert_true(out[c] == 0.25f);
        }
    }
}

/* Numbers at the edge of the formats stay finite. */
static void test_quantise_extremes(void **state) {
    (void)state;
    float x[32], out[32];
    uint32_t words[8];
    uint16_t scale, bias;
    for (int f16 = 0; f16 < 2; f16++) {
        for (int sign = -1; sign <= 1; sign += 2) {
            for (int c = 0; c < 32; c++) x[c] = (float)sign * (c & 1 ? 3.4e38f : 1e-42f);
            x[5] = -x[5];
            affine_row to = {words, &scale, &bias, {QK_AFFINE, 4, 32, f16}, 32};
            assert_true(affine_quantise_row(&to, x, QK_F32));
            qmat m = {to.format, 1, 32, words, &scale, &bias};
            qmat_row_f32(out, &m, 0);
            for (int c = 0; c < 32; c++) assert_true(isfinite(out[c]));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_pack),        cmocka_unit_test(test_pack_known),
        cmocka_unit_test(test_affine_rows), cmocka_unit_test(test_dense_rows),
        cmocka_unit_test(test_quantise),    cmocka_unit_test(test_quantise_extremes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
