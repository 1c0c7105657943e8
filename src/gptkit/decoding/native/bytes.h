/* Integer arithmetic: products of weights in 8 or 4 bits with inputs in 8 bits, four of which are added in each lane.

   Inputs are quantized in groups of 32, each with a scale; so outliers spoil only their neighbours' precision. For the
   products they are sorted, and with them the weights, in chunks: each lane of a chunk's vectors belongs to one group,
   so that integers add up over the whole chunk before a scale is applied. */

#define GROUP 32  /* inputs that share a scale, and weights in 4 bits */
#define BLOCK 128 /* quantized weights and all inputs are zero-padded to a multiple of this */
#define CHUNK (VECTOR == 16 ? 128 : 256)

/* The size of the chunk at k: the last of a row may be a BLOCK. */
INLINE int chunk_size(long width, long k) { return min_of(CHUNK, width - k); }

/* The place of input i in a chunk: the eight fours of a group take the lanes of its number modulo the groups. */
INLINE int sorted_place(int i, int size) {
    int groups = size / GROUP, lanes = LANES / groups, four = i % GROUP / 4;
    int vector = four / lanes, lane = four % lanes * groups + i / GROUP;
    return vector * VECTOR + lane * 4 + i % 4;
}

INLINE void sort_chunk_of(int8_t* codes, const int size) {
    int8_t before[CHUNK];
    memcpy(before, codes, size);
    for (int i = 0; i < size; i += 4) memcpy(codes + sorted_place(i, size), before + i, 4);
}

static void sort_chunk(int8_t* codes, int size) {
    if (size == CHUNK)
        sort_chunk_of(codes, CHUNK);
    else
        sort_chunk_of(codes, BLOCK);
}

/* dot_codes(start, u, x): start plus the products of unsigned u, at most 127, and signed x. dot_bytes(start, w, x): the
   same for signed w from -127 to 127, plus WEIGHT_OFFSET times the sum of x. add_codes(sums, u, x): sums plus the
   products of u, at most 15, and x, up to eight times before `total` returns them as ints. */
#if (VECTOR == 64 && defined(__AVX512VNNI__)) || (VECTOR == 32 && defined(__AVXVNNI__))
#define WEIGHT_OFFSET 128 /* the instruction multiplies unsigned by signed bytes */
typedef ints code_sums;
INLINE ints dot_codes(ints start, bytes u, bytes x) {
#if VECTOR == 64
    return (ints)_mm512_dpbusd_epi32((__m512i)start, (__m512i)u, (__m512i)x);
#else
    return (ints)_mm256_dpbusd_avx_epi32((__m256i)start, (__m256i)u, (__m256i)x);
#endif
}
INLINE ints dot_bytes(ints start, bytes w, bytes x) { return dot_codes(start, w ^ (int8_t)0x80, x); }
INLINE ints add_codes(ints sums, bytes u, bytes x) { return dot_codes(sums, u, x); }
INLINE ints total(ints sums) { return sums; }

#elif defined(__ARM_FEATURE_DOTPROD)
#define WEIGHT_OFFSET 0
typedef ints code_sums;
INLINE ints dot_codes(ints start, bytes u, bytes x) {
    return (ints)vdotq_s32((int32x4_t)start, (int8x16_t)u, (int8x16_t)x);
}
INLINE ints dot_bytes(ints start, bytes w, bytes x) { return dot_codes(start, w, x); }
INLINE ints add_codes(ints sums, bytes u, bytes x) { return dot_codes(sums, u, x); }
INLINE ints total(ints sums) { return sums; }

#elif defined(__SSSE3__) && (VECTOR < 64 || defined(__AVX512BW__))
#define WEIGHT_OFFSET 0 /* unsigned by signed again, but sums of two must fit 16 bits: |w| by x with the sign of w */
typedef shorts code_sums;
INLINE shorts add_codes(shorts sums, bytes u, bytes x) {
#if VECTOR == 64
    return sums + (shorts)_mm512_maddubs_epi16((__m512i)u, (__m512i)x);
#elif VECTOR == 32
    return sums + (shorts)_mm256_maddubs_epi16((__m256i)u, (__m256i)x);
#else
    return sums + (shorts)_mm_maddubs_epi16((__m128i)u, (__m128i)x);
#endif
}
INLINE ints total(shorts sums) {
#if VECTOR == 64
    return (ints)_mm512_madd_epi16((__m512i)sums, _mm512_set1_epi16(1));
#elif VECTOR == 32
    return (ints)_mm256_madd_epi16((__m256i)sums, _mm256_set1_epi16(1));
#else
    return (ints)_mm_madd_epi16((__m128i)sums, _mm_set1_epi16(1));
#endif
}
INLINE bytes with_sign(bytes x, bytes of) {
#if VECTOR == 64
    return (bytes)_mm512_mask_sub_epi8((__m512i)x, _mm512_movepi8_mask((__m512i)of), (__m512i){0}, (__m512i)x);
#elif VECTOR == 32
    return (bytes)_mm256_sign_epi8((__m256i)x, (__m256i)of);
#else
    return (bytes)_mm_sign_epi8((__m128i)x, (__m128i)of);
#endif
}
INLINE ints dot_codes(ints start, bytes u, bytes x) { return start + total(add_codes((shorts){0}, u, x)); }
INLINE ints dot_bytes(ints start, bytes w, bytes x) { return dot_codes(start, with_sign(w, w), with_sign(x, w)); }

