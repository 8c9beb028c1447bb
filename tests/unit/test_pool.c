/* test_pool.c: every task once, by its own worker number, whatever the numbers of tasks, threads
 * and processors; threads that hold a task up do not hold up the others. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "base/pool.h"

enum { TASKS_MAX = 5000 };

typedef struct tally {
    _Atomic int runs[TASKS_MAX];
    _Atomic int inside[POOL_THREADS_MAX]; /* calls that run now, by worker */
    _Atomic int wrong;
    int n_threads, n_tasks;
    int spin; /* of every 16th task */
} tally;

static void count_task(void *ctx, int task, int worker) {
    tally *t = ctx;
    if (task < 0 || task >= t->n_tasks || worker < 0 || worker >= t->n_threads) {
        t->wrong++;
        return;
    }
    if (t->inside[worker]++ != 0) t->wrong++;
    for (volatile int i = 0; task % 16 == 3 && i < t->spin; i++) {
    }
    t->runs[task]++;
    t->inside[worker]--;
}

static void test_every_task_once(void **state) {
    (void)state;
    static const int threads[] = {1, 2, 3, 8, 40}, tasks[] = {0, 1, 2, 3, 7, 16, 100, TASKS_MAX};
    static tally t;
    for (int i = 0; i < 5; i++) {
        pool *p = NULL;
        assert_int_equal(pool_open(threads[i], &p).code, ERR_NONE);
        assert_int_equal(pool_threads(p), threads[i]);
        for (int k = 0; k < 8; k++) {
            memset(&t, 0, sizeof t);
            t.n_threads = threads[i], t.n_tasks = tasks[k], t.spin = 3000;
            pool_run(p, count_task, &t, tasks[k]);
            for (int j = 0; j < TASKS_MAX; j++) assert_int_equal(t.runs[j], j < tasks[k]);
            assert_int_equal(t.wrong, 0);
        }
        pool_close(p);
    }
}

/* Many short jobs with pauses between some: workers are met spinning, asleep and half awake. */
static void test_many_jobs(void **state) {
    (void)state;
    static tally t;
    pool *p = NULL;
    rng r;
    rng_seed(&r, 1);
    assert_int_equal(pool_open(5, &p).code, ERR_NONE);
    memset(&t, 0, sizeof t);
    t.n_threads = 5;
    int64_t want = 0;
    for (int job = 0; job < 4000; job++) {
        t.n_tasks = 1 + (int)(rng_next(&r) % 40);
        t.spin = (int)(rng_next(&r) % 500);
        pool_run(p, count_task, &t, t.n_tasks);
        want += t.n_tasks;
        if (job % 400 == 0) usleep(300);
    }
    int64_t got = 0;
    for (int j = 0; j < TASKS_MAX; j++) got += t.runs[j];
    assert_true(got == want);
    assert_int_equal(t.wrong, 0);
    pool_close(p);
}

typedef struct gate {
    _Atomic int others; /* tasks but the first that are done */
    int n_tasks;
} gate;

/* Task 0 ends when all the others have: the thread that holds it keeps none of its share. */
static void gated(void *ctx, int task, int worker) {
    gate *g = ctx;
    (void)worker;
    if (task == 0) {
        while (g->others < g->n_tasks - 1) usleep(100);
    } else {
        g->others++;
    }
}

static void test_share_of_a_stopped_thread(void **state) {
    (void)state;
    pool *p = NULL;
    assert_int_equal(pool_open(2, &p).code, ERR_NONE);
    for (int i = 0; i < 20; i++) {
        gate g = {0, 2 + i * 7};
        pool_run(p, gated, &g, g.n_tasks);
        assert_int_equal(g.others, g.n_tasks - 1);
    }
    pool_close(p);
}

static void test_limits(void **state) {
    (void)state;
    pool *p = NULL;
    assert_int_equal(pool_open(-1, &p).code, ERR_ARG);
    assert_null(p);
    assert_int_equal(pool_open(POOL_THREADS_MAX + 1, &p).code, ERR_ARG);
    assert_null(p);
    assert_int_equal(pool_open(0, &p).code, ERR_NONE);
    assert_true(pool_threads(p) >= 1);
    pool_close(p);
    pool_close(NULL);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_task_once),
        cmocka_unit_test(test_many_jobs),
        cmocka_unit_test(test_share_of_a_stopped_thread),
        cmocka_unit_test(test_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
