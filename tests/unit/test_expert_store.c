/* test_expert_store.c: the store against files whose every byte is known, against a twin that keeps
 * the whole history and looks through all of it, and against disks that fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>
#include <errno.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "io/io_fault.h"
#include "scratch.h"
#include "store/simulate.h"
#include "store_files.h"

static const io_backend engines[] = {IO_BUFFERED, IO_PREAD, IO_URING};
#define ENGINES 3

static const world_shape shapes[] = {
    {.n_layers = 3, .n_experts = 8, .n_parts = 9, .part_bytes = 6000, .unaligned = 1},
    {.n_layers = 3, .n_experts = 8, .n_parts = 9, .part_bytes = 8192},
    {.n_layers = 2, .n_experts = 9, .n_parts = 9, .part_bytes = 5000, .packed = 1},
    {.n_layers = 2, .n_experts = 9, .n_parts = 3, .part_bytes = 12345, .packed = 1, .unaligned = 1},
    {.n_layers = 1, .n_experts = 1, .n_parts = 1, .part_bytes = 1},
    {.n_layers = 4, .n_experts = 5, .n_parts = 2, .part_bytes = 40000},
};
#define SHAPES ((int)(sizeof shapes / sizeof *shapes))

/* Slots for n experts and no more. False where this machine lacks the engine. */
static bool open_store(world *w, io_backend backend, int n_slots, io_fault *fault,
                       expert_store **out) {
    expert_store_options o = {.cache_bytes = expert_store_floor(&w->map, n_slots),
                              .budget = &w->budget,
                              .backend = backend,
                              .io_block = 4096,

                              .fault = fault};
    err e = expert_store_open(&w->map, &o, out);
    if (e.code == ERR_UNSUPPORTED && backend == IO_URING) return false;
    assert_ok(e);
    assert_true(expert_store_slots(*out) >= n_slots ||
                expert_store_slots(*out) == w->map.n_layers * w->map.n_experts);
    assert_int_equal(expert_store_backend(*out), backend);
    return true;
}

static void check_store(const expert_store *s) {
    const char *wrong = expert_store_check(s);
    if (wrong) fail_msg("invariant: %s", wrong);
}

static void fetch(world *w, expert_store *s, int layer, int id) {
    expert_view view;
    assert_ok(expert_store_request(s, layer, &id, 1));
    assert_ok(expert_store_wait(s, layer, id, &view));
    assert_true(expert_store_ready(s, layer, id));
    check_view(w, layer, id, &view);
    expert_store_release(s, layer, id);
    check_store(s);
}

/* Every expert of every shape through one slot and through as many as there are. */
static void test_every_byte(void **state) {
    (void)state;
    for (int i = 0; i < SHAPES; i++) {
        world w;
        world_open(&w, scratch_dir(), &shapes[i]);
        int n_keys = shapes[i].n_layers * shapes[i].n_experts;
        for (int e = 0; e < 2 * ENGINES; e++) {
            expert_store *s;
            if (!open_store(&w, engines[e / 2], e % 2 ? n_keys : 1, NULL, &s)) continue;
            for (int round = 0; round < 2; round++)
                for (int l = 0; l < shapes[i].n_layers; l++)
                    for (int x = 0; x < shapes[i].n_experts; x++) fetch(&w, s, l, x);
            expert_store_stats st;
            expert_store_stats_get(s, &st);
            assert_int_equal(st.requests, 2 * n_keys);
            assert_int_equal(st.hits + st.misses, st.requests);
            if (expert_store_slots(s) == n_keys) assert_int_equal(st.misses, n_keys);
            if (expert_store_slots(s) == n_keys) assert_int_equal(st.evictions, 0);
            expert_store_close(s);
        }
        world_close(&w);
    }
}

/* Where every expert stays, its weights begin at a cache line: also those that lie off the lines in
 * their file, and however they are read. */
