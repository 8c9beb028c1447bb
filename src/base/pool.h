/* pool.h: the fork-join threads of the arithmetic.
 *
 *     pool_run(p, fn, ctx, 12):   caller   |0 1 2 3 4 5|11|   fn(ctx, task, worker) once for each
 *                                 worker1  |6 7 8 9 10 |      of 0 .. 11; returns when all are done
 *
 * Each thread starts with a run of neighbouring tasks, so that it streams through memory, and
 * takes half of what another has left when its own are done. Taking a task of one's own costs no
 * more than a few nanoseconds: make tasks small (some microseconds), several per thread, so that a
 * thread that the system takes away delays one task and not a whole share. A task belongs to one
 * thread: results cannot depend on the thread count as long as a task's result does not depend on
 * the others'. Idle workers spin briefly, then sleep. One pool_run at a time, from one owner
 * thread. */
#ifndef BASE_POOL_H
#define BASE_POOL_H

#include "base/err.h"

typedef struct pool pool;

typedef void (*pool_fn)(void *ctx, int task, int worker);

#define POOL_THREADS_MAX 256

/* threads includes the caller: 1 starts none. 0 means one per processor. */
err pool_open(int threads, pool **out) MUST_USE;
void pool_close(pool *p);
int pool_threads(const pool *p);

/* worker is 0 (the caller) to threads-1: an index for per-thread scratch. Allocates nothing. */
void pool_run(pool *p, pool_fn fn, void *ctx, int n_tasks);

#endif
