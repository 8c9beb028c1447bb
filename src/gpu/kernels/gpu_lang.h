/* gpu_lang.h: the words in which the kernel bodies are written, in four dialects.
 *
 *     CUDA      nvcc                     entry.cu
 *     METAL     the Metal compiler       entry.metal
 *     CHECK     clang, OpenCL C 1.2      tests/gpu/lint.sh: every pointer names its address space
 *     HOST      C17 on a processor       host/host_kernels.c: every thread of a group is a fiber
 *
 * The words:
 *
 *     FN            a function of the device
 *     GLOBAL, SHARED, CONST     address space of a pointer: device memory, the group's memory,
 *                               the arguments; a pointer without one points to the thread's own
 *     where         which thread this is: thread of threads, group_x/y/z. `at` in every body
 *     barrier(at)   all threads of the group; orders SHARED (and GLOBAL within the group)
 *     simd_barrier(at)          the 32 lanes of a SIMD group; orders SHARED among them
 *     simd_xor_f    the value of lane ^ mask, the same mask for all 32 lanes, who all take part
 *     simd_from_f   the value of a lane, which may be another one for each; all take part
 *     fma32, sqrt32, f32_of_bits, bits_of_f32, f32_of_f16, f16_of_f32
 *     u8 u16 u32 u64             integers of a size
 *     vec4u, vec4f               16 bytes, loaded at once; both are only read from memory
 *     FIXED(name, value)   value, or what the kernel was compiled for: kind, bits, group of the
 *                   weights (Metal's function constants; elsewhere always value)
 *     LOOP_FLAT     the loop that follows is unrolled, so that arrays of the thread are registers
 *     LOOP_SHORT    a wish that the loop stays one: code that runs once has to be short
 *
 * Nothing else of a dialect appears in a body. No word's result depends on the dialect: the same
 * body gives the same bits everywhere (fused multiply-adds are written out, the compilers are told
 * to make no others, 1/x and sqrt round correctly, exp is our own polynomial below). */
#ifndef GPU_KERNELS_GPU_LANG_H
#define GPU_KERNELS_GPU_LANG_H

#define SIMD 32 /* lanes of a SIMD group on every GPU that we know */

#if defined(__CUDACC__)
/* ---- CUDA ---- */
#include <cuda_fp16.h>
#define FN static __device__ __forceinline__
#define GLOBAL
#define SHARED
#define CONST
#define LOOP_FLAT  _Pragma("unroll")
#define LOOP_SHORT _Pragma("unroll 1")
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
typedef uint4 vec4u;
typedef float4 vec4f;
typedef struct where {
    int thread, threads, group_x, group_y, group_z;
} where;
FN void barrier(where at) { __syncthreads(); }
FN void simd_barrier(where at) { __syncwarp(); }
FN float simd_xor_f(where at, float x, int mask) { return __shfl_xor_sync(~0u, x, mask); }
FN float simd_from_f(where at, float x, int lane) { return __shfl_sync(~0u, x, lane); }
FN float fma32(float a, float b, float c) { return __fmaf_rn(a, b, c); }
FN float sqrt32(float x) { return __fsqrt_rn(x); }
FN float f32_of_bits(u32 x) { return __uint_as_float(x); }
FN u32 bits_of_f32(float x) { return __float_as_uint(x); }
FN float f32_of_f16(u32 h) { return __half2float(__ushort_as_half((u16)h)); }
FN u32 f16_of_f32(float x) { return __half_as_ushort(__float2half_rn(x)); }

