/* deltanet.c: gated DeltaNet on the CPU (MODEL_FACTS section 4).
 *
 *     h = norm(x) -> qkv | z | b | a (one job)
 *     -> per (sequence, key head): convolution and SiLU of its channels, q, k to length 1, then
 *     every value head of it: delta rule, gated norm -> output projection -> x +=
 *
 * A sequence's rows are cut at positions that are multiples of the chunk, whatever the batch, and a
 * piece of at least CHUNK_MIN rows takes the chunkwise form: which form a position gets depends on
 * where its request began and ended, not on how it was batched with others. */
#include <math.h>

#include "base/bits.h"
#include "model/cpu_ops_impl.h"

#define CHUNK_MIN 16
#define L2_EPS    1e-6f

typedef struct delta_job {
    cpu_ops *o;
    const batch *b;
    const delta_weights *w;
    int layer, channels, keys, values; /* floats of a row: qkv, all keys, all values */
    float *qkv, *z, *beta_raw, *a_raw; /* [N, .] in o->wide */
} delta_job;

static const cpu_state *state_of(const batch_item *item) {
    return (const cpu_state *)(const void *)item->state;
}

/* Convolution of channels [begin, begin + n) of an item's rows, in place. */
static void convolve(const delta_job *j, int i, int begin, int n) {
    float *qkv = j->qkv + (size_t)batch_first_row(j->b, i) * (size_t)j->channels;
    cpu_conv v = {.y = qkv,
                  .x = qkv,
                  .w = j->w->conv,
                  .rows = cpu_state_rows(state_of(&j->b->items[i]), j->layer),
                  .stride = (size_t)j->channels,
                  .n = j->b->items[i].count,
                  .channels = j->channels,
                  .begin = begin,
                  .end = begin + n};
    j->o->o.kernels->conv4_silu(&v);
}

/* One value head over the item's rows, piece by piece. */
static void run_head(const delta_job *j, int i, int head, float *scratch) {
    cpu_ops *o = j->o;
    const model_config *c = o->c;
    const batch_item *item = &j->b->items[i];
    int dk = c->linear_k_dim, dv = c->linear_v_dim, heads = c->linear_v_heads;
    int key = head / (heads / c->linear_k_heads);
    size_t row = (size_t)batch_first_row(j->b, i);
    float *state = cpu_state_delta(state_of(item), j->layer) + (size_t)head * (size_t)(dk * dv);
    for (int t = 0, n; t < item->count; t += n) {
        int to_border = CPU_DELTA_CHUNK - (item->start + t) % CPU_DELTA_CHUNK;
        n = int_min(item->count - t, to_border);
        size_t r = row + (size_t)t;
        const float *qkv = j->qkv + r * (size_t)j->channels;
        cpu_delta d = {.state = state,
                       .o = o->heads + r * (size_t)j->values + (size_t)(head * dv),
                       .q = qkv + key * dk,
                       .k = qkv + j->keys + key * dk,
                       .v = qkv + 2 * j->keys + head * dv,
                       .decay = o->decay + r * (size_t)heads + head,
                       .beta = o->beta + r * (size_t)heads + head,
                       .o_stride = (size_t)j->values,
                       .qk_stride = (size_t)j->channels,
                       .v_stride = (size_t)j->channels,
                       .gate_stride = (size_t)heads,
                       .n = n,
                       .dk = dk,
                       .dv = dv,
                       .scratch = scratch};
        (n >= CHUNK_MIN ? o->o.kernels->delta_chunk : o->o.kernels->delta_step)(&d);
    }
}

/* rmsnorm(o) * w * silu(z), in place. */
static void gate_head(const delta_job *j, int i, int head) {
    cpu_ops *o = j->o;
    int dv = o->c->linear_v_dim;
    size_t row = (size_t)batch_first_row(j->b, i);
    for (int t = 0; t < j->b->items[i].count; t++) {
        size_t at = (row + (size_t)t) * (size_t)j->values + (size_t)(head * dv);
        float *y = o->heads + at;
        o->o.kernels->rmsnorm(y, y, j->w->norm, dv, (float)o->c->norm_eps);
        o->o.kernels->silu_mul(y, j->z + at, y, dv);
    }
}

