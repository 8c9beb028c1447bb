/* safetensors.c: see safetensors.h.
 *
 *     open     index -> names of shards -> each: length, JSON, tensors of this file, their layout
 *              then all tensors sorted by name, duplicates refused, the index compared
 *
 * Invariants after open: tensors ascend strictly by name; for each, 0 <= offset and offset + bytes
 * <= the file's size, and bytes is the product of shape and dtype. Everything that comes from a
 * file is checked before it is used as a size; names that go into messages are made printable
 * first, because a hostile name may hold terminal escapes. */
#include "format/safetensors.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/json.h"
#include "base/os.h"

#define INDEX_NAME    "model.safetensors.index.json"
#define SINGLE_NAME   "model.safetensors"
#define INDEX_MAX     ((size_t)256 << 20)
#define LENGTH_BYTES  8
#define NAME_SHOWN    160             /* bytes of a name that a message shows */
#define READ_AT_ONCE  (1u << 30)      /* pread takes at most 2 GiB - 4 KiB */
#define OFFSET_LIMIT  (INT64_MAX / 4) /* no file is larger: sums of two offsets cannot overflow */
#define ST_FORMAT_MAX 16

typedef struct st_file {
    char *path;   /* owned */
    int fd;       /* owned; -1 when there is no file behind it */
    int64_t size; /* bytes, at open */
} st_file;

struct st_set {         /* fixed after open */
    st_tensor *tensors; /* owned, and each name; ascending by name after sort_and_check */
    int n, capacity;
    st_file *files; /* owned */
    int n_files;
    char format[ST_FORMAT_MAX];
    st_io io;
};

/* ---- dtypes ---- */

static const struct {
    const char *name;
    size_t bytes;
} dtypes[ST_DTYPES] = {
    [ST_BOOL] = {"BOOL", 1},       [ST_U8] = {"U8", 1},           [ST_I8] = {"I8", 1},
    [ST_F8_E4M3] = {"F8_E4M3", 1}, [ST_F8_E5M2] = {"F8_E5M2", 1}, [ST_F8_E8M0] = {"F8_E8M0", 1},
    [ST_I16] = {"I16", 2},         [ST_U16] = {"U16", 2},         [ST_F16] = {"F16", 2},
    [ST_BF16] = {"BF16", 2},       [ST_I32] = {"I32", 4},         [ST_U32] = {"U32", 4},
    [ST_F32] = {"F32", 4},         [ST_F64] = {"F64", 8},         [ST_I64] = {"I64", 8},
    [ST_U64] = {"U64", 8},
};

const char *st_dtype_name(st_dtype d) { return dtypes[d].name; }
size_t st_dtype_bytes(st_dtype d) { return dtypes[d].bytes; }

bool st_dtype_parse(const char *text, st_dtype *out) {
    for (int d = 0; d < ST_DTYPES; d++) {
        if (strcmp(dtypes[d].name, text) == 0) {
            *out = (st_dtype)d;
            return true;
        }
    }
    return false;
}

/* ---- messages ---- */

typedef struct shown {
    char text[NAME_SHOWN + 4];
} shown;

/* The name as a message prints it: a long one ends in "...". */
static shown show(const char *name) {
    shown s;
    snprintf(s.text, sizeof s.text, "%.*s%s", NAME_SHOWN, name,
             strlen(name) > NAME_SHOWN ? "..." : "");
    return s;
}

/* A complaint about one field of one tensor. */
#define BAD_FIELD(code, path, name, field, format, ...)                                            \
    err_make((code), "%s: tensor %s: %s: " format, (path), show(name).text, (field), __VA_ARGS__)

/* ---- one tensor of a header ---- */

static err parse_dtype(const char *path, const char *name, const json_t *info, st_tensor *t) {
    const json_t *value = json_object_get(info, "dtype");
    if (!json_is_string(value))
        return BAD_FIELD(ERR_CORRUPT, path, name, "dtype", "expected a string, found %s",
                         json_kind(value));
    if (!st_dtype_parse(json_string_value(value), &t->dtype))
        return BAD_FIELD(ERR_UNSUPPORTED, path, name, "dtype", "%s is not known",
                         show(json_string_value(value)).text);
    return err_none();
}

