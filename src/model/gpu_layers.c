/* gpu_layers.c: the blocks of a layer as launches: attention, DeltaNet, dense MLP. The order is
 * that of attention.c, deltanet.c and moe.c; residuals are added by the last matrix of a block. */
#include <math.h>

#include "model/gpu_ops_impl.h"

gpu_mat gpu_mat_of(const gpu_ops *o, const qmat *m) {
    return (gpu_mat){.w = gpu_at(o, m->w),
                     .scales = gpu_at(o, m->scales),
                     .biases = gpu_at(o, m->biases),
                     .rows = m->rows,
                     .cols = m->cols,
                     .kind = (int)m->format.kind,
                     .bits = m->format.bits,
                     .group = m->format.group,
                     .scales_f16 = m->format.scales_f16};
}

err gpu_norm(gpu_ops *o, gpu_addr y, gpu_addr x, const float *g, int rows) {
    args_rmsnorm a = {.x = x,
                      .g = gpu_at(o, g),
                      .y = y,
                      .n = rows,
                      .cols = o->c->hidden,
                      .eps = (float)o->c->norm_eps};
    return gpu_do(o, GPU_rmsnorm, &a);
}

/* ---- full attention ---- */

static err attention_in(gpu_ops *o, const batch *b, const attn_weights *w) {
    const qmat *m[3] = {&w->q, &w->k, &w->v};
    const float *bias[3] = {w->q_bias, w->k_bias, w->v_bias};
    gpu_addr y[3] = {o->q, o->k, o->v};
    args_matvec a = {.x = o->h, .n = b->rows, .x_stride = o->c->hidden, .n_mats = 3};
    for (int i = 0; i < 3; i++) {
        a.m[i] = gpu_mat_of(o, m[i]);
        a.y[i] = y[i];
        a.y_stride[i] = m[i]->rows;
        a.bias[i] = gpu_at(o, bias[i]);
    }
    return gpu_multiply(o, &a);
}

static err heads_in(gpu_ops *o, const batch *b, int layer, const attn_weights *w) {
    const model_config *c = o->c;
    gpu_addr k = o->kv + (gpu_addr)o->shape.index[layer] * 2 * o->kv_layer;
    args_attn_in a = {.q = o->q,
                      .k = o->k,
                      .v = o->v,
                      .q_norm = gpu_at(o, w->q_norm),
                      .k_norm = gpu_at(o, w->k_norm),
                      .cosines = o->cosines,
                      .sines = o->sines,
                      .q_out = o->q_out,
                      .k_cache = k,
                      .v_cache = k + o->kv_layer,
                      .rows = o->step_addr + o->rows_at,
                      .slot_bytes = o->kv_slot,
                      .row_bytes = (int)o->kv_row,
                      .kv_type = gpu_kv_type(o),
                      .n = b->rows,
                      .n_q = c->heads,
                      .n_kv = c->kv_heads,
                      .dim = c->head_dim,
                      .rot = c->rope.dims,
                      .q_stride = w->q.rows,
                      .q_head_stride = c->attention_gate ? 2 * c->head_dim : c->head_dim,
                      .k_stride = w->k.rows,
                      .v_stride = w->v.rows,
                      .eps = (float)c->norm_eps};
    return gpu_do(o, GPU_attn_in, &a);
}

static err attend(gpu_ops *o, const batch *b, int layer, const attn_weights *w) {
    const model_config *c = o->c;
    gpu_addr k = o->kv + (gpu_addr)o->shape.index[layer] * 2 * o->kv_layer;
    args_attn a = {.q = o->q_out,
                   .gate = c->attention_gate ? o->q + (gpu_addr)c->head_dim * sizeof(float) : 0,
                   .out = o->heads,
                   .part = o->part,
                   .k_cache = k,
                   .v_cache = k + o->kv_layer,
                   .rows = o->step_addr + o->rows_at,
                   .slot_bytes = o->kv_slot,
                   .row_bytes = (int)o->kv_row,
                   .kv_type = gpu_kv_type(o),
                   .n = b->rows,
                   .n_q = c->heads,
                   .n_kv = c->kv_heads,
                   .dim = c->head_dim,
                   .n_splits = o->splits,
                   .gate_stride = w->q.rows,
                   .scale = (float)(1.0 / sqrt((double)c->head_dim))};
    TRY(gpu_do(o, GPU_attn, &a));
    return o->splits ? gpu_do(o, GPU_attn_merge, &a) : err_none();
}

/* x += W in (+ bias) */
static err project_out(gpu_ops *o, const batch *b, const qmat *w, const float *bias, gpu_addr in) {
    args_matvec a = {.m = {gpu_mat_of(o, w)},
                     .y = {o->x},
                     .bias = {gpu_at(o, bias)},
                     .x = in,
                     .residual = o->x,
                     .y_stride = {o->c->hidden},
                     .n = b->rows,
                     .x_stride = w->cols,
                     .n_mats = 1};
    return gpu_multiply(o, &a);
}

err gpu_attention(ops *face, const batch *b, int layer) {
    gpu_ops *o = gpu_of(face);
    const layer_weights *w = &o->o.weights->layers[layer];
    if (o->mode == STEP_REPLAY) return err_none();
    TRY(gpu_norm(o, o->h, o->x, w->input_norm, b->rows));
    TRY(attention_in(o, b, &w->attn));
    TRY(heads_in(o, b, layer, &w->attn));
    TRY(attend(o, b, layer, &w->attn));
    return project_out(o, b, &w->attn.o, w->attn.o_bias, o->heads);
}

