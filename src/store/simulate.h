/* simulate.h: how often a cache would have had what a model asked for: the store's eviction
 * replayed on a routing trace, without any reading. */
#ifndef STORE_SIMULATE_H
#define STORE_SIMULATE_H

#include "base/err.h"
#include "store/cache.h"
#include "store/trace.h"

typedef struct simulation {
    cache_options cache; /* policy and its constants; the shape comes from the trace */
    int n_slots;         /* at least the trace's n_picks, else ERR_ARG */
} simulation;

typedef struct simulation_result {
    uint64_t requests, hits;
    uint64_t first_seen; /* misses that no cache could have avoided */
    uint64_t evictions;
} simulation_result;

/* One request for each token and layer, in order, as expert_store_request sees them: hits first,
 * then the misses, all of them kept until the layer is done. The counts are exactly those of a
 * store with n_slots that is given the same requests. */
err cache_simulate(const trace *t, const simulation *s, simulation_result *out) MUST_USE;

#endif
