/* test_prompts.c: sessions kept on disk: the same bits after a restart, nothing wrong after kill
 * -9, nothing of damaged or foreign files, bounds that hold. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>
#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include "engine/prompt_cache.h"
#include "engine_rig.h"

#define MODEL   "qwen3_5_moe_mlx4"
#define PROMPTS 4
#define LENGTH  300

/* ---- lines that are logged ---- */

typedef struct lines {
    pthread_mutex_t lock;
    char text[8192];
    int n;
} lines;

static void keep_line(void *ctx, const char *line) {
    lines *l = ctx;
    pthread_mutex_lock(&l->lock);
    size_t n = strlen(l->text);
    snprintf(l->text + n, sizeof l->text - n, "%s\n", line);
    l->n++;
    pthread_mutex_unlock(&l->lock);
}

/* ---- files, with blobs of our own ---- */

#define BLOB 5000

static prompt_cache_options options_of(lines *l) {
    static char dir[SCRATCH_PATH];
    scratch_path(dir, "made/here");
    return (prompt_cache_options){.dir = dir,
                                  .fingerprint = 77,
                                  .bytes_max = 100 * MIB,
                                  .entries_max = 16,
                                  .memory_max = MIB,
                                  .min_tokens = 8,
                                  .step = 8,
                                  .log = l ? keep_line : NULL,
                                  .log_ctx = l};
}

static prompt_cache *cache_with(const prompt_cache_options *o) {
    prompt_cache *c;
    assert_ok(prompt_cache_open(o, &c));
    return c;
}

/* Half of it can be packed. */
static uint8_t *blob_of(uint64_t seed) {
    uint8_t *b = calloc(1, BLOB);
    assert_non_null(b);
    for (int i = 0; i < BLOB / 2; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        b[i] = (uint8_t)(seed >> 56);
    }
    return b;
}

static void put(prompt_cache *c, uint64_t seed, int n) {
    int32_t tokens[LENGTH];
    make_tokens(tokens, LENGTH, seed);
    assert_true(prompt_cache_wants(c, tokens, (size_t)n, BLOB, PROMPT_BORDER));
    prompt_cache_store(c, tokens, (size_t)n, blob_of(seed), BLOB, PROMPT_BORDER);
    prompt_cache_flush(c);
}

/* How many tokens of it are kept; what comes back must be what was put. */
static size_t get(prompt_cache *c, uint64_t seed) {
    int32_t tokens[LENGTH];
    const uint8_t *blob;
    size_t bytes;
    make_tokens(tokens, LENGTH, seed);
    size_t n = prompt_cache_find(c, tokens, LENGTH, 0);
    if (!n || prompt_cache_load(c, tokens, n, &blob, &bytes).code) return 0;
    uint8_t *want = blob_of(seed);
    assert_int_equal(bytes, BLOB);
    assert_memory_equal(blob, want, BLOB);
    free(want);
    prompt_cache_done(c);
    return n;
}

/* The only file that ends in .prompt, as a path; and how many there are. */
static int files(const char *dir, char path[SCRATCH_PATH]) {
    DIR *d = opendir(dir);
    int n = 0;
    assert_non_null(d);
    for (struct dirent *e; (e = readdir(d));) {
        size_t length = strlen(e->d_name);
        if (length < 7 || strcmp(e->d_name + length - 7, ".prompt") != 0) continue;
        n++;
        if (path) snprintf(path, SCRATCH_PATH, "%s/%.255s", dir, e->d_name);
    }
    closedir(d);
    return n;
}

static void write_file(const char *path, const void *bytes, size_t n) {
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, bytes, n), n);
    close(fd);
}

