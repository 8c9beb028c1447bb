/* check.c: see check.h; and main. */
#include "check.h"

#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GUARD 64

void must(err e) {
    if (!e.code) return;
    printf("FAIL gpu-check: %s\n", e.text);
    exit(1);
}

/* ---- groups of cases ---- */

void lab_begin(lab *l) {
    l->worst = 0;
    l->cases = 0;
    l->first[0] = '\0';
}

void lab_end_group(lab *l, const char *name) {
    if (l->first[0]) {
        printf("FAIL %s: %s\n", name, l->first);
        l->failed++;
    } else {
        printf("PASS %s (%d comparisons, worst %.1e)\n", name, l->cases, l->worst);
        l->passed++;
    }
    fflush(stdout);
}

void lab_end(lab *l) {
    must(gpu_finish(l->device));
    for (int i = 0; i < l->n_buffers; i++) gpu_free(l->device, &l->buffer[i]);
    for (int i = 0; i < l->n_host; i++) free(l->host[i]);
    l->n_buffers = l->n_host = 0;
}

static void fails(lab *l, const char *format, ...) PRINTF_LIKE(2, 3);
static void fails(lab *l, const char *format, ...) {
    if (l->first[0]) return;
    va_list list;
    va_start(list, format);
    vsnprintf(l->first, sizeof l->first, format, list);
    va_end(list);
}

/* ---- memory ---- */

void *lab_host(lab *l, size_t bytes) {
    if (l->n_host == LAB_BUFFERS) must(err_make(ERR_ARG, "too many arrays in one case"));
    void *p = calloc(1, bytes ? bytes : 1);
    if (!p) must(err_make(ERR_NOMEM, "no memory"));
    l->host[l->n_host++] = p;
    return p;
}

float *lab_floats(lab *l, size_t n, float low, float high) {
    float *x = lab_host(l, n * sizeof *x);
    for (size_t i = 0; i < n; i++) x[i] = low + (high - low) * (float)rng_unit(&l->random);
    return x;
}

int lab_int(lab *l, int low, int high) {
    return low + (int)(rng_next(&l->random) % (uint64_t)(high - low + 1));
}

static gpu_buffer *new_buffer(lab *l, size_t bytes) {
    if (l->n_buffers == LAB_BUFFERS) must(err_make(ERR_ARG, "too many buffers in one case"));
    gpu_buffer *b = &l->buffer[l->n_buffers++];
    must(gpu_alloc(l->device, GPU_DEVICE, bytes, b));
    return b;
}

gpu_addr lab_in(lab *l, const void *data, size_t bytes) {
    gpu_buffer *b = new_buffer(l, bytes);
    must(gpu_copy_in(l->queue, b->addr, data, bytes));
    must(gpu_queue_wait(l->queue));
    return b->addr;
}

gpu_addr lab_out(lab *l, size_t bytes) {
    gpu_buffer *b = new_buffer(l, bytes + GUARD);
    must(gpu_fill(l->queue, b->addr, 0xff, bytes + GUARD));
    return b->addr;
}

float *lab_read(lab *l, gpu_addr a, size_t bytes) {
    uint8_t *copy = lab_host(l, bytes + GUARD);
    bool guarded = false;
    for (int i = 0; i < l->n_buffers; i++) {
        guarded |= l->buffer[i].addr == a && l->buffer[i].bytes == bytes + GUARD;
    }
    must(gpu_copy_out(l->queue, copy, a, guarded ? bytes + GUARD : bytes));
    must(gpu_queue_wait(l->queue));
    for (size_t i = 0; guarded && i < GUARD; i++) {
        if (copy[bytes + i] != 0xff) fails(l, "byte %zu past the output was written", i);
    }
    return (float *)(void *)copy;
}

void lab_run(lab *l, gpu_kernel k, const void *args) { must(gpu_run(l->queue, k, args)); }

/* ---- comparison ---- */

void lab_close(lab *l, const float *got, const float *want, size_t n, double tolerance,
               const char *text) {
    double difference = 0, size = 0;
    l->cases++;
    for (size_t i = 0; i < n; i++) {
        double d = (double)got[i] - (double)want[i];
        if (!isfinite(got[i])) {
            fails(l, "%s: value %zu of %zu is %g, not %g", text, i, n, (double)got[i],
                  (double)want[i]);
            return;
        }
        difference += d * d;
        size += (double)want[i] * (double)want[i];
    }
    double error = sqrt(difference) / (sqrt(size) + 1e-30);
    if (error > l->worst) l->worst = error;
    if (error > tolerance)
        fails(l, "%s: relative error %.2e, at most %.1e", text, error, tolerance);
}

void lab_same(lab *l, const void *got, const void *want, size_t bytes, const char *text) {
    l->cases++;
    const uint8_t *g = got, *w = want;
    for (size_t i = 0; i < bytes; i++) {
        if (g[i] == w[i]) continue;
        fails(l, "%s: byte %zu of %zu is %02x, not %02x", text, i, bytes, g[i], w[i]);
        return;
    }
}

