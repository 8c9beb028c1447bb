/* route_log.c: see route_log.h. */
#include "route_log.h"

#include <stdlib.h>
#include <string.h>

#include "engine/engine_impl.h"
#include "engine/fm_error.h"
#include "store/simulate.h"

struct route_log {
    fm_engine *engine; /* borrowed */
    int n_layers, n_experts;
    uint8_t *wanted; /* [n_experts] of the list that is being made; owned */
    int layer;       /* of that list, among those with experts; -1: none */
    int32_t *ids;    /* of all lists, one after the other; owned */
    size_t n_ids, room;
    size_t *ends; /* [n_lists] where each list ends in ids; owned */
    size_t n_lists, lists_room;
    size_t mark; /* lists */
    bool lost;   /* no memory for more */
};

static bool grow(void **p, size_t *room, size_t need, size_t each) {
    if (need <= *room) return true;
    size_t more = need * 2 + 1024;
    void *bigger = realloc(*p, more * each);
    if (!bigger) return false;
    *p = bigger;
    *room = more;
    return true;
}

static void end_list(route_log *log) {
    if (log->layer < 0) return;
    size_t n = log->n_ids + (size_t)log->n_experts;
    log->lost = log->lost || !grow((void **)&log->ids, &log->room, n, sizeof *log->ids) ||
                !grow((void **)&log->ends, &log->lists_room, log->n_lists + 1, sizeof *log->ends);
    for (int i = 0; i < log->n_experts && !log->lost; i++)
        if (log->wanted[i]) log->ids[log->n_ids++] = i;
    if (!log->lost) log->ends[log->n_lists++] = log->n_ids;
    memset(log->wanted, 0, (size_t)log->n_experts);
    log->layer = -1;
}

static void on_routing(void *ctx, int layer, int row, const int *ids, const float *w, int k) {
    route_log *log = ctx;
    (void)w;
    int sparse = log->engine->weights.layers[layer].sparse_index;
    if (row == 0 || sparse != log->layer) end_list(log);
    log->layer = sparse;
    for (int i = 0; i < k; i++) log->wanted[ids[i]] = 1;
}

fm_error route_log_open(fm_engine *e, route_log **out) {
    *out = NULL;
    if (!e->store || e->gpu) return (fm_error){FM_ERR_ARG, "no experts go through memory here"};
    route_log *log = calloc(1, sizeof *log);
    if (!log) return (fm_error){FM_ERR_NOMEM, "no memory for the requests"};
    log->engine = e;
    log->n_layers = e->weights.experts.n_layers;
    log->n_experts = e->weights.experts.n_experts;
    log->layer = -1;
    log->wanted = calloc((size_t)log->n_experts, 1);
    if (!log->wanted) {
        free(log);
        return (fm_error){FM_ERR_NOMEM, "no memory for the requests"};
    }
    fm_routing_hook_set(e, on_routing, log);
    *out = log;
    return (fm_error){FM_OK, ""};
}

void route_log_close(route_log *log) {
    if (!log) return;
    fm_routing_hook_set(log->engine, NULL, NULL);
    free(log->wanted);
    free(log->ids);
    free(log->ends);
    free(log);
}

void route_log_mark(route_log *log) {
    end_list(log);
    log->mark = log->n_lists;
}

static bool make_trace(const route_log *log, trace *t) {
    size_t longest = 1;
    for (size_t i = 0, from = 0; i < log->n_lists; from = log->ends[i++])
        if (log->ends[i] - from > longest) longest = log->ends[i] - from;
    *t = (trace){.n_tokens = (int)(log->n_lists / (size_t)log->n_layers),
                 .n_layers = log->n_layers,
                 .n_experts = log->n_experts,
                 .n_picks = (int)longest};
    t->ids = malloc(log->n_lists * longest * sizeof *t->ids + 1);
    if (!t->ids) return false;
    memset(t->ids, 0xff, log->n_lists * longest * sizeof *t->ids);
    for (size_t i = 0, from = 0; i < log->n_lists; from = log->ends[i++])
        memcpy(t->ids + i * longest, log->ids + from, (log->ends[i] - from) * sizeof *t->ids);
    return true;
}

fm_error route_log_trace(route_log *log, trace *out) {
    *out = (trace){0};
    end_list(log);
    if (!log->lost && make_trace(log, out)) return (fm_error){FM_OK, ""};
    *out = (trace){0};
    return (fm_error){FM_ERR_NOMEM, "no memory for the requests"};
}

fm_error route_log_lru(route_log *log, double *bytes) {
    *bytes = 0;
    trace t;
    fm_error got = route_log_trace(log, &t);
    if (got.code) return got;
    simulation s = {.cache = {.policy = CACHE_LRU},
                    .n_slots = expert_store_slots(log->engine->store)};
    simulation_result all, before;
    err e = cache_simulate(&t, &s, &all);
    t.n_tokens = (int)(log->mark / (size_t)log->n_layers);
    if (!e.code) e = cache_simulate(&t, &s, &before);
    trace_close(&t);
    if (e.code) return fm_error_from(&e);
    fm_plan p;
    fm_engine_plan(log->engine, &p);
    uint64_t missed = (all.requests - all.hits) - (before.requests - before.hits);
    *bytes = (double)missed * (double)p.expert_bytes;
    return (fm_error){FM_OK, ""};
}
