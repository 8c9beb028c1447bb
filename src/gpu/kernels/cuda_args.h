/* cuda_args.h: arguments of the kernels that only NVIDIA cards of capability 9.0 have, for the host
 * and the card: those of the launches that they stand for, and where things lie in shared memory.
 */
#ifndef GPU_KERNELS_CUDA_ARGS_H
#define GPU_KERNELS_CUDA_ARGS_H

#include "gpu/kernels/gpu_args.h"

enum {
    FEW_VECTORS = 8,
    FEW_WARPS = 16,
    FEW_COMPUTE = 512,
    FEW_AHEAD = 4,             /* blocks in a SIMD group's ring, at most */
    FEW_ITEMS = 16,            /* tiles that a group lays out at a time */
    FEW_SLOT = 32,             /* bytes of few_slot */
    FEW_HEAD = 1536,           /* bytes before the rings: slots and items, or norms; counts */
    FEW_PAIRS = 256,           /* of a step, at most */
    FEW_PLAN = 6 * 4 + 8 + 16, /* bytes of few_plan for a pair; pairs a multiple of 4 */
    FEW_EXPERTS = 512,         /* of a layer, to choose from */
    FEW_TOLD = 128,            /* plans that few_in can tell few_out of early */
    FEW_TOLD_BASES = 64,       /* with so many active experts, at most */
    GEMM_THREADS = 256,
    GEMM_SLOTS = 4,
    GEMM_HEAD = 384, /* barriers; where the vectors' rows begin [64] */
    SPLIT_THREADS = 256,
    STEP_THREADS = 512, /* of few_delta */
    STEP_FLOATS = 432,  /* its shared memory */
    SORT_THREADS = 1024,
    CONV_TOKENS = 16, /* that a thread of hop_conv computes at a time */
    CONV_GROUPS = 16, /* that share a segment's tokens */
};

/* Bytes of a block of 16 rows and 128 columns in a ring: weights, scales and biases. */
#define FEW_STAGE(bits) (256 * (bits) + 128)

/* Shared memory: FEW_HEAD, the rings, the plan, the vectors, the parts. */
typedef struct few_room {
    int plan_at, x_at, part_at; /* bytes */
    int span;                   /* blocks of a stage: 1 or 2 */
    int stage_bytes, depth;     /* of a ring: span * FEW_STAGE, stages (2 to FEW_AHEAD / span) */
    int part_floats;
    int tiles;        /* of 16 rows, all matrices together */
    int blocks;       /* stages of a row of all matrices */
    unsigned inverse; /* i / units of a row = (i * inverse) >> 32, as divisions are long */
    int slot_of;      /* i / blocks = (i * slot_of) >> 16 for i of SIMD groups */
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
    int told;     /* which of FEW_TOLD says that the plan is there */
} args_few_in;

/* The shared expert's swiglu and way out, the way out of all experts, combine. combine.h NULL: the
 * experts only, results to e.y. shared.w NULL: the shared expert's results are in combine.shared,
 * which is NULL where there is none. */
typedef struct args_few_out {
    args_experts e;
    args_swiglu act;
    gpu_mat shared;
    args_combine combine;
    few_room room;
    int slots_at, shared_x_at, shared_part_at, shared_stage_at; /* bytes */
    unsigned shared_inverse;                                    /* as that of the room */
    int told;                                                   /* as few_in's, or -1 */
} args_few_out;

/* delta_in, delta, delta_out for segments of one row. */
typedef struct args_few_delta {
    args_delta_in in;
    args_delta run;
    args_delta_out out;
} args_few_delta;

/* cuda_delta.inc: sizes in numbers and bytes. */
enum {
    TD_TOKENS = 64,
    TD_LEAST = 16,
    TD_THREADS = 256,
    TD_DK = 128,
    TD_COLUMNS = 32,
    TD_ROW = TD_DK * 2,                    /* bytes of a key */
    TD_KEYS = TD_TOKENS * TD_ROW,          /* one half of the keys */
    TD_SQUARE = TD_TOKENS * TD_TOKENS * 2, /* one half of T or P; rows of 128 bytes */
    TD_SLIM = TD_COLUMNS * 2,              /* bytes of a row of S, D: tile_slim */
    TD_HALF_S = TD_DK * TD_SLIM,
    TD_HALF_D = TD_TOKENS * TD_SLIM,
    /* scratch: of a key head and piece: k, q in halves; of a value head: T, P in halves, facts */
    TD_OF_KEY = 4 * TD_KEYS,
    TD_FACTS_AT = 4 * TD_SQUARE,
    TD_OF_VALUE = TD_FACTS_AT + 1024,
    TD_STRIDE = 68, /* floats of a row while T is made */
    /* shared memory of delta_chunks: k, q, then floats */
    TD_A_AT = TD_OF_KEY,
    TD_T_AT = TD_A_AT + TD_TOKENS * TD_STRIDE * 4,
    TD_GATES_AT = TD_T_AT + TD_TOKENS * TD_STRIDE * 4,
    /* of delta_walk: k of two pieces, q, T, P, S, V - e^G K S, D; faded D lies where S was */
    TD_W_Q = 4 * TD_KEYS,
    TD_W_T = TD_W_Q + 2 * TD_KEYS,
    TD_W_P = TD_W_T + 2 * TD_SQUARE,
    TD_W_S = TD_W_P + 2 * TD_SQUARE,
    TD_W_R = TD_W_S + 2 * TD_HALF_S,
    TD_W_D = TD_W_R + 2 * TD_HALF_D,
    TD_W_TOP = TD_W_D + 2 * TD_HALF_D,
    TD_CHUNKS_SHARED = TD_GATES_AT + 3 * TD_TOKENS * 4,
    TD_WALK_SHARED = TD_W_TOP + TD_THREADS / 32 * 4,
};

/* The delta rule in pieces: cuda_delta.inc. A round has `pieces` of them from `from` on, and the
 * scratch has room for them. */
typedef struct args_tile_delta {
    args_delta d;
    ADDR(u8) scratch;
    int from, pieces;
    int last, pad; /* of delta_edge: the segments' last piece, else the first */
} args_tile_delta;

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
