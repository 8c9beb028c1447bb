/* cpu_scalar.c: every kernel in plain float32: the definition that the fast tables repeat bit for
 * bit. Written to be read; it is as slow as a fused multiply-add through the C library is. */
#include <assert.h>
#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "cpu/cpu_math.h"
#include "cpu/cpu_tables.h"

/* The fixed tree over the lanes. */
static float sum_lanes(float *lane) {
    for (int half = CPU_LANES / 2; half > 0; half /= 2) {
        for (int l = 0; l < half; l++) lane[l] += lane[l + half];
    }
    return lane[0];
}

static float dot(const float *a, const float *b, int n) {
    float lane[CPU_LANES] = {0};
    for (int c = 0; c < n; c++) lane[c % CPU_LANES] = fmaf(a[c], b[c], lane[c % CPU_LANES]);
    return sum_lanes(lane);
}

static float sum(const float *x, int n) {
    float lane[CPU_LANES] = {0};
    for (int c = 0; c < n; c++) lane[c % CPU_LANES] += x[c];
    return sum_lanes(lane);
}

static float max_of(const float *x, int n, float start) {
    for (int i = 0; i < n; i++) start = x[i] > start ? x[i] : start;
    return start;
}

static void matmul(const cpu_matmul *m, int row_begin, int row_end) {
    for (int r = row_begin; r < row_end; r++) {
        qmat_row_f32(m->scratch, m->w, r);
        for (int t = 0; t < m->n; t++) {
            const float *x = m->x + (size_t)t * m->x_stride;
            m->y[(size_t)t * m->y_stride + (size_t)r] = dot(m->scratch, x, m->w->cols);
        }
    }
}

static void add(float *y, const float *x, int n) {
    for (int i = 0; i < n; i++) y[i] += x[i];
}

static void add_scaled(float *y, const float *x, float a, int n) {
    for (int i = 0; i < n; i++) y[i] = fmaf(a, x[i], y[i]);
}

static void rmsnorm(float *y, const float *x, const float *g, int n, float eps) {
    float inverse = 1.0f / sqrtf(dot(x, x, n) / (float)n + eps);
    for (int i = 0; i < n; i++) y[i] = x[i] * inverse * g[i];
}

static void l2norm(float *y, const float *x, float scale, int n, float eps) {
    float inverse = 1.0f / sqrtf(dot(x, x, n) + eps);
    for (int i = 0; i < n; i++) y[i] = x[i] * inverse * scale;
}

static void silu(float *y, const float *x, int n) {
    for (int i = 0; i < n; i++) y[i] = silu_1(x[i]);
}

static void silu_mul(float *y, const float *gate, const float *up, int n) {
    for (int i = 0; i < n; i++) y[i] = silu_1(gate[i]) * up[i];
}

static void sigmoid_mul(float *y, const float *gate, int n) {
    for (int i = 0; i < n; i++) y[i] *= sigmoid_1(gate[i]);
}

static void sigmoid(float *y, const float *x, int n) {
    for (int i = 0; i < n; i++) y[i] = sigmoid_1(x[i]);
}

static void softmax(float *x, int n) {
    float top = max_of(x, n, -INFINITY);
    for (int i = 0; i < n; i++) x[i] = exp_1(x[i] - top);
    float inverse = 1.0f / sum(x, n);
    for (int i = 0; i < n; i++) x[i] *= inverse;
}

static void delta_gate(float *decay, const float *a, const float *exp_a_log, const float *dt_bias,
                       int n) {
    for (int i = 0; i < n; i++) decay[i] = -exp_a_log[i] * softplus_1(a[i] + dt_bias[i]);
}

static void rope(float *x, const float *cos_, const float *sin_, int half) {
    for (int i = 0; i < half; i++) {
        float a = x[i], b = x[i + half];
        x[i] = fmaf(a, cos_[i], -(b * sin_[i]));
        x[i + half] = fmaf(b, cos_[i], a * sin_[i]);
    }
}

static void conv4_silu(const cpu_conv *v) {
    for (int c = v->begin; c < v->end; c++) {
        const float *tap = v->w + (size_t)c * 4;
        float *row0 = v->rows + c, *row1 = row0 + v->channels, *row2 = row1 + v->channels;
        for (int t = 0; t < v->n; t++) {
            size_t at = (size_t)t * v->stride + (size_t)c;
            float now = v->x[at];
            float s = fmaf(tap[1], *row1, tap[0] * *row0);
            s = fmaf(tap[2], *row2, s);
            v->y[at] = silu_1(fmaf(tap[3], now, s));
            *row0 = *row1, *row1 = *row2, *row2 = now;
        }
    }
}

