/* check_attn.c: heads prepared and appended, attention over the cache. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

typedef struct shape { /* of one case */
    int n, n_q, n_kv, dim, rot, kv_type, slots, context;
    bool gated;
} shape;

static const char *describe(const shape *s, const char *what) {
    static char text[128];
    static const char *const kv[] = {"f32", "f16", "q8"};
    snprintf(text, sizeof text, "%s: %d rows, %d/%d heads of %d, cache %s%s", what, s->n, s->n_q,
             s->n_kv, s->dim, kv[s->kv_type], s->gated ? ", gated" : "");
    return text;
}

static int row_bytes(const shape *s) {
    return (int)gpu_kv_head_bytes(s->kv_type, s->dim) * s->n_kv;
}

static size_t slot_bytes(const shape *s) { return (size_t)row_bytes(s) * (size_t)s->context; }

/* One head of the cache as float32: the definition of its formats. */
static void read_head(float *out, const uint8_t *head, const shape *s) {
    for (int d = 0; d < s->dim; d++) {
        uint16_t half;
        if (s->kv_type == KVT_F32) {
            memcpy(out + d, head + d * 4, 4);
        } else if (s->kv_type == KVT_F16) {
            memcpy(&half, head + d * 2, 2);
            out[d] = f16_to_f32(half);
        } else {
            memcpy(&half, head + s->dim + d / 32 * 2, 2);
            out[d] = (float)(int8_t)head[d] * f16_to_f32(half);
        }
    }
}

/* ---- attn_in ---- */

static double kv_tolerance(int type) {
    return type == KVT_F32 ? 1e-6 : type == KVT_F16 ? 1e-3 : 1e-2;
}

static void in_case(lab *l, const shape *s) {
    int head_stride = s->gated ? 2 * s->dim : s->dim, half = s->rot / 2;
    size_t q_floats = (size_t)(s->n * s->n_q * head_stride), F = sizeof(float);
    size_t kv_floats = (size_t)(s->n * s->n_kv * s->dim);
    float *q = lab_floats(l, q_floats, -2, 2), *k = lab_floats(l, kv_floats, -2, 2);
    float *v = lab_floats(l, kv_floats, -2, 2);
    float *qn = lab_floats(l, (size_t)s->dim, 0, 2), *kn = lab_floats(l, (size_t)s->dim, 0, 2);
    float *c = lab_floats(l, (size_t)(s->context * half), -1, 1);
    float *sn = lab_floats(l, (size_t)(s->context * half), -1, 1);
    gpu_row *rows = lab_host(l, (size_t)s->n * sizeof *rows);
    for (int t = 0; t < s->n; t++) rows[t] = (gpu_row){lab_int(l, 0, s->context - 1), t % s->slots};
    size_t cache = slot_bytes(s) * (size_t)s->slots;
    args_attn_in a = {.n = s->n, .n_q = s->n_q, .n_kv = s->n_kv, .dim = s->dim, .rot = s->rot};
    a.q = lab_in(l, q, q_floats * F), a.k = lab_in(l, k, kv_floats * F);
    a.v = lab_in(l, v, kv_floats * F);
    a.q_norm = lab_in(l, qn, (size_t)s->dim * F), a.k_norm = lab_in(l, kn, (size_t)s->dim * F);
    a.cosines = lab_in(l, c, (size_t)(s->context * half) * F);
    a.sines = lab_in(l, sn, (size_t)(s->context * half) * F);
    a.rows = lab_in(l, rows, (size_t)s->n * sizeof *rows);
    a.q_out = lab_out(l, (size_t)(s->n * s->n_q * s->dim) * F);
    a.k_cache = lab_out(l, cache), a.v_cache = lab_out(l, cache);
    a.slot_bytes = slot_bytes(s), a.row_bytes = row_bytes(s), a.kv_type = s->kv_type;
    a.q_stride = s->n_q * head_stride, a.q_head_stride = head_stride;
    a.k_stride = a.v_stride = s->n_kv * s->dim;
    a.eps = 1e-6f;
    lab_run(l, GPU_attn_in, &a);
    const float *got = lab_read(l, a.q_out, (size_t)(s->n * s->n_q * s->dim) * F);
    const uint8_t *kc = (uint8_t *)lab_read(l, a.k_cache, cache);
    const uint8_t *vc = (uint8_t *)lab_read(l, a.v_cache, cache);
    float *want = lab_host(l, (size_t)s->dim * F), *have = lab_host(l, (size_t)s->dim * F);
    for (int t = 0; t < s->n; t++) {
        const float *cos_ = c + rows[t].position * half, *sin_ = sn + rows[t].position * half;
        for (int h = 0; h < s->n_q; h++) {
            const float *from = q + t * s->n_q * head_stride + h * head_stride;
            l->cpu->rmsnorm(want, from, qn, s->dim, 1e-6f);
            l->cpu->rope(want, cos_, sin_, half);
            lab_close(l, got + (t * s->n_q + h) * s->dim, want, (size_t)s->dim, 1e-6,
                      describe(s, "q"));
        }
        size_t place =
            (size_t)rows[t].slot * slot_bytes(s) + (size_t)rows[t].position * (size_t)row_bytes(s);
        for (int h = 0; h < s->n_kv; h++) {
            size_t at = place + (size_t)h * gpu_kv_head_bytes(s->kv_type, s->dim);
            l->cpu->rmsnorm(want, k + (t * s->n_kv + h) * s->dim, kn, s->dim, 1e-6f);
            l->cpu->rope(want, cos_, sin_, half);
            read_head(have, kc + at, s);
            lab_close(l, have, want, (size_t)s->dim, kv_tolerance(s->kv_type), describe(s, "k"));
            read_head(have, vc + at, s);
            lab_close(l, have, v + (t * s->n_kv + h) * s->dim, (size_t)s->dim,
                      kv_tolerance(s->kv_type), describe(s, "v"));
        }
    }
    lab_end(l);
}

