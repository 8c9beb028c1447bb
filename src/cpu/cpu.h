/* cpu.h: the arithmetic of one thread, as a table of kernels per instruction set.
 *
 * The scalar table is the definition. All float32 kernels use the same summation order on every
 * instruction set, so that the exact path gives the same bits on scalar, AVX2, AVX-512 and NEON:
 *
 *   sum over c of a[c] * b[c]   lane l of CPU_LANES (32) takes the elements c with c % 32 == l in
 *                               ascending order, each by one fused multiply-add; then the lanes
 *                               are added in a fixed tree: l and l + 16, then l and l + 8, then
 *                               4, 2, 1
 *   exp, log, silu ...          one polynomial (cpu_math.h), same operations in the same order
 *   sums weighted by a scalar   (attention over V, the delta rule) ascending, one fused
 *                               multiply-add each; so are the scores of attention, q K^T: the
 *                               fast tables have positions in lanes
 *
 * The integer path (cpu_actq, matmul_int) has one result too, of 8-bit activations:
 *
 *   xq, dx    per group of one row of x: dx = max|x| / 127, xq = x * (127 / max|x|) rounded to
 *             nearest even
 *   y         lane l of CPU_INT_LANES (8) takes the groups g with g % 8 == l in ascending order:
 *             lane = fma(dx, fma(scale, sum(q xq), bias * sum(xq)), lane), the sums being exact
 *             integers below 2^24; then the lanes are added in the same tree: 4, 2, 1
 *
 * So has the path of BF16 matrices (cpu_actb, matmul_bf16):
 *
 *   x         per row: times a power of two that makes max|x| 2^40 to 2^41, below 2^14 to 0, in
 *             BF16, rounded to nearest even
 *   y         lane l of CPU_LANES takes of every CPU_BF16_STEP (64) columns the pair 2l, 2l + 1:
 *             the odd one first, each by one fused multiply-add, subnormal weights being 0; the
 *             lanes are added in the tree of the float32 kernels; then times the row's inverse
 *             power of two
 *
 * Exempt are the payloads of NaNs, which the instruction sets handle differently. A matrix row's
 * result depends only on that row and that x: not on how many rows, how many x or which thread
 * ("batch invariance"; tests compare bytes). No kernel allocates, keeps state or reads past its
 * arguments. */
#ifndef CPU_CPU_H
#define CPU_CPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "quant/blocks.h"

#define CPU_LANES 32
/* Context positions are visited in blocks of this many, counted from position 0, whatever the
 * chunking. */
#define CPU_ATTN_BLOCK 64
/* Tokens of one chunk of the chunkwise gated delta rule. */
#define CPU_DELTA_CHUNK 64

/* Rows of a matrix that are unpacked at a time when several vectors share them. */
#define CPU_MATMUL_ROWS 8

typedef struct cpu_matmul {
    const qmat *w;  /* [rows, cols] */
    const float *x; /* n vectors of cols floats, x_stride floats apart */
    float *y;       /* y[t * y_stride + r]; no overlap with x */
    size_t x_stride, y_stride;
    int n;
    float *scratch; /* at least cpu_matmul_scratch(cols) floats, the thread's own */
} cpu_matmul;

static inline size_t cpu_matmul_scratch(int cols) { return (size_t)cols * CPU_MATMUL_ROWS + 64; }

/* Group lanes of the integer path, and rows of a weight matrix that are unpacked at a time. */
#define CPU_INT_LANES 8
#define CPU_INT_ROWS  32

/* Rows of activations in 8 bits, with a scale per group: what matmul_int multiplies with. Weights
 * of the same group size share one. Row t lies at q + t * cols, scales and sums + t * groups. */
typedef struct cpu_actq {
    int8_t *q;     /* [n, cols], -127 .. 127, 64-byte aligned rows where cols is a multiple of 64 */
    float *scales; /* [n, groups]: of row t, group g; what lies past cols / group is 0 */
    float *sums;   /* [n, groups]: sum of the group's q */
    /* [n, cols]: q again, of every 128 columns first the even, then the odd ones: so lie 4-bit
     * weights in the low and high halves of their bytes. NULL unless 128 divides cols. */
    int8_t *split;
    int n, cols, group; /* group is 32, 64 or 128 and divides cols */
    int groups;         /* cols / group, rounded up to a multiple of CPU_INT_LANES */
} cpu_actq;

static inline int cpu_actq_groups(int cols, int group) {
    return (cols / group + CPU_INT_LANES - 1) / CPU_INT_LANES * CPU_INT_LANES;
}

/* Bytes of memory that cpu_actq_place needs for n rows. */
static inline size_t cpu_actq_bytes(int n, int cols, int group) {
    size_t groups = (size_t)cpu_actq_groups(cols, group);
    size_t split = cols % 128 == 0 ? (size_t)cols : 0;
    return (size_t)n * (((size_t)cols + 63) / 64 * 64 + 2 * groups * sizeof(float) + split);
}

