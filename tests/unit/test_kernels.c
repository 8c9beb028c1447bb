/* test_kernels.c: the float32 kernels. Scalar against double precision, every other table that this
 * machine runs against scalar, byte for byte. */
#include "kernels_common.h"

static const int sizes[] = {1,  3,  4,  7,  8,   15,  16,  17,  31,  32,
                            33, 63, 64, 65, 127, 128, 200, 544, 1057};

static const cpu_kernels *scalar(void) { return cpu_at(0); }

/* ---- the choice of a table ---- */

static void test_tables(void **state) {
    (void)state;
    const cpu_kernels *k = NULL;
    assert_string_equal(scalar()->name, "scalar");
    int n = 0;
    while (cpu_at(n)) n++;
    assert_ptr_equal(cpu_best(), cpu_at(n - 1));
    for (int i = 0; i < n; i++) {
        assert_int_equal(cpu_by_name(cpu_at(i)->name, &k).code, ERR_NONE);
        assert_ptr_equal(k, cpu_at(i));
    }
    err e = cpu_by_name("mmx", &k);
    assert_int_equal(e.code, ERR_ARG);
    assert_non_null(strstr(e.text, "mmx"));
    assert_non_null(strstr(e.text, "scalar"));
    assert_null(k);
    static const char *const known[] = {"avx2",       "avxvnni", "avx512",  "avx512vnni",
                                        "avx512bf16", "neon",    "neondot", "neonmm"};
    for (int i = 0; i < LENGTH(known); i++) {
        e = cpu_by_name(known[i], &k);
        assert_true((e.code == ERR_NONE) == (k != NULL));
        if (!e.code) continue;
        assert_int_equal(e.code, ERR_UNSUPPORTED);
        printf("SKIP %s kernels: %s\n", known[i], e.text);
    }
}

/* ---- scalar against double ---- */

static void close_to(double got, double want, double tolerance) {
    if (!(fabs(got - want) <= tolerance * (1 + fabs(want)))) {
        fail_msg("%.9g instead of %.9g", got, want);
    }
}

static void test_math(void **state) {
    (void)state;
    const cpu_kernels *k = scalar();
    for (float x = -120; x < 100; x += 0.37f) {
        float one = 1, zero = 0, y = 0;
        double sigmoid = 1 / (1 + exp(-(double)x));
        k->sigmoid(&y, &x, 1);
        close_to(y, sigmoid, 2e-7);
        k->silu(&y, &x, 1);
        close_to(y, x * sigmoid, 2e-7);
        k->silu_mul(&y, &x, &one, 1);
        close_to(y, x * sigmoid, 2e-7);
        y = 3;
        k->sigmoid_mul(&y, &x, 1);
        close_to(y, 3 * sigmoid, 3e-7);
        k->delta_gate(&y, &x, &one, &zero, 1);
        close_to(y, -(x > 20 ? x : log1p(exp(x))), 3e-7);
    }
    float tiny = -30, one = 1, zero = 0, y = 0;
    k->delta_gate(&y, &tiny, &one, &zero, 1); /* relative: the small end is not lost */
    assert_true(fabs(y / -9.357622968840175e-14 - 1) < 1e-6);
}

