/* Matrix products for the inputs of one or many tokens, with weights in any format. */

#define GROUP 32  /* int4: weights that share a scale */
#define BLOCK 128 /* quantized weights and all inputs are zero-padded to a multiple of this */
#define BLOCK_N 4 /* outputs of a register block */
#if VECTOR == 64 || defined(__aarch64__)
#define BLOCK_M 4 /* its tokens at most, with 32 registers */
#else
#define BLOCK_M 2 /* with 16 */
#endif
#define AHEAD 4096 /* how many bytes beyond the next block to prefetch */

enum { F32, BF16, INT8, INT4 };

typedef struct {
    int32_t format, outputs, inputs;
    const void* weights; /* (outputs, inputs), of quantized weights (outputs, inputs padded to BLOCK) */
    const void* scales;  /* INT8: float (outputs,); INT4: bf16 (outputs, padded inputs / GROUP) */
    const float* bias;   /* (outputs,) or null */
} Matrix;

typedef struct { /* the inputs of a product: (tokens, width), zero-padded */
    const float* floats;
    Bytes bytes; /* the same in 8 bits, if the arithmetic is in integers */
    long width;
} Inputs;

INLINE long row_bytes(const Matrix* w) {
    if (w->format == INT4) return padded(w->inputs, BLOCK) / 2;
    if (w->format == INT8) return padded(w->inputs, BLOCK);
    return (long)w->inputs * (w->format == F32 ? 4 : 2);
}

INLINE const char* row_of(const Matrix* w, long n) { return (const char*)w->weights + n * row_bytes(w); }

INLINE const uint16_t* groups_of(const Matrix* w, long n) {
    return (const uint16_t*)w->scales + n * padded(w->inputs, BLOCK) / GROUP;
}

/* Weights k ... k + LANES - 1 of a row in any format but INT4, without INT8's scale. */
INLINE floats weights_at(const char* row, int format, long k) {
    if (format == F32) return *(const floats*)((const float*)row + k);
    if (format == BF16) return bf16_to_floats((const uint16_t*)row + k);
    return int8_to_floats((const int8_t*)row + k);
}

/* The last weights of a row, fewer than LANES, padded with zeros. */
INLINE floats tail_at(const char* row, int format, long k, long inputs) {
    floats tail = {0};
    for (long i = k; i < inputs; i++)
        tail[i - k] = format == F32 ? ((const float*)row)[i] : bf16_to_float(((const uint16_t*)row)[i]);
    return tail;
}

/* INT4: each VECTOR bytes hold the codes of 2 VECTOR weights, the first half of them in the lower four bits. The scales
   of VECTOR weights, one for each lane of four: */
INLINE floats group_scales(const uint16_t* groups) {
#if VECTOR == 64
    int32_t two; /* one moves to the upper half of the first lanes, the other is there already */
    memcpy(&two, groups, sizeof two);
    const ints up = {16, 16, 16, 16, 16, 16, 16, 16, 0, 0, 0, 0, 0, 0, 0, 0};
    return from_bits((((ints){0} + two) << up) & (int32_t)0xFFFF0000);
#else
    return splat(bf16_to_float(*groups));
#endif
}

INLINE bytes low_codes(ints codes) { return (bytes)(codes & 0x0F0F0F0F); }
INLINE bytes high_codes(ints codes) { return (bytes)((codes >> 4) & 0x0F0F0F0F); }

/* Return vectors as values; C has no references. */
INLINE floats floats_at(const float* from) { return *(const floats*)from; }
INLINE ints ints_at(const int32_t* from) { return *(const ints*)from; }
INLINE bytes bytes_at(const void* from) { return *(const bytes*)from; }

/* Keep a vector in a register: reading it from memory in each of its products would take all loads of the processor. */
INLINE floats kept(floats v) {
#if defined(__AVX512F__)
    __asm__("" : "+v"(v));
#elif defined(__x86_64__)
    __asm__("" : "+x"(v));
#endif
    return v;
}

#define EACH_OUTPUT _Pragma("GCC unroll 8") for (int n = 0; n < outputs; n++)
#define EACH_TOKEN _Pragma("GCC unroll 4") for (int m = 0; m < tokens; m++)

typedef struct {                   /* a register block: outputs x tokens */
    floats sums[BLOCK_N][BLOCK_M]; /* over the inputs, in steps of vectors */
    const char* weights[BLOCK_N];
    const uint16_t* groups[BLOCK_N];
    const float *inputs[BLOCK_M], *scales[BLOCK_M];
    const int8_t* codes[BLOCK_M];
    const int32_t* minus[BLOCK_M];
} Block;

