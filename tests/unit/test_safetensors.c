/* test_safetensors.c: the reader against files that this test writes itself (so it knows what is in
 * them), against every kind of damage, against reads that fail, and on real checkpoints. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "format/safetensors.h"
#include "scratch.h"

/* Writes [length][json][data_bytes of 0, 1, 2, ...]. */
static void write_st(const char *path, const char *json, size_t data_bytes) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    uint64_t n = strlen(json);
    uint8_t prefix[8];
    for (int i = 0; i < 8; i++) prefix[i] = (uint8_t)(n >> (8 * i));
    fwrite(prefix, 1, 8, f);
    fwrite(json, 1, n, f);
    for (size_t i = 0; i < data_bytes; i++) fputc((int)(i & 0xff), f);
    fclose(f);
}

static void open_bad(const char *json, size_t data_bytes, err_code code, const char *needle) {
    char path[SCRATCH_PATH];
    scratch_path(path, "bad.safetensors");
    write_st(path, json, data_bytes);
    st_set *s = (st_set *)1;
    err e = st_open_file(path, &s);
    assert_null(s);
    assert_err(e, code, "bad.safetensors");
    assert_err(e, code, needle);
}

/* ---- good files ---- */

static void test_empty_and_tiny(void **state) {
    (void)state;
    char path[SCRATCH_PATH];
    scratch_path(path, "tiny.safetensors");
    st_set *s;
    write_st(path, "{}", 0);
    assert_ok(st_open_file(path, &s));
    assert_int_equal(st_count(s), 0);
    assert_null(st_find(s, "x"));
    assert_string_equal(st_format(s), "");
    st_close(s);

    write_st(path,
             "{\"__metadata__\":{\"format\":\"mlx\"},"
             "\"scalar\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
             "\"none\":{\"dtype\":\"BF16\",\"shape\":[3,0,9],\"data_offsets\":[4,4]},"
             "\"row\":{\"dtype\":\"U8\",\"shape\":[1,3],\"data_offsets\":[4,7]}}   ",
             7);
    assert_ok(st_open_file(path, &s));
    assert_int_equal(st_count(s), 3);
    assert_string_equal(st_format(s), "mlx");
    assert_string_equal(st_at(s, 0)->name, "none");
    const st_tensor *t = st_find(s, "scalar");
    assert_int_equal(t->n_dims, 0);
    assert_int_equal(t->bytes, 4);
    uint8_t bytes[4];
    assert_ok(st_read(s, st_find(s, "row"), bytes));
    assert_memory_equal(bytes, ((uint8_t[]){4, 5, 6}), 3);
    assert_ok(st_read(s, st_find(s, "none"), NULL));
    assert_ok(st_read_part(s, t, 1, 2, bytes));
    assert_memory_equal(bytes, ((uint8_t[]){1, 2}), 2);
    assert_ok(st_read_part(s, t, 4, 0, bytes));
    assert_err(st_read_part(s, t, 3, 2, bytes), ERR_RANGE, "scalar");
    assert_err(st_read_part(s, t, -1, 1, bytes), ERR_RANGE, "scalar");
    assert_err(st_read_part(s, t, 5, 0, bytes), ERR_RANGE, "scalar");
    assert_err(st_read_part(s, t, 1, SIZE_MAX, bytes), ERR_RANGE, "scalar");
    st_close(s);
    st_close(NULL);
}

typedef struct made {
    char name[24];
    st_dtype dtype;
    int n_dims;
    int64_t shape[ST_DIMS_MAX];
    int64_t begin, bytes;
} made;

/* Random tensors in random header order, written as JSON by this test. */
static size_t make_random(rng *r, made *list, int n, char *json, size_t room) {
    int64_t at = 0;
    size_t used = (size_t)snprintf(json, room, "{");
    for (int i = 0; i < n; i++) {
        made *m = &list[i];
        snprintf(m->name, sizeof m->name, "t%llu.%d", (unsigned long long)(rng_next(r) % 1000), i);
        m->dtype = (st_dtype)(rng_next(r) % ST_DTYPES);
        m->n_dims = (int)(rng_next(r) % (ST_DIMS_MAX + 1));
        m->bytes = (int64_t)st_dtype_bytes(m->dtype);
        for (int d = 0; d < m->n_dims; d++) {
            m->shape[d] = (int64_t)(rng_next(r) % 4) + (d > 1);
            m->bytes *= m->shape[d];
        }
        m->begin = at;
        at += m->bytes;
    }
    for (int k = 0; k < n; k++) {
        const made *m = &list[(k * 7 + 3) % n]; /* 7 does not divide n: every one once */
        used += (size_t)snprintf(json + used, room - used, "%s\"%s\":{\"shape\":[", k ? "," : "",
                                 m->name);
        for (int d = 0; d < m->n_dims; d++)
            used += (size_t)snprintf(json + used, room - used, "%s%lld", d ? "," : "",
                                     (long long)m->shape[d]);
        used += (size_t)snprintf(
            json + used, room - used, "],\"data_offsets\":[%lld,%lld],\"dtype\":\"%s\"}",
            (long long)m->begin, (long long)(m->begin + m->bytes), st_dtype_name(m->dtype));
    }
    snprintf(json + used, room - used, "}");
    return (size_t)at;
}

