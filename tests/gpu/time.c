/* time.c: times of the kernels on a card, with the bytes that they cannot avoid to move over the
 * time: the share of the memory's speed, which a copy in the same run measures.
 *
 * Every figure is the median of RUNS runs of a recorded graph of `reps` launches, divided by reps;
 * weights rotate through a pool larger than any cache. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

enum { RUNS = 9, POOL_MIB = 768 };

typedef struct bench {
    lab *l;
    gpu_buffer pool;  /* random bytes: weights, caches */
    gpu_buffer work;  /* activations; random small floats */
    gpu_buffer spare; /* outputs */
    double copy_gb;   /* GB/s, read and written */
    size_t pool_at;   /* rotates */
} bench;

typedef err (*bench_fn)(bench *b, const void *args, int i);

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Microseconds of one launch. */
static double time_of(bench *b, bench_fn fn, const void *args, int reps) {
    gpu_queue *q = b->l->queue;
    gpu_graph *g;
    gpu_event *from, *to;
    double ms[RUNS];
    must(gpu_event_open(b->l->device, &from));
    must(gpu_event_open(b->l->device, &to));
    must(gpu_graph_begin(q));
    for (int i = 0; i < reps; i++) must(fn(b, args, i));
    must(gpu_graph_end(q, &g));
    for (int i = -2; i < RUNS; i++) {
        must(gpu_event_record(q, from));
        must(gpu_graph_run(q, g));
        must(gpu_event_record(q, to));
        must(gpu_queue_wait(q));
        if (i >= 0) must(gpu_event_elapsed(from, to, &ms[i]));
    }
    qsort(ms, RUNS, sizeof *ms, by_value);
    gpu_graph_close(g);
    gpu_event_close(from);
    gpu_event_close(to);
    return ms[RUNS / 2] * 1000 / reps;
}

static void report(const bench *b, const char *name, double us, double bytes) {
    double gb = bytes / us / 1000;
    printf("%-46s %9.2f us", name, us);
    if (bytes > 0) printf("  %8.1f GB/s  %5.1f %% of copy", gb, 100 * gb / b->copy_gb);
    printf("\n");
    fflush(stdout);
}

/* The same by the portable body alone. */
static void report_plain(bench *b, const char *name, bench_fn fn, const void *args, int reps) {
    gpu_plain(b->l->device, true);
    report(b, name, time_of(b, fn, args, reps), 0);
    gpu_plain(b->l->device, false);
}

/* The next `bytes` of the pool. */
static gpu_addr take(bench *b, size_t bytes) {
    bytes = round_up(bytes, 256);
    if (b->pool_at + bytes > b->pool.bytes) b->pool_at = 0;
    gpu_addr a = b->pool.addr + b->pool_at;
    b->pool_at += bytes;
    return a;
}

/* ---- copies ---- */

static err run_copy(bench *b, const void *args, int i) {
    (void)args;
    size_t half = b->pool.bytes / 2;
    return gpu_copy(b->l->queue, b->pool.addr + (i % 2 ? 0 : half),
                    b->pool.addr + (i % 2 ? half : 0), half);
}

static err run_in(bench *b, const void *args, int i) {
    const gpu_buffer *pinned = args;
    (void)i;
    return gpu_copy_in(b->l->queue, b->spare.addr, pinned->host, pinned->bytes);
}

static err run_out(bench *b, const void *args, int i) {
    const gpu_buffer *pinned = args;
    (void)i;
    return gpu_copy_out(b->l->queue, pinned->host, b->spare.addr, pinned->bytes);
}

