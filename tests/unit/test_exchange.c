/* test_exchange.c: exchanges between a card and memory pay where what was used is used again, and
 * do not where all experts are alike; both are found out, also when it changes. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka.h needs the four above first */
#include <cmocka.h>
#include <stdlib.h>

#include "base/bits.h"
#include "store/cache.h"
#include "store/exchange.h"

#define LAYERS  40
#define EXPERTS 256
#define KEYS    (LAYERS * EXPERTS)
#define K       8
#define STEPS   400
#define SEEDS   8

/* A card with every second expert and the policy's exchanges, one a layer, as the tier makes them.
 */
typedef struct rig {
    cache cache;
    exchange exchange;
    void *memory[2];
    bool owned[KEYS];
    rng random;
    int exchanges, missed; /* of the last run */
} rig;

static void rig_open(rig *r, uint64_t seed) {
    *r = (rig){0};
    rng_seed(&r->random, seed);
    cache_options options = {.n_layers = LAYERS, .n_experts = EXPERTS};
    r->memory[0] = malloc(cache_memory(LAYERS, EXPERTS));
    r->memory[1] = malloc(exchange_memory(KEYS));
    assert_non_null(r->memory[0]);
    assert_non_null(r->memory[1]);
    cache_init(&r->cache, &options, r->memory[0]);
    exchange_init(&r->exchange, LAYERS, KEYS, r->memory[1]);
    for (int key = 0; key < KEYS; key += 2) {
        r->owned[key] = true;
        cache_add(&r->cache, key);
    }
}

static void rig_close(rig *r) {
    free(r->memory[0]);
    free(r->memory[1]);
}

/* k different experts among `among` of them that begin at `first`. */
static void choose(rig *r, int first, int among, int *ids) {
    for (int n = 0; n < K;) {
        int id = (first + (int)(rng_next(&r->random) % (uint64_t)among)) % EXPERTS;
        bool is_new = true;
        for (int i = 0; i < n; i++) is_new &= ids[i] != id;
        if (is_new) ids[n++] = id;
    }
}

static void ask(rig *r, int layer, int key, int *missed, int *n) {
    cache_touch(&r->cache, key);
    exchange_touch(&r->exchange, key);
    assert_int_equal(key / EXPERTS, layer);
    if (r->owned[key])
        cache_remove(&r->cache, key);
    else
        missed[(*n)++] = key;
}

static void change_places(rig *r, int key) {
    int worst = cache_worst(&r->cache);
    if (worst < 0 || !cache_before(&r->cache, worst, key)) return;
    int same_layer = cache_worst_in(&r->cache, key / EXPERTS);
    if (!exchange_pays(&r->exchange, key, same_layer < 0 ? worst : same_layer)) return;
    cache_remove(&r->cache, worst);
    r->owned[worst] = false;
    r->owned[key] = true;
    r->exchanges++;
}

/* Steps whose requests are among `among` experts; which ones moves on every 100 steps. */
static void run(rig *r, int steps, int among) {
    r->exchanges = r->missed = 0;
    for (int t = 0; t < steps; t++) {
        cache_tick(&r->cache);
        for (int layer = 0; layer < LAYERS; layer++) {
            int ids[K], missed[K], n = 0;
            choose(r, t / 100 * 37, among, ids);
            cache_request(&r->cache, layer);
            exchange_visit(&r->exchange);
            for (int i = 0; i < K; i++) ask(r, layer, layer * EXPERTS + ids[i], missed, &n);
            r->missed += n;
            if (n) change_places(r, missed[0]);
            for (int i = 0; i < K; i++)
                if (r->owned[layer * EXPERTS + ids[i]])
                    cache_add(&r->cache, layer * EXPERTS + ids[i]);
        }
    }
}

static void test_all_alike(void **state) {
    (void)state;
    int exchanges = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        rig r;
        rig_open(&r, seed);
        run(&r, 100, EXPERTS);
        run(&r, STEPS, EXPERTS);
        exchanges += r.exchanges;
        assert_true(r.exchange.gain < 0.2 && r.exchange.gain > -0.2);
        rig_close(&r);
    }
    assert_in_range(exchanges, 0, SEEDS * STEPS * LAYERS / 8);
}

static void test_some_again(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        rig r;
        rig_open(&r, seed);
        run(&r, STEPS, 40);
        assert_true(r.exchange.gain > 0.5);
        /* Without exchanges half of the requests would be missed. */
        assert_in_range(r.missed, 1, STEPS * LAYERS * K / 5);
        rig_close(&r);
    }
}

/* What is asked for changes its nature, and back. */
static void test_change(void **state) {
    (void)state;
    int exchanges = 0;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        rig r;
        rig_open(&r, seed);
        run(&r, STEPS, EXPERTS);
        run(&r, STEPS, 40);
        assert_in_range(r.missed, 1, STEPS * LAYERS * K / 4);
        run(&r, 2 * STEPS, EXPERTS); /* until it has been seen */
        run(&r, STEPS, EXPERTS);
        exchanges += r.exchanges;
        rig_close(&r);
    }
    assert_in_range(exchanges, 0, SEEDS * STEPS * LAYERS / 8);
}

/* Counted by hand: one trial after the other, and more than there is room for. */
static void test_count(void **state) {
    (void)state;
    static uint32_t memory[4];
    exchange x;
    assert_int_equal(exchange_memory(4), sizeof memory);
    exchange_init(&x, 1, 4, memory);
    for (int i = 0; i < EXCHANGE_FIRST; i++) {
        exchange_visit(&x);
        exchange_touch(&x, 1);
        assert_true(exchange_pays(&x, 1, 2)); /* nothing is known yet */
        for (int step = 0; step < EXCHANGE_STEPS; step++) {
            exchange_visit(&x);
            if (step < 3) exchange_touch(&x, 1);
            if (step < 5) exchange_touch(&x, 2);
        }
    }
    exchange_visit(&x);
    assert_int_equal(x.seen, EXCHANGE_FIRST);
    assert_int_equal(x.n, 0);
    assert_float_equal(x.gain, -2, 1e-9);
    assert_false(exchange_pays(&x, 1, 2));
    for (int i = 0; i < 3 * EXCHANGE_TRIALS; i++) assert_false(exchange_pays(&x, 3, 0));
    assert_int_equal(x.n, EXCHANGE_TRIALS);
    for (int step = 0; step <= EXCHANGE_STEPS; step++) {
        exchange_visit(&x);
        exchange_touch(&x, 3);
    }
    assert_int_equal(x.n, 0);
    assert_true(x.gain > 10);
    assert_true(exchange_pays(&x, 3, 0));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_all_alike),
        cmocka_unit_test(test_some_again),
        cmocka_unit_test(test_change),
        cmocka_unit_test(test_count),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
