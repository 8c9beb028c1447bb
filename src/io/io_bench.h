/* io_bench.h: how fast files can be read, and with which engine: measured.
 *
 * io_bench is one measurement; io_choose is the A/B of the direct engines on one file system, done
 * once and remembered in a small JSON file. */
#ifndef IO_IO_BENCH_H
#define IO_IO_BENCH_H

#include "io/io.h"

typedef struct io_bench_options {
    io_backend backend; /* not IO_AUTO */
    const char *const *paths;
    int n_files;
    uint32_t block;       /* bytes of one read; rounded up to IO_ALIGN */
    int depth;            /* reads in flight, 1 to IO_DEPTH_MAX */
    int threads;          /* as in io_options */
    uint64_t total_bytes; /* how much to read; ends early after max_seconds */
    double max_seconds;   /* 0: no limit */
    bool sequential;      /* block after block, else blocks at random places */
    uint64_t seed;
} io_bench_options;

typedef struct io_bench_result {
    uint64_t reads, bytes;
    double seconds, bytes_per_second;
    double latency_p50, latency_p95, latency_max; /* seconds from start to finish of one read */
    double cpu_seconds;                           /* of the whole process meanwhile */
} io_bench_result;

/* Reads whole blocks of the files that hold at least one. Memory: depth * block bytes, at most
 * IO_BENCH_MEMORY_MAX. ERR_ARG for a combination beyond it and for files without a whole block;
 * ERR_UNSUPPORTED where the engine is lacking; ERR_IO / ERR_CORRUPT of the first read that fails.
 */
#define IO_BENCH_MEMORY_MAX ((size_t)1 << 30)
err io_bench(const io_bench_options *options, io_bench_result *out) MUST_USE;

typedef struct io_choice {
    io_backend backend;  /* IO_URING or IO_PREAD; IO_BUFFERED where neither works or it is faster */
    bool measured;       /* now, or remembered from an earlier time; else only tried */
    bool remembered;     /* from an earlier time */
    double uring, pread; /* bytes per second; 0 where not measured */
    double buffered;     /* through the page cache, where that is worth a try (os.h) */
} io_choice;

/* The direct engine for these files. state_path may be NULL: then nothing is remembered. The file
 * is replaced atomically; one that cannot be read, understood or written is no failure. What is
 * remembered holds for a file system and a kernel release.
 *
 * Cost  the first time on a file system about IO_CHOOSE_BYTES of reading per engine; where the
 * files are smaller than that, only a trial read of each engine. */
#define IO_CHOOSE_BYTES ((uint64_t)128 << 20)
void io_choose(const char *const *paths, int n_files, const char *state_path, io_choice *out);

#endif
