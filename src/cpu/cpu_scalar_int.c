/* cpu_scalar_int.c: the integer path in plain C: the definition that the fast tables repeat bit for
 * bit (cpu.h has it in words). */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "cpu/cpu_math.h"
#include "cpu/cpu_tables.h"

cpu_actq cpu_actq_place(void *memory, int n, int cols, int group) {
    assert((group == 32 || group == 64 || group == 128) && cols % group == 0);
    cpu_actq a = {.n = n, .cols = cols, .group = group, .groups = cpu_actq_groups(cols, group)};
    a.q = memory;
    a.scales = (float *)((uint8_t *)memory + round_up((size_t)n * (size_t)cols, 64));
    a.sums = a.scales + (size_t)n * (size_t)a.groups;
    if (cols % 128 == 0) a.split = (int8_t *)(a.sums + (size_t)n * (size_t)a.groups);
    return a;
}

void cpu_actq_split(const cpu_actq *a, int t) {
    if (!a->split) return;
    const int8_t *from = a->q + (size_t)t * (size_t)a->cols;
    int8_t *restrict to = a->split + (size_t)t * (size_t)a->cols;
    for (int c = 0; c < a->cols; c += 128, from += 128, to += 128) {
        for (int i = 0; i < 64; i++) to[i] = from[2 * i];
        for (int i = 0; i < 64; i++) to[64 + i] = from[2 * i + 1];
    }
}

/* The largest magnitude, by the bits without the sign: order is no question, NaN is the largest. */
static float magnitude(const float *x, int n) {
    uint32_t top = 0;
    for (int i = 0; i < n; i++) {
        uint32_t bits = float_bits(x[i]) & 0x7fffffffu;
        top = bits > top ? bits : top;
    }
    return bits_float(top);
}

void cpu_quantize_scalar(const cpu_actq *a, int t, const float *x) {
    int8_t *q = a->q + (size_t)t * (size_t)a->cols;
    float *scales = a->scales + (size_t)t * (size_t)a->groups;
    float *sums = a->sums + (size_t)t * (size_t)a->groups;
    for (int g = 0; g < a->groups; g++) {
        scales[g] = sums[g] = 0;
        if (g >= a->cols / a->group) continue;
        const float *from = x + g * a->group;
        float top = magnitude(from, a->group);
        float steps = top > 0 ? 127.0f / top : 0;
        int sum = 0;
        for (int i = 0; i < a->group; i++) {
            float v = from[i] * steps;
            v = v <= 127.0f ? v : 127.0f; /* so is NaN */
            v = v >= -127.0f ? v : -127.0f;
            int whole = (int)(float_bits(v + ROUND_BIG) - float_bits(ROUND_BIG));
            q[g * a->group + i] = (int8_t)whole;
            sum += whole;
        }
        scales[g] = top / 127.0f;
        sums[g] = (float)sum;
    }
    cpu_actq_split(a, t);
}

static float row_by_actq(const qmat *m, int row, const cpu_actq *a, int t) {
    qformat f = m->format;
    size_t groups = (size_t)(m->cols / f.group), group_bytes = (size_t)(f.group * f.bits / 8);
    const uint8_t *w = (const uint8_t *)m->w + (size_t)row * groups * group_bytes;
    float lane[CPU_INT_LANES] = {0};
    for (size_t g = 0; g < groups; g++) {
        uint8_t q[128];
        affine_unpack_row(q, w + g * group_bytes, f.bits, f.group);
        const int8_t *xq = a->q + (size_t)t * (size_t)a->cols + g * (size_t)f.group;
        int sum = 0;
        for (int i = 0; i < f.group; i++) sum += q[i] * xq[i];
        float scale = affine_scale_f32(m->scales, f.scales_f16, (size_t)row * groups + g);
        float bias = affine_scale_f32(m->biases, f.scales_f16, (size_t)row * groups + g);
        size_t at = (size_t)t * (size_t)a->groups + g;
        float part = fmaf(scale, (float)sum, bias * a->sums[at]);
        lane[g % CPU_INT_LANES] = fmaf(a->scales[at], part, lane[g % CPU_INT_LANES]);
    }
    for (int half = CPU_INT_LANES / 2; half > 0; half /= 2) {
        for (int l = 0; l < half; l++) lane[l] += lane[l + half];
    }
    return lane[0];
}

void cpu_matmul_int_scalar(const cpu_matmul_int *m, int row_begin, int row_end) {
    assert(m->w->format.kind == QK_AFFINE && m->w->format.group == m->x->group &&
           m->w->cols == m->x->cols);
    for (int r = row_begin; r < row_end; r++) {
        for (int t = 0; t < m->n; t++) {
            m->y[(size_t)t * m->y_stride + (size_t)r] =
                row_by_actq(m->w, r, m->x, m->pick ? m->pick[t] : t);
        }
    }
}
