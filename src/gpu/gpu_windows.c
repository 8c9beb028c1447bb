/* gpu_windows.c: see gpu_windows.h. */
#include "gpu/gpu_windows.h"

#include <assert.h>
#include <string.h>

#include "base/bits.h"

#define STEP_ALIGN ((size_t)64 << 10) /* a multiple of every system's page */

/* The windows' distance; 0 when they cannot be. */
static size_t step_of(size_t most, size_t bytes, size_t item) {
    if (!most || bytes <= most) return bytes;
    size_t room = most / STEP_ALIGN * STEP_ALIGN, lap = round_up(item, STEP_ALIGN);
    return room > lap ? room - lap : 0;
}

err gpu_windows_open(gpu_device *d, void *base, size_t bytes, size_t item, gpu_windows *out) {
    gpu_info info;
    *out = (gpu_windows){.base = base, .bytes = bytes};
    TRY(gpu_info_get(d, &info));
    out->step = step_of(info.buffer_max, bytes, item);
    if (!out->step || (bytes - 1) / out->step >= GPU_WINDOWS_MAX)
        return err_make(ERR_BUDGET,
                        "%zu bytes with pieces of %zu do not fit into %d GPU buffers of %zu", bytes,
                        item, GPU_WINDOWS_MAX, info.buffer_max);
    for (size_t at = 0; at < bytes; at += out->step) {
        size_t reach = size_min(bytes - at, out->step + round_up(item, STEP_ALIGN));
        if (out->step == bytes) reach = bytes;
        err e = gpu_wrap(d, (uint8_t *)base + at, reach, &out->window[out->n]);
        if (e.code) {
            gpu_windows_close(d, out);
            return e;
        }
        out->n++;
    }
    return err_none();
}

void gpu_windows_close(gpu_device *d, gpu_windows *w) {
    for (int i = 0; i < w->n; i++) gpu_free(d, &w->window[i]);
    memset(w, 0, sizeof *w);
}

gpu_addr gpu_windows_at(const gpu_windows *w, const void *p) {
    size_t offset = (size_t)((const uint8_t *)p - w->base), i = offset / w->step;
    assert((int)i < w->n);
    return w->window[i].addr + (offset - i * w->step);
}
