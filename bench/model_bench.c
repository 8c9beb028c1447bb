/* model_bench.c: reading and writing speed of a model, taken as `llama-bench` takes them, so that
 * the two can be run in turns (bench/peer.sh).
 *
 *     prefill   N random tokens into an empty session, one call
 *     decode    N random tokens one by one from an empty session, nothing sampled
 *
 * Both after a warm-up of all experts: one prompt that is not counted. Beside decode stands what
 * memory allows: the bytes that a token touches and how fast as many threads read memory, from end
 * to end and for the experts' part in blocks at random places, measured in turns with the decode
 * runs. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../apps/common/args.h"
#include "base/bits.h"
#include "flashmoe.h"

#define RUNS_MAX 32

typedef struct settings {
    const char *model, *cpu;
    size_t memory;
    int prompt, tokens, runs, threads, context, depth;
    bool exact, timing, turns;
} settings;

#define SET(name, value, help, kind, field, ...)                                                   \
    { name, value, help, kind, offsetof(settings, field), __VA_ARGS__ }

static const arg_def defs[] = {
    SET("--model", "DIR", "the model's directory", ARG_TEXT, model, 0, 0),
    SET("--prompt", "N", "tokens of a prefill run, 0: none (default 512)", ARG_INT, prompt, 0,
        65536),
    SET("--tokens", "N", "tokens of a decode run, 0: none (default 64)", ARG_INT, tokens, 0, 65536),
    SET("--depth", "N", "tokens in front of a decode run (default 0)", ARG_INT, depth, 0, 65536),
    SET("--runs", "N", "of each (default 3)", ARG_INT, runs, 1, RUNS_MAX),
    SET("--threads", "N", "default: one per processor", ARG_INT, threads, 1, 256),
    SET("--memory", "SIZE", "most memory to use", ARG_SIZE, memory, 1, 1e15),
    SET("--cpu", "NAME", "kernels", ARG_TEXT, cpu, 0, 0),
    SET("--exact", NULL, "float32 activations", ARG_FLAG, exact, 0, 0),
    SET("--turns", NULL, "each run waits for a line on standard input, and is printed at once",
        ARG_FLAG, turns, 0, 0),
    SET("--timing", NULL, "also: where the time went", ARG_FLAG, timing, 0, 0),
};

typedef struct bench {
    settings s;
    fm_engine *engine;
    fm_session *session;
    int32_t *ids; /* [context] of the run */
    int context;
    fm_model m;
    fm_plan p;
} bench;

static double now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void print_runs(const char *what, int n, double *speed, int runs) {
    printf("%s%d tok/s:", what, n);
    for (int i = 0; i < runs; i++) printf(" %.2f", speed[i]);
    qsort(speed, (size_t)runs, sizeof *speed, by_value);
    printf(" | median %.2f best %.2f\n", speed[runs / 2], speed[runs - 1]);
    fflush(stdout);
}

static void print_timing(const bench *b, int tokens) {
    fm_layer_timing *t = calloc((size_t)b->m.layers, sizeof *t), all = {0};
    int n = t ? fm_timing_get(b->engine, t, b->m.layers) : 0;
    for (int i = 0; i < n; i++) {
        all.attention += t[i].attention, all.delta += t[i].delta, all.router += t[i].router;
        all.read_wait += t[i].read_wait, all.experts += t[i].experts, all.other += t[i].other;
    }
    free(t);
    double ms = 1e3 / tokens;
    printf("  ms a token: attention %.3f, delta %.3f, router %.3f, waiting %.3f, experts %.3f, "
           "sum %.3f\n",
           all.attention * ms, all.delta * ms, all.router * ms, all.read_wait * ms,
           all.experts * ms, all.other * ms);
}

/* So that somebody else can let two programs run in turns. False: no more lines. */
static bool my_turn(const bench *b) {
    char line[64];
    return !b->s.turns || fgets(line, sizeof line, stdin);
}

static void print_turn(const bench *b, const char *what, double speed) {
    if (b->s.turns) printf("%s: %.2f tok/s\n", what, speed);
}

/* Every run has tokens of its own: with the same ones again a streamed model would find the experts
 * of the run before in memory. */
static void draw(bench *b, uint64_t seed) {
    rng r;
    rng_seed(&r, seed);
    for (int i = 0; i < b->context; i++) b->ids[i] = (int32_t)(rng_next(&r) % (uint64_t)b->m.vocab);
}

static fm_error prefill(bench *b, int n, double *speed) {
    fm_session_clear(b->session);
    double begin = now();
    fm_error e = fm_session_sync(b->session, b->ids, (size_t)n, NULL, NULL);
    *speed = n / (now() - begin);
    return e;
}

static fm_error decode(bench *b, int n, double *speed) {
    fm_session_clear(b->session);
    fm_error e = {FM_OK, ""};
    int depth = b->s.depth;
    if (depth) e = fm_session_sync(b->session, b->ids, (size_t)depth, NULL, NULL);
    if (b->s.timing) fm_timing_enable(b->engine, true), fm_stats_reset(b->engine);
    double begin = now();
    for (int i = 0; i < n && !e.code; i++) e = fm_session_step(b->session, b->ids[depth + i]);
    *speed = n / (now() - begin);
    return e;
}

