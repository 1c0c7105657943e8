/* The forward pass of a GPT on a CPU: prompts and single tokens of many rows alike, over a cache of keys and values.

   Everything between token ids and logits happens inside one call of gpt_forward, in one team of threads that meet at
   barriers: a token costs the reading of its weights and little else. Every sum runs over its terms in one order, which
   depends on nothing but the layer's width, so a row's logits have the same bits in any batch. The one exception are
   matrix tiles (AMX), which only bf16 activations use.

   Letters: m counts tokens of a call, n outputs and k inputs of a layer, d dimensions of a head. */

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
#if defined(__AMX_BF16__) && defined(__linux__)
#include <sys/syscall.h>
#include <unistd.h>
#define TILES 1
#endif

#define INLINE static inline __attribute__((always_inline))
#define LANES 16
#define GROUP 32   /* int4: weights that share a scale */
#define BLOCK 128  /* int4: weights in 64 bytes; inputs are padded with zeros to a multiple of it */
#define BLOCK_N 6  /* outputs and tokens of a register block */
#define BLOCK_M 4
#define AHEAD 4096 /* bytes beyond the next block from which memory is asked for */
#define TILE 16    /* rows and columns of a matrix tile, of 32 inputs each */

typedef float floats __attribute__((vector_size(64), aligned(4), may_alias));
typedef int32_t ints __attribute__((vector_size(64), aligned(4), may_alias));

enum { F32, BF16, INT8, INT4 };

typedef struct {
    int32_t format, outputs, inputs;
    const void *weights;  /* (outputs, inputs); INT4: (outputs, inputs padded to BLOCK), packed as pack_int4 does */
    const void *scales;   /* INT8: float (outputs,); INT4: bf16 (outputs, padded inputs / GROUP) */
    const float *bias;    /* (outputs,) or null */
} Matrix;

typedef struct {
    Matrix attention, attention_out, mlp, mlp_out;
    const float *norm_1, *norm_1_bias, *norm_2, *norm_2_bias;
} Layer;

typedef struct {
    int32_t n_layer, n_head, n_embd, n_inner, vocab_size;
    int32_t pre_norm, erf_gelu, bf16, threads;
    float epsilon;
    Matrix tokens, positions, head;  /* tokens and positions are looked up: F32 or BF16 */
    const Layer *layers;
    const float *norm, *norm_bias;
} Model;

typedef struct {  /* of one layer, row and head: keys in blocks of LANES positions, (block, d, LANES); values (position, d) */
    int32_t rows, capacity;
    void *keys, *values;  /* float, or bf16 where activations are */
} Cache;

typedef struct {
    int32_t row, start, length, wanted;  /* `wanted`: whether the last token's logits are asked for */
} Piece;

typedef struct {
    float *hidden, *normed, *attention, *attended, *inner;  /* (m, width): `hidden` unpadded, the others padded to BLOCK */
    uint16_t *tiles;  /* the inputs of a product as tiles: (m / TILE, k / 32, 16 pairs, TILE, 2) */
    float *scratch;   /* (threads, scratch_size) */
    long scratch_size;
} Buffers;

static long padded(long width, long unit) { return (width + unit - 1) / unit * unit; }
static int least(long a, long b) { return (int)(a < b ? a : b); }

INLINE int thread_number(void) {
#ifdef _OPENMP
    return omp_get_thread_num();
#else
    return 0;
#endif
}

/* The share of `count` units that falls to this thread: from `*begin` up to `*end`. */
INLINE void share(long count, int threads, long *begin, long *end) {
    long me = thread_number();
    *begin = count * me / threads;
    *end = count * (me + 1) / threads;
}

/* --- numbers --- */

INLINE floats all(float value) { return value - (floats){0}; }
INLINE floats from_bits(ints bits) { return (floats)bits; }

INLINE float bf16_to_float(uint16_t half) {
    uint32_t bits = (uint32_t)half << 16;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

INLINE floats bf16_to_floats(const uint16_t *from) {
#ifdef __AVX512F__
    return from_bits((ints)_mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)from)) << 16);
#else
    ints bits;
    for (int i = 0; i < LANES; i++) bits[i] = from[i];
    return from_bits(bits << 16);
#endif
}

INLINE floats int8_to_floats(const int8_t *from) {
#ifdef __AVX512F__
    return (floats)_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)from)));
#else
    floats values;
    for (int i = 0; i < LANES; i++) values[i] = from[i];
    return values;
#endif
}

