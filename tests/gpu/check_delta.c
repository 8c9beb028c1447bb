/* check_delta.c: convolution, the gated delta rule, the gated norm. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check.h"

enum { SLOTS = 3 };

/* Segments of the given counts, in slots 2, 0, 1, at positions 0, 101, 202. */
static int segments_of(const int *counts, int n, gpu_segment *out) {
    int first = 0;
    for (int i = 0; i < n; i++) {
        out[i] = (gpu_segment){first, counts[i], (i + 2) % SLOTS, i * 101};
        first += counts[i];
    }
    return first;
}

static void conv_case(lab *l, int channels, const int *counts, int n_segments) {
    gpu_segment seg[SLOTS];
    int n = segments_of(counts, n_segments, seg), stride = channels + 5;
    size_t F = sizeof(float), rows = (size_t)(n * stride);
    float *x = lab_floats(l, rows, -2, 2), *w = lab_floats(l, (size_t)channels * 4, -1, 1);
    float *state = lab_floats(l, (size_t)(SLOTS * 3 * channels), -2, 2);
    args_conv a = {.n_segments = n_segments, .channels = channels, .stride = stride};
    a.x = lab_in(l, x, rows * F), a.w = lab_in(l, w, (size_t)channels * 4 * F);
    a.y = lab_out(l, rows * F);
    a.state = lab_in(l, state, (size_t)(SLOTS * 3 * channels) * F);
    a.segments = lab_in(l, seg, (size_t)n_segments * sizeof *seg);
    a.state_stride = (size_t)(3 * channels);
    lab_run(l, GPU_conv, &a);
    float *want = lab_host(l, rows * F);
    for (int i = 0; i < n_segments; i++) {
        cpu_conv c = {.y = want + seg[i].first * stride,
                      .x = x + seg[i].first * stride,
                      .w = w,
                      .rows = state + seg[i].slot * 3 * channels,
                      .stride = (size_t)stride,
                      .n = seg[i].count,
                      .channels = channels,
                      .end = channels};
        l->cpu->conv4_silu(&c);
    }
    const float *got = lab_read(l, a.y, rows * F);
    for (int t = 0; t < n; t++) {
        lab_same(l, got + t * stride, want + t * stride, (size_t)channels * F,
                 "conv: the bits of the CPU");
    }
    lab_same(l, lab_read(l, a.state, (size_t)(SLOTS * 3 * channels) * F), state,
             (size_t)(SLOTS * 3 * channels) * F, "conv state");
    lab_end(l);
}

typedef struct delta_shape {
    int n_k, n_v, dk, dv;
    float decay; /* the strongest; 0: -2 */
} delta_shape;

static const char *describe(const delta_shape *s, const char *what, int n) {
    static char text[128];
    snprintf(text, sizeof text, "%s: %d/%d heads, dk %d dv %d, %d tokens", what, s->n_k, s->n_v,
             s->dk, s->dv, n);
    return text;
}

/* qkv, a, b as the projections leave them; want = qkv after l2norm. */
static void in_case(lab *l, const delta_shape *s, int n) {
    int keys = s->n_k * s->dk, stride = 2 * keys + s->n_v * s->dv;
    size_t F = sizeof(float), floats = (size_t)(n * stride), gates = (size_t)(n * s->n_v);
    float *qkv = lab_floats(l, floats, -2, 2);
    float *av = lab_floats(l, gates, -6, 24), *bv = lab_floats(l, gates, -6, 6);
    float *ea = lab_floats(l, (size_t)s->n_v, 0.1f, 8),
          *bias = lab_floats(l, (size_t)s->n_v, -2, 2);
    float *decay = lab_host(l, gates * F), *beta = lab_host(l, gates * F);
    args_delta_in a = {.n = n, .n_k = s->n_k, .n_v = s->n_v, .dk = s->dk};
    a.stride = stride, a.ab_stride = s->n_v, a.scale = (float)(1 / sqrt(s->dk));
    a.qkv = lab_in(l, qkv, floats * F), a.a = lab_in(l, av, gates * F);
    a.b = lab_in(l, bv, gates * F), a.exp_a_log = lab_in(l, ea, (size_t)s->n_v * F);
    a.dt_bias = lab_in(l, bias, (size_t)s->n_v * F);
    a.decay = lab_out(l, gates * F), a.beta = lab_out(l, gates * F);
    lab_run(l, GPU_delta_in, &a);
    for (int t = 0; t < n; t++) {
        for (int h = 0; h < 2 * s->n_k; h++) {
            float *x = qkv + t * stride + h * s->dk;
            l->cpu->l2norm(x, x, h < s->n_k ? a.scale : 1, s->dk, 1e-6f);
        }
        l->cpu->delta_gate(decay + t * s->n_v, av + t * s->n_v, ea, bias, s->n_v);
        l->cpu->sigmoid(beta + t * s->n_v, bv + t * s->n_v, s->n_v);
    }
    lab_same(l, lab_read(l, a.qkv, floats * F), qkv, floats * F,
             describe(s, "q, k to length 1", n));
    lab_same(l, lab_read(l, a.decay, gates * F), decay, gates * F, describe(s, "decay", n));
    lab_same(l, lab_read(l, a.beta, gates * F), beta, gates * F, describe(s, "beta", n));
    lab_end(l);
}

