/* replay.c: a recorded routing trace in the router's place, so that an experiment with reads
 * repeats exactly. Row r of a batch takes the trace's next line; after the last line the first
 * follows. */
#include <stdlib.h>

#include "engine/engine_impl.h"
#include "store/trace.h"

struct replay {
    trace trace;
    const weights *weights; /* borrowed */
    int base, rows;         /* line of the batch's first row; rows of the batch so far */
};

static bool next_ids(void *ctx, int layer, int row, int *ids, int k) {
    replay *r = ctx;
    int sparse = r->weights->layers[layer].sparse_index;
    if (sparse == 0 && row == 0) {
        r->base = (r->base + r->rows) % r->trace.n_tokens;
        r->rows = 0;
    }
    if (sparse == 0) r->rows++;
    const int32_t *picks;
    int n = trace_picks(&r->trace, (r->base + row) % r->trace.n_tokens, sparse, &picks);
    if (n < k) return false;
    for (int i = 0; i < k; i++) ids[i] = picks[i];
    return true;
}

static err check(const fm_engine *e, const trace *t, const char *path) {
    const expert_map *map = &e->weights.experts;
    if (t->n_tokens < 1) return err_make(ERR_CORRUPT, "%s: no tokens", path);
    if (t->n_layers != map->n_layers)
        return err_make(ERR_ARG, "%s: a trace of %d layers with experts; this model has %d", path,
                        t->n_layers, map->n_layers);
    if (t->n_experts > map->n_experts)
        return err_make(ERR_ARG, "%s: a trace of %d experts; this model has %d", path, t->n_experts,
                        map->n_experts);
    if (t->n_picks < e->experts_per_token)
        return err_make(ERR_ARG, "%s: a trace of %d experts per token; this model takes %d", path,
                        t->n_picks, e->experts_per_token);
    return err_none();
}

static err replay_open(fm_engine *e, const char *path, replay **out) {
    replay *r = calloc(1, sizeof *r);
    if (!r) return err_make(ERR_NOMEM, "no memory for a trace");
    r->weights = &e->weights;
    err failed = trace_read(path, &r->trace);
    if (!failed.code) failed = check(e, &r->trace, path);
    if (failed.code) {
        replay_close(r);
        return failed;
    }
    *out = r;
    return err_none();
}

void replay_close(replay *r) {
    if (!r) return;
    trace_close(&r->trace);
    free(r);
}

err engine_force(fm_engine *e, routing_force force, void *ctx) {
    e->force = force;
    e->force_ctx = ctx;
    if (e->cpu) cpu_ops_set_routing_force(e->cpu, force, ctx);
    return e->gpu ? gpu_ops_set_routing_force(e->gpu, force, ctx) : err_none();
}

fm_error fm_routing_replay(fm_engine *e, const char *path) {
    err failed = engine_force(e, NULL, NULL);
    replay_close(e->replay);
    e->replay = NULL;
    if (!failed.code && path) failed = replay_open(e, path, &e->replay);
    if (!failed.code && path) failed = engine_force(e, next_ids, e->replay);
    return fm_error_from(&failed);
}
