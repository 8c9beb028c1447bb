/* stream_bench.c: a model whose experts do not all fit, beside what its disk allows.
 *
 *     prefill   N random tokens into an empty session, PASSES times (the first one also touches the
 *               cache's pages for the first time)
 *     decode    N random tokens one by one; after every third the disk is measured for a moment, by
 *               random direct reads of records' size, so that both see the same disk
 *
 * "reached" is the rate of missed bytes as a share of the disk's rate of the same run. The limit of
 * a decoded token is 1/max(computing, missed bytes / disk): computing is what the engine's thread
 * did not wait for reads (checksums that it took while it waited count as waiting). Beside the
 * bytes that were read stand those that a plain LRU of the same size would have read for the very
 * requests of the run. Memory is given as a share of the experts, what else the model needs comes
 * on top. */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../apps/common/args.h"
#include "../apps/common/route_log.h"
#include "base/bits.h"
#include "base/os.h"
#include "engine/engine_impl.h"
#include "engine/fm_error.h"
#include "limits.h"
#include "slow_disk.h"

#define DISK_SECONDS 0.12
#define DISK_EVERY   3 /* tokens */
#define DISK_DEPTH   6

typedef struct settings {
    const char *model, *mirror, *state;
    float share, disk_rate;
    size_t memory;
    int prompt, tokens, passes, runs, experts, look_ahead;
    bool no_checksums, json;
} settings;

#define SET(name, value, help, kind, field, ...)                                                   \
    { name, value, help, kind, offsetof(settings, field), __VA_ARGS__ }

static const arg_def defs[] = {
    SET("--model", "DIR", "the model's directory", ARG_TEXT, model, 0, 0),
    SET("--share", "F", "of the experts that fit (default 0.25)", ARG_FLOAT, share, 0, 1),
    SET("--memory", "SIZE", "instead of --share: the ceiling", ARG_SIZE, memory, 1, 0),
    SET("--prompt", "N", "tokens of a prefill pass (default 16)", ARG_INT, prompt, 1, 65536),
    SET("--passes", "N", "of prefill (default 2)", ARG_INT, passes, 1, 100),
    SET("--tokens", "N", "tokens of a decode run, 0: none (default 24)", ARG_INT, tokens, 0, 65536),
    SET("--runs", "N", "of decode (default 1)", ARG_INT, runs, 1, 100),
    SET("--k", "N", "experts per token", ARG_INT, experts, 1, 1024),
    SET("--look-ahead", NULL, "default; --no-look-ahead", ARG_SWITCH, look_ahead, 0, 0),
    SET("--no-checksums", NULL, "of a packed model", ARG_FLAG, no_checksums, 0, 0),
    SET("--mirror", "DIR", "the model's files again", ARG_TEXT, mirror, 0, 0),
    SET("--json", NULL, "one JSON object for each decode run", ARG_FLAG, json, 0, 0),
    SET("--disk-rate", "N", "GB/s of a slower disk (slow_disk.h)", ARG_FLOAT, disk_rate, 0, 1000),
    SET("--io-state", "FILE", "remembers the choice of an engine", ARG_TEXT, state, 0, 0),
};

typedef struct bench {
    settings s;
    fm_engine *engine;
    fm_session *session;
    fm_plan p;
    int32_t *ids; /* [prompt + tokens], owned */
    route_log *log;
} bench;

static double now(void) { return (double)os_now_ns() * 1e-9; }

static int failed(const fm_error *e) {
    if (e->code) fprintf(stderr, "stream-bench: %s\n", e->text);
    return e->code ? EXIT_FAILED : 0;
}

/* Bytes a second of random reads as large as an expert, through the engine that the store uses. */
static double disk_speed(const bench *b) {
    double rate;
    err e = limits_disk(b->engine, DISK_DEPTH, DISK_SECONDS, &rate);
    if (e.code) fprintf(stderr, "stream-bench: %s\n", e.text);
    return rate;
}

