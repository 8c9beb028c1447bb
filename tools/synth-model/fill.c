/* fill.c: the bytes of a tensor.
 *
 * Every value is a hash of the tensor's seed and its place, so that any thread can make any range
 * and the file depends on nothing but the options.
 *
 * A weight is q * scale + bias with q uniform and bias = -scale * (2^bits - 1) / 2, so its mean is
 * zero up to the rounding of the bias (0.3 % of a standard deviation). */
#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "synth.h"

#define GOLDEN 0x9e3779b97f4a7c15u

static inline uint64_t hash(uint64_t x) {
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
    return x ^ (x >> 31);
}

static inline uint64_t hash_at(uint64_t seed, uint64_t i) { return hash(seed + i * GOLDEN); }

static double unit(uint64_t seed, uint64_t i) {
    return ((double)(hash_at(seed, i) >> 11) + 0.5) * 0x1p-53;
}

static double normal(uint64_t seed, uint64_t i) {
    return sqrt(-2 * log(unit(seed, 2 * i))) * cos(6.283185307179586 * unit(seed, 2 * i + 1));
}

/* ---- scales and biases ---- */

/* Four scales near the one that gives weights this standard deviation. */
static void choose_scales(synth_matrix *m, int row, int column) {
    static const double spread[4] = {0.9, 0.97, 1.03, 1.1};
    int top = (1 << m->bits) - 1;
    double target = m->gain[row][column] / sqrt((double)top * (top + 2) / 12);
    for (int i = 0; i < 4; i++) {
        uint16_t scale = f32_to_bf16((float)(target * spread[i]));
        m->scale[row][column][i] = scale;
        m->bias[row][column][i] = f32_to_bf16(-bf16_to_f32(scale) * (float)top / 2);
    }
}

void synth_matrix_prepare(synth_matrix *m) {
    for (int row = 0; row < SYNTH_REGIONS; row++)
        for (int column = 0; column < SYNTH_REGIONS; column++) choose_scales(m, row, column);
}

/* The mean weight of this row in the constant region. */
static double row_offset(const synth_model *model, const synth_matrix *m, int row) {
    const synth_shape *s = &model->o.shape;
    switch (m->offset) {
    case SYNTH_ONE: return 1;
    case SYNTH_POPULARITY: return m->offset_size * normal(m->seed ^ GOLDEN, (uint64_t)row);
    case SYNTH_POSITION: {
        int rotary = (int)(s->head_dim * s->partial), j = row % m->head_rows;
        if (j >= rotary / 2) return 0;
        double frequency = pow(s->rope_theta, -2.0 * j / rotary);
        return frequency > 0.004 && frequency < 0.14 ? m->offset_size : 0;
    }
    default: return 0;
    }
}

static void fill_scales(const synth_model *model, const synth_tensor *t, int64_t begin,
                        size_t length, uint8_t *out) {
    const synth_matrix *m = &model->matrices[t->matrix];
    int groups = m->cols / m->group;
    bool biases = t->kind == SYNTH_BIASES;
    for (int64_t i = begin / 2; i < (begin + (int64_t)length) / 2; i++) {
        int row = (int)(i / groups % m->rows), column = (int)(i % groups) * m->group;
        synth_region r = m->writes_hidden ? synth_region_of(model, row) : SYNTH_GENERAL;
        synth_region c = m->reads_hidden ? synth_region_of(model, column) : SYNTH_GENERAL;
        int pick = (int)(hash_at(m->seed, (uint64_t)i) & 3);
        uint16_t value = biases ? m->bias[r][c][pick] : m->scale[r][c][pick];
        if (biases && c == SYNTH_CONST && m->offset != SYNTH_NO_OFFSET)
            value = f32_to_bf16((float)row_offset(model, m, row));
        memcpy(out + (i * 2 - begin), &value, 2);
    }
}

/* ---- everything else ---- */

static void fill_words(uint64_t seed, int64_t begin, size_t length, uint8_t *out) {
    size_t i = 0;
    uint64_t at = (uint64_t)begin / 8;
    for (; i + 8 <= length; i += 8, at++) {
        uint64_t word = hash_at(seed, at);
        memcpy(out + i, &word, 8);
    }
    uint64_t word = hash_at(seed, at);
    memcpy(out + i, &word, length - i);
}

static double small_value(const synth_tensor *t, uint64_t i) {
    switch (t->kind) {
    case SYNTH_NORM: return 1 + 0.02 * (unit(t->seed, i) - 0.5);
    case SYNTH_CONV: return 0.5 * normal(t->seed, i);
    case SYNTH_A_LOG: return log(1 + 15 * unit(t->seed, i));
    default: return log(expm1(exp(log(0.001) + unit(t->seed, i) * log(100.0))));
    }
}

static void fill_small(const synth_tensor *t, int64_t begin, size_t length, uint8_t *out) {
    size_t size = t->kind == SYNTH_A_LOG ? 4 : 2;
    for (size_t i = 0; i < length / size; i++) {
        float value = (float)small_value(t, (uint64_t)begin / size + i);
        uint16_t half = f32_to_bf16(value);
        if (size == 4)
            memcpy(out + i * 4, &value, 4);
        else
            memcpy(out + i * 2, &half, 2);
    }
}

void synth_fill(const synth_model *m, const synth_tensor *t, int64_t begin, size_t length,
                uint8_t *out) {
    switch (t->kind) {
    case SYNTH_WORDS: fill_words(t->seed, begin, length, out); break;
    case SYNTH_SCALES:
    case SYNTH_BIASES: fill_scales(m, t, begin, length, out); break;
    default: fill_small(t, begin, length, out); break;
    }
}