static void test_vectors(void **state) {
    (void)state;
    const cpu_kernels *k = scalar();
    rng r;
    rng_seed(&r, 1);
    enum { N = 100 };
    float *x = random_floats(&r, N, 3), *g = random_floats(&r, N, 1), y[N];
    double dot = 0, squares = 0, powers = 0, top = -1e9;
    for (int i = 0; i < N; i++) {
        dot += (double)x[i] * g[i];
        squares += (double)x[i] * x[i];
        top = x[i] > top ? x[i] : top;
    }
    for (int i = 0; i < N; i++) powers += exp(x[i] - top);
    close_to(k->dot(x, g, N), dot, 1e-6);
    k->rmsnorm(y, x, g, N, 1e-6f);
    for (int i = 0; i < N; i++) close_to(y[i], x[i] / sqrt(squares / N + 1e-6) * g[i], 1e-6);
    k->l2norm(y, x, 0.5f, N, 1e-6f);
    for (int i = 0; i < N; i++) close_to(y[i], x[i] / sqrt(squares + 1e-6) * 0.5, 1e-6);
    memcpy(y, x, sizeof y);
    k->softmax(y, N);
    for (int i = 0; i < N; i++) close_to(y[i], exp(x[i] - top) / powers, 1e-6);
    memcpy(y, x, sizeof y);
    k->add_scaled(y, g, 2, N);
    k->add(y, g, N);
    for (int i = 0; i < N; i++) close_to(y[i], x[i] + 3 * g[i], 1e-6);
    memcpy(y, x, sizeof y);
    k->rope(y, g, g + N / 2, N / 2);
    for (int i = 0; i < N / 2; i++) {
        double c = g[i], s = g[i + N / 2], a = x[i], b = x[i + N / 2];
        close_to(y[i], a * c - b * s, 1e-6);
        close_to(y[i + N / 2], b * c + a * s, 1e-6);
    }
    release_all();
}

static void test_conv(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 2);
    enum { N = 5, CH = 6 };
    float *x = random_floats(&r, N * CH, 2), *w = random_floats(&r, CH * 4, 1),
          *rows = random_floats(&r, 3 * CH, 2);
    float all[3 + N][CH], y[N * CH];
    memcpy(all, rows, 3 * CH * sizeof(float));
    memcpy(all[3], x, N * CH * sizeof(float));
    scalar()->conv4_silu(&(cpu_conv){y, x, w, rows, CH, N, CH, 1, CH});
    for (int t = 0; t < N; t++) {
        for (int c = 1; c < CH; c++) {
            double s = 0;
            for (int k = 0; k < 4; k++) s += (double)w[c * 4 + k] * all[t + k][c];
            close_to(y[t * CH + c], s / (1 + exp(-s)), 1e-6);
        }
    }
    for (int k = 0; k < 3; k++)
        assert_memory_equal(rows + k * CH + 1, all[N + k] + 1, (CH - 1) * sizeof(float));
    assert_memory_equal(rows, all[0], sizeof(float)); /* channel 0 was not asked for */
    release_all();
}

static double twin_attention(const cpu_attn *a, const float *k, const float *v, int i, int c) {
    double top = -1e30, total = 0, out = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (int p = 0; p < a->n_visible[i]; p++) {
            double s = 0;
            for (int d = 0; d < a->head_dim; d++) {
                s += (double)a->q[(size_t)i * a->q_stride + (size_t)d] *
                     k[(size_t)p * a->kv_stride / sizeof *k + (size_t)d];
            }
            s *= a->scale;
            if (pass == 0) top = s > top ? s : top;
            if (pass == 1) {
                total += exp(s - top);
                out += exp(s - top) * v[(size_t)p * a->kv_stride / sizeof *v + (size_t)c];
            }
        }
    }
    return out / total;
}

static void test_attention(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 3);
    enum { Q = 3, DIM = 20, P = 150 };
    const int visible[Q] = {1, 64, P};
    float *q = random_floats(&r, Q * DIM, 4), *k = random_floats(&r, P * DIM, 2),
          *v = random_floats(&r, P * DIM, 1);
    float *scratch = guarded(cpu_attn_scratch(Q, DIM) * sizeof(float)), out[Q * DIM];
    cpu_attn a = {out, q, visible, k, v, KV_F32, DIM, DIM, DIM * 4, Q, DIM, 0.3f, scratch};
    scalar()->attention(&a);
    for (int i = 0; i < Q; i++) {
        for (int c = 0; c < DIM; c++)
            close_to(out[i * DIM + c], twin_attention(&a, k, v, i, c), 2e-6);
    }
    release_all();
}

