/* moe.c: the MLP half of a layer on the CPU: a mixture of experts, or one dense MLP (MODEL_FACTS
 * section 5).
 *
 *     h = norm(x) -> router, shared expert's gate -> softmax, top k -> the rows sorted by expert
 *     -> experts as they are in memory: the resident ones first, while the others are being read;
 *        each expert once, for all the rows that chose it
 *     -> per row: its experts' outputs in the router's order, then the shared one; x +=
 *
 * The sum is taken last and always in the same order, so the result does not depend on which expert
 * was in memory, nor on how many slots there are. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "base/os.h"
#include "model/cpu_ops_impl.h"

typedef struct moe_job {
    cpu_ops *o;
    const batch *b;
    const layer_weights *w;
    int layer, k;
    int n_uses; /* distinct experts, ascending by id in o->uses */
    int asked;  /* the first of them were requested */
    int done;
    bool shared_done;
} moe_job;

/* ---- routing ---- */

/* The k largest of p[n], lowest index first among equals. */
static void top_k(const float *p, int n, int k, int *ids, float *values) {
    int held = 0;
    for (int i = 0; i < n; i++) {
        if (held == k && !(p[i] > values[k - 1])) continue;
        int at = held < k ? held++ : k - 1;
        for (; at > 0 && p[i] > values[at - 1]; at--) {
            ids[at] = ids[at - 1];
            values[at] = values[at - 1];
        }
        ids[at] = i;
        values[at] = p[i];
    }
}

static void route_row(void *ctx, int row, int worker) {
    (void)worker;
    const moe_job *j = ctx;
    cpu_ops *o = j->o;
    int n = o->c->experts, k = j->k;
    float *p = o->router + (size_t)row * (size_t)n;
    int *ids = o->ids + (size_t)row * (size_t)k;
    float *gates = o->gates + (size_t)row * (size_t)k;
    o->o.kernels->softmax(p, n);
    if (!isfinite(o->o.kernels->dot(p, p, n))) {
        atomic_store(&o->bad, 1);
        memset(p, 0, (size_t)n * sizeof *p);
    }
    top_k(p, n, k, ids, gates);
    if (o->force && o->force(o->force_ctx, j->layer, row, ids, k)) {
        for (int i = 0; i < k; i++) gates[i] = p[ids[i]];
    }
    if (!o->c->norm_topk) return;
    float sum = 0;
    for (int i = 0; i < k; i++) sum += gates[i];
    for (int i = 0; i < k; i++) gates[i] /= sum;
}

static err route(moe_job *j) {
    cpu_ops *o = j->o;
    size_t hidden = (size_t)o->c->hidden, experts = (size_t)o->c->experts;
    linear l[2] = {{.w = &j->w->router, .y = o->router, .y_stride = experts},
                   {.w = &j->w->shared_gate, .y = o->shared_gate, .y_stride = 1}};
    for (int i = 0; i < 2; i++) {
        l[i].x = o->h, l[i].x_stride = hidden, l[i].n = j->b->rows;
        l[i].precise = true;
    }
    linear_run(o, l, j->w->shared.gate.rows ? 2 : 1);
    if (o->force) { /* in order, on this thread */
        for (int r = 0; r < j->b->rows; r++) route_row(j, r, 0);
    } else {
        pool_run(o->o.pool, route_row, j, j->b->rows);
    }
    TRY(check_finite(o, j->layer, "router"));
    for (int r = 0; o->hook && r < j->b->rows; r++) {
        size_t at = (size_t)r * (size_t)j->k;
        o->hook(o->hook_ctx, j->layer, r, o->ids + at, o->gates + at, j->k);
    }
    return err_none();
}

/* Counting sort of the (row, choice) pairs by expert. */
static void sort_rows(moe_job *j) {
    cpu_ops *o = j->o;
    int pairs = j->b->rows * j->k;
    memset(o->first, 0, ((size_t)o->c->experts + 1) * sizeof(int));
    for (int i = 0; i < pairs; i++) o->first[o->ids[i] + 1]++;
    j->n_uses = 0;
    for (int e = 0; e < o->c->experts; e++) {
        int n = o->first[e + 1];
        o->first[e + 1] += o->first[e];
        if (n) o->uses[j->n_uses++] = (expert_use){.id = e, .first = o->first[e], .n = n};
    }
    for (int i = 0; i < pairs; i++) {
        int place = o->first[o->ids[i]]++;
        o->position[i] = place;
        o->row_at[place] = i / j->k;
    }
}

/* ---- computing ---- */

typedef struct swiglu_job {
    cpu_ops *o;
    float *mid;
    int inner;
} swiglu_job;

static void swiglu_row(void *ctx, int row, int worker) {
    (void)worker;
    const swiglu_job *s = ctx;
    float *gate = s->mid + (size_t)row * 2 * (size_t)s->inner;
    s->o->o.kernels->silu_mul(gate, gate, gate + s->inner, s->inner);
}

