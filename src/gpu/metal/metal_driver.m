/* metal_driver.m: gpu.h over Metal; with metal_device.m the only
 * Objective-C of the project.
 *
 *     device    MTLDevice, the kernels' library, one pipeline for every kernel (and for every
 * format of weights that a launch is made for), all buffers in one table buffer    MTLBuffer in
 * shared storage: memory of the processor and of the GPU alike. gpu_wrap makes one over memory that
 * is there already, so that a read from the SSD lands where the kernels look for it queue
 * MTLCommandQueue, and at most one command buffer that is being filled:
 *
 *         launch, launch, copy, launch ... | event, wait, or COMMIT_AFTER launches: commit
 *
 *               Nothing waits at a commit: the next layer's work is encoded while this one runs
 *     event     MTLSharedEvent for queues, the command buffer that signals it for the caller
 *     graph     the list of calls, encoded again at every run (indirect command buffers take
 * neither setBytes nor addresses)
 *
 * Kernels take one struct by setBytes; addresses in it are MTLBuffer.gpuAddress, so Metal does not
 * see which buffers a kernel touches. Hence two duties: every buffer is made resident (a residency
 * set where the system has them, else useResources in every encoder), and every encoder waits for
 * the fence that the encoder before it updates: hazards are not tracked.
 *
 * Memory rule: no ARC (GNUstep's runtime has none). Every id in a struct here is owned by it:
 * retained or from new/copy/alloc, released where the struct is closed. What a call returns
 * autoreleased is retained if it outlives the call; every entry of the table below that makes
 * Objective-C objects has its own autorelease pool.
 *
 * This file has been compiled and run against tests/metal_stand_in only: it has never met Apple's
 * Metal. docs/MACOS.md says what to look at first. */
#include <stdlib.h>
#include <string.h>

#include "base/bits.h"
#include "gpu/metal/metal_impl.h"

/* A buffer and an offset; buffer nil: memory that the GPU does not see. */
typedef struct metal_place {
    id<MTLBuffer> buffer;
    size_t offset;
    uint8_t *host;
} metal_place;

static metal_place place_of(const metal_device *d, gpu_addr addr, const void *host, size_t bytes) {
    const uint8_t *p = host;
    for (size_t i = 0; i < d->n_memory; i++) {
        const metal_memory *m = &d->memory[i];
        uint64_t offset = p ? (uint64_t)((uintptr_t)p - (uintptr_t)m->host) : addr - m->addr;
        if (offset < m->bytes && bytes <= m->bytes - offset)
            return (metal_place){m->buffer, (size_t)offset, m->host + offset};
    }
    return (metal_place){nil, 0, (uint8_t *)(uintptr_t)p};
}

/* ---- command buffers ---- */

void metal_end_encoder(metal_queue *q) {
    if (q->compute) {
        [q->compute updateFence:q->fence];
        [q->compute endEncoding];
        [q->compute release];
    }
    if (q->blit) {
        [q->blit updateFence:q->fence];
        [q->blit endEncoding];
        [q->blit release];
    }
    q->fence_used |= q->compute || q->blit;
    q->compute = nil;
    q->blit = nil;
}

static err open_buffer(metal_queue *q) {
    if (q->open) return err_none();
    q->open = [[q->queue commandBuffer] retain];
    return q->open ? err_none() : err_make(ERR_IO, "Metal: no command buffer");
}

static err open_compute(metal_queue *q) {
    metal_device *d = device_of_queue(q);
    if (q->compute) return err_none();
    metal_end_encoder(q);
    TRY(open_buffer(q));
    q->compute = [[q->open computeCommandEncoder] retain];
    if (!q->compute) return err_make(ERR_IO, "Metal: no compute encoder");
    if (q->fence_used) [q->compute waitForFence:q->fence];
    if (!d->residency && d->n_memory)
        [q->compute useResources:(const id<MTLResource> _Nonnull *)d->in_use
                           count:d->n_memory
                           usage:MTLResourceUsageRead | MTLResourceUsageWrite];
    return err_none();
}

static err open_blit(metal_queue *q) {
    if (q->blit) return err_none();
    metal_end_encoder(q);
    TRY(open_buffer(q));
    q->blit = [[q->open blitCommandEncoder] retain];
    if (!q->blit) return err_make(ERR_IO, "Metal: no copy encoder");
    if (q->fence_used) [q->blit waitForFence:q->fence];
    return err_none();
}

