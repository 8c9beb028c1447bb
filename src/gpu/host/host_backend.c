/* host_backend.c: gpu.h on the processor: every call is done when it returns, in order; a graph is
 * a list of the recorded calls. The kernels run under the rules of host_group.h, so a test that
 * passes here has barriers where they are needed. Memory on the "device" is ordinary memory with an
 * unreadable page after every buffer: a kernel that runs past its buffer stops the test. */
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/bits.h"
#include "base/os.h"
#include "gpu/gpu_backend.h"
#include "gpu/host/host_kernels.h"

#define ARGS_MAX 1024

typedef struct host_device {
    gpu_device base;
    host_runner *runner;
    int order;  /* of the fibers; changes with every launch */
    err broken; /* the first error; the device is lost */
} host_device;

typedef struct host_call { /* of a graph */
    gpu_kernel kernel;     /* GPU_KERNEL_COUNT: a copy or fill */
    gpu_shape shape;
    void *to;
    const void *from; /* NULL: fill */
    size_t bytes;
    uint8_t byte;
    _Alignas(8) uint8_t args[ARGS_MAX];
} host_call;

typedef struct host_graph {
    gpu_graph base;
    host_call *calls; /* owned */
    size_t n, room;
} host_graph;

typedef struct host_queue {
    gpu_queue base;
    host_graph *recording; /* owned until graph_end */
} host_queue;

typedef struct host_event {
    gpu_event base;
    uint64_t at_ns;
} host_event;

static host_device *device_of(gpu_device *d) { return (host_device *)(void *)d; }

static int host_count(err *why) {
    *why = err_none();
    return 1;
}

static err host_open(int index, gpu_device **out) {
    if (index != 0) return err_make(ERR_NOT_FOUND, "host GPU %d: there is only number 0", index);
    host_device *d = calloc(1, sizeof *d);
    if (!d) return err_make(ERR_NOMEM, "no memory for the host GPU");
    d->base.backend = gpu_backend_host();
    err e = host_runner_open(&d->runner);
    if (e.code) {
        free(d);
        return e;
    }
    *out = &d->base;
    return err_none();
}

static void host_close(gpu_device *d) {
    host_runner_close(device_of(d)->runner);
    free(d);
}

static err host_info(gpu_device *d, gpu_info *out) {
    os_memory m;
    os_memory_get(&m);
    *out = (gpu_info){.name = "host",
                      .backend = d->backend->name,
                      .units = 1,
                      .memory = m.total,
                      .free = m.available,
                      .shared_bytes = 48 * 1024};
    return err_none();
}

static err host_finish(gpu_device *d) { return device_of(d)->broken; }

/* ---- memory: the buffer ends at a page that cannot be touched ---- */

static size_t page_bytes(void) { return (size_t)sysconf(_SC_PAGESIZE); }

