/* metal_driver.m: gpu.h over Metal; the only Objective-C of the project.
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
#import <Foundation/Foundation.h>
#import <Metal/Metal.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "gpu/gpu_backend.h"
#include "gpu/metal/metal.h"

#define COMMIT_AFTER  48 /* launches of one command buffer, at most: the GPU should start early */
#define PENDING_MAX   48 /* committed command buffers of a queue; Metal's own limit is 64 */
#define FOLLOWED_MAX  64
#define VARIANTS_MAX  64
#define SET_BYTES_MAX 4096 /* Metal's limit */
#define ARGS_MAX      1024

/* ---- the structs ---- */

typedef struct metal_fixed { /* values of the function constants; -1: left to the arguments */
    int kind, bits, group;
} metal_fixed;

typedef struct metal_variant {
    gpu_kernel kernel;
    metal_fixed fixed;
    id<MTLComputePipelineState> pipeline;
} metal_variant;

typedef struct metal_memory {
    id<MTLBuffer> buffer;
    uint8_t *host;
    gpu_addr addr;
    size_t bytes;
} metal_memory;

typedef struct metal_device {
    gpu_device base;
    id<MTLDevice> device;
    id<MTLLibrary> library;
    metal_variant variants[VARIANTS_MAX];
    int n_variants;
    metal_memory *memory; /* owned [room] */
    size_t n_memory, room, bytes;
    id residency;            /* MTLResidencySet, nil: useResources */
    id<MTLResource> *in_use; /* owned [room]: all buffers, for useResources */
    struct metal_queue *queues;
    err lost; /* the first failure of a command buffer; every later call repeats it */
} metal_device;

typedef struct metal_event {
    gpu_event base;
    id<MTLSharedEvent> event;
    uint64_t value;
    id<MTLCommandBuffer> signal; /* the one that reaches `value`; nil: never recorded */
} metal_event;

typedef struct metal_followed {
    id<MTLSharedEvent> event;
    uint64_t value;
    id<MTLCommandBuffer> signal;
} metal_followed;

typedef struct metal_call { /* of a graph */
    gpu_kernel kernel;      /* GPU_KERNEL_COUNT: a copy or fill */
    gpu_shape shape;
    gpu_addr to, from; /* 0: the host's */
    void *to_host;
    const void *from_host; /* neither from nor from_host: fill */
    size_t bytes;
    uint8_t byte;
    _Alignas(8) uint8_t args[ARGS_MAX];
} metal_call;

typedef struct metal_graph {
    gpu_graph base;
    metal_call *calls; /* owned */
    size_t n, room;
} metal_graph;

typedef struct metal_queue {
    gpu_queue base;
    struct metal_queue *next;
    id<MTLCommandQueue> queue;
    id<MTLFence> fence;
    bool fence_used;
    id<MTLCommandBuffer> open;
    id<MTLComputeCommandEncoder> compute; /* at most one of the two encoders */
    id<MTLBlitCommandEncoder> blit;
    int encoded; /* launches in `open` */
    id<MTLCommandBuffer> pending[PENDING_MAX];
    int n_pending;
    metal_followed followed[FOLLOWED_MAX];
    int n_followed;
    metal_graph *recording; /* owned until graph_end */
} metal_queue;

static metal_device *device_of(gpu_device *d) { return (metal_device *)(void *)d; }
static metal_queue *queue_of(gpu_queue *q) { return (metal_queue *)(void *)q; }
static metal_device *device_of_queue(metal_queue *q) { return device_of(q->base.device); }
static metal_event *event_of(gpu_event *e) { return (metal_event *)(void *)e; }

/* ---- errors by name ---- */