static fm_error open_bench(bench *b) {
    const settings *s = &b->s;
    int context = s->prompt + s->tokens + 8;
    fm_options o;
    fm_options_init(&o);
    o.model_dir = s->model;
    o.context = context < 1024 ? 1024 : context;
    o.experts_per_token = s->experts;
    o.no_look_ahead = !s->look_ahead;
    o.no_checksums = s->no_checksums;
    o.mirror_dir = s->mirror;
    o.io_state = s->state;
    o.gpu = "off";
    o.memory = s->memory;
    fm_error e = FM_WRAP(slow_disk_set((double)s->disk_rate * 1e9));
    if (!e.code && !s->memory) e = limits_memory(&o, (double)s->share, 0);
    if (!e.code) e = fm_engine_open(&o, &b->engine);
    if (!e.code) e = fm_session_open(b->engine, &b->session);
    if (e.code) return e;
    if (!b->engine->store) return (fm_error){FM_ERR_ARG, "this model has no experts"};
    fm_engine_plan(b->engine, &b->p);
    int n = s->prompt + s->tokens;
    b->ids = calloc((size_t)n, sizeof *b->ids);
    if (!b->ids) return (fm_error){FM_ERR_NOMEM, "no memory"};
    rng r;
    rng_seed(&r, 9);
    for (int i = 0; i < n; i++)
        b->ids[i] = (int32_t)(rng_next(&r) % (uint64_t)b->engine->files.config.vocab);
    while (b->p.resident && !expert_store_idle(b->engine->store, 1000)) continue;
    e = route_log_open(b->engine, &b->log);
    if (s->json) return e;
    printf("ceiling %.2f GiB, %d of %d experts have a slot, %s reads, chunks of %d tokens\n",
           (double)b->p.memory_limit / 1073741824.0, expert_store_slots(b->engine->store),
           b->p.sparse_layers * b->p.experts,
           io_backend_name(expert_store_backend(b->engine->store)), fm_rows_max(b->engine));
    return e;
}

static fm_error prefill(bench *b) {
    fm_session_clear(b->session);
    double disk = disk_speed(b);
    fm_stats_reset(b->engine);
    double begin = now();
    fm_error e = fm_session_sync(b->session, b->ids, (size_t)b->s.prompt, NULL, NULL);
    double took = now() - begin;
    fm_stats s;
    fm_stats_get(b->engine, &s);
    disk = (disk + disk_speed(b)) / 2;
    double rate = (double)s.expert_read_bytes / took;
    if (b->s.json) return e;
    printf("prefill %d: %.1f tok/s; read %.0f MB at %.0f MB/s, disk %.0f: reached %.1f %%; waited "
           "%.2f of %.2f s\n",
           b->s.prompt, b->s.prompt / took, (double)s.expert_read_bytes * 1e-6, rate * 1e-6,
           disk * 1e-6, 100 * rate / disk, s.seconds_read_wait, took);
    return e;
}

static void print_times(const bench *b) {
    fm_layer_timing *t = calloc((size_t)b->p.layers, sizeof *t), sum = {0};
    int n = t ? fm_timing_get(b->engine, t, b->p.layers) : 0;
    for (int i = 0; i < n; i++) {
        sum.attention += t[i].attention + t[i].delta;
        sum.router += t[i].router;
        sum.read_wait += t[i].read_wait;
        sum.experts += t[i].experts;
    }
    free(t);
    double ms = 1e3 / b->s.tokens;
    printf("  ms a token: attention %.1f, router %.1f, waiting for reads %.1f, experts %.1f\n",
           ms * sum.attention, ms * sum.router, ms * sum.read_wait, ms * sum.experts);
}

typedef struct result {           /* of one token, mean of a run */
    double seconds, waited, disk; /* disk: bytes a second */
    double bytes, lru_bytes;      /* read; that a plain LRU would have read, -1: cannot be said */
    fm_stats stats;
} result;

/* Tokens a second that the slower of processor and disk allows. */
static double limit_of(const result *r) {
    double compute = r->seconds - r->waited, disk = r->bytes / r->disk;
    return 1 / (compute > disk ? compute : disk);
}

