/* bank_verify.c: are a packed model's files what they were? See bank.h; the reading and summing is
 * bank_sums.c's. */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/json.h"
#include "base/os.h"
#include "base/sum.h"
#include "format/bank_impl.h"
#include "format/bank_sums.h"

/* ---- trailers ---- */

static err read_at(int fd, const char *path, void *out, size_t length, int64_t offset) {
    size_t done = 0;
    while (done < length) {
        ssize_t n =
            pread(fd, (uint8_t *)out + done, length - done, (off_t)(offset + (int64_t)done));
        if (n < 0 && errno == EINTR) continue;
        if (n < 0) return err_system(errno, "%s: reading at %lld", path, (long long)offset);
        if (n == 0)
            return err_make(ERR_CORRUPT, "%s: ends before byte %lld", path,
                            (long long)(offset + (int64_t)length));
        done += (size_t)n;
    }
    return err_none();
}

static err check_trailer(const char *path, const bank_layer *l, const uint8_t *trailer) {
    size_t bytes = bank_trailer_bytes(l->records);
    if (memcmp(trailer, BANK_MAGIC, 8) == 0 && bank_get_u64(trailer + 8) == (uint64_t)l->records &&
        bank_get_u64(trailer + 16) == (uint64_t)l->record_bytes &&
        bank_get_u64(trailer + bytes - 8) == sum_bytes(trailer, bytes - 8))
        return err_none();
    return err_make(ERR_CORRUPT, "%s: its trailer is damaged", path);
}

/* *hashes [records]: owned by the caller, also on failure. */
static err read_trailer(const char *path, const bank_layer *l, uint64_t **hashes) {
    size_t bytes = bank_trailer_bytes(l->records);
    *hashes = NULL;
    int fd;
    TRY(os_open_read(path, false, &fd));
    uint8_t *trailer = malloc(bytes);
    *hashes = calloc((size_t)l->records + 1, sizeof **hashes);
    err e = trailer && *hashes ? err_none() : err_make(ERR_NOMEM, "%s: no memory", path);
    if (!e.code) e = read_at(fd, path, trailer, bytes, l->records * l->record_bytes);
    if (!e.code) e = check_trailer(path, l, trailer);
    for (int i = 0; i < l->records && !e.code; i++)
        (*hashes)[i] = bank_get_u64(trailer + 24 + 8 * (size_t)i);
    free(trailer);
    close(fd);
    return e;
}

err bank_hashes(const char *path, int records, int64_t record_bytes, uint64_t *out) {
    bank_layer l = {.records = records, .record_bytes = record_bytes};
    uint64_t *hashes;
    err e = read_trailer(path, &l, &hashes);
    if (!e.code) memcpy(out, hashes, (size_t)records * sizeof *out);
    free(hashes);
    return e;
}

/* ---- what lies in a file ---- */

static err list_records(const char *path, const bank_layer *l, bank_sum **list, int *n) {
    uint64_t *hashes;
    err e = read_trailer(path, l, &hashes);
    if (!e.code) {
        *list = calloc((size_t)l->records, sizeof **list);
        if (!*list) e = err_make(ERR_NOMEM, "%s: no memory", path);
    }
    for (int i = 0; i < l->records && !e.code; i++) {
        (*list)[i] = (bank_sum){.offset = i * l->record_bytes,
                                .bytes = l->record_bytes,
                                .hash = hashes[i],
                                .record = i};
        *n = i + 1;
    }
    free(hashes);
    return e;
}

typedef struct verifier {
    const bank *b;
    const bank_check *check;
    const st_set *set;
    const char **paths; /* [n_layers + 1]: the layers, then the trunk; owned */
    uint64_t done, total;
} verifier;

/* A tensor's checksum in the manifest. */
static bool said_hash(const verifier *v, const st_tensor *t, uint64_t *out) {
    const json_t *info = json_object_get(json_object_get(v->b->root, "tensors"), t->name);
    const char *said = json_string_value(json_object_get(info, "xxh3"));
    if (!said || strlen(said) != 16 || strspn(said, "0123456789abcdef") != 16) return false;
    *out = strtoull(said, NULL, 16);
    return true;
}

