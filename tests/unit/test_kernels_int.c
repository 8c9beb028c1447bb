/* test_kernels_int.c: the integer path. Scalar against double precision, every other table that
 * this machine runs against scalar, byte for byte. */
#include "kernels_common.h"

static const cpu_kernels *scalar(void) { return cpu_at(0); }

static const int all_bits[] = {2, 3, 4, 5, 6, 8};

/* Rows whose memory starts aligned and ends right before the page that may not be touched. */
static cpu_actq random_actq(rng *r, const cpu_kernels *k, int n, int cols, int group) {
    cpu_actq a =
        cpu_actq_place(guarded(round_up(cpu_actq_bytes(n, cols, group), 64)), n, cols, group);
    memset(a.scales, 0xff, (size_t)n * (size_t)a.groups * 8);
    for (int t = 0; t < n; t++) {
        float *x = malloc((size_t)cols * sizeof *x);
        assert_non_null(x);
        for (int c = 0; c < cols; c++) x[c] = random_float(r) * (c % 37 == 5 ? 9 : 1);
        k->quantize(&a, t, x);
        free(x);
    }
    return a;
}

/* ---- scalar against double ---- */

static void test_quantize(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 1);
    for (int group = 32; group <= 128; group *= 2) {
        int cols = group * 3;
        cpu_actq a =
            cpu_actq_place(guarded(round_up(cpu_actq_bytes(2, cols, group), 64)), 2, cols, group);
        assert_int_equal(a.groups, 8);
        memset(a.scales, 0xff, 2 * 8 * 2 * sizeof(float));
        float *x = random_floats(&r, (size_t)cols, 3);
        for (int i = 0; i < group; i++) x[group + i] = 0;
        scalar()->quantize(&a, 1, x);
        assert_true(isnan(a.scales[0])); /* row 0 is left alone */
        const int8_t *q = a.q + cols;
        for (int g = 0; g < a.groups; g++) {
            int sum = 0, top = 0;
            for (int i = 0; g < 3 && i < group; i++) {
                int v = q[g * group + i];
                sum += v;
                top = abs(v) > top ? abs(v) : top;
                float error = fabsf(x[g * group + i] - (float)v * a.scales[8 + g]);
                assert_true(error <= a.scales[8 + g] * 0.50001f);
            }
            assert_int_equal(top, g == 0 || g == 2 ? 127 : 0);
            assert_true(a.sums[8 + g] == (float)sum);
            if (g == 1 || g > 2) assert_true(a.scales[8 + g] == 0);
        }
        release_all();
    }
}

/* What is not finite stays visible in the product. */
static void test_not_finite(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 2);
    const float bad[] = {INFINITY, -INFINITY, NAN};
    for (int t = 0; cpu_at(t); t++) {
        for (int i = 0; i < LENGTH(bad); i++) {
            qmat w = random_matrix(&r, (qformat){QK_AFFINE, 4, 64, false}, 3, 256);
            float *x = random_floats(&r, 256, 1);
            x[i + 77] = bad[i];
            cpu_actq a =
                cpu_actq_place(guarded(round_up(cpu_actq_bytes(1, 256, 64), 64)), 1, 256, 64);
            cpu_at(t)->quantize(&a, 0, x);
            float y[3] = {0};
            void *scratch = guarded(round_up(cpu_matmul_int_scratch(256, 64), 64));
            cpu_at(t)->matmul_int(&(cpu_matmul_int){&w, &a, NULL, y, 3, 1, scratch}, 0, 3);
            assert_false(isfinite(y[0]) || isfinite(y[1]) || isfinite(y[2]));
            release_all();
        }
    }
}

/* y against the same sum in double: of the quantised x within the rounding of float32, of the x
 * themselves within half a step of each times |w|. */
static void bound_case(rng *r, qformat f, int groups) {
    enum { ROWS = 3 };
    int cols = groups * f.group;
    qmat m = random_matrix(r, f, ROWS, cols);
    float *x = random_floats(r, (size_t)cols, 2), *w = guarded((size_t)cols * 4), y[ROWS];
    cpu_actq a =
        cpu_actq_place(guarded(round_up(cpu_actq_bytes(1, cols, f.group), 64)), 1, cols, f.group);
    void *scratch = guarded(round_up(cpu_matmul_int_scratch(cols, f.group), 64));
    scalar()->quantize(&a, 0, x);
    scalar()->matmul_int(&(cpu_matmul_int){&m, &a, NULL, y, ROWS, 1, scratch}, 0, ROWS);
    for (int i = 0; i < ROWS; i++) {
        double exact = 0, rounded = 0, steps = 0, terms = 0;
        qmat_row_f32(w, &m, i);
        for (int c = 0; c < cols; c++) {
            double step = a.scales[c / f.group], xq = a.q[c] * step;
            double bias = affine_scale_f32(m.biases, f.scales_f16,
                                           (size_t)i * (size_t)groups + (size_t)(c / f.group));
            exact += (double)w[c] * x[c];
            rounded += (double)w[c] * xq;
            steps += fabs(w[c]) * step * 0.50001;
            terms += (fabs(w[c] - bias) + fabs(bias)) * fabs(xq);
        }
        double float_error = terms * (groups + 6) * 0x1p-24;
        assert_true(fabs(y[i] - rounded) <= float_error);
        assert_true(fabs(y[i] - exact) <= steps + float_error);
    }
    release_all();
}

