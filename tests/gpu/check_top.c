/* check_top.c: the highest logits against a twin that sorts. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "check.h"

static uint64_t key_of(float x, int id) {
    uint32_t bits;
    if (x == 0) x = 0;
    memcpy(&bits, &x, sizeof bits);
    bits = bits & 0x80000000u ? ~bits : bits | 0x80000000u;
    if (isnan(x)) bits = UINT32_MAX;
    return (uint64_t)bits << 32 | (uint32_t)~id;
}

static int down(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? 1 : x > y ? -1 : 0;
}

static uint64_t *twin(lab *l, const float *x, int n) {
    uint64_t *key = lab_host(l, (size_t)(n > TOP_KEEP ? n : TOP_KEEP) * sizeof *key);
    for (int i = 0; i < n; i++) key[i] = key_of(x[i], i);
    qsort(key, (size_t)n, sizeof *key, down);
    return key;
}

/* Launches until one span is left; the last one's result. */
static gpu_addr run(lab *l, const float *x, int rows, int n) {
    args_top a = {.rows = rows, .n = n};
    a.logits = lab_in(l, x, (size_t)(rows * n) * sizeof *x);
    for (;;) {
        int spans = (a.n + TOP_SPAN - 1) / TOP_SPAN;
        a.out = lab_out(l, (size_t)(rows * spans) * TOP_KEEP * sizeof(uint64_t));
        lab_run(l, GPU_top, &a);
        if (spans == 1) return a.out;
        a.logits = 0, a.keys = a.out, a.n = spans * TOP_KEEP;
    }
}

static void one(lab *l, int rows, int n, int kind) {
    float *x = lab_floats(l, (size_t)(rows * n), -6, 6);
    for (int i = 0; i < rows * n; i++) {
        if (kind == 1) x[i] = (float)(int)(x[i] / 2) * (i % 2 ? 1.0f : -0.0f);
        if (kind == 2 && i % 3) x[i] = -INFINITY;
        if (kind == 3) x[i] = 1;
    }
    if (kind == 2) x[n / 2] = (float)-NAN;
    if (kind == 2 && rows > 1) x[n + n / 3] = INFINITY;
    size_t bytes = TOP_KEEP * sizeof(uint64_t);
    const uint8_t *got = (const uint8_t *)lab_read(l, run(l, x, rows, n), (size_t)rows * bytes);
    for (int r = 0; r < rows; r++) {
        char text[64];
        snprintf(text, sizeof text, "row %d of %d, %d logits, kind %d", r, rows, n, kind);
        lab_same(l, got + (size_t)r * bytes, twin(l, x + (size_t)r * (size_t)n, n), bytes, text);
    }
    lab_end(l);
}

void check_top(lab *l) {
    static const int sizes[] = {1, 127, 128, 129, 2047, 2048, 2049, 6144, 40000};
    lab_begin(l);
    for (int i = 0; i < 9; i++) {
        for (int kind = 0; kind < 4; kind++) {
            if (sizes[i] <= 6144 || kind < 2) one(l, 1 + (i + kind) % 3, sizes[i], kind);
        }
    }
    lab_end_group(l, "the highest logits: order, ties, spans of spans, NaN");
}
