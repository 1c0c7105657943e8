/* Matrix products for the inputs of one or many tokens, with weights in any format. */

#define BLOCK_N 4 /* outputs of a register block */
#if VECTOR == 64 || defined(__aarch64__)
#define BLOCK_M 4 /* its tokens at most, with 32 registers */
#else
#define BLOCK_M 2 /* with 16 */
#endif
#define SECOND_CACHE (1 << 20) /* bytes, of most processors */
#define AHEAD 4096             /* how many bytes beyond the next block to prefetch */

enum { F32, BF16, INT8, INT4 };

typedef struct {
    int32_t format, outputs, inputs;
    const void* weights; /* (outputs, inputs), of quantized weights (outputs, inputs padded to BLOCK), sorted in chunks
                            for arithmetic in integers */
    const void* scales;  /* INT8: float (outputs,); INT4: bf16 (outputs, padded inputs / GROUP); else null */
    const float* bias;   /* (outputs,) or null */
} Matrix;

/* The format of weights that are multiplied. A library is compiled for one FORMAT of weights and one PRECISION of
   activations, which takes a third of the time; without these two, it decides as it runs. */
INLINE int format_of(const Matrix* w) {
#ifdef FORMAT
    return (void)w, FORMAT;
#else
    return w->format;
#endif
}

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
   of a chunk's weights, in the lanes of their groups: */
INLINE floats group_scales(const uint16_t* groups, const int size) {
    uint16_t halves[LANES];
    for (int lane = 0; lane < LANES; lane += size / GROUP) memcpy(halves + lane, groups, size / GROUP * sizeof *groups);
    return bf16_to_floats(halves);
}

INLINE bytes low_codes(ints codes) { return (bytes)(codes & 0x0F0F0F0F); }
INLINE bytes high_codes(ints codes) { return (bytes)((codes >> 4) & 0x0F0F0F0F); }

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
    floats sums[BLOCK_M][BLOCK_N]; /* over the inputs, in steps of vectors or chunks */
    const char* weights[BLOCK_N];
    const uint16_t* groups[BLOCK_N];
    const float *inputs[BLOCK_M], *scales[BLOCK_M];
    const int8_t* codes[BLOCK_M];
    const int32_t* minus[BLOCK_M];
} Block;

/* Add the products of the inputs from k on: LANES of them in floating point, a chunk in integers. */
INLINE void add_floats(Block* b, int outputs, int tokens, int format, long k) {
    floats input[BLOCK_M];
    EACH_TOKEN input[m] = kept(floats_at(b->inputs[m] + k));
    EACH_OUTPUT {
        floats v = kept(weights_at(b->weights[n], format, k));
        EACH_TOKEN b->sums[m][n] += v * input[m];
    }
}

INLINE void add_tail(Block* b, int outputs, int tokens, int format, long k, long inputs) {
    EACH_OUTPUT {
        floats v = tail_at(b->weights[n], format, k, inputs);
        EACH_TOKEN b->sums[m][n] += v * floats_at(b->inputs[m] + k);
    }
}

INLINE void add_int8(Block* b, int outputs, int tokens, long k, const int size) {
    ints sums[BLOCK_N][BLOCK_M] = {0};
#pragma GCC unroll 8
    for (long at = k; at < k + size; at += VECTOR) {
        bytes input[BLOCK_M];
        EACH_TOKEN input[m] = (bytes)kept((floats)bytes_at(b->codes[m] + at));
        EACH_OUTPUT {
            bytes weights = (bytes)kept((floats)bytes_at(b->weights[n] + at));
            EACH_TOKEN sums[n][m] = dot_bytes(sums[n][m], weights, input[m]);
        }
    }
    EACH_TOKEN {
        floats scales = floats_at(b->scales[m] + k / CHUNK * LANES);
        EACH_OUTPUT b->sums[m][n] += to_floats(sums[n][m]) * scales;
    }
}

