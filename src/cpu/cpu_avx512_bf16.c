/* cpu_avx512_bf16.c: BF16 matrices with BF16 activations, for x86-64 with AVX-512 F, BW, VL, DQ and
 * BF16: vdpbf16ps multiplies 32 pairs, twice what fused multiply-adds of floats do.
 *
 * It adds the odd product of a pair to the lane and then the even one, each with one rounding to
 * nearest even, and takes subnormal numbers for 0: measured on a Zen 5 over 32 million random cases
 * of all exponents, and so documented. A processor that rounds otherwise does not get this table:
 * see cpu_checked_avx512_bf16.
 *
 *                x0     x1     x2     a sum is two vectors: pairs [0, 16) and [16, 32) of every
 *       w0      s s    s s    s s     CPU_BF16_STEP columns; ROWS x XS sums stay in registers
 *       ...                           while all columns pass */
#include "cpu/cpu_tables.h"

#if defined(__AVX512BF16__) && defined(__AVX512BW__)
#include <immintrin.h>
#include <math.h>

#include "base/bits.h"
#include "cpu/cpu_bf16.h"

#define INLINE static inline __attribute__((always_inline))

enum { ROWS = 4, XS = 3, NV = 2, VW = CPU_BF16_STEP / NV, AHEAD = 4096 };

void cpu_round_bf16_avx512bf16(const cpu_actb *a, int t, const float *x) {
    uint16_t *to = (uint16_t *)a->x + (size_t)t * a->stride;
    float scale = bf16_scale(a, t, x);
    for (int c = 0; c < a->cols; c++) to[c] = (uint16_t)(bf16_bits(x[c], scale) >> 16);
    for (size_t c = (size_t)a->cols; c < a->stride; c++) to[c] = 0;
}

INLINE float sum(const __m512 *s) {
    __m512 a = _mm512_add_ps(s[0], s[1]);
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 q = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    q = _mm_add_ps(q, _mm_movehl_ps(q, q));
    return _mm_cvtss_f32(_mm_add_ss(q, _mm_movehdup_ps(q)));
}

/* Up to VW weights at w, 0 where there are none. */
INLINE __m512bh load_weights(const uint16_t *w, int n) {
    if (n >= VW) return (__m512bh)_mm512_loadu_si512(w);
    __mmask32 there = n > 0 ? ((__mmask32)1 << n) - 1 : 0;
    return (__m512bh)_mm512_maskz_loadu_epi16(there, w);
}

typedef struct tile {
    const uint16_t *w;
    const uint16_t *x[XS];
    const float *back[XS];
    float *y[XS];
    int cols;
} tile;

/* Columns [c, c + CPU_BF16_STEP), whether they are all there or not. */
INLINE void tile_step(__m512 s[ROWS][XS][NV], const tile *a, int c, int rows, int xs, bool all) {
    __m512bh x[XS][NV];
    for (int t = 0; t < xs; t++) {
        for (int j = 0; j < NV; j++) {
            x[t][j] = (__m512bh)_mm512_loadu_si512(a->x[t] + c + j * VW);
        }
    }
    for (int r = 0; r < rows; r++) {
        for (int j = 0; j < NV; j++) {
            const uint16_t *at = a->w + (size_t)r * (size_t)a->cols + c + j * VW;
            __m512bh w = load_weights(at, all ? VW : a->cols - c - j * VW);
            for (int t = 0; t < xs; t++) s[r][t][j] = _mm512_dpbf16_ps(s[r][t][j], w, x[t][j]);
        }
    }
}

INLINE void tile_do(const tile *a, int rows, int xs) {
    __m512 s[ROWS][XS][NV];
    for (int r = 0; r < rows; r++) {
        for (int t = 0; t < xs; t++) s[r][t][0] = s[r][t][1] = _mm512_setzero_ps();
    }
    const int whole = a->cols / CPU_BF16_STEP * CPU_BF16_STEP;
    for (int c = 0; c < whole; c += CPU_BF16_STEP) {
        if (xs == 1) {
            __builtin_prefetch((const char *)(a->w + c) + AHEAD);
            __builtin_prefetch((const char *)(a->w + c) + AHEAD + 64);
        }
        tile_step(s, a, c, rows, xs, true);
    }
    if (whole < a->cols) tile_step(s, a, whole, rows, xs, false);
    for (int t = 0; t < xs; t++) {
        for (int r = 0; r < rows; r++) a->y[t][r] = sum(s[r][t]) * *a->back[t];
    }
}

