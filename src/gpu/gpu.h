/* gpu.h: what a GPU is to the rest of the program.
 *
 *     gpu_device      one card (or the processor playing one), by backend and index
 *       gpu_buffer    memory on the card, or pinned memory of the host that the card can copy from
 *       gpu_queue     work in order: copies, launches; several queues run side by side
 *         gpu_event   a point in a queue: another queue, or the caller, waits for it
 *         gpu_graph   launches recorded once and started together
 *
 * Backends: "cuda" (the driver's library is loaded when it is there; nothing is linked), "metal"
 * (Apple Silicon), "host" (the same kernel bodies on the processor: exact, slow, for tests and
 * machines without a card). A backend that cannot run says why in an err.
 *
 * Kernels and their argument structs are in kernels/gpu_args.h. What a launch needs beside the
 * arguments (groups, shared memory) follows from them: gpu_run works it out.
 *
 * Everything is asynchronous unless it says otherwise. An error of a kernel shows at the next wait
 * and names the device; after one the device is lost: every later call fails. One thread at a time
 * per device. */
#ifndef GPU_GPU_H
#define GPU_GPU_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"
#include "gpu/kernels/gpu_args.h"

#define GPU_KERNEL_ID(name, args, threads) GPU_##name,
typedef enum gpu_kernel { GPU_KERNELS(GPU_KERNEL_ID) GPU_KERNEL_COUNT } gpu_kernel;

const char *gpu_kernel_name(gpu_kernel k);
int gpu_kernel_threads(gpu_kernel k);
size_t gpu_kernel_args_bytes(gpu_kernel k);

typedef struct gpu_device gpu_device;
typedef struct gpu_queue gpu_queue;
typedef struct gpu_event gpu_event;
typedef struct gpu_graph gpu_graph;

typedef struct gpu_info {
    char name[96];       /* "NVIDIA H100 80GB HBM3", "host" */
    const char *backend; /* static */
    int index;           /* among the backend's devices */
    int units;           /* multiprocessors */
    int major, minor;    /* compute capability; Metal: the Apple family; 0 for host */
    size_t memory, free; /* bytes; free at the time of the call */
    size_t buffer_max;   /* bytes of one buffer; 0: as much as there is memory */
    size_t queue_bytes; /* what a queue with launches takes for itself, at the latest at a prompt */
    int shared_bytes;   /* most shared memory of one group */
    bool unified;       /* device memory is host memory, and gpu_wrap works */
    double clock_mhz;
} gpu_info;

/* The backend that "auto" means: the first of cuda, metal that has a device; NULL when none. */
const char *gpu_best_backend(void);
/* How many devices a backend has; 0 and the reason when none. */
int gpu_count(const char *backend, err *why);
/* ERR_NOT_FOUND: no such backend or device, or no driver; ERR_UNSUPPORTED: this build has no
 * kernels for it. */
err gpu_open(const char *backend, int index, gpu_device **out) MUST_USE;
/* Buffers, queues, events and graphs of it must be closed before. NULL is allowed. */
void gpu_close(gpu_device *d);
err gpu_info_get(gpu_device *d, gpu_info *out) MUST_USE;
/* Waits for everything on all queues. */
err gpu_finish(gpu_device *d) MUST_USE;
/* The first error of a queue, an event or a graph; code 0: none. From then on every such call fails
 * with it at once. */
const err *gpu_failure(const gpu_device *d);

/* For tests: the n-th call of a kind from now on (1 is the next one) fails as a lost card's would.
 */
typedef enum gpu_call {
    GPU_CALL_ANY,
    GPU_CALL_COPY,
    GPU_CALL_LAUNCH,
    GPU_CALL_WAIT,  /* of the host, for a queue or an event */
    GPU_CALL_EVENT, /* record, follow */
    GPU_CALL_GRAPH,
    GPU_CALLS
} gpu_call;
void gpu_fail_at(gpu_device *d, gpu_call kind, int n);
/* Calls of a kind since the device was opened. */
int gpu_calls(const gpu_device *d, gpu_call kind);

/* ---- memory ---- */

typedef enum gpu_memory {
    GPU_DEVICE,  /* the card's own; host is NULL except on unified memory and the host backend */
    GPU_PINNED,  /* the host's, page-locked; the card can copy from and to it, and read it */
    GPU_WRAPPED, /* gpu_wrap's */
} gpu_memory;

typedef struct gpu_buffer {
    gpu_addr addr; /* as kernels see it; 16-byte aligned at least */
    void *host;    /* as the processor sees it, or NULL */
    size_t bytes;
    gpu_memory kind;
} gpu_buffer;

/* ERR_BUDGET when the card has no more, with the numbers; ERR_NOMEM for pinned memory. Contents are
 * undefined. */