static void test_files(void **state) {
    (void)state;
    prompt_cache_options o = options_of(NULL);
    prompt_cache *c = cache_with(&o);
    assert_int_equal(get(c, 1), 0);
    put(c, 1, 100);
    put(c, 1, 200);
    put(c, 2, 50);
    assert_int_equal(get(c, 1), 200);
    assert_int_equal(get(c, 2), 50);
    int32_t tokens[LENGTH];
    make_tokens(tokens, LENGTH, 1);
    assert_int_equal(prompt_cache_find(c, tokens, 199, 0), 100);
    assert_int_equal(prompt_cache_find(c, tokens, 200, 100), 200);
    assert_int_equal(prompt_cache_find(c, tokens, LENGTH, 200), 0);
    assert_false(prompt_cache_wants(c, tokens, 200, BLOB, PROMPT_BORDER)); /* kept */
    assert_false(prompt_cache_wants(c, tokens, 205, BLOB, PROMPT_BORDER)); /* hardly longer */
    assert_true(prompt_cache_wants(c, tokens, 208, BLOB, PROMPT_BORDER));
    assert_false(prompt_cache_wants(c, tokens, 208, 2 * MIB, PROMPT_BORDER));
    make_tokens(tokens, LENGTH, 3);
    assert_false(prompt_cache_wants(c, tokens, 7, BLOB, PROMPT_BORDER));
    prompt_cache_close(c);

    struct stat st;
    char path[SCRATCH_PATH];
    assert_int_equal(files(o.dir, path), 3);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_true(st.st_size < BLOB);
    assert_int_equal(stat(o.dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);

    c = cache_with(&o);
    assert_int_equal(get(c, 1), 200);
    prompt_cache_close(c);
    o.fingerprint = 78; /* another model, k, KV mode or build */
    c = cache_with(&o);
    assert_int_equal(get(c, 1), 0);
    prompt_cache_close(c);
}

static void test_bounds(void **state) {
    (void)state;
    prompt_cache_options o = options_of(NULL);
    o.entries_max = 3;
    prompt_cache *c = cache_with(&o);
    for (uint64_t i = 1; i <= 3; i++) put(c, i, 100);
    assert_int_equal(get(c, 1), 100); /* used: 2 is the oldest now */
    put(c, 4, 100);
    assert_int_equal(files(o.dir, NULL), 3);
    assert_int_equal(get(c, 1), 100);
    assert_int_equal(get(c, 2), 0);
    prompt_cache_stats s;
    prompt_cache_stats_get(c, &s);
    assert_int_equal(s.entries, 3);
    assert_int_equal(s.saved, 4);
    uint64_t three = s.bytes;
    prompt_cache_close(c);
    o.bytes_max = three - 1; /* a smaller bound holds from the start */
    c = cache_with(&o);
    prompt_cache_stats_get(c, &s);
    assert_int_equal(s.entries, 2);
    put(c, 5, 100);
    assert_int_equal(files(o.dir, NULL), 2);
    prompt_cache_close(c);
    o.fingerprint = 78; /* what others left counts too */
    c = cache_with(&o);
    put(c, 6, 100);
    put(c, 7, 100);
    put(c, 8, 100);
    assert_int_equal(files(o.dir, NULL), 2);
    prompt_cache_close(c);
}

/* Bit i of the file, or its end, is changed: it is never used, a line says so, and it is gone. */
static void test_damage(void **state) {
    (void)state;
    lines l = {.lock = PTHREAD_MUTEX_INITIALIZER};
    prompt_cache_options o = options_of(&l);
    static uint8_t bytes[2 * BLOB];
    char path[SCRATCH_PATH];
    prompt_cache *c = cache_with(&o);
    put(c, 1, 100);
    prompt_cache_close(c);
    assert_int_equal(files(o.dir, path), 1);
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = read(fd, bytes, sizeof bytes);
    close(fd);
    assert_true(n > 200 && n < (ssize_t)sizeof bytes);
    for (ssize_t i = 0; i < n; i += i < 80 ? 1 : 29) {
        for (int cut = 0; cut < 2; cut++) {
            bytes[i] ^= (uint8_t)(cut ? 0 : 1 << (i % 8));
            write_file(path, bytes, (size_t)(cut ? i : n));
            bytes[i] ^= (uint8_t)(cut ? 0 : 1 << (i % 8));
            l.n = 0;
            c = cache_with(&o);
            if (get(c, 1)) fail_msg("byte %zd, cut %d: it was used", i, cut);
            prompt_cache_close(c);
            assert_int_equal(l.n, 1);
            if (files(o.dir, NULL)) fail_msg("byte %zd, cut %d: it is still there", i, cut);
            l.text[0] = '\0';
        }
    }
    write_file(path, bytes, (size_t)n);
    c = cache_with(&o);
    assert_int_equal(get(c, 1), 100);
    prompt_cache_close(c);
}

/* A process that has ended. */
static pid_t dead_pid(void) {
    pid_t p = fork();
    if (p == 0) _exit(0);
    assert_true(p > 0);
    assert_int_equal(waitpid(p, NULL, 0), p);
    return p;
}

static void test_foreign(void **state) {
    (void)state;
    lines l = {.lock = PTHREAD_MUTEX_INITIALIZER};
    prompt_cache_options o = options_of(&l);
    char path[SCRATCH_PATH], other[SCRATCH_PATH];
    prompt_cache *c = cache_with(&o);
    put(c, 1, 100);
    prompt_cache_close(c);
    snprintf(other, sizeof other, "%.900s/notes.txt", o.dir);
    write_file(other, "hello", 5);
    snprintf(path, sizeof path, "%.900s/.tmp-%ld-1", o.dir, (long)dead_pid());
    write_file(path, "half", 4);
    char link[SCRATCH_PATH], folder[SCRATCH_PATH], random[SCRATCH_PATH];
    snprintf(link, sizeof link, "%.900s/000000000000004d-%032d.prompt", o.dir, 1);
    snprintf(folder, sizeof folder, "%.900s/000000000000004d-%032d.prompt", o.dir, 2);
    snprintf(random, sizeof random, "%.900s/000000000000004d-%032d.prompt", o.dir, 3);
    assert_int_equal(symlink("/etc/passwd", link), 0);
    assert_int_equal(mkdir(folder, 0700), 0);
    write_file(random, folder, 400);
    c = cache_with(&o);
    assert_int_equal(get(c, 1), 100);
    prompt_cache_stats s;
    prompt_cache_stats_get(c, &s);
    assert_int_equal(s.entries, 1);
    assert_int_equal(s.refused, 4);
    put(c, 2, 100); /* reads the folder again: nothing is said twice */
    prompt_cache_close(c);
    assert_int_equal(l.n, 4);
    assert_non_null(strstr(l.text, "notes.txt is not one of this folder's files"));
    assert_non_null(strstr(l.text, "is no saved prompt"));
    assert_int_equal(access(other, F_OK), 0);
    assert_int_equal(access("/etc/passwd", F_OK), 0);
    assert_int_equal(access(folder, F_OK), 0);
    assert_int_not_equal(access(path, F_OK), 0);
    assert_int_not_equal(access(random, F_OK), 0);
    /* A file under another one's name. */
    assert_int_equal(rmdir(folder), 0);
    assert_int_equal(unlink(link), 0);
    assert_int_equal(unlink(other), 0);
    assert_int_equal(files(o.dir, path), 2);
    assert_int_equal(rename(path, random), 0);
    c = cache_with(&o);
    assert_int_equal(files(o.dir, NULL), 1);
    prompt_cache_close(c);
}

/* ---- with an engine ---- */

static const size_t marks[] = {70, 128, 200, 256};

static fm_engine *engine_with(const char *dir, lines *l) {
    static char path[SCRATCH_PATH];
    golden_path(path, MODEL, NULL);
    fm_options o;
    fm_options_init(&o);
    o.model_dir = path;
    o.context = 4096; /* so that all that is offered at once fits what is set aside */
    o.threads = 1;
    o.memory = 200 * MIB;
    o.keep_prompts = true;
    fm_engine *e;
    ok(fm_engine_open(&o, &e));
    const fm_prompt_cache_options p = {.dir = dir,
                                       .entries = 6,
                                       .min_tokens = 64,
                                       .step = 40,
                                       .log = l ? keep_line : NULL,
                                       .log_ctx = l};
    if (dir) ok(fm_prompt_cache_open(e, &p));
    return e;
}

typedef struct result {
    size_t reused;
    float logits[2][512]; /* after the prompt, and after one more token */
} result;

static void run(fm_engine *e, int prompt, result *out) {
    int32_t tokens[LENGTH];
    fm_session *s;
    fm_model m;
    fm_model_get(e, &m);
    assert_true(m.vocab <= 512);
    make_tokens(tokens, LENGTH, (uint64_t)prompt / 2);
    /* Two prompts begin alike. */
    if (prompt % 2) make_tokens(tokens + 210, LENGTH - 210, 99);
    const fm_sync sync = {.marks = marks, .n_marks = 4};
    memset(out, 0, sizeof *out);
    ok(fm_session_open(e, &s));
    ok(fm_session_sync(s, tokens, LENGTH, &sync, &out->reused));
    memcpy(out->logits[0], fm_session_logits(s), (size_t)m.vocab * sizeof(float));
    ok(fm_session_step(s, 5));
    memcpy(out->logits[1], fm_session_logits(s), (size_t)m.vocab * sizeof(float));
    fm_session_close(s);
}

static void references(result out[PROMPTS]) {
    fm_engine *e = engine_with(NULL, NULL);
    for (int i = 0; i < PROMPTS; i++) {
        run(e, i, &out[i]);
        assert_int_equal(out[i].reused, 0);
    }
    fm_engine_close(e);
}

/* Whatever lies on disk, the bits are those of a run without it. The tokens that came from there.
 */
static size_t check(const char *dir, const result want[PROMPTS], lines *l) {
    size_t sum = 0;
    fm_engine *e = engine_with(dir, l);
    for (int i = 0; i < PROMPTS; i++) {
        static result got;
        run(e, i, &got);
        sum += got.reused;
        if (memcmp(got.logits, want[i].logits, sizeof got.logits))
            fail_msg("prompt %d after %zu kept tokens: other bits", i, got.reused);
    }
    fm_engine_close(e);
    return sum;
}

/* Another process computes prompts 0 .. n-1, over and over when it is to be killed. */
static pid_t process(const char *dir, int n, bool endless) {
    pid_t p = fork();
    assert_true(p >= 0);
    if (p) return p;
    static result r;
    do {
        fm_engine *e = engine_with(dir, NULL);
        for (int i = 0; i < n; i++) {
            run(e, i, &r);
            if (endless && i % 2) fm_prompt_cache_flush(e);
        }
        fm_engine_close(e);
        for (int i = 0; endless && i < n; i++) { /* so that there is always something to write */
            char path[SCRATCH_PATH];
            if (files(dir, path) > 3) unlink(path);
        }
    } while (endless);
    _exit(0);
}

/* Prompt 0 and an answer of `n` tokens; *reused of both together. The logits after them. */
static void answer(fm_engine *e, int n, size_t *reused, float logits[512]) {
    int32_t tokens[LENGTH + 160];
    fm_session *s;
    fm_model m;
    fm_model_get(e, &m);
    make_tokens(tokens, LENGTH + 160, 0);
    const fm_sync sync = {.marks = marks, .n_marks = 4};
    ok(fm_session_open(e, &s));
    ok(fm_session_sync(s, tokens, LENGTH, &sync, NULL));
    for (int i = LENGTH; i < LENGTH + n; i++) ok(fm_session_step(s, tokens[i]));
    memset(logits, 0, 512 * sizeof *logits);
    memcpy(logits, fm_session_logits(s), (size_t)m.vocab * sizeof *logits);
    fm_session_keep(s);
    fm_prompt_cache_flush(e);
    fm_session_clear(s);
    ok(fm_session_match(s, tokens, LENGTH + 160, reused));
    if (*reused == (size_t)(LENGTH + n))
        assert_memory_equal(logits, fm_session_logits(s), (size_t)m.vocab * sizeof *logits);
    fm_session_close(s);
}

/* A conversation after an answer: found after a restart, in the place of its earlier answer, the
 * same bits; one that hardly grew is not written again. */
static void test_answers(void **state) {
    (void)state;
    if (!golden_root()) skip();
    char dir[SCRATCH_PATH];
    static float first[512], again[512];
    size_t reused;
    scratch_path(dir, "answers");
    int status;
    pid_t p = fork();
    assert_true(p >= 0);
    if (!p) {
        fm_engine *e = engine_with(dir, NULL);
        answer(e, 80, &reused, first);
        answer(e, 100, &reused, first); /* 20 more: not worth it */
        if (reused != LENGTH + 80 || files(dir, NULL) != 6) _exit(1);
        fm_engine_close(e);
        _exit(0);
    }
    assert_int_equal(waitpid(p, &status, 0), p);
    assert_int_equal(status, 0);
    fm_engine *plain = engine_with(NULL, NULL), *e = engine_with(dir, NULL);
    answer(plain, 80, &reused, first);
    int32_t tokens[LENGTH + 160];
    make_tokens(tokens, LENGTH + 160, 0);
    fm_session *s;
    ok(fm_session_open(e, &s));
    ok(fm_session_sync(s, tokens, LENGTH + 80, NULL, &reused));
    assert_int_equal(reused, LENGTH + 80);
    fm_model m;
    fm_model_get(e, &m);
    assert_memory_equal(fm_session_logits(s), first, (size_t)m.vocab * sizeof *first);
    fm_session_close(s);
    answer(e, 150, &reused, again);
    assert_int_equal(reused, LENGTH + 150);
    assert_int_equal(files(dir, NULL), 6); /* the earlier answer is gone */
    fm_engine_close(e);
    fm_engine_close(plain);
}

static void put_answer(prompt_cache *c, uint64_t seed, int n) {
    int32_t tokens[LENGTH];
    make_tokens(tokens, LENGTH, seed);
    assert_true(prompt_cache_wants(c, tokens, (size_t)n, BLOB, PROMPT_ANSWER));
    prompt_cache_store(c, tokens, (size_t)n, blob_of(seed), BLOB, PROMPT_ANSWER);
    prompt_cache_flush(c);
}

/* Answers have a quarter of the files and never push out a beginning while there is room. */
static void test_answer_bounds(void **state) {
    (void)state;
    prompt_cache_options o = options_of(NULL);
    o.entries_max = 8;
    prompt_cache *c = cache_with(&o);
    for (uint64_t i = 1; i <= 3; i++) put(c, i, 50);
    for (uint64_t i = 11; i <= 15; i++) put_answer(c, i, 100);
    assert_int_equal(files(o.dir, NULL), 5);
    for (uint64_t i = 1; i <= 3; i++) assert_int_equal(get(c, i), 50);
    for (uint64_t i = 11; i <= 15; i++) assert_int_equal(get(c, i), i >= 14 ? 100 : 0);
    put_answer(c, 15, 164);
    put_answer(c, 15, 299); /* replaces its own, not the other's */
    assert_int_equal(get(c, 15), 299);
    assert_int_equal(get(c, 14), 100);
    put_answer(c, 1, 200); /* continues a beginning, which stays */
    assert_int_equal(get(c, 15), 0);
    assert_int_equal(get(c, 14), 100);
    assert_int_equal(files(o.dir, NULL), 5);
    prompt_cache_close(c);
    c = cache_with(&o);
    put_answer(c, 20, 100); /* what is an answer is known after a restart */
    assert_int_equal(files(o.dir, NULL), 5);
    for (uint64_t i = 2; i <= 3; i++) assert_int_equal(get(c, i), 50);
    prompt_cache_close(c);
}

static void test_restart(void **state) {
    (void)state;
    if (!golden_root()) skip();
    static result want[PROMPTS];
    char dir[SCRATCH_PATH];
    scratch_path(dir, "kept");
    references(want);
    int status;
    pid_t p = process(dir, 1, false);
    assert_int_equal(waitpid(p, &status, 0), p);
    assert_int_equal(status, 0);
    assert_int_equal(files(dir, NULL), 5); /* four marks and the end */
    fm_engine *e = engine_with(dir, NULL);
    static result got;
    run(e, 0, &got);
    assert_int_equal(got.reused, LENGTH); /* with the logits after it */
    assert_memory_equal(got.logits, want[0].logits, sizeof got.logits);
    run(e, 1, &got);
    assert_int_equal(got.reused, 200);
    assert_memory_equal(got.logits, want[1].logits, sizeof got.logits);
    run(e, 2, &got);
    assert_int_equal(got.reused, 0);
    fm_stats s;
    fm_stats_get(e, &s);
    assert_int_equal(s.prompts_found, 2);
    assert_int_equal(s.prompts_refused, 0);
    fm_engine_close(e);
}

static void test_kill(void **state) {
    (void)state;
    if (!golden_root()) skip();
    enum { KILLS = 50 };
    static result want[PROMPTS];
    lines l = {.lock = PTHREAD_MUTEX_INITIALIZER};
    char dir[SCRATCH_PATH];
    scratch_path(dir, "killed");
    references(want);
    uint64_t seed = 4711;
    long most = 40; /* milliseconds; longer on a machine where nothing comes of it */
    size_t used = 0;
    for (int i = 0; i < KILLS; i++) {
        seed = seed * 6364136223846793005u + 1442695040888963407u;
        pid_t p = process(dir, PROMPTS, true);
        long us = (long)((seed >> 33) % (uint64_t)(most * 1000));
        const struct timespec t = {us / 1000000, us % 1000000 * 1000};
        nanosleep(&t, NULL);
        assert_int_equal(kill(p, SIGKILL), 0);
        assert_int_equal(waitpid(p, NULL, 0), p);
        if (access(dir, F_OK) != 0 || !files(dir, NULL)) {
            if (most < 2000) most *= 2;
            continue;
        }
        if (i % 5 == 0 || i == KILLS - 1) used += check(dir, want, &l);
    }
    used += check(dir, want, &l);
    used += check(dir, want, &l);
    assert_true(used > 0);
    if (l.n)
        fail_msg("%s", l.text); /* a killed process leaves no damaged file under its own name */
}

static void test_where(void **state) {
    (void)state;
    if (!golden_root()) skip();
    char file[SCRATCH_PATH], under[SCRATCH_PATH + 8], other[SCRATCH_PATH];
    scratch_path(file, "file");
    scratch_path(other, "other");
    snprintf(under, sizeof under, "%s/dir", file);
    write_file(file, "x", 1);
    fm_engine *e = engine_with(NULL, NULL);
    fm_prompt_cache_options p = {.dir = under};
    fm_error failed = fm_prompt_cache_open(e, &p);
    assert_int_equal(failed.code, FM_ERR_IO);
    assert_non_null(strstr(failed.text, "/file"));
    p.fallback_dir = other;
    ok(fm_prompt_cache_open(e, &p));
    assert_int_equal(access(other, F_OK), 0);
    assert_int_equal(fm_prompt_cache_open(e, &p).code, FM_ERR_BUSY);
    fm_engine_close(e);
}

int main(int argc, char **argv) {
    (void)argc;
    golden_from(argv[0]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_files, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_bounds, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_damage, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_foreign, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_restart, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_answers, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_answer_bounds, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_kill, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_where, scratch_open, scratch_close),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