static err host_alloc(gpu_device *d, gpu_memory kind, size_t bytes, gpu_buffer *out) {
    (void)d;
    size_t page = page_bytes(), used = round_up(bytes, 16), whole = round_up(used, page) + page;
    void *base = mmap(NULL, whole, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (base == MAP_FAILED) {
        return err_make(kind == GPU_PINNED ? ERR_NOMEM : ERR_BUDGET,
                        "host GPU: no memory for a buffer of %zu bytes", bytes);
    }
    uint8_t *guard = (uint8_t *)base + whole - page;
    if (mprotect(guard, page, PROT_NONE) != 0) {
        munmap(base, whole);
        return err_make(ERR_IO, "host GPU: cannot protect a page");
    }
    memset(base, 0xff, whole - page); /* what nobody wrote is NaN */
    out->host = guard - used;
    out->addr = (gpu_addr)(uintptr_t)out->host;
    out->bytes = bytes;
    out->kind = kind;
    return err_none();
}

static err host_wrap(gpu_device *d, void *host, size_t bytes, gpu_buffer *out) {
    (void)d;
    if ((uintptr_t)host % page_bytes())
        return err_make(ERR_ARG, "host GPU: memory that does not begin at a page");
    *out = (gpu_buffer){
        .addr = (gpu_addr)(uintptr_t)host, .host = host, .bytes = bytes, .kind = GPU_WRAPPED};
    return err_none();
}

static void host_free(gpu_device *d, gpu_buffer *b) {
    (void)d;
    if (b->kind == GPU_WRAPPED) return;
    size_t page = page_bytes(), used = round_up(b->bytes, 16), whole = round_up(used, page) + page;
    munmap((uint8_t *)b->host + used + page - whole, whole);
}

/* ---- queues ---- */

static err host_queue_open(gpu_device *d, gpu_queue **out) {
    host_queue *q = calloc(1, sizeof *q);
    if (!q) return err_make(ERR_NOMEM, "no memory for a queue");
    q->base.device = d;
    *out = &q->base;
    return err_none();
}

static void host_graph_close(gpu_graph *g) {
    free(((host_graph *)(void *)g)->calls);
    free(g);
}

static void host_queue_close(gpu_queue *q) {
    host_queue *h = (host_queue *)(void *)q;
    if (h->recording) host_graph_close(&h->recording->base);
    free(h);
}

static err host_queue_wait(gpu_queue *q) { return host_finish(q->device); }

static void *at(gpu_addr a) { return (void *)(uintptr_t)a; }

static err run_call(host_device *d, const host_call *c) {
    if (d->broken.code) return d->broken;
    if (c->kernel == GPU_KERNEL_COUNT) {
        if (c->from) {
            memmove(c->to, c->from, c->bytes);
        } else {
            memset(c->to, c->byte, c->bytes);
        }
        return err_none();
    }
    host_launch l = {.name = gpu_kernel_name(c->kernel),
                     .body = host_kernel_body((int)c->kernel),
                     .args = c->args,
                     .threads = gpu_kernel_threads(c->kernel),
                     .groups_x = c->shape.x,
                     .groups_y = c->shape.y,
                     .groups_z = c->shape.z,
                     .shared_bytes = c->shape.shared_bytes,
                     .order = d->order};
    d->order = (d->order + 1) % 3;
    d->broken = host_run(d->runner, &l);
    return d->broken;
}

static err do_or_record(gpu_queue *q, const host_call *c) {
    host_graph *g = ((host_queue *)(void *)q)->recording;
    if (!g) return run_call(device_of(q->device), c);
    if (g->n == g->room) {
        size_t room = g->room ? g->room * 2 : 64;
        host_call *more = realloc(g->calls, room * sizeof *more);
        if (!more) return err_make(ERR_NOMEM, "no memory for a graph of %zu calls", room);
        g->calls = more;
        g->room = room;
    }
    g->calls[g->n++] = *c;
    return err_none();
}

static err host_copy_in(gpu_queue *q, gpu_addr to, const void *from, size_t bytes) {
    host_call c = {.kernel = GPU_KERNEL_COUNT, .to = at(to), .from = from, .bytes = bytes};
    return do_or_record(q, &c);
}

static err host_copy_out(gpu_queue *q, void *to, gpu_addr from, size_t bytes) {
    host_call c = {.kernel = GPU_KERNEL_COUNT, .to = to, .from = at(from), .bytes = bytes};
    return do_or_record(q, &c);
}

static err host_copy(gpu_queue *q, gpu_addr to, gpu_addr from, size_t bytes) {
    return host_copy_in(q, to, at(from), bytes);
}

static err host_fill(gpu_queue *q, gpu_addr to, uint8_t byte, size_t bytes) {
    host_call c = {.kernel = GPU_KERNEL_COUNT, .to = at(to), .bytes = bytes, .byte = byte};
    return do_or_record(q, &c);
}

static err host_launch_kernel(gpu_queue *q, gpu_kernel k, gpu_shape shape, const void *args) {
    host_call c = {.kernel = k, .shape = shape};
    _Static_assert(sizeof(args_matvec) <= ARGS_MAX, "the largest arguments");
    memcpy(c.args, args, gpu_kernel_args_bytes(k));
    return do_or_record(q, &c);
}

/* ---- order ---- */

static err host_event_open(gpu_device *d, gpu_event **out) {
    host_event *e = calloc(1, sizeof *e);
    if (!e) return err_make(ERR_NOMEM, "no memory for an event");
    e->base.device = d;
    *out = &e->base;
    return err_none();
}

static void host_event_close(gpu_event *e) { free(e); }

static err host_event_record(gpu_queue *q, gpu_event *e) {
    (void)q;
    ((host_event *)(void *)e)->at_ns = os_now_ns();
    return err_none();
}

static err host_event_follow(gpu_queue *q, gpu_event *e) {
    (void)e;
    return host_finish(q->device);
}

static err host_event_wait(gpu_event *e) { return host_finish(e->device); }

static err host_event_elapsed(gpu_event *from, gpu_event *to, double *ms) {
    uint64_t a = ((host_event *)(void *)from)->at_ns, b = ((host_event *)(void *)to)->at_ns;
    *ms = (double)(b - a) / 1e6;
    return err_none();
}

static err host_graph_begin(gpu_queue *q) {
    host_queue *h = (host_queue *)(void *)q;
    if (h->recording) return err_make(ERR_BUSY, "the queue is recording a graph already");
    h->recording = calloc(1, sizeof *h->recording);
    if (!h->recording) return err_make(ERR_NOMEM, "no memory for a graph");
    h->recording->base.device = q->device;
    return err_none();
}

static err host_graph_end(gpu_queue *q, gpu_graph **out) {
    host_queue *h = (host_queue *)(void *)q;
    if (!h->recording) return err_make(ERR_ARG, "the queue is not recording a graph");
    *out = &h->recording->base;
    h->recording = NULL;
    return err_none();
}

static err host_graph_run(gpu_queue *q, gpu_graph *g) {
    host_graph *h = (host_graph *)(void *)g;
    for (size_t i = 0; i < h->n; i++) TRY(run_call(device_of(q->device), &h->calls[i]));
    return err_none();
}

const gpu_backend *gpu_backend_host(void) {
    static const gpu_backend table = {
        .name = "host",
        .count = host_count,
        .open = host_open,
        .close = host_close,
        .info = host_info,
        .finish = host_finish,
        .alloc = host_alloc,
        .wrap = host_wrap,
        .free = host_free,
        .queue_open = host_queue_open,
        .queue_close = host_queue_close,
        .queue_wait = host_queue_wait,
        .copy_in = host_copy_in,
        .copy_out = host_copy_out,
        .copy = host_copy,
        .fill = host_fill,
        .launch = host_launch_kernel,
        .event_open = host_event_open,
        .event_close = host_event_close,
        .event_record = host_event_record,
        .event_follow = host_event_follow,
        .event_wait = host_event_wait,
        .event_elapsed = host_event_elapsed,
        .graph_begin = host_graph_begin,
        .graph_end = host_graph_end,
        .graph_run = host_graph_run,
        .graph_close = host_graph_close,
    };
    return &table;
}
