/* cpu_ops.h: ops.h on the processor.
 *
 * Buffers of one batch of N rows (all in one scratch arena, sized for rows_max):
 *
 *     x      [N, hidden]   the residual stream          h     [N, hidden]  normalised
 *     wide   [N, wide]     q | k | v, or qkv | z | b | a of the projections
 *     heads  [N, inner]    attention or DeltaNet output, before the output projection
 *     outs   [N * k + N, hidden]  what each expert (and the shared one) gave, summed in router
 * order
 *
 * Work is cut into tasks for the pool by rows, heads or matrix rows; every task writes its own
 * part, so results do not depend on the number of threads. */
#ifndef MODEL_CPU_OPS_H
#define MODEL_CPU_OPS_H

#include "base/pool.h"
#include "cpu/cpu.h"
#include "model/ops.h"
#include "model/state.h"
#include "model/weights.h"

/* Seconds by kind of work; see fm_layer_timing. */
typedef struct layer_clock {
    uint64_t attention_ns, delta_ns, router_ns, wait_ns, experts_ns, other_ns;
    uint64_t read_bytes;
} layer_clock;

typedef void (*routing_hook)(void *ctx, int layer, int row, const int *ids, const float *weights,
                             int k);

/* Puts other experts (ids [k], distinct, in range) in the router's place; false leaves its choice.
 */
typedef bool (*routing_force)(void *ctx, int layer, int row, int *ids, int k);

typedef struct cpu_ops_options {
    const cpu_kernels *kernels;
    pool *pool;             /* borrowed, as all below */
    const weights *weights; /* opened */
    expert_store *store;    /* NULL when the model has no experts */
    budget *budget;
    int context, rows_max;
    int experts_per_token;
    kv_type kv;
    layer_share share; /* which layers it computes; the others' weights are not looked at */
    bool exact;        /* float32 activations */
    bool rope_bf16;    /* see fm_options */
    bool look_ahead;   /* hints to the store; never changes results */
} cpu_ops_options;

typedef struct cpu_ops cpu_ops;

/* Bytes of scratch that cpu_ops_open charges, for the plan. */
size_t cpu_ops_scratch_bytes(const model_config *c, int rows_max, int experts_per_token,
                             int threads);
err cpu_ops_open(const cpu_ops_options *options, cpu_ops **out) MUST_USE;
void cpu_ops_close(cpu_ops *o);

ops *cpu_ops_face(cpu_ops *o);
const state_shape *cpu_ops_shape(const cpu_ops *o);

/* NULL switches it off. Called on the engine's thread. */
void cpu_ops_set_routing_hook(cpu_ops *o, routing_hook hook, void *ctx);
/* Likewise; called before the hook. Their weights are what the router gives them. */
void cpu_ops_set_routing_force(cpu_ops *o, routing_force force, void *ctx);
/* Within the hook: the router's probabilities of a row of the batch, [experts]. */
const float *cpu_ops_router(const cpu_ops *o, int row);
/* [layers], or NULL: no timing. Borrowed. */
void cpu_ops_set_clocks(cpu_ops *o, layer_clock *clocks);

#endif