static void test_random_files(void **state) {
    (void)state;
    enum { N = 200 };
    static made list[N];
    static char json[N * 200];
    char path[SCRATCH_PATH];
    scratch_path(path, "random.safetensors");
    rng r;
    rng_seed(&r, 7);
    for (int round = 0; round < 20; round++) {
        size_t data = make_random(&r, list, N, json, sizeof json);
        write_st(path, json, data);
        st_set *s;
        assert_ok(st_open_file(path, &s));
        assert_int_equal(st_count(s), N);
        uint8_t *bytes = malloc(data + 1);
        for (int i = 0; i < N; i++) {
            const st_tensor *t = st_find(s, list[i].name);
            assert_non_null(t);
            assert_int_equal(t->dtype, list[i].dtype);
            assert_int_equal(t->n_dims, list[i].n_dims);
            assert_memory_equal(t->shape, list[i].shape, (size_t)t->n_dims * sizeof t->shape[0]);
            assert_int_equal(t->bytes, list[i].bytes);
            assert_int_equal(t->offset, 8 + (int64_t)strlen(json) + list[i].begin);
            assert_ok(st_read(s, t, bytes));
            for (int64_t b = 0; b < t->bytes; b++)
                assert_int_equal(bytes[b], (list[i].begin + b) & 0xff);
            if (i) assert_true(strcmp(st_at(s, i - 1)->name, st_at(s, i)->name) < 0);
        }
        free(bytes);
        st_close(s);
    }
}

/* ---- damage ---- */

#define ONE(name, body) "{\"" name "\":{" body "}}"

