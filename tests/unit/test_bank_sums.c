/* test_bank_sums.c: files against the checksums of what lies in them: sums that go over the borders
 * of batches and of files, every kind of damage, lists that cannot be true. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

#include "base/sum.h"
#include "format/bank_sums.h"
#include "scratch.h"

#define FILES   2
#define BYTES   ((size_t)37 << 20) /* of a file: two batches and a part of one */
#define THINGS  6
#define RECORDS 3

typedef struct bed {
    uint8_t *bytes; /* both files have the same */
    char path[FILES][SCRATCH_PATH];
    bank_sum list[FILES][THINGS];
    uint64_t told[FILES];
} bed;

/* Offset and length in bytes: within a batch, over one border, over two, the last to the end. */
static const int64_t places[THINGS][2] = {
    {4096, 700001},  {704512, 15 << 20},   {(15 << 20) + 704512, 3},
    {17 << 20, 100}, {18 << 20, 17 << 20}, {(36 << 20) + 64, (1 << 20) - 64},
};

static err list(void *ctx, int file, bank_sum **out, int *n) {
    bed *b = ctx;
    *out = malloc(sizeof b->list[file]);
    assert_non_null(*out);
    for (int i = 0; i < THINGS; i++) (*out)[i] = b->list[file][THINGS - 1 - i]; /* any order */
    *n = THINGS;
    return err_none();
}

static void tell(void *ctx, int file, uint64_t more) { ((bed *)ctx)->told[file] += more; }

static err check(bed *b) {
    const char *const paths[FILES] = {b->path[0], b->path[1]};
    bank_sums s = {.paths = paths, .n_files = FILES, .list = list, .tell = tell, .ctx = b};
    memset(b->told, 0, sizeof b->told);
    return bank_sums_check(&s);
}

static void put(const bed *b, int file, int64_t at, size_t length) {
    FILE *f = fopen(b->path[file], length == BYTES ? "wb" : "r+b");
    assert_non_null(f);
    assert_int_equal(fseek(f, (long)at, SEEK_SET), 0);
    assert_int_equal(fwrite(b->bytes + at, 1, length, f), length);
    assert_int_equal(fclose(f), 0);
}

static void open_bed(bed *b) {
    memset(b, 0, sizeof *b);
    b->bytes = malloc(BYTES);
    assert_non_null(b->bytes);
    for (size_t i = 0; i < BYTES; i++) b->bytes[i] = (uint8_t)((i * 0x9e3779b97f4a7c15u) >> 41);
    for (int f = 0; f < FILES; f++) {
        scratch_path(b->path[f], f ? "second" : "first");
        put(b, f, 0, BYTES);
        for (int i = 0; i < THINGS; i++)
            b->list[f][i] =
                (bank_sum){.offset = places[i][0],
                           .bytes = places[i][1],
                           .hash = XXH3_64bits(b->bytes + places[i][0], (size_t)places[i][1]),
                           .name = i < RECORDS ? NULL : "a.tensor",
                           .record = i};
    }
}

/* One byte of a file is another one for the length of a check, which says so with these words. */
static void damage(bed *b, int file, int64_t at, const char *words) {
    b->bytes[at] ^= 1;
    put(b, file, at, 1);
    if (words)
        assert_err(check(b), ERR_CORRUPT, words);
    else
        assert_ok(check(b));
    b->bytes[at] ^= 1;
    put(b, file, at, 1);
}

static void test_damage(void **state) {
    (void)state;
    bed b;
    open_bed(&b);
    assert_ok(check(&b));
    assert_int_equal(b.told[0], BYTES);
    assert_int_equal(b.told[1], BYTES);
    damage(&b, 0, 4096, "first: expert 0: its bytes");
    damage(&b, 0, 4096 + 700001, NULL); /* between two of them */
    damage(&b, 1, (15 << 20) + 704511, "second: expert 1: its bytes");
    damage(&b, 1, 17 << 20, "second: tensor a.tensor: its bytes");
    damage(&b, 0, 33 << 20, "first: tensor a.tensor: its bytes"); /* third batch of its sum */
    damage(&b, 1, (int64_t)BYTES - 1, "second: tensor a.tensor: its bytes");
    free(b.bytes);
}

static void test_lists(void **state) {
    (void)state;
    bed b;
    open_bed(&b);
    b.list[1][5].bytes++;
    assert_err(check(&b), ERR_CORRUPT, "bytes are there");
    b.list[1][5].bytes = INT64_MAX;
    assert_err(check(&b), ERR_CORRUPT, "overlaps");
    b.list[1][5].bytes = -1;
    assert_err(check(&b), ERR_CORRUPT, "overlaps");
    b.list[1][5].bytes = places[5][1];
    b.list[0][2].offset--;
    assert_err(check(&b), ERR_CORRUPT, "overlaps");
    b.list[0][2].offset++;
    b.list[0][3].bytes = 0;
    assert_err(check(&b), ERR_CORRUPT, "tensor a.tensor");
    b.list[0][3].hash = XXH3_64bits("", 0);
    assert_ok(check(&b));
    free(b.bytes);
}

/* The same values as the library's. */
static void test_values(void **state) {
    (void)state;
    static uint8_t bytes[20000];
    for (int i = 0; i < 20000; i++) bytes[i] = (uint8_t)(i * 37 + i / 256);
    for (size_t n = 0; n < 1100; n++)
        assert_int_equal(sum_bytes(bytes + n % 7, n), XXH3_64bits(bytes + n % 7, n));
    assert_int_equal(sum_bytes(bytes + 1, 19999), XXH3_64bits(bytes + 1, 19999));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_damage, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_lists, scratch_open, scratch_close),
        cmocka_unit_test(test_values),
    };
    return cmocka_run_group_tests_name("bank_sums", tests, NULL, NULL);
}
