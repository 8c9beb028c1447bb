/* test_io.c: the engines of src/io by themselves: random reads against known bytes, many at once,
 * mirrors, refusals; the measurement; and the choice that is measured once and remembered. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/json.h"
#include "base/os.h"
#include "io/io_bench.h"
#include "io/io_fault.h"
#include "scratch.h"
#include "store_files.h"

static const io_backend engines[] = {IO_BUFFERED, IO_PREAD, IO_URING};
#define ENGINES 3
#define BLOCK   8192

typedef struct bed {
    char names[4][SCRATCH_PATH];
    const char *paths[2], *mirrors[2];
    uint8_t *memory; /* 32 blocks */
    io *io;
} bed;

/* Two files, and their copies in a second directory; 100,000 and 5,000 bytes. */
static void bed_files(bed *b) {
    memset(b, 0, sizeof *b);
    char dir[SCRATCH_PATH];
    scratch_path(dir, "second");
    mkdir(dir, 0700);
    for (int i = 0; i < 4; i++) {
        const char *names[] = {"a", "b", "second/a", "second/b"};
        scratch_path(b->names[i], names[i]);
        write_file(b->names[i], i % 2, i % 2 ? 5000 : 100000);
    }
    b->paths[0] = b->names[0];
    b->paths[1] = b->names[1];
    b->mirrors[0] = b->names[2];
    b->mirrors[1] = b->names[3];
    assert_int_equal(posix_memalign((void **)&b->memory, 4096, 32 * BLOCK), 0);
}

/* False where this machine lacks the engine. */
static bool bed_open(bed *b, io_backend backend, int depth, io_fault *fault, bool mirrored) {
    io_options o = {.backend = backend,
                    .paths = b->paths,
                    .mirrors = mirrored ? b->mirrors : NULL,
                    .n_files = 2,
                    .threads = 3,
                    .depth = depth,
                    .memory = b->memory,
                    .memory_bytes = 32 * BLOCK,
                    .memory_unit = 3 * BLOCK,
                    .fault = fault};
    err e = io_open(&o, &b->io);
    if (e.code == ERR_UNSUPPORTED && backend == IO_URING) return false;
    assert_ok(e);
    assert_int_equal(io_engine(b->io), backend);
    assert_int_equal(io_file_bytes(b->io, 0), 100000);
    return true;
}

static void bed_close(bed *b) { free(b->memory); }

/* A read of a random piece: whole blocks if direct, with what of them the file has as need. */
static io_read random_read(bed *b, rng *r, int slot) {
    bool direct = io_backend_direct(io_engine(b->io));
    int file = (int)(rng_next(r) % 4 == 0);
    int64_t size = io_file_bytes(b->io, file);
    int64_t offset = (int64_t)(rng_next(r) % (uint64_t)size);
    if (direct) offset -= offset % IO_ALIGN;
    int64_t bytes = 1 + (int64_t)(rng_next(r) % BLOCK);
    if (direct) bytes = (int64_t)round_up((size_t)bytes, IO_ALIGN);
    int64_t need = bytes < size - offset ? bytes : size - offset;
    return (io_read){.dst = b->memory + slot * BLOCK,
                     .offset = offset,
                     .bytes = (uint32_t)bytes,
                     .need = (uint32_t)need,
                     .file = file};
}

static void check_read(const io_read *r) {
    assert_int_equal(r->error, 0);
    for (uint32_t i = 0; i < r->need; i++)
        if (r->dst[i] != file_byte(r->file, r->offset + i))
            fail_msg("file %d offset %d: byte %u is wrong", r->file, (int)r->offset, i);
}

