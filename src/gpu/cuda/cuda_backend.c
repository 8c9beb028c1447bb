/* cuda_backend.c: gpu.h over the CUDA driver. A queue is a stream, a graph an instantiated capture.
 * Every return code is checked; a launch's error names the kernel. The device's context is made
 * current at every call that needs it: a thread may use several devices. */
#include <stdlib.h>
#include <string.h>

#include "gpu/cuda/cuda_hop.h"
#include "gpu/cuda/cuda_impl.h"

typedef struct cuda_event {
    gpu_event base;
    cu_event event;
} cuda_event;

typedef struct cuda_graph {
    gpu_graph base;
    cu_graph graph;
    cu_graph_exec exec;
} cuda_graph;

static cuda_device *device_of(gpu_device *d) { return (cuda_device *)(void *)d; }
static cu_stream stream_of(gpu_queue *q) { return cuda_stream_of(q); }
static cu_event event_of(gpu_event *e) { return ((cuda_event *)(void *)e)->event; }

/* ---- devices ---- */

static int cuda_count(err *why) {
    cuda_api api;
    int n = 0;
    size_t bytes;
    *why = cuda_api_load(&api);
    if (why->code) return 0;
    *why = cuda_result(&api, api.device_count(&n), "cuDeviceGetCount", "driver");
    if (!why->code && n == 0) *why = err_make(ERR_NOT_FOUND, "the NVIDIA driver sees no card");
    if (!why->code && !cuda_image(&bytes)) {
        *why = err_make(ERR_UNSUPPORTED,
                        "this program was built without nvcc and has no kernels for NVIDIA cards");
    }
    return why->code ? 0 : n;
}

err cuda_find(cuda_device *d, const char *name, cu_function *out) {
    CU(d, module_function, "cuModuleGetFunction", name, out, d->module, name);
    /* All shared memory that a group can have, less what it has statically: none. */
    CU(d, function_set, "cuFuncSetAttribute", name, *out, CU_FUNC_MAX_DYNAMIC_SHARED,
       d->shared_bytes);
    return err_none();
}

static err load_kernels(cuda_device *d) {
    size_t bytes;
    const void *image = cuda_image(&bytes);
    if (!image) {
        return err_make(ERR_UNSUPPORTED,
                        "this program was built without nvcc and has no kernels for NVIDIA cards");
    }
    CU(d, module_load, "cuModuleLoadData", "embedded kernels", &d->module, image);
    for (int i = 0; i < GPU_KERNEL_COUNT; i++)
        TRY(cuda_find(d, gpu_kernel_name((gpu_kernel)i), &d->kernel[i]));
    return cuda_fast_load(d);
}

static err prepare(cuda_device *d, int index) {
    int n = 0;
    TRY(cuda_api_load(&d->api));
    CU(d, device_count, "cuDeviceGetCount", "driver", &n);
    if (index < 0 || index >= n) {
        return err_make(ERR_NOT_FOUND, "GPU %d: this machine has %d, numbered from 0", index, n);
    }
    CU(d, device_get, "cuDeviceGet", "index", &d->device, index);
    CU(d, device_attribute, "cuDeviceGetAttribute", "shared memory", &d->shared_bytes,
       CU_ATTR_SHARED_PER_BLOCK_OPTIN, d->device);
    CU(d, context_retain, "cuDevicePrimaryCtxRetain", "device", &d->context, d->device);
    CU(d, context_set, "cuCtxSetCurrent", "device", d->context);
    return load_kernels(d);
}

static void cuda_close(gpu_device *base) {
    cuda_device *d = device_of(base);
    if (d->module) d->api.module_unload(d->module);
    if (d->context) d->api.context_release(d->device);
    free(d);
}

static err cuda_open(int index, gpu_device **out) {
    cuda_device *d = calloc(1, sizeof *d);
    if (!d) return err_make(ERR_NOMEM, "no memory for a GPU's description");
    d->base.backend = gpu_backend_cuda();
    d->index = index;
    err e = prepare(d, index);
    if (e.code) {
        cuda_close(&d->base);
        return e;
    }
    *out = &d->base;
    return err_none();
}

/* Every call that follows may come from a thread that last used another device. */
static err enter(cuda_device *d) {
    return cuda_result(&d->api, d->api.context_set(d->context), "cuCtxSetCurrent", "device");
}

