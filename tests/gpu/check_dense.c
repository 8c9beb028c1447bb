/* check_dense.c: the machinery of gpu.h; embed, rmsnorm, matvec, swiglu. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "check.h"

/* ---- copies, fills, events, graphs ---- */

static void copies(lab *l) {
    enum { N = 100003 };
    uint8_t *x = lab_host(l, N), *y = lab_host(l, N);
    for (int i = 0; i < N; i++) x[i] = (uint8_t)rng_next(&l->random);
    gpu_addr a = lab_in(l, x, N), b = lab_out(l, N);
    must(gpu_copy(l->queue, b, a, N));
    lab_same(l, lab_read(l, b, N), x, N, "copy");
    must(gpu_fill(l->queue, b, 0x5a, N - 1));
    memset(y, 0x5a, N - 1);
    y[N - 1] = x[N - 1];
    lab_same(l, lab_read(l, b, N), y, N, "fill");
    gpu_buffer pinned;
    must(gpu_alloc(l->device, GPU_PINNED, N, &pinned));
    memcpy(pinned.host, x, N);
    must(gpu_copy(l->queue, b, pinned.addr, N));
    lab_same(l, lab_read(l, b, N), x, N, "copy from pinned memory");
    gpu_free(l->device, &pinned);
    lab_end(l);
}

static void queues(lab *l) {
    enum { N = 1000, ROUNDS = 5 };
    float *gate = lab_floats(l, N, -4, 4), *up = lab_floats(l, N, -1, 1);
    float *want = lab_host(l, N * sizeof(float));
    gpu_addr g = lab_in(l, gate, N * sizeof(float)), u = lab_in(l, up, N * sizeof(float));
    gpu_addr y = lab_out(l, N * sizeof(float));
    args_swiglu first = {.gate = g, .up = u, .y = y, .n = N};
    args_swiglu again = {.gate = y, .up = u, .y = y, .n = N};
    gpu_graph *graph;
    must(gpu_graph_begin(l->queue));
    lab_run(l, GPU_swiglu, &first);
    for (int i = 1; i < ROUNDS; i++) lab_run(l, GPU_swiglu, &again);
    must(gpu_graph_end(l->queue, &graph));
    gpu_queue *other;
    gpu_event *event, *later;
    double ms = -1;
    must(gpu_queue_open(l->device, &other));
    must(gpu_event_open(l->device, &event));
    must(gpu_event_open(l->device, &later));
    must(gpu_event_record(l->queue, event));
    must(gpu_graph_run(l->queue, graph));
    must(gpu_graph_run(l->queue, graph));
    must(gpu_event_record(l->queue, later));
    must(gpu_event_follow(other, later));
    float *got = lab_host(l, N * sizeof(float));
    must(gpu_copy_out(other, got, y, N * sizeof(float)));
    must(gpu_queue_wait(other));
    must(gpu_event_wait(later));
    must(gpu_event_elapsed(event, later, &ms));
    lab_true(l, ms > 0, "time between events");
    l->cpu->silu_mul(want, gate, up, N);
    for (int i = 1; i < ROUNDS; i++) l->cpu->silu_mul(want, want, up, N);
    lab_close(l, got, want, N, 1e-6, "graph, then a copy on another queue");
    gpu_graph_close(graph);
    gpu_event_close(event);
    gpu_event_close(later);
    gpu_queue_close(other);
    lab_end(l);
}

static void errors(lab *l) {
    gpu_device *none;
    lab_true(l, gpu_open(l->info.backend, 99, &none).code == ERR_NOT_FOUND && !none, "device 99");
    lab_true(l, gpu_open("opencl", 0, &none).code == ERR_NOT_FOUND && !none, "unknown backend");
    gpu_buffer b;
    err e = gpu_alloc(l->device, GPU_DEVICE, (size_t)1 << 46, &b);
    lab_true(l, e.code == ERR_BUDGET && !b.addr, "64 TiB of memory");
}

void check_machine(lab *l) {
    lab_begin(l);
    copies(l);
    queues(l);
    errors(l);
    lab_end_group(l, "copies, queues, events, graphs, errors");
}

/* ---- matrices ---- */

static const char *describe(qformat f, int rows, int cols, int n) {
    static char text[128];
    static const char *const kinds[] = {"f32", "f16", "bf16", "affine"};
    snprintf(text, sizeof text, "%s bits %d group %d %s, [%d, %d] x %d", kinds[f.kind], f.bits,
             f.group, f.scales_f16 ? "f16" : "bf16", rows, cols, n);
    return text;
}

/* How much smaller the products y are than the terms that they are sums of: many make up for each
 * other, a few may all be small. */