static const struct {
    const char *json;
    size_t data;
    err_code code;
    const char *needle;
} bad_fields[] = {
    {"[]", 0, ERR_CORRUPT, "expected an object, found a list"},
    {"", 0, ERR_CORRUPT, "not valid JSON"},
    {"{\"a\":", 0, ERR_CORRUPT, "not valid JSON"},
    {"{} x", 0, ERR_CORRUPT, "not valid JSON"},
    {"{\"a\":3}", 0, ERR_CORRUPT, "tensor a: expected an object"},
    {"{\"__metadata__\":3}", 0, ERR_CORRUPT, "__metadata__"},
    {"{\"__metadata__\":{\"format\":3}}", 0, ERR_CORRUPT, "format"},
    {ONE("a", "\"shape\":[1],\"data_offsets\":[0,1]"), 1, ERR_CORRUPT, "tensor a: dtype"},
    {ONE("a", "\"dtype\":\"F4\",\"shape\":[1],\"data_offsets\":[0,1]"), 1, ERR_UNSUPPORTED,
     "tensor a: dtype: F4"},
    {ONE("a", "\"dtype\":\"U8\",\"data_offsets\":[0,1]"), 1, ERR_CORRUPT, "tensor a: shape"},
    {ONE("a", "\"dtype\":\"U8\",\"shape\":[-1],\"data_offsets\":[0,1]"), 1, ERR_CORRUPT,
     "dimension 0 is -1"},
    {ONE("a", "\"dtype\":\"U8\",\"shape\":[1.0],\"data_offsets\":[0,1]"), 1, ERR_CORRUPT,
     "dimension 0: expected a whole number"},
    {ONE("a", "\"dtype\":\"U8\",\"shape\":[\"1\"],\"data_offsets\":[0,1]"), 1, ERR_CORRUPT,
     "found a string"},
    {ONE("a", "\"dtype\":\"U8\",\"shape\":[1,1,1,1,1,1,1,1,1],\"data_offsets\":[0,1]"), 1,
     ERR_UNSUPPORTED, "9 dimensions"},
    {ONE("a", "\"dtype\":\"F32\",\"shape\":[4294967296,4294967296],\"data_offsets\":[0,0]"), 0,
     ERR_CORRUPT, "does not fit"},
    {ONE("a", "\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]"), 0,
     ERR_CORRUPT, "does not fit"},
    {ONE("a", "\"dtype\":\"U8\",\"shape\":[99999999999999999999],\"data_offsets\":[0,0]"), 0,
     ERR_CORRUPT, "too big"},
    {ONE("a", "\"dtype\":\"U8\",\"shape\":[1]"), 1, ERR_CORRUPT, "data_offsets"},
    {ONE("a", "\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0]"), 1, ERR_CORRUPT,
     "data_offsets"},
    {ONE("a", "\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1,2]"), 1, ERR_CORRUPT,
     "data_offsets"},
    {ONE("a", "\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1.5]"), 1, ERR_CORRUPT,
     "found a number"},
    {ONE("a", "\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[-1,0]"), 1, ERR_CORRUPT,
     "-1 is not an offset"},
    {ONE("a", "\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[9223372036854775807,1]"), 1,
     ERR_CORRUPT, "is not an offset"},
    {ONE("a", "\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[2,1]"), 2, ERR_CORRUPT,
     "begins at 2, ends at 1"},
    {ONE("a", "\"dtype\":\"U8\",\"shape\":[8],\"data_offsets\":[0,8]"), 3, ERR_CORRUPT,
     "5 bytes past the end"},
    {ONE("a", "\"dtype\":\"BF16\",\"shape\":[3],\"data_offsets\":[0,8]"), 8, ERR_CORRUPT,
     "8 bytes, but its shape in BF16 takes 6"},
    {ONE("a", "\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]"), 3, ERR_CORRUPT,
     "1 bytes before it"},
    {ONE("a", "\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]"), 5, ERR_CORRUPT,
     "3 bytes after the last tensor"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[1,3]}}",
     3, ERR_CORRUPT, "tensor b: data_offsets: overlaps tensor a by 1"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]},"
     "\"b\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
     2, ERR_CORRUPT, "overlaps"},
    {"{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
     "\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}",
     2, ERR_CORRUPT, "duplicate"},
    {"{\"a\":{\"dtype\":\"U8\",\"dtype\":\"I8\",\"shape\":[1],\"data_offsets\":[0,1]}}", 1,
     ERR_CORRUPT, "duplicate"},
    {"{\"\\u0000\":{}}", 0, ERR_CORRUPT, "not valid JSON"},
    {ONE("\\u001b[2Jx\\u009by", "\"dtype\":\"U9\",\"shape\":[],\"data_offsets\":[0,1]"), 1,
     ERR_UNSUPPORTED, "tensor ?[2Jx??y: dtype"},
};

static void test_bad_fields(void **state) {
    (void)state;
    for (size_t i = 0; i < sizeof bad_fields / sizeof bad_fields[0]; i++)
        open_bad(bad_fields[i].json, bad_fields[i].data, bad_fields[i].code, bad_fields[i].needle);
}

static void test_long_name_is_cut_in_messages(void **state) {
    (void)state;
    char json[3000];
    memset(json, 'n', sizeof json);
    memcpy(json, "{\"", 2);
    strcpy(json + 2900, "\":3}");
    open_bad(json, 0, ERR_CORRUPT, "nnn...: expected an object");
}

static void write_bytes(const char *path, const void *bytes, size_t n) {
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    fwrite(bytes, 1, n, f);
    fclose(f);
}

/* A good file cut at every length: never accepted, never a crash. */
static void test_every_truncation(void **state) {
    (void)state;
    char path[SCRATCH_PATH];
    scratch_path(path, "cut.safetensors");
    write_st(path, ONE("a", "\"dtype\":\"U8\",\"shape\":[9],\"data_offsets\":[0,9]"), 9);
    uint8_t bytes[256];
    FILE *f = fopen(path, "rb");
    size_t n = fread(bytes, 1, sizeof bytes, f);
    fclose(f);
    for (size_t cut = 0; cut < n; cut++) {
        write_bytes(path, bytes, cut);
        st_set *s;
        assert_err(st_open_file(path, &s), ERR_CORRUPT, "cut.safetensors");
        assert_null(s);
        if (cut == n - 1) assert_err(st_open_file(path, &s), ERR_CORRUPT, "truncated");
        err e = st_parse_header(path, bytes, cut, (int64_t)n, &s);
        if (cut < n - 9) assert_int_equal(e.code, ERR_CORRUPT);
        st_close(s);
    }
}

