/* expert_store.c: see expert_store.h.
 *
 *     slot_of [n_keys]   key = layer * n_experts + expert -> slot, or -1
 *     slots [n_slots]    FREE -> LOADING -> READY -> FREE
 *                                   \-----> FAILED -/
 *     cache              the READY slots without a pin, worst first (cache.h)
 *     demand             LOADING slots whose reads are not all started, first come first served
 *
 * Everything but the reading itself happens on the engine thread, inside its calls: finished reads
 * are collected and waiting ones started whenever the store is called (`pump`), and io.h keeps up
 * to `depth` reads going in between. So there is no lock here, and nothing is allocated after open:
 * slots, tables and reads lie in one arena, slots first.
 *
 * Numbered invariants, checked by expert_store_check in tests:
 *   1 a key has at most one slot, and slot_of and slots agree
 *   2 a slot is in the cache's heap exactly when it is READY and has no pin
 *   3 a slot is in the free list exactly when it is FREE
 *   4 FAILED slots have pins; the last one to go frees the slot */
#include "store/expert_store.h"

#include <assert.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/os.h"
#include "io/io_bench.h"
#include "store/cache.h"
#include "store/record.h"

#define BLOCK_DEFAULT (1u << 20)
#define DEPTH_DEFAULT 64
#define KEYS_MAX      (1 << 24)    /* layers x experts; the largest published models have 30,000 */
#define PART_MAX      (256u << 20) /* bytes: nine of them stay below 4 GiB */
#define HUGE_FROM     ((size_t)16 << 20) /* arenas from here on ask for huge pages */
#define HUGE_PAGE     ((size_t)2 << 20)
#define REGISTER_UNIT ((size_t)16 << 20) /* pinned at once when first read into */
#define PAGE_CACHE_OK                                                                              \
    ((size_t)64 << 20) /* so few experts that keeping them cached twice is nothing */

typedef enum slot_state { SLOT_FREE, SLOT_LOADING, SLOT_READY, SLOT_FAILED } slot_state;

typedef struct slot {
    int32_t key;  /* -1 when FREE */
    int32_t pins; /* requests not yet released */
    int32_t next; /* in the free list or in a queue, -1 at the end */
    slot_state state;
    bool queued;      /* in a queue: not all reads are started */
    int32_t reads;    /* in flight */
    int32_t run;      /* next piece to start */
    uint32_t run_at;  /* within that run */
    io_read failure;  /* the first read that failed; .error 0 when none did */
    expert_view view; /* when READY */
} slot;

typedef struct slot_queue {
    int32_t head, tail; /* -1 when empty */
} slot_queue;

struct expert_store {
    /* fixed after open */
    expert_map map; /* its arrays are borrowed */
    arena memory;   /* owned */
    io *io;         /* owned */
    bool direct;
    uint32_t block;
    int n_slots, n_keys;
    size_t slot_bytes;
    uint8_t *base; /* of slot 0 */
    /* engine thread only */
    slot *slots;       /* [n_slots] */
    int32_t *slot_of;  /* [n_keys] */
    io_read **reads;   /* [depth], those not in use come first */
    int n_reads;       /* not in use */
    int32_t free_head; /* free slots */
    int n_free;
    int n_unpinned_loading; /* will be evictable when their reads end */
    slot_queue demand;
    cache cache;
    expert_store_stats stats;
};

/* ---- sizes ---- */

static size_t key_count(const expert_map *map) {
    return (size_t)map->n_layers * (size_t)map->n_experts;
}

size_t expert_store_slot_bytes(const expert_map *map) {
    size_t most = IO_ALIGN, n = key_count(map);
    for (size_t i = 0; i < n; i++) {
        record r;
        record_make(map->parts + i * (size_t)map->n_parts, map->n_parts, &r);
        if (r.bytes > most) most = r.bytes;
    }
    return most;
}

/* Everything beside the slots' bytes, for n slots. */
static size_t table_bytes(const expert_map *map, size_t n_slots) {
    size_t reads = IO_DEPTH_MAX * (sizeof(io_read) + sizeof(io_read *));
    size_t sum = reads + n_slots * sizeof(slot) + key_count(map) * sizeof(int32_t);
    return round_up(sum + cache_memory(map->n_layers, map->n_experts) + 5 * 64, IO_ALIGN);
}

static size_t arena_bytes(const expert_map *map, size_t n_slots, size_t slot_bytes) {
    size_t sum = table_bytes(map, n_slots) + n_slots * slot_bytes;
    return round_up(sum, sum >= HUGE_FROM ? HUGE_PAGE : IO_ALIGN);
}

