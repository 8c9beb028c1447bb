/* test_engine.c: sessions through the public API, on the golden checkpoints: the same bits at any
 * memory size, thread count and batching; going back, saving and restoring; what is refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>
#include <math.h>
#include <stdint.h>
#include <string.h>

#include "base/bits.h"
#include "engine_rig.h"

#define CONTEXT 512

typedef struct rig {
    fm_engine *engine;
    fm_session *session;
    int vocab;
} rig;

static void refused(fm_error e, fm_code code, const char *needle) {
    if (e.code != code || !strstr(e.text, needle))
        fail_msg("expected code %d \"%s\", found %d \"%s\"", code, needle, e.code, e.text);
}

static fm_options options_for(const char *model) {
    static char path[SCRATCH_PATH];
    golden_path(path, model, NULL);
    fm_options o;
    fm_options_init(&o);
    o.model_dir = path;
    o.context = CONTEXT;
    o.threads = 2;
    o.memory = 200 * MIB;
    return o;
}

static rig rig_with(const fm_options *o) {
    rig r = {0};
    ok(fm_engine_open(o, &r.engine));
    ok(fm_session_open(r.engine, &r.session));
    fm_model m;
    fm_model_get(r.engine, &m);
    r.vocab = m.vocab;
    return r;
}

static rig rig_open(const char *model) {
    fm_options o = options_for(model);
    return rig_with(&o);
}

static void rig_close(rig *r) { fm_engine_close(r->engine); }

static float *copy_logits(const rig *r, const fm_session *s) {
    float *out = malloc((size_t)r->vocab * sizeof *out);
    assert_non_null(out);
    assert_non_null(fm_session_logits(s));
    memcpy(out, fm_session_logits(s), (size_t)r->vocab * sizeof *out);
    return out;
}

static void same_logits(const rig *r, const fm_session *s, const float *want, const char *what) {
    if (memcmp(fm_session_logits(s), want, (size_t)r->vocab * sizeof *want))
        fail_msg("%s: other bits", what);
}

static void near_logits(const rig *r, const fm_session *s, const float *want, float bound) {
    const float *got = fm_session_logits(s);
    for (int i = 0; i < r->vocab; i++) {
        if (!(fabsf(got[i] - want[i]) <= bound))
            fail_msg("logit %d: %g, expected %g", i, (double)got[i], (double)want[i]);
    }
}

static bool have_goldens(void) {
    if (golden_root()) return true;
    skip();
    return false;
}

/* ---- the same bits ---- */

/* Prompt and a few steps under o; the logits of every step end up in *out. */
static void run(const fm_options *o, float **out, size_t *bytes) {
    enum { PROMPT = 90, STEPS = 6 };
    int32_t tokens[PROMPT + STEPS];
    make_tokens(tokens, PROMPT + STEPS, 7);
    rig r = rig_with(o);
    size_t one = (size_t)r.vocab * sizeof(float);
    *bytes = one * (STEPS + 1);
    *out = malloc(*bytes);
    assert_non_null(*out);
    ok(fm_session_sync(r.session, tokens, PROMPT, NULL, NULL));
    memcpy(*out, fm_session_logits(r.session), one);
    for (int i = 0; i < STEPS; i++) {
        ok(fm_session_step(r.session, tokens[PROMPT + i]));
        memcpy((uint8_t *)*out + one * (size_t)(i + 1), fm_session_logits(r.session), one);
    }
    rig_close(&r);
}

static void check_same_bits(const char *model, bool exact, fm_kv kv) {
    fm_options o = options_for(model);
    o.exact = exact;
    o.kv = kv;
    fm_plan p;
    ok(fm_plan_get(&o, &p));
    size_t memories[3] = {p.floor, p.floor + p.experts_total / 3, 200 * MIB};
    int threads[3] = {1, 2, 5};
    float *first = NULL;
    for (int i = 0; i < 9; i++) {
        o.memory = memories[i / 3];
        o.threads = threads[i % 3];
        if (i == 0) {
            fm_options probe = o;
            ok(fm_plan_get(&probe, &p));
        }
        float *got;
        size_t bytes;
        ok(fm_plan_get(&o, &p));
        if (!p.fits) o.memory = p.floor; /* the floor grows with threads */
        run(&o, &got, &bytes);
        if (first && memcmp(first, got, bytes))
            fail_msg("%s: other bits at %zu bytes, %d threads", model, o.memory, o.threads);
        if (first)
            free(got);
        else
            first = got;
    }
    free(first);
}

