/* gpu_ops_impl.h: what the files of the GPU implementation share. */
#ifndef MODEL_GPU_OPS_IMPL_H
#define MODEL_GPU_OPS_IMPL_H

#include "gpu/gpu_windows.h"
#include "model/gpu_ops.h"
#include "store/cache.h"
#include "store/exchange.h"
#include "store/prefetch.h"

#define GRAPHS_MAX     24
#define UPLOAD_GROUPS  4 /* launches that experts on their way are dealt out to */
#define GUESSES_MAX    4 /* experts uploaded on a guess for one layer */
#define PROMOTIONS_MAX 2 /* experts that change places in one layer */

/* One piece of device memory, cut front to back. */
typedef struct gpu_cutter {
    gpu_addr base; /* 0: only counts */
    size_t used;
} gpu_cutter;

/* Parts of an expert that one copy brings, gaps and all. */
typedef struct expert_piece {
    int first; /* the part that lies first */
    size_t bytes;
} expert_piece;

/* Where the parts of an expert's record lie in its slot: gpu_layout.c. */
typedef struct expert_layout {
    gpu_part gate, up, down;
    size_t at[EXPERT_PARTS_MAX], bytes[EXPERT_PARTS_MAX];
    int n_pieces, piece_of[EXPERT_PARTS_MAX];
    expert_piece pieces[EXPERT_PARTS_MAX];
    size_t copied, total; /* bytes of all pieces; of a slot */
} expert_layout;

/* What a slot of device memory is for: see gpu_tier.c. */
typedef enum vram_state { VRAM_FREE, VRAM_STAGED, VRAM_OWNED, VRAM_LEAVING } vram_state;

typedef struct vram_slot {
    int32_t key;        /* -1: FREE */
    int32_t prev, next; /* STAGED: oldest first; FREE: next only; -1 ends */
    vram_state state;
    bool pending;   /* of the running layer, and its launch has not been made yet */
    uint32_t epoch; /* of the last launch that reads it */
} vram_slot;

/* A pin on a slot of the store whose bytes are being uploaded. */
typedef struct vram_pin {
    int32_t key;
    bool lend; /* the card's is then the only one */
} vram_pin;

/* Experts of the running layer that the processor computes: gpu_share.c. */
#define SHARE_ROWS_MAX 8
#define SHARE_USES_MAX 256

typedef struct share_use {
    int use, at, n; /* of the layer's uses; its rows in x, mid, outs */
    mlp_weights w;
} share_use;

typedef struct gpu_share {
    bool on;
    const cpu_kernels *kernels;
    pool *pool;
    double upload_ns, expert_ns; /* of one expert; the latter 0 until it is known */
    unsigned layers;             /* with something to share, so far */
    int n;                       /* of the running layer */
    share_use uses[SHARE_USES_MAX];
    float *h, *outs; /* pinned [SHARE_ROWS_MAX, hidden], [pairs, hidden] */
    float *x, *mid;  /* owned [pairs, hidden], [pairs, 2 * inner] */
    float *scratch;  /* owned [threads, scratch_floats] */
    size_t scratch_floats;
} gpu_share;

/* Expert slots in device memory, and which expert is in which. */
typedef struct gpu_tier {
    int n_layers, n_experts, n_keys, n_slots;
    int owned_max, n_owned; /* the others are for passing through */
    size_t slot_bytes;
    gpu_buffer memory;      /* of all slots */
    gpu_buffer by_key;      /* gpu_slot [n_keys]: complete when resident */
    gpu_buffer by_slot;     /* gpu_slot [n_slots] */
    expert_layout *layouts; /* [n_layers], owned */
    int32_t *slot_of;       /* [n_keys], -1: none */
    vram_slot *slots;       /* [n_slots], owned */
    int32_t free_head, staged_head, staged_tail;
    uint32_t epoch; /* layers so far: launches of older ones are done */
    cache cache;
    void *cache_memory; /* owned */
    exchange exchange;
    void *exchange_memory; /* owned */
    bool resident;
    vram_pin *pins[2]; /* [store slots] each, owned: of this layer; of guesses for the next one */
    int n_pins[2];
    int32_t leaving[PROMOTIONS_MAX]; /* slots whose bytes are on their way to the store */
    int n_leaving;
    bool returning; /* the compute queue has waited for them */
    int n_used;     /* unified memory: keys that are pinned for good */
} gpu_tier;

/* An expert of the running layer. */
typedef struct gpu_use {
    int id, first, n;
    bool asked, now, done; /* now: in the next pass; done: its pass was launched */
    bool held;             /* the store's pin is still ours, and not yet one of the tier's */
    bool here;             /* the processor computes it */
    int group;             /* which launch: gpu_stream.c */
    gpu_addr base;         /* unified memory: where its first part is, and how the others lie */
    expert_layout layout;
} gpu_use;

