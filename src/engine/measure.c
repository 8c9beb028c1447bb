/* measure.c: how fast memory and disk of this machine are, right now.
 *
 * Memory: a buffer much larger than the caches is summed by all threads, again and again, until
 * the time is over: from end to end, or in blocks at random places, as experts lie. Disk: blocks at
 * random offsets of the largest model file are read by several threads at once past the page cache,
 * which is how experts are read. Both are what a token can at best be bounded by, so they are
 * measured the way the engine works, not the way a data sheet would. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/err.h"
#include "base/os.h"
#include "base/pool.h"
#include "engine/fm_error.h"

#define MEMORY_BYTES ((size_t)512 << 20)  /* a large last-level cache holds a good part of less */
#define BLOCKS_BYTES ((size_t)1024 << 20) /* blocks come again by chance: the more the less so */
#define MEMORY_PIECE ((size_t)512 << 10)  /* between two looks at the clock */
#define LINE         64
#define DISK_BLOCK   ((size_t)2 << 20)
#define DISK_THREADS 8
#define DISK_ALIGN   4096

/* ---- memory ------------------------------------------------------------- */

typedef struct memory_run {
    const uint8_t *buffer;
    size_t share; /* bytes of one task */
    size_t block; /* bytes of a block at a random place; 0: the shares from end to end */
    size_t places;
    uint64_t deadline;
    struct {
        uint64_t bytes, sum; /* the sum keeps the compiler from dropping the reads */
        char pad[112];
    } of[POOL_THREADS_MAX];
} memory_run;

static uint64_t sum_words(const uint64_t *w, size_t n) {
    uint64_t lane[16] = {0};
    for (size_t i = 0; i + 16 <= n; i += 16)
        for (size_t j = 0; j < 16; j++) lane[j] += w[i + j];
    uint64_t sum = 0;
    for (size_t j = 0; j < 16; j++) sum += lane[j];
    return sum;
}

static void memory_task(void *ctx, int task, int worker) {
    memory_run *r = ctx;
    (void)worker;
    rng random;
    rng_seed(&random, (uint64_t)task);
    const uint8_t *mine = r->buffer + (size_t)task * r->share;
    uint64_t bytes = 0, sum = 0;
    for (size_t at = 0; os_now_ns() < r->deadline;) {
        const uint8_t *from = mine + at;
        size_t n = size_min(MEMORY_PIECE, r->share - at);
        if (r->block) {
            from = r->buffer + rng_next(&random) % r->places * LINE;
            n = r->block;
        } else {
            at = at + n < r->share ? at + n : 0;
        }
        sum += sum_words((const uint64_t *)(const void *)from, n / sizeof(uint64_t));
        bytes += n;
    }
    r->of[task].bytes = bytes;
    r->of[task].sum = sum;
}

/* block 0: from end to end. */
static err measure_memory(int *threads, size_t block, double seconds, double *rate) {
    os_memory m;
    os_memory_get(&m);
    size_t wish = block ? BLOCKS_BYTES : MEMORY_BYTES;
    size_t bytes = size_min(wish, m.available / 4) & ~(size_t)0xfffff;
    if (bytes < ((size_t)16 << 20) || bytes < block)
        return err_make(ERR_NOMEM, "too little free memory to measure its speed");
    memory_run *r = calloc(1, sizeof *r);
    void *buffer = NULL;
    pool *p = NULL;
    err e = r ? os_map(bytes, true, &buffer) : err_make(ERR_NOMEM, "no memory");
    if (!e.code) e = pool_open(*threads, &p);
    if (!e.code) {
        memset(buffer, 1, bytes);
        int n = pool_threads(p);
        r->buffer = buffer;
        r->share = bytes / (size_t)n / LINE * LINE;
        r->block = block;
        r->places = (bytes - block) / LINE + 1;
        uint64_t begin = os_now_ns(), total = 0;
        r->deadline = begin + (uint64_t)(seconds * 1e9);
        pool_run(p, memory_task, r, n);
        double took = (double)(os_now_ns() - begin) * 1e-9;
        for (int i = 0; i < n; i++) total += r->of[i].bytes;
        *rate = (double)total / took;
        *threads = n;
    }
    pool_close(p);
    if (buffer) os_unmap(buffer, bytes);
    free(r);
    return e;
}

/* ---- disk --------------------------------------------------------------- */

typedef struct disk_run {
    int fd;
    int64_t size;
    size_t block;
    uint64_t deadline;
    char *buffer; /* [DISK_THREADS][DISK_BLOCK] */
    struct {
        uint64_t bytes;
        int error; /* errno */
        char pad[116];
    } of[DISK_THREADS];
} disk_run;

static void disk_task(void *ctx, int task, int worker) {
    disk_run *d = ctx;
    (void)worker;
    rng random;
    rng_seed(&random, os_now_ns() + (uint64_t)task);
    uint64_t places = (uint64_t)((d->size - (int64_t)d->block) / DISK_ALIGN) + 1;
    while (os_now_ns() < d->deadline) {
        int64_t at = (int64_t)(rng_next(&random) % places) * DISK_ALIGN;
        ssize_t got = pread(d->fd, d->buffer + (size_t)task * DISK_BLOCK, d->block, at);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0) {
            d->of[task].error = got < 0 ? errno : EIO;
            return;
        }
        d->of[task].bytes += (uint64_t)got;
    }
}

