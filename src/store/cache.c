/* cache.c: see cache.h. */
#include "store/cache.h"

#include <assert.h>
#include <math.h>

#define ARITY 4 /* children of a heap node: half the depth of a binary heap */

const char *cache_policy_name(cache_policy policy) {
    static const char *const names[CACHE_POLICIES] = {"blend", "decay", "lru", "lfu", "belady"};
    return names[policy];
}

size_t cache_memory(int n_layers, int n_experts) {
    size_t layers = (size_t)n_layers, keys = layers * (size_t)n_experts;
    return keys * sizeof(cache_entry) + layers * (sizeof(cache_layer) + sizeof(double));
}

static double or_else(double value, double otherwise) { return value > 0 ? value : otherwise; }

void cache_init(cache *c, const cache_options *options, void *memory) {
    *c = (cache){.options = *options};
    int n_layers = options->n_layers, n_keys = n_layers * options->n_experts;
    c->options.half_life = or_else(options->half_life, CACHE_HALF_LIFE);
    c->keep_fast = exp2(-1 / or_else(options->fast, CACHE_FAST));
    c->keep_slow = exp2(-1 / or_else(options->slow, CACHE_SLOW));
    c->entries = memory;
    c->layers = (cache_layer *)(c->entries + n_keys);
    c->phases = (double *)(c->layers + n_layers);
    double rank = options->policy == CACHE_DECAY ? -INFINITY : 0; /* of what was never used */
    for (int i = 0; i < n_keys; i++)
        c->entries[i] = (cache_entry){.rank = rank, .place = -1, .heap = -1};
    for (int i = 0; i < n_layers; i++) {
        double distance = (double)(i ? i : n_layers) / n_layers;
        bool blend = options->policy == CACHE_BLEND;
        c->layers[i] = (cache_layer){0};
        c->phases[i] = blend ? exp2(-or_else(options->phase, CACHE_PHASE) * distance) : 1;
    }
}

static int layer_of(const cache *c, int key) { return key / c->options.n_experts; }

static double worth(const cache *c, int key) {
    int distance = layer_of(c, key) - c->layer;
    return c->entries[key].rank *
           c->phases[distance < 0 ? distance + c->options.n_layers : distance];
}

bool cache_before(const cache *c, int a, int b) {
    double x = worth(c, a), y = worth(c, b);
    if (x != y) return x < y;
    const cache_entry *p = &c->entries[a], *q = &c->entries[b];
    if (p->touched != q->touched) return p->touched < q->touched;
    return a < b;
}

/* ---- the heap of one layer: places and experts count from `base`, the layer's first entry ---- */

/* As cache_before for two experts of a layer, whose phase is the same. */
static bool before(const cache_entry *base, int a, int b) {
    if (base[a].rank != base[b].rank) return base[a].rank < base[b].rank;
    if (base[a].touched != base[b].touched) return base[a].touched < base[b].touched;
    return a < b;
}

static void put(cache_entry *base, int place, int expert) {
    base[place].heap = expert;
    base[expert].place = place;
}

static void rise(cache_entry *base, int place) {
    int expert = base[place].heap;
    while (place > 0) {
        int parent = (place - 1) / ARITY;
        if (!before(base, expert, base[parent].heap)) break;
        put(base, place, base[parent].heap);
        place = parent;
    }
    put(base, place, expert);
}

static void sink(cache_entry *base, int n_heap, int place) {
    int expert = base[place].heap;
    for (;;) {
        int first = place * ARITY + 1, best = -1;
        for (int i = first; i < first + ARITY && i < n_heap; i++)
            if (best < 0 || before(base, base[i].heap, base[best].heap)) best = i;
        if (best < 0 || !before(base, base[best].heap, expert)) break;
        put(base, place, base[best].heap);
        place = best;
    }
    put(base, place, expert);
}

static cache_entry *base_of(const cache *c, int layer) {
    return c->entries + (size_t)layer * (size_t)c->options.n_experts;
}