static void test_same_bits(void **state) {
    (void)state;
    if (!have_goldens()) return;
    check_same_bits(HYBRID, true, FM_KV_DEFAULT);
    check_same_bits(HYBRID, false, FM_KV_DEFAULT);
    check_same_bits("qwen3_5_moe", true, FM_KV_DEFAULT);
    check_same_bits(PLAIN, false, FM_KV_DEFAULT);
    check_same_bits(PLAIN, false, FM_KV_Q8);
}

/* ---- chunks, batches ---- */

static void test_chunked_is_stepped(void **state) {
    (void)state;
    if (!have_goldens()) return;
    const char *models[] = {HYBRID, PLAIN, "qwen3_next_mlx8"};
    for (int m = 0; m < 3; m++) {
        fm_options o = options_for(models[m]);
        o.exact = true;
        rig r = rig_with(&o);
        int32_t tokens[200];
        make_tokens(tokens, 200, 3);
        ok(fm_session_sync(r.session, tokens, 200, NULL, NULL));
        float *whole = copy_logits(&r, r.session);
        fm_session_clear(r.session);
        for (int i = 0; i < 200; i++) ok(fm_session_step(r.session, tokens[i]));
        near_logits(&r, r.session, whole, 2e-3f);
        free(whole);
        rig_close(&r);
    }
}

/* 8 bits: near the exact path (logits here are about 0.2 apart from one another), the same bits in
 * any chunks, and 34 bytes for every 64 of F16. */
/* The GPU's kernels keep the same bytes; they round halves away from zero. Not under
 * ThreadSanitizer, which cannot follow the many stacks of a processor that plays a GPU. */
static void q8_on_card(fm_options o, const int32_t *tokens, size_t n) {
    if (THREADS_WATCHED) return;
    o.gpu = "host";
    o.exact = false;
    rig r = rig_with(&o);
    ok(fm_session_sync(r.session, tokens, n, NULL, NULL));
    float *gpu = copy_logits(&r, r.session);
    rig_close(&r);
    o.gpu = "off";
    o.exact = true;
    r = rig_with(&o);
    ok(fm_session_sync(r.session, tokens, n, NULL, NULL));
    near_logits(&r, r.session, gpu, 0.05f);
    free(gpu);
    rig_close(&r);
}

static void test_q8(void **state) {
    (void)state;
    if (!have_goldens()) return;
    enum { N = 200 };
    fm_options o = options_for(PLAIN);
    o.exact = true;
    fm_plan f32, q8;
    ok(fm_plan_get(&o, &f32));
    rig r = rig_with(&o);
    int32_t tokens[N];
    make_tokens(tokens, N, 3);
    ok(fm_session_sync(r.session, tokens, N, NULL, NULL));
    float *exact = copy_logits(&r, r.session);
    rig_close(&r);
    o.kv = FM_KV_Q8;
    ok(fm_plan_get(&o, &q8));
    assert_int_equal(q8.kv * 128, f32.kv * 34);
    assert_int_equal(q8.kv_type, FM_KV_Q8);
    r = rig_with(&o);
    for (int i = 0; i < N; i++) ok(fm_session_step(r.session, tokens[i]));
    near_logits(&r, r.session, exact, 0.05f);
    float *stepped = copy_logits(&r, r.session);
    assert_true(memcmp(stepped, exact, (size_t)r.vocab * sizeof *exact) != 0);
    for (size_t first = 1; first < N; first += 66) {
        fm_session_clear(r.session);
        ok(fm_session_sync(r.session, tokens, first, NULL, NULL));
        ok(fm_session_sync(r.session, tokens, N, NULL, NULL));
        same_logits(&r, r.session, stepped, "8 bits in other chunks");
    }
    free(exact);
    free(stepped);
    rig_close(&r);
    q8_on_card(o, tokens, 40);
    o.kv = (fm_kv)9;
    refused(fm_plan_get(&o, &q8), FM_ERR_ARG, "f16 and q8");
}

