/* bench_model.c: the whole model: moe, full, decode, prefill. All through the public API, on random
 * token ids (which ones does not matter for speed; a real text routes more evenly over time, so a
 * small cache does a little better on it). */
#include <stdio.h>
#include <stdlib.h>

#include "../common/route_log.h"
#include "base/bits.h"
#include "benchmark.h"

#define PROMPT   64                  /* tokens before a decode measurement begins */
#define NO_CACHE ((size_t)256 << 20) /* experts of fewer bytes may lie in a last-level cache */

typedef struct model {
    fm_engine *engine;
    fm_session *session;
    fm_model m;
    fm_plan p;
    int32_t *ids;   /* [context], owned */
    route_log *log; /* NULL: nothing is read while decoding */
    double blocks;  /* bytes a second of an expert's matrices at random places; 0: not measured */
} model;

static int model_close(model *m, int code) {
    interrupt_watch(NULL);
    route_log_close(m->log);
    free(m->ids);
    fm_engine_close(m->engine);
    return code;
}

static int open_model(bench *b, model *m) {
    *m = (model){0};
    m->engine = model_open(b->program, &b->a->m, 1);
    if (!m->engine) return EXIT_FAILED;
    fm_model_get(m->engine, &m->m);
    fm_engine_plan(m->engine, &m->p);
    m->ids = calloc((size_t)m->m.context, sizeof *m->ids);
    fm_error e = fm_session_open(m->engine, &m->session);
    if (!e.code && !m->p.resident && m->p.sparse_layers && !m->m.gpu)
        e = route_log_open(m->engine, &m->log);
    if (e.code || !m->ids) return model_close(m, e.code ? fail(b->program, &e) : EXIT_FAILED);
    rng r;
    rng_seed(&r, 5);
    for (int i = 0; i < m->m.context; i++)
        m->ids[i] = (int32_t)(rng_next(&r) % (uint64_t)m->m.vocab);
    interrupt_watch(m->engine);
    return 0;
}

/* Tokens a second that memory and disk allow, for bytes read from each per token. */
static double speed_limit(const bench *b, double memory_bytes, double disk_bytes,
                          const char **bound) {
    double memory = b->machine.memory_read / memory_bytes;
    double disk = disk_bytes > 0 ? b->machine.disk_read / disk_bytes : memory;
    *bound = disk < memory ? "disk" : "memory";
    return disk < memory ? disk : memory;
}

/* Seconds a token over n steps from a session of `context` tokens, each into seconds[]; the first
 * step is not measured. */
static fm_error time_steps(model *m, int context, int n, double *seconds) {
    fm_error e = fm_session_sync(m->session, m->ids, (size_t)context, NULL, NULL);
    for (int i = -1; i < n && !e.code; i++) {
        if (i == 0) fm_stats_reset(m->engine);
        if (i == 0 && m->log) route_log_mark(m->log);
        double begin = seconds_now();
        e = fm_session_step(m->session, m->ids[context + 1 + i]);
        if (i >= 0) seconds[i] = seconds_now() - begin;
    }
    return e;
}

static double sum(const double *x, int n) {
    double s = 0;
    for (int i = 0; i < n; i++) s += x[i];
    return s;
}

/* What the streaming of so many tokens reached: of 1/max(computing, missed bytes / disk), and
 * beside a plain LRU for the same requests. */
static void add_streaming(bench *b, model *m, int n, double seconds) {
    fm_stats s;
    fm_stats_get(m->engine, &s);
    double missed = (double)s.expert_read_bytes / n;
    double compute = (seconds - s.seconds_read_wait) / n, disk = missed / b->machine.disk_read;
    if (!m->log || missed <= 0) return;
    bench_row row = {.unit = "tok/s",
                     .value = n / seconds,
                     .limit = 1 / (compute > disk ? compute : disk),
                     .bound = compute > disk ? "computing" : "disk"};
    snprintf(row.what, sizeof row.what, "  1/max(computing %.1f ms, reads %.1f ms)", 1e3 * compute,
             1e3 * disk);
    bench_add(b, &row);
    double lru;
    fm_error e = route_log_lru(m->log, &lru);
    if (e.code) return; /* slots for less than one request: no cache at all */
    row = (bench_row){.what = "  read a token",
                      .unit = "MB",
                      .lower = true,
                      .value = missed * 1e-6,
                      .limit = lru / n * 1e-6,
                      .bound = "plain LRU, same requests"};
    bench_add(b, &row);
}

/* Experts lie where they happen to, and such reads are slower than one from end to end: both limits
 * stand beside a model whose experts are all in memory. */
static void add_random(bench *b, const model *m, const bench_row *decode) {
    double experts = (double)m->p.expert_bytes_token;
    bench_row row = *decode;
    double seconds = (double)m->p.trunk_bytes_token / b->machine.memory_read + experts / m->blocks;
    row.limit = 1 / seconds;
    row.bound = "memory, experts at random places";
    snprintf(row.what, sizeof row.what, "  experts in %.0f KiB at random places %.1f GB/s",
             (double)m->p.expert_bytes / 3 / 1024, m->blocks * 1e-9);
    bench_add(b, &row);
}

