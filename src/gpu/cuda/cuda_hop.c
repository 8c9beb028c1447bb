/* cuda_hop.c: whether launches fit the kernels for capability 9.0, their shapes, their shared
 * memory. The kernels for few vectors have a multiprocessor to themselves (128 registers a thread):
 * a group of the next launch that waits beside them takes their bytes. */
#include <string.h>

#include "gpu/cuda/cuda_hop.h"

enum {
    UNIT = 64, /* cuda_unit.inc */
    BLOCK = 128,
    X_BYTES = 528,
    X_STRIDE = 576,
    NARROW = 24,               /* vectors of the kernels with two groups on a multiprocessor */
    PART_WANTED = 72 * 1024,   /* bytes of parts that are worth having */
    SCRATCH = 72 * 1024 * 1024 /* of a queue */
};

static int over(int n, int by) { return (n + by - 1) / by; }
static int min_int(int a, int b) { return a < b ? a : b; }
static int max_int(int a, int b) { return a > b ? a : b; }

static cuda_device *device_of(gpu_queue *q) { return (cuda_device *)(void *)q->device; }

static err start(gpu_queue *q, cuda_hop_kernel k, gpu_shape s, int threads, void *args) {
    void *list[] = {args};
    return cuda_start(q, device_of(q)->hop[k], cuda_hop_name(k), s, threads, list);
}

size_t cuda_hop_bytes(const cuda_device *d) { return d->has_fast ? SCRATCH : 0; }

/* ---- what fits ---- */

static bool format_fits(int kind, int bits, int group, int cols) {
    return kind == MAT_AFFINE && (bits == 4 || bits == 8) && group == UNIT && cols % BLOCK == 0;
}

/* The last rows' scales are whole 16 bytes. */
static bool rows_fit(int rows, int cols) { return rows % 16 * (cols / UNIT) * 2 % 16 == 0; }

static bool mat_fits(const gpu_mat *m) {
    return format_fits(m->kind, m->bits, m->group, m->cols) && rows_fit(m->rows, m->cols) &&
           (m->w | m->scales | m->biases) % 16 == 0 &&
           (uint64_t)m->rows * (uint64_t)m->cols * (uint64_t)m->bits / 8 <= UINT32_MAX;
}

static bool matvec_fits(const args_matvec *a) {
    bool fits = a->n > 0;
    for (int i = 0; i < a->n_mats; i++)
        fits = fits && mat_fits(&a->m[i]) && a->m[i].cols == a->m[0].cols;
    return fits;
}

static bool x_fits(gpu_addr x, int stride) { return x % 16 == 0 && stride % 4 == 0; }

static bool part_fits(const gpu_part *p) {
    return format_fits(p->kind, p->bits, p->group, p->cols) && rows_fit(p->rows, p->cols) &&
           (p->w | p->scales | p->biases) % 16 == 0;
}

static bool experts_fit(const args_experts *a) {
    if (!a->n_pairs || !part_fits(&a->gate) || !x_fits(a->x, a->x_stride)) return false;
    if (!a->up.rows) return a->row_of_pair == 1;
    return part_fits(&a->up) && a->up.rows == a->gate.rows && a->up.cols == a->gate.cols &&
           a->up.bits == a->gate.bits && a->up.scales_f16 == a->gate.scales_f16;
}

/* Whether the kernels for few vectors take them: whole tiles. */
static bool experts_few(const args_experts *a) {
    return a->n_rows <= FEW_VECTORS && a->n_pairs <= FEW_PAIRS && a->gate.rows % 16 == 0;
}

/* ---- shared memory of the kernels for few vectors ---- */

static int plan_bytes(int pairs) { return over(pairs, 4) * 4 * FEW_PLAN; }

static int x_bytes(int n, int cols) { return n * (cols / BLOCK) * X_STRIDE; }
static int part_floats(int n, int cols) { return n * (cols / UNIT) * 16; }