/* Segment by segment, each cut at one or two positions that are multiples of 64. */
static void one_by_one(lab *l, args_delta *a, const gpu_segment *seg, int n) {
    for (int i = 0; i < n; i++) {
        for (gpu_segment rest = seg[i], now; rest.count; rest.count -= now.count) {
            int cut = (64 << lab_int(l, 0, 1)) - rest.start % 64;
            now = rest;
            if (cut < rest.count) now.count = cut;
            a->segments = lab_in(l, &now, sizeof now);
            a->n_segments = 1, a->n = now.count;
            lab_run(l, GPU_delta, a);
            rest.first += now.count, rest.start += now.count;
        }
    }
}

static void delta_case(lab *l, const delta_shape *s, const int *counts, int n_segments) {
    gpu_segment seg[SLOTS];
    int n = segments_of(counts, n_segments, seg), keys = s->n_k * s->dk;
    int stride = 2 * keys + s->n_v * s->dv, per_slot = s->n_v * s->dk * s->dv;
    size_t F = sizeof(float), floats = (size_t)(n * stride), gates = (size_t)(n * s->n_v);
    size_t values = (size_t)(n * s->n_v * s->dv);
    float *qkv = lab_floats(l, floats, -1, 1);
    for (int t = 0; t < n; t++) {
        for (int h = 0; h < 2 * s->n_k; h++) {
            float *x = qkv + t * stride + h * s->dk;
            l->cpu->l2norm(x, x, h < s->n_k ? (float)(1 / sqrt(s->dk)) : 1, s->dk, 1e-6f);
        }
    }
    float *decay = lab_floats(l, gates, s->decay < 0 ? s->decay : -2, 0),
          *beta = lab_floats(l, gates, 0, 1);
    float *state = lab_floats(l, (size_t)(SLOTS * per_slot), -1, 1),
          *want = lab_host(l, values * F);
    args_delta a = {.n_segments = n_segments, .n_k = s->n_k, .n_v = s->n_v, .dk = s->dk};
    a.dv = s->dv, a.n = n, a.stride = stride, a.state_stride = (size_t)per_slot;
    a.qkv = lab_in(l, qkv, floats * F);
    float *both = lab_host(l, 2 * gates * F);
    memcpy(both, decay, gates * F);
    memcpy(both + gates, beta, gates * F);
    a.decay = lab_in(l, both, 2 * gates * F), a.beta = a.decay + gates * F;
    a.o = lab_out(l, values * F);
    a.state = lab_in(l, state, (size_t)(SLOTS * per_slot) * F);
    a.segments = lab_in(l, seg, (size_t)n_segments * sizeof *seg);
    float *before = lab_host(l, (size_t)(SLOTS * per_slot) * F);
    memcpy(before, state, (size_t)(SLOTS * per_slot) * F);
    lab_run(l, GPU_delta, &a);
    float *scratch = lab_host(l, cpu_delta_scratch(s->dk, s->dv) * F);
    for (int i = 0; i < n_segments * s->n_v; i++) {
        const gpu_segment *g = &seg[i / s->n_v];
        int h = i % s->n_v, key = h / (s->n_v / s->n_k);
        const float *row = qkv + g->first * stride;
        cpu_delta d = {.state = state + g->slot * per_slot + h * s->dk * s->dv,
                       .o = want + (g->first * s->n_v + h) * s->dv,
                       .q = row + key * s->dk,
                       .k = row + keys + key * s->dk,
                       .v = row + 2 * keys + h * s->dv,
                       .decay = decay + g->first * s->n_v + h,
                       .beta = beta + g->first * s->n_v + h,
                       .o_stride = (size_t)(s->n_v * s->dv),
                       .qk_stride = (size_t)stride,
                       .v_stride = (size_t)stride,
                       .gate_stride = (size_t)s->n_v,
                       .n = g->count,
                       .dk = s->dk,
                       .dv = s->dv,
                       .scratch = scratch};
        l->cpu->delta_step(&d);
    }
    const float *o = lab_read(l, a.o, values * F);
    const float *after = lab_read(l, a.state, (size_t)(SLOTS * per_slot) * F);
    lab_close(l, o, want, values, 2e-6, describe(s, "delta", n));
    lab_close(l, after, state, (size_t)(SLOTS * per_slot), 2e-6, describe(s, "delta state", n));
    a.o = lab_out(l, values * F);
    a.state = lab_in(l, before, (size_t)(SLOTS * per_slot) * F);
    one_by_one(l, &a, seg, n_segments);
    lab_same(l, lab_read(l, a.o, values * F), o, values * F,
             describe(s, "delta in pieces: the same bits", n));
    lab_same(l, lab_read(l, a.state, (size_t)(SLOTS * per_slot) * F), after,
             (size_t)(SLOTS * per_slot) * F,
             describe(s, "delta state in pieces: the same bits", n));
    lab_end(l);
}

