/* gpu_ops_impl.h: what the files of the GPU implementation share. */
#ifndef MODEL_GPU_OPS_IMPL_H
#define MODEL_GPU_OPS_IMPL_H

#include "gpu/gpu_windows.h"
#include "model/gpu_ops.h"
#include "store/cache.h"

#define GRAPHS_MAX 24

/* One piece of device memory, cut front to back. */
typedef struct gpu_cutter {
    gpu_addr base; /* 0: only counts */
    size_t used;
} gpu_cutter;

/* Where the parts of an expert's record lie in its slot. */
typedef struct expert_layout {
    gpu_part gate, up, down;
    size_t at[EXPERT_PARTS_MAX], bytes[EXPERT_PARTS_MAX], total;
} expert_layout;

/* Expert slots in device memory, and which expert is in which. */
typedef struct gpu_tier {
    int n_layers, n_experts, n_keys, n_slots;
    size_t slot_bytes;
    gpu_buffer memory;      /* of all slots */
    gpu_buffer by_key;      /* gpu_slot [n_keys]: complete when resident */
    gpu_buffer by_slot;     /* gpu_slot [n_slots] */
    expert_layout *layouts; /* [n_layers], owned */
    int32_t *slot_of;       /* [n_keys], -1: none */
    int32_t *key_of;        /* [n_slots], -1: free */
    int n_used;             /* slots are first taken in order */
    cache cache;
    void *cache_memory; /* owned */
    bool resident;
} gpu_tier;

/* An expert of the running layer. */
typedef struct gpu_use {
    int id, first, n;
    bool asked, now, done; /* now: in the next pass; done: its pass was launched */
    bool held;             /* the store's pin is still ours */
    gpu_addr base;         /* unified memory: where its first part is, and how the others lie */
    expert_layout layout;
} gpu_use;

/* A layer's experts at work; the files gpu_moe.c and gpu_unified.c. */
typedef struct gpu_moe_job {
    struct gpu_ops *o;
    const batch *b;
    const layer_weights *w;
    int layer; /* of the model */
    int n_held, n_left;
} gpu_moe_job;

/* Which of two ways is faster, found out while tokens are made: gpu_unified.c. */
#define GPU_TRIAL_PAIRS 9
typedef struct gpu_trial {
    int n;           /* tokens so far */
    uint64_t sum[2]; /* ns */
    bool decided;
} gpu_trial;

void gpu_trial_begin(gpu_trial *t, bool *ahead);
void gpu_trial_end(gpu_trial *t, bool *ahead, uint64_t ns);

/* What a step is, in pinned memory and on the device alike. */
typedef struct gpu_step {
    gpu_row *rows;         /* [N] */
    gpu_segment *segments; /* [items] */
    int *ids;              /* [N] */
} gpu_step;

typedef enum step_mode { STEP_DIRECT, STEP_RECORD, STEP_REPLAY } step_mode;

typedef struct graph_entry {
    int n, splits;
    uint64_t used;
    gpu_graph *graph; /* owned; NULL: empty */
} graph_entry;

struct gpu_ops {
    ops face; /* first: an ops * is a gpu_ops * */
    gpu_ops_options o;
    const model_config *c;
    state_shape shape;
    gpu_info info;
    gpu_device *device;
    gpu_queue *compute, *upload;
    gpu_event *ids_ready, *uploaded;
    expert_store *store; /* borrowed */
    void *pinned_store;  /* its slots, when they are pinned */
    routing_hook hook;
    void *hook_ctx;
    layer_clock *clocks; /* borrowed; NULL: no timing */
    gpu_ops_stats stats;
    size_t bytes; /* of device memory */

    gpu_windows trunk; /* the arena of weights: a copy, or on unified memory itself */
    gpu_buffer memory; /* all below that is a gpu_addr */
    gpu_buffer pinned;
    gpu_tier tier;

    /* unified memory */
    bool unified, ahead; /* ahead: experts are launched as they come */
    gpu_trial trial;
    uint64_t step_began, step_misses;
    size_t store_room; /* bytes that the expert store may have */
    gpu_windows slots; /* of the store */
    int *kept;         /* owned [store slots]: keys whose pins wait for the compute queue */
    int n_kept;

    /* sessions: slot s */
    gpu_addr kv, recurrent;
    size_t kv_row, kv_layer, kv_slot; /* bytes of a position, of K or V of a layer, of a session */
    size_t recurrent_slot;            /* bytes */
    bool slot_used[BATCH_ITEMS_MAX];