INLINE uint16_t float_to_bf16(float value) { /* to the nearest, ties to even */
    uint32_t bits;
    memcpy(&bits, &value, 4);
    if ((bits & 0x7FFFFFFF) > 0x7F800000) return 0x7FC0;
    return (uint16_t)((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

INLINE void store_as_bf16(uint16_t *to, floats values) { /* finite ones */
    ints bits = (ints)values;
    bits = (bits + 0x7FFF + ((bits >> 16) & 1)) >> 16;
#ifdef __AVX512F__
    _mm256_storeu_si256((__m256i *)to, _mm512_cvtepi32_epi16((__m512i)bits));
#else
    for (int i = 0; i < LANES; i++) to[i] = (uint16_t)bits[i];
#endif
}

INLINE floats round_to_bf16(floats values) {
    ints bits = (ints)values;
    return from_bits((bits + 0x7FFF + ((bits >> 16) & 1)) & (int32_t)0xFFFF0000);
}

INLINE float sum(floats v) {
    typedef float eight __attribute__((vector_size(32)));
    typedef float four __attribute__((vector_size(16)));
    eight a = __builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7) + __builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15);
    four b = __builtin_shufflevector(a, a, 0, 1, 2, 3) + __builtin_shufflevector(a, a, 4, 5, 6, 7);
    return (b[0] + b[2]) + (b[1] + b[3]);
}

/* exp by 2^n p(r), |r| <= ln 2 / 2; the Taylor polynomial of degree 7 is good to the last bit but one. */
INLINE floats exponential(floats x) {
    ints low = x < all(-87.0f), high = x > all(88.0f);
    x = from_bits((~(low | high) & (ints)x) | (low & (ints)all(-87.0f)) | (high & (ints)all(88.0f)));
    floats shifted = x * 1.44269504f + 12582912.0f; /* 1.5 * 2^23: the low bits now hold the nearest integer */
    floats n = shifted - 12582912.0f;
    floats r = (x - n * 0.693145752f) - n * 1.42860677e-6f;
    floats p = all(1.0f / 5040);
    p = p * r + 1.0f / 720;
    p = p * r + 1.0f / 120;
    p = p * r + 1.0f / 24;
    p = p * r + 1.0f / 6;
    p = p * r + 0.5f;
    p = p * r + 1.0f;
    p = p * r + 1.0f;
    return from_bits((ints)p + ((ints)shifted << 23));
}

/* --- products --- */

/* Weights k ... k + 15 of output n, of any format but INT4, without INT8's scale. */
INLINE floats weights_at(const Matrix *w, int format, long n, long k) {
    if (format == F32) return *(const floats *)((const float *)w->weights + n * w->inputs + k);
    if (format == BF16) return bf16_to_floats((const uint16_t *)w->weights + n * w->inputs + k);
    return int8_to_floats((const int8_t *)w->weights + n * w->inputs + k);
}

/* INT4: 64 bytes hold BLOCK codes; four bits of each 32-bit lane belong to one step of LANES weights. A group's sixteen
   possible weights, (code - 8) scale, are looked up where the processor can, else computed: the same numbers. */
INLINE floats int4_table(const uint16_t *scales, int group) {
    int32_t pair; /* two scales, one of which goes to the upper half of the lanes */
    memcpy(&pair, scales + group / 2 * 2, sizeof pair);
    ints bits = (ints){0} + pair;
    floats scale = group % 2 ? from_bits(bits & (int32_t)0xFFFF0000) : from_bits(bits << 16);
#ifdef __AVX512F__
    return scale * (floats){-8, -7, -6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6, 7};
#else
    return scale;
#endif
}

INLINE floats int4_weights(ints codes, int step, floats table) {
#ifdef __AVX512F__
    return (floats)_mm512_permutexvar_ps((__m512i)(codes >> 4 * step), (__m512)table);
#else
    ints code = step < 5 ? codes << (19 - 4 * step) : codes >> (4 * step - 19); /* into the mantissa of 16 + code */
    return (from_bits((code & 15 << 19) | 0x41800000) - 24) * table;
#endif
}

/* The last, incomplete weights of output n, filled up with zeros. */
INLINE floats tail_at(const Matrix *w, int format, long n, long k) {
    floats tail = {0};
    for (long i = k; i < w->inputs; i++) {
        long at = n * w->inputs + i;
        if (format == F32) tail[i - k] = ((const float *)w->weights)[at];
        if (format == BF16) tail[i - k] = bf16_to_float(((const uint16_t *)w->weights)[at]);
        if (format == INT8) tail[i - k] = ((const int8_t *)w->weights)[at];
    }
    return tail;
}

INLINE float scaled(const Matrix *w, int format, long n, floats sums) {
    return fmaf(sum(sums), format == INT8 ? ((const float *)w->scales)[n] : 1, w->bias ? w->bias[n] : 0);
}

/* Sums over k, in steps of LANES, kept in registers: their names are written out, as compilers leave arrays in memory.
   `SUM(i)` adds a step's products to the sums of output n + i. */
#define FOR_OUTPUTS(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
#define FOR_INPUTS(SUM)                                                                                              \
    long k = 0;                                                                                                      \
    for (; k + LANES <= w->inputs; k += LANES) { SUM(weights_at) }                                                   \
    if (k < w->inputs) { SUM(tail_at) }

/* Ask for the next `length` bytes of memory that a later block will read: rows are too short for processors to see the
   stream themselves. */
#define FETCH(from, length)                                                                                          \
    _Pragma("GCC unroll 8") for (long line = 0; line < (length); line += 64)                                         \
        __builtin_prefetch((const char *)(from) + line);

INLINE long row_bytes(const Matrix *w) {
    if (w->format == INT4) return padded(w->inputs, BLOCK) / 2;
    return (long)w->inputs * (w->format == F32 ? 4 : w->format == BF16 ? 2 : 1);
}

INLINE const char *row_of(const Matrix *w, long n) { return (const char *)w->weights + n * row_bytes(w); }

/* y[n] ... y[n + 5] of one token. */
INLINE void block_of_one(const Matrix *w, int format, long n, const float *x, float *y) {
    const int size = format == F32 ? 4 : format == BF16 ? 2 : 1;
    const char *ahead = row_of(w, n + BLOCK_N) + AHEAD;
#define ZERO(i) floats sums_##i = {0};
#define ADD_weights_at(i) sums_##i += weights_at(w, format, n + i, k) * input;
#define ADD_tail_at(i) sums_##i += tail_at(w, format, n + i, k) * input;
#define SUM(weights_of)                                                                                              \
    floats input = *(const floats *)(x + k);                                                                         \
    FETCH(ahead + k * BLOCK_N * size, BLOCK_N * LANES * size)                                                        \
    FOR_OUTPUTS(ADD_##weights_of)
#define FINISH(i) y[n + i] = scaled(w, format, n + i, sums_##i);
    FOR_OUTPUTS(ZERO)
    FOR_INPUTS(SUM)
    FOR_OUTPUTS(FINISH)
#undef ADD_weights_at
#undef ADD_tail_at
#undef SUM
#undef FINISH
}

/* The same of INT4. */
INLINE void block_of_one_int4(const Matrix *w, long n, const float *x, float *y) {
    long groups = padded(w->inputs, BLOCK) / GROUP, size = row_bytes(w);
    const char *codes = row_of(w, n), *ahead = codes + BLOCK_N * size + AHEAD;
    const uint16_t *scales = (const uint16_t *)w->scales + n * groups;
#define CODES(i) ints codes_##i = *(const ints *)(codes + i * size);
#define ADD(i)                                                                                                       \
    {                                                                                                                \
        floats table = int4_table(scales + i * groups, step * LANES / GROUP);                                        \
        sums_##i += int4_weights(codes_##i, step, table) * input;                                                    \
        sums_##i += int4_weights(codes_##i, step + 1, table) * next_input;                                           \
    }
#define FINISH(i) y[n + i] = scaled(w, INT4, n + i, sums_##i);
    FOR_OUTPUTS(ZERO)
    for (long k = 0; k < w->inputs; k += BLOCK, codes += BLOCK / 2, scales += BLOCK / GROUP) {
        FOR_OUTPUTS(CODES)
        FETCH(ahead, BLOCK_N * BLOCK / 2)
        ahead += BLOCK_N * BLOCK / 2;
#pragma GCC unroll 4
        for (int step = 0; step < BLOCK / LANES; step += GROUP / LANES) {
            floats input = *(const floats *)(x + k + step * LANES);
            floats next_input = *(const floats *)(x + k + (step + 1) * LANES);
            FOR_OUTPUTS(ADD)
        }
    }
    FOR_OUTPUTS(FINISH)
#undef ZERO
#undef CODES
#undef ADD
#undef FINISH
}

/* The same of four tokens, of fp32 weights. */
static void block_of_four(const Matrix *w, long n, const float *x, long x_width, float *y, long y_width,
                          const char *ahead, float length) {
    float due = 0; /* bytes from `ahead` on to ask for by now, `length` more at each step */
#define ZERO(i) floats sums_##i##0 = {0}, sums_##i##1 = {0}, sums_##i##2 = {0}, sums_##i##3 = {0};
#define SUM(weights_of)                                                                                              \
    const float *input = x + k;                                                                                      \
    floats input_0 = *(const floats *)input, input_1 = *(const floats *)(input + x_width),                           \
           input_2 = *(const floats *)(input + 2 * x_width), input_3 = *(const floats *)(input + 3 * x_width);       \
    for (due += length; due > 0; due -= 64, ahead += 64) __builtin_prefetch(ahead);                                  \
    FOR_OUTPUTS(ADD_##weights_of)
#define ADD(i, weight)                                                                                               \
    {                                                                                                                \
        floats v = weight;                                                                                           \
        sums_##i##0 += v * input_0;                                                                                  \
        sums_##i##1 += v * input_1;                                                                                  \
        sums_##i##2 += v * input_2;                                                                                  \
        sums_##i##3 += v * input_3;                                                                                  \
    }
#define ADD_weights_at(i) ADD(i, weights_at(w, F32, n + i, k))
#define ADD_tail_at(i) ADD(i, tail_at(w, F32, n + i, k))
#define FINISH(i)                                                                                                    \
    y[n + i] = scaled(w, F32, n + i, sums_##i##0);                                                                   \
    y[y_width + n + i] = scaled(w, F32, n + i, sums_##i##1);                                                         \
    y[2 * y_width + n + i] = scaled(w, F32, n + i, sums_##i##2);                                                     \
    y[3 * y_width + n + i] = scaled(w, F32, n + i, sums_##i##3);
    FOR_OUTPUTS(ZERO)
    FOR_INPUTS(SUM)
    FOR_OUTPUTS(FINISH)
#undef ZERO
#undef SUM
#undef ADD
#undef ADD_weights_at
#undef ADD_tail_at
#undef FINISH
}

/* One output of one token, for what is left over. */
static float single_f32(const Matrix *w, long n, const float *x) {
    floats sums = {0};
    long k = 0;
    for (; k + LANES <= w->inputs; k += LANES) sums += weights_at(w, F32, n, k) * *(const floats *)(x + k);
    if (k < w->inputs) sums += tail_at(w, F32, n, k) * *(const floats *)(x + k);
    return scaled(w, F32, n, sums);
}

/* Weights k of output n as floats, INT8's without its scale, with zeros up to a multiple of LANES (INT4: of BLOCK). */
static void unpack(const Matrix *w, long n, float *to) {
    long k = 0, whole = w->inputs / LANES * LANES;
    if (w->format == INT4) {
        const char *codes = row_of(w, n);
        const uint16_t *scales = (const uint16_t *)w->scales + n * padded(w->inputs, BLOCK) / GROUP;
        for (; k < w->inputs; k += BLOCK, codes += BLOCK / 2, scales += BLOCK / GROUP) {
            ints block = *(const ints *)codes;
#pragma GCC unroll 8
            for (int step = 0; step < BLOCK / LANES; step++)
                *(floats *)(to + k + step * LANES) =
                    int4_weights(block, step, int4_table(scales, step * LANES / GROUP));
        }
    }
    else if (w->format == INT8)
        for (; k < whole; k += LANES) *(floats *)(to + k) = weights_at(w, INT8, n, k);
    else if (w->format == BF16)
        for (; k < whole; k += LANES) *(floats *)(to + k) = weights_at(w, BF16, n, k);
    else
        for (; k < whole; k += LANES) *(floats *)(to + k) = weights_at(w, F32, n, k);
    if (k < w->inputs) *(floats *)(to + k) = tail_at(w, w->format, n, k);
}

/* y (m, n) = x W^T + b of fp32 weights. While a block is computed, the `size` bytes from `ahead` on are asked for; without
   them, the weights of the next block. */
static void product_f32(const Matrix *w, int tokens, long begin, long end, const float *x, long x_width, float *y,
                        long y_width, const char *ahead, long size) {
    long n = begin, steps = w->inputs / LANES + 1, blocks = tokens / BLOCK_M;
    if (!ahead) size = BLOCK_N * row_bytes(w);
    for (; n + BLOCK_N <= end; n += BLOCK_N) {
        int m = 0;
        const char *next = ahead ? ahead : row_of(w, n + BLOCK_N);
        for (; m + BLOCK_M <= tokens; m += BLOCK_M, next += size / blocks)
            block_of_four(w, n, x + m * x_width, x_width, y + m * y_width, y_width, next,
                          (float)size / (blocks * steps));
        for (; m < tokens; m++) block_of_one(w, F32, n, x + m * x_width, y + m * y_width);
    }
    for (; n < end; n++)
        for (int m = 0; m < tokens; m++) y[m * y_width + n] = single_f32(w, n, x + m * x_width);
}

/* The same sums of any format, its weights unpacked once for all tokens. */
static void product_unpacked(const Matrix *w, int tokens, long begin, long end, const float *x, long x_width, float *y,
                             long y_width, float *scratch) {
    long row = padded(w->inputs, w->format == INT4 ? BLOCK : LANES);
    for (long n = begin; n < end; n += BLOCK_N) {
        int outputs = least(BLOCK_N, end - n);
        for (int i = 0; i < outputs; i++) unpack(w, n + i, scratch + i * row);
        Matrix unpacked = {F32, outputs, (int32_t)row, scratch, 0, 0};
        product_f32(&unpacked, tokens, 0, outputs, x, x_width, y + n, y_width, row_of(w, n + BLOCK_N),
                    BLOCK_N * row_bytes(w));
        for (int i = 0; i < outputs; i++) {
            float scale = w->format == INT8 ? ((const float *)w->scales)[n + i] : 1;
            float bias = w->bias ? w->bias[n + i] : 0;
            for (int m = 0; m < tokens; m++) y[m * y_width + n + i] = fmaf(y[m * y_width + n + i], scale, bias);
        }
    }
}

/* y (m, n) = x (m, k) W^T + b for the outputs `begin` ... `end` - 1. */
static void product(const Matrix *w, int tokens, long begin, long end, const float *x, long x_width, float *y,
                    long y_width, float *scratch) {
    if (w->format == F32) return product_f32(w, tokens, begin, end, x, x_width, y, y_width, 0, 0);
    long n = begin;
    if (tokens == 1 && w->format == BF16)
        for (; n + BLOCK_N <= end; n += BLOCK_N) block_of_one(w, BF16, n, x, y);
    if (tokens == 1 && w->format == INT8)
        for (; n + BLOCK_N <= end; n += BLOCK_N) block_of_one(w, INT8, n, x, y);
    if (tokens == 1 && w->format == INT4)
        for (; n + BLOCK_N <= end; n += BLOCK_N) block_of_one_int4(w, n, x, y);
    product_unpacked(w, tokens, n, end, x, x_width, y, y_width, scratch);
}

/* --- products by matrix tiles, for many tokens with bf16 activations --- */

#ifdef TILES
static int tiles_allowed(void) { /* Linux hands the registers out on request only */
    static int allowed = -1;
    if (allowed < 0) allowed = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
    return allowed;
}

static void configure_tiles(void) {
    struct { uint8_t palette, start, reserved[14]; uint16_t row_bytes[16]; uint8_t rows[16]; } config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.row_bytes[i] = 64, config.rows[i] = TILE;
    _tile_loadconfig(&config);
}

/* Sort the inputs of one block of TILE tokens into tiles. */
static void sort_into_tiles(const float *x, long x_width, int tokens, long inputs, uint16_t *tiles) {
    for (int m = 0; m < TILE; m++)
        for (long k = 0; k < inputs; k++) {
            uint32_t bits = 0; /* the inputs are rounded to bf16 already */
            if (m < tokens) memcpy(&bits, x + m * x_width + k, 4);
            tiles[k / 2 * 2 * TILE + m * 2 + k % 2] = (uint16_t)(bits >> 16);
        }
}

/* TILE outputs as bf16, (TILE, width), in place where they are bf16 already. */
static const uint16_t *outputs_as_bf16(const Matrix *w, long n, long width, uint16_t *to, float *row, long *stride) {
    if (w->format == BF16 && w->inputs == width && n + TILE <= w->outputs) {
        *stride = w->inputs;
        return (const uint16_t *)w->weights + n * w->inputs;
    }
    *stride = width;
    memset(to, 0, sizeof(uint16_t) * TILE * width);
    for (int i = 0; i < TILE && n + i < w->outputs; i++) {
        unpack(w, n + i, row);
        for (long k = 0; k < w->inputs; k += LANES) store_as_bf16(to + i * width + k, *(const floats *)(row + k));
    }
    return to;
}

static void product_by_tiles(const Matrix *w, int tokens, long begin, long end, const uint16_t *tiles, float *y,
                             long y_width, float *scratch) {
    long width = padded(w->inputs, 32), per_block = width * TILE;
    float *row = scratch, result[2][TILE][TILE];
    uint16_t *buffer = (uint16_t *)(scratch + padded(w->inputs, BLOCK));
    for (long n = begin; n < end; n += TILE) {
        long stride;
        const uint16_t *outputs = outputs_as_bf16(w, n, width, buffer, row, &stride);
        const char *ahead = row_of(w, n + TILE);
        long length = TILE * row_bytes(w) * 32 / width;
        int count = least(TILE, end - n);
        for (int m = 0; m < tokens; m += 2 * TILE) {
            const uint16_t *first = tiles + m / TILE * per_block;
            int two = m + TILE < tokens;
            _tile_zero(0);
            _tile_zero(1);
            for (long k = 0; k < width; k += 32) {
                if (!m)
                    for (const char *last = ahead + length; ahead < last; ahead += 64) __builtin_prefetch(ahead);
                _tile_loadd(2, outputs + k, stride * 2);
                _tile_loadd(3, first + k * TILE, 64);
                _tile_dpbf16ps(0, 2, 3);
                if (two) {
                    _tile_loadd(4, first + per_block + k * TILE, 64);
                    _tile_dpbf16ps(1, 2, 4);
                }
            }
            _tile_stored(0, result[0], 64);
            _tile_stored(1, result[1], 64);
            for (int i = 0; i < count; i++) {
                float scale = w->format == INT8 ? ((const float *)w->scales)[n + i] : 1;
                float bias = w->bias ? w->bias[n + i] : 0;
                for (int j = m; j < least(m + 2 * TILE, tokens); j++)
                    y[j * y_width + n + i] = result[(j - m) / TILE][i][j % TILE] * scale + bias;
            }
        }
    }
}
#endif

/* --- the layers --- */

INLINE void norm(const float *x, const float *weight, const float *bias, long width, float epsilon, int bf16, float *y) {
    float mean = 0, variance = 0;
    floats total = {0};
    long whole = width / LANES * LANES;
    for (long k = 0; k < whole; k += LANES) total += *(const floats *)(x + k);
    mean = sum(total);
    for (long k = whole; k < width; k++) mean += x[k];
    mean /= width;
    total = all(0);
    for (long k = 0; k < whole; k += LANES) {
        floats centred = *(const floats *)(x + k) - mean;
        total += centred * centred;
    }
    variance = sum(total);
    for (long k = whole; k < width; k++) variance += (x[k] - mean) * (x[k] - mean);
    float scale = 1 / sqrtf(variance / width + epsilon);
    for (long k = 0; k < whole; k += LANES) {
        floats v = (*(const floats *)(x + k) - mean) * scale * *(const floats *)(weight + k) + *(const floats *)(bias + k);
        *(floats *)(y + k) = bf16 ? round_to_bf16(v) : v;
    }
    for (long k = whole; k < width; k++) {
        float v = (x[k] - mean) * scale * weight[k] + bias[k];
        y[k] = bf16 ? bf16_to_float(float_to_bf16(v)) : v;
    }
}

/* In place: GELU's tanh form as x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3), or its erf form. `x` may be read and
   written up to a multiple of LANES. */
INLINE void gelu(float *x, long width, int erf_form, int bf16) {
    for (long k = 0; k < width; k += LANES) {
        floats v = *(const floats *)(x + k);
        floats y;
        if (erf_form)
            for (int i = 0; i < LANES; i++) y[i] = 0.5f * v[i] * (1 + erff(v[i] * 0.70710678f));
        else
            y = v / (1 + exponential(v * -1.59576912f * (1 + 0.044715f * v * v)));
        *(floats *)(x + k) = bf16 ? round_to_bf16(y) : y;
    }
}

INLINE floats cached(const void *cache, long at, int bf16) {
    return bf16 ? bf16_to_floats((const uint16_t *)cache + at) : *(const floats *)((const float *)cache + at);
}

INLINE void keep(void *cache, long at, float value, int bf16) {
    if (bf16)
        ((uint16_t *)cache)[at] = float_to_bf16(value);
    else
        ((float *)cache)[at] = value;
}

#define MIX(count)                                                                                                   \
    for (long p = 0; p < length; p++) {                                                                              \
        _Pragma("GCC unroll 4") for (int i = 0; i < (count); i++)                                                    \
            mixed[i] += scores[p] * cached(cache->values, values + p * wide + d + i * LANES, bf16);                  \
    }

/* One head of one row: keep the piece's keys and values, then let each of its tokens attend to all up to itself. */
INLINE void attend(const Model *model, const Cache *cache, int layer, int head, const Piece *piece, const float *qkv,
                   long qkv_width, float *attended, long attended_width, float *scratch, int bf16) {
    long size = model->n_embd / model->n_head, wide = padded(size, LANES);
    long at = ((long)layer * cache->rows + piece->row) * model->n_head + head;
    long keys = at * cache->capacity * size, values = at * cache->capacity * wide;
    float *scores = scratch, scale = 1 / sqrtf((float)size);
    for (int t = 0; t < piece->length; t++) {
        long position = piece->start + t;
        const float *key = qkv + t * qkv_width + model->n_embd + head * size, *value = key + model->n_embd;
        for (long d = 0; d < size; d++) {
            keep(cache->keys, keys + (position / LANES * size + d) * LANES + position % LANES, key[d], bf16);
            keep(cache->values, values + position * wide + d, value[d], bf16);
        }
    }
    const ints lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int t = 0; t < piece->length; t++) {
        long length = piece->start + t + 1;
        const float *query = qkv + t * qkv_width + head * size;
        float largest = -INFINITY;
        for (long p = 0; p < length; p += LANES) {
            floats score = {0};
            floats odd = {0}; /* two sums, as one alone would wait for itself */
            long d = 0;
            for (; d + 1 < size; d += 2) {
                score += query[d] * cached(cache->keys, keys + p * size + d * LANES, bf16);
                odd += query[d + 1] * cached(cache->keys, keys + p * size + (d + 1) * LANES, bf16);
            }
            if (d < size) score += query[d] * cached(cache->keys, keys + p * size + d * LANES, bf16);
            *(floats *)(scores + p) = score = (score + odd) * scale;
            for (int i = 0; i < least(LANES, length - p); i++) largest = score[i] > largest ? score[i] : largest;
        }
        floats total = {0};
        for (long p = 0; p < length; p += LANES) {
            floats weight = exponential(*(const floats *)(scores + p) - largest);
            weight = from_bits((ints)weight & (lanes < (ints){0} + (int32_t)(length - p)));
            *(floats *)(scores + p) = weight;
            total += weight;
        }
        float share_of_one = 1 / sum(total);
        for (long d = 0; d < size; d += 4 * LANES) {
            floats mixed[4] = {{0}};
            long vectors = least(4, (wide - d) / LANES);
            if (vectors == 4)
                MIX(4)
            else
                MIX(vectors)
            for (long i = 0; i < vectors; i++) {
                floats v = mixed[i] * share_of_one;
                if (bf16) v = round_to_bf16(v);
                float *to = attended + t * attended_width + head * size + d + i * LANES;
                memcpy(to, &v, sizeof(float) * least(LANES, size - d - i * LANES));
            }
        }
    }
}

/* --- the whole --- */

static void embed(const Matrix *table, long id, float *to, int add) {
    for (long k = 0; k < table->inputs; k++) {
        long at = id * table->inputs + k;
        float value = table->format == BF16 ? bf16_to_float(((const uint16_t *)table->weights)[at])
                                            : ((const float *)table->weights)[at];
        to[k] = add ? to[k] + value : value;
    }
}

static int use_tiles(const Model *model, int tokens) {
#ifdef TILES
    return model->bf16 && tokens > BLOCK_M && tiles_allowed();
#else
    return (void)model, (void)tokens, 0;
#endif
}

/* y = x W^T + b for this thread's share of the outputs, in units of TILE; by tiles where that is faster, after a barrier. */
static void linear(const Model *model, const Matrix *w, int tokens, const float *x, long x_width, float *y,
                   long y_width, const Buffers *buffers, long *begin, long *end) {
    float *scratch = buffers->scratch + thread_number() * buffers->scratch_size;
    share(padded(w->outputs, TILE) / TILE, model->threads, begin, end);
    *begin *= TILE;
    *end = least(*end * TILE, w->outputs);
#ifdef TILES
    if (use_tiles(model, tokens)) {
        long width = padded(w->inputs, 32), first, last;
        share(padded(tokens, TILE) / TILE, model->threads, &first, &last);
        for (long i = first; i < last; i++)
            sort_into_tiles(x + i * TILE * x_width, x_width, least(TILE, tokens - i * TILE), width,
                            buffers->tiles + i * width * TILE);
#pragma omp barrier
        product_by_tiles(w, tokens, *begin, *end, buffers->tiles, y, y_width, scratch);
        return;
    }
#endif
    product(w, tokens, *begin, *end, x, x_width, y, y_width, scratch);
}

/* What the next product reads, `normed`: GPT-2 norms the hidden states for it, GPT-1 norms them for good. */
static void next_input(const Model *model, int tokens, const float *weight, const float *bias, const Buffers *buffers) {
    long embd = model->n_embd, width = padded(embd, BLOCK), begin, end;
    share(tokens, model->threads, &begin, &end);
    for (long m = begin; m < end; m++) {
        float *hidden = buffers->hidden + m * embd, *normed = buffers->normed + m * width;
        if (model->pre_norm) {
            norm(hidden, weight, bias, embd, model->epsilon, model->bf16, normed);
            continue;
        }
        if (weight) norm(hidden, weight, bias, embd, model->epsilon, 0, hidden);
        for (long k = 0; k < embd; k++) normed[k] = model->bf16 ? bf16_to_float(float_to_bf16(hidden[k])) : hidden[k];
    }
}

/* hidden += x W^T + b; the product is first written where the attention's inputs were. */
static void residual(const Model *model, const Matrix *w, int tokens, const float *x, long x_width, long update_width,
                     const Buffers *buffers) {
    long begin, end;
    float *update = buffers->attention;
    linear(model, w, tokens, x, x_width, update, update_width, buffers, &begin, &end);
    for (int m = 0; m < tokens; m++)
        for (long n = begin; n < end; n++) buffers->hidden[m * model->n_embd + n] += update[m * update_width + n];
}

static void attend_all(const Model *model, const Cache *cache, int layer, const Piece *pieces, int count,
                       const Buffers *buffers, long qkv_width, long width) {
    float *scratch = buffers->scratch + thread_number() * buffers->scratch_size;
    long begin, end, m = 0, task = 0;
    share((long)count * model->n_head, model->threads, &begin, &end);
    for (int i = 0; i < count; m += pieces[i++].length)
        for (int head = 0; head < model->n_head; head++, task++) {
            if (task < begin || task >= end) continue;
            const float *qkv = buffers->attention + m * qkv_width;
            float *attended = buffers->attended + m * width;
            if (model->bf16)
                attend(model, cache, layer, head, pieces + i, qkv, qkv_width, attended, width, scratch, 1);
            else
                attend(model, cache, layer, head, pieces + i, qkv, qkv_width, attended, width, scratch, 0);
        }
}

static void run_layer(const Model *model, const Cache *cache, int number, const Piece *pieces, int count, int tokens,
                      const Buffers *buffers) {
    const Layer *layer = model->layers + number;
    long width = padded(model->n_embd, BLOCK), qkv_width = padded(3 * model->n_embd, BLOCK);
    long inner_width = padded(model->n_inner, BLOCK), begin, end;
    if (model->pre_norm) next_input(model, tokens, layer->norm_1, layer->norm_1_bias, buffers);
#pragma omp barrier
    linear(model, &layer->attention, tokens, buffers->normed, width, buffers->attention, qkv_width, buffers, &begin, &end);
#pragma omp barrier
    attend_all(model, cache, number, pieces, count, buffers, qkv_width, width);
#pragma omp barrier
    residual(model, &layer->attention_out, tokens, buffers->attended, width, qkv_width, buffers);
#pragma omp barrier
    if (model->pre_norm)
        next_input(model, tokens, layer->norm_2, layer->norm_2_bias, buffers);
    else
        next_input(model, tokens, layer->norm_1, layer->norm_1_bias, buffers);
#pragma omp barrier
    linear(model, &layer->mlp, tokens, buffers->normed, width, buffers->inner, inner_width, buffers, &begin, &end);
    for (int m = 0; m < tokens; m++)
        gelu(buffers->inner + m * inner_width + begin, end - begin, model->erf_gelu, model->bf16);
#pragma omp barrier
    residual(model, &layer->mlp_out, tokens, buffers->inner, inner_width, qkv_width, buffers);
#pragma omp barrier
    if (!model->pre_norm) next_input(model, tokens, layer->norm_2, layer->norm_2_bias, buffers);
}

/* Leave the last hidden states of the tokens whose logits are wanted, normed, in the first rows of `attended`. */
static int select_wanted(const Model *model, const Piece *pieces, int count, const Buffers *buffers) {
    long embd = model->n_embd, width = padded(embd, BLOCK), m = 0;
    int wanted = 0;
    for (int i = 0; i < count; i++) {
        m += pieces[i].length;
        if (!pieces[i].wanted) continue;
        float *to = buffers->attended + wanted++ * width;
        if (model->pre_norm)
            norm(buffers->hidden + (m - 1) * embd, model->norm, model->norm_bias, embd, model->epsilon, model->bf16, to);
        else
            memcpy(to, buffers->normed + (m - 1) * width, embd * sizeof(float));
    }
    return wanted;
}

/* Append the pieces' tokens to the cache; write the wanted logits, (wanted, vocab_size), piece after piece. */
void gpt_forward(const Model *model, const Cache *cache, const Buffers *buffers, const Piece *pieces, int32_t count,
                 const int32_t *ids, float *logits) {
    int tokens = 0, wanted = 0;
    for (int i = 0; i < count; i++) tokens += pieces[i].length;
#pragma omp parallel num_threads(model->threads)
    {
#ifdef TILES
        if (use_tiles(model, tokens)) configure_tiles();
#endif
#pragma omp single
        for (int i = 0, m = 0; i < count; i++)
            for (int t = 0; t < pieces[i].length; t++, m++) {
                float *hidden = buffers->hidden + (long)m * model->n_embd;
                embed(&model->tokens, ids[m], hidden, 0);
                embed(&model->positions, pieces[i].start + t, hidden, 1);
            }
        if (!model->pre_norm) next_input(model, tokens, 0, 0, buffers);
        for (int layer = 0; layer < model->n_layer; layer++) {
            run_layer(model, cache, layer, pieces, count, tokens, buffers);
#pragma omp barrier
        }
#pragma omp single
        wanted = select_wanted(model, pieces, count, buffers);
        if (wanted) {
            long begin, end, width = padded(model->n_embd, BLOCK);
            linear(model, &model->head, wanted, buffers->attended, width, logits, model->vocab_size, buffers, &begin, &end);
        }
#ifdef TILES
        if (use_tiles(model, tokens)) _tile_release();
#endif
    }
}

/* How much room a call needs: floats of each thread's scratch, and of bf16 for the tiles. */
int64_t gpt_scratch_size(const Model *model, int64_t capacity) {
    long inputs = padded(model->n_inner > model->n_embd ? model->n_inner : model->n_embd, BLOCK);
    long unpacked = BLOCK_N * inputs, tile = inputs + TILE * inputs / 2;
    long most = unpacked > tile ? unpacked : tile;
    return padded(most > capacity ? most : capacity, LANES);
}

/* --- quantisation --- */

/* q = round(w / scale), scale = max |w| / 127 of each output; ties to even. */
void gpt_to_int8(const float *weights, int64_t outputs, int64_t inputs, int8_t *codes, float *scales, int32_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t n = 0; n < outputs; n++) {
        const float *row = weights + n * inputs;
        float largest = 0;
        for (int64_t k = 0; k < inputs; k++) largest = fabsf(row[k]) > largest ? fabsf(row[k]) : largest;
        float scale = largest > 0 ? largest / 127 : 1;
        scales[n] = scale;
        for (int64_t k = 0; k < inputs; k++) codes[n * inputs + k] = (int8_t)rintf(row[k] / scale);
    }
}

void gpt_to_bf16(const float *weights, int64_t count, uint16_t *to, int32_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < count; i++) to[i] = float_to_bf16(weights[i]);
}

INLINE floats limited(floats v, float low, float high) {
    ints below = v < all(low), above = v > all(high);
    return from_bits((~(below | above) & (ints)v) | (below & (ints)all(low)) | (above & (ints)all(high)));
}

INLINE double squared_error(floats weights, floats codes, float scale) {
    floats error = weights - codes * scale;
    double total = 0;
    for (int i = 0; i < LANES; i++) total += (double)error[i] * error[i];
    return total;
}

/* One group: of the scales m times -1/8, -0.95/8, -0.9/8, -0.85/8 in bf16, m the entry of largest magnitude, the one of
   least squared error; codes round(w / scale) in -8 ... 7, plus 8. */
static uint16_t quantise_group(const float *weights, ints codes[GROUP / LANES]) {
    static const float factors[] = {-0.125f, -0.11875f, -0.1125f, -0.10625f};
    float extreme = 0;
    for (int k = 0; k < GROUP; k++)
        if (fabsf(weights[k]) > fabsf(extreme)) extreme = weights[k];
    double least_error = INFINITY;
    uint16_t best = 0;
    for (int candidate = 0; candidate < 4; candidate++) {
        uint16_t half = float_to_bf16(extreme * factors[candidate]);
        float scale = bf16_to_float(half), divisor = scale == 0 ? 1 : scale;
        floats rounded[GROUP / LANES];
        double error = 0;
        for (int i = 0; i < GROUP / LANES; i++) {
            floats w = *(const floats *)(weights + i * LANES);
            rounded[i] = limited(limited(w / divisor, -16, 16) + 12582912.0f - 12582912.0f, -8, 7); /* to the nearest */
            error += squared_error(w, rounded[i], scale);
        }
        if (error >= least_error) continue;
        least_error = error;
        best = half;
        for (int i = 0; i < GROUP / LANES; i++)
            for (int j = 0; j < LANES; j++) codes[i][j] = (int)rounded[i][j] + 8;
    }
    return best;
}

void gpt_to_int4(const float *weights, int64_t outputs, int64_t inputs, uint8_t *packed, uint16_t *scales,
                 int32_t threads) {
    long row = padded(inputs, BLOCK);
#pragma omp parallel for num_threads(threads)
    for (int64_t n = 0; n < outputs; n++)
        for (long k = 0; k < row; k += BLOCK) {
            float block[BLOCK] = {0};
            ints together = {0};
            memcpy(block, weights + n * inputs + k, sizeof(float) * least(BLOCK, inputs - k));
            for (int group = 0; group < BLOCK / GROUP; group++) {
                ints codes[GROUP / LANES] = {{0}};
                scales[(n * row + k) / GROUP + group] = quantise_group(block + group * GROUP, codes);
                for (int i = 0; i < GROUP / LANES; i++) together |= codes[i] << 4 * (group * (GROUP / LANES) + i);
            }
            memcpy(packed + (n * row + k) / 2, &together, sizeof together);
        }
}

/* --- the machine --- */

/* Read `count` floats once with all threads, to measure how fast memory can be read. */
float gpt_read_all(const float *from, int64_t count, int32_t threads) {
    float total = 0;
#pragma omp parallel num_threads(threads) reduction(+ : total)
    {
        long begin, end;
        floats sums[4] = {{0}};
        share(count / 64, threads, &begin, &end);
        for (long i = begin * 64; i < end * 64; i += 64)
#pragma GCC unroll 8
            for (int j = 0; j < 4; j++) sums[j] += *(const floats *)(from + i + j * LANES);
        total += sum(sums[0] + sums[1] + sums[2] + sums[3]);
    }
    return total;
}
