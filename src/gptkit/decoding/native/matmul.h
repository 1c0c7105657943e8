/* Matrix products for the inputs of one or many tokens, with weights in any format. */

#define GROUP 32  /* int4: weights that share a scale */
#define BLOCK 128 /* int4: weights in 64 bytes; inputs are zero-padded to a multiple of this */
#define BLOCK_N 6 /* outputs of a register block */
#define BLOCK_M 4 /* tokens of a register block */
#define AHEAD 4096 /* how many bytes beyond the next block to prefetch */

enum { F32, BF16, INT8, INT4 };

typedef struct {
    int32_t format, outputs, inputs;
    const void* weights; /* (outputs, inputs); INT4: (outputs, inputs padded to BLOCK), four bits a weight */
    const void* scales;  /* INT8: float (outputs,); INT4: bf16 (outputs, padded inputs / GROUP) */
    const float* bias;   /* (outputs,) or null */
} Matrix;

/* Weights k ... k + 15 of output n, in any format but INT4, without INT8's scale. */
INLINE floats weights_at(const Matrix* w, int format, long n, long k) {
    if (format == F32) return *(const floats*)((const float*)w->weights + n * w->inputs + k);
    if (format == BF16) return bf16_to_floats((const uint16_t*)w->weights + n * w->inputs + k);
    return int8_to_floats((const int8_t*)w->weights + n * w->inputs + k);
}

/* INT4: 64 bytes hold BLOCK codes; each step of LANES weights takes four bits of every 32-bit lane. The weight
   (code - 8) scale is looked up in a table of sixteen if the processor can, else computed: the same numbers. */
INLINE floats int4_table(const uint16_t* scales, int group) {
    int32_t pair; /* two scales, one of which is shifted to the upper half of the lanes */
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
    ints code = step < 5 ? codes << (19 - 4 * step) : codes >> (4 * step - 19); /* to the mantissa of 16 + code */
    return (from_bits((code & 15 << 19) | 0x41800000) - 24) * table;
#endif
}

/* The last weights of output n, fewer than LANES, padded with zeros. */
INLINE floats tail_at(const Matrix* w, int format, long n, long k) {
    floats tail = {0};
    for (long i = k; i < w->inputs; i++) {
        long at = n * w->inputs + i;
        if (format == F32) tail[i - k] = ((const float*)w->weights)[at];
        if (format == BF16) tail[i - k] = bf16_to_float(((const uint16_t*)w->weights)[at]);
        if (format == INT8) tail[i - k] = ((const int8_t*)w->weights)[at];
    }
    return tail;
}

INLINE float scaled(const Matrix* w, int format, long n, floats sums) {
    return fmaf(sum(sums), format == INT8 ? ((const float*)w->scales)[n] : 1, w->bias ? w->bias[n] : 0);
}

/* Sums over k, in steps of LANES, in registers: each has its own name, as compilers would keep an array in memory.
   `SUM(weights_at)` adds the products of one step, `SUM(tail_at)` those of the last, incomplete one. */
#define FOR_OUTPUTS(DO) DO(0) DO(1) DO(2) DO(3) DO(4) DO(5)
#define FOR_INPUTS(SUM)                          \
    long k = 0;                                  \
    for (; k + LANES <= w->inputs; k += LANES) { \
        SUM(weights_at)                          \
    }                                            \
    if (k < w->inputs) {                         \
        SUM(tail_at)                             \
    }

/* Prefetch `length` bytes that a later block will read: rows are too short for the processor to detect the stream. */
#define FETCH(from, length)                                                  \
    _Pragma("GCC unroll 8") for (long line = 0; line < (length); line += 64) \
        __builtin_prefetch((const char*)(from) + line);

INLINE long row_bytes(const Matrix* w) {
    if (w->format == INT4) return padded(w->inputs, BLOCK) / 2;
    return (long)w->inputs * (w->format == F32 ? 4 : w->format == BF16 ? 2 : 1);
}

INLINE const char* row_of(const Matrix* w, long n) { return (const char*)w->weights + n * row_bytes(w); }

