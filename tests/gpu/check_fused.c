/* check_fused.c: rows of launches that a backend may do as one. Each row runs twice: as the engine
 * launches it, and with a wait after every launch, so that nothing can be joined. What the engine
 * reads afterwards must be the same. */
#include <stdio.h>
#include <string.h>

#include "check.h"

typedef struct step {
    gpu_kernel kernel;
    const void *args;
} step;

/* Device memory that a row of launches writes. */
typedef struct place {
    gpu_addr at;
    const void *before; /* its contents when a row begins */
    size_t bytes;
    double tolerance; /* 0: the same bits */
    const char *name;
} place;

#define PLACES_MAX 12
typedef struct row {
    step steps[8];
    place places[PLACES_MAX];
    int n_steps, n_places;
} row;

static void add(row *r, gpu_kernel k, const void *args) {
    r->steps[r->n_steps++] = (step){k, args};
}

/* A buffer with random contents that the row may write, compared afterwards when name is given. */
static gpu_addr written(lab *l, row *r, size_t floats, double tolerance, const char *name) {
    const float *x = lab_floats(l, floats, -1, 1);
    gpu_addr at = lab_in(l, x, floats * sizeof *x);
    r->places[r->n_places++] = (place){at, x, floats * sizeof *x, tolerance, name};
    return at;
}

static gpu_addr given(lab *l, size_t floats, float low, float high) {
    return lab_in(l, lab_floats(l, floats, low, high), floats * sizeof(float));
}

static void run_both(lab *l, const row *r, const char *text) {
    const float *together[PLACES_MAX];
    for (int pass = 0; pass < 2; pass++) {
        for (int i = 0; i < r->n_places; i++) {
            const place *p = &r->places[i];
            must(gpu_copy_in(l->queue, p->at, p->before, p->bytes));
        }
        must(gpu_queue_wait(l->queue));
        for (int i = 0; i < r->n_steps; i++) {
            lab_run(l, r->steps[i].kernel, r->steps[i].args);
            if (pass) must(gpu_queue_wait(l->queue));
        }
        for (int i = 0; i < r->n_places; i++) {
            const place *p = &r->places[i];
            char name[160];
            snprintf(name, sizeof name, "%s: %s", text, p->name ? p->name : "");
            const float *got = lab_read(l, p->at, p->bytes);
            if (!pass) together[i] = got;
            if (!pass || !p->name) continue;
            if (p->tolerance > 0) {
                lab_close(l, together[i], got, p->bytes / sizeof(float), p->tolerance, name);
            } else {
                lab_same(l, together[i], got, p->bytes, name);
            }
        }
    }
    lab_end(l);
}

static const qformat four = {QK_AFFINE, 4, 64, false}, eight = {QK_AFFINE, 8, 64, false};

/* ---- rmsnorm, matvec, conv ---- */

static void projection(lab *l, int n, int cols, int channels, bool norm, bool conv) {
    row r = {0};
    char text[96];
    snprintf(text, sizeof text, "%d vectors of %d, %d channels%s%s", n, cols, channels,
             norm ? ", norm" : "", conv ? ", conv" : "");
    size_t C = (size_t)cols, N = (size_t)n;
    gpu_segment seg[8];
    for (int t = 0; t < n; t++) seg[t] = (gpu_segment){t, 1, n - 1 - t, 0};
    args_rmsnorm a = {.n = n, .cols = cols, .eps = 1e-6f};
    a.x = given(l, N * C, -3, 3);
    a.g = given(l, C, 0, 2);
    a.y = written(l, &r, N * C, 0, "normed");
    args_matvec m = {.n = n, .n_mats = 3, .x_stride = cols};
    int rows[3] = {channels, 33, 8};
    m.x = norm ? a.y : a.x;
    for (int i = 0; i < 3; i++) {
        m.m[i] = lab_matrix(l, i == 2 ? eight : four, rows[i], cols).gpu;
        m.y[i] = written(l, &r, N * (size_t)rows[i], 2e-6, "product");
        m.y_stride[i] = rows[i];
    }
    gpu_matvec_lay_out(&m);
    args_conv c = {.n_segments = n, .channels = channels, .stride = channels};
    c.x = m.y[0], c.w = given(l, (size_t)channels * 4, -1, 1);
    c.y = written(l, &r, N * (size_t)channels, 4e-6, "convolved");
    c.state_stride = (size_t)channels * 3;
    c.state = written(l, &r, N * (size_t)channels * 3, 2e-6, "rows before");
    c.segments = lab_in(l, seg, N * sizeof *seg);
    if (norm) add(&r, GPU_rmsnorm, &a);
    add(&r, GPU_matvec, &m);
    if (conv) add(&r, GPU_conv, &c);
    run_both(l, &r, text);
}

