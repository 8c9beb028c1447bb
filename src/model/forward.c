/* forward.c: see forward.h. */
#include "model/forward.h"

static err layers(ops *o, const model_config *config, const batch *b, const atomic_int *cancel) {
    const ops_table *t = o->table;
    TRY(t->begin(o, b));
    for (int i = 0; i < config->layers; i++) {
        if (cancel && atomic_load_explicit(cancel, memory_order_relaxed))
            return err_make(ERR_CANCELLED, "cancelled");
        const layer_config *l = &config->layer[i];
        TRY(l->full_attention ? t->attention(o, b, i) : t->delta(o, b, i));
        TRY(l->sparse ? t->moe(o, b, i) : t->mlp(o, b, i));
    }
    return t->head(o, b);
}

err forward(ops *o, const model_config *config, const batch *b, const atomic_int *cancel) {
    err e = layers(o, config, b, cancel);
    if (e.code) o->table->abandon(o);
    return e;
}
