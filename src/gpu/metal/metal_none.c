/* metal_none.c: the Metal backend of a build without it. The Makefile takes metal_driver.m in its
 * place on macOS. */
#include "gpu/gpu_backend.h"

static err no_metal(void) {
    return err_make(ERR_UNSUPPORTED, "this program was built without Metal (it needs macOS)");
}

static int none_count(err *why) {
    *why = no_metal();
    return 0;
}

static err none_open(int index, gpu_device **out) {
    (void)index;
    *out = NULL;
    return no_metal();
}

const gpu_backend *gpu_backend_metal(void) {
    static const gpu_backend table = {.name = "metal", .count = none_count, .open = none_open};
    return &table;
}