static double cancelled(lab *l, const qmat *w, const float *x, const float *y, int n) {
    float *row = lab_host(l, (size_t)w->cols * sizeof(float));
    double terms = 0, sums = 0;
    for (int i = 0; i < n * w->rows; i++) {
        double all = 0;
        qmat_row_f32(row, w, i % w->rows);
        for (int c = 0; c < w->cols; c++) all += fabs(row[c] * x[i / w->rows * w->cols + c]);
        terms += all * all;
        sums += (double)y[i] * (double)y[i];
    }
    return sqrt(terms / (sums + 1e-30));
}

static void matvec_case(lab *l, qformat f, int rows, int cols, int n) {
    lab_mat m = lab_matrix(l, f, rows, cols);
    float *x = lab_floats(l, (size_t)(n * cols), -1, 1);
    float *want = lab_host(l, (size_t)(n * rows) * sizeof(float));
    float *scratch = lab_host(l, cpu_matmul_scratch(cols) * sizeof(float));
    cpu_matmul c = {.w = &m.cpu,
                    .x = x,
                    .y = want,
                    .x_stride = (size_t)cols,
                    .y_stride = (size_t)rows,
                    .n = n,
                    .scratch = scratch};
    l->cpu->matmul(&c, 0, rows);
    args_matvec a = {.m = {m.gpu}, .n = n, .n_mats = 1, .x_stride = cols, .y_stride = {rows}};
    a.x = lab_in(l, x, (size_t)(n * cols) * sizeof(float));
    a.y[0] = lab_out(l, (size_t)(n * rows) * sizeof(float));
    gpu_matvec_lay_out(&a);
    lab_run(l, GPU_matvec, &a);
    float *got = lab_read(l, a.y[0], (size_t)(n * rows) * sizeof(float));
    double most = n * rows < 8 ? 2e-6 * cancelled(l, &m.cpu, x, want, n) : 2e-6;
    lab_close(l, got, want, (size_t)(n * rows), most, describe(f, rows, cols, n));
    lab_end(l);
}

/* A vector's result must not depend on how many there are beside it. */
static void matvec_alone(lab *l, qformat f, int rows, int cols, int n) {
    lab_mat m = lab_matrix(l, f, rows, cols);
    size_t bytes = (size_t)(n * rows) * sizeof(float);
    float *x = lab_floats(l, (size_t)(n * cols), -1, 1);
    args_matvec a = {.m = {m.gpu}, .n = n, .n_mats = 1, .x_stride = cols, .y_stride = {rows}};
    a.x = lab_in(l, x, (size_t)(n * cols) * sizeof(float));
    a.y[0] = lab_out(l, bytes);
    gpu_matvec_lay_out(&a);
    lab_run(l, GPU_matvec, &a);
    float *together = lab_read(l, a.y[0], bytes);
    a.y[0] = lab_out(l, bytes);
    args_matvec one = a;
    one.n = 1;
    for (int i = 0; i < n; i++) {
        one.x = a.x + (gpu_addr)(i * cols) * sizeof(float);
        one.y[0] = a.y[0] + (gpu_addr)(i * rows) * sizeof(float);
        lab_run(l, GPU_matvec, &one);
    }
    lab_same(l, lab_read(l, a.y[0], bytes), together, bytes, "a vector alone and among others");
    lab_end(l);
}

/* Three matrices of different formats, bias and residual in place. */
static void matvec_together(lab *l, int n) {
    enum { COLS = 320, R0 = 50, R1 = 16, R2 = 3 };
    static const qformat f[3] = {
        {QK_AFFINE, 4, 64, false}, {QK_AFFINE, 8, 32, true}, {QK_BF16, 0, 0, false}};
    static const int rows[3] = {R0, R1, R2};
    float *x = lab_floats(l, (size_t)(n * COLS), -1, 1);
    float *residual = lab_floats(l, (size_t)(n * R0), -1, 1);
    float *scratch = lab_host(l, cpu_matmul_scratch(COLS) * sizeof(float));
    args_matvec a = {.n = n, .n_mats = 3, .x_stride = COLS};
    float *want[3];
    a.x = lab_in(l, x, (size_t)(n * COLS) * sizeof(float));
    for (int i = 0; i < 3; i++) {
        lab_mat m = lab_matrix(l, f[i], rows[i], COLS);
        size_t floats = (size_t)(n * rows[i]);
        float *bias = lab_floats(l, (size_t)rows[i], -1, 1);
        want[i] = lab_host(l, floats * sizeof(float));
        cpu_matmul c = {&m.cpu, x, want[i], COLS, (size_t)rows[i], n, scratch};
        l->cpu->matmul(&c, 0, rows[i]);
        for (size_t j = 0; j < floats; j++) {
            if (i != 1) want[i][j] += bias[j % (size_t)rows[i]];
            if (i == 0) want[i][j] += residual[j];
        }
        a.m[i] = m.gpu;
        a.y_stride[i] = rows[i];
        a.bias[i] = i != 1 ? lab_in(l, bias, (size_t)rows[i] * sizeof(float)) : 0;
        a.y[i] =
            i ? lab_out(l, floats * sizeof(float)) : lab_in(l, residual, floats * sizeof(float));
    }
    a.residual = a.y[0];
    gpu_matvec_lay_out(&a);
    lab_run(l, GPU_matvec, &a);
    for (int i = 0; i < 3; i++) {
        size_t floats = (size_t)(n * rows[i]);
        lab_close(l, lab_read(l, a.y[i], floats * sizeof(float)), want[i], floats, 2e-6,
                  "several matrices");
    }
    lab_end(l);
}

