/* io_uring.c: the only file that knows io_uring.
 *
 *     start -> [ unsent: list ] --flush--> [ ring ] --next--> finished, or sent again for the rest
 *
 * No threads: the owner submits and reaps. Files are registered; so is the memory that reads land
 * in, unit by unit when it is first used, because registering pins (and so touches) all pages of a
 * unit. Where the kernel refuses one of these, plain reads and descriptors do. Where it refuses to
 * take reads at all once they are in its queue, the unsent ones are read with pread: slower, never
 * lost. */
#include "io/io_impl.h"

#ifdef FM_HAVE_URING
#include <assert.h>
#include <errno.h>
#include <liburing.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "io/io_fault.h"

#define UNITS_MAX       16384 /* the kernel's limit of registered buffers */
#define SUBMIT_TRIES    1000
#define UNIT_NEW        0
#define UNIT_REGISTERED 1
#define UNIT_REFUSED    2

typedef struct uring {
    struct io_uring ring;
    bool ring_open, files_fixed, memory_fixed, broken;
    size_t n_units;
    uint8_t *units; /* [n_units] UNIT_*, owned */
    io_read *unsent_head, *unsent_tail;
    int n_unsent, n_sent; /* in the list; in the kernel */
} uring;

static void unsent_put(uring *u, io_read *r) {
    r->next = NULL;
    if (u->unsent_tail)
        u->unsent_tail->next = r;
    else
        u->unsent_head = r;
    u->unsent_tail = r;
    u->n_unsent++;
}

static io_read *unsent_take(uring *u) {
    io_read *r = u->unsent_head;
    u->unsent_head = r->next;
    if (!u->unsent_head) u->unsent_tail = NULL;
    u->n_unsent--;
    return r;
}

/* The index of the registered buffer that holds dst, or -1. */
static int fixed_buffer(io *o, const io_read *r) {
    uring *u = o->engine;
    if (!u->memory_fixed || r->dst < o->options.memory) return -1;
    size_t at = (size_t)(r->dst - o->options.memory);
    if (at >= o->options.memory_bytes) return -1;
    size_t unit = at / o->options.memory_unit, start = unit * o->options.memory_unit;
    size_t length = size_min(o->options.memory_unit, o->options.memory_bytes - start);
    if (at + r->bytes > start + length) return -1;
    if (u->units[unit] == UNIT_NEW) {
        struct iovec v = {o->options.memory + start, length};
        __u64 tag = 0;
        int done = io_uring_register_buffers_update_tag(&u->ring, (unsigned)unit, &v, &tag, 1);
        u->units[unit] = done == 1 ? UNIT_REGISTERED : UNIT_REFUSED;
    }
    return u->units[unit] == UNIT_REGISTERED ? (int)unit : -1;
}

static void prepare(io *o, io_read *r) {
    uring *u = o->engine;
    struct io_uring_sqe *sqe = io_uring_get_sqe(&u->ring);
    assert(sqe); /* the ring is as deep as reads can be in flight */
    int file = r->drive * o->options.n_files + r->file;
    int fd = u->files_fixed ? file : io_fd(o, r);
    int buffer = fixed_buffer(o, r);
    uint8_t *dst = r->dst + r->done;
    unsigned bytes = r->bytes - r->done;
    __u64 offset = (__u64)(r->offset + r->done);
    if (buffer >= 0)
        io_uring_prep_read_fixed(sqe, fd, dst, bytes, offset, buffer);
    else
        io_uring_prep_read(sqe, fd, dst, bytes, offset);
    if (u->files_fixed) io_uring_sqe_set_flags(sqe, IOSQE_FIXED_FILE);
    io_uring_sqe_set_data(sqe, r);
    unsent_put(u, r);
}

/* Hands prepared reads to the kernel, waiting for one to finish if `wait`. */
static void submit(io *o, unsigned wait) {
    uring *u = o->engine;
    for (int tries = 0; !u->broken; tries++) {
        bool refuse = o->options.fault && atomic_load(&o->options.fault->refuse);
        int sent = refuse ? -EBUSY : io_uring_submit_and_wait(&u->ring, wait);
        for (int i = 0; i < sent && u->n_unsent; i++) {
            unsent_take(u);
            u->n_sent++;
        }
        if (sent >= 0 || sent == -EINTR || io_uring_cq_ready(&u->ring)) return;
        if (tries >= SUBMIT_TRIES) u->broken = true;
    }
}

