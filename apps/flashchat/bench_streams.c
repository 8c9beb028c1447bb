/* bench_streams.c: streams: several conversations decoded together. One read of an expert serves
 * all of them, so together they are faster than one after the other.
 *
 * Every stream has a prompt of its own and continues it greedily, so that the experts that they
 * want differ as those of real conversations do. */
#include <stdio.h>
#include <stdlib.h>

#include "base/bits.h"
#include "benchmark.h"

#define STREAMS_MAX 8
#define PROMPT      32
#define ROUNDS      3

typedef struct streams {
    fm_engine *engine;
    fm_session *session[STREAMS_MAX];
    fm_sampler *sampler;
    int32_t next[STREAMS_MAX];
    fm_model m;
} streams;

static int streams_close(streams *s, int code) {
    interrupt_watch(NULL);
    fm_sampler_close(s->sampler);
    fm_engine_close(s->engine);
    return code;
}

static int streams_open(bench *b, streams *s) {
    *s = (streams){0};
    s->engine = model_open(b->program, &b->a->m, STREAMS_MAX);
    if (!s->engine) return EXIT_FAILED;
    fm_model_get(s->engine, &s->m);
    fm_sampling p;
    fm_sampling_init(&p);
    fm_error e = fm_sampler_open(s->engine, &p, &s->sampler);
    for (int i = 0; i < STREAMS_MAX && !e.code; i++) e = fm_session_open(s->engine, &s->session[i]);
    if (e.code) return streams_close(s, fail(b->program, &e));
    interrupt_watch(s->engine);
    return 0;
}

static fm_error pick(streams *s, int i) {
    return fm_session_pick(s->session[i], s->sampler, NULL, &s->next[i]);
}

/* n prompts, the same ones for every n. */
static fm_error begin(streams *s, int n) {
    fm_error e = {FM_OK, ""};
    rng r;
    rng_seed(&r, 11);
    for (int i = 0; i < n && !e.code; i++) {
        int32_t ids[PROMPT];
        for (int k = 0; k < PROMPT; k++) ids[k] = (int32_t)(rng_next(&r) % (uint64_t)s->m.vocab);
        fm_session_clear(s->session[i]);
        e = fm_session_sync(s->session[i], ids, PROMPT, NULL, NULL);
        if (!e.code) e = pick(s, i);
    }
    return e;
}

static fm_error step(streams *s, int n) {
    fm_item items[STREAMS_MAX] = {{0}};
    for (int i = 0; i < n; i++) items[i] = (fm_item){s->session[i], &s->next[i], 1};
    fm_error e = fm_step(s->engine, items, n);
    for (int i = 0; i < n && !e.code; i++) e = pick(s, i);
    return e;
}

/* Seconds and bytes read of so many steps of n streams; the first step is not measured. */
static fm_error run_steps(streams *s, int n, int steps, double *seconds, double *bytes) {
    fm_error e = begin(s, n);
    if (!e.code) e = step(s, n);
    fm_stats_reset(s->engine);
    double start = seconds_now();
    for (int i = 0; i < steps && !e.code; i++) e = step(s, n);
    *seconds = seconds_now() - start;
    fm_stats stats;
    fm_stats_get(s->engine, &stats);
    *bytes = (double)stats.expert_read_bytes;
    return e;
}

static fm_error measure(bench *b, streams *s, int n) {
    fm_error e = {FM_OK, ""};
    double seconds[ROUNDS], bytes[ROUNDS], made = (double)n * b->a->tokens;
    for (int i = 0; i < ROUNDS && !e.code; i++)
        e = run_steps(s, n, b->a->tokens, &seconds[i], &bytes[i]);
    if (e.code) return e;
    char read[16];
    bench_row row = {.unit = "tok/s", .value = made / bench_median(seconds, ROUNDS)};
    snprintf(row.what, sizeof row.what, "%d stream%s together, %s a token read", n,
             n > 1 ? "s" : "", size_text(bench_median(bytes, ROUNDS) / made, read));
    bench_add(b, &row);
    return e;
}

int bench_streams(bench *b) {
    streams s;
    int code = streams_open(b, &s);
    if (code) return code;
    if (b->a->tokens + PROMPT + 2 > s.m.context)
        return streams_close(&s, bench_fail(b, "the context window is too short"));
    double seconds, bytes; /* a first round warms caches and is not counted */
    fm_error e = run_steps(&s, STREAMS_MAX, 4, &seconds, &bytes);
    for (int n = 1; n <= STREAMS_MAX && !e.code; n *= 2) e = measure(b, &s, n);
    return streams_close(&s, e.code ? fail(b->program, &e) : 0);
}
