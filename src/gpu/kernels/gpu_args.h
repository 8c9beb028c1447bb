/* gpu_args.h: what each kernel is given. The same structs on the device and in the engine.
 *
 * On the device (after gpu_lang.h) ADDR(T) is a pointer into device memory, in the engine it is the
 * 64-bit address behind a gpu_buffer. Members come in the order addresses, then 4-byte numbers, and
 * are padded to 8 bytes by hand: every compiler lays them out alike, and gpu_args_check.h asserts
 * the sizes.
 *
 * Rows. A step computes n rows (tokens); row t belongs to the conversation in state slot
 * rows[t].slot and has the position rows[t].position there. Rows of one conversation are
 * neighbours, ascending: a segment. Activations are float32 [n, width]. */
#ifndef GPU_KERNELS_GPU_ARGS_H
#define GPU_KERNELS_GPU_ARGS_H

#ifdef GPU_KERNELS_GPU_LANG_H
#define ADDR(type) GLOBAL type *
#else
#include <stdint.h>
typedef uint64_t gpu_addr;
typedef uint64_t u64;
#define ADDR(type) gpu_addr
#endif

/* Formats of weights: the values of qkind (quant/blocks.h). */
enum { MAT_F32 = 0, MAT_F16 = 1, MAT_BF16 = 2, MAT_AFFINE = 3 };
/* Formats of the attention cache. */
enum { KVT_F32 = 0, KVT_F16 = 1, KVT_Q8 = 2 };

/* Geometry that kernels and launches agree on. */
enum {
    SIMD_THREADS = 32,
    MATVEC_THREADS = 128,
    MATVEC_ROWS = 16,   /* rows of the matrix in one group */
    MATVEC_TOKENS = 8,  /* vectors in one group */
    MATVEC_MATS = 4,    /* matrices with the same input in one launch */
    NORM_THREADS = 256, /* rmsnorm */
    FLAT_THREADS = 256, /* element by element */
    EMBED_EACH = 4,     /* columns of a thread of embed */
    ATTN_THREADS = 256,
    ATTN_HEADS = 8,   /* query heads that one group computes */
    ATTN_SPLIT = 128, /* positions of one partial softmax, counted from 0 */
    ATTN_DIM_MAX = 256,
    ATTN_MERGE = 128,    /* splits that attn_merge adds up at a time */
    ATTN_MERGE_DIM = 32, /* values of a head in one group of it */
    DELTA_THREADS = 128,
    DELTA_COLUMNS = 32, /* columns of the state in one group; 4 threads share a column */
    DELTA_DK_MAX = 256,
    DELTA_TOKENS = 8, /* tokens whose q and k are staged at a time */
    /* Pieces of the delta rule: k_chunk.inc. */
    CHUNK_TOKENS = 16,
    CHUNK_LEAST = 8, /* a shorter piece goes token by token */
    CHUNK_DK = 128,  /* keys are at most so long */
    CHUNK_ROW = 20,  /* floats of a row of weights: rows of eight lanes lie in different banks */
    /* in shared memory, in floats: q, k, both weights, changes, gates */
    CHUNK_KEYS_AT = CHUNK_TOKENS * CHUNK_DK,
    CHUNK_WEIGHTS_AT = 2 * CHUNK_KEYS_AT,
    CHUNK_CHANGES_AT = CHUNK_WEIGHTS_AT + 2 * CHUNK_TOKENS * CHUNK_ROW,
    CHUNK_GATES_AT = CHUNK_CHANGES_AT + CHUNK_TOKENS * DELTA_COLUMNS,
    CHUNK_FLOATS = CHUNK_GATES_AT + 2 * CHUNK_TOKENS,
    ROUTER_THREADS = 512,
    ROUTER_EXPERTS_MAX = 1024,
    ROUTER_K_MAX = 32,
    PLAN_THREADS = 1024,
    TOP_THREADS = 512,
    TOP_SPAN = 2048, /* logits that one group sorts */
    TOP_KEEP = 128,  /* of them go on */
};

/* A weight matrix, its bytes as quant/blocks.h describes; w is 16-byte aligned and cols * bits / 8
 * too, or only 4-byte loads are used. */
typedef struct gpu_mat {
    ADDR(const u8) w;
    ADDR(const u8) scales;
    ADDR(const u8) biases;
    int rows, cols;
    int kind, bits, group, scales_f16;
} gpu_mat;

/* The same inside an expert's record: offsets in bytes from the slot's start. */
typedef struct gpu_part {
    unsigned w, scales, biases;
    int rows, cols;
    int kind, bits, group, scales_f16, pad;
} gpu_part;

typedef struct gpu_row {
    int position, slot;
} gpu_row;

typedef struct gpu_segment {
    int first, count, slot;
    int start; /* position of its first row */
} gpu_segment;

/* Where an expert's record lies; NULL: not in device memory, its work is left out. */
typedef struct gpu_slot {
    ADDR(const u8) base;
} gpu_slot;

