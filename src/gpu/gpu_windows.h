/* gpu_windows.h: a region of the processor's memory as the GPU sees it, when one buffer may be
 * shorter than the region.
 *
 *     region    |------------------------------------------|
 *     window 0  |----------------|
 *     window 1               |----------------|                each begins `step` after the one
 *     window 2                            |----------------|   before and reaches `item` further
 *
 * Windows overlap by the largest thing that is looked up in them, so each such thing lies whole in
 * the window in which it begins. */
#ifndef GPU_GPU_WINDOWS_H
#define GPU_GPU_WINDOWS_H

#include "gpu/gpu.h"

#define GPU_WINDOWS_MAX 64

typedef struct gpu_windows {
    gpu_buffer window[GPU_WINDOWS_MAX];
    int n;
    uint8_t *base;
    size_t bytes, step;
} gpu_windows;

/* Wraps [base, base + bytes) (gpu_wrap's rules); item: bytes of the longest thing in it. Errors as
 * gpu_wrap; ERR_BUDGET too when the device's buffers are too short for an item, or too many would
 * be needed. Nothing stays on error. */
err gpu_windows_open(gpu_device *d, void *base, size_t bytes, size_t item,
                     gpu_windows *out) MUST_USE;
void gpu_windows_close(gpu_device *d, gpu_windows *w);
/* The device's address of p, which must be inside; good for `item` bytes. */
gpu_addr gpu_windows_at(const gpu_windows *w, const void *p);

#endif
