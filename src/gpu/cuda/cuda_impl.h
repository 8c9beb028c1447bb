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

typedef struct cuda_device {
    gpu_device base;
    cuda_api api;
    cu_device device;
    cu_context context;
    cu_module module;
    cu_function kernel[GPU_KERNEL_COUNT];
    cu_function fast[FAST_COUNT];
    int index, shared_bytes, units;
    bool has_fast; /* matrix units that multiply bf16 */
    bool early;    /* a launch may begin before the one ahead of it has ended */
    bool plain;    /* only the portable bodies */
} cuda_device;

typedef struct cuda_queue {
    gpu_queue base;
    cu_stream stream;
} cuda_queue;

static inline cu_stream cuda_stream_of(gpu_queue *q) { return ((cuda_queue *)(void *)q)->stream; }

#define CU(d, call, function, what, ...)                                                           \
    TRY(cuda_result(&(d)->api, (d)->api.call(__VA_ARGS__), function, what))

/* cuda_backend.c: a launch of any kernel; list as cuLaunchKernel has it. */
err cuda_start(gpu_queue *q, cu_function f, const char *name, gpu_shape shape, int threads,
               void **list) MUST_USE;

/* cuda_fast.c: finds the kernels, on cards that have what they need. */
err cuda_fast_load(cuda_device *d) MUST_USE;
/* Launches the work on the matrix units; *done false: the portable body has to do it. */
err cuda_fast_launch(gpu_queue *q, gpu_kernel k, const void *args, bool *done) MUST_USE;

#endif
