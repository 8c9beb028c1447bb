/* io_impl.h: what the engines of io.h share; nobody else includes it. */
#ifndef IO_IO_IMPL_H
#define IO_IO_IMPL_H

#include <stdatomic.h>

#include "io/io.h"

/* What an engine is. All but the threads of its own run on the owner thread. */
typedef struct io_engine_ops {
    err (*open)(io *o) MUST_USE; /* sets o->engine */
    void (*close)(io *o);        /* nothing is in flight */
    void (*start)(io *o, io_read *r);
    void (*flush)(io *o);
    io_read *(*next)(io *o, bool wait);
} io_engine_ops;

struct io {
    /* fixed after open */
    io_options options; /* threads and depth resolved */
    const io_engine_ops *ops;
    void *engine; /* owned by the engine */
    int n_drives;
    int *fds[IO_DRIVES_MAX]; /* [n_files], owned, -1 when not open */
    int64_t *sizes;          /* [n_files], owned */
    /* any thread */
    atomic_int failures[IO_DRIVES_MAX];
    /* owner thread only */
    int in_flight;
};

extern const io_engine_ops io_pread_ops;
extern const io_engine_ops io_uring_ops;

/* Takes the result of one system call for r (bytes, or -errno) into account. True: r is finished.
 * False: read again, r->bytes - r->done bytes at r->offset + r->done into r->dst + r->done from
 * r->drive. Any thread that holds r. */
bool io_advance(io *o, io_read *r, int64_t result);

static inline int io_fd(const io *o, const io_read *r) { return o->fds[r->drive][r->file]; }

#endif