static err list_trunk(const verifier *v, bank_sum **list, int *n) {
    int count = st_count(v->set);
    *list = calloc((size_t)count + 1, sizeof **list);
    if (!*list) return err_make(ERR_NOMEM, "%s: no memory", v->b->manifest);
    for (int i = 0; i < count; i++) {
        const st_tensor *t = st_at(v->set, i);
        if (t->stride) continue;
        bank_sum *x = &(*list)[(*n)++];
        *x = (bank_sum){.offset = t->offset, .bytes = t->bytes, .name = t->name};
        if (!said_hash(v, t, &x->hash))
            return err_make(ERR_CORRUPT, "%s: tensor %s: xxh3: not a checksum", v->b->manifest,
                            t->name);
    }
    return err_none();
}

static err list_file(void *ctx, int file, bank_sum **list, int *n) {
    const verifier *v = ctx;
    if (file == v->b->n_layers) return list_trunk(v, list, n);
    return list_records(v->paths[file], &v->b->layers[file], list, n);
}

static void tell(void *ctx, int file, uint64_t more) {
    verifier *v = ctx;
    v->done += more;
    if (v->done > v->total) v->done = v->total; /* what lies between tensors is not counted */
    if (v->check->progress)
        v->check->progress(v->check->ctx, file == v->b->n_layers ? "trunk" : "experts", v->done,
                           v->total);
}

/* ---- the whole ---- */

static err verify_deep(verifier *v) {
    int n = v->b->n_layers;
    v->paths = calloc((size_t)n + 1, sizeof *v->paths);
    if (!v->paths) return err_make(ERR_NOMEM, "%s: no memory", v->b->manifest);
    for (int i = 0; i <= n; i++) v->paths[i] = v->b->paths[(i + 1) % (n + 1)];
    for (int i = 0; i < n; i++)
        v->total += (uint64_t)v->b->layers[i].record_bytes * (uint64_t)v->b->layers[i].records;
    for (int i = 0; i < st_count(v->set); i++)
        if (!st_at(v->set, i)->stride) v->total += (uint64_t)st_at(v->set, i)->bytes;
    bank_sums s = {.paths = v->paths, .n_files = n + 1, .list = list_file, .tell = tell, .ctx = v};
    err e = bank_sums_check(&s);
    free(v->paths);
    return e;
}

static err verify_trailers(const verifier *v) {
    for (int i = 0; i < v->b->n_layers; i++) {
        uint64_t *hashes;
        err e = read_trailer(v->b->paths[i + 1], &v->b->layers[i], &hashes);
        free(hashes);
        if (e.code) return e;
    }
    return err_none();
}

err bank_verify(const char *dir, const bank_check *check) {
    bank b = {0};
    st_set *set = NULL;
    err e = bank_read_manifest(&b, dir);
    if (!e.code) e = bank_build_set(&b, &set);
    verifier v = {.b = &b, .check = check, .set = set};
    if (!e.code) e = check->deep ? verify_deep(&v) : verify_trailers(&v);
    st_close(set);
    bank_close(&b);
    return e;
}

/* ---- what an earlier process has left ---- */

typedef struct left_file {
    const char *path;
    bank_layer layer;
} left_file;

static err list_left(void *ctx, int file, bank_sum **list, int *n) {
    const left_file *f = ctx;
    (void)file;
    return list_records(f->path, &f->layer, list, n);
}

err bank_writer_adopt(const char *dir, int layer, int records, size_t record_bytes, bool *done) {
    char path[BANK_PATH_MAX], written[BANK_PATH_MAX + 16];
    *done = false;
    if (!bank_path(path, dir, layer)) return err_make(ERR_ARG, "%s: too long a path", dir);
    snprintf(written, sizeof written, "%s.written", path);
    if (access(written, F_OK) != 0) return err_none();
    left_file f = {written, {.records = records, .record_bytes = (int64_t)record_bytes}};
    const char *const paths[] = {written};
    bank_sums s = {.paths = paths, .n_files = 1, .list = list_left, .ctx = &f};
    err e = bank_sums_check(&s);
    *done = e.code == ERR_NONE;
    if (e.code == ERR_CORRUPT) e = err_none();
    int fd = -1;
    if (!e.code && *done) e = os_open_read(written, false, &fd);
    if (!e.code && *done) e = bank_rename(fd, written, path);
    if (fd >= 0) close(fd);
    if (!e.code && !*done && unlink(written) != 0) e = err_system(errno, "%s: removing", written);
    return e;
}