/* What to_q8 keeps: half a step of the group's scale, and the scale is f16's nearest. */
static void test_q8(void **state) {
    (void)state;
    enum { DIM = 96 };
    rng r;
    rng_seed(&r, 31);
    const float tops[] = {0, 1e-30f, 1e-6f, 0.02f, 1, 300, 60000, 8e6f};
    for (int i = 0; i < LENGTH(tops); i++) {
        float *x = random_floats(&r, DIM, tops[i]);
        uint8_t *head = guarded(kv_head_bytes(KV_Q8, DIM));
        scalar()->to_q8(head, x, DIM);
        for (int c = 0; c < DIM; c++) {
            uint16_t half;
            memcpy(&half, head + DIM + c / 32 * 2, sizeof half);
            double top = 0, scale = f16_to_f32(half);
            for (int k = c / 32 * 32; k < c / 32 * 32 + 32; k++)
                top = fmax(top, fabs((double)x[k]));
            double rounded = fmax(top / 127 / 2048, 0x1p-25); /* of the scale, at most */
            assert_true(fabs(scale - top / 127) <= rounded);
            /* The largest value is cut off where the scale was rounded down. */
            double lost = fabs((int8_t)head[c] * scale - (double)x[c]);
            assert_true(lost <= fmax(0.5001 * scale, 127.001 * rounded));
        }
        release_all();
    }
    const float bad[] = {INFINITY, -INFINITY, NAN, 9e6f};
    for (int i = 0; i < LENGTH(bad); i++) {
        float x[64] = {1, 2, 3};
        uint8_t head[64 + 4];
        x[40] = bad[i];
        scalar()->to_q8(head, x, 64);
        uint16_t scales[2];
        memcpy(scales, head + 64, sizeof scales);
        assert_true(isfinite(f16_to_f32(scales[0])));
        assert_true(!isfinite(f16_to_f32(scales[1])));
        assert_true(!isfinite((float)(int8_t)head[41] * f16_to_f32(scales[1])));
    }
}

typedef struct delta_case {
    float *state, *o, *q, *k, *v, *decay, *beta, *scratch;
    size_t state_size, o_size;
    cpu_delta d;
} delta_case;

static delta_case delta_make(rng *r, int n, int dk, int dv) {
    delta_case c = {.state_size = (size_t)dk * (size_t)dv, .o_size = (size_t)n * (size_t)(dv + 2)};
    size_t tokens = (size_t)n;
    c.state = random_floats(r, c.state_size, 1);
    c.o = random_floats(r, c.o_size, 1);
    c.q = random_floats(r, tokens * (size_t)(dk + 3), 1);
    c.k = random_floats(r, tokens * (size_t)(dk + 3), 1);
    c.v = random_floats(r, tokens * (size_t)(dv + 1), 1);
    c.decay = random_floats(r, tokens * 2, 1);
    c.beta = random_floats(r, tokens * 2, 1);
    c.scratch = guarded(cpu_delta_scratch(dk, dv) * sizeof(float));
    for (size_t i = 0; i < tokens * 2; i++) {
        c.decay[i] = -fabsf(c.decay[i] * c.decay[i]);
        c.beta[i] = fabsf(c.beta[i]);
    }
    for (size_t t = 0; t < tokens; t++) {
        scalar()->l2norm(c.q + t * (size_t)(dk + 3), c.q + t * (size_t)(dk + 3), 0.3f, dk, 1e-6f);
        scalar()->l2norm(c.k + t * (size_t)(dk + 3), c.k + t * (size_t)(dk + 3), 1, dk, 1e-6f);
    }
    c.d = (cpu_delta){.state = c.state,
                      .o = c.o,
                      .q = c.q,
                      .k = c.k,
                      .v = c.v,
                      .decay = c.decay,
                      .beta = c.beta,
                      .o_stride = (size_t)dv + 2,
                      .qk_stride = (size_t)dk + 3,
                      .v_stride = (size_t)dv + 1,
                      .gate_stride = 2,
                      .n = n,
                      .dk = dk,
                      .dv = dv,
                      .scratch = c.scratch};
    return c;
}