static err cuda_info(gpu_device *base, gpu_info *out) {
    cuda_device *d = device_of(base);
    int khz = 0;
    memset(out, 0, sizeof *out);
    TRY(enter(d));
    out->backend = base->backend->name;
    out->index = d->index;
    out->shared_bytes = d->shared_bytes;
    CU(d, device_name, "cuDeviceGetName", "device", out->name, (int)sizeof out->name, d->device);
    CU(d, device_attribute, "cuDeviceGetAttribute", "units", &out->units, CU_ATTR_UNITS, d->device);
    CU(d, device_attribute, "cuDeviceGetAttribute", "major", &out->major, CU_ATTR_MAJOR, d->device);
    CU(d, device_attribute, "cuDeviceGetAttribute", "minor", &out->minor, CU_ATTR_MINOR, d->device);
    CU(d, device_attribute, "cuDeviceGetAttribute", "clock", &khz, CU_ATTR_CLOCK_KHZ, d->device);
    CU(d, memory_info, "cuMemGetInfo", "device", &out->free, &out->memory);
    out->clock_mhz = khz / 1000.0;
    out->queue_bytes = cuda_hop_bytes(d);
    return err_none();
}

static err flush_all(cuda_device *d) {
    for (cuda_queue *q = d->queues; q; q = q->next) TRY(cuda_flush(&q->base));
    return err_none();
}

static err cuda_finish(gpu_device *base) {
    cuda_device *d = device_of(base);
    TRY(enter(d));
    TRY(flush_all(d));
    return cuda_result(&d->api, d->api.context_synchronize(), "cuCtxSynchronize", "device");
}

static void cuda_plain(gpu_device *base, bool plain) {
    err ignored = flush_all(device_of(base)); /* a lost device says so again at the next wait */
    (void)ignored;
    device_of(base)->plain = plain;
}

/* ---- memory ---- */

static err cuda_alloc(gpu_device *base, gpu_memory kind, size_t bytes, gpu_buffer *out) {
    cuda_device *d = device_of(base);
    TRY(enter(d));
    if (kind == GPU_DEVICE) {
        cu_result r = d->api.memory_alloc(&out->addr, bytes);
        if (r == CU_OUT_OF_MEMORY) {
            size_t free_bytes = 0, total = 0;
            d->api.memory_info(&free_bytes, &total);
            return err_make(ERR_BUDGET, "GPU %d: %zu bytes asked for, %zu of %zu are free",
                            d->index, bytes, free_bytes, total);
        }
        TRY(cuda_result(&d->api, r, "cuMemAlloc", "buffer"));
    } else {
        cu_result r = d->api.host_alloc(&out->host, bytes, CU_HOST_PORTABLE_DEVICEMAP);
        if (r == CU_OUT_OF_MEMORY) {
            return err_make(ERR_NOMEM, "no %zu bytes of memory that GPU %d can copy from", bytes,
                            d->index);
        }
        TRY(cuda_result(&d->api, r, "cuMemHostAlloc", "pinned buffer"));
        CU(d, host_address, "cuMemHostGetDevicePointer", "pinned buffer", &out->addr, out->host, 0);
    }
    out->bytes = bytes;
    out->kind = kind;
    return err_none();
}

static void cuda_free(gpu_device *base, gpu_buffer *b) {
    cuda_device *d = device_of(base);
    d->api.context_set(d->context);
    if (b->kind == GPU_DEVICE) {
        d->api.memory_free(b->addr);
    } else {
        d->api.host_free(b->host);
    }
}

static err cuda_pin(gpu_device *base, void *memory, size_t bytes) {
    cuda_device *d = device_of(base);
    TRY(enter(d));
    cu_result r = d->api.host_register(memory, bytes, CU_HOST_REGISTER_PORTABLE);
    if (r == CU_OUT_OF_MEMORY)
        return err_make(ERR_NOMEM, "no %zu bytes that GPU %d can copy from", bytes, d->index);
    return cuda_result(&d->api, r, "cuMemHostRegister", "memory of the caller");
}

static void cuda_unpin(gpu_device *base, void *memory) {
    cuda_device *d = device_of(base);
    d->api.context_set(d->context);
    d->api.host_unregister(memory);
}

/* ---- queues ---- */

static err cuda_queue_open(gpu_device *base, gpu_queue **out) {
    cuda_device *d = device_of(base);
    TRY(enter(d));
    cuda_queue *q = calloc(1, sizeof *q);
    if (!q) return err_make(ERR_NOMEM, "no memory for a queue");
    q->base.device = base;
    err e = cuda_result(&d->api, d->api.stream_create(&q->stream, CU_STREAM_NON_BLOCKING),
                        "cuStreamCreate", "queue");
    if (e.code) {
        free(q);
        return e;
    }
    q->next = d->queues;
    d->queues = q;
    *out = &q->base;
    return err_none();
}