/* n_reads random reads, `depth` at once. */
static void run_reads(bed *b, int depth, int n_reads, uint64_t seed, bool mirrored) {
    io_read reads[32];
    rng r;
    rng_seed(&r, seed);
    int started = 0, ended = 0;
    assert_null(io_next(b->io, true));
    for (; started < depth; started++) {
        reads[started] = random_read(b, &r, started);
        io_start(b->io, &reads[started]);
    }
    assert_int_equal(io_room(b->io), 0);
    io_flush(b->io);
    for (int turn = 0; ended < n_reads; turn++) {
        io_read *done = io_next(b->io, turn % 2);
        if (!done) continue;
        check_read(done);
        ended++;
        assert_int_equal(io_in_flight(b->io), started - ended);
        if (started == n_reads) continue;
        *done = random_read(b, &r, (int)(done - reads));
        if (mirrored) done->drive = (int)(rng_next(&r) % 2);
        io_start(b->io, done);
        started++;
    }
    assert_null(io_next(b->io, true));
}

static void test_reads(void **state) {
    (void)state;
    bed b;
    bed_files(&b);
    for (int e = 0; e < ENGINES; e++) {
        for (int depth = 1; depth <= 32; depth = depth * 2 + depth % 3) {
            if (!bed_open(&b, engines[e], depth, NULL, false)) continue;
            run_reads(&b, depth, 300, (uint64_t)depth, false);
            io_close(b.io);
        }
    }
    bed_close(&b);
}

/* io_close with reads in flight ends them first. */
static void test_close_early(void **state) {
    (void)state;
    bed b;
    bed_files(&b);
    for (int e = 0; e < ENGINES; e++) {
        io_read reads[16];
        rng r;
        rng_seed(&r, 9);
        if (!bed_open(&b, engines[e], 16, NULL, false)) continue;
        for (int i = 0; i < 16; i++) {
            reads[i] = random_read(&b, &r, i);
            io_start(b.io, &reads[i]);
        }
        io_close(b.io);
    }
    bed_close(&b);
}

/* Every second call fails or is short, at random: all reads come through, from either drive. */
static void test_faults(void **state) {
    (void)state;
    bed b;
    bed_files(&b);
    for (int e = 0; e < ENGINES; e++) {
        for (int kind = 0; kind < 4; kind++) {
            io_fault fault = {.n_rules = 1};
            io_fault_rule *rule = &fault.rules[0];
            *rule = (io_fault_rule){.kind = kind < 2 ? IO_FAULT_ERROR : IO_FAULT_SHORT,
                                    .value = (int[]){EINTR, EIO, 4096, 1}[kind],
                                    .file = -1,
                                    .drive = kind == 1 ? 1 : -1,
                                    .last = -1};
            atomic_store(&rule->times, kind == 2 || kind == 1 ? -1 : kind == 3 ? 2 : 100);
            if (!bed_open(&b, engines[e], 8, &fault, true)) continue;
            run_reads(&b, 8, 200, (uint64_t)kind, true);
            assert_true(atomic_load(&fault.struck) > 1);
            io_close(b.io);
        }
    }
    bed_close(&b);
}

/* A ring that stops taking reads while some are on their way: the rest is read without it. */
static void test_ring_refuses(void **state) {
    (void)state;
    bed b;
    bed_files(&b);
    io_fault fault = {0};
    if (!bed_open(&b, IO_URING, 8, &fault, false)) {
        bed_close(&b);
        skip();
    }
    run_reads(&b, 8, 50, 1, false);
    io_read reads[8];
    rng r;
    rng_seed(&r, 3);
    for (int i = 0; i < 8; i++) {
        reads[i] = random_read(&b, &r, i);
        io_start(b.io, &reads[i]);
        if (i == 3) io_flush(b.io);
        if (i == 3) atomic_store(&fault.refuse, true);
    }
    for (int i = 0; i < 8; i++) check_read(io_next(b.io, true));
    run_reads(&b, 8, 50, 2, false);
    io_close(b.io);
    bed_close(&b);
}

