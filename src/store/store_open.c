/* store_open.c: sizes, checks, files and memory of the expert store: see store_impl.h. */
#include <assert.h>
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/os.h"
#include "io/io_bench.h"
#include "store/store_impl.h"

/* Reading threads share a record in pieces, and so do two drives. io_uring leaves the cutting to
 * the kernel: a piece costs some disks as much as 160 KB (docs/MEASURED.md, "A disk that answers in
 * batches"). */
#define BLOCK_DEFAULT (1u << 20)
#define BLOCK_WHOLE   (16u << 20)
#define DEPTH_DEFAULT 64
#define KEYS_MAX      (1 << 24) /* layers x experts; the largest published models have 30,000 */
#define HUGE_FROM     ((size_t)16 << 20) /* arenas from here on ask for huge pages */
#define HUGE_PAGE     ((size_t)2 << 20)
#define REGISTER_UNIT ((size_t)16 << 20) /* pinned at once when first read into */
#define CACHED_ENOUGH 0.9                /* of every file */
#define PAGE_CACHE_OK                                                                              \
    ((size_t)64 << 20) /* so few experts that keeping them cached twice is nothing */

/* ---- sizes ---- */

size_t expert_store_slot_bytes(const expert_map *map) {
    size_t most = IO_ALIGN, n = store_key_count(map);
    for (size_t i = 0; i < n; i++) {
        record r;
        record_make(map->parts + i * (size_t)map->n_parts, map->n_parts, RECORD_ALIGN_LEAST, &r);
        if (r.bytes > most) most = r.bytes;
    }
    return most;
}

/* Everything beside the slots' bytes, for n slots. */
static size_t table_bytes(const expert_map *map, size_t n_slots) {
    size_t reads = IO_DEPTH_MAX * (sizeof(io_read) + sizeof(io_read *));
    size_t sum = reads + n_slots * sizeof(slot) + store_key_count(map) * (sizeof(int32_t) + 1);
    return round_up(sum + cache_memory(map->n_layers, map->n_experts) + 6 * 64, IO_ALIGN);
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
    size_t low = 0, high = store_key_count(map); /* low fits or is 0 */
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

/* ---- open, close ---- */

static err check_part(const expert_map *map, const io *files, size_t index) {
    const expert_part *p = &map->parts[index];
    size_t key = index / (size_t)map->n_parts;
    int layer = store_layer_number(map, (int)(key / (size_t)map->n_experts));
    int expert = (int)(key % (size_t)map->n_experts);
    if (p->file < 0 || p->file >= map->n_files || p->offset < 0 || p->offset > INT64_MAX / 2 ||
        p->bytes > STORE_PART_MAX) {
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

/* A record with a checksum: one piece from its first part on, as long as the map says. */
static err check_record(const expert_map *map, size_t key) {
    size_t layer = key / (size_t)map->n_experts;
    record r;
    record_make(map->parts + key * (size_t)map->n_parts, map->n_parts, RECORD_ALIGN_LEAST, &r);
    if (r.n_runs == 1 && r.runs[0].margin == 0 &&
        round_up(r.runs[0].bytes, IO_ALIGN) == map->record_bytes[layer])
        return err_none();
    return err_make(ERR_CORRUPT, "layer %d expert %zu: is not a record of %u bytes",
                    store_layer_number(map, (int)layer), key % (size_t)map->n_experts,
                    map->record_bytes[layer]);
}

static err check_map(const expert_map *map, const io *files) {
    if (map->n_layers < 1 || map->n_experts < 1 || map->n_parts < 1 ||
        map->n_parts > EXPERT_PARTS_MAX || map->n_layers > KEYS_MAX / map->n_experts) {
        return err_make(ERR_ARG, "%d layers of %d experts of %d parts cannot be stored",
                        map->n_layers, map->n_experts, map->n_parts);
    }
    size_t n = store_key_count(map) * (size_t)map->n_parts;
    for (size_t i = 0; i < n; i++) TRY(check_part(map, files, i));
    for (size_t i = 0; map->hashes && i < store_key_count(map); i++) TRY(check_record(map, i));
    return err_none();
}

/* The page cache has the files already, or nobody can tell and it could hold them. */
static bool page_cache_has_them(const expert_store *s) {
    double least = 1;
    for (int i = 0; i < s->map.n_files && least >= CACHED_ENOUGH; i++) {
        double share = os_cached_share(s->map.paths[i]);
        if (share < least) least = share;
    }
    if (least >= 0) return least >= CACHED_ENOUGH;
    os_memory memory;
    os_memory_get(&memory);
    return (size_t)s->n_keys * s->slot_bytes <= memory.available / 2;
}

/* Through the page cache when every expert fits and is there already (from a cache that has to be
 * filled first, past it is faster: docs/MEASURED.md, "Filling"), or when there are so few of them
 * that it does not matter. */
static bool page_cache_is_better(const expert_store *s) {
    if ((size_t)s->n_keys * s->slot_bytes <= PAGE_CACHE_OK) return true;
    return s->n_slots == s->n_keys && page_cache_has_them(s);
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
                        .mirrors = options->mirrors,
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
    s->lent = carve(s, n_keys);
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
    s->fill_at = s->n_keys;
    prefetch_init(&s->near, false);
    prefetch_init(&s->far, true);
    arena_freeze(&s->memory);
}

static uint32_t block_for(const expert_store *s, const expert_store_options *options) {
    uint32_t block = options->io_block;
    if (!block)
        block = io_engine(s->io) == IO_URING && io_drives(s->io) == 1 ? BLOCK_WHOLE : BLOCK_DEFAULT;
    return (uint32_t)round_up(size_min(block, INT32_MAX / 2), IO_ALIGN);
}

static err open_all(expert_store *s, const expert_store_options *options) {
    TRY(check_map(&s->map, NULL));
    s->n_keys = (int)store_key_count(&s->map);
    s->slot_bytes = expert_store_slot_bytes(&s->map);
    size_t n = slots_for(&s->map, s->slot_bytes, options->cache_bytes);
    if (n == 0) {
        return err_make(ERR_BUDGET, "%.1f MiB cannot hold one expert of %.1f MiB",
                        (double)options->cache_bytes / 1048576.0,
                        (double)s->slot_bytes / 1048576.0);
    }
    s->n_slots = (int)n;
    s->align = s->n_slots == s->n_keys ? RECORD_ALIGN_MOST : RECORD_ALIGN_LEAST;
    size_t bytes = arena_bytes(&s->map, n, s->slot_bytes);
    TRY(arena_open(&s->memory, options->budget, BUDGET_CACHE, bytes, bytes >= HUGE_FROM));
    s->base = arena_alloc(&s->memory, n * s->slot_bytes, IO_ALIGN);
    assert(s->base);
    TRY(open_files(s, options));
    s->direct = io_backend_direct(io_engine(s->io));
    s->block = block_for(s, options);
    s->pool = options->pool;
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
    s->demand = s->guesses = (slot_queue){-1, -1};
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
void expert_store_memory(const expert_store *s, uint8_t **base, size_t *bytes, size_t *slot_bytes) {
    *base = s->base;
    *bytes = (size_t)s->n_slots * s->slot_bytes;
    *slot_bytes = s->slot_bytes;
}

io_backend expert_store_backend(const expert_store *s) { return io_engine(s->io); }
