/* cuda_api.h: the part of the CUDA driver's interface that we call, declared by ourselves because
 * the driver is on machines where its headers are not, and found in libcuda.so.1 at run time
 * because the same program must start on machines without it.
 *
 * Names, values and signatures are those of NVIDIA's documentation of the driver API (CUDA 11.4 and
 * later). Where the driver exports several versions of a function we name the version. */
#ifndef GPU_CUDA_CUDA_API_H
#define GPU_CUDA_CUDA_API_H

#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

typedef int cu_result; /* 0: success */
typedef int cu_device;
typedef uint64_t cu_address;
typedef struct cu_context_s *cu_context;
typedef struct cu_module_s *cu_module;
typedef struct cu_function_s *cu_function;
typedef struct cu_stream_s *cu_stream;
typedef struct cu_event_s *cu_event;
typedef struct cu_graph_s *cu_graph;
typedef struct cu_graph_exec_s *cu_graph_exec;

enum {
    CU_OUT_OF_MEMORY = 2,
    CU_NO_BINARY = 209,
    CU_ATTR_SHARED_PER_BLOCK_OPTIN = 97,
    CU_ATTR_UNITS = 16,
    CU_ATTR_CLOCK_KHZ = 13,
    CU_ATTR_INTEGRATED = 18,
    CU_ATTR_MAJOR = 75,
    CU_ATTR_MINOR = 76,
    CU_FUNC_PTX_VERSION = 5, /* of a loaded kernel: 90 for compute_90 */
    CU_FUNC_MAX_DYNAMIC_SHARED = 8,
    CU_LAUNCH_EARLY = 6, /* CU_LAUNCH_ATTRIBUTE_PROGRAMMATIC_STREAM_SERIALIZATION */
    CU_HOST_PORTABLE_DEVICEMAP = 3,
    CU_HOST_REGISTER_PORTABLE = 1,
    CU_STREAM_NON_BLOCKING = 1,
    CU_CAPTURE_RELAXED = 2,
};

/* CUlaunchAttribute and CUlaunchConfig. */
typedef struct cu_launch_attribute {
    int id;
    char pad[4];
    union {
        char bytes[64];
        int on;
    } value;
} cu_launch_attribute;

typedef struct cu_launch_config {
    unsigned grid[3], block[3], shared_bytes;
    cu_stream stream;
    cu_launch_attribute *attributes;
    unsigned n_attributes;
} cu_launch_config;

