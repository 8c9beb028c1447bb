/* test_cache.c: every eviction policy against a twin that remembers every touch and looks through
 * all of them; the simulator against the same twin; traces, good and bad; and the published
 * figures, where the traces that they were made with are at hand. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "scratch.h"
#include "store/simulate.h"

#define LAYERS  5
#define EXPERTS 9
#define KEYS    (LAYERS * EXPERTS)
#define STEPS   1500

/* ---- the twin: all that ever happened ---- */

typedef struct twin {
    cache_policy policy;
    int now, layer, asked[LAYERS], n_touches;
    int evictable[KEYS];
    uint64_t next_use[KEYS];
    struct {
        int key, tick;
    } touches[STEPS * 4];
} twin;

static double twin_sum(const twin *t, int key, double half_life, int until) {
    double sum = 0;
    for (int i = 0; i < t->n_touches; i++)
        if (t->touches[i].key == key) sum += exp2((t->touches[i].tick - until) / half_life);
    return sum;
}

static double twin_worth(const twin *t, int key) {
    int layer = key / EXPERTS, ahead = (layer - t->layer + LAYERS) % LAYERS;
    switch (t->policy) {
    case CACHE_BLEND: {
        double fast = (1 - exp2(-1 / CACHE_FAST)) * twin_sum(t, key, CACHE_FAST, t->asked[layer]);
        double slow = (1 - exp2(-1 / CACHE_SLOW)) * twin_sum(t, key, CACHE_SLOW, t->asked[layer]);
        return (fast + slow) * exp2(-CACHE_PHASE * (ahead ? ahead : LAYERS) / LAYERS);
    }
    case CACHE_DECAY: return twin_sum(t, key, CACHE_HALF_LIFE, t->now);
    case CACHE_LFU: return twin_sum(t, key, INFINITY, t->now);
    case CACHE_BELADY: return -(double)t->next_use[key];
    case CACHE_LRU: break;
    }
    return 0;
}

static int twin_last(const twin *t, int key) {
    for (int i = t->n_touches - 1; i >= 0; i--)
        if (t->touches[i].key == key) return i;
    return -1;
}

static bool twin_before(const twin *t, int a, int b) {
    double x = twin_worth(t, a), y = twin_worth(t, b);
    if (fabs(x - y) > 1e-11 * (fabs(x) + fabs(y))) return x < y;
    int p = twin_last(t, a), q = twin_last(t, b);
    return p != q ? p < q : a < b;
}

/* Of the keys from `first` on. */
static int twin_worst_of(const twin *t, int first, int n) {
    int worst = -1;
    for (int k = first; k < first + n; k++)
        if (t->evictable[k] && (worst < 0 || twin_before(t, k, worst))) worst = k;
    return worst;
}

static int twin_worst(const twin *t) { return twin_worst_of(t, 0, KEYS); }

/* ---- random lives ---- */

static void touch_some(twin *t, cache *c, rng *r) {
    int layer = rng_next(r) % 3 ? (t->layer + 1) % LAYERS : (int)(rng_next(r) % LAYERS);
    cache_request(c, layer);
    t->layer = layer;
    t->asked[layer] = t->now;
    for (int i = 0; i < 1 + (int)(rng_next(r) % 3); i++) {
        int key = layer * EXPERTS + (int)(rng_unit(r) * rng_unit(r) * EXPERTS);
        cache_touch(c, key);
        t->touches[t->n_touches].key = key;
        t->touches[t->n_touches++].tick = t->now;
        if (t->policy != CACHE_BELADY) continue;
        t->next_use[key] = rng_next(r) % 50;
        cache_next_use(c, key, t->next_use[key]);
    }
}

