/* bench_pack.c: benchmark pack: packs the model into a folder that is removed again, and verifies
 * it there (verify --deep), between two measurements of what the disk does with as many bytes:
 * reading those of the source, writing those of the result and flushing. Fewer bytes would not do:
 * the first gigabytes of writing may go no further than some cache below this system, and what is
 * read once more may come out of one. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/os.h"
#include "base/pool.h"
#include "benchmark.h"
#include "files.h"
#include "format/bank.h"
#include "io/io_bench.h"
#include "work_bar.h"

#define WRITERS       1 /* as packing does */
#define WRITE_BYTES   ((size_t)16 << 20)
#define READ_BLOCK    (1u << 20)
#define READ_DEPTH    32
#define BYTES_MAX     ((uint64_t)8 << 30) /* each time, of reading and of writing */
#define MEMORY_PASSES 4 /* over each byte: copied (read, fetched, written), summed */

typedef struct limits { /* what the disk alone did, in bytes, and seconds */
    double read_bytes, written_bytes;
    double reading, writing;
} limits;

/* ---- writing ------------------------------------------------------------ */

typedef struct writing {
    bank_writer file;
    uint8_t *bytes;
    pthread_mutex_t lock;
    err e; /* the first failure; under lock */
} writing;

static void write_one(void *ctx, int task, int worker) {
    writing *w = ctx;
    (void)worker;
    err e = bank_writer_put(&w->file, task, 1, w->bytes);
    if (!e.code) return;
    pthread_mutex_lock(&w->lock);
    if (!w->e.code) w->e = e;
    pthread_mutex_unlock(&w->lock);
}

static void fill(uint8_t *bytes) {
    rng r;
    rng_seed(&r, os_now_ns());
    for (size_t i = 0; i < WRITE_BYTES; i += 8) {
        uint64_t word = rng_next(&r);
        memcpy(bytes + i, &word, 8);
    }
}

/* Adds the seconds of writing n times WRITE_BYTES into a file like one of a packed model. */
static err time_writing(const char *dir, int n, double *seconds) {
    writing w = {.lock = PTHREAD_MUTEX_INITIALIZER};
    pool *p = NULL;
    void *bytes = NULL;
    TRY(bank_writer_open(&w.file, dir, 0, n, WRITE_BYTES));
    err e = os_map(WRITE_BYTES, true, &bytes);
    if (!e.code) e = pool_open(WRITERS, &p);
    if (!e.code) {
        fill(bytes);
        w.bytes = bytes;
        uint64_t begin = os_now_ns();
        pool_run(p, write_one, &w, n);
        e = w.e.code ? w.e : bank_writer_end(&w.file);
        if (!e.code) e = bank_writer_finish(&w.file);
        *seconds += (double)(os_now_ns() - begin) * 1e-9;
    }
    pool_close(p);
    if (bytes) os_unmap(bytes, WRITE_BYTES);
    unlink(w.file.partial);
    unlink(w.file.written);
    unlink(w.file.path);
    bank_writer_close(&w.file);
    return e;
}

static double source_bytes(const bench_files *f) {
    double sum = 0;
    struct stat s;
    for (int i = 0; i < f->n; i++) sum += stat(f->list[i], &s) == 0 ? (double)s.st_size : 0;
    return sum;
}

static err time_reading(const bench_files *files, uint64_t bytes, limits *out) {
    io_options files_of = {.paths = files->list, .n_files = files->n, .depth = READ_DEPTH};
    io *probe;
    TRY(io_open_first(&files_of, &probe));
    io_close(probe);
    io_bench_options o = {.backend = files_of.backend,
                          .paths = files->list,
                          .n_files = files->n,
                          .block = READ_BLOCK,
                          .depth = READ_DEPTH,
                          .total_bytes = bytes,
                          .sequential = true};
    io_bench_result result;
    TRY(io_bench(&o, &result));
    out->reading += result.seconds;
    out->read_bytes += (double)result.bytes;
    return err_none();
}