static void time_copies(bench *b) {
    double us = time_of(b, run_copy, NULL, 4);
    b->copy_gb = (double)b->pool.bytes / us / 1000;
    report(b, "copy on the card, read + written", us, (double)b->pool.bytes);
    gpu_buffer pinned;
    must(gpu_alloc(b->l->device, GPU_PINNED, (size_t)64 << 20, &pinned));
    memset(pinned.host, 1, pinned.bytes);
    us = time_of(b, run_in, &pinned, 4);
    report(b, "copy in, 64 MiB pinned", us, (double)pinned.bytes);
    us = time_of(b, run_out, &pinned, 4);
    report(b, "copy out, 64 MiB pinned", us, (double)pinned.bytes);
    pinned.bytes = 1769472;
    us = time_of(b, run_in, &pinned, 32);
    report(b, "copy in, 1.77 MB pinned", us, (double)pinned.bytes);
    pinned.bytes = 7077888;
    us = time_of(b, run_in, &pinned, 32);
    report(b, "copy in, 7.08 MB pinned", us, (double)pinned.bytes);
    gpu_free(b->l->device, &pinned);
}

/* ---- matrices ---- */

typedef struct mat_case {
    int rows, cols, bits, group, n;
} mat_case;

static size_t mat_bytes(const mat_case *c) {
    size_t values = (size_t)c->rows * (size_t)c->cols;
    return c->bits == 16 ? values * 2
                         : values * (size_t)c->bits / 8 + values / (size_t)c->group * 4;
}

static gpu_mat mat_at(const mat_case *c, gpu_addr at) {
    size_t values = (size_t)c->rows * (size_t)c->cols;
    gpu_mat m = {.w = at, .rows = c->rows, .cols = c->cols, .kind = MAT_BF16};
    if (c->bits != 16) {
        m.kind = MAT_AFFINE, m.bits = c->bits, m.group = c->group;
        m.scales = at + values * (size_t)c->bits / 8;
        m.biases = m.scales + values / (size_t)c->group * 2;
    }
    return m;
}

static err run_matvec(bench *b, const void *args, int i) {
    const mat_case *c = args;
    (void)i;
    args_matvec a = {.n = c->n, .n_mats = 1, .x_stride = c->cols, .y_stride = {c->rows}};
    a.m[0] = mat_at(c, take(b, mat_bytes(c)));
    a.x = b->work.addr, a.y[0] = b->spare.addr;
    gpu_matvec_lay_out(&a);
    return gpu_run(b->l->queue, GPU_matvec, &a);
}

static void time_matvec(bench *b) {
    static const mat_case cases[] = {
        {12288, 2048, 4, 64, 1},  {2048, 4096, 4, 64, 1},  {248320, 2048, 4, 64, 1},
        {20480, 4096, 4, 64, 1},  {4096, 8192, 4, 64, 1},  {12288, 2048, 4, 64, 2},
        {12288, 2048, 4, 64, 4},  {12288, 2048, 4, 64, 8}, {20480, 4096, 4, 64, 8},
        {1281, 2048, 8, 64, 1},   {12288, 2048, 8, 64, 1}, {12288, 2048, 3, 64, 1},
        {12288, 2048, 6, 64, 1},  {12288, 2048, 16, 0, 1}, {12288, 2048, 4, 64, 64},
        {12288, 2048, 4, 64, 512}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const mat_case *c = &cases[i];
        char name[64];
        size_t bytes = mat_bytes(c);
        int reps = c->n > 8 ? 4 : (int)(400000000 / bytes) + 1;
        double us = time_of(b, run_matvec, c, reps > 64 ? 64 : reps);
        snprintf(name, sizeof name, "matvec [%d, %d] bits %d x %d", c->rows, c->cols, c->bits,
                 c->n);
        report(b, name, us, (double)bytes + 4.0 * c->n * (c->rows + c->cols));
        if (c->n > 8) {
            double flops = 2.0 * c->rows * (double)c->cols * c->n;
            printf("%-46s %9.2f TFLOP/s\n", "", flops / us / 1e6);
        }
    }
}

/* ---- experts ---- */

typedef struct expert_case {
    int hidden, inner, k, n, experts; /* of the pool */
    gpu_addr slots, active, n_active, order;
    gpu_part part[3];
    size_t record;
    int n_sets, set_bytes; /* sets of active lists, so that launches differ */
} expert_case;

