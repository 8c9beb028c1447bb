/* state.c: see state.h. */
#include "model/state.h"

#include <stdlib.h>
#include <string.h>

static size_t head_bytes(const state_shape *s, int positions) {
    return (size_t)positions * kv_head_bytes(s->type, s->head_dim);
}

void state_shape_of(const model_config *c, int context, kv_type type, layer_share share,
                    state_shape *out) {
    *out = (state_shape){.kv_heads = c->kv_heads,
                         .head_dim = c->head_dim,
                         .context = context,
                         .type = type,
                         .v_heads = c->linear_v_heads,
                         .dk = c->linear_k_dim,
                         .dv = c->linear_v_dim};
    out->channels = 2 * c->linear_k_heads * c->linear_k_dim + c->linear_v_heads * c->linear_v_dim;
    for (int i = 0; i < c->layers; i++) {
        int *kind = c->layer[i].full_attention ? &out->n_full : &out->n_delta;
        out->index[i] = share_has(share, i) ? (*kind)++ : -1;
    }
}

static size_t delta_floats(const state_shape *s) {
    return (size_t)s->v_heads * (size_t)s->dk * (size_t)s->dv + 3 * (size_t)s->channels;
}

size_t state_kv_bytes(const state_shape *s) {
    return (size_t)s->n_full * 2 * (size_t)s->kv_heads * head_bytes(s, s->context);
}

size_t state_recurrent_bytes(const state_shape *s) {
    return (size_t)s->n_delta * delta_floats(s) * sizeof(float);
}

err cpu_state_open(const state_shape *shape, budget *b, cpu_state **out) {
    *out = NULL;
    cpu_state *s = calloc(1, sizeof *s);
    if (!s) return err_make(ERR_NOMEM, "no memory for a session");
    s->shape = shape;
    err e = arena_open(&s->kv, b, BUDGET_KV, state_kv_bytes(shape), false);
    if (!e.code)
        e = arena_open(&s->recurrent, b, BUDGET_STATE, state_recurrent_bytes(shape), false);
    if (e.code) {
        cpu_state_close(s);
        return e;
    }
    *out = s;
    return err_none();
}

void cpu_state_close(cpu_state *s) {
    if (!s) return;
    arena_close(&s->kv);
    arena_close(&s->recurrent);
    free(s);
}

void cpu_state_reset(cpu_state *s) {
    memset(s->recurrent.base, 0, state_recurrent_bytes(s->shape));
}

uint8_t *cpu_state_kv(const cpu_state *s, int layer, int which, int h) {
    const state_shape *d = s->shape;
    size_t at = ((size_t)d->index[layer] * 2 + (size_t)which) * (size_t)d->kv_heads + (size_t)h;
    return s->kv.base + at * head_bytes(d, d->context);
}

float *cpu_state_delta(const cpu_state *s, int layer) {
    return (float *)(void *)s->recurrent.base +
           (size_t)s->shape->index[layer] * delta_floats(s->shape);
}

float *cpu_state_rows(const cpu_state *s, int layer) {
    const state_shape *d = s->shape;
    return cpu_state_delta(s, layer) + (size_t)d->v_heads * (size_t)d->dk * (size_t)d->dv;
}

size_t state_kv_packed_bytes(const state_shape *s, int n) {
    return (size_t)s->n_full * 2 * (size_t)s->kv_heads * head_bytes(s, n);
}

void cpu_state_kv_get(const cpu_state *s, int n, void *out) {
    const state_shape *d = s->shape;
    size_t whole = head_bytes(d, d->context), some = head_bytes(d, n);
    uint8_t *to = out;
    for (int i = 0; i < d->n_full * 2 * d->kv_heads; i++)
        memcpy(to + (size_t)i * some, s->kv.base + (size_t)i * whole, some);
}

void cpu_state_kv_put(cpu_state *s, int n, const void *in) {
    const state_shape *d = s->shape;
    size_t whole = head_bytes(d, d->context), some = head_bytes(d, n);
    const uint8_t *from = in;
    for (int i = 0; i < d->n_full * 2 * d->kv_heads; i++)
        memcpy(s->kv.base + (size_t)i * whole, from + (size_t)i * some, some);
}