/* Work of other queues that this one waits for, on the GPU. One that failed never signals: its
 * event is set by hand, or we would wait for ever. */
static void settle_followed(metal_queue *q) {
    metal_device *d = device_of_queue(q);
    for (int i = 0; i < q->n_followed; i++) {
        metal_followed *f = &q->followed[i];
        [f->signal waitUntilCompleted];
        err e = metal_result(d, f->signal);
        if (e.code && [f->event signaledValue] < f -> value) [f->event setSignaledValue:f->value];
        [f->signal release];
        [f->event release];
    }
    q->n_followed = 0;
}

/* Waits for the first n committed buffers. */
static err reap(metal_queue *q, int n) {
    metal_device *d = device_of_queue(q);
    if (n) settle_followed(q);
    for (int i = 0; i < n; i++) {
        [q->pending[i] waitUntilCompleted];
        err e = metal_result(d, q->pending[i]);
        (void)e; /* kept in d->lost */
        [q->pending[i] release];
    }
    q->n_pending -= n;
    memmove(q->pending, q->pending + n, (size_t)q->n_pending * sizeof q->pending[0]);
    return d->lost;
}

static err commit(metal_queue *q) {
    if (!q->open) return err_none();
    metal_end_encoder(q);
    [q->open commit];
    if (q->n_pending == PENDING_MAX) {
        err e = reap(q, PENDING_MAX / 2);
        (void)e; /* shows at the next wait */
    }
    q->pending[q->n_pending++] = q->open;
    q->open = nil;
    q->encoded = 0;
    return err_none();
}

static err wait_all(metal_queue *q) {
    TRY(commit(q));
    return reap(q, q->n_pending);
}

static err metal_finish(gpu_device *base) {
    metal_device *d = device_of(base);
    @autoreleasepool {
        for (metal_queue *q = d->queues; q; q = q->next) TRY(commit(q));
        for (metal_queue *q = d->queues; q; q = q->next) {
            err e = wait_all(q);
            (void)e; /* kept in d->lost; the others are waited for too */
        }
    }
    return d->lost;
}

/* ---- queues ---- */

static void drop_queue(metal_queue *q) {
    metal_queue **at = &device_of_queue(q)->queues;
    while (*at && *at != q) at = &(*at)->next;
    if (*at) *at = q->next;
    [q->queue release];
    [q->fence release];
    free(q);
}

static err metal_queue_open(gpu_device *base, gpu_queue **out) {
    metal_device *d = device_of(base);
    metal_queue *q = calloc(1, sizeof *q);
    if (!q) return err_make(ERR_NOMEM, "no memory for a queue");
    q->base.device = base;
    @autoreleasepool {
        q->queue = [d->device newCommandQueue];
        q->fence = [d->device newFence];
        if (!q->queue || !q->fence) {
            drop_queue(q);
            return err_make(ERR_IO, "Metal: no command queue");
        }
        metal_join_residency(d, q->queue);
    }
    q->next = d->queues;
    d->queues = q;
    *out = &q->base;
    return err_none();
}

static void metal_graph_close(gpu_graph *g) {
    free(((metal_graph *)(void *)g)->calls);
    free(g);
}

static void metal_queue_close(gpu_queue *base) {
    metal_queue *q = queue_of(base);
    @autoreleasepool {
        err ignored = wait_all(q);
        (void)ignored;
        settle_followed(q);
        if (q->recording) metal_graph_close(&q->recording->base);
        drop_queue(q);
    }
}

static err metal_queue_wait(gpu_queue *q) {
    @autoreleasepool {
        return wait_all(queue_of(q));
    }
}

/* ---- launches and copies ---- */

static err do_launch(metal_queue *q, const metal_call *c) {
    metal_device *d = device_of_queue(q);
    id<MTLComputePipelineState> pipeline;
    TRY(metal_pipeline(d, c->kernel, c->args, &pipeline));
    TRY(open_compute(q));
    NSUInteger shared = round_up((size_t)c->shape.shared_bytes + !c->shape.shared_bytes, 16);
    [q->compute setComputePipelineState:pipeline];
    [q->compute setBytes:c->args length:gpu_kernel_args_bytes(c->kernel) atIndex:0];
    [q->compute setThreadgroupMemoryLength:shared atIndex:0];
    [q->compute dispatchThreadgroups:MTLSizeMake((NSUInteger)c->shape.x, (NSUInteger)c->shape.y,
                                                 (NSUInteger)c->shape.z)
               threadsPerThreadgroup:MTLSizeMake((NSUInteger)gpu_kernel_threads(c->kernel), 1, 1)];
    return ++q->encoded >= COMMIT_AFTER ? commit(q) : err_none();
}

