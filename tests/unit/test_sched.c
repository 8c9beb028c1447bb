/* test_sched.c: the scheduler over the model without weights: streams together say what they say
 * alone, prefixes are reused, failures stay with their job, cancelling works at any time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>
#include <limits.h>
#include <time.h>

#include "base/os.h"
#include "engine/sched.h"
#include "fake_model.h"
#include "scratch.h"

#define JOBS 24

typedef struct seen {
    text_buf text;
    size_t cached;
    int started, ended, stop_after, n;
    sched_end why;
    err error;
    pthread_mutex_t lock;
    pthread_cond_t over;
} seen;

static void seen_open(seen *s) {
    memset(s, 0, sizeof *s);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->over, NULL);
}

static void seen_close(seen *s) {
    text_buf_free(&s->text);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->over);
}

static void on_start(void *ctx, size_t cached) {
    seen *s = ctx;
    s->started++;
    s->cached = cached;
}

static bool on_token(void *ctx, sched_job *job, const sched_token *t) {
    (void)job;
    seen *s = ctx;
    size_t n = 0;
    const char *bytes = fake_bytes(NULL, t->id, &n);
    if (text_buf_add(&s->text, bytes, n).code) return false;
    return !s->stop_after || ++s->n < s->stop_after;
}

static void on_end(void *ctx, sched_end why, const err *e) {
    seen *s = ctx;
    pthread_mutex_lock(&s->lock);
    s->ended++;
    s->why = why;
    s->error = *e;
    pthread_cond_signal(&s->over);
    pthread_mutex_unlock(&s->lock);
}

static void wait_for(seen *s) {
    pthread_mutex_lock(&s->lock);
    while (!s->ended) pthread_cond_wait(&s->over, &s->lock);
    pthread_mutex_unlock(&s->lock);
}

/* "<|im_start|>user\nTEXT<|im_end|>\n<|im_start|>assistant\n" after filler in front. */
static fm_tokens prompt_of(const char *text, int filler) {
    fm_tokens t = {0};
    char *all = malloc(strlen(text) + (size_t)filler + 128);
    memset(all, 'f', (size_t)filler);
    sprintf(all + filler, "<|im_start|>user\n%s<|im_end|>\n<|im_start|>assistant\n", text);
    assert_ok(fake_tokenize(NULL, FM_MARKUP, all, strlen(all), &t));
    free(all);
    return t;
}

static sched_request request_of(const fm_tokens *p, int max, seen *s) {
    return (sched_request){.prompt = p->ids,
                           .n_prompt = p->count,
                           .max_tokens = max,
                           .sampling = {.top_p = 1, .repetition_penalty = 1},
                           .sink = {s, on_start, on_token, on_end}};
}

static sched *open_resting(fake_model *f, int sessions, int rest_ms) {
    fake_init(f, sessions, 4096);
    sched *s;
    sched_options o = {.model = f->model, .queue_max = 64, .rest_ms = rest_ms};
    assert_ok(sched_open(&o, &s));
    return s;
}

static sched *open_with(fake_model *f, int sessions) { return open_resting(f, sessions, 0); }

static void say(sched *s, const char *text, int filler, int max, seen *out) {
    fm_tokens p = prompt_of(text, filler);
    sched_request r = request_of(&p, max, out);
    uint64_t id;
    assert_ok(sched_submit(s, &r, 1, &id));
    fm_tokens_free(&p);
}

/* Says something and waits for the end. */
static void turn_of(sched *s, const char *text, int filler) {
    seen a;
    seen_open(&a);
    say(s, text, filler, 40, &a);
    wait_for(&a);
    assert_int_equal(a.why, SCHED_STOP);
    seen_close(&a);
}

/* What ended is kept when its session goes to another conversation (if it ever came back), when
 * nothing runs for a while, and at the end; once. */
