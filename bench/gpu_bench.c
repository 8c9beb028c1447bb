/* gpu_bench.c: a model on a card beside what the card, its bus and the disk allow.
 *
 *     ceilings   copy on the card (read and written), pinned memory to the card, direct reads of
 * the disk: measured by the same process, before and (the disk) between tokens prefill    N random
 * tokens into an empty session decode     random tokens, one a step for each of S streams
 *
 * Random tokens, because a model of random weights soon repeats itself otherwise. How much of the
 * experts the card and the memory hold is given as shares of all of them; what else is needed comes
 * on top. Limits are the bytes that a step must move over the ceiling's rate. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../apps/common/args.h"
#include "../apps/common/step_bytes.h"
#include "base/bits.h"
#include "base/os.h"
#include "engine/engine_impl.h"
#include "gpu_bench_soak.h"
#include "limits.h"

#define MIB          ((size_t)1 << 20)
#define COPY_BYTES   (512 * MIB)
#define STREAMS_MAX  8
#define DISK_SECONDS 0.3
#define DISK_DEPTH   8
#define WARM_STEPS   4

typedef struct settings {
    const char *model, *gpu, *name, *state;
    float vram_share, memory_share;
    int prompt, tokens, streams, experts, look_ahead, warm;
    bool disk, cpu_experts;
    soak_settings soak;
} settings;

#define SET(name, value, help, kind, field, ...)                                                   \
    { name, value, help, kind, offsetof(settings, field), __VA_ARGS__ }

static const arg_def defs[] = {
    SET("--model", "DIR", "the model's directory", ARG_TEXT, model, 0, 0),
    SET("--name", "TEXT", "of the run, in its lines", ARG_TEXT, name, 0, 0),
    SET("--gpu", "DEVICE", "cuda (default), host, off", ARG_TEXT, gpu, 0, 0),
    SET("--vram-share", "F", "of the experts on the card (default: what fits)", ARG_FLOAT,
        vram_share, 0, 1),
    SET("--memory-share", "F", "of the experts in memory (default: what fits)", ARG_FLOAT,
        memory_share, 0, 1),
    SET("--prompt", "N", "tokens of a prefill run (default 0: none)", ARG_INT, prompt, 0, 65536),
    SET("--tokens", "N", "steps of decoding (default 64)", ARG_INT, tokens, 0, 65536),
    SET("--warm", "N", "steps before them (default 4)", ARG_INT, warm, 0, 65536),
    SET("--streams", "N", "sessions side by side (default 1)", ARG_INT, streams, 1, STREAMS_MAX),
    SET("--k", "N", "experts per token", ARG_INT, experts, 1, 1024),
    SET("--look-ahead", NULL, "default; --no-look-ahead", ARG_SWITCH, look_ahead, 0, 0),
    SET("--cpu-experts", NULL, "the processor computes some too", ARG_FLAG, cpu_experts, 0, 0),
    SET("--disk", NULL, "also: the disk's rate, between tokens", ARG_FLAG, disk, 0, 0),
    SET("--io-state", "FILE", "remembers the choice of an engine", ARG_TEXT, state, 0, 0),
    SET("--soak", "N", "instead: N greedy tokens at random limits, compared with the processor's",
        ARG_INT, soak.tokens, 1, 1 << 24),
    SET("--seed", "N", "of the soak", ARG_U64, soak.seed, 0, 0),
    SET("--lose", NULL, "the soak is one engine, whose card is lost on the way", ARG_FLAG,
        soak.lose, 0, 0),
    SET("--provoke", "F",
        "a test of the soak: the card takes the next expert where the processor's router finds it "
        "less than F worse",
        ARG_FLOAT, soak.provoke, 0, 100),
};

typedef struct bench {
    settings s;
    fm_engine *engine;
    fm_session *session[STREAMS_MAX];
    fm_plan p;
    double copy, bus; /* bytes a second */
    rng random;
} bench;

static double now(void) { return (double)os_now_ns() * 1e-9; }

static int failed(const fm_error *e) {
    if (e->code) fprintf(stderr, "gpu-bench: %s\n", e->text);
    return e->code ? EXIT_FAILED : 0;
}

/* ---- ceilings ---- */

static err measure_card(bench *b) {
    gpu_device *d = NULL;
    TRY(gpu_open(b->s.gpu, 0, &d));
    err e = gpu_measure(d, COPY_BYTES, &b->copy, &b->bus);
    gpu_close(d);
    return e;
}

/* Random direct reads as large as an expert. */
static double disk_speed(const bench *b) {
    double rate;
    err e = limits_disk(b->engine, DISK_DEPTH, DISK_SECONDS, &rate);
    if (e.code) fprintf(stderr, "gpu-bench: %s\n", e.text);
    return rate;
}

/* ---- opening ---- */

