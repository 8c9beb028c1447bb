/* test_ceiling.c: the memory ceiling holds: what the system counts for the process (resident pages
 * and page tables) never passes `memory` by more than 64 MiB: through a change of topic, a long
 * prompt and a long answer, with a part of the experts in memory.
 *
 * FULL=1 in the environment takes the sizes of the promise (a prompt of 16,384 tokens, 2,000 tokens
 * written); without it the same course is shorter. MODEL=DIR takes another model and MEMORY=MIB
 * another ceiling. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
/* cmocka.h needs the three above first */
#include <cmocka.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "base/bits.h"
#include "cgroup.h"
#include "engine_rig.h"

#define MARGIN  (64 * MIB) /* of the promise */
#define SMALL   (2 * MIB)  /* with the bundled model, which is smaller than the promise's margin */
#define TOPIC   200        /* tokens of a short prompt, and of the answer to it */
#define EVERY   16         /* tokens between two looks at /proc */
#define CONTEXT 20480

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED 1
#endif
#endif

typedef struct course {
    fm_engine *engine;
    fm_session *session;
    int vocab;
    size_t limit, margin, most; /* bytes: the ceiling, allowed above it, seen */
    char where[64];             /* the phase that is running */
    rng random;
} course;

/* Bytes of a "Name:  123 kB" line of /proc/self/status; 0 where there is none. */
static size_t status_bytes(const char *name) {
    char line[256];
    size_t found = 0, length = strlen(name);
    FILE *f = fopen("/proc/self/status", "r");
    while (f && !found && fgets(line, sizeof line, f))
        if (!strncmp(line, name, length) && line[length] == ':')
            found = strtoull(line + length + 1, NULL, 10) * 1024;
    if (f) fclose(f);
    return found;
}

static void look(course *c, const char *resident) {
    size_t now = status_bytes(resident) + status_bytes("VmPTE");
    if (now > c->most) c->most = now;
    if (now > c->limit + c->margin)
        fail_msg("%s: %s and page tables are %.1f MiB under a ceiling of %.1f MiB", c->where,
                 resident, (double)now / (double)MIB, (double)c->limit / (double)MIB);
}

static void on_progress(void *ctx, const char *what, uint64_t done, uint64_t total) {
    (void)what, (void)done, (void)total;
    look(ctx, "VmRSS");
}

/* A prompt of n tokens out of one half of the vocabulary, then `more` tokens after it. */
static void talk(course *c, const char *where, int half, int n, int more) {
    snprintf(c->where, sizeof c->where, "%s", where);
    int32_t *ids = calloc((size_t)n, sizeof *ids);
    assert_non_null(ids);
    int part = c->vocab / 2;
    for (int i = 0; i < n; i++)
        ids[i] = (int32_t)(rng_next(&c->random) % (uint64_t)part) + half * part;
    fm_sync sync = {.progress = on_progress, .progress_ctx = c};
    ok(fm_session_sync(c->session, ids, (size_t)n, &sync, NULL));
    free(ids);
    look(c, "VmRSS");
    for (int i = 0; i < more; i++) {
        const float *logits = fm_session_logits(c->session);
        int best = half * part;
        for (int t = best; t < (half + 1) * part; t++)
            if (logits[t] > logits[best]) best = t;
        /* Now and then something new, or a small model repeats itself and reads nothing. */
        if (i % 4 == 0) best = (int)(rng_next(&c->random) % (uint64_t)part) + half * part;
        ok(fm_session_step(c->session, best));
        if (i % EVERY == 0) look(c, "VmRSS");
    }
    look(c, "VmHWM");
}

/* A ceiling that holds a third of the experts. */
static size_t third_of_experts(fm_options *o) {
    const char *wish = getenv("MEMORY");
    if (wish) return strtoull(wish, NULL, 10) * MIB;
    fm_plan p;
    o->memory = (size_t)1 << 40;
    ok(fm_plan_get(o, &p));
    o->memory = p.floor + p.experts_total / 3;
    return o->memory;
}

static void skip_where_unknown(void) {
#ifdef SANITIZED
    print_message("a sanitizer's own memory counts here\n");
    skip();
#endif
    /* Under an emulator the emulator's memory counts. */
    const char *runner = getenv("RUNNER");
    if ((runner && *runner) || !status_bytes("VmPTE")) skip();
}

static void options_of(fm_options *o) {
    const char *model = getenv("MODEL");
    fm_options_init(o);
    o->model_dir = model ? model : "assets/ember";
    o->context = CONTEXT;
}

static void test_ceiling(void **state) {
    (void)state;
    skip_where_unknown();
    bool full = getenv("FULL") != NULL;
    fm_options o;
    options_of(&o);
    course c = {.margin = getenv("MODEL") ? MARGIN : SMALL};
    rng_seed(&c.random, 11);
    c.limit = o.memory = third_of_experts(&o);
    ok(fm_engine_open(&o, &c.engine));
    ok(fm_session_open(c.engine, &c.session));
    fm_model m;
    fm_model_get(c.engine, &m);
    c.vocab = m.vocab;
    int answer = full ? 2000 : 160, prompt = full ? 16384 : 1536;
    talk(&c, "first topic", 0, TOPIC, TOPIC);
    talk(&c, "second topic", 1, TOPIC, TOPIC);
    talk(&c, "long prompt and answer", 0, prompt, answer);
    fm_stats s;
    fm_stats_get(c.engine, &s);
    print_message("ceiling %.1f MiB, most %.1f MiB, experts: %llu read, %llu thrown out\n",
                  (double)c.limit / (double)MIB, (double)c.most / (double)MIB,
                  (unsigned long long)s.expert_misses, (unsigned long long)s.expert_evictions);
    assert_true(s.expert_evictions > 0); /* else nothing was tested */
    fm_engine_close(c.engine);
}

