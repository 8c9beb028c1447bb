/* cpu_avx512.c: the float32 kernels for x86-64 with AVX-512 F, BW, VL and DQ. */
#include "cpu/cpu_tables.h"

#ifdef __AVX512F__
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "cpu/cpu_bf16.h"
#include "cpu/cpu_math.h"

#define VW 16
enum { DOT_X = 6, GEMM_ROWS = 8 };

typedef float vf __attribute__((vector_size(64)));
typedef int32_t vi __attribute__((vector_size(64)));

static inline vf v_set(float a) { return (vf)_mm512_set1_ps(a); }
static inline vf v_fma(vf a, vf b, vf c) { return (vf)_mm512_fmadd_ps(a, b, c); }
static inline float v_half(uint16_t h) { return _cvtsh_ss(h); }

static inline float v_sum_one(vf a) {
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(a), _mm512_extractf32x8_ps(a, 1));
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

/* As the definition: the upper half where it is larger. */
#define V_MAX_ONE
static inline float v_max_one(vf a) {
    __m256 half = _mm256_max_ps(_mm512_extractf32x8_ps(a, 1), _mm512_castps512_ps256(a));
    __m128 s = _mm_max_ps(_mm256_extractf128_ps(half, 1), _mm256_castps256_ps128(half));
    s = _mm_max_ps(_mm_movehl_ps(s, s), s);
    return _mm_cvtss_f32(_mm_max_ss(_mm_movehdup_ps(s), s));
}

static inline vf v_load_half(const uint16_t *p) {
    return (vf)_mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)p));
}

static inline void v_store_half(uint16_t *p, vf v) {
    _mm256_storeu_si256((__m256i *)p, _mm512_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

/* out[0], out[1]: a0 b0 a1 b1 ... */
static inline __attribute__((always_inline)) void v_zip(vf *out, vf a, vf b) {
    const __m512i low = _mm512_setr_epi32(0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    const __m512i high = _mm512_add_epi32(low, _mm512_set1_epi32(8));
    out[0] = (vf)_mm512_permutex2var_ps(a, low, b);
    out[1] = (vf)_mm512_permutex2var_ps(a, high, b);
}

static inline vf v_load_bytes(const int8_t *p) {
    return (vf)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)p)));
}

static inline vf v_load_bf16(const uint16_t *p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)p));
    return (vf)_mm512_slli_epi32(wide, 16);
}

static inline __attribute__((always_inline)) __m256i both(uint32_t low, uint32_t high) {
    __m256i v = _mm256_castsi128_si256(_mm_set1_epi32((int)low));
    return _mm256_inserti128_si256(v, _mm_set1_epi32((int)high), 1);
}

/* Integers [8j, 8j + 8) lie in `bits` bytes. Four of them fit 32 bits, all eight when bits is 4. */
static inline __attribute__((always_inline)) void unpack_32(vf *q, const uint8_t *p, int bits) {
    const int b = bits;
    const __m512i mask = _mm512_set1_epi32((1 << bits) - 1);
    const __m512i fours = _mm512_setr_epi32(0, b, 2 * b, 3 * b, 0, b, 2 * b, 3 * b, 0, b, 2 * b,
                                            3 * b, 0, b, 2 * b, 3 * b);
    const __m512i eights =
        _mm512_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28, 0, 4, 8, 12, 16, 20, 24, 28);
    for (int j = 0; j < 2; j++, p += 2 * b) {
        __m512i v;
        if (bits == 8) {
            v = _mm512_cvtepu8_epi32(_mm_loadu_si128((const __m128i *)p));
        } else if (bits == 4) {
            uint32_t w[2];
            memcpy(w, p, sizeof w);
            __m256i low = _mm256_set1_epi32((int)w[0]), high = _mm256_set1_epi32((int)w[1]);
            v = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
            v = _mm512_srlv_epi32(v, eights);
        } else {
            uint64_t x = 0, y = 0;
            memcpy(&x, p, (size_t)b);
            memcpy(&y, p + b, (size_t)b);
            __m256i low = both((uint32_t)x, (uint32_t)(x >> 4 * b));
            __m256i high = both((uint32_t)y, (uint32_t)(y >> 4 * b));
            v = _mm512_inserti64x4(_mm512_castsi256_si512(low), high, 1);
            v = _mm512_srlv_epi32(v, fours);
        }
        q[j] = (vf)_mm512_cvtepi32_ps(_mm512_and_si512(v, mask));
    }
}

static inline vf v_min(vf a, vf b) { return (vf)_mm512_min_ps(a, b); }
static inline vf v_max(vf a, vf b) { return (vf)_mm512_max_ps(a, b); }

static inline void v_range(vf low, vf high, float *least, float *most) {
    *least = _mm512_reduce_min_ps(low);
    *most = _mm512_reduce_max_ps(high);
}

static inline void v_store_bytes(uint8_t *p, vf v) {
    _mm_storeu_si128((__m128i *)p, _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(v)));
}

static inline void v_store_nibbles(uint8_t *p, vf a, vf b) {
    /* of 16 bits: the even one, and above it the odd one */
    __m128i low = _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(a));
    __m128i high = _mm512_cvtepi32_epi8(_mm512_cvttps_epi32(b));
    __m256i q = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
    q = _mm256_maddubs_epi16(q, _mm256_set1_epi16(0x1001));
    _mm_storeu_si128((__m128i *)p, _mm256_cvtepi16_epi8(q));
}

#include "cpu/kernels_f32.inc"

#include "cpu/kernels_gemm.inc"

#include "cpu/kernels_attn.inc"

#include "cpu/kernels_seq.inc"

#include "cpu/kernels_bf16.inc"

#include "cpu/kernels_pack.inc"

static const cpu_kernels table = KERNEL_TABLE("avx512", avx2, round_bf16, matmul_bf16);
static const cpu_kernels table_vnni =
    KERNEL_TABLE("avx512vnni", avx512vnni, round_bf16, matmul_bf16);
static const cpu_kernels table_bf16 =
    KERNEL_TABLE("avx512bf16", avx512vnni, cpu_round_bf16_avx512bf16, cpu_matmul_bf16_avx512bf16);

const cpu_kernels *cpu_table_avx512(void) { return &table; }
const cpu_kernels *cpu_table_avx512vnni(void) { return &table_vnni; }
const cpu_kernels *cpu_table_avx512bf16(void) { return &table_bf16; }
#else
const cpu_kernels *cpu_table_avx512(void) { return NULL; }
const cpu_kernels *cpu_table_avx512vnni(void) { return NULL; }
const cpu_kernels *cpu_table_avx512bf16(void) { return NULL; }
#endif