static void live(cache_policy policy, uint64_t seed) {
    void *memory = malloc(cache_memory(LAYERS, EXPERTS));
    twin *t = calloc(1, sizeof *t);
    t->policy = policy;
    cache c;
    cache_options o = {.policy = policy, .n_layers = LAYERS, .n_experts = EXPERTS};
    cache_init(&c, &o, memory);
    assert_int_equal(cache_worst(&c), -1);
    assert_int_equal(cache_worst_in(&c, 0), -1);
    rng r;
    rng_seed(&r, seed);
    for (int step = 0; step < STEPS; step++) {
        int key = (int)(rng_next(&r) % KEYS);
        switch (rng_next(&r) % 5) {
        case 0: cache_tick(&c), t->now++; break;
        case 1: touch_some(t, &c, &r); break;
        case 2: cache_add(&c, key), t->evictable[key] = 1; break;
        case 3: cache_remove(&c, key), t->evictable[key] = 0; break;
        case 4: /* the use of it: the worst goes */
            key = cache_worst(&c);
            if (key >= 0 && rng_next(&r) % 2) cache_remove(&c, key), t->evictable[key] = 0;
            break;
        }
        int layer = (int)(rng_next(&r) % LAYERS);
        if (rng_next(&r) % 4 == 0)
            assert_int_equal(cache_worst_in(&c, layer), twin_worst_of(t, layer * EXPERTS, EXPERTS));
        bool look = rng_next(&r) % 3 == 0; /* what happens in between meets a loose heap */
        if (look && cache_worst(&c) != twin_worst(t))
            fail_msg("%s, step %d: %d goes, not %d", cache_policy_name(policy), step,
                     cache_worst(&c), twin_worst(t));
        int n = 0;
        for (int k = 0; k < KEYS; k++) {
            assert_int_equal(cache_evictable(&c, k), t->evictable[k]);
            n += t->evictable[k];
        }
        assert_int_equal(c.n_heap, n);
    }
    free(t);
    free(memory);
}

static void test_policies(void **state) {
    (void)state;
    for (int p = 0; p < CACHE_POLICIES; p++)
        for (uint64_t seed = 1; seed <= 6; seed++) live((cache_policy)p, seed);
}

/* ---- the simulator ---- */

/* A trace of n tokens with habits: some experts are popular, and the last token's come back. */
static void make_trace(trace *t, int n, uint64_t seed) {
    *t = (trace){.n_tokens = n, .n_layers = LAYERS, .n_experts = EXPERTS, .n_picks = 3};
    t->ids = calloc((size_t)n * LAYERS * 3, sizeof *t->ids);
    rng r;
    rng_seed(&r, seed);
    for (int i = 0; i < n * LAYERS; i++) {
        int32_t *ids = t->ids + i * 3;
        for (int k = 0; k < 3; k++) {
            bool again = true;
            while (again) {
                again = i >= LAYERS && rng_next(&r) % 3 == 0;
                ids[k] = again ? t->ids[(i - LAYERS) * 3 + k]
                               : (int)(rng_unit(&r) * rng_unit(&r) * EXPERTS);
                if (ids[k] < 0) ids[k] = 0;
                again = (k > 0 && ids[k] == ids[0]) || (k > 1 && ids[k] == ids[1]);
            }
        }
        if (rng_next(&r) % 5 == 0) ids[2] = -1;
    }
}

/* When key is asked next after the request `at`; the twin of look_ahead. */
static uint64_t next_after(const trace *t, int at, int key) {
    for (int i = at + 1; i < t->n_tokens * LAYERS; i++)
        for (int k = 0; k < 3; k++)
            if (i % LAYERS * EXPERTS + t->ids[i * 3 + k] == key && t->ids[i * 3 + k] >= 0)
                return (uint64_t)i;
    return UINT64_MAX;
}

static void twin_request(const trace *of, twin *t, int at, int n_slots, simulation_result *out) {
    static int resident[KEYS], seen[KEYS];
    if (at == 0) memset(resident, 0, sizeof resident), memset(seen, 0, sizeof seen);
    int missing[3], n_missing = 0;
    t->layer = at % LAYERS;
    t->now = t->asked[t->layer] = at / LAYERS + 1;
    for (int k = 0; k < KEYS; k++) t->evictable[k] = resident[k];
    for (int i = 0; i < 3 && of->ids[at * 3 + i] >= 0; i++) {
        int key = t->layer * EXPERTS + of->ids[at * 3 + i];
        t->touches[t->n_touches].key = key;
        t->touches[t->n_touches++].tick = t->now;
        if (t->policy == CACHE_BELADY) t->next_use[key] = next_after(of, at, key);
        out->requests++;
        out->first_seen += !seen[key];
        seen[key] = 1;
        out->hits += resident[key] != 0;
        t->evictable[key] = 0;
        if (!resident[key]) missing[n_missing++] = key;
    }
    for (int i = 0; i < n_missing; i++) {
        int n = 0;
        for (int k = 0; k < KEYS; k++) n += resident[k];
        if (n == n_slots) {
            int worst = twin_worst(t);
            resident[worst] = t->evictable[worst] = 0;
            out->evictions++;
        }
        resident[missing[i]] = 1;
    }
}