static void test_header_limits(void **state) {
    (void)state;
    char path[SCRATCH_PATH];
    scratch_path(path, "huge.safetensors");
    static const uint64_t lengths[] = {ST_HEADER_MAX + 1ull, 1ull << 40, UINT64_MAX,
                                       (1ull << 63) - 8};
    for (size_t i = 0; i < 4; i++) {
        uint8_t prefix[8];
        for (int k = 0; k < 8; k++) prefix[k] = (uint8_t)(lengths[i] >> (8 * k));
        write_bytes(path, prefix, 8);
        assert_int_equal(truncate(path, ST_HEADER_MAX + 100), 0); /* sparse: takes no disk */
        st_set *s;
        assert_err(st_open_file(path, &s), ERR_CORRUPT, "header length");
    }
    unlink(path);
}

/* ---- directories ---- */

static void write_text(const char *name, const char *text) {
    char path[SCRATCH_PATH];
    scratch_path(path, name);
    write_bytes(path, text, strlen(text));
}

static void write_shard(const char *name, const char *tensor) {
    char path[SCRATCH_PATH], json[256];
    scratch_path(path, name);
    snprintf(json, sizeof json, "{\"%s\":{\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]}}",
             tensor);
    write_st(path, json, 2);
}

static void open_bad_index(const char *weight_map, err_code code, const char *needle) {
    char text[512];
    snprintf(text, sizeof text, "{\"weight_map\":%s}", weight_map);
    write_text("model.safetensors.index.json", text);
    st_set *s;
    assert_err(st_open(scratch_dir(), &s), code, needle);
    assert_null(s);
}

static void test_sharded(void **state) {
    (void)state;
    write_shard("one.safetensors", "a");
    write_shard("two.safetensors", "b");
    write_text("model.safetensors.index.json",
               "{\"metadata\":{\"total_size\":4},\"weight_map\":{\"b\":\"two.safetensors\","
               "\"a\":\"one.safetensors\"}}");
    st_set *s;
    assert_ok(st_open(scratch_dir(), &s));
    assert_int_equal(st_files(s), 2);
    assert_int_equal(st_count(s), 2);
    assert_non_null(strstr(st_path(s, st_find(s, "b")->file), "/two.safetensors"));
    st_close(s);

    open_bad_index("{\"a\":\"one.safetensors\",\"b\":\"three.safetensors\"}", ERR_NOT_FOUND,
                   "three.safetensors: missing");
    open_bad_index("{\"a\":\"one.safetensors\",\"c\":\"two.safetensors\"}", ERR_CORRUPT,
                   "tensor c: not in two.safetensors");
    open_bad_index("{\"a\":\"two.safetensors\",\"b\":\"one.safetensors\"}", ERR_CORRUPT,
                   "expected in ");
    open_bad_index("{}", ERR_CORRUPT, "weight_map");
    open_bad_index("3", ERR_CORRUPT, "weight_map");
    open_bad_index("null", ERR_CORRUPT, "weight_map");
    open_bad_index("{\"a\":3}", ERR_CORRUPT, "tensor a: expected a file name");
    open_bad_index("{\"a\":\"one.safetensors\",\"a\":\"one.safetensors\"}", ERR_CORRUPT,
                   "duplicate");
    static const char *const tricks[] = {
        "../one.safetensors", "/etc/passwd", "x/one.safetensors", "..", "", "a\\\\b", "a..b"};
    for (size_t i = 0; i < sizeof tricks / sizeof tricks[0]; i++) {
        char map[128];
        snprintf(map, sizeof map, "{\"a\":\"%s\"}", tricks[i]);
        open_bad_index(map, ERR_CORRUPT, "is not the name of a file beside");
    }
    write_shard("two.safetensors", "a");
    open_bad_index("{\"a\":\"one.safetensors\",\"b\":\"two.safetensors\"}", ERR_CORRUPT,
                   "tensor a: also in");
    open_bad_index("{\"a\":\".\"}", ERR_IO, "not a regular file");
    write_text("model.safetensors.index.json", "[3");
    assert_err(st_open(scratch_dir(), &s), ERR_CORRUPT, "index.json");
    write_text("model.safetensors.index.json", "[3]");
    assert_err(st_open(scratch_dir(), &s), ERR_CORRUPT, "weight_map");
}

