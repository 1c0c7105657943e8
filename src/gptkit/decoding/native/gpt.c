/* The forward pass of a GPT on a CPU, for prompts and single tokens of many rows, with a KV cache.

   One call of gpt_forward goes from token ids to logits, in one team of threads that synchronize at barriers: a token
   costs little more than reading the weights. Every sum adds its terms in an order that depends only on the layer's
   width, so a row's logits are bitwise the same in any batch, except with matrix tiles (AMX), which only bf16
   activations use.

   Indices: m for the tokens of a call, n for outputs and k for inputs of a layer, d for dimensions of a head. */

#include "simd.h"

#include "bytes.h"
#include "matmul.h"
#include "amx.h"
#include "quantization.h"
#include "layers.h"

static void embed(const Matrix* table, long id, float* to, int add) {
    for (long k = 0; k < table->inputs; k++) {
        long at = id * table->inputs + k;
        float value = table->format == BF16 ? bf16_to_float(((const uint16_t*)table->weights)[at])
                                            : ((const float*)table->weights)[at];
        to[k] = add ? to[k] + value : value;
    }
}

#ifdef TILES
static int use_tiles(const Model* model, int tokens) {
    return precision_of(model) == IN_BF16 && tokens > 4 && tiles_allowed();
}
#endif

/* y = x W^T + b for this thread's range of outputs, in units of TILE; with a barrier if the inputs are converted, to
   tiles or to bytes. */
static void linear(const Model* model, const Matrix* w, int tokens, const float* x, long x_width, float* y,
                   long y_width, const Buffers* buffers, long* begin, long* end) {
    float* scratch = buffers->scratch + thread_number() * buffers->scratch_size;
    long first, last;
    my_range(padded(w->outputs, TILE) / TILE, begin, end);
    *begin *= TILE;
    *end = min_of(*end * TILE, w->outputs);
#ifdef TILES
    if (use_tiles(model, tokens)) {
        long width = padded(w->inputs, 32);
        my_range(padded(tokens, TILE) / TILE, &first, &last);
        for (long i = first; i < last; i++)
            sort_into_tiles(x + i * TILE * x_width, x_width, min_of(TILE, tokens - i * TILE), width,
                            buffers->tiles + i * width * TILE);
#pragma omp barrier
        product_by_tiles(w, tokens, *begin, *end, buffers->tiles, y, y_width, scratch);
        return;
    }
#endif
    Inputs inputs = {x, buffers->bytes, x_width};
    if (precision_of(model) == IN_BYTES) {
        my_range(tokens, &first, &last);
        for (long m = first; m < last; m++) to_bytes(x + m * x_width, x_width, &inputs.bytes, m);
#pragma omp barrier
    }
    product(w, precision_of(model) == IN_BYTES, tokens, *begin, *end, &inputs, y, y_width, scratch);
}

/* Write `normed`, the input of the next product: GPT-2 normalizes a copy of the hidden states, GPT-1 the hidden states
   themselves. */
static void next_input(const Model* model, int tokens, const float* weight, const float* bias, const Buffers* buffers) {
    long embd = model->n_embd, width = padded(embd, BLOCK), begin, end;
    my_range(tokens, &begin, &end);
    for (long m = begin; m < end; m++) {
        float *hidden = buffers->hidden + m * embd, *normed = buffers->normed + m * width;
        if (model->pre_norm) {
            norm(hidden, weight, bias, embd, model->epsilon, is_bf16(model), normed);
            continue;
        }
        if (weight) norm(hidden, weight, bias, embd, model->epsilon, 0, hidden);
        for (long k = 0; k < embd; k++)
            normed[k] = is_bf16(model) ? bf16_to_float(float_to_bf16(hidden[k])) : hidden[k];
    }
}

/* hidden += x W^T + b; the product is first written to the buffer of the attention's inputs. */
static void residual(const Model* model, const Matrix* w, int tokens, const float* x, long x_width, long update_width,
                     const Buffers* buffers) {
    long begin, end;
    float* update = buffers->attention;
    linear(model, w, tokens, x, x_width, update, update_width, buffers, &begin, &end);
    for (int m = 0; m < tokens; m++)
        for (long n = begin; n < end; n++) buffers->hidden[m * model->n_embd + n] += update[m * update_width + n];
}

