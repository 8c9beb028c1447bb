/* test_gpu_lost.c: a card that fails at any call of a run: the request goes on, the tokens are
 * those of the processor, one sentence is said. The processor plays the card; gpu_fail_at makes it
 * fail. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>

#define PROMPT 20
#define STEPS  4
#include "gpu_rig.h"

static void open_rig(const fm_options *o, fm_engine **e, fm_session **s) {
    n_heard = 0;
    ok(fm_engine_open(o, e));
    ok(fm_session_open(*e, s));
}

/* What is said when the layers are shared is not counted. */
static int said(const fm_engine *e) { return n_heard - e->plan.face.shared; }

static void check_lost(fm_engine *e) {
    fm_model m;
    fm_model_get(e, &m);
    assert_null(m.gpu);
    assert_null(m.places);
    assert_non_null(m.gpu_note);
    assert_non_null(strstr(m.gpu_note, "was lost"));
    assert_non_null(strstr(heard, m.gpu_note));
    fm_plan p;
    fm_engine_plan(e, &p);
    assert_false(p.card);
    assert_true(budget_used(&e->budget) <= e->budget.limit);
}

/* The n-th call of a kind fails. False: this run had fewer (how many there are depends on which
 * experts had been read at each moment). */
static bool fail_once(const fm_options *o, gpu_call kind, int n, const answer *want) {
    fm_engine *e;
    fm_session *s;
    answer a;
    open_rig(o, &e, &s);
    bool shared = e->split != NULL;
    gpu_ops_fail_at(e->gpu, kind, n);
    ask(e, s, &a);
    same_answer(&a, want, "call of kind", (int)kind * 100000 + n);
    free(a.logits);
    if (e->gpu && n > 1) {
        fm_engine_close(e);
        return false;
    }
    check_lost(e);
    assert_int_equal(n_heard, 1 + shared);
    if (kind == GPU_CALL_WAIT) { /* the next question on the same engine */
        fm_session_clear(s);
        ask(e, s, &a);
        same_answer(&a, want, "afterwards", n);
        assert_int_equal(n_heard, 1 + shared);
        free(a.logits);
    }
    fm_engine_close(e);
    return true;
}

/* The first, the last and a call between of every kind. */
static void fail_everywhere(const fm_options *o, const answer *want, int kinds_wanted) {
    fm_engine *e;
    fm_session *s;
    answer a;
    int before[GPU_CALLS], calls[GPU_CALLS], kinds = 0;
    open_rig(o, &e, &s);
    for (int k = 0; k < GPU_CALLS; k++) before[k] = gpu_ops_calls(e->gpu, (gpu_call)k);
    ask(e, s, &a);
    same_answer(&a, want, "on the card", 0);
    for (int k = 0; k < GPU_CALLS; k++) calls[k] = gpu_ops_calls(e->gpu, (gpu_call)k) - before[k];
    assert_int_equal(said(e), 0);
    free(a.logits);
    fm_engine_close(e);
    for (int k = GPU_CALL_ANY + 1; k < GPU_CALLS; k++) {
        int at[] = {1, calls[k] / 2, calls[k]};
        kinds += calls[k] > 0;
        for (int i = 0; i < 3; i++) {
            bool fresh = at[i] > 0 && (i == 0 || at[i] > at[i - 1]);
            if (!fresh || at[i] > calls[k]) continue;
            for (int n = at[i]; n > 0 && !fail_once(o, (gpu_call)k, n, want);) n = n * 7 / 8;
        }
    }
    assert_true(kinds >= kinds_wanted);
}

static void test_resident(void **state) {
    (void)state;
    if (!have_goldens()) return;
    fm_options o = options_for(HYBRID, "host");
    answer want = reference(HYBRID);
    fail_everywhere(&o, &want, 4); /* graphs; no events once all is there */
    free(want.logits);
}

static void test_streamed(void **state) {
    (void)state;
    if (!have_goldens()) return;
    fm_options o = options_for(PLAIN, "host");
    answer want = reference(PLAIN);
    fm_plan p;
    ok(fm_plan_get(&o, &p));
    o.vram = vram_for(o, p.layers) + 128 * 1024; /* few slots for experts */
    fail_everywhere(&o, &want, 4);
    free(want.logits);
}

static void test_shared(void **state) {
    (void)state;
    if (!have_goldens()) return;
    fm_options o = options_for(HYBRID, "host");
    answer want = reference(HYBRID);
    o.vram = vram_for(o, 2);
    fail_everywhere(&o, &want, 4);
    free(want.logits);
}

/* ---- other sessions ---- */