/* mid rows are [gate | up]; the product lands on gate. */
static void swiglu(cpu_ops *o, float *mid, int inner, int rows) {
    swiglu_job s = {.o = o, .mid = mid, .inner = inner};
    if (rows * inner > 16384) {
        pool_run(o->o.pool, swiglu_row, &s, rows);
        return;
    }
    for (int r = 0; r < rows; r++) swiglu_row(&s, r, 0);
}

/* The input rows of a use: rows of h that are picked, or one of them, or copies side by side. */
static const float *input_of(cpu_ops *o, const expert_use *u, bool pick) {
    size_t hidden = (size_t)o->c->hidden;
    if (pick) return o->h;
    if (u->n == 1) return o->h + (size_t)o->row_at[u->first] * hidden;
    float *to = o->gather + (size_t)u->at * hidden;
    for (int i = 0; i < u->n; i++) {
        const float *from = o->h + (size_t)o->row_at[u->first + i] * hidden;
        memcpy(to + (size_t)i * hidden, from, hidden * sizeof(float));
    }
    return to;
}

/* gate and up of one MLP for n rows. */
static void add_gate_up(const cpu_ops *o, linear *l, const mlp_weights *w, const float *x,
                        float *mid, int n) {
    size_t inner = (size_t)w->gate.rows;
    linear both = {.x = x, .x_stride = (size_t)o->c->hidden, .y_stride = 2 * inner, .n = n};
    l[0] = both, l[0].w = &w->gate, l[0].y = mid;
    l[1] = both, l[1].w = &w->up, l[1].y = mid + inner;
}

static linear down_of(const cpu_ops *o, const mlp_weights *w, const float *mid, float *y, int n) {
    return (linear){.w = &w->down,
                    .x = mid,
                    .y = y,
                    .x_stride = 2 * (size_t)w->gate.rows,
                    .y_stride = (size_t)o->c->hidden,
                    .n = n};
}

/* The uses list[0 .. n) and, the first time, the shared expert. */
static void compute(moe_job *j, const int *list, int n) {
    cpu_ops *o = j->o;
    size_t hidden = (size_t)o->c->hidden, inner = (size_t)o->c->expert_intermediate;
    const mlp_weights *shared = &j->w->shared;
    bool with_shared = shared->gate.rows && !j->shared_done;
    int used = 0, rows = 0;
    for (int i = 0; i < n; i++) {
        expert_use *u = &o->uses[list[i]];
        u->at = rows;
        rows += u->n;
        float *mid = o->mid + (size_t)u->at * 2 * inner;
        bool pick = linear_takes_pick(o, &u->w.gate) && linear_takes_pick(o, &u->w.up);
        add_gate_up(o, &o->linears[used], &u->w, input_of(o, u, pick), mid, u->n);
        for (int q = 0; pick && q < 2; q++) {
            o->linears[used + q].pick = o->row_at + u->first;
            o->linears[used + q].x_rows = j->b->rows;
        }
        used += 2;
    }
    if (with_shared) {
        add_gate_up(o, &o->linears[used], shared, o->h, o->wide_mid, j->b->rows);
        used += 2;
    }
    linear_run(o, o->linears, used);
    swiglu(o, o->mid, (int)inner, rows);
    if (with_shared) swiglu(o, o->wide_mid, shared->gate.rows, j->b->rows);
    used = 0;
    for (int i = 0; i < n; i++) {
        expert_use *u = &o->uses[list[i]];
        const float *mid = o->mid + (size_t)u->at * 2 * inner;
        float *y = o->outs + (size_t)u->first * hidden;
        o->linears[used++] = down_of(o, &u->w, mid, y, u->n);
    }
    if (with_shared) {
        o->linears[used++] = down_of(o, shared, o->wide_mid, o->tmp, j->b->rows);
        j->shared_done = true;
    }
    linear_run(o, o->linears, used);
}

/* ---- the store ---- */

/* Requests as many further experts as slots allow. */
static err ask(moe_job *j) {
    cpu_ops *o = j->o;
    int slots = expert_store_slots(o->o.store), ids[EXPERTS_A_REQUEST];
    while (j->asked < j->n_uses) {
        int room = int_min(slots - (j->asked - j->done), j->n_uses - j->asked);
        room = int_min(room, EXPERTS_A_REQUEST);
        if (room <= 0) break;
        for (int i = 0; i < room; i++) ids[i] = o->uses[j->asked + i].id;
        TRY(expert_store_request(o->o.store, j->w->sparse_index, ids, room));
        j->asked += room;
    }
    return err_none();
}

static err fetch(moe_job *j, expert_use *u) {
    cpu_ops *o = j->o;
    uint64_t since = clock_now(o);
    expert_view view;
    err e = expert_store_wait(o->o.store, j->w->sparse_index, u->id, &view);
    CLOCK_ADD(o, since, j->layer, wait_ns);
    u->failed = e.code != ERR_NONE;
    if (!e.code) weights_expert(j->w, &view, &u->w);
    return e;
}

