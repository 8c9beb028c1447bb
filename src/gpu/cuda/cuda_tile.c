/* cuda_tile.c: which launches of attention go to the matrix units (kernels/cuda_attn.inc), and
 * their shapes: float16 caches with heads of 128 or 256 numbers whose rows begin at 16 bytes. */
#include "gpu/cuda/cuda_impl.h"

enum {
    ATTN_TILE_THREADS = 256,
    FEW = 16,  /* pairs of a row and a query head in a group */
    MANY = 64, /* where there are many: k and v are read less often */
    PIECE = 64 /* positions that are copied at a time */
};

static int over(int n, int by) { return (n + by - 1) / by; }

static const char *name_of(cuda_tile_kernel k) {
    static const char *const names[] = {
#define CUDA_TILE_NAME(name) #name,
        CUDA_TILE_KERNELS(CUDA_TILE_NAME)};
    return names[k];
}

err cuda_tile_load(cuda_device *d) {
    for (int i = 0; i < TILE_COUNT; i++) {
        const char *name = name_of((cuda_tile_kernel)i);
        CU(d, module_function, "cuModuleGetFunction", name, &d->tile[i], d->module, name);
        CU(d, function_set, "cuFuncSetAttribute", name, d->tile[i], CU_FUNC_MAX_DYNAMIC_SHARED,
           d->shared_bytes);
    }
    return err_none();
}

/* ---- attention ---- */

static bool attn_fits(const args_attn *a) {
    return a->kv_type == KVT_F16 && (a->dim == 128 || a->dim == 256) &&
           (a->k_cache | a->v_cache | a->slot_bytes | (uint64_t)a->row_bytes) % 16 == 0;
}

/* q and the terms of the softmax in two halves, two pieces, factors, tops: at_form. */
static int attn_shared(int pairs, int dim) {
    int halves = pairs * (dim + ATTN_SPLIT) * 2 * 2, pieces = 2 * PIECE * dim * 2;
    return halves + pieces + pairs * (int)sizeof(float) * (1 + 8 / (pairs / 16));
}

err cuda_tile_attn(gpu_queue *q, const args_attn *given, bool *done) {
    cuda_device *d = (cuda_device *)(void *)q->device;
    args_attn a = *given;
    void *list[] = {&a};
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
    return cuda_start(q, d->tile[k], name_of(k), s, ATTN_TILE_THREADS, list);
}