static void test_lines(void **state) {
    (void)state;
    static const world_shape stacked = {
        .n_layers = 2, .n_experts = 12, .n_parts = 9, .part_bytes = 16 * 404};
    world w;
    world_open(&w, scratch_dir(), &stacked);
    int n_keys = stacked.n_layers * stacked.n_experts, off = 0;
    for (int e = 0; e < ENGINES; e++) {
        expert_store *s;
        if (!open_store(&w, engines[e], n_keys, NULL, &s)) continue;
        for (int key = 0; key < n_keys; key++) {
            int layer = key / stacked.n_experts, id = key % stacked.n_experts;
            expert_view view;
            assert_ok(expert_store_request(s, layer, &id, 1));
            assert_ok(expert_store_wait(s, layer, id, &view));
            check_view(&w, layer, id, &view);
            for (int p = 0; p < stacked.n_parts; p++) {
                off += world_parts(&w, layer, id)[p].offset % 64 != 0;
                assert_int_equal((uintptr_t)view.part[p] % 64, 0);
            }
            expert_store_release(s, layer, id);
        }
        expert_store_close(s);
    }
    assert_true(off > n_keys); /* else nothing was moved */
    world_close(&w);
}

/* ---- the twin ---- */

#define TWIN_KEYS    64
#define TWIN_LAYERS  8
#define TWIN_TOUCHES 20000

typedef struct twin {
    int n_slots, n_layers, n_experts, n_resident, now, layer, n_touches;
    int asked[TWIN_LAYERS]; /* when a layer was last asked */
    int resident[TWIN_KEYS], pins[TWIN_KEYS];
    struct {
        int key, tick;
    } touches[TWIN_TOUCHES];
    uint64_t hits, misses, evictions;
} twin;

/* The whole history, summed up; *last is the number of the last touch. */
static double twin_worth(const twin *t, int key, int *last) {
    int layer = key / t->n_experts;
    double sum = 0, fast = exp2(-1 / CACHE_FAST), slow = exp2(-1 / CACHE_SLOW);
    *last = -1;
    for (int i = 0; i < t->n_touches; i++) {
        if (t->touches[i].key != key) continue;
        int age = t->asked[layer] - t->touches[i].tick;
        sum += (1 - fast) * pow(fast, age) + (1 - slow) * pow(slow, age);
        *last = i;
    }
    int ahead = (layer - t->layer + t->n_layers) % t->n_layers;
    if (ahead == 0) ahead = t->n_layers;
    return sum * exp2(-CACHE_PHASE * ahead / t->n_layers);
}

static int twin_victim(const twin *t) {
    int best = -1, best_last = 0;
    double best_worth = 0;
    for (int k = 0; k < TWIN_KEYS; k++) {
        int last;
        if (!t->resident[k] || t->pins[k]) continue;
        double worth = twin_worth(t, k, &last);
        bool same = best >= 0 && fabs(worth - best_worth) <= 1e-11 * (worth + best_worth);
        if (best < 0 || (same ? last < best_last : worth < best_worth)) {
            best = k;
            best_last = last;
            best_worth = worth;
        }
    }
    return best;
}

/* False when they cannot all be pinned. */
static bool twin_request(twin *t, const int *keys, int n) {
    int room = t->n_slots - t->n_resident, missing = 0;
    for (int k = 0; k < TWIN_KEYS; k++) room += t->resident[k] && !t->pins[k];
    for (int i = 0; i < n; i++) {
        if (!t->resident[keys[i]])
            missing++;
        else if (!t->pins[keys[i]])
            room--;
    }
    if (missing > room) return false;
    t->layer = keys[0] / t->n_experts;
    t->asked[t->layer] = t->now;
    for (int i = 0; i < n; i++) {
        t->touches[t->n_touches].key = keys[i];
        t->touches[t->n_touches++].tick = t->now;
        if (t->resident[keys[i]]) {
            t->hits++;
            t->pins[keys[i]]++;
        }
    }
    for (int i = 0; i < n; i++) {
        if (t->resident[keys[i]]) continue;
        t->misses++;
        if (t->n_resident == t->n_slots) {
            t->resident[twin_victim(t)] = 0;
            t->n_resident--;
            t->evictions++;
        }
        t->resident[keys[i]] = 1;
        t->pins[keys[i]] = 1;
        t->n_resident++;
    }
    return true;
}

typedef struct request {
    int layer, n, ids[16];
} request;

