/* cpu_ops.c: the CPU implementation's object: scratch, sequences, embeddings and head. The blocks
 * of a layer are in attention.c, deltanet.c and moe.c. */
#include "model/cpu_ops.h"

#include <assert.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/os.h"
#include "model/cpu_ops_impl.h"
#include "model/rope.h"

/* ---- timing ---- */

uint64_t clock_now(const cpu_ops *o) { return o->clocks ? os_now_ns() : 0; }

void clock_add(cpu_ops *o, uint64_t since, uint64_t *clock) {
    (void)o;
    *clock += os_now_ns() - since;
}

/* ---- scratch ---- */

typedef struct cutter { /* hands out scratch, or only counts it (base NULL) */
    uint8_t *base;
    size_t used;
} cutter;

static void *cut(cutter *c, size_t n, size_t size) {
    size_t at = round_up(c->used, 64);
    c->used = at + n * size;
    return c->base ? c->base + at : NULL;
}

static size_t wide_of(const model_config *c) {
    int attention =
        c->heads * c->head_dim * (c->attention_gate ? 2 : 1) + 2 * c->kv_heads * c->head_dim;
    int values = c->linear_v_heads * c->linear_v_dim;
    int delta = 2 * c->linear_k_heads * c->linear_k_dim + 2 * values + 2 * c->linear_v_heads;
    return (size_t)int_max(attention, delta);
}

static size_t worker_floats(const model_config *c, int rows) {
    int cols = int_max(int_max(c->hidden, c->heads * c->head_dim),
                       int_max(c->linear_v_heads * c->linear_v_dim, c->intermediate));
    cols = int_max(cols, int_max(c->shared_intermediate, c->expert_intermediate));
    size_t floats = cpu_matmul_bf16_scratch(cols);
    int queries = int_min(rows, CPU_ATTN_BLOCK) * (c->heads / c->kv_heads);
    size_t attention = cpu_attn_scratch(queries, c->head_dim) + (size_t)queries;
    if (attention > floats) floats = attention;
    size_t ints = (cpu_matmul_int_scratch(cols, 32) + 3) / sizeof(float);
    if (ints > floats) floats = ints;
    size_t delta = c->linear_v_heads ? cpu_delta_scratch(c->linear_k_dim, c->linear_v_dim) : 0;
    return delta > floats ? delta : floats;
}

/* Of n rows, in whatever form takes most. */
static size_t act_most(int n, int cols) {
    size_t q = cpu_actq_bytes(n, cols, 32), b = cpu_actb_bytes(n, cols);
    return q > b ? q : b;
}

/* Activations in 8 bits and BF16: o->h at three group sizes and BF16, and the inputs of one
 * linear_run. Every input is counted apart, rounded up. */
static size_t act_bytes(const model_config *c, int rows, int k) {
    int inner = int_max(c->heads * c->head_dim, c->linear_v_heads * c->linear_v_dim);
    int r = int_max(rows, k), mlp = int_max(c->shared_intermediate, c->intermediate);
    size_t bytes = 0;
    for (int group = 32; group <= 128; group *= 2) bytes += cpu_actq_bytes(rows, c->hidden, group);
    bytes += cpu_actb_bytes(rows, c->hidden);
    if (c->experts) bytes += act_most(r, c->hidden); /* rows of h that cannot be picked */
    bytes += act_most(rows, inner) + act_most(rows, mlp) + act_most(r, c->expert_intermediate);
    return bytes + (size_t)(c->experts + 8) * 64;
}