#elif defined(__METAL_VERSION__)
/* ---- Metal ---- */
#include <metal_stdlib>
#define FN        static inline
#define GLOBAL    device
#define SHARED    threadgroup
#define CONST     constant
#define LOOP_FLAT _Pragma("unroll")
#define LOOP_SHORT
#define FIXED(name, value) (fixed_##name >= 0 ? fixed_##name : (value))
constant int fixed_kind [[function_constant(0)]];
constant int fixed_bits [[function_constant(1)]];
constant int fixed_group [[function_constant(2)]];
typedef uchar u8;
typedef ushort u16;
typedef uint u32;
typedef ulong u64;
typedef uint4 vec4u;
typedef float4 vec4f;
typedef struct where {
    int thread, threads, group_x, group_y, group_z;
} where;
FN void barrier(where at) {
    metal::threadgroup_barrier(metal::mem_flags::mem_threadgroup | metal::mem_flags::mem_device);
}
FN void simd_barrier(where at) { metal::simdgroup_barrier(metal::mem_flags::mem_threadgroup); }
FN float simd_xor_f(where at, float x, int mask) {
    return metal::simd_shuffle_xor(x, ushort(mask));
}
FN float simd_from_f(where at, float x, int lane) { return metal::simd_shuffle(x, ushort(lane)); }
FN float fma32(float a, float b, float c) { return metal::fma(a, b, c); }
FN float sqrt32(float x) { return metal::precise::sqrt(x); }
FN float f32_of_bits(u32 x) { return as_type<float>(x); }
FN u32 bits_of_f32(float x) { return as_type<uint>(x); }
FN float f32_of_f16(u32 h) { return float(as_type<half>(ushort(h))); }
FN u32 f16_of_f32(float x) { return as_type<ushort>(half(x)); }

#elif defined(__OPENCL_C_VERSION__)
/* ---- the address-space check: nothing is run, so the words are only declared ---- */
#define FN         static inline
#define GLOBAL     __global
#define SHARED     __local
#define CONST      __constant
#define LOOP_FLAT  _Pragma("unroll")
#define LOOP_SHORT _Pragma("nounroll")
typedef uchar u8;
typedef ushort u16;
typedef uint u32;
typedef ulong u64;
typedef uint4 vec4u;
typedef float4 vec4f;
typedef struct where {
    int thread, threads, group_x, group_y, group_z;
} where;
void barrier(where at);
void simd_barrier(where at);
float simd_xor_f(where at, float x, int mask);
float simd_from_f(where at, float x, int lane);
float fma32(float a, float b, float c);
float sqrt32(float x);
float f32_of_bits(u32 x);
u32 bits_of_f32(float x);
float f32_of_f16(u32 h);
u32 f16_of_f32(float x);

#else
/* ---- the host: host_group.h has the fibers ---- */
#include <math.h>

#include "base/bits.h"
#include "gpu/host/host_group.h"
#define FN static inline
#define GLOBAL
#define SHARED
#define CONST
#define LOOP_FLAT
#define LOOP_SHORT
typedef uint8_t u8;
typedef uint16_t u16;
typedef uint32_t u32;
typedef uint64_t u64;
typedef struct vec4u {
    u32 x, y, z, w;
} vec4u;
typedef struct vec4f {
    float x, y, z, w;
} vec4f;
typedef host_where where;
FN void barrier(where at) { host_barrier(at.fiber); }
FN void simd_barrier(where at) { (void)host_simd_xor(at.fiber, 0, 1); }
FN float f32_of_bits(u32 x) {
    float f;
    memcpy(&f, &x, sizeof f);
    return f;
}
FN u32 bits_of_f32(float x) {
    u32 u;
    memcpy(&u, &x, sizeof u);
    return u;
}
FN float simd_xor_f(where at, float x, int mask) {
    return f32_of_bits(host_simd_xor(at.fiber, bits_of_f32(x), mask));
}
FN float simd_from_f(where at, float x, int lane) {
    return f32_of_bits(host_simd_from(at.fiber, bits_of_f32(x), lane));
}
FN float fma32(float a, float b, float c) { return fmaf(a, b, c); }
FN float sqrt32(float x) { return sqrtf(x); }
FN float f32_of_f16(u32 h) { return f16_to_f32((uint16_t)h); }
FN u32 f16_of_f32(float x) { return f32_to_f16(x); }
#endif

