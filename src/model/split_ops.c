/* split_ops.c: see split_ops.h. */
#include "model/split_ops.h"

#include <assert.h>
#include <stdlib.h>

#define MACHINES (PLACE_CARDS_MAX + 1)

typedef struct split_state {
    ops_state *of[MACHINES]; /* NULL where there is no machine */
} split_state;

struct split_ops {
    ops face; /* first: an ops * is a split_ops * */
    split_options o;
    arena scratch; /* rows on their way */

    /* the running batch */
    int at; /* machine that has the rows */
    batch b[MACHINES];
    batch_item items[MACHINES][BATCH_ITEMS_MAX];
};

static split_ops *split_of(ops *o) { return (split_ops *)(void *)o; }
static const split_ops *split_const(const ops *o) { return (const split_ops *)(const void *)o; }
static const split_state *state_of(const ops_state *s) {
    return (const split_state *)(const void *)s;
}

#define EACH(s, m)                                                                                 \
    for (int m = 0; m < MACHINES; m++)                                                             \
        if ((s)->o.machine[m])

/* ---- the step ---- */

static err begin(ops *face, const batch *b) {
    split_ops *s = split_of(face);
    s->at = s->o.place->embed + 1;
    EACH(s, m) {
        for (int i = 0; i < b->n_items; i++) {
            s->items[m][i] = b->items[i];
            s->items[m][i].state = state_of(b->items[i].state)->of[m];
        }
        s->b[m] = (batch){.items = s->items[m], .n_items = b->n_items, .rows = b->rows};
        ops *o = s->o.machine[m];
        TRY(m == s->at ? o->table->begin(o, &s->b[m]) : o->table->enter(o, &s->b[m]));
    }
    return err_none();
}

/* The rows to where they are wanted next. */
static err go(split_ops *s, int device) {
    int m = device + 1;
    if (m == s->at) return err_none();
    ops *from = s->o.machine[s->at], *to = s->o.machine[m];
    float *rows = (float *)(void *)s->scratch.base;
    TRY(from->table->rows_get(from, &s->b[s->at], rows));
    TRY(to->table->rows_put(to, &s->b[m], rows));
    s->at = m;
    return err_none();
}

static err attention(ops *face, const batch *b, int layer) {
    (void)b;
    split_ops *s = split_of(face);
    TRY(go(s, s->o.place->layer[layer]));
    ops *o = s->o.machine[s->at];
    return o->table->attention(o, &s->b[s->at], layer);
}

static err delta(ops *face, const batch *b, int layer) {
    (void)b;
    split_ops *s = split_of(face);
    TRY(go(s, s->o.place->layer[layer]));
    ops *o = s->o.machine[s->at];
    return o->table->delta(o, &s->b[s->at], layer);
}

/* The second half of a layer is where the first was. */
static err moe(ops *face, const batch *b, int layer) {
    (void)b;
    split_ops *s = split_of(face);
    ops *o = s->o.machine[s->at];
    return o->table->moe(o, &s->b[s->at], layer);
}

static err mlp(ops *face, const batch *b, int layer) {
    (void)b;
    split_ops *s = split_of(face);
    ops *o = s->o.machine[s->at];
    return o->table->mlp(o, &s->b[s->at], layer);
}

static err head(ops *face, const batch *b) {
    (void)b;
    split_ops *s = split_of(face);
    TRY(go(s, s->o.place->head));
    ops *o = s->o.machine[s->at];
    return o->table->head(o, &s->b[s->at]);
}

static void abandon(ops *face) {
    split_ops *s = split_of(face);
    EACH(s, m) s->o.machine[m]->table->abandon(s->o.machine[m]);
}

/* ---- sequences ---- */

static void state_close(ops *face, ops_state *state) {
    split_ops *s = split_of(face);
    split_state *x = (split_state *)(void *)state;
    if (!x) return;
    EACH(s, m) {
        if (x->of[m]) s->o.machine[m]->table->state_close(s->o.machine[m], x->of[m]);
    }
    free(x);
}

static err state_open(ops *face, ops_state **out) {
    split_ops *s = split_of(face);
    *out = NULL;
    split_state *x = calloc(1, sizeof *x);
    if (!x) return err_make(ERR_NOMEM, "no memory for a session");
    err e = err_none();
    EACH(s, m) {
        if (!e.code) e = s->o.machine[m]->table->state_open(s->o.machine[m], &x->of[m]);
    }
    if (e.code) {
        state_close(face, (ops_state *)(void *)x);
        return e;
    }
    *out = (ops_state *)(void *)x;
    return err_none();
}

