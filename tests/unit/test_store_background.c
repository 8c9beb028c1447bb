/* test_store_background.c: what the expert store reads without being asked: hints and their
 * governor, filling; and reads that are split over two drives. None of it may change what a request
 * gets. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/io_fault.h"
#include "scratch.h"
#include "store/prefetch.h"
#include "store_files.h"

static const io_backend engines[] = {IO_BUFFERED, IO_PREAD, IO_URING};
#define ENGINES 3

static const world_shape shape = {
    .n_layers = 3, .n_experts = 8, .n_parts = 9, .part_bytes = 6000, .unaligned = 1};
#define LAYERS  3
#define EXPERTS 8

typedef struct bed {
    world w;
    expert_store *s;
    io_fault fault;
    const char *const *mirrors;
} bed;

/* False, with all closed, where this machine lacks the engine. */
static bool bed_open(bed *b, io_backend backend, int n_slots) {
    expert_store_options o = {.cache_bytes = expert_store_floor(&b->w.map, n_slots),
                              .budget = &b->w.budget,
                              .backend = backend,
                              .io_block = 4096,
                              .mirrors = b->mirrors,
                              .fault = &b->fault};
    err e = expert_store_open(&b->w.map, &o, &b->s);
    if (e.code == ERR_UNSUPPORTED && backend == IO_URING) {
        world_close(&b->w);
        return false;
    }
    assert_ok(e);
    return true;
}

static void bed_check(const bed *b) {
    const char *wrong = expert_store_check(b->s);
    if (wrong) fail_msg("invariant: %s", wrong);
}

static void bed_close(bed *b) {
    bed_check(b);
    expert_store_close(b->s);
    world_close(&b->w);
}

static void start(bed *b) {
    memset(b, 0, sizeof *b);
    world_open(&b->w, scratch_dir(), &shape);
}

/* Requests and gets n experts from `first` on, around the layer's end. */
static void get(bed *b, int layer, int first, int n) {
    int ids[EXPERTS];
    for (int i = 0; i < n; i++) ids[i] = (first + i) % EXPERTS;
    assert_ok(expert_store_request(b->s, layer, ids, n));
    bed_check(b);
    for (int i = 0; i < n; i++) {
        expert_view view;
        assert_ok(expert_store_wait(b->s, layer, ids[i], &view));
        check_view(&b->w, layer, ids[i], &view);
        expert_store_release(b->s, layer, ids[i]);
        bed_check(b);
    }
}

static expert_store_stats stats_of(const bed *b) {
    expert_store_stats st;
    expert_store_stats_get(b->s, &st);
    assert_int_equal(st.hits + st.misses, st.requests);
    assert_int_equal(st.prefetch_used + st.prefetch_wasted, st.prefetch_issued);
    return st;
}

/* ---- the governor ---- */

static void test_governor(void **state) {
    (void)state;
    prefetch p;
    prefetch_init(&p, false);
    assert_int_equal(prefetch_hint(&p), PREFETCH_START);
    for (int i = 0; i < 200; i++) {
        prefetch_outcome(&p, true);
        assert_true(prefetch_hint(&p) >= 1 && prefetch_hint(&p) <= PREFETCH_MAX);
    }
    assert_int_equal(prefetch_hint(&p), PREFETCH_MAX);
    int before = PREFETCH_MAX;
    for (int i = 0; i < 200; i++) { /* one step at a time, down to nothing */
        prefetch_outcome(&p, false);
        assert_true(p.allowance == before || p.allowance == before - 1);
        before = p.allowance;
    }
    int allowed = 0;
    for (int i = 0; i < 10 * PREFETCH_RETRY; i++) allowed += prefetch_hint(&p);
    assert_int_equal(allowed, 10);
    for (int i = 0; i < 200; i++) prefetch_outcome(&p, true); /* and it comes back */
    assert_int_equal(prefetch_hint(&p), PREFETCH_MAX);
    for (int i = 0; i < 2000; i++) prefetch_outcome(&p, i % 20 < 11); /* 55 %: as it is */
    assert_true(prefetch_hint(&p) > 0);
}

/* What three in four outcomes being true leads to, from nothing and from the most. */
static void test_governor_sure(void **state) {
    (void)state;
    for (int far = 0; far < 2; far++) {
        for (int from = 0; from < 2; from++) {
            prefetch p;
            prefetch_init(&p, far);
            for (int i = 0; i < 200; i++) prefetch_outcome(&p, from);
            for (int i = 0; i < 2000; i++) prefetch_outcome(&p, i % 4);
            assert_int_equal(p.allowance, far ? 0 : PREFETCH_USUAL);
        }
    }
}

