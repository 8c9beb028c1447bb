/* cpu_ops_impl.h: what the files of the CPU implementation share. */
#ifndef MODEL_CPU_OPS_IMPL_H
#define MODEL_CPU_OPS_IMPL_H

#include "model/cpu_ops.h"

/* y[t, r] = sum over c of w[r, c] x[t, c] (+ bias[r]). x and y as in cpu_matmul. */
typedef struct linear {
    const qmat *w;
    const float *x, *bias; /* bias may be NULL */
    float *y;
    size_t x_stride, y_stride;
    int n;
    int block, first_task; /* set by linear_run */
} linear;

/* Experts that are computed together: their rows lie one after the other in the group's buffers. */
typedef struct expert_use {
    int id, first, n;  /* rows: positions [first, first + n) of the sorted list */
    int at;            /* where its rows begin in the group's buffers */
    bool done, failed; /* failed: the store holds no pin any more */
    mlp_weights w;
} expert_use;

struct cpu_ops {
    ops face; /* first: an ops * is a cpu_ops * */
    cpu_ops_options o;
    const model_config *c;
    state_shape shape;
    arena scratch;
    int inner_max; /* widest of dense, shared and routed experts */
    float inv_freq[512], rope_factor;
    layer_clock *clocks; /* borrowed; NULL: no timing */
    routing_hook hook;
    void *hook_ctx;
    atomic_int bad; /* a number that is not finite was seen */

    /* scratch; N = rows_max, R = max(N, k) */
    float *x, *h, *tmp;         /* [N, hidden] */
    float *wide;                /* [N, wide] */
    float *heads;               /* [N, inner of attention or DeltaNet] */
    float *grouped, *attended;  /* [kv_heads][N][group][head_dim] */
    float *rope_cos, *rope_sin; /* [N, dims / 2] */
    float *decay, *beta;        /* [N, v_heads] */
    float *router;              /* [N, experts] */
    float *shared_gate;         /* [N] */
    int *ids;                   /* [N, k] */
    float *gates;               /* [N, k] */
    int *position;              /* [N, k]: place in the sorted list */
    int *row_at;                /* [N * k]: row of a place */
    int *first;                 /* [experts + 1] */
    float *gather;              /* [R, hidden] */
    float *mid;                 /* [R, 2 * expert inner] */
    float *wide_mid;            /* [N, 2 * inner of shared or dense] */
    float *outs;                /* [N * k, hidden] */
    float *head_y;              /* [BATCH_ITEMS_MAX, HEAD_ROWS] */
    expert_use *uses;           /* [experts] */
    int *list;                  /* [experts] */
    linear *linears;            /* [2 * experts + 4] */
    float **worker;             /* [threads] of worker_floats */
    size_t worker_floats;
};

#define HEAD_ROWS 8192
/* Experts of one call of expert_store_request. */
#define EXPERTS_A_REQUEST 64

static inline cpu_ops *cpu_of(ops *o) { return (cpu_ops *)(void *)o; }

/* linear.c */
void linear_run(cpu_ops *o, linear *list, int n);

/* cpu_ops.c: rows of the batch, all in parallel. */
void rows_norm(cpu_ops *o, float *y, const float *x, const float *g, int rows);
/* x += y, and notices what is not finite. */
void rows_add(cpu_ops *o, const float *y, int rows);
/* ERR_CORRUPT when a number of this block was not finite. */
err check_finite(cpu_ops *o, int layer, const char *what) MUST_USE;

/* The blocks. */
err cpu_attention(ops *face, const batch *b, int layer) MUST_USE;
err cpu_delta_net(ops *face, const batch *b, int layer) MUST_USE;
err cpu_moe(ops *face, const batch *b, int layer) MUST_USE;
err cpu_mlp(ops *face, const batch *b, int layer) MUST_USE;

/* Now, when somebody asked for timing, else 0; and the time since then added to a clock. */
uint64_t clock_now(const cpu_ops *o);
void clock_add(cpu_ops *o, uint64_t since, uint64_t *clock);
#define CLOCK_ADD(o, since, layer, what)                                                           \
    do {                                                                                           \
        if ((o)->clocks) clock_add(o, since, &(o)->clocks[layer].what);                            \
    } while (0)

#endif