/* Also computes *need, the bytes that shape and dtype ask for. */
static err parse_shape(const char *path, const char *name, const json_t *info, st_tensor *t,
                       size_t *need) {
    *need = st_dtype_bytes(t->dtype);
    const json_t *value = json_object_get(info, "shape");
    if (!json_is_array(value))
        return BAD_FIELD(ERR_CORRUPT, path, name, "shape", "expected a list, found %s",
                         json_kind(value));
    size_t n = json_array_size(value);
    if (n > ST_DIMS_MAX)
        return BAD_FIELD(ERR_UNSUPPORTED, path, name, "shape",
                         "%zu dimensions, at most %d expected", n, ST_DIMS_MAX);
    t->n_dims = (int)n;
    for (size_t i = 0; i < n; i++) {
        const json_t *dim = json_array_get(value, i);
        if (!json_is_integer(dim))
            return BAD_FIELD(ERR_CORRUPT, path, name, "shape",
                             "dimension %zu: expected a whole number, found %s", i, json_kind(dim));
        t->shape[i] = (int64_t)json_integer_value(dim);
        if (t->shape[i] < 0)
            return BAD_FIELD(ERR_CORRUPT, path, name, "shape", "dimension %zu is %lld", i,
                             (long long)t->shape[i]);
        if (!size_mul(*need, (size_t)t->shape[i], need))
            return BAD_FIELD(ERR_CORRUPT, path, name, "shape",
                             "the product of %zu dimensions does not fit 64 bits", n);
    }
    return err_none();
}

/* One of the two data_offsets, relative to the data section of data_bytes bytes. */
static err parse_offset(const char *path, const char *name, const json_t *pair, size_t which,
                        int64_t *out) {
    const json_t *value = json_array_get(pair, which);
    if (!json_is_integer(value))
        return BAD_FIELD(ERR_CORRUPT, path, name, "data_offsets",
                         "expected two whole numbers, found %s", json_kind(value));
    *out = (int64_t)json_integer_value(value);
    if (*out < 0 || *out > OFFSET_LIMIT)
        return BAD_FIELD(ERR_CORRUPT, path, name, "data_offsets", "%lld is not an offset in a file",
                         (long long)*out);
    return err_none();
}

static err parse_place(const char *path, const char *name, const json_t *info, int64_t data_start,
                       int64_t file_size, st_tensor *t) {
    const json_t *pair = json_object_get(info, "data_offsets");
    if (!json_is_array(pair) || json_array_size(pair) != 2)
        return BAD_FIELD(ERR_CORRUPT, path, name, "data_offsets",
                         "expected a list of two numbers, found %s%s", json_kind(pair),
                         json_is_array(pair) ? " of another length" : "");
    int64_t begin, end;
    TRY(parse_offset(path, name, pair, 0, &begin));
    TRY(parse_offset(path, name, pair, 1, &end));
    if (begin > end)
        return BAD_FIELD(ERR_CORRUPT, path, name, "data_offsets", "begins at %lld, ends at %lld",
                         (long long)begin, (long long)end);
    if (end > file_size - data_start)
        return BAD_FIELD(ERR_CORRUPT, path, name, "data_offsets",
                         "ends %lld bytes past the end of the file (%lld bytes): the file is "
                         "truncated or the header wrong; download it again",
                         (long long)(end - (file_size - data_start)), (long long)file_size);
    t->offset = data_start + begin;
    t->bytes = end - begin;
    return err_none();
}

/* Room for one more tensor. */
static err grow(st_set *s) {
    if (s->n < s->capacity) return err_none();
    int wider = s->capacity ? s->capacity * 2 : 256;
    st_tensor *moved =
        s->capacity > INT_MAX / 4 ? NULL : realloc(s->tensors, (size_t)wider * sizeof *s->tensors);
    if (!moved) return err_make(ERR_NOMEM, "no memory for the names of %d tensors", wider);
    s->tensors = moved;
    s->capacity = wider;
    return err_none();
}

/* Where the tensors of one header go, and what bounds them. */
typedef struct header {
    st_set *set;
    const char *path;
    int file;
    int64_t data_start, file_size;
} header;