static void expert_layout(expert_case *c) {
    size_t at = 0;
    for (int i = 0; i < 3; i++) {
        int rows = i < 2 ? c->inner : c->hidden, cols = i < 2 ? c->hidden : c->inner;
        size_t values = (size_t)rows * (size_t)cols;
        c->part[i] = (gpu_part){.w = (unsigned)at,
                                .scales = (unsigned)(at + values / 2),
                                .biases = (unsigned)(at + values / 2 + values / 32),
                                .rows = rows,
                                .cols = cols,
                                .kind = MAT_AFFINE,
                                .bits = 4,
                                .group = 64};
        at += values / 2 + values / 16;
    }
    c->record = at;
}

/* A list of active experts for every set: n rows that pick k experts each, all different experts
 * when n is 1. */
static int make_sets(bench *b, expert_case *c) {
    enum { SETS = 16 };
    int pairs = c->n * c->k, total = 0;
    c->n_sets = SETS;
    gpu_slot *slots = calloc((size_t)c->experts, sizeof *slots);
    gpu_active *active = calloc((size_t)(SETS * pairs), sizeof *active);
    int *order = calloc((size_t)(SETS * pairs), sizeof *order), counts[SETS];
    if (!slots || !active || !order) must(err_make(ERR_NOMEM, "no memory"));
    for (int e = 0; e < c->experts; e++) slots[e].base = b->pool.addr + (size_t)e * c->record;
    for (int s = 0; s < SETS; s++) {
        int at = 0, n = 0, ids[4096];
        for (int i = 0; i < pairs; i++) {
            ids[i] = c->n == 1 ? (s * pairs + i) % c->experts
                               : (int)(rng_next(&b->l->random) % (uint64_t)c->experts);
        }
        for (int e = 0; e < c->experts; e++) {
            int first = at;
            for (int i = 0; i < pairs; i++) {
                if (ids[i] == e) order[s * pairs + at++] = i;
            }
            if (at > first) active[s * pairs + n++] = (gpu_active){e, first, at - first, 0};
        }
        counts[s] = n;
        total += n;
    }
    c->slots = lab_in(b->l, slots, (size_t)c->experts * sizeof *slots);
    c->active = lab_in(b->l, active, (size_t)(SETS * pairs) * sizeof *active);
    c->order = lab_in(b->l, order, (size_t)(SETS * pairs) * sizeof *order);
    c->n_active = lab_in(b->l, counts, sizeof counts);
    free(slots), free(active), free(order);
    return total / SETS;
}

static err run_experts(bench *b, const void *args, int i) {
    const expert_case *c = args;
    int pairs = c->n * c->k, s = i % c->n_sets;
    args_experts a = {.slots = c->slots, .gate = c->part[0], .up = c->part[1]};
    a.active = c->active + (size_t)(s * pairs) * sizeof(gpu_active);
    a.order = c->order + (size_t)(s * pairs) * 4;
    a.n_active = c->n_active + (size_t)s * 4;
    a.x = b->work.addr, a.y = b->spare.addr;
    a.x_stride = c->hidden, a.y_stride = c->inner, a.row_of_pair = c->k;
    a.max_active = pairs < c->experts ? pairs : c->experts;
    a.n_pairs = pairs, a.n_rows = c->n;
    TRY(gpu_run(b->l->queue, GPU_experts, &a));
    args_experts d = a;
    d.gate = c->part[2], d.up = (gpu_part){0};
    d.x = a.y, d.y = b->spare.addr + ((size_t)64 << 20);
    d.x_stride = c->inner, d.y_stride = c->hidden, d.row_of_pair = 1;
    return gpu_run(b->l->queue, GPU_experts, &d);
}

