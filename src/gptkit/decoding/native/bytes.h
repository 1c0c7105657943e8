/* Integer arithmetic: products of weights in 8 or 4 bits with inputs in 8 bits, four of which are added in each lane.
 */

#define INPUT_GROUP 32 /* inputs that share a scale; so outliers spoil only their neighbours' precision */

/* dot_codes(start, u, x): start plus the products of unsigned u, at most 127, and signed x. dot_bytes(start, w, x): the
   same for signed w from -127 to 127, plus WEIGHT_OFFSET times the sum of x. */
#if (VECTOR == 64 && defined(__AVX512VNNI__)) || (VECTOR == 32 && defined(__AVXVNNI__))
#define WEIGHT_OFFSET 128 /* the instruction multiplies unsigned by signed bytes */
INLINE ints dot_codes(ints start, bytes u, bytes x) {
#if VECTOR == 64
    return (ints)_mm512_dpbusd_epi32((__m512i)start, (__m512i)u, (__m512i)x);
#else
    return (ints)_mm256_dpbusd_avx_epi32((__m256i)start, (__m256i)u, (__m256i)x);
#endif
}
INLINE ints dot_bytes(ints start, bytes w, bytes x) { return dot_codes(start, w ^ (int8_t)0x80, x); }

#elif defined(__ARM_FEATURE_DOTPROD)
#define WEIGHT_OFFSET 0
INLINE ints dot_codes(ints start, bytes u, bytes x) {
    return (ints)vdotq_s32((int32x4_t)start, (int8x16_t)u, (int8x16_t)x);
}
INLINE ints dot_bytes(ints start, bytes w, bytes x) { return dot_codes(start, w, x); }

#elif defined(__SSSE3__) && (VECTOR < 64 || defined(__AVX512BW__))
#define WEIGHT_OFFSET 0 /* unsigned by signed again, but sums of two must fit 16 bits: |w| by x with the sign of w */
INLINE ints dot_codes(ints start, bytes u, bytes x) {
#if VECTOR == 64
    return start + (ints)_mm512_madd_epi16(_mm512_maddubs_epi16((__m512i)u, (__m512i)x), _mm512_set1_epi16(1));
#elif VECTOR == 32
    return start + (ints)_mm256_madd_epi16(_mm256_maddubs_epi16((__m256i)u, (__m256i)x), _mm256_set1_epi16(1));
#else
    return start + (ints)_mm_madd_epi16(_mm_maddubs_epi16((__m128i)u, (__m128i)x), _mm_set1_epi16(1));
#endif
}
INLINE ints dot_bytes(ints start, bytes w, bytes x) {
    bytes negative = w < 0;
    return dot_codes(start, (w ^ negative) - negative, (x ^ negative) - negative);
}

#else
#define WEIGHT_OFFSET 0
INLINE ints dot_bytes(ints start, bytes w, bytes x) {
    for (int i = 0; i < VECTOR; i++) start[i / 4] += w[i] * x[i];
    return start;
}
INLINE ints dot_codes(ints start, bytes u, bytes x) { return dot_bytes(start, u, x); }
#endif

typedef struct { /* for each token, `width` inputs, a multiple of BLOCK */
    int8_t* codes;
    float* scales;  /* of every four inputs, so that they fill vectors */
    int32_t* minus; /* minus the sum of every four codes */
    float* offsets; /* of a token: what WEIGHT_OFFSET adds to its products */
} Bytes;

/* code = round(x / scale), ties to even, with scale = max |x| / 127 of each group. */
INLINE void to_bytes(const float* x, long width, const Bytes* to, long token) {
    long at = token * width;
    floats offset = {0};
    int8_t* codes = to->codes + at;
    float* scales = to->scales + at / 4;
    for (long k = 0; k < width; k += INPUT_GROUP) {
        ints most = {0}; /* bits of magnitudes are ordered like them, with NaN on top */
        for (long i = k; i < k + INPUT_GROUP; i += LANES) {
            ints size = *(const ints*)(x + i) & 0x7FFFFFFF, more = size > most;
            most = (more & size) | (~more & most);
        }
        int32_t bits = 0;
        for (int i = 0; i < LANES; i++) bits = most[i] > bits ? most[i] : bits;
        float largest;
        memcpy(&largest, &bits, 4);
        float scale = largest / 127, inverse = scale == 0 ? 0 : 1 / scale;
        for (long i = k; i < k + INPUT_GROUP; i += LANES) {
            floats rounded = *(const floats*)(x + i) * inverse + 12582912.0f; /* 1.5 * 2^23: to an integer */
            *(narrow_bytes*)(codes + i) = __builtin_convertvector((ints)rounded, narrow_bytes);
        }
        for (long i = k / 4; i < (k + INPUT_GROUP) / 4; i++) scales[i] = scale;
    }
    for (long k = 0; k < width; k += VECTOR) {
        ints sums = dot_codes((ints){0}, (bytes){0} + 1, *(const bytes*)(codes + k));
        *(ints*)(to->minus + (at + k) / 4) = -sums;
        offset += to_floats(sums) * *(const floats*)(scales + k / 4);
    }
    to->offsets[token] = sum(offset) * WEIGHT_OFFSET;
}