static err add_tensor(const header *h, const char *name, const json_t *info) {
    if (!json_is_object(info))
        return err_make(ERR_CORRUPT, "%s: tensor %s: expected an object, found %s", h->path,
                        show(name).text, json_kind(info));
    st_tensor t = {.file = h->file};
    size_t need;
    TRY(parse_dtype(h->path, name, info, &t));
    TRY(parse_shape(h->path, name, info, &t, &need));
    TRY(parse_place(h->path, name, info, h->data_start, h->file_size, &t));
    if (need != (size_t)t.bytes)
        return BAD_FIELD(ERR_CORRUPT, h->path, name, "data_offsets",
                         "%lld bytes, but its shape in %s takes %zu", (long long)t.bytes,
                         st_dtype_name(t.dtype), need);
    TRY(grow(h->set));
    t.name = strdup(name);
    if (!t.name) return err_make(ERR_NOMEM, "%s: no memory for tensor names", h->path);
    h->set->tensors[h->set->n++] = t;
    return err_none();
}

static err read_metadata(const header *h, const json_t *meta) {
    if (!json_is_object(meta))
        return err_make(ERR_CORRUPT, "%s: __metadata__: expected an object, found %s", h->path,
                        json_kind(meta));
    const char *format;
    TRY(json_get_string(meta, h->path, "format", "", &format));
    if (!h->set->format[0] && strlen(format) < ST_FORMAT_MAX)
        memcpy(h->set->format, format, strlen(format) + 1);
    return err_none();
}

/* ---- the layout of one file ---- */

static int by_offset(const void *a, const void *b) {
    const st_tensor *x = *(const st_tensor *const *)a, *y = *(const st_tensor *const *)b;
    if (x->offset != y->offset) return x->offset < y->offset ? -1 : 1;
    if (x->bytes != y->bytes) return x->bytes < y->bytes ? -1 : 1;
    return 0;
}

/* The tensors of a file follow each other without overlap or gap and end where the file ends. */
static err check_order(const header *h, const st_tensor *const *sorted, int count) {
    int64_t at = h->data_start;
    for (int i = 0; i < count; i++) {
        const st_tensor *t = sorted[i];
        if (t->offset < at)
            return BAD_FIELD(ERR_CORRUPT, h->path, t->name, "data_offsets",
                             "overlaps tensor %s by %lld bytes", show(sorted[i - 1]->name).text,
                             (long long)(at - t->offset));
        if (t->offset > at)
            return BAD_FIELD(ERR_CORRUPT, h->path, t->name, "data_offsets",
                             "%lld bytes before it belong to no tensor",
                             (long long)(t->offset - at));
        at = t->offset + t->bytes;
    }
    if (at != h->file_size)
        return err_make(ERR_CORRUPT, "%s: %lld bytes after the last tensor belong to no tensor",
                        h->path, (long long)(h->file_size - at));
    return err_none();
}

static err check_layout(const header *h, int first) {
    int count = h->set->n - first;
    const st_tensor **sorted = malloc(((size_t)count + 1) * sizeof *sorted);
    if (!sorted) return err_make(ERR_NOMEM, "%s: no memory for %d tensors", h->path, count);
    for (int i = 0; i < count; i++) sorted[i] = &h->set->tensors[first + i];
    qsort(sorted, (size_t)count, sizeof *sorted, by_offset);
    err e = check_order(h, sorted, count);
    free(sorted);
    return e;
}

static err add_members(const header *h, json_t *root) {
    if (!json_is_object(root))
        return err_make(ERR_CORRUPT, "%s: header: expected an object, found %s", h->path,
                        json_kind(root));
    int first = h->set->n;
    const char *key;
    json_t *value;
    json_object_foreach(root, key, value) {
        if (strcmp(key, "__metadata__") == 0)
            TRY(read_metadata(h, value));
        else
            TRY(add_tensor(h, key, value));
    }
    return check_layout(h, first);
}

static err parse_json(const header *h, const char *text, size_t length) {
    json_t *root;
    err e = json_read_bytes(h->path, text, length, &root);
    if (e.code) return e;
    e = add_members(h, root);
    json_decref(root);
    return e;
}

