/* bank_write.c: writing the files of a bank so that a crash leaves either a whole file under its
 * name, or none: everything is written as NAME.partial, flushed, renamed, and the directory
 * flushed. A layer's file may wait for its flush as NAME.written: another process can check it by
 * its checksums and go on from there. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/os.h"
#include "base/sum.h"
#include "format/bank_impl.h"

bool bank_path(char out[BANK_PATH_MAX], const char *dir, int layer) {
    int n = layer < 0 ? snprintf(out, BANK_PATH_MAX, "%s/trunk.bin", dir)
                      : snprintf(out, BANK_PATH_MAX, "%s/experts/layer_%02d.bank", dir, layer);
    return n > 0 && n < BANK_PATH_MAX - 16;
}

err bank_write_at(int fd, const char *path, const void *bytes, size_t length, int64_t offset) {
    size_t done = 0;
    while (done < length) {
        size_t piece = length - done < (1u << 30) ? length - done : 1u << 30;
        ssize_t n =
            pwrite(fd, (const uint8_t *)bytes + done, piece, (off_t)(offset + (int64_t)done));
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) return err_system(n < 0 ? errno : ENOSPC, "%s: writing", path);
        done += (size_t)n;
    }
    return err_none();
}

err bank_flush_directory(const char *path) {
    char dir[BANK_PATH_MAX];
    const char *slash = strrchr(path, '/');
    snprintf(dir, sizeof dir, "%.*s", slash ? (int)(slash - path) : 1, slash ? path : ".");
    int fd = open(dir, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return err_system(errno, "%s", dir);
    err e = fsync(fd) == 0 ? err_none() : err_system(errno, "%s: flushing", dir);
    close(fd);
    return e;
}

err bank_rename(int fd, const char *from, const char *path) {
    if (fsync(fd) != 0) return err_system(errno, "%s: flushing", from);
    if (rename(from, path) != 0) return err_system(errno, "%s: renaming", from);
    return err_none();
}

err bank_write_json(const char *dir, const char *name, const json_t *value) {
    char path[BANK_PATH_MAX], partial[BANK_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/%s", dir, name);
    int m = snprintf(partial, sizeof partial, "%s/%s.partial", dir, name);
    if (n < 0 || m < 0 || m >= BANK_PATH_MAX) return err_make(ERR_ARG, "%s: too long a path", dir);
    char *text = json_dumps(value, JSON_INDENT(1) | JSON_REAL_PRECISION(17));
    if (!text) return err_make(ERR_NOMEM, "%s: no memory to write it", path);
    int fd = open(partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    err e = fd < 0 ? err_system(errno, "%s", partial) : err_none();
    if (!e.code) e = bank_write_at(fd, partial, text, strlen(text), 0);
    if (!e.code) e = bank_rename(fd, partial, path);
    if (!e.code) e = bank_flush_directory(path);
    if (fd >= 0) close(fd);
    free(text);
    return e;
}

/* ---- a layer's file ---- */

#ifndef O_DIRECT
#define O_DIRECT 0 /* a system without it writes through its cache */
#endif

static void set_direct(int fd, bool on) {
    int flags = fcntl(fd, F_GETFL);
    if (O_DIRECT && flags >= 0) (void)fcntl(fd, F_SETFL, on ? flags | O_DIRECT : flags & ~O_DIRECT);
}

/* Records go past the page cache where the file system can do that (tried with one block): they
 * are not read again soon, and writing them does not wait for the system to flush. */
static void try_direct(int fd) {
    void *block = NULL;
    if (posix_memalign(&block, BANK_ALIGN, BANK_ALIGN) != 0) return;
    memset(block, 0, BANK_ALIGN);
    set_direct(fd, true);
    if (pwrite(fd, block, BANK_ALIGN, 0) != BANK_ALIGN) set_direct(fd, false);
    free(block);
}

err bank_writer_open(bank_writer *w, const char *dir, int layer, int records, size_t record_bytes) {
    *w = (bank_writer){.fd = -1, .records = records, .record_bytes = record_bytes};
    if (!bank_path(w->path, dir, layer)) return err_make(ERR_ARG, "%s: too long a path", dir);
    snprintf(w->partial, sizeof w->partial, "%.*s.partial", BANK_PATH_MAX - 16, w->path);
    snprintf(w->written, sizeof w->written, "%.*s.written", BANK_PATH_MAX - 16, w->path);
    w->hashes = calloc((size_t)records + 1, sizeof *w->hashes);
    if (!w->hashes) return err_make(ERR_NOMEM, "%s: no memory", w->path);
    w->fd = open(w->partial, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (w->fd >= 0) {
        try_direct(w->fd);
        os_reserve(w->fd,
                   (int64_t)records * (int64_t)record_bytes + (int64_t)bank_trailer_bytes(records));
        return err_none();
    }
    err e = err_system(errno, "%s", w->partial);
    bank_writer_close(w);
    return e;
}

void bank_writer_sum(bank_writer *w, int first, int n, const void *bytes) {
    for (int i = 0; i < n; i++) {
        const uint8_t *record = (const uint8_t *)bytes + (size_t)i * w->record_bytes;
        w->hashes[first + i] = sum_bytes(record, w->record_bytes);
    }
}

err bank_writer_put(bank_writer *w, int first, int n, const void *bytes) {
    return bank_write_at(w->fd, w->partial, bytes, (size_t)n * w->record_bytes,
                         (int64_t)first * (int64_t)w->record_bytes);
}

void bank_put_u64(uint8_t *out, uint64_t value) {
    for (int i = 0; i < 8; i++) out[i] = (uint8_t)(value >> 8 * i);
}

uint64_t bank_get_u64(const uint8_t *bytes) {
    uint64_t value = 0;
    for (int i = 0; i < 8; i++) value |= (uint64_t)bytes[i] << 8 * i;
    return value;
}

err bank_writer_end(bank_writer *w) {
    size_t n = (size_t)w->records, bytes = bank_trailer_bytes(w->records);
    uint8_t *trailer = calloc(1, bytes);
    if (!trailer) return err_make(ERR_NOMEM, "%s: no memory", w->path);
    memcpy(trailer, BANK_MAGIC, 8);
    bank_put_u64(trailer + 8, (uint64_t)w->records);
    bank_put_u64(trailer + 16, w->record_bytes);
    for (size_t i = 0; i < n; i++) bank_put_u64(trailer + 24 + 8 * i, w->hashes[i]);
    bank_put_u64(trailer + bytes - 8, sum_bytes(trailer, bytes - 8));
    set_direct(w->fd, false);
    err e = bank_write_at(w->fd, w->partial, trailer, bytes,
                          (int64_t)w->records * (int64_t)w->record_bytes);
    free(trailer);
    if (!e.code && rename(w->partial, w->written) != 0)
        e = err_system(errno, "%s: renaming", w->partial);
    return e;
}

err bank_writer_finish(bank_writer *w) { return bank_rename(w->fd, w->written, w->path); }

void bank_writer_close(bank_writer *w) {
    if (w->fd >= 0) close(w->fd);
    free(w->hashes);
    *w = (bank_writer){.fd = -1};
}