void lab_true(lab *l, bool good, const char *text) {
    l->cases++;
    if (!good) fails(l, "%s", text);
}

/* ---- matrices ---- */

void lab_matrix_bytes(lab *l, qformat f, int rows, int cols, qmat *out) {
    size_t row = qformat_row_bytes(f, cols), scale_row = qformat_scale_row_bytes(f, cols);
    uint8_t *w = lab_host(l, row * (size_t)rows + 8), *s = NULL, *b = NULL;
    if (f.kind == QK_AFFINE) {
        s = lab_host(l, scale_row * (size_t)rows);
        b = lab_host(l, scale_row * (size_t)rows);
        for (size_t i = 0; i < row * (size_t)rows; i++) w[i] = (uint8_t)rng_next(&l->random);
        for (size_t i = 0; i < scale_row / 2 * (size_t)rows; i++) {
            float scale = (0.5f + (float)rng_unit(&l->random)) / (float)(1 << f.bits);
            float bias = -scale * (float)(1 << f.bits) * (float)rng_unit(&l->random);
            uint16_t hs = f.scales_f16 ? f32_to_f16(scale) : f32_to_bf16(scale);
            uint16_t hb = f.scales_f16 ? f32_to_f16(bias) : f32_to_bf16(bias);
            memcpy(s + i * 2, &hs, 2);
            memcpy(b + i * 2, &hb, 2);
        }
    } else {
        float *x = lab_floats(l, (size_t)cols, -1, 1);
        for (int r = 0; r < rows; r++) {
            for (int c = 0; c < cols; c++) x[c] = 2 * (float)rng_unit(&l->random) - 1;
            dense_pack_row(w + (size_t)r * row, x, f.kind, cols);
        }
    }
    *out = (qmat){.format = f, .rows = rows, .cols = cols, .w = w, .scales = s, .biases = b};
}

lab_mat lab_matrix(lab *l, qformat f, int rows, int cols) {
    lab_mat m;
    lab_matrix_bytes(l, f, rows, cols, &m.cpu);
    size_t scales = qformat_scale_row_bytes(f, cols) * (size_t)rows;
    m.gpu = (gpu_mat){.rows = rows,
                      .cols = cols,
                      .kind = (int)f.kind,
                      .bits = f.bits,
                      .group = f.group,
                      .scales_f16 = f.scales_f16};
    m.gpu.w = lab_in(l, m.cpu.w, qformat_row_bytes(f, cols) * (size_t)rows);
    if (scales) {
        m.gpu.scales = lab_in(l, m.cpu.scales, scales);
        m.gpu.biases = lab_in(l, m.cpu.biases, scales);
    }
    return m;
}

/* ---- main ---- */

static int usage(void) {
    printf("gpu-check BACKEND [INDEX] [--time]\n"
           "  Runs every kernel on the backend (cuda, host) against the scalar definition;\n"
           "  --time also measures them. Exit status 0: all passed.\n");
    return 2;
}

int main(int argc, char **argv) {
    const char *backend = NULL;
    long index = 0;
    bool timing = false;
    for (int i = 1; i < argc; i++) {
        if (strcmp(argv[i], "--time") == 0) {
            timing = true;
        } else if (!backend) {
            backend = argv[i];
        } else {
            index = strtol(argv[i], NULL, 10);
        }
    }
    if (!backend || backend[0] == '-') return usage();
    lab l = {.cpu = cpu_at(0)};
    rng_seed(&l.random, 20261125);
    err e = gpu_open(backend, (int)index, &l.device);
    if (e.code) {
        printf("SKIP gpu-check %s: %s\n", backend, e.text);
        return 77;
    }
    must(gpu_info_get(l.device, &l.info));
    must(gpu_queue_open(l.device, &l.queue));
    printf("%s: %s, %d units, capability %d.%d, %.1f GiB, %.0f MHz\n", backend, l.info.name,
           l.info.units, l.info.major, l.info.minor, (double)l.info.memory / (1 << 30),
           l.info.clock_mhz);
    check_machine(&l);
    check_dense(&l);
    check_attention(&l);
    check_delta(&l);
    check_experts(&l);
    check_top(&l);
    check_fused(&l);
    if (strcmp(backend, "host")) {
        printf("the portable bodies of matrices and of the delta rule:\n");
        gpu_plain(l.device, true);
        check_matrices(&l);
        check_experts(&l);
        check_delta_rule(&l);
        gpu_plain(l.device, false);
    }
    if (timing) time_kernels(&l);
    printf("%d passed, %d failed\n", l.passed, l.failed);
    gpu_queue_close(l.queue);
    gpu_close(l.device);
    return l.failed ? 1 : 0;
}