/* Add the products of the inputs from k on: LANES of them in floating point, VECTOR or 2 VECTOR in integers. */
INLINE void add_floats(Block* b, int outputs, int tokens, int format, long k) {
    floats input[BLOCK_M];
    EACH_TOKEN input[m] = kept(floats_at(b->inputs[m] + k));
    EACH_OUTPUT {
        floats v = kept(weights_at(b->weights[n], format, k));
        EACH_TOKEN b->sums[n][m] += v * input[m];
    }
}

INLINE void add_tail(Block* b, int outputs, int tokens, int format, long k, long inputs) {
    EACH_OUTPUT {
        floats v = tail_at(b->weights[n], format, k, inputs);
        EACH_TOKEN b->sums[n][m] += v * floats_at(b->inputs[m] + k);
    }
}

INLINE void add_int8(Block* b, int outputs, int tokens, long k) {
    bytes input[BLOCK_M];
    floats scales[BLOCK_M];
    EACH_TOKEN {
        input[m] = (bytes)kept((floats)bytes_at(b->codes[m] + k));
        scales[m] = kept(floats_at(b->scales[m] + k / 4));
    }
    EACH_OUTPUT {
        bytes weights = (bytes)kept((floats)bytes_at(b->weights[n] + k));
        EACH_TOKEN b->sums[n][m] += to_floats(dot_bytes((ints){0}, weights, input[m])) * scales[m];
    }
}

INLINE void add_int4(Block* b, int outputs, int tokens, long k) {
    ints packed[BLOCK_N];
    EACH_OUTPUT packed[n] = ints_at((const int32_t*)(b->weights[n] + k / 2));
#pragma GCC unroll 2
    for (int half = 0; half < 2; half++) {
        long at = k + half * VECTOR;
        bytes input[BLOCK_M];
        floats scales[BLOCK_M];
        ints starts[BLOCK_M];
        EACH_TOKEN {
            input[m] = (bytes)kept((floats)bytes_at(b->codes[m] + at));
            scales[m] = kept(floats_at(b->scales[m] + at / 4));
            starts[m] = (ints)kept((floats)(ints_at(b->minus[m] + at / 4) * 8));
        }
        EACH_OUTPUT {
            bytes weights = half ? high_codes(packed[n]) : low_codes(packed[n]);
            floats weight_scales = group_scales(b->groups[n] + at / GROUP);
            EACH_TOKEN b->sums[n][m] +=
                to_floats(dot_codes(starts[m], weights, input[m])) * (scales[m] * weight_scales);
        }
    }
}

INLINE void fetch(const char* from, const int length) {
#pragma GCC unroll 8
    for (int line = 0; line < length; line += 64) __builtin_prefetch(from + line);
}

/* y (m, n) for a block of outputs and tokens, whose inputs begin at `at`; prefetch `fetched` bytes from `ahead` on. */
INLINE void block(const Matrix* w, int format, int integers, int outputs, int tokens, long first, const Inputs* x,
                  long at, float* y, long y_width, const char* ahead, float fetched) {
    const int in_floats = !integers || format <= BF16;
    const int step = in_floats ? LANES : format == INT8 ? VECTOR : 2 * VECTOR;
    const int step_bytes = in_floats ? LANES * (format == F32 ? 4 : format == BF16 ? 2 : 1) : VECTOR;
    long inputs = format <= BF16 ? w->inputs : padded(w->inputs, BLOCK), k = 0;
    float rate = fetched * step / inputs, due = 0;
    Block b;
    EACH_OUTPUT EACH_TOKEN b.sums[n][m] = (floats){0};
    EACH_OUTPUT b.weights[n] = row_of(w, first + n), b.groups[n] = groups_of(w, first + n);
    EACH_TOKEN {
        long place = at + m * x->width;
        b.inputs[m] = x->floats + place;
        b.codes[m] = x->bytes.codes + place;
        b.scales[m] = x->bytes.scales + place / 4;
        b.minus[m] = x->bytes.minus + place / 4;
    }
    for (; k + step <= inputs; k += step) {
        if (tokens == 1 && ahead)
            fetch(ahead + k / step * outputs * step_bytes, outputs * step_bytes);
        else
            for (due += rate; due > 0; due -= 64, ahead += 64) __builtin_prefetch(ahead);
        if (in_floats)
            add_floats(&b, outputs, tokens, format, k);
        else if (format == INT8)
            add_int8(&b, outputs, tokens, k);
        else
            add_int4(&b, outputs, tokens, k);
    }
    if (k < inputs) add_tail(&b, outputs, tokens, format, k, inputs);
    EACH_OUTPUT EACH_TOKEN {
        float total = sum(b.sums[n][m]), scale = format == INT8 ? ((const float*)w->scales)[first + n] : 1;
        if (format == INT8 && integers) total -= x->bytes.offsets[at / x->width + m];
        y[m * y_width + first + n] = fmaf(total, scale, w->bias ? w->bias[first + n] : 0);
    }
}

