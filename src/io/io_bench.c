/* io_bench.c: one measurement of reading speed; see io_bench.h. */
#include "io/io_bench.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/bits.h"
#include "base/os.h"

#define LATENCIES_MAX 65536 /* later reads are not in the percentiles */

typedef struct bench {
    io *io;
    uint32_t block;
    int n_files;
    int64_t n_blocks; /* whole ones, of all files */
    int64_t next;     /* sequential: the next block */
    rng random;       /* else */
    uint8_t *memory;  /* depth blocks */
    io_read *reads;   /* [depth] */
    uint64_t *begun;  /* [depth] */
    float *latencies; /* [LATENCIES_MAX] seconds */
    size_t n_latencies;
} bench;

static double cpu_now(void) {
    struct timespec t;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
    return (double)t.tv_sec + (double)t.tv_nsec * 1e-9;
}

static void start_one(bench *b, io_read *r, const io_bench_options *options) {
    uint64_t pick = options->sequential ? (uint64_t)b->next++ : rng_next(&b->random);
    int64_t block = (int64_t)(pick % (uint64_t)b->n_blocks);
    int file = 0;
    for (; file < b->n_files - 1; file++) {
        int64_t here = io_file_bytes(b->io, file) / b->block;
        if (block < here) break;
        block -= here;
    }
    size_t index = (size_t)(r - b->reads);
    *r = (io_read){.dst = b->memory + index * b->block,
                   .offset = block * b->block,
                   .bytes = b->block,
                   .need = b->block,
                   .file = file};
    b->begun[index] = os_now_ns();
    io_start(b->io, r);
    io_flush(b->io);
}

static int by_size(const void *a, const void *b) {
    float x = *(const float *)a, y = *(const float *)b;
    return (x > y) - (x < y);
}

static void summarise(bench *b, io_bench_result *out) {
    out->bytes_per_second = out->seconds > 0 ? (double)out->bytes / out->seconds : 0;
    if (b->n_latencies == 0) return;
    qsort(b->latencies, b->n_latencies, sizeof *b->latencies, by_size);
    out->latency_p50 = b->latencies[b->n_latencies / 2];
    out->latency_p95 = b->latencies[b->n_latencies - 1 - b->n_latencies / 20];
    out->latency_max = b->latencies[b->n_latencies - 1];
}

static err measure(bench *b, const io_bench_options *options, io_bench_result *out) {
    err e = err_none();
    uint64_t started = 0, begin = os_now_ns();
    double cpu = cpu_now();
    for (int i = 0; i < options->depth && started < options->total_bytes; i++) {
        start_one(b, &b->reads[i], options);
        started += b->block;
    }
    for (io_read *r; (r = io_next(b->io, true));) {
        uint64_t now = os_now_ns();
        if (r->error && !e.code) e = io_read_error(b->io, r);
        out->reads++;
        out->bytes += r->need;
        uint64_t took = now - b->begun[r - b->reads];
        if (b->n_latencies < LATENCIES_MAX) b->latencies[b->n_latencies++] = (float)took * 1e-9f;
        bool late = options->max_seconds > 0 && (double)(now - begin) * 1e-9 > options->max_seconds;
        if (started >= options->total_bytes || late || e.code) continue;
        start_one(b, r, options);
        started += b->block;
    }
    out->seconds = (double)(os_now_ns() - begin) * 1e-9;
    out->cpu_seconds = cpu_now() - cpu;
    summarise(b, out);
    return e;
}

static err prepare(bench *b, const io_bench_options *options) {
    io_options files = {.backend = options->backend,
                        .paths = options->paths,
                        .n_files = options->n_files,
                        .threads = options->threads,
                        .depth = options->depth};
    size_t depth = (size_t)options->depth, bytes = depth * b->block;
    /* Huge pages, as the expert store's slots: scattered small pages halve the speed of some disks
     * (docs/MEASURED.md, "Expert store"). */
    void *memory = NULL;
    TRY(os_map(bytes, true, &memory));
    b->memory = memory;
    b->reads = calloc(depth, sizeof *b->reads);
    b->begun = calloc(depth, sizeof *b->begun);
    b->latencies = calloc(LATENCIES_MAX, sizeof *b->latencies);
    if (!b->reads || !b->begun || !b->latencies)
        return err_make(ERR_NOMEM, "no memory for reading %zu bytes at once", bytes);
    memset(b->memory, 0, bytes); /* the system's work of providing pages is not the disk's */
    files.memory = b->memory;
    files.memory_bytes = bytes;
    files.memory_unit = b->block;
    TRY(io_open(&files, &b->io));
    for (int i = 0; i < options->n_files; i++) b->n_blocks += io_file_bytes(b->io, i) / b->block;
    if (b->n_blocks == 0)
        return err_make(ERR_ARG, "%s is smaller than one block of %u bytes", options->paths[0],
                        b->block);
    return err_none();
}

err io_bench(const io_bench_options *options, io_bench_result *out) {
    memset(out, 0, sizeof *out);
    if (options->n_files < 1 || options->depth < 1 || options->depth > IO_DEPTH_MAX ||
        options->block < 1 || options->block > IO_BENCH_MEMORY_MAX / (size_t)options->depth) {
        return err_make(ERR_ARG,
                        "%d reads of %u bytes at once: between 1 and %d reads, and 1 GiB in all, "
                        "are possible",
                        options->depth, options->block, IO_DEPTH_MAX);
    }
    bench b = {.block = (uint32_t)round_up(options->block, IO_ALIGN), .n_files = options->n_files};
    rng_seed(&b.random, options->seed);
    err e = prepare(&b, options);
    if (!e.code) e = measure(&b, options, out);
    io_close(b.io);
    if (b.memory) os_unmap(b.memory, (size_t)options->depth * b.block);
    free(b.reads);
    free(b.begun);
    free(b.latencies);
    if (e.code) memset(out, 0, sizeof *out);
    return e;
}
