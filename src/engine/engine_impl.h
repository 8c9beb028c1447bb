/* engine_impl.h: what the files of src/engine share. */
#ifndef ENGINE_ENGINE_IMPL_H
#define ENGINE_ENGINE_IMPL_H

#include <stdatomic.h>

#include "base/budget.h"
#include "base/pool.h"
#include "engine/claim.h"
#include "engine/fm_error.h"
#include "engine/prompt_cache.h"
#include "flashmoe.h"
#include "format/config.h"
#include "format/safetensors.h"
#include "model/cpu_ops.h"
#include "model/forward.h"
#include "model/gpu_ops.h"
#include "model/split_ops.h"
#include "model/weights.h"
#include "text/tokenizer.h"

/* Bumped when saved sessions of an older build must not be read. */
#define ENGINE_ABI 2

/* The checkpoint's headers, before any weight is read: what plan and open have in common. */
typedef struct model_files {
    model_config config;
    st_set *set;
    tokenizer *tokens; /* NULL: the checkpoint has none */
} model_files;

err model_files_open(const char *dir, model_files *out) MUST_USE;
void model_files_close(model_files *m);

/* A graphics card that the engine may compute on. */
typedef struct engine_card {
    gpu_device *device; /* NULL: none */
    gpu_info info;
    bool automatic; /* nobody named it: the processor will do where it cannot be used */
    int fail_at;    /* for tests: the call after opening that fails; 0: none */
} engine_card;

/* engine_gpu.c: opens the card that the options mean. Without an error and with device NULL when
 * they mean the processor, or (with a note why) when nobody named the card and it cannot be used.
 */
err engine_card_open(const fm_options *o, engine_card *out, char note[256]) MUST_USE;
void engine_card_close(engine_card *c);

/* How the memory under the ceiling is dealt out; fm_plan is its public face. */
typedef struct memory_plan {
    fm_plan face;
    int threads, rows_max, sessions, snapshots;
    kv_type kv;
    size_t session_bytes;  /* tokens, logits, snapshots of one session, outside KV and state */
    char passed_over[256]; /* why the card is not planned for; "" */
    gpu_ops_need need;     /* of the card, when face.card says that there is one */
    layer_place place;     /* of the layers, when split: some are the processor's */
    bool split;
    size_t staging;    /* a part of the trunk on its way to the card, while the model is loaded */
    size_t blob_bytes; /* in `other`: for saved sessions on their way; 0: none wanted, or no room */
} memory_plan;

/* What it is made for: w is measured or opened; card may be NULL or without a device. */
typedef struct plan_subject {
    const model_files *m;
    const weights *w;
    const engine_card *card;
    int rows; /* of a chunk, when that is fixed already; else 0 */
} plan_subject;

/* ERR_ARG for options that make no sense. A card of its own memory gets as many layers as fit;
 * where not even one does it is not planned for (face.card false), and passed_over says so. */
err memory_plan_make(const fm_options *o, const plan_subject *on, memory_plan *out) MUST_USE;
/* The same for options alone: reads the headers of the model's files and looks at the card. */
err memory_plan_get(const fm_options *o, memory_plan *out) MUST_USE;
/* ERR_BUDGET with the sum, when the plan does not fit. */
err memory_plan_check(const memory_plan *p) MUST_USE;

/* replay.c */
typedef struct replay replay;
void replay_close(replay *r); /* NULL is fine */
/* Another chooser of experts in the routers' place, wherever this engine computes; NULL: none. */
err engine_force(fm_engine *e, routing_force force, void *ctx) MUST_USE;

struct fm_engine {
    /* fixed after open */
    char *dir; /* owned */
    model_files files;
    weights weights;
    memory_plan plan;
    engine_card card; /* until gpu has it */
    budget budget;
    claim *claim; /* NULL: no lock_dir, or nothing can be claimed there */
    pool *pool;
    char **mirrors;      /* owned [files of the experts]; NULL: no mirror */
    expert_store *store; /* NULL when the model has no experts */
    cpu_ops *cpu;        /* NULL when a GPU computes all layers */
    gpu_ops *gpu;        /* NULL when the processor does */
    split_ops *split;    /* the face of both, when they share the layers */
    char gpu_note[512];  /* why a card that is there is not used, or no longer; "" */
    ops *ops;
    const cpu_kernels *kernels;
    int experts_per_token;
    bool exact;
    void (*notice)(void *ctx, const char *text); /* NULL: nobody listens */
    void *notice_ctx;
    uint64_t fingerprint;         /* of model, options and build: what a saved session depends on */
    struct XXH3_state_s *hashing; /* owned; of the trunk, while it is read for the first time */
    uint64_t trunk_hash;
    fm_options again;  /* engine_lost.c: those of open that the processor needs; own strings */
    ops *dead;         /* owned; the machine when none is left; NULL without a card */
    routing_hook hook; /* set from outside, on whatever computes */
    routing_force force;
    void *hook_ctx, *force_ctx;
    bool timing;

