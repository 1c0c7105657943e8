/* Matrix products on AMX tiles, for many tokens with bf16 activations. */

#define TILE 16 /* rows of a tile, each with 32 inputs */

#if defined(__AMX_BF16__) && defined(__linux__)
#define TILES 1
#include <sys/syscall.h>
#include <unistd.h>

static int tiles_allowed(void) { /* Linux grants the tile registers only on request */
    static int allowed = -1;
    if (allowed < 0) allowed = syscall(SYS_arch_prctl, 0x1023, 18) == 0;
    return allowed;
}

static void configure_tiles(void) {
    struct {
        uint8_t palette, start, reserved[14];
        uint16_t row_bytes[16];
        uint8_t rows[16];
    } config = {.palette = 1};
    for (int i = 0; i < 8; i++) config.row_bytes[i] = 64, config.rows[i] = TILE;
    _tile_loadconfig(&config);
}

/* Arrange the inputs of a block of TILE tokens as tiles. */
static void sort_into_tiles(const float* x, long x_width, int tokens, long inputs, uint16_t* tiles) {
    for (int m = 0; m < TILE; m++)
        for (long k = 0; k < inputs; k++) {
            uint32_t bits = 0; /* the inputs are already rounded to bf16 */
            if (m < tokens) memcpy(&bits, x + m * x_width + k, 4);
            tiles[k / 2 * 2 * TILE + m * 2 + k % 2] = (uint16_t)(bits >> 16);
        }
}

/* Return the weights of TILE outputs as bf16 (TILE, width), without a copy if that is how they are stored. */
static const uint16_t* outputs_as_bf16(const Matrix* w, long n, long width, uint16_t* to, float* row, long* stride) {
    if (w->format == BF16 && w->inputs == width && n + TILE <= w->outputs) {
        *stride = w->inputs;
        return (const uint16_t*)w->weights + n * w->inputs;
    }
    *stride = width;
    memset(to, 0, sizeof(uint16_t) * TILE * width);
    for (int i = 0; i < TILE && n + i < w->outputs; i++) {
        unpack(w, n + i, row);
        for (long k = 0; k < w->inputs; k += LANES) store_as_bf16(to + i * width + k, *(const floats*)(row + k));
    }
    return to;
}

static void product_by_tiles(const Matrix* w, int tokens, long begin, long end, const uint16_t* tiles, float* y,
                             long y_width, float* scratch) {
    long width = padded(w->inputs, 32), per_block = width * TILE;
    float *row = scratch, result[2][TILE][TILE];
    uint16_t* buffer = (uint16_t*)(scratch + padded(w->inputs, BLOCK));
    for (long n = begin; n < end; n += TILE) {
        long stride;
        const uint16_t* outputs = outputs_as_bf16(w, n, width, buffer, row, &stride);
        const char* ahead = row_of(w, n + TILE);
        long length = TILE * row_bytes(w) * 32 / width;
        int count = min_of(TILE, end - n);
        for (int m = 0; m < tokens; m += 2 * TILE) {
            const uint16_t* first = tiles + m / TILE * per_block;
            int two = m + TILE < tokens;
            _tile_zero(0);
            _tile_zero(1);
            for (long k = 0; k < width; k += 32) {
                if (!m)
                    for (const char* last = ahead + length; ahead < last; ahead += 64) __builtin_prefetch(ahead);
                _tile_loadd(2, outputs + k, stride * 2);
                _tile_loadd(3, first + k * TILE, 64);
                _tile_dpbf16ps(0, 2, 3);
                if (two) {
                    _tile_loadd(4, first + per_block + k * TILE, 64);
                    _tile_dpbf16ps(1, 2, 4);
                }
            }
            _tile_stored(0, result[0], 64);
            _tile_stored(1, result[1], 64);
            for (int i = 0; i < count; i++) {
                float scale = w->format == INT8 ? ((const float*)w->scales)[n + i] : 1;
                float bias = w->bias ? w->bias[n + i] : 0;
                for (int j = m; j < min_of(m + 2 * TILE, tokens); j++)
                    y[j * y_width + n + i] = result[(j - m) / TILE][i][j % TILE] * scale + bias;
            }
        }
    }
}
#endif
