/* cuda_fast.c: which launches go to the matrix units (kernels/cuda_matmul.inc), and their shapes.
 *
 * What is needed: formats affine or BF16, columns in whole units of 64 (or 32) with whole scales,
 * rows that begin at 16 bytes, offsets below 4 GiB. Anything else runs the portable body. */
#include "gpu/cuda/cuda_impl.h"

enum {
    HEAD_BYTES = 512, /* MM_HEAD */
    RING = 5120,      /* MM_RING and MM_RING_MANY, of each of 16 SIMD groups */
    RING_MANY = 2560,
    TEAMS = 2, /* of a group, each with its own tile */
    THREADS = 512,
    FEW = 8,   /* vectors of one step of the matrix units */
    MANY = 16, /* vectors of a group of the MANY kernels, at most, and at least */
    MANY_LEAST = 12,
    PTX_WITH_WAIT = 90, /* code for this target waits for the launch ahead of it */
};

static int over(int n, int by) { return (n + by - 1) / by; }

/* ---- load ---- */

err cuda_fast_load(cuda_device *d) {
    static const char *const names[] = {
#define CUDA_FAST_NAME(id, entry) entry,
        CUDA_FAST_KERNELS(CUDA_FAST_NAME)};
    int major = 0, ptx = 0;
    CU(d, device_attribute, "cuDeviceGetAttribute", "major", &major, CU_ATTR_MAJOR, d->device);
    CU(d, device_attribute, "cuDeviceGetAttribute", "units", &d->units, CU_ATTR_UNITS, d->device);
    CU(d, function_get, "cuFuncGetAttribute", "kernel", &ptx, CU_FUNC_PTX_VERSION, d->kernel[0]);
    d->early = d->api.launch_ex && major >= 9 && ptx >= PTX_WITH_WAIT;
    if (major < 8) return err_none();
    for (int i = 0; i < FAST_COUNT; i++) TRY(cuda_find(d, names[i], &d->fast[i]));
    TRY(cuda_tile_load(d));
    d->has_fast = true;
    for (int i = 0; i < HOP_COUNT; i++)
        TRY(cuda_find(d, cuda_hop_name((cuda_hop_kernel)i), &d->hop[i]));
    d->has_hop = d->early;
    return err_none();
}

const char *cuda_hop_name(cuda_hop_kernel k) {
    static const char *const names[] = {
#define CUDA_HOP_NAME(name) #name,
        CUDA_HOP_KERNELS(CUDA_HOP_NAME)};
    return names[k];
}

/* ---- what fits ---- */

/* Formats that the kernels for units of 32 have; those for many vectors have no room for BF16. */
static bool common(int kind, int bits) { return kind == MAT_BF16 || bits == 4 || bits == 8; }
static bool narrow(int kind, int bits) { return kind == MAT_AFFINE && (bits == 4 || bits == 8); }

/* Columns of a unit that the format allows: 64, 32, or 0. */
static int unit_of(int kind, int bits, int group, int cols) {
    if (kind == MAT_BF16) return cols % 64 == 0 ? 64 : cols % 32 == 0 ? 32 : 0;
    if (kind != MAT_AFFINE || bits == 7 || cols % group) return 0;
    if (group == 64 || group == 128 || group == 256) return 64;
    return group == 32 && common(kind, bits) ? 32 : 0;
}

/* Offsets within the matrix fit 32 bits, and scales can be read in pairs. */
static bool fits(int kind, int bits, int group, int rows, int cols) {
    if (kind == MAT_AFFINE && cols / group % 2 && rows % 2) return false;
    uint64_t row = kind == MAT_AFFINE ? (uint64_t)cols * (uint64_t)bits / 8 : (uint64_t)cols * 2;
    return row * (uint64_t)rows <= UINT32_MAX;
}

static int min_int(int a, int b) { return a < b ? a : b; }

/* Shared memory of a group: the head, the teams' sums, the rings, n split vectors. */
static int shared_of(int n, int units, int unit, int tile, int most) {
    int sums = TEAMS * 4 * tile * (most + 1) * (int)sizeof(float);
    int rings = TEAMS * 8 * (most == MANY ? RING_MANY : RING);
    return HEAD_BYTES + sums + rings + n * units * (unit == 64 ? 416 : 224);
}

/* How many of n vectors fit a group, at most `most`. */
static int vectors_of(const cuda_device *d, int n, int units, int unit, int most) {
    int fit = min_int(n, most);
    while (fit > 0 && shared_of(fit, units, unit, 32, most) > d->shared_bytes) fit--;
    return fit;
}

/* ---- matvec ---- */

/* Columns of a unit for all matrices; 0: some are not for these kernels. */
static int matvec_unit(const args_matvec *a, bool *all_narrow) {
    int unit = a->x % 16 || a->x_stride % 4 ? 0 : 64;
    bool all_common = true;
    *all_narrow = true;
    for (int i = 0; i < a->n_mats; i++) {
        const gpu_mat *m = &a->m[i];
        int mine = unit_of(m->kind, m->bits, m->group, m->cols);
        if (m->w % 16 || m->scales % 4 || m->biases % 4) mine = 0;
        if (mine && !fits(m->kind, m->bits, m->group, m->rows, m->cols)) mine = 0;
        unit = min_int(unit, mine);
        all_common &= common(m->kind, m->bits);
        *all_narrow &= narrow(m->kind, m->bits);
    }
    return unit == 64 || all_common ? unit : 0;
}

