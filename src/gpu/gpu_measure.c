/* gpu_measure.c: a card's two ceilings: its own memory, and the way there. */
#include <string.h>

#include "base/os.h"
#include "gpu/gpu.h"

#define ROUNDS 5

typedef struct copies {
    gpu_queue *q;
    gpu_buffer x, y, host;
    size_t bytes;
} copies;

/* Seconds of the fastest. */
static err fastest(const copies *c, bool in, double *best) {
    *best = 1e9;
    for (int i = 0; i < ROUNDS; i++) {
        uint64_t begin = os_now_ns();
        TRY(in ? gpu_copy_in(c->q, c->x.addr, c->host.host, c->bytes)
               : gpu_copy(c->q, c->x.addr, c->y.addr, c->bytes));
        TRY(gpu_queue_wait(c->q));
        double took = (double)(os_now_ns() - begin) * 1e-9;
        *best = took < *best ? took : *best;
    }
    return err_none();
}

static err measure(gpu_device *d, copies *c, double *copy, double *bus) {
    double on = 0, in = 0;
    TRY(gpu_queue_open(d, &c->q));
    TRY(gpu_alloc(d, GPU_DEVICE, c->bytes, &c->x));
    TRY(gpu_alloc(d, GPU_DEVICE, c->bytes, &c->y));
    TRY(gpu_alloc(d, GPU_PINNED, c->bytes, &c->host));
    memset(c->host.host, 1, c->bytes);
    TRY(gpu_fill(c->q, c->y.addr, 1, c->bytes));
    TRY(fastest(c, false, &on));
    TRY(fastest(c, true, &in));
    *copy = 2.0 * (double)c->bytes / on;
    *bus = (double)c->bytes / in;
    return err_none();
}

err gpu_measure(gpu_device *d, size_t bytes, double *copy, double *bus) {
    copies c = {.bytes = bytes};
    *copy = *bus = 0;
    err e = measure(d, &c, copy, bus);
    gpu_free(d, &c.host);
    gpu_free(d, &c.y);
    gpu_free(d, &c.x);
    gpu_queue_close(c.q);
    return e;
}
