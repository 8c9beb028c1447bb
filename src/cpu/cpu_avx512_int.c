/* cpu_avx512_int.c: the integer path for x86-64 with AVX-512 F, BW, VL, DQ, VBMI and VNNI.
 *
 * vpmultishiftqb cuts any eight fields out of 64 bits, so every bit width is unpacked the same way:
 * eight integers' bytes to a 64-bit lane, cut, mask. */
#include "cpu/cpu_tables.h"

#if defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
#include <immintrin.h>
#include <string.h>

#include "base/bits.h"
#include "cpu/cpu_math.h"

#define VW     16
#define TILE_R 2
#define TILE_X 8

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));
typedef __m256 f8;

static inline vf v_set(float a) { return (vf)_mm512_set1_ps(a); }
static inline vf v_fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps(a, b, c); }
static inline vf v_from_int(vi a) { return (vf)_mm512_cvtepi32_ps((__m512i)a); }

static inline int32_t lanes_max(vi a) { return _mm512_reduce_max_epi32((__m512i)a); }
static inline int32_t lanes_sum(vi a) { return _mm512_reduce_add_epi32((__m512i)a); }

#define QUANTIZE_WORDS
static inline vi i_max(vi a, vi b) { return (vi)_mm512_max_epi32((__m512i)a, (__m512i)b); }

static inline vf v_clamp(vf v) { /* of numbers and NaN, min takes the second */
    v = (vf)_mm512_min_ps((__m512)v, _mm512_set1_ps(127.0f));
    return (vf)_mm512_max_ps((__m512)v, _mm512_set1_ps(-127.0f));
}

static inline void v_store_low_bytes(int8_t *q, vi v) {
    _mm_storeu_si128((__m128i *)q, _mm512_cvtepi32_epi8((__m512i)v));
}

static inline vi i_dot(vi acc, vi w, vi x, int bits) {
    (void)bits;
    return (vi)_mm512_dpbusd_epi32((__m512i)acc, (__m512i)w, (__m512i)x);
}

static inline __m128i load_16(const void *p) { return _mm_loadu_si128(p); }
static inline __m128i load_8(const void *p) { return _mm_loadl_epi64(p); }

/* 8 to 64 bytes, a multiple of 4. Masked loads of bytes would do, and take five times as long
 * (docs/MEASURED.md, "CPU kernels"). */
static inline __attribute__((always_inline)) __m512i load_part(const uint8_t *p, int bytes) {
    if (bytes == 64) return _mm512_loadu_si512(p);
    if (bytes >= 32) {
        __m512i v = _mm512_castsi256_si512(_mm256_loadu_si256((const __m256i *)p));
        if (bytes == 40) v = _mm512_inserti32x4(v, load_8(p + 32), 2);
        if (bytes == 48) v = _mm512_inserti32x4(v, load_16(p + 32), 2);
        return v;
    }
    if (bytes >= 16) {
        __m256i v = _mm256_castsi128_si256(load_16(p));
        if (bytes == 20) v = _mm256_inserti128_si256(v, _mm_loadu_si32(p + 16), 1);
        if (bytes == 24) v = _mm256_inserti128_si256(v, load_8(p + 16), 1);
        return _mm512_castsi256_si512(v);
    }
    __m128i v = load_8(p);
    if (bytes == 12) v = _mm_unpacklo_epi64(v, _mm_loadu_si32(p + 8));
    return _mm512_castsi128_si512(v);
}

/* The fields of `bits` bits in the first `bytes` bytes. What follows them is garbage, except that
 * half a vector ends in zeros. */