static void test_simulator(void **state) {
    (void)state;
    for (int p = 0; p < CACHE_POLICIES; p++) {
        for (int n_slots = 3; n_slots <= KEYS; n_slots += 7) {
            trace t;
            make_trace(&t, 60, (uint64_t)n_slots);
            simulation s = {.cache = {.policy = (cache_policy)p}, .n_slots = n_slots};
            simulation_result want = {0}, got;
            twin *w = calloc(1, sizeof *w);
            w->policy = (cache_policy)p;
            for (int at = 0; at < t.n_tokens * LAYERS; at++)
                twin_request(&t, w, at, n_slots, &want);
            assert_ok(cache_simulate(&t, &s, &got));
            assert_memory_equal(&got, &want, sizeof got);
            s.n_slots = 2;
            assert_err(cache_simulate(&t, &s, &got), ERR_ARG, "too small");
            free(w);
            trace_close(&t);
        }
    }
}

/* No policy beats Belady's on any trace (all misses must be admitted, for it too). */
static void test_bound(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed < 20; seed++) {
        trace t;
        make_trace(&t, 100, seed);
        simulation_result bound, r;
        simulation s = {.cache = {.policy = CACHE_BELADY}, .n_slots = 4 + (int)seed * 2};
        assert_ok(cache_simulate(&t, &s, &bound));
        for (int p = 0; p < CACHE_POLICIES; p++) {
            s.cache.policy = (cache_policy)p;
            assert_ok(cache_simulate(&t, &s, &r));
            assert_true(r.hits <= bound.hits);
            assert_int_equal(r.requests, bound.requests);
            assert_int_equal(r.first_seen, bound.first_seen);
        }
        trace_close(&t);
    }
}

/* ---- traces ---- */

static void test_round_trip(void **state) {
    (void)state;
    trace t, back;
    make_trace(&t, 500, 8);
    char path[SCRATCH_PATH];
    scratch_path(path, "trace.jsonl");
    FILE *f = fopen(path, "w");
    assert_ok(trace_write_first(f, 12));
    for (int i = 0; i < t.n_tokens; i++)
        assert_ok(trace_write(f, 7 * i, t.ids + i * LAYERS * 3, LAYERS, 3));
    fclose(f);
    assert_ok(trace_read(path, &back));
    assert_int_equal(back.n_tokens, 500);
    assert_int_equal(back.n_layers, LAYERS);
    assert_int_equal(back.n_experts, 12);
    assert_int_equal(back.n_picks, 3);
    assert_memory_equal(back.ids, t.ids, 500 * LAYERS * 3 * sizeof *t.ids);
    for (int i = 0; i < 500; i++) assert_int_equal(back.tokens[i], 7 * i);
    assert_err(trace_write(stdin, 1, t.ids, LAYERS, TRACE_PICKS_MAX + 1), ERR_RANGE, "too many");
    f = fopen("/dev/full", "w");
    if (f) {
        setvbuf(f, NULL, _IONBF, 0);
        assert_err(trace_write(f, 1, t.ids, LAYERS, 3), ERR_IO, "cannot write the routing trace");
        assert_err(trace_write_first(f, 3), ERR_IO, "cannot write the routing trace");
        fclose(f);
    }
    trace_close(&t);
    trace_close(&back);
}

static void read_text(const char *text, trace *t, err_code code, const char *needle) {
    char path[SCRATCH_PATH];
    scratch_path(path, "t.jsonl");
    FILE *f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
    err e = trace_read(path, t);
    if (code == ERR_NONE) {
        assert_ok(e);
        return;
    }
    assert_err(e, code, "t.jsonl");
    assert_err(e, code, needle);
    assert_null(t->ids);
    assert_null(t->tokens);
}