static const char *name_of(NSInteger code) {
    switch (code) {
    case MTLCommandBufferErrorInternal: return "Internal";
    case MTLCommandBufferErrorTimeout: return "Timeout";
    case MTLCommandBufferErrorPageFault: return "PageFault";
    case MTLCommandBufferErrorAccessRevoked: return "AccessRevoked";
    case MTLCommandBufferErrorNotPermitted: return "NotPermitted";
    case MTLCommandBufferErrorOutOfMemory: return "OutOfMemory";
    case MTLCommandBufferErrorInvalidResource: return "InvalidResource";
    case MTLCommandBufferErrorMemoryless: return "Memoryless";
    case MTLCommandBufferErrorDeviceRemoved: return "DeviceRemoved";
    case MTLCommandBufferErrorStackOverflow: return "StackOverflow";
    default: return "unknown";
    }
}

static const char *words_of(NSError *e) {
    const char *text = e ? [[e localizedDescription] UTF8String] : NULL;
    return text ? text : "no reason given";
}

/* A finished command buffer; the first that failed makes the device lost. */
static err result_of(metal_device *d, id<MTLCommandBuffer> b) {
    if ([b status] != MTLCommandBufferStatusError) return d->lost;
    if (d->lost.code) return d->lost;
    NSInteger code = [[b error] code];
    bool memory = code == MTLCommandBufferErrorOutOfMemory;
    d->lost = err_make(memory ? ERR_BUDGET : ERR_IO,
                       "Metal: a command buffer failed: MTLCommandBufferError%s (%ld): %.300s%s",
                       name_of(code), (long)code, words_of([b error]),
                       memory ? "; a smaller --memory leaves the GPU more" : "");
    return d->lost;
}

/* ---- residency sets: macOS 15 and its SDK; without them useResources does it ---- */

#if defined(__APPLE__) && __MAC_OS_X_VERSION_MAX_ALLOWED < 150000
static void open_residency(metal_device *d) { d->residency = nil; }
static void tell_residency(metal_device *d, id<MTLBuffer> b, bool comes) {
    (void)d, (void)b, (void)comes;
}
static void join_residency(metal_device *d, id<MTLCommandQueue> q) { (void)d, (void)q; }
#else
static void open_residency(metal_device *d) {
    if (@available(macOS 15.0, *)) {
        MTLResidencySetDescriptor *wish = [[[MTLResidencySetDescriptor alloc] init] autorelease];
        NSError *ignored = nil;
        d->residency = [d->device newResidencySetWithDescriptor:wish error:&ignored];
    }
}

static void tell_residency(metal_device *d, id<MTLBuffer> buffer, bool comes) {
    if (@available(macOS 15.0, *)) {
        id<MTLResidencySet> set = d->residency;
        if (comes) {
            [set addAllocation:buffer];
        } else {
            [set removeAllocation:buffer];
        }
        [set commit];
    }
}

static void join_residency(metal_device *d, id<MTLCommandQueue> q) {
    if (@available(macOS 15.0, *)) {
        if (d->residency) [q addResidencySet:d->residency];
    }
}
#endif

/* ---- pipelines ---- */

static err new_function(metal_device *d, gpu_kernel k, metal_fixed f, id<MTLFunction> *out) {
    NSError *error = nil;
    const char *name = gpu_kernel_name(k);
    MTLFunctionConstantValues *values = [[[MTLFunctionConstantValues alloc] init] autorelease];
    int each[3] = {f.kind, f.bits, f.group};
    for (NSUInteger i = 0; i < 3; i++)
        [values setConstantValue:&each[i] type:MTLDataTypeInt atIndex:i];
    *out = [d->library newFunctionWithName:[NSString stringWithUTF8String:name]
                            constantValues:values
                                     error:&error];
    if (*out) return err_none();
    return err_make(ERR_UNSUPPORTED, "Metal: no kernel \"%s\": %.300s", name, words_of(error));
}

static err check_pipeline(gpu_kernel k, id<MTLComputePipelineState> p) {
    NSUInteger width = [p threadExecutionWidth], most = [p maxTotalThreadsPerThreadgroup];
    if (width != SIMD_THREADS)
        return err_make(ERR_UNSUPPORTED,
                        "Metal: SIMD groups of %lu threads; the kernels are written for %d",
                        (unsigned long)width, SIMD_THREADS);
    if (most < (NSUInteger)gpu_kernel_threads(k))
        return err_make(
            ERR_UNSUPPORTED,
            "Metal: kernel \"%s\" needs groups of %d threads, and this GPU runs it with "
            "at most %lu",
            gpu_kernel_name(k), gpu_kernel_threads(k), (unsigned long)most);
    return err_none();
}

