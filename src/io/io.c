/* io.c: what every engine needs: files, sizes, and the decision what a result means. */
#include "io/io.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/os.h"
#include "io/io_fault.h"
#include "io/io_impl.h"

static const char *const backend_names[] = {"auto", "uring", "pread", "buffered"};

const char *io_backend_name(io_backend backend) { return backend_names[backend]; }

bool io_backend_parse(const char *name, io_backend *out) {
    for (int i = 0; i < 4; i++) {
        if (strcmp(name, backend_names[i]) == 0) {
            *out = (io_backend)i;
            return true;
        }
    }
    return false;
}

/* An error at the r->done + further'th byte: the read tries again, on the other drive where there
 * is one. True when tries are used up. */
static bool give_up(io *o, io_read *r, int error, uint32_t further) {
    r->error = error;
    r->error_at = r->offset + r->done + further;
    r->tries++;
    atomic_fetch_add(&o->failures[r->drive], 1);
    if (r->tries >= IO_TRIES_MAX) return true;
    if (o->n_drives > 1) {
        r->drive = 1 - r->drive;
        r->done = 0; /* the other copy, from its start: a read never mixes two files */
    }
    return false;
}

bool io_advance(io *o, io_read *r, int64_t result) {
    if (o->options.fault) {
        io_fault_call call = {r->file, r->drive, r->offset + r->done, r->dst + r->done};
        result = io_fault_apply(o->options.fault, &call, result);
    }
    if (result < 0) {
        bool interrupted = result == -EINTR || result == -EAGAIN;
        if (interrupted && r->interrupts++ < IO_INTERRUPTS_MAX) return false;
        return give_up(o, r, (int)-result, 0);
    }
    assert(result <= r->bytes - r->done);
    uint32_t reached = r->done + (uint32_t)result;
    if (reached >= r->need) {
        r->done = reached;
        r->error = 0;
        return true;
    }
    /* Short. A direct read has to go on at a block's begin. */
    uint32_t again = io_backend_direct(o->options.backend) ? reached - reached % IO_ALIGN : reached;
    if (again == r->done) return give_up(o, r, IO_ENDED, (uint32_t)result);
    r->done = again;
    return false;
}

static err open_file(io *o, int drive, int file) {
    const char *path = io_file_path(o, file, drive);
    struct stat st; /* before open, which would wait for a pipe's other end */
    if (stat(path, &st) != 0) return err_system(errno, "%s", path);
    if (!S_ISREG(st.st_mode)) return err_make(ERR_IO, "%s: not a regular file", path);
    TRY(os_open_read(path, io_backend_direct(o->options.backend), &o->fds[drive][file]));
    if (fstat(o->fds[drive][file], &st) != 0) return err_system(errno, "%s", path);
    if (drive == 0) o->sizes[file] = st.st_size;
    if (o->sizes[file] != st.st_size) {
        return err_make(ERR_CORRUPT, "%s: %lld bytes, but %s has %lld: not the same file", path,
                        (long long)st.st_size, io_file_path(o, file, 0), (long long)o->sizes[file]);
    }
    return err_none();
}

static err open_files(io *o) {
    size_t n = (size_t)o->options.n_files;
    o->sizes = calloc(n + 1, sizeof *o->sizes);
    if (!o->sizes) return err_make(ERR_NOMEM, "no memory for the list of files");
    for (int d = 0; d < o->n_drives; d++) {
        o->fds[d] = malloc((n + 1) * sizeof *o->fds[d]);
        if (!o->fds[d]) return err_make(ERR_NOMEM, "no memory for the list of files");
        for (size_t i = 0; i < n; i++) o->fds[d][i] = -1;
        for (int i = 0; i < o->options.n_files; i++) TRY(open_file(o, d, i));
    }
    return err_none();
}

