/* metal_device.m: the device, its pipelines and its buffers; metal_driver.m tells the whole story
 * and the rule of memory. */
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/bits.h"
#include "gpu/metal/metal_impl.h"

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

err metal_result(metal_device *d, id<MTLCommandBuffer> b) {
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
void metal_join_residency(metal_device *d, id<MTLCommandQueue> q) { (void)d, (void)q; }
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

void metal_join_residency(metal_device *d, id<MTLCommandQueue> q) {
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

/* Variant k is the general one of kernel k. */
err metal_pipeline(metal_device *d, gpu_kernel k, const void *args,
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

int metal_count(err *why) {
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

void metal_close(gpu_device *base) {
    metal_device *d = device_of(base);
    for (int i = 0; i < d->n_variants; i++) [d->variants[i].pipeline release];
    [d->residency release];
    [d->library release];
    [d->device release];
    free(d->memory);
    free(d->in_use);
    free(d);
}

err metal_open(int index, gpu_device **out) {
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

err metal_info(gpu_device *base, gpu_info *out) {
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
    for (metal_queue *q = d->queues; q; q = q->next) metal_end_encoder(q);
    return err_none();
}

#define STORAGE (MTLResourceStorageModeShared | MTLResourceHazardTrackingModeUntracked)

err metal_alloc(gpu_device *base, gpu_memory kind, size_t bytes, gpu_buffer *out) {
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

err metal_wrap(gpu_device *base, void *host, size_t bytes, gpu_buffer *out) {
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

void metal_free(gpu_device *base, gpu_buffer *b) {
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
