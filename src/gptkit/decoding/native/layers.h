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

INLINE int precision_of(const Model* model) {
#ifdef PRECISION
    return (void)model, PRECISION;
#else
    return model->precision;
#endif
}

INLINE int is_bf16(const Model* model) { return precision_of(model) == IN_BF16; }

typedef struct { /* for each layer, row and head: keys in blocks of LANES positions, (block, d, LANES) or in bytes
                    (block, d / 4, LANES, 4), and values (position, d) */
    int32_t rows, capacity;
    void *keys, *values;              /* as precise as activations: float, bf16 or bytes */
    float *key_scales, *value_scales; /* in bytes: of a position */
} Cache;

typedef struct {
    int32_t row, start, length, wanted; /* `wanted`: how many of the last tokens to compute logits for */
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

#define QUERIES 4
#define MIXED (BLOCK_M == 4 ? 4 : 2) /* vectors of values at a time */

typedef struct { /* a few tokens of one head, which share each read of the cache */
    const float* query[QUERIES];
    int32_t* codes[QUERIES]; /* of the query in bytes, four in each */
    int sum_of_codes[QUERIES];
    long length[QUERIES]; /* positions up to the token's own */
    float scale[QUERIES];
    float* scores[QUERIES];
} Queries;

/* How many floats a query needs: its scores and its bytes. */
static long query_scratch(long capacity, long size) { return capacity + padded(size, LANES); }

#define EACH_QUERY _Pragma("GCC unroll 4") for (int q = 0; q < count; q++)

/* The products of queries with the keys of LANES positions from p on. */
INLINE void scores_at(const Cache* cache, const Place* at, long p, const Queries* queries, int count, int precision,
                      floats* scores) {
    floats even[QUERIES], odd[QUERIES]; /* two sums: each addition to a single one would wait for the last */
    EACH_QUERY even[q] = odd[q] = (floats){0};
    long d = 0, keys = at->keys + p * at->size;
    for (; d + 1 < at->size; d += 2) {
        floats first = cached(cache->keys, keys + d * LANES, precision);
        floats second = cached(cache->keys, keys + (d + 1) * LANES, precision);
        EACH_QUERY even[q] += queries->query[q][d] * first;
        EACH_QUERY odd[q] += queries->query[q][d + 1] * second;
    }
    if (d < at->size) EACH_QUERY even[q] += queries->query[q][d] * cached(cache->keys, keys + d * LANES, precision);
    EACH_QUERY scores[q] = (even[q] + odd[q]) * queries->scale[q];
}

/* The same in bytes. */
INLINE void byte_scores_at(const Cache* cache, const Place* at, long p, const Queries* queries, int count,
                           floats* scores) {
    ints even[QUERIES], odd[QUERIES];
    EACH_QUERY even[q] = (ints){0} - WEIGHT_OFFSET * queries->sum_of_codes[q], odd[q] = (ints){0};
    long d = 0, quarters = padded(at->size, 4) / 4;
    const int8_t* keys = (const int8_t*)cache->keys + at->keys + p * quarters * 4;
    for (; d + 1 < quarters; d += 2) {
        bytes first = bytes_at(keys + d * VECTOR), second = bytes_at(keys + (d + 1) * VECTOR);
        EACH_QUERY even[q] = dot_bytes(even[q], first, (bytes)((ints){0} + queries->codes[q][d]));
        EACH_QUERY odd[q] = dot_bytes(odd[q], second, (bytes)((ints){0} + queries->codes[q][d + 1]));
    }
    if (d < quarters) {
        bytes last = bytes_at(keys + d * VECTOR);
        EACH_QUERY even[q] = dot_bytes(even[q], last, (bytes)((ints){0} + queries->codes[q][d]));
    }
    floats key_scales = floats_at(cache->key_scales + at->scales + p);
    EACH_QUERY scores[q] = to_floats(even[q] + odd[q]) * queries->scale[q] * key_scales;
}

INLINE float largest_score(const float* scores, long length) {
    floats most = splat(-INFINITY);
    long p = 0;
    for (; p + LANES <= length; p += LANES) {
        ints score = ints_at((const int32_t*)(scores + p)), more = floats_at(scores + p) > most;
        most = from_bits((more & score) | (~more & (ints)most));
    }
    float largest = -INFINITY;
    for (int i = 0; i < LANES; i++) largest = most[i] > largest ? most[i] : largest;
    for (; p < length; p++) largest = scores[p] > largest ? scores[p] : largest;
    return largest;
}

/* Turn the scores of a query, up to `longest` of them, into weights, those after its length into zeros; return the
   reciprocal of their sum. */
INLINE float softmax(float* scores, long length, long longest, const float* value_scales) {
    int32_t lanes[LANES];
    float largest = largest_score(scores, length);
    floats total = {0};
    for (int i = 0; i < LANES; i++) lanes[i] = i;
    for (long p = 0; p < longest; p += LANES) {
        floats weight = exponential(floats_at(scores + p) - largest);
        weight = from_bits((ints)weight & (ints_at(lanes) < (ints){0} + (int32_t)(length - p)));
        total += weight;
        if (value_scales) weight *= floats_at(value_scales + p);
        *(floats*)(scores + p) = weight;
    }
    return 1 / sum(total);
}

/* Add up the values by their weights, `vectors` of them from dimension d on. */
INLINE void mix(const Cache* cache, const Place* at, long d, const Queries* queries, int count, int vectors,
                long longest, int precision, floats mixed[QUERIES][MIXED]) {
    EACH_QUERY _Pragma("GCC unroll 4") for (int i = 0; i < vectors; i++) mixed[q][i] = (floats){0};
    for (long p = 0; p < longest; p++) {
        long values = at->values + p * at->wide + d;
        _Pragma("GCC unroll 4") for (int i = 0; i < vectors; i++) {
            floats value = cached(cache->values, values + i * LANES, precision);
            EACH_QUERY mixed[q][i] += queries->scores[q][p] * value;
        }
    }
}

/* One head of `count` tokens, the last of which has most positions: their causal attention. */
INLINE void attend_tokens(const Cache* cache, const Place* at, const Queries* queries, int count, float* attended,
                          long attended_width, int precision) {
    long size = at->size, longest = queries->length[count - 1];
    floats scores[QUERIES], mixed[QUERIES][MIXED];
    float inverse_total[QUERIES];
    for (long p = 0; p < longest; p += LANES) {
        if (precision == IN_BYTES)
            byte_scores_at(cache, at, p, queries, count, scores);
        else
            scores_at(cache, at, p, queries, count, precision, scores);
        EACH_QUERY*(floats*)(queries->scores[q] + p) = scores[q];
    }
    const float* value_scales = precision == IN_BYTES ? cache->value_scales + at->scales : 0;
    EACH_QUERY inverse_total[q] = softmax(queries->scores[q], queries->length[q], longest, value_scales);
    for (long d = 0; d < size; d += MIXED * LANES) {
        int vectors = min_of(MIXED, (at->wide - d) / LANES);
        if (vectors == MIXED)
            mix(cache, at, d, queries, count, MIXED, longest, precision, mixed);
        else
            mix(cache, at, d, queries, count, vectors, longest, precision, mixed);
        EACH_QUERY for (int i = 0; i < vectors; i++) {
            floats v = mixed[q][i] * inverse_total[q];
            if (precision == IN_BF16) v = round_to_bf16(v);
            long place = q * attended_width + d + i * LANES;
            memcpy(attended + place, &v, sizeof(float) * min_of(LANES, size - d - i * LANES));
        }
    }
}

/* Round a query to bytes; return their scale. */
INLINE float query_to_bytes(const float* query, long size, int8_t* codes, int* sum_of_codes) {
    float scale = byte_scale(query, size), factor = reciprocal(scale);
    *sum_of_codes = 0;
    memset(codes, 0, padded(size, 4));
    for (long d = 0; d < size; d++) *sum_of_codes += codes[d] = (int8_t)lrintf(query[d] * factor);
    return scale;
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
    attended += head * size;
    for (int t = 0, count; t < piece->length; t += count) {
        Queries queries;
        count = t + QUERIES <= piece->length ? QUERIES : 1;
        for (int q = 0; q < count; q++) {
            float* scores = scratch + q * query_scratch(cache->capacity, size);
            queries.query[q] = qkv + (t + q) * qkv_width + head * size;
            queries.length[q] = piece->start + t + q + 1;
            queries.scores[q] = scores;
            queries.scale[q] = 1 / sqrtf((float)size);
            queries.codes[q] = (int32_t*)(scores + cache->capacity);
            if (precision == IN_BYTES)
                queries.scale[q] *=
                    query_to_bytes(queries.query[q], size, (int8_t*)queries.codes[q], queries.sum_of_codes + q);
        }
        if (count == QUERIES)
            attend_tokens(cache, &at, &queries, QUERIES, attended + t * attended_width, attended_width, precision);
        else
            attend_tokens(cache, &at, &queries, 1, attended + t * attended_width, attended_width, precision);
    }
}
