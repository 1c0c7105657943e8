/* Runs the native decoder on a recorded model, for processors that only an emulator provides; see test_aarch64.py.

   stdin: the ints below, epsilon, the fp32 tensors in the order of `read_model`, the token ids; stdout: the logits
   after each token (tokens, vocab_size). */

#include <stdio.h>

#include "gpt.c"

static struct {
    int32_t n_layer, n_head, n_embd, n_inner, vocab_size, n_positions, pre_norm, activation, format, precision, tokens;
} shape;

static void* zeros(size_t count, size_t size) { return calloc(count + 64, size); }

static void* read_all(size_t count, size_t size) {
    void* to = zeros(count, size);
    if (fread(to, size, count, stdin) != count) exit(2);
    return to;
}

static float* vector(long width) { return read_all(width, sizeof(float)); }

static Matrix matrix(long outputs, long inputs, int format, int has_bias) {
    float* weights = vector(outputs * inputs);
    long width = padded(inputs, BLOCK);
    Matrix to = {format, (int32_t)outputs, (int32_t)inputs, weights, 0, 0};
    if (format == BF16) {
        to.weights = zeros(outputs * inputs, 2);
        gpt_to_bf16(weights, outputs * inputs, (void*)to.weights, 1);
    }
    if (format == INT8) {
        to.weights = zeros(outputs * width, 1), to.scales = zeros(outputs, 4);
        gpt_to_int8(weights, outputs, inputs, (void*)to.weights, (void*)to.scales, shape.precision == IN_BYTES, 1);
    }
    if (format == INT4) {
        to.weights = zeros(outputs * width / 2, 1), to.scales = zeros(outputs * width / GROUP, 2);
        gpt_to_int4(weights, outputs, inputs, (void*)to.weights, (void*)to.scales, shape.precision == IN_BYTES, 1);
    }
    if (has_bias) to.bias = vector(outputs);
    return to;
}

static Model read_model(void) {
    long embd = shape.n_embd, inner = shape.n_inner;
    int format = shape.format;
    Model model = {shape.n_layer,    shape.n_head,    embd, inner, shape.vocab_size, shape.pre_norm,
                   shape.activation, shape.precision, 1,    0};
    model.epsilon = *vector(1);
    model.tokens = matrix(shape.vocab_size, embd, F32, 0);
    model.positions = matrix(shape.n_positions, embd, F32, 0);
    Layer* layers = zeros(shape.n_layer, sizeof(Layer));
    for (int i = 0; i < shape.n_layer; i++) {
        layers[i].norm_1 = vector(embd), layers[i].norm_1_bias = vector(embd);
        layers[i].attention = matrix(3 * embd, embd, format, 1);
        layers[i].attention_out = matrix(embd, embd, format, 1);
        layers[i].norm_2 = vector(embd), layers[i].norm_2_bias = vector(embd);
        layers[i].mlp = matrix(inner, embd, format, 1);
        layers[i].mlp_out = matrix(embd, inner, format, 1);
    }
    model.layers = layers;
    if (shape.pre_norm) model.norm = vector(embd), model.norm_bias = vector(embd);
    model.head = matrix(shape.vocab_size, embd, format, 0);
    return model;
}

int main(void) {
    if (fread(&shape, sizeof shape, 1, stdin) != 1) return 2;
    Model model = read_model();
    int32_t* ids = read_all(shape.tokens, 4);
    long capacity = padded(shape.tokens, TILE), wide = padded(shape.n_embd / shape.n_head, TILE);
    long positions = (long)shape.n_layer * shape.n_head * capacity,
         most = 4 * padded(shape.n_embd + shape.n_inner, BLOCK);
    Cache cache = {1,
                   (int32_t)capacity,
                   zeros(positions * wide, 4),
                   zeros(positions * wide, 4),
                   zeros(positions, 4),
                   zeros(positions, 4)};
    Buffers buffers = {.scratch_size = gpt_scratch_size(&model, capacity)};
    float** floats[] = {&buffers.hidden, &buffers.normed, &buffers.attention, &buffers.attended, &buffers.inner};
    for (int i = 0; i < 5; i++) *floats[i] = zeros(most, 4);
    buffers.bytes = (Bytes){zeros(most, 1), zeros(most, 4), zeros(most, 4), zeros(most, 4)};
    buffers.tiles = zeros(most * TILE, 2);
    buffers.scratch = zeros(buffers.scratch_size, 4);
    float* logits = zeros(shape.vocab_size, 4);
    for (int t = 0; t < shape.tokens; t++) {
        Piece piece = {0, t, 1, 1};
        gpt_forward(&model, &cache, &buffers, &piece, 1, ids + t, logits);
        fwrite(logits, sizeof(float), shape.vocab_size, stdout);
    }
    return 0;
}
