/* cpu_ops_impl.h: what the files of the CPU implementation share. */
#ifndef MODEL_CPU_OPS_IMPL_H
#define MODEL_CPU_OPS_IMPL_H

#include "model/cpu_ops.h"

/* Activations in 8 bits or in BF16 for the matrices of one linear_run, and of o->h for as long as
 * it stands. */
typedef struct act_entry {
    const float *x;
    size_t x_stride;
    bool bf16;
    cpu_actq q;
    cpu_actb b;  /* if bf16 */
    int n, cols; /* of either */
    bool fresh;  /* filled already */
} act_entry;

/* y[t, r] = sum over c of w[r, c] x[t, c] (+ bias[r]). x and y as in cpu_matmul. With pick, vector
 * t is row pick[t] of x; the float path cannot do that: see linear_takes_pick. */
typedef struct linear {
    const qmat *w;
    const float *x, *bias; /* bias may be NULL */
    const int *pick;       /* NULL: rows 0 .. n-1 */
    float *y;
    size_t x_stride, y_stride;
    int n, x_rows; /* x_rows: of x, with pick only */
    bool precise;  /* float32 activations always: routers and gates, small and sensitive */
    /* set by linear_run */
    int block, first_task;
    const act_entry *act; /* NULL: the float path */
} linear;

#define ACT_ENTRIES_KEPT 4 /* of o->h: one for each group size, and BF16 */

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
    int threads;
    float inv_freq[512], rope_factor;
    layer_clock *clocks; /* borrowed; NULL: no timing */
    routing_hook hook;
    routing_force force;
    void *hook_ctx, *force_ctx;
    atomic_int bad; /* a number that is not finite was seen */

    /* scratch; N = rows_max, R = max(N, k) */
    float *x, *h, *tmp;                   /* [N, hidden] */
    float *wide;                          /* [N, wide] */
    float *heads;                         /* [N, inner of attention or DeltaNet] */
    float *grouped, *attended;            /* [kv_heads][N][group][head_dim] */
    float *rope_cos, *rope_sin;           /* [N, dims / 2] */
    float *decay, *beta;                  /* [N, v_heads] */
    float *router;                        /* [N, experts] */
    float *shared_gate;                   /* [N] */
    int *ids;                             /* [N, k] */
    float *gates;                         /* [N, k] */
    int *position;                        /* [N, k]: place in the sorted list */
    int *row_at;                          /* [N * k]: row of a place */
    int *first;                           /* [experts + 1] */
    float *gather;                        /* [R, hidden] */
    float *mid;                           /* [R, 2 * expert inner] */
    float *wide_mid;                      /* [N, 2 * inner of shared or dense] */
    float *outs;                          /* [N * k, hidden] */
    float *look_x, *look_p;               /* [hidden], [experts]: look_ahead.c */
    float *head_y;                        /* [BATCH_ITEMS_MAX, HEAD_ROWS] */
    expert_use *uses;                     /* [experts] */
    int *list;                            /* [experts] */
    linear *linears;                      /* [2 * experts + 8] */
    act_entry *acts;                      /* [2 * experts + 8 + ACT_ENTRIES_KEPT] */
    int n_acts, n_kept;                   /* kept: entries of o->h, at the front */
    uint8_t *act_memory;                  /* of act_bytes */
    size_t act_bytes, act_used, act_kept; /* kept: used by the entries of o->h */
    float **worker;                       /* [threads] of worker_floats */
    size_t worker_floats;
};

#define HEAD_ROWS 8192
/* Experts of one call of expert_store_request. */
#define EXPERTS_A_REQUEST 64

static inline cpu_ops *cpu_of(ops *o) { return (cpu_ops *)(void *)o; }

/* linear.c */
void linear_run(cpu_ops *o, linear *list, int n);
/* The matrix's products go through 8-bit or BF16 activations, so pick may be used. */
bool linear_takes_pick(const cpu_ops *o, const qmat *w);
/* o->h was written anew. */
void linear_forget(cpu_ops *o);

/* look_ahead.c: tells the store what the layers after this one will probably ask for; layer -1
 * stands before the first one. */
#define LOOK_MAX 16
void look_ahead(cpu_ops *o, const batch *b, int layer);

/* cpu_ops.c: rows of the batch, all in parallel. */
void rows_norm(cpu_ops *o, float *y, const float *x, const float *g, int rows);
/* x += y, and notices what is not finite. */
void rows_add(cpu_ops *o, const float *y, int rows);
/* ERR_CORRUPT when a number of this block was not finite. */
err check_finite(cpu_ops *o, int layer, const char *what) MUST_USE;

/* attention.c: the rotary angles of the batch's rows, the same in all layers. */
void attention_angles(cpu_ops *o, const batch *b);

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