/* A layer's experts at work; the files gpu_moe.c and gpu_unified.c. */
typedef struct gpu_moe_job {
    struct gpu_ops *o;
    const batch *b;
    const layer_weights *w;
    int layer;   /* of the model */
    bool direct; /* the router writes the ids to the host, which looks at nothing else */
    int n_held, n_left;
    int n_groups, in_group; /* of uploads since the last launch; experts of the last one */
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

typedef struct gpu_state {
    int slot;
    int row;       /* of the card's logits, while they lie only there: */
    float *logits; /* borrowed: where they go, else NULL */
} gpu_state;

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
    gpu_queue *compute, *upload, *download;
    gpu_event *ids_ready, *uploaded[UPLOAD_GROUPS], *launched, *guessed, *returned;
    expert_store *store; /* borrowed */
    void *pinned_store;  /* its slots, when they are pinned */
    routing_hook hook;
    void *hook_ctx;
    routing_force force;
    void *force_ctx;
    gpu_buffer force_logits; /* pinned [N, experts]; while force is set */
    layer_clock *clocks;     /* borrowed; NULL: no timing */
    gpu_ops_stats stats;
    size_t bytes; /* of device memory */

    gpu_windows trunk;     /* unified memory: the arena of weights itself */
    gpu_buffer trunk_copy; /* else: the parts of its share */
    gpu_addr *part_addr; /* owned [parts of weights]: where a part lies in trunk_copy; 0: nowhere */
    gpu_buffer memory;   /* all below that is a gpu_addr */
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

    gpu_share share;

    /* look-ahead: gpu_look.c */
    prefetch governor;
    int32_t guesses[GUESSES_MAX]; /* keys that were uploaded on a guess for the layer to come */
    int n_guesses;
    bool guess_open; /* the compute queue has not waited for them yet */
    bool look_open;  /* the guess for layer look_layer has not been looked at yet */
    int look_layer;

    /* sessions: slot s */
    gpu_addr kv, recurrent;
    size_t kv_row, kv_layer, kv_slot; /* bytes of a position, of K or V of a layer, of a session */
    size_t recurrent_slot;            /* bytes */
    bool slot_used[BATCH_ITEMS_MAX];
    gpu_state *left[BATCH_ITEMS_MAX]; /* borrowed; by row: whose logits lie only on the card */

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
    gpu_addr top[2];                          /* keys of the highest, taken in turn */
    gpu_addr look_x, look_p, look_gates;      /* [hidden], [experts], [k] */
    gpu_addr cosines, sines;                  /* [context, dims / 2] */
    gpu_addr step_addr;
    size_t step_bytes, passes_bytes;

    /* pinned */
    gpu_step step; /* views of the pinned bytes; the device's has the same layout */
    uint8_t *step_host;
    int *ids_host;     /* [N * k] */
    float *gates_host; /* [N * k] */
    uint8_t *passes_host;
    int *look_host;     /* [k]; -1: not there yet */
    float *logits_host; /* [sessions, vocab] */
    uint64_t *top_host; /* [sessions, TOP_KEEP] */
    size_t rows_at, segments_at, ids_at;

    gpu_use *uses; /* [experts], owned */
    int *first;    /* [experts + 1], owned */
    int n_uses;
    size_t passes_used, passes_sent; /* of the running layer */

    step_mode mode;
    int splits; /* of attention in this step; 0: a group visits all */
    graph_entry graphs[GRAPHS_MAX];
    graph_entry *entry; /* of this step */
    uint64_t clock;
};

static inline gpu_ops *gpu_of(ops *o) { return (gpu_ops *)(void *)o; }

static inline int gpu_kv_type(const gpu_ops *o) {
    static const int types[] = {[KV_F32] = KVT_F32, [KV_F16] = KVT_F16, [KV_Q8] = KVT_Q8};
    return types[o->o.kv];
}

/* gpu_trunk.c: the device's address of something in the trunk, 0 of NULL; memory for the share's
 * parts of it. */
gpu_addr gpu_at(const gpu_ops *o, const void *p);
size_t gpu_trunk_bytes(const gpu_ops *o);
err gpu_trunk_open(gpu_ops *o) MUST_USE;
void gpu_trunk_close(gpu_ops *o);

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

/* gpu_head.c: from the last rows to the highest logits; what a finished step left on the card. */
err gpu_head_begin(gpu_ops *o, const batch *b) MUST_USE;
err gpu_head_launch(gpu_ops *o, const batch *b) MUST_USE;
err gpu_head_finish(gpu_ops *o, const batch *b) MUST_USE; /* waits */
err gpu_head_bring(ops *face, ops_state *s) MUST_USE;
void gpu_head_forget(gpu_ops *o, gpu_state *s);
void gpu_head_cut(gpu_ops *o, gpu_cutter *s);
gpu_addr gpu_head_top(const gpu_ops *o); /* where the last launch leaves the keys */

/* gpu_layers.c */
gpu_mat gpu_mat_of(const gpu_ops *o, const qmat *m);
err gpu_norm(gpu_ops *o, gpu_addr y, gpu_addr x, const float *g, int rows) MUST_USE;
err gpu_attention(ops *face, const batch *b, int layer) MUST_USE;
err gpu_delta_net(ops *face, const batch *b, int layer) MUST_USE;
err gpu_mlp(ops *face, const batch *b, int layer) MUST_USE;