static void test_keep(void **state) {
    (void)state;
    fake_model f;
    sched *s = open_resting(&f, 1, INT_MAX);
    turn_of(s, "say:one", 200);
    turn_of(s, "say:two", 0); /* another conversation; the first had one turn */
    assert_int_equal(atomic_load(&f.kept), 0);
    fm_tokens p = prompt_of("say:three", 200);
    seen a[2];
    for (int i = 0; i < 2; i++) { /* two turns of one conversation */
        seen_open(&a[i]);
        sched_request r = request_of(&p, 40, &a[i]);
        uint64_t id;
        assert_ok(sched_submit(s, &r, 1, &id));
        wait_for(&a[i]);
        const char *more = "three<|im_end|>\n<|im_start|>user\nsay:four<|im_end|>\n"
                           "<|im_start|>assistant\n";
        assert_ok(fake_tokenize(NULL, FM_MARKUP, more, strlen(more), &p));
        seen_close(&a[i]);
    }
    fm_tokens_free(&p);
    assert_int_equal(atomic_load(&f.kept), 0);
    turn_of(s, "say:five", 0);
    assert_int_equal(atomic_load(&f.kept), 1);
    sched_close(s);
    assert_int_equal(atomic_load(&f.kept), 1);
    assert_int_equal(atomic_load(&f.kept_last), 1);

    s = open_resting(&f, 2, 10);
    turn_of(s, "say:one", 200);
    turn_of(s, "say:two", 0);
    for (int i = 0; i < 6000 && atomic_load(&f.kept) < 2; i++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    assert_int_equal(atomic_load(&f.kept), 2);
    sched_close(s);
    assert_int_equal(atomic_load(&f.kept), 2);
    assert_int_equal(atomic_load(&f.kept_last), 0);
}

static void test_together_as_alone(void **state) {
    (void)state;
    fake_model f;
    sched *s = open_with(&f, 4);
    seen all[JOBS];
    for (int i = 0; i < JOBS; i++) {
        char text[64];
        snprintf(text, sizeof text, "job %d says %d", i, i * i);
        seen_open(&all[i]);
        say(s, text, i * 37, 500, &all[i]);
    }
    for (int i = 0; i < JOBS; i++) {
        char want[96];
        snprintf(want, sizeof want, "You said: job %d says %d", i, i * i);
        wait_for(&all[i]);
        assert_int_equal(all[i].why, SCHED_STOP);
        assert_int_equal(all[i].started, 1);
        assert_string_equal(all[i].text.data, want);
        seen_close(&all[i]);
    }
    sched_counters c;
    sched_counters_get(s, &c);
    assert_int_equal(c.jobs, JOBS);
    assert_int_equal(c.running + c.waiting, 0);
    sched_close(s);
    assert_true(f.max_items > 1); /* they did run together */
}

static void test_prefix(void **state) {
    (void)state;
    fake_model f;
    sched *s = open_with(&f, 2);
    seen first, side, second;
    seen_open(&first);
    seen_open(&side);
    seen_open(&second);
    say(s, "long conversation", 1000, 100, &first);
    wait_for(&first);
    say(s, "title?", 0, 100, &side); /* must not take the long one's session */
    wait_for(&side);
    say(s, "long conversation goes on", 1000, 100, &second);
    wait_for(&second);
    assert_int_equal(first.cached, 0);
    assert_true(second.cached >= 1000);
    assert_string_equal(second.text.data, "You said: long conversation goes on");
    seen_close(&first);
    seen_close(&side);
    seen_close(&second);
    sched_close(s);
}

static void test_limits(void **state) {
    (void)state;
    fake_model f;
    sched *s = open_with(&f, 2);
    seen a;
    uint64_t id;
    seen_open(&a);
    say(s, "long:100", 0, 7, &a);
    wait_for(&a);
    assert_int_equal(a.why, SCHED_LENGTH);
    assert_string_equal(a.text.data, "xxxxxxx");
    fm_tokens p = prompt_of("x", 0);
    sched_request r = request_of(&p, 4096, &a);
    assert_err(sched_submit(s, &r, 1, &id), ERR_RANGE, "context of 4096");
    r = request_of(&p, 1, &a);
    p.ids[3] = FAKE_VOCAB;
    assert_err(sched_submit(s, &r, 1, &id), ERR_RANGE, "outside the vocabulary");
    p.ids[3] = 1;
    sched_bias bias = {-1, 1};
    r.bias = &bias;
    r.n_bias = 1;
    assert_err(sched_submit(s, &r, 1, &id), ERR_RANGE, "logit_bias");
    assert_int_equal(a.ended, 1);
    fm_tokens_free(&p);
    seen_close(&a);
    sched_close(s);
}

static void test_failure_stays_alone(void **state) {
    (void)state;
    fake_model f;
    sched *s = open_with(&f, 4);
    seen good[3], bad;
    seen_open(&bad);
    say(s, "fail:5", 0, 100, &bad);
    for (int i = 0; i < 3; i++) {
        seen_open(&good[i]);
        say(s, "long:300", i * 100, 400, &good[i]);
    }
    wait_for(&bad);
    assert_int_equal(bad.why, SCHED_FAILED);
    assert_non_null(strstr(bad.error.text, "expert 7"));
    for (int i = 0; i < 3; i++) {
        wait_for(&good[i]);
        assert_int_equal(good[i].why, SCHED_STOP);
        assert_int_equal(good[i].text.length, 300);
        seen_close(&good[i]);
    }
    seen_close(&bad);
    sched_close(s);
}

static void test_cancel(void **state) {
    (void)state;
    fake_model f;
    sched *s = open_with(&f, 2);
    f.step_us = 200;
    seen all[JOBS];
    uint64_t ids[JOBS];
    fm_tokens p = prompt_of("long:3000", 0);
    for (int i = 0; i < JOBS; i++) {
        seen_open(&all[i]);
        sched_request r = request_of(&p, 3500, &all[i]);
        assert_ok(sched_submit(s, &r, 1, &ids[i]));
    }
    for (int i = JOBS - 1; i >= 0; i--) { /* waiting ones first, running ones last */
        sched_cancel(s, ids[i]);
        if (i % 5 == 0) nanosleep(&(struct timespec){.tv_nsec = 3000000}, NULL);
    }
    for (int i = 0; i < JOBS; i++) {
        wait_for(&all[i]);
        assert_int_equal(all[i].why, SCHED_CANCELLED);
        assert_int_equal(all[i].ended, 1);
        seen_close(&all[i]);
    }
    sched_cancel(s, 12345678); /* nobody */
    seen after;
    seen_open(&after);
    say(s, "still there?", 0, 100, &after);
    wait_for(&after);
    assert_string_equal(after.text.data, "You said: still there?");
    seen_close(&after);
    fm_tokens_free(&p);
    sched_close(s);
}

static void test_queue_and_drain(void **state) {
    (void)state;
    fake_model f;
    fake_init(&f, 1, 4096);
    f.step_us = 500;
    sched *s;
    sched_options o = {.model = f.model, .queue_max = 3};
    assert_ok(sched_open(&o, &s));
    seen all[5];
    fm_tokens p = prompt_of("long:50", 0);
    uint64_t ids[5];
    int accepted = 0;
    for (int i = 0; i < 5; i++) {
        seen_open(&all[i]);
        sched_request r = request_of(&p, 100, &all[i]);
        err e = sched_submit(s, &r, 1, &ids[i]);
        if (e.code) {
            assert_err(e, ERR_BUSY, "waiting");
            assert_int_equal(all[i].ended, 0);
        } else {
            accepted++;
        }
    }
    assert_int_equal(accepted, 4); /* one session, three places */
    assert_true(sched_drain(s, 20000));
    sched_request r = request_of(&p, 100, &all[0]);
    assert_err(sched_submit(s, &r, 1, ids), ERR_BUSY, "shutting down");
    for (int i = 0; i < 5; i++) seen_close(&all[i]);
    fm_tokens_free(&p);
    sched_close(s);
}

static void test_long_prompt_does_not_starve(void **state) {
    (void)state;
    fake_model f;
    sched *s = open_with(&f, 2);
    seen talker, reader;
    seen_open(&talker);
    seen_open(&reader);
    say(s, "long:400", 0, 500, &talker);
    say(s, "hi", 3000, 10, &reader);
    wait_for(&talker);
    wait_for(&reader);
    assert_int_equal(talker.text.length, 400);
    assert_int_equal(reader.why, SCHED_LENGTH);
    assert_true(f.max_prefill <= 128);
    seen_close(&talker);
    seen_close(&reader);
    sched_close(s);
}

static void test_forced(void **state) {
    (void)state;
    fake_model f;
    sched *s = open_with(&f, 1);
    seen a;
    seen_open(&a);
    fm_tokens p = prompt_of("x", 0), forced = {0};
    assert_ok(fake_tokenize(NULL, FM_MARKUP, "given", 5, &forced));
    sched_request r = request_of(&p, 100, &a);
    r.forced = forced.ids;
    r.n_forced = (int)forced.count;
    r.forced_end = true;
    uint64_t id;
    assert_ok(sched_submit(s, &r, 1, &id));
    wait_for(&a);
    assert_string_equal(a.text.data, "given");
    assert_int_equal(a.why, SCHED_STOP);
    fm_tokens_free(&p);
    fm_tokens_free(&forced);
    seen_close(&a);
    sched_close(s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_keep),
        cmocka_unit_test(test_together_as_alone),
        cmocka_unit_test(test_prefix),
        cmocka_unit_test(test_limits),
        cmocka_unit_test(test_failure_stays_alone),
        cmocka_unit_test(test_cancel),
        cmocka_unit_test(test_queue_and_drain),
        cmocka_unit_test(test_long_prompt_does_not_starve),
        cmocka_unit_test(test_forced),
    };
    return cmocka_run_group_tests_name("sched", tests, NULL, NULL);
}