static void test_error_text(void **state) {
    (void)state;
    bed b;
    bed_files(&b);
    for (int e = 0; e < ENGINES; e++) {
        io_fault fault = {.n_rules = 1};
        fault.rules[0] =
            (io_fault_rule){.value = EIO, .file = 0, .drive = -1, .first = 8192, .last = 8200};
        atomic_store(&fault.rules[0].times, -1);
        if (!bed_open(&b, engines[e], 4, &fault, false)) continue;
        io_read r = {.dst = b.memory, .offset = 8192, .bytes = 4096, .need = 4096};
        io_start(b.io, &r);
        assert_ptr_equal(io_next(b.io, true), &r);
        assert_err(io_read_error(b.io, &r), ERR_IO,
                   "/a at offset 8192: Input/output error, after 3");
        assert_int_equal(r.tries, IO_TRIES_MAX);
        r = (io_read){.dst = b.memory, .offset = 4096, .bytes = 4096, .need = 905, .file = 1};
        io_start(b.io, &r);
        io_next(b.io, true);
        assert_err(io_read_error(b.io, &r), ERR_CORRUPT, "/b at offset 5000: the file ends 1 byte");
        io_close(b.io);
    }
    bed_close(&b);
}

static void test_refusals(void **state) {
    (void)state;
    bed b;
    bed_files(&b);
    io *o = (io *)1;
    io_options bad = {.paths = b.paths, .n_files = 2};
    assert_err(io_open(&bad, &o), ERR_ARG, "no engine");
    assert_null(o);
    for (int e = 0; e < 2; e++) {
        bad = (io_options){
            .backend = engines[e], .paths = b.paths, .mirrors = b.mirrors, .n_files = 2};
        write_file(b.names[3], 1, 4999);
        assert_err(io_open(&bad, &o), ERR_CORRUPT, "second/b: 4999 bytes, but");
        unlink(b.names[3]);
        assert_err(io_open(&bad, &o), ERR_NOT_FOUND, "second/b");
        assert_null(o);
    }
    io_backend backend = IO_AUTO;
    assert_true(io_backend_parse("uring", &backend));
    assert_int_equal(backend, IO_URING);
    assert_false(io_backend_parse("aio", &backend));
    assert_string_equal(io_backend_name(IO_BUFFERED), "buffered");
    bed_close(&b);
}

static void test_bench(void **state) {
    (void)state;
    bed b;
    bed_files(&b);
    for (int e = 0; e < ENGINES; e++) {
        for (int sequential = 0; sequential < 2; sequential++) {
            io_bench_options o = {.backend = engines[e],
                                  .paths = b.paths,
                                  .n_files = 2,
                                  .block = 4000,
                                  .depth = 4,
                                  .total_bytes = 100 * 4096,
                                  .sequential = sequential};
            io_bench_result r;
            err failed = io_bench(&o, &r);
            if (failed.code == ERR_UNSUPPORTED && engines[e] == IO_URING) continue;
            assert_ok(failed);
            assert_int_equal(r.reads, 100);
            assert_int_equal(r.bytes, 100 * 4096);
            assert_true(r.bytes_per_second > 0 && r.latency_p50 > 0);
            assert_true(r.latency_p50 <= r.latency_p95 && r.latency_p95 <= r.latency_max);
        }
    }
    io_bench_options o = {.backend = IO_BUFFERED, .paths = b.paths, .n_files = 2, .depth = 2};
    io_bench_result r;
    o.block = 1 << 20;
    assert_err(io_bench(&o, &r), ERR_ARG, "smaller than one block");
    o.block = 1u << 30;
    assert_err(io_bench(&o, &r), ERR_ARG, "at once");
    bed_close(&b);
}

/* What is in the state file is believed for this file system and this kernel, and only then. */
static void test_choice(void **state) {
    (void)state;
    bed b;
    bed_files(&b);
    char path[SCRATCH_PATH];
    scratch_path(path, "io.json");
    io_choice c;
    io_choose(b.paths, 2, path, &c); /* small files: nothing is measured */
    assert_false(c.measured);
    assert_int_not_equal(access(path, F_OK), 0);
    io_backend untold = c.backend;
    io_choose(b.paths, 2, NULL, &c);
    assert_int_equal(c.backend, untold);
    const char *bad[] = {"", "[]", "{\"file systems\":3}", "{\"file systems\":{\"x\":{}}}", "{"};
    for (int i = 0; i < 5; i++) {
        FILE *f = fopen(path, "w");
        fputs(bad[i], f);
        fclose(f);
        io_choose(b.paths, 2, path, &c);
        assert_int_equal(c.backend, untold);
        assert_false(c.remembered);
    }
    bed_close(&b);
}