static inline __attribute__((always_inline)) vi unpack_part(const uint8_t *p, int bits, int bytes) {
    __m512i v = load_part(p, bytes);
    if (bytes < 8 * bits) v = _mm512_maskz_mov_epi8(((__mmask64)1 << bytes) - 1, v);
    if (bits == 8) return (vi)v;
    const __m512i lane = _mm512_set_epi64(7, 6, 5, 4, 3, 2, 1, 0);
    const __m512i each = _mm512_set1_epi64(0x0101010101010101 * bits);
    const __m512i byte = _mm512_set1_epi64(0x0706050403020100);
    /* byte k of lane i comes from byte bits * i + k, and then holds the field at bit bits * k */
    const __m512i first = _mm512_mullo_epi64(lane, each);
    const __m512i from = _mm512_add_epi8(first, byte);
    const int64_t fields =
        (int64_t)((0x0706050403020100ull & 0x0f0f0f0f0f0f0f0full) * (unsigned long long)bits);
    v = _mm512_permutexvar_epi8(from, v);
    v = _mm512_multishift_epi64_epi8(_mm512_set1_epi64(fields), v);
    return (vi)_mm512_and_si512(v, _mm512_set1_epi8((char)((1 << bits) - 1)));
}

static inline __attribute__((always_inline)) vi unpack(const uint8_t *p, int bits) {
    return unpack_part(p, bits, 8 * bits);
}

static inline __attribute__((always_inline)) vi unpack_half(const uint8_t *p, int bits) {
    return unpack_part(p, bits, 4 * bits);
}

/* A pair of vectors: lanes (0, 2) and (1, 3) of each 128 bits added, a and b taking turns. */
static inline __m512i fold_32(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_unpacklo_epi32(a, b), _mm512_unpackhi_epi32(a, b));
}