/* The first 8 bytes: how long the JSON is. */
static err header_length(const char *path, const uint8_t prefix[LENGTH_BYTES], int64_t file_size,
                         size_t *out) {
    uint64_t n = 0;
    for (int i = LENGTH_BYTES - 1; i >= 0; i--) n = n << 8 | prefix[i];
    *out = 0;
    if (n > ST_HEADER_MAX)
        return err_make(ERR_CORRUPT,
                        "%s: header length: %llu bytes, at most %d expected: not a safetensors "
                        "file, or damaged",
                        path, (unsigned long long)n, ST_HEADER_MAX);
    if ((int64_t)n > file_size - LENGTH_BYTES)
        return err_make(ERR_CORRUPT,
                        "%s: header length: %llu bytes, but the file has %lld: it is truncated; "
                        "download it again",
                        path, (unsigned long long)n, (long long)file_size);
    *out = (size_t)n;
    return err_none();
}

/* ---- reading ---- */

static int64_t system_read_at(void *ctx, int fd, void *dst, size_t length, int64_t offset) {
    (void)ctx;
    return pread(fd, dst, length, (off_t)offset);
}

/* How far a read came, and what stopped it: an errno, or 0 for a file that ended. */
typedef struct progress {
    size_t done;
    int reason;
} progress;

/* All `length` bytes at `offset` of file f, however many calls that takes. */
static bool read_fully(const st_set *s, int fd, int64_t offset, size_t length, void *dst,
                       progress *p) {
    *p = (progress){0};
    while (p->done < length) {
        size_t ask = size_min(length - p->done, READ_AT_ONCE);
        errno = 0;
        int64_t got =
            s->io.read_at(s->io.ctx, fd, (uint8_t *)dst + p->done, ask, offset + (int64_t)p->done);
        if (got < 0 && errno == EINTR) continue;
        if (got <= 0 || (uint64_t)got > ask) {
            p->reason = got < 0 ? errno : 0;
            return false;
        }
        p->done += (size_t)got;
    }
    return true;
}

/* "read at byte N: reason after so many of so many bytes", behind the name of what was read. */
static err read_failed(const char *what, int64_t offset, size_t length, progress p) {
    return err_make(ERR_IO, "%s: read at byte %lld: %s after %zu of %zu bytes", what,
                    (long long)offset + (long long)p.done,
                    p.reason ? strerror(p.reason) : "the file ended", p.done, length);
}

err st_read_part(const st_set *s, const st_tensor *t, int64_t begin, size_t length, void *dst) {
    const st_file *f = &s->files[t->file];
    if (begin < 0 || begin > t->bytes || length > (uint64_t)(t->bytes - begin))
        return err_make(ERR_RANGE, "%s: tensor %s: %zu bytes at %lld, but it has %lld", f->path,
                        show(t->name).text, length, (long long)begin, (long long)t->bytes);
    if (f->fd < 0)
        return err_make(ERR_ARG, "%s: tensor %s: no file to read from", f->path,
                        show(t->name).text);
    if (t->stride)
        return err_make(ERR_ARG, "%s: tensor %s: lies in pieces", f->path, show(t->name).text);
    progress p;
    if (read_fully(s, f->fd, t->offset + begin, length, dst, &p)) return err_none();
    err e = read_failed(show(t->name).text, t->offset + begin, length, p);
    return err_within(e, "%s: tensor", f->path);
}

err st_read(const st_set *s, const st_tensor *t, void *dst) {
    return st_read_part(s, t, 0, (size_t)t->bytes, dst);
}

/* ---- opening one file ---- */

static err file_open(st_file *f) {
    TRY(os_open_read(f->path, false, &f->fd));
    struct stat st;
    if (fstat(f->fd, &st) != 0) return err_system(errno, "%s", f->path);
    if (!S_ISREG(st.st_mode)) return err_make(ERR_IO, "%s: not a regular file", f->path);
    f->size = st.st_size;
    if (f->size > OFFSET_LIMIT)
        return err_make(ERR_CORRUPT, "%s: a file of %lld bytes", f->path, (long long)f->size);
    if (f->size < LENGTH_BYTES)
        return err_make(ERR_CORRUPT, "%s: %lld bytes: too short for a safetensors file", f->path,
                        (long long)f->size);
    return err_none();
}