/* Two sessions of one timeline on a card: one picks as it likes (from the highest logits, or all),
 * the other one from all. Steps of one of them alone overwrite the card's logits, saving and going
 * back read them: tokens and logits stay the same. */
static void picks_on_card(const fm_sampling *p, bool masked) {
    enum { STEPS = 12 };
    fm_options o = options_for(HYBRID);
    o.sessions = 2;
    o.gpu = "host";
    rig r = rig_with(&o);
    fm_session *s[2] = {r.session, NULL};
    fm_sampler *sampler[2];
    int32_t tokens[8], id[2];
    uint64_t mask[5] = {0, ~0ull, 0xffff00000000ffffull, 1, 0x8000000000000001ull};
    const uint64_t *allowed = masked ? mask : NULL;
    make_tokens(tokens, 8, p->seed);
    ok(fm_session_open(r.engine, &s[1]));
    for (int i = 0; i < 2; i++) ok(fm_sampler_open(r.engine, p, &sampler[i]));
    for (int i = 0; i < 2; i++) ok(fm_session_sync(s[i], tokens, 8, NULL, NULL));
    for (int k = 0; k < STEPS; k++) {
        ok(fm_session_pick(s[0], sampler[0], allowed, &id[0]));
        ok(fm_sampler_pick(sampler[1], fm_session_logits(s[1]), allowed, &id[1]));
        assert_int_equal(id[0], id[1]);
        fm_item items[2] = {{s[0], &id[0], 1}, {s[1], &id[1], 1}};
        if (k % 3 == 0) {
            ok(fm_step(r.engine, items, 2));
        } else {
            ok(fm_step(r.engine, &items[k % 2], 1));
            ok(fm_step(r.engine, &items[1 - k % 2], 1));
        }
        if (k % 4 == 0) same_logits(&r, s[0], fm_session_logits(s[1]), "logits after a step");
        if (k % 5 == 4) {
            size_t bytes = fm_session_save(s[0], NULL, 0);
            void *blob = malloc(bytes);
            assert_int_equal(fm_session_save(s[0], blob, bytes), bytes);
            ok(fm_session_restore(s[0], blob, bytes));
            free(blob);
        }
    }
    for (int i = 0; i < 2; i++) fm_sampler_close(sampler[i]);
    rig_close(&r);
}

static void test_picks_on_card(void **state) {
    (void)state;
    if (THREADS_WATCHED || !have_goldens()) return;
    for (int i = 0; i < 6; i++) {
        fm_sampling p;
        fm_sampling_init(&p);
        p.temperature = i % 3 ? 0.5f * (float)i : 0;
        p.top_k = (const int[]){0, 20, 5, 0, 128, 0}[i];
        p.top_p = i == 2 ? 0.8f : 1;
        p.presence_penalty = i == 1 || i == 3 ? 1.5f : 0;
        p.seed = (uint64_t)i + 1;
        picks_on_card(&p, i == 3 || i == 4);
    }
}

static void test_batch_is_alone(void **state) {
    (void)state;
    if (!have_goldens()) return;
    enum { N = 5, LENGTH = 40 };
    fm_options o = options_for(HYBRID);
    o.sessions = N;
    rig r = rig_with(&o);
    int32_t tokens[N][LENGTH];
    float *alone[N];
    fm_session *s[N] = {r.session};
    for (int i = 1; i < N; i++) ok(fm_session_open(r.engine, &s[i]));
    fm_session *more;
    refused(fm_session_open(r.engine, &more), FM_ERR_BUSY, "5 sessions");
    for (int i = 0; i < N; i++) {
        make_tokens(tokens[i], LENGTH, (uint64_t)i + 11);
        fm_session_clear(s[0]);
        fm_item part = {.session = s[0], .tokens = tokens[i], .count = 20 + i};
        ok(fm_step(r.engine, &part, 1));
        for (int t = 20 + i; t < LENGTH; t++) ok(fm_session_step(s[0], tokens[i][t]));
        alone[i] = copy_logits(&r, s[0]);
    }
    fm_session_clear(s[0]);
    fm_item items[N];
    for (int i = 0; i < N; i++)
        items[i] = (fm_item){.session = s[i], .tokens = tokens[i], .count = 20 + i};
    ok(fm_step(r.engine, items, N));
    for (int t = 20; t < LENGTH; t++) {
        int n = 0;
        for (int i = 0; i < N; i++) {
            if (t + i < LENGTH)
                items[n++] = (fm_item){.session = s[i], .tokens = &tokens[i][t + i], .count = 1};
        }
        ok(fm_step(r.engine, items, n));
    }
    for (int i = 0; i < N; i++) {
        same_logits(&r, s[i], alone[i], "batched");
        free(alone[i]);
    }
    rig_close(&r);
}