/* This program again, with the first test only, in the group. */
static int run_inside(const cgroup *g) {
    fflush(stdout);
    pid_t pid = fork();
    if (pid == 0) {
        if (!cgroup_enter(g)) _exit(125);
        execl("/proc/self/exe", "test_ceiling", "--alone", (char *)NULL);
        _exit(126);
    }
    int how = 0;
    assert_true(pid > 0 && waitpid(pid, &how, 0) == pid);
    return how;
}

static void test_group(void **state) {
    (void)state;
    skip_where_unknown();
    fm_options o;
    options_of(&o);
    size_t max = third_of_experts(&o) + MARGIN, peak = 0, killed = 0;
    cgroup g;
    if (!cgroup_open(&g, "/sys/fs/cgroup", "/proc/self/cgroup", max)) {
        print_message("SKIP no group with a limit: %s\n", g.why);
        skip();
    }
    int how = run_inside(&g);
    bool has_peak = cgroup_number(&g, "memory.peak", "", &peak);
    bool has_events = cgroup_number(&g, "memory.events", "oom_kill", &killed);
    assert_true(cgroup_close(&g));
    if (WIFEXITED(how) && WEXITSTATUS(how) == 125) {
        print_message("SKIP the group may not be entered\n");
        skip();
    }
    print_message("limit %.1f MiB, peak %.1f MiB\n", (double)max / MIB, (double)peak / MIB);
    assert_true(WIFEXITED(how) && WEXITSTATUS(how) == 0);
    assert_true(!has_events || killed == 0);
    assert_true(!has_peak || peak < max); /* kernels before 5.19 do not say */
}

/* ---- the helper, against a tree of plain files -------------------------- */

static cgroup fake;

static bool open_fake(const char *self, const char *controllers, const char *handed) {
    char path[SCRATCH_PATH];
    scratch_path(path, "own");
    (void)mkdir(path, 0755);
    if (controllers) assert_true(cgroup_write(path, "cgroup.controllers", controllers));
    if (handed) assert_true(cgroup_write(path, "cgroup.subtree_control", handed));
    assert_true(cgroup_write(scratch_dir(), "self", self));
    scratch_path(path, "self");
    return cgroup_open(&fake, scratch_dir(), path, 12345);
}

static void holds(const char *group, const char *name, const char *text) {
    char found[256];
    assert_true(cgroup_read(group, name, found, sizeof found));
    assert_string_equal(found, text);
}

static void test_no_group(void **state) {
    (void)state;
    assert_false(open_fake("4:memory:/own\n", "memory\n", "memory\n"));
    assert_non_null(strstr(fake.why, "version 2"));
    assert_false(open_fake("0::/own\n", "cpu memory_like io\n", ""));
    assert_non_null(strstr(fake.why, "not limited"));
    assert_false(open_fake("0::/elsewhere\n", "memory\n", "memory\n"));
    char path[SCRATCH_PATH];
    scratch_path(path, "own");
    assert_true(open_fake("0::/own\n", "memory\n", "cpu memory\n"));
    holds(path, "cgroup.subtree_control", "cpu memory\n"); /* was there: stays */
    assert_false(cgroup_close(&fake)); /* plain files do not go with their folder */
    assert_false(open_fake("0::/own\n", "memory\n", "")); /* it is there already */
    assert_non_null(strstr(fake.why, "no group can be made"));
    holds(path, "cgroup.subtree_control", "-memory");
}

static void test_fake_group(void **state) {
    (void)state;
    assert_true(open_fake("1:cpu:/\n0::/own\n", "cpu memory\n", "cpu\n"));
    char path[SCRATCH_PATH];
    scratch_path(path, "own");
    holds(path, "cgroup.subtree_control", "+memory");
    holds(fake.child, "memory.max", "12345");
    holds(fake.child, "memory.swap.max", "0");
    assert_true(cgroup_enter(&fake));
    holds(fake.child, "cgroup.procs", "0");
    assert_true(cgroup_write(fake.child, "memory.events", "oom 3\noom_kill 2\n"));
    size_t n = 0;
    assert_true(cgroup_number(&fake, "memory.events", "oom_kill", &n) && n == 2);
    assert_true(cgroup_number(&fake, "memory.max", "", &n) && n == 12345);
    assert_false(cgroup_number(&fake, "memory.peak", "", &n));
    static const char *const files[] = {"memory.max", "memory.swap.max", "cgroup.procs",
                                        "memory.events"};
    char gone[CGROUP_PATH + 128], made[sizeof fake.child];
    for (size_t i = 0; i < sizeof files / sizeof *files; i++) {
        cgroup_file(gone, fake.child, files[i]);
        assert_int_equal(unlink(gone), 0);
    }
    snprintf(made, sizeof made, "%s", fake.child);
    assert_true(cgroup_close(&fake));
    assert_int_equal(access(made, F_OK), -1);
    holds(path, "cgroup.subtree_control", "-memory");
}

int main(int argc, char **argv) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_ceiling),
        cmocka_unit_test(test_group),
        cmocka_unit_test_setup_teardown(test_no_group, scratch_open, scratch_close),
        cmocka_unit_test_setup_teardown(test_fake_group, scratch_open, scratch_close),
    };
    const struct CMUnitTest alone[] = {cmocka_unit_test(test_ceiling)};
    if (argc > 1 && !strcmp(argv[1], "--alone")) return cmocka_run_group_tests(alone, NULL, NULL);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