static void time_experts(bench *b) {
    static const int shapes[][4] = {{2048, 512, 8, 1},   {2048, 512, 8, 8},  {2048, 512, 10, 1},
                                    {4096, 1024, 10, 1}, {4096, 1024, 4, 1}, {4096, 1024, 10, 8},
                                    {2048, 512, 8, 512}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        expert_case c = {.hidden = shapes[i][0], .inner = shapes[i][1], .k = shapes[i][2]};
        c.n = shapes[i][3];
        expert_layout(&c);
        c.experts = (int)(b->pool.bytes / c.record);
        if (c.experts > 256) c.experts = 256;
        int distinct = make_sets(b, &c);
        char name[64];
        snprintf(name, sizeof name, "experts [%d, %d] k %d x %d: %d distinct", c.hidden, c.inner,
                 c.k, c.n, distinct);
        report(b, name, time_of(b, run_experts, &c, 32), (double)distinct * (double)c.record);
        lab_end(b->l);
    }
}

/* ---- attention, delta ---- */

typedef struct attn_case {
    int n, n_q, n_kv, context, type;
    bool whole; /* one group visits all splits */
    gpu_addr rows;
} attn_case;

static err run_attn(bench *b, const void *args, int i) {
    const attn_case *c = args;
    size_t row = gpu_kv_head_bytes(c->type, 256) * (size_t)c->n_kv;
    args_attn a = {.n = c->n, .n_q = c->n_q, .n_kv = c->n_kv, .dim = 256, .kv_type = c->type};
    size_t one = row * (size_t)c->context;
    (void)i;
    a.slot_bytes = c->whole ? 0 : 2 * one;
    a.k_cache = take(b, 2 * one * (size_t)(c->whole ? 1 : c->n));
    a.v_cache = a.k_cache + one;
    a.row_bytes = (int)row;
    a.q = b->work.addr, a.out = b->spare.addr, a.part = b->spare.addr + ((size_t)16 << 20);
    a.rows = c->rows, a.scale = 0.0625f;
    a.n_splits = c->whole ? 0 : (c->context + ATTN_SPLIT - 1) / ATTN_SPLIT;
    TRY(gpu_run(b->l->queue, GPU_attn, &a));
    return c->whole ? err_none() : gpu_run(b->l->queue, GPU_attn_merge, &a);
}

/* Parts of random numbers: as much work as any. */
static err run_merge(bench *b, const void *args, int i) {
    const attn_case *c = args;
    (void)i;
    args_attn a = {.n = c->n, .n_q = c->n_q, .n_kv = c->n_kv, .dim = 256, .rows = c->rows};
    a.part = b->work.addr, a.out = b->spare.addr;
    a.n_splits = (c->context + ATTN_SPLIT - 1) / ATTN_SPLIT;
    return gpu_run(b->l->queue, GPU_attn_merge, &a);
}

static void time_attention(bench *b) {
    static const attn_case cases[] = {
        {1, 16, 2, 1024, KVT_F16, false, 0},   {1, 16, 2, 4096, KVT_F16, false, 0},
        {1, 16, 2, 32768, KVT_F16, false, 0},  {1, 32, 2, 4096, KVT_F16, false, 0},
        {1, 32, 4, 4096, KVT_F16, false, 0},   {8, 16, 2, 4096, KVT_F16, false, 0},
        {1, 16, 2, 32768, KVT_Q8, false, 0},   {512, 16, 2, 2048, KVT_F16, true, 0},
        {2048, 16, 2, 2048, KVT_F16, true, 0}, {512, 16, 2, 16384, KVT_F16, true, 0},
        {64, 16, 2, 8192, KVT_F16, true, 0},   {16, 16, 2, 8192, KVT_F16, true, 0},
        {512, 32, 4, 4096, KVT_F16, true, 0}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        attn_case c = cases[i];
        gpu_row *rows = calloc((size_t)c.n, sizeof *rows);
        if (!rows) must(err_make(ERR_NOMEM, "no memory"));
        for (int t = 0; t < c.n; t++) {
            rows[t] = (gpu_row){c.whole ? c.context - c.n + t : c.context - 1, c.whole ? 0 : t};
        }
        c.rows = lab_in(b->l, rows, (size_t)c.n * sizeof *rows);
        free(rows);
        char name[64];
        snprintf(name, sizeof name, "attention %d/%d heads, %d positions x %d%s", c.n_q, c.n_kv,
                 c.context, c.n, c.whole ? " whole" : "");
        double bytes =
            2.0 * c.n_kv * c.context * (double)gpu_kv_head_bytes(c.type, 256) * (c.whole ? 1 : c.n);
        report(b, name, time_of(b, run_attn, &c, c.whole ? 2 : 16), bytes);
        report_plain(b, "    portable", run_attn, &c, c.whole ? 1 : 16);
        if (!c.whole) report(b, "    attn_merge of it", time_of(b, run_merge, &c, 16), 0);
        lab_end(b->l);
    }
}