/* Two conversations, and what each says next when the card is lost between or in their steps. */
static void test_idle_session(void **state) {
    (void)state;
    if (!have_goldens()) return;
    answer want = reference(HYBRID), a;
    fm_options o = options_for(HYBRID, "host");
    o.sessions = 2;
    fm_engine *e;
    fm_session *s, *t;
    open_rig(&o, &e, &s);
    ok(fm_session_open(e, &t));
    ask(e, s, &a);
    ok(fm_session_step(s, want.ids[STEPS])); /* nobody reads the logits */
    size_t length = fm_session_length(s);
    int32_t other[3] = {7, 8, 9};
    gpu_ops_fail_at(e->gpu, GPU_CALL_ANY, 1);
    ok(fm_session_sync(t, other, 3, NULL, NULL)); /* lost in here */
    check_lost(e);
    assert_int_equal(fm_session_length(s), length);
    assert_true(s->stale && s->logits_gone);
    const float *x = fm_session_logits(s);
    assert_non_null(x);
    assert_false(s->stale);
    fm_options off = options_for(HYBRID, "off");
    fm_engine *f;
    fm_session *u;
    ok(fm_engine_open(&off, &f));
    ok(fm_session_open(f, &u));
    ok(fm_session_sync(u, fm_session_tokens(s), length, NULL, NULL));
    for (int i = 0; i < a.vocab; i++) assert_true(fabsf(x[i] - fm_session_logits(u)[i]) <= NEAR);
    fm_engine_close(f);
    ok(fm_session_step(s, argmax(x, a.vocab)));
    assert_int_equal(fm_session_length(s), length + 1);
    assert_int_equal(n_heard, 1);
    free(a.logits);
    fm_engine_close(e);
    free(want.logits);
}

/* Lost while a place is remembered, when going back, and when a session is saved. */
static void test_other_calls(void **state) {
    (void)state;
    if (!have_goldens()) return;
    answer want = reference(HYBRID), a;
    for (int what = 0; what < 4; what++) {
        fm_options o = options_for(HYBRID, "host");
        fm_engine *e;
        fm_session *s;
        size_t kept, bytes;
        open_rig(&o, &e, &s);
        ask(e, s, &a);
        free(a.logits);
        int32_t *tokens = malloc(fm_session_length(s) * sizeof *tokens);
        memcpy(tokens, fm_session_tokens(s), fm_session_length(s) * sizeof *tokens);
        gpu_ops_fail_at(e->gpu, GPU_CALL_ANY, 1);
        if (what == 0) ok(fm_session_mark(s));
        if (what == 1) ok(fm_session_match(s, tokens, PROMPT, &kept));
        if (what == 2) fm_session_clear(s);
        bytes = fm_session_save(s, NULL, 0);
        uint8_t *blob = malloc(bytes);
        if (what == 3) assert_int_equal(fm_session_save(s, blob, bytes), 0);
        ask(e, s, &a);
        same_answer(&a, &want, "after", what);
        check_lost(e);
        bytes = fm_session_save(s, NULL, 0);
        free(blob);
        blob = malloc(bytes);
        assert_int_equal(fm_session_save(s, blob, bytes), bytes);
        ok(fm_session_restore(s, blob, bytes));
        assert_int_equal(n_heard, 1);
        free(blob);
        free(tokens);
        free(a.logits);
        fm_engine_close(e);
    }
    free(want.logits);
}

/* The processor would need more memory than there is: said, and no token is made. */
static void test_no_memory(void **state) {
    (void)state;
    if (!have_goldens()) return;
    fm_options o = options_for(HYBRID, "host");
    fm_engine *e;
    fm_session *s, *t;
    int32_t tokens[2] = {1, 2};
    o.sessions = 2;
    open_rig(&o, &e, &s);
    ok(fm_session_sync(s, tokens, 2, NULL, NULL));
    e->again.memory = 8 * MIB;
    gpu_ops_fail_at(e->gpu, GPU_CALL_WAIT, 1);
    fm_error failed = fm_session_step(s, 3);
    assert_int_equal(failed.code, FM_ERR_BUDGET);
    assert_non_null(strstr(failed.text, "was lost"));
    assert_non_null(strstr(failed.text, "cannot take over"));
    assert_non_null(strstr(failed.text, "memory limit 8 MiB"));
    assert_int_equal(n_heard, 1);
    for (int i = 0; i < 2; i++) {
        failed = fm_session_step(s, 3);
        assert_int_equal(failed.code, FM_ERR_BUDGET);
        assert_null(fm_session_logits(s));
    }
    assert_int_equal(fm_session_open(e, &t).code, FM_ERR_BUDGET);
    fm_session_clear(s);
    assert_int_equal(fm_session_sync(s, tokens, 2, NULL, NULL).code, FM_ERR_BUDGET);
    assert_int_equal(n_heard, 1);
    fm_engine_close(e);
}

/* The same by the name of the device, as a server is tested. */
static void test_by_name(void **state) {
    (void)state;
    if (!have_goldens()) return;
    answer want = reference(PLAIN), a;
    fm_options o = options_for(PLAIN, "host:60");
    fm_engine *e;
    fm_session *s;
    open_rig(&o, &e, &s);
    ask(e, s, &a);
    same_answer(&a, &want, "by name", 60);
    check_lost(e);
    free(a.logits);
    free(want.logits);
    fm_engine_close(e);
}

int main(int argc, char **argv) {
    (void)argc;
    golden_from(argv[0]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_resident),    cmocka_unit_test(test_streamed),
        cmocka_unit_test(test_shared),      cmocka_unit_test(test_idle_session),
        cmocka_unit_test(test_other_calls), cmocka_unit_test(test_no_memory),
        cmocka_unit_test(test_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