static inline __m512i fold_64(__m512i a, __m512i b) {
    return _mm512_add_epi32(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

/* Each 128 bits: the sums of its lanes of a0 .. a3. */
static inline __m512i fold_4(const vi *a) {
    return fold_64(fold_32((__m512i)a[0], (__m512i)a[1]), fold_32((__m512i)a[2], (__m512i)a[3]));
}

static inline __attribute__((always_inline)) f8 f8_sums(const vi *a) {
    __m512i p = fold_4(a), q = fold_4(a + 4);
    __m512i s =
        _mm512_add_epi32(_mm512_shuffle_i64x2(p, q, 0x44), _mm512_shuffle_i64x2(p, q, 0xee));
    __m256i low = _mm512_castsi512_si256(_mm512_shuffle_i64x2(s, s, 0x08));
    __m256i high = _mm512_castsi512_si256(_mm512_shuffle_i64x2(s, s, 0x0d));
    return _mm256_cvtepi32_ps(_mm256_add_epi32(low, high));
}

/* Each vector holds `share` groups, 2 or 4. */
static inline __attribute__((always_inline)) f8 f8_shared_sums(const vi *a, int share) {
    if (share == 2) { /* even groups in the low half, odd in the high */
        __m512i p = fold_4(a);
        p = _mm512_add_epi32(p, _mm512_shuffle_i64x2(p, p, 0xb1));
        const __m512i order = _mm512_setr_epi32(0, 8, 1, 9, 2, 10, 3, 11, 0, 0, 0, 0, 0, 0, 0, 0);
        return _mm256_cvtepi32_ps(_mm512_castsi512_si256(_mm512_permutexvar_epi32(order, p)));
    }
    __m512i p = fold_32((__m512i)a[0], (__m512i)a[1]); /* 128 bits a group: a0 a1 a0 a1 */
    p = _mm512_add_epi32(p, _mm512_shuffle_epi32(p, _MM_PERM_BADC));
    const __m512i order = _mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 0, 0, 0, 0, 0, 0, 0, 0);
    return _mm256_cvtepi32_ps(_mm512_castsi512_si256(_mm512_permutexvar_epi32(order, p)));
}

/* Groups of 32: a vector holds two. */
static inline __attribute__((always_inline)) f8 half_group_sums(const uint8_t *w, const int8_t *x,
                                                                int bits, int n) {
    vi acc[4];
    for (int i = 0; i < 4; i++, w += 8 * bits, x += 64) {
        acc[i] = (vi)_mm512_setzero_si512();
        if (2 * i >= n) continue;
        vi q = 2 * i + 1 < n ? unpack(w, bits) : unpack_half(w, bits);
        acc[i] = i_dot(acc[i], q, (vi)_mm512_loadu_si512(x), bits);
    }
    return f8_shared_sums(acc, 2);
}

static inline f8 f8_zero(void) { return _mm256_setzero_ps(); }
static inline f8 f8_load(const float *p) { return _mm256_loadu_ps(p); }
static inline f8 f8_mul(f8 a, f8 b) { return _mm256_mul_ps(a, b); }
static inline f8 f8_fma(f8 a, f8 b, f8 c) { return _mm256_fmadd_ps(a, b, c); }

/* The tree: l and l + 4, then 2, then 1. */
static inline float f8_total(f8 a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline f8 f8_keep(f8 a, f8 b, int n) {
    return n == 8 ? a : _mm256_mask_mov_ps(b, (__mmask8)((1 << n) - 1), a);
}

static inline f8 f8_halves(const uint16_t *p, bool f16, int n) {
    __m128i h = n == 8 ? _mm_loadu_si128((const __m128i *)p)
                       : _mm_maskz_loadu_epi16((__mmask8)((1 << n) - 1), p);
    return f16 ? _mm256_cvtph_ps(h)
               : _mm256_castsi256_ps(_mm256_slli_epi32(_mm256_cvtepu16_epi32(h), 16));
}

static inline vf v_halves(const uint16_t *p, bool f16, int n) {
    __m256i h = _mm256_maskz_loadu_epi16((__mmask16)((1u << n) - 1), p);
    return f16 ? (vf)_mm512_cvtph_ps(h) : (vf)_mm512_slli_epi32(_mm512_cvtepu16_epi32(h), 16);
}

/* Column c of v goes to out + c * CPU_INT_ROWS. */
static inline void transpose_store(uint32_t *out, const vi *v, int columns) {
    __m512i t[16], u[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32((__m512i)v[i], (__m512i)v[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32((__m512i)v[i], (__m512i)v[i + 1]);
    }
    for (int i = 0; i < 16; i += 4) {
        u[i] = _mm512_unpacklo_epi64(t[i], t[i + 2]);
        u[i + 1] = _mm512_unpackhi_epi64(t[i], t[i + 2]);
        u[i + 2] = _mm512_unpacklo_epi64(t[i + 1], t[i + 3]);
        u[i + 3] = _mm512_unpackhi_epi64(t[i + 1], t[i + 3]);
    }
    for (int k = 0; k < 4; k++) { /* 128-bit lane j of u[4 i + k]: column 4 j + k of rows 4 i .. */
        __m512i low02 = _mm512_shuffle_i32x4(u[k], u[4 + k], 0x88);
        __m512i low13 = _mm512_shuffle_i32x4(u[k], u[4 + k], 0xdd);
        __m512i high02 = _mm512_shuffle_i32x4(u[8 + k], u[12 + k], 0x88);
        __m512i high13 = _mm512_shuffle_i32x4(u[8 + k], u[12 + k], 0xdd);
        __m512i column[4] = {
            _mm512_shuffle_i32x4(low02, high02, 0x88), _mm512_shuffle_i32x4(low13, high13, 0x88),
            _mm512_shuffle_i32x4(low02, high02, 0xdd), _mm512_shuffle_i32x4(low13, high13, 0xdd)};
        for (int j = 0; j < 4; j++) {
            if (4 * j + k < columns) {
                _mm512_storeu_si512(out + (4 * j + k) * CPU_INT_ROWS, column[j]);
            }
        }
    }
}

#include "cpu/kernels_int.inc"

void cpu_quantize_avx512vnni(const cpu_actq *a, int t, const float *x) { quantize(a, t, x); }

void cpu_matmul_int_avx512vnni(const cpu_matmul_int *m, int row_begin, int row_end) {
    matmul_int(m, row_begin, row_end);
}
#endif
