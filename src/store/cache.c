/* cache.c: see cache.h. */
#include "store/cache.h"

#include <assert.h>
#include <math.h>

#define ARITY                                                                                      \
    4 /* children of a heap node: half the depth of a binary heap, one cache line a node */

const char *cache_policy_name(cache_policy policy) {
    static const char *const names[CACHE_POLICIES] = {"decay", "lru", "lfu", "belady"};
    return names[policy];
}

size_t cache_memory(int n_keys) {
    size_t n = (size_t)n_keys;
    return n * sizeof(cache_entry) + (n * sizeof(int32_t) + 7) / 8 * 8;
}

void cache_init(cache *c, const cache_options *options, void *memory) {
    *c = (cache){.policy = options->policy, .n_keys = options->n_keys};
    c->half_life = options->half_life > 0 ? options->half_life : CACHE_HALF_LIFE;
    c->entries = memory;
    c->heap = (int32_t *)(c->entries + c->n_keys);
    for (int i = 0; i < c->n_keys; i++) {
        c->entries[i] = (cache_entry){.rank = -INFINITY, .place = -1};
        c->heap[i] = -1;
    }
}

bool cache_before(const cache *c, int a, int b) {
    const cache_entry *x = &c->entries[a], *y = &c->entries[b];
    if (x->rank != y->rank) return x->rank < y->rank;
    if (x->touched != y->touched) return x->touched < y->touched;
    return a < b;
}

static void put(cache *c, int place, int key) {
    c->heap[place] = key;
    c->entries[key].place = place;
}

static void rise(cache *c, int place) {
    int key = c->heap[place];
    while (place > 0) {
        int parent = (place - 1) / ARITY;
        if (!cache_before(c, key, c->heap[parent])) break;
        put(c, place, c->heap[parent]);
        place = parent;
    }
    put(c, place, key);
}

static void sink(cache *c, int place) {
    int key = c->heap[place];
    for (;;) {
        int first = place * ARITY + 1, best = -1;
        for (int i = first; i < first + ARITY && i < c->n_heap; i++)
            if (best < 0 || cache_before(c, c->heap[i], c->heap[best])) best = i;
        if (best < 0 || !cache_before(c, c->heap[best], key)) break;
        put(c, place, c->heap[best]);
        place = best;
    }
    put(c, place, key);
}

static void settle(cache *c, int place) {
    if (place < 0) return;
    int key = c->heap[place];
    rise(c, place);
    sink(c, c->entries[key].place);
}

void cache_tick(cache *c) { c->now++; }

void cache_touch(cache *c, int key) {
    assert(key >= 0 && key < c->n_keys);
    cache_entry *e = &c->entries[key];
    double now = (double)c->now / c->half_life;
    e->touched = ++c->touches;
    switch (c->policy) {
    case CACHE_DECAY: e->rank = now + log2(1 + exp2(e->rank - now)); break;
    case CACHE_LRU: e->rank = 0; break;
    case CACHE_LFU: e->rank = e->rank > 0 ? e->rank + 1 : 1; break;
    case CACHE_BELADY: break;
    }
    settle(c, e->place);
}

void cache_next_use(cache *c, int key, uint64_t when) {
    c->entries[key].rank = -(double)when;
    settle(c, c->entries[key].place);
}

void cache_add(cache *c, int key) {
    if (c->entries[key].place >= 0) return;
    put(c, c->n_heap, key);
    rise(c, c->n_heap++);
}

void cache_remove(cache *c, int key) {
    int place = c->entries[key].place;
    if (place < 0) return;
    c->entries[key].place = -1;
    int last = c->heap[--c->n_heap];
    c->heap[c->n_heap] = -1;
    if (last == key) return;
    put(c, place, last);
    settle(c, place);
}

int cache_worst(const cache *c) { return c->n_heap ? c->heap[0] : -1; }
