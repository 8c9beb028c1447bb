/* test_store_checksum.c: records with checksums: every one that is read is compared, a damaged one
 * fails the wait that needs it and nothing else, a second copy of it helps. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include "scratch.h"
#include "store_files.h"

static const io_backend engines[] = {IO_BUFFERED, IO_PREAD, IO_URING};
#define ENGINES 3
#define LAYERS  3
#define EXPERTS 8
#define RECORD  24576 /* bytes: three parts of 6,144 and six of 384 take 20,736 */

static const world_shape shape = {
    .n_layers = LAYERS, .n_experts = EXPERTS, .n_parts = 9, .part_bytes = 6144, .packed = 1};

typedef struct bed {
    world w;
    expert_store *s;
    pool *pool;
    uint64_t hashes[LAYERS * EXPERTS];
    uint32_t record_bytes[LAYERS];
    char second[WORLD_FILES][SCRATCH_PATH];
    const char *mirrors[WORLD_FILES];
} bed;

static uint64_t hash_of(const world *w, int layer, int id) {
    const expert_part *first = world_parts(w, layer, id);
    static uint8_t bytes[RECORD];
    for (int i = 0; i < RECORD; i++) bytes[i] = file_byte(first->file, first->offset + i);
    return XXH3_64bits(bytes, RECORD);
}

static void start(bed *b) {
    memset(b, 0, sizeof *b);
    world_open(&b->w, scratch_dir(), &shape);
    char dir[SCRATCH_PATH];
    scratch_path(dir, "second");
    mkdir(dir, 0700);
    for (int i = 0; i < WORLD_FILES; i++) { /* the last record's padding, too */
        write_file(b->w.paths[i], i, (b->w.sizes[i] + RECORD) / RECORD * RECORD);
        snprintf(b->second[i], SCRATCH_PATH, "%.900s/shard-%d.bin", dir, i);
        write_file(b->second[i], i, (b->w.sizes[i] + RECORD) / RECORD * RECORD);
        b->mirrors[i] = b->second[i];
    }
    for (int l = 0; l < LAYERS; l++) {
        b->record_bytes[l] = RECORD;
        for (int i = 0; i < EXPERTS; i++) b->hashes[l * EXPERTS + i] = hash_of(&b->w, l, i);
    }
    b->w.map.hashes = b->hashes;
    b->w.map.record_bytes = b->record_bytes;
}

/* False, with all closed, where this machine lacks the engine. */
static bool bed_open(bed *b, io_backend backend, bool mirrored) {
    assert_ok(pool_open(3, &b->pool));
    expert_store_options o = {.cache_bytes = expert_store_floor(&b->w.map, 6),
                              .budget = &b->w.budget,
                              .pool = b->pool,
                              .backend = backend,
                              .io_block = 4096,
                              .mirrors = mirrored ? b->mirrors : NULL};
    err e = expert_store_open(&b->w.map, &o, &b->s);
    if (e.code == ERR_UNSUPPORTED && backend == IO_URING) {
        pool_close(b->pool);
        world_close(&b->w);
        return false;
    }
    assert_ok(e);
    return true;
}

static void bed_close(bed *b) {
    const char *wrong = expert_store_check(b->s);
    if (wrong) fail_msg("invariant: %s", wrong);
    expert_store_close(b->s);
    pool_close(b->pool);
    world_close(&b->w);
}

static err get(bed *b, int layer, int id) {
    expert_view view;
    assert_ok(expert_store_request(b->s, layer, &id, 1));
    TRY(expert_store_wait(b->s, layer, id, &view));
    check_view(&b->w, layer, id, &view);
    expert_store_release(b->s, layer, id);
    return err_none();
}

/* Turns one bit of a byte of an expert's record around. */
static void flip(const char *path, int64_t offset) {
    FILE *f = fopen(path, "r+b");
    assert_non_null(f);
    fseek(f, (long)offset, SEEK_SET);
    int c = fgetc(f);
    fseek(f, (long)offset, SEEK_SET);
    fputc(c ^ 4, f);
    assert_int_equal(fclose(f), 0);
}

/* Six experts at once, as a layer asks for them. */
static void get_many(bed *b, int layer, int damaged) {
    int ids[] = {7, 2, 0, 5, 1, 4};
    expert_view view;
    assert_ok(expert_store_request(b->s, layer, ids, 6));
    for (int i = 0; i < 6; i++) {
        err e = expert_store_wait(b->s, layer, ids[i], &view);
        if (ids[i] == damaged) {
            assert_err(e, ERR_CORRUPT, "checksum");
            continue;
        }
        assert_ok(e);
        check_view(&b->w, layer, ids[i], &view);
        expert_store_release(b->s, layer, ids[i]);
    }
}