static int lay_out(args_matvec *a, int tile) {
    int groups = 0;
    for (int i = 0; i < a->n_mats; i++) {
        a->first_group[i] = groups;
        groups += over(a->m[i].rows, tile);
    }
    return groups;
}

/* Tiles of 32 rows read the vectors half as often; tiles of 16 spread over the teams more evenly.
 */
static int tile_of(args_matvec *a, int teams) {
    int tall = over(lay_out(a, 32), teams) * 32, low = over(lay_out(a, 16), teams) * 16;
    return low * 10 < tall * 9 ? 16 : 32;
}

static err matvec(gpu_queue *q, const args_matvec *given, bool *done) {
    cuda_device *d = (cuda_device *)(void *)q->device;
    args_matvec a = *given;
    bool all_narrow;
    int unit = matvec_unit(&a, &all_narrow), units = unit ? a.m[0].cols / unit : 0;
    if (!unit || !a.n) return err_none();
    bool many = a.n > FEW && unit == 64 && all_narrow &&
                vectors_of(d, MANY, units, unit, MANY) >= MANY_LEAST;
    int most = many ? MANY : FEW, vectors = vectors_of(d, a.n, units, unit, most);
    if (!vectors) return err_none();
    int tile = many ? 32 : tile_of(&a, TEAMS * d->units), tiles = lay_out(&a, tile);
    int batches = over(a.n, vectors), wide = over(d->units, batches);
    gpu_shape s = {min_int(wide, tiles), batches, 1, shared_of(vectors, units, unit, tile, most)};
    cuda_fast f = unit == 32 ? FAST_MATVEC_32 : FAST_MATVEC;
    f = many ? FAST_MATVEC_MANY : tile == 32 ? (cuda_fast)(f + 1) : f;
    void *list[] = {&a, &tiles, &vectors};
    *done = true;
    return cuda_start(q, d->fast[f], "mm_matvec", s, THREADS, list);
}

/* ---- experts ---- */

static bool same_format(const gpu_part *a, const gpu_part *b) {
    return a->kind == b->kind && a->bits == b->bits && a->group == b->group && a->cols == b->cols &&
           a->rows == b->rows && a->scales_f16 == b->scales_f16;
}

/* Columns of a unit, or 0. */
static int experts_unit(const args_experts *a) {
    const gpu_part *g = &a->gate;
    if (a->x % 16 || a->x_stride % 4 || g->w % 16 || a->up.w % 16 || !a->n_pairs) return 0;
    if (a->up.rows && !same_format(g, &a->up)) return 0;
    if ((g->scales | g->biases | a->up.scales | a->up.biases) % 4) return 0;
    int unit = unit_of(g->kind, g->bits, g->group, g->cols);
    return unit && fits(g->kind, g->bits, g->group, g->rows, g->cols) ? unit : 0;
}

static err experts(gpu_queue *q, const args_experts *given, bool *done) {
    cuda_device *d = (cuda_device *)(void *)q->device;
    args_experts a = *given;
    int unit = experts_unit(&a), units = unit ? a.gate.cols / unit : 0;
    if (!unit) return err_none();
    bool up = a.up.rows != 0;
    int rows = a.n_pairs / a.row_of_pair, tiles = over(a.gate.rows, up ? 16 : 32);
    int all = a.n_rows <= FEW && shared_of(rows, units, unit, 32, FEW) <= d->shared_bytes;
    /* With few pairs an expert a wide group would be half empty. */
    bool many = !all && unit == 64 && narrow(a.gate.kind, a.gate.bits) &&
                a.n_pairs > FEW * a.max_active &&
                vectors_of(d, MANY, units, unit, MANY) >= MANY_LEAST;
    int most = many ? MANY : FEW, vectors = vectors_of(d, a.n_rows, units, unit, most);
    if (!vectors) return err_none();
    int wide = all ? d->units : over(2 * d->units, a.max_active);
    gpu_shape s = {min_int(wide, all ? tiles * a.max_active : tiles), all ? 1 : a.max_active, 1,
                   shared_of(all ? rows : vectors, units, unit, 32, most)};
    cuda_fast f = (cuda_fast)((up ? FAST_GATE_UP_32 : FAST_DOWN_32) + (unit == 64) + many);
    void *list[] = {&a, &all, &vectors};
    *done = true;
    return cuda_start(q, d->fast[f], up ? "mm_gate_up" : "mm_down", s, THREADS, list);
}

err cuda_fast_launch(gpu_queue *q, gpu_kernel k, const void *args, bool *done) {
    const cuda_device *d = (const cuda_device *)(const void *)q->device;
    *done = false;
    if (!d->has_fast || d->plain) return err_none();
    if (k == GPU_matvec) return matvec(q, args, done);
    if (k == GPU_experts) return experts(q, args, done);
    if (k == GPU_attn) return cuda_tile_attn(q, args, done);
    if (k == GPU_delta) return cuda_tile_delta(q, args, done);
    return err_none();
}
