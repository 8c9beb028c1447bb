/* host_kernels.h: the kernels compiled for the processor. */
#ifndef GPU_HOST_HOST_KERNELS_H
#define GPU_HOST_HOST_KERNELS_H

#include "gpu/host/host_group.h"

/* The body of kernel number `id` (gpu.h), taking its argument struct as the device sees it. */
host_body host_kernel_body(int id);

#endif