/* What can be computed now: all requested experts that are in memory, as far as the buffers go;
 * when there is none, the first one that is asked for. */
static err collect(moe_job *j, int *list, int *n) {
    cpu_ops *o = j->o;
    int rows = 0, room = int_max(o->o.rows_max, j->k), first = -1;
    *n = 0;
    for (int i = 0; i < j->asked; i++) {
        expert_use *u = &o->uses[i];
        if (u->done) continue;
        if (first < 0) first = i;
        if (rows + u->n > room) continue;
        if (!expert_store_ready(o->o.store, j->w->sparse_index, u->id)) continue;
        list[(*n)++] = i;
        rows += u->n;
    }
    if (*n == 0) list[(*n)++] = first;
    for (int i = 0; i < *n; i++) TRY(fetch(j, &o->uses[list[i]]));
    return err_none();
}

static void release(moe_job *j, expert_use *u) {
    if (!u->failed) expert_store_release(j->o->o.store, j->w->sparse_index, u->id);
    u->done = true;
    j->done++;
}

static err run_experts(moe_job *j) {
    cpu_ops *o = j->o;
    while (j->done < j->n_uses) {
        int n;
        bool before = j->asked < j->n_uses;
        TRY(ask(j));
        if (before && j->asked == j->n_uses) look_ahead(o, j->b, j->layer);
        TRY(collect(j, o->list, &n));
        uint64_t since = clock_now(o);
        compute(j, o->list, n);
        CLOCK_ADD(o, since, j->layer, experts_ns);
        for (int i = 0; i < n; i++) release(j, &o->uses[o->list[i]]);
    }
    return err_none();
}

/* ---- the sum ---- */

static void combine_row(void *ctx, int row, int worker) {
    (void)worker;
    const moe_job *j = ctx;
    cpu_ops *o = j->o;
    int hidden = o->c->hidden;
    const cpu_kernels *k = o->o.kernels;
    float *sum = o->h + (size_t)row * (size_t)hidden, *x = o->x + (size_t)row * (size_t)hidden;
    memset(sum, 0, (size_t)hidden * sizeof(float));
    for (int i = 0; i < j->k; i++) {
        size_t at = (size_t)row * (size_t)j->k + (size_t)i;
        const float *y = o->outs + (size_t)o->position[at] * (size_t)hidden;
        k->add_scaled(sum, y, o->gates[at], hidden);
    }
    if (j->w->shared.gate.rows) {
        float gate;
        k->sigmoid(&gate, o->shared_gate + row, 1);
        k->add_scaled(sum, o->tmp + (size_t)row * (size_t)hidden, gate, hidden);
    }
    k->add(x, sum, hidden);
    if (!isfinite(k->dot(x, x, hidden))) atomic_store(&o->bad, 1);
}

err cpu_moe(ops *face, const batch *b, int layer) {
    cpu_ops *o = cpu_of(face);
    const layer_weights *w = &o->o.weights->layers[layer];
    moe_job j = {.o = o, .b = b, .w = w, .layer = layer, .k = o->o.experts_per_token};
    expert_store_stats before = {0}, after = {0};
    if (o->clocks) expert_store_stats_get(o->o.store, &before);
    uint64_t since = clock_now(o);
    rows_norm(o, o->h, o->x, w->post_norm, b->rows);
    TRY(route(&j));
    CLOCK_ADD(o, since, layer, router_ns);
    sort_rows(&j);
    err e = run_experts(&j);
    for (int i = 0; e.code && i < j.asked; i++) {
        if (!o->uses[i].done) release(&j, &o->uses[i]);
    }
    TRY(e);
    since = clock_now(o);
    pool_run(o->o.pool, combine_row, &j, b->rows);
    CLOCK_ADD(o, since, layer, other_ns);
    if (o->clocks) {
        expert_store_stats_get(o->o.store, &after);
        o->clocks[layer].read_bytes += after.read_bytes - before.read_bytes;
    }
    return check_finite(o, layer, "experts");
}

err cpu_mlp(ops *face, const batch *b, int layer) {
    cpu_ops *o = cpu_of(face);
    const layer_weights *w = &o->o.weights->layers[layer];
    uint64_t since = clock_now(o);
    rows_norm(o, o->h, o->x, w->post_norm, b->rows);
    linear l[2];
    add_gate_up(o, l, &w->dense, o->h, o->wide_mid, b->rows);
    linear_run(o, l, 2);
    swiglu(o, o->wide_mid, w->dense.gate.rows, b->rows);
    l[0] = down_of(o, &w->dense, o->wide_mid, o->tmp, b->rows);
    linear_run(o, l, 1);
    rows_add(o, o->tmp, b->rows);
    CLOCK_ADD(o, since, layer, experts_ns);
    return check_finite(o, layer, "MLP");
}
