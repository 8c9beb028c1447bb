/* cuda_image.c: the compiled kernels inside the program. The Makefile defines FM_CUDA_IMAGE as the
 * path of the fatbin that nvcc made; without it there are none. */
#include "gpu/cuda/cuda_api.h"

#ifdef FM_CUDA_IMAGE

__asm__(".section .rodata\n"
        ".p2align 6\n"
        ".globl fm_cuda_image\n"
        ".hidden fm_cuda_image\n"
        "fm_cuda_image:\n"
        "    .incbin \"" FM_CUDA_IMAGE "\"\n"
        ".globl fm_cuda_image_end\n"
        ".hidden fm_cuda_image_end\n"
        "fm_cuda_image_end:\n"
        "    .byte 0\n"
        ".previous\n");

extern const uint8_t fm_cuda_image[], fm_cuda_image_end[];

const void *cuda_image(size_t *bytes) {
    *bytes = (size_t)(fm_cuda_image_end - fm_cuda_image);
    return fm_cuda_image;
}

#else

const void *cuda_image(size_t *bytes) {
    *bytes = 0;
    return NULL;
}

#endif
