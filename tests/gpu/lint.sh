#!/usr/bin/env bash
# The kernel bodies in the dialects that cannot be run here.
#
# Address spaces: clang as OpenCL C 1.2 with all extensions off. A pointer without an address space then points to the
# thread's own memory, so one that should have said GLOBAL, SHARED or CONST does not convert: what the Metal compiler
# refuses too. (C++ for OpenCL without the generic address space cannot copy a struct in clang 14.) That the check can
# fail is shown with a body that forgets one.
# CUDA: nvcc for the oldest and the newest target, where it is installed.
# Words: the bodies use no word of a dialect, only those of gpu_lang.h.
cd "$(dirname "$0")/../.." || exit 1
tmp=$(mktemp -d) || exit 1
trap 'rm -rf "$tmp"' EXIT

cat >"$tmp/entry.cl" <<'END'
#include "gpu/kernels/gpu_lang.h"
#include "gpu/kernels/kernels.inc"
#define ENTRY(name, args, n) \
    void check_##name(where at, CONST const args *a, SHARED float *s) { name##_body(at, a, s); }
GPU_KERNELS(ENTRY)
#ifdef SHOW_FAILURE
FN float forgets(const float *x) { return x[0]; }
FN float calls(GLOBAL const float *x) { return forgets(x); }
#endif
END
check() {
    clang -x cl -cl-std=CL1.2 -Xclang -cl-ext=-all -target spir64 -Xclang -finclude-default-header -fsyntax-only -Wall \
        -Wextra -Wno-unused-parameter -Werror -Isrc "$@" "$tmp/entry.cl" >"$tmp/out" 2>&1
}
name="address spaces of the kernel bodies"
if ! command -v clang >/dev/null; then
    echo "SKIP $name: no clang"
elif ! check; then
    grep -m5 error "$tmp/out"
    echo "FAIL $name"
elif check -DSHOW_FAILURE; then
    echo "FAIL $name: a pointer without an address space was accepted"
else
    echo "PASS $name"
fi

name="nvcc compiles the kernels"
nvcc=${NVCC:-$(command -v nvcc || ls /usr/local/cuda/bin/nvcc 2>/dev/null)}
if [ -z "$nvcc" ]; then
    echo "SKIP $name: no nvcc"
elif [ -n "${FM_TEST_FAST:-}" ]; then
    echo "SKIP $name: takes 20 seconds, make test does it"
else
    good=1
    for arch in sm_75 sm_120; do
        "$nvcc" -cubin -arch=$arch -fmad=false -std=c++17 -Isrc -Werror all-warnings -o "$tmp/k" src/gpu/kernels/entry.cu \
            >"$tmp/out" 2>&1 || { good=0 && head -5 "$tmp/out"; }
    done
    [ $good = 1 ] && echo "PASS $name" || echo "FAIL $name"
fi

name="the bodies use the words of gpu_lang.h alone"
foreign='__global__|__device__|__shared__|threadIdx|blockIdx|__syncthreads|__shfl|threadgroup|\bdevice\b|metal::'
if sed -E 's,/\*.*\*/,,; /^ \*/d; /^\/\*/d' src/gpu/kernels/k_*.inc | grep -nE "$foreign"; then
    echo "FAIL $name"
else
    echo "PASS $name"
fi
