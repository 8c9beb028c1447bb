/* io.h: reads of whole blocks from a fixed set of files, many at once.
 *
 *     owner thread --io_start(read)--> [ at most depth reads in flight ] --io_next--> owner thread
 *                                        io_uring, or threads in pread
 *
 * One interface over three engines: io_uring, a pool of threads in pread on descriptors that bypass
 * the page cache, and the same pool through the page cache. An engine has no queue of its own
 * beyond `depth`: what to read next, and what is urgent, is the caller's matter (store/).
 *
 * A read is finished when all its bytes are there or when nothing helps: it goes on after a short
 * read, and tries again (IO_TRIES_MAX, from the other drive where files are mirrored) after an
 * error. Bytes of a failed read are undefined.
 *
 * Threads: one owner thread makes all calls. A read belongs to the engine from io_start until
 * io_next returns it. Nothing is allocated between io_open and io_close. */
#ifndef IO_IO_H
#define IO_IO_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

#define IO_ALIGN              4096 /* EINTR, EAGAIN: not failures, but bounded too */
#define IO_DEPTH_MAX          256
#define IO_THREADS_MAX        64
#define IO_TRIES_MAX          3
#define IO_INTERRUPTS_MAX     1000 /* EINTR, EAGAIN: no failure, but no endless loop either */
#define IO_DRIVE_FAILURES_MAX 16
#define IO_DRIVES_MAX         2
#define IO_ENDED              (-1) /* io_read.error: the file ends too early */

typedef enum io_backend {
    IO_AUTO,     /* whoever opens the files measures and picks; io_open itself refuses it */
    IO_URING,    /* Linux io_uring, past the page cache */
    IO_PREAD,    /* threads in pread, past the page cache */
    IO_BUFFERED, /* threads in pread, through the page cache */
} io_backend;

/* "auto", "uring", "pread", "buffered". */
const char *io_backend_name(io_backend backend);
/* False, and *out unchanged, for a name that is none of them. */
bool io_backend_parse(const char *name, io_backend *out);
/* Offsets, lengths and addresses must be multiples of IO_ALIGN. */
static inline bool io_backend_direct(io_backend b) { return b == IO_URING || b == IO_PREAD; }

typedef struct io_read {
    /* set by the caller, fixed until io_next returns the read */
    uint8_t *dst;
    int64_t offset;
    uint32_t bytes;
    uint32_t need; /* <= bytes: the file may end after this many (a covering range of its tail) */
    int32_t file;
    int32_t drive; /* 0, or 1 for the mirror */
    void *owner;   /* the caller's, untouched */
    /* result */
    int error;           /* 0, IO_ENDED, or an errno value */
    int64_t error_at;    /* where in the file it happened */
    int tries;           /* failed attempts, successful in the end or not */
    int32_t first_drive; /* of the first attempt */
    /* the engine's */
    uint32_t done;
    int interrupts;
    struct io_read *next;
} io_read;

struct io_fault; /* io_fault.h: failures on demand, for tests */

typedef struct io_options {
    io_backend backend;
    const char *const *paths; /* borrowed until close */
    const char *const
        *mirrors; /* NULL, or the same files on a second drive; borrowed until close */
    int n_files;
    int threads; /* 0: a good default; without meaning for io_uring */
    int depth;   /* 0: a good default */
    /* Where reads will land, in units that no read straddles: registered with the kernel as they
     * are first used, where the engine can. NULL: anywhere. */
    uint8_t *memory;
    size_t memory_bytes, memory_unit;
    struct io_fault *fault; /* NULL outside tests; borrowed until close */
} io_options;

typedef struct io io;

/* Opens every file. ERR_NOT_FOUND / ERR_IO naming the file; ERR_UNSUPPORTED where this machine or
 * file system lacks the engine (try the next one). Mirrors must be as long as their files: else
 * ERR_CORRUPT. */
err io_open(const io_options *options, io **out) MUST_USE;
/* With the first engine that works here of io_uring, threads past the page cache and threads
 * through it; options->backend says which. For whole files once: a store measures and picks. */
err io_open_first(io_options *options, io **out) MUST_USE;
/* Waits for reads in flight, whose io_read is then forgotten. */
void io_close(io *o);

io_backend io_engine(const io *o);
int io_drives(const io *o);
/* False once a drive has failed IO_DRIVE_FAILURES_MAX times: reads should start from the other one.
 */
bool io_drive_works(const io *o, int drive);
/* Bytes of a file at open. */
int64_t io_file_bytes(const io *o, int file);
const char *io_file_path(const io *o, int file, int drive);
int io_in_flight(const io *o);
/* How many more reads can be started now. */
int io_room(const io *o);

/* Starts a read; needs room. A direct engine may hold it back until io_flush or io_next. */
void io_start(io *o, io_read *r);
void io_flush(io *o);
/* A finished read, in any order; NULL when there is none, or with wait only when none is in flight.
 */
io_read *io_next(io *o, bool wait);

/* "file.safetensors at offset 123: Input/output error, after 3 tries". */
err io_read_error(const io *o, const io_read *r) MUST_USE;

#endif