/* One expert with work to do: pairs order[first .. first + count). A pair is row * k + j. */
typedef struct gpu_active {
    int expert, first, count, pad;
} gpu_active;

/* out[t] = row ids[t] of m. */
typedef struct args_embed {
    gpu_mat m;
    ADDR(const int) ids;
    ADDR(float) out;
    int n, pad;
} args_embed;

/* s = x (+ add); sum = s; y = s * rsqrt(mean(s^2) + eps) * g. sum may be x. */
typedef struct args_rmsnorm {
    ADDR(const float) x;
    ADDR(const float) add; /* may be NULL */
    ADDR(float) sum;       /* may be NULL */
    ADDR(const float) g;
    ADDR(float) y;
    int n, cols;
    float eps;
    int pad;
} args_rmsnorm;

/* y_i[t] = W_i x[t] (+ bias_i) (+ residual[t], first matrix only; residual may be y_0). */
typedef struct args_matvec {
    gpu_mat m[MATVEC_MATS];
    ADDR(float) y[MATVEC_MATS];
    ADDR(const float) bias[MATVEC_MATS]; /* [rows], may be NULL */
    ADDR(const float) x;
    ADDR(const float) residual; /* may be NULL; strides of y_0 */
    int y_stride[MATVEC_MATS];
    int first_group[MATVEC_MATS]; /* group_x where the matrix begins */
    int n, x_stride, n_mats, pad;
} args_matvec;

/* Per head: q = rope(norm(q)), the gate's half is left where it is; k = rope(norm(k)) and v go into
 * the cache. q of row t: n_q heads, q_head_stride floats apart (2 * dim when gated). */
typedef struct args_attn_in {
    ADDR(const float) q;
    ADDR(const float) k;
    ADDR(const float) v;
    ADDR(const float) q_norm; /* [dim], or NULL */
    ADDR(const float) k_norm;
    ADDR(const float) cosines; /* [context, rot / 2] */
    ADDR(const float) sines;
    ADDR(float) q_out; /* [n, n_q, dim] */
    ADDR(u8) k_cache;  /* position p of slot s: + s * slot_bytes + p * row_bytes */
    ADDR(u8) v_cache;
    ADDR(const gpu_row) rows;
    u64 slot_bytes;
    int row_bytes, kv_type, n, n_q, n_kv, dim, rot, q_stride, q_head_stride, k_stride, v_stride;
    float eps;
} args_attn_in;

/* out[t, h] = softmax over positions 0 .. rows[t].position of (q k scale) v, times sigmoid(gate).
 * With n_splits 0 a group visits all splits; else the partial results go to `part` and attn_merge
 * adds them up in the same order: the same bits. */
typedef struct args_attn {
    ADDR(const float) q;    /* [n, n_q, dim] */
    ADDR(const float) gate; /* row t, head h at + t * gate_stride + h * 2 * dim; or NULL */
    ADDR(float) out;        /* [n, n_q, dim] */
    ADDR(float) part;       /* [n, n_q, n_splits, dim + 2]: max, sum, values */
    ADDR(const u8) k_cache;
    ADDR(const u8) v_cache;
    ADDR(const gpu_row) rows;
    u64 slot_bytes;
    int row_bytes, kv_type, n, n_q, n_kv, dim, n_splits, gate_stride;
    float scale;
    int pad;
} args_attn;

/* Depthwise causal convolution of width 4 and SiLU; the three rows before a segment are in its
 * state slot, which afterwards holds the segment's last three. y must not be x. */
typedef struct args_conv {
    ADDR(const float) x; /* row t at + t * stride */
    ADDR(const float) w; /* [channels, 4] */
    ADDR(float) y;       /* row t at + t * stride */
    ADDR(float) state;   /* slot s: + s * state_stride floats: [3, channels] */
    ADDR(const gpu_segment) segments;
    u64 state_stride;
    int n_segments, channels, stride, pad;
} args_conv;

/* In place: q and k to unit length, q times dk^-0.5; decay and beta from a and b. */
typedef struct args_delta_in {
    ADDR(float) qkv; /* row t at + t * stride: q [n_k * dk], k [n_k * dk], v */
    ADDR(const float) a;
    ADDR(const float) b; /* [n, n_v] */
    ADDR(const float) exp_a_log;
    ADDR(const float) dt_bias;
    ADDR(float) decay; /* [n, n_v], log of the factor */
    ADDR(float) beta;
    int n, n_k, n_v, dk, stride, ab_stride;
    float scale;
    int pad;
} args_delta_in;

/* The gated delta rule, token by token or in pieces that end at positions which are multiples of 16
 * (on some cards of 64); a segment's state is in registers from one piece to the next. */