static void cuda_queue_close(gpu_queue *base) {
    cuda_queue *q = (cuda_queue *)(void *)base;
    cuda_device *d = device_of(base->device);
    d->api.context_set(d->context);
    d->api.stream_destroy(q->stream);
    if (q->scratch) d->api.memory_free(q->scratch);
    cuda_queue **at = &d->queues;
    while (*at != q) at = &(*at)->next;
    *at = q->next;
    free(q);
}

static void cuda_queue_lean(gpu_queue *q) { ((cuda_queue *)(void *)q)->lean = true; }

static err cuda_queue_flush(gpu_queue *q) { return cuda_flush(q); }

static err cuda_queue_wait(gpu_queue *q) {
    cuda_device *d = device_of(q->device);
    TRY(enter(d));
    TRY(cuda_flush(q));
    return cuda_result(&d->api, d->api.stream_synchronize(stream_of(q)), "cuStreamSynchronize",
                       "queue");
}

static err cuda_copy_in(gpu_queue *q, gpu_addr to, const void *from, size_t bytes) {
    cuda_device *d = device_of(q->device);
    TRY(enter(d));
    TRY(cuda_flush(q));
    CU(d, copy_in, "cuMemcpyHtoDAsync", "copy to the GPU", to, from, bytes, stream_of(q));
    return err_none();
}

static err cuda_copy_out(gpu_queue *q, void *to, gpu_addr from, size_t bytes) {
    cuda_device *d = device_of(q->device);
    TRY(enter(d));
    TRY(cuda_flush(q));
    CU(d, copy_out, "cuMemcpyDtoHAsync", "copy from the GPU", to, from, bytes, stream_of(q));
    return err_none();
}

static err cuda_copy(gpu_queue *q, gpu_addr to, gpu_addr from, size_t bytes) {
    cuda_device *d = device_of(q->device);
    TRY(enter(d));
    TRY(cuda_flush(q));
    CU(d, copy, "cuMemcpyDtoDAsync", "copy on the GPU", to, from, bytes, stream_of(q));
    return err_none();
}

static err cuda_fill(gpu_queue *q, gpu_addr to, uint8_t byte, size_t bytes) {
    cuda_device *d = device_of(q->device);
    TRY(enter(d));
    TRY(cuda_flush(q));
    CU(d, fill, "cuMemsetD8Async", "fill", to, byte, bytes, stream_of(q));
    return err_none();
}

err cuda_start(gpu_queue *q, cu_function f, const char *name, gpu_shape shape, int threads,
               void **list) {
    cuda_device *d = device_of(q->device);
    TRY(enter(d));
    if (!d->early) {
        CU(d, launch, "cuLaunchKernel", name, f, (unsigned)shape.x, (unsigned)shape.y,
           (unsigned)shape.z, (unsigned)threads, 1, 1, (unsigned)shape.shared_bytes, stream_of(q),
           list, NULL);
        return err_none();
    }
    cu_launch_attribute early = {.id = CU_LAUNCH_EARLY, .value = {.on = 1}};
    cu_launch_config c = {.grid = {(unsigned)shape.x, (unsigned)shape.y, (unsigned)shape.z},
                          .block = {(unsigned)threads, 1, 1},
                          .shared_bytes = (unsigned)shape.shared_bytes,
                          .stream = stream_of(q),
                          .attributes = &early,
                          .n_attributes = 1};
    CU(d, launch_ex, "cuLaunchKernelEx", name, &c, f, list, NULL);
    return err_none();
}

err cuda_launch_now(gpu_queue *q, gpu_kernel k, gpu_shape shape, const void *args) {
    cuda_device *d = device_of(q->device);
    void *list[] = {(void *)(uintptr_t)args};
    bool done = false;
    TRY(cuda_fast_launch(q, k, args, &done));
    if (done) return err_none();
    return cuda_start(q, d->kernel[k], gpu_kernel_name(k), shape, gpu_kernel_threads(k), list);
}

static err cuda_launch(gpu_queue *q, gpu_kernel k, gpu_shape shape, const void *args) {
    cuda_device *d = device_of(q->device);
    if (d->has_hop && !d->plain) return cuda_put_off(q, k, shape, args);
    return cuda_launch_now(q, k, shape, args);
}

/* ---- order ---- */

static err cuda_event_open(gpu_device *base, gpu_event **out) {
    cuda_device *d = device_of(base);
    TRY(enter(d));
    cuda_event *e = calloc(1, sizeof *e);
    if (!e) return err_make(ERR_NOMEM, "no memory for an event");
    e->base.device = base;
    err failed = cuda_result(&d->api, d->api.event_create(&e->event, 0), "cuEventCreate", "event");
    if (failed.code) {
        free(e);
        return failed;
    }
    *out = &e->base;
    return err_none();
}

