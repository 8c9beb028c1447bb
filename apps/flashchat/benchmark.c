/* benchmark.c: flashchat benchmark: how fast the parts of the engine are on this machine, each
 * beside the limit measured in the same run.
 *
 * First the machine is measured (memory by all threads and by one, the disk under the model), then
 * the parts that were asked for run; a figure's limit is what those bandwidths allow for the bytes
 * that it must move. */
#include "benchmark.h"

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "command.h"

#define MEASURE_SECONDS 0.5

static const bench_args defaults = {.m = MODEL_DEFAULTS, .repeats = 10, .tokens = 64};

static const arg_def defs[] = {
    MODEL_ARGS(bench_args),
    STREAM_ARGS(bench_args),
    {"--k", "N", "experts per token (fewer than trained: lossy)", ARG_INT,
     MODEL_ARG(bench_args, experts), 1, 1024},
    {"--repeats", "N", "repeats of bench and moebench (default 10)", ARG_INT,
     offsetof(bench_args, repeats), 1, BENCH_REPEATS_MAX},
    {"--tokens", "N", "tokens of each decode measurement (default 64)", ARG_INT,
     offsetof(bench_args, tokens), 4, 4096},
    {"--trace", "FILE",
     "routing trace for cache (default: the model's routing.jsonl, or recorded now)", ARG_TEXT,
     offsetof(bench_args, trace), 0, 0},
    {"--text", "FILE", "text for quality (default: a built-in page)", ARG_TEXT,
     offsetof(bench_args, text), 0, 0},
    {"--out", "DIR", "where pack may write for a moment (default: the model's folder)", ARG_TEXT,
     offsetof(bench_args, out), 0, 0},
    {"--csv", "FILE", "append the figures to this file", ARG_TEXT, offsetof(bench_args, csv), 0, 0},
    {"--json", NULL, "one JSON object", ARG_FLAG, offsetof(bench_args, json), 0, 0},
};

/* ---- results ------------------------------------------------------------ */

static double share(const bench_row *r) {
    if (r->limit <= 0 || r->value <= 0) return 0;
    return r->lower ? r->limit / r->value : r->value / r->limit;
}

static void print_row(const bench_row *r) {
    printf("  %-44s %12.4g %-7s", r->what, r->value, r->unit);
    if (r->limit > 0) printf(" %5.1f %% of %.4g (%s)", 100 * share(r), r->limit, r->bound);
    putchar('\n');
    fflush(stdout);
}

void bench_add(bench *b, const bench_row *row) {
    if (b->n_rows == BENCH_ROWS_MAX) return;
    b->rows[b->n_rows++] = *row;
    if (!b->a->json) print_row(row);
}

