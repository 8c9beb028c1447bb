/* cpu_scalar_bf16.c: BF16 matrices with BF16 activations in plain C: the definition that the fast
 * tables repeat bit for bit (cpu.h has it in words). */
#include <assert.h>
#include <math.h>

#include "base/bits.h"
#include "cpu/cpu_bf16.h"

cpu_actb cpu_actb_place(void *memory, int n, int cols) {
    cpu_actb a = {.x = memory, .n = n, .cols = cols};
    a.stride = round_up((size_t)cols, CPU_BF16_STEP);
    a.back = (float *)memory + (size_t)n * a.stride;
    return a;
}

void cpu_round_bf16_scalar(const cpu_actb *a, int t, const float *x) {
    float *to = (float *)a->x + (size_t)t * a->stride;
    float scale = bf16_scale(a, t, x);
    for (int c = 0; c < a->cols; c++) to[c] = bits_float(bf16_bits(x[c], scale));
}

static float row_by_actb(const uint16_t *w, const float *x, int cols) {
    float lane[CPU_LANES] = {0};
    for (int step = 0; step < cols; step += CPU_BF16_STEP) {
        for (int i = 1; i >= 0; i--) { /* the odd one of a pair first */
            for (int c = step + i; c < int_min(cols, step + CPU_BF16_STEP); c += 2) {
                int l = (c - step) / 2;
                lane[l] = fmaf(bf16_weight(w[c]), x[c], lane[l]);
            }
        }
    }
    for (int half = CPU_LANES / 2; half > 0; half /= 2) {
        for (int l = 0; l < half; l++) lane[l] += lane[l + half];
    }
    return lane[0];
}

void cpu_matmul_bf16_scalar(const cpu_matmul_bf16 *m, int row_begin, int row_end) {
    assert(m->w->format.kind == QK_BF16 && m->w->cols == m->x->cols);
    for (int r = row_begin; r < row_end; r++) {
        const uint16_t *w = (const uint16_t *)m->w->w + (size_t)r * (size_t)m->w->cols;
        for (int t = 0; t < m->n; t++) {
            int from = m->pick ? m->pick[t] : t;
            const float *x = (const float *)m->x->x + (size_t)from * m->x->stride;
            m->y[(size_t)t * m->y_stride + (size_t)r] =
                row_by_actb(w, x, m->w->cols) * m->x->back[from];
        }
    }
}
