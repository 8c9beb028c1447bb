/* state.h: what one sequence leaves behind in the layers, on the CPU.
 *
 *     kv         full attention layer f, KV head h, position p: a head of kv_type (cpu/cpu.h)
 *                K and V apart: [f][K, V][h][context]
 *     recurrent  DeltaNet layer d: S [v_heads][dk][dv], then the last 3 raw rows [3][channels], f32
 *
 * The cache of positions is mapped for the whole context window and charged to the budget; pages
 * take memory when first written. Positions are overwritten, never moved, so a shorter timeline is
 * valid at once; the recurrent part only knows its newest position. */
#ifndef MODEL_STATE_H
#define MODEL_STATE_H

#include "base/budget.h"
#include "cpu/cpu.h"
#include "format/config.h"
#include "model/place.h"

typedef struct state_shape { /* fixed after state_shape_of */
    int n_full, n_delta;     /* layers of each kind */
    int kv_heads, head_dim, context;
    kv_type type;
    int v_heads, dk, dv, channels;
    int index[CONFIG_LAYERS_MAX]; /* of a layer among its kind */
} state_shape;

/* Of the layers of a share; index of the others is -1. */
void state_shape_of(const model_config *c, int context, kv_type type, layer_share share,
                    state_shape *out);
size_t state_kv_bytes(const state_shape *s);        /* of one sequence, whole context */
size_t state_recurrent_bytes(const state_shape *s); /* of one sequence */

typedef struct cpu_state {
    const state_shape *shape; /* borrowed */
    arena kv, recurrent;      /* owned */
} cpu_state;

err cpu_state_open(const state_shape *shape, budget *b, cpu_state **out) MUST_USE;
void cpu_state_close(cpu_state *s);
void cpu_state_reset(cpu_state *s);

/* K (which 0) or V (1) of KV head h of a full attention layer: [context] of kv_head_bytes. */
uint8_t *cpu_state_kv(const cpu_state *s, int layer, int which, int h);
/* S of value head 0 of a DeltaNet layer; the conv rows follow after the last head. */
float *cpu_state_delta(const cpu_state *s, int layer);
float *cpu_state_rows(const cpu_state *s, int layer);

/* Positions [0, n) of every layer and head, packed: state_kv_packed_bytes. */
size_t state_kv_packed_bytes(const state_shape *s, int n);
void cpu_state_kv_get(const cpu_state *s, int n, void *out);
void cpu_state_kv_put(cpu_state *s, int n, const void *in);

#endif