/* Lays rows out in memory of cpu_actq_bytes that is 64-byte aligned; quantize fills them. */
cpu_actq cpu_actq_place(void *memory, int n, int cols, int group);

/* Products of an affine matrix with rows of x. BF16, F16 and F32 matrices take `matmul`. */
typedef struct cpu_matmul_int {
    const qmat *w;     /* [rows, cols], kind QK_AFFINE */
    const cpu_actq *x; /* same cols and group */
    const int *pick;   /* product t takes row pick[t] of x; NULL: row t */
    float *y;          /* y[t * y_stride + r]; no overlap with x */
    size_t y_stride;
    int n;         /* products: at most x->n without pick */
    void *scratch; /* at least cpu_matmul_int_scratch bytes, 64-byte aligned, the thread's own */
} cpu_matmul_int;

static inline size_t cpu_matmul_int_scratch(int cols, int group) {
    size_t groups = (size_t)cpu_actq_groups(cols, group);
    return CPU_INT_ROWS * ((size_t)cols + 2 * groups * sizeof(float)) + 32768;
}

/* Columns of one step of the BF16 path: a pair for each lane. */
#define CPU_BF16_STEP 64

/* Rows of activations in BF16: what matmul_bf16 multiplies with. */
typedef struct cpu_actb {
    void *x;       /* [n, stride], as the table that made them likes it; 64-byte aligned */
    float *back;   /* [n]: what the row's results are multiplied with */
    size_t stride; /* cols, rounded up to a multiple of CPU_BF16_STEP */
    int n, cols;
} cpu_actb;

/* Bytes of memory that cpu_actb_place needs for n rows. */
static inline size_t cpu_actb_bytes(int n, int cols) {
    size_t stride = ((size_t)cols + CPU_BF16_STEP - 1) / CPU_BF16_STEP * CPU_BF16_STEP;
    return (size_t)n * (stride + 1) * sizeof(float);
}

/* Lays rows out in memory of cpu_actb_bytes that is 64-byte aligned; round_bf16 fills them. */
cpu_actb cpu_actb_place(void *memory, int n, int cols);

/* Products of a BF16 matrix with rows of x; the fields as in cpu_matmul_int. */
typedef struct cpu_matmul_bf16 {
    const qmat *w;     /* [rows, cols], kind QK_BF16 */
    const cpu_actb *x; /* same cols, made by the same table */
    const int *pick;
    float *y;
    size_t y_stride;
    int n;
    float *scratch; /* at least cpu_matmul_bf16_scratch(cols) floats, the thread's own */
} cpu_matmul_bf16;

static inline size_t cpu_matmul_bf16_scratch(int cols) {
    return cpu_matmul_scratch(cols + CPU_BF16_STEP);
}

/* How a head of K or V lies in the cache. KV_Q8: dim signed bytes, then dim / 32 scales of f16, one
 * for each 32 of them: value = byte * scale, exact in float32. dim must be a multiple of 32 then.
 */
typedef enum kv_type { KV_F32, KV_F16, KV_Q8 } kv_type;

#define KV_Q8_GROUP 32

static inline size_t kv_head_bytes(kv_type type, int dim) {
    if (type == KV_Q8) return (size_t)dim + (size_t)dim / KV_Q8_GROUP * sizeof(uint16_t);
    return (size_t)dim * (type == KV_F16 ? sizeof(uint16_t) : sizeof(float));
}

/* Attention of the query heads that share one KV head. */
typedef struct cpu_attn {
    float *out;           /* [n_q, head_dim] rows out_stride floats apart; no overlap with q */
    const float *q;       /* [n_q, head_dim] rows q_stride floats apart */
    const int *n_visible; /* [n_q]: query i sees positions 0 .. n_visible[i]-1 (>= 1) */
    const void *k, *v;    /* position p at k + p * kv_stride bytes: a head of `type` */
    kv_type type;
    size_t out_stride, q_stride, kv_stride;
    int n_q, head_dim;
    float scale;
    float *scratch; /* at least cpu_attn_scratch(n_q, head_dim) floats */
} cpu_attn;

static inline size_t cpu_attn_scratch(int n_q, int head_dim) {
    return (size_t)n_q * (CPU_ATTN_BLOCK + 2) + (size_t)CPU_ATTN_BLOCK * (size_t)head_dim + 64;
}

/* Depthwise causal convolution of n tokens and SiLU, for the channels [begin, end). */
typedef struct cpu_conv {
    float *y;       /* token t at y + t * stride: [channels]; y may be x */
    const float *x; /* likewise */
    const float *w; /* [channels, 4]; tap 3 is the present token */
    float *rows;    /* [3, channels]: the last three raw inputs, oldest first; in, out */
    size_t stride;
    int n, channels, begin, end;
} cpu_conv;