static void load_kv(float *out, const cpu_attn *a, const void *base, int position) {
    const uint8_t *head = (const uint8_t *)base + (size_t)position * a->kv_stride;
    for (int i = 0; i < a->head_dim; i++) {
        uint16_t half;
        if (a->type == KV_F32) {
            memcpy(out + i, head + (size_t)i * sizeof *out, sizeof *out);
        } else if (a->type == KV_F16) {
            memcpy(&half, head + (size_t)i * sizeof half, sizeof half);
            out[i] = f16_to_f32(half);
        } else {
            memcpy(&half, head + a->head_dim + i / KV_Q8_GROUP * (int)sizeof half, sizeof half);
            out[i] = (float)(int8_t)head[i] * f16_to_f32(half);
        }
    }
}

/* Online softmax: after every block, out = sum of exp(s - top) v and total = sum of exp(s - top)
 * for the positions so far. */
static void attention_one(const cpu_attn *a, int i) {
    float *out = a->out + (size_t)i * a->out_stride;
    const float *q = a->q + (size_t)i * a->q_stride;
    float *row = a->scratch;
    float top = -INFINITY, total = 0;
    memset(out, 0, (size_t)a->head_dim * sizeof *out);
    for (int start = 0; start < a->n_visible[i]; start += CPU_ATTN_BLOCK) {
        int n = int_min(CPU_ATTN_BLOCK, a->n_visible[i] - start);
        float p[CPU_ATTN_BLOCK];
        for (int j = 0; j < n; j++) {
            load_kv(row, a, a->k, start + j);
            float s = 0;
            for (int c = 0; c < a->head_dim; c++) s = fmaf(q[c], row[c], s);
            p[j] = s * a->scale;
        }
        float new_top = max_of(p, n, top);
        float fade = exp_1(top - new_top);
        for (int j = 0; j < n; j++) p[j] = exp_1(p[j] - new_top);
        total = fmaf(total, fade, sum(p, n));
        for (int c = 0; c < a->head_dim; c++) out[c] *= fade;
        for (int j = 0; j < n; j++) {
            load_kv(row, a, a->v, start + j);
            for (int c = 0; c < a->head_dim; c++) out[c] = fmaf(p[j], row[c], out[c]);
        }
        top = new_top;
    }
    float inverse = 1.0f / total;
    for (int c = 0; c < a->head_dim; c++) out[c] *= inverse;
}

static void attention(const cpu_attn *a) {
    for (int i = 0; i < a->n_q; i++) attention_one(a, i);
}

static void delta_step(const cpu_delta *d) {
    int dk = d->dk, dv = d->dv;
    float *delta = d->scratch;
    for (int t = 0; t < d->n; t++) {
        const float *q = d->q + (size_t)t * d->qk_stride, *k = d->k + (size_t)t * d->qk_stride;
        const float *v = d->v + (size_t)t * d->v_stride;
        float *o = d->o + (size_t)t * d->o_stride;
        float fade = exp_1(d->decay[(size_t)t * d->gate_stride]);
        float beta = d->beta[(size_t)t * d->gate_stride];
        for (int j = 0; j < dv; j++) delta[j] = 0;
        for (int i = 0; i < dk; i++) {
            float *row = d->state + (size_t)i * (size_t)dv;
            for (int j = 0; j < dv; j++) {
                row[j] *= fade;
                delta[j] = fmaf(row[j], k[i], delta[j]);
            }
        }
        for (int j = 0; j < dv; j++) {
            delta[j] = (v[j] - delta[j]) * beta;
            o[j] = 0;
        }
        for (int i = 0; i < dk; i++) {
            float *row = d->state + (size_t)i * (size_t)dv;
            for (int j = 0; j < dv; j++) {
                row[j] = fmaf(k[i], delta[j], row[j]);
                o[j] = fmaf(row[j], q[i], o[j]);
            }
        }
    }
}

/* One chunk of the delta rule. With G[t] the sum of the decays up to t, and S0 the state before:
 *
 *   D[t] = beta[t] (v[t] - e^G[t] S0^T k[t] - sum over i < t of e^(G[t]-G[i]) (k[t].k[i]) D[i])
 *   o[t] = e^G[t] S0^T q[t] + sum over i <= t of e^(G[t]-G[i]) (q[t].k[i]) D[i]
 *   S    = e^G[last] S0 + sum over t of e^(G[last]-G[t]) k[t] D[t]^T
 *
 * The sum in o runs to the end of t's piece of 16 tokens (or the chunk's end) with zero weights
 * above the diagonal: the fast tables multiply whole pieces. */