/* A sparse file is enough to measure: the first choice is measured and written, the second is read.
 */
static void test_choice_is_remembered(void **state) {
    (void)state;
    char big[SCRATCH_PATH], path[SCRATCH_PATH];
    scratch_path(big, "big");
    scratch_path(path, "io.json");
    write_file(big, 0, 10);
    assert_int_equal(truncate(big, (off_t)IO_CHOOSE_BYTES), 0);
    const char *paths[] = {big};
    io_choice c, again;
    io_choose(paths, 1, path, &c);
    if (!c.measured) skip(); /* a file system without direct reads */
    assert_false(c.remembered);
    json_t *json;
    assert_ok(json_read_file(path, 1 << 20, &json));
    json_t *entry = json_object_iter_value(json_object_iter(json_object_get(json, "file systems")));
    assert_non_null(entry);
    io_choose(paths, 1, path, &again);
    assert_true(again.remembered);
    assert_int_equal(again.backend, c.backend);
    assert_true(again.pread == c.pread && again.uring == c.uring);
    for (int winner = 0; winner < 2; winner++) { /* what the file says decides */
        json_object_set_new(entry, "uring", json_real(winner ? 1e9 : 1));
        json_object_set_new(entry, "pread", json_real(winner ? 1 : 1e9));
        assert_int_equal(json_dump_file(json, path, 0), 0);
        io_choose(paths, 1, path, &again);
        assert_true(again.remembered);
        if (!winner)
            assert_int_equal(again.backend, IO_PREAD);
        else if (c.uring > 0)
            assert_int_equal(again.backend, IO_URING);
    }
    for (int wins = 0; wins < 2; wins++) { /* and the page cache, where it was measured */
        json_object_set_new(entry, "buffered", json_real(wins ? 2e9 : 1));
        assert_int_equal(json_dump_file(json, path, 0), 0);
        io_choose(paths, 1, path, &again);
        assert_int_equal(again.backend == IO_BUFFERED, wins);
    }
    json_object_set_new(entry, "system", json_string("another kernel"));
    assert_int_equal(json_dump_file(json, path, 0), 0);
    io_choose(paths, 1, path, &again);
    assert_false(again.remembered);
    json_decref(json);
}

/* A file that has just been read is in the page cache, one that was told to leave is not; a file
 * system may not tell. */
static void test_cached_share(void **state) {
    (void)state;
    enum { BYTES = 1 << 20, TRIES = 100 };
    char path[SCRATCH_PATH];
    scratch_path(path, "cached");
    write_file(path, 0, BYTES);
    assert_true(os_cached_share("/nowhere/at/all") < 0);
    if (os_cached_share(path) < 0) {
        print_message("this file system does not tell\n");
        skip();
    }
    static uint8_t bytes[BYTES];
    double share = 0;
    for (int i = 0; i < TRIES && share < 1; i++) { /* others may need the memory */
        FILE *f = fopen(path, "rb");
        assert_non_null(f);
        assert_int_equal(fread(bytes, 1, BYTES, f), BYTES);
        fclose(f);
        share = os_cached_share(path);
    }
    assert_true(share == 1);
    for (int i = 0; i < TRIES && share > 0; i++) { /* it is a wish */
        int fd;
        assert_ok(os_open_read(path, false, &fd));
        fsync(fd);
        os_drop_cache(fd);
        close(fd);
        share = os_cached_share(path);
    }
    if (share > 0) print_message("the page cache keeps %.0f %% of it\n", 100 * share);
    struct timespec moment = {.tv_nsec =
                                  200000000}; /* for a read that the question may have begun */
    nanosleep(&moment, NULL);
    if (share == 0) assert_true(os_cached_share(path) == 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_reads, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_close_early, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_faults, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_ring_refuses, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_error_text, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_refusals, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_bench, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_choice, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_choice_is_remembered, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_cached_share, scratch_open, scratch_close),
    };
    return cmocka_run_group_tests_name("io", tests, NULL, NULL);
}