/* Reads the first block of the first file: engines may open and still be refused. */
static err probe(io *o) {
    int file = 0;
    while (file < o->options.n_files && o->sizes[file] == 0) file++;
    if (file == o->options.n_files) return err_none();
    void *block = NULL;
    if (posix_memalign(&block, IO_ALIGN, IO_ALIGN)) return err_make(ERR_NOMEM, "no memory");
    uint32_t need = o->sizes[file] < IO_ALIGN ? (uint32_t)o->sizes[file] : IO_ALIGN;
    bool direct = io_backend_direct(o->options.backend);
    io_read r = {.dst = block, .bytes = direct ? IO_ALIGN : need, .need = need, .file = file};
    struct io_fault *fault = o->options.fault;
    o->options.fault = NULL; /* tests count the reads that they asked for */
    io_start(o, &r);
    io_next(o, true);
    o->options.fault = fault;
    free(block);
    if (!r.error || !direct) return err_none(); /* through the page cache: said when it matters */
    return err_make(ERR_UNSUPPORTED, "%s: cannot be read with %s: %s", io_file_path(o, file, 0),
                    io_backend_name(o->options.backend),
                    r.error == IO_ENDED ? "it ends early" : strerror(r.error));
}

err io_open(const io_options *options, io **out) {
    *out = NULL;
    if (options->backend == IO_AUTO || options->n_files < 0)
        return err_make(ERR_ARG, "no engine for reading was chosen");
    io *o = calloc(1, sizeof *o);
    if (!o) return err_make(ERR_NOMEM, "no memory for reading files");
    o->options = *options;
    o->n_drives = options->mirrors ? 2 : 1;
    o->ops = options->backend == IO_URING ? &io_uring_ops : &io_pread_ops;
    if (o->options.depth <= 0) o->options.depth = 64;
    o->options.depth = int_min(o->options.depth, IO_DEPTH_MAX);
    err e = open_files(o);
    if (!e.code) e = o->ops->open(o);
    if (!e.code) e = probe(o);
    if (e.code) {
        io_close(o);
        return e;
    }
    *out = o;
    return err_none();
}

err io_open_first(io_options *options, io **out) {
    static const io_backend wanted[] = {IO_URING, IO_PREAD, IO_BUFFERED};
    err e = err_none();
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        options->backend = wanted[i];
        e = io_open(options, out);
        if (!e.code) break;
    }
    return e;
}

void io_close(io *o) {
    if (!o) return;
    while (io_next(o, true)) continue;
    o->ops->close(o);
    for (int d = 0; d < o->n_drives; d++) {
        for (int i = 0; o->fds[d] && i < o->options.n_files; i++)
            if (o->fds[d][i] >= 0) close(o->fds[d][i]);
        free(o->fds[d]);
    }
    free(o->sizes);
    free(o);
}

io_backend io_engine(const io *o) { return o->options.backend; }
int io_drives(const io *o) { return o->n_drives; }
int64_t io_file_bytes(const io *o, int file) { return o->sizes[file]; }
bool io_drive_works(const io *o, int drive) {
    return atomic_load(&o->failures[drive]) < IO_DRIVE_FAILURES_MAX;
}

int io_in_flight(const io *o) { return o->in_flight; }
int io_room(const io *o) { return o->options.depth - o->in_flight; }

const char *io_file_path(const io *o, int file, int drive) {
    return drive ? o->options.mirrors[file] : o->options.paths[file];
}

void io_start(io *o, io_read *r) {
    assert(io_room(o) > 0 && r->need <= r->bytes && r->drive < o->n_drives);
    assert(r->file >= 0 && r->file < o->options.n_files);
    r->done = 0;
    r->first_drive = r->drive;
    r->tries = 0;
    r->interrupts = 0;
    r->error = 0;
    r->error_at = 0;
    o->in_flight++;
    o->ops->start(o, r);
}

void io_flush(io *o) { o->ops->flush(o); }

io_read *io_next(io *o, bool wait) {
    if (o->in_flight == 0) return NULL;
    io_read *r = o->ops->next(o, wait);
    if (r) o->in_flight--;
    return r;
}

err io_read_error(const io *o, const io_read *r) {
    const char *path = io_file_path(o, r->file, r->drive);
    if (r->error == IO_ENDED) {
        return err_make(
            ERR_CORRUPT, "%s at offset %lld: the file ends %lld bytes too early, after %d tries",
            path, (long long)r->error_at, (long long)(r->offset + r->need - r->error_at), r->tries);
    }
    return err_make(ERR_IO, "%s at offset %lld: %s, after %d tries", path, (long long)r->error_at,
                    strerror(r->error), r->tries);
}
