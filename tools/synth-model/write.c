/* write.c: the files of a checkpoint.
 *
 * Tensors are packed into shards in their order; a shard ends when the next tensor would take it
 * past SHARD_BYTES. Threads make and write blocks of SYNTH_BLOCK on their own, so the rate is the
 * disk's. A finished shard is flushed and dropped from the page cache: what is measured on the
 * model afterwards starts cold. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <unistd.h>

#include "base/json.h"
#include "base/os.h"
#include "base/pool.h"
#include "format/config.h"
#include "format/safetensors.h"
#include "synth.h"

#define SHARD_BYTES    ((int64_t)5 << 30)
#define FILE_BYTES_MAX ((size_t)256 << 20)
#define PATH_BYTES     2048

typedef struct shard {
    const synth_model *model;
    int first, last; /* tensors [first, last) */
    char file[64];
    int64_t data; /* where tensor data begins in the file */
} shard;

typedef struct job { /* one tensor */
    const shard *shard;
    const synth_tensor *tensor;
    int64_t offset; /* in the file */
    int fd;
    uint8_t *blocks; /* SYNTH_BLOCK for each worker */
    pthread_mutex_t lock;
    err e; /* the first failure; under lock */
} job;

static err write_at(int fd, const char *file, const void *bytes, size_t length, int64_t offset) {
    size_t done = 0;
    while (done < length) {
        ssize_t n = pwrite(fd, (const uint8_t *)bytes + done, length - done,
                           (off_t)(offset + (int64_t)done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return err_system(n < 0 ? errno : ENOSPC, "%s: writing", file);
        done += (size_t)n;
    }
    return err_none();
}

static void write_block(void *ctx, int task, int worker) {
    job *j = ctx;
    int64_t begin = task * SYNTH_BLOCK;
    int64_t left = j->tensor->bytes - begin;
    size_t length = (size_t)(left < SYNTH_BLOCK ? left : SYNTH_BLOCK);
    uint8_t *block = j->blocks + worker * SYNTH_BLOCK;
    synth_fill(j->shard->model, j->tensor, begin, length, block);
    err e = write_at(j->fd, j->shard->file, block, length, j->offset + begin);
    if (!e.code) return;
    pthread_mutex_lock(&j->lock);
    if (!j->e.code) j->e = e;
    pthread_mutex_unlock(&j->lock);
}

/* The header: u64 length, then JSON, padded with spaces so that the data is 8-byte aligned. */
static err write_header(shard *s, int fd) {
    json_t *header = json_pack("{s:{s:s}}", "__metadata__", "format", "mlx");
    int64_t at = 0;
    for (int i = s->first; i < s->last; i++) {
        const synth_tensor *t = &s->model->tensors[i];
        json_t *shape = json_array();
        for (int d = 0; d < t->n_dims; d++) json_array_append_new(shape, json_integer(t->shape[d]));
        json_object_set_new(header, t->name,
                            json_pack("{s:s, s:o, s:[I,I]}", "dtype", t->dtype, "shape", shape,
                                      "data_offsets", (json_int_t)at, (json_int_t)(at + t->bytes)));
        at += t->bytes;
    }
    char *text = json_dumps(header, JSON_COMPACT);
    json_decref(header);
    if (!text) return err_make(ERR_NOMEM, "%s: no memory for its header", s->file);
    uint64_t length = strlen(text), padded = (length + 7) / 8 * 8;
    s->data = (int64_t)padded + 8;
    err e = write_at(fd, s->file, &padded, 8, 0);
    if (!e.code) e = write_at(fd, s->file, "        ", 8, s->data - 8);
    if (!e.code) e = write_at(fd, s->file, text, length, 8);
    free(text);
    return e;
}

static err write_tensors(const shard *s, int fd, pool *threads) {
    job j = {.shard = s, .fd = fd, .offset = s->data, .lock = PTHREAD_MUTEX_INITIALIZER};
    j.blocks = malloc((size_t)pool_threads(threads) * (size_t)SYNTH_BLOCK);
    if (!j.blocks) return err_make(ERR_NOMEM, "no memory for %d blocks", pool_threads(threads));
    for (int i = s->first; i < s->last && !j.e.code; i++) {
        j.tensor = &s->model->tensors[i];
        pool_run(threads, write_block, &j,
                 (int)((j.tensor->bytes + SYNTH_BLOCK - 1) / SYNTH_BLOCK));
        j.offset += j.tensor->bytes;
    }
    free(j.blocks);
    return j.e;
}

static err write_shard(shard *s, const char *dir, pool *threads) {
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", dir, s->file);
    int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (fd < 0) return err_system(errno, "%s", path);
    err e = write_header(s, fd);
    if (!e.code) e = write_tensors(s, fd, threads);
    if (!e.code && fsync(fd) != 0) e = err_system(errno, "%s: flushing", path);
    os_drop_cache(fd);
    if (close(fd) != 0 && !e.code) e = err_system(errno, "%s: closing", path);
    return e;
}

static err write_json(const char *dir, const char *file, json_t *value) {
    char path[PATH_BYTES];
    snprintf(path, sizeof path, "%s/%s", dir, file);
    int failed = json_dump_file(value, path, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    json_decref(value);
    return failed ? err_system(errno, "%s: writing", path) : err_none();
}

static err copy_file(const char *from_dir, const char *dir, const char *file) {
    char path[PATH_BYTES];
    char *bytes;
    size_t length;
    snprintf(path, sizeof path, "%s/%s", from_dir, file);
    TRY(json_read_text(path, FILE_BYTES_MAX, &bytes, &length));
    snprintf(path, sizeof path, "%s/%s", dir, file);
    FILE *f = fopen(path, "we");
    bool ok = f && fwrite(bytes, 1, length, f) == length;
    if (f && fclose(f) != 0) ok = false;
    free(bytes);
    return ok ? err_none() : err_system(errno, "%s: writing", path);
}

/* A new directory, or an empty one, on a disk with room. */
static err check_target(const synth_model *m, const char *dir) {
    if (mkdir(dir, 0755) != 0 && (errno != EEXIST || rmdir(dir) != 0 || mkdir(dir, 0755) != 0))
        return err_system(errno, "%s: must be missing or empty", dir);
    struct statvfs fs;
    if (statvfs(dir, &fs) != 0) return err_system(errno, "%s", dir);
    uint64_t room = (uint64_t)fs.f_bavail * fs.f_frsize,
             need = (uint64_t)m->bytes + ((uint64_t)64 << 20);
    if (room >= need) return err_none();
    rmdir(dir);
    return err_make(ERR_BUDGET, "%s: the model needs %.1f GB, the disk has room for %.1f GB", dir,
                    (double)need / 1e9, (double)room / 1e9);
}

/* shards[i].first and last; returns how many. */
static int divide(const synth_model *m, shard *shards) {
    int n = 0;
    int64_t size = 0;
    for (int i = 0; i < m->n_tensors; i++) {
        if (n == 0 || size + m->tensors[i].bytes > SHARD_BYTES) {
            shards[n++] = (shard){.model = m, .first = i};
            size = 0;
        }
        size += m->tensors[i].bytes;
        shards[n - 1].last = i + 1;
    }
    for (int i = 0; i < n; i++)
        snprintf(shards[i].file, sizeof shards[i].file, "model-%05d-of-%05d.safetensors", i + 1, n);
    return n;
}

static err write_weights(const synth_model *m, const char *dir, pool *threads) {
    shard *shards = calloc((size_t)m->n_tensors, sizeof *shards);
    json_t *map = json_object();
    if (!shards || !map) return err_make(ERR_NOMEM, "no memory for the shards");
    int n = divide(m, shards);
    err e = err_none();
    uint64_t begin = os_now_ns();
    int64_t done = 0;
    for (int i = 0; i < n && !e.code; i++) {
        e = write_shard(&shards[i], dir, threads);
        for (int k = shards[i].first; k < shards[i].last; k++) {
            json_object_set_new(map, m->tensors[k].name, json_string(shards[i].file));
            done += m->tensors[k].bytes;
        }
        double seconds = (double)(os_now_ns() - begin) / 1e9;
        fprintf(stderr, "\r%d of %d shards, %.1f of %.1f GB, %.0f MB/s ", i + 1, n,
                (double)done / 1e9, (double)m->bytes / 1e9, (double)done / 1e6 / seconds);
    }
    fprintf(stderr, "\n");
    free(shards);
    json_t *index = json_pack("{s:{s:I}, s:o}", "metadata", "total_size", (json_int_t)m->bytes,
                              "weight_map", map);
    if (!e.code) return write_json(dir, "model.safetensors.index.json", index);
    json_decref(index);
    return e;
}

/* What the engine will do first: both must accept it and find every tensor as it was meant. */
static err read_back(const synth_model *m, const char *dir) {
    model_config config;
    TRY(config_open(dir, &config));
    config_close(&config);
    st_set *set;
    TRY(st_open(dir, &set));
    err e = err_none();
    for (int i = 0; i < m->n_tensors && !e.code; i++) {
        const synth_tensor *t = &m->tensors[i];
        const st_tensor *found = st_find(set, t->name);
        bool same = found && found->bytes == t->bytes && found->n_dims == t->n_dims &&
                    strcmp(st_dtype_name(found->dtype), t->dtype) == 0 &&
                    memcmp(found->shape, t->shape, (size_t)t->n_dims * sizeof *t->shape) == 0;
        if (!same) e = err_make(ERR_CORRUPT, "%s: %s: not as it was written", dir, t->name);
    }
    if (!e.code && st_count(set) != m->n_tensors)
        e = err_make(ERR_CORRUPT, "%s: %d tensors instead of %d", dir, st_count(set), m->n_tensors);
    st_close(set);
    return e;
}

err synth_write(const synth_model *m, const char *dir, const char *tokenizer_dir) {
    static const char *const copied[] = {"tokenizer.json", "tokenizer_config.json",
                                         "generation_config.json", "chat_template.jinja"};
    TRY(check_target(m, dir));
    for (size_t i = 0; i < sizeof copied / sizeof copied[0]; i++)
        TRY(copy_file(tokenizer_dir, dir, copied[i]));
    pool *threads;
    TRY(pool_open(0, &threads));
    err e = write_weights(m, dir, threads);
    pool_close(threads);
    if (e.code) return e;
    json_t *config;
    TRY(synth_config(m, &config));
    TRY(write_json(dir, "config.json", config));
    return read_back(m, dir);
}