static void delta_chunk_64(const cpu_delta *d, int first, int n) {
    enum { C = CPU_DELTA_CHUNK };
    size_t dk = (size_t)d->dk, dv = (size_t)d->dv;
    float total[C] = {0}; /* G */
    float *D = d->scratch;
    const float *K = d->k + (size_t)first * d->qk_stride, *Q = d->q + (size_t)first * d->qk_stride;
    const float *V = d->v + (size_t)first * d->v_stride;
    float *O = d->o + (size_t)first * d->o_stride;
    const float *decay = d->decay + (size_t)first * d->gate_stride;
    const float *beta = d->beta + (size_t)first * d->gate_stride;
    for (int t = 0; t < n; t++) {
        total[t] = (t ? total[t - 1] : 0) + decay[(size_t)t * d->gate_stride];
    }
    for (int t = 0; t < n; t++) {
        const float *k = K + (size_t)t * d->qk_stride, *q = Q + (size_t)t * d->qk_stride;
        const float *v = V + (size_t)t * d->v_stride;
        float *o = O + (size_t)t * d->o_stride, *delta = D + (size_t)t * dv;
        float fade = exp_1(total[t]), b = beta[(size_t)t * d->gate_stride];
        for (size_t j = 0; j < dv; j++) delta[j] = o[j] = 0;
        for (size_t i = 0; i < dk; i++) {
            for (size_t j = 0; j < dv; j++) {
                delta[j] = fmaf(k[i], d->state[i * dv + j], delta[j]);
                o[j] = fmaf(q[i], d->state[i * dv + j], o[j]);
            }
        }
        for (size_t j = 0; j < dv; j++) {
            delta[j] = fmaf(-fade, delta[j], v[j]) * b;
            o[j] *= fade;
        }
        for (int i = 0; i < t; i++) {
            float kk = dot(k, K + (size_t)i * d->qk_stride, d->dk);
            float a = -(kk * exp_1(total[t] - total[i]) * b);
            for (size_t j = 0; j < dv; j++) delta[j] = fmaf(a, D[(size_t)i * dv + j], delta[j]);
        }
    }
    for (int t = 0; t < n; t++) {
        const float *q = Q + (size_t)t * d->qk_stride;
        float *o = O + (size_t)t * d->o_stride;
        for (int i = 0; i < int_min(n, t / 16 * 16 + 16); i++) {
            float p = 0;
            if (i <= t) {
                p = dot(q, K + (size_t)i * d->qk_stride, d->dk) * exp_1(total[t] - total[i]);
            }
            for (size_t j = 0; j < dv; j++) o[j] = fmaf(p, D[(size_t)i * dv + j], o[j]);
        }
    }
    float fade = exp_1(total[n - 1]);
    for (size_t ij = 0; ij < dk * dv; ij++) d->state[ij] *= fade;
    for (int t = 0; t < n; t++) {
        const float *k = K + (size_t)t * d->qk_stride;
        float left = exp_1(total[n - 1] - total[t]);
        for (size_t i = 0; i < dk; i++) {
            float a = k[i] * left;
            float *row = d->state + i * dv;
            for (size_t j = 0; j < dv; j++) row[j] = fmaf(a, D[(size_t)t * dv + j], row[j]);
        }
    }
}

static void delta_chunk(const cpu_delta *d) {
    for (int first = 0; first < d->n; first += CPU_DELTA_CHUNK) {
        delta_chunk_64(d, first, int_min(CPU_DELTA_CHUNK, d->n - first));
    }
}

static void to_f16(uint16_t *y, const float *x, int n) {
    for (int i = 0; i < n; i++) y[i] = f32_to_f16(x[i]);
}

static void to_q8(uint8_t *head, const float *x, int dim) {
    for (int g = 0; g < dim; g += KV_Q8_GROUP) {
        uint16_t scale = q8_group(head + g, x + g, KV_Q8_GROUP);
        memcpy(head + dim + g / KV_Q8_GROUP * (int)sizeof scale, &scale, sizeof scale);
    }
}

static const cpu_kernels table = {
    .name = "scalar",
    .matmul = matmul,
    .quantize = cpu_quantize_scalar,
    .matmul_int = cpu_matmul_int_scalar,
    .round_bf16 = cpu_round_bf16_scalar,
    .matmul_bf16 = cpu_matmul_bf16_scalar,
    .dot = dot,
    .add = add,
    .add_scaled = add_scaled,
    .rmsnorm = rmsnorm,
    .l2norm = l2norm,
    .silu = silu,
    .silu_mul = silu_mul,
    .sigmoid_mul = sigmoid_mul,
    .sigmoid = sigmoid,
    .softmax = softmax,
    .delta_gate = delta_gate,
    .rope = rope,
    .conv4_silu = conv4_silu,
    .attention = attention,
    .delta_step = delta_step,
    .delta_chunk = delta_chunk,
    .to_f16 = to_f16,
    .to_q8 = to_q8,
    .quantize_weights = affine_quantise_row,
};

const cpu_kernels *cpu_table_scalar(void) { return &table; }
