/* gpu_ops.h: ops.h on a graphics card (or on the processor playing one: gpu.h).
 *
 *     device memory   trunk (the parts of weights.h that are its share: every view of a part is
 *                     moved by one distance) | KV and recurrent state of all sessions | activations
 *                     of a step | expert slots: what is left of the limit
 *
 * Experts. When all of them have a slot they are uploaded at the start, and a step is one upload of
 * row numbers, launches, one readback of logits: routing never leaves the card. Steps of one token
 * a session are then recorded once per shape and replayed as one graph. Otherwise the ids that the
 * router chose are read back once a layer (gpu_stream.c); experts in a slot are computed first, the
 * others follow as the store has them in memory. Every (row, expert) has its own output and the sum
 * is taken last, so results do not depend on how many slots there are.
 *
 * On unified memory (gpu_unified.c) trunk and expert slots are the ones that the processor has
 * already: nothing is copied.
 *
 * Results differ from the processor's exact path by rounding only: weights are expanded and summed
 * in float32. */
#ifndef MODEL_GPU_OPS_H
#define MODEL_GPU_OPS_H

#include "gpu/gpu.h"
#include "model/cpu_ops.h"
#include "model/ops.h"
#include "model/state.h"
#include "model/weights.h"

/* Unified memory: are experts computed while others are being read? AUTO tries both. Results do not
 * depend on it. */
typedef enum gpu_overlap { GPU_OVERLAP_AUTO, GPU_OVERLAP_ON, GPU_OVERLAP_OFF } gpu_overlap;

typedef struct gpu_ops_options {
    const char *backend; /* "cuda", "metal", "host" */
    int index;
    gpu_device *device;     /* opened already, taken over in any case; NULL: backend and index */
    size_t memory;          /* of the device, at most; 0: most of what is free */
    const weights *weights; /* opened; borrowed, as long as this lives */
    int context, rows_max, sessions;
    int experts_per_token;
    kv_type kv;
    layer_share share; /* which layers it computes (gpu_ops_take brings their weights) */
    bool rope_bf16;
    bool look_ahead; /* guesses what the next layer wants; never changes results */
    gpu_overlap overlap;
    size_t queue_bytes; /* gpu_ops_queue_bytes, for gpu_ops_measure */
    bool cpu_experts;   /* some are computed by the processor: with kernels and pool, borrowed */
    const cpu_kernels *kernels;
    pool *pool;
} gpu_ops_options;

typedef struct gpu_ops_stats { /* since open or the last reset */
    uint64_t requests, hits;   /* of experts, where the host looked; resident layers do not count */
    uint64_t uploads, upload_bytes, download_bytes;
    uint64_t guesses, guesses_used; /* uploaded before they were asked for */
    uint64_t promotions;
    uint64_t on_cpu; /* experts computed by the processor */
    uint64_t launches, graph_steps, steps;
} gpu_ops_stats;

typedef struct gpu_ops gpu_ops;

/* Bytes of the card's memory that a model needs; weights need only be measured. */
typedef struct gpu_ops_need {
    size_t trunk, kv, state, activations, pinned; /* pinned: of the host's memory */
    size_t queue;                                 /* in activations: gpu_ops_queue_bytes */
    size_t slot_bytes;                            /* of an expert; 0: none */
    int keys;                                     /* experts of all layers */
} gpu_ops_need;
err gpu_ops_measure(const gpu_ops_options *options, gpu_ops_need *out) MUST_USE;
/* What may be taken of a device's memory: the wish, or (0) most of what is free. */
size_t gpu_ops_limit(const gpu_info *info, size_t wish);
/* What of gpu_info's queue_bytes is taken under a limit: all, or (when it is small) nothing. */
size_t gpu_ops_queue_bytes(const gpu_info *info, size_t limit);
/* Slots for experts in so many bytes, and how many of them hold one for good. */
int gpu_ops_slots_in(const gpu_ops_need *need, size_t bytes, int *owned);

/* Takes the device's memory. ERR_BUDGET with the sum when the limit is too small, ERR_UNSUPPORTED
 * for shapes that the kernels do not have. */
err gpu_ops_open(const gpu_ops_options *options, gpu_ops **out) MUST_USE;
void gpu_ops_close(gpu_ops *o);
/* A part of the trunk has been read: uploads it if it is of this share, and waits. *needed: the
 * bytes in memory must stay (unified memory: they are the device's). */
err gpu_ops_take(gpu_ops *o, int part, const uint8_t *bytes, size_t n, bool *needed) MUST_USE;
/* Where experts come from; before the first step of a model that has them. Uploads all of them when
 * they fit. progress may be NULL. */
err gpu_ops_attach(gpu_ops *o, expert_store *store, weights_progress progress, void *ctx) MUST_USE;

ops *gpu_ops_face(gpu_ops *o);
/* A step begins; called with expert_store_tick. */
void gpu_ops_tick(gpu_ops *o);
/* Every expert has a slot. */
bool gpu_ops_resident(const gpu_ops *o);
int gpu_ops_slots(const gpu_ops *o);
/* Slots of the store with which everything has a place beside those that a card owns; more are of
 * no use. */
int gpu_ops_store_slots(int keys, int owned);
/* Bytes that the expert store may have: on unified memory its slots are the device's as well; else
 * SIZE_MAX. */
size_t gpu_ops_store_room(const gpu_ops *o);
/* The device's first failure (gpu_failure): its memory is gone; code 0: none. */
const err *gpu_ops_failure(const gpu_ops *o);
void gpu_ops_fail_at(gpu_ops *o, gpu_call kind, int n); /* for tests: gpu_fail_at */
int gpu_ops_calls(const gpu_ops *o, gpu_call kind);
const char *gpu_ops_device(const gpu_ops *o); /* its name */
size_t gpu_ops_bytes(const gpu_ops *o);       /* of device memory that was taken */
void gpu_ops_stats_get(const gpu_ops *o, gpu_ops_stats *out);
void gpu_ops_stats_reset(gpu_ops *o);
void gpu_ops_set_routing_hook(gpu_ops *o, routing_hook hook, void *ctx);
/* As cpu_ops.h's; while set, the host looks at every layer's choice. ERR_NOMEM: no pinned memory.
 */
err gpu_ops_set_routing_force(gpu_ops *o, routing_force force, void *ctx) MUST_USE;
/* [layers], or NULL: no timing. Borrowed. While set, the host waits for the device after every
 * block, so that the figures are the blocks' own; steps are slower, results the same. */
void gpu_ops_set_clocks(gpu_ops *o, layer_clock *clocks);

#endif
