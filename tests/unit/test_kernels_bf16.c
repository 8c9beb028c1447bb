/* test_kernels_bf16.c: BF16 matrices with BF16 activations. Scalar against double precision, every
 * other table that this machine runs against scalar, byte for byte. */
#include "kernels_common.h"

static const cpu_kernels *scalar(void) { return cpu_at(0); }

static const qformat bf16 = {.kind = QK_BF16};

/* Rows made by the table k from x, whose memory ends right before the page that may not be touched.
 */
static cpu_actb turned(const cpu_kernels *k, const float *x, int n, int cols) {
    cpu_actb a = cpu_actb_place(guarded(round_up(cpu_actb_bytes(n, cols), 64)), n, cols);
    memset(a.x, 0xff, (size_t)n * a.stride * sizeof(float));
    for (int t = 0; t < n; t++) k->round_bf16(&a, t, x + (size_t)t * (size_t)cols);
    return a;
}

/* Within half a step of BF16, 2^-8, for every x, and the rounding of float32. */
static void test_bound(void **state) {
    (void)state;
    enum { ROWS = 3 };
    rng r;
    rng_seed(&r, 1);
    for (int i = 0; i < 60; i++) {
        int cols = 1 + (int)(rng_next(&r) % 700);
        qmat m = random_matrix(&r, bf16, ROWS, cols);
        float *x = random_floats(&r, (size_t)cols, ldexpf(1, i * 3 - 100)), y[ROWS];
        float *w = guarded((size_t)cols * sizeof *w);
        float *scratch = guarded(cpu_matmul_bf16_scratch(cols) * sizeof *scratch);
        cpu_actb a = turned(scalar(), x, 1, cols);
        scalar()->matmul_bf16(&(cpu_matmul_bf16){&m, &a, NULL, y, ROWS, 1, scratch}, 0, ROWS);
        double top = 0;
        for (int c = 0; c < cols; c++) top = fmax(top, fabs((double)x[c]));
        for (int k = 0; k < ROWS; k++) {
            double exact = 0, terms = 0;
            qmat_row_f32(w, &m, k);
            for (int c = 0; c < cols; c++) {
                exact += (double)w[c] * x[c];
                terms += fabs((double)w[c] * x[c]);
            }
            double flushed = cols * fmax(top * 0x1p-26, 0x1p-112);
            double bound = terms * (0x1p-8 + cols * 0x1p-24) + flushed;
            assert_true(fabs(y[k] - exact) <= bound);
        }
        release_all();
    }
}

/* What is not finite stays visible in the product. */
static void test_not_finite(void **state) {
    (void)state;
    const float bad[] = {INFINITY, -INFINITY, NAN};
    rng r;
    rng_seed(&r, 2);
    for (int t = 0; cpu_at(t); t++) {
        for (int i = 0; i < LENGTH(bad); i++) {
            qmat m = random_matrix(&r, bf16, 3, 100);
            float *x = random_floats(&r, 100, 1), y[3] = {0};
            x[i + 77] = bad[i];
            cpu_actb a = turned(cpu_at(t), x, 1, 100);
            float *scratch = guarded(cpu_matmul_bf16_scratch(100) * sizeof *scratch);
            cpu_at(t)->matmul_bf16(&(cpu_matmul_bf16){&m, &a, NULL, y, 3, 1, scratch}, 0, 3);
            assert_false(isfinite(y[0]) || isfinite(y[1]) || isfinite(y[2]));
            release_all();
        }
    }
}

/* Subnormal and extreme weights, and x of every size. */
static void make_odd(rng *r, qmat *m, float *x, size_t n, int cols) {
    uint16_t *w = (uint16_t *)(uintptr_t)m->w;
    static const uint16_t odd[] = {0x0001, 0x007f, 0x807f, 0x0080, 0x8080, 0x0000, 0x8000, 0x4b00};
    for (int i = 0; i < m->rows * cols; i += 1 + (int)(rng_next(r) % 9)) {
        w[i] = odd[rng_next(r) % LENGTH(odd)];
    }
    for (size_t i = 0; i < n; i += 1 + rng_next(r) % 5) {
        x[i] = ldexpf(x[i], (int)(rng_next(r) % 60) - 50);
    }
    if (rng_next(r) % 2) { /* whole rows that are tiny or huge */
        int by = (int)(rng_next(r) % 260) - 150;
        for (int c = 0; c < cols; c++) x[c] = ldexpf(x[c], by);
    }
}

typedef struct bf16_case {
    int rows, cols, n;
    bool picked, odd;
} bf16_case;

static void matmul_case(const cpu_kernels *k, rng *r, bf16_case c) {
    int held = c.picked ? 5 : c.n;
    size_t y_stride = (size_t)c.rows + 1, y_size = (size_t)(c.n - 1) * y_stride + (size_t)c.rows;
    size_t values = (size_t)held * (size_t)c.cols;
    qmat m = random_matrix(r, bf16, c.rows, c.cols);
    float *x = random_floats(r, values, 3);
    if (c.odd) make_odd(r, &m, x, values, c.cols);
    cpu_actb a = turned(scalar(), x, held, c.cols), b = turned(k, x, held, c.cols);
    int *pick = guarded((size_t)c.n * sizeof *pick);
    for (int t = 0; t < c.n; t++) pick[t] = (int)(rng_next(r) % (unsigned)held);
    float *want = random_floats(r, y_size, 1), *got = copy_floats(want, y_size),
          *alone = copy_floats(want, y_size);
    float *scratch = guarded(cpu_matmul_bf16_scratch(c.cols) * sizeof *scratch);
    cpu_matmul_bf16 job = {&m, &a, c.picked ? pick : NULL, want, y_stride, c.n, scratch};
    scalar()->matmul_bf16(&job, 0, c.rows);
    job.y = got, job.x = &b;
    int split = (int)(rng_next(r) % (unsigned)(c.rows + 1));
    k->matmul_bf16(&job, split, c.rows);
    k->matmul_bf16(&job, 0, split);
    same_floats("matmul_bf16", k, got, want, y_size);
    for (int t = 0; t < c.n; t++) { /* alone gives the same bits as in company */
        int row = c.picked ? pick[t] : t;
        cpu_matmul_bf16 one = {&m, &b, &row, alone + (size_t)t * y_stride, 0, 1, scratch};
        k->matmul_bf16(&one, 0, c.rows);
    }
    same_floats("matmul_bf16 one by one", k, alone, want, y_size);
    release_all();
}

static void test_each_matmul(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 3);
    static const int ns[] = {1, 2, 3, 4, 5, 6, 7, 13}, rows[] = {1, 2, 3, 4, 5, 8, 9, 31};
    static const int sizes[] = {1, 2, 31, 32, 33, 63, 64, 65, 96, 127, 128, 512, 777};
    for (int t = 0; cpu_at(t); t++) {
        for (int i = 0; i < 400; i++) {
            bf16_case c = {.rows = rows[rng_next(&r) % LENGTH(rows)],
                           .cols = sizes[i % LENGTH(sizes)],
                           .n = ns[i / 13 % LENGTH(ns)],
                           .picked = i % 5 == 0,
                           .odd = i % 2 == 1};
            if (t > 0 || i % 8 == 0) matmul_case(cpu_at(t), &r, c);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bound),
        cmocka_unit_test(test_not_finite),
        cmocka_unit_test(test_each_matmul),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
