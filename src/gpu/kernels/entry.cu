/* entry.cu: the kernels as nvcc sees them: arguments by value, in constant memory of the launch.
 * Every kernel lets the next one of its queue start before it has ended, and waits itself before it
 * reads anything that another launch may have written (capability 9.0 and up; see mm_wait). */
#include "gpu/kernels/gpu_lang.h"
#include "gpu/kernels/kernels.inc"

#include "gpu/kernels/cuda_args.h"

#include "gpu/kernels/cuda_matmul.inc"

#include "gpu/kernels/cuda_unit.inc"

#include "gpu/kernels/cuda_block.inc"
#include "gpu/kernels/cuda_few.inc"
#include "gpu/kernels/cuda_moe.inc"
#include "gpu/kernels/cuda_gemm.inc"
#include "gpu/kernels/cuda_top.inc"
#include "gpu/kernels/cuda_tile.inc"

#include "gpu/kernels/cuda_attn.inc"
#include "gpu/kernels/cuda_delta.inc"

#define ENTRY(name, args, n_threads)                                                                          \
    extern "C" __global__ void __launch_bounds__(n_threads) name(const __grid_constant__ args a) {      \
        extern __shared__ float shared[];                                                          \
        where at = {(int)threadIdx.x, (int)blockDim.x, (int)blockIdx.x, (int)blockIdx.y,           \
                    (int)blockIdx.z};                                                              \
        mm_let_next();                                                                             \
        mm_wait();                                                                                 \
        name##_body(at, &a, shared);                                                               \
    }
GPU_KERNELS(ENTRY)
