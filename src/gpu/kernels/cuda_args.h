/* cuda_args.h: arguments of the kernels that only NVIDIA cards of capability 9.0 have, for the host
 * and the card: those of the launches that they stand for, and where things lie in shared memory.
 */
#ifndef GPU_KERNELS_CUDA_ARGS_H
#define GPU_KERNELS_CUDA_ARGS_H

#include "gpu/kernels/gpu_args.h"

enum {
    FEW_VECTORS = 8,
    FEW_WARPS = 16, /* that compute; one more copies */
    FEW_COMPUTE = 512,
    FEW_THREADS = 544,
    FEW_HEAD = 1024,           /* bytes before the ring */
    FEW_SLOTS = 16,            /* of the ring, at most */
    FEW_PAIRS = 256,           /* of a step, at most */
    FEW_PLAN = 6 * 4 + 8 + 16, /* bytes of few_plan for a pair; pairs a multiple of 4 */
    FEW_EXPERTS = 512,         /* of a layer, to choose from */
    GEMM_THREADS = 256,
    GEMM_SLOTS = 4,
    GEMM_HEAD = 384, /* barriers; where the vectors' rows begin [64] */
    SPLIT_THREADS = 256,
    STEP_THREADS = 512, /* of few_delta */
    SORT_THREADS = 1024,
    CONV_TOKENS = 16, /* that a thread of hop_conv computes at a time */
    CONV_GROUPS = 16, /* that share a segment's tokens */
};

/* Shared memory: FEW_HEAD, the ring, the plan, the vectors, the parts. */
typedef struct few_room {
    int slots, slot_bytes, plan_at, x_at, part_at; /* bytes */
    int part_floats;
    int tiles; /* of 16 rows, all matrices together */
} few_room;

/* rmsnorm, matvec, conv. norm.x NULL: no norm, m.x as it is; conv.w NULL: no convolution. */
typedef struct args_few_matvec {
    args_matvec m;
    args_rmsnorm norm;
    args_conv conv;
    few_room room;
} args_few_matvec;

/* router, plan, the way in of all experts. router.logits NULL: the plan is there. */
typedef struct args_few_in {
    args_router router;
    args_plan plan;
    args_experts e;
    few_room room;
    int bases_at; /* bytes: where all experts lie [n_experts] */
} args_few_in;

/* The shared expert's swiglu and way out, the way out of all experts, combine. combine.h NULL: the
 * experts only, results to e.y. shared.w NULL: no shared expert. */
typedef struct args_few_out {
    args_experts e;
    args_swiglu act;
    gpu_mat shared;
    args_combine combine;
    few_room room;
    int shared_x_at, shared_part_at; /* bytes; bytes */
} args_few_out;

/* delta_in, delta, delta_out for segments of one row. */
typedef struct args_few_delta {
    args_delta_in in;
    args_delta run;
    args_delta_out out;
} args_few_delta;

/* Vectors cut into pieces for the GEMM kernels: cuda_unit.inc. */
typedef struct args_split {
    ADDR(const float) x;
    ADDR(u8) to;
    int n, cols, stride, pad; /* stride: floats between rows of x */
} args_split;

typedef struct args_gemm_matvec {
    args_matvec m; /* first_group: blocks of 256 rows */
    ADDR(const u8) x;
} args_gemm_matvec;

/* Experts with at least `least` and at most `most` pairs. */
typedef struct args_gemm_experts {
    args_experts e;
    ADDR(const u8) x;
    int least, most;
} args_gemm_experts;

#endif