void check_matrices(lab *l) {
    static const int bits[] = {2, 3, 4, 5, 6, 8}, groups[] = {32, 64, 128};
    static const int rows[] = {1, 15, 16, 17, 40}, ns[] = {1, 2, 3, 7, 8, 9, 17};
    lab_begin(l);
    for (int b = 0; b < 6; b++) {
        for (int g = 0; g < 3; g++) {
            for (int h = 0; h < 2; h++) {
                qformat f = {QK_AFFINE, bits[b], groups[g], h == 1};
                matvec_case(l, f, 33, 128 * lab_int(l, 1, 3), lab_int(l, 1, 3));
                matvec_case(l, f, 20, 1152, lab_int(l, 1, 9));
            }
        }
    }
    for (int r = 0; r < 5; r++) {
        for (int n = 0; n < 7; n++) {
            matvec_case(l, (qformat){QK_AFFINE, 4, 64, false}, rows[r], 64 * lab_int(l, 1, 20),
                        ns[n]);
        }
    }
    lab_end_group(l, "matvec, affine");
    lab_begin(l);
    static const int cols[] = {1, 2, 31, 32, 33, 64, 100, 1000, 2050};
    for (int k = 0; k < 3; k++) {
        for (int c = 0; c < 9; c++) {
            if (k != QK_F32 && cols[c] % 2) continue; /* rows of 2-byte values start at words */
            matvec_case(l, (qformat){.kind = (qkind)k}, 19, cols[c], lab_int(l, 1, 10));
        }
    }
    lab_end_group(l, "matvec, dense");
    lab_begin(l);
    for (int n = 1; n <= 9; n += 4) matvec_together(l, n);
    lab_end_group(l, "matvec, several matrices, bias, residual");
    lab_begin(l);
    matvec_alone(l, (qformat){QK_AFFINE, 4, 64, false}, 70, 2112, 8);
    matvec_alone(l, (qformat){QK_AFFINE, 4, 64, false}, 300, 2048, 70);
    matvec_alone(l, (qformat){QK_AFFINE, 8, 64, true}, 70, 1024, 8);
    matvec_alone(l, (qformat){QK_AFFINE, 8, 64, true}, 40, 640, 37);
    matvec_alone(l, (qformat){.kind = QK_BF16}, 33, 1088, 33);
    lab_end_group(l, "matvec, a vector alone and among others: the same bits");
    if (strcmp(l->info.backend, "host")) { /* sizes of real models: too slow on the processor */
        lab_begin(l);
        matvec_case(l, (qformat){QK_AFFINE, 4, 64, false}, 12300, 2048, 1);
        matvec_case(l, (qformat){QK_AFFINE, 4, 64, false}, 2048, 4096, 8);
        matvec_case(l, (qformat){QK_AFFINE, 8, 128, false}, 12300, 4096, 5);
        matvec_case(l, (qformat){QK_AFFINE, 4, 32, false}, 9000, 2048, 65);
        matvec_case(l, (qformat){QK_AFFINE, 4, 64, false}, 4100, 8192, 67);
        matvec_case(l, (qformat){.kind = QK_BF16}, 9000, 1024, 63);
        lab_end_group(l, "matvec, large");
    }
}

/* ---- the rest ---- */