size_t expert_store_floor(const expert_map *map, int n) {
    return arena_bytes(map, (size_t)n, expert_store_slot_bytes(map));
}

/* The most slots that fit into cache_bytes: at most one for every expert. */
static size_t slots_for(const expert_map *map, size_t slot_bytes, size_t cache_bytes) {
    size_t low = 0, high = key_count(map); /* low fits or is 0 */
    while (low < high) {
        size_t middle = low + (high - low + 1) / 2;
        if (arena_bytes(map, middle, slot_bytes) <= cache_bytes) {
            low = middle;
        } else {
            high = middle - 1;
        }
    }
    return low;
}

/* ---- names for messages ---- */

static int layer_number(const expert_map *map, int layer) {
    return map->layer_numbers ? map->layer_numbers[layer] : layer;
}

static err within_expert(const expert_store *s, err e, int key) {
    return err_within(e, "layer %d expert %d", layer_number(&s->map, key / s->map.n_experts),
                      key % s->map.n_experts);
}

/* ---- loading ---- */

static const expert_part *parts_of(const expert_store *s, int key) {
    return s->map.parts + (size_t)key * (size_t)s->map.n_parts;
}

static uint8_t *slot_data(const expert_store *s, const slot *x) {
    return s->base + (size_t)(x - s->slots) * s->slot_bytes;
}

static void queue_put(expert_store *s, slot_queue *q, slot *x) {
    int32_t index = (int32_t)(x - s->slots);
    x->next = -1;
    x->queued = true;
    if (q->tail >= 0)
        s->slots[q->tail].next = index;
    else
        q->head = index;
    q->tail = index;
}

static slot *queue_take(expert_store *s, slot_queue *q) {
    slot *x = &s->slots[q->head];
    q->head = x->next;
    if (q->head < 0) q->tail = -1;
    x->next = -1;
    x->queued = false;
    return x;
}

static void slot_free(expert_store *s, slot *x) {
    assert(x->pins == 0 && x->reads == 0 && !x->queued);
    s->slot_of[x->key] = -1;
    *x = (slot){.key = -1, .next = s->free_head};
    s->free_head = (int32_t)(x - s->slots);
    s->n_free++;
}

/* All reads of x have ended. */
static void slot_loaded(expert_store *s, slot *x) {
    if (x->pins == 0) s->n_unpinned_loading--;
    if (x->failure.error) {
        x->state = SLOT_FAILED;
        if (x->pins == 0) slot_free(s, x);
        return;
    }
    record r;
    record_make(parts_of(s, x->key), s->map.n_parts, &r);
    uint8_t *data = slot_data(s, x);
    if (s->direct) record_settle(&r, data);
    for (int i = 0; i < s->map.n_parts; i++) x->view.part[i] = data + r.part[i];
    x->state = SLOT_READY;
    if (x->pins == 0) cache_add(&s->cache, x->key);
}

/* Starts reads of x while there is room; true when all of them are started, or one has failed. */
static bool slot_start(expert_store *s, slot *x) {
    record r;
    record_make(parts_of(s, x->key), s->map.n_parts, &r);
    while (x->run < r.n_runs && !x->failure.error) {
        if (s->n_reads == 0) return false;
        record_read piece;
        if (!record_next(&r.runs[x->run], s->direct, s->block, &x->run_at, &piece)) {
            x->run++;
            x->run_at = 0;
            continue;
        }
        io_read *read = s->reads[--s->n_reads];
        *read = (io_read){.dst = slot_data(s, x) + piece.place,
                          .offset = piece.offset,
                          .bytes = piece.bytes,
                          .need = piece.need,
                          .file = r.runs[x->run].file,
                          .owner = x};
        x->reads++;
        io_start(s->io, read);
    }
    return true;
}

static void start_waiting(expert_store *s) {
    while (s->demand.head >= 0) {
        slot *x = &s->slots[s->demand.head];
        if (!slot_start(s, x)) break;
        queue_take(s, &s->demand);
        if (x->reads == 0) slot_loaded(s, x);
    }
    io_flush(s->io);
}

static void finish(expert_store *s, io_read *read) {
    slot *x = read->owner;
    x->reads--;
    s->stats.read_bytes += read->error ? 0 : read->need;
    if (read->error && !x->failure.error) x->failure = *read;
    s->reads[s->n_reads++] = read;
    if (x->reads == 0 && !x->queued) slot_loaded(s, x);
}

/* Collects what has ended and starts what waits. With wait, blocks until at least one read ends;
 * false when none is in flight. */
