/* check_experts.c: router, plan, experts, combine: first each, then all together. */
#include <stdio.h>
#include <string.h>

#include "check.h"

/* ---- router ---- */

static void router_case(lab *l, int n, int experts, int k, bool ties) {
    size_t F = sizeof(float), floats = (size_t)(n * experts);
    float *logits = lab_floats(l, floats, -4, 4);
    for (size_t i = 0; ties && i < floats; i++) logits[i] = (float)(int)logits[i];
    int *want_ids = lab_host(l, (size_t)(n * k) * sizeof(int));
    float *want = lab_host(l, (size_t)(n * k) * F), *p = lab_host(l, (size_t)experts * F);
    for (int norm = 0; norm < 2; norm++) {
        args_router a = {.n = n, .n_experts = experts, .k = k, .norm = norm};
        a.logits = lab_in(l, logits, floats * F);
        a.ids = lab_out(l, (size_t)(n * k) * sizeof(int));
        a.weights = lab_out(l, (size_t)(n * k) * F);
        lab_run(l, GPU_router, &a);
        for (int t = 0; t < n; t++) {
            memcpy(p, logits + t * experts, (size_t)experts * F);
            l->cpu->softmax(p, experts);
            float sum = 0;
            for (int j = 0; j < k; j++) {
                int best = 0;
                for (int e = 1; e < experts; e++) best = p[e] > p[best] ? e : best;
                want_ids[t * k + j] = best;
                want[t * k + j] = p[best];
                sum += p[best];
                p[best] = -1;
            }
            for (int j = 0; norm && j < k; j++) want[t * k + j] /= sum;
        }
        char text[96];
        snprintf(text, sizeof text, "%d rows, %d of %d experts%s", n, k, experts,
                 ties ? ", ties" : "");
        lab_same(l, lab_read(l, a.ids, (size_t)(n * k) * 4), want_ids, (size_t)(n * k) * 4, text);
        lab_same(l, lab_read(l, a.weights, (size_t)(n * k) * F), want, (size_t)(n * k) * F, text);
    }
    lab_end(l);
}

/* ---- plan ---- */

static int plan_twin(const int *ids, int pairs, int experts, gpu_active *active, int *order) {
    int n = 0, at = 0;
    for (int e = 0; e < experts; e++) {
        int first = at;
        for (int i = 0; i < pairs; i++) {
            if (ids[i] == e) order[at++] = i;
        }
        if (at > first) active[n++] = (gpu_active){e, first, at - first, 0};
    }
    return n;
}

static void plan_case(lab *l, int pairs, int experts) {
    int *ids = lab_host(l, (size_t)pairs * 4), *order = lab_host(l, (size_t)pairs * 4);
    gpu_active *active = lab_host(l, (size_t)pairs * sizeof *active);
    for (int i = 0; i < pairs; i++) ids[i] = lab_int(l, 0, experts - 1);
    int n = plan_twin(ids, pairs, experts, active, order);
    args_plan a = {.n_pairs = pairs, .n_experts = experts};
    a.ids = lab_in(l, ids, (size_t)pairs * 4);
    a.active = lab_out(l, (size_t)n * sizeof *active);
    a.order = lab_out(l, (size_t)pairs * 4);
    a.n_active = lab_out(l, 4);
    lab_run(l, GPU_plan, &a);
    lab_same(l, lab_read(l, a.n_active, 4), &n, 4, "number of experts with work");
    lab_same(l, lab_read(l, a.active, (size_t)n * sizeof *active), active,
             (size_t)n * sizeof *active, "experts with work");
    lab_same(l, lab_read(l, a.order, (size_t)pairs * 4), order, (size_t)pairs * 4, "pairs");
    lab_end(l);
}

/* ---- experts ---- */

enum { EXPERTS = 6 };

typedef struct moe_shape {
    int n, k, hidden, inner;
    qformat in, out;
} moe_shape;

typedef struct moe_data {
    qmat m[EXPERTS][3]; /* gate, up, down */
    gpu_part part[3];   /* their places in a record */
    size_t record;      /* bytes */
    gpu_slot slots[EXPERTS];
} moe_data;

static size_t matrix_bytes(const qmat *m) {
    return qformat_row_bytes(m->format, m->cols) * (size_t)m->rows;
}

static size_t scale_bytes(const qmat *m) {
    return qformat_scale_row_bytes(m->format, m->cols) * (size_t)m->rows;
}

