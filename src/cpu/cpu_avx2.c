/* cpu_avx2.c: the float32 kernels for x86-64 with AVX2, FMA and F16C. */
#include "cpu/cpu_tables.h"

#ifdef __AVX2__
#include <immintrin.h>
#include <math.h>
#include <string.h>

#include "base/bits.h"
#include "cpu/cpu_bf16.h"
#include "cpu/cpu_math.h"

#define VW 8
enum { DOT_X = 3, GEMM_ROWS = 3 };

typedef float vf __attribute__((vector_size(32)));
typedef int32_t vi __attribute__((vector_size(32)));

static inline vf v_set(float a) { return (vf)_mm256_set1_ps(a); }
static inline vf v_fma(vf a, vf b, vf c) { return (vf)_mm256_fmadd_ps(a, b, c); }
static inline float v_half(uint16_t h) { return _cvtsh_ss(h); }

static inline float v_sum_one(vf a) {
    __m128 s = _mm_add_ps(_mm256_castps256_ps128(a), _mm256_extractf128_ps(a, 1));
    s = _mm_add_ps(s, _mm_movehl_ps(s, s));
    return _mm_cvtss_f32(_mm_add_ss(s, _mm_movehdup_ps(s)));
}

static inline vf v_load_half(const uint16_t *p) {
    return (vf)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)p));
}

static inline void v_store_half(uint16_t *p, vf v) {
    _mm_storeu_si128((__m128i *)p, _mm256_cvtps_ph(v, _MM_FROUND_TO_NEAREST_INT));
}

/* out[0], out[1]: a0 b0 a1 b1 ... */
static inline __attribute__((always_inline)) void v_zip(vf *out, vf a, vf b) {
    __m256 low = _mm256_unpacklo_ps(a, b), high = _mm256_unpackhi_ps(a, b);
    out[0] = (vf)_mm256_permute2f128_ps(low, high, 0x20);
    out[1] = (vf)_mm256_permute2f128_ps(low, high, 0x31);
}

static inline vf v_load_bytes(const int8_t *p) {
    return (vf)_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)p)));
}

static inline vf v_load_bf16(const uint16_t *p) {
    __m256i wide = _mm256_cvtepu16_epi32(_mm_loadu_si128((const __m128i *)p));
    return (vf)_mm256_slli_epi32(wide, 16);
}

/* Integers [8j, 8j + 8) lie in `bits` bytes. Four of them fit 32 bits, all eight when bits is 4. */
static inline __attribute__((always_inline)) void unpack_32(vf *q, const uint8_t *p, int bits) {
    const __m256i mask = _mm256_set1_epi32((1 << bits) - 1);
    const int b = bits;
    for (int j = 0; j < 4; j++) {
        __m256i v;
        uint64_t eight = 0;
        memcpy(&eight, p + j * b, (size_t)b);
        if (bits == 8) {
            v = _mm256_cvtepu8_epi32(_mm_cvtsi64_si128((int64_t)eight));
        } else if (bits == 4) {
            v = _mm256_set1_epi32((int)(uint32_t)eight);
            v = _mm256_srlv_epi32(v, _mm256_setr_epi32(0, 4, 8, 12, 16, 20, 24, 28));
        } else {
            __m128i low = _mm_set1_epi32((int)(uint32_t)eight);
            __m128i high = _mm_set1_epi32((int)(uint32_t)(eight >> 4 * b));
            v = _mm256_inserti128_si256(_mm256_castsi128_si256(low), high, 1);
            v = _mm256_srlv_epi32(v, _mm256_setr_epi32(0, b, 2 * b, 3 * b, 0, b, 2 * b, 3 * b));
        }
        q[j] = (vf)_mm256_cvtepi32_ps(_mm256_and_si256(v, mask));
    }
}

static inline vf v_min(vf a, vf b) { return (vf)_mm256_min_ps(a, b); }
static inline vf v_max(vf a, vf b) { return (vf)_mm256_max_ps(a, b); }

static inline void v_range(vf low, vf high, float *least, float *most) {
    __m128 l = _mm_min_ps(_mm256_castps256_ps128(low), _mm256_extractf128_ps(low, 1));
    __m128 h = _mm_max_ps(_mm256_castps256_ps128(high), _mm256_extractf128_ps(high, 1));
    l = _mm_min_ps(l, _mm_movehl_ps(l, l));
    h = _mm_max_ps(h, _mm_movehl_ps(h, h));
    *least = _mm_cvtss_f32(_mm_min_ss(l, _mm_movehdup_ps(l)));
    *most = _mm_cvtss_f32(_mm_max_ss(h, _mm_movehdup_ps(h)));
}

static inline void v_store_bytes(uint8_t *p, vf v) {
    __m256i q = _mm256_cvttps_epi32(v);
    __m128i two = _mm_packs_epi32(_mm256_castsi256_si128(q), _mm256_extracti128_si256(q, 1));
    _mm_storel_epi64((__m128i *)p, _mm_packus_epi16(two, two));
}

static inline void v_store_nibbles(uint8_t *p, vf a, vf b) {
    /* of 16 bits: the even one, and above it the odd one; the halves of a and b take turns */
    __m256i q = _mm256_packs_epi32(_mm256_cvttps_epi32(a), _mm256_cvttps_epi32(b));
    q = _mm256_maddubs_epi16(_mm256_packus_epi16(q, q), _mm256_set1_epi16(0x1001));
    q = _mm256_packus_epi16(q, q);
    __m128i low = _mm256_castsi256_si128(q), high = _mm256_extracti128_si256(q, 1);
    _mm_storel_epi64((__m128i *)p, _mm_unpacklo_epi16(low, high));
}

#include "cpu/kernels_f32.inc"

#include "cpu/kernels_gemm.inc"

#include "cpu/kernels_attn.inc"

#include "cpu/kernels_seq.inc"

#include "cpu/kernels_bf16.inc"

#include "cpu/kernels_pack.inc"

static const cpu_kernels table = KERNEL_TABLE("avx2", avx2, round_bf16, matmul_bf16);
static const cpu_kernels table_avxvnni = KERNEL_TABLE("avxvnni", avxvnni, round_bf16, matmul_bf16);

const cpu_kernels *cpu_table_avx2(void) { return &table; }
const cpu_kernels *cpu_table_avxvnni(void) { return &table_avxvnni; }
#else
const cpu_kernels *cpu_table_avx2(void) { return NULL; }
const cpu_kernels *cpu_table_avxvnni(void) { return NULL; }
#endif