static void test_bound(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 3);
    for (int i = 0; i < 6 * 3 * 2 * 4; i++) {
        qformat f = {QK_AFFINE, all_bits[i % 6], 32 << (i / 6 % 3), i / 18 % 2 == 1};
        bound_case(&r, f, 1 + (int)(rng_next(&r) % 21));
    }
}

/* ---- every table against scalar ---- */

static void test_each_quantize(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 4);
    const float special[] = {0.0f,   -0.0f, INFINITY, -INFINITY, NAN,   1e-45f, -1e-45f,
                             1e-38f, 3e38f, -3.4e38f, 0.5f,      -0.5f, 63.5f,  127.0f};
    for (int t = 1; cpu_at(t); t++) {
        for (int i = 0; i < 120; i++) {
            int group = 32 << (i % 3), cols = group * (1 + i / 3 % 11);
            size_t bytes = round_up(cpu_actq_bytes(2, cols, group), 64);
            uint8_t *want = guarded(bytes), *got = guarded(bytes);
            memset(want, 0x5a, bytes), memset(got, 0x5a, bytes);
            float *x = random_floats(&r, (size_t)cols, 1);
            for (int c = 0; c < cols && i % 2; c += 1 + (int)(rng_next(&r) % 50)) {
                x[c] = special[rng_next(&r) % (unsigned)(i < 60 ? LENGTH(special) : 4)];
            }
            /* halves: the rounding of ties */
            for (int c = 0; c < cols && i % 4 == 2; c++) x[c] = roundf(x[c] * 127) + 0.5f;
            cpu_actq a = cpu_actq_place(want, 2, cols, group);
            cpu_actq b = cpu_actq_place(got, 2, cols, group);
            scalar()->quantize(&a, i % 2, x);
            cpu_at(t)->quantize(&b, i % 2, x);
            for (size_t k = 0; k < 2 * (size_t)a.groups; k++) { /* whatever NaN looks like */
                if (isnan(a.scales[k]) && isnan(b.scales[k])) a.scales[k] = b.scales[k] = 0;
            }
            if (memcmp(want, got, bytes) != 0) fail_msg("quantize %s %d", cpu_at(t)->name, i);
            release_all();
        }
    }
}

typedef struct int_case {
    qformat f;
    int rows, groups, n;
    bool picked;
} int_case;

static void matmul_case(const cpu_kernels *k, rng *r, int_case c) {
    int cols = c.f.group * c.groups, held = c.picked ? 5 : c.n;
    size_t y_stride = (size_t)c.rows + 1, y_size = (size_t)(c.n - 1) * y_stride + (size_t)c.rows;
    qmat m = random_matrix(r, c.f, c.rows, cols);
    cpu_actq a = random_actq(r, scalar(), held, cols, c.f.group);
    int *pick = guarded((size_t)c.n * sizeof *pick);
    for (int t = 0; t < c.n; t++) pick[t] = (int)(rng_next(r) % (unsigned)held);
    float *want = random_floats(r, y_size, 1), *got = copy_floats(want, y_size),
          *alone = copy_floats(want, y_size);
    void *scratch = guarded(round_up(cpu_matmul_int_scratch(cols, c.f.group), 64));
    cpu_matmul_int job = {&m, &a, c.picked ? pick : NULL, want, y_stride, c.n, scratch};
    scalar()->matmul_int(&job, 0, c.rows);
    job.y = got;
    int split = (int)(rng_next(r) % (unsigned)(c.rows + 1));
    k->matmul_int(&job, split, c.rows);
    k->matmul_int(&job, 0, split);
    same_floats("matmul_int", k, got, want, y_size);
    for (int t = 0; t < c.n; t++) { /* alone gives the same bits as in company */
        int row = c.picked ? pick[t] : t;
        cpu_matmul_int one = {&m, &a, &row, alone + (size_t)t * y_stride, 0, 1, scratch};
        k->matmul_int(&one, 0, c.rows);
    }
    same_floats("matmul_int one by one", k, alone, want, y_size);
    release_all();
}

static void test_each_matmul(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 5);
    static const int ns[] = {1, 2, 3, 4, 5, 7, 8, 9, 64}, rows[] = {1, 2, 3, 8, 16, 31, 32, 33, 70};
    for (int t = 0; cpu_at(t); t++) {
        for (int i = 0; i < 36 * 9; i++) {
            qformat f = {QK_AFFINE, all_bits[i % 6], 32 << (i / 6 % 3), i / 18 % 2 == 1};
            int at = i / 36, groups = 1 + (int)(rng_next(&r) % 19);
            int_case c = {f, rows[(at + i) % 9], groups, ns[at], i % 5 == 0};
            if (t > 0 || c.n == 5) matmul_case(cpu_at(t), &r, c);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_quantize),    cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_bound),       cmocka_unit_test(test_each_quantize),
        cmocka_unit_test(test_each_matmul),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
