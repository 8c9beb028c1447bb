/* blocks.h: the bytes of every weight format, and the one view of a matrix that all arithmetic
 * takes.
 *
 *     dense   w: [rows, cols] of f32, f16 or bf16
 *     affine  w: [rows] bit streams of cols values of `bits` bits, little-endian in 32-bit words,
 * low bits first scales, biases: [rows, cols / group], bf16 or f16        value = q * scale + bias
 *
 * cols % group == 0 and cols * bits % 32 == 0 hold for every affine matrix (checked when it is
 * opened). A qmat owns nothing and never moves its bytes. The same layout is what the packer writes
 * and the GPU reads. */
#ifndef QUANT_BLOCKS_H
#define QUANT_BLOCKS_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef enum qkind { QK_F32, QK_F16, QK_BF16, QK_AFFINE } qkind;

#define AFFINE_GROUP_MAX 128

typedef struct qformat {
    qkind kind;
    int bits;        /* affine: 2, 3, 4, 5, 6 or 8; else 0 */
    int group;       /* affine: 32, 64 or 128; else 0 */
    bool scales_f16; /* affine: scales and biases are f16, else bf16 */
} qformat;

typedef struct qmat {
    qformat format;
    int rows, cols;
    const void *w;      /* borrowed; 4-byte aligned for affine, element aligned for dense */
    const void *scales; /* borrowed; affine only */
    const void *biases; /* borrowed; affine only */
} qmat;

/* Bytes of one row of w. Small sizes that were checked before: cannot overflow. */
static inline size_t qformat_row_bytes(qformat f, int cols) {
    switch (f.kind) {
    case QK_F32: return (size_t)cols * 4;
    case QK_F16:
    case QK_BF16: return (size_t)cols * 2;
    default: return (size_t)cols * (size_t)f.bits / 8;
    }
}

/* Bytes of one row of scales (the same again for biases); 0 when dense. */
static inline size_t qformat_scale_row_bytes(qformat f, int cols) {
    return f.kind == QK_AFFINE ? (size_t)(cols / f.group) * 2 : 0;
}

/* Everything that one row of the matrix occupies. */
static inline size_t qformat_row_total(qformat f, int cols) {
    return qformat_row_bytes(f, cols) + 2 * qformat_scale_row_bytes(f, cols);
}

/* A view of rows [begin, begin + rows) of m. */
static inline qmat qmat_rows(const qmat *m, int begin, int rows) {
    qmat view = *m;
    view.rows = rows;
    view.w = (const uint8_t *)m->w + (size_t)begin * qformat_row_bytes(m->format, m->cols);
    size_t scale_row = qformat_scale_row_bytes(m->format, m->cols);
    if (m->scales) view.scales = (const uint8_t *)m->scales + (size_t)begin * scale_row;
    if (m->biases) view.biases = (const uint8_t *)m->biases + (size_t)begin * scale_row;
    return view;
}

/* out[cols] = row `row` of m as float32: the definition of every format. Affine: fma(q, scale,
 * bias). The product is exact in float32 (q has at most 8 significant bits, a scale at most 11), so
 * that multiplying and adding apart gives the same bits, short of an overflow. */
void qmat_row_f32(float *out, const qmat *m, int row);

/* --- dense.c --- */

/* out[cols] = the row of a dense matrix. */
void dense_row_f32(float *out, const qmat *m, int row);
/* w[cols] in `kind` = x rounded to nearest even. w may not overlap x. */
void dense_pack_row(void *w, const float *x, qkind kind, int cols);

/* --- affine.c --- */

/* out[cols] = the row of an affine matrix. */
void affine_row_f32(float *out, const qmat *m, int row);
/* q[cols] = the integers of a row, 0 .. 2^bits - 1, from its bit stream w. */
void affine_unpack_row(uint8_t *q, const void *w, int bits, int cols);
/* The inverse: w [cols * bits / 8] bytes from q[cols], whose values are below 2^bits. */
void affine_pack_row(void *w, const uint8_t *q, int bits, int cols);
/* Scale or bias number i of a row as float32. */
float affine_scale_f32(const void *scales, bool scales_f16, size_t i);

/* One row of an affine matrix, to be written. */
typedef struct affine_row {
    void *w;               /* [cols * bits / 8] bytes, out */
    void *scales, *biases; /* [cols / group] each, out */
    qformat format;        /* kind QK_AFFINE */
    int cols;              /* cols % group == 0 */
} affine_row;

/* Scale and bias of a group as they are stored. */
typedef struct affine_pair {
    uint16_t scale, bias;
} affine_pair;

/* Of the group whose smallest and largest value, finite, are low and high: (high - low) / (2^bits -
 * 1) and low, rounded to the stored format, never infinite, never -0. */
affine_pair affine_fit(float low, float high, qformat f);

/* The row x[cols] of a dense matrix of `kind` quantised to the nearest values: per group affine_fit
 * first, then every q fitted to the stored scale and bias. False: a value is not finite, and what
 * was written is nothing to use. The definition; cpu_kernels has the fast ones. */
bool affine_quantise_row(const affine_row *out, const void *x, qkind kind);

#endif