/* After the rank of key has changed. */
static void settle(cache *c, int key) {
    int layer = layer_of(c, key), expert = key % c->options.n_experts;
    cache_entry *base = base_of(c, layer);
    if (base[expert].place < 0 || c->layers[layer].loose) return;
    rise(base, base[expert].place);
    sink(base, c->layers[layer].n_heap, base[expert].place);
}

void cache_add(cache *c, int key) {
    if (cache_evictable(c, key)) return;
    int layer = layer_of(c, key);
    cache_entry *base = base_of(c, layer);
    put(base, c->layers[layer].n_heap++, key % c->options.n_experts);
    settle(c, key);
    c->n_heap++;
}

void cache_remove(cache *c, int key) {
    if (!cache_evictable(c, key)) return;
    int layer = layer_of(c, key), expert = key % c->options.n_experts;
    cache_entry *base = base_of(c, layer);
    int place = base[expert].place, end = --c->layers[layer].n_heap;
    int moved = base[end].heap;
    base[end].heap = -1;
    base[expert].place = -1;
    c->n_heap--;
    if (moved == expert) return;
    put(base, place, moved);
    settle(c, layer * c->options.n_experts + moved);
}

bool cache_evictable(const cache *c, int key) { return c->entries[key].place >= 0; }

static void tighten(cache *c, int layer) {
    cache_layer *l = &c->layers[layer];
    if (!l->loose) return;
    l->loose = false;
    for (int i = (l->n_heap - 2) / ARITY; i >= 0 && l->n_heap > 1; i--)
        sink(base_of(c, layer), l->n_heap, i);
}

int cache_worst_in(cache *c, int layer) {
    if (c->layers[layer].n_heap == 0) return -1;
    tighten(c, layer);
    return layer * c->options.n_experts + base_of(c, layer)[0].heap;
}

int cache_worst(cache *c) {
    int worst = -1;
    for (int layer = 0; layer < c->options.n_layers; layer++) {
        int key = cache_worst_in(c, layer);
        if (key >= 0 && (worst < 0 || cache_before(c, key, worst))) worst = key;
    }
    return worst;
}

bool cache_is_hot(const cache *c, int key) {
    double touch = 2 - c->keep_fast - c->keep_slow;
    return c->entries[key].fast + c->entries[key].slow >= 0.999 * touch; /* but for rounding */
}

/* ---- history ---- */

void cache_tick(cache *c) { c->now++; }

void cache_request(cache *c, int layer) {
    assert(layer >= 0 && layer < c->options.n_layers);
    cache_layer *l = &c->layers[layer];
    uint64_t ticks = c->now - l->now;
    c->layer = layer;
    l->now = c->now;
    if (c->options.policy != CACHE_BLEND || ticks == 0) return;
    double fast = pow(c->keep_fast, (double)ticks), slow = pow(c->keep_slow, (double)ticks);
    cache_entry *base = base_of(c, layer);
    for (int i = 0; i < c->options.n_experts; i++) {
        base[i].fast *= fast;
        base[i].slow *= slow;
        base[i].rank = base[i].fast + base[i].slow;
    }
    l->loose = true;
}

void cache_touch(cache *c, int key) {
    assert(key >= 0 && layer_of(c, key) == c->layer);
    cache_entry *e = &c->entries[key];
    double now = (double)c->now / c->options.half_life;
    e->touched = ++c->touches;
    switch (c->options.policy) {
    case CACHE_BLEND:
        e->fast += 1 - c->keep_fast;
        e->slow += 1 - c->keep_slow;
        e->rank = e->fast + e->slow;
        break;
    /* log2 of the sum over touches of 2^(touch / half life): all fade alike, so the order of two
     * keys changes only when one is touched. */
    case CACHE_DECAY: e->rank = now + log2(1 + exp2(e->rank - now)); break;
    case CACHE_LFU: e->rank += 1; break;
    case CACHE_LRU:
    case CACHE_BELADY: break;
    }
    settle(c, key);
}

void cache_next_use(cache *c, int key, uint64_t when) {
    c->entries[key].rank = -(double)when;
    settle(c, key);
}