/* The recurrence as the model facts state it, in double. */
static void twin_delta(const cpu_delta *d, double *s, double *o) {
    for (int t = 0; t < d->n; t++) {
        const float *q = d->q + (size_t)t * d->qk_stride, *k = d->k + (size_t)t * d->qk_stride;
        for (int ij = 0; ij < d->dk * d->dv; ij++)
            s[ij] *= exp(d->decay[(size_t)t * d->gate_stride]);
        for (int j = 0; j < d->dv; j++) {
            double seen = 0, out = 0;
            for (int i = 0; i < d->dk; i++) seen += s[i * d->dv + j] * k[i];
            double delta = d->beta[(size_t)t * d->gate_stride] *
                           (d->v[(size_t)t * d->v_stride + (size_t)j] - seen);
            for (int i = 0; i < d->dk; i++) {
                s[i * d->dv + j] += k[i] * delta;
                out += s[i * d->dv + j] * q[i];
            }
            o[t * d->dv + j] = out;
        }
    }
}

/* Both forms against double: 150 tokens are two chunks and a piece. */
static void test_delta(void **state) {
    (void)state;
    rng r;
    enum { N = 150, DK = 24, DV = 20 };
    static double s[DK * DV], o[N * DV];
    for (int form = 0; form < 2; form++) {
        rng_seed(&r, 4);
        delta_case c = delta_make(&r, N, DK, DV);
        for (int i = 0; i < DK * DV; i++) s[i] = c.state[i];
        twin_delta(&c.d, s, o);
        (form ? scalar()->delta_chunk : scalar()->delta_step)(&c.d);
        for (int i = 0; i < DK * DV; i++) close_to(c.state[i], s[i], 5e-6);
        for (int t = 0; t < N; t++) {
            for (int j = 0; j < DV; j++) close_to(c.o[t * (DV + 2) + j], o[t * DV + j], 5e-6);
        }
        release_all();
    }
}

/* ---- every table against scalar ---- */

static void each_vector(const cpu_kernels *k, rng *r, int n) {
    size_t m = (size_t)n;
    const cpu_kernels *s = scalar();
    float *x = random_floats(r, m, 20), *g = random_floats(r, m, 3), *h = random_floats(r, m, 3);
    float *a = guarded(m * 4), *b = guarded(m * 4);
    float d0 = s->dot(x, g, n), d1 = k->dot(x, g, n);
    same_floats("dot", k, &d1, &d0, 1);
#define BOTH(name, ...)                                                                            \
    do {                                                                                           \
        memcpy(a, x, m * 4), memcpy(b, x, m * 4);                                                  \
        float *y = a;                                                                              \
        s->name(__VA_ARGS__);                                                                      \
        y = b;                                                                                     \
        k->name(__VA_ARGS__);                                                                      \
        same_floats(#name, k, b, a, m);                                                            \
    } while (0)
    BOTH(add, y, g, n);
    BOTH(add_scaled, y, g, 0.7f, n);
    BOTH(rmsnorm, y, y, g, n, 1e-6f);
    BOTH(l2norm, y, y, 0.1f, n, 1e-6f);
    BOTH(silu, y, y, n);
    BOTH(silu_mul, y, y, g, n);
    BOTH(silu_mul, y, g, y, n);
    BOTH(sigmoid_mul, y, g, n);
    BOTH(sigmoid, y, y, n);
    BOTH(softmax, y, n);
    BOTH(delta_gate, y, x, g, h, n);
    if (n % 2 == 0) BOTH(rope, y, g, h, n / 2);
    uint16_t *p = guarded(m * 2), *q = guarded(m * 2);
    s->to_f16(p, x, n);
    k->to_f16(q, x, n);
    assert_memory_equal(p, q, m * 2);
    release_all();
}

static void test_each_vector(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 5);
    for (int i = 0; i < LENGTH(sizes); i++) {
        for (int t = 1; cpu_at(t); t++) each_vector(cpu_at(t), &r, sizes[i]);
    }
}

