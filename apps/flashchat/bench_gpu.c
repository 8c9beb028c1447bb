/* bench_gpu.c: gpu: a model on a graphics card, beside what the card, its bus and the disk do in
 * the same run.
 *
 *     ceilings   a copy on the card, pinned memory to the card (the disk: benchmark.c)
 *     prefill    random tokens into an empty conversation
 *     decode     random tokens, one a step for each of 1 and 8 conversations
 *
 * Random tokens, because a model of random weights soon repeats itself otherwise. The limit of a
 * step is the slowest of: the bytes of trunk, experts and states through the card's memory, those
 * of experts that were missed through the bus, those that were read through the disk. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../common/step_bytes.h"
#include "base/bits.h"
#include "benchmark.h"
#include "engine/fm_error.h"
#include "gpu/gpu.h"

#define STREAMS_MAX 8
#define PROMPT      512
#define PROMPT_HOST 24 /* of the processor that plays a card: slow */
#define ROUNDS      3
#define WARM        4
#define COPY_CARD   ((size_t)512 << 20)
#define COPY_HOST   ((size_t)16 << 20) /* of the processor that plays a card */

typedef struct card {
    bench *b;
    fm_engine *engine;
    fm_session *session[STREAMS_MAX];
    fm_plan p;
    fm_model m;
    double copy, bus;
    rng random;
} card;

/* The device that --gpu means; false after a message. */
static bool device_name(const bench *b, char name[16], int *index) {
    const char *asked = b->a->m.gpu, *best = gpu_best_backend();
    err why = err_none();
    if (asked && !strcmp(asked, "auto")) asked = NULL;
    if (!asked && !best) gpu_count("cuda", &why);
    if ((!asked && !best) || (asked && !strcmp(asked, "off"))) {
        fprintf(stderr, "%s: there is no graphics card to measure%s%s\n", b->program,
                why.code ? ": " : "", why.code ? why.text : "");
        fprintf(stderr,
                "flashchat benchmark decode measures the processor; --gpu host lets it play "
                "a card, slowly\n");
        return false;
    }
    snprintf(name, 16, "%s", asked ? asked : best);
    char *colon = strchr(name, ':');
    if (colon) *colon = '\0';
    *index = colon && strcmp(name, "host") ? (int)strtol(colon + 1, NULL, 10) : 0;
    return true;
}

static fm_error measure_card(card *c, const char *name, int index) {
    gpu_device *d;
    gpu_info info;
    err e = gpu_open(name, index, &d);
    if (e.code) return fm_error_from(&e);
    size_t bytes = strcmp(name, "host") ? COPY_CARD : COPY_HOST;
    e = gpu_info_get(d, &info);
    while (!e.code && bytes > info.free / 8) bytes /= 2;
    if (!e.code) e = gpu_measure(d, bytes, &c->copy, &c->bus);
    gpu_close(d);
    return fm_error_from(&e);
}

static fm_error open_model(card *c) {
    c->engine = model_open(c->b->program, &c->b->a->m, STREAMS_MAX);
    fm_error e = {FM_OK, ""};
    if (!c->engine) return (fm_error){FM_ERR_CANCELLED, "said already"};
    fm_engine_plan(c->engine, &c->p);
    fm_model_get(c->engine, &c->m);
    for (int i = 0; i < STREAMS_MAX && !e.code; i++) e = fm_session_open(c->engine, &c->session[i]);
    return e;
}

static void print_card(const card *c) {
    char taken[16], copy[16], bus[16];
    if (c->b->a->json) return;
    printf("%s: %s taken, %d of %d experts have a place there; copy %s/s (read and written), bus "
           "%s/s\n",
           c->m.gpu ? c->m.gpu : c->m.cpu, size_text((double)c->m.gpu_bytes, taken), c->m.gpu_slots,
           c->p.experts * c->p.sparse_layers, size_text(c->copy, copy), size_text(c->bus, bus));
    putchar('\n');
}

static int32_t any_token(card *c) { return (int32_t)(rng_next(&c->random) % (uint64_t)c->m.vocab); }

/* ---- runs ---- */

/* The best of a few, as the first one may read experts. */
static fm_error prefill(card *c) {
    bool host = !strcmp(c->m.gpu, "host");
    int n = host ? PROMPT_HOST : c->m.context / 2 < PROMPT ? c->m.context / 2 : PROMPT;
    double best = 1e9;
    fm_error e = {FM_OK, ""};
    int32_t ids[PROMPT];
    for (int i = 0; i < (host ? 1 : ROUNDS) && !e.code; i++) {
        for (int k = 0; k < n; k++) ids[k] = any_token(c);
        fm_session_clear(c->session[0]);
        double begin = seconds_now();
        e = fm_session_sync(c->session[0], ids, (size_t)n, NULL, NULL);
        double took = seconds_now() - begin;
        best = took < best ? took : best;
    }
    if (e.code) return e;
    bench_row row = {.unit = "tok/s", .value = n / best};
    snprintf(row.what, sizeof row.what, "prompt of %d tokens", n);
    bench_add(c->b, &row);
    return e;
}

