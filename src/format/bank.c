/* bank.c: see bank.h. Opening and verifying.
 *
 *     manifest.json
 *       {"format": "flashchat-bank", "version": 1, "source": {...}, "bits": 4, "group": 64,
 *        "layers": [{"layer": 0, "records": 64, "record_bytes": 53248}, ...],
 *        "tensors": {NAME: {"dtype": "BF16", "shape": [..], "offset": N, "xxh3": "..."},
 *                    NAME: {"dtype": "U32", "shape": [E, ..], "layer": 0, "offset": N}, ...}} */
#include "format/bank.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <xxhash.h>

#include "base/bits.h"
#include "base/json.h"
#include "base/os.h"
#include "format/bank_impl.h"

#define MANIFEST_MAX ((size_t)64 << 20)
#define RECORDS_MAX  65536
#define READ_BYTES   ((size_t)8 << 20)

typedef struct bank_layer {
    int number, records;
    int64_t record_bytes;
} bank_layer;

typedef struct bank {
    char manifest[BANK_PATH_MAX]; /* for messages */
    json_t *root;                 /* owned */
    bank_layer *layers;           /* owned */
    int n_layers;
    char **paths; /* owned: [0] the trunk, then the layers */
} bank;

bool bank_is(const char *dir) {
    char path[BANK_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/manifest.json", dir);
    return n > 0 && n < BANK_PATH_MAX && access(path, F_OK) == 0;
}

static void bank_close(bank *b) {
    for (int i = 0; i <= b->n_layers && b->paths; i++) free(b->paths[i]);
    free(b->paths);
    free(b->layers);
    json_decref(b->root);
}

/* ---- the manifest ---- */

static err read_layer(const bank *b, const json_t *entry, bank_layer *out) {
    int64_t number, records;
    if (!json_is_object(entry))
        return err_make(ERR_CORRUPT, "%s: layers: expected objects", b->manifest);
    TRY(json_get_int(entry, b->manifest, "layer", (json_range){0, BANK_LAYERS_MAX - 1, -1},
                     &number));
    TRY(json_get_int(entry, b->manifest, "records", (json_range){1, RECORDS_MAX, -1}, &records));
    TRY(json_get_int(entry, b->manifest, "record_bytes",
                     (json_range){BANK_ALIGN, (int64_t)1 << 40, -1}, &out->record_bytes));
    if (number < 0 || records < 0 || out->record_bytes < 0 || out->record_bytes % BANK_ALIGN)
        return err_make(ERR_CORRUPT, "%s: layers: layer, records or record_bytes is missing or odd",
                        b->manifest);
    out->number = (int)number;
    out->records = (int)records;
    return err_none();
}

static err add_path(bank *b, const char *dir, int i) {
    char path[BANK_PATH_MAX];
    if (!bank_path(path, dir, i ? b->layers[i - 1].number : -1))
        return err_make(ERR_ARG, "%s: too long a path", dir);
    b->paths[i] = strdup(path);
    return b->paths[i] ? err_none() : err_make(ERR_NOMEM, "%s: no memory", b->manifest);
}

static err read_layers(bank *b, const char *dir) {
    const json_t *list = json_object_get(b->root, "layers");
    size_t n = json_array_size(list);
    if (!json_is_array(list) || n > BANK_LAYERS_MAX)
        return err_make(ERR_CORRUPT, "%s: layers: expected a list", b->manifest);
    b->layers = calloc(n + 1, sizeof *b->layers);
    b->paths = calloc(n + 1, sizeof *b->paths);
    if (!b->layers || !b->paths) return err_make(ERR_NOMEM, "%s: no memory", b->manifest);
    TRY(add_path(b, dir, 0));
    for (size_t i = 0; i < n; i++) {
        TRY(read_layer(b, json_array_get(list, i), &b->layers[i]));
        b->n_layers++;
        TRY(add_path(b, dir, (int)i + 1));
    }
    return err_none();
}

static err read_manifest(bank *b, const char *dir) {
    int n = snprintf(b->manifest, sizeof b->manifest, "%s/manifest.json", dir);
    if (n < 0 || n >= BANK_PATH_MAX) return err_make(ERR_ARG, "%s: too long a path", dir);
    TRY(json_read_file(b->manifest, MANIFEST_MAX, &b->root));
    if (!json_is_object(b->root))
        return err_make(ERR_CORRUPT, "%s: expected an object", b->manifest);
    int64_t version;
    const char *format;
    TRY(json_get_string(b->root, b->manifest, "format", "", &format));
    TRY(json_get_int(b->root, b->manifest, "version", (json_range){1, 1 << 20, 0}, &version));
    if (strcmp(format, "flashchat-bank") != 0)
        return err_make(ERR_CORRUPT, "%s: format: not a packed model", b->manifest);
    if (version != BANK_VERSION)
        return err_make(ERR_UNSUPPORTED,
                        "%s: version: %lld, but this program reads %d: pack the model again",
                        b->manifest, (long long)version, BANK_VERSION);
    return read_layers(b, dir);
}

/* ---- tensors ---- */

static int layer_index(const bank *b, int64_t number) {
    for (int i = 0; i < b->n_layers; i++)
        if (b->layers[i].number == number) return i;
    return -1;
}

static err read_shape(const char *where, const json_t *info, st_tensor *t) {
    const json_t *shape = json_object_get(info, "shape");
    size_t n = json_array_size(shape), bytes = st_dtype_bytes(t->dtype);
    bool ok = json_is_array(shape) && n <= ST_DIMS_MAX;
    t->n_dims = ok ? (int)n : 0;
    for (size_t i = 0; ok && i < n; i++) {
        t->shape[i] = json_integer_value(json_array_get(shape, i));
        ok = json_is_integer(json_array_get(shape, i)) && t->shape[i] >= 0 &&
             size_mul(bytes, (size_t)t->shape[i], &bytes) && bytes < (size_t)1 << 60;
    }
    t->bytes = (int64_t)bytes;
    return ok ? err_none() : err_make(ERR_CORRUPT, "%s: shape: not a tensor's", where);
}

static err read_tensor(const bank *b, const char *name, const json_t *info, st_tensor *t) {
    char where[BANK_PATH_MAX + 200];
    snprintf(where, sizeof where, "%s: tensor %.160s", b->manifest, name);
    if (!json_is_object(info)) return err_make(ERR_CORRUPT, "%s: expected an object", where);
    *t = (st_tensor){.name = name};
    const char *dtype;
    int64_t layer;
    TRY(json_get_string(info, where, "dtype", "", &dtype));
    if (!st_dtype_parse(dtype, &t->dtype))
        return err_make(ERR_CORRUPT, "%s: dtype: \"%.20s\" is not known", where, dtype);
    TRY(read_shape(where, info, t));
    TRY(json_get_int(info, where, "offset", (json_range){0, (int64_t)1 << 60, -1}, &t->offset));
    TRY(json_get_int(info, where, "layer", (json_range){0, BANK_LAYERS_MAX - 1, -1}, &layer));
    if (t->offset < 0) return err_make(ERR_CORRUPT, "%s: offset: missing", where);
    if (layer < 0) return err_none();
    int i = layer_index(b, layer);
    if (i < 0 || t->n_dims < 2 || t->shape[0] != b->layers[i].records)
        return err_make(ERR_CORRUPT, "%s: does not fit the layer's file", where);
    t->file = i + 1;
    t->stride = b->layers[i].record_bytes;
    return err_none();
}

static err build_set(const bank *b, st_set **out) {
    const json_t *all = json_object_get(b->root, "tensors");
    if (!json_is_object(all))
        return err_make(ERR_CORRUPT, "%s: tensors: expected an object", b->manifest);
    st_tensor *list = calloc(json_object_size(all) + 1, sizeof *list);
    if (!list) return err_make(ERR_NOMEM, "%s: no memory", b->manifest);
    int n = 0;
    err e = err_none();
    const char *name;
    json_t *info;
    json_object_foreach((json_t *)all, name, info) {
        if (!e.code) e = read_tensor(b, name, info, &list[n++]);
    }
    const char *convention;
    if (!e.code) e = json_get_string(b->root, b->manifest, "convention", "", &convention);
    if (!e.code)
        e = st_from_list((const char *const *)b->paths, b->n_layers + 1, list, n, convention, out);
    free(list);
    return e;
}

err bank_open(const char *dir, st_set **out) {
    *out = NULL;
    bank b = {0};
    err e = read_manifest(&b, dir);
    if (!e.code) e = build_set(&b, out);
    bank_close(&b);
    os_trim();
    return e;
}

/* ---- verifying ---- */

typedef struct verifier {
    const bank *b;
    const bank_check *check; /* NULL: deep, without progress */
    const st_set *set;
    uint8_t *buffer; /* of size bytes */
    size_t size;     /* at least READ_BYTES and one record */
    uint64_t done, total;
} verifier;

static void tell(verifier *v, const char *what, uint64_t more) {
    v->done += more;
    if (v->check && v->check->progress) v->check->progress(v->check->ctx, what, v->done, v->total);
}

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

/* *hashes: owned by the caller. */
static err read_trailer(int fd, const char *path, const bank_layer *l, uint64_t **hashes) {
    size_t bytes = bank_trailer_bytes(l->records);
    uint8_t *trailer = malloc(bytes);
    *hashes = calloc((size_t)l->records + 1, sizeof **hashes);
    err e = trailer && *hashes ? err_none() : err_make(ERR_NOMEM, "%s: no memory", path);
    if (!e.code) e = read_at(fd, path, trailer, bytes, l->records * l->record_bytes);
    if (!e.code &&
        (memcmp(trailer, BANK_MAGIC, 8) != 0 || bank_get_u64(trailer + 8) != (uint64_t)l->records ||
         bank_get_u64(trailer + 16) != (uint64_t)l->record_bytes ||
         bank_get_u64(trailer + bytes - 8) != XXH3_64bits(trailer, bytes - 8)))
        e = err_make(ERR_CORRUPT, "%s: its trailer is damaged", path);
    for (int i = 0; i < l->records && !e.code; i++)
        (*hashes)[i] = bank_get_u64(trailer + 24 + 8 * (size_t)i);
    free(trailer);
    return e;
}

err bank_hashes(const char *path, int records, int64_t record_bytes, uint64_t *out) {
    bank_layer l = {.records = records, .record_bytes = record_bytes};
    int fd;
    TRY(os_open_read(path, false, &fd));
    uint64_t *hashes = NULL;
    err e = read_trailer(fd, path, &l, &hashes);
    if (!e.code) memcpy(out, hashes, (size_t)records * sizeof *out);
    free(hashes);
    close(fd);
    return e;
}

static err verify_records(verifier *v, int fd, const char *path, const bank_layer *l,
                          const uint64_t *hashes) {
    size_t bytes = (size_t)l->record_bytes;
    for (int k = 0; k < l->records; k++) {
        TRY(read_at(fd, path, v->buffer, bytes, k * l->record_bytes));
        if (XXH3_64bits(v->buffer, bytes) != hashes[k])
            return err_make(ERR_CORRUPT, "%s: expert %d: its bytes do not fit their checksum", path,
                            k);
        tell(v, "experts", bytes);
    }
    return err_none();
}

static err verify_layer(verifier *v, int fd, const char *path, const bank_layer *l) {
    uint64_t *hashes = NULL;
    err e = read_trailer(fd, path, l, &hashes);
    if (!e.code && (!v->check || v->check->deep)) e = verify_records(v, fd, path, l, hashes);
    free(hashes);
    return e;
}

static err verify_file(verifier *v, int i) {
    const char *path = v->b->paths[i + 1];
    int fd;
    TRY(os_open_read(path, false, &fd));
    err e = verify_layer(v, fd, path, &v->b->layers[i]);
    close(fd);
    return e;
}

err bank_writer_adopt(const char *dir, int layer, int records, size_t record_bytes, bool *done) {
    char path[BANK_PATH_MAX], written[BANK_PATH_MAX + 16];
    *done = false;
    if (!bank_path(path, dir, layer)) return err_make(ERR_ARG, "%s: too long a path", dir);
    snprintf(written, sizeof written, "%s.written", path);
    if (access(written, F_OK) != 0) return err_none();
    int fd;
    TRY(os_open_read(written, false, &fd));
    bank_layer l = {.records = records, .record_bytes = (int64_t)record_bytes};
    verifier v = {.buffer = malloc(record_bytes), .size = record_bytes};
    err e = v.buffer ? verify_layer(&v, fd, written, &l) : err_make(ERR_NOMEM, "no memory");
    free(v.buffer);
    *done = e.code == ERR_NONE;
    if (e.code == ERR_CORRUPT) e = err_none();
    if (!e.code && *done) e = bank_rename(fd, written, path);
    close(fd);
    if (!e.code && !*done && unlink(written) != 0) e = err_system(errno, "%s: removing", written);
    return e;
}

static err verify_tensor(verifier *v, const st_tensor *t) {
    const json_t *info = json_object_get(json_object_get(v->b->root, "tensors"), t->name);
    const char *said = json_string_value(json_object_get(info, "xxh3"));
    XXH3_state_t *state = XXH3_createState();
    if (!state) return err_make(ERR_NOMEM, "%s: no memory", v->b->manifest);
    XXH3_64bits_reset(state);
    err e = err_none();
    for (int64_t at = 0; at < t->bytes && !e.code; at += (int64_t)READ_BYTES) {
        size_t length = size_min(READ_BYTES, (size_t)(t->bytes - at));
        e = st_read_part(v->set, t, at, length, v->buffer);
        if (!e.code) XXH3_64bits_update(state, v->buffer, length);
        tell(v, "trunk", length);
    }
    char found[20];
    snprintf(found, sizeof found, "%016llx", (unsigned long long)XXH3_64bits_digest(state));
    XXH3_freeState(state);
    if (!e.code && (!said || strcmp(said, found) != 0))
        e = err_make(ERR_CORRUPT, "%s: tensor %s: its bytes do not fit their checksum",
                     st_path(v->set, t->file), t->name);
    return e;
}

static err verify_all(verifier *v) {
    v->size = READ_BYTES;
    for (int i = 0; i < v->b->n_layers; i++) {
        const bank_layer *l = &v->b->layers[i];
        if ((size_t)l->record_bytes > v->size) v->size = (size_t)l->record_bytes;
        v->total += (uint64_t)l->record_bytes * (uint64_t)l->records;
    }
    for (int i = 0; i < st_count(v->set); i++)
        if (!st_at(v->set, i)->stride) v->total += (uint64_t)st_at(v->set, i)->bytes;
    v->buffer = malloc(v->size);
    if (!v->buffer) return err_make(ERR_NOMEM, "%s: no memory", v->b->manifest);
    for (int i = 0; i < v->b->n_layers; i++) TRY(verify_file(v, i));
    for (int i = 0; i < st_count(v->set) && v->check->deep; i++)
        if (!st_at(v->set, i)->stride) TRY(verify_tensor(v, st_at(v->set, i)));
    return err_none();
}

err bank_verify(const char *dir, const bank_check *check) {
    bank b = {0};
    st_set *set = NULL;
    err e = read_manifest(&b, dir);
    if (!e.code) e = build_set(&b, &set);
    verifier v = {.b = &b, .check = check, .set = set};
    if (!e.code) e = verify_all(&v);
    free(v.buffer);
    st_close(set);
    bank_close(&b);
    return e;
}