/* i / by = (i * inverse) >> 32 for 32-bit products of i and by; by > 1. */
static uint32_t inverse_of(int by) { return UINT32_MAX / (uint32_t)by + 1; }

/* What a group needs. */
typedef struct room_wish {
    int fixed, bits; /* bytes of vectors and plan; of the weights */
    int cols;        /* of all matrices */
    int least, most; /* bytes of parts: needed, and of use */
} room_wish;

/* Rings as deep as there is room for, then parts. What is fixed lies after the rings, at plan_at.
 * *shared is the sum. False: too large. */
static bool make_room_of(const cuda_device *d, const room_wish *w, int span, few_room *r,
                         int *shared) {
    int stage = span * FEW_STAGE(w->bits), taken = FEW_HEAD + w->fixed + w->least;
    int depth = min_int(FEW_AHEAD / span, (d->shared_bytes - taken) / (FEW_WARPS * stage));
    r->span = span;
    r->depth = depth;
    r->stage_bytes = stage;
    r->plan_at = FEW_HEAD + FEW_WARPS * depth * stage;
    r->part_at = r->plan_at + w->fixed;
    int part = min_int(w->most, (d->shared_bytes - r->part_at) / 16 * 16);
    r->blocks = w->cols / BLOCK / span;
    r->slot_of = over(1 << 16, r->blocks);
    r->inverse = inverse_of(w->cols / UNIT);
    r->part_floats = part / (int)sizeof(float);
    *shared = r->part_at + part;
    return taken < d->shared_bytes && depth >= 2;
}

/* Stages of two blocks where they fit: whole lines of device memory. */
static bool make_room(const cuda_device *d, const room_wish *w, few_room *r, int *shared) {
    bool pairs = w->bits == 4 && w->cols % (2 * BLOCK) == 0;
    return (pairs && make_room_of(d, w, 2, r, shared)) || make_room_of(d, w, 1, r, shared);
}

/* ---- matvec ---- */

static err few_matvec(gpu_queue *q, args_few_matvec *a, bool *done) {
    const cuda_device *d = device_of(q);
    int n = a->m.n, cols = a->m.m[0].cols, tiles = 0, bits = 4, shared;
    for (int i = 0; i < a->m.n_mats; i++) {
        if (a->m.m[i].scales_f16 != a->m.m[0].scales_f16) return err_none();
        a->m.first_group[i] = tiles;
        tiles += over(a->m.m[i].rows, 16);
        bits = max_int(bits, a->m.m[i].bits);
    }
    int groups = min_int(d->units, tiles), each = over(tiles, groups);
    int tile = part_floats(n, cols) * (int)sizeof(float);
    room_wish w = {.fixed = x_bytes(n, cols),
                   .bits = bits,
                   .cols = cols,
                   .least = tile,
                   .most = min_int(tile * each, max_int(tile, PART_WANTED))};
    if (!make_room(d, &w, &a->room, &shared)) return err_none();
    a->room.tiles = tiles;
    a->room.x_at = a->room.plan_at;
    *done = true;
    return start(q, HOP_few_matvec, (gpu_shape){groups, 1, 1, shared}, FEW_COMPUTE, a);
}

gpu_addr cuda_scratch(gpu_queue *base) {
    cuda_queue *q = (cuda_queue *)(void *)base;
    cuda_device *d = device_of(base);
    if (!q->scratch && !q->lean && d->api.memory_alloc(&q->scratch, SCRATCH)) q->scratch = 0;
    return q->scratch;
}

static err split(gpu_queue *q, gpu_addr x, int stride, int n, int cols, gpu_addr to) {
    args_split a = {.x = x, .to = to, .n = n, .cols = cols, .stride = stride};
    int groups = over(n * (cols / UNIT) * 8, SPLIT_THREADS);
    return start(q, HOP_hop_split_x, (gpu_shape){groups, 1, 1, 0}, SPLIT_THREADS, &a);
}