static err make_pipeline(metal_device *d, gpu_kernel k, metal_fixed f, metal_variant *out) {
    id<MTLFunction> function = nil;
    NSError *error = nil;
    TRY(new_function(d, k, f, &function));
    id<MTLComputePipelineState> p = [d->device newComputePipelineStateWithFunction:function
                                                                             error:&error];
    [function release];
    if (!p)
        return err_make(ERR_UNSUPPORTED, "Metal: no pipeline for kernel \"%s\": %.300s",
                        gpu_kernel_name(k), words_of(error));
    err e = check_pipeline(k, p);
    if (e.code) {
        [p release];
        return e;
    }
    *out = (metal_variant){k, f, p};
    return err_none();
}

static const metal_fixed nothing_fixed = {-1, -1, -1};

static bool same_fixed(metal_fixed a, metal_fixed b) {
    return a.kind == b.kind && a.bits == b.bits && a.group == b.group;
}

static metal_fixed fixed_mat(const gpu_mat *m) { return (metal_fixed){m->kind, m->bits, m->group}; }
static metal_fixed fixed_part(const gpu_part *p) {
    return (metal_fixed){p->kind, p->bits, p->group};
}

/* What all matrices of the launch have in common. */
static metal_fixed fixed_of(gpu_kernel k, const void *args) {
    metal_fixed f = nothing_fixed;
    if (k == GPU_embed) f = fixed_mat(&((const args_embed *)args)->m);
    if (k == GPU_experts) {
        const args_experts *a = args;
        f = fixed_part(&a->gate);
        if (a->up.rows && !same_fixed(f, fixed_part(&a->up))) f = nothing_fixed;
    }
    if (k == GPU_matvec) {
        const args_matvec *a = args;
        f = fixed_mat(&a->m[0]);
        for (int i = 1; i < a->n_mats; i++)
            if (!same_fixed(f, fixed_mat(&a->m[i]))) return nothing_fixed;
    }
    return f;
}

/* The pipeline of a launch: variant k is the general one of kernel k, the others follow as they are
 * first needed. */
static err pipeline_for(metal_device *d, gpu_kernel k, const void *args,
                        id<MTLComputePipelineState> *out) {
    metal_fixed f = fixed_of(k, args);
    *out = d->variants[k].pipeline;
    if (same_fixed(f, nothing_fixed)) return err_none();
    for (int i = GPU_KERNEL_COUNT; i < d->n_variants; i++) {
        metal_variant *v = &d->variants[i];
        if (v->kernel != k || !same_fixed(v->fixed, f)) continue;
        *out = v->pipeline;
        return err_none();
    }
    if (d->n_variants == VARIANTS_MAX) return err_none();
    TRY(make_pipeline(d, k, f, &d->variants[d->n_variants]));
    *out = d->variants[d->n_variants++].pipeline;
    return err_none();
}

/* ---- devices ---- */

static id<MTLDevice> usable_device(err *why) { /* owned by the caller */
    id<MTLDevice> device = MTLCreateSystemDefaultDevice();
    *why = err_none();
    if (!device) {
        *why = err_make(ERR_NOT_FOUND, "Metal finds no GPU");
    } else if (![device supportsFamily:MTLGPUFamilyMetal3] || ![device hasUnifiedMemory]) {
        *why = err_make(ERR_UNSUPPORTED,
                        "Metal: \"%.80s\" is not usable: Apple Silicon and macOS 13 or newer are "
                        "needed",
                        [[device name] UTF8String]);
        [device release];
        device = nil;
    }
    return device;
}

static int metal_count(err *why) {
    @autoreleasepool {
        id<MTLDevice> device = usable_device(why);
        [device release];
        return device ? 1 : 0;
    }
}

