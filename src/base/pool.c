/* pool.c: see pool.h.
 *
 * One 64-bit word carries the job's number, how many tasks it has and the next one to hand out, so
 * that a worker that wakes late can never take a task of a job that is not the one it read: taking
 * is a compare-and-swap on all three.
 *
 *     next:    [ job 24 | n_tasks 20 | next task 20 ]     claimed by anybody
 *     done:    tasks finished of this job   the caller waits until it reaches n_tasks
 *     job_seq: a 32-bit copy of job         what idle workers sleep on */
#include "base/pool.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/os.h"

#define SPIN_WORKER                                                                                \
    4000 /* about 20 us of pauses: longer than the gaps between the steps of a layer */
#define SPIN_CALLER 2000
#define TASK_BITS   20
#define TASK_MASK   ((1u << TASK_BITS) - 1)
#define JOB_MASK    ((1u << (64 - 2 * TASK_BITS)) - 1)

typedef struct worker {
    pool *pool; /* borrowed */
    int index;
    pthread_t thread;
} worker;

struct pool {
    /* fixed after open */
    int threads;
    worker workers[POOL_THREADS_MAX];
    /* written by the caller before next is published, read by workers after they claimed a task of
     * that job */
    pool_fn fn;
    void *ctx;
    uint32_t job; /* JOB_BITS wide, never 0 */
    _Alignas(64) _Atomic uint64_t next;
    _Alignas(64) _Atomic uint32_t done;
    _Atomic uint32_t caller_sleeps;
    _Alignas(64) _Atomic uint32_t job_seq;
    _Atomic uint32_t sleepers;
    _Atomic uint32_t stop;
};

#if defined(__x86_64__)
static inline void pause_briefly(void) { __builtin_ia32_pause(); }
#elif defined(__aarch64__)
static inline void pause_briefly(void) { __asm__ volatile("yield"); }
#else
static inline void pause_briefly(void) {}
#endif

static inline uint32_t word_job(uint64_t word) { return (uint32_t)(word >> (2 * TASK_BITS)); }
static inline uint32_t word_tasks(uint64_t word) {
    return (uint32_t)(word >> TASK_BITS) & TASK_MASK;
}
static inline uint32_t word_next(uint64_t word) { return (uint32_t)word & TASK_MASK; }

/* Runs tasks of job until none is left. fn and ctx are read only while holding a task: they cannot
 * change before done reaches n_tasks, which needs the task we hold. */
static void work(pool *p, uint32_t job, int index) {
    uint64_t seen = atomic_load_explicit(&p->next, memory_order_acquire);
    while (word_job(seen) == job && word_next(seen) < word_tasks(seen)) {
        if (!atomic_compare_exchange_weak_explicit(&p->next, &seen, seen + 1, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        p->fn(p->ctx, (int)word_next(seen), index);
        uint32_t finished = atomic_fetch_add_explicit(&p->done, 1, memory_order_acq_rel) + 1;
        if (finished == word_tasks(seen) && index != 0 && atomic_load(&p->caller_sleeps))
            os_wake((uint32_t *)&p->done, 1);
        seen = atomic_load_explicit(&p->next, memory_order_acquire);
    }
}

/* Waits for a job other than `last`: spins, then sleeps. */
static uint32_t await_job(pool *p, uint32_t last) {
    for (int i = 0; i < SPIN_WORKER; i++) {
        uint32_t job = atomic_load_explicit(&p->job_seq, memory_order_acquire);
        if (job != last) return job;
        pause_briefly();
    }
    atomic_fetch_add(&p->sleepers, 1);
    uint32_t job;
    while ((job = atomic_load(&p->job_seq)) == last) os_wait((uint32_t *)&p->job_seq, last);
    atomic_fetch_sub(&p->sleepers, 1);
    return job;
}

static void *worker_main(void *arg) {
    worker *w = arg;
    uint32_t job = 0;
    for (;;) {
        job = await_job(w->pool, job);
        if (atomic_load(&w->pool->stop)) return NULL;
        work(w->pool, job, w->index);
    }
}

err pool_open(int threads, pool **out) {
    *out = NULL;
    if (threads == 0) threads = os_cpu_count();
    if (threads < 1 || threads > POOL_THREADS_MAX) {
        return err_make(ERR_ARG, "%d threads: between 1 and %d are possible", threads,
                        POOL_THREADS_MAX);
    }
    pool *p = aligned_alloc(64, (sizeof *p + 63) & ~(size_t)63);
    if (!p) return err_make(ERR_NOMEM, "no memory for the thread pool");
    *p = (pool){.threads = 1};
    for (int i = 1; i < threads; i++) {
        worker *w = &p->workers[i];
        *w = (worker){.pool = p, .index = i};
        int failed = pthread_create(&w->thread, NULL, worker_main, w);
        if (failed) {
            pool_close(p);
            return err_system(failed, "cannot start thread %d of %d", i, threads);
        }
        p->threads = i + 1;
    }
    *out = p;
    return err_none();
}

void pool_close(pool *p) {
    if (!p) return;
    atomic_store(&p->stop, 1);
    atomic_fetch_add(&p->job_seq, 1);
    os_wake((uint32_t *)&p->job_seq, POOL_THREADS_MAX);
    for (int i = 1; i < p->threads; i++) pthread_join(p->workers[i].thread, NULL);
    free(p);
}

int pool_threads(const pool *p) { return p->threads; }

static void await_done(pool *p, uint32_t n_tasks) {
    for (int i = 0; i < SPIN_CALLER; i++) {
        if (atomic_load_explicit(&p->done, memory_order_acquire) == n_tasks) return;
        pause_briefly();
    }
    atomic_store(&p->caller_sleeps, 1);
    uint32_t seen;
    while ((seen = atomic_load(&p->done)) < n_tasks) os_wait((uint32_t *)&p->done, seen);
    atomic_store(&p->caller_sleeps, 0);
}

void pool_run(pool *p, pool_fn fn, void *ctx, int n_tasks) {
    assert(n_tasks >= 0 && (uint32_t)n_tasks <= TASK_MASK);
    if (p->threads == 1 || n_tasks <= 1) {
        for (int i = 0; i < n_tasks; i++) fn(ctx, i, 0);
        return;
    }
    p->fn = fn;
    p->ctx = ctx;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    p->job = (p->job + 1) & JOB_MASK;
    if (p->job == 0) p->job = 1;
    uint64_t word = (uint64_t)p->job << (2 * TASK_BITS) | (uint64_t)n_tasks << TASK_BITS;
    atomic_store_explicit(&p->next, word, memory_order_release);
    atomic_store(&p->job_seq, p->job);
    if (atomic_load(&p->sleepers)) os_wake((uint32_t *)&p->job_seq, p->threads);
    work(p, p->job, 0);
    await_done(p, (uint32_t)n_tasks);
}