/* Metal copies and fills multiples of 4 bytes; the rest, and memory that the GPU does not see, is
 * the processor's, once the queue is done. */
static err do_copy(metal_queue *q, const metal_call *c) {
    metal_device *d = device_of_queue(q);
    bool fill = !c->from && !c->from_host;
    metal_place to = place_of(d, c->to, c->to_host, c->bytes), from = to;
    if (!fill) from = place_of(d, c->from, c->from_host, c->bytes);
    if (!to.host || !from.host)
        return err_make(ERR_ARG, "Metal: a copy of %zu bytes outside of all buffers", c->bytes);
    if (!fill && to.host == from.host) return err_none(); /* the array itself was handed out */
    if (!to.buffer || !from.buffer || (to.offset | from.offset | c->bytes) % 4) {
        TRY(wait_all(q));
        if (fill) {
            memset(to.host, c->byte, c->bytes);
        } else {
            memmove(to.host, from.host, c->bytes);
        }
        return err_none();
    }
    TRY(open_blit(q));
    if (fill) {
        [q->blit fillBuffer:to.buffer range:NSMakeRange(to.offset, c->bytes) value:c->byte];
    } else {
        [q->blit copyFromBuffer:from.buffer
                   sourceOffset:from.offset
                       toBuffer:to.buffer
              destinationOffset:to.offset
                           size:c->bytes];
    }
    return err_none();
}

static err do_call(metal_queue *q, const metal_call *c) {
    TRY(device_of_queue(q)->lost);
    return c->kernel == GPU_KERNEL_COUNT ? do_copy(q, c) : do_launch(q, c);
}

static err do_or_record(gpu_queue *base, const metal_call *c) {
    metal_queue *q = queue_of(base);
    metal_graph *g = q->recording;
    @autoreleasepool {
        if (!g) return do_call(q, c);
    }
    if (g->n == g->room) {
        size_t room = g->room ? g->room * 2 : 64;
        metal_call *more = realloc(g->calls, room * sizeof *more);
        if (!more) return err_make(ERR_NOMEM, "no memory for a graph of %zu calls", room);
        g->calls = more;
        g->room = room;
    }
    g->calls[g->n++] = *c;
    return err_none();
}

static err metal_copy_in(gpu_queue *q, gpu_addr to, const void *from, size_t bytes) {
    metal_call c = {.kernel = GPU_KERNEL_COUNT, .to = to, .from_host = from, .bytes = bytes};
    return do_or_record(q, &c);
}

static err metal_copy_out(gpu_queue *q, void *to, gpu_addr from, size_t bytes) {
    metal_call c = {.kernel = GPU_KERNEL_COUNT, .to_host = to, .from = from, .bytes = bytes};
    return do_or_record(q, &c);
}

static err metal_copy(gpu_queue *q, gpu_addr to, gpu_addr from, size_t bytes) {
    metal_call c = {.kernel = GPU_KERNEL_COUNT, .to = to, .from = from, .bytes = bytes};
    return do_or_record(q, &c);
}

static err metal_fill(gpu_queue *q, gpu_addr to, uint8_t byte, size_t bytes) {
    metal_call c = {.kernel = GPU_KERNEL_COUNT, .to = to, .bytes = bytes, .byte = byte};
    return do_or_record(q, &c);
}

static err metal_launch(gpu_queue *q, gpu_kernel k, gpu_shape shape, const void *args) {
    metal_call c = {.kernel = k, .shape = shape};
    _Static_assert(sizeof(args_matvec) <= ARGS_MAX && ARGS_MAX <= SET_BYTES_MAX, "for setBytes");
    memcpy(c.args, args, gpu_kernel_args_bytes(k));
    return do_or_record(q, &c);
}

/* ---- order ---- */

static err metal_event_open(gpu_device *base, gpu_event **out) {
    metal_event *e = calloc(1, sizeof *e);
    if (!e) return err_make(ERR_NOMEM, "no memory for an event");
    e->base.device = base;
    e->event = [device_of(base)->device newSharedEvent];
    if (!e->event) {
        free(e);
        return err_make(ERR_IO, "Metal: no shared event");
    }
    *out = &e->base;
    return err_none();
}