static gpu_part part_of(const qmat *m, size_t *at) {
    gpu_part p = {.rows = m->rows,
                  .cols = m->cols,
                  .kind = (int)m->format.kind,
                  .bits = m->format.bits,
                  .group = m->format.group,
                  .scales_f16 = m->format.scales_f16};
    p.w = (unsigned)*at;
    p.scales = (unsigned)(*at += round_up(matrix_bytes(m), 16));
    p.biases = (unsigned)(*at += round_up(scale_bytes(m), 16));
    *at += round_up(scale_bytes(m), 16);
    return p;
}

static void make_experts(lab *l, const moe_shape *s, moe_data *d) {
    for (int e = 0; e < EXPERTS; e++) {
        size_t at = 0;
        for (int i = 0; i < 3; i++) {
            int rows = i < 2 ? s->inner : s->hidden, cols = i < 2 ? s->hidden : s->inner;
            lab_matrix_bytes(l, i < 2 ? s->in : s->out, rows, cols, &d->m[e][i]);
            d->part[i] = part_of(&d->m[e][i], &at);
        }
        uint8_t *record = lab_host(l, at);
        for (int i = 0; i < 3; i++) {
            const qmat *m = &d->m[e][i];
            memcpy(record + d->part[i].w, m->w, matrix_bytes(m));
            if (m->scales) memcpy(record + d->part[i].scales, m->scales, scale_bytes(m));
            if (m->biases) memcpy(record + d->part[i].biases, m->biases, scale_bytes(m));
        }
        d->slots[e].base = lab_in(l, record, at);
    }
}

static void multiply(lab *l, const qmat *m, const float *x, float *y) {
    static float scratch[CPU_MATMUL_ROWS * 4096];
    cpu_matmul c = {m, x, y, (size_t)m->cols, (size_t)m->rows, 1, scratch};
    l->cpu->matmul(&c, 0, m->rows);
}

/* First with the slots of some experts only, then with those of the others: as when some arrive
 * later. The first pass must leave the others' outputs alone. */
static void run_twice(lab *l, const moe_data *d, args_experts *a) {
    gpu_slot some[EXPERTS], others[EXPERTS];
    for (int e = 0; e < EXPERTS; e++) {
        bool now = e % 3 != 1;
        some[e].base = now ? d->slots[e].base : 0;
        others[e].base = now ? 0 : d->slots[e].base;
    }
    a->slots = lab_in(l, some, sizeof some);
    lab_run(l, GPU_experts, a);
    a->slots = lab_in(l, others, sizeof others);
    lab_run(l, GPU_experts, a);
}

static void experts_case(lab *l, const moe_shape *s) {
    static moe_data d;
    int pairs = s->n * s->k;
    size_t F = sizeof(float);
    char text[96];
    snprintf(text, sizeof text, "%d rows, k %d, [%d, %d], bits %d and %d", s->n, s->k, s->hidden,
             s->inner, s->in.bits, s->out.bits);
    make_experts(l, s, &d);
    int *ids = lab_host(l, (size_t)pairs * 4), *order = lab_host(l, (size_t)pairs * 4);
    gpu_active *active = lab_host(l, (size_t)pairs * sizeof *active);
    for (int t = 0; t < s->n; t++) {
        int first = lab_int(l, 0, EXPERTS - 1);
        for (int j = 0; j < s->k; j++) ids[t * s->k + j] = (first + j) % EXPERTS;
    }
    int n_active = plan_twin(ids, pairs, EXPERTS, active, order);
    float *x = lab_floats(l, (size_t)(s->n * s->hidden), -1, 1);
    float *mid = lab_host(l, (size_t)(pairs * s->inner) * F);
    float *up = lab_host(l, (size_t)s->inner * F),
          *y = lab_host(l, (size_t)(pairs * s->hidden) * F);
    for (int i = 0; i < pairs; i++) {
        const qmat *m = d.m[ids[i]];
        multiply(l, &m[0], x + i / s->k * s->hidden, mid + i * s->inner);
        multiply(l, &m[1], x + i / s->k * s->hidden, up);
        l->cpu->silu_mul(mid + i * s->inner, mid + i * s->inner, up, s->inner);
        multiply(l, &m[2], mid + i * s->inner, y + i * s->hidden);
    }
    args_experts a = {.gate = d.part[0], .up = d.part[1], .x_stride = s->hidden};
    a.y_stride = s->inner, a.row_of_pair = s->k, a.max_active = EXPERTS;
    a.active = lab_in(l, active, (size_t)n_active * sizeof *active);
    a.n_active = lab_in(l, &n_active, 4), a.order = lab_in(l, order, (size_t)pairs * 4);
    a.x = lab_in(l, x, (size_t)(s->n * s->hidden) * F);
    a.y = lab_out(l, (size_t)(pairs * s->inner) * F);
    a.n_pairs = pairs, a.n_rows = s->n;
    run_twice(l, &d, &a);
    lab_close(l, lab_read(l, a.y, (size_t)(pairs * s->inner) * F), mid, (size_t)(pairs * s->inner),
              4e-6, text);
    args_experts b = a;
    b.gate = d.part[2], b.up = (gpu_part){0}, b.x = a.y;
    b.x_stride = s->inner, b.y_stride = s->hidden, b.row_of_pair = 1;
    b.y = lab_out(l, (size_t)(pairs * s->hidden) * F);
    run_twice(l, &d, &b);
    /* Where most of a vector has one sign, which it may after SwiGLU, biases take away
     * nearly all that the products gave: rounding counts ten times and more. */
    lab_close(l, lab_read(l, b.y, (size_t)(pairs * s->hidden) * F), y, (size_t)(pairs * s->hidden),
              1.5e-5, text);
    lab_end(l);
}