static bool pump(expert_store *s, bool wait) {
    start_waiting(s);
    io_read *read = io_next(s->io, wait);
    if (!read) return false;
    for (; read; read = io_next(s->io, false)) finish(s, read);
    start_waiting(s);
    return true;
}

/* ---- open, close ---- */

static err check_part(const expert_map *map, const io *files, size_t index) {
    const expert_part *p = &map->parts[index];
    size_t key = index / (size_t)map->n_parts;
    int layer = layer_number(map, (int)(key / (size_t)map->n_experts));
    int expert = (int)(key % (size_t)map->n_experts);
    if (p->file < 0 || p->file >= map->n_files || p->offset < 0 || p->offset > INT64_MAX / 2 ||
        p->bytes > INT32_MAX / 2) {
        return err_make(ERR_CORRUPT, "layer %d expert %d: part %d lies nowhere (file %d of %d)",
                        layer, expert, (int)(index % (size_t)map->n_parts), p->file, map->n_files);
    }
    if (files && p->offset + p->bytes > io_file_bytes(files, p->file)) {
        return err_make(
            ERR_CORRUPT, "layer %d expert %d: %s: ends at byte %lld, but %lld are needed", layer,
            expert, io_file_path(files, p->file, 0), (long long)io_file_bytes(files, p->file),
            (long long)(p->offset + p->bytes));
    }
    return err_none();
}

static err check_map(const expert_map *map, const io *files) {
    if (map->n_layers < 1 || map->n_experts < 1 || map->n_parts < 1 ||
        map->n_parts > EXPERT_PARTS_MAX || map->n_layers > KEYS_MAX / map->n_experts) {
        return err_make(ERR_ARG, "%d layers of %d experts of %d parts cannot be stored",
                        map->n_layers, map->n_experts, map->n_parts);
    }
    size_t n = key_count(map) * (size_t)map->n_parts;
    for (size_t i = 0; i < n; i++) TRY(check_part(map, files, i));
    return err_none();
}

/* Through the page cache when every expert fits and the cache can hold them too (a second start is
 * then fast), or when there are so few of them that it does not matter. */
static bool page_cache_is_better(const expert_store *s) {
    os_memory memory;
    os_memory_get(&memory);
    size_t all = (size_t)s->n_keys * s->slot_bytes;
    return all <= PAGE_CACHE_OK || (s->n_slots == s->n_keys && all <= memory.available / 2);
}

static err open_auto(expert_store *s, io_options *files, const char *state_path) {
    io_choice choice = {.backend = IO_BUFFERED};
    if (!page_cache_is_better(s)) io_choose(s->map.paths, s->map.n_files, state_path, &choice);
    files->backend = choice.backend;
    err e = io_open(files, &s->io);
    if (!e.code || files->backend == IO_BUFFERED) return e;
    files->backend = IO_BUFFERED;
    return io_open(files, &s->io);
}

static err open_files(expert_store *s, const expert_store_options *options) {
    io_options files = {.backend = options->backend,
                        .paths = s->map.paths,
                        .n_files = s->map.n_files,
                        .threads = options->io_threads,
                        .depth = options->io_depth > 0 ? options->io_depth : DEPTH_DEFAULT,
                        .memory = s->base,
                        .memory_bytes = (size_t)s->n_slots * s->slot_bytes,
                        .fault = options->fault};
    size_t slots_a_unit = REGISTER_UNIT / s->slot_bytes;
    files.memory_unit = s->slot_bytes * (slots_a_unit ? slots_a_unit : 1);
    if (files.backend == IO_AUTO) return open_auto(s, &files, options->io_state);
    return io_open(&files, &s->io);
}

static void *carve(expert_store *s, size_t bytes) {
    void *p = arena_alloc(&s->memory, bytes, 64);
    assert(p);
    return p;
}

static void lay_out(expert_store *s) {
    size_t n_slots = (size_t)s->n_slots, n_keys = (size_t)s->n_keys;
    s->slots = carve(s, n_slots * sizeof *s->slots);
    s->slot_of = carve(s, n_keys * sizeof *s->slot_of);
    cache_options policy = {.n_layers = s->map.n_layers, .n_experts = s->map.n_experts};
    cache_init(&s->cache, &policy, carve(s, cache_memory(policy.n_layers, policy.n_experts)));
    s->n_reads = io_room(s->io);
    s->reads = carve(s, (size_t)s->n_reads * sizeof *s->reads);
    io_read *reads = carve(s, (size_t)s->n_reads * sizeof *reads);
    for (int i = 0; i < s->n_reads; i++) s->reads[i] = &reads[i];
    for (size_t i = 0; i < n_keys; i++) s->slot_of[i] = -1;
    s->free_head = -1;
    for (int32_t i = s->n_slots - 1; i >= 0; i--) {
        s->slots[i] = (slot){.key = -1, .next = s->free_head};
        s->free_head = i;
    }
    s->n_free = s->n_slots;
    arena_freeze(&s->memory);
}

