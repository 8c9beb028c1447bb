/* gpu_backend.h: what a backend brings; private to src/gpu. The objects of a backend begin with the
 * public struct's first member here, so gpu.c can find the table. */
#ifndef GPU_GPU_BACKEND_H
#define GPU_GPU_BACKEND_H

#include "gpu/gpu.h"

typedef struct gpu_backend {
    const char *name;
    int (*count)(err *why);
    err (*open)(int index, gpu_device **out);
    void (*close)(gpu_device *d);
    err (*info)(gpu_device *d, gpu_info *out);
    err (*finish)(gpu_device *d);
    void (*plain)(gpu_device *d, bool plain); /* NULL: has portable bodies only */
    err (*alloc)(gpu_device *d, gpu_memory kind, size_t bytes, gpu_buffer *out);
    err (*wrap)(gpu_device *d, void *host, size_t bytes, gpu_buffer *out); /* NULL: cannot */
    void (*free)(gpu_device *d, gpu_buffer *b);
    err (*pin)(gpu_device *d, void *memory, size_t bytes); /* NULL: needs no pinning */
    void (*unpin)(gpu_device *d, void *memory);
    err (*queue_open)(gpu_device *d, gpu_queue **out);
    void (*queue_close)(gpu_queue *q);
    void (*queue_lean)(gpu_queue *q); /* NULL: takes nothing anyway */
    err (*queue_flush)(gpu_queue *q); /* NULL: nothing is held back that matters */
    err (*queue_wait)(gpu_queue *q);
    err (*copy_in)(gpu_queue *q, gpu_addr to, const void *from, size_t bytes);
    err (*copy_out)(gpu_queue *q, void *to, gpu_addr from, size_t bytes);
    err (*copy)(gpu_queue *q, gpu_addr to, gpu_addr from, size_t bytes);
    err (*fill)(gpu_queue *q, gpu_addr to, uint8_t byte, size_t bytes);
    err (*launch)(gpu_queue *q, gpu_kernel k, gpu_shape shape, const void *args);
    err (*event_open)(gpu_device *d, gpu_event **out);
    void (*event_close)(gpu_event *e);
    err (*event_record)(gpu_queue *q, gpu_event *e);
    err (*event_follow)(gpu_queue *q, gpu_event *e);
    err (*event_wait)(gpu_event *e);
    err (*event_elapsed)(gpu_event *from, gpu_event *to, double *ms);
    err (*graph_begin)(gpu_queue *q);
    err (*graph_end)(gpu_queue *q, gpu_graph **out);
    err (*graph_run)(gpu_queue *q, gpu_graph *g);
    void (*graph_close)(gpu_graph *g);
} gpu_backend;

struct gpu_device {
    const gpu_backend *backend;
    err failure; /* gpu.c: the first one; code 0: none */
    int calls[GPU_CALLS];
    int fail_at[GPU_CALLS]; /* the call that is to fail; 0: none */
};
struct gpu_queue {
    gpu_device *device;
};
struct gpu_event {
    gpu_device *device;
};
struct gpu_graph {
    gpu_device *device;
};

const gpu_backend *gpu_backend_host(void);
const gpu_backend *gpu_backend_cuda(void);
const gpu_backend *gpu_backend_metal(void);

#endif
