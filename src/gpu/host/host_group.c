/* host_group.c: see host_group.h.
 *
 * Fibers run in a ring: whoever has to wait looks for the next fiber that can go on. A fiber can go
 * on when it has not returned and what it waits for has happened:
 *
 *     a barrier      the group's count of barriers passed has grown
 *     an exchange    its SIMD group's count of exchanges has grown; the values of one exchange stay
 *                    valid until the next but one (two sets), when all have read them */
#include "gpu/host/host_group.h"

#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "base/os.h"
#include "gpu/host/host_switch.h"

#define LANES       32
#define STACK_BYTES (64 * 1024)
#define SHARED_MAX  (228 * 1024)
#define CANARY      64 /* bytes after the group's shared memory that nobody may touch */

#if defined(__SANITIZE_ADDRESS__)
#define ASAN_FIBERS 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define ASAN_FIBERS 1
#endif
#endif
#ifdef ASAN_FIBERS
#include <sanitizer/asan_interface.h>
#include <sanitizer/common_interface_defs.h>
#define BEFORE_SWITCH(save, base, bytes) __sanitizer_start_switch_fiber(save, base, bytes)
#define AFTER_SWITCH(save, base, bytes)  __sanitizer_finish_switch_fiber(save, base, bytes)
/* The stack of a fiber that was given up is still marked as in use. */
#define CLEAN_STACK(base) __asan_unpoison_memory_region(base, STACK_BYTES)
#else
#define CLEAN_STACK(base)                ((void)(base))
#define BEFORE_SWITCH(save, base, bytes) ((void)(save), (void)(base), (void)(bytes))
#define AFTER_SWITCH(save, base, bytes)  ((void)(save), (void)(base), (void)(bytes))
#endif

typedef enum fiber_wait { RUNS, AT_BARRIER, AT_EXCHANGE, RETURNED } fiber_wait;

struct host_fiber {
    host_runner *runner;
    void *sp;       /* while it does not run */
    uint8_t *stack; /* owned by the runner */
    void *fake;     /* the address sanitizer's */
    host_where at;
    fiber_wait wait;
    uint64_t until; /* the count that lets it go on */
    int next;       /* in the ring */
};

typedef struct simd_group {
    uint64_t passed; /* exchanges done */
    int arrived;
    uint32_t value[2][LANES];
} simd_group;

struct host_runner {
    host_fiber fiber[HOST_THREADS_MAX];
    simd_group simd[HOST_THREADS_MAX / LANES];
    uint8_t *stacks, *shared; /* owned */
    const host_launch *launch;
    void *home; /* the caller's stack pointer */
    void *home_fake;
    const void *home_stack;
    size_t home_bytes;
    uint64_t barriers; /* passed */
    int at_barrier, returned, ring[HOST_THREADS_MAX];
    const char *broken; /* a rule; the group is given up */
};

err host_runner_open(host_runner **out) {
    host_runner *r = calloc(1, sizeof *r);
    *out = NULL;
    if (!r) return err_make(ERR_NOMEM, "no memory for the kernels' stacks");
    void *stacks = NULL;
    err e = os_map((size_t)HOST_THREADS_MAX * STACK_BYTES, false, &stacks);
    r->stacks = stacks;
    r->shared = malloc(SHARED_MAX + CANARY);
    if (!e.code && !r->shared) e = err_make(ERR_NOMEM, "no memory for the kernels' shared memory");
    if (e.code) {
        host_runner_close(r);
        return e;
    }
    for (int i = 0; i < HOST_THREADS_MAX; i++) {
        r->fiber[i].runner = r;
        r->fiber[i].stack = r->stacks + (size_t)i * STACK_BYTES;
    }
    *out = r;
    return err_none();
}

void host_runner_close(host_runner *r) {
    if (!r) return;
    if (r->stacks) os_unmap(r->stacks, (size_t)HOST_THREADS_MAX * STACK_BYTES);
    free(r->shared);
    free(r);
}

/* ---- switching ---- */

static bool can_run(const host_runner *r, const host_fiber *f) {
    switch (f->wait) {
    case RUNS: return true;
    case AT_BARRIER: return r->barriers >= f->until;
    case AT_EXCHANGE: return r->simd[f->at.thread / LANES].passed >= f->until;
    default: return false;
    }
}

static void go(host_fiber *from, host_fiber *to) {
    to->wait = RUNS;
    BEFORE_SWITCH(from->wait == RETURNED ? NULL : &from->fake, to->stack, STACK_BYTES);
    host_switch(&from->sp, to->sp);
    AFTER_SWITCH(from->fake, NULL, NULL);
}

static void go_home(host_fiber *from) {
    host_runner *r = from->runner;
    BEFORE_SWITCH(NULL, r->home_stack, r->home_bytes);
    host_switch(&from->sp, r->home);
}

/* The fiber waits (or has returned); the next one that can goes on. When none can, the group is
 * done or broken. */