/* Numbers that exp, log and the conversions treat apart. */
static void test_each_special(void **state) {
    (void)state;
    const float special[] = {0.0f,    -0.0f,    INFINITY, -INFINITY, 1e-45f, -1e-45f, 1e-38f,
                             3.4e38f, -3.4e38f, 88.72f,   88.73f,    89.5f,  -87.4f,  -103.9f,
                             -104.1f, 19.999f,  20.0f,    20.001f,   65504,  65520,   65519.9f,
                             5.9e-8f, 2.9e-8f,  6.1e-5f,  1e-7f,     -1e-7f, 0.5f,    1.0f};
    enum { N = LENGTH(special) };
    float a[N], b[N], one[N], zero[N] = {0};
    uint16_t p[N], q[N];
    for (int i = 0; i < N; i++) one[i] = 1;
    for (int t = 1; cpu_at(t); t++) {
        const cpu_kernels *k = cpu_at(t), *s = scalar();
        s->sigmoid(a, special, N), k->sigmoid(b, special, N);
        same_floats("sigmoid", k, b, a, N);
        s->delta_gate(a, special, one, zero, N), k->delta_gate(b, special, one, zero, N);
        same_floats("delta_gate", k, b, a, N);
        s->to_f16(p, special, N), k->to_f16(q, special, N);
        assert_memory_equal(p, q, sizeof p);
        s->silu(a, special, N), k->silu(b, special, N);
        for (int i = 0; i < N; i++) {
            if (!isnan(a[i])) same_floats("silu", k, &b[i], &a[i], 1);
        }
    }
}

static void matmul_case(const cpu_kernels *k, rng *r, qformat f, int rows, int cols, int n) {
    size_t x_stride = (size_t)cols + 5, y_stride = (size_t)rows + 1;
    qmat m = random_matrix(r, f, rows, cols);
    float *x = random_floats(r, (size_t)(n - 1) * x_stride + (size_t)cols, 2);
    size_t y_size = (size_t)(n - 1) * y_stride + (size_t)rows;
    float *want = random_floats(r, y_size, 1), *got = copy_floats(want, y_size),
          *alone = copy_floats(want, y_size);
    float *scratch = guarded(cpu_matmul_scratch(cols) * sizeof(float));
    cpu_matmul job = {&m, x, want, x_stride, y_stride, n, scratch};
    scalar()->matmul(&job, 0, rows);
    job.y = got;
    int split = (int)(rng_next(r) % (unsigned)(rows + 1));
    k->matmul(&job, split, rows);
    k->matmul(&job, 0, split);
    same_floats("matmul", k, got, want, y_size);
    for (int t = 0; t < n; t++) { /* alone gives the same bits as in company */
        cpu_matmul one = {
            &m,     x + (size_t)t * x_stride, alone + (size_t)t * y_stride, x_stride, y_stride, 1,
            scratch};
        k->matmul(&one, 0, rows);
    }
    same_floats("matmul one by one", k, alone, want, y_size);
    release_all();
}

static void test_each_matmul(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 6);
    static const int bits[] = {2, 3, 4, 5, 6, 8}, ns[] = {1, 2, 3, 4, 7, 13},
                     rows[] = {1, 3, 8, 13, 21};
    for (int t = 1; cpu_at(t); t++) {
        for (int i = 0; i < 180; i++) {
            qformat f = {QK_AFFINE, bits[i % 6], 32 << (i / 6 % 3), i / 18 % 2 == 1};
            int groups = 1 + (int)(rng_next(&r) % 6) + (i == 7 ? 20 : 0);
            matmul_case(cpu_at(t), &r, f, rows[i % 5], f.group * groups, ns[i / 5 % 6]);
        }
        for (int i = 0; i < 3 * LENGTH(sizes); i++) {
            qformat f = {(qkind)(i % 3), 0, 0, false};
            matmul_case(cpu_at(t), &r, f, rows[i % 5], sizes[i / 3], ns[(i / 3 + i) % 6]);
        }
    }
}