typedef struct delta_case {
    int n_v, segments, tokens;
    gpu_addr list;
    int by_token;
} delta_case;

static err run_delta(bench *b, const void *args, int i) {
    const delta_case *c = args;
    int stride = 2 * 16 * 128 + c->n_v * 128;
    size_t state = (size_t)c->n_v * 128 * 128 * 4;
    (void)i;
    args_delta a = {.n_segments = c->segments, .n_k = 16, .n_v = c->n_v, .dk = 128, .dv = 128};
    a.qkv = b->work.addr, a.stride = stride, a.state_stride = state / 4;
    a.n = c->segments * c->tokens, a.by_token = c->by_token;
    a.decay = a.beta = b->work.addr;
    a.o = b->spare.addr;
    a.segments = c->list;
    a.state = take(b, state * (size_t)c->segments);
    return gpu_run(b->l->queue, GPU_delta, &a);
}

static void time_delta(bench *b) {
    static const delta_case cases[] = {{32, 1, 1, 0, 0},    {64, 1, 1, 0, 0},   {32, 8, 1, 0, 0},
                                       {32, 1, 2048, 0, 0}, {32, 1, 256, 0, 0}, {64, 1, 2048, 0, 0},
                                       {64, 8, 256, 0, 0}}; /* many groups: a small card */
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        delta_case c = cases[i];
        gpu_segment list[8];
        for (int s = 0; s < c.segments; s++) list[s] = (gpu_segment){s * c.tokens, c.tokens, s, 0};
        c.list = lab_in(b->l, list, sizeof list);
        char name[64];
        snprintf(name, sizeof name, "delta, %d heads, %d x %d tokens", c.n_v, c.segments, c.tokens);
        double bytes = 2.0 * c.n_v * 128 * 128 * 4 * c.segments;
        report(b, name, time_of(b, run_delta, &c, c.tokens > 1 ? 2 : 32), bytes);
        if (c.tokens > 1) report_plain(b, "    portable", run_delta, &c, 2);
        c.by_token = 1;
        if (c.tokens > 1) report_plain(b, "    portable, token by token", run_delta, &c, 2);
        lab_end(b->l);
    }
}

/* ---- small kernels: what a launch costs ---- */

static err run_norm(bench *b, const void *args, int i) {
    const int *n = args;
    (void)i;
    args_rmsnorm a = {.x = b->work.addr, .g = b->work.addr, .y = b->spare.addr, .n = *n};
    a.cols = 2048, a.eps = 1e-6f;
    return gpu_run(b->l->queue, GPU_rmsnorm, &a);
}

static err run_router(bench *b, const void *args, int i) {
    const int *experts = args;
    (void)i;
    args_router a = {.logits = b->work.addr, .ids = b->spare.addr, .n = 1, .n_experts = *experts};
    a.weights = b->spare.addr + 4096, a.k = 10, a.norm = 1;
    return gpu_run(b->l->queue, GPU_router, &a);
}

static err run_plan(bench *b, const void *args, int i) {
    const int *experts = args;
    (void)i;
    args_plan a = {.ids = b->spare.addr, .active = b->spare.addr + 8192, .n_pairs = 10};
    a.order = b->spare.addr + 65536, a.n_active = b->spare.addr + 131072, a.n_experts = *experts;
    return gpu_run(b->l->queue, GPU_plan, &a);
}