static void random_request(rng *r, const world *w, request *q) {
    q->layer = (int)(rng_next(r) % (uint64_t)w->map.n_layers);
    q->n = 1 + (int)(rng_next(r) % (uint64_t)int_min(6, w->map.n_experts));
    for (int i = 0; i < q->n; i++) {
        bool again = true;
        while (again) {
            double u = rng_unit(r); /* some experts are more popular than others */
            q->ids[i] = (int)(u * u * w->map.n_experts);
            again = false;
            for (int k = 0; k < i; k++) again |= q->ids[k] == q->ids[i];
        }
    }
}

static void finish_request(world *w, expert_store *s, twin *t, const request *q) {
    for (int i = 0; i < q->n; i++) {
        expert_view view;
        assert_ok(expert_store_wait(s, q->layer, q->ids[i], &view));
        check_view(w, q->layer, q->ids[i], &view);
    }
    for (int i = q->n - 1; i >= 0; i--) {
        expert_store_release(s, q->layer, q->ids[i]);
        if (t) t->pins[q->layer * w->map.n_experts + q->ids[i]]--;
    }
}

static void compare_with_twin(expert_store *s, const twin *t, int step) {
    expert_store_stats st;
    expert_store_stats_get(s, &st);
    if (st.hits != t->hits || st.misses != t->misses || st.evictions != t->evictions)
        fail_msg("step %d: %d hits, %d misses, %d evictions; the twin has %d, %d, %d", step,
                 (int)st.hits, (int)st.misses, (int)st.evictions, (int)t->hits, (int)t->misses,
                 (int)t->evictions);
}

/* Two requests overlap at any time, as two layers or two sessions do. */
static void run_twin(io_backend backend, int n_slots, uint64_t seed, int steps) {
    world w;
    world_open(&w, scratch_dir(), &shapes[0]);
    expert_store *s;
    twin *t = calloc(1, sizeof *t);
    t->n_layers = w.map.n_layers;
    t->n_experts = w.map.n_experts;
    if (!open_store(&w, backend, n_slots, NULL, &s))
        steps = 0;
    else
        t->n_slots = expert_store_slots(s);
    rng r;
    rng_seed(&r, seed);
    request held = {0};
    int refused = 0;
    for (int step = 0; step < steps; step++) {
        request q;
        random_request(&r, &w, &q);
        int keys[16];
        for (int i = 0; i < q.n; i++) keys[i] = q.layer * w.map.n_experts + q.ids[i];
        bool fits = twin_request(t, keys, q.n);
        err e = expert_store_request(s, q.layer, q.ids, q.n);
        if (fits)
            assert_ok(e);
        else
            assert_err(e, ERR_BUDGET, "do not fit");
        refused += !fits;
        check_store(s);
        finish_request(&w, s, t, &held);
        held = fits ? q : (request){0};
        compare_with_twin(s, t, step);
        check_store(s);
        if (rng_next(&r) % 4 == 0) {
            expert_store_tick(s);
            t->now++;
        }
    }
    if (steps) {
        assert_true(t->hits > 0 && t->misses > 0);
        if (n_slots < 8) assert_true(refused > 0);
        expert_store_close(s);
    }
    free(t);
    world_close(&w);
}

static void test_twin(void **state) {
    (void)state;
    for (int e = 0; e < ENGINES; e++) {
        run_twin(engines[e], 6, 1, 600);
        run_twin(engines[e], 12, 2, 600);
        run_twin(engines[e], 20, 3, 400);
        run_twin(engines[e], 24, 4, 200);
    }
}

/* Requests released before their reads end, in any order: what is read stays right. */
static void test_released_early(void **state) {
    (void)state;
    for (int e = 0; e < ENGINES; e++) {
        world w;
        world_open(&w, scratch_dir(), &shapes[0]);
        expert_store *s;
        if (!open_store(&w, engines[e], 7, NULL, &s)) {
            world_close(&w);
            continue;
        }
        rng r;
        rng_seed(&r, 5);
        for (int step = 0; step < 500; step++) {
            request q;
            random_request(&r, &w, &q);
            assert_ok(expert_store_request(s, q.layer, q.ids, q.n));
            check_store(s);
            for (int i = 0; i < q.n; i++) {
                expert_view view;
                if (rng_next(&r) % 2) {
                    assert_ok(expert_store_wait(s, q.layer, q.ids[i], &view));
                    check_view(&w, q.layer, q.ids[i], &view);
                }
                expert_store_release(s, q.layer, q.ids[i]);
                check_store(s);
            }
        }
        expert_store_close(s);
        world_close(&w);
    }
}