static fm_error step(card *c, int streams) {
    int32_t ids[STREAMS_MAX];
    fm_item items[STREAMS_MAX] = {{0}};
    for (int i = 0; i < streams; i++) {
        ids[i] = any_token(c);
        items[i] = (fm_item){c->session[i], &ids[i], 1};
    }
    return fm_step(c->engine, items, streams);
}

/* The slowest way of a step's bytes. */
static void set_limit(const card *c, int streams, const fm_stats *s, bench_row *row) {
    double steps = c->b->a->tokens;
    step_bytes all = step_bytes_of(
        &c->p,
        (step_shape){.streams = streams, .sessions = STREAMS_MAX, .positions = WARM + steps / 2});
    double bytes = all.trunk + all.experts + all.states;
    const struct {
        const char *name;
        double bytes, rate;
    } ways[] = {{"card's memory", bytes, c->copy},
                {"bus", (double)s->gpu_upload_bytes / steps, c->bus},
                {"disk", (double)s->expert_read_bytes / steps, c->b->machine.disk_read}};
    double slowest = 0;
    for (size_t i = 0; i < sizeof ways / sizeof *ways; i++) {
        double seconds = ways[i].rate > 0 ? ways[i].bytes / ways[i].rate : 0;
        if (seconds <= slowest) continue;
        slowest = seconds;
        row->bound = ways[i].name;
        row->limit = streams / seconds;
    }
}

static fm_error decode(card *c, int streams) {
    fm_error e = {FM_OK, ""};
    for (int i = 0; i < streams; i++) fm_session_clear(c->session[i]);
    for (int i = 0; i < WARM && !e.code; i++) e = step(c, streams);
    fm_stats_reset(c->engine);
    double begin = seconds_now();
    for (int i = 0; i < c->b->a->tokens && !e.code; i++) e = step(c, streams);
    double took = seconds_now() - begin;
    if (e.code) return e;
    fm_stats s;
    fm_stats_get(c->engine, &s);
    bench_row row = {.unit = "tok/s", .value = streams * c->b->a->tokens / took};
    double asked = s.expert_requests ? (double)s.expert_requests : 1;
    double found = s.expert_requests ? 100 * (double)s.expert_hits / asked : 100;
    snprintf(row.what, sizeof row.what, "%d conversation%s, %.0f %% of experts there", streams,
             streams > 1 ? "s" : "", found);
    set_limit(c, streams, &s, &row);
    bench_add(c->b, &row);
    return e;
}

static void add_ceilings(const card *c) {
    bench_row copy = {.what = "copy on the card, read and written", .value = c->copy * 1e-9};
    bench_row bus = {.what = "pinned memory to the card", .value = c->bus * 1e-9};
    bench_row disk = {.what = "disk", .value = c->b->machine.disk_read * 1e-9};
    copy.unit = bus.unit = disk.unit = "GB/s";
    bench_add(c->b, &copy);
    bench_add(c->b, &bus);
    bench_add(c->b, &disk);
}

int bench_gpu(bench *b) {
    card c = {.b = b};
    char name[16];
    int index, needed = b->a->tokens + WARM + 2;
    rng_seed(&c.random, 9);
    if (!device_name(b, name, &index)) return EXIT_FAILED;
    fm_error e = measure_card(&c, name, index);
    if (!e.code) e = open_model(&c);
    if (!e.code && !c.m.gpu)
        e = (fm_error){FM_ERR_BUDGET, "nothing of this model fits on the card"};
    if (!e.code && needed > c.m.context)
        e = (fm_error){FM_ERR_ARG, "the context window is too short for --tokens"};
    if (!e.code) {
        interrupt_watch(c.engine);
        print_card(&c);
        add_ceilings(&c);
        e = prefill(&c);
    }
    if (!e.code) e = decode(&c, 1);
    if (!e.code) e = decode(&c, STREAMS_MAX);
    if (!e.code) fm_model_get(c.engine, &c.m);
    if (!e.code && !c.m.gpu)
        e = (fm_error){FM_ERR_IO, "the card was lost: these are no figures of it"};
    interrupt_watch(NULL);
    fm_engine_close(c.engine);
    return e.code == FM_ERR_CANCELLED ? EXIT_FAILED : e.code ? fail(b->program, &e) : 0;
}