/* ---- the delta rule ---- */

static void one_token(lab *l, int n, int n_k, int n_v, int dk, int dv) {
    row r = {0};
    char text[96];
    snprintf(text, sizeof text, "%d tokens, %d and %d heads, [%d, %d]", n, n_k, n_v, dk, dv);
    size_t N = (size_t)n, V = (size_t)(n_v * dv);
    int stride = 2 * n_k * dk + n_v * dv;
    gpu_segment seg[8];
    for (int t = 0; t < n; t++) seg[t] = (gpu_segment){t, 1, n - 1 - t, 0};
    args_delta_in in = {.n = n, .n_k = n_k, .n_v = n_v, .dk = dk, .stride = stride};
    in.qkv = written(l, &r, N * (size_t)stride, 0, NULL);
    in.a = given(l, N * (size_t)n_v, -2, 2), in.b = given(l, N * (size_t)n_v, -2, 2);
    in.exp_a_log = given(l, (size_t)n_v, 0, 2), in.dt_bias = given(l, (size_t)n_v, -1, 1);
    in.decay = written(l, &r, N * (size_t)n_v, 0, NULL);
    in.beta = written(l, &r, N * (size_t)n_v, 0, NULL);
    in.ab_stride = n_v, in.scale = 0.0883883f;
    args_delta run = {.n_segments = n, .n_k = n_k, .n_v = n_v, .dk = dk, .dv = dv};
    run.qkv = in.qkv, run.decay = in.decay, run.beta = in.beta, run.stride = stride;
    run.o = written(l, &r, N * V, 0, "gated");
    run.state_stride = V * (size_t)dk;
    run.state = written(l, &r, N * V * (size_t)dk, 0, "state");
    run.segments = lab_in(l, seg, N * sizeof *seg);
    args_delta_out out = {.o = run.o, .n = n, .n_v = n_v, .dv = dv, .z_stride = (int)V};
    out.z = given(l, N * V, -2, 2), out.g = given(l, (size_t)dv, 0, 2), out.eps = 1e-6f;
    add(&r, GPU_delta_in, &in);
    add(&r, GPU_delta, &run);
    add(&r, GPU_delta_out, &out);
    run_both(l, &r, text);
}

/* ---- experts ---- */

typedef struct moe {
    int n, k, experts, hidden, inner, shared; /* shared: its inner size; 0: none */
} moe;

static gpu_part part_of(lab *l, uint8_t *record, size_t *at, int rows, int cols) {
    qmat m;
    lab_matrix_bytes(l, four, rows, cols, &m);
    size_t w = qformat_row_bytes(four, cols) * (size_t)rows;
    size_t s = qformat_scale_row_bytes(four, cols) * (size_t)rows;
    gpu_part p = {.rows = rows, .cols = cols, .kind = QK_AFFINE, .bits = 4, .group = 64};
    p.w = (unsigned)*at, p.scales = (unsigned)(*at + w), p.biases = (unsigned)(*at + w + s);
    memcpy(record + p.w, m.w, w);
    memcpy(record + p.scales, m.scales, s);
    memcpy(record + p.biases, m.biases, s);
    *at += w + 2 * s;
    return p;
}

