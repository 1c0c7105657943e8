/* The parts of a transformer block other than its matrix products: layer norm, GELU, attention over the cache. */

typedef struct {
    Matrix attention, attention_out, mlp, mlp_out;
    const float *norm_1, *norm_1_bias, *norm_2, *norm_2_bias;
} Layer;

enum { IN_FP32, IN_BF16, IN_BYTES }; /* precision of activations, as in PRECISIONS of library.py */

typedef struct {
    int32_t n_layer, n_head, n_embd, n_inner, vocab_size;
    int32_t pre_norm, activation, precision, threads;
    float epsilon;
    Matrix tokens, positions, head; /* tokens and positions are embeddings: F32 or BF16 */
    const Layer* layers;
    const float *norm, *norm_bias;
} Model;

INLINE int is_bf16(const Model* model) { return model->precision == IN_BF16; }

typedef struct { /* for each layer, row and head: keys in blocks of LANES positions, (block, d, LANES) or in bytes
                    (block, d / 4, LANES, 4), and values (position, d) */
    int32_t rows, capacity;
    void *keys, *values;              /* as precise as activations: float, bf16 or bytes */
    float *key_scales, *value_scales; /* in bytes: of a position */
} Cache;

typedef struct {
    int32_t row, start, length, wanted; /* `wanted`: whether to compute the last token's logits */
} Piece;

typedef struct {
    float *hidden, *normed, *attention, *attended,
        *inner;      /* (m, width): `hidden` unpadded, the others padded to BLOCK */
    Bytes bytes;     /* a product's inputs in 8 bits: (m, width) */
    uint16_t* tiles; /* a product's inputs as tiles: (m / TILE, k / 32, 16 pairs, TILE, 2) */
    float* scratch;  /* (threads, scratch_size) */
    int64_t scratch_size;
} Buffers;

INLINE void norm(const float* x, const float* weight, const float* bias, long width, float epsilon, int bf16,
                 float* y) {
    float mean = 0, variance = 0;
    floats total = {0};
    long whole = width / LANES * LANES;
    for (long k = 0; k < whole; k += LANES) total += *(const floats*)(x + k);
    mean = sum(total);
    for (long k = whole; k < width; k++) mean += x[k];
    mean /= width;
    total = splat(0);
    for (long k = 0; k < whole; k += LANES) {
        floats centred = *(const floats*)(x + k) - mean;
        total += centred * centred;
    }
    variance = sum(total);
    for (long k = whole; k < width; k++) variance += (x[k] - mean) * (x[k] - mean);
    float scale = 1 / sqrtf(variance / width + epsilon);
    for (long k = 0; k < whole; k += LANES) {
        floats v = (*(const floats*)(x + k) - mean) * scale * *(const floats*)(weight + k) + *(const floats*)(bias + k);
        *(floats*)(y + k) = bf16 ? round_to_bf16(v) : v;
    }
    for (long k = whole; k < width; k++) {
        float v = (x[k] - mean) * scale * weight[k] + bias[k];
        y[k] = bf16 ? bf16_to_float(float_to_bf16(v)) : v;
    }
}

enum { TANH_GELU, ERF_GELU }; /* as in ACTIVATIONS of engine.py */

/* GELU in place: its tanh form as x sigmoid(2 u), u = sqrt(2 / pi) (x + 0.044715 x^3), or its erf form. `x` may be read
   and written up to a multiple of LANES. */
INLINE void activate(float* x, long width, int activation, int bf16) {
    for (long k = 0; k < width; k += LANES) {
        floats v = *(const floats*)(x + k);
        floats y;
        if (activation == ERF_GELU)
            for (int i = 0; i < LANES; i++) y[i] = 0.5f * v[i] * (1 + erff(v[i] * 0.70710678f));
        else
            y = v / (1 + exponential(v * -1.59576912f * (1 + 0.044715f * v * v)));
        *(floats*)(x + k) = bf16 ? round_to_bf16(y) : y;
    }
}

INLINE floats cached(const void* cache, long at, int precision) {
    if (precision == IN_BYTES) return int8_to_floats((const int8_t*)cache + at);
    if (precision == IN_BF16) return bf16_to_floats((const uint16_t*)cache + at);
    return *(const floats*)((const float*)cache + at);
}