/* Every buffer of cpu_ops_impl.h, for N rows. */
static void lay_out(cpu_ops *o, const model_config *c, int rows, int k, cutter *s) {
    size_t N = (size_t)rows, K = (size_t)k, R = (size_t)int_max(rows, k), F = sizeof(float);
    size_t hidden = (size_t)c->hidden, experts = (size_t)c->experts;
    size_t q = (size_t)(c->heads * c->head_dim);
    size_t values = (size_t)(c->linear_v_heads * c->linear_v_dim);
    o->x = cut(s, N * hidden, F);
    o->h = cut(s, N * hidden, F);
    o->tmp = cut(s, N * hidden, F);
    o->wide = cut(s, N * wide_of(c), F);
    o->heads = cut(s, N * (q > values ? q : values), F);
    o->grouped = cut(s, N * q, F);
    o->attended = cut(s, N * q, F);
    o->rope_cos = cut(s, N * (size_t)c->rope.dims / 2, F);
    o->rope_sin = cut(s, N * (size_t)c->rope.dims / 2, F);
    o->decay = cut(s, N * (size_t)c->linear_v_heads, F);
    o->beta = cut(s, N * (size_t)c->linear_v_heads, F);
    o->router = cut(s, N * experts, F);
    o->shared_gate = cut(s, N, F);
    o->ids = cut(s, N * K, sizeof(int));
    o->gates = cut(s, N * K, F);
    o->position = cut(s, N * K, sizeof(int));
    o->row_at = cut(s, N * K, sizeof(int));
    o->first = cut(s, experts + 1, sizeof(int));
    o->gather = cut(s, experts ? R * hidden : 0, F);
    o->mid = cut(s, R * 2 * (size_t)c->expert_intermediate, F);
    o->wide_mid = cut(s, N * 2 * (size_t)int_max(c->shared_intermediate, c->intermediate), F);
    o->outs = cut(s, experts ? N * K * hidden : 0, F);
    o->look_x = cut(s, hidden, F);
    o->look_p = cut(s, experts, F);
    o->head_y = cut(s, (size_t)BATCH_ITEMS_MAX * HEAD_ROWS, F);
    o->uses = cut(s, experts, sizeof *o->uses);
    o->list = cut(s, experts, sizeof(int));
    o->linears = cut(s, 2 * experts + 8, sizeof *o->linears);
    o->acts = cut(s, 2 * experts + 8 + ACT_ENTRIES_KEPT, sizeof *o->acts);
    o->act_bytes = act_bytes(c, rows, k);
    o->act_memory = cut(s, o->act_bytes, 1);
}

static void lay_out_workers(cpu_ops *o, int threads, cutter *s) {
    o->worker = cut(s, (size_t)threads, sizeof *o->worker);
    for (int i = 0; i < threads; i++) {
        float *at = cut(s, o->worker_floats, sizeof(float));
        if (o->worker) o->worker[i] = at;
    }
}

size_t cpu_ops_scratch_bytes(const model_config *c, int rows_max, int k, int threads) {
    cpu_ops o = {.worker_floats = worker_floats(c, rows_max)};
    cutter s = {0};
    lay_out(&o, c, rows_max, k, &s);
    lay_out_workers(&o, threads, &s);
    return s.used;
}

/* ---- rows ---- */

typedef struct rows_job {
    cpu_ops *o;
    float *y;
    const float *x, *g;
} rows_job;

static void norm_row(void *ctx, int row, int worker) {
    (void)worker;
    const rows_job *j = ctx;
    int n = j->o->c->hidden;
    size_t at = (size_t)row * (size_t)n;
    j->o->o.kernels->rmsnorm(j->y + at, j->x + at, j->g, n, (float)j->o->c->norm_eps);
}

void rows_norm(cpu_ops *o, float *y, const float *x, const float *g, int rows) {
    rows_job j = {.o = o, .y = y, .x = x, .g = g};
    linear_forget(o);
    pool_run(o->o.pool, norm_row, &j, rows);
}

static void add_row(void *ctx, int row, int worker) {
    (void)worker;
    const rows_job *j = ctx;
    int n = j->o->c->hidden;
    float *x = j->o->x + (size_t)row * (size_t)n;
    j->o->o.kernels->add(x, j->x + (size_t)row * (size_t)n, n);
    if (!isfinite(j->o->o.kernels->dot(x, x, n))) atomic_store(&j->o->bad, 1);
}

void rows_add(cpu_ops *o, const float *y, int rows) {
    rows_job j = {.o = o, .x = y};
    pool_run(o->o.pool, add_row, &j, rows);
}

err check_finite(cpu_ops *o, int layer, const char *what) {
    if (!atomic_load(&o->bad)) return err_none();
    return err_make(ERR_CORRUPT,
                    "layer %d, %s: the result is not a finite number: weights of this layer are "
                    "damaged",
                    layer, what);
}