/* A routing trace through the store gives exactly the hits of the simulator. */
static void test_replay(void **state) {
    (void)state;
    world w;
    world_open(&w, scratch_dir(), &shapes[0]);
    char path[SCRATCH_PATH];
    scratch_path(path, "trace.jsonl");
    FILE *f = fopen(path, "w");
    rng r;
    rng_seed(&r, 6);
    for (int token = 0; token < 200; token++) {
        int32_t ids[3 * 4];
        for (int l = 0; l < 3; l++) {
            int first = (int)(rng_unit(&r) * rng_unit(&r) * 8);
            for (int i = 0; i < 4; i++)
                ids[l * 4 + i] = i > 1 + (int)(rng_next(&r) % 3) ? -1 : (first + i * i) % 8;
        }
        for (int i = 0; i < 12; i++) /* 3 * 3 == 1 mod 8: keep lists distinct */
            for (int k = i / 4 * 4; k < i; k++)
                if (ids[k] == ids[i]) ids[i] = -1;
        assert_ok(trace_write(f, token, ids, 3, 4));
    }
    fclose(f);
    trace t;
    assert_ok(trace_read(path, &t));
    t.n_experts = 8;
    for (int n_slots = 4; n_slots <= 24; n_slots += 5) {
        expert_store *s;
        assert_true(open_store(&w, IO_BUFFERED, n_slots, NULL, &s));
        simulation sim = {.n_slots = expert_store_slots(s)};
        simulation_result want;
        assert_ok(cache_simulate(&t, &sim, &want));
        for (int token = 0; token < t.n_tokens; token++) {
            expert_store_tick(s);
            for (int l = 0; l < 3; l++) {
                const int32_t *ids;
                request q = {.layer = l, .n = trace_picks(&t, token, l, &ids)};
                for (int i = 0; i < q.n; i++) q.ids[i] = ids[i];
                assert_ok(expert_store_request(s, l, q.ids, q.n));
                finish_request(&w, s, NULL, &q);
            }
        }
        expert_store_stats st;
        expert_store_stats_get(s, &st);
        assert_int_equal(st.requests, want.requests);
        assert_int_equal(st.hits, want.hits);
        assert_int_equal(st.evictions, want.evictions);
        assert_true(want.hits > 0 && (want.evictions > 0 || n_slots >= 24));
        expert_store_close(s);
    }
    trace_close(&t);
    world_close(&w);
}

/* ---- limits and bad maps ---- */

static void test_floor_and_budget(void **state) {
    (void)state;
    world w;
    world_open(&w, scratch_dir(), &shapes[1]);
    size_t slot = expert_store_slot_bytes(&w.map);
    assert_int_equal(slot % IO_ALIGN, 0);
    assert_true(expert_store_floor(&w.map, 4) >= 4 * slot);
    expert_store_options o = {.budget = &w.budget, .backend = IO_BUFFERED};
    expert_store *s = (expert_store *)1;
    o.cache_bytes = slot;
    assert_err(expert_store_open(&w.map, &o, &s), ERR_BUDGET, "cannot hold one expert");
    assert_null(s);
    w.budget.limit = expert_store_floor(&w.map, 3);
    o.cache_bytes = expert_store_floor(&w.map, 3);
    assert_ok(expert_store_open(&w.map, &o, &s));
    assert_int_equal(expert_store_slots(s), 3);
    assert_int_equal(w.budget.used[BUDGET_CACHE], o.cache_bytes);
    assert_err(expert_store_request(s, 0, (int[]){0, 1, 2, 3}, 4), ERR_BUDGET, "do not fit");
    assert_ok(expert_store_request(s, 0, (int[]){0, 1, 2}, 3));
    assert_err(expert_store_request(s, 1, (int[]){0}, 1), ERR_BUDGET, "3 are in use");
    for (int i = 0; i < 3; i++) expert_store_release(s, 0, i);
    fetch(&w, s, 1, 0);
    expert_store_close(s);
    o.cache_bytes =
        (size_t)1 << 29; /* more than the budget, but no more than all experts is taken */
    w.budget.limit = (size_t)1 << 28;
    assert_ok(expert_store_open(&w.map, &o, &s));
    assert_int_equal(expert_store_slots(s), 24);
    expert_store_close(s);
    w.budget.limit = 4096;
    assert_err(expert_store_open(&w.map, &o, &s), ERR_BUDGET, "memory limit");
    world_close(&w);
}