/* ---- hints ---- */

/* Hints that come true p times in 10, in a random life: every byte right, every count consistent.
 */
static void hint_life(bed *b, int p, uint64_t seed) {
    rng r;
    rng_seed(&r, seed);
    for (int step = 0; step < 300; step++) {
        if (step % LAYERS == 0) expert_store_tick(b->s);
        int layer = step % LAYERS, first = (int)(rng_next(&r) % EXPERTS);
        bool right = (int)(rng_next(&r) % 10) < p;
        int ids[3];
        for (int i = 0; i < 3; i++) ids[i] = (first + (right ? i : 4 + i)) % EXPERTS;
        expert_store_hint(b->s, layer, ids, 3);
        bed_check(b);
        if (rng_next(&r) % 4 == 0) expert_store_hint(b->s, (layer + 1) % LAYERS, ids, 3);
        if (rng_next(&r) % 4 == 0) expert_store_hint_far(b->s, (layer + 2) % LAYERS, ids, 3);
        if (rng_next(&r) % 3 == 0) expert_store_idle(b->s, 1);
        expert_store_tend(b->s);
        bed_check(b);
        get(b, layer, first, 1 + (int)(rng_next(&r) % 3));
        if (rng_next(&r) % 4 == 0)
            get(b, layer, (first + 4) % EXPERTS, 2); /* what was called off */
    }
}

static void test_hints(void **state) {
    (void)state;
    for (int e = 0; e < ENGINES; e++) {
        for (int p = 0; p <= 10; p += 5) {
            for (int n_slots = 3; n_slots <= 24; n_slots += 7) {
                bed b;
                start(&b);
                if (!bed_open(&b, engines[e], n_slots)) continue;
                hint_life(&b, p, (uint64_t)(p + n_slots));
                expert_store_stats st = stats_of(&b);
                if (p == 10 && n_slots == 10) assert_true(st.prefetch_used > 10);
                if (p == 0 && n_slots == 10) assert_true(st.prefetch_wasted > 0);
                bed_close(&b);
            }
        }
    }
}

/* A right hint, given time, turns a miss into a hit; a wrong one costs its read and no more. */
static void test_hint_effect(void **state) {
    (void)state;
    for (int e = 0; e < ENGINES; e++) {
        bed b;
        start(&b);
        if (!bed_open(&b, engines[e], 12)) continue;
        expert_store_hint(b.s, 1, (int[]){3}, 1);
        assert_true(expert_store_idle(b.s, 10000));
        uint64_t read = stats_of(&b).read_bytes;
        assert_true(read > 0);
        get(&b, 1, 3, 1);
        expert_store_stats st = stats_of(&b);
        assert_int_equal(st.read_bytes, read);
        assert_int_equal(st.hits, 1);
        assert_int_equal(st.prefetch_used, 1);
        expert_store_hint(b.s, 2, (int[]){5}, 1);
        assert_true(expert_store_idle(b.s, 10000));
        get(&b, 2, 6, 1);
        st = stats_of(&b);
        assert_int_equal(st.prefetch_wasted, 1);
        assert_int_equal(st.misses, 1);
        get(&b, 2, 5, 1); /* it is there all the same */
        assert_int_equal(stats_of(&b).hits, 2);
        bed_close(&b);
    }
}

/* A guess that has come is not evicted before its layer is asked, though its expert was used longer
 * ago than all others; nor does it stand in the way of a request that needs its slot. */
static void test_guess_stays(void **state) {
    (void)state;
    bed b;
    start(&b);
    assert_true(bed_open(&b, IO_BUFFERED, 10));
    for (int i = 0; i < 12; i++) {
        expert_store_tick(b.s);
        get(&b, i % 2, 0, 5);
    }
    for (int i = 0; i < 40; i++) expert_store_tick(b.s);
    get(&b, 0, 0, 1); /* the other layer's are cold now, those of this one hot */
    expert_store_hint(b.s, 2, (int[]){1, 2}, 2);
    assert_true(expert_store_idle(b.s, 1000));
    for (int i = 5; i < 8; i++) get(&b, 0, i, 1);
    uint64_t hits = stats_of(&b).hits;
    get(&b, 2, 1, 2);
    assert_int_equal(stats_of(&b).hits - hits, 2);
    for (int i = 0; i < 40; i++) expert_store_tick(b.s);
    expert_store_hint(b.s, 1, (int[]){6, 7}, 2);
    assert_true(expert_store_idle(b.s, 1000));
    get(&b, 2, 0, EXPERTS);
    assert_ok(expert_store_request(b.s, 0, (int[]){0, 1, 2, 3, 4, 5, 6, 7}, 8));
    assert_ok(expert_store_request(b.s, 1, (int[]){0, 1}, 2));
    bed_check(&b);
    for (int i = 0; i < 10; i++) expert_store_release(b.s, i / 8, i % 8);
    bed_close(&b);
}