/* ---- combine ---- */

static void combine_case(lab *l, int n, int k, int cols, bool shared) {
    size_t F = sizeof(float), floats = (size_t)(n * cols);
    float *h = lab_floats(l, floats, -1, 1), *y = lab_floats(l, floats * (size_t)k, -1, 1);
    float *w = lab_floats(l, (size_t)(n * k), 0, 1), *sh = lab_floats(l, floats, -1, 1);
    float *gate = lab_floats(l, (size_t)n, -4, 4), *sum = lab_host(l, (size_t)cols * F);
    args_combine a = {.n = n, .k = k, .cols = cols};
    a.h = lab_in(l, h, floats * F), a.y = lab_in(l, y, floats * (size_t)k * F);
    a.weights = lab_in(l, w, (size_t)(n * k) * F);
    if (shared) a.shared = lab_in(l, sh, floats * F), a.gate = lab_in(l, gate, (size_t)n * F);
    lab_run(l, GPU_combine, &a);
    for (int t = 0; t < n; t++) {
        memset(sum, 0, (size_t)cols * F);
        for (int j = 0; j < k; j++) {
            l->cpu->add_scaled(sum, y + (t * k + j) * cols, w[t * k + j], cols);
        }
        float g;
        l->cpu->sigmoid(&g, gate + t, 1);
        if (shared) l->cpu->add_scaled(sum, sh + t * cols, g, cols);
        l->cpu->add(h + t * cols, sum, cols);
    }
    lab_same(l, lab_read(l, a.h, floats * F), h, floats * F, "combine: the bits of the CPU");
    lab_end(l);
}

void check_experts(lab *l) {
    lab_begin(l);
    static const int experts[] = {1, 8, 31, 32, 33, 128, 512}, ks[] = {1, 8, 2, 10, 3, 8, 10};
    for (int i = 0; i < 7; i++) {
        router_case(l, 1, experts[i], ks[i], false);
        router_case(l, 5, experts[i], ks[i], true);
    }
    lab_end_group(l, "router: ids, order and weights of the CPU, bit for bit");
    lab_begin(l);
    for (int i = 0; i < 7; i++) {
        plan_case(l, ks[i], experts[i]);
        plan_case(l, 37 * ks[i], experts[i]);
    }
    lab_end_group(l, "plan");
    lab_begin(l);
    static const qformat formats[] = {{QK_AFFINE, 4, 64, false}, {QK_AFFINE, 3, 32, true},
                                      {QK_AFFINE, 2, 32, false}, {QK_AFFINE, 8, 64, false},
                                      {.kind = QK_BF16},         {QK_AFFINE, 4, 32, false},
                                      {QK_AFFINE, 6, 64, true},  {QK_AFFINE, 5, 128, false}};
    for (int i = 0; i < 8; i++) {
        moe_shape s = {.n = 1, .k = 4, .hidden = 256, .inner = 128, .in = formats[i]};
        s.out = formats[i];
        experts_case(l, &s);
        s.n = lab_int(l, 2, 20), s.k = lab_int(l, 1, 6), s.out = formats[0];
        s.hidden = 64 * lab_int(l, 1, 6) * (s.in.group == 128 ? 2 : 1);
        s.inner = 64 * lab_int(l, 1, 3);
        experts_case(l, &s);
        s.n = 41, s.k = 4;
        experts_case(l, &s);
    }
    lab_end_group(l, "experts: in and out, some slots later");
    lab_begin(l);
    for (int i = 0; i < 4; i++) combine_case(l, 1 + i, 1 + 3 * i, 255 + i, i % 2 == 0);
    lab_end_group(l, "combine");
}
