/* entry.metal: the kernels as the Metal compiler sees them: arguments in buffer 0 (addresses inside
 * are GPU addresses: Metal 3), the group's memory as threadgroup argument 0. */

/* A multiply and an add stay two roundings, and division is IEEE's: what the bodies write is what
 * is computed. (The compile option for the latter is set too; this is for older compilers.) */
#pragma METAL fp math_mode(safe)
#pragma METAL fp contract(off)
#pragma clang fp contract(off)

#include "gpu/kernels/gpu_lang.h"
#include "gpu/kernels/kernels.inc"

#define ENTRY(name, args, n_threads)                                                                          \
    [[max_total_threads_per_threadgroup(n_threads)]]                                               \
    kernel void name(constant args &a [[buffer(0)]], threadgroup float *shared [[threadgroup(0)]], \
                     uint thread_index [[thread_index_in_threadgroup]],                            \
                     uint3 threads [[threads_per_threadgroup]],                                    \
                     uint3 group [[threadgroup_position_in_grid]]) {                               \
        where at = {int(thread_index), int(threads.x), int(group.x), int(group.y), int(group.z)};  \
        name##_body(at, &a, shared);                                                               \
    }
GPU_KERNELS(ENTRY)