INLINE void store(void* cache, long at, float value, int precision) {
    if (precision == IN_BYTES)
        ((int8_t*)cache)[at] = (int8_t)lrintf(value);
    else if (precision == IN_BF16)
        ((uint16_t*)cache)[at] = float_to_bf16(value);
    else
        ((float*)cache)[at] = value;
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

typedef struct { /* one head of one row in the cache: where its keys, values and scales begin */
    long keys, values, scales, size, wide;
} Place;

static void store_position(const Cache* cache, const Place* at, long position, const float* key, const float* value,
                           int precision) {
    long size = at->size,
         block = at->keys + position / LANES * LANES * (precision == IN_BYTES ? padded(size, 4) : size);
    long lane = position % LANES;
    float key_factor = 1, value_factor = 1;
    if (precision == IN_BYTES) {
        float* scales[] = {cache->key_scales + at->scales + position, cache->value_scales + at->scales + position};
        key_factor = reciprocal(*scales[0] = byte_scale(key, size));
        value_factor = reciprocal(*scales[1] = byte_scale(value, size));
    }
    for (long d = 0; d < size; d++) {
        long place = precision == IN_BYTES ? (d / 4 * LANES + lane) * 4 + d % 4 : d * LANES + lane;
        store(cache->keys, block + place, key[d] * key_factor, precision);
        store(cache->values, at->values + position * at->wide + d, value[d] * value_factor, precision);
    }
}

/* The products of a query with the keys of LANES positions from p on. */
INLINE floats scores_at(const Cache* cache, const Place* at, long p, const float* query, int precision) {
    floats even = {0}, odd = {0}; /* two sums: each addition to a single one would wait for the last */
    long d = 0, keys = at->keys + p * at->size;
    for (; d + 1 < at->size; d += 2) {
        even += query[d] * cached(cache->keys, keys + d * LANES, precision);
        odd += query[d + 1] * cached(cache->keys, keys + (d + 1) * LANES, precision);
    }
    if (d < at->size) even += query[d] * cached(cache->keys, keys + d * LANES, precision);
    return even + odd;
}

/* The same in bytes, of a query of `quarters` times four. */
INLINE floats byte_scores_at(const Cache* cache, const Place* at, long p, const int32_t* query, long quarters, int sum,
                             float scale) {
    ints even = (ints){0} - WEIGHT_OFFSET * sum, odd = {0}; /* less what dot_bytes adds */
    const int8_t* keys = (const int8_t*)cache->keys + at->keys + p * quarters * 4;
    long d = 0;
    for (; d + 1 < quarters; d += 2) {
        even = dot_bytes(even, bytes_at(keys + d * VECTOR), (bytes)((ints){0} + query[d]));
        odd = dot_bytes(odd, bytes_at(keys + (d + 1) * VECTOR), (bytes)((ints){0} + query[d + 1]));
    }
    if (d < quarters) even = dot_bytes(even, bytes_at(keys + d * VECTOR), (bytes)((ints){0} + query[d]));
    return to_floats(even + odd) * scale * *(const floats*)(cache->key_scales + at->scales + p);
}

#define MIX(count)                                                                                   \
    for (long p = 0; p < length; p++) {                                                              \
        _Pragma("GCC unroll 4") for (int i = 0; i < (count); i++) mixed[i] +=                        \
            scores[p] * cached(cache->values, at->values + p * at->wide + d + i * LANES, precision); \
    }

/* One head of one token: its causal attention over the `length` positions up to its own. */
INLINE void attend_token(const Cache* cache, const Place* at, long length, const float* query, float* attended,
                         float* scores, int precision) {
    long size = at->size, quarters = padded(size, 4) / 4;
    float scale = 1 / sqrtf((float)size), largest = -INFINITY;
    int32_t lanes[LANES], *codes = (int32_t*)(scores + padded(length, LANES)); /* of the query, in bytes */
    int sum_of_codes = 0;
    if (precision == IN_BYTES) {
        float query_scale = byte_scale(query, size), factor = reciprocal(query_scale);
        memset(codes, 0, quarters * 4);
        for (long d = 0; d < size; d++) sum_of_codes += ((int8_t*)codes)[d] = (int8_t)lrintf(query[d] * factor);
        scale *= query_scale;
    }
    for (long p = 0; p < length; p += LANES) {
        floats score;
        if (precision == IN_BYTES)
            score = byte_scores_at(cache, at, p, codes, quarters, sum_of_codes, scale);
        else
            score = scores_at(cache, at, p, query, precision) * scale;
        *(floats*)(scores + p) = score;
        for (int i = 0; i < min_of(LANES, length - p); i++) largest = score[i] > largest ? score[i] : largest;
    }
    floats total = {0};
    for (int i = 0; i < LANES; i++) lanes[i] = i;
    for (long p = 0; p < length; p += LANES) {
        floats weight = exponential(*(const floats*)(scores + p) - largest);
        weight = from_bits((ints)weight & (*(const ints*)lanes < (ints){0} + (int32_t)(length - p)));
        total += weight;
        if (precision == IN_BYTES) weight *= *(const floats*)(cache->value_scales + at->scales + p);
        *(floats*)(scores + p) = weight;
    }
    float inverse_total = 1 / sum(total);
    for (long d = 0; d < size; d += 4 * LANES) {
        floats mixed[4] = {{0}};
        long vectors = min_of(4, (at->wide - d) / LANES);
        if (vectors == 4)
            MIX(4)
        else
            MIX(vectors)
        for (long i = 0; i < vectors; i++) {
            floats v = mixed[i] * inverse_total;
            if (precision == IN_BF16) v = round_to_bf16(v);
            memcpy(attended + d + i * LANES, &v, sizeof(float) * min_of(LANES, size - d - i * LANES));
        }
    }
}

/* One head of one row: cache the piece's keys and values, then compute its tokens' causal attention. */
INLINE void attend(const Model* model, const Cache* cache, int layer, int head, const Piece* piece, const float* qkv,
                   long qkv_width, float* attended, long attended_width, float* scratch, int precision) {
    long size = model->n_embd / model->n_head, wide = padded(size, LANES);
    long number = ((long)layer * cache->rows + piece->row) * model->n_head + head, positions = number * cache->capacity;
    Place at = {positions * (precision == IN_BYTES ? padded(size, 4) : size), positions * wide, positions, size, wide};
    for (int t = 0; t < piece->length; t++) {
        const float* key = qkv + t * qkv_width + model->n_embd + head * size;
        store_position(cache, &at, piece->start + t, key, key + model->n_embd, precision);
    }
    for (int t = 0; t < piece->length; t++)
        attend_token(cache, &at, piece->start + t + 1, qkv + t * qkv_width + head * size,
                     attended + t * attended_width + head * size, scratch, precision);
}