static void uring_close(io *o) {
    uring *u = o->engine;
    if (!u) return;
    if (u->ring_open) io_uring_queue_exit(&u->ring);
    free(u->units);
    free(u);
    o->engine = NULL;
}

static void register_files(io *o) {
    uring *u = o->engine;
    size_t n = (size_t)o->options.n_files;
    int *fds = calloc(n * (size_t)o->n_drives + 1, sizeof *fds);
    if (!fds) return;
    for (int d = 0; d < o->n_drives; d++) memcpy(fds + (size_t)d * n, o->fds[d], n * sizeof *fds);
    u->files_fixed = io_uring_register_files(&u->ring, fds, (unsigned)(o->n_drives * (int)n)) == 0;
    free(fds);
}

static void register_memory(io *o) {
    uring *u = o->engine;
    if (!o->options.memory || o->options.memory_unit == 0) return;
    u->n_units = (o->options.memory_bytes + o->options.memory_unit - 1) / o->options.memory_unit;
    if (u->n_units == 0 || u->n_units > UNITS_MAX) return;
    u->units = calloc(u->n_units, 1);
    if (!u->units) return;
    u->memory_fixed = io_uring_register_buffers_sparse(&u->ring, (unsigned)u->n_units) == 0;
}

static err uring_open(io *o) {
    uring *u = calloc(1, sizeof *u);
    if (!u) return err_make(ERR_NOMEM, "no memory for io_uring");
    o->engine = u;
    /* Completions need no interrupt of the computing thread: it comes by often enough. */
    struct io_uring_params params = {.flags =
                                         IORING_SETUP_COOP_TASKRUN | IORING_SETUP_TASKRUN_FLAG};
    int failed = io_uring_queue_init_params((unsigned)o->options.depth, &u->ring, &params);
    if (failed == -EINVAL) { /* kernels before 5.19 */
        memset(&params, 0, sizeof params);
        failed = io_uring_queue_init_params((unsigned)o->options.depth, &u->ring, &params);
    }
    if (failed)
        return err_make(ERR_UNSUPPORTED, "this system refuses io_uring: %s", strerror(-failed));
    u->ring_open = true;
    register_files(o);
    register_memory(o);
    return err_none();
}

static void uring_start(io *o, io_read *r) {
    uring *u = o->engine;
    if (u->broken)
        unsent_put(u, r);
    else
        prepare(o, r);
}

static void uring_flush(io *o) {
    uring *u = o->engine;
    if (u->n_unsent && !u->broken) submit(o, 0);
}

/* With a ring that takes no more: reads one of the unsent without it. */
static io_read *read_without(io *o) {
    uring *u = o->engine;
    io_read *r = unsent_take(u);
    for (;;) {
        ssize_t n = pread(io_fd(o, r), r->dst + r->done, r->bytes - r->done, r->offset + r->done);
        if (io_advance(o, r, n < 0 ? -(int64_t)errno : (int64_t)n)) return r;
    }
}

/* A finished read that the kernel has reported, after sending unfinished ones again. */
static io_read *reap(io *o) {
    uring *u = o->engine;
    struct io_uring_cqe *cqe;
    while (io_uring_peek_cqe(&u->ring, &cqe) == 0) {
        io_read *r = io_uring_cqe_get_data(cqe);
        int result = cqe->res;
        io_uring_cqe_seen(&u->ring, cqe);
        u->n_sent--;
        if (io_advance(o, r, result)) return r;
        if (u->broken)
            unsent_put(u, r);
        else
            prepare(o, r);
    }
    return NULL;
}

static io_read *uring_next(io *o, bool wait) {
    uring *u = o->engine;
    for (;;) {
        io_read *r = reap(o);
        if (r) return r;
        if (u->broken && u->n_sent == 0) return u->n_unsent ? read_without(o) : NULL;
        struct io_uring_cqe *cqe;
        if (!u->broken && (u->n_unsent || wait))
            submit(o, wait);
        else if (wait)
            io_uring_wait_cqe(&u->ring, &cqe);
        if (!wait) return reap(o);
    }
}
#else
static err uring_open(io *o) {
    (void)o;
    return err_make(ERR_UNSUPPORTED, "this build has no io_uring");
}
static void uring_close(io *o) { (void)o; }
static void uring_start(io *o, io_read *r) { (void)o, (void)r; }
static void uring_flush(io *o) { (void)o; }
static io_read *uring_next(io *o, bool wait) { return (void)o, (void)wait, NULL; }
#endif

const io_engine_ops io_uring_ops = {uring_open, uring_close, uring_start, uring_flush, uring_next};
