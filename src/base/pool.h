/* pool.h: the fork-join threads of the arithmetic.
 *
 *     pool_run(p, fn, ctx, 8):   caller  |0|2|5|   |      fn(ctx, task, worker) once for every task
 * 0 .. 7, worker1 |1|3|4|6|7|      handed out in order to whoever is free; returns when all are
 * done
 *
 * Invariants: a task belongs to one thread, so results cannot depend on the thread count as long as
 * a task's result does not depend on the others'. Tasks should be several per thread, so that a
 * thread that the system takes away delays one task, not a whole share. Idle workers spin briefly,
 * then sleep. One pool_run at a time, from one owner thread. */
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