static void out_case(lab *l, const delta_shape *s, int n) {
    size_t F = sizeof(float), values = (size_t)(n * s->n_v * s->dv);
    float *o = lab_floats(l, values, -2, 2), *z = lab_floats(l, values, -4, 4);
    float *g = lab_floats(l, (size_t)s->dv, 0, 2);
    args_delta_out a = {
        .n = n, .n_v = s->n_v, .dv = s->dv, .z_stride = s->n_v * s->dv, .eps = 1e-6f};
    a.o = lab_in(l, o, values * F), a.z = lab_in(l, z, values * F);
    a.g = lab_in(l, g, (size_t)s->dv * F);
    lab_run(l, GPU_delta_out, &a);
    for (int i = 0; i < n * s->n_v; i++) {
        l->cpu->rmsnorm(o + i * s->dv, o + i * s->dv, g, s->dv, 1e-6f);
        l->cpu->silu_mul(o + i * s->dv, z + i * s->dv, o + i * s->dv, s->dv);
    }
    lab_same(l, lab_read(l, a.o, values * F), o, values * F, describe(s, "gated norm", n));
    lab_end(l);
}

static const delta_shape shapes[] = {{1, 1, 32, 32, 0},
                                     {2, 4, 128, 128, 0},
                                     {1, 3, 40, 72, 0},
                                     {2, 2, 256, 64, 0},
                                     {4, 4, 64, 1, 0}};

void check_delta_rule(lab *l) {
    lab_begin(l);
    for (int i = 0; i < 5; i++) {
        delta_case(l, &shapes[i], (int[]){1}, 1);
        delta_case(l, &shapes[i], (int[]){1, 9, 1}, 3);
        delta_case(l, &shapes[i], (int[]){8, 70}, 2);
        delta_case(l, &shapes[i], (int[]){7, 11, 14}, 3);
    }
    lab_end_group(l, "delta, token by token and many");
    lab_begin(l);
    static const delta_shape long_ones[] = {{2, 4, 128, 128, 0},
                                            {1, 1, 128, 64, 0},
                                            {1, 2, 128, 32, 0},
                                            {1, 1, 128, 32, -0.01f},
                                            {1, 1, 128, 32, -30}};
    for (int i = 0; i < 5; i++) {
        delta_case(l, &long_ones[i], (int[]){64 * (i + 1)}, 1);
        delta_case(l, &long_ones[i], (int[]){331, 1, 90}, 3);
        delta_case(l, &long_ones[i], (int[]){15, 43, 16}, 3);
        delta_case(l, &long_ones[i], (int[]){17, 30, 200}, 3);
    }
    lab_end_group(l, "delta, prompts");
}

void check_delta(lab *l) {
    lab_begin(l);
    static const int channels[] = {1, 255, 256, 257, 1000};
    for (int i = 0; i < 5; i++) {
        conv_case(l, channels[i], (int[]){1}, 1);
        conv_case(l, channels[i], (int[]){2, 1, 7}, 3);
    }
    lab_end_group(l, "conv: the bits of the CPU");
    lab_begin(l);
    for (int i = 0; i < 5; i++) {
        in_case(l, &shapes[i], 1);
        in_case(l, &shapes[i], 5);
        out_case(l, &shapes[i], 1);
        out_case(l, &shapes[i], 4);
    }
    lab_end_group(l, "delta_in, delta_out: the bits of the CPU");
    check_delta_rule(l);
}
