/* Quantize weights to int8, int4 or bf16, by the rules of quantization.py. */

/* The bits of |w|, which are ordered like the magnitudes, with NaN on top: comparing floats would miss a NaN. */
INLINE uint32_t magnitude(float weight) {
    uint32_t bits;
    memcpy(&bits, &weight, 4);
    return bits & 0x7FFFFFFF;
}

/* code = round(w / scale), ties to even, with scale = max |w| / 127 of each output. The scale of a row with NaN or
   infinity is not finite, and so is that of an int4 group. */
void gpt_to_int8(const float* weights, int64_t outputs, int64_t inputs, int8_t* codes, float* scales, int32_t threads) {
#pragma omp parallel for num_threads(threads)
    for (int64_t n = 0; n < outputs; n++) {
        const float* row = weights + n * inputs;
        uint32_t largest = 0;
        for (int64_t k = 0; k < inputs; k++) largest = magnitude(row[k]) > largest ? magnitude(row[k]) : largest;
        float scale;
        memcpy(&scale, &largest, 4);
        scale = scale / 127 == 0 ? 1 : scale / 127;
        scales[n] = scale;
        if (!isfinite(scale)) continue;
        for (int64_t k = 0; k < inputs; k++) codes[n * inputs + k] = (int8_t)rintf(row[k] / scale);
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

INLINE double squared_error(floats weights, floats codes, float scale) {
    floats error = weights - codes * scale;
    double total = 0;
    for (int i = 0; i < LANES; i++) total += (double)error[i] * error[i];
    return total;
}

/* Quantize one group: of the scales m times -1/8, -0.95/8, -0.9/8, -0.85/8 in bf16, where m is the entry of largest
   magnitude, return the one of least squared error. A code is round(w / scale) in -8 ... 7, plus 8. */
static uint16_t quantize_group(const float* weights, ints codes[GROUP / LANES]) {
    static const float factors[] = {-0.125f, -0.11875f, -0.1125f, -0.10625f};
    float extreme = 0;
    for (int k = 0; k < GROUP; k++)
        if (magnitude(weights[k]) > magnitude(extreme)) extreme = weights[k];
    if (!isfinite(extreme)) return float_to_bf16(extreme);
    double least_error = INFINITY;
    uint16_t best = 0;
    for (int candidate = 0; candidate < 4; candidate++) {
        uint16_t half = float_to_bf16(extreme * factors[candidate]);
        float scale = bf16_to_float(half), divisor = scale == 0 ? 1 : scale;
        floats rounded[GROUP / LANES];
        double error = 0;
        for (int i = 0; i < GROUP / LANES; i++) {
            floats w = *(const floats*)(weights + i * LANES);
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

void gpt_to_int4(const float* weights, int64_t outputs, int64_t inputs, uint8_t* packed, uint16_t* scales,
                 int32_t threads) {
    long row = padded(inputs, BLOCK);
#pragma omp parallel for num_threads(threads)
    for (int64_t n = 0; n < outputs; n++)
        for (long k = 0; k < row; k += BLOCK) {
            float block[BLOCK] = {0};
            ints together = {0};
            memcpy(block, weights + n * inputs + k, sizeof(float) * min_of(BLOCK, inputs - k));
            for (int group = 0; group < BLOCK / GROUP; group++) {
                ints codes[GROUP / LANES] = {{0}};
                scales[(n * row + k) / GROUP + group] = quantize_group(block + group * GROUP, codes);
                for (int i = 0; i < GROUP / LANES; i++) together |= codes[i] << 4 * (group * (GROUP / LANES) + i);
            }
            memcpy(packed + (n * row + k) / 2, &together, sizeof together);
        }
}