static void mixture(lab *l, const moe *s) {
    enum { POOL = 6 }; /* different experts; the others are these again */
    row r = {0};
    char text[128];
    snprintf(text, sizeof text, "%d rows, %d of %d experts, [%d, %d], shared %d", s->n, s->k,
             s->experts, s->hidden, s->inner, s->shared);
    size_t N = (size_t)s->n, P = N * (size_t)s->k, H = (size_t)s->hidden, I = (size_t)s->inner;
    gpu_part part[3] = {0};
    gpu_addr pool[POOL];
    for (int e = 0; e < POOL; e++) {
        size_t at = 0;
        uint8_t *record = lab_host(l, H * I * 3);
        for (int i = 0; i < 3; i++) {
            part[i] =
                part_of(l, record, &at, i < 2 ? s->inner : s->hidden, i < 2 ? s->hidden : s->inner);
        }
        pool[e] = lab_in(l, record, at);
    }
    gpu_slot *slots = lab_host(l, (size_t)s->experts * sizeof *slots);
    for (int e = 0; e < s->experts; e++) slots[e].base = pool[e % POOL];
    args_router router = {.n = s->n, .n_experts = s->experts, .k = s->k, .norm = 1};
    router.logits = given(l, N * (size_t)s->experts, -4, 4);
    router.ids = written(l, &r, P, 0, "ids");
    router.weights = written(l, &r, P, 0, "weights");
    args_plan plan = {.ids = router.ids, .n_pairs = (int)P, .n_experts = s->experts};
    plan.active = written(l, &r, P * 4, 0, "active");
    plan.order = written(l, &r, P, 0, "order"), plan.n_active = written(l, &r, 1, 0, "how many");
    args_swiglu act = {.n = s->n * s->shared};
    args_matvec down = {.n = s->n, .n_mats = 1, .x_stride = s->shared, .y_stride = {s->hidden}};
    args_combine c = {.n = s->n, .k = s->k, .cols = s->hidden};
    if (s->shared) {
        size_t S = N * (size_t)s->shared;
        act.gate = act.y = written(l, &r, S, 0, NULL), act.up = given(l, S, -1, 1);
        down.m[0] = lab_matrix(l, four, s->hidden, s->shared).gpu;
        down.x = act.y, down.y[0] = c.shared = written(l, &r, N * H, 0, NULL);
        c.gate = given(l, N, -2, 2);
        gpu_matvec_lay_out(&down);
    }
    args_experts in = {.gate = part[0], .up = part[1], .x_stride = s->hidden, .n_rows = s->n};
    in.slots = lab_in(l, slots, (size_t)s->experts * sizeof *slots), in.n_pairs = (int)P;
    in.active = plan.active, in.n_active = plan.n_active, in.order = plan.order;
    in.x = given(l, N * H, -1, 1), in.y = written(l, &r, P * I, 4e-6, "the way in");
    in.y_stride = s->inner, in.row_of_pair = s->k;
    in.max_active = (int)P < s->experts ? (int)P : s->experts;
    args_experts out = in;
    out.gate = part[2], out.up = (gpu_part){0}, out.x = in.y, out.row_of_pair = 1;
    out.x_stride = s->inner, out.y_stride = s->hidden, out.y = written(l, &r, P * H, 0, NULL);
    c.y = out.y, c.weights = router.weights, c.h = written(l, &r, N * H, 4e-6, "combined");
    add(&r, GPU_router, &router);
    add(&r, GPU_plan, &plan);
    if (s->shared) add(&r, GPU_swiglu, &act), add(&r, GPU_matvec, &down);
    add(&r, GPU_experts, &in);
    add(&r, GPU_experts, &out);
    add(&r, GPU_combine, &c);
    run_both(l, &r, text);
}

void check_fused(lab *l) {
    static const int ns[] = {1, 2, 3, 8};
    lab_begin(l);
    for (int i = 0; i < 4; i++) {
        projection(l, ns[i], 256, 96, true, true);
        projection(l, ns[i], 1152, 48, true, false);
        projection(l, ns[i], 128, 200, false, true);
    }
    lab_end_group(l, "rmsnorm, matvec, conv: joined or not");
    lab_begin(l);
    for (int i = 0; i < 3; i++) {
        one_token(l, ns[i], 2, 4, 128, 128);
        one_token(l, ns[i], 3, 3, 40, 64);
    }
    lab_end_group(l, "delta_in, delta, delta_out: joined or not");
    lab_begin(l);
    for (int i = 0; i < 4; i++) {
        moe a = {ns[i], 4, 40, 256, 128, 128}, b = {ns[i], 3, 16, 384, 256, 0};
        moe c = {ns[i], 8, 256, 128, 384, 256}, d = {ns[i], 1, 1, 128, 128, 640};
        moe e = {ns[i], 8, 256, 128, 512, 512}; /* 8 rows: no room for the shared one beside them */
        mixture(l, &a);
        mixture(l, &b);
        mixture(l, &c);
        mixture(l, &d);
        mixture(l, &e);
    }
    lab_end_group(l, "a mixture of experts: joined or not");
}