static err run_conv(bench *b, const void *args, int i) {
    const gpu_addr *segment = args;
    (void)i;
    args_conv a = {.x = b->work.addr, .w = b->work.addr, .y = b->spare.addr, .n_segments = 1};
    a.state = b->spare.addr + ((size_t)4 << 20), a.segments = *segment, a.channels = 8192;
    a.stride = 8192;
    return gpu_run(b->l->queue, GPU_conv, &a);
}

/* As the engine does it: spans of the row, then of what they kept. */
static err run_top(bench *b, const void *args, int i) {
    const int *rows = args;
    (void)i;
    args_top a = {.logits = b->work.addr, .out = b->spare.addr, .rows = *rows, .n = 248320};
    for (;;) {
        TRY(gpu_run(b->l->queue, GPU_top, &a));
        int spans = (a.n + TOP_SPAN - 1) / TOP_SPAN;
        if (spans == 1) return err_none();
        a.logits = 0, a.keys = a.out, a.n = spans * TOP_KEEP;
        a.out = a.out == b->spare.addr ? b->spare.addr + ((size_t)2 << 20) : b->spare.addr;
    }
}

static void time_small(bench *b) {
    static const int one = 1, experts = 512;
    static const int eight = 8;
    gpu_segment list = {0, 1, 0, 0}, many = {0, 512, 0, 0};
    gpu_addr a = lab_in(b->l, &list, sizeof list), c = lab_in(b->l, &many, sizeof many);
    report(b, "rmsnorm, 1 row of 2048", time_of(b, run_norm, &one, 100), 0);
    report(b, "router, 512 experts, k 10", time_of(b, run_router, &experts, 100), 0);
    report(b, "plan, 512 experts, 10 pairs", time_of(b, run_plan, &experts, 100), 0);
    report(b, "conv, 8192 channels, 1 token", time_of(b, run_conv, &a, 100), 0);
    report(b, "conv, 8192 channels, 512 tokens", time_of(b, run_conv, &c, 4), 0);
    report(b, "top, 248320, 1 row", time_of(b, run_top, &one, 100), 0);
    report(b, "top, 248320, 8 rows", time_of(b, run_top, &eight, 100), 0);
    lab_end(b->l);
}

/* Random bytes as weights would be: scales that are small finite numbers whatever their format. */
static void fill_pool(bench *b) {
    size_t bytes = (size_t)64 << 20;
    uint8_t *x = malloc(bytes);
    float *f = malloc(bytes);
    if (!x || !f) must(err_make(ERR_NOMEM, "no memory"));
    for (size_t i = 0; i < bytes / 2; i++) {
        uint16_t h = (uint16_t)(0x2c00u + (rng_next(&b->l->random) & 0x83ffu));
        memcpy(x + i * 2, &h, 2);
    }
    for (size_t at = 0; at < b->pool.bytes; at += bytes) {
        must(gpu_copy_in(b->l->queue, b->pool.addr + at, x, bytes));
        must(gpu_queue_wait(b->l->queue));
    }
    for (size_t i = 0; i < bytes / 4; i++) f[i] = (float)rng_unit(&b->l->random) - 0.5f;
    for (size_t at = 0; at < b->work.bytes; at += bytes) {
        must(gpu_copy_in(b->l->queue, b->work.addr + at, f, bytes));
        must(gpu_queue_wait(b->l->queue));
    }
    free(x), free(f);
}

void time_kernels(lab *l) {
    bench b = {.l = l};
    must(gpu_alloc(l->device, GPU_DEVICE, (size_t)POOL_MIB << 20, &b.pool));
    must(gpu_alloc(l->device, GPU_DEVICE, (size_t)128 << 20, &b.work));
    must(gpu_alloc(l->device, GPU_DEVICE, (size_t)512 << 20, &b.spare));
    fill_pool(&b);
    time_copies(&b);
    time_small(&b);
    time_matvec(&b);
    time_experts(&b);
    time_attention(&b);
    time_delta(&b);
    gpu_free(l->device, &b.pool);
    gpu_free(l->device, &b.work);
    gpu_free(l->device, &b.spare);
}
