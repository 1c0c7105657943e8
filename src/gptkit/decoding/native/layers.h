/* The parts of a transformer block other than its matrix products: layer norm, GELU, attention over the cache. */

typedef struct {
    Matrix attention, attention_out, mlp, mlp_out;
    const float *norm_1, *norm_1_bias, *norm_2, *norm_2_bias;
} Layer;

typedef struct {
    int32_t n_layer, n_head, n_embd, n_inner, vocab_size;
    int32_t pre_norm, activation, bf16, threads;
    float epsilon;
    Matrix tokens, positions, head; /* tokens and positions are embeddings: F32 or BF16 */
    const Layer* layers;
    const float *norm, *norm_bias;
} Model;

typedef struct { /* for each layer, row and head: keys in blocks of LANES positions (block, d, LANES), values
                    (position, d) */
    int32_t rows, capacity;
    void *keys, *values; /* float, or bf16 if activations are */
} Cache;

typedef struct {
    int32_t row, start, length, wanted; /* `wanted`: whether to compute the last token's logits */
} Piece;

typedef struct {
    float *hidden, *normed, *attention, *attended,
        *inner;      /* (m, width): `hidden` unpadded, the others padded to BLOCK */
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

INLINE floats cached(const void* cache, long at, int bf16) {
    return bf16 ? bf16_to_floats((const uint16_t*)cache + at) : *(const floats*)((const float*)cache + at);
}

INLINE void store(void* cache, long at, float value, int bf16) {
    if (bf16)
        ((uint16_t*)cache)[at] = float_to_bf16(value);
    else
        ((float*)cache)[at] = value;
}

#define MIX(count)                                                                      \
    for (long p = 0; p < length; p++) {                                                 \
        _Pragma("GCC unroll 4") for (int i = 0; i < (count); i++) mixed[i] +=           \
            scores[p] * cached(cache->values, values + p * wide + d + i * LANES, bf16); \
    }

/* One head of one row: cache the piece's keys and values, then compute its tokens' causal attention. */
INLINE void attend(const Model* model, const Cache* cache, int layer, int head, const Piece* piece, const float* qkv,
                   long qkv_width, float* attended, long attended_width, float* scratch, int bf16) {
    long size = model->n_embd / model->n_head, wide = padded(size, LANES);
    long at = ((long)layer * cache->rows + piece->row) * model->n_head + head;
    long keys = at * cache->capacity * size, values = at * cache->capacity * wide;
    float *scores = scratch, scale = 1 / sqrtf((float)size);
    for (int t = 0; t < piece->length; t++) {
        long position = piece->start + t;
        const float *key = qkv + t * qkv_width + model->n_embd + head * size, *value = key + model->n_embd;
        for (long d = 0; d < size; d++) {
            store(cache->keys, keys + (position / LANES * size + d) * LANES + position % LANES, key[d], bf16);
            store(cache->values, values + position * wide + d, value[d], bf16);
        }
    }
    const ints lanes = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
    for (int t = 0; t < piece->length; t++) {
        long length = piece->start + t + 1;
        const float* query = qkv + t * qkv_width + head * size;
        float largest = -INFINITY;
        for (long p = 0; p < length; p += LANES) {
            floats score = {0};
            floats odd = {0}; /* two sums: each addition to a single one would wait for the last */
            long d = 0;
            for (; d + 1 < size; d += 2) {
                score += query[d] * cached(cache->keys, keys + p * size + d * LANES, bf16);
                odd += query[d + 1] * cached(cache->keys, keys + p * size + (d + 1) * LANES, bf16);
            }
            if (d < size) score += query[d] * cached(cache->keys, keys + p * size + d * LANES, bf16);
            *(floats*)(scores + p) = score = (score + odd) * scale;
            for (int i = 0; i < min_of(LANES, length - p); i++) largest = score[i] > largest ? score[i] : largest;
        }
        floats total = {0};
        for (long p = 0; p < length; p += LANES) {
            floats weight = exponential(*(const floats*)(scores + p) - largest);
            weight = from_bits((ints)weight & (lanes < (ints){0} + (int32_t)(length - p)));
            *(floats*)(scores + p) = weight;
            total += weight;
        }
        float inverse_total = 1 / sum(total);
        for (long d = 0; d < size; d += 4 * LANES) {
            floats mixed[4] = {{0}};
            long vectors = min_of(4, (wide - d) / LANES);
            if (vectors == 4)
                MIX(4)
            else
                MIX(vectors)
            for (long i = 0; i < vectors; i++) {
                floats v = mixed[i] * inverse_total;
                if (bf16) v = round_to_bf16(v);
                float* to = attended + t * attended_width + head * size + d + i * LANES;
                memcpy(to, &v, sizeof(float) * min_of(LANES, size - d - i * LANES));
            }
        }
    }
}
