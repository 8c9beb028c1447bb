/* test_replay.c: the bundled model, given the experts of its own recorded trace, has exactly the
 * hits that the simulator of `flashchat benchmark cache` tells. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>
#include <stdint.h>
#include <string.h>

#include "engine/engine_impl.h"
#include "engine_rig.h"
#include "store/simulate.h"

#define EMBER  "assets/ember"
#define TRACE  "assets/ember/routing.jsonl"
#define TOKENS 250

/* Steps through the first n tokens of the trace with room for `share` of the experts. */
static void compare(trace *t, double share) {
    fm_options o;
    fm_options_init(&o);
    o.model_dir = EMBER;
    o.context = 512;
    o.no_look_ahead = true; /* what is read on a guess evicts, too, when the disk is idle */
    o.memory = (size_t)1 << 40;
    fm_plan p;
    ok(fm_plan_get(&o, &p));
    size_t held = p.trunk + p.kv + p.state + p.scratch + p.other;
    o.memory = held + (size_t)(share * (double)p.experts_total);
    fm_engine *e;
    ok(fm_engine_open(&o, &e));
    ok(fm_routing_replay(e, TRACE));
    fm_session *s;
    ok(fm_session_open(e, &s));
    fm_stats_reset(e);
    for (int i = 0; i < t->n_tokens; i++) ok(fm_session_step(s, i % 100));
    fm_stats got;
    fm_stats_get(e, &got);
    simulation sim = {.n_slots = expert_store_slots(e->store)};
    simulation_result want;
    assert_ok(cache_simulate(t, &sim, &want));
    print_message("%d slots: %llu of %llu are hits\n", sim.n_slots,
                  (unsigned long long)got.expert_hits, (unsigned long long)got.expert_requests);
    assert_int_equal(got.expert_requests, want.requests);
    assert_int_equal(got.expert_hits, want.hits);
    assert_int_equal(got.expert_evictions, want.evictions);
    assert_true(want.hits > 0 && want.evictions > 0);
    fm_engine_close(e);
}

static void test_hits(void **state) {
    (void)state;
    trace t;
    assert_ok(trace_read(TRACE, &t));
    assert_true(t.n_tokens >= TOKENS);
    t.n_tokens = TOKENS;
    trace_sort(&t);
    compare(&t, 0.12);
    compare(&t, 0.4);
    trace_close(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_hits)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