static void attend_all(const Model* model, const Cache* cache, int layer, const Piece* pieces, int count,
                       const Buffers* buffers, long qkv_width, long width) {
    float* scratch = buffers->scratch + thread_number() * buffers->scratch_size;
    long begin, end, m = 0, task = 0;
    my_range((long)count * model->n_head, &begin, &end);
    for (int i = 0; i < count; m += pieces[i++].length)
        for (int head = 0; head < model->n_head; head++, task++) {
            if (task < begin || task >= end) continue;
            const float* qkv = buffers->attention + m * qkv_width;
            float* attended = buffers->attended + m * width;
            attend(model, cache, layer, head, pieces + i, qkv, qkv_width, attended, width, scratch,
                   precision_of(model));
        }
}

static void run_layer(const Model* model, const Cache* cache, int number, const Piece* pieces, int count, int tokens,
                      const Buffers* buffers) {
    const Layer* layer = model->layers + number;
    long width = padded(model->n_embd, BLOCK), qkv_width = padded(3 * model->n_embd, BLOCK);
    long inner_width = padded(model->n_inner, BLOCK), begin, end;
    if (model->pre_norm) next_input(model, tokens, layer->norm_1, layer->norm_1_bias, buffers);
#pragma omp barrier
    linear(model, &layer->attention, tokens, buffers->normed, width, buffers->attention, qkv_width, buffers, &begin,
           &end);
#pragma omp barrier
    attend_all(model, cache, number, pieces, count, buffers, qkv_width, width);
#pragma omp barrier
    residual(model, &layer->attention_out, tokens, buffers->attended, width, qkv_width, buffers);
#pragma omp barrier
    next_input(model, tokens, model->pre_norm ? layer->norm_2 : layer->norm_1,
               model->pre_norm ? layer->norm_2_bias : layer->norm_1_bias, buffers);
#pragma omp barrier
    linear(model, &layer->mlp, tokens, buffers->normed, width, buffers->inner, inner_width, buffers, &begin, &end);
    for (int m = 0; m < tokens; m++)
        activate(buffers->inner + m * inner_width + begin, end - begin, model->activation, is_bf16(model));
#pragma omp barrier
    residual(model, &layer->mlp_out, tokens, buffers->inner, inner_width, qkv_width, buffers);
#pragma omp barrier
    if (!model->pre_norm) next_input(model, tokens, layer->norm_2, layer->norm_2_bias, buffers);
}

/* Write the normalized last hidden states of the tokens whose logits are wanted to the first rows of `attended`. */
static int select_wanted(const Model* model, const Piece* pieces, int count, const Buffers* buffers) {
    long embd = model->n_embd, width = padded(embd, BLOCK), m = 0;
    int wanted = 0;
    for (int i = 0; i < count; i++) {
        m += pieces[i].length;
        for (long token = m - pieces[i].wanted; token < m; token++) {
            float* to = buffers->attended + wanted++ * width;
            if (model->pre_norm)
                norm(buffers->hidden + token * embd, model->norm, model->norm_bias, embd, model->epsilon,
                     is_bf16(model), to);
            else
                memcpy(to, buffers->normed + token * width, embd * sizeof(float));
        }
    }
    return wanted;
}

/* Append the pieces' tokens to the cache; write the logits (wanted, vocab_size) of the tokens that want them. */
void gpt_forward(const Model* model, const Cache* cache, const Buffers* buffers, const Piece* pieces, int32_t count,
                 const int32_t* ids, float* logits) {
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
                float* hidden = buffers->hidden + (long)m * model->n_embd;
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
            linear(model, &model->head, wanted, buffers->attended, width, logits, model->vocab_size, buffers, &begin,
                   &end);
        }
#ifdef TILES
        if (use_tiles(model, tokens)) _tile_release();
#endif
    }
}

/* Return how many floats of scratch each thread needs in a call, including the bf16 tiles of weights. */
int64_t gpt_scratch_size(const Model* model, int64_t capacity) {
    long inputs = padded(model->n_inner > model->n_embd ? model->n_inner : model->n_embd, BLOCK);
    long unpacked = BLOCK_N * inputs, tile = inputs + TILE * inputs / 2;
    long most = unpacked > tile ? unpacked : tile;
    long attended = QUERIES * query_scratch(capacity, model->n_embd);
    return padded(most > attended ? most : attended, LANES);
}
