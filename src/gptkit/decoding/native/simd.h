/* Vectors as wide as the processor's registers, of numbers in fp32, bf16 and integers, by GCC's and clang's vector
   extensions; wider ones would pass through memory. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __SSSE3__
#include <immintrin.h>
#endif
#ifdef __ARM_NEON
#include <arm_neon.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#if defined(__AVX512F__)
#define VECTOR 64 /* bytes */
#elif defined(__AVX2__)
#define VECTOR 32
#else
#define VECTOR 16
#endif
#define LANES (VECTOR / 4)

typedef float floats __attribute__((vector_size(VECTOR), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(VECTOR), aligned(4), may_alias));
typedef int16_t shorts __attribute__((vector_size(VECTOR), aligned(2), may_alias));
typedef int8_t bytes __attribute__((vector_size(VECTOR), aligned(1), may_alias));
typedef uint16_t narrow_halves __attribute__((vector_size(VECTOR / 2), aligned(2), may_alias)); /* LANES of them */
typedef int16_t narrow_shorts __attribute__((vector_size(VECTOR / 2), aligned(2), may_alias));
typedef int8_t narrow_bytes __attribute__((vector_size(VECTOR / 4), aligned(1), may_alias));

static long padded(long width, long unit) { return (width + unit - 1) / unit * unit; }
static int min_of(long a, long b) { return (int)(a < b ? a : b); }

INLINE int thread_number(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* The number of threads: fewer than requested if the system or the compiler does not grant as many. */
INLINE int team_size(void) {
#ifdef _OPENMP
    return omp_get_num_threads();
#else
    return 1;
#endif
}

/* This thread's range of `count` units: from `*begin` up to but excluding `*end`. */
INLINE void my_range(long count, long* begin, long* end) {
    long me = thread_number();
    *begin = count * me / team_size();
    *end = count * (me + 1) / team_size();
}

/* Return vectors as values; C has no references. */
INLINE floats floats_at(const float* from) { return *(const floats*)from; }
INLINE ints ints_at(const int32_t* from) { return *(const ints*)from; }
INLINE bytes bytes_at(const void* from) { return *(const bytes*)from; }

INLINE floats splat(float value) { return value - (floats){0}; }
INLINE floats from_bits(ints bits) { return (floats)bits; }

INLINE float bf16_to_float(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* GCC would widen 512 bits in halves, and bytes one at a time if not by way of 16 bits. */
INLINE floats bf16_to_floats(const uint16_t* from) {
#if VECTOR == 64
    return from_bits((ints)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)) << 16);
#else
    return from_bits(__builtin_convertvector(*(const narrow_halves*)from, ints) << 16);
#endif
}

INLINE floats to_floats(ints values) { return __builtin_convertvector(values, floats); }

INLINE floats int8_to_floats(const int8_t* from) {
#if VECTOR == 64
    return to_floats((ints)_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from)));
#elif VECTOR == 32
    return to_floats((ints)_mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i*)from)));
#else
    narrow_shorts wide = __builtin_convertvector(*(const narrow_bytes*)from, narrow_shorts);
    return to_floats(__builtin_convertvector(wide, ints));
#endif
}

INLINE narrow_bytes to_narrow_bytes(ints values) {
#if VECTOR == 64
    return (narrow_bytes)_mm512_cvtepi32_epi8((__m512i)values);
#else
    return __builtin_convertvector(__builtin_convertvector(values, narrow_shorts), narrow_bytes);
#endif
}

INLINE int32_t largest_of(ints values) {
#if VECTOR == 64
    return _mm512_reduce_max_epi32((__m512i)values);
#else
    int32_t largest = values[0];
    for (int i = 1; i < LANES; i++) largest = values[i] > largest ? values[i] : largest;
    return largest;
#endif
}