static void cuda_event_close(gpu_event *e) {
    cuda_device *d = device_of(e->device);
    d->api.context_set(d->context);
    d->api.event_destroy(event_of(e));
    free(e);
}

static err cuda_event_record(gpu_queue *q, gpu_event *e) {
    cuda_device *d = device_of(q->device);
    TRY(enter(d));
    TRY(cuda_flush(q));
    CU(d, event_record, "cuEventRecord", "event", event_of(e), stream_of(q));
    return err_none();
}

static err cuda_event_follow(gpu_queue *q, gpu_event *e) {
    cuda_device *d = device_of(q->device);
    TRY(enter(d));
    TRY(cuda_flush(q));
    CU(d, stream_wait, "cuStreamWaitEvent", "event", stream_of(q), event_of(e), 0);
    return err_none();
}

static err cuda_event_wait(gpu_event *e) {
    cuda_device *d = device_of(e->device);
    TRY(enter(d));
    CU(d, event_synchronize, "cuEventSynchronize", "event", event_of(e));
    return err_none();
}

static err cuda_event_elapsed(gpu_event *from, gpu_event *to, double *ms) {
    cuda_device *d = device_of(from->device);
    float value = 0;
    TRY(enter(d));
    CU(d, event_elapsed, "cuEventElapsedTime", "event", &value, event_of(from), event_of(to));
    *ms = (double)value;
    return err_none();
}

static err cuda_graph_begin(gpu_queue *q) {
    cuda_device *d = device_of(q->device);
    TRY(enter(d));
    TRY(cuda_flush(q));
    CU(d, capture_begin, "cuStreamBeginCapture", "queue", stream_of(q), CU_CAPTURE_RELAXED);
    return err_none();
}

static void cuda_graph_close(gpu_graph *base) {
    cuda_graph *g = (cuda_graph *)(void *)base;
    cuda_device *d = device_of(base->device);
    d->api.context_set(d->context);
    if (g->exec) d->api.graph_exec_destroy(g->exec);
    if (g->graph) d->api.graph_destroy(g->graph);
    free(g);
}

static err cuda_graph_end(gpu_queue *q, gpu_graph **out) {
    cuda_device *d = device_of(q->device);
    TRY(enter(d));
    TRY(cuda_flush(q));
    cuda_graph *g = calloc(1, sizeof *g);
    if (!g) return err_make(ERR_NOMEM, "no memory for a graph");
    g->base.device = q->device;
    err e = cuda_result(&d->api, d->api.capture_end(stream_of(q), &g->graph), "cuStreamEndCapture",
                        "queue");
    if (!e.code) {
        e = cuda_result(&d->api, d->api.graph_instantiate(&g->exec, g->graph, 0),
                        "cuGraphInstantiate", "recorded launches");
    }
    if (e.code) {
        cuda_graph_close(&g->base);
        return e;
    }
    *out = &g->base;
    return err_none();
}

static err cuda_graph_run(gpu_queue *q, gpu_graph *g) {
    cuda_device *d = device_of(q->device);
    TRY(enter(d));
    TRY(cuda_flush(q));
    CU(d, graph_launch, "cuGraphLaunch", "graph", ((cuda_graph *)(void *)g)->exec, stream_of(q));
    return err_none();
}

const gpu_backend *gpu_backend_cuda(void) {
    static const gpu_backend table = {
        .name = "cuda",
        .count = cuda_count,
        .open = cuda_open,
        .close = cuda_close,
        .info = cuda_info,
        .finish = cuda_finish,
        .plain = cuda_plain,
        .alloc = cuda_alloc,
        .free = cuda_free,
        .pin = cuda_pin,
        .unpin = cuda_unpin,
        .queue_open = cuda_queue_open,
        .queue_close = cuda_queue_close,
        .queue_lean = cuda_queue_lean,
        .queue_flush = cuda_queue_flush,
        .queue_wait = cuda_queue_wait,
        .copy_in = cuda_copy_in,
        .copy_out = cuda_copy_out,
        .copy = cuda_copy,
        .fill = cuda_fill,
        .launch = cuda_launch,
        .event_open = cuda_event_open,
        .event_close = cuda_event_close,
        .event_record = cuda_event_record,
        .event_follow = cuda_event_follow,
        .event_wait = cuda_event_wait,
        .event_elapsed = cuda_event_elapsed,
        .graph_begin = cuda_graph_begin,
        .graph_end = cuda_graph_end,
        .graph_run = cuda_graph_run,
        .graph_close = cuda_graph_close,
    };
    return &table;
}