static err open_all(expert_store *s, const expert_store_options *options) {
    TRY(check_map(&s->map, NULL));
    s->n_keys = (int)key_count(&s->map);
    s->slot_bytes = expert_store_slot_bytes(&s->map);
    size_t n = slots_for(&s->map, s->slot_bytes, options->cache_bytes);
    if (n == 0) {
        return err_make(ERR_BUDGET, "%.1f MiB cannot hold one expert of %.1f MiB",
                        (double)options->cache_bytes / 1048576.0,
                        (double)s->slot_bytes / 1048576.0);
    }
    s->n_slots = (int)n;
    uint32_t block = options->io_block ? options->io_block : BLOCK_DEFAULT;
    s->block = (uint32_t)round_up(size_min(block, INT32_MAX / 2), IO_ALIGN);
    size_t bytes = arena_bytes(&s->map, n, s->slot_bytes);
    TRY(arena_open(&s->memory, options->budget, BUDGET_CACHE, bytes, bytes >= HUGE_FROM));
    s->base = arena_alloc(&s->memory, n * s->slot_bytes, IO_ALIGN);
    assert(s->base);
    TRY(open_files(s, options));
    s->direct = io_backend_direct(io_engine(s->io));
    TRY(check_map(&s->map, s->io));
    lay_out(s);
    return err_none();
}

err expert_store_open(const expert_map *map, const expert_store_options *options,
                      expert_store **out) {
    *out = NULL;
    expert_store *s = calloc(1, sizeof *s);
    if (!s) return err_make(ERR_NOMEM, "no memory for the expert store");
    s->map = *map;
    s->demand = (slot_queue){-1, -1};
    err e = open_all(s, options);
    if (e.code) {
        expert_store_close(s);
        return e;
    }
    *out = s;
    return err_none();
}

void expert_store_close(expert_store *s) {
    if (!s) return;
    io_close(s->io);
    arena_close(&s->memory);
    free(s);
}

int expert_store_slots(const expert_store *s) { return s->n_slots; }
io_backend expert_store_backend(const expert_store *s) { return io_engine(s->io); }

/* ---- requests ---- */

static int key_of(const expert_store *s, int layer, int id) {
    assert(layer >= 0 && layer < s->map.n_layers && id >= 0 && id < s->map.n_experts);
    return layer * s->map.n_experts + id;
}

static slot *slot_at(const expert_store *s, int key) {
    return s->slot_of[key] < 0 ? NULL : &s->slots[s->slot_of[key]];
}

static void pin(expert_store *s, slot *x) {
    if (x->pins++ > 0) return;
    if (x->state == SLOT_READY) cache_remove(&s->cache, x->key);
    if (x->state == SLOT_LOADING) s->n_unpinned_loading--;
}

static void unpin(expert_store *s, slot *x) {
    assert(x->pins > 0);
    if (--x->pins > 0) return;
    if (x->state == SLOT_READY) cache_add(&s->cache, x->key);
    if (x->state == SLOT_LOADING) s->n_unpinned_loading++;
    if (x->state == SLOT_FAILED) slot_free(s, x);
}

/* A free slot for key, evicting the worst where need be. */
static slot *claim(expert_store *s, int key) {
    if (s->n_free == 0) {
        int worst = cache_worst(&s->cache);
        assert(worst >= 0);
        cache_remove(&s->cache, worst);
        slot_free(s, slot_at(s, worst));
        s->stats.evictions++;
    }
    slot *x = &s->slots[s->free_head];
    s->free_head = x->next;
    s->n_free--;
    *x = (slot){.key = key, .next = -1, .state = SLOT_LOADING};
    s->slot_of[key] = (int32_t)(x - s->slots);
    return x;
}

/* Whether every expert of ids that is not there can get a slot now. */
static bool have_room(const expert_store *s, int layer, const int *ids, int n) {
    int missing = 0, kept = 0;
    for (int i = 0; i < n; i++) {
        const slot *x = slot_at(s, key_of(s, layer, ids[i]));
        if (!x)
            missing++;
        else if (x->pins == 0 && x->state == SLOT_READY)
            kept++;
    }
    return missing <= s->n_free + s->cache.n_heap - kept;
}