/* x in a->x is split from vector 0. */
static err gemm_some(gpu_queue *q, args_gemm_matvec *a) {
    int rows = 0;
    for (int i = 0; i < a->m.n_mats; i++) {
        a->m.first_group[i] = rows;
        rows += over(a->m.m[i].rows, 256);
    }
    bool wide = rows * over(a->m.n, 64) * 2 >= device_of(q)->units * 3;
    int vectors = wide ? 64 : 32;
    gpu_shape s = {rows, over(a->m.n, vectors), 1, GEMM_HEAD + (wide ? 3 : 4) * vectors * X_STRIDE};
    return start(q, wide ? HOP_gemm_matvec_64 : HOP_gemm_matvec_32, s, GEMM_THREADS, a);
}

static err gemm_matvec(gpu_queue *q, const args_matvec *m, bool *done) {
    int cols = m->m[0].cols, most = SCRATCH / (cols / BLOCK * X_BYTES) / 64 * 64;
    gpu_addr scratch = cuda_scratch(q);
    if (!scratch || !most) return err_none();
    *done = true;
    for (int first = 0; first < m->n; first += most) {
        args_gemm_matvec a = {.m = *m, .x = scratch};
        gpu_addr row = (gpu_addr)first * sizeof(float);
        a.m.n = min_int(most, m->n - first);
        for (int i = 0; i < m->n_mats; i++) a.m.y[i] += row * (gpu_addr)m->y_stride[i];
        if (m->residual) a.m.residual += row * (gpu_addr)m->y_stride[0];
        TRY(split(q, m->x + row * (gpu_addr)m->x_stride, m->x_stride, a.m.n, cols, scratch));
        TRY(gemm_some(q, &a));
    }
    return err_none();
}

err cuda_hop_matvec(gpu_queue *q, const args_rmsnorm *norm, const args_matvec *m,
                    const args_conv *conv, bool *done) {
    *done = false;
    if (!device_of(q)->has_hop || !matvec_fits(m) || !x_fits(m->x, m->x_stride)) return err_none();
    if (m->n <= FEW_VECTORS) {
        args_few_matvec a = {.m = *m};
        if (norm) a.norm = *norm;
        if (conv) a.conv = *conv;
        TRY(few_matvec(q, &a, done));
    }
    if (*done || norm || conv) return err_none();
    return gemm_matvec(q, m, done);
}

/* ---- experts ---- */

static err few_in(gpu_queue *q, args_few_in *a, bool *done) {
    const cuda_device *d = device_of(q);
    int cols = a->e.gate.cols, rows = a->e.n_pairs / a->e.row_of_pair, shared;
    int tiles = over(a->e.gate.rows, 16), all = tiles * a->e.max_active;
    int groups = min_int(d->units, all), F = (int)sizeof(float);
    int one = 2 * part_floats(1, cols) * F, most = 2 * part_floats(a->e.n_rows, cols) * F;
    if (a->router.logits) most = max_int(most, a->router.n * FEW_EXPERTS * F); /* its space */
    int bases = a->router.logits ? over(a->router.n_experts, 2) * 2 * (int)sizeof(gpu_addr) : 0;
    int plan = plan_bytes(a->e.n_pairs) + bases;
    room_wish w = {.fixed = plan + x_bytes(rows, cols),
                   .bits = a->e.gate.bits,
                   .cols = cols,
                   .least = most,
                   .most = most + one * over(all, groups)};
    if (!make_room(d, &w, &a->room, &shared)) return err_none();
    a->bases_at = a->room.plan_at + plan - bases;
    a->room.x_at = a->room.plan_at + plan;
    *done = true;
    return start(q, HOP_few_in, (gpu_shape){groups, 1, 1, shared}, FEW_COMPUTE, a);
}