static void expect_bad_map(world *w, err_code code, const char *needle) {
    for (int e = 0; e < 2; e++) {
        expert_store_options o = {.budget = &w->budget, .backend = engines[e]};
        expert_store *s = (expert_store *)1;
        o.cache_bytes = (size_t)1 << 24;
        assert_err(expert_store_open(&w->map, &o, &s), code, needle);
        assert_null(s);
    }
}

static void test_bad_maps(void **state) {
    (void)state;
    world w;
    world_open(&w, scratch_dir(), &shapes[1]);
    expert_part good = w.parts[77];
    w.parts[77].offset = w.sizes[good.file] - 10;
    expect_bad_map(&w, ERR_CORRUPT, "layer 1 expert 0: ");
    w.map.layer_numbers = (int[]){0, 33, 34};
    expect_bad_map(&w, ERR_CORRUPT, "layer 33 expert 0: ");
    w.parts[77].offset = -4;
    expect_bad_map(&w, ERR_CORRUPT, "nowhere");
    w.parts[77].offset = INT64_MAX - 2;
    expect_bad_map(&w, ERR_CORRUPT, "nowhere");
    w.parts[77] = good;
    w.parts[77].file = WORLD_FILES;
    expect_bad_map(&w, ERR_CORRUPT, "nowhere");
    w.parts[77] = good;
    w.map.n_parts = 10;
    expect_bad_map(&w, ERR_ARG, "cannot be stored");
    w.map.n_parts = 9;
    w.paths[1] = "/nonexistent/file";
    expect_bad_map(&w, ERR_NOT_FOUND, "/nonexistent/file");
    w.paths[1] = scratch_dir();
    expect_bad_map(&w, ERR_IO, "not a regular file");
    world_close(&w);
}

/* ---- disks that fail ---- */

static void expect_failure(expert_store *s, int layer, int id, err_code code, const char *needle) {
    expert_view view;
    char place[64];
    snprintf(place, sizeof place, "layer %d expert %d: ", layer, id);
    assert_ok(expert_store_request(s, layer, &id, 1));
    err e = expert_store_wait(s, layer, id, &view);
    assert_err(e, code, place);
    assert_err(e, code, "/shard-");
    assert_err(e, code, " at offset ");
    assert_err(e, code, needle);
    assert_null(view.part[0]);
    check_store(s);
}

static void with_fault(int shape, io_fault_rule rule,
                       void (*check)(world *, expert_store *, io_fault *)) {
    for (int e = 0; e < ENGINES; e++) {
        world w;
        world_open(&w, scratch_dir(), &shapes[shape]);
        io_fault fault = {.n_rules = 1};
        fault.rules[0] = rule;
        expert_store *s;
        if (open_store(&w, engines[e], 4, &fault, &s)) {
            check(&w, s, &fault);
            check_store(s);
            expert_store_close(s);
        }
        world_close(&w);
    }
}

static void expect_recovery(world *w, expert_store *s, io_fault *fault) {
    for (int id = 0; id < w->map.n_experts; id++) fetch(w, s, 0, id);
    assert_true(atomic_load(&fault->struck) > 0);
}

static void expect_lasting(world *w, expert_store *s, io_fault *fault) {
    for (int id = 0; id < w->map.n_experts; id++)
        expect_failure(s, 0, id, ERR_IO, "Input/output error, after 3 tries");
    atomic_store(&fault->rules[0].times, 0); /* the disk is well again: so is the store */
    for (int id = 0; id < w->map.n_experts; id++) fetch(w, s, 0, id);
}