/* The weights of output n as floats, without INT8's scale, zero-padded to a multiple of LANES (INT4: of BLOCK). */
static void unpack(const Matrix* w, long n, float* to) {
    const char* row = row_of(w, n);
    if (w->format != INT4) {
        for (long k = 0; k < w->inputs; k += LANES) {
            int is_whole = w->format == INT8 || k + LANES <= w->inputs;
            *(floats*)(to + k) = is_whole ? weights_at(row, w->format, k) : tail_at(row, w->format, k, w->inputs);
        }
        return;
    }
    for (long k = 0; k < padded(w->inputs, BLOCK); k += VECTOR) {
        ints packed = *(const ints*)(row + k / (2 * VECTOR) * VECTOR);
        bytes codes = k / VECTOR % 2 ? high_codes(packed) : low_codes(packed);
        for (long i = 0; i < VECTOR; i += LANES) {
            float scale = bf16_to_float(groups_of(w, n)[(k + i) / GROUP]);
            *(floats*)(to + k + i) = (int8_to_floats((const int8_t*)&codes + i) - 8) * scale;
        }
    }
}

/* y (m, n) = x (m, k) W^T + b for the outputs `begin` ... `end` - 1. Blocks prefetch the `fetched` bytes from `ahead`
   on, or without `ahead` the weights of the next blocks: rows are too short for the processor to detect the stream. */
INLINE void product_in(const Matrix* w, int format, int integers, int tokens, long begin, long end, const Inputs* x,
                       float* y, long y_width, const char* ahead, long fetched) {
    const int most = integers && format == INT4 ? 2 : BLOCK_M; /* INT4 keeps scales in registers, too */
    long n = begin;
    float share = (float)(ahead ? fetched : BLOCK_N * row_bytes(w)) / ((tokens + most - 1) / most);
    for (; n + BLOCK_N <= end; n += BLOCK_N) {
        const char* next = ahead ? ahead : row_of(w, n + BLOCK_N) + AHEAD;
        int m = 0;
        for (; m + most <= tokens; m += most, next += (long)share)
            block(w, format, integers, BLOCK_N, most, n, x, m * x->width, y + m * y_width, y_width, next, share);
        for (; m < tokens; m++)
            block(w, format, integers, BLOCK_N, 1, n, x, m * x->width, y + m * y_width, y_width, tokens == 1 ? next : 0,
                  0);
    }
    for (; n < end; n++)
        for (int m = 0; m < tokens; m++)
            block(w, format, integers, 1, 1, n, x, m * x->width, y + m * y_width, y_width, 0, 0);
}

/* The same for INT4 in floating point: by unpacking a few rows at a time. */
static void product_unpacked(const Matrix* w, int tokens, long begin, long end, const Inputs* x, float* y, long y_width,
                             float* scratch) {
    long row = padded(w->inputs, BLOCK);
    for (long n = begin; n < end; n += BLOCK_N) {
        int outputs = min_of(BLOCK_N, end - n);
        for (int i = 0; i < outputs; i++) unpack(w, n + i, scratch + i * row);
        Matrix unpacked = {F32, outputs, (int32_t)row, scratch, 0, w->bias ? w->bias + n : 0};
        product_in(&unpacked, F32, 0, tokens, 0, outputs, x, y + n, y_width, row_of(w, n + BLOCK_N),
                   outputs * row_bytes(w));
    }
}

/* y (m, n) = x (m, k) W^T + b for the outputs `begin` ... `end` - 1, in any format. */
static void product(const Matrix* w, int integers, int tokens, long begin, long end, const Inputs* x, float* y,
                    long y_width, float* scratch) {
    if (w->format == F32) product_in(w, F32, 0, tokens, begin, end, x, y, y_width, 0, 0);
    if (w->format == BF16) product_in(w, BF16, 0, tokens, begin, end, x, y, y_width, 0, 0);
    if (w->format == INT8 && !integers) product_in(w, INT8, 0, tokens, begin, end, x, y, y_width, 0, 0);
    if (w->format == INT8 && integers) product_in(w, INT8, 1, tokens, begin, end, x, y, y_width, 0, 0);
    if (w->format == INT4 && integers) product_in(w, INT4, 1, tokens, begin, end, x, y, y_width, 0, 0);
    if (w->format == INT4 && !integers) product_unpacked(w, tokens, begin, end, x, y, y_width, scratch);
}
