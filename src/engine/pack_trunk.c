/* pack_trunk.c: everything that is no expert, tensor after tensor, in pieces of PACK_CHUNK. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bits.h"
#include "engine/pack_impl.h"

typedef struct trunk {
    packer *p;
    pool *pool; /* its own: the packer's is busy with experts */
    char path[BANK_PATH_MAX], partial[BANK_PATH_MAX];
    int fd;
    uint8_t *chunk;  /* of the source */
    uint8_t *out[3]; /* of the result: weight, scales, biases */
    XXH3_state_t *hash[3];
    /* of the matrix that is quantised */
    qmat m;
    qformat format;
    bool bad; /* a number that is not finite; any thread sets it */
} trunk;

static err write_hashed(trunk *k, int i, pack_tensor *t, const uint8_t *bytes, size_t length,
                        int64_t at) {
    XXH3_64bits_update(k->hash[i], bytes, length);
    return bank_write_at(k->fd, k->partial, bytes, length, t->offset + at);
}

static err copy_tensor(trunk *k, pack_tensor *t) {
    XXH3_64bits_reset(k->hash[0]);
    for (int64_t at = 0; at < t->bytes; at += (int64_t)PACK_CHUNK) {
        size_t length = size_min(PACK_CHUNK, (size_t)(t->bytes - at));
        TRY(st_read_part(k->p->files, t->source, at, length, k->chunk));
        XXH3_64bits_update(k->hash[0], k->chunk, length);
        TRY(bank_write_at(k->fd, k->partial, k->chunk, length, t->offset + at));
        pack_tell(k->p, length);
    }
    t->hash = XXH3_64bits_digest(k->hash[0]);
    return err_none();
}

static void quantise_row(void *ctx, int task, int worker) {
    (void)worker;
    trunk *k = ctx;
    int cols = k->m.cols;
    size_t w = qformat_row_bytes(k->format, cols), s = qformat_scale_row_bytes(k->format, cols);
    affine_row out = {.w = k->out[0] + (size_t)task * w,
                      .scales = k->out[1] + (size_t)task * s,
                      .biases = k->out[2] + (size_t)task * s,
                      .format = k->format,
                      .cols = cols};
    if (!k->p->cpu->quantize_weights(&out, qmat_rows(&k->m, task, 1).w, k->m.format.kind))
        __atomic_store_n(&k->bad, true, __ATOMIC_RELAXED);
}

static qkind kind_of(st_dtype d) { return d == ST_F32 ? QK_F32 : d == ST_F16 ? QK_F16 : QK_BF16; }

/* Rows [begin, begin + n) of the source, quantised and written. */
static err quantise_rows(trunk *k, pack_tensor t[3], int64_t begin, int n) {
    const st_tensor *s = t[0].source;
    size_t row = (size_t)(s->bytes / s->shape[0]);
    TRY(st_read_part(k->p->files, s, begin * (int64_t)row, row * (size_t)n, k->chunk));
    k->m.rows = n;
    pool_run(k->pool, quantise_row, k, n);
    if (k->bad)
        return err_make(ERR_CORRUPT, "%s: tensor %s: a weight that is not finite",
                        st_path(k->p->files, s->file), s->name);
    for (int i = 0; i < 3; i++) {
        int64_t bytes = t[i].bytes / t[i].shape[0];
        TRY(write_hashed(k, i, &t[i], k->out[i], (size_t)(bytes * n), bytes * begin));
        pack_tell(k->p, (uint64_t)(bytes * n));
    }
    return err_none();
}

static err quantise_tensor(trunk *k, pack_tensor t[3]) {
    const st_tensor *s = t[0].source;
    size_t cols = (size_t)s->shape[1], row = (size_t)(s->bytes / s->shape[0]);
    int at_once = (int)(PACK_CHUNK / row > 0 ? PACK_CHUNK / row : 1);
    k->format = (qformat){.kind = QK_AFFINE, .bits = PACK_TRUNK_BITS, .group = PACK_TRUNK_GROUP};
    k->m = (qmat){.format = {.kind = kind_of(s->dtype)}, .cols = (int)cols, .w = k->chunk};
    err e = err_none();
    for (int i = 0; i < 3; i++) XXH3_64bits_reset(k->hash[i]);
    for (int64_t at = 0; at < s->shape[0] && !e.code; at += at_once)
        e = quantise_rows(k, t, at, s->shape[0] - at < at_once ? (int)(s->shape[0] - at) : at_once);
    for (int i = 0; i < 3; i++) t[i].hash = XXH3_64bits_digest(k->hash[i]);
    return e;
}

/* Room for a chunk, or for one row where that is more. */
static size_t chunk_bytes(const packer *p) {
    size_t most = PACK_CHUNK;
    for (int i = 0; i < p->n_trunk; i++) {
        const st_tensor *s = p->trunk[i].source;
        if (p->trunk[i].role < 0) continue;
        most = most < (size_t)(s->bytes / s->shape[0]) ? (size_t)(s->bytes / s->shape[0]) : most;
    }
    return most;
}

static err trunk_open(trunk *k, packer *p) {
    *k = (trunk){.p = p, .fd = -1};
    if (!bank_path(k->path, p->report->out_dir, -1))
        return err_make(ERR_ARG, "%s: too long a path", p->report->out_dir);
    snprintf(k->partial, sizeof k->partial, "%.*s.partial", BANK_PATH_MAX - 16, k->path);
    size_t bytes = chunk_bytes(p);
    k->chunk = malloc(bytes);
    bool ok = k->chunk != NULL;
    for (int i = 0; i < 3; i++) {
        k->out[i] = malloc(bytes);
        k->hash[i] = XXH3_createState();
        ok = ok && k->out[i] && k->hash[i];
    }
    if (!ok) return err_make(ERR_NOMEM, "no memory for %zu bytes", bytes);
    TRY(pool_open(p->threads, &k->pool));
    k->fd = open(k->partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    return k->fd >= 0 ? err_none() : err_system(errno, "%s", k->partial);
}

static void trunk_close(trunk *k) {
    if (k->fd >= 0) close(k->fd);
    pool_close(k->pool);
    free(k->chunk);
    for (int i = 0; i < 3; i++) {
        free(k->out[i]);
        XXH3_freeState(k->hash[i]);
    }
}

err pack_trunk(packer *p) {
    trunk k;
    err e = trunk_open(&k, p);
    for (int i = 0; i < p->n_trunk && !e.code;) {
        if (pack_stopped(p)) e = err_make(ERR_CANCELLED, "stopped");
        if (e.code) break;
        pack_tensor *t = &p->trunk[i];
        e = t->role < 0 ? copy_tensor(&k, t) : quantise_tensor(&k, t);
        i += t->role < 0 ? 1 : 3;
    }
    /* a last tensor without bytes must still lie inside the file */
    if (!e.code && ftruncate(k.fd, (off_t)(p->report->trunk_bytes + 64)) != 0)
        e = err_system(errno, "%s", k.partial);
    if (!e.code) e = bank_rename(k.fd, k.partial, k.path);
    if (!e.code) e = bank_flush_directory(k.path);
    trunk_close(&k);
    return e;
}
