/* pool.c: see pool.h.
 *
 * Every thread has one 64-bit word on a cache line of its own: the tasks that nobody has begun.
 *
 *     range:   [ job 24 | begin 20 | end 20 ]   the owner takes begin, others the upper half
 *     done:    tasks finished of this job       the caller waits until it reaches n_tasks
 *     job_seq: a 32-bit copy of job             what idle workers sleep on
 *
 * Taking is a compare-and-swap on all three fields, so a worker that wakes late can never take a
 * task of a job that is not the one it read. A word cannot return to a value that it left: its
 * first task is gone then, or, where the upper half was taken, has been begun before the owner
 * refills the word. While a thread holds a task, done cannot reach n_tasks, so fn and ctx stay, and
 * nobody but the owner writes its empty word.
 *
 * One counter for all threads was measured before: with a task of 36 KB of weights, handing it out
 * and counting it took longer than reading it (docs/MEASURED.md, "CPU kernels"). */
#include "base/pool.h"

#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>

#include "base/os.h"

/* How long a thread waits awake before it sleeps: longer than what the caller does alone between
 * two jobs of a layer (normalising, quantising, choosing experts). To wake a sleeping thread costs
 * some 40 us in a virtual machine, several times a layer (docs/MEASURED.md, "Beside llama.cpp"). */
#define SPIN_NS   30000
#define SPIN_LOOK 16 /* pauses between two looks at the clock */
#define TASK_BITS 20
#define TASK_MASK ((1u << TASK_BITS) - 1)
#define JOB_MASK  ((1u << (64 - 2 * TASK_BITS)) - 1)

typedef struct worker {
    _Alignas(64) _Atomic uint64_t range;
    /* fixed after open */
    pool *pool; /* borrowed */
    int index;
    pthread_t thread;
} worker;

struct pool {
    /* fixed after open */
    int threads;
    bool spin; /* not with more threads than processors: whoever waits must make room */
    worker workers[POOL_THREADS_MAX]; /* 0 is the caller */
    /* written by the caller before the ranges are published, read by whoever holds a task */
    pool_fn fn;
    void *ctx;
    uint32_t n_tasks;
    uint32_t job; /* JOB_BITS wide, never 0 */
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

static inline uint64_t word(uint32_t job, uint32_t begin, uint32_t end) {
    return (uint64_t)job << (2 * TASK_BITS) | (uint64_t)begin << TASK_BITS | end;
}

static inline uint32_t word_job(uint64_t w) { return (uint32_t)(w >> (2 * TASK_BITS)); }
static inline uint32_t word_begin(uint64_t w) { return (uint32_t)(w >> TASK_BITS) & TASK_MASK; }
static inline uint32_t word_end(uint64_t w) { return (uint32_t)w & TASK_MASK; }

/* Takes the first task of one's own range, or the upper half of another's; false when none of job
 * is left. */
static bool take(_Atomic uint64_t *range, uint32_t job, bool own, uint32_t *begin, uint32_t *end) {
    uint64_t seen = atomic_load_explicit(range, memory_order_acquire);
    for (;;) {
        uint32_t first = word_begin(seen), last = word_end(seen);
        if (word_job(seen) != job || first >= last) return false;
        uint32_t cut = own ? first + 1 : first + (last - first) / 2;
        uint64_t left = own ? word(job, cut, last) : word(job, first, cut);
        if (!atomic_compare_exchange_weak_explicit(range, &seen, left, memory_order_acq_rel,
                                                   memory_order_acquire))
            continue;
        *begin = own ? first : cut;
        *end = own ? cut : last;
        return true;
    }
}

static void count_done(pool *p, uint32_t n, int index) {
    uint32_t n_tasks = p->n_tasks; /* read before the caller may go on */
    uint32_t finished = atomic_fetch_add(&p->done, n) + n;
    if (finished == n_tasks && index != 0 && atomic_load(&p->caller_sleeps))
        os_wake((uint32_t *)&p->done, 1);
}

/* Runs [begin, end), which this thread has taken, and what its range then offers. */
static void run_tasks(pool *p, uint32_t job, int index, uint32_t begin, uint32_t end) {
    _Atomic uint64_t *own = &p->workers[index].range;
    uint32_t n = 0;
    if (end - begin > 1) {
        atomic_store_explicit(own, word(job, begin + 1, end), memory_order_release);
    }
    do {
        p->fn(p->ctx, (int)begin, index);
        n++;
    } while (take(own, job, true, &begin, &end));
    count_done(p, n, index);
}

/* Runs tasks of job until none is left. */
static void work(pool *p, uint32_t job, int index) {
    uint32_t begin = 0, end = 0;
    if (take(&p->workers[index].range, job, true, &begin, &end)) {
        run_tasks(p, job, index, begin, end);
    }
    bool found = true;
    while (found) {
        found = false;
        for (int i = 1; i < p->threads; i++) {
            worker *other = &p->workers[(index + i) % p->threads];
            while (take(&other->range, job, false, &begin, &end)) {
                run_tasks(p, job, index, begin, end);
                found = true;
            }
        }
    }
}

/* Waits awake until *at is (or, with until false, is no longer) `value`, but not for long. */
static bool spin_until(const pool *p, _Atomic uint32_t *at, uint32_t value, bool until) {
    if (!p->spin) return false;
    uint64_t end = 0;
    for (int i = 1;; i++) {
        if ((atomic_load_explicit(at, memory_order_acquire) == value) == until) return true;
        pause_briefly();
        if (i % SPIN_LOOK) continue;
        uint64_t now = os_now_ns();
        if (!end) end = now + SPIN_NS;
        if (now >= end) return false;
    }
}

/* Waits for a job other than `last`: spins, then sleeps. */
static uint32_t await_job(pool *p, uint32_t last) {
    if (spin_until(p, &p->job_seq, last, false)) return atomic_load(&p->job_seq);
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
    *p = (pool){.threads = 1, .spin = threads <= os_cpu_count()};
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
    if (spin_until(p, &p->done, n_tasks, true)) return;
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
    p->n_tasks = (uint32_t)n_tasks;
    atomic_store_explicit(&p->done, 0, memory_order_relaxed);
    p->job = (p->job + 1) & JOB_MASK;
    if (p->job == 0) p->job = 1;
    for (int i = 0; i < p->threads; i++) {
        int64_t begin = (int64_t)n_tasks * i / p->threads,
                end = (int64_t)n_tasks * (i + 1) / p->threads;
        atomic_store_explicit(&p->workers[i].range, word(p->job, (uint32_t)begin, (uint32_t)end),
                              memory_order_release);
    }
    atomic_store(&p->job_seq, p->job);
    if (atomic_load(&p->sleepers)) os_wake((uint32_t *)&p->job_seq, p->threads);
    work(p, p->job, 0);
    await_done(p, (uint32_t)n_tasks);
}