static err read_header(st_set *s, int file) {
    st_file *f = &s->files[file];
    TRY(file_open(f));
    uint8_t prefix[LENGTH_BYTES];
    size_t length;
    progress p;
    if (!read_fully(s, f->fd, 0, sizeof prefix, prefix, &p))
        return read_failed(f->path, 0, sizeof prefix, p);
    TRY(header_length(f->path, prefix, f->size, &length));
    char *text = malloc(length + 1);
    if (!text) return err_make(ERR_NOMEM, "%s: no memory for its header", f->path);
    header h = {s, f->path, file, LENGTH_BYTES + (int64_t)length, f->size};
    err e = read_fully(s, f->fd, LENGTH_BYTES, length, text, &p)
                ? parse_json(&h, text, length)
                : read_failed(f->path, LENGTH_BYTES, length, p);
    free(text);
    return e;
}

static err set_new(const st_io *io, int n_files, st_set **out) {
    st_set *s = calloc(1, sizeof *s);
    st_file *files = calloc((size_t)n_files, sizeof *files);
    if (!s || !files) {
        free(s);
        free(files);
        *out = NULL;
        return err_make(ERR_NOMEM, "no memory for %d files", n_files);
    }
    for (int i = 0; i < n_files; i++) files[i].fd = -1;
    s->files = files;
    s->n_files = n_files;
    s->io = io ? *io : (st_io){.read_at = system_read_at};
    *out = s;
    return err_none();
}

void st_close(st_set *s) {
    if (!s) return;
    for (int i = 0; i < s->n; i++) free((char *)s->tensors[i].name);
    for (int i = 0; i < s->n_files; i++) {
        if (s->files[i].fd >= 0) close(s->files[i].fd);
        free(s->files[i].path);
    }
    free(s->tensors);
    free(s->files);
    free(s);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const st_tensor *)a)->name, ((const st_tensor *)b)->name);
}

static err sort_and_check(st_set *s) {
    if (s->n) qsort(s->tensors, (size_t)s->n, sizeof *s->tensors, by_name);
    for (int i = 1; i < s->n; i++) {
        const st_tensor *a = &s->tensors[i - 1], *b = &s->tensors[i];
        if (strcmp(a->name, b->name) == 0)
            return err_make(ERR_CORRUPT, "%s: tensor %s: also in %s", s->files[b->file].path,
                            show(b->name).text, s->files[a->file].path);
    }
    return err_none();
}

static err load_headers(st_set *s) {
    for (int i = 0; i < s->n_files; i++) TRY(read_header(s, i));
    return sort_and_check(s);
}

/* Hands s over through out, or closes it. The JSON of many tensors took ten times its text: what
 * was freed goes back to the system, because everything counts against the engine's memory ceiling.
 */
static err finish(st_set *s, err e, st_set **out) {
    *out = e.code ? NULL : s;
    if (e.code) st_close(s);
    return e;
}

/* The JSON of many tensors takes ten times its text while it is read. What is free again goes back
 * to the system, because everything counts against the engine's memory ceiling. */
static err trimmed(err e) {
    os_trim();
    return e;
}

static err open_single(char *path, const st_io *io, st_set **out) {
    *out = NULL;
    if (!path) return err_make(ERR_NOMEM, "no memory for a path");
    st_set *s;
    err e = set_new(io, 1, &s);
    if (e.code) {
        free(path);
        return e;
    }
    s->files[0].path = path;
    return trimmed(finish(s, load_headers(s), out));
}

err st_open_file(const char *path, st_set **out) { return open_single(strdup(path), NULL, out); }

err st_parse_header(const char *path, const uint8_t *bytes, size_t length, int64_t file_size,
                    st_set **out) {
    *out = NULL;
    if (length < LENGTH_BYTES || file_size < (int64_t)LENGTH_BYTES || file_size > OFFSET_LIMIT)
        return err_make(ERR_CORRUPT, "%s: too short for a safetensors file", path);
    size_t json_length;
    TRY(header_length(path, bytes, file_size, &json_length));
    if (json_length > length - LENGTH_BYTES)
        return err_make(ERR_CORRUPT, "%s: header length: %zu bytes, only %zu are there", path,
                        json_length, length - LENGTH_BYTES);
    st_set *s;
    TRY(set_new(NULL, 1, &s));
    s->files[0].path = strdup(path);
    s->files[0].size = file_size;
    if (!s->files[0].path) return finish(s, err_make(ERR_NOMEM, "no memory for a path"), out);
    header h = {s, s->files[0].path, 0, LENGTH_BYTES + (int64_t)json_length, file_size};
    err e = parse_json(&h, (const char *)bytes + LENGTH_BYTES, json_length);
    if (!e.code) e = sort_and_check(s);
    return finish(s, e, out);
}