/* ---- attn, attn_merge ---- */

/* Random bytes that are a cache of finite values. */
static uint8_t *random_cache(lab *l, const shape *s) {
    size_t heads = (size_t)(s->slots * s->context * s->n_kv);
    size_t head_bytes = gpu_kv_head_bytes(s->kv_type, s->dim);
    uint8_t *out = lab_host(l, heads * head_bytes);
    for (size_t h = 0; h < heads; h++) {
        uint8_t *head = out + h * head_bytes;
        for (int d = 0; d < s->dim; d++) {
            float x = 2 * (float)rng_unit(&l->random) - 1;
            uint16_t half = f32_to_f16(x);
            if (s->kv_type == KVT_F32) memcpy(head + d * 4, &x, 4);
            if (s->kv_type == KVT_F16) memcpy(head + d * 2, &half, 2);
            if (s->kv_type == KVT_Q8) head[d] = (uint8_t)(int8_t)(x * 127);
        }
        for (int g = 0; s->kv_type == KVT_Q8 && g < s->dim / 32; g++) {
            uint16_t half = f32_to_f16((float)(0.5 + rng_unit(&l->random)) / 127);
            memcpy(head + s->dim + g * 2, &half, 2);
        }
    }
    return out;
}

typedef struct attn_data {
    const float *q, *gates;
    const uint8_t *k, *v;
    const gpu_row *rows;
} attn_data;