static bool is_weights(const char *name) {
    static const char *const ends[] = {".safetensors", ".bank", "trunk.bin"};
    size_t length = strlen(name);
    for (size_t i = 0; i < sizeof ends / sizeof *ends; i++) {
        size_t n = strlen(ends[i]);
        if (length >= n && !strcmp(name + length - n, ends[i])) return true;
    }
    return false;
}

/* The largest weight file of dir, if larger than *size, into path (capacity bytes). */
static void look_for_weights(const char *dir, char *path, size_t capacity, int64_t *size) {
    DIR *d = opendir(dir);
    if (!d) return;
    for (struct dirent *entry; (entry = readdir(d));) {
        if (!is_weights(entry->d_name)) continue;
        char full[4096];
        int n = snprintf(full, sizeof full, "%s/%s", dir, entry->d_name);
        struct stat st;
        if (n < 0 || (size_t)n >= sizeof full || stat(full, &st) || st.st_size <= *size) continue;
        if ((size_t)n >= capacity) continue;
        memcpy(path, full, (size_t)n + 1);
        *size = st.st_size;
    }
    closedir(d);
}

/* Of a published or of a packed model. */
static err largest_file(const char *dir, char *path, size_t capacity, int64_t *size) {
    char experts[4096];
    *size = 0;
    look_for_weights(dir, path, capacity, size);
    int n = snprintf(experts, sizeof experts, "%s/experts", dir);
    if (n > 0 && (size_t)n < sizeof experts) look_for_weights(experts, path, capacity, size);
    if (*size == 0) return err_make(ERR_NOT_FOUND, "%s: no weight files", dir);
    return err_none();
}

static err open_for_measuring(const char *path, int *fd, bool *direct) {
    err e = os_open_read(path, true, fd);
    *direct = !e.code;
    if (*direct) {
        /* Some file systems open and then refuse the read. */
        void *probe = NULL;
        if (posix_memalign(&probe, DISK_ALIGN, DISK_ALIGN) == 0)
            *direct = pread(*fd, probe, DISK_ALIGN, 0) > 0;
        free(probe);
        if (*direct) return err_none();
        close(*fd);
    }
    return os_open_read(path, false, fd);
}

static err run_disk(disk_run *d, double seconds, const char *path, fm_machine *out) {
    pool *p;
    TRY(pool_open(DISK_THREADS, &p));
    uint64_t begin = os_now_ns(), total = 0;
    d->deadline = begin + (uint64_t)(seconds * 1e9);
    pool_run(p, disk_task, d, DISK_THREADS);
    double took = (double)(os_now_ns() - begin) * 1e-9;
    pool_close(p);
    for (int i = 0; i < DISK_THREADS; i++) {
        if (d->of[i].error) return err_system(d->of[i].error, "%s: measuring the disk", path);
        total += d->of[i].bytes;
    }
    out->disk_read = (double)total / took;
    return err_none();
}

static err measure_disk(const char *dir, double seconds, fm_machine *out) {
    char path[4096];
    disk_run d = {0};
    TRY(largest_file(dir, path, sizeof path, &d.size));
    if (d.size < DISK_ALIGN) return err_make(ERR_ARG, "%s is too small to measure the disk", path);
    d.block = size_min(DISK_BLOCK, (size_t)d.size & ~(size_t)(DISK_ALIGN - 1));
    TRY(open_for_measuring(path, &d.fd, &out->disk_direct));
    void *buffer = NULL;
    err e = os_map(DISK_THREADS * DISK_BLOCK, true, &buffer);
    d.buffer = buffer;
    if (!e.code) e = run_disk(&d, seconds, path, out);
    if (buffer) os_unmap(buffer, DISK_THREADS * DISK_BLOCK);
    close(d.fd);
    return e;
}

static err check_seconds(double seconds) {
    if (seconds > 0 && seconds <= 60) return err_none();
    return err_make(ERR_ARG, "seconds is %g; it must be above 0 and at most 60", seconds);
}

static err measure(const char *dir, int threads, double seconds, fm_machine *out) {
    *out = (fm_machine){.threads = threads};
    TRY(check_seconds(seconds));
    TRY(measure_memory(&out->threads, 0, seconds, &out->memory_read));
    return dir ? measure_disk(dir, seconds, out) : err_none();
}

static err measure_blocks(int threads, size_t block, double seconds, double *rate) {
    *rate = 0;
    TRY(check_seconds(seconds));
    block = block / LINE * LINE;
    if (!block) return err_make(ERR_ARG, "blocks of less than %d bytes cannot be measured", LINE);
    return measure_memory(&threads, block, seconds, rate);
}

fm_error fm_machine_measure(const char *model_dir, int threads, double seconds, fm_machine *out) {
    return FM_WRAP(measure(model_dir, threads, seconds, out));
}

fm_error fm_machine_measure_blocks(int threads, size_t block, double seconds, double *rate) {
    return FM_WRAP(measure_blocks(threads, block, seconds, rate));
}