static fm_error set_limits(const settings *s, fm_options *o) {
    fm_error e = {FM_OK, ""};
    if (s->memory_share > 0) e = limits_memory(o, (double)s->memory_share, 64 * MIB);
    if (e.code || s->vram_share <= 0 || !strcmp(s->gpu, "off")) return e;
    memory_plan plan;
    err failed = memory_plan_get(o, &plan);
    const gpu_ops_need need = plan.need;
    size_t slots = (size_t)ceil((double)s->vram_share * (double)need.keys);
    if (failed.code) return fm_error_from(&failed);
    o->vram = need.trunk + need.kv + need.state + need.activations +
              (size_t)need.keys * sizeof(gpu_slot) + slots * (need.slot_bytes + sizeof(gpu_slot));
    return e;
}

static void print_progress(void *ctx, const char *what, uint64_t done, uint64_t total) {
    (void)ctx;
    if (done == total) fprintf(stderr, "%s done\n", what);
}

static fm_error open_engine(bench *b) {
    const settings *s = &b->s;
    fm_options o;
    fm_options_init(&o);
    int context = s->prompt + s->tokens + s->warm + 64;
    o.model_dir = s->model;
    o.gpu = s->gpu;
    o.context = context < 2048 ? 2048 : context;
    o.sessions = s->streams;
    o.experts_per_token = s->experts;
    o.no_look_ahead = !s->look_ahead;
    o.cpu_experts = s->cpu_experts;
    o.io_state = s->state;
    o.progress = print_progress;
    fm_error e = set_limits(s, &o);
    double begin = now();
    if (!e.code) e = fm_engine_open(&o, &b->engine);
    for (int i = 0; i < s->streams && !e.code; i++) e = fm_session_open(b->engine, &b->session[i]);
    if (e.code) return e;
    if (!b->engine->store) return (fm_error){FM_ERR_ARG, "this model has no experts"};
    fm_engine_plan(b->engine, &b->p);
    const expert_store *store = b->engine->store;
    int keys = b->p.sparse_layers * b->p.experts, slots = expert_store_slots(store);
    fm_model m;
    fm_model_get(b->engine, &m);
    while (slots + m.gpu_slots >= keys && !expert_store_idle(b->engine->store, 1000)) continue;
    printf("%s: %s; %d experts of %.2f MB: %d slots on the card (%.2f GB taken), %d in memory; "
           "chunks of %d; open after %.1f s\n",
           s->name, m.gpu ? m.gpu : m.cpu, keys, (double)b->p.expert_bytes * 1e-6, m.gpu_slots,
           (double)m.gpu_bytes * 1e-9, slots, fm_rows_max(b->engine), now() - begin);
    return e;
}

/* ---- runs ---- */

static int32_t any_token(bench *b) {
    return (int32_t)(rng_next(&b->random) % (uint64_t)b->engine->files.config.vocab);
}

static fm_error prefill(bench *b, int n, double *took) {
    int32_t *ids = calloc((size_t)n, sizeof *ids);
    if (!ids) return (fm_error){FM_ERR_NOMEM, "no memory"};
    for (int i = 0; i < n; i++) ids[i] = any_token(b);
    fm_session_clear(b->session[0]);
    double begin = now();
    fm_error e = fm_session_sync(b->session[0], ids, (size_t)n, NULL, NULL);
    *took = now() - begin;
    free(ids);
    return e;
}

static fm_error run_prefill(bench *b) {
    double best = 1e9, took = 0;
    fm_error e = {FM_OK, ""};
    for (int i = 0; i < 3 && !e.code; i++) {
        e = prefill(b, b->s.prompt, &took);
        best = took < best ? took : best;
    }
    printf("%s: prefill %d: %.0f tok/s (best of 3)\n", b->s.name, b->s.prompt, b->s.prompt / best);
    return e;
}

static fm_error step(bench *b) {
    int32_t ids[STREAMS_MAX];
    fm_item items[STREAMS_MAX] = {{0}};
    for (int i = 0; i < b->s.streams; i++) {
        ids[i] = any_token(b);
        items[i] = (fm_item){b->session[i], &ids[i], 1};
    }
    return fm_step(b->engine, items, b->s.streams);
}

static void print_card(const bench *b, double step) {
    step_bytes all = step_bytes_of(&b->p, (step_shape){.streams = b->s.streams,
                                                       .sessions = b->s.streams,
                                                       .positions = b->s.warm + b->s.tokens / 2.0});
    double of_weights = all.trunk + all.experts, bytes = of_weights + all.states;
    printf("%s:   card: %.1f MB a step (trunk %.1f, experts %.1f, states and caches %.1f), copy "
           "%.0f GB/s: limit %.0f tok/s, reached %.1f %% (weights alone %.1f %%)\n",
           b->s.name, bytes * 1e-6, all.trunk * 1e-6, all.experts * 1e-6, all.states * 1e-6,
           b->copy * 1e-9, b->s.streams * b->copy / bytes, 100 * bytes / b->copy / step,
           100 * of_weights / b->copy / step);
}