#ifndef FIXED
#define FIXED(name, value) (value)
#endif

/* ---- built from the words ---- */

FN int min_i(int a, int b) { return a < b ? a : b; }
FN float max_f(float a, float b) { return a > b ? a : b; }
FN float f32_of_bf16(u32 h) { return f32_of_bits(h << 16); }

/* Over the lanes of one SIMD group, in the fixed tree 16, 8, 4, 2, 1; every lane gets the result.
 * `width` (a power of two) sums only among that many neighbouring lanes. */
FN float simd_sum_of(where at, float x, int width) {
    for (int mask = width / 2; mask > 0; mask /= 2) x += simd_xor_f(at, x, mask);
    return x;
}
FN float simd_sum(where at, float x) { return simd_sum_of(at, x, SIMD); }
FN float simd_max(where at, float x) {
    for (int mask = SIMD / 2; mask > 0; mask /= 2) x = max_f(x, simd_xor_f(at, x, mask));
    return x;
}

/* Over all threads of a group: SIMD groups first, then their sums in ascending order. `space` has
 * room for threads / SIMD floats; the group must not be using it. Every thread gets the result. */
FN float group_sum(where at, float x, SHARED float *space) {
    x = simd_sum(at, x);
    if (at.thread % SIMD == 0) space[at.thread / SIMD] = x;
    barrier(at);
    float sum = 0;
    for (int i = 0; i < at.threads / SIMD; i++) sum += space[i];
    barrier(at);
    return sum;
}

/* exp as cpu_math.h has it: the same operations, the same bits. */
FN float exp32(float x) {
    x = x < -104.0f ? -104.0f : x;
    x = x > 89.0f ? 89.0f : x;
    float big = fma32(x, 1.44269502f, 12582912.0f);
    float n = big - 12582912.0f;
    float r = fma32(n, -0.693145752f, x);
    r = fma32(n, -1.42860677e-06f, r);
    float p = fma32(1.0f / 5040, r, 1.0f / 720);
    p = fma32(p, r, 1.0f / 120);
    p = fma32(p, r, 1.0f / 24);
    p = fma32(p, r, 1.0f / 6);
    p = fma32(p, r, 0.5f);
    p = fma32(p, r, 1.0f);
    p = fma32(p, r, 1.0f);
    int whole = (int)(bits_of_f32(big) - 0x4b400000u);
    int half_of = whole >> 1;
    float a = f32_of_bits((u32)(half_of + 127) << 23);
    float b = f32_of_bits((u32)(whole - half_of + 127) << 23);
    return p * a * b;
}

FN float sigmoid32(float x) { return 1.0f / (1.0f + exp32(-x)); }
FN float silu32(float x) { return x / (1.0f + exp32(-x)); }

/* x positive, normal and finite; as cpu_math.h. */
FN float log32(float x) {
    u32 shifted = bits_of_f32(x) - 0x3f2aaaabu;
    float e = (float)((int)shifted >> 23);
    float m = f32_of_bits((shifted & 0x7fffffu) + 0x3f2aaaabu);
    float s = (m - 1.0f) / (m + 1.0f);
    float z = s * s;
    float p = fma32(2.0f / 11, z, 2.0f / 9);
    p = fma32(p, z, 2.0f / 7);
    p = fma32(p, z, 2.0f / 5);
    p = fma32(p, z, 2.0f / 3);
    p = fma32(p, z, 2.0f);
    return fma32(e, 0.693145752f, fma32(e, 1.42860677e-06f, p * s));
}

FN float softplus32(float x) {
    float low = x > 20.0f ? 20.0f : x;
    float u = exp32(low);
    float w = 1.0f + u;
    float soft = log32(w) + (u - (w - 1.0f)) / w;
    return x > 20.0f ? x : soft;
}

#endif
