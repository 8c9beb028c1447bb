/* simulate.c: see simulate.h. */
#include "store/simulate.h"

#include <stdlib.h>
#include <string.h>

typedef struct run {
    const trace *t;
    const simulation *s;
    simulation_result *out;
    cache cache;
    void *memory;       /* of the cache, owned */
    uint8_t *resident;  /* [n_keys] owned */
    uint8_t *seen;      /* [n_keys] owned */
    uint64_t *next_use; /* [tokens][layers][picks] for Belady, else NULL; owned */
    int n_resident;
} run;

static int key_of(const run *r, int layer, int id) { return layer * r->t->n_experts + id; }

/* For each pick of the trace, the number of the request in which the same expert comes next. */
static err look_ahead(run *r) {
    const trace *t = r->t;
    size_t n_keys = (size_t)t->n_layers * (size_t)t->n_experts;
    size_t picks = (size_t)t->n_tokens * (size_t)t->n_layers * (size_t)t->n_picks;
    uint64_t *coming = malloc(n_keys * sizeof *coming);
    r->next_use = malloc(picks * sizeof *r->next_use);
    if (!coming || !r->next_use) {
        free(coming);
        return err_make(ERR_NOMEM, "no memory for looking ahead in the routing trace");
    }
    memset(coming, 0xff, n_keys * sizeof *coming);
    for (int64_t at = (int64_t)t->n_tokens * t->n_layers - 1; at >= 0; at--) {
        int layer = (int)(at % t->n_layers);
        const int32_t *ids;
        int n = trace_picks(t, (int)(at / t->n_layers), layer, &ids);
        for (int i = 0; i < n; i++) {
            int key = key_of(r, layer, ids[i]);
            r->next_use[ids + i - t->ids] = coming[key];
            coming[key] = (uint64_t)at;
        }
    }
    free(coming);
    return err_none();
}

static void touch(run *r, int key, const int32_t *pick) {
    cache_touch(&r->cache, key);
    if (r->next_use) cache_next_use(&r->cache, key, r->next_use[pick - r->t->ids]);
    r->out->requests++;
    if (!r->seen[key]) r->out->first_seen++;
    r->seen[key] = 1;
}

static void request(run *r, int layer, const int32_t *ids, int n) {
    cache_request(&r->cache, layer);
    for (int i = 0; i < n; i++) {
        int key = key_of(r, layer, ids[i]);
        touch(r, key, ids + i);
        if (!r->resident[key]) continue;
        cache_remove(&r->cache, key);
        r->out->hits++;
    }
    for (int i = 0; i < n; i++) {
        int key = key_of(r, layer, ids[i]);
        if (r->resident[key]) continue;
        if (r->n_resident == r->s->n_slots) {
            int worst = cache_worst(&r->cache);
            cache_remove(&r->cache, worst);
            r->resident[worst] = 0;
            r->n_resident--;
            r->out->evictions++;
        }
        r->resident[key] = 1;
        r->n_resident++;
    }
    for (int i = 0; i < n; i++) cache_add(&r->cache, key_of(r, layer, ids[i]));
}

static err prepare(run *r) {
    int n_keys = r->t->n_layers * r->t->n_experts;
    r->memory = malloc(cache_memory(r->t->n_layers, r->t->n_experts));
    r->resident = calloc((size_t)n_keys, 1);
    r->seen = calloc((size_t)n_keys, 1);
    if (!r->memory || !r->resident || !r->seen)
        return err_make(ERR_NOMEM, "no memory for replaying the routing trace");
    cache_options options = r->s->cache;
    options.n_layers = r->t->n_layers;
    options.n_experts = r->t->n_experts;
    cache_init(&r->cache, &options, r->memory);
    return r->s->cache.policy == CACHE_BELADY ? look_ahead(r) : err_none();
}

err cache_simulate(const trace *t, const simulation *s, simulation_result *out) {
    memset(out, 0, sizeof *out);
    if (s->n_slots < t->n_picks)
        return err_make(ERR_ARG, "a cache of %d experts is too small: %d are used at once",
                        s->n_slots, t->n_picks);
    run r = {.t = t, .s = s, .out = out};
    err e = prepare(&r);
    for (int token = 0; token < t->n_tokens && !e.code; token++) {
        cache_tick(&r.cache);
        for (int layer = 0; layer < t->n_layers; layer++) {
            const int32_t *ids;
            int n = trace_picks(t, token, layer, &ids);
            request(&r, layer, ids, n);
        }
    }
    free(r.memory);
    free(r.resident);
    free(r.seen);
    free(r.next_use);
    return e;
}
