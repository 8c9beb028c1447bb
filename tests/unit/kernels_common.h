/* kernels_common.h: what the kernel tests share: memory whose end is the end of the world, random
 * matrices, and the walk over every table that this machine can run. */
#ifndef TESTS_KERNELS_COMMON_H
#define TESTS_KERNELS_COMMON_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#include "base/bits.h"
#include "cpu/cpu.h"

#define LENGTH(a) ((int)(sizeof(a) / sizeof *(a)))

enum { BLOCKS_MAX = 64 };

/* All memory of a test, released together. */
static struct {
    void *base[BLOCKS_MAX];
    size_t size[BLOCKS_MAX];
    int n;
} blocks;

/* Bytes that end right before a page that may not be touched. */
static void *guarded(size_t bytes) {
    size_t page = (size_t)sysconf(_SC_PAGESIZE), body = round_up(bytes + 1, page);
    uint8_t *base =
        mmap(NULL, body + page, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    assert_true(base != MAP_FAILED && blocks.n < BLOCKS_MAX);
    assert_int_equal(mprotect(base + body, page, PROT_NONE), 0);
    blocks.base[blocks.n] = base;
    blocks.size[blocks.n++] = body + page;
    return base + body - bytes;
}

static void release_all(void) {
    for (int i = 0; i < blocks.n; i++) munmap(blocks.base[i], blocks.size[i]);
    blocks.n = 0;
}

static float random_float(rng *r) { return (float)(rng_unit(r) * 2 - 1); }

static inline float *random_floats(rng *r, size_t n, float scale) {
    float *x = guarded(n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = random_float(r) * scale;
    return x;
}

static inline float *copy_floats(const float *x, size_t n) {
    float *y = guarded(n * sizeof *y);
    memcpy(y, x, n * sizeof *y);
    return y;
}

static inline qmat random_matrix(rng *r, qformat f, int rows, int cols) {
    qmat m = {f, rows, cols, NULL, NULL, NULL};
    size_t row_bytes = qformat_row_bytes(f, cols),
           scales = (size_t)rows * qformat_scale_row_bytes(f, cols);
    uint8_t *w = guarded((size_t)rows * row_bytes);
    m.w = w;
    if (f.kind != QK_AFFINE) {
        float *row = malloc((size_t)cols * sizeof *row);
        assert_non_null(row);
        for (int i = 0; i < rows; i++) {
            for (int c = 0; c < cols; c++) row[c] = random_float(r);
            dense_pack_row(w + (size_t)i * row_bytes, row, f.kind, cols);
        }
        free(row);
        return m;
    }
    for (size_t i = 0; i < (size_t)rows * row_bytes; i++) w[i] = (uint8_t)rng_next(r);
    uint16_t *s = guarded(scales), *b = guarded(scales);
    for (size_t i = 0; i < scales / 2; i++) {
        float scale = random_float(r) * 0.1f, bias = random_float(r);
        s[i] = f.scales_f16 ? f32_to_f16(scale) : f32_to_bf16(scale);
        b[i] = f.scales_f16 ? f32_to_f16(bias) : f32_to_bf16(bias);
    }
    m.scales = s;
    m.biases = b;
    return m;
}

/* Same bytes, or the first difference. */
static inline void same_floats(const char *what, const cpu_kernels *k, const float *got,
                               const float *want, size_t n) {
    for (size_t i = 0; i < n; i++) {
        if (memcmp(&got[i], &want[i], sizeof *got) != 0) {
            fail_msg("%s, %s: [%zu of %zu] is %.9g, scalar %.9g", k->name, what, i, n,
                     (double)got[i], (double)want[i]);
        }
    }
}

#endif
