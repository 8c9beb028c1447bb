/* host_group.h: one group of GPU threads on the processor.
 *
 * Every thread of the group is a fiber: its own stack, switched by hand. barrier and the SIMD words
 * switch to the next fiber and come back when all that must arrive have arrived, so a kernel body
 * runs as written, with real barriers:
 *
 *     fiber 0   ....b            ....s
 *     fiber 1       ....b            ....s        b barrier, s exchange within a SIMD group
 *     fiber 2           ....b
 *                            ^ all have arrived: the first goes on
 *
 * What a GPU leaves undefined is an error here, with the kernel's name: threads of a group that
 * wait at different kinds of places, that wait while others have returned, or that write past the
 * group's shared memory. The order in which the fibers run can be turned round: a body without a
 * missing barrier gives the same bytes in every order (tests compare). */
#ifndef GPU_HOST_HOST_GROUP_H
#define GPU_HOST_HOST_GROUP_H

#include <stdint.h>

#include "base/err.h"

#define HOST_THREADS_MAX 1024

typedef struct host_fiber host_fiber;
typedef struct host_runner host_runner;

typedef struct host_where {
    int thread, threads, group_x, group_y, group_z;
    host_fiber *fiber;
} host_where;

/* The words of gpu_lang.h. */
void host_barrier(host_fiber *f);
uint32_t host_simd_xor(host_fiber *f, uint32_t x, int mask);
uint32_t host_simd_from(host_fiber *f, uint32_t x, int lane);

typedef void (*host_body)(host_where at, const void *args, float *shared);

typedef struct host_launch {
    const char *name;
    host_body body;
    const void *args;
    int threads, groups_x, groups_y, groups_z;
    int shared_bytes;
    int order; /* 0: threads ascending, 1: descending, 2: in steps of 7 */
} host_launch;

/* Holds the stacks; one launch at a time. */
err host_runner_open(host_runner **out) MUST_USE;
void host_runner_close(host_runner *r);

/* Runs all groups, one after the other. ERR_ARG: a shape that no GPU would run; ERR_CORRUPT: the
 * kernel broke a rule above (the launch is given up, its stacks are abandoned). Shared memory is
 * poisoned before every group. */
err host_run(host_runner *r, const host_launch *l) MUST_USE;

#endif