static void metal_event_close(gpu_event *base) {
    metal_event *e = event_of(base);
    [e->signal release];
    [e->event release];
    free(e);
}

static err metal_event_record(gpu_queue *base, gpu_event *of) {
    metal_queue *q = queue_of(base);
    metal_event *e = event_of(of);
    TRY(device_of_queue(q)->lost);
    @autoreleasepool {
        metal_end_encoder(q);
        TRY(open_buffer(q));
        [q->open encodeSignalEvent:e->event value:++e->value];
        [e->signal release];
        e->signal = [q->open retain];
        return commit(q);
    }
}

static err metal_event_follow(gpu_queue *base, gpu_event *of) {
    metal_queue *q = queue_of(base);
    metal_event *e = event_of(of);
    TRY(device_of_queue(q)->lost);
    if (!e->signal) return err_none();
    @autoreleasepool {
        metal_end_encoder(q);
        if (q->n_followed == FOLLOWED_MAX) TRY(wait_all(q));
        TRY(open_buffer(q));
        [q->open encodeWaitForEvent:e->event value:e->value];
        q->followed[q->n_followed++] =
            (metal_followed){[e->event retain], e -> value, [e->signal retain]};
    }
    return err_none();
}

/* The queue of the event may itself follow others: those first. */
static err metal_event_wait(gpu_event *of) {
    metal_event *e = event_of(of);
    metal_device *d = device_of(of->device);
    if (!e->signal) return d->lost;
    @autoreleasepool {
        for (metal_queue *q = d->queues; q; q = q->next) {
            int n = 0;
            while (n < q->n_pending && q->pending[n] != e->signal) n++;
            if (n < q->n_pending) return reap(q, n + 1);
        }
        [e->signal waitUntilCompleted];
        return metal_result(d, e->signal);
    }
}

static err metal_event_elapsed(gpu_event *from, gpu_event *to, double *ms) {
    metal_event *a = event_of(from), *b = event_of(to);
    if (!a->signal || !b->signal) return err_make(ERR_ARG, "an event that was not recorded");
    *ms = ([b->signal GPUEndTime] - [a->signal GPUEndTime]) * 1e3;
    return device_of(from->device)->lost;
}

static err metal_graph_begin(gpu_queue *base) {
    metal_queue *q = queue_of(base);
    if (q->recording) return err_make(ERR_BUSY, "the queue is recording a graph already");
    q->recording = calloc(1, sizeof *q->recording);
    if (!q->recording) return err_make(ERR_NOMEM, "no memory for a graph");
    q->recording->base.device = base->device;
    return err_none();
}

static err metal_graph_end(gpu_queue *base, gpu_graph **out) {
    metal_queue *q = queue_of(base);
    if (!q->recording) return err_make(ERR_ARG, "the queue is not recording a graph");
    *out = &q->recording->base;
    q->recording = NULL;
    return err_none();
}

static err metal_graph_run(gpu_queue *base, gpu_graph *of) {
    metal_graph *g = (metal_graph *)(void *)of;
    @autoreleasepool {
        for (size_t i = 0; i < g->n; i++) TRY(do_call(queue_of(base), &g->calls[i]));
    }
    return err_none();
}

const gpu_backend *gpu_backend_metal(void) {
    static const gpu_backend table = {
        .name = "metal",
        .count = metal_count,
        .open = metal_open,
        .close = metal_close,
        .info = metal_info,
        .finish = metal_finish,
        .alloc = metal_alloc,
        .wrap = metal_wrap,
        .free = metal_free,
        .queue_open = metal_queue_open,
        .queue_close = metal_queue_close,
        .queue_wait = metal_queue_wait,
        .copy_in = metal_copy_in,
        .copy_out = metal_copy_out,
        .copy = metal_copy,
        .fill = metal_fill,
        .launch = metal_launch,
        .event_open = metal_event_open,
        .event_close = metal_event_close,
        .event_record = metal_event_record,
        .event_follow = metal_event_follow,
        .event_wait = metal_event_wait,
        .event_elapsed = metal_event_elapsed,
        .graph_begin = metal_graph_begin,
        .graph_end = metal_graph_end,
        .graph_run = metal_graph_run,
        .graph_close = metal_graph_close,
    };
    return &table;
}