static void test_each_conv(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 7);
    enum { CH = 300 };
    for (int t = 1; cpu_at(t); t++) {
        for (int n = 1; n <= 6; n++) {
            size_t stride = CH + 3, size = (size_t)(n - 1) * stride + CH;
            float *x = random_floats(&r, size, 4), *w = random_floats(&r, CH * 4, 1),
                  *rows = random_floats(&r, 3 * CH, 4);
            float *rows2 = copy_floats(rows, 3 * CH), *want = copy_floats(x, size),
                  *got = copy_floats(x, size);
            scalar()->conv4_silu(&(cpu_conv){want, want, w, rows, stride, n, CH, 2, CH});
            cpu_at(t)->conv4_silu(&(cpu_conv){got, got, w, rows2, stride, n, CH, 2, 137});
            cpu_at(t)->conv4_silu(&(cpu_conv){got, got, w, rows2, stride, n, CH, 137, CH});
            same_floats("conv", cpu_at(t), got, want, size);
            same_floats("conv rows", cpu_at(t), rows2, rows, 3 * CH);
            release_all();
        }
    }
}

/* n heads of a type, stride bytes apart; they end with the memory. */
static uint8_t *random_heads(rng *r, int n, int dim, kv_type type, size_t stride, float scale) {
    uint8_t *heads = guarded((size_t)(n - 1) * stride + kv_head_bytes(type, dim));
    for (int i = 0; i < n; i++) {
        float x[256];
        for (int c = 0; c < dim; c++) x[c] = random_float(r) * scale;
        uint8_t *to = heads + (size_t)i * stride;
        if (type == KV_F32) memcpy(to, x, (size_t)dim * sizeof *x);
        if (type == KV_F16) scalar()->to_f16((uint16_t *)(void *)to, x, dim);
        if (type == KV_Q8) scalar()->to_q8(to, x, dim);
    }
    return heads;
}

/* seen: positions that all queries see, as those of one token do; 0: each its own number. */
static void attention_case(const cpu_kernels *k, rng *r, int n_q, int dim, kv_type type, int seen) {
    enum { P = 200 };
    size_t q_stride = (size_t)dim + 1, out_stride = (size_t)dim + 2;
    size_t out_size = (size_t)(n_q - 1) * out_stride + (size_t)dim;
    size_t kv_stride = kv_head_bytes(type, dim) + 12;
    int *visible = guarded((size_t)n_q * sizeof *visible);
    for (int i = 0; i < n_q; i++) visible[i] = i == 1 ? P : 1 + (int)(rng_next(r) % P);
    if (n_q > 6) visible[3] = visible[4] = visible[5] = visible[6];
    if (n_q == 1) visible[0] = P;
    for (int i = 0; seen && i < n_q; i++) visible[i] = seen;
    float *q = random_floats(r, (size_t)(n_q - 1) * q_stride + (size_t)dim, 3);
    void *kk = random_heads(r, P, dim, type, kv_stride, 2),
         *vv = random_heads(r, P, dim, type, kv_stride, 1);
    float *want = random_floats(r, out_size, 1), *got = copy_floats(want, out_size),
          *alone = copy_floats(want, out_size);
    float *scratch = guarded(cpu_attn_scratch(n_q, dim) * sizeof(float));
    cpu_attn a = {want,     q,         visible, kk,  vv,   type,   out_stride,
                  q_stride, kv_stride, n_q,     dim, 0.3f, scratch};
    scalar()->attention(&a);
    a.out = got;
    k->attention(&a);
    same_floats("attention", k, got, want, out_size);
    for (int i = 0; i < n_q; i++) {
        cpu_attn one = a;
        one.out = alone + (size_t)i * out_stride, one.q = q + (size_t)i * q_stride,
        one.n_visible = visible + i, one.n_q = 1;
        k->attention(&one);
    }
    same_floats("attention one by one", k, alone, want, out_size);
    release_all();
}