/* ---- begin and head ---- */

static err enter(ops *face, const batch *b) {
    cpu_ops *o = cpu_of(face);
    assert(b->rows >= 1 && b->rows <= o->o.rows_max && b->n_items <= BATCH_ITEMS_MAX);
    atomic_store(&o->bad, 0);
    attention_angles(o, b);
    return err_none();
}

static err rows_get(ops *face, const batch *b, float *out) {
    const cpu_ops *o = cpu_of(face);
    memcpy(out, o->x, (size_t)b->rows * (size_t)o->c->hidden * sizeof *out);
    return err_none();
}

static err rows_put(ops *face, const batch *b, const float *in) {
    cpu_ops *o = cpu_of(face);
    memcpy(o->x, in, (size_t)b->rows * (size_t)o->c->hidden * sizeof *in);
    return err_none();
}

static err begin(ops *face, const batch *b) {
    cpu_ops *o = cpu_of(face);
    int row = 0;
    for (int i = 0; i < b->n_items; i++) {
        for (int t = 0; t < b->items[i].count; t++, row++) {
            float *x = o->x + (size_t)row * (size_t)o->c->hidden;
            qmat_row_f32(x, &o->o.weights->embed, b->items[i].ids[t]);
        }
    }
    TRY(enter(face, b));
    look_ahead(o, b, -1);
    return err_none();
}

/* The head for n rows that lie one after the other in o->h, a piece of the vocabulary at a time. */
static void head_pieces(cpu_ops *o, float *const *logits, int n) {
    const qmat *head = &o->o.weights->head;
    for (int at = 0; at < head->rows; at += HEAD_ROWS) {
        int rows = int_min(HEAD_ROWS, head->rows - at);
        qmat piece = qmat_rows(head, at, rows);
        linear l = {.w = &piece,
                    .x = o->h,
                    .y = o->head_y,
                    .x_stride = (size_t)o->c->hidden,
                    .y_stride = HEAD_ROWS,
                    .n = n};
        linear_run(o, &l, 1);
        for (int i = 0; i < n; i++)
            memcpy(logits[i] + at, o->head_y + (size_t)i * HEAD_ROWS, (size_t)rows * sizeof(float));
    }
}

static err head(ops *face, const batch *b) {
    cpu_ops *o = cpu_of(face);
    float *logits[BATCH_ITEMS_MAX];
    size_t hidden = (size_t)o->c->hidden;
    int n = 0, row = 0;
    for (int i = 0; i < b->n_items; i++) {
        row += b->items[i].count;
        if (!b->items[i].logits) continue;
        memcpy(o->tmp + (size_t)n * hidden, o->x + (size_t)(row - 1) * hidden,
               hidden * sizeof(float));
        logits[n++] = b->items[i].logits;
    }
    if (!n) return err_none();
    rows_norm(o, o->h, o->tmp, o->o.weights->final_norm, n);
    if (n > 1) {
        head_pieces(o, logits, n);
    } else {
        linear l = {.w = &o->o.weights->head,
                    .x = o->h,
                    .y = logits[0],
                    .x_stride = hidden,
                    .y_stride = (size_t)o->c->vocab,
                    .n = 1};
        linear_run(o, &l, 1);
    }
    return err_none();
}

static void abandon(ops *face) { (void)face; }

/* ---- sequences ---- */

static cpu_state *state_of(const ops_state *s) { return (cpu_state *)(uintptr_t)s; }

static err state_open(ops *face, ops_state **out) {
    cpu_ops *o = cpu_of(face);
    cpu_state *s;
    *out = NULL;
    TRY(cpu_state_open(&o->shape, o->o.budget, &s));
    *out = (ops_state *)s;
    return err_none();
}

static void state_close(ops *face, ops_state *s) {
    (void)face;
    cpu_state_close(state_of(s));
}

static void state_reset(ops *face, ops_state *s) {
    (void)face;
    cpu_state_reset(state_of(s));
}

static size_t recurrent_bytes(const ops *face) {
    return state_recurrent_bytes(&((const cpu_ops *)(const void *)face)->shape);
}

