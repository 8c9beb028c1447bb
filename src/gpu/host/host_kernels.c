/* host_kernels.c: the kernel bodies as C17; see gpu_lang.h. */
#include "gpu/host/host_kernels.h"

#include "gpu/kernels/gpu_lang.h"

/* The bodies count in 32-bit integers as a GPU likes it and take arguments that they do not use. */
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "gpu/kernels/kernels.inc"

#define ENTRY(name, args, n_threads)                                                               \
    static void run_##name(host_where at, const void *a, float *shared) {                          \
        name##_body(at, (const args *)a, shared);                                                  \
    }
GPU_KERNELS(ENTRY)

#define POINTER(name, args, n_threads) run_##name,
static const host_body bodies[] = {GPU_KERNELS(POINTER)};

host_body host_kernel_body(int id) { return bodies[id]; }
