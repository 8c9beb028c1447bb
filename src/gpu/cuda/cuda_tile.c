/* cuda_tile.c: which launches go to the matrix units by kernels/cuda_attn.inc and cuda_delta.inc,
 * and their shapes: attention over float16 caches with heads of 128 or 256 numbers whose rows begin
 * at 16 bytes (and those of gates, where there are any), the delta rule of steps in which a segment
 * may have pieces for it. */
#include "gpu/cuda/cuda_hop.h"

enum {
    ATTN_TILE_THREADS = 256,
    FEW = 16,            /* pairs of a row and a query head in a group */
    MANY = 64,           /* where there are many: k and v are read less often */
    PIECE = 64,          /* positions that are copied at a time */
    PAIRS_MAX = 1 << 22, /* of a launch: at_row */
};

static int min_int(int a, int b) { return a < b ? a : b; }
static int over(int n, int by) { return (n + by - 1) / by; }

static const char *name_of(cuda_tile_kernel k) {
    static const char *const names[] = {
#define CUDA_TILE_NAME(name) #name,
        CUDA_TILE_KERNELS(CUDA_TILE_NAME)};
    return names[k];
}

err cuda_tile_load(cuda_device *d) {
    for (int i = 0; i < TILE_COUNT; i++)
        TRY(cuda_find(d, name_of((cuda_tile_kernel)i), &d->tile[i]));
    return err_none();
}

static err start(gpu_queue *q, cuda_tile_kernel k, gpu_shape s, int threads, void *args) {
    void *list[] = {args};
    return cuda_start(q, ((cuda_device *)(void *)q->device)->tile[k], name_of(k), s, threads, list);
}

/* ---- attention ---- */

static bool attn_fits(const args_attn *a) {
    return a->kv_type == KVT_F16 && (a->dim == 128 || a->dim == 256) &&
           (a->k_cache | a->v_cache | a->slot_bytes | (uint64_t)a->row_bytes) % 16 == 0 &&
           (a->gate | a->part) % 16 == 0 && a->gate_stride % 4 == 0 &&
           (int64_t)a->n * (a->n_q / a->n_kv) < PAIRS_MAX;
}

/* q and the terms of the softmax in two halves, two pieces, factors, tops: at_form. */
static int attn_shared(int pairs, int dim) {
    int halves = pairs * (dim + ATTN_SPLIT) * 2 * 2, pieces = 2 * PIECE * dim * 2;
    return halves + pieces + pairs * (int)sizeof(float) * (1 + 8 / (pairs / 16));
}

err cuda_tile_attn(gpu_queue *q, const args_attn *given, bool *done) {
    cuda_device *d = (cuda_device *)(void *)q->device;
    args_attn a = *given;
    if (!attn_fits(&a) || attn_shared(FEW, a.dim) > d->shared_bytes) return err_none();
    int per_kv = a.n_q / a.n_kv;
    bool many = !a.n_splits && a.n_kv * over(a.n * per_kv, MANY) * 2 >= d->units &&
                attn_shared(MANY, a.dim) <= d->shared_bytes;
    int pairs = many ? MANY : FEW;
    gpu_shape s = {a.n_kv, over(a.n * per_kv, pairs), 1, attn_shared(pairs, a.dim)};
    if (a.n_splits) s.x = a.n_kv * over(per_kv, pairs), s.y = a.n, s.z = a.n_splits;
    cuda_tile_kernel k = a.dim == 256 ? TILE_attn_256_many : TILE_attn_128_many;
    if (!many) k = (cuda_tile_kernel)(k + 1);
    *done = true;
    return start(q, k, s, ATTN_TILE_THREADS, &a);
}

/* ---- the delta rule ---- */

/* Nothing but the segments' own pieces may decide: with fewer rows none has a piece long enough. */
static bool delta_fits(const cuda_device *d, const args_delta *a) {
    return a->n - a->n_segments + 1 >= TD_LEAST && a->dk == TD_DK && a->dv % TD_COLUMNS == 0 &&
           a->stride % 4 == 0 && a->qkv % 16 == 0 && (a->o | a->state) % 8 == 0 &&
           a->state_stride % 2 == 0 && TD_WALK_SHARED <= d->shared_bytes;
}

static err delta_edge(gpu_queue *q, args_tile_delta *a, int last) {
    gpu_shape s = gpu_shape_of(GPU_delta, &a->d);
    a->last = last;
    return start(q, TILE_delta_edge, s, DELTA_THREADS, a);
}

err cuda_tile_delta(gpu_queue *q, const args_delta *given, bool *done) {
    args_tile_delta a = {.d = *given};
    const args_delta *d = given;
    const cuda_device *card = (const cuda_device *)(const void *)q->device;
    if (!delta_fits(card, d)) return err_none();
    size_t one = (size_t)d->n_k * TD_OF_KEY + (size_t)d->n_v * TD_OF_VALUE;
    a.scratch = cuda_scratch(q);
    int room = (int)(cuda_hop_bytes(card) / one);
    if (!a.scratch || !room) return err_none();
    *done = true;
    int most = min_int(d->n / TD_TOKENS + 2 * d->n_segments, d->n / TD_LEAST);
    TRY(delta_edge(q, &a, 0));
    for (; a.from < most; a.from += room) {
        a.pieces = min_int(room, most - a.from);
        gpu_shape chunks = {a.pieces, d->n_v, 1, TD_CHUNKS_SHARED};
        gpu_shape walk = {d->dv / TD_COLUMNS, d->n_v, d->n_segments, TD_WALK_SHARED};
        TRY(start(q, TILE_delta_chunks, chunks, TD_THREADS, &a));
        TRY(start(q, TILE_delta_walk, walk, TD_THREADS, &a));
    }
    return delta_edge(q, &a, 1);
}
