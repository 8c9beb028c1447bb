/* ops.h: what a machine must be able to compute so that forward.c can run a model on it.
 *
 *     forward.c      for every layer: attention or delta, then moe or mlp; at the end the head
 *        | ops_table
 *     cpu_ops.c      on the processor (attention.c, deltanet.c, moe.c)
 *     a GPU's        the same blocks as kernel launches
 *
 * A batch is rows of tokens that belong to one or more sequences. The residual stream of the batch
 * lives inside the implementation between begin and head. Results of a row do not depend on the
 * other rows of the batch.
 *
 * One batch at a time, from the engine's thread. */
#ifndef MODEL_OPS_H
#define MODEL_OPS_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "base/err.h"

typedef struct ops ops;             /* an implementation's object; begins with its ops_table * */
typedef struct ops_state ops_state; /* one sequence's KV cache and recurrent state */

#define BATCH_ITEMS_MAX 64
#define TOP_LOGITS      128

/* The highest logits of a row, higher first, of equals the lower id first: what most tokens can be
 * picked from. No NaN or +infinity is among the row's logits. */
typedef struct top_logits {
    int n; /* min(vocab, TOP_LOGITS); 0: not made */
    int32_t id[TOP_LOGITS];
    float value[TOP_LOGITS]; /* -0 as 0 */
} top_logits;

/* That order as a number, larger is earlier: the float as an integer of the same order, then the
 * complement of the id. -0 counts as 0. The kernel `top` makes the same keys. */
static inline uint64_t logit_key(float logit, int32_t id) {
    float f = logit + 0.0f; /* -0 becomes 0 */
    uint32_t bits;
    memcpy(&bits, &f, sizeof bits);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | (uint32_t)~id;
}

static inline int32_t logit_key_id(uint64_t key) { return (int32_t) ~(uint32_t)key; }

static inline float logit_key_value(uint64_t key) {
    uint32_t bits = (uint32_t)(key >> 32);
    float x;
    bits = bits & 0x80000000u ? bits & 0x7fffffffu : ~bits;
    memcpy(&x, &bits, sizeof x);
    return x;
}

typedef struct batch_item {
    ops_state *state;   /* borrowed; its positions below start are filled */
    const int32_t *ids; /* [count], inside the vocabulary */
    int start, count;   /* positions [start, start + count), inside the context */
    float *logits;      /* [vocab] out, after the last row; NULL: not wanted */
    top_logits *top;    /* with logits; out: n > 0 and logits come with bring, or n stays 0 */
} batch_item;

typedef struct batch {
    const batch_item *items;
    int n_items, rows; /* rows: all counts together */
} batch;

/* The batch's row in which an item's rows begin. */
static inline int batch_first_row(const batch *b, int item) {
    int row = 0;
    for (int i = 0; i < item; i++) row += b->items[i].count;
    return row;
}

typedef struct ops_table {
    /* Sequences. All of a state's memory is taken when it is opened. */
    err (*state_open)(ops *o, ops_state **out);
    void (*state_close)(ops *o, ops_state *s);
    void (*state_reset)(ops *o, ops_state *s); /* before position 0 */

    /* The recurrent part as bytes (size fixed per model, 0 without DeltaNet layers), and the
     * attention cache of positions [0, n). Exact both ways. */
    size_t (*recurrent_bytes)(const ops *o);
    err (*recurrent_get)(ops *o, const ops_state *s, void *out);
    err (*recurrent_put)(ops *o, ops_state *s, const void *in);
    size_t (*kv_bytes)(const ops *o, int n);
    err (*kv_get)(ops *o, const ops_state *s, int n, void *out);
    err (*kv_put)(ops *o, ops_state *s, int n, const void *in);

    /* One batch, in this order. layer counts from 0. */
    err (*begin)(ops *o, const batch *b); /* the rows' embeddings */
    /* In begin's place, where another machine has the rows (split_ops.h); and the rows of the
     * residual stream as they are between two layers, [rows, hidden] float32. What was launched is
     * done when rows_get returns. */
    err (*enter)(ops *o, const batch *b);
    err (*rows_get)(ops *o, const batch *b, float *out);
    err (*rows_put)(ops *o, const batch *b, const float *in);
    err (*attention)(ops *o, const batch *b, int layer);
    err (*delta)(ops *o, const batch *b, int layer);
    err (*moe)(ops *o, const batch *b, int layer);
    err (*mlp)(ops *o, const batch *b, int layer);
    err (*head)(ops *o, const batch *b);
    /* NULL where head fills all logits. Else they stay on the machine until this is called, which
     * puts them where item.logits pointed (nothing to do: nothing happens); a step of other
     * sessions does so by itself. They are forgotten with state_reset and state_close. */
    err (*bring)(ops *o, ops_state *s);
    /* Called when a batch was given up between begin and head. */
    void (*abandon)(ops *o);
} ops_table;

struct ops {
    const ops_table *table;
};

#endif
