/* attention.c: full attention on the CPU (MODEL_FACTS section 3).
 *
 *     h = norm(x) -> q | k | v (one job) -> per row and KV head: head norms, rotary embedding;
 *     k, v go to the cache, q to [kv head][row][query head of the group] so that all queries which
 *     share a KV head lie together -> per (sequence, kv head, piece of rows): attention, gate
 *     (one job with what stands before it when no sequence has more rows than a piece)
 *     -> output projection -> x += */
#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "model/cpu_ops_impl.h"

#define ASK_POSITIONS 8

typedef struct attn_job {
    cpu_ops *o;
    const batch *b;
    const attn_weights *w;
    int layer;
    int q_width;            /* heads * head_dim, times 2 with a gate */
    float *q, *k, *v;       /* [N, .] in o->wide */
    int pieces, piece_rows; /* of the longest item */
} attn_job;

/* The item that a row of the batch belongs to, and its place in there. */
static const batch_item *item_of(const batch *b, int row, int *t) {
    const batch_item *item = b->items;
    while (row >= item->count) row -= (item++)->count;
    *t = row;
    return item;
}

/* The angle is rounded to float32 as in the reference; its sine is rounded once. */
static void angles_row(void *ctx, int row, int worker) {
    (void)worker;
    const attn_job *j = ctx;
    cpu_ops *o = j->o;
    int t, half = o->c->rope.dims / 2;
    const batch_item *item = item_of(j->b, row, &t);
    float *cos_ = o->rope_cos + (size_t)row * (size_t)half;
    float *sin_ = o->rope_sin + (size_t)row * (size_t)half;
    for (int i = 0; i < half; i++) {
        double angle = (double)((float)(item->start + t) * o->inv_freq[i]);
        cos_[i] = (float)cos(angle) * o->rope_factor;
        sin_[i] = (float)sin(angle) * o->rope_factor;
    }
}

void attention_angles(cpu_ops *o, const batch *b) {
    attn_job j = {.o = o, .b = b};
    pool_run(o->o.pool, angles_row, &j, b->rows);
}

static void store_kv(const attn_job *j, const batch_item *item, int t, int h, const float *k,
                     const float *v) {
    const cpu_ops *o = j->o;
    const cpu_kernels *kernels = o->o.kernels;
    int d = o->c->head_dim;
    size_t bytes = kv_head_bytes(o->shape.type, d), at = (size_t)(item->start + t) * bytes;
    const cpu_state *s = (const cpu_state *)(const void *)item->state;
    const float *from[2] = {k, v};
    for (int which = 0; which < 2; which++) {
        uint8_t *to = cpu_state_kv(s, j->layer, which, h) + at;
        switch (o->shape.type) {
        case KV_F32: memcpy(to, from[which], bytes); break;
        case KV_F16: kernels->to_f16((uint16_t *)(void *)to, from[which], d); break;
        case KV_Q8: kernels->to_q8(to, from[which], d); break;
        }
    }
}

/* Asks memory for the part-th ASK_POSITIONS of the keys that attention begins with: a few at a
 * time, since a core that has asked for too much waits. */
static void ask_keys(const attn_job *j, const batch_item *item, int h, int part) {
    const cpu_ops *o = j->o;
    const cpu_state *s = (const cpu_state *)(const void *)item->state;
    size_t bytes = ASK_POSITIONS * kv_head_bytes(o->shape.type, o->c->head_dim);
    if (part * ASK_POSITIONS >= int_min(item->start, CPU_ATTN_BLOCK)) return;
    const uint8_t *at = cpu_state_kv(s, j->layer, 0, h) + (size_t)part * bytes;
    for (size_t i = 0; i < bytes; i += 64) __builtin_prefetch(at + i, 0, 2);
}

/* One row of a KV head: its queries normed and turned, key and value into the cache. */
static void prepare_head(const attn_job *j, int row, int h) {
    cpu_ops *o = j->o;
    const model_config *c = o->c;
    const cpu_kernels *k = o->o.kernels;
    int d = c->head_dim, group = c->heads / c->kv_heads, half = c->rope.dims / 2, t;
    int head_width = c->attention_gate ? 2 * d : d;
    float eps = (float)c->norm_eps;
    const batch_item *item = item_of(j->b, row, &t);
    const float *cos_ = o->rope_cos + (size_t)row * (size_t)half;
    const float *sin_ = o->rope_sin + (size_t)row * (size_t)half;
    const float *q = j->q + (size_t)row * (size_t)j->q_width;
    float *out = o->grouped + ((size_t)h * (size_t)j->b->rows + (size_t)row) * (size_t)(group * d);
    for (int i = h * group; i < (h + 1) * group; i++, out += d) {
        if (t == 0) ask_keys(j, item, h, i - h * group);
        k->rmsnorm(out, q + (size_t)i * (size_t)head_width, j->w->q_norm, d, eps);
        k->rope(out, cos_, sin_, half);
    }
    size_t at = ((size_t)row * (size_t)c->kv_heads + (size_t)h) * (size_t)d;
    k->rmsnorm(j->k + at, j->k + at, j->w->k_norm, d, eps);
    k->rope(j->k + at, cos_, sin_, half);
    store_kv(j, item, t, h, j->k + at, j->v + at);
}

static void prepare_row(void *ctx, int row, int worker) {
    (void)worker;
    const attn_job *j = ctx;
    for (int h = 0; h < j->o->c->kv_heads; h++) prepare_head(j, row, h);
}