#pragma clang diagnostic push
#pragma clang diagnostic ignored "-Wdeprecated-declarations" /* fastMathEnabled, since macOS 15 */
static err compile_library(metal_device *d) {
    MTLCompileOptions *options = [[[MTLCompileOptions alloc] init] autorelease];
    NSError *error = nil;
    [options setLanguageVersion:MTLLanguageVersion3_0];
    [options setFastMathEnabled:NO]; /* division and square root round correctly */
    d->library = [d->device newLibraryWithSource:[NSString stringWithUTF8String:metal_source()]
                                         options:options
                                           error:&error];
    if (d->library) return err_none();
    return err_make(ERR_UNSUPPORTED, "Metal: the kernels do not compile: %.400s", words_of(error));
}
#pragma clang diagnostic pop

static err prepare(metal_device *d) {
    err why;
    d->device = usable_device(&why);
    TRY(why);
    TRY(compile_library(d));
    for (int k = 0; k < GPU_KERNEL_COUNT; k++) {
        TRY(make_pipeline(d, (gpu_kernel)k, nothing_fixed, &d->variants[k]));
        d->n_variants = k + 1;
    }
    open_residency(d);
    return err_none();
}

static void metal_close(gpu_device *base) {
    metal_device *d = device_of(base);
    for (int i = 0; i < d->n_variants; i++) [d->variants[i].pipeline release];
    [d->residency release];
    [d->library release];
    [d->device release];
    free(d->memory);
    free(d->in_use);
    free(d);
}

static err metal_open(int index, gpu_device **out) {
    if (index != 0) return err_make(ERR_NOT_FOUND, "Metal GPU %d: there is only number 0", index);
    metal_device *d = calloc(1, sizeof *d);
    if (!d) return err_make(ERR_NOMEM, "no memory for a GPU's description");
    _Static_assert(VARIANTS_MAX > GPU_KERNEL_COUNT, "room for variants");
    d->base.backend = gpu_backend_metal();
    @autoreleasepool {
        err e = prepare(d);
        if (e.code) {
            metal_close(&d->base);
            return e;
        }
    }
    *out = &d->base;
    return err_none();
}

static err metal_info(gpu_device *base, gpu_info *out) {
    metal_device *d = device_of(base);
    @autoreleasepool {
        size_t most = (size_t)[d->device recommendedMaxWorkingSetSize];
        *out = (gpu_info){.backend = base->backend->name,
                          .memory = most,
                          .free = most > d->bytes ? most - d->bytes : 0,
                          .buffer_max = (size_t)[d->device maxBufferLength],
                          .shared_bytes = (int)[d->device maxThreadgroupMemoryLength],
                          .unified = true};
        const char *name = [[d->device name] UTF8String];
        size_t n = name ? strnlen(name, sizeof out->name - 1) : 0;
        memcpy(out->name, name, n);
        for (int f = 1; f <= 99; f++) /* MTLGPUFamilyApple1 is 1001 */
            if ([d->device supportsFamily:(MTLGPUFamily)(1000 + f)]) out->major = f;
    }
    return d->lost;
}

/* ---- memory ---- */

static err check_size(metal_device *d, size_t bytes) {
    size_t most = (size_t)[d->device maxBufferLength];
    size_t set = (size_t)[d->device recommendedMaxWorkingSetSize];
    if (bytes > most)
        return err_make(ERR_BUDGET, "Metal: a buffer of %zu bytes; this GPU allows %zu", bytes,
                        most);
    if (d->bytes + bytes > set)
        return err_make(ERR_BUDGET,
                        "Metal: %zu bytes asked for and %zu in use; the system lets the GPU have "
                        "%zu (iogpu.wired_limit_mb raises it)",
                        bytes, d->bytes, set);
    return err_none();
}

static err grow_table(metal_device *d) {
    if (d->n_memory < d->room) return err_none();
    size_t room = d->room ? d->room * 2 : 32;
    metal_memory *memory = realloc(d->memory, room * sizeof *memory);
    if (memory) d->memory = memory;
    id<MTLResource> *in_use = realloc(d->in_use, room * sizeof *in_use);
    if (in_use) d->in_use = in_use;
    if (!memory || !in_use) return err_make(ERR_NOMEM, "no memory for the table of GPU buffers");
    d->room = room;
    return err_none();
}

