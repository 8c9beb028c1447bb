/* test_app_route.c: what a plain LRU would have read for the requests of a run: against one that is
 * written down here, on the bundled model's recorded trace. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>
#include <stdint.h>
#include <string.h>

#include "../../apps/common/route_log.h"
#include "engine/engine_impl.h"
#include "engine_rig.h"
#include "store/trace.h"

#define EMBER  "assets/ember"
#define TRACE  "assets/ember/routing.jsonl"
#define PROMPT 3  /* tokens in one batch: a layer is asked once for all of them */
#define BEFORE 20 /* steps before the mark */
#define AFTER  60

#define KEYS 4096

typedef struct lru {
    int used[KEYS]; /* when, 0: never */
    bool there[KEYS];
    int n, room, now, missed;
} lru;

/* The keys of one request, all of them kept while it lasts: each is new in time. */
static void ask(lru *c, const bool *wanted, int first, int n) {
    for (int i = 0; i < n; i++)
        if (wanted[i]) c->used[first + i] = ++c->now;
    for (int i = 0; i < n; i++) {
        if (!wanted[i] || c->there[first + i]) continue;
        c->missed++;
        if (c->n == c->room) {
            int worst = -1;
            for (int k = 0; k < KEYS; k++) {
                bool asked = k >= first && k < first + n && wanted[k - first];
                if (c->there[k] && !asked && (worst < 0 || c->used[k] < c->used[worst])) worst = k;
            }
            assert_true(worst >= 0);
            c->there[worst] = false;
            c->n--;
        }
        c->there[first + i] = true;
        c->n++;
    }
}

static void ask_lines(lru *c, const trace *t, int line, int n_lines) {
    for (int layer = 0; layer < t->n_layers; layer++) {
        bool wanted[64] = {false};
        for (int i = 0; i < n_lines; i++) {
            const int32_t *ids;
            int n = trace_picks(t, line + i, layer, &ids);
            for (int k = 0; k < n; k++) wanted[ids[k]] = true;
        }
        ask(c, wanted, layer * 64, 64);
    }
}

static void test_lru(void **state) {
    (void)state;
    trace t;
    assert_ok(trace_read(TRACE, &t));
    assert_true(t.n_experts == 64 && t.n_layers * 64 <= KEYS);
    assert_true(t.n_tokens > PROMPT + BEFORE + AFTER);
    fm_options o;
    fm_options_init(&o);
    o.model_dir = EMBER;
    o.context = 512;
    o.memory = (size_t)1 << 40;
    o.gpu = "off";
    fm_plan p;
    ok(fm_plan_get(&o, &p));
    o.memory = p.trunk + p.kv + p.state + p.scratch + p.other + p.experts_total / 3;
    fm_engine *e;
    ok(fm_engine_open(&o, &e));
    ok(fm_routing_replay(e, TRACE));
    route_log *log;
    ok(route_log_open(e, &log));
    fm_session *s;
    ok(fm_session_open(e, &s));
    int32_t ids[PROMPT] = {1, 2, 3};
    ok(fm_session_sync(s, ids, PROMPT, NULL, NULL));
    for (int i = 0; i < BEFORE; i++) ok(fm_session_step(s, i));
    route_log_mark(log);
    for (int i = 0; i < AFTER; i++) ok(fm_session_step(s, i));
    double bytes;
    ok(route_log_lru(log, &bytes));

    static lru c;
    c.room = expert_store_slots(e->store);
    ask_lines(&c, &t, 0, PROMPT);
    for (int i = 0; i < BEFORE; i++) ask_lines(&c, &t, PROMPT + i, 1);
    int before = c.missed;
    for (int i = 0; i < AFTER; i++) ask_lines(&c, &t, PROMPT + BEFORE + i, 1);
    assert_true(before > c.room && c.missed > before);
    assert_int_equal((int64_t)bytes, (int64_t)(c.missed - before) * (int64_t)p.expert_bytes);
    route_log_close(log);
    fm_engine_close(e);
    trace_close(&t);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_lru)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