INLINE void add_int4(Block* b, int outputs, int tokens, long k, const int size) {
    code_sums sums[BLOCK_N][BLOCK_M] = {0};
#pragma GCC unroll 4
    for (long at = k; at < k + size; at += 2 * VECTOR) {
        bytes low[BLOCK_M], high[BLOCK_M];
        EACH_TOKEN low[m] = (bytes)kept((floats)bytes_at(b->codes[m] + at));
        EACH_TOKEN high[m] = (bytes)kept((floats)bytes_at(b->codes[m] + at + VECTOR));
        EACH_OUTPUT {
            ints packed = ints_at((const int32_t*)(b->weights[n] + at / 2));
            EACH_TOKEN sums[n][m] = add_codes(sums[n][m], low_codes(packed), low[m]);
            EACH_TOKEN sums[n][m] = add_codes(sums[n][m], high_codes(packed), high[m]);
        }
    }
    EACH_OUTPUT {
        floats weight_scales = group_scales(b->groups[n] + k / GROUP, size);
        EACH_TOKEN {
            long lanes = k / CHUNK * LANES;
            floats products =
                to_floats(total(sums[n][m]) + ints_at(b->minus[m] + lanes)); /* codes are weights plus 8 */
            b->sums[m][n] += products * (floats_at(b->scales[m] + lanes) * weight_scales);
        }
    }
}

INLINE void fetch(const char* from, const int length) {
#pragma GCC unroll 16
    for (int line = 0; line < length; line += 64) __builtin_prefetch(from + line);
}

/* y (n) = the sums of a block's vectors for one token, less `offset`, times the scale of an output, plus the bias. */
INLINE void finish(const Matrix* w, int format, float offset, int outputs, long first, const floats* sums, float* y) {
    const float* scales = format == INT4 || !w->scales ? 0 : (const float*)w->scales + first;
    if (outputs == 4) {
        four totals = four_sums(sums[0], sums[1], sums[2], sums[3]) - offset;
        if (scales) totals *= four_at(scales);
        if (w->bias) totals += four_at(w->bias + first);
        *(four*)y = totals;
        return;
    }
    EACH_OUTPUT {
        float total = sum(sums[n]) - offset;
        if (scales) total *= scales[n];
        y[n] = w->bias ? total + w->bias[first + n] : total;
    }
}

/* y (m, n) for a block of outputs and tokens from `first` and `first_token` on; prefetch `fetched` bytes from `ahead`
   on. */