/* ---- a list from elsewhere ---- */

static err check_listed(const st_set *s, const st_tensor *t) {
    const st_file *f = &s->files[t->file];
    int64_t slices = t->stride && t->n_dims ? t->shape[0] : 1;
    int64_t piece = slices ? t->bytes / slices : 0, last;
    bool ok = t->offset >= 0 && t->bytes >= 0 && t->stride >= 0 && t->offset <= f->size &&
              t->bytes <= f->size && !(t->stride && piece > t->stride);
    ok = ok && !__builtin_mul_overflow(slices ? slices - 1 : 0, t->stride, &last) &&
         last <= f->size - t->offset && piece <= f->size - t->offset - last;
    if (ok) return err_none();
    return BAD_FIELD(ERR_CORRUPT, f->path, t->name, "offset",
                     "bytes %lld from %lld do not fit %lld", (long long)t->bytes,
                     (long long)t->offset, (long long)f->size);
}

static err fill_from_list(st_set *s, const char *const *paths, const st_tensor *tensors, int n) {
    for (int i = 0; i < s->n_files; i++) {
        s->files[i].path = strdup(paths[i]);
        if (!s->files[i].path) return err_make(ERR_NOMEM, "no memory for a path");
        TRY(file_open(&s->files[i]));
    }
    for (int i = 0; i < n; i++) {
        if (s->n == s->capacity) TRY(grow(s));
        st_tensor t = tensors[i];
        t.name = strdup(tensors[i].name);
        if (!t.name) return err_make(ERR_NOMEM, "no memory for the name of a tensor");
        s->tensors[s->n++] = t;
        TRY(check_listed(s, &t));
    }
    return sort_and_check(s);
}

err st_from_list(const char *const *paths, int n_files, const st_tensor *tensors, int n,
                 const char *format, st_set **out) {
    *out = NULL;
    st_set *s;
    TRY(set_new(NULL, n_files, &s));
    snprintf(s->format, sizeof s->format, "%s", format);
    return finish(s, fill_from_list(s, paths, tensors, n), out);
}

/* ---- directories and the index ---- */

/* dir/name, owned by the caller; NULL without memory. */
static char *join(const char *dir, const char *name) {
    size_t bytes = strlen(dir) + strlen(name) + 2;
    char *path = malloc(bytes);
    if (!path) return NULL;
    snprintf(path, bytes, "%s/%s", dir, name);
    return path;
}

/* A shard is a plain file name: a downloaded index must not name files outside its directory. */
static err check_shard_name(const char *index, const char *tensor, const json_t *value) {
    if (!json_is_string(value))
        return err_make(ERR_CORRUPT, "%s: weight_map: tensor %s: expected a file name, found %s",
                        index, show(tensor).text, json_kind(value));
    const char *name = json_string_value(value);
    if (!name[0] || strchr(name, '/') || strchr(name, '\\') || strstr(name, ".."))
        return err_make(ERR_CORRUPT,
                        "%s: weight_map: tensor %s: \"%s\" is not the name of a file beside the "
                        "index",
                        index, show(tensor).text, show(name).text);
    return err_none();
}