/* X(field, name in the library, arguments) */
#define CUDA_FUNCTIONS(X)                                                                          \
    X(init, "cuInit", (unsigned))                                                                  \
    X(driver_version, "cuDriverGetVersion", (int *))                                               \
    X(error_name, "cuGetErrorName", (cu_result, const char **))                                    \
    X(error_string, "cuGetErrorString", (cu_result, const char **))                                \
    X(device_count, "cuDeviceGetCount", (int *))                                                   \
    X(device_get, "cuDeviceGet", (cu_device *, int))                                               \
    X(device_name, "cuDeviceGetName", (char *, int, cu_device))                                    \
    X(device_attribute, "cuDeviceGetAttribute", (int *, int, cu_device))                           \
    X(context_retain, "cuDevicePrimaryCtxRetain", (cu_context *, cu_device))                       \
    X(context_release, "cuDevicePrimaryCtxRelease_v2", (cu_device))                                \
    X(context_set, "cuCtxSetCurrent", (cu_context))                                                \
    X(context_synchronize, "cuCtxSynchronize", (void))                                             \
    X(module_load, "cuModuleLoadData", (cu_module *, const void *))                                \
    X(module_unload, "cuModuleUnload", (cu_module))                                                \
    X(module_function, "cuModuleGetFunction", (cu_function *, cu_module, const char *))            \
    X(function_set, "cuFuncSetAttribute", (cu_function, int, int))                                 \
    X(memory_info, "cuMemGetInfo_v2", (size_t *, size_t *))                                        \
    X(memory_alloc, "cuMemAlloc_v2", (cu_address *, size_t))                                       \
    X(memory_free, "cuMemFree_v2", (cu_address))                                                   \
    X(host_alloc, "cuMemHostAlloc", (void **, size_t, unsigned))                                   \
    X(host_free, "cuMemFreeHost", (void *))                                                        \
    X(host_address, "cuMemHostGetDevicePointer_v2", (cu_address *, void *, unsigned))              \
    X(copy_in, "cuMemcpyHtoDAsync_v2", (cu_address, const void *, size_t, cu_stream))              \
    X(copy_out, "cuMemcpyDtoHAsync_v2", (void *, cu_address, size_t, cu_stream))                   \
    X(copy, "cuMemcpyDtoDAsync_v2", (cu_address, cu_address, size_t, cu_stream))                   \
    X(fill, "cuMemsetD8Async", (cu_address, unsigned char, size_t, cu_stream))                     \
    X(stream_create, "cuStreamCreate", (cu_stream *, unsigned))                                    \
    X(stream_destroy, "cuStreamDestroy_v2", (cu_stream))                                           \
    X(stream_synchronize, "cuStreamSynchronize", (cu_stream))                                      \
    X(stream_wait, "cuStreamWaitEvent", (cu_stream, cu_event, unsigned))                           \
    X(event_create, "cuEventCreate", (cu_event *, unsigned))                                       \
    X(event_destroy, "cuEventDestroy_v2", (cu_event))                                              \
    X(event_record, "cuEventRecord", (cu_event, cu_stream))                                        \
    X(event_synchronize, "cuEventSynchronize", (cu_event))                                         \
    X(event_elapsed, "cuEventElapsedTime", (float *, cu_event, cu_event))                          \
    X(launch, "cuLaunchKernel",                                                                    \
      (cu_function, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned, unsigned,          \
       cu_stream, void **, void **))                                                               \
    X(function_get, "cuFuncGetAttribute", (int *, int, cu_function))                               \
    X(host_register, "cuMemHostRegister_v2", (void *, size_t, unsigned))                           \
    X(host_unregister, "cuMemHostUnregister", (void *))                                            \
    X(capture_begin, "cuStreamBeginCapture_v2", (cu_stream, int))                                  \
    X(capture_end, "cuStreamEndCapture", (cu_stream, cu_graph *))                                  \
    X(graph_instantiate, "cuGraphInstantiateWithFlags",                                            \
      (cu_graph_exec *, cu_graph, unsigned long long))                                             \
    X(graph_launch, "cuGraphLaunch", (cu_graph_exec, cu_stream))                                   \
    X(graph_exec_destroy, "cuGraphExecDestroy", (cu_graph_exec))                                   \
    X(graph_destroy, "cuGraphDestroy", (cu_graph))

#define CUDA_FIELD(field, name, arguments) cu_result(*field) arguments;
typedef struct cuda_api {
    CUDA_FUNCTIONS(CUDA_FIELD)
    /* cuLaunchKernelEx of drivers since 11.8; NULL on older ones. */
    cu_result (*launch_ex)(const cu_launch_config *, cu_function, void **, void **);
    void *library; /* dlopen's, never closed: the driver does not like it */
} cuda_api;

/* Loads the driver and initialises it. ERR_NOT_FOUND when there is none, with the loader's words;
 * ERR_IO when it refuses (no card, driver and kernel module differ). */
err cuda_api_load(cuda_api *out) MUST_USE;

/* The driver's result as an err that names the call: ERR_NONE for 0, ERR_BUDGET for memory that is
 * not there, else ERR_IO. `what` says for what: a kernel's name, a size. */
err cuda_result(const cuda_api *c, cu_result r, const char *call, const char *what) MUST_USE;

/* The kernels for this machine's cards, one image for all of them; NULL when the build had no
 * nvcc. */
const void *cuda_image(size_t *bytes);

#endif
