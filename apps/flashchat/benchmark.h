/* benchmark.h: what the parts of `flashchat benchmark` share: their options, and the list of
 * results, each with the limit that it is to be compared with.
 *
 * The parts look under the hood (src/ headers, not only the public API): they measure pieces of the
 * engine that no program needs otherwise. */
#ifndef FLASHCHAT_BENCHMARK_H
#define FLASHCHAT_BENCHMARK_H

#include "../common/model.h"

#define BENCH_ROWS_MAX    96
#define BENCH_REPEATS_MAX 1000

typedef struct bench_args {
    model_args m;
    const char *trace, *text, *csv, *out;
    int repeats, tokens;
    bool json;
} bench_args;

typedef struct bench_row {
    char what[80];
    double value; /* in unit */
    const char *unit;
    double limit;      /* in unit, measured in this run; 0: none */
    const char *bound; /* what sets the limit: "memory read"; or NULL */
    bool lower;        /* less is better: seconds; then limit / value is the share reached */
} bench_row;

typedef struct bench {
    const char *program;
    const bench_args *a;
    char dir[MODEL_PATH_MAX];      /* the model */
    fm_machine machine, machine_1; /* all threads, one thread */
    bench_row rows[BENCH_ROWS_MAX];
    int n_rows;
    bool failed; /* a check did not pass */
} bench;

/* Copies the row; what is formatted into it by the caller. */
void bench_add(bench *b, const bench_row *row);
/* Middle of n values, which are sorted. */
double bench_median(double *values, int n);
/* Prints "program: text"; EXIT_FAILED. */
int bench_fail(const bench *b, const char *text);

#define BENCH_FILES_MAX 256
typedef struct bench_files { /* the .safetensors files of a model */
    char path[BENCH_FILES_MAX][MODEL_PATH_MAX];
    const char *list[BENCH_FILES_MAX];
    int n;
} bench_files;

void bench_find_files(const char *dir, bench_files *f);

/* The parts; each returns an exit code. */
int bench_run_expert(bench *b, int repeats); /* run, bench */
int bench_verify(bench *b);                  /* every kernel table against the scalar one */
int bench_kernels(bench *b);                 /* matrix times vector, every table */
int bench_moe(bench *b, int repeats);        /* moe, moebench */
int bench_full(bench *b, int repeats);       /* full, fullbench */
int bench_decode(bench *b);                  /* by context */
int bench_prefill(bench *b);                 /* by length */
int bench_streams(bench *b);                 /* by conversations at once */
int bench_gpu(bench *b);                     /* a card beside what it and its bus can do */
int bench_io(bench *b);                      /* by block and depth */
int bench_pack(bench *b);                    /* beside reading and writing alone */
int bench_cache(bench *b);                   /* every policy against Belady */
int bench_quality(bench *b);                 /* against the exact path */

#endif
