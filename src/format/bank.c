/* bank.c: see bank.h. The manifest, and opening.
 *
 *     manifest.json
 *       {"format": "flashchat-bank", "version": 1, "source": {...}, "bits": 4, "group": 64,
 *        "layers": [{"layer": 0, "records": 64, "record_bytes": 53248}, ...],
 *        "tensors": {NAME: {"dtype": "BF16", "shape": [..], "offset": N, "xxh3": "..."},
 *                    NAME: {"dtype": "U32", "shape": [E, ..], "layer": 0, "offset": N}, ...}} */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/json.h"
#include "base/os.h"
#include "format/bank_impl.h"

#define MANIFEST_MAX ((size_t)64 << 20)
#define RECORDS_MAX  65536

bool bank_is(const char *dir) {
    char path[BANK_PATH_MAX];
    int n = snprintf(path, sizeof path, "%s/manifest.json", dir);
    return n > 0 && n < BANK_PATH_MAX && access(path, F_OK) == 0;
}

void bank_close(bank *b) {
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

err bank_read_manifest(bank *b, const char *dir) {
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

err bank_build_set(const bank *b, st_set **out) {
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
    err e = bank_read_manifest(&b, dir);
    if (!e.code) e = bank_build_set(&b, out);
    bank_close(&b);
    os_trim();
    return e;
}
