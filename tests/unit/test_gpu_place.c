/* test_gpu_place.c: layers shared by a card and the processor (the processor plays the card too):
 * at every number of layers on the card the tokens of the exact path, going back, saving and
 * restoring; what the plan says and what is taken. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>

#include "gpu_rig.h"

static void check_placed(const fm_options *o, int n, const answer *want) {
    fm_engine *e;
    fm_session *s;
    fm_plan planned, taken;
    fm_model m;
    answer a;
    n_heard = 0;
    ok(fm_plan_get(o, &planned));
    ok(fm_engine_open(o, &e));
    fm_engine_plan(e, &taken);
    fm_model_get(e, &m);
    assert_int_equal(planned.trunk, taken.trunk);
    assert_int_equal(planned.cache, taken.cache);
    assert_int_equal(planned.vram_trunk, taken.vram_trunk);
    assert_int_equal(planned.vram_cache, taken.vram_cache);
    assert_string_equal(planned.places, taken.places);
    assert_int_equal(taken.card ? taken.card_layers : 0, n);
    assert_int_equal(m.gpu != NULL, n > 0);
    assert_int_equal(m.places != NULL, taken.shared);
    assert_true(taken.shared || n == 0 || n == m.layers);
    assert_int_equal(m.gpu_note != NULL, n == 0);
    assert_int_equal(n_heard, n == 0 || taken.shared);
    assert_true(m.gpu_bytes <= o->vram);
    if (m.places) assert_non_null(strstr(heard, m.places));
    assert_true(e->budget.used[BUDGET_TRUNK] <= taken.trunk);
    ok(fm_session_open(e, &s));
    ask(e, s, &a);
    same_answer(&a, want, "layers", n);
    free(a.logits);
    fm_engine_close(e);
}

static void check_every_number(const char *model) {
    fm_options o = options_for(model, "host");
    answer want = reference(model);
    fm_plan p;
    ok(fm_plan_get(&o, &p));
    assert_int_equal(p.card_layers, p.layers);
    for (int n = 0; n <= p.layers; n++) {
        o.vram = n ? vram_for(o, n) : MIB / 4;
        check_placed(&o, n, &want);
    }
    o.vram = 64 * MIB; /* with the embedding */
    check_placed(&o, p.layers, &want);
    free(want.logits);
}

static void test_hybrid(void **state) {
    (void)state;
    if (have_goldens()) check_every_number(HYBRID);
}

static void test_plain(void **state) {
    (void)state;
    if (have_goldens()) check_every_number(PLAIN);
}

/* ---- sessions whose state is in two places ---- */

static void test_sessions(void **state) {
    (void)state;
    if (!have_goldens()) return;
    fm_options o = options_for(HYBRID, "host");
    o.sessions = 2;
    o.vram = vram_for(o, 2);
    answer want = reference(HYBRID), a;
    fm_engine *e;
    fm_session *s, *t;
    ok(fm_engine_open(&o, &e));
    ok(fm_session_open(e, &s));
    ok(fm_session_open(e, &t));
    ask(e, s, &a);
    same_answer(&a, &want, "first", 0);
    size_t bytes = fm_session_save(s, NULL, 0);
    uint8_t *blob = malloc(bytes);
    assert_int_equal(fm_session_save(s, blob, bytes), bytes);
    fm_session_clear(s);
    ok(fm_session_restore(t, blob, bytes));
    /* Both advance in one step: t from its restored place, s from the start. */
    int32_t first[2] = {5, 5};
    ok(fm_session_sync(s, fm_session_tokens(t), fm_session_length(t), NULL, NULL));
    fm_item items[2] = {{s, &first[0], 1}, {t, &first[1], 1}};
    ok(fm_step(e, items, 2));
    const float *x = fm_session_logits(s), *y = fm_session_logits(t);
    for (int i = 0; i < a.vocab; i++) assert_true(fabsf(x[i] - y[i]) <= NEAR);
    /* Back to the prompt's end and on again. */
    free(a.logits);
    ask(e, t, &a);
    same_answer(&a, &want, "again", 0);
    free(blob);
    free(a.logits);
    free(want.logits);
    fm_engine_close(e);
}

/* ---- the table ---- */

static void test_table(void **state) {
    (void)state;
    static model_config c = {.layers = 5};
    layer_place p;
    char text[256], small[8];
    place_all(&p, &c, 0);
    assert_string_equal(place_text(&p, &c, text, sizeof text),
                        "embedding and layers 0-4 and the head on the card");
    assert_int_equal(place_layers(&p, &c, 0), 5);
    place_last(&p, &c, 2, true, 0);
    assert_string_equal(place_text(&p, &c, text, sizeof text),
                        "embedding and layers 0-2 on the processor, layers 3-4 and the head on "
                        "the card");
    assert_int_equal(place_layers(&p, &c, 0), 2);
    place_last(&p, &c, 1, false, 3);
    assert_string_equal(place_text(&p, &c, text, sizeof text),
                        "embedding and layers 0-3 on the processor, layer 4 on card 3, the head on "
                        "the processor");
    assert_string_equal(place_text(&p, &c, small, sizeof small), "embeddi");
    const layer_share card = {.place = &p, .device = 3}, own = {.place = &p, .device = PLACE_CPU};
    assert_true(share_has(card, 4) && !share_has(card, 3) && share_has(own, 3));
    assert_true(!share_has_part(card, &c, 0) && share_has_part(card, &c, 5));
    assert_true(!share_has_part(card, &c, 6) && share_has_part(own, &c, 6));
    c.tied_embeddings = true;
    place_last(&p, &c, 1, true, 3);
    assert_true(share_has_part(card, &c, 0) && share_has_part(own, &c, 0));
    c.tied_embeddings = false;
    assert_true(!share_has_part(card, &c, 0));
}

int main(int argc, char **argv) {
    (void)argc;
    golden_from(argv[0]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_table),
        cmocka_unit_test(test_hybrid),
        cmocka_unit_test(test_plain),
        cmocka_unit_test(test_sessions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