/* gpu_moe.c */
err gpu_moe(ops *face, const batch *b, int layer) MUST_USE;
/* The ids that the router chose are on their way to the host, with what can run meanwhile behind
 * them; and they have come: everything before this layer is done then. */
err gpu_moe_ask(const gpu_moe_job *j) MUST_USE;
err gpu_moe_ids(const gpu_moe_job *j) MUST_USE;
/* The pairs sorted by expert; o->uses. */
void gpu_moe_sort(gpu_moe_job *j);
/* Both halves of the experts that a plan names. */
err gpu_moe_experts(const gpu_moe_job *j, const expert_layout *l, args_experts plan) MUST_USE;

/* gpu_unified.c */
err gpu_unified_trunk(gpu_ops *o) MUST_USE;
err gpu_unified_attach(gpu_ops *o) MUST_USE;
void gpu_unified_close(gpu_ops *o);
void gpu_unified_let_go(gpu_ops *o);
err gpu_unified_moe(gpu_moe_job *j) MUST_USE;

/* Before a launch reads it: what has been added to the host's plan. */
err gpu_moe_send(gpu_ops *o) MUST_USE;
/* Small copies by launches: out to the pinned memory at host, or in from there. On unified memory
 * both are one place. */
err gpu_words_out(gpu_ops *o, void *host, gpu_addr from, size_t bytes) MUST_USE;
err gpu_words_in(gpu_ops *o, gpu_addr to, const void *host, size_t bytes) MUST_USE;
/* Where the device sees something in `pinned`. */
gpu_addr gpu_pinned_at(const gpu_ops *o, const void *host);

/* gpu_stream.c */
err gpu_streamed(gpu_moe_job *j) MUST_USE;

/* gpu_share.c: how many of n missed experts are the processor's; which ones (guessed: uploads of
 * this layer that were made on a guess); their rows to the host, beside the ids; the work, whose
 * results are on the compute queue then. */
int gpu_share_of(const gpu_ops *o, int n);
void gpu_share_choose(gpu_moe_job *j, int guessed);
err gpu_share_input(const gpu_moe_job *j) MUST_USE;
err gpu_share_run(gpu_moe_job *j) MUST_USE;
void gpu_share_cut(gpu_ops *o, gpu_cutter *c, uint8_t *base);
err gpu_share_open(gpu_ops *o) MUST_USE;
void gpu_share_close(gpu_share *s);

/* gpu_look.c: launches that guess the next layer's choice, beside this one's; what to do with it
 * once this layer is launched; once more where it was not there yet, before the next layer's
 * router; and whether the guesses for this layer came true. */
err gpu_look_launch(const gpu_moe_job *j) MUST_USE;
err gpu_look_ahead(const gpu_moe_job *j) MUST_USE;
err gpu_look_again(gpu_ops *o) MUST_USE;
int gpu_look_outcome(const gpu_moe_job *j); /* how many of them */

/* gpu_layout.c: the layouts of all layers and what a slot needs; n_layers 0 is a model without
 * experts. */
err gpu_tier_measure(const weights *w, gpu_tier *t) MUST_USE;
/* A part's place, for copies and kernels; layouts of 4 GiB and more are refused by the callers. */
void gpu_layout_put(expert_layout *l, int part, size_t at);
/* Copies an expert between the slot at `slot` and its parts in memory, piece by piece. */
typedef err (*gpu_copy_piece)(gpu_ops *o, gpu_addr card, uint8_t *host, size_t bytes);
err gpu_layout_copy(gpu_ops *o, const expert_layout *l, gpu_addr slot, uint8_t *const *part,
                    gpu_copy_piece copy) MUST_USE;

/* gpu_tier.c */
err gpu_tier_open(gpu_ops *o, size_t bytes) MUST_USE;
void gpu_tier_close(gpu_ops *o);
/* Uploads an expert that the store holds pinned into slot `slot`; asynchronous, on the upload
 * queue. The pin is the tier's from now on: list 0, or 1 for a guess. */
err gpu_tier_upload(gpu_ops *o, int slot, const expert_view *view, int list) MUST_USE;
/* A slot for key, pending when it is for the running layer; own: for good, if there is room. *out
 * is -1 when all are in use. */
err gpu_tier_claim(gpu_ops *o, int key, bool own, int *out) MUST_USE;
/* The upload could not begin. */
void gpu_tier_unclaim(gpu_tier *t, int slot);
int gpu_tier_pins(const gpu_ops *o); /* on the store's slots, of all kinds */
/* All work of earlier layers is done: their pins go, experts that left have arrived. */
void gpu_tier_settle(gpu_ops *o);
/* Waits until that is so, also for the running layer. */
err gpu_tier_drain(gpu_ops *o) MUST_USE;
/* The same, when a step was given up. */
err gpu_tier_forget(gpu_ops *o) MUST_USE;
/* The expert in a STAGED slot stays, if it is worth more than the worst that would have to go; that
 * one goes back to the store. */
err gpu_tier_promote(gpu_ops *o, int key) MUST_USE;

#endif