/* dry: only whether it would fit. */
static err few_out(gpu_queue *q, args_few_out *a, bool dry, bool *done) {
    const cuda_device *d = device_of(q);
    int cols = a->e.gate.cols, pairs = a->e.n_pairs, F = (int)sizeof(float), shared;
    int x = x_bytes(pairs, cols), parts = part_floats(pairs, cols) * F, own = 0, own_parts = 0;
    int plan = plan_bytes(pairs) + pairs * FEW_SLOT, stages = 0;
    if (a->shared.w) {
        own = x_bytes(a->combine.n, a->shared.cols);
        own_parts = part_floats(a->combine.n, a->shared.cols) * F;
        parts = max_int(parts, a->combine.n * a->shared.cols * F); /* first its vectors */
        a->shared_inverse = inverse_of(a->shared.cols / UNIT);
        stages = a->shared.cols / BLOCK * FEW_STAGE(a->shared.bits);
    }
    if (a->shared.cols / BLOCK > FEW_WARPS || a->e.gate.rows % 16) return err_none();
    a->room.tiles = over(a->e.gate.rows, 16);
    int groups = min_int(d->units, a->room.tiles);
    room_wish w = {.fixed = plan + stages + x + own + own_parts,
                   .bits = a->e.gate.bits,
                   .cols = cols,
                   .least = parts,
                   .most = parts};
    if (!make_room(d, &w, &a->room, &shared)) return err_none();
    a->slots_at = a->room.plan_at + plan - pairs * FEW_SLOT;
    a->shared_stage_at = a->room.plan_at + plan;
    a->room.x_at = a->shared_stage_at + stages;
    a->shared_x_at = a->room.x_at + x;
    a->shared_part_at = a->shared_x_at + own;
    *done = true;
    if (dry) return err_none();
    return start(q, HOP_few_out, (gpu_shape){groups, 1, 1, shared}, FEW_COMPUTE, a);
}

static err gemm_experts(gpu_queue *q, const args_experts *e, bool *done) {
    args_gemm_experts a = {.e = *e, .x = cuda_scratch(q), .least = 1, .most = e->n_rows};
    int n = e->n_pairs / e->row_of_pair, cols = e->gate.cols;
    bool up = e->up.rows != 0, narrow = e->gate.bits == 4;
    if (!a.x || (uint64_t)n * (uint64_t)(cols / BLOCK * X_BYTES) > SCRATCH) return err_none();
    *done = true;
    TRY(split(q, e->x, e->x_stride, n, cols, a.x));
    gpu_shape s = {over(e->gate.rows, up ? 128 : 256), e->max_active, 1, 0};
    if (!narrow || e->n_rows > NARROW) { /* a few experts may have most of the pairs */
        if (narrow) a.least = NARROW + 1;
        s.z = min_int(4, over(e->n_rows, 64));
        s.shared_bytes = GEMM_HEAD + 3 * 64 * X_STRIDE;
        TRY(start(q, up ? HOP_gemm_in_64 : HOP_gemm_out_64, s, GEMM_THREADS, &a));
    }
    if (!narrow) return err_none();
    a.least = 1, a.most = NARROW;
    s.z = 1;
    s.shared_bytes = GEMM_HEAD + 4 * NARROW * X_STRIDE;
    return start(q, up ? HOP_gemm_in_24 : HOP_gemm_out_24, s, GEMM_THREADS, &a);
}

err cuda_hop_experts(gpu_queue *q, const args_experts *e, bool *done) {
    *done = false;
    if (!device_of(q)->has_hop || !experts_fit(e)) return err_none();
    if (experts_few(e)) {
        args_few_in in = {.e = *e};
        args_few_out out = {.e = *e, .told = -1};
        TRY(e->up.rows ? few_in(q, &in, done) : few_out(q, &out, false, done));
    }
    return *done ? err_none() : gemm_experts(q, e, done);
}