static err recurrent_get(ops *face, const ops_state *s, void *out) {
    memcpy(out, state_of(s)->recurrent.base, recurrent_bytes(face));
    return err_none();
}

static err recurrent_put(ops *face, ops_state *s, const void *in) {
    memcpy(state_of(s)->recurrent.base, in, recurrent_bytes(face));
    return err_none();
}

static size_t kv_bytes(const ops *face, int n) {
    return state_kv_packed_bytes(&((const cpu_ops *)(const void *)face)->shape, n);
}

static err kv_get(ops *face, const ops_state *s, int n, void *out) {
    (void)face;
    cpu_state_kv_get(state_of(s), n, out);
    return err_none();
}

static err kv_put(ops *face, ops_state *s, int n, const void *in) {
    (void)face;
    cpu_state_kv_put(state_of(s), n, in);
    return err_none();
}

static const ops_table table = {
    .state_open = state_open,
    .state_close = state_close,
    .state_reset = state_reset,
    .recurrent_bytes = recurrent_bytes,
    .recurrent_get = recurrent_get,
    .recurrent_put = recurrent_put,
    .kv_bytes = kv_bytes,
    .kv_get = kv_get,
    .kv_put = kv_put,
    .begin = begin,
    .enter = enter,
    .rows_get = rows_get,
    .rows_put = rows_put,
    .attention = cpu_attention,
    .delta = cpu_delta_net,
    .moe = cpu_moe,
    .mlp = cpu_mlp,
    .head = head,
    .abandon = abandon,
};

/* ---- life ---- */

static err set_up(cpu_ops *o) {
    const model_config *c = o->c;
    if (c->rope.dims / 2 > (int)(sizeof o->inv_freq / sizeof *o->inv_freq))
        return err_make(ERR_UNSUPPORTED, "config.json: %d rotary dimensions are too many",
                        c->rope.dims);
    TRY(rope_frequencies(&c->rope, c->rope.dims, o->o.context, o->inv_freq, &o->rope_factor));
    for (int i = 0; o->o.rope_bf16 && i < c->rope.dims / 2; i++)
        o->inv_freq[i] = bf16_to_f32(f32_to_bf16(o->inv_freq[i]));
    int threads = pool_threads(o->o.pool);
    size_t bytes = cpu_ops_scratch_bytes(c, o->o.rows_max, o->o.experts_per_token, threads);
    TRY(arena_open(&o->scratch, o->o.budget, BUDGET_SCRATCH, bytes, true));
    o->worker_floats = worker_floats(c, o->o.rows_max);
    cutter s = {.base = o->scratch.base};
    lay_out(o, c, o->o.rows_max, o->o.experts_per_token, &s);
    lay_out_workers(o, threads, &s);
    return err_none();
}

err cpu_ops_open(const cpu_ops_options *options, cpu_ops **out) {
    *out = NULL;
    cpu_ops *o = calloc(1, sizeof *o);
    if (!o) return err_make(ERR_NOMEM, "no memory for the engine");
    o->face.table = &table;
    o->o = *options;
    o->c = options->weights->config;
    state_shape_of(o->c, options->context, options->kv, options->share, &o->shape);
    err e = set_up(o);
    if (e.code) {
        cpu_ops_close(o);
        return e;
    }
    *out = o;
    return err_none();
}

void cpu_ops_close(cpu_ops *o) {
    if (!o) return;
    arena_close(&o->scratch);
    free(o);
}

ops *cpu_ops_face(cpu_ops *o) { return &o->face; }
const state_shape *cpu_ops_shape(const cpu_ops *o) { return &o->shape; }

void cpu_ops_set_routing_hook(cpu_ops *o, routing_hook hook, void *ctx) {
    o->hook = hook;
    o->hook_ctx = ctx;
}

void cpu_ops_set_routing_force(cpu_ops *o, routing_force force, void *ctx) {
    o->force = force;
    o->force_ctx = ctx;
}

const float *cpu_ops_router(const cpu_ops *o, int row) {
    return o->router + (size_t)row * (size_t)o->c->experts;
}

void cpu_ops_set_clocks(cpu_ops *o, layer_clock *clocks) { o->clocks = clocks; }
