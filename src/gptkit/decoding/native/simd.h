/* Vectors of sixteen numbers in fp32, bf16 and integers; the compiler maps them to the processor's instructions. */

#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#ifdef _OPENMP
#include <omp.h>
#endif
#ifdef __AVX512F__
#include <immintrin.h>
#endif

#define INLINE static inline __attribute__((always_inline))
#define LANES 16

typedef float floats __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(64), aligned(4), may_alias));
typedef int16_t shorts __attribute__((vector_size(32), aligned(2), may_alias));
typedef int8_t bytes __attribute__((vector_size(16), aligned(1), may_alias));

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

INLINE floats splat(float value) { return value - (floats){0}; }
INLINE floats from_bits(ints bits) { return (floats)bits; }

INLINE float bf16_to_float(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE floats bf16_to_floats(const uint16_t* from) {
#ifdef __AVX512F__
    return from_bits((ints)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)from)) << 16);
#else
    ints bits;
    for (int i = 0; i < LANES; i++) bits[i] = from[i];
    return from_bits(bits << 16);
#endif
}

INLINE floats int8_to_floats(const int8_t* from) {
#ifdef __AVX512F__
    return (floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i*)from)));
#else /* by way of 16 bits: GCC would convert directly to 32 one at a time */
    shorts wide = __builtin_convertvector(*(const bytes*)from, shorts);
    return __builtin_convertvector(__builtin_convertvector(wide, ints), floats);
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
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
#ifdef __AVX512F__
    _mm256_storeu_si256((__m256i*)to, _mm512_cvtepi32_epi16((__m512i)bits));
#else
    for (int i = 0; i < LANES; i++) to[i] = (uint16_t)bits[i];
#endif
}

INLINE floats round_to_bf16(floats values) { /* a NaN stays NaN: rounding up could overflow to zero */
    ints bits = (ints)values, nan = values != values;
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) & (int32_t)0xFFFF0000;
    return from_bits((~nan & bits) | (nan & 0x7FC00000));
}

INLINE float sum(floats v) {
    typedef float eight __attribute__((vector_size(32)));
    typedef float four __attribute__((vector_size(16)));
    eight a = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) +
              __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    four b = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
    return (b[0] + b[2]) + (b[1] + b[3]);
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