/* n tokens of the gated delta rule for one value head (MODEL_FACTS section 4, step 5). */
typedef struct cpu_delta {
    float *state;       /* [dk, dv] in, out */
    float *o;           /* token t at o + t * o_stride: [dv] */
    const float *q, *k; /* token t at + t * qk_stride: [dk], already normalised, q already scaled */
    const float *v;     /* token t at + t * v_stride: [dv] */
    const float *decay; /* g <= 0: log of the state's factor; token t at decay[t * gate_stride] */
    const float *beta;  /* in (0, 1); token t at beta[t * gate_stride] */
    size_t o_stride, qk_stride, v_stride, gate_stride;
    int n, dk, dv;
    float *scratch; /* at least cpu_delta_scratch(dk, dv) floats */
} cpu_delta;

static inline size_t cpu_delta_scratch(int dk, int dv) {
    return (size_t)CPU_DELTA_CHUNK *
               (2 * (size_t)CPU_DELTA_CHUNK + 2 * (size_t)dk + (size_t)dv + 8) +
           64;
}

typedef struct cpu_kernels {
    const char *name; /* "scalar", "avx2", "avxvnni", "avx512", "avx512vnni", "avx512bf16", "neon",
                       * "neondot", "neonmm" */

    /* y[t, r] = sum over c of W[r, c] * x[t, c] for rows [row_begin, row_end). */
    void (*matmul)(const cpu_matmul *m, int row_begin, int row_end);
    /* Row t of a = x [cols] in 8 bits. An infinity or NaN makes the group's products not finite. */
    void (*quantize)(const cpu_actq *a, int t, const float *x);
    /* The same as matmul by the integer path. Several products share the unpacking of
     * CPU_INT_ROWS rows: hand out row ranges of multiples of it when n > 1. */
    void (*matmul_int)(const cpu_matmul_int *m, int row_begin, int row_end);
    /* Row t of a = x [cols] in BF16. An infinity or NaN makes the row's products not finite. */
    void (*round_bf16)(const cpu_actb *a, int t, const float *x);
    /* The same as matmul by the BF16 path. */
    void (*matmul_bf16)(const cpu_matmul_bf16 *m, int row_begin, int row_end);
    float (*dot)(const float *a, const float *b, int n);
    void (*add)(float *y, const float *x, int n);                 /* y += x */
    void (*add_scaled)(float *y, const float *x, float a, int n); /* y = fma(a, x, y) */
    /* y = x * rsqrt(mean(x^2) + eps) * g; y may be x. 1 / sqrtf, not an approximation. */
    void (*rmsnorm)(float *y, const float *x, const float *g, int n, float eps);
    /* y = x * 1/sqrtf(sum(x^2) + eps) * scale; y may be x. */
    void (*l2norm)(float *y, const float *x, float scale, int n, float eps);
    void (*silu)(float *y, const float *x, int n); /* y = x * sigmoid(x); y may be x */
    void (*silu_mul)(float *y, const float *gate, const float *up,
                     int n); /* y = silu(gate) * up; y may be either */
    void (*sigmoid_mul)(float *y, const float *gate, int n); /* y *= sigmoid(gate) */
    void (*sigmoid)(float *y, const float *x, int n);
    void (*softmax)(float *x, int n); /* in place, max subtracted */
    /* decay[i] = -exp_a_log[i] * softplus(a[i] + dt_bias[i]); softplus(x) = x for x > 20. */
    void (*delta_gate)(float *decay, const float *a, const float *exp_a_log, const float *dt_bias,
                       int n);
    /* Rotary embedding of x[0 .. 2*half): pairs (i, i + half); cos, sin [half]. */
    void (*rope)(float *x, const float *cos_, const float *sin_, int half);
    void (*conv4_silu)(const cpu_conv *c);
    void (*attention)(const cpu_attn *a);
    void (*delta_step)(const cpu_delta *d); /* token by token, any n */
    void (*delta_chunk)(
        const cpu_delta *d); /* chunkwise (UT transform), any n; equal to delta_step to rounding */
    void (*to_f16)(uint16_t *y, const float *x, int n); /* round to nearest even */
    /* head = x [dim] as KV_Q8: scale = f16(max|x| / 127), byte = x * (1 / scale) rounded to nearest
     * even, at most 127. An infinity or NaN, or 127 times what f16 holds, makes the whole group
     * not finite. */
    void (*to_q8)(uint8_t *head, const float *x, int dim);
    /* affine_quantise_row: what the packer does to a row of weights. */
    bool (*quantize_weights)(const affine_row *out, const void *x, qkind kind);
} cpu_kernels;

/* The fastest table that this machine can run. */
const cpu_kernels *cpu_best(void);
/* A table by name; ERR_ARG for an unknown name (lists the known), ERR_UNSUPPORTED when this machine
 * cannot run it. */
err cpu_by_name(const char *name, const cpu_kernels **out) MUST_USE;
/* The i-th table this machine can run (0 is scalar), NULL past the last: for tests. */
const cpu_kernels *cpu_at(int i);

#endif