/* task = (item, key head) */
static void key_head(void *ctx, int task, int worker) {
    const delta_job *j = ctx;
    cpu_ops *o = j->o;
    const model_config *c = o->c;
    int i = task / c->linear_k_heads, key = task % c->linear_k_heads, dk = c->linear_k_dim;
    int ratio = c->linear_v_heads / c->linear_k_heads, values = ratio * c->linear_v_dim;
    float scale = (float)(1.0 / sqrt((double)dk));
    convolve(j, i, key * dk, dk);
    convolve(j, i, j->keys + key * dk, dk);
    convolve(j, i, 2 * j->keys + key * values, values);
    float *q = j->qkv + (size_t)batch_first_row(j->b, i) * (size_t)j->channels + key * dk;
    for (int t = 0; t < j->b->items[i].count; t++, q += j->channels) {
        o->o.kernels->l2norm(q, q, scale, dk, L2_EPS);
        o->o.kernels->l2norm(q + j->keys, q + j->keys, 1.0f, dk, L2_EPS);
    }
    for (int head = key * ratio; head < (key + 1) * ratio; head++) {
        run_head(j, i, head, o->worker[worker]);
        gate_head(j, i, head);
    }
}

static void project(delta_job *j) {
    cpu_ops *o = j->o;
    size_t rows = (size_t)j->b->rows, heads = (size_t)o->c->linear_v_heads;
    j->qkv = o->wide;
    j->z = j->qkv + rows * (size_t)j->channels;
    j->beta_raw = j->z + rows * (size_t)j->values;
    j->a_raw = j->beta_raw + rows * heads;
    linear l[4] = {{.w = &j->w->qkv, .y = j->qkv, .y_stride = (size_t)j->channels},
                   {.w = &j->w->z, .y = j->z, .y_stride = (size_t)j->values},
                   {.w = &j->w->b, .y = j->beta_raw, .y_stride = heads},
                   {.w = &j->w->a, .y = j->a_raw, .y_stride = heads}};
    for (int i = 0; i < 4; i++) {
        l[i].x = o->h, l[i].x_stride = (size_t)o->c->hidden, l[i].n = j->b->rows;
        l[i].precise = i >= 2; /* the gates */
    }
    linear_run(o, l, 4);
    for (size_t r = 0; r < rows; r++) {
        o->o.kernels->sigmoid(o->beta + r * heads, j->beta_raw + r * heads, (int)heads);
        o->o.kernels->delta_gate(o->decay + r * heads, j->a_raw + r * heads, j->w->exp_a_log,
                                 j->w->dt_bias, (int)heads);
    }
}

err cpu_delta_net(ops *face, const batch *b, int layer) {
    cpu_ops *o = cpu_of(face);
    const layer_weights *w = &o->o.weights->layers[layer];
    const model_config *c = o->c;
    uint64_t since = clock_now(o);
    delta_job j = {.o = o, .b = b, .w = &w->delta, .layer = layer};
    j.keys = c->linear_k_heads * c->linear_k_dim;
    j.values = c->linear_v_heads * c->linear_v_dim;
    j.channels = 2 * j.keys + j.values;
    rows_norm(o, o->h, o->x, w->input_norm, b->rows);
    project(&j);
    pool_run(o->o.pool, key_head, &j, b->n_items * c->linear_k_heads);
    linear out = {.w = &w->delta.out,
                  .x = o->heads,
                  .y = o->tmp,
                  .x_stride = (size_t)j.values,
                  .y_stride = (size_t)c->hidden,
                  .n = b->rows};
    linear_run(o, &out, 1);
    rows_add(o, o->tmp, b->rows);
    CLOCK_ADD(o, since, layer, delta_ns);
    return check_finite(o, layer, "linear attention");
}
