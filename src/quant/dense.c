/* dense.c: rows of plain f32, f16 and bf16 matrices, and the choice of the format family.
 *
 * Plain code on purpose: this is the oracle that every kernel is compared with. */
#include "quant/blocks.h"

#include <string.h>

#include "base/bits.h"

void dense_row_f32(float *out, const qmat *m, int row) {
    const uint8_t *w = (const uint8_t *)m->w + (size_t)row * qformat_row_bytes(m->format, m->cols);
    if (m->format.kind == QK_F32) {
        memcpy(out, w, (size_t)m->cols * sizeof(float));
        return;
    }
    for (int c = 0; c < m->cols; c++) {
        uint16_t half;
        memcpy(&half, w + (size_t)c * 2, sizeof half);
        out[c] = m->format.kind == QK_F16 ? f16_to_f32(half) : bf16_to_f32(half);
    }
}

void dense_pack_row(void *w, const float *x, qkind kind, int cols) {
    if (kind == QK_F32) {
        memcpy(w, x, (size_t)cols * sizeof(float));
        return;
    }
    for (int c = 0; c < cols; c++) {
        uint16_t half = kind == QK_F16 ? f32_to_f16(x[c]) : f32_to_bf16(x[c]);
        memcpy((uint8_t *)w + (size_t)c * 2, &half, sizeof half);
    }
}

void qmat_row_f32(float *out, const qmat *m, int row) {
    if (m->format.kind == QK_AFFINE) {
        affine_row_f32(out, m, row);
    } else {
        dense_row_f32(out, m, row);
    }
}