/* Row t by the scalar kernels. */
static void attend(lab *l, const shape *s, const attn_data *d, int t, float *want) {
    int per_kv = s->n_q / s->n_kv, visible = d->rows[t].position + 1;
    float *k = malloc((size_t)(visible * s->dim) * sizeof(float));
    float *v = malloc((size_t)(visible * s->dim) * sizeof(float));
    float *scratch = malloc(cpu_attn_scratch(per_kv, s->dim) * sizeof(float));
    if (!k || !v || !scratch) must(err_make(ERR_NOMEM, "no memory"));
    int all[64];
    for (int i = 0; i < per_kv; i++) all[i] = visible;
    for (int h = 0; h < s->n_kv; h++) {
        for (int p = 0; p < visible; p++) {
            size_t at = (size_t)d->rows[t].slot * slot_bytes(s) + (size_t)(p * row_bytes(s)) +
                        (size_t)h * gpu_kv_head_bytes(s->kv_type, s->dim);
            read_head(k + p * s->dim, d->k + at, s);
            read_head(v + p * s->dim, d->v + at, s);
        }
        cpu_attn a = {.out = want + h * per_kv * s->dim,
                      .q = d->q + (t * s->n_q + h * per_kv) * s->dim,
                      .n_visible = all,
                      .k = k,
                      .v = v,
                      .type = KV_F32,
                      .out_stride = (size_t)s->dim,
                      .q_stride = (size_t)s->dim,
                      .kv_stride = (size_t)s->dim * sizeof(float),
                      .n_q = per_kv,
                      .head_dim = s->dim,
                      .scale = 1.0f / sqrtf((float)s->dim),
                      .scratch = scratch};
        l->cpu->attention(&a);
    }
    for (int h = 0; s->gated && h < s->n_q; h++) {
        l->cpu->sigmoid_mul(want + h * s->dim, d->gates + (t * s->n_q + h) * 2 * s->dim, s->dim);
    }
    free(k), free(v), free(scratch);
}

/* Rows [first, first + n) of a launch. */
static args_attn some_rows(const args_attn *a, int first, int n) {
    args_attn part = *a;
    size_t heads = (size_t)(first * a->n_q * a->dim) * sizeof(float);
    part.q += heads, part.out += heads, part.rows += (size_t)first * sizeof(gpu_row);
    if (a->gate) part.gate += (size_t)(first * a->gate_stride) * sizeof(float);
    part.n = n;
    return part;
}

/* A launch in three: row by row, and in two pieces. The same bits as in one. */
static void in_pieces(lab *l, const shape *s, args_attn a, const float *whole) {
    size_t bytes = (size_t)(s->n * s->n_q * s->dim) * sizeof(float);
    int cuts[][2] = {{0, 1}, {1, s->n / 2}, {1 + s->n / 2, s->n - 1 - s->n / 2}};
    a.out = lab_out(l, bytes);
    for (int i = 0; i < 3; i++) {
        args_attn some = some_rows(&a, cuts[i][0], cuts[i][1]);
        if (some.n) lab_run(l, GPU_attn, &some);
    }
    lab_same(l, lab_read(l, a.out, bytes), whole, bytes, describe(s, "in pieces: the same bits"));
}

static void attn_case(lab *l, const shape *s, const int *positions, const int *slots) {
    size_t F = sizeof(float), floats = (size_t)(s->n * s->n_q * s->dim);
    attn_data d = {.q = lab_floats(l, floats, -2, 2), .gates = lab_floats(l, floats * 2, -3, 3)};
    d.k = random_cache(l, s), d.v = random_cache(l, s);
    gpu_row *rows = lab_host(l, (size_t)s->n * sizeof *rows);
    int splits = 1;
    for (int t = 0; t < s->n; t++) {
        rows[t] = (gpu_row){positions[t], slots ? slots[t] : t % s->slots};
        if (positions[t] / ATTN_SPLIT + 1 > splits) splits = positions[t] / ATTN_SPLIT + 1;
    }
    d.rows = rows;
    float *want = lab_host(l, floats * F);
    for (int t = 0; t < s->n; t++) attend(l, s, &d, t, want + t * s->n_q * s->dim);

    size_t cache = slot_bytes(s) * (size_t)s->slots;
    args_attn a = {.n = s->n, .n_q = s->n_q, .n_kv = s->n_kv, .dim = s->dim, .kv_type = s->kv_type};
    a.q = lab_in(l, d.q, floats * F);
    if (s->gated) a.gate = lab_in(l, d.gates, floats * 2 * F);
    a.gate_stride = 2 * s->n_q * s->dim;
    a.k_cache = lab_in(l, d.k, cache), a.v_cache = lab_in(l, d.v, cache);
    a.rows = lab_in(l, rows, (size_t)s->n * sizeof *rows);
    a.slot_bytes = slot_bytes(s), a.row_bytes = row_bytes(s);
    a.scale = 1.0f / sqrtf((float)s->dim);
    a.out = lab_out(l, floats * F);
    lab_run(l, GPU_attn, &a);
    const float *whole = lab_read(l, a.out, floats * F);
    lab_close(l, whole, want, floats, 2e-6, describe(s, "attention"));
    if (slots) in_pieces(l, s, a, whole);

    a.n_splits = splits + 1;
    a.part = lab_out(l, gpu_attn_part_bytes(s->n, s->n_q, s->dim, a.n_splits));
    a.out = lab_out(l, floats * F);
    lab_run(l, GPU_attn, &a);
    lab_run(l, GPU_attn_merge, &a);
    lab_same(l, lab_read(l, a.out, floats * F), whole, floats * F,
             describe(s, "in splits: the same bits"));
    lab_end(l);
}