/* Far guesses are read once the near ones have come true, and while few are on their way. */
static void test_far(void **state) {
    (void)state;
    bed b;
    start(&b);
    assert_true(bed_open(&b, IO_BUFFERED, EXPERTS + 4)); /* so that two layers' come and go */
    assert_false(expert_store_far_wanted(b.s));
    expert_store_hint_far(b.s, 2, (int[]){0, 1}, 2);
    assert_true(expert_store_idle(b.s, 1000));
    assert_int_equal(stats_of(&b).read_bytes, 0);
    for (int i = 0; i < 100 && !expert_store_far_wanted(b.s); i += 2) {
        for (int layer = 0; layer < 2; layer++) {
            int first = i % EXPERTS;
            expert_store_hint(b.s, layer, (int[]){first, first + 1}, 2);
            expert_store_idle(b.s, 1000);
            get(&b, layer, first, 2);
            for (int t = 0; t < 40; t++) expert_store_tick(b.s); /* cold: a guess may take them */
        }
    }
    assert_true((double)stats_of(&b).prefetch_used > PREFETCH_MEMORY / 2);
    uint64_t misses = stats_of(&b).misses;
    assert_true(expert_store_far_wanted(b.s));
    expert_store_hint_far(b.s, 2, (int[]){4, 5}, 2);
    assert_true(expert_store_idle(b.s, 1000));
    get(&b, 2, 4, 2);
    assert_int_equal(stats_of(&b).misses, misses);
    bed_close(&b);
}

/* Guesses that keep failing end, but for one now and then. */
static void test_hints_stop(void **state) {
    (void)state;
    bed b;
    start(&b);
    assert_true(bed_open(&b, IO_BUFFERED, 10));
    uint64_t last = 0;
    for (int round = 0; round < 400; round++) {
        int layer = round % LAYERS;
        if (layer == 0) expert_store_tick(b.s);
        expert_store_hint(b.s, layer, (int[]){6, 7, 5, 4}, 4);
        expert_store_idle(b.s, 1000);
        get(&b, layer, round / LAYERS % 2, 1);
        if (round == 200) last = stats_of(&b).prefetch_issued;
    }
    assert_true(last > 5);
    assert_true(stats_of(&b).prefetch_issued - last <= 200 / PREFETCH_RETRY + 1);
    bed_close(&b);
}

/* What was used in this token is not evicted for a guess. */
static void test_hot_stays(void **state) {
    (void)state;
    bed b;
    start(&b);
    assert_true(bed_open(&b, IO_BUFFERED, 6));
    expert_store_tick(b.s);
    get(&b, 0, 0, 6);
    expert_store_hint(b.s, 1, (int[]){1, 2}, 2);
    assert_true(expert_store_idle(b.s, 1000));
    get(&b, 0, 0, 6);
    expert_store_stats st = stats_of(&b);
    assert_int_equal(st.hits, 6);
    assert_int_equal(st.evictions, 0);
    for (int i = 0; i < 12; i++) { /* long unused, it may go */
        expert_store_tick(b.s);
        get(&b, 0, 0, 1);
    }
    expert_store_hint(b.s, 1, (int[]){1, 2}, 2);
    assert_true(expert_store_idle(b.s, 1000));
    assert_true(stats_of(&b).evictions > 0);
    get(&b, 0, 0, 1);
    assert_int_equal(stats_of(&b).misses, 6);
    bed_close(&b);
}

