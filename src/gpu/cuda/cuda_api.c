/* cuda_api.c: see cuda_api.h. */
#include "gpu/cuda/cuda_api.h"

#include <dlfcn.h>
#include <string.h>

static const char *const libraries[] = {"libcuda.so.1", "libcuda.so",
                                        "/usr/local/nvidia/lib64/libcuda.so.1"};

static void *open_library(void) {
    for (size_t i = 0; i < sizeof libraries / sizeof *libraries; i++) {
        void *library = dlopen(libraries[i], RTLD_NOW | RTLD_LOCAL);
        if (library) return library;
    }
    return NULL;
}

err cuda_result(const cuda_api *c, cu_result r, const char *call, const char *what) {
    if (r == 0) return err_none();
    const char *name = NULL, *text = NULL;
    c->error_name(r, &name);
    c->error_string(r, &text);
    return err_make(r == CU_OUT_OF_MEMORY ? ERR_BUDGET : ERR_IO, "CUDA: %s (%s): %s (%d): %s", call,
                    what, name ? name : "unknown error", r, text ? text : "no description");
}

err cuda_api_load(cuda_api *out) {
    memset(out, 0, sizeof *out);
    out->library = open_library();
    if (!out->library) {
        return err_make(ERR_NOT_FOUND, "no NVIDIA driver: libcuda.so.1 was not found; install the "
                                       "driver, or run without --gpu");
    }
    /* POSIX has dlsym return a data pointer that is a function's: copied as bytes. */
#define CUDA_FIND(field, name, arguments)                                                          \
    {                                                                                              \
        void *found = dlsym(out->library, name);                                                   \
        if (!found)                                                                                \
            return err_make(ERR_UNSUPPORTED,                                                       \
                            "the NVIDIA driver is too old: it has no %s; 11.4 or later is needed", \
                            name);                                                                 \
        memcpy(&out->field, &found, sizeof found);                                                 \
    }
    CUDA_FUNCTIONS(CUDA_FIND)
    void *newer = dlsym(out->library, "cuLaunchKernelEx");
    memcpy(&out->launch_ex, &newer, sizeof newer);
    return cuda_result(out, out->init(0), "cuInit", "driver");
}