err cuda_hop_conv(gpu_queue *q, const args_conv *a, bool *done) {
    args_conv copy = *a;
    *done = device_of(q)->has_hop && a->w % 16 == 0;
    if (!*done) return err_none();
    gpu_shape s = {over(a->channels, FLAT_THREADS), CONV_GROUPS, a->n_segments, 0};
    return start(q, HOP_hop_conv, s, FLAT_THREADS, &copy);
}

err cuda_hop_plan(gpu_queue *q, const args_plan *a, bool *done) {
    const cuda_device *d = device_of(q);
    int shared = (SORT_THREADS / 32 * a->n_experts + 64) * (int)sizeof(int);
    *done = d->has_hop && a->n_pairs && shared <= d->shared_bytes;
    if (!*done) return err_none();
    args_plan copy = *a;
    return start(q, HOP_hop_sort, (gpu_shape){1, 1, 1, shared}, SORT_THREADS, &copy);
}

err cuda_hop_top(gpu_queue *q, const args_top *a, bool *done) {
    args_top copy = *a;
    *done = device_of(q)->has_hop;
    if (!*done) return err_none();
    gpu_shape s = {a->logits ? over(a->n, TOP_SPAN) : 1, a->rows, 1,
                   TOP_SPAN * (int)sizeof(uint64_t)};
    return start(q, a->logits ? HOP_hop_top : HOP_hop_top_merge, s, TOP_THREADS, &copy);
}

/* The shared expert by launches of its own. */
static err shared_expert(gpu_queue *q, const cuda_moe *m) {
    bool done;
    TRY(cuda_launch_now(q, GPU_swiglu, gpu_shape_of(GPU_swiglu, m->act), m->act));
    TRY(cuda_hop_matvec(q, NULL, m->shared, NULL, &done));
    if (done) return err_none();
    return cuda_launch_now(q, GPU_matvec, gpu_shape_of(GPU_matvec, m->shared), m->shared);
}

err cuda_hop_moe(gpu_queue *q, const cuda_moe *m, bool *done) {
    *done = false;
    if (!device_of(q)->has_hop || !experts_fit(m->in) || !experts_fit(m->out)) return err_none();
    if (!experts_few(m->in) || !experts_few(m->out) || m->router->n > FEW_VECTORS ||
        m->router->n_experts > FEW_EXPERTS)
        return err_none();
    args_few_in in = {.router = *m->router, .plan = *m->plan, .e = *m->in};
    args_few_out out = {.e = *m->out, .combine = *m->combine};
    if (m->shared) {
        if (!matvec_fits(m->shared) || !x_fits(m->act->gate, m->shared->x_stride))
            return err_none();
        out.shared = m->shared->m[0];
        out.act = *m->act;
    }
    bool fits = false, apart = false; /* apart: no room for the shared expert beside the others */
    TRY(few_out(q, &out, true, &fits));
    if (!fits && m->shared) {
        apart = true;
        memset(&out.shared, 0, sizeof out.shared);
        TRY(few_out(q, &out, true, &fits));
    }
    if (!fits) return err_none();
    in.told = out.told = device_of(q)->told++ % FEW_TOLD;
    TRY(few_in(q, &in, done));
    if (!*done) return err_none();
    if (apart) TRY(shared_expert(q, m));
    return few_out(q, &out, false, done);
}

/* ---- the delta rule ---- */

err cuda_hop_delta(gpu_queue *q, const args_few_delta *given, bool *done) {
    args_few_delta a = *given;
    *done = device_of(q)->has_hop && a.run.dk <= 128 && a.run.dv <= 128 && a.run.dv % 8 == 0;
    if (!*done) return err_none();
    gpu_shape s = {a.run.n_v, a.run.n_segments, 1, STEP_FLOATS * (int)sizeof(float)};
    bool whole = a.run.dk == 128 && a.run.dv == 128;
    return start(q, whole ? HOP_few_delta_128 : HOP_few_delta, s, STEP_THREADS, &a);
}