/* A guess whose read fails is no failure of the request that comes later. */
static void test_failed_guess(void **state) {
    (void)state;
    for (int e = 0; e < ENGINES; e++) {
        bed b;
        start(&b);
        b.fault.n_rules = 1;
        b.fault.rules[0] = (io_fault_rule){.value = EIO, .file = -1, .drive = -1, .last = -1};
        if (!bed_open(&b, engines[e], 6)) continue;
        for (int round = 0; round < 2; round++) {
            atomic_store(&b.fault.rules[0].times, -1);
            expert_store_hint(b.s, round, (int[]){2}, 1);
            if (round == 0) assert_true(expert_store_idle(b.s, 10000));
            bed_check(&b);
            atomic_store(&b.fault.rules[0].times, 0);
            if (round == 0) get(&b, round, 2, 1);
        }
        expert_view view; /* asked for while its reads fail: that is a failure, and not for ever */
        err e2 = expert_store_request(b.s, 1, (int[]){2}, 1);
        assert_ok(e2);
        err e3 = expert_store_wait(b.s, 1, 2, &view);
        if (!e3.code) expert_store_release(b.s, 1, 2);
        get(&b, 1, 2, 1);
        bed_close(&b);
    }
}

/* ---- filling ---- */

static void test_fill(void **state) {
    (void)state;
    for (int e = 0; e < ENGINES; e++) {
        for (int mixed = 0; mixed < 2; mixed++) {
            bed b;
            start(&b);
            if (!bed_open(&b, engines[e], LAYERS * EXPERTS)) continue;
            assert_false(expert_store_resident(b.s));
            expert_store_fill(b.s);
            for (int i = 0; mixed && i < 6; i++) get(&b, 2 - i % 3, i, 3);
            while (!expert_store_idle(b.s, 1)) bed_check(&b);
            assert_true(expert_store_resident(b.s));
            expert_store_stats before = stats_of(&b);
            for (int l = 0; l < LAYERS; l++) get(&b, l, 0, EXPERTS);
            expert_store_stats st = stats_of(&b);
            assert_int_equal(st.hits - before.hits, LAYERS * EXPERTS);
            assert_int_equal(st.read_bytes, before.read_bytes);
            assert_int_equal(st.evictions, 0);
            bed_close(&b);
        }
    }
}

/* Filling a cache that is too small does nothing; a bad block leaves one expert out. */
static void test_fill_limits(void **state) {
    (void)state;
    for (int e = 0; e < ENGINES; e++) {
        bed b;
        start(&b);
        if (!bed_open(&b, engines[e], LAYERS * EXPERTS - 1)) continue;
        expert_store_fill(b.s);
        assert_true(expert_store_idle(b.s, 10));
        assert_int_equal(stats_of(&b).read_bytes, 0);
        bed_close(&b);

        start(&b);
        const expert_part *bad = world_parts(&b.w, 1, 4);
        b.fault.n_rules = 1;
        b.fault.rules[0] = (io_fault_rule){.value = EIO, .file = bad->file, .drive = -1};
        b.fault.rules[0].first = b.fault.rules[0].last = bad->offset + 3000;
        atomic_store(&b.fault.rules[0].times, -1);
        if (!bed_open(&b, engines[e], LAYERS * EXPERTS)) continue;
        expert_store_fill(b.s);
        assert_true(expert_store_idle(b.s, 10000));
        assert_false(expert_store_resident(b.s));
        expert_view view;
        assert_ok(expert_store_request(b.s, 1, (int[]){4}, 1));
        assert_err(expert_store_wait(b.s, 1, 4, &view), ERR_IO, "layer 1 expert 4: ");
        atomic_store(&b.fault.rules[0].times, 0);
        get(&b, 1, 4, 1);
        expert_store_fill(b.s); /* its neighbours shared the block */
        assert_true(expert_store_idle(b.s, 10000));
        assert_true(expert_store_resident(b.s));
        bed_close(&b);
    }
}

/* The next layer's experts in order, an eighth of the slots; none taken from that layer itself. */
static void test_sweep(void **state) {
    (void)state;
    for (int e = 0; e < ENGINES; e++) {
        bed b;
        start(&b);
        if (!bed_open(&b, engines[e], 16)) continue;
        get(&b, 0, 0, 8);
        expert_store_stats_reset(b.s);
        expert_store_sweep(b.s, 1);
        bed_check(&b);
        while (!expert_store_idle(b.s, 1000)) continue;
        get(&b, 1, 0, 2);
        expert_store_stats st;
        expert_store_stats_get(b.s, &st);
        assert_int_equal(st.hits, 2);
        get(&b, 1, 2, 6);
        expert_store_stats_get(b.s, &st);
        assert_int_equal(st.misses, 6);
        for (int round = 0; round < 4; round++) /* with no slot free, and reads under way */
            for (int l = 0; l < LAYERS; l++) {
                expert_store_sweep(b.s, (l + 1) % LAYERS);
                expert_store_sweep(b.s, (l + 1) % LAYERS);
                get(&b, (l + 1) % LAYERS, round, 8);
            }
        bed_close(&b);
    }
}