static int by_value(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

double bench_median(double *values, int n) {
    qsort(values, (size_t)n, sizeof *values, by_value);
    return n % 2 ? values[n / 2] : (values[n / 2 - 1] + values[n / 2]) / 2;
}

int bench_fail(const bench *b, const char *text) {
    fflush(stdout);
    fprintf(stderr, "%s: %s\n", b->program, text);
    return EXIT_FAILED;
}

static int print_json(const bench *b, const char *part) {
    json_t *o = json_object(), *rows = json_array();
    json_object_set_new(o, "benchmark", json_string(part));
    json_object_set_new(o, "model", json_string(b->dir));
    json_object_set_new(o, "threads", json_integer(b->machine.threads));
    json_object_set_new(o, "memory_read_bytes_per_second", json_real(b->machine.memory_read));
    json_object_set_new(o, "memory_read_1_thread", json_real(b->machine_1.memory_read));
    json_object_set_new(o, "disk_read_bytes_per_second", json_real(b->machine.disk_read));
    json_object_set_new(o, "rows", rows);
    for (int i = 0; i < b->n_rows; i++) {
        const bench_row *r = &b->rows[i];
        json_t *row = json_object();
        json_object_set_new(row, "what", json_string(r->what));
        json_object_set_new(row, "value", json_real(r->value));
        json_object_set_new(row, "unit", json_string(r->unit));
        if (r->limit > 0) {
            json_object_set_new(row, "limit", json_real(r->limit));
            json_object_set_new(row, "bound", json_string(r->bound));
            json_object_set_new(row, "share_of_limit", json_real(share(r)));
        }
        json_array_append_new(rows, row);
    }
    char *text = json_dumps(o, JSON_INDENT(2) | JSON_REAL_PRECISION(6));
    json_decref(o);
    if (!text) return bench_fail(b, "no memory for the results");
    puts(text);
    free(text);
    return 0;
}

/* date, model, part, what, value, unit, share of the limit. */
static int append_csv(const bench *b, const char *part) {
    FILE *f = fopen(b->a->csv, "a");
    if (!f) {
        fprintf(stderr, "%s: %s: %s\n", b->program, b->a->csv, strerror(errno));
        return EXIT_FAILED;
    }
    char date[32];
    time_t now = time(NULL);
    struct tm tm;
    strftime(date, sizeof date, "%Y-%m-%dT%H:%M:%SZ", gmtime_r(&now, &tm));
    const char *slash = strrchr(b->dir, '/');
    const char *commit = getenv("BENCH_COMMIT");
    for (int i = 0; i < b->n_rows; i++) {
        const bench_row *r = &b->rows[i];
        fprintf(f, "%s,%s,%s,%s,\"%s\",%.6g,%s,%.4f\n", date, commit ? commit : "",
                slash ? slash + 1 : b->dir, part, r->what, r->value, r->unit, share(r));
    }
    if (fclose(f) == 0) return 0;
    return bench_fail(b, "the figures could not be written");
}

/* ---- the command -------------------------------------------------------- */

static int part_run(bench *b) { return bench_run_expert(b, 1); }
static int part_bench(bench *b) { return bench_run_expert(b, b->a->repeats); }
static int part_moe(bench *b) { return bench_moe(b, 1); }
static int part_moebench(bench *b) { return bench_moe(b, b->a->repeats); }
static int part_full(bench *b) { return bench_full(b, 1); }
static int part_fullbench(bench *b) { return bench_full(b, 3); }

static const struct part {
    const char *name;
    int (*run)(bench *b);
    const char *help;
} parts[] = {
    {"run", part_run, "one expert, one token"},
    {"verify", bench_verify, "one expert on every instruction set against the scalar code"},
    {"bench", part_bench, "one expert, 10 times"},
    {"moe", part_moe, "the experts of one layer for one token, streaming included"},
    {"moebench", part_moebench, "the same, 10 times"},
    {"full", part_full, "the whole model, one token"},
    {"fullbench", part_fullbench, "the same, 3 times"},
    {"decode", bench_decode, "tokens per second by length of the conversation"},
    {"prefill", bench_prefill, "reading speed by length of the prompt"},
    {"streams", bench_streams, "tokens per second of 1, 2, 4 and 8 conversations at once"},
    {"gpu", bench_gpu, "a graphics card: prompts, 1 and 8 conversations, beside its limits"},
    {"io", bench_io, "the disk by block size and reads in flight"},
    {"pack", bench_pack, "packing beside what the disk can read and write"},
    {"cache", bench_cache, "hit rate of every eviction policy on a routing trace"},
    {"quality", bench_quality, "what speed costs: perplexity and divergence from --exact"},
    {"kernels", bench_kernels, "matrix times vector on every instruction set"},
};
#define N_PARTS ((int)(sizeof parts / sizeof parts[0]))

static int wrong_part(const command *c, const char *typed) {
    const char *names[N_PARTS];
    for (int i = 0; i < N_PARTS; i++) names[i] = parts[i].name;
    const char *near = nearest_name(typed, names, N_PARTS);
    if (near) return args_wrong(c->program, "no benchmark %s. Did you mean %s?", typed, near);
    return args_wrong(c->program, "no benchmark %s", typed);
}

static int measure(bench *b) {
    fm_error e = fm_machine_measure(b->dir, b->a->m.threads, MEASURE_SECONDS, &b->machine);
    if (!e.code) e = fm_machine_measure(NULL, 1, MEASURE_SECONDS, &b->machine_1);
    if (e.code) return fail(b->program, &e);
    if (b->a->json) return 0;
    char all[16], one[16], disk[16];
    printf("%s\nmemory %s/s (%d threads), %s/s (1 thread); disk %s/s\n\n", b->dir,
           size_text(b->machine.memory_read, all), b->machine.threads,
           size_text(b->machine_1.memory_read, one), size_text(b->machine.disk_read, disk));
    return 0;
}

static int run(const command *c, const void *args, const arg_list *rest) {
    const char *name = rest->n ? rest->item[0] : "decode";
    if (rest->n > 1) return args_wrong(c->program, "one benchmark at a time");
    const struct part *part = NULL;
    for (int i = 0; i < N_PARTS; i++)
        if (!strcmp(parts[i].name, name)) part = &parts[i];
    if (!part) return wrong_part(c, name);
    bench *b = calloc(1, sizeof *b);
    if (!b) return EXIT_FAILED;
    b->program = c->program;
    b->a = args;
    int code = model_find(c->program, b->a->m.model, b->dir) ? measure(b) : EXIT_FAILED;
    if (!code) code = part->run(b);
    if (!code && b->a->json) code = print_json(b, part->name);
    if (!code && b->a->csv) code = append_csv(b, part->name);
    if (!code && b->failed) code = EXIT_FAILED;
    free(b);
    return code;
}

const command command_benchmark = {
    .name = "benchmark",
    .program = "flashchat benchmark",
    .usage = "[PART] [options]",
    .summary = "how fast this machine runs a model, and what limits it",
    .details = "PART is one of\n"
               "  run        one expert, one token\n"
               "  verify     one expert on every instruction set against the scalar code\n"
               "  bench      one expert, 10 times\n"
               "  moe        the experts of one layer for one token, streaming included\n"
               "  moebench   the same, 10 times\n"
               "  full       the whole model, one token\n"
               "  fullbench  the same, 3 times\n"
               "  decode     tokens per second by length of the conversation (default)\n"
               "  prefill    reading speed by length of the prompt\n"
               "  streams    tokens per second of 1, 2, 4 and 8 conversations at once\n"
               "  gpu        a graphics card: prompts, 1 and 8 conversations, beside its limits\n"
               "  io         the disk by block size and reads in flight\n"
               "  pack       packing beside what the disk can read and write\n"
               "  cache      hit rate of every eviction policy on a routing trace\n"
               "  quality    what speed costs: perplexity and divergence from --exact\n"
               "  kernels    matrix times vector on every instruction set\n"
               "Each figure comes with its share of the limit measured in the same run.\n",
    COMMAND_ARGS(defs),
    .args_bytes = sizeof(bench_args),
    .defaults = &defaults,
    .run = run,
};
