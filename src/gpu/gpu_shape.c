/* gpu_shape.c: how many groups a launch has, from its arguments. The other half of what the bodies
 * say about group_x, group_y and group_z. */
#include <assert.h>

#include "gpu/gpu.h"

static int over(int n, int by) { return (n + by - 1) / by; }

static int mat_groups(const gpu_mat *m) { return over(m->rows, MATVEC_ROWS); }

void gpu_matvec_lay_out(args_matvec *a) {
    int first = 0;
    for (int i = 0; i < a->n_mats; i++) {
        a->first_group[i] = first;
        first += mat_groups(&a->m[i]);
    }
}

size_t gpu_kv_head_bytes(int kv_type, int dim) {
    if (kv_type == KVT_Q8) return (size_t)(dim + dim / 32 * 2);
    return (size_t)dim * (kv_type == KVT_F16 ? 2 : 4);
}

size_t gpu_attn_part_bytes(int n, int n_q, int dim, int n_splits) {
    return (size_t)n * (size_t)n_q * (size_t)n_splits * (size_t)(dim + 2) * sizeof(float);
}

static gpu_shape shape(int x, int y, int z, int floats) {
    return (gpu_shape){x, y, z, floats * (int)sizeof(float)};
}

static gpu_shape matvec_shape(const args_matvec *a) {
    int last = a->n_mats - 1, threads_of_tokens = over(a->n, MATVEC_TOKENS);
    return shape(a->first_group[last] + mat_groups(&a->m[last]), threads_of_tokens, 1, 0);
}

static gpu_shape attn_shape(const args_attn *a) {
    int blocks = over(a->n_q / a->n_kv, ATTN_HEADS);
    int floats = ATTN_HEADS * a->dim + ATTN_HEADS * ATTN_SPLIT + 2 * ATTN_HEADS;
    assert(a->dim <= ATTN_DIM_MAX);
    return shape(a->n_kv * blocks, a->n, a->n_splits ? a->n_splits : 1, floats);
}

static gpu_shape merge_shape(const args_attn *a) {
    return shape(a->n_q, a->n, over(a->dim, ATTN_MERGE_DIM), ATTN_MERGE * (3 + ATTN_MERGE_DIM));
}

/* Three kernels with vectors of one row or head. */
static gpu_shape sequence_shape(gpu_kernel k, const void *args) {
    switch (k) {
    case GPU_conv: {
        const args_conv *a = args;
        return shape(over(a->channels, FLAT_THREADS), a->n_segments, 1, 0);
    }
    case GPU_delta_in: {
        const args_delta_in *a = args;
        return shape(2 * a->n_k + 1, a->n, 1, 0);
    }
    case GPU_delta: {
        const args_delta *a = args;
        assert(a->dk <= DELTA_DK_MAX);
        static_assert(2 * DELTA_TOKENS * DELTA_DK_MAX <= CHUNK_FLOATS, "staged tokens have room");
        return shape(over(a->dv, DELTA_COLUMNS), a->n_v, a->n_segments, CHUNK_FLOATS);
    }
    default: {
        const args_delta_out *a = args;
        return shape(a->n_v, a->n, 1, 0);
    }
    }
}

/* Probabilities, the chosen, the k best of every 32 with their indices, room for sums. */
static int router_floats(const args_router *a) {
    return a->n_experts + a->k + 2 * over(a->n_experts, SIMD_THREADS) * a->k + 40;
}

static gpu_shape experts_shape(gpu_kernel k, const void *args) {
    switch (k) {
    case GPU_router: {
        const args_router *a = args;
        assert(a->n_experts <= ROUTER_EXPERTS_MAX && a->k <= ROUTER_K_MAX);
        return shape(a->n, 1, 1, router_floats(a));
    }
    case GPU_plan: {
        const args_plan *a = args;
        return shape(a->n_pairs ? 1 : 0, 1, 1, 2 * a->n_experts);
    }
    case GPU_experts: {
        const args_experts *a = args;
        return shape(over(a->gate.rows, MATVEC_ROWS), a->max_active, 1, 0);
    }
    default: {
        const args_combine *a = args;
        return shape(over(a->cols, FLAT_THREADS), a->n, 1, 0);
    }
    }
}

gpu_shape gpu_shape_of(gpu_kernel k, const void *args) {
    switch (k) {
    case GPU_embed: {
        const args_embed *a = args;
        return shape(a->n, over(a->m.cols, FLAT_THREADS * EMBED_EACH), 1, 0);
    }
    case GPU_rmsnorm:
        return shape(((const args_rmsnorm *)args)->n, 1, 1, NORM_THREADS / SIMD_THREADS);
    case GPU_matvec: return matvec_shape(args);
    case GPU_attn_in: {
        const args_attn_in *a = args;
        return shape(a->n_q + 2 * a->n_kv, a->n, 1, a->dim);
    }
    case GPU_attn: return attn_shape(args);
    case GPU_attn_merge: return merge_shape(args);
    case GPU_conv:
    case GPU_delta_in:
    case GPU_delta:
    case GPU_delta_out: return sequence_shape(k, args);
    case GPU_router:
    case GPU_plan:
    case GPU_experts:
    case GPU_combine: return experts_shape(k, args);
    case GPU_swiglu: return shape(over(((const args_swiglu *)args)->n, FLAT_THREADS), 1, 1, 0);
    case GPU_words: return shape(over(((const args_words *)args)->n, FLAT_THREADS), 1, 1, 0);
    case GPU_top: {
        const args_top *a = args;
        return shape(over(a->n, TOP_SPAN), a->rows, 1, 2 * TOP_SPAN);
    }
    default: return shape(0, 0, 0, 0);
    }
}

err gpu_run(gpu_queue *q, gpu_kernel k, const void *args) {
    gpu_shape s = gpu_shape_of(k, args);
    if (s.x == 0 || s.y == 0 || s.z == 0) return err_none();
    return gpu_launch(q, k, s, args);
}