/* ---- two drives ---- */

static char second[WORLD_FILES][SCRATCH_PATH];
static const char *second_paths[WORLD_FILES];

static void start_mirrored(bed *b) {
    start(b);
    char dir[SCRATCH_PATH];
    scratch_path(dir, "second");
    mkdir(dir, 0700);
    for (int i = 0; i < WORLD_FILES; i++) {
        snprintf(second[i], SCRATCH_PATH, "%.900s/shard-%d.bin", dir, i);
        second_paths[i] = second[i];
        write_file(second[i], i, b->w.sizes[i]);
    }
    b->mirrors = second_paths;
    b->fault.n_rules = 2; /* one that counts the calls of each drive and changes nothing */
    for (int d = 0; d < 2; d++) {
        b->fault.rules[d] = (io_fault_rule){
            .kind = IO_FAULT_SHORT, .value = INT_MAX, .file = -1, .drive = d, .last = -1};
        atomic_store(&b->fault.rules[d].times, 1000000);
    }
}

static int calls_of(const bed *b, int drive) {
    return 1000000 - atomic_load(&b->fault.rules[drive].times);
}

static void test_mirror(void **state) {
    (void)state;
    for (int e = 0; e < ENGINES; e++) {
        bed b;
        start_mirrored(&b);
        if (!bed_open(&b, engines[e], 6)) continue;
        for (int l = 0; l < LAYERS; l++) get(&b, l, l, 6);
        int first = calls_of(&b, 0), other = calls_of(&b, 1);
        assert_true(first > 0 && other > 0);
        assert_true(first < 2 * other && other < 2 * first);
        bed_close(&b);

        start_mirrored(
            &b); /* a mirror that fails: everything comes from the first, and soon only */
        b.fault.rules[1].kind = IO_FAULT_ERROR;
        b.fault.rules[1].value = EIO;
        assert_true(bed_open(&b, engines[e], 6));
        for (int round = 0; round < 4; round++)
            for (int l = 0; l < LAYERS; l++) get(&b, l, l, 6);
        assert_true(calls_of(&b, 1) >= IO_DRIVE_FAILURES_MAX);
        other = calls_of(&b, 1);
        for (int l = 0; l < LAYERS; l++) get(&b, l, l + 3, 6);
        assert_int_equal(calls_of(&b, 1), other);
        bed_close(&b);

        start_mirrored(&b); /* the first drive fails: the mirror serves */
        b.fault.rules[0].kind = IO_FAULT_ERROR;
        b.fault.rules[0].value = EIO;
        assert_true(bed_open(&b, engines[e], 6));
        for (int l = 0; l < LAYERS; l++) get(&b, l, l, 6);
        bed_close(&b);

        start_mirrored(&b); /* a mirror that loses its end while it is open */
        assert_true(bed_open(&b, engines[e], 6));
        for (int i = 0; i < WORLD_FILES; i++) assert_int_equal(truncate(second[i], 5000), 0);
        for (int l = 0; l < LAYERS; l++) get(&b, l, l, 6);
        bed_close(&b);

        start_mirrored(&b); /* both: an error that names a file */
        assert_true(bed_open(&b, engines[e], 6));
        for (int d = 0; d < 2; d++)
            b.fault.rules[d].kind = IO_FAULT_ERROR, b.fault.rules[d].value = EIO;
        expert_view view;
        assert_ok(expert_store_request(b.s, 0, (int[]){1}, 1));
        assert_err(expert_store_wait(b.s, 0, 1, &view), ERR_IO, "layer 0 expert 1: ");
        bed_close(&b);
    }
}

static void test_bad_mirror(void **state) {
    (void)state;
    bed b;
    start_mirrored(&b);
    expert_store_options o = {.cache_bytes = expert_store_floor(&b.w.map, 4),
                              .budget = &b.w.budget,
                              .backend = IO_BUFFERED,
                              .mirrors = second_paths};
    assert_int_equal(truncate(second[1], 5000), 0);
    assert_err(expert_store_open(&b.w.map, &o, &b.s), ERR_CORRUPT,
               "second/shard-1.bin: 5000 bytes");
    unlink(second[1]);
    assert_err(expert_store_open(&b.w.map, &o, &b.s), ERR_NOT_FOUND, "second/shard-1.bin");
    world_close(&b.w);
}

/* ---- below a faster memory ---- */

