/* Quantize weights to int8, int4 or bf16, by the rules of quantization.py. */

/* code = round(w / scale), ties to even, with scale = max |w| / 127 of each output. The scale of a row with NaN or
   infinity is not finite, and so is that of an int4 group. */
void gpt_to_int8(const float* weights, int64_t outputs, int64_t inputs, int8_t* codes, float* scales, int32_t sorted,
                 int32_t threads) {
    long width = padded(inputs, BLOCK);
#pragma omp parallel for num_threads(threads)
    for (int64_t n = 0; n < outputs; n++) {
        const float* row = weights + n * inputs;
        float scale = byte_scale(row, inputs);
        if (scale == 0) scale = 1;
        scales[n] = scale;
        if (!isfinite(scale)) continue;
        for (int64_t k = 0; k < inputs; k++) codes[n * width + k] = (int8_t)rintf(row[k] / scale);
        for (int64_t k = 0; sorted && k < width; k += CHUNK) sort_chunk(codes + n * width + k, chunk_size(width, k));
    }
}

void gpt_to_bf16(const float* weights, int64_t count, uint16_t* to, int32_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t i = 0; i < count; i++) to[i] = float_to_bf16(weights[i]);
}

INLINE floats limited(floats v, float low, float high) {
    ints below = v<splat(low), above = v> splat(high);
    return from_bits((~(below | above) & (ints)v) | (below & (ints)splat(low)) | (above & (ints)splat(high)));
}

/* Quantize one group: of the scales m times -1/8, -0.95/8, -0.9/8, -0.85/8 in bf16, where m is the entry of largest
   magnitude, return the one of least squared error. A code is round(w / scale) in -8 ... 7, plus 8. */
static uint16_t quantize_group(const float* weights, int8_t codes[GROUP]) {
    static const float factors[] = {-0.125f, -0.11875f, -0.1125f, -0.10625f};
    float extreme = 0;
    for (int k = 0; k < GROUP; k++)
        if (magnitude(weights[k]) > magnitude(extreme)) extreme = weights[k];
    if (!isfinite(extreme)) return float_to_bf16(extreme);
    double least_error = INFINITY;
    uint16_t best = 0;
    for (int candidate = 0; candidate < 4; candidate++) {
        uint16_t half = float_to_bf16(extreme * factors[candidate]);
        float scale = bf16_to_float(half), divisor = scale == 0 ? 1 : scale, errors[GROUP];
        int8_t rounded[GROUP];
        double error = 0;
        for (int k = 0; k < GROUP; k += LANES) {
            floats w = *(const floats*)(weights + k);
            floats code =
                limited(limited(w / divisor, -16, 16) + 12582912.0f - 12582912.0f, -8, 7); /* to the nearest */
            *(floats*)(errors + k) = w - code * scale;
            *(narrow_bytes*)(rounded + k) = to_narrow_bytes(__builtin_convertvector(code + 8, ints));
        }
        for (int k = 0; k < GROUP; k++) error += (double)errors[k] * errors[k];
        if (error >= least_error) continue;
        least_error = error;
        best = half;
        memcpy(codes, rounded, GROUP);
    }
    return best;
}

void gpt_to_int4(const float* weights, int64_t outputs, int64_t inputs, uint8_t* packed, uint16_t* scales,
                 int32_t sorted, int32_t threads) {
    long width = padded(inputs, BLOCK);
#pragma omp parallel for num_threads(threads)
    for (int64_t n = 0; n < outputs; n++)
        for (long k = 0; k < width; k += CHUNK) {
            float chunk[CHUNK] = {0};
            int8_t codes[CHUNK] = {0};
            int size = chunk_size(width, k);
            memcpy(chunk, weights + n * inputs + k, sizeof(float) * min_of(size, inputs - k));
            for (int i = 0; i < size; i += GROUP)
                scales[(n * width + k + i) / GROUP] = quantize_group(chunk + i, codes + i);
            if (sorted) sort_chunk(codes, size);
            uint8_t* to = packed + (n * width + k) / 2;
            for (int i = 0; i < size; i++) { /* see low_codes and high_codes */
                int vector = i / VECTOR, place = vector / 2 * VECTOR + i % VECTOR;
                to[place] = (vector % 2 ? to[place] : 0) | codes[i] << vector % 2 * 4;
            }
        }
}