INLINE uint16_t float_to_bf16(float value) { /* to the nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FC0;
    return (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

INLINE void store_as_bf16(uint16_t* to, floats values) { /* finite values only */
    ints bits = (ints)values;
    bits = ((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16) & 0xFFFF;
    *(narrow_halves*)to = __builtin_convertvector(bits, narrow_halves);
}

INLINE floats round_to_bf16(floats values) { /* a NaN stays NaN: rounding up could overflow to zero */
    ints bits = (ints)values, nan = values != values;
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & (int32_t)0xFFFF0000;
    return from_bits((~nan & bits) | (nan & 0x7FC00000));
}

typedef float eight __attribute__((vector_size(32)));
typedef float four __attribute__((vector_size(16), aligned(4), may_alias));

INLINE four four_at(const float* from) { return *(const four*)from; }

INLINE float sum_of_four(four v) { return (v[0] + v[2]) + (v[1] + v[3]); }
INLINE float sum_of_eight(eight v) {
    return sum_of_four(__builtin_shufflevector(v, v, 0, 1, 2, 3) + __builtin_shufflevector(v, v, 4, 5, 6, 7));
}

INLINE float sum(floats v) {
#if VECTOR == 64
    return sum_of_eight(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
                        __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15));
#elif VECTOR == 32
    return sum_of_eight(v);
#else
    return sum_of_four(v);
#endif
}

/* The sums of four vectors, by the same additions as in `sum`, several in one instruction. */
INLINE four four_sums(floats a, floats b, floats c, floats d) {
#define PICK(x, y, ...) __builtin_shufflevector(x, y, __VA_ARGS__)
#if VECTOR == 64
    floats ab = PICK(a, b, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
                PICK(a, b, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    floats cd = PICK(c, d, 0, 1, 2, 3, 4, 5, 6, 7, 16, 17, 18, 19, 20, 21, 22, 23) +
                PICK(c, d, 8, 9, 10, 11, 12, 13, 14, 15, 24, 25, 26, 27, 28, 29, 30, 31);
    floats all = PICK(ab, cd, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24, 25, 26, 27) +
                 PICK(ab, cd, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28, 29, 30, 31);
    all += PICK(all, all, 2, 3, 0, 1, 6, 7, 4, 5, 10, 11, 8, 9, 14, 15, 12, 13);
    return PICK(all, all, 0, 4, 8, 12) + PICK(all, all, 1, 5, 9, 13);
#else
#if VECTOR == 32
    eight ab = PICK(a, b, 0, 1, 2, 3, 8, 9, 10, 11) + PICK(a, b, 4, 5, 6, 7, 12, 13, 14, 15);
    eight cd = PICK(c, d, 0, 1, 2, 3, 8, 9, 10, 11) + PICK(c, d, 4, 5, 6, 7, 12, 13, 14, 15);
    eight all = PICK(ab, cd, 0, 1, 8, 9, 4, 5, 12, 13) + PICK(ab, cd, 2, 3, 10, 11, 6, 7, 14, 15);
    return PICK(all, all, 0, 4, 2, 6) + PICK(all, all, 1, 5, 3, 7);
#else
    four ab = PICK(a, b, 0, 1, 4, 5) + PICK(a, b, 2, 3, 6, 7);
    four cd = PICK(c, d, 0, 1, 4, 5) + PICK(c, d, 2, 3, 6, 7);
    return PICK(ab, cd, 0, 2, 4, 6) + PICK(ab, cd, 1, 3, 5, 7);
#endif
#endif
#undef PICK
}

/* exp(x) = 2^n p(r), |r| <= ln 2 / 2, with the Taylor polynomial of degree 7: accurate to all bits but the last. */
INLINE floats exponential(floats x) {
    ints low = x<splat(-87.0f), high = x> splat(88.0f);
    x = from_bits((~(low | high) & (ints)x) | (low & (ints)splat(-87.0f)) | (high & (ints)splat(88.0f)));
    floats shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: the low bits now hold the nearest integer */
    floats n = shifted - 12582912.0f;
    floats r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    floats p = splat(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return from_bits((ints)p + ((ints)shifted << 23));
}