err expert_store_request(expert_store *s, int layer, const int *ids, int n) {
    pump(s, false);
    /* Reads that nobody waits for any more hold slots until they end; that is soon. */
    while (!have_room(s, layer, ids, n)) {
        if (s->n_unpinned_loading == 0 || !pump(s, true)) {
            return err_make(ERR_BUDGET,
                            "%d experts at once do not fit into a cache of %d (%d are in use)", n,
                            s->n_slots, s->n_slots - s->n_free - s->cache.n_heap);
        }
    }
    s->stats.requests += (uint64_t)n;
    cache_request(&s->cache, layer);
    for (int i = 0; i < n; i++) { /* hits first: no miss may evict them */
        int key = key_of(s, layer, ids[i]);
        cache_touch(&s->cache, key);
        slot *x = slot_at(s, key);
        if (!x) continue;
        pin(s, x);
        s->stats.hits++;
    }
    for (int i = 0; i < n; i++) {
        int key = key_of(s, layer, ids[i]);
        if (slot_at(s, key)) continue;
        slot *x = claim(s, key);
        x->pins = 1;
        s->stats.misses++;
        queue_put(s, &s->demand, x);
    }
    start_waiting(s);
    return err_none();
}

bool expert_store_ready(expert_store *s, int layer, int id) {
    slot *x = slot_at(s, key_of(s, layer, id));
    assert(x && x->pins > 0);
    if (x->state == SLOT_LOADING) pump(s, false);
    return x->state != SLOT_LOADING;
}

err expert_store_wait(expert_store *s, int layer, int id, expert_view *out) {
    slot *x = slot_at(s, key_of(s, layer, id));
    assert(x && x->pins > 0);
    memset(out, 0, sizeof *out);
    if (x->state == SLOT_LOADING) {
        uint64_t begin = os_now_ns();
        while (x->state == SLOT_LOADING && pump(s, true)) continue;
        s->stats.wait_ns += os_now_ns() - begin;
    }
    assert(x->state != SLOT_LOADING);
    if (x->state == SLOT_FAILED) {
        err e = within_expert(s, io_read_error(s->io, &x->failure), x->key);
        unpin(s, x);
        return e;
    }
    *out = x->view;
    return err_none();
}

void expert_store_release(expert_store *s, int layer, int id) {
    slot *x = slot_at(s, key_of(s, layer, id));
    assert(x);
    unpin(s, x);
}

void expert_store_tick(expert_store *s) {
    cache_tick(&s->cache);
    pump(s, false);
}

void expert_store_stats_get(expert_store *s, expert_store_stats *out) { *out = s->stats; }

void expert_store_stats_reset(expert_store *s) { s->stats = (expert_store_stats){0}; }

/* ---- invariants ---- */

static const char *check_slot(const expert_store *s, int32_t index) {
    const slot *x = &s->slots[index];
    if (x->state == SLOT_FREE) return x->key < 0 ? NULL : "a free slot has a key";
    if (x->key < 0 || x->key >= s->n_keys) return "a used slot has no key";
    if (s->slot_of[x->key] != index) return "1: slot_of does not lead back to the slot";
    bool evictable = cache_evictable(&s->cache, x->key);
    if (evictable != (x->state == SLOT_READY && x->pins == 0)) return "2: evictable or not";
    if (x->state == SLOT_FAILED && x->pins == 0) return "4: a failed slot that nobody waits for";
    if (x->state != SLOT_LOADING && (x->reads || x->queued)) return "reads of a slot that is done";
    return NULL;
}

const char *expert_store_check(const expert_store *s) {
    int used = 0, n_free = 0, known = 0, n_heap = 0, loading = 0;
    for (int32_t i = 0; i < s->n_slots; i++) {
        const char *wrong = check_slot(s, i);
        if (wrong) return wrong;
        used += s->slots[i].state != SLOT_FREE;
        loading += s->slots[i].state == SLOT_LOADING && s->slots[i].pins == 0;
        n_heap += s->slots[i].state == SLOT_READY && s->slots[i].pins == 0;
    }
    for (int i = 0; i < s->n_keys; i++) known += s->slot_of[i] >= 0;
    if (known != used) return "1: slot_of knows more or fewer slots than are used";
    if (n_heap != s->cache.n_heap) return "2: the heap is longer or shorter";
    for (int32_t i = s->free_head; i >= 0 && n_free <= s->n_slots; i = s->slots[i].next) n_free++;
    if (n_free != s->n_free || n_free + used != s->n_slots) return "3: the free list";
    if (loading != s->n_unpinned_loading) return "loading slots without a pin are miscounted";
    if (s->n_reads != io_room(s->io)) return "a read is lost";
    return NULL;
}
