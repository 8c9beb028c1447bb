/* check.h: the harness of gpu-check: memory, random inputs, comparison.
 *
 * A case takes a `lab`, makes inputs, runs a kernel on the backend under test and compares what
 * came back with the scalar kernels of the CPU (cpu_at(0)) or a twin written here. Outputs start as
 * NaN (0xff bytes) with a guard behind them; a case fails when a value was not written, differs too
 * much, or the guard was touched. */
#ifndef GPU_CHECK_H
#define GPU_CHECK_H

#include "base/bits.h"
#include "cpu/cpu.h"
#include "gpu/gpu.h"

#define LAB_BUFFERS 160

typedef struct lab {
    gpu_device *device;
    gpu_queue *queue;
    gpu_info info;
    const cpu_kernels *cpu; /* scalar: the definition */
    rng random;
    gpu_buffer buffer[LAB_BUFFERS]; /* of the present case; freed by lab_end */
    void *host[LAB_BUFFERS];        /* likewise */
    int n_buffers, n_host;
    int passed, failed;
    double worst;    /* of the present group of cases */
    char first[256]; /* what failed first in it */
    int cases;
} lab;

/* Stops the program: the machinery under the test failed. */
void must(err e);

/* A group of cases reports as one line. */
void lab_begin(lab *l);
void lab_end_group(lab *l, const char *name);
/* Frees the case's buffers and host memory. */
void lab_end(lab *l);

void *lab_host(lab *l, size_t bytes);                       /* zeroed */
float *lab_floats(lab *l, size_t n, float low, float high); /* random */
gpu_addr lab_in(lab *l, const void *data, size_t bytes);    /* on the device */
gpu_addr lab_out(lab *l, size_t bytes);                     /* poisoned, guarded */
float *lab_read(lab *l, gpu_addr a, size_t bytes);          /* waits; checks the guard */
int lab_int(lab *l, int low, int high);                     /* inclusive */
void lab_run(lab *l, gpu_kernel k, const void *args);

/* || got - want || / || want || <= tolerance, no NaN; text names the case. */
void lab_close(lab *l, const float *got, const float *want, size_t n, double tolerance,
               const char *text);
void lab_same(lab *l, const void *got, const void *want, size_t bytes, const char *text);
void lab_true(lab *l, bool good, const char *text);

/* A random matrix in a format, on both sides. */
typedef struct lab_mat {
    qmat cpu;
    gpu_mat gpu;
} lab_mat;

lab_mat lab_matrix(lab *l, qformat f, int rows, int cols);
/* The bytes of a random matrix alone: w, scales, biases behind each other at the offsets of part.
 */
void lab_matrix_bytes(lab *l, qformat f, int rows, int cols, qmat *out);

void check_dense(lab *l);
void check_matrices(lab *l); /* the part of check_dense with a faster twin on cards */
void check_attention(lab *l);
void check_delta(lab *l);
void check_delta_rule(lab *l); /* likewise */
void check_experts(lab *l);
void check_top(lab *l);
void check_fused(lab *l);
void check_machine(lab *l); /* events, graphs, copies */

/* Prints a table of times and rates. */
void time_kernels(lab *l);

#endif