static void print_decode(const bench *b, const result *r) {
    const fm_stats *s = &r->stats;
    printf("decode: %.2f tok/s; hits %.1f %%, %.1f MB a token at %.0f MB/s, disk %.0f (alone %.2f "
           "tok/s): reached %.1f %%; %llu guesses, %llu came true\n",
           1 / r->seconds, 100 * (double)s->expert_hits / (double)s->expert_requests,
           r->bytes * 1e-6, r->bytes / r->seconds * 1e-6, r->disk * 1e-6, r->disk / r->bytes,
           100 * r->bytes / r->seconds / r->disk, (unsigned long long)s->prefetch_issued,
           (unsigned long long)s->prefetch_used);
    printf("  1/max(computing %.1f ms, disk %.1f ms) = %.2f tok/s: reached %.1f %%\n",
           1e3 * (r->seconds - r->waited), 1e3 * r->bytes / r->disk, limit_of(r),
           100 / r->seconds / limit_of(r));
    if (r->lru_bytes >= 0)
        printf("  a plain LRU would have read %.1f MB a token for the same requests: %.1f %% of "
               "that\n",
               r->lru_bytes * 1e-6, 100 * r->bytes / r->lru_bytes);
    print_times(b);
}

static void print_json(const bench *b, const result *r) {
    json_t *o =
        json_pack("{s:f, s:f, s:f, s:f, s:f, s:f, s:f, s:i}", "tokens_per_second", 1 / r->seconds,
                  "compute_seconds", r->seconds - r->waited, "wait_seconds", r->waited,
                  "read_bytes_per_token", r->bytes, "disk_bytes_per_second", r->disk,
                  "limit_tokens_per_second", limit_of(r), "share_of_limit",
                  1 / r->seconds / limit_of(r), "slots", expert_store_slots(b->engine->store));
    if (r->lru_bytes >= 0) json_object_set_new(o, "lru_bytes_per_token", json_real(r->lru_bytes));
    char *text = json_dumps(o, JSON_REAL_PRECISION(6));
    if (text) puts(text);
    free(text);
    json_decref(o);
}

static fm_error decode(bench *b) {
    fm_error e = fm_session_sync(b->session, b->ids, (size_t)b->s.prompt, NULL, NULL);
    fm_stats_reset(b->engine);
    route_log_mark(b->log);
    double took = 0, per_byte = 0;
    int n = b->s.tokens, measured = 0;
    for (int i = 0; i < n && !e.code; i++) {
        if (i % DISK_EVERY == 0) {
            per_byte += 1 / disk_speed(b);
            measured++;
        }
        double begin = now();
        e = fm_session_step(b->session, b->ids[b->s.prompt + i]);
        took += now() - begin;
    }
    if (e.code) return e;
    result r = {.seconds = took / n, .disk = measured / per_byte};
    fm_stats_get(b->engine, &r.stats);
    r.waited = r.stats.seconds_read_wait / n;
    r.bytes = (double)r.stats.expert_read_bytes / n;
    fm_error lru = route_log_lru(b->log, &r.lru_bytes);
    r.lru_bytes = lru.code ? -1 : r.lru_bytes / n;
    if (lru.code) fprintf(stderr, "stream-bench: no LRU beside it: %s\n", lru.text);
    b->s.json ? print_json(b, &r) : print_decode(b, &r);
    return e;
}

int main(int argc, char **argv) {
    bench b = {.s = {.share = 0.25f, .prompt = 16, .passes = 2, .tokens = 24, .runs = 1}};
    b.s.look_ahead = 1;
    arg_list rest;
    arg_table table = {"stream-bench", defs, sizeof defs / sizeof defs[0]};
    arg_result parsed = args_parse(&table, argc - 1, argv + 1, &b.s, &rest);
    if (parsed == ARGS_HELP) args_help(&table);
    if (parsed != ARGS_OK) return parsed == ARGS_HELP ? 0 : EXIT_USAGE;
    if (!b.s.model || rest.n) return args_wrong("stream-bench", "give --model DIR");
    fm_error e = open_bench(&b);
    for (int i = 0; i < b.s.passes && !e.code; i++) e = prefill(&b);
    if (!e.code) fm_timing_enable(b.engine, true);
    for (int i = 0; i < b.s.runs && b.s.tokens && !e.code; i++) e = decode(&b);
    if (!b.s.json) printf("peak memory %.0f MiB\n", (double)os_peak_rss() / 1048576.0);
    free(b.ids);
    route_log_close(b.log);
    fm_engine_close(b.engine);
    return failed(&e);
}