static void print_limits(const bench *b, double seconds, const fm_stats *s, double disk) {
    double n = b->s.tokens, step = seconds / n;
    if (b->copy > 0) print_card(b, step);
    double up = (double)s->gpu_upload_bytes / n;
    double wasted = (double)(s->gpu_guesses - s->gpu_guesses_used) * (double)b->p.expert_bytes / n;
    if (up > 0)
        printf("%s:   bus: %.1f MB missed a step (and %.1f guessed wrongly; %llu of %llu guesses "
               "used), %.1f GB/s alone: reached %.1f %%; back %.1f MB, %llu promoted; %.1f MB "
               "computed on "
               "the processor\n",
               b->s.name, (up - wasted) * 1e-6, wasted * 1e-6,
               (unsigned long long)s->gpu_guesses_used, (unsigned long long)s->gpu_guesses,
               b->bus * 1e-9, 100 * (up - wasted) / step / b->bus,
               (double)s->gpu_download_bytes / n * 1e-6, (unsigned long long)s->gpu_promotions,
               (double)s->gpu_on_cpu * (double)b->p.expert_bytes / n * 1e-6);
    double read = (double)s->expert_read_bytes / n;
    if (disk > 0)
        printf("%s:   disk: %.1f MB a step at %.2f GB/s, alone %.2f GB/s: reached %.1f %%; %llu of "
               "%llu guesses used\n",
               b->s.name, read * 1e-6, read / step * 1e-9, disk * 1e-9, 100 * read / step / disk,
               (unsigned long long)s->prefetch_used, (unsigned long long)s->prefetch_issued);
}

static fm_error run_decode(bench *b) {
    fm_error e = {FM_OK, ""};
    double took = 0, per_byte = 0;
    int measured = 0;
    for (int i = 0; i < b->s.warm && !e.code; i++) e = step(b);
    fm_stats_reset(b->engine);
    for (int i = 0; i < b->s.tokens && !e.code; i++) {
        if (b->s.disk && i % (b->s.tokens / 4 + 1) == 0) {
            per_byte += 1 / disk_speed(b);
            measured++;
        }
        double begin = now();
        e = step(b);
        took += now() - begin;
    }
    if (e.code) return e;
    fm_stats s;
    fm_stats_get(b->engine, &s);
    printf(
        "%s: decode, %d stream%s: %.2f tok/s, %.0f us a layer; %.1f %% of %llu requests found on "
        "the card or in memory; %llu of %llu steps as graphs\n",
        b->s.name, b->s.streams, b->s.streams > 1 ? "s" : "", b->s.streams * b->s.tokens / took,
        took * 1e6 / b->s.tokens / b->p.layers,
        100 * (double)s.expert_hits / (double)(s.expert_requests ? s.expert_requests : 1),
        (unsigned long long)s.expert_requests, (unsigned long long)s.gpu_graph_steps,
        (unsigned long long)s.gpu_steps);
    print_limits(b, took, &s, measured ? measured / per_byte : 0);
    return e;
}

int main(int argc, char **argv) {
    bench b = {.s = {.gpu = "cuda", .name = "run", .tokens = 64, .streams = 1, .warm = WARM_STEPS}};
    b.s.look_ahead = 1;
    b.s.soak.seed = 1;
    arg_list rest;
    arg_table table = {"gpu-bench", defs, sizeof defs / sizeof defs[0]};
    arg_result parsed = args_parse(&table, argc - 1, argv + 1, &b.s, &rest);
    if (parsed == ARGS_HELP) args_help(&table);
    if (parsed != ARGS_OK) return parsed == ARGS_HELP ? 0 : EXIT_USAGE;
    if (!b.s.model || rest.n) return args_wrong("gpu-bench", "give --model DIR");
    rng_seed(&b.random, 9);
    setvbuf(stdout, NULL, _IOLBF, 0);
    fm_error e = {FM_OK, ""};
    if (b.s.soak.tokens) {
        b.s.soak.name = b.s.name, b.s.soak.model = b.s.model, b.s.soak.gpu = b.s.gpu;
        e = soak_run(&b.s.soak);
        return failed(&e);
    }
    err measured = strcmp(b.s.gpu, "off") ? measure_card(&b) : err_none();
    e = fm_error_from(&measured);
    if (!e.code) e = open_engine(&b);
    if (!e.code && b.s.prompt) e = run_prefill(&b);
    if (!e.code && b.s.tokens) e = run_decode(&b);
    printf("%s: peak memory %.2f GB\n", b.s.name, (double)os_peak_rss() * 1e-9);
    fm_engine_close(b.engine);
    return failed(&e);
}