/* ---- prefixes ---- */

static void check_prefix(const char *model, bool recurrent) {
    rig r = rig_open(model);
    int32_t tokens[120], other[120];
    make_tokens(tokens, 120, 5);
    memcpy(other, tokens, sizeof other);
    other[100] = (other[100] + 1) % 320;
    size_t marks[] = {64}, reused = 1;
    fm_sync sync = {.marks = marks, .n_marks = 1};
    ok(fm_session_sync(r.session, tokens, 110, &sync, &reused));
    assert_int_equal(reused, 0);
    ok(fm_session_sync(r.session, tokens, 110, NULL, &reused));
    assert_int_equal(reused, 110);
    ok(fm_session_sync(r.session, tokens, 120, NULL, &reused));
    assert_int_equal(reused, 110);
    ok(fm_session_sync(r.session, other, 120, NULL, &reused));
    assert_int_equal(reused, recurrent ? 64 : 100);
    float *went_back = copy_logits(&r, r.session);
    fm_session_clear(r.session);
    ok(fm_session_sync(r.session, other, 120, &sync, &reused));
    assert_int_equal(reused, 0);
    if (recurrent)
        same_logits(&r, r.session, went_back, "from the snapshot at 64");
    else
        near_logits(&r, r.session, went_back, 1e-4f);
    free(went_back);
    /* the last token again: something must be computed for its logits */
    ok(fm_session_sync(r.session, other, 119, NULL, &reused));
    assert_true(reused < 119);
    assert_int_equal(fm_session_length(r.session), 119);
    size_t kept = 7;
    ok(fm_session_match(r.session, tokens, 120, &kept));
    assert_int_equal(kept, fm_session_length(r.session));
    assert_int_equal(kept, recurrent ? 64 : 100);
    rig_close(&r);
}

static void test_prefix(void **state) {
    (void)state;
    if (!have_goldens()) return;
    check_prefix(HYBRID, true);
    check_prefix(PLAIN, false);
}

/* ---- saving ---- */

static void check_save_restore(fm_kv kv) {
    fm_options o = options_for(HYBRID);
    o.kv = kv;
    rig r = rig_with(&o), q = rig_with(&o);
    int32_t tokens[80];
    make_tokens(tokens, 80, 21);
    ok(fm_session_sync(r.session, tokens, 77, NULL, NULL));
    size_t bytes = fm_session_save(r.session, NULL, 0);
    uint8_t *blob = malloc(bytes);
    assert_non_null(blob);
    assert_int_equal(fm_session_save(r.session, blob, bytes), bytes);
    ok(fm_session_restore(q.session, blob, bytes));
    same_logits(&q, q.session, fm_session_logits(r.session), "restored");
    for (int i = 77; i < 80; i++) {
        ok(fm_session_step(r.session, tokens[i]));
        ok(fm_session_step(q.session, tokens[i]));
    }
    same_logits(&q, q.session, fm_session_logits(r.session), "continued");
    for (size_t i = 0; i < bytes; i += bytes / 37 + 1) {
        blob[i] ^= 0x10;
        fm_error e = fm_session_restore(q.session, blob, bytes);
        assert_int_equal(e.code, FM_ERR_CORRUPT);
        assert_int_equal(fm_session_length(q.session), 0);
        blob[i] ^= 0x10;
        assert_int_equal(fm_session_restore(q.session, blob, i).code, FM_ERR_CORRUPT);
    }
    rig_close(&q);
    o.kv = kv == FM_KV_Q8 ? FM_KV_F16 : FM_KV_Q8;
    q = rig_with(&o);
    refused(fm_session_restore(q.session, blob, bytes), FM_ERR_CORRUPT, "option set");
    rig_close(&q);
    rig other = rig_open("qwen3_5_moe");
    refused(fm_session_restore(other.session, blob, bytes), FM_ERR_CORRUPT, "another model");
    free(blob);
    rig_close(&other);
    rig_close(&r);
}