static fm_error all_prefill(bench *b) {
    double speed[RUNS_MAX];
    int n = b->s.prompt;
    if (b->s.timing) fm_timing_enable(b->engine, true), fm_stats_reset(b->engine);
    for (int i = 0; i < b->s.runs; i++) {
        if (!my_turn(b)) return (fm_error){FM_OK, ""};
        draw(b, 42 + (uint64_t)i);
        fm_error e = prefill(b, n, &speed[i]);
        if (e.code) return e;
        print_turn(b, "prefill", speed[i]);
    }
    print_runs("prefill", n, speed, b->s.runs);
    if (b->s.timing) print_timing(b, n * b->s.runs);
    return (fm_error){FM_OK, ""};
}

/* The middle of the sorted runs, with the lowest and the highest. */
static double middle(double *rates, int runs) {
    qsort(rates, (size_t)runs, sizeof *rates, by_value);
    printf(" %.1f to %.1f, median %.1f GB/s", rates[0] * 1e-9, rates[runs - 1] * 1e-9,
           rates[runs / 2] * 1e-9);
    return rates[runs / 2];
}

/* speed: the median. memory and blocks: of each run, bytes a second. */
static void print_limits(const bench *b, double speed, double *memory, double *blocks) {
    double trunk = (double)b->p.trunk_bytes_token, experts = (double)b->p.expert_bytes_token;
    printf("  %.3f GB a token; memory reads", (trunk + experts) * 1e-9);
    double limit = middle(memory, b->s.runs) / (trunk + experts);
    printf(": limit %.2f tok/s, reached %.0f %%\n", limit, 100 * speed / limit);
    if (b->p.expert_bytes == 0) return;
    printf("  %.3f GB of it experts; blocks of %.0f KiB at random places", experts * 1e-9,
           (double)b->p.expert_bytes / 3 / 1024);
    double rate = middle(blocks, b->s.runs);
    limit = 1 / (trunk / memory[b->s.runs / 2] + experts / rate);
    printf(": limit %.2f tok/s, reached %.0f %%\n", limit, 100 * speed / limit);
}

static fm_error all_decode(bench *b) {
    double speed[RUNS_MAX], memory[RUNS_MAX], blocks[RUNS_MAX];
    int n = b->s.tokens, runs = b->s.runs;
    for (int i = 0; i < runs; i++) {
        fm_machine machine;
        if (!my_turn(b)) return (fm_error){FM_OK, ""};
        fm_error e = fm_machine_measure(NULL, b->m.threads, 0.5, &machine);
        if (!e.code && b->p.expert_bytes)
            e = fm_machine_measure_blocks(b->m.threads, b->p.expert_bytes / 3, 0.5, &blocks[i]);
        draw(b, 1042 + (uint64_t)i);
        if (!e.code) e = decode(b, n, &speed[i]);
        if (e.code) return e;
        memory[i] = machine.memory_read;
        print_turn(b, "decode", speed[i]);
    }
    print_runs("decode", n, speed, runs);
    if (b->s.timing) print_timing(b, n);
    print_limits(b, speed[runs / 2], memory, blocks);
    return (fm_error){FM_OK, ""};
}

static fm_error run(bench *b) {
    const settings *s = &b->s;
    fm_options o;
    fm_options_init(&o);
    o.model_dir = s->model, o.memory = s->memory, o.threads = s->threads;
    o.cpu = s->cpu, o.exact = s->exact, o.gpu = "off";
    o.context = s->depth + (s->prompt > s->tokens ? s->prompt : s->tokens) + 64;
    if (o.context < 576) o.context = 576;
    double begin = now();
    fm_error e = fm_engine_open(&o, &b->engine);
    if (e.code) return e;
    fm_model_get(b->engine, &b->m);
    fm_engine_plan(b->engine, &b->p);
    b->ids = calloc((size_t)o.context, sizeof *b->ids);
    if (!b->ids) return (fm_error){FM_ERR_NOMEM, "no memory"};
    b->context = o.context;
    e = fm_session_open(b->engine, &b->session);
    double speed;
    for (int i = 0; i < 2 && !e.code; i++) { /* touches nearly all experts */
        draw(b, (uint64_t)i);
        e = prefill(b, 512, &speed);
    }
    if (e.code) return e;
    printf("%s, %d layers, %s, %d threads, %s; ready after %.1f s\n", b->m.architecture,
           b->m.layers, b->m.cpu, b->m.threads,
           b->p.resident ? "all experts in memory" : "streamed", now() - begin);
    if (s->prompt) e = all_prefill(b);
    if (!e.code && s->tokens) e = all_decode(b);
    return e;
}

int main(int argc, char **argv) {
    setvbuf(stdout, NULL, _IOLBF, 0);
    bench b = {.s = {.prompt = 512, .tokens = 64, .runs = 3}};
    const arg_table table = {"model-bench", defs, sizeof defs / sizeof defs[0]};
    arg_list rest;
    arg_result got = args_parse(&table, argc - 1, argv + 1, &b.s, &rest);
    if (got == ARGS_HELP || (got == ARGS_OK && !b.s.model)) {
        printf("usage: model-bench --model DIR [options]\n\n");
        args_help(&table);
        return got == ARGS_HELP ? 0 : EXIT_USAGE;
    }
    if (got == ARGS_WRONG) return EXIT_USAGE;
    fm_error e = run(&b);
    if (e.code) fprintf(stderr, "model-bench: %s\n", e.text);
    fm_session_close(b.session);
    fm_engine_close(b.engine);
    free(b.ids);
    return e.code ? EXIT_FAILED : 0;
}