static void test_together(void **state) {
    (void)state;
    for (int e = 0; e < ENGINES; e++) {
        bed b;
        start(&b);
        if (!bed_open(&b, engines[e], false)) continue;
        const expert_part *first = world_parts(&b.w, 1, 5);
        flip(b.w.paths[first->file], first->offset + 5000);
        for (int round = 0; round < 2; round++)
            for (int l = 0; l < LAYERS; l++) get_many(&b, l, l == 1 ? 5 : -1);
        bed_close(&b);
    }
}

static void test_sound(void **state) {
    (void)state;
    for (int e = 0; e < ENGINES; e++) {
        bed b;
        start(&b);
        if (!bed_open(&b, engines[e], false)) continue;
        for (int round = 0; round < 2; round++)
            for (int l = 0; l < LAYERS; l++)
                for (int i = 0; i < EXPERTS; i++) assert_ok(get(&b, l, i));
        bed_close(&b);
    }
}

/* Any byte counts, the padding's too; the others go on; what is whole again is read again. */
static void test_damaged(void **state) {
    (void)state;
    const int at[] = {0, 7000, RECORD - 1};
    for (int e = 0; e < ENGINES; e++) {
        for (int k = 0; k < 3; k++) {
            bed b;
            start(&b);
            const expert_part *first = world_parts(&b.w, 1, 5);
            if (!bed_open(&b, engines[e], false)) continue;
            char where[64];
            snprintf(where, sizeof where, "shard-%d.bin at offset %lld: ", first->file,
                     (long long)first->offset);
            flip(b.w.paths[first->file], first->offset + at[k]);
            assert_ok(get(&b, 1, 4));
            err wrong = get(&b, 1, 5);
            assert_err(wrong, ERR_CORRUPT, "layer 1 expert 5: ");
            assert_err(wrong, ERR_CORRUPT, where);
            assert_err(wrong, ERR_CORRUPT, "checksum");
            assert_ok(get(&b, 1, 6));
            flip(b.w.paths[first->file], first->offset + at[k]);
            assert_ok(get(&b, 1, 5));
            bed_close(&b);
        }
    }
}

static void test_second_copy(void **state) {
    (void)state;
    for (int e = 0; e < ENGINES; e++) {
        bed b;
        start(&b);
        if (!bed_open(&b, engines[e], true)) continue;
        const expert_part *first = world_parts(&b.w, 2, 3);
        flip(b.w.paths[first->file], first->offset + 9000);
        assert_ok(get(&b, 2, 3));
        first = world_parts(&b.w, 0, 1);
        flip(b.second[first->file], first->offset + 9000);
        assert_ok(get(&b, 0, 1));
        flip(b.w.paths[first->file], first->offset);
        flip(b.second[first->file], first->offset);
        for (int i = 2; i < EXPERTS; i++) assert_ok(get(&b, 0, i));
        assert_err(get(&b, 0, 1), ERR_CORRUPT, "layer 0 expert 1: ");
        bed_close(&b);
    }
}

/* A guess that turns out damaged is nobody's failure, and no checksum is no comparison. */
static void test_guess_and_without(void **state) {
    (void)state;
    bed b;
    start(&b);
    assert_true(bed_open(&b, IO_BUFFERED, false));
    const expert_part *first = world_parts(&b.w, 1, 2);
    flip(b.w.paths[first->file], first->offset + 100);
    expert_store_hint(b.s, 1, (int[]){2}, 1);
    while (!expert_store_idle(b.s, 1000)) continue;
    assert_ok(get(&b, 1, 3));
    assert_err(get(&b, 1, 2), ERR_CORRUPT, "layer 1 expert 2: ");
    bed_close(&b);

    start(&b);
    flip(b.w.paths[0], 4096 * 40); /* somewhere: nobody looks */
    b.w.map.hashes = NULL;
    assert_true(bed_open(&b, IO_BUFFERED, false));
    int id = 7;
    expert_view view;
    for (int l = 0; l < LAYERS; l++) {
        assert_ok(expert_store_request(b.s, l, &id, 1));
        assert_ok(expert_store_wait(b.s, l, id, &view));
        expert_store_release(b.s, l, id);
    }
    bed_close(&b);
}

static void test_bad_maps(void **state) {
    (void)state;
    bed b;
    start(&b);
    expert_store_options o = {.cache_bytes = expert_store_floor(&b.w.map, 6),
                              .budget = &b.w.budget,
                              .backend = IO_BUFFERED};
    b.record_bytes[2] = RECORD + IO_ALIGN;
    assert_err(expert_store_open(&b.w.map, &o, &b.s), ERR_CORRUPT,
               "layer 2 expert 0: is not a record of 28672 bytes");
    b.record_bytes[2] = RECORD;
    b.w.parts[9 * EXPERTS].offset += 64; /* a first part that does not begin its record */
    assert_err(expert_store_open(&b.w.map, &o, &b.s), ERR_CORRUPT, "layer 1 expert 0: ");
    world_close(&b.w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_sound, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_together, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_damaged, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_second_copy, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_guess_and_without, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_bad_maps, scratch_open, scratch_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