static void yield_from(host_fiber *f) {
    host_runner *r = f->runner;
    for (int i = f->next; i != f->at.thread; i = r->fiber[i].next) {
        if (can_run(r, &r->fiber[i])) {
            go(f, &r->fiber[i]);
            return;
        }
    }
    if (can_run(r, f)) {
        f->wait = RUNS;
        return;
    }
    if (r->returned < r->launch->threads && !r->broken) {
        r->broken = r->returned ? "some threads wait while others have returned"
                                : "threads wait at different places";
    }
    go_home(f);
}

void host_barrier(host_fiber *f) {
    host_runner *r = f->runner;
    f->wait = AT_BARRIER;
    f->until = r->barriers + 1;
    if (++r->at_barrier == r->launch->threads) {
        r->at_barrier = 0;
        r->barriers++;
    }
    yield_from(f);
}

uint32_t host_simd_from(host_fiber *f, uint32_t x, int from) {
    host_runner *r = f->runner;
    simd_group *s = &r->simd[f->at.thread / LANES];
    int lane = f->at.thread % LANES, set = (int)(s->passed & 1);
    s->value[set][lane] = x;
    f->wait = AT_EXCHANGE;
    f->until = s->passed + 1;
    if (++s->arrived == LANES) {
        s->arrived = 0;
        s->passed++;
    }
    yield_from(f);
    return s->value[set][from];
}

uint32_t host_simd_xor(host_fiber *f, uint32_t x, int mask) {
    return host_simd_from(f, x, f->at.thread % LANES ^ mask);
}

/* ---- running ---- */

static void fiber_main(void *argument) {
    host_fiber *f = argument;
    host_runner *r = f->runner;
    AFTER_SWITCH(NULL, &r->home_stack, &r->home_bytes);
    r->launch->body(f->at, r->launch->args, (float *)(void *)r->shared);
    f->wait = RETURNED;
    r->returned++;
    yield_from(f);
}

static void prepare_ring(host_runner *r, const host_launch *l) {
    int step = l->order == 2 ? 7 : 1; /* thread counts are multiples of 32: 7 visits all */
    for (int i = 0; i < l->threads; i++) r->ring[i] = i * step % l->threads;
    for (int i = 0; i < l->threads; i++) {
        int next = r->ring[(i + 1) % l->threads];
        if (l->order == 1) {
            r->fiber[next].next = r->ring[i];
        } else {
            r->fiber[r->ring[i]].next = next;
        }
    }
}

static void run_group(host_runner *r, const host_launch *l, int x, int y, int z) {
    memset(r->simd, 0, sizeof r->simd);
    memset(r->shared, 0xff, (size_t)l->shared_bytes + CANARY); /* NaNs */
    r->barriers = 0;
    r->at_barrier = r->returned = 0;
    for (int i = 0; i < l->threads; i++) {
        host_fiber *f = &r->fiber[i];
        f->at = (host_where){i, l->threads, x, y, z, f};
        f->wait = RUNS;
        CLEAN_STACK(f->stack);
        f->sp = host_stack_new(f->stack, STACK_BYTES, fiber_main, f);
    }
    int first = l->order == 1 ? l->threads - 1 : 0;
    BEFORE_SWITCH(&r->home_fake, r->fiber[first].stack, STACK_BYTES);
    host_switch(&r->home, r->fiber[first].sp);
    AFTER_SWITCH(r->home_fake, NULL, NULL);
    for (int i = 0; i < CANARY; i++) {
        if (r->shared[l->shared_bytes + i] != 0xff) r->broken = "it writes past its shared memory";
    }
}

static err check_shape(const host_launch *l) {
    bool good = l->threads > 0 && l->threads <= HOST_THREADS_MAX && l->threads % LANES == 0 &&
                l->shared_bytes >= 0 && l->shared_bytes <= SHARED_MAX && l->groups_x > 0 &&
                l->groups_y > 0 && l->groups_z > 0 && l->groups_y <= 65535 && l->groups_z <= 65535;
    if (good) return err_none();
    return err_make(ERR_ARG, "kernel %s: %d x %d x %d groups of %d threads, %d bytes shared",
                    l->name, l->groups_x, l->groups_y, l->groups_z, l->threads, l->shared_bytes);
}

err host_run(host_runner *r, const host_launch *l) {
    TRY(check_shape(l));
    r->launch = l;
    r->broken = NULL;
    prepare_ring(r, l);
    for (int z = 0; z < l->groups_z; z++) {
        for (int y = 0; y < l->groups_y; y++) {
            for (int x = 0; x < l->groups_x; x++) {
                run_group(r, l, x, y, z);
                if (r->broken) {
                    return err_make(ERR_CORRUPT, "kernel %s, group %d %d %d: %s", l->name, x, y, z,
                                    r->broken);
                }
            }
        }
    }
    return err_none();
}