static void tile_4x3(const tile *a) { tile_do(a, ROWS, 3); }
static void tile_4x2(const tile *a) { tile_do(a, ROWS, 2); }
static void tile_1x3(const tile *a) { tile_do(a, 1, 3); }
static void tile_1x2(const tile *a) { tile_do(a, 1, 2); }
static void tile_1x1(const tile *a) { tile_do(a, 1, 1); }

/* By rows of x, less 1. One alone goes from row to row, as the weights lie in memory. */
static void (*const tiles_4[XS])(const tile *) = {NULL, tile_4x2, tile_4x3};
static void (*const tiles_1[XS])(const tile *) = {tile_1x1, tile_1x2, tile_1x3};

/* Rows [begin, end) of weights, few enough to stay in the first cache, with all rows of x. */
static void rows_do(const cpu_matmul_bf16 *m, int begin, int end) {
    tile a = {.cols = m->w->cols};
    for (int t = 0, xs; t < m->n; t += xs) {
        xs = int_min(XS, m->n - t);
        for (int i = 0; i < xs; i++) {
            size_t from = (size_t)(m->pick ? m->pick[t + i] : t + i);
            a.x[i] = (const uint16_t *)m->x->x + from * m->x->stride;
            a.back[i] = m->x->back + from;
            a.y[i] = m->y + (size_t)(t + i) * m->y_stride + begin;
        }
        for (int r = begin, rows; r < end; r += rows) {
            rows = xs > 1 && end - r >= ROWS ? ROWS : 1;
            a.w = (const uint16_t *)m->w->w + (size_t)r * (size_t)a.cols;
            (rows == 1 ? tiles_1 : tiles_4)[xs - 1](&a);
            for (int i = 0; i < xs; i++) a.y[i] += rows;
        }
    }
}

void cpu_matmul_bf16_avx512bf16(const cpu_matmul_bf16 *m, int row_begin, int row_end) {
    for (int r = row_begin; r < row_end; r += CPU_MATMUL_ROWS) {
        rows_do(m, r, int_min(row_end, r + CPU_MATMUL_ROWS));
    }
}

/* Few cases, but such that another order, another rounding or one for both products shows. */
bool cpu_checked_avx512_bf16(void) {
    uint16_t w[VW], x[VW];
    float sum[VW / 2], got[VW / 2];
    rng r;
    rng_seed(&r, 1);
    for (int i = 0; i < VW; i++) {
        w[i] = (uint16_t)(0x3f00 + rng_next(&r) % 256 + (rng_next(&r) & 1) * 0x8000);
        x[i] = (uint16_t)(0x3f00 + rng_next(&r) % 256 + (rng_next(&r) & 1) * 0x8000);
    }
    for (int l = 0; l < VW / 2; l++) sum[l] = (float)(rng_unit(&r) - 0.5) * (float)(1 << l % 8);
    __m512 s = _mm512_dpbf16_ps(_mm512_loadu_ps(sum), (__m512bh)_mm512_loadu_si512(w),
                                (__m512bh)_mm512_loadu_si512(x));
    _mm512_storeu_ps(got, s);
    bool same = true;
    for (int l = 0; l < VW / 2; l++) {
        float odd = fmaf(bf16_to_f32(w[2 * l + 1]), bf16_to_f32(x[2 * l + 1]), sum[l]);
        same &= got[l] == fmaf(bf16_to_f32(w[2 * l]), bf16_to_f32(x[2 * l]), odd);
    }
    return same;
}
#else
bool cpu_checked_avx512_bf16(void) { return false; }
#endif