static void test_not_a_model(void **state) {
    (void)state;
    char path[SCRATCH_PATH];
    st_set *s;
    assert_err(st_open(scratch_dir(), &s), ERR_NOT_FOUND, "neither model.safetensors nor");
    scratch_path(path, "absent");
    assert_err(st_open(path, &s), ERR_NOT_FOUND, "absent");
    assert_err(st_open_file(path, &s), ERR_NOT_FOUND, "absent");
    write_text("file", "x");
    scratch_path(path, "file");
    assert_err(st_open(path, &s), ERR_ARG, "not a directory");
    assert_err(st_open_file(scratch_dir(), &s), ERR_IO, "not a regular file");
}

/* The Hugging Face cache is symbolic links into a folder of blobs. */
static void test_symlink(void **state) {
    (void)state;
    char blob[SCRATCH_PATH], link[SCRATCH_PATH];
    write_shard("0123abcd", "a");
    scratch_path(blob, "0123abcd");
    scratch_path(link, "model.safetensors");
    assert_int_equal(symlink(blob, link), 0);
    st_set *s;
    assert_ok(st_open(scratch_dir(), &s));
    assert_int_equal(st_count(s), 1);
    st_close(s);
}

/* ---- reads that misbehave ---- */

typedef struct faulty {
    size_t at_most; /* bytes a call gives at most; 0: no limit */
    int interrupts; /* every n-th call is EINTR; 0: none */
    int64_t
        broken_at; /* from this offset on: errno `code`, or the end of the file when code is 0 */
    int code;
    int calls;
} faulty;

static int64_t faulty_read(void *ctx, int fd, void *dst, size_t length, int64_t offset) {
    faulty *f = ctx;
    f->calls++;
    if (f->interrupts && f->calls % f->interrupts == 0) {
        errno = EINTR;
        return -1;
    }
    if (f->broken_at >= 0 && offset >= f->broken_at) {
        errno = f->code;
        return f->code ? -1 : 0;
    }
    if (f->at_most) length = size_min(length, f->at_most);
    if (f->broken_at >= 0) length = size_min(length, (size_t)(f->broken_at - offset));
    return pread(fd, dst, length, offset);
}

static void test_short_and_failed_reads(void **state) {
    (void)state;
    char path[SCRATCH_PATH];
    scratch_path(path, "model.safetensors");
    const char *json = ONE("a", "\"dtype\":\"U8\",\"shape\":[100],\"data_offsets\":[0,100]");
    write_st(path, json, 100);
    int64_t data = 8 + (int64_t)strlen(json);
    uint8_t bytes[100];
    st_set *s;
    for (size_t at_most = 1; at_most < 9; at_most++) {
        faulty f = {.at_most = at_most, .interrupts = 3, .broken_at = -1};
        st_io io = {faulty_read, &f};
        assert_ok(st_open_with(scratch_dir(), &io, &s));
        memset(bytes, 0xee, sizeof bytes);
        assert_ok(st_read(s, st_at(s, 0), bytes));
        for (int i = 0; i < 100; i++) assert_int_equal(bytes[i], i);
        assert_true(f.calls > 100 / (int)at_most);
        st_close(s);
    }
    static const int codes[] = {0, EIO};
    for (int i = 0; i < 2; i++) {
        for (int64_t at = 0; at < data + 100; at++) {
            faulty f = {.broken_at = at, .code = codes[i]};
            st_io io = {faulty_read, &f};
            err e = st_open_with(scratch_dir(), &io, &s);
            if (at < data) {
                assert_err(e, ERR_IO, "model.safetensors");
                assert_null(s);
                continue;
            }
            assert_ok(e);
            char needle[64];
            snprintf(needle, sizeof needle, "read at byte %lld", (long long)at);
            e = st_read(s, st_at(s, 0), bytes);
            assert_err(e, ERR_IO, needle);
            assert_err(e, ERR_IO, "tensor: a");
            assert_err(e, ERR_IO, codes[i] ? "Input/output error" : "the file ended");
            st_close(s);
        }
    }
}

/* The file shrinks after it was opened. */
static void test_file_shrinks(void **state) {
    (void)state;
    char path[SCRATCH_PATH];
    write_shard("model.safetensors", "a");
    scratch_path(path, "model.safetensors");
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    st_set *s;
    assert_ok(st_open(scratch_dir(), &s));
    assert_int_equal(truncate(path, st.st_size - 1), 0);
    uint8_t bytes[2];
    assert_err(st_read(s, st_at(s, 0), bytes), ERR_IO, "after 1 of 2 bytes");
    st_close(s);
}

