/* metal_impl.h: the objects of the Metal backend, for its two Objective-C files. */
#ifndef GPU_METAL_METAL_IMPL_H
#define GPU_METAL_METAL_IMPL_H

#import <Foundation/Foundation.h>
#import <Metal/Metal.h>

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

static inline metal_device *device_of(gpu_device *d) { return (metal_device *)(void *)d; }
static inline metal_queue *queue_of(gpu_queue *q) { return (metal_queue *)(void *)q; }
static inline metal_device *device_of_queue(metal_queue *q) { return device_of(q->base.device); }
static inline metal_event *event_of(gpu_event *e) { return (metal_event *)(void *)e; }

/* metal_device.m */
int metal_count(err *why);
err metal_open(int index, gpu_device **out) MUST_USE;
void metal_close(gpu_device *base);
err metal_info(gpu_device *base, gpu_info *out) MUST_USE;
err metal_alloc(gpu_device *base, gpu_memory kind, size_t bytes, gpu_buffer *out) MUST_USE;
err metal_wrap(gpu_device *base, void *host, size_t bytes, gpu_buffer *out) MUST_USE;
void metal_free(gpu_device *base, gpu_buffer *b);
/* A finished command buffer; the first that failed makes the device lost. */
err metal_result(metal_device *d, id<MTLCommandBuffer> b) MUST_USE;
/* The pipeline of a launch: the general one of the kernel, or one for its format of weights, made
 * when it is first needed. */
err metal_pipeline(metal_device *d, gpu_kernel k, const void *args,
                   id<MTLComputePipelineState> *out) MUST_USE;
void metal_join_residency(metal_device *d, id<MTLCommandQueue> q);

/* metal_driver.m */
void metal_end_encoder(metal_queue *q);

#endif