err gpu_alloc(gpu_device *d, gpu_memory kind, size_t bytes, gpu_buffer *out) MUST_USE;
/* A buffer over memory of the caller, which kernels then read and write in place: on devices with
 * unified memory. host begins at a page, and whole pages up to the end of bytes are the caller's;
 * it stays until gpu_free, which leaves it alone. ERR_UNSUPPORTED: no unified memory; ERR_BUDGET:
 * more than buffer_max, or than the device may have in all. */
err gpu_wrap(gpu_device *d, void *host, size_t bytes, gpu_buffer *out) MUST_USE;
/* The device must not be using it. Fine on a zeroed one. */
void gpu_free(gpu_device *d, gpu_buffer *b);

/* Memory of the caller that the card copies from at full speed until gpu_unpin; it must stay mapped
 * until then. All of its pages become resident. ERR_NOMEM, ERR_IO when the driver refuses: copies
 * from it are then slow, nothing else. */
err gpu_pin(gpu_device *d, void *memory, size_t bytes) MUST_USE;
void gpu_unpin(gpu_device *d, void *memory);

/* ---- queues ---- */

err gpu_queue_open(gpu_device *d, gpu_queue **out) MUST_USE;
void gpu_queue_close(gpu_queue *q);
/* The queue does without gpu_info's queue_bytes from now on: prompts are slower, results the same.
 */
void gpu_queue_lean(gpu_queue *q);
/* Launches may be held back so that neighbours become one; what is held back starts now. Before the
 * host waits for something else, or works for long. */
err gpu_queue_flush(gpu_queue *q) MUST_USE;
/* Blocks until all work of the queue is done. */
err gpu_queue_wait(gpu_queue *q) MUST_USE;

/* from (or to) must stay as it is until the copy has been waited for; not pinned memory makes the
 * copy slow and possibly synchronous. */
err gpu_copy_in(gpu_queue *q, gpu_addr to, const void *from, size_t bytes) MUST_USE;
err gpu_copy_out(gpu_queue *q, void *to, gpu_addr from, size_t bytes) MUST_USE;
err gpu_copy(gpu_queue *q, gpu_addr to, gpu_addr from, size_t bytes) MUST_USE;
err gpu_fill(gpu_queue *q, gpu_addr to, uint8_t byte, size_t bytes) MUST_USE;

typedef struct gpu_shape {
    int x, y, z;      /* groups, each >= 1 */
    int shared_bytes; /* of one group */
} gpu_shape;

/* args: the kernel's struct, copied at the call. */
err gpu_launch(gpu_queue *q, gpu_kernel k, gpu_shape shape, const void *args) MUST_USE;
/* The shape that the arguments ask for (gpu_shape.c); and a launch with it. n rows, heads ... of 0
 * launch nothing. */
gpu_shape gpu_shape_of(gpu_kernel k, const void *args);
err gpu_run(gpu_queue *q, gpu_kernel k, const void *args) MUST_USE;
/* Fills first_group from n_mats and the matrices' rows: before gpu_run of a matvec. */
void gpu_matvec_lay_out(args_matvec *a);
/* Bytes of one head of the attention cache; of the partial results of attention. */
size_t gpu_kv_head_bytes(int kv_type, int dim);
size_t gpu_attn_part_bytes(int n, int n_q, int dim, int n_splits);
/* True: only the portable bodies, where the backend has faster kernels of its own for the same
 * work. For checks. */
void gpu_plain(gpu_device *d, bool plain);

/* What a card's memory and its bus do right now, bytes a second: copy counts what is read and what
 * is written; bus is pinned memory to the card. The fastest of a few copies of `bytes`, of which
 * two buffers on the card and a pinned one are taken for a moment. */
err gpu_measure(gpu_device *d, size_t bytes, double *copy, double *bus) MUST_USE;

/* ---- order ---- */

err gpu_event_open(gpu_device *d, gpu_event **out) MUST_USE;
void gpu_event_close(gpu_event *e);
err gpu_event_record(gpu_queue *q, gpu_event *e) MUST_USE;
/* The queue's later work waits for the event as recorded last. */
err gpu_event_follow(gpu_queue *q, gpu_event *e) MUST_USE;
/* Blocks the caller. */
err gpu_event_wait(gpu_event *e) MUST_USE;
/* Milliseconds between two recorded events that have happened. */
err gpu_event_elapsed(gpu_event *from, gpu_event *to, double *ms) MUST_USE;

/* Between begin and end launches and copies of the queue are recorded, not run. */
err gpu_graph_begin(gpu_queue *q) MUST_USE;
err gpu_graph_end(gpu_queue *q, gpu_graph **out) MUST_USE;
err gpu_graph_run(gpu_queue *q, gpu_graph *g) MUST_USE;
void gpu_graph_close(gpu_graph *g);

#endif