static void test_save_restore(void **state) {
    (void)state;
    if (!have_goldens()) return;
    check_save_restore(FM_KV_DEFAULT);
    check_save_restore(FM_KV_Q8);
}

/* ---- refusals ---- */

static void test_refused(void **state) {
    (void)state;
    if (!have_goldens()) return;
    rig r = rig_open(HYBRID);
    int32_t tokens[CONTEXT + 1];
    make_tokens(tokens, CONTEXT + 1, 2);
    refused(fm_session_sync(r.session, tokens, CONTEXT + 1, NULL, NULL), FM_ERR_RANGE,
            "513 tokens");
    refused(fm_session_sync(r.session, tokens, 0, NULL, NULL), FM_ERR_ARG, "no tokens");
    ok(fm_session_sync(r.session, tokens, CONTEXT, NULL, NULL));
    refused(fm_session_step(r.session, 1), FM_ERR_RANGE, "context window of 512");
    assert_int_equal(fm_session_length(r.session), CONTEXT);
    fm_session_clear(r.session);
    refused(fm_session_step(r.session, 320), FM_ERR_RANGE, "token id 320");
    refused(fm_session_step(r.session, -1), FM_ERR_RANGE, "token id -1");
    fm_item twice[2] = {{.session = r.session, .tokens = tokens, .count = 1},
                        {.session = r.session, .tokens = tokens, .count = 1}};
    refused(fm_step(r.engine, twice, 2), FM_ERR_ARG, "twice");
    fm_cancel(r.engine);
    refused(fm_session_sync(r.session, tokens, 50, NULL, NULL), FM_ERR_CANCELLED, "cancelled");
    fm_cancel_clear(r.engine);
    ok(fm_session_sync(r.session, tokens, 50, NULL, NULL));
    rig_close(&r);

    fm_engine *e;
    fm_options o = options_for(HYBRID);
    o.memory = MIB;
    refused(fm_engine_open(&o, &e), FM_ERR_BUDGET, "memory limit 1 MiB is too small");
    o = options_for(HYBRID);
    o.experts_per_token = 5;
    refused(fm_engine_open(&o, &e), FM_ERR_ARG, "trained with 4");
    o = options_for(HYBRID);
    o.cpu = "sse9";
    refused(fm_engine_open(&o, &e), FM_ERR_ARG, "sse9");
    o = options_for(HYBRID);
    o.model_dir = "/nonexistent";
    refused(fm_engine_open(&o, &e), FM_ERR_NOT_FOUND, "/nonexistent");
    assert_null(e);
}

/* The ceiling holds at the floor itself, and one page below is refused. */
static void test_floor(void **state) {
    (void)state;
    if (!have_goldens()) return;
    fm_options o = options_for(HYBRID);
    fm_plan p;
    ok(fm_plan_get(&o, &p));
    o.memory = p.floor;
    rig r = rig_with(&o);
    fm_engine_plan(r.engine, &p);
    assert_true(p.fits && !p.resident);
    rig_close(&r);
    o.memory = p.floor - 4096;
    fm_engine *e;
    refused(fm_engine_open(&o, &e), FM_ERR_BUDGET, "needs at least");
}

int main(int argc, char **argv) {
    (void)argc;
    golden_from(argv[0]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_same_bits),
        cmocka_unit_test(test_chunked_is_stepped),
        cmocka_unit_test(test_q8),
        cmocka_unit_test(test_picks_on_card),
        cmocka_unit_test(test_batch_is_alone),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_save_restore),
        cmocka_unit_test(test_refused),
        cmocka_unit_test(test_floor),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