static int by_text(const void *a, const void *b) {
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The distinct shard names of weight_map, ascending; the array is the caller's, the names are
 * borrowed from weight_map. */
static err shard_names(const char *index, json_t *weight_map, const char ***out, int *count) {
    *out = NULL;
    *count = 0;
    if (!json_is_object(weight_map) || json_object_size(weight_map) == 0)
        return err_make(ERR_CORRUPT, "%s: weight_map: expected an object with tensors, found %s",
                        index, json_is_object(weight_map) ? "no tensor" : json_kind(weight_map));
    const char **names = malloc(json_object_size(weight_map) * sizeof *names);
    if (!names) return err_make(ERR_NOMEM, "%s: no memory for its entries", index);
    size_t n = 0, distinct = 0;
    err e = err_none();
    const char *key;
    json_t *value;
    json_object_foreach(weight_map, key, value) {
        e = check_shard_name(index, key, value);
        if (e.code) break;
        names[n++] = json_string_value(value);
    }
    qsort(names, n, sizeof *names, by_text);
    for (size_t i = 0; i < n; i++) {
        if (distinct == 0 || strcmp(names[distinct - 1], names[i]) != 0)
            names[distinct++] = names[i];
    }
    if (!e.code && distinct > ST_FILES_MAX)
        e = err_make(ERR_UNSUPPORTED, "%s: weight_map: %zu files, at most %d expected", index,
                     distinct, ST_FILES_MAX);
    if (e.code) {
        free(names);
        return e;
    }
    *out = names;
    *count = (int)distinct;
    return err_none();
}

/* Every tensor that the index names is in the shard that it names. Tensors that it does not name
 * stay in the set: the shards' own headers are the truth about them. */
static err check_against_index(const st_set *s, const char *index, json_t *weight_map) {
    const char *key;
    json_t *value;
    json_object_foreach(weight_map, key, value) {
        const char *shard = json_string_value(value);
        const st_tensor *t = st_find(s, key);
        if (!t)
            return err_make(ERR_CORRUPT, "%s: weight_map: tensor %s: not in %s", index,
                            show(key).text, show(shard).text);
        const char *slash = strrchr(s->files[t->file].path, '/');
        if (strcmp(slash + 1, shard) != 0)
            return err_make(ERR_CORRUPT, "%s: weight_map: tensor %s: expected in %s, found in %s",
                            index, show(key).text, show(shard).text, slash + 1);
    }
    return err_none();
}

static err load_shards(st_set *s, const char *dir, const char *index, const char **names,
                       json_t *weight_map) {
    for (int i = 0; i < s->n_files; i++) {
        s->files[i].path = join(dir, names[i]);
        if (!s->files[i].path) return err_make(ERR_NOMEM, "no memory for a path");
        if (access(s->files[i].path, F_OK) != 0)
            return err_make(ERR_NOT_FOUND,
                            "%s: missing, but %s names it: the download is not complete",
                            s->files[i].path, INDEX_NAME);
    }
    TRY(load_headers(s));
    return check_against_index(s, index, weight_map);
}

static err open_sharded(const char *dir, const char *index, const st_io *io, st_set **out) {
    *out = NULL;
    json_t *root;
    TRY(json_read_file(index, INDEX_MAX, &root));
    json_t *weight_map = json_object_get(root, "weight_map");
    const char **names = NULL;
    int count = 0;
    st_set *s = NULL;
    err e = shard_names(index, weight_map, &names, &count);
    if (!e.code) e = set_new(io, count, &s);
    if (!e.code) e = finish(s, load_shards(s, dir, index, names, weight_map), out);
    free(names);
    json_decref(root);
    return trimmed(e);
}

err st_open_with(const char *dir, const st_io *io, st_set **out) {
    *out = NULL;
    struct stat st;
    if (stat(dir, &st) != 0) return err_system(errno, "%s", dir);
    if (!S_ISDIR(st.st_mode))
        return err_make(ERR_ARG,
                        "%s: not a directory: a model is a directory with config.json and "
                        "safetensors files",
                        dir);
    char *index = join(dir, INDEX_NAME);
    char *single = join(dir, SINGLE_NAME);
    err e;
    if (!index || !single) {
        e = err_make(ERR_NOMEM, "no memory for a path");
    } else if (access(index, F_OK) == 0) {
        e = open_sharded(dir, index, io, out);
    } else if (access(single, F_OK) == 0) {
        e = open_single(single, io, out);
        single = NULL; /* belongs to the set, or is freed */
    } else {
        e = err_make(ERR_NOT_FOUND, "%s: neither %s nor %s is there: not a complete model", dir,
                     SINGLE_NAME, INDEX_NAME);
    }
    free(index);
    free(single);
    return e;
}

err st_open(const char *dir, st_set **out) { return st_open_with(dir, NULL, out); }

/* ---- looking ---- */

int st_count(const st_set *s) { return s->n; }
const st_tensor *st_at(const st_set *s, int i) { return &s->tensors[i]; }
int st_files(const st_set *s) { return s->n_files; }
const char *st_path(const st_set *s, int file) { return s->files[file].path; }
const char *st_format(const st_set *s) { return s->format; }

const st_tensor *st_find(const st_set *s, const char *name) {
    st_tensor key = {.name = name};
    return s->n ? bsearch(&key, s->tensors, (size_t)s->n, sizeof *s->tensors, by_name) : NULL;
}
