/* cache.h: which of the things in a cache goes next. Pure: no memory, clock or I/O of its own.
 *
 *     history [n_keys]    what the policy knows of every key, in the cache or not
 *     heap                the keys that may be evicted, the worst on top
 *
 * A key is any number below n_keys (layer * n_experts + expert). Every policy gives a key a rank,
 * and the evictable key of the lowest rank goes first; equal ranks go by the older touch. The rank
 * of decayed frequency is the logarithm of sum over touches of 2^((t_touch - now) / half_life),
 * shifted by now / half_life: all keys fade alike, so their order only changes when one is touched,
 * and a heap that is only updated then has the exact minimum on top at any time.
 *
 * Cost: cache_touch, cache_add, cache_remove O(log n); cache_worst, cache_tick O(1). One thread. */
#ifndef STORE_CACHE_H
#define STORE_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum cache_policy {
    CACHE_DECAY, /* decayed frequency: the default */
    CACHE_LRU,   /* least recently touched */
    CACHE_LFU,   /* least often touched, ever */
    CACHE_BELADY /* furthest next use, told by cache_next_use: the bound that no policy can pass */
} cache_policy;

#define CACHE_POLICIES  4
#define CACHE_HALF_LIFE 8.0 /* tokens */

typedef struct cache_entry {
    double rank;
    uint64_t touched; /* number of the last touch: breaks ties */
    int32_t place;    /* in the heap, -1 when not evictable */
} cache_entry;

typedef struct cache {
    cache_policy policy;
    double half_life; /* of CACHE_DECAY, in ticks */
    int n_keys, n_heap;
    uint64_t now, touches;
    cache_entry *entries; /* [n_keys], borrowed */
    int32_t *heap;        /* [n_keys], borrowed */
} cache;

typedef struct cache_options {
    cache_policy policy;
    double half_life; /* 0: CACHE_HALF_LIFE */
    int n_keys;
} cache_options;

const char *cache_policy_name(cache_policy policy);

/* Bytes that cache_init needs, 8-byte aligned. */
size_t cache_memory(int n_keys);
void cache_init(cache *c, const cache_options *options, void *memory);

/* A token begins. */
void cache_tick(cache *c);
/* key is used now. */
void cache_touch(cache *c, int key);
/* For CACHE_BELADY, after cache_touch: when key is used next (larger is later). */
void cache_next_use(cache *c, int key, uint64_t when);
/* key may / may not be evicted from now on; no effect when that is so already. */
void cache_add(cache *c, int key);
void cache_remove(cache *c, int key);
/* The evictable key of the lowest rank, -1 when there is none. */
int cache_worst(const cache *c);
/* a would be evicted before b. */
bool cache_before(const cache *c, int a, int b);

#endif
