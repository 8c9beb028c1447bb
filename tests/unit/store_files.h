/* store_files.h: files whose every byte is known, and maps of experts in them, for the tests of
 * src/io and src/store. Include after scratch.h. */
#ifndef TESTS_STORE_FILES_H
#define TESTS_STORE_FILES_H

#include <stdint.h>

#include "base/bits.h"
#include "store/expert_store.h"

#define WORLD_FILES 3

/* The byte at an offset of a file. */
static inline uint8_t file_byte(int file, int64_t offset) {
    uint64_t h = ((uint64_t)offset + (uint64_t)file * 0x9e3779b97f4a7c15u) * 0xbf58476d1ce4e5b9u;
    return (uint8_t)(h >> 37 ^ h >> 11);
}

static inline void write_file(const char *path, int file, int64_t bytes) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    for (int64_t i = 0; i < bytes; i++) fputc(file_byte(file, i), f);
    assert_int_equal(fclose(f), 0);
}

/* How the parts of a made-up checkpoint lie in its files. */
typedef struct world_shape {
    int n_layers, n_experts, n_parts;
    uint32_t part_bytes; /* of the largest part */
    int packed;    /* parts of an expert side by side, else part after part as in stacked tensors */
    int unaligned; /* parts start at odd places */
} world_shape;

typedef struct world {
    char names[WORLD_FILES][SCRATCH_PATH];
    const char *paths[WORLD_FILES];
    int64_t sizes[WORLD_FILES];
    expert_part *parts; /* owned */
    expert_map map;
    budget budget;
} world;

static inline uint32_t world_part_bytes(const world_shape *w, int part) {
    return part % 3 == 0 ? w->part_bytes : w->part_bytes / 16 + (w->unaligned ? 1 : 0);
}

static inline void world_place(world *w, const world_shape *shape, int layer, int expert,
                               int part) {
    int file = (layer + (shape->packed ? 0 : part)) % WORLD_FILES;
    int64_t index = ((int64_t)layer * shape->n_experts + expert) * shape->n_parts + part;
    int64_t at = w->sizes[file];
    if (shape->unaligned)
        at += 1 + index % 7;
    else if (shape->packed && part == 0)
        at = (at + IO_ALIGN - 1) / IO_ALIGN * IO_ALIGN;
    uint32_t bytes = world_part_bytes(shape, part);
    w->parts[index] = (expert_part){.offset = at, .bytes = bytes, .file = file};
    w->sizes[file] = at + bytes;
}

/* Writes the files into dir and fills the map. */
static inline void world_open(world *w, const char *dir, const world_shape *shape) {
    memset(w, 0, sizeof *w);
    size_t n = (size_t)shape->n_layers * (size_t)shape->n_experts * (size_t)shape->n_parts;
    w->parts = calloc(n, sizeof *w->parts);
    assert_non_null(w->parts);
    for (int i = 0; i < WORLD_FILES; i++) w->sizes[i] = 100 + 4 * i;
    for (int l = 0; l < shape->n_layers; l++) {
        int outer = shape->packed ? shape->n_experts : shape->n_parts;
        int inner = shape->packed ? shape->n_parts : shape->n_experts;
        for (int a = 0; a < outer; a++)
            for (int b = 0; b < inner; b++)
                world_place(w, shape, l, shape->packed ? a : b, shape->packed ? b : a);
    }
    for (int i = 0; i < WORLD_FILES; i++) {
        snprintf(w->names[i], SCRATCH_PATH, "%.900s/shard-%d.bin", dir, i);
        w->paths[i] = w->names[i];
        write_file(w->paths[i], i, w->sizes[i]);
    }
    w->map = (expert_map){.n_layers = shape->n_layers,
                          .n_experts = shape->n_experts,
                          .n_parts = shape->n_parts,
                          .n_files = WORLD_FILES,
                          .paths = w->paths,
                          .parts = w->parts};
    w->budget.limit = (size_t)1 << 30;
}

static inline void world_close(world *w) {
    free(w->parts);
    assert_int_equal(budget_used(&w->budget), 0);
}

static inline const expert_part *world_parts(const world *w, int layer, int id) {
    return w->parts +
           ((size_t)layer * (size_t)w->map.n_experts + (size_t)id) * (size_t)w->map.n_parts;
}

/* Every byte of every part is the file's, and every part is aligned. */
static inline void check_view(const world *w, int layer, int id, const expert_view *view) {
    const expert_part *parts = world_parts(w, layer, id);
    for (int p = 0; p < w->map.n_parts; p++) {
        assert_int_equal((uintptr_t)view->part[p] % 4, 0);
        for (uint32_t i = 0; i < parts[p].bytes; i++) {
            uint8_t want = file_byte(parts[p].file, parts[p].offset + i);
            if (view->part[p][i] != want)
                fail_msg("layer %d expert %d part %d byte %u: %02x, not %02x", layer, id, p, i,
                         view->part[p][i], want);
        }
    }
}

#endif