/* ---- gated DeltaNet ---- */

static err delta_project(gpu_ops *o, const batch *b, const delta_weights *w) {
    const qmat *m[4] = {&w->qkv, &w->z, &w->b, &w->a};
    gpu_addr y[4] = {o->qkv, o->z, o->b, o->a};
    args_matvec a = {.x = o->h, .n = b->rows, .x_stride = o->c->hidden, .n_mats = 4};
    for (int i = 0; i < 4; i++) {
        a.m[i] = gpu_mat_of(o, m[i]);
        a.y[i] = y[i];
        a.y_stride[i] = m[i]->rows;
    }
    return gpu_multiply(o, &a);
}

static err delta_prepare(gpu_ops *o, const batch *b, const delta_weights *w, gpu_addr rows) {
    const model_config *c = o->c;
    args_conv conv = {.x = o->qkv,
                      .w = gpu_at(o, w->conv),
                      .y = o->conv,
                      .state = rows,
                      .segments = o->step_addr + o->segments_at,
                      .state_stride = o->recurrent_slot / sizeof(float),
                      .n_segments = b->n_items,
                      .channels = o->shape.channels,
                      .stride = o->shape.channels};
    TRY(gpu_do(o, GPU_conv, &conv));
    args_delta_in in = {.qkv = o->conv,
                        .a = o->a,
                        .b = o->b,
                        .exp_a_log = gpu_at(o, w->exp_a_log),
                        .dt_bias = gpu_at(o, w->dt_bias),
                        .decay = o->decay,
                        .beta = o->beta,
                        .n = b->rows,
                        .n_k = c->linear_k_heads,
                        .n_v = c->linear_v_heads,
                        .dk = c->linear_k_dim,
                        .stride = o->shape.channels,
                        .ab_stride = c->linear_v_heads,
                        .scale = (float)(1.0 / sqrt((double)c->linear_k_dim))};
    return gpu_do(o, GPU_delta_in, &in);
}

static err delta_run(gpu_ops *o, const batch *b, const delta_weights *w, gpu_addr state) {
    const model_config *c = o->c;
    args_delta run = {.qkv = o->conv,
                      .decay = o->decay,
                      .beta = o->beta,
                      .o = o->heads,
                      .state = state,
                      .segments = o->step_addr + o->segments_at,
                      .state_stride = o->recurrent_slot / sizeof(float),
                      .n_segments = b->n_items,
                      .n_k = c->linear_k_heads,
                      .n_v = c->linear_v_heads,
                      .dk = c->linear_k_dim,
                      .dv = c->linear_v_dim,
                      .stride = o->shape.channels,
                      .n = b->rows};
    TRY(gpu_do(o, GPU_delta, &run));
    args_delta_out out = {.o = o->heads,
                          .z = o->z,
                          .g = gpu_at(o, w->norm),
                          .n = b->rows,
                          .n_v = c->linear_v_heads,
                          .dv = c->linear_v_dim,
                          .z_stride = w->z.rows,
                          .eps = (float)c->norm_eps};
    return gpu_do(o, GPU_delta_out, &out);
}

err gpu_delta_net(ops *face, const batch *b, int layer) {
    gpu_ops *o = gpu_of(face);
    const layer_weights *w = &o->o.weights->layers[layer];
    const state_shape *s = &o->shape;
    if (o->mode == STEP_REPLAY) return err_none();
    size_t matrix = (size_t)s->v_heads * (size_t)s->dk * (size_t)s->dv;
    size_t floats = matrix + 3 * (size_t)s->channels; /* of a layer */
    gpu_addr state = o->recurrent + (gpu_addr)s->index[layer] * floats * sizeof(float);
    TRY(gpu_norm(o, o->h, o->x, w->input_norm, b->rows));
    TRY(delta_project(o, b, &w->delta));
    TRY(delta_prepare(o, b, &w->delta, state + matrix * sizeof(float)));
    TRY(delta_run(o, b, &w->delta, state));
    return project_out(o, b, &w->delta.out, NULL, o->heads);
}

/* ---- dense MLP ---- */

err gpu_mlp(ops *face, const batch *b, int layer) {
    gpu_ops *o = gpu_of(face);
    const mlp_weights *w = &o->o.weights->layers[layer].dense;
    if (o->mode == STEP_REPLAY) return err_none();
    TRY(gpu_norm(o, o->h, o->x, o->o.weights->layers[layer].post_norm, b->rows));
    args_matvec in = {.m = {gpu_mat_of(o, &w->gate), gpu_mat_of(o, &w->up)},
                      .y = {o->gate_mid, o->up_mid},
                      .x = o->h,
                      .y_stride = {w->gate.rows, w->up.rows},
                      .n = b->rows,
                      .x_stride = o->c->hidden,
                      .n_mats = 2};
    TRY(gpu_multiply(o, &in));
    args_swiglu act = {
        .gate = o->gate_mid, .up = o->up_mid, .y = o->gate_mid, .n = b->rows * w->gate.rows};
    TRY(gpu_do(o, GPU_swiglu, &act));
    return project_out(o, b, &w->down, NULL, o->gate_mid);
}