#else
#define WEIGHT_OFFSET 0
typedef ints code_sums;
INLINE ints dot_bytes(ints start, bytes w, bytes x) {
    for (int i = 0; i < VECTOR; i++) start[i / 4] += w[i] * x[i];
    return start;
}
INLINE ints dot_codes(ints start, bytes u, bytes x) { return dot_bytes(start, u, x); }
INLINE ints add_codes(ints sums, bytes u, bytes x) { return dot_bytes(sums, u, x); }
INLINE ints total(ints sums) { return sums; }
#endif

typedef struct { /* for each token, `width` inputs, a multiple of BLOCK, sorted in chunks */
    int8_t* codes;
    float* scales;  /* (chunks, LANES) */
    int32_t* minus; /* (chunks, LANES): minus eight times the sum of a lane's codes */
    float* offsets; /* of a token: what WEIGHT_OFFSET adds to its products */
} Bytes;

/* Where a token's scales and sums begin, in vectors of one a chunk. */
INLINE long lanes_at(long width, long token) { return padded(width, CHUNK) / CHUNK * LANES * token; }

/* The bits of |x|, which are ordered like the magnitudes, with NaN on top: comparing floats would miss a NaN. */
INLINE uint32_t magnitude(float x) {
    uint32_t bits;
    memcpy(&bits, &x, 4);
    return bits & 0x7FFFFFFF;
}

/* The scale that makes a vector's entry of largest magnitude 127; of NaN or infinity, itself. */
INLINE float byte_scale(const float* x, long size) {
    uint32_t largest = 0;
    float scale;
    for (long d = 0; d < size; d++) largest = magnitude(x[d]) > largest ? magnitude(x[d]) : largest;
    memcpy(&scale, &largest, 4);
    return scale / 127;
}

INLINE float reciprocal(float scale) { return scale == 0 ? 0 : 1 / scale; }

/* code = round(x / scale), ties to even, with scale = max |x| / 127 of each group; return the scale. */
INLINE float group_to_bytes(const float* x, int8_t codes[GROUP]) {
    ints most = {0}; /* bits of magnitudes are ordered like them, with NaN on top */
    for (int i = 0; i < GROUP; i += LANES) {
        ints size = *(const ints*)(x + i) & 0x7FFFFFFF, more = size > most;
        most = (more & size) | (~more & most);
    }
    int32_t bits = largest_of(most);
    float largest;
    memcpy(&largest, &bits, 4);
    float scale = largest / 127, inverse = reciprocal(scale);
    for (int i = 0; i < GROUP; i += LANES) {
        floats rounded = *(const floats*)(x + i) * inverse + 12582912.0f; /* 1.5 * 2^23: to an integer */
        *(narrow_bytes*)(codes + i) = to_narrow_bytes((ints)rounded << 24 >> 24);
    }
    return scale;
}

INLINE void chunk_to_bytes(const float* x, int size, int8_t* codes, float* scales, int32_t* minus) {
    int8_t group[GROUP];
    for (int i = 0; i < size; i += GROUP) {
        float scale = group_to_bytes(x + i, group);
        for (int four = 0; four < GROUP; four += 4) memcpy(codes + sorted_place(i + four, size), group + four, 4);
        for (int lane = i / GROUP; lane < LANES; lane += size / GROUP) scales[lane] = scale;
    }
    ints sums = {0};
    for (int at = 0; at < size; at += VECTOR) sums = dot_codes(sums, (bytes){0} + 1, bytes_at(codes + at));
    *(ints*)minus = -8 * sums;
}

INLINE void to_bytes(const float* x, long width, const Bytes* to, long token) {
    long at = lanes_at(width, token);
    floats offset = {0};
    for (long k = 0; k < width; k += CHUNK, at += LANES) {
        int8_t* codes = to->codes + token * width + k;
        if (chunk_size(width, k) == CHUNK)
            chunk_to_bytes(x + k, CHUNK, codes, to->scales + at, to->minus + at);
        else
            chunk_to_bytes(x + k, BLOCK, codes, to->scales + at, to->minus + at);
        offset += to_floats(ints_at(to->minus + at)) * floats_at(to->scales + at);
    }
    to->offsets[token] = sum(offset) * (WEIGHT_OFFSET / -8);
}