/* A prompt's rows and those of two others beside it. */
static void prompt_case(lab *l, shape s, int start) {
    int positions[96], slots[96];
    for (int t = 0; t < s.n; t++) {
        positions[t] = t < s.n - 2 ? start + t : t * 3;
        slots[t] = t < s.n - 2 ? 1 : t == s.n - 1 ? 2 : 0;
    }
    s.slots = 3, s.context = start + s.n + 300;
    attn_case(l, &s, positions, slots);
}

void check_attention(lab *l) {
    static const int dims[] = {32, 64, 128, 256}, heads[][2] = {{1, 1}, {4, 2}, {8, 1}, {32, 2}};
    lab_begin(l);
    for (int type = 0; type < 3; type++) {
        for (int d = 0; d < 4; d++) {
            shape s = {.n = 3, .n_q = heads[d][0], .n_kv = heads[d][1], .dim = dims[d]};
            s.rot = d % 2 ? dims[d] : dims[d] / 4, s.kv_type = type, s.slots = 3, s.context = 9;
            s.gated = d % 2 == 1;
            in_case(l, &s);
        }
    }
    lab_end_group(l, "attn_in: norm, rope, append to the cache");
    lab_begin(l);
    for (int type = 0; type < 3; type++) {
        for (int d = 0; d < 4; d++) {
            shape s = {.n = 4, .n_q = heads[d][0], .n_kv = heads[d][1], .dim = dims[d]};
            s.kv_type = type, s.slots = 2, s.context = 600, s.gated = d % 2 == 1;
            attn_case(l, &s, (int[]){0, 63, 255, 256}, NULL);
            s.n = 2;
            attn_case(l, &s, (int[]){511 + lab_int(l, 0, 2), lab_int(l, 1, 599)}, NULL);
        }
    }
    lab_end_group(l, "attn, attn_merge");
    bool card = strcmp(l->info.backend, "host") != 0;
    lab_begin(l);
    for (int type = 0; type < 3; type++) {
        prompt_case(l, (shape){.n = 7, .n_q = 8, .n_kv = 2, .dim = 128, .kv_type = type}, 125);
        prompt_case(l, (shape){.n = 19, .n_q = 3, .n_kv = 1, .dim = 128, .kv_type = type}, 0);
        /* so many on a card that it reads k and v for 64 pairs at a time */
        shape s = {.n = card ? 95 : 4, .n_q = card ? 64 : 16, .n_kv = 2, .dim = 256};
        s.kv_type = type, s.gated = true;
        prompt_case(l, s, 180);
        s.n_q = card ? 102 : 17, s.n_kv = card ? 3 : 1, s.n = card ? 70 : 4, s.dim = 128;
        prompt_case(l, s, 0);
    }
    lab_end_group(l, "attention of prompts");
}