static void test_reading(void **state) {
    (void)state;
    trace t;
    read_text(
        "{\"layers\": [[3, 1], [0]], \"more\": 1}\n\n  \n{\"tok\": 5, \"layers\": [[], [9, 8, 7]]}",
        &t, ERR_NONE, "");
    assert_int_equal(t.n_tokens, 2);
    assert_int_equal(t.n_layers, 2);
    assert_int_equal(t.n_experts, 10);
    assert_int_equal(t.n_picks, 3);
    const int32_t *ids;
    assert_int_equal(trace_picks(&t, 0, 0, &ids), 2);
    assert_int_equal(ids[1], 1);
    assert_int_equal(trace_picks(&t, 0, 1, &ids), 1);
    assert_int_equal(trace_picks(&t, 1, 0, &ids), 0);
    assert_int_equal(trace_picks(&t, 1, 1, &ids), 3);
    assert_int_equal(ids[2], 7);
    assert_int_equal(t.tokens[0], -1);
    assert_int_equal(t.tokens[1], 5);
    trace_close(&t);
    read_text("", &t, ERR_CORRUPT, "no tokens");
    read_text("{\"layers\": [[1]]}\n{\"layers\"", &t, ERR_CORRUPT, "line 2");
    read_text("[1]", &t, ERR_CORRUPT, "line 1: not a JSON object");
    read_text("{\"tok\": 3}", &t, ERR_CORRUPT, "line 1: \"layers\" is no list");
    read_text("{\"layers\": 3}", &t, ERR_CORRUPT, "line 1: \"layers\" is no list");
    read_text("{\"layers\": [3]}", &t, ERR_CORRUPT, "line 1: a layer is no list");
    read_text("{\"layers\": [[1.5]]}", &t, ERR_CORRUPT, "line 1: an expert is not a number");
    read_text("{\"layers\": [[-1]]}", &t, ERR_CORRUPT, "line 1: an expert is not a number");
    read_text("{\"layers\": [[65536]]}", &t, ERR_CORRUPT, "line 1: an expert is not a number");
    read_text("{\"layers\": [[4, 5, 4]]}", &t, ERR_CORRUPT, "line 1: an expert occurs twice");
    read_text("{\"layers\": [[1]]}\n{\"layers\": [[1], [2]]}", &t, ERR_CORRUPT,
              "line 2: another number");
    read_text("{\"flashchat\": \"routing trace\", \"experts\": 4}\n{\"layers\": [[4]]}", &t,
              ERR_CORRUPT, "line 2: an expert beyond");
    read_text("{\"flashchat\": \"routing trace\", \"experts\": -4}", &t, ERR_CORRUPT, "experts");
    assert_err(trace_read("/nonexistent/trace", &t), ERR_NOT_FOUND, "/nonexistent/trace");
}

/* ---- the published figures ---- */

/* Hits in percent of the published decayed-frequency cache; ours must reach them. */
static void check_published(const char *file, const double fractions[], const double hits[],
                            int n) {
    char path[SCRATCH_PATH];
    snprintf(path, sizeof path, "../shared/peer/traces/%s", file);
    trace t;
    err e = trace_read(path, &t);
    if (e.code == ERR_NOT_FOUND) skip();
    assert_ok(e);
    for (int i = 0; i < n; i++) {
        simulation s = {.n_slots = (int)(fractions[i] * t.n_layers * t.n_experts)};
        simulation_result r;
        assert_ok(cache_simulate(&t, &s, &r));
        double percent = 100.0 * (double)r.hits / (double)r.requests;
        if (percent < hits[i])
            fail_msg("%s, cache of %g: %.2f %%, not %.2f", file, fractions[i], percent, hits[i]);
    }
    trace_close(&t);
}

static void test_published(void **state) {
    (void)state;
    check_published("olmoe_299.jsonl", (double[]){0.05, 0.1, 0.2, 0.4},
                    (double[]){22.9, 34.4, 50.7, 74}, 4);
    check_published("kimi_300.jsonl", (double[]){0.05, 0.1, 0.2, 0.4},
                    (double[]){44, 57, 69.5, 83.5}, 4);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_policies),
        cmocka_unit_test(test_simulator),
        cmocka_unit_test(test_bound),
        cmocka_unit_test_setup_teardown(test_round_trip, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_reading, scratch_open, scratch_close),
        cmocka_unit_test(test_published),
    };
    return cmocka_run_group_tests_name("cache", tests, NULL, NULL);
}