static void state_reset(ops *face, ops_state *state) {
    split_ops *s = split_of(face);
    EACH(s, m) s->o.machine[m]->table->state_reset(s->o.machine[m], state_of(state)->of[m]);
}

static size_t recurrent_bytes(const ops *face) {
    size_t sum = 0;
    EACH(split_const(face), m) {
        const ops *o = split_const(face)->o.machine[m];
        sum += o->table->recurrent_bytes(o);
    }
    return sum;
}

static size_t kv_bytes(const ops *face, int n) {
    size_t sum = 0;
    EACH(split_const(face), m) {
        const ops *o = split_const(face)->o.machine[m];
        sum += o->table->kv_bytes(o, n);
    }
    return sum;
}

static err recurrent_get(ops *face, const ops_state *state, void *out) {
    uint8_t *at = out;
    EACH(split_of(face), m) {
        ops *o = split_of(face)->o.machine[m];
        TRY(o->table->recurrent_get(o, state_of(state)->of[m], at));
        at += o->table->recurrent_bytes(o);
    }
    return err_none();
}

static err recurrent_put(ops *face, ops_state *state, const void *in) {
    const uint8_t *at = in;
    EACH(split_of(face), m) {
        ops *o = split_of(face)->o.machine[m];
        TRY(o->table->recurrent_put(o, state_of(state)->of[m], at));
        at += o->table->recurrent_bytes(o);
    }
    return err_none();
}

static err kv_get(ops *face, const ops_state *state, int n, void *out) {
    uint8_t *at = out;
    EACH(split_of(face), m) {
        ops *o = split_of(face)->o.machine[m];
        TRY(o->table->kv_get(o, state_of(state)->of[m], n, at));
        at += o->table->kv_bytes(o, n);
    }
    return err_none();
}

static err kv_put(ops *face, ops_state *state, int n, const void *in) {
    const uint8_t *at = in;
    EACH(split_of(face), m) {
        ops *o = split_of(face)->o.machine[m];
        TRY(o->table->kv_put(o, state_of(state)->of[m], n, at));
        at += o->table->kv_bytes(o, n);
    }
    return err_none();
}

/* Logits lie where the head is. */
static err bring(ops *face, ops_state *state) {
    split_ops *s = split_of(face);
    int m = s->o.place->head + 1;
    ops *o = s->o.machine[m];
    return o->table->bring ? o->table->bring(o, state_of(state)->of[m]) : err_none();
}

static const ops_table table = {
    .state_open = state_open,
    .state_close = state_close,
    .state_reset = state_reset,
    .recurrent_bytes = recurrent_bytes,
    .recurrent_get = recurrent_get,
    .recurrent_put = recurrent_put,
    .kv_bytes = kv_bytes,
    .kv_get = kv_get,
    .kv_put = kv_put,
    .begin = begin, /* enter, rows_get and rows_put are the machines' */
    .attention = attention,
    .delta = delta,
    .moe = moe,
    .mlp = mlp,
    .head = head,
    .bring = bring,
    .abandon = abandon,
};

/* ---- life ---- */

size_t split_scratch_bytes(const model_config *c, int rows_max) {
    return (size_t)rows_max * (size_t)c->hidden * sizeof(float);
}

err split_open(const split_options *options, split_ops **out) {
    *out = NULL;
    split_ops *s = calloc(1, sizeof *s);
    if (!s) return err_make(ERR_NOMEM, "no memory for the engine");
    s->face.table = &table;
    s->o = *options;
    assert(s->o.machine[s->o.place->embed + 1] && s->o.machine[s->o.place->head + 1]);
    size_t bytes = split_scratch_bytes(s->o.config, s->o.rows_max);
    err e = arena_open(&s->scratch, s->o.budget, BUDGET_SCRATCH, bytes, false);
    if (e.code) {
        split_close(s);
        return e;
    }
    *out = s;
    return err_none();
}

void split_close(split_ops *s) {
    if (!s) return;
    arena_close(&s->scratch);
    free(s);
}

ops *split_face(split_ops *s) { return &s->face; }
