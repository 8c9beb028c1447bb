/* io_pread.c: reading with threads that sleep in pread, direct or through the page cache.
 *
 *     start -> [ todo: ring of depth ] -> threads -> [ done: ring of depth ] -> next
 *
 * Both rings hold every read that can be in flight, so they never overflow. */
#include <errno.h>
#include <pthread.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/os.h"
#include "io/io_impl.h"

#define DIRECT_THREADS                                                                             \
    8 /* sleeping threads are cheap; more than the disk's useful depth is not                      \
       */

typedef struct ring {
    uint32_t head, tail; /* both only grow; tail - head reads inside */
    io_read *slots[IO_DEPTH_MAX];
} ring;

static void ring_put(ring *q, io_read *r) { q->slots[q->tail++ % IO_DEPTH_MAX] = r; }
static io_read *ring_take(ring *q) {
    return q->head == q->tail ? NULL : q->slots[q->head++ % IO_DEPTH_MAX];
}

typedef struct reader_pool {
    io *io; /* borrowed; fixed after open */
    int n_threads;
    pthread_t threads[IO_THREADS_MAX];
    pthread_mutex_t lock;
    pthread_cond_t work, finished;
    /* under lock */
    ring todo, done;
    bool stop, owner_waits;
} reader_pool;

static void read_fully(io *o, io_read *r) {
    for (;;) {
        ssize_t n = pread(io_fd(o, r), r->dst + r->done, r->bytes - r->done, r->offset + r->done);
        if (io_advance(o, r, n < 0 ? -(int64_t)errno : (int64_t)n)) return;
    }
}

static void *reader_main(void *arg) {
    reader_pool *p = arg;
    pthread_mutex_lock(&p->lock);
    for (;;) {
        io_read *r = ring_take(&p->todo);
        if (!r) {
            if (p->stop) break;
            pthread_cond_wait(&p->work, &p->lock);
            continue;
        }
        pthread_mutex_unlock(&p->lock);
        read_fully(p->io, r);
        pthread_mutex_lock(&p->lock);
        ring_put(&p->done, r);
        if (p->owner_waits) pthread_cond_signal(&p->finished);
    }
    pthread_mutex_unlock(&p->lock);
    return NULL;
}

static void pread_close(io *o) {
    reader_pool *p = o->engine;
    if (!p) return;
    pthread_mutex_lock(&p->lock);
    p->stop = true;
    pthread_cond_broadcast(&p->work);
    pthread_mutex_unlock(&p->lock);
    for (int i = 0; i < p->n_threads; i++) pthread_join(p->threads[i], NULL);
    pthread_cond_destroy(&p->work);
    pthread_cond_destroy(&p->finished);
    pthread_mutex_destroy(&p->lock);
    free(p);
    o->engine = NULL;
}

static err pread_open(io *o) {
    reader_pool *p = calloc(1, sizeof *p);
    if (!p) return err_make(ERR_NOMEM, "no memory for the reading threads");
    p->io = o;
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->work, NULL);
    pthread_cond_init(&p->finished, NULL);
    o->engine = p;
    int n = o->options.threads;
    if (n <= 0) {
        bool direct = io_backend_direct(o->options.backend);
        n = direct ? DIRECT_THREADS : int_min(4, int_max(2, os_cpu_count()));
    }
    n = int_min(int_min(n, IO_THREADS_MAX), o->options.depth);
    o->options.threads = n;
    for (int i = 0; i < n; i++) {
        int failed = pthread_create(&p->threads[i], NULL, reader_main, p);
        if (failed) return err_system(failed, "cannot start reading thread %d of %d", i + 1, n);
        p->n_threads = i + 1;
    }
    return err_none();
}

static void pread_start(io *o, io_read *r) {
    reader_pool *p = o->engine;
    pthread_mutex_lock(&p->lock);
    ring_put(&p->todo, r);
    pthread_cond_signal(&p->work);
    pthread_mutex_unlock(&p->lock);
}

static void pread_flush(io *o) { (void)o; }

static io_read *pread_next(io *o, bool wait) {
    reader_pool *p = o->engine;
    pthread_mutex_lock(&p->lock);
    io_read *r;
    while (!(r = ring_take(&p->done)) && wait) {
        p->owner_waits = true;
        pthread_cond_wait(&p->finished, &p->lock);
        p->owner_waits = false;
    }
    pthread_mutex_unlock(&p->lock);
    return r;
}

const io_engine_ops io_pread_ops = {pread_open, pread_close, pread_start, pread_flush, pread_next};
