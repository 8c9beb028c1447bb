/* cuda_hop.h: launches of the kernels for capability 9.0 (kernels/cuda_few.inc, cuda_moe.inc,
 * cuda_gemm.inc). Every function says in *done whether it launched: false means that the shapes,
 * formats or sizes are not for these kernels and nothing has happened. Matrices must be affine with
 * 4 or 8 bits, one scale for 64 columns, columns in blocks of 128. */
#ifndef GPU_CUDA_CUDA_HOP_H
#define GPU_CUDA_CUDA_HOP_H

#include "gpu/cuda/cuda_impl.h"
#include "gpu/kernels/cuda_args.h"

/* norm and conv may be NULL. Few vectors or, without norm and conv, many. */
err cuda_hop_matvec(gpu_queue *q, const args_rmsnorm *norm, const args_matvec *m,
                    const args_conv *conv, bool *done) MUST_USE;
/* One way of the experts, planned before. */
err cuda_hop_experts(gpu_queue *q, const args_experts *a, bool *done) MUST_USE;
err cuda_hop_conv(gpu_queue *q, const args_conv *a, bool *done) MUST_USE;
/* A row's spans of logits; or the lists that those gave, all at once. */
err cuda_hop_top(gpu_queue *q, const args_top *a, bool *done) MUST_USE;
err cuda_hop_plan(gpu_queue *q, const args_plan *a, bool *done) MUST_USE;

/* A whole mixture of experts for a few rows. act and shared: both or none. */
typedef struct cuda_moe {
    const args_router *router;
    const args_plan *plan;
    const args_swiglu *act;
    const args_matvec *shared;
    const args_experts *in, *out;
    const args_combine *combine;
} cuda_moe;
err cuda_hop_moe(gpu_queue *q, const cuda_moe *m, bool *done) MUST_USE;
err cuda_hop_delta(gpu_queue *q, const args_few_delta *a, bool *done) MUST_USE;

/* Bytes that a queue takes at its first prompt. */
size_t cuda_hop_bytes(const cuda_device *d);
/* That memory, for what one launch leaves to the next (split vectors, pieces of the delta rule);
 * 0: there is none. */
gpu_addr cuda_scratch(gpu_queue *q);

#endif