/* Back to [row][head], times the gate. */
static void gate_rows(const attn_job *j, int h, int row, int n) {
    cpu_ops *o = j->o;
    const model_config *c = o->c;
    int d = c->head_dim, group = c->heads / c->kv_heads;
    for (int i = 0; i < n * group; i++) {
        int r = row + i / group, head = h * group + i % group;
        size_t at = ((size_t)h * (size_t)j->b->rows + (size_t)r) * (size_t)group;
        const float *from = o->attended + (at + (size_t)(i % group)) * (size_t)d;
        float *to = o->heads + ((size_t)r * (size_t)c->heads + (size_t)head) * (size_t)d;
        memcpy(to, from, (size_t)d * sizeof(float));
        if (!c->attention_gate) continue;
        const float *gate = j->q + (size_t)r * (size_t)j->q_width + (size_t)head * 2 * (size_t)d;
        o->o.kernels->sigmoid_mul(to, gate + d, d);
    }
}

/* task = (item, kv head, piece of the item's rows). A head needs nothing of the others, so where an
 * item is one piece its rows are prepared here. */
static void attend(void *ctx, int task, int worker) {
    const attn_job *j = ctx;
    cpu_ops *o = j->o;
    const model_config *c = o->c;
    int piece = task % j->pieces, h = task / j->pieces % c->kv_heads;
    int i = task / j->pieces / c->kv_heads;
    const batch_item *item = &j->b->items[i];
    int begin = piece * j->piece_rows, n = int_min(j->piece_rows, item->count - begin);
    if (n <= 0) return;
    int row = batch_first_row(j->b, i) + begin, d = c->head_dim, group = c->heads / c->kv_heads;
    for (int r = row; j->pieces == 1 && r < row + n; r++) prepare_head(j, r, h);
    size_t at = ((size_t)h * (size_t)j->b->rows + (size_t)row) * (size_t)group * (size_t)d;
    int *visible = (int *)(void *)o->worker[worker];
    for (int q = 0; q < n * group; q++) visible[q] = item->start + begin + q / group + 1;
    const cpu_state *s = (const cpu_state *)(const void *)item->state;
    cpu_attn a = {.out = o->attended + at,
                  .q = o->grouped + at,
                  .n_visible = visible,
                  .k = cpu_state_kv(s, j->layer, 0, h),
                  .v = cpu_state_kv(s, j->layer, 1, h),
                  .type = o->shape.type,
                  .out_stride = (size_t)d,
                  .q_stride = (size_t)d,
                  .kv_stride = kv_head_bytes(o->shape.type, d),
                  .n_q = n * group,
                  .head_dim = d,
                  .scale = (float)(1.0 / sqrt((double)d)),
                  .scratch = o->worker[worker] + n * group};
    o->o.kernels->attention(&a);
    gate_rows(j, h, row, n);
}

static void project(attn_job *j) {
    cpu_ops *o = j->o;
    int rows = j->b->rows;
    size_t kv = (size_t)(o->c->kv_heads * o->c->head_dim), hidden = (size_t)o->c->hidden;
    j->q = o->wide;
    j->k = j->q + (size_t)rows * (size_t)j->q_width;
    j->v = j->k + (size_t)rows * kv;
    linear l[3] = {{.w = &j->w->q, .bias = j->w->q_bias, .y = j->q, .y_stride = (size_t)j->q_width},
                   {.w = &j->w->k, .bias = j->w->k_bias, .y = j->k, .y_stride = kv},
                   {.w = &j->w->v, .bias = j->w->v_bias, .y = j->v, .y_stride = kv}};
    for (int i = 0; i < 3; i++) l[i].x = o->h, l[i].x_stride = hidden, l[i].n = rows;
    linear_run(o, l, 3);
}

/* Rows of one task: enough that a block of K is converted for many queries at once. */
static void cut_rows(attn_job *j) {
    int longest = 0;
    for (int i = 0; i < j->b->n_items; i++) longest = int_max(longest, j->b->items[i].count);
    j->piece_rows = int_min(longest, CPU_ATTN_BLOCK / 2);
    j->pieces = (longest + j->piece_rows - 1) / j->piece_rows;
}

err cpu_attention(ops *face, const batch *b, int layer) {
    cpu_ops *o = cpu_of(face);
    const layer_weights *w = &o->o.weights->layers[layer];
    const model_config *c = o->c;
    uint64_t since = clock_now(o);
    int q = c->heads * c->head_dim;
    attn_job j = {.o = o, .b = b, .w = &w->attn, .layer = layer};
    j.q_width = c->attention_gate ? 2 * q : q;
    rows_norm(o, o->h, o->x, w->input_norm, b->rows);
    project(&j);
    cut_rows(&j);
    if (j.pieces > 1) pool_run(o->o.pool, prepare_row, &j, b->rows);
    pool_run(o->o.pool, attend, &j, b->n_items * c->kv_heads * j.pieces);
    linear out = {.w = &w->attn.o,
                  .bias = w->attn.o_bias,
                  .x = o->heads,
                  .y = o->tmp,
                  .x_stride = (size_t)q,
                  .y_stride = (size_t)c->hidden,
                  .n = b->rows};
    linear_run(o, &out, 1);
    rows_add(o, o->tmp, b->rows);
    CLOCK_ADD(o, since, layer, attention_ns);
    return check_finite(o, layer, "attention");
}
