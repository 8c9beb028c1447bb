/* io_uring.c: the only file that knows io_uring. Without the library the engine does not exist. */
#include "io/io_impl.h"

static err uring_open(io *o) {
    (void)o;
    return err_make(ERR_UNSUPPORTED, "this build has no io_uring");
}
static void uring_close(io *o) { (void)o; }
static void uring_start(io *o, io_read *r) { (void)o, (void)r; }
static void uring_flush(io *o) { (void)o; }
static io_read *uring_next(io *o, bool wait) { return (void)o, (void)wait, NULL; }

const io_engine_ops io_uring_ops = {uring_open, uring_close, uring_start, uring_flush, uring_next};