static void embed_case(lab *l, qformat f, int cols) {
    enum { ROWS = 21, N = 5 };
    lab_mat m = lab_matrix(l, f, ROWS, cols);
    int ids[N] = {0, ROWS - 1, 7, 7, lab_int(l, 0, ROWS - 1)};
    float *want = lab_host(l, (size_t)(N * cols) * sizeof(float));
    for (int t = 0; t < N; t++) qmat_row_f32(want + (size_t)(t * cols), &m.cpu, ids[t]);
    args_embed a = {.m = m.gpu, .n = N};
    a.ids = lab_in(l, ids, sizeof ids);
    a.out = lab_out(l, (size_t)(N * cols) * sizeof(float));
    lab_run(l, GPU_embed, &a);
    lab_same(l, lab_read(l, a.out, (size_t)(N * cols) * sizeof(float)), want,
             (size_t)(N * cols) * sizeof(float), describe(f, ROWS, cols, N));
    lab_end(l);
}

static void norm_case(lab *l, int n, int cols, bool add) {
    size_t floats = (size_t)(n * cols), bytes = floats * sizeof(float);
    float *x = lab_floats(l, floats, -3, 3), *more = lab_floats(l, floats, -3, 3);
    float *g = lab_floats(l, (size_t)cols, 0, 2), *want = lab_host(l, bytes);
    float *sum = lab_host(l, bytes);
    for (size_t i = 0; i < floats; i++) sum[i] = add ? x[i] + more[i] : x[i];
    for (int t = 0; t < n; t++) {
        l->cpu->rmsnorm(want + t * cols, sum + t * cols, g, cols, 1e-6f);
    }
    args_rmsnorm a = {.n = n, .cols = cols, .eps = 1e-6f};
    a.x = lab_in(l, x, bytes);
    a.g = lab_in(l, g, (size_t)cols * sizeof(float));
    a.y = lab_out(l, bytes);
    if (add) a.add = lab_in(l, more, bytes), a.sum = a.x;
    lab_run(l, GPU_rmsnorm, &a);
    lab_close(l, lab_read(l, a.y, bytes), want, floats, 1e-6, "norm");
    lab_same(l, lab_read(l, a.x, bytes), sum, bytes, "sum");
    lab_end(l);
}

static void swiglu_case(lab *l, int n) {
    size_t bytes = (size_t)n * sizeof(float);
    float *gate = lab_floats(l, (size_t)n, -30, 30), *up = lab_floats(l, (size_t)n, -2, 2);
    float *want = lab_host(l, bytes);
    l->cpu->silu_mul(want, gate, up, n);
    args_swiglu a = {.n = n};
    a.gate = lab_in(l, gate, bytes);
    a.up = lab_in(l, up, bytes);
    a.y = lab_out(l, bytes);
    lab_run(l, GPU_swiglu, &a);
    lab_same(l, lab_read(l, a.y, bytes), want, bytes, "swiglu: the bits of the CPU");
    lab_end(l);
}

static void words_case(lab *l, int n) {
    size_t bytes = (size_t)n * sizeof(int);
    float *data = lab_floats(l, (size_t)n, -30, 30);
    gpu_buffer pinned;
    must(gpu_alloc(l->device, GPU_PINNED, bytes, &pinned));
    memcpy(pinned.host, data, bytes);
    args_words in = {.from = pinned.addr, .n = n}, out = {.to = pinned.addr, .n = n};
    in.to = lab_out(l, bytes);
    out.from = in.to;
    lab_run(l, GPU_words, &in);
    lab_same(l, lab_read(l, in.to, bytes), data, bytes, "words: from the host");
    memset(pinned.host, 0xff, bytes);
    lab_run(l, GPU_words, &out);
    must(gpu_finish(l->device));
    lab_same(l, pinned.host, data, bytes, "words: to the host");
    gpu_free(l->device, &pinned);
    lab_end(l);
}

void check_dense(lab *l) {
    check_matrices(l);
    lab_begin(l);
    for (int b = 2; b <= 8; b++) {
        if (b != 7) embed_case(l, (qformat){QK_AFFINE, b, 64, b % 2 == 0}, 320);
    }
    for (int k = 0; k < 3; k++) embed_case(l, (qformat){.kind = (qkind)k}, 70);
    lab_end_group(l, "embed: the bits of the definition");
    lab_begin(l);
    static const int cols[] = {1, 31, 32, 255, 256, 257, 2048, 4100};
    for (int i = 0; i < 8; i++) {
        norm_case(l, 1, cols[i], false);
        norm_case(l, 3, cols[i], true);
    }
    lab_end_group(l, "rmsnorm");
    lab_begin(l);
    static const int sizes[] = {1, 255, 256, 257, 5000};
    for (int i = 0; i < 5; i++) swiglu_case(l, sizes[i]);
    lab_end_group(l, "swiglu");
    lab_begin(l);
    for (int i = 0; i < 5; i++) words_case(l, sizes[i]);
    lab_end_group(l, "words");
}