/* One decode figure: n tokens after `context`. */
static fm_error add_decode(bench *b, model *m, int context, int n) {
    double *seconds = calloc((size_t)n, sizeof *seconds);
    if (!seconds) return (fm_error){FM_ERR_NOMEM, "no memory"};
    fm_error e = time_steps(m, context, n, seconds);
    fm_stats s;
    fm_stats_get(m->engine, &s);
    double missed = (double)s.expert_read_bytes / n;
    double touched = (double)m->p.trunk_bytes_token + (double)m->p.expert_bytes_token;
    bench_row row = {.unit = "tok/s", .value = n / sum(seconds, n)};
    row.limit = speed_limit(b, touched, missed, &row.bound);
    char read[16];
    snprintf(row.what, sizeof row.what, "decode after %d tokens, %s a token read", context,
             size_text(missed, read));
    if (!e.code) bench_add(b, &row);
    if (!e.code && m->blocks > 0) add_random(b, m, &row);
    if (!e.code) add_streaming(b, m, n, sum(seconds, n));
    free(seconds);
    return e;
}

int bench_decode(bench *b) {
    static const int lengths[] = {64, 512, 2048, 8192, 32768};
    model m;
    int code = open_model(b, &m);
    if (code) return code;
    fm_error e = {FM_OK, ""};
    int n = b->a->tokens, last = m.m.context - n - 2;
    if (last < 1) return model_close(&m, bench_fail(b, "the context window is too short"));
    if (m.p.resident && m.p.experts_total >= NO_CACHE && !m.m.gpu)
        e = fm_machine_measure_blocks(b->machine.threads, m.p.expert_bytes / 3, 0.5, &m.blocks);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0] && !e.code; i++) {
        bool fits = lengths[i] <= last;
        if (!fits && i > 0 && lengths[i - 1] >= last) break;
        e = add_decode(b, &m, fits ? lengths[i] : last, n);
    }
    return model_close(&m, e.code ? fail(b->program, &e) : 0);
}

int bench_prefill(bench *b) {
    static const int lengths[] = {16, 64, 128, 512, 2048, 8192};
    model m;
    int code = open_model(b, &m);
    if (code) return code;
    fm_error e = fm_session_sync(m.session, m.ids, 1, NULL, NULL);
    for (size_t i = 0; i < sizeof lengths / sizeof lengths[0] && !e.code; i++) {
        if (lengths[i] > m.m.context) break;
        double passes[3] = {0};
        fm_stats s;
        for (int r = 0; r < 3 && !e.code; r++) {
            fm_session_clear(m.session);
            fm_stats_reset(m.engine);
            double begin = seconds_now();
            e = fm_session_sync(m.session, m.ids, (size_t)lengths[i], NULL, NULL);
            passes[r] = seconds_now() - begin;
        }
        fm_stats_get(m.engine, &s);
        char read[16];
        bench_row row = {.unit = "tok/s", .value = lengths[i] / bench_median(passes, 3)};
        if (s.expert_read_bytes > 0) {
            row.limit = lengths[i] * b->machine.disk_read / (double)s.expert_read_bytes;
            row.bound = "disk";
        }
        snprintf(row.what, sizeof row.what, "prefill of %d tokens, %s read", lengths[i],
                 size_text((double)s.expert_read_bytes, read));
        if (!e.code) bench_add(b, &row);
    }
    return model_close(&m, e.code ? fail(b->program, &e) : 0);
}

int bench_full(bench *b, int repeats) {
    model m;
    int code = open_model(b, &m);
    if (code) return code;
    int context = m.m.context / 2 < PROMPT ? m.m.context / 2 : PROMPT;
    double seconds[BENCH_REPEATS_MAX];
    fm_error e = time_steps(&m, context, repeats, seconds);
    fm_stats s;
    fm_stats_get(m.engine, &s);
    if (!e.code) {
        double touched = (double)m.p.trunk_bytes_token + (double)m.p.expert_bytes_token;
        char read[16];
        bench_row row = {
            .unit = "ms", .lower = true, .value = 1e3 * bench_median(seconds, repeats)};
        row.limit =
            1e3 / speed_limit(b, touched, (double)s.expert_read_bytes / repeats, &row.bound);
        snprintf(row.what, sizeof row.what, "%d layers, k=%d, %s, %s a token read", m.m.layers,
                 m.m.experts_per_token, m.m.cpu,
                 size_text((double)s.expert_read_bytes / repeats, read));
        bench_add(b, &row);
        add_streaming(b, &m, repeats, sum(seconds, repeats));
    }
    return model_close(&m, e.code ? fail(b->program, &e) : 0);
}

/* Router, reads and experts of the sparse layers, per layer and token. */
int bench_moe(bench *b, int repeats) {
    model m;
    int code = open_model(b, &m);
    if (code) return code;
    if (m.p.sparse_layers == 0) return model_close(&m, bench_fail(b, "this model has no experts"));
    fm_layer_timing *t = calloc((size_t)m.m.layers, sizeof *t);
    double seconds[BENCH_REPEATS_MAX], total = 0;
    int context = m.m.context / 2 < PROMPT ? m.m.context / 2 : PROMPT;
    fm_timing_enable(m.engine, true);
    fm_error e = time_steps(&m, context, repeats, seconds);
    fm_stats s;
    fm_stats_get(m.engine, &s);
    int n = t ? fm_timing_get(m.engine, t, m.m.layers) : 0;
    for (int i = 0; i < n; i++) total += t[i].router + t[i].read_wait + t[i].experts;
    free(t);
    if (!e.code) {
        double layers = (double)m.p.sparse_layers * repeats;
        double bytes = (double)m.p.expert_bytes_token / m.p.sparse_layers;
        bench_row row = {.unit = "us", .lower = true, .value = 1e6 * total / layers};
        row.limit = 1e6 / speed_limit(b, bytes, (double)s.expert_read_bytes / layers, &row.bound);
        snprintf(row.what, sizeof row.what, "one layer's MoE, k=%d of %d, %s",
                 m.m.experts_per_token, m.m.experts, m.m.cpu);
        bench_add(b, &row);
    }
    return model_close(&m, e.code ? fail(b->program, &e) : 0);
}
