/* cuda_impl.h: what the files of the CUDA backend share. */
#ifndef GPU_CUDA_CUDA_IMPL_H
#define GPU_CUDA_CUDA_IMPL_H

#include "gpu/cuda/cuda_api.h"
#include "gpu/gpu_backend.h"

/* The kernels of kernels/cuda_matmul.inc: X(id, entry point). */
#define CUDA_FAST_KERNELS(X)                                                                       \
    X(FAST_MATVEC_32, "mm_matvec_w1_r1_t1")                                                        \
    X(FAST_MATVEC_32_TALL, "mm_matvec_w1_r2_t1")                                                   \
    X(FAST_MATVEC, "mm_matvec_w2_r1_t1")                                                           \
    X(FAST_MATVEC_TALL, "mm_matvec_w2_r2_t1")                                                      \
    X(FAST_MATVEC_MANY, "mm_matvec_w2_r2_t2")                                                      \
    X(FAST_GATE_UP_32, "mm_gate_up_w1_t1")                                                         \
    X(FAST_GATE_UP, "mm_gate_up_w2_t1")                                                            \
    X(FAST_GATE_UP_MANY, "mm_gate_up_w2_t2")                                                       \
    X(FAST_DOWN_32, "mm_down_w1_t1")                                                               \
    X(FAST_DOWN, "mm_down_w2_t1")                                                                  \
    X(FAST_DOWN_MANY, "mm_down_w2_t2")
#define CUDA_FAST_ID(id, entry) id,
typedef enum cuda_fast { CUDA_FAST_KERNELS(CUDA_FAST_ID) FAST_COUNT } cuda_fast;

/* Those of kernels/cuda_few.inc, cuda_moe.inc and cuda_gemm.inc. */
#define CUDA_HOP_KERNELS(X)                                                                        \
    X(few_matvec)                                                                                  \
    X(few_in)                                                                                      \
    X(few_out)                                                                                     \
    X(few_delta)                                                                                   \
    X(few_delta_128)                                                                               \
    X(gemm_matvec_64)                                                                              \
    X(gemm_matvec_32)                                                                              \
    X(gemm_in_64)                                                                                  \
    X(gemm_in_24)                                                                                  \
    X(gemm_out_64)                                                                                 \
    X(gemm_out_24)                                                                                 \
    X(hop_conv)                                                                                    \
    X(hop_split_x)                                                                                 \
    X(hop_sort)                                                                                    \
    X(hop_top)                                                                                     \
    X(hop_top_merge)
#define CUDA_HOP_ID(name) HOP_##name,
typedef enum cuda_hop_kernel { CUDA_HOP_KERNELS(CUDA_HOP_ID) HOP_COUNT } cuda_hop_kernel;

/* Those of kernels/cuda_attn.inc and cuda_delta.inc. */
#define CUDA_TILE_KERNELS(X)                                                                       \
    X(attn_256_many)                                                                               \
    X(attn_256_few)                                                                                \
    X(attn_128_many)                                                                               \
    X(attn_128_few)                                                                                \
    X(delta_chunks)                                                                                \
    X(delta_walk)                                                                                  \
    X(delta_edge)
#define CUDA_TILE_ID(name) TILE_##name,
typedef enum cuda_tile_kernel { CUDA_TILE_KERNELS(CUDA_TILE_ID) TILE_COUNT } cuda_tile_kernel;

typedef struct cuda_device {
    gpu_device base;
    cuda_api api;
    cu_device device;
    cu_context context;
    cu_module module;
    cu_function kernel[GPU_KERNEL_COUNT];
    cu_function fast[FAST_COUNT];
    cu_function hop[HOP_COUNT];
    cu_function tile[TILE_COUNT]; /* with has_fast */
    struct cuda_queue *queues;    /* all that are open */
    int index, shared_bytes, units;
    bool has_fast; /* matrix units that multiply bf16 */
    bool early;    /* a launch may begin before the one ahead of it has ended */
    bool has_hop;  /* the kernels for capability 9.0 */
    bool plain;    /* only the portable bodies */
    unsigned told; /* plans that few_in told few_out of: cuda_moe.inc */
} cuda_device;

/* A launch that has not started: cuda_fuse.c. */
#define CUDA_PENDING    24
#define CUDA_ARGS_BYTES 384
typedef struct cuda_pending {
    gpu_kernel kernel;
    gpu_shape shape;
    _Alignas(8) uint8_t args[CUDA_ARGS_BYTES];
} cuda_pending;

typedef struct cuda_queue {
    gpu_queue base;
    cu_stream stream;
    struct cuda_queue *next;
    cu_address scratch; /* what launches leave to the next; 0: not yet, or no memory */
    bool lean;          /* takes no scratch */
    int n_pending;
    cuda_pending pending[CUDA_PENDING];
} cuda_queue;

static inline cu_stream cuda_stream_of(gpu_queue *q) { return ((cuda_queue *)(void *)q)->stream; }

#define CU(d, call, function, what, ...)                                                           \
    TRY(cuda_result(&(d)->api, (d)->api.call(__VA_ARGS__), function, what))

/* cuda_backend.c: a launch of any kernel; list as cuLaunchKernel has it. */
err cuda_start(gpu_queue *q, cu_function f, const char *name, gpu_shape shape, int threads,
               void **list) MUST_USE;

/* cuda_backend.c: a kernel by itself, at once. */
err cuda_launch_now(gpu_queue *q, gpu_kernel k, gpu_shape shape, const void *args) MUST_USE;

/* cuda_fuse.c: a launch for later, and all of them now. */
err cuda_put_off(gpu_queue *q, gpu_kernel k, gpu_shape shape, const void *args) MUST_USE;
err cuda_flush(gpu_queue *q) MUST_USE;

const char *cuda_hop_name(cuda_hop_kernel k);

/* cuda_fast.c: finds the kernels, on cards that have what they need. */
err cuda_fast_load(cuda_device *d) MUST_USE;
/* cuda_backend.c: a kernel of the module, which may take all shared memory there is. */
err cuda_find(cuda_device *d, const char *name, cu_function *out) MUST_USE;
/* Launches the work on the matrix units; *done false: the portable body has to do it. */
err cuda_fast_launch(gpu_queue *q, gpu_kernel k, const void *args, bool *done) MUST_USE;

/* cuda_tile.c: likewise attention and the delta rule. */
err cuda_tile_load(cuda_device *d) MUST_USE;
err cuda_tile_attn(gpu_queue *q, const args_attn *a, bool *done) MUST_USE;
err cuda_tile_delta(gpu_queue *q, const args_delta *a, bool *done) MUST_USE;

#endif
