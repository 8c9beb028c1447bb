/* test_kernels_pack.c: rows of weights quantised: every table that this machine runs against
 * affine_quantise_row, byte for byte. */
#include "kernels_common.h"

enum { COLS = 384 }; /* of every group a few */

static const int all_bits[] = {2, 3, 4, 5, 6, 8};
static const int all_groups[] = {32, 64, 128};

typedef struct row { /* what one quantising wrote; the parts end before a forbidden page */
    affine_row to;
    bool finite;
} row;

static row make(const cpu_kernels *k, qformat f, const void *x, qkind kind) {
    affine_row to = {guarded(qformat_row_bytes(f, COLS)), guarded(qformat_scale_row_bytes(f, COLS)),
                     guarded(qformat_scale_row_bytes(f, COLS)), f, COLS};
    return (row){to, k->quantize_weights(&to, x, kind)};
}

static void same_rows(const char *what, const cpu_kernels *k, const row *got, const row *want) {
    qformat f = want->to.format;
    size_t w = qformat_row_bytes(f, COLS), s = qformat_scale_row_bytes(f, COLS);
    if (got->finite != want->finite || memcmp(got->to.scales, want->to.scales, s) != 0 ||
        memcmp(got->to.biases, want->to.biases, s) != 0 || memcmp(got->to.w, want->to.w, w) != 0)
        fail_msg("%s, %s: %d bits, group %d, f16 %d", k->name, what, f.bits, f.group, f.scales_f16);
}

/* Groups as they come: of all magnitudes, constant, of zeroes with both signs, with halves of steps
 * exactly, at the ends of the formats. */
static void fill(rng *r, float *x, int n, qkind kind) {
    float largest = kind == QK_F16 ? 65504.0f : 0x1.fep127f;
    for (int g = 0; g < n; g += 32) {
        int what = (int)(rng_next(r) % 8), exponent = (int)(rng_next(r) % 200) - 120;
        float size = ldexpf(1, kind == QK_F16 ? exponent % 15 : exponent);
        for (int i = g; i < g + 32; i++) {
            float v = random_float(r);
            x[i] = what == 0   ? size
                   : what == 1 ? (v > 0 ? 0.0f : -0.0f)
                   : what == 2 ? floorf(v * 16) * 0.5f
                   : what == 3 ? (v > 0 ? largest : -largest)
                   : what == 4 ? fabsf(floorf(v * 3)) * -0.0f
                   : what == 5 ? ldexpf(v, (int)(rng_next(r) % 40) - 30)
                               : v * size;
        }
    }
}

static void *dense(const float *x, qkind kind) {
    void *w = guarded(qformat_row_bytes((qformat){.kind = kind}, COLS));
    dense_pack_row(w, x, kind, COLS);
    return w;
}

static void each_format(rng *r, qkind kind, int i) {
    static const char *const names[] = {"f32", "f16", "bf16"};
    qformat f = {QK_AFFINE, all_bits[i % 6], all_groups[i / 6 % 3], i / 18 % 2};
    float x[COLS];
    fill(r, x, COLS, kind);
    void *w = dense(x, kind);
    row want = make(cpu_at(0), f, w, kind);
    assert_true(want.finite);
    for (int t = 1; cpu_at(t); t++) {
        row got = make(cpu_at(t), f, w, kind);
        same_rows(names[kind], cpu_at(t), &got, &want);
    }
    release_all();
}

static void test_each(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 1);
    for (int i = 0; i < 36 * 60; i++) {
        for (int kind = QK_F32; kind <= QK_BF16; kind++) each_format(&r, (qkind)kind, i);
    }
}

/* One number that is not finite, anywhere, is seen by all. */
static void test_not_finite(void **state) {
    (void)state;
    static const float bad[] = {INFINITY, -INFINITY, NAN};
    rng r;
    rng_seed(&r, 2);
    for (int i = 0; i < COLS * 9; i++) {
        qkind kind = (qkind)(i % 3);
        qformat f = {QK_AFFINE, all_bits[i % 6], all_groups[i / 6 % 3], i % 5 == 0};
        float x[COLS];
        fill(&r, x, COLS, kind);
        x[i / 9] = bad[i / 3 % 3];
        void *w = dense(x, kind);
        for (int t = 0; cpu_at(t); t++) assert_false(make(cpu_at(t), f, w, kind).finite);
        release_all();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each),
        cmocka_unit_test(test_not_finite),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
