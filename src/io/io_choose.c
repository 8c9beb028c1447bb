/* io_choose.c: which direct engine to use on a file system: the A/B, and its memory. See
 * io_bench.h.
 *
 *     { "file systems": { "<id>": { "system": "6.1.0", "uring": 1.31e9, "pread": 1.28e9 } } }
 *
 * Threads are taken when they are faster by more than TIE. On systems where the page cache may win
 * (os_try_page_cache), reads through it are a third arm, at other blocks than the direct ones;
 * "buffered" then stands in the entry. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <sys/utsname.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/json.h"
#include "base/os.h"
#include "io/io_bench.h"

#define STATE_BYTES_MAX ((size_t)1 << 20)
/* io_uring unless threads read faster by a quarter: one A/B on a shared disk is no better than
 * that, and threads take processor time that the experts need (docs/MEASURED.md, "Streaming"). */
#define TIE          1.25
#define ROUNDS       4 /* uring, pread, uring, pread ...: the first of each is thrown away */
#define CHOOSE_BLOCK (1u << 20)
#define CHOOSE_DEPTH 16

typedef struct state_key {
    char id[64];
    char system[256];
} state_key;

static void key_of(const char *path, state_key *key) {
    struct statvfs fs;
    struct utsname system;
    memset(key, 0, sizeof *key);
    if (statvfs(path, &fs) == 0)
        snprintf(key->id, sizeof key->id, "%llx-%llx", (unsigned long long)fs.f_fsid,
                 (unsigned long long)fs.f_blocks);
    if (uname(&system) == 0) snprintf(key->system, sizeof key->system, "%s", system.release);
}

/* The parsed state, or an empty object. */
static json_t *state_load(const char *state_path) {
    json_t *state = NULL;
    if (state_path) {
        err e = json_read_file(state_path, STATE_BYTES_MAX, &state);
        if (e.code) state = NULL;
    }
    if (!json_is_object(state)) {
        json_decref(state);
        state = json_object();
    }
    return state;
}

static bool recall(const json_t *state, const state_key *key, io_choice *out) {
    const json_t *entry = json_object_get(json_object_get(state, "file systems"), key->id);
    const char *system = json_string_value(json_object_get(entry, "system"));
    double uring = json_number_value(json_object_get(entry, "uring"));
    double pread = json_number_value(json_object_get(entry, "pread"));
    double buffered = json_number_value(json_object_get(entry, "buffered"));
    if (!key->id[0] || !system || strcmp(system, key->system) != 0) return false;
    if (!(uring >= 0 && pread >= 0 && buffered >= 0 && uring + pread > 0)) return false;
    out->buffered = buffered;
    out->uring = uring;
    out->pread = pread;
    return true;
}

static void remember(json_t *state, const state_key *key, const io_choice *choice,
                     const char *state_path) {
    json_t *all = json_object_get(state, "file systems");
    if (!json_is_object(all)) {
        all = json_object();
        json_object_set_new(state, "file systems", all);
    }
    json_t *entry = json_object();
    json_object_set_new(entry, "system", json_string(key->system));
    json_object_set_new(entry, "uring", json_real(choice->uring));
    json_object_set_new(entry, "pread", json_real(choice->pread));
    if (choice->buffered > 0) json_object_set_new(entry, "buffered", json_real(choice->buffered));
    json_object_set_new(all, key->id, entry);
    char partial[4096];
    int n = snprintf(partial, sizeof partial, "%s.%ld.partial", state_path, (long)getpid());
    if (n < 0 || (size_t)n >= sizeof partial) return;
    bool written = json_dump_file(state, partial, JSON_INDENT(2)) == 0;
    if (!written || rename(partial, state_path) != 0) unlink(partial);
}

/* Bytes per second; 0 when the engine does not work here. */
static double speed(const io_bench_options *common, io_backend backend, uint64_t seed) {
    io_bench_options options = *common;
    options.backend = backend;
    options.seed = seed;
    io_bench_result result;
    err e = io_bench(&options, &result);
    return e.code ? 0 : result.bytes_per_second;
}

/* Interleaved, best of each: what disturbs a measurement only ever slows it down. */
static void compare(const char *const *paths, int n_files, io_choice *out) {
    io_bench_options common = {.paths = paths,
                               .n_files = n_files,
                               .block = CHOOSE_BLOCK,
                               .depth = CHOOSE_DEPTH,
                               .total_bytes = IO_CHOOSE_BYTES / ROUNDS,
                               .max_seconds = 1};
    for (int i = 0; i < ROUNDS; i++) {
        double uring = speed(&common, IO_URING, (uint64_t)i + 1);
        double pread = speed(&common, IO_PREAD, (uint64_t)i + 1);
        double buffered = os_try_page_cache() ? speed(&common, IO_BUFFERED, (uint64_t)i + 1001) : 0;
        if (i > 0 && uring > out->uring) out->uring = uring;
        if (i > 0 && buffered > out->buffered) out->buffered = buffered;
        if (i > 0 && pread > out->pread) out->pread = pread;
    }
    out->measured = out->uring > 0 || out->pread > 0;
}

static bool works(const char *const *paths, int n_files, io_backend backend) {
    io_options options = {.backend = backend, .paths = paths, .n_files = n_files, .depth = 1};
    io *o;
    err e = io_open(&options, &o);
    io_close(o);
    return e.code == ERR_NONE;
}

static uint64_t total_bytes(const char *const *paths, int n_files) {
    io_options options = {.backend = IO_BUFFERED, .paths = paths, .n_files = n_files, .threads = 1};
    io *o;
    err e = io_open(&options, &o);
    uint64_t sum = 0;
    for (int i = 0; !e.code && i < n_files; i++) sum += (uint64_t)io_file_bytes(o, i);
    io_close(o);
    return sum;
}

static void pick(const char *const *paths, int n_files, io_choice *out) {
    bool prefer_uring = !out->measured || (out->uring > 0 && out->uring * TIE >= out->pread);
    double direct = prefer_uring ? out->uring : out->pread;
    if (out->measured && out->buffered > direct * TIE) {
        out->backend = IO_BUFFERED;
        return;
    }
    io_backend first = prefer_uring ? IO_URING : IO_PREAD;
    io_backend second = prefer_uring ? IO_PREAD : IO_URING;
    out->backend = works(paths, n_files, first)    ? first
                   : works(paths, n_files, second) ? second
                                                   : IO_BUFFERED;
}

void io_choose(const char *const *paths, int n_files, const char *state_path, io_choice *out) {
    *out = (io_choice){.backend = IO_BUFFERED};
    if (n_files < 1) return;
    state_key key;
    key_of(paths[0], &key);
    json_t *state = state_load(state_path);
    if (recall(state, &key, out)) {
        out->measured = out->remembered = true;
    } else if (total_bytes(paths, n_files) >= IO_CHOOSE_BYTES) {
        compare(paths, n_files, out);
        if (out->measured && state_path && key.id[0]) remember(state, &key, out, state_path);
    }
    json_decref(state);
    pick(paths, n_files, out);
}
