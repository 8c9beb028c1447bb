/* gpu_trunk.c: the trunk in device memory: the parts of weights.h that are this machine's share,
 * one after the other. A view of the weights names its place in the arena of the processor; the
 * part it lies in says where that is on the card. Whether the arena has the bytes as well is no
 * matter. */
#include <assert.h>
#include <stdlib.h>

#include "base/bits.h"
#include "model/gpu_ops_impl.h"

#define PART_GAP 256 /* what a part's begin is a multiple of */

size_t gpu_trunk_bytes(const gpu_ops *o) {
    const weights *w = o->o.weights;
    size_t sum = 0;
    for (int i = 0; i < weights_parts(w); i++)
        if (share_has_part(o->o.share, o->c, i))
            sum += round_up(weights_part_bytes(w, i), PART_GAP);
    return sum;
}

err gpu_trunk_open(gpu_ops *o) {
    const weights *w = o->o.weights;
    size_t at = 0;
    if (o->unified) return gpu_unified_trunk(o);
    o->part_addr = calloc((size_t)weights_parts(w), sizeof *o->part_addr);
    if (!o->part_addr) return err_make(ERR_NOMEM, "no memory for the GPU's engine");
    TRY(gpu_alloc(o->device, GPU_DEVICE, gpu_trunk_bytes(o), &o->trunk_copy));
    for (int i = 0; i < weights_parts(w); i++) {
        if (!share_has_part(o->o.share, o->c, i)) continue;
        o->part_addr[i] = o->trunk_copy.addr + at;
        at += round_up(weights_part_bytes(w, i), PART_GAP);
    }
    return err_none();
}

void gpu_trunk_close(gpu_ops *o) {
    if (o->device) gpu_free(o->device, &o->trunk_copy);
    free(o->part_addr);
    o->part_addr = NULL;
}

err gpu_ops_take(gpu_ops *o, int part, const uint8_t *bytes, size_t n, bool *needed) {
    *needed = o->unified;
    if (o->unified || !o->part_addr[part]) return err_none();
    TRY(gpu_copy_in(o->upload, o->part_addr[part], bytes, n));
    return gpu_queue_wait(o->upload);
}

gpu_addr gpu_at(const gpu_ops *o, const void *p) {
    if (!p) return 0;
    if (o->unified) return gpu_windows_at(&o->trunk, p);
    const weights *w = o->o.weights;
    size_t offset = (size_t)((const uint8_t *)p - w->trunk.base);
    int low = 0, high = weights_parts(w) - 1; /* the last part that begins at or before it */
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (w->part_at[middle] <= offset)
            low = middle;
        else
            high = middle - 1;
    }
    assert(o->part_addr[low]);
    return o->part_addr[low] + (offset - w->part_at[low]);
}