static void test_each_q8(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 32);
    for (int t = 1; cpu_at(t); t++) {
        for (int dim = 32; dim <= 256; dim += 32) {
            float *x = random_floats(&r, (size_t)dim, dim % 64 ? 1 : 1e4f);
            if (dim == 96) x[40] = NAN, x[70] = INFINITY;
            size_t bytes = kv_head_bytes(KV_Q8, dim);
            uint8_t *want = guarded(bytes), *got = guarded(bytes);
            scalar()->to_q8(want, x, dim);
            cpu_at(t)->to_q8(got, x, dim);
            assert_memory_equal(got, want, bytes);
            release_all();
        }
    }
}

static void test_each_attention(void **state) {
    (void)state;
    rng r;
    rng_seed(&r, 8);
    static const int n_qs[] = {1, 2, 5, 8, 19}, dims[] = {8, 20, 32, 64, 100},
                     seen[] = {1, 15, 16, 17, 63, 64, 65, 128, 200};
    static const kv_type types[] = {KV_F16, KV_Q8, KV_F32};
    for (int t = 1; cpu_at(t); t++) {
        for (int i = 0; i < 25; i++)
            attention_case(cpu_at(t), &r, n_qs[i % 5], dims[i / 5], i % 2 ? KV_F16 : KV_F32, 0);
        for (int i = 0; i < 15; i++)
            attention_case(cpu_at(t), &r, n_qs[i % 5], 32 << i / 5, KV_Q8, 0);
        for (int i = 0; i < 3 * LENGTH(seen); i++)
            attention_case(cpu_at(t), &r, 8, 32 << i % 3, types[i % 3], seen[i / 3]);
    }
}

static void test_each_delta(void **state) {
    (void)state;
    static const int ns[] = {1, 2, 15, 16, 17, 63, 64, 65, 130}, dims[] = {8, 32, 40, 64};
    for (int t = 1; cpu_at(t); t++) {
        for (int i = 0; i < 2 * LENGTH(ns) * LENGTH(dims); i++) {
            rng r;
            float *state_want = NULL, *o_want = NULL;
            for (int pass = 0; pass < 2; pass++) {
                rng_seed(&r, 100 + (uint64_t)i);
                delta_case c = delta_make(&r, ns[i / 2 % LENGTH(ns)], dims[i % LENGTH(dims)],
                                          dims[i / 2 / LENGTH(ns) % LENGTH(dims)]);
                const cpu_kernels *k = pass ? cpu_at(t) : scalar();
                (i % 2 ? k->delta_chunk : k->delta_step)(&c.d);
                if (pass == 0) {
                    state_want = c.state, o_want = c.o;
                } else {
                    same_floats(i % 2 ? "chunk state" : "step state", k, c.state, state_want,
                                c.state_size);
                    same_floats(i % 2 ? "chunk o" : "step o", k, c.o, o_want, c.o_size);
                }
            }
            release_all();
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_tables),       cmocka_unit_test(test_math),
        cmocka_unit_test(test_vectors),      cmocka_unit_test(test_conv),
        cmocka_unit_test(test_attention),    cmocka_unit_test(test_q8),
        cmocka_unit_test(test_delta),        cmocka_unit_test(test_each_vector),
        cmocka_unit_test(test_each_special), cmocka_unit_test(test_each_matmul),
        cmocka_unit_test(test_each_conv),    cmocka_unit_test(test_each_attention),
        cmocka_unit_test(test_each_q8),      cmocka_unit_test(test_each_delta),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