static void expect_ended(world *w, expert_store *s, io_fault *fault) {
    (void)w, (void)fault;
    expect_failure(s, 0, 1, ERR_CORRUPT, "ends");
}

static void test_faults(void **state) {
    (void)state;
    io_fault_rule rule = {
        .kind = IO_FAULT_ERROR, .value = EIO, .file = -1, .drive = -1, .last = -1};
    for (int i = 0; i < SHAPES; i++) {
        rule.kind = IO_FAULT_ERROR;
        rule.value = EIO;
        atomic_store(&rule.times, 2); /* two failures, then it works */
        with_fault(i, rule, expect_recovery);
        atomic_store(&rule.times, -1);
        with_fault(i, rule, expect_lasting);
        rule.value = EINTR;
        atomic_store(&rule.times, 500);
        with_fault(i, rule, expect_recovery);
        rule.kind = IO_FAULT_SHORT;
        rule.value = 0;
        atomic_store(&rule.times, 2);
        with_fault(i, rule, expect_recovery);
    }
    rule.value = 0;
    atomic_store(&rule.times, -1);
    with_fault(1, rule, expect_ended);
    for (int value = 1; value < 4096;
         value = value * 3 + 1) { /* half-filled blocks, filled in pieces */
        rule.value = value;
        atomic_store(&rule.times, 2);
        with_fault(0, rule, expect_recovery);
        with_fault(2, rule, expect_recovery);
    }
}

/* One bad block: the expert on it fails, its neighbours in the same request do not. */
static void test_bad_block(void **state) {
    (void)state;
    for (int e = 0; e < ENGINES; e++) {
        world w;
        world_open(&w, scratch_dir(), &shapes[1]);
        const expert_part *bad = world_parts(&w, 1, 3);
        io_fault fault = {.n_rules = 1};
        io_fault_rule *rule = &fault.rules[0];
        rule->kind = IO_FAULT_ERROR;
        rule->value = EIO;
        rule->drive = -1;
        rule->file = bad->file;
        rule->first = rule->last = bad->offset + 5000;
        atomic_store(&rule->times, -1);
        expert_store *s;
        if (!open_store(&w, engines[e], 4, &fault, &s)) {
            world_close(&w);
            continue;
        }
        expert_view view;
        for (int round = 0; round < 3; round++) {
            assert_ok(expert_store_request(s, 1, (int[]){1, 3, 5}, 3));
            assert_ok(expert_store_request(s, 1, (int[]){3}, 1));
            assert_ok(expert_store_wait(s, 1, 1, &view));
            check_view(&w, 1, 1, &view);
            assert_err(expert_store_wait(s, 1, 3, &view), ERR_IO, "layer 1 expert 3: ");
            assert_ok(expert_store_wait(s, 1, 5, &view));
            check_view(&w, 1, 5, &view);
            assert_err(expert_store_wait(s, 1, 3, &view), ERR_IO, "layer 1 expert 3: ");
            expert_store_release(s, 1, 1);
            expert_store_release(s, 1, 5);
            assert_ok(expert_store_request(s, 1, (int[]){3}, 1));
            expert_store_release(s, 1, 3); /* never waited for */
            check_store(s);
        }
        expert_store_close(s);
        world_close(&w);
    }
}

/* A file that loses its end while it is open. */
static void test_truncated_later(void **state) {
    (void)state;
    for (int e = 0; e < ENGINES; e++) {
        world w;
        world_open(&w, scratch_dir(), &shapes[5]);
        expert_store *s;
        if (!open_store(&w, engines[e], 3, NULL, &s)) {
            world_close(&w);
            continue;
        }
        const expert_part *last = world_parts(&w, 0, 4);
        assert_int_equal(truncate(w.paths[last->file], last->offset + 39990), 0);
        expect_failure(s, 0, 4, ERR_CORRUPT, "the file ends 10 bytes too early");
        fetch(&w, s, 0, 3);
        expert_store_close(s);
        world_close(&w);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_every_byte, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_lines, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_twin, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_replay, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_released_early, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_floor_and_budget, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_bad_maps, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_faults, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_bad_block, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_truncated_later, scratch_open, scratch_close),
    };
    return cmocka_run_group_tests_name("expert_store", tests, NULL, NULL);
}