static void end_encoder(metal_queue *q);

/* Takes over `buffer`. Encoders that are open did not name it. */
static err enter_buffer(metal_device *d, id<MTLBuffer> buffer, size_t bytes, gpu_buffer *out) {
    d->memory[d->n_memory] =
        (metal_memory){buffer, [buffer contents], [buffer gpuAddress], (size_t)[buffer length]};
    d->in_use[d->n_memory] = buffer;
    d->bytes += d->memory[d->n_memory].bytes;
    out->host = d->memory[d->n_memory].host;
    out->addr = d->memory[d->n_memory++].addr;
    out->bytes = bytes;
    tell_residency(d, buffer, true);
    for (metal_queue *q = d->queues; q; q = q->next) end_encoder(q);
    return err_none();
}

#define STORAGE (MTLResourceStorageModeShared | MTLResourceHazardTrackingModeUntracked)

static err metal_alloc(gpu_device *base, gpu_memory kind, size_t bytes, gpu_buffer *out) {
    metal_device *d = device_of(base);
    TRY(d->lost);
    @autoreleasepool {
        size_t whole = round_up(bytes, 16);
        TRY(check_size(d, whole));
        TRY(grow_table(d));
        id<MTLBuffer> buffer = [d->device newBufferWithLength:whole options:STORAGE];
        if (!buffer)
            return err_make(ERR_BUDGET, "Metal: no buffer of %zu bytes (%zu are in use)", bytes,
                            d->bytes);
        out->kind = kind;
        return enter_buffer(d, buffer, bytes, out);
    }
}

static err metal_wrap(gpu_device *base, void *host, size_t bytes, gpu_buffer *out) {
    metal_device *d = device_of(base);
    TRY(d->lost);
    @autoreleasepool {
        size_t page = (size_t)getpagesize(), whole = round_up(bytes, page);
        if ((uintptr_t)host % page)
            return err_make(ERR_ARG, "Metal: memory that does not begin at a page");
        TRY(check_size(d, whole));
        TRY(grow_table(d));
        id<MTLBuffer> buffer = [d->device newBufferWithBytesNoCopy:host
                                                            length:whole
                                                           options:STORAGE
                                                       deallocator:nil];
        if (!buffer)
            return err_make(ERR_BUDGET, "Metal: no buffer over %zu bytes (%zu are in use)", bytes,
                            d->bytes);
        out->kind = GPU_WRAPPED;
        return enter_buffer(d, buffer, bytes, out);
    }
}

static void metal_free(gpu_device *base, gpu_buffer *b) {
    metal_device *d = device_of(base);
    @autoreleasepool {
        for (size_t i = 0; i < d->n_memory; i++) {
            metal_memory m = d->memory[i];
            if (m.addr != b->addr) continue;
            tell_residency(d, m.buffer, false);
            d->bytes -= m.bytes;
            d->memory[i] = d->memory[--d->n_memory];
            d->in_use[i] = d->in_use[d->n_memory];
            [m.buffer release];
            return;
        }
    }
}

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

static void end_encoder(metal_queue *q) {
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
    end_encoder(q);
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
    end_encoder(q);
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
        err e = result_of(d, f->signal);
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
        err e = result_of(d, q->pending[i]);
        (void)e; /* kept in d->lost */
        [q->pending[i] release];
    }
    q->n_pending -= n;
    memmove(q->pending, q->pending + n, (size_t)q->n_pending * sizeof q->pending[0]);
    return d->lost;
}

static err commit(metal_queue *q) {
    if (!q->open) return err_none();
    end_encoder(q);
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
        for (metal_queue *q = d->queues; q; q = q->next) TRY(wait_all(q));
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
        join_residency(d, q->queue);
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
    TRY(pipeline_for(d, c->kernel, c->args, &pipeline));
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
        end_encoder(q);
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
        end_encoder(q);
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
        return result_of(d, e->signal);
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