INLINE void block(const Matrix* w, int format, int integers, int outputs, int tokens, long first, const Inputs* x,
                  long first_token, float* y, long y_width, const char* ahead, float fetched) {
    const int in_floats = !integers || format <= BF16;
    const int step = in_floats ? LANES : CHUNK;
    const int step_bytes = format == F32 ? 4 * step : format == BF16 ? 2 * step : format == INT8 ? step : step / 2;
    long inputs = format <= BF16 ? w->inputs : padded(w->inputs, BLOCK), k = 0;
    float rate = fetched * step / inputs, due = 0;
    Block b;
    EACH_OUTPUT EACH_TOKEN b.sums[m][n] = (floats){0};
    EACH_OUTPUT b.weights[n] = row_of(w, first + n), b.groups[n] = groups_of(w, first + n);
    EACH_TOKEN {
        long place = (first_token + m) * x->width, lanes = lanes_at(x->width, first_token + m);
        b.inputs[m] = x->floats + place;
        b.codes[m] = x->bytes.codes + place;
        b.scales[m] = x->bytes.scales + lanes;
        b.minus[m] = x->bytes.minus + lanes;
    }
    for (; k + step <= inputs; k += step) {
        if (tokens == 1 && ahead)
            fetch(ahead + k / step * outputs * step_bytes, outputs * step_bytes);
        else
            for (due += rate; due > 0; due -= 64, ahead += 64) __builtin_prefetch(ahead);
        if (in_floats)
            add_floats(&b, outputs, tokens, format, k);
        else if (format == INT8)
            add_int8(&b, outputs, tokens, k, CHUNK);
        else
            add_int4(&b, outputs, tokens, k, CHUNK);
    }
    if (k < inputs) {
        if (in_floats)
            add_tail(&b, outputs, tokens, format, k, inputs);
        else if (format == INT8)
            add_int8(&b, outputs, tokens, k, BLOCK);
        else
            add_int4(&b, outputs, tokens, k, BLOCK);
    }
    EACH_TOKEN finish(w, format, integers && format == INT8 ? x->bytes.offsets[first_token + m] : 0, outputs, first,
                      b.sums[m], y + m * y_width + first);
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

typedef struct { /* a range of a product's tokens and outputs, ends excluded */
    long first_token, last_token, first, last;
} Range;

/* y (m, n) = x (m, k) W^T + b for a range. Blocks prefetch the `fetched` bytes from `ahead` on, or without `ahead` the
   weights of the next blocks: rows are too short for the processor to detect the stream. */
INLINE void product_in(const Matrix* w, int format, int integers, Range range, const Inputs* x, float* y, long y_width,
                       const char* ahead, long fetched) {
    long n = range.first, tokens = range.last_token - range.first_token;
    float share = (float)(ahead ? fetched : BLOCK_N * row_bytes(w)) / ((tokens + BLOCK_M - 1) / BLOCK_M);
    for (; n + BLOCK_N <= range.last; n += BLOCK_N) {
        const char* next = ahead ? ahead : row_of(w, n + BLOCK_N) + AHEAD;
        long m = range.first_token;
        for (; m + BLOCK_M <= range.last_token; m += BLOCK_M, next += (long)share)
            block(w, format, integers, BLOCK_N, BLOCK_M, n, x, m, y + m * y_width, y_width, next, share);
        for (; m < range.last_token; m++)
            block(w, format, integers, BLOCK_N, 1, n, x, m, y + m * y_width, y_width, tokens == 1 ? next : 0, 0);
    }
    for (; n < range.last; n++)
        for (long m = range.first_token; m < range.last_token; m++)
            block(w, format, integers, 1, 1, n, x, m, y + m * y_width, y_width, 0, 0);
}

/* The same in floating point by unpacking a few rows at a time, which pays if many tokens share them. */
static void product_unpacked(const Matrix* w, Range range, const Inputs* x, float* y, long y_width, float* scratch) {
    long row = padded(w->inputs, w->format == INT4 ? BLOCK : LANES);
    for (long n = range.first; n < range.last; n += BLOCK_N) {
        int outputs = min_of(BLOCK_N, range.last - n);
        for (int i = 0; i < outputs; i++) unpack(w, n + i, scratch + i * row);
        const float* scales = w->format == INT8 ? (const float*)w->scales + n : 0;
        Matrix unpacked = {F32, outputs, (int32_t)row, scratch, scales, w->bias ? w->bias + n : 0};
        Range of_tokens = {range.first_token, range.last_token, 0, outputs};
        product_in(&unpacked, F32, 0, of_tokens, x, y + n, y_width, row_of(w, n + BLOCK_N), outputs * row_bytes(w));
    }
}

static void product_of_range(const Matrix* w, int integers, Range range, const Inputs* x, float* y, long y_width,
                             float* scratch) {
    int format = format_of(w), is_shared = range.last_token - range.first_token > 2 * BLOCK_M;
    if (!integers && (format == INT4 || (is_shared && format != F32)))
        product_unpacked(w, range, x, y, y_width, scratch);
    else
        product_in(w, format, integers, range, x, y, y_width, 0, 0);
}

/* y (m, n) = x (m, k) W^T + b for the outputs `begin` ... `end` - 1, in any format; of as many tokens at a time as stay
   in the processor's second cache. */
static void product(const Matrix* w, int integers, int tokens, long begin, long end, const Inputs* x, float* y,
                    long y_width, float* scratch) {
    long in_floats = !integers || format_of(w) <= BF16, fit = SECOND_CACHE / 2 / (x->width * (in_floats ? 4 : 1));
    long step = fit > BLOCK_M ? fit / BLOCK_M * BLOCK_M : BLOCK_M;
    for (long m = 0; m < tokens; m += step)
        product_of_range(w, integers, (Range){m, min_of(m + step, tokens), begin, end}, x, y, y_width, scratch);
}
