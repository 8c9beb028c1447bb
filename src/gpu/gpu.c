/* gpu.c: the face of gpu.h: finds the backend and passes the call on. */
#include "gpu/gpu.h"

#include <assert.h>
#include <string.h>

#include "gpu/gpu_backend.h"

/* ---- kernels ---- */

typedef struct kernel_info {
    const char *name;
    int threads;
    size_t args_bytes;
} kernel_info;

#define KERNEL_INFO(name, args, threads) {#name, threads, sizeof(args)},
static const kernel_info kernels[] = {GPU_KERNELS(KERNEL_INFO)};

const char *gpu_kernel_name(gpu_kernel k) { return kernels[k].name; }
int gpu_kernel_threads(gpu_kernel k) { return kernels[k].threads; }
size_t gpu_kernel_args_bytes(gpu_kernel k) { return kernels[k].args_bytes; }

/* ---- devices ---- */

static err find(const char *name, const gpu_backend **out) {
    const gpu_backend *all[] = {gpu_backend_cuda(), gpu_backend_metal(), gpu_backend_host()};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (strcmp(all[i]->name, name) == 0) {
            *out = all[i];
            return err_none();
        }
    }
    *out = NULL;
    return err_make(ERR_NOT_FOUND, "no GPU backend \"%s\"; known are cuda, metal, host", name);
}

const char *gpu_best_backend(void) {
    static const char *const names[] = {"cuda", "metal"};
    for (size_t i = 0; i < sizeof names / sizeof *names; i++)
        if (gpu_count(names[i], NULL) > 0) return names[i];
    return NULL;
}

int gpu_count(const char *backend, err *why) {
    const gpu_backend *b;
    err e = find(backend, &b);
    int n = 0;
    if (!e.code) n = b->count(&e);
    if (why) *why = e;
    return n;
}

err gpu_open(const char *backend, int index, gpu_device **out) {
    const gpu_backend *b;
    *out = NULL;
    TRY(find(backend, &b));
    return b->open(index, out);
}

void gpu_close(gpu_device *d) {
    if (d) d->backend->close(d);
}

err gpu_info_get(gpu_device *d, gpu_info *out) { return d->backend->info(d, out); }
err gpu_finish(gpu_device *d) { return d->backend->finish(d); }

void gpu_plain(gpu_device *d, bool plain) {
    if (d->backend->plain) d->backend->plain(d, plain);
}

/* ---- memory ---- */

err gpu_alloc(gpu_device *d, gpu_memory kind, size_t bytes, gpu_buffer *out) {
    memset(out, 0, sizeof *out);
    return d->backend->alloc(d, kind, bytes ? bytes : 1, out);
}

err gpu_wrap(gpu_device *d, void *host, size_t bytes, gpu_buffer *out) {
    memset(out, 0, sizeof *out);
    if (!d->backend->wrap)
        return err_make(ERR_UNSUPPORTED, "%s: the device has its own memory", d->backend->name);
    return d->backend->wrap(d, host, bytes, out);
}

void gpu_free(gpu_device *d, gpu_buffer *b) {
    if (b->addr) d->backend->free(d, b);
    memset(b, 0, sizeof *b);
}

err gpu_pin(gpu_device *d, void *memory, size_t bytes) {
    return d->backend->pin ? d->backend->pin(d, memory, bytes) : err_none();
}

void gpu_unpin(gpu_device *d, void *memory) {
    if (d->backend->unpin) d->backend->unpin(d, memory);
}

/* ---- queues ---- */

err gpu_queue_open(gpu_device *d, gpu_queue **out) {
    *out = NULL;
    return d->backend->queue_open(d, out);
}

void gpu_queue_lean(gpu_queue *q) {
    if (q->device->backend->queue_lean) q->device->backend->queue_lean(q);
}

void gpu_queue_close(gpu_queue *q) {
    if (q) q->device->backend->queue_close(q);
}

static bool due(gpu_device *d, gpu_call k) { return ++d->calls[k] == d->fail_at[k]; }

/* Before a call: a lost device's first error, or the one that a test wants now. */
static err admit(gpu_device *d, gpu_call kind) {
    if (d->failure.code) return d->failure;
    bool any = due(d, GPU_CALL_ANY), own = due(d, kind); /* both are counted */
    return any || own
               ? err_make(ERR_IO, "%s: the card was made to fail by a test", d->backend->name)
               : err_none();
}