/* All of the source; of the result one half before packing, the other half after. */
static err measure(const bench_files *files, const char *dir, const fm_pack_report *p,
                   limits *out) {
    uint64_t source = (uint64_t)source_bytes(files), half = (p->experts_bytes + p->trunk_bytes) / 2;
    int n = (int)((half < BYTES_MAX ? half : BYTES_MAX) / WRITE_BYTES) + 1;
    TRY(time_reading(files, source < BYTES_MAX ? source : BYTES_MAX, out));
    TRY(time_writing(dir, n, &out->writing));
    out->written_bytes += (double)n * (double)WRITE_BYTES;
    return err_none();
}

/* ---- packing ------------------------------------------------------------ */

static void add(bench *b, const char *what, double value, double limit, const char *bound) {
    bench_row row = {.unit = "GB/s", .value = value * 1e-9, .limit = limit * 1e-9, .bound = bound};
    snprintf(row.what, sizeof row.what, "%s", what);
    bench_add(b, &row);
}

static void report(bench *b, const limits *m, const fm_pack_report *p, double source,
                   const double seconds[2]) {
    double result = (double)p->written;
    double read = m->read_bytes / m->reading, write = m->written_bytes / m->writing;
    double memory = b->machine.memory_read / MEMORY_PASSES;
    add(b, "disk, the source read", read, 0, NULL);
    add(b, "disk, the result written", write, 0, NULL);
    /* in bytes of the result */
    double limit = result / source * read;
    const char *bound = "disk read";
    if (write < limit) limit = write, bound = "disk write";
    if (memory < limit) limit = memory, bound = "memory";
    add(b, "packing, bytes of the result", result / seconds[0], limit, bound);
    limit = read < b->machine.memory_read ? read : b->machine.memory_read;
    add(b, "verify --deep", result / seconds[1], limit, limit < read ? "memory" : "disk read");
}

static int pack_once(bench *b, const char *dir, const bench_files *files) {
    fm_pack_report r;
    fm_pack_options o;
    fm_pack_options_init(&o);
    char target[MODEL_PATH_MAX + 64];
    snprintf(target, sizeof target, "%s/result", dir);
    o.model_dir = b->dir;
    o.out_dir = target;
    o.threads = b->a->m.threads;
    o.dry_run = true;
    fm_error packed = fm_pack(&o, &r);
    if (packed.code) return fail(b->program, &packed);
    limits m = {0};
    err e = measure(files, dir, &r, &m);
    if (e.code) return bench_fail(b, e.text);
    work_bar bar;
    work_bar_begin(&bar);
    o.progress = work_bar_show;
    o.progress_ctx = &bar;
    o.dry_run = false;
    uint64_t begin = os_now_ns();
    packed = fm_pack(&o, &r);
    double seconds[2] = {(double)(os_now_ns() - begin) * 1e-9};
    work_bar_end(&bar);
    if (packed.code) return fail(b->program, &packed);
    begin = os_now_ns();
    packed = fm_verify(target, true, NULL, NULL, NULL);
    seconds[1] = (double)(os_now_ns() - begin) * 1e-9;
    if (packed.code) return fail(b->program, &packed);
    e = measure(files, dir, &r, &m);
    if (e.code) return bench_fail(b, e.text);
    report(b, &m, &r, source_bytes(files), seconds);
    return 0;
}

int bench_pack(bench *b) {
    char dir[MODEL_PATH_MAX + 32], experts[MODEL_PATH_MAX + 48];
    bench_files *files = calloc(1, sizeof *files);
    if (!files) return bench_fail(b, "no memory");
    bench_find_files(b->dir, files);
    int code = files->n ? 0 : bench_fail(b, "the model has no .safetensors files to pack");
    snprintf(dir, sizeof dir, "%s/%s", b->a->out ? b->a->out : b->dir, "flashchat-benchmark");
    snprintf(experts, sizeof experts, "%s/experts", dir);
    err e = err_none();
    if (!code && dir_exists(dir)) {
        fprintf(stderr, "%s: %s is there already: remove it\n", b->program, dir);
        code = EXIT_FAILED;
    } else if (!code) {
        e = dir_make(experts, 0755);
        code = e.code ? bench_fail(b, e.text) : pack_once(b, dir, files);
        e = tree_remove(dir);
        if (e.code && !code) code = bench_fail(b, e.text);
    }
    free(files);
    return code;
}
