/* bench_store.c: what feeds the experts: io and cache. */
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../common/route_log.h"
#include "base/bits.h"
#include "base/err.h"
#include "benchmark.h"
#include "io/io_bench.h"
#include "store/simulate.h"

#define IO_SECONDS  0.6
#define TRACE_STEPS 200

/* ---- io ----------------------------------------------------------------- */

void bench_find_files(const char *dir, bench_files *f) {
    DIR *d = opendir(dir);
    for (struct dirent *e; d && f->n < BENCH_FILES_MAX && (e = readdir(d));) {
        size_t length = strlen(e->d_name);
        if (length < 12 || strcmp(e->d_name + length - 12, ".safetensors")) continue;
        int n = snprintf(f->path[f->n], MODEL_PATH_MAX, "%s/%s", dir, e->d_name);
        if (n < 0 || n >= MODEL_PATH_MAX) continue;
        f->list[f->n] = f->path[f->n];
        f->n++;
    }
    if (d) closedir(d);
}

static int io_row(bench *b, const bench_files *f, io_backend backend, uint32_t block, int depth) {
    io_bench_options o = {.backend = backend,
                          .paths = f->list,
                          .n_files = f->n,
                          .block = block,
                          .depth = depth,
                          .total_bytes = UINT64_MAX,
                          .max_seconds = IO_SECONDS,
                          .seed = block + (uint64_t)depth};
    io_bench_result r;
    err e = io_bench(&o, &r);
    if (e.code == ERR_UNSUPPORTED || e.code == ERR_ARG) return 0; /* not on this machine or file */
    if (e.code) return bench_fail(b, e.text);
    char size[16];
    bench_row row = {.unit = "GB/s",
                     .value = r.bytes_per_second * 1e-9,
                     .limit = b->machine.disk_read * 1e-9,
                     .bound = "disk, as measured first"};
    snprintf(row.what, sizeof row.what, "%s, %s, %d at once, p95 %.2f ms", io_backend_name(backend),
             size_text(block, size), depth, 1e3 * r.latency_p95);
    bench_add(b, &row);
    return 0;
}

int bench_io(bench *b) {
    static const uint32_t blocks[] = {64u << 10, 512u << 10, 2u << 20, 8u << 20};
    static const int depths[] = {1, 4, 16};
    static const io_backend backends[] = {IO_URING, IO_PREAD};
    bench_files *f = calloc(1, sizeof *f);
    if (!f) return bench_fail(b, "no memory");
    bench_find_files(b->dir, f);
    int code = f->n ? 0 : bench_fail(b, "the model has no .safetensors files");
    for (int k = 0; k < 2; k++)
        for (int i = 0; i < 4; i++)
            for (int d = 0; d < 3 && !code; d++)
                code = io_row(b, f, backends[k], blocks[i], depths[d]);
    free(f);
    return code;
}

/* ---- cache -------------------------------------------------------------- */

/* tokens of a text of the model's own. */
static fm_error generate(fm_engine *e, int tokens) {
    fm_session *s;
    fm_sampler *sampler = NULL;
    fm_sampling p;
    fm_sampling_init(&p);
    p.temperature = 1;
    fm_error error = fm_session_open(e, &s);
    if (!error.code) error = fm_sampler_open(e, &p, &sampler);
    int32_t id = 1;
    for (int i = 0; i < tokens && !error.code; i++) {
        error = fm_session_step(s, id);
        if (!error.code) error = fm_session_pick(s, sampler, NULL, &id);
    }
    fm_sampler_close(sampler);
    return error;
}

/* A trace made now, for a model without a recorded one: what it picks while it goes on with a text
 * of its own, on the processor, so that all experts are asked of the store. */
static int record(bench *b, trace *t) {
    model_args a = b->a->m;
    a.gpu = "off";
    fm_engine *e = model_open(b->program, &a, 1);
    if (!e) return EXIT_FAILED;
    fm_model m;
    fm_model_get(e, &m);
    route_log *log;
    fm_error error = route_log_open(e, &log);
    if (!error.code) error = generate(e, int_min(m.context - 1, TRACE_STEPS));
    if (!error.code) error = route_log_trace(log, t);
    route_log_close(log);
    fm_engine_close(e);
    return error.code ? fail(b->program, &error) : 0;
}

static int simulate_all(bench *b, const trace *t) {
    static const double shares[] = {0.025, 0.05, 0.1, 0.2, 0.4};
    static const cache_policy policies[] = {CACHE_BELADY, CACHE_BLEND, CACHE_DECAY, CACHE_LRU,
                                            CACHE_LFU};
    for (int i = 0; i < 5; i++) {
        double best = 0;
        for (int k = 0; k < 5; k++) {
            simulation s = {.cache = {.policy = policies[k]}};
            s.n_slots = (int)(shares[i] * t->n_layers * t->n_experts);
            if (s.n_slots < t->n_picks) continue;
            simulation_result r;
            err e = cache_simulate(t, &s, &r);
            if (e.code) return bench_fail(b, e.text);
            bench_row row = {.unit = "% hits"};
            row.value = 100 * (double)r.hits / (double)r.requests;
            if (k == 0) best = row.value;
            if (k > 0) {
                row.limit = best;
                row.bound = "Belady";
            }
            snprintf(row.what, sizeof row.what, "%.1f %% of the experts cached, %s",
                     100 * shares[i], cache_policy_name(policies[k]));
            bench_add(b, &row);
        }
    }
    return 0;
}

int bench_cache(bench *b) {
    trace t = {0};
    int code = 0;
    char own[MODEL_PATH_MAX + 32];
    snprintf(own, sizeof own, "%s/routing.jsonl", b->dir); /* the bundled model has one */
    const char *path = b->a->trace ? b->a->trace : access(own, R_OK) == 0 ? own : NULL;
    if (path) {
        err e = trace_read(path, &t);
        if (e.code) return bench_fail(b, e.text);
    } else {
        code = record(b, &t);
    }
    if (!code && !b->a->json)
        printf("%d tokens, %d layers of %d experts, %d a token\n", t.n_tokens, t.n_layers,
               t.n_experts, t.n_picks);
    if (!code) {
        trace_sort(&t);
        code = simulate_all(b, &t);
    }
    trace_close(&t);
    return code;
}
