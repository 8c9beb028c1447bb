/* test_gpu_host.c: the processor that plays a GPU: barriers and exchanges do what a GPU's do, and
 * what a GPU leaves undefined is reported. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "gpu/gpu_windows.h"
#include "gpu/host/host_group.h"
#include "model/gpu_ops_impl.h"

static host_runner *runner;

static err run(host_body body, void *args, int threads, int order) {
    host_launch l = {"body", body, args, threads, 2, 3, 2, 1024, order};
    return host_run(runner, &l);
}

/* Every thread writes, all wait, every thread reads its neighbour's: wrong without the barrier. */
static void shift(host_where at, const void *args, float *shared) {
    int *out = *(int *const *)args;
    shared[at.thread] = (float)at.thread;
    host_barrier(at.fiber);
    float next = shared[(at.thread + 1) % at.threads];
    host_barrier(at.fiber);
    int group = (at.group_z * 3 + at.group_y) * 2 + at.group_x;
    out[group * at.threads + at.thread] = (int)next + 1000 * group;
}

static void shift_without(host_where at, const void *args, float *shared) {
    int *out = *(int *const *)args;
    shared[at.thread] = (float)at.thread;
    memcpy(&out[at.thread], &shared[(at.thread + 1) % at.threads], sizeof(int)); /* may be NaN */
}

static void barriers(void **state) {
    (void)state;
    static int out[12 * 256];
    int *args = out;
    for (int order = 0; order < 3; order++) {
        memset(out, 0xff, sizeof out);
        assert_int_equal(run(shift, &args, 256, order).code, ERR_NONE);
        for (int i = 0; i < 12 * 256; i++) {
            assert_int_equal(out[i], (i % 256 + 1) % 256 + 1000 * (i / 256));
        }
    }
    /* The three orders betray a missing barrier: they differ. */
    static int a[256], b[256];
    int *to_a = a, *to_b = b;
    assert_int_equal(run(shift_without, &to_a, 256, 0).code, ERR_NONE);
    assert_int_equal(run(shift_without, &to_b, 256, 1).code, ERR_NONE);
    assert_memory_not_equal(a, b, sizeof a);
}

/* A tree of exchanges, several in a row, SIMD groups at different paces. */
static void sums(host_where at, const void *args, float *shared) {
    uint32_t *out = *(uint32_t *const *)args;
    (void)shared;
    uint32_t x = (uint32_t)at.thread;
    for (int round = 0; round <= at.thread / 32; round++) {
        for (int mask = 16; mask > 0; mask /= 2) x += host_simd_xor(at.fiber, x, mask);
        x /= 32;
    }
    out[at.thread] = x;
}

static void exchanges(void **state) {
    (void)state;
    for (int order = 0; order < 3; order++) {
        static uint32_t out[128];
        uint32_t *args = out;
        assert_int_equal(run(sums, &args, 128, order).code, ERR_NONE);
        for (uint32_t i = 0; i < 128; i++) assert_int_equal(out[i], i / 32 * 32 + 15);
    }
}

/* Every lane asks another one, some the same. */
static void asks(host_where at, const void *args, float *shared) {
    uint32_t *out = *(uint32_t *const *)args;
    (void)shared;
    out[at.thread] = host_simd_from(at.fiber, (uint32_t)at.thread, at.thread * 6 % 32);
}

static void any_lane(void **state) {
    (void)state;
    for (int order = 0; order < 3; order++) {
        static uint32_t out[64];
        uint32_t *args = out;
        assert_int_equal(run(asks, &args, 64, order).code, ERR_NONE);
        for (uint32_t i = 0; i < 64; i++) assert_int_equal(out[i], i / 32 * 32 + i * 6 % 32);
    }
}

static void half_waits(host_where at, const void *args, float *shared) {
    (void)args, (void)shared;
    if (at.thread < at.threads / 2) host_barrier(at.fiber);
}

static void different_places(host_where at, const void *args, float *shared) {
    (void)args, (void)shared;
    if (at.thread == 5) {
        host_barrier(at.fiber);
    } else {
        host_simd_xor(at.fiber, 1, 1);
    }
}

static void past_shared(host_where at, const void *args, float *shared) {
    (void)args;
    if (at.thread == 0) shared[256] = 1;
}

static void broken_rules(void **state) {
    (void)state;
    static const host_body bodies[] = {half_waits, different_places, past_shared};
    static const char *const words[] = {"returned", "different places", "shared memory"};
    for (int i = 0; i < 3; i++) {
        err e = run(bodies[i], NULL, 32, i);
        assert_int_equal(e.code, ERR_CORRUPT);
        assert_non_null(strstr(e.text, words[i]));
        assert_non_null(strstr(e.text, "kernel body, group 0 0 0"));
        static int out[12 * 64]; /* the runner still works */
        int *args = out;
        assert_int_equal(run(shift, &args, 64, 0).code, ERR_NONE);
    }
}

static void shapes(void **state) {
    (void)state;
    static const int threads[] = {0, 31, 33, 1056, -32};
    for (int i = 0; i < 5; i++) {
        err e = run(past_shared, NULL, threads[i], 0);
        assert_int_equal(e.code, ERR_ARG);
    }
}

/* Both orders are tried equally often, the first pair does not count, the faster one stays. */
static void trial_decides(void **state) {
    (void)state;
    for (int faster = 0; faster < 2; faster++) {
        gpu_trial t = {0};
        bool ahead = true;
        int seen[2] = {0};
        for (int i = 0; i < 2 * GPU_TRIAL_PAIRS; i++) {
            assert_false(t.decided);
            gpu_trial_begin(&t, &ahead);
            seen[ahead]++;
            uint64_t ns = ahead == faster ? 100 : 101;
            gpu_trial_end(&t, &ahead, i < 2 ? (uint64_t)(ahead == faster) * 1000000 : ns);
        }
        assert_true(t.decided);
        assert_int_equal(seen[0], seen[1]);
        assert_int_equal(ahead, faster);
        gpu_trial_begin(&t, &ahead);
        gpu_trial_end(&t, &ahead, 1);
        assert_int_equal(ahead, faster);
    }
}

/* Memory of the caller as the device sees it; the host has no limit on a buffer's length. */
static void windows(void **state) {
    (void)state;
    static _Alignas(65536) uint8_t region[300000];
    gpu_device *d;
    gpu_windows w;
    assert_int_equal(gpu_open("host", 0, &d).code, ERR_NONE);
    assert_int_equal(gpu_windows_open(d, region, sizeof region, 1000, &w).code, ERR_NONE);
    assert_int_equal(w.n, 1);
    assert_true(gpu_windows_at(&w, region + 299000) == (gpu_addr)(uintptr_t)(region + 299000));
    gpu_windows_close(d, &w);
    assert_int_equal(gpu_windows_open(d, region + 1, 5000, 10, &w).code, ERR_ARG);
    gpu_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(trial_decides), cmocka_unit_test(windows),  cmocka_unit_test(barriers),
        cmocka_unit_test(exchanges),     cmocka_unit_test(any_lane), cmocka_unit_test(broken_rules),
        cmocka_unit_test(shapes),
    };
    if (host_runner_open(&runner).code) return 1;
    int failed = cmocka_run_group_tests(tests, NULL, NULL);
    host_runner_close(runner);
    return failed;
}