static void test_header_in_memory(void **state) {
    (void)state;
    uint8_t bytes[128] = {0};
    const char *json = ONE("a", "\"dtype\":\"U8\",\"shape\":[2],\"data_offsets\":[0,2]");
    bytes[0] = (uint8_t)strlen(json);
    memcpy(bytes + 8, json, strlen(json));
    int64_t size = 8 + (int64_t)strlen(json) + 2;
    st_set *s;
    assert_ok(st_parse_header("mem", bytes, 8 + strlen(json), size, &s));
    uint8_t two[2];
    assert_err(st_read(s, st_at(s, 0), two), ERR_ARG, "no file");
    st_close(s);
    assert_err(st_parse_header("mem", bytes, 8 + strlen(json), size - 1, &s), ERR_CORRUPT, "mem");
    assert_err(st_parse_header("mem", bytes, 7, size, &s), ERR_CORRUPT, "mem");
    assert_err(st_parse_header("mem", bytes, 8 + strlen(json), INT64_MAX, &s), ERR_CORRUPT, "mem");
}

/* ---- real checkpoints ---- */

static const char *const goldens[] = {
    "qwen3_5_moe", "qwen3_5_moe_hub", "qwen3_5_moe_mlx4", "qwen3_5_moe_mlx_mixed",
    "qwen3_next",  "qwen3_next_mlx8", "qwen3_moe",        "qwen3_moe_mlx4"};

/* tensors.txt, where a golden has one: "('name', [shape], 'dtype')" a line, written by the
 * reference. */
static int compare_list(const st_set *s, const char *golden) {
    char path[SCRATCH_PATH], line[1024], name[512];
    golden_path(path, golden, "tensors.txt");
    FILE *f = fopen(path, "r");
    if (!f) return 0;
    int n = 0;
    while (fgets(line, sizeof line, f)) {
        if (sscanf(line, "('%511[^']", name) != 1) continue;
        const st_tensor *t = st_find(s, name);
        assert_non_null(t);
        const char *at = strchr(line, '[');
        for (int d = 0; at && d < t->n_dims; d++) {
            at += strcspn(at, "0123456789");
            assert_int_equal(t->shape[d], strtoll(at, (char **)&at, 10));
        }
        n++;
    }
    fclose(f);
    return n;
}

static void read_everything(const st_set *s) {
    for (int i = 0; i < st_count(s); i++) {
        const st_tensor *t = st_at(s, i);
        uint8_t *bytes = malloc((size_t)t->bytes + 1);
        assert_non_null(bytes);
        assert_ok(st_read(s, t, bytes));
        free(bytes);
    }
}

static void test_goldens(void **state) {
    (void)state;
    if (!golden_root()) skip();
    int listed = 0;
    for (size_t i = 0; i < sizeof goldens / sizeof goldens[0]; i++) {
        char dir[SCRATCH_PATH], path[SCRATCH_PATH];
        golden_path(dir, goldens[i], NULL);
        st_set *s;
        assert_ok(st_open(dir, &s));
        assert_true(st_count(s) > 50);
        assert_string_equal(st_format(s), strstr(goldens[i], "mlx") ? "mlx" : "pt");
        read_everything(s);
        listed += compare_list(s, goldens[i]);
        st_close(s);
        golden_path(path, goldens[i], "golden.safetensors");
        assert_ok(st_open_file(path, &s));
        assert_int_equal(st_find(s, "p2.input_ids")->shape[0], 150);
        st_close(s);
    }
    assert_true(listed > 500);
}

static void test_ember(void **state) {
    (void)state;
    st_set *s;
    if (access("assets/ember/config.json", F_OK) != 0) skip();
    assert_ok(st_open("assets/ember", &s));
    assert_int_equal(st_count(s), 403);
    read_everything(s);
    st_close(s);
}

int main(int argc, char **argv) {
    (void)argc;
    golden_from(argv[0]);
#define T(f) cmocka_unit_test_setup_teardown(f, scratch_open, scratch_close)
    const struct CMUnitTest tests[] = {
        T(test_empty_and_tiny),   T(test_random_files),
        T(test_bad_fields),       T(test_long_name_is_cut_in_messages),
        T(test_every_truncation), T(test_header_limits),
        T(test_sharded),          T(test_not_a_model),
        T(test_symlink),          T(test_short_and_failed_reads),
        T(test_file_shrinks),     T(test_header_in_memory),
        T(test_goldens),          T(test_ember),
    };
    return cmocka_run_group_tests_name("safetensors", tests, NULL, NULL);
}