    /* owner thread only */
    fm_session *sessions; /* open ones, linked */
    int n_sessions;
    layer_clock *clocks; /* owned [layers]; NULL until timing is first enabled */
    uint64_t tokens_prefill, tokens_decode, prefill_ns, decode_ns;

    replay *replay;        /* owned; NULL: the router chooses */
    prompt_cache *prompts; /* owned; NULL: nothing is kept on disk */

    /* Called after a conversation was kept; NULL: nobody has anything to add. */
    void (*kept)(void *ctx);
    void *kept_ctx;

    atomic_int cancel; /* any thread, signal handlers */
};

/* A place in the timeline to which the recurrent state can be taken back. */
typedef struct snapshot {
    int length;    /* tokens; 0: empty */
    uint64_t used; /* by age: the oldest one is overwritten */
    uint8_t *data; /* recurrent_bytes, in the session's arena */
} snapshot;

struct fm_session {
    fm_engine *engine; /* borrowed */
    fm_session *next;
    ops_state *state;
    arena memory;    /* tokens, logits, snapshots */
    int32_t *tokens; /* [context] */
    int length;      /* of the timeline that state stands for */
    float *logits;   /* [vocab]; read with fm_session_logits: they may lie on a card */
    top_logits top;  /* the highest of them; n 0: only logits are there */
    bool has_logits; /* they are those after tokens[length - 1] */
    /* engine_lost.c: the state was on a card that is gone; before the next use it is computed from
     * tokens[0 .. length). logits_gone: the logits too. */
    bool stale, logits_gone;
    int n_snapshots;
    snapshot *snapshots; /* [n_snapshots], owned; 0 of them is the guard of the running chunk */
    uint64_t clock;
};

/* engine.c */
/* Reads what is missing of the trunk; the card (may be NULL) takes its share, which then is not in
 * memory. progress may be NULL. */
err engine_read_trunk(fm_engine *e, weights_progress progress, void *ctx) MUST_USE;
err engine_fingerprint(fm_engine *e) MUST_USE; /* of the engine as it is now */
/* The processor's part: its layers, or all of them. The store is open. */
err engine_open_cpu(fm_engine *e, const fm_options *o, layer_share share) MUST_USE;
err engine_open_store(fm_engine *e, const fm_options *o, size_t cache_bytes) MUST_USE;
/* engine_gpu.c: the store and the experts on e->card; without an error and with e->gpu NULL when
 * the card cannot be used and was not asked for by name. */
err engine_gpu_open(fm_engine *e, const fm_options *o) MUST_USE;

void engine_close_device(fm_engine *e); /* card, store, processor's part of a split */
/* plan.c: for the processor alone, with the rows and the window of `before`. */
err memory_plan_again(const fm_options *o, const plan_subject *on, const memory_plan *before,
                      memory_plan *out) MUST_USE;

/* engine_lost.c */
/* A call failed. When that was the card, which is lost then, the processor takes over: no error,
 * and every session is stale. Else (or when the processor cannot) the error to report. */
err engine_survive(fm_engine *e, err failed) MUST_USE;
err engine_lost_prepare(fm_engine *e, const fm_options *o) MUST_USE; /* when a card computes */
void engine_lost_close(fm_engine *e);

/* session.c */
/* Computes a stale session's state. On an error it stays stale. */
err session_revive(fm_session *s) MUST_USE;
/* The longest timeline of at most n tokens that the session can go back to. */
int session_reachable(const fm_session *s, int n);
/* Goes back to a reachable length. */
err session_rewind(fm_session *s, int length) MUST_USE;
/* Remembers the present place; does nothing for models without recurrent state. */
err session_remember(fm_session *s, bool guard) MUST_USE;
/* prompt_cache_api.c: offers the present timeline to the disk. */
void session_offer(fm_session *s);
/* Takes a timeline from the disk that is a beginning of tokens and well longer than `known`; false:
 * there is none, and the session may have been cleared. */
bool session_fetch(fm_session *s, const int32_t *tokens, size_t count, size_t known);
/* Bytes that the owner of the engine keeps beside the saved conversations: one note, the last one
 * put. put takes the bytes (of malloc) and writes them later, or not when there is no room. get:
 * false when there is none; valid until done, which is told what was wrong with it, or NULL. */
void engine_note_put(fm_engine *e, uint8_t *bytes, size_t n);
bool engine_note_get(fm_engine *e, const uint8_t **bytes, size_t *n);
void engine_note_done(fm_engine *e, const char *bad);
/* Runs one batch: appends to every item's session. */
err engine_step(fm_engine *e, const fm_item *items, int n) MUST_USE;

#endif
