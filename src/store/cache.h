/* cache.h: which of the experts in a cache goes next. Pure: no memory, clock or I/O of its own.
 *
 *     history [n_keys]              what the policy knows of every expert, in the cache or not
 *     heaps [n_layers][n_experts]   of each layer the experts that may be evicted, the worst on top
 *
 * A key is layer * n_experts + expert. Every policy gives a key a rank, and the evictable key of
 * the lowest rank goes first; equal ranks go by the older touch.
 *
 * CACHE_BLEND, the default, estimates how likely the layer's next request asks for an expert: the
 * sum of two averages of its past, one that forgets quickly (CACHE_FAST tokens) and one that
 * forgets slowly (CACHE_SLOW). A model goes through its layers in a fixed order, so an expert of
 * the layer that comes next is worth more than one of the layer that has just been: the estimate
 * fades by 2^-CACHE_PHASE from the next layer to the last one. Both are measured (docs/MEASURED.md,
 * "Expert store"): one memory alone, or no phase, misses more.
 *
 * The averages of a layer change only when the layer is asked (cache_request brings them up to
 * date, in O(n_experts)), and the phase moves whole layers. Its heap is then loose, and built anew
 * when cache_worst looks for the exact minimum: never, where all experts fit.
 *
 * Cost: cache_touch, cache_add, cache_remove O(log n_experts), cache_worst O(n_layers), and
 * O(n_experts) for every loose layer. One thread.
 */
#ifndef STORE_CACHE_H
#define STORE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum cache_policy {
    CACHE_BLEND, /* short and long memory, and the order of the layers */
    CACHE_DECAY, /* decayed frequency: one memory of CACHE_HALF_LIFE */
    CACHE_LRU,   /* least recently touched */
    CACHE_LFU,   /* least often touched, ever */
    CACHE_BELADY /* furthest next use, told by cache_next_use: the bound that no policy can pass */
} cache_policy;

#define CACHE_POLICIES  5
#define CACHE_FAST      2.0  /* tokens until half is forgotten */
#define CACHE_SLOW      32.0 /* the same */
#define CACHE_PHASE     0.5
#define CACHE_HALF_LIFE 8.0

typedef struct cache_entry {
    double rank, fast, slow;
    uint64_t touched; /* number of the last touch: breaks ties */
    int32_t place;    /* in the layer's heap, -1 when not evictable */
    int32_t heap;     /* not of this key: the expert at this place of the layer's heap */
} cache_entry;

typedef struct cache_layer {
    uint64_t now; /* the tick of the last request */
    int32_t n_heap;
    bool loose; /* the heap is a list: cache_worst makes a heap of it */
} cache_layer;

typedef struct cache_options {
    cache_policy policy;
    int n_layers, n_experts;
    double fast, slow, phase; /* of CACHE_BLEND; 0: as above */
    double half_life;         /* of CACHE_DECAY; 0: as above */
} cache_options;

typedef struct cache {
    cache_options options;
    int n_heap; /* of all layers */
    int layer;  /* of the last request */
    uint64_t now, touches;
    double keep_fast, keep_slow; /* what a tick leaves */
    cache_entry *entries;        /* [n_layers][n_experts], borrowed */
    cache_layer *layers;         /* [n_layers], borrowed */
    double *phases;              /* [n_layers] by distance to the last request's layer, borrowed */
} cache;

const char *cache_policy_name(cache_policy policy);

/* Bytes that cache_init needs, 8-byte aligned. */
size_t cache_memory(int n_layers, int n_experts);
void cache_init(cache *c, const cache_options *options, void *memory);

/* A token begins. */
void cache_tick(cache *c);
/* Experts of this layer are about to be touched. */
void cache_request(cache *c, int layer);
/* key, of that layer, is used now. */
void cache_touch(cache *c, int key);
/* For CACHE_BELADY, after cache_touch: when key is used next (larger is later). */
void cache_next_use(cache *c, int key, uint64_t when);
/* key may / may not be evicted from now on; no effect when that is so already. */
void cache_add(cache *c, int key);
void cache_remove(cache *c, int key);
bool cache_evictable(const cache *c, int key);
/* The evictable key of the lowest rank, -1 when there is none. */
int cache_worst(cache *c);
/* The same of one layer. */
int cache_worst_in(cache *c, int layer);
/* key has been used in the last token or so: as much as one touch weighs right after it. */
bool cache_is_hot(const cache *c, int key);
/* a would be evicted before b. */
bool cache_before(const cache *c, int a, int b);

#endif