typedef struct args_delta {
    ADDR(const float) qkv;
    ADDR(const float) decay;
    ADDR(const float) beta;
    ADDR(float) o;     /* [n, n_v, dv] */
    ADDR(float) state; /* slot s: + s * state_stride floats: [n_v, dk, dv] */
    ADDR(const gpu_segment) segments;
    u64 state_stride;
    int n_segments, n_k, n_v, dk, dv, stride;
    int n;        /* rows of all segments */
    int by_token; /* no pieces in the portable kernel: to compare the two */
} args_delta;

/* o = norm(o) * g * silu(z), per value head. */
typedef struct args_delta_out {
    ADDR(float) o;
    ADDR(const float) z; /* row t at + t * z_stride: [n_v, dv] */
    ADDR(const float) g; /* [dv] */
    int n, n_v, dv, z_stride;
    float eps;
    int pad;
} args_delta_out;

/* Softmax over all experts, the k largest (lowest index first among equals), weights in that
 * order. */
typedef struct args_router {
    ADDR(const float) logits; /* [n, n_experts] */
    ADDR(int) ids;            /* [n, k] */
    ADDR(float) weights;      /* [n, k] */
    int n, n_experts, k, norm;
} args_router;

/* The experts with work, ascending, and their pairs, ascending. */
typedef struct args_plan {
    ADDR(const int) ids;     /* [n_pairs] */
    ADDR(gpu_active) active; /* [<= min(n_experts, n_pairs)] */
    ADDR(int) order;         /* [n_pairs] */
    ADDR(int) n_active;      /* out */
    int n_pairs, n_experts;
} args_plan;

/* y[pair] = silu(gate x) * (up x), x the pair's row; or, with up.rows 0, y[pair] = gate x[pair]:
 * the way in and the way out of an expert. */
typedef struct args_experts {
    ADDR(const gpu_slot) slots; /* [n_experts] */
    ADDR(const gpu_active) active;
    ADDR(const int) n_active;
    ADDR(const int) order;
    ADDR(const float) x;
    ADDR(float) y;
    gpu_part gate, up;
    int x_stride, y_stride;
    int row_of_pair; /* k: x is indexed by pair / k; 1: by pair */
    int max_active;  /* n_active is not more: the launch has so many groups */
    int n_pairs;     /* of all experts: x has n_pairs / row_of_pair rows */
    int n_rows;      /* of the step: no expert has more pairs */
} args_experts;

/* y = silu(gate) * up, n elements. */
typedef struct args_swiglu {
    ADDR(const float) gate;
    ADDR(const float) up;
    ADDR(float) y;
    int n, pad;
} args_swiglu;

/* to[i] = from[i], n words; either may be pinned memory of the host. A launch instead of a copy,
 * because the engines that copy may be busy with large ones. */
typedef struct args_words {
    ADDR(const int) from;
    ADDR(int) to;
    int n, pad;
} args_words;

/* h[t] += sum over j of weights[t, j] * y[t * k + j], ascending; then + sigmoid(gate[t]) *
 * shared[t]. */
typedef struct args_combine {
    ADDR(float) h;
    ADDR(const float) y;       /* [n * k, cols] */
    ADDR(const float) weights; /* [n, k] */
    ADDR(const float) shared;  /* [n, cols], or NULL */
    ADDR(const float) gate;    /* [n] logits, or NULL: 1 */
    int n, k, cols, pad;
} args_combine;

/* The TOP_KEEP first of every TOP_SPAN logits or keys (k_top.inc), in order. */
typedef struct args_top {
    ADDR(const float) logits; /* [rows, n], or NULL: keys */
    ADDR(const u64) keys;     /* [rows, n] */
    ADDR(u64) out;            /* [rows, spans, TOP_KEEP] */
    int rows, n;
} args_top;

/* Name, arguments and threads of a group of every kernel: entry points, tables and tests are made
 * from this list. */
#define GPU_KERNELS(X)                                                                             \
    X(embed, args_embed, FLAT_THREADS)                                                             \
    X(rmsnorm, args_rmsnorm, NORM_THREADS)                                                         \
    X(matvec, args_matvec, MATVEC_THREADS)                                                         \
    X(attn_in, args_attn_in, SIMD_THREADS)                                                         \
    X(attn, args_attn, ATTN_THREADS)                                                               \
    X(attn_merge, args_attn, ATTN_THREADS)                                                         \
    X(conv, args_conv, FLAT_THREADS)                                                               \
    X(delta_in, args_delta_in, SIMD_THREADS)                                                       \
    X(delta, args_delta, DELTA_THREADS)                                                            \
    X(delta_out, args_delta_out, SIMD_THREADS)                                                     \
    X(router, args_router, ROUTER_THREADS)                                                         \
    X(plan, args_plan, PLAN_THREADS)                                                               \
    X(experts, args_experts, MATVEC_THREADS)                                                       \
    X(swiglu, args_swiglu, FLAT_THREADS)                                                           \
    X(words, args_words, FLAT_THREADS)                                                             \
    X(combine, args_combine, FLAT_THREADS)                                                         \
    X(top, args_top, TOP_THREADS)

#endif