typedef struct upper { /* the faster memory: the bytes of what was lent */
    bed b;
    uint8_t *bytes[LAYERS * EXPERTS]; /* owned; by key; NULL: not lent */
    int n;
} upper;

static size_t upper_bytes(const upper *u) {
    return (size_t)u->b.w.map.n_parts * (size_t)u->b.w.map.parts[0].bytes;
}

static size_t part_bytes(const upper *u, int key, int part) {
    return u->b.w.map.parts[key * u->b.w.map.n_parts + part].bytes;
}

static void lend(upper *u, int layer, int id) {
    expert_view v;
    int key = layer * u->b.w.map.n_experts + id;
    assert_ok(expert_store_request(u->b.s, layer, &id, 1));
    assert_ok(expert_store_wait(u->b.s, layer, id, &v));
    uint8_t *to = u->bytes[key] = calloc(1, upper_bytes(u));
    assert_non_null(to);
    for (int i = 0; i < u->b.w.map.n_parts; i++) {
        memcpy(to, v.part[i], part_bytes(u, key, i));
        to += part_bytes(u, key, i);
    }
    expert_store_lend(u->b.s, layer, id);
    bed_check(&u->b);
    expert_store_release(u->b.s, layer, id);
    bed_check(&u->b);
    assert_false(expert_store_borrow(u->b.s, layer, id, &v));
    u->n++;
}

static void take_back(upper *u, int layer, int id, rng *r) {
    uint8_t *part[EXPERT_PARTS_MAX];
    int key = layer * u->b.w.map.n_experts + id;
    bool forgotten = rng_next(r) % 4 == 0;
    if (expert_store_take_back(u->b.s, layer, id, forgotten ? NULL : part)) {
        const uint8_t *from = u->bytes[key];
        for (int i = 0; i < u->b.w.map.n_parts; i++) {
            memcpy(part[i], from, part_bytes(u, key, i));
            from += part_bytes(u, key, i);
        }
        bed_check(&u->b);
        bool complete = rng_next(r) % 4 != 0;
        expert_store_returned(u->b.s, layer, id, complete);
        expert_view v;
        assert_int_equal(expert_store_borrow(u->b.s, layer, id, &v), complete);
        if (complete) check_view(&u->b.w, layer, id, &v);
        if (complete) expert_store_release(u->b.s, layer, id);
    }
    free(u->bytes[key]);
    u->bytes[key] = NULL;
    u->n--;
    bed_check(&u->b);
}

/* Experts wander up and down; hints, sweeps and filling leave alone what is above. */
static void test_lending(void **state) {
    (void)state;
    static upper u;
    start(&u.b);
    if (!bed_open(&u.b, IO_PREAD, 7)) return;
    rng r;
    rng_seed(&r, 5);
    for (int round = 0; round < 400; round++) {
        int key = (int)(rng_next(&r) % (LAYERS * EXPERTS)), layer = key / EXPERTS,
            id = key % EXPERTS;
        expert_store_tick(u.b.s);
        expert_store_note(u.b.s, layer, &id, u.bytes[key] != NULL);
        expert_store_hint(u.b.s, (layer + 1) % LAYERS, (int[]){id, (id + 1) % EXPERTS}, 2);
        if (round % 5 == 0) expert_store_sweep(u.b.s, layer);
        bed_check(&u.b);
        if (u.bytes[key])
            take_back(&u, layer, id, &r);
        else if (u.n < 18)
            lend(&u, layer, id);
        else
            get(&u.b, layer, id, 1);
    }
    for (int key = 0; key < LAYERS * EXPERTS; key++)
        if (!u.bytes[key] && u.n < 18) lend(&u, key / EXPERTS, key % EXPERTS);
    expert_store_fill(u.b.s); /* 18 above, the other 6 here */
    while (!expert_store_idle(u.b.s, 100)) continue;
    assert_true(expert_store_resident(u.b.s));
    bed_check(&u.b);
    for (int key = 0; key < LAYERS * EXPERTS; key++) free(u.bytes[key]);
    bed_close(&u.b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_governor),
        cmocka_unit_test(test_governor_sure),
        cmocka_unit_test(test_guess_stays),
        cmocka_unit_test(test_far),
        cmocka_unit_test_setup_teardown(test_hints, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_hint_effect, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_hints_stop, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_hot_stays, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_failed_guess, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_fill, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_fill_limits, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_sweep, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_lending, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_mirror, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_bad_mirror, scratch_open, scratch_close),
    };
    return cmocka_run_group_tests_name("store_background", tests, NULL, NULL);
}