    /* activations; N = rows_max */
    gpu_addr x, h, tmp;             /* [N, hidden] */
    gpu_addr q, k, v, heads, q_out; /* attention */
    gpu_addr part;                  /* partial results */
    size_t part_bytes;
    gpu_addr qkv, conv, z, a, b, decay, beta; /* DeltaNet */
    gpu_addr router, shared_gate, ids, gates; /* experts */
    gpu_addr order, active, n_active, passes; /* [N * k], [experts], 1, the host's plan */
    gpu_addr mid, outs, gate_mid, up_mid;     /* [N * k, inner], [N * k, hidden], [N, inner] x 2 */
    gpu_addr logits;                          /* [sessions, vocab] */
    gpu_addr cosines, sines;                  /* [context, dims / 2] */
    gpu_addr step_addr;
    size_t step_bytes, passes_bytes;

    /* pinned */
    gpu_step step; /* views of the pinned bytes; the device's has the same layout */
    uint8_t *step_host;
    int *ids_host;     /* [N * k] */
    float *gates_host; /* [N * k] */
    uint8_t *passes_host;
    float *logits_host; /* [sessions, vocab] */
    size_t rows_at, segments_at, ids_at;

    gpu_use *uses; /* [experts], owned */
    int *first;    /* [experts + 1], owned */
    int n_uses;
    size_t passes_used; /* of the running layer */

    step_mode mode;
    int splits; /* of attention in this step; 0: a group visits all */
    graph_entry graphs[GRAPHS_MAX];
    graph_entry *entry; /* of this step */
    uint64_t clock;
};

typedef struct gpu_state {
    int slot;
} gpu_state;

static inline gpu_ops *gpu_of(ops *o) { return (gpu_ops *)(void *)o; }

static inline int gpu_kv_type(const gpu_ops *o) {
    static const int types[] = {[KV_F32] = KVT_F32, [KV_F16] = KVT_F16, [KV_Q8] = KVT_Q8};
    return types[o->o.kv];
}

/* The device's address of something in the trunk. */
static inline gpu_addr gpu_at(const gpu_ops *o, const void *p) {
    return p ? gpu_windows_at(&o->trunk, p) : 0;
}

/* gpu_ops.c */
err gpu_do(gpu_ops *o, gpu_kernel k, const void *args) MUST_USE;
gpu_addr gpu_cut(gpu_cutter *c, size_t bytes);
/* matvec with its layout filled in. */
err gpu_multiply(gpu_ops *o, args_matvec *a) MUST_USE;

/* With clocks set: waits for the device, adds the time since *since to a clock and moves it on. */
err gpu_clock(gpu_ops *o, uint64_t *since, uint64_t *clock) MUST_USE;
#define GPU_CLOCK(o, since, layer, what)                                                           \
    ((o)->clocks ? gpu_clock(o, since, &(o)->clocks[layer].what) : err_none())
/* expert_store_wait, with the time it took on the layer's clock. */
err gpu_store_wait(const gpu_moe_job *j, int id, expert_view *view) MUST_USE;

/* gpu_layers.c */
gpu_mat gpu_mat_of(const gpu_ops *o, const qmat *m);
err gpu_norm(gpu_ops *o, gpu_addr y, gpu_addr x, const float *g, int rows) MUST_USE;
err gpu_attention(ops *face, const batch *b, int layer) MUST_USE;
err gpu_delta_net(ops *face, const batch *b, int layer) MUST_USE;
err gpu_mlp(ops *face, const batch *b, int layer) MUST_USE;

/* gpu_moe.c */
err gpu_moe(ops *face, const batch *b, int layer) MUST_USE;
/* The ids that the router chose, on the host; everything before this layer is done then. */
err gpu_moe_ids(const gpu_moe_job *j) MUST_USE;
/* The pairs sorted by expert; o->uses. */
err gpu_moe_sort(gpu_moe_job *j) MUST_USE;
/* Both halves of the experts that a plan names. */
err gpu_moe_experts(const gpu_moe_job *j, const expert_layout *l, args_experts plan) MUST_USE;

/* gpu_unified.c */
err gpu_unified_trunk(gpu_ops *o) MUST_USE;
err gpu_unified_attach(gpu_ops *o) MUST_USE;
void gpu_unified_close(gpu_ops *o);
void gpu_unified_let_go(gpu_ops *o);
err gpu_unified_moe(gpu_moe_job *j) MUST_USE;

/* gpu_tier.c: n_slots 0 is a model without experts. */
err gpu_tier_measure(const weights *w, gpu_tier *t) MUST_USE;
err gpu_tier_open(gpu_ops *o, size_t bytes) MUST_USE;
void gpu_tier_close(gpu_ops *o);
/* Uploads an expert that the store holds into slot `slot`; asynchronous, on the upload queue. */
err gpu_tier_upload(gpu_ops *o, int key, int slot, const expert_view *view) MUST_USE;
/* A slot for key, now its owner; -1 when all are in use by the running layer. */
int gpu_tier_claim(gpu_tier *t, int key);

#endif