/* After one. */
static err keep(gpu_device *d, err e) {
    if (e.code && !d->failure.code) d->failure = e;
    return e;
}

#define CALL(device, kind, call)                                                                   \
    do {                                                                                           \
        gpu_device *d_ = (device);                                                                 \
        err e_ = admit(d_, kind);                                                                  \
        return keep(d_, e_.code ? e_ : d_->backend->call);                                         \
    } while (0)

const err *gpu_failure(const gpu_device *d) { return &d->failure; }

void gpu_fail_at(gpu_device *d, gpu_call kind, int n) { d->fail_at[kind] = d->calls[kind] + n; }
int gpu_calls(const gpu_device *d, gpu_call kind) { return d->calls[kind]; }

/* Waiting is for real on a lost device too: memory is given back afterwards, and what was launched
 * before may still be using it. */
err gpu_queue_wait(gpu_queue *q) {
    err e = admit(q->device, GPU_CALL_WAIT), f = q->device->backend->queue_wait(q);
    return keep(q->device, e.code ? e : f);
}

err gpu_queue_flush(gpu_queue *q) {
    gpu_device *d = q->device;
    if (d->failure.code || !d->backend->queue_flush) return d->failure;
    return keep(d, d->backend->queue_flush(q));
}

err gpu_copy_in(gpu_queue *q, gpu_addr to, const void *from, size_t bytes) {
    if (!bytes) return err_none();
    CALL(q->device, GPU_CALL_COPY, copy_in(q, to, from, bytes));
}

err gpu_copy_out(gpu_queue *q, void *to, gpu_addr from, size_t bytes) {
    if (!bytes) return err_none();
    CALL(q->device, GPU_CALL_COPY, copy_out(q, to, from, bytes));
}

err gpu_copy(gpu_queue *q, gpu_addr to, gpu_addr from, size_t bytes) {
    if (!bytes) return err_none();
    CALL(q->device, GPU_CALL_COPY, copy(q, to, from, bytes));
}

err gpu_fill(gpu_queue *q, gpu_addr to, uint8_t byte, size_t bytes) {
    if (!bytes) return err_none();
    CALL(q->device, GPU_CALL_COPY, fill(q, to, byte, bytes));
}

err gpu_launch(gpu_queue *q, gpu_kernel k, gpu_shape shape, const void *args) {
    assert(k < GPU_KERNEL_COUNT && shape.x > 0 && shape.y > 0 && shape.z > 0);
    CALL(q->device, GPU_CALL_LAUNCH, launch(q, k, shape, args));
}

/* ---- order ---- */

err gpu_event_open(gpu_device *d, gpu_event **out) {
    *out = NULL;
    return d->backend->event_open(d, out);
}

void gpu_event_close(gpu_event *e) {
    if (e) e->device->backend->event_close(e);
}

err gpu_event_record(gpu_queue *q, gpu_event *e) {
    CALL(q->device, GPU_CALL_EVENT, event_record(q, e));
}
err gpu_event_follow(gpu_queue *q, gpu_event *e) {
    CALL(q->device, GPU_CALL_EVENT, event_follow(q, e));
}
err gpu_event_wait(gpu_event *of) {
    err e = admit(of->device, GPU_CALL_WAIT), f = of->device->backend->event_wait(of);
    return keep(of->device, e.code ? e : f);
}

err gpu_event_elapsed(gpu_event *from, gpu_event *to, double *ms) {
    *ms = 0;
    return from->device->backend->event_elapsed(from, to, ms);
}

err gpu_graph_begin(gpu_queue *q) { CALL(q->device, GPU_CALL_GRAPH, graph_begin(q)); }

/* The recording ends also on a lost device: nothing may be left open. */
err gpu_graph_end(gpu_queue *q, gpu_graph **out) {
    *out = NULL;
    err e = admit(q->device, GPU_CALL_GRAPH), f = q->device->backend->graph_end(q, out);
    return keep(q->device, e.code ? e : f);
}

err gpu_graph_run(gpu_queue *q, gpu_graph *g) { CALL(q->device, GPU_CALL_GRAPH, graph_run(q, g)); }

void gpu_graph_close(gpu_graph *g) {
    if (g) g->device->backend->graph_close(g);
}