/* y[n] ... y[n + 5] of one token, in any format but INT4. */
INLINE void block_of_one(const Matrix* w, int format, long n, const float* x, float* y) {
    const int size = format == F32 ? 4 : format == BF16 ? 2 : 1;
    const char* ahead = row_of(w, n + BLOCK_N) + AHEAD;
#define ZERO(i) floats sums_##i = {0};
#define ADD_weights_at(i) sums_##i += weights_at(w, format, n + i, k) * input;
#define ADD_tail_at(i) sums_##i += tail_at(w, format, n + i, k) * input;
#define SUM(weights_of)                                       \
    floats input = *(const floats*)(x + k);                   \
    FETCH(ahead + k * BLOCK_N * size, BLOCK_N * LANES * size) \
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

/* The same in INT4. */
INLINE void block_of_one_int4(const Matrix* w, long n, const float* x, float* y) {
    long groups = padded(w->inputs, BLOCK) / GROUP, size = row_bytes(w);
    const char *codes = row_of(w, n), *ahead = codes + BLOCK_N * size + AHEAD;
    const uint16_t* scales = (const uint16_t*)w->scales + n * groups;
#define CODES(i) ints codes_##i = *(const ints*)(codes + i * size);
#define ADD(i)                                                                \
    {                                                                         \
        floats table = int4_table(scales + i * groups, step * LANES / GROUP); \
        sums_##i += int4_weights(codes_##i, step, table) * input;             \
        sums_##i += int4_weights(codes_##i, step + 1, table) * next_input;    \
    }
#define FINISH(i) y[n + i] = scaled(w, INT4, n + i, sums_##i);
    FOR_OUTPUTS(ZERO)
    for (long k = 0; k < w->inputs; k += BLOCK, codes += BLOCK / 2, scales += BLOCK / GROUP) {
        FOR_OUTPUTS(CODES)
        FETCH(ahead, BLOCK_N * BLOCK / 2)
        ahead += BLOCK_N * BLOCK / 2;
#pragma GCC unroll 4
        for (int step = 0; step < BLOCK / LANES; step += GROUP / LANES) {
            floats input = *(const floats*)(x + k + step * LANES);
            floats next_input = *(const floats*)(x + k + (step + 1) * LANES);
            FOR_OUTPUTS(ADD)
        }
    }
    FOR_OUTPUTS(FINISH)
#undef ZERO
#undef CODES
#undef ADD
#undef FINISH
}

/* The same for four tokens, in any format but INT4. */
INLINE void block_of_four(const Matrix* w, int format, long n, const float* x, long x_width, float* y, long y_width,
                          const char* ahead, float length) {
    float due = 0; /* bytes from `ahead` on to prefetch by now; `length` more in each step */
#define ZERO(i) floats sums_##i##0 = {0}, sums_##i##1 = {0}, sums_##i##2 = {0}, sums_##i##3 = {0};
#define SUM(weights_of)                                                                                      \
    const float* input = x + k;                                                                              \
    floats input_0 = *(const floats*)input, input_1 = *(const floats*)(input + x_width),                     \
           input_2 = *(const floats*)(input + 2 * x_width), input_3 = *(const floats*)(input + 3 * x_width); \
    for (due += length; due > 0; due -= 64, ahead += 64) __builtin_prefetch(ahead);                          \
    FOR_OUTPUTS(ADD_##weights_of)
#define ADD(i, weight)              \
    {                               \
        floats v = weight;          \
        sums_##i##0 += v * input_0; \
        sums_##i##1 += v * input_1; \
        sums_##i##2 += v * input_2; \
        sums_##i##3 += v * input_3; \
    }
#define ADD_weights_at(i) ADD(i, weights_at(w, format, n + i, k))
#define ADD_tail_at(i) ADD(i, tail_at(w, format, n + i, k))
#define FINISH(i)                                                   \
    y[n + i] = scaled(w, format, n + i, sums_##i##0);               \
    y[y_width + n + i] = scaled(w, format, n + i, sums_##i##1);     \
    y[2 * y_width + n + i] = scaled(w, format, n + i, sums_##i##2); \
    y[3 * y_width + n + i] = scaled(w, format, n + i, sums_##i##3);
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

/* One output of one token, for outputs that fill no block. */
static float single_f32(const Matrix* w, long n, const float* x) {
    floats sums = {0};
    long k = 0;
    for (; k + LANES <= w->inputs; k += LANES) sums += weights_at(w, F32, n, k) * *(const floats*)(x + k);
    if (k < w->inputs) sums += tail_at(w, F32, n, k) * *(const floats*)(x + k);
    return scaled(w, F32, n, sums);
}

/* The weights of output n as floats, without INT8's scale, zero-padded to a multiple of LANES (INT4: of BLOCK). */
static void unpack(const Matrix* w, long n, float* to) {
    long k = 0, whole = w->inputs / LANES * LANES;
    if (w->format == INT4) {
        const char* codes = row_of(w, n);
        const uint16_t* scales = (const uint16_t*)w->scales + n * padded(w->inputs, BLOCK) / GROUP;
        for (; k < w->inputs; k += BLOCK, codes += BLOCK / 2, scales += BLOCK / GROUP) {
            ints block = *(const ints*)codes;
#pragma GCC unroll 8
            for (int step = 0; step < BLOCK / LANES; step++)
                *(floats*)(to + k + step * LANES) = int4_weights(block, step, int4_table(scales, step * LANES / GROUP));
        }
    } else if (w->format == INT8)
        for (; k < whole; k += LANES) *(floats*)(to + k) = weights_at(w, INT8, n, k);
    else if (w->format == BF16)
        for (; k < whole; k += LANES) *(floats*)(to + k) = weights_at(w, BF16, n, k);
    else
        for (; k < whole; k += LANES) *(floats*)(to + k) = weights_at(w, F32, n, k);
    if (k < w->inputs) *(floats*)(to + k) = tail_at(w, w->format, n, k);
}

/* y (m, n) = x (m, k) W^T + b in any format but INT4, in blocks of outputs; return the first output that fills none.
   Each block prefetches the `size` bytes from `ahead` on, or without `ahead` the weights of a later block. */
INLINE long product_in_blocks(const Matrix* w, int format, int tokens, long begin, long end, const float* x,
                              long x_width, float* y, long y_width, const char* ahead, long size) {
    long n = begin, blocks = tokens / BLOCK_M, steps = w->inputs / LANES + 1;
    if (!ahead) size = BLOCK_N * row_bytes(w);
    for (; n + BLOCK_N <= end; n += BLOCK_N) {
        int m = 0;
        const char* next = ahead ? ahead : row_of(w, n + BLOCK_N) + AHEAD;
        for (; m + BLOCK_M <= tokens; m += BLOCK_M, next += size / blocks)
            block_of_four(w, format, n, x + m * x_width, x_width, y + m * y_width, y_width, next,
                          (float)size / (blocks * steps));
        for (; m < tokens; m++) block_of_one(w, format, n, x + m * x_width, y + m * y_width);
    }
    return n;
}

/* The same in any format and for any number of outputs, by unpacking one block of weights at a time. */
static void product_unpacked(const Matrix* w, int tokens, long begin, long end, const float* x, long x_width, float* y,
                             long y_width, float* scratch) {
    long row = padded(w->inputs, w->format == INT4 ? BLOCK : LANES);
    for (long n = begin; n < end; n += BLOCK_N) {
        int outputs = min_of(BLOCK_N, end - n);
        for (int i = 0; i < outputs; i++) unpack(w, n + i, scratch + i * row);
        Matrix unpacked = {F32, outputs, (int32_t)row, scratch, 0, 0};
        long done = product_in_blocks(&unpacked, F32, tokens, 0, outputs, x, x_width, y + n, y_width,
                                      row_of(w, n + BLOCK_N), BLOCK_N * row_bytes(w));
        for (int i = 0; i < outputs; i++) {
            float scale = w->format == INT8 ? ((const float*)w->scales)[n + i] : 1;
            float bias = w->bias ? w->bias[n + i] : 0;
            for (int m = 0; m < tokens; m++) {
                float* at = y + m * y_width + n + i;
                *at = fmaf(i < done ? *at : single_f32(&unpacked, i, x + m * x_width), scale, bias);
            }
        }
    }
}

/* y (m, n) = x (m, k) W^T + b for the outputs `begin` ... `end` - 1, in any format. */
static void product(const Matrix* w, int tokens, long begin, long end, const float* x, long x_width, float* y,
                    long y_width, float* scratch) {
    long n = begin;
    if (w->format == F32) n = product_in_blocks(w, F32, tokens, n, end, x, x_width, y, y_width, 0, 0);
    if (w->format == BF16) n = product_in_blocks(w, BF16, tokens, n, end, x, x_width, y, y_width, 0, 0);
    if (w->format == INT8) n = product_in_blocks(w, INT8, tokens, n, end, x, x_width, y, y_width, 0, 0);
    if (w->format == INT4 && tokens == 1)
        for (; n + BLOCK_N <= end; n += BLOCK_N) block_of_one_int4(w, n, x, y);
    product_unpacked(w, tokens, n, end, x, x_width, y, y_width, scratch);
}
