/* Sparse convolution of codes: (I, H, W) -> (O, P, Q), where a block is four consecutive input channels at one tap:

       for o < O, y < P, x < Q:
           out[o][y][x] = requantise(bias[o] + sum over the blocks (i, ky, kx) of channel o, over k < 4, of
                                         weight[o][4 * i + k][ky][kx] * in[4 * i + k][y * stride_y + ky * dilation_y - top]
                                                                                     [x * stride_x + kx * dilation_x - left],
                                     residual[o][y][x])

   The four codes of a pixel are one word, so a vector of words is a vector of pixels, and a block costs one broadcast of
   its four weights, and one product of four per vector (codes.h). A register tile holds the sums of one output channel
   for up to UNITS_MAX units of pixels; those of four output channels are then joined to words. The input rows are packed
   as for floats (pack_rows.h), with the input's zero around the image. */
#ifndef ROBUST_EDGE_CONV_BLOCKS_H
#define ROBUST_EDGE_CONV_BLOCKS_H

#include "conv_tiles.h"
#include "pack_rows.h"
#include "requantise.h"
#include "tile_sizes.h"

#ifndef BLOCKS_UNITS
#define BLOCKS_UNITS(EACH) EACH(1)
#endif

struct conv_blocks {
    struct conv conv;      /* planes, channels and floats are those of words; the biases are structs channel */
    uint32_t fill;         /* the word around the image */
    struct requantisation requantisation;
};

/* Blocks of an output channel, from some block on. */
struct blocks {
    const unsigned char *weights; /* four bytes each */
    const uint16_t *offsets;      /* of the words that they are multiplied with */
};

/* Adds the products of `count` blocks to the sums of `vectors` vectors of pixels; few sums are kept in several parts,
   since a product waits for the sum before it. `vectors` is a constant where this is called. */
INLINE void accumulate_blocks(ints *sum, const int vectors, const float *in, size_t scale, struct blocks next,
                              uint32_t count) {
    const int chains = vectors <= 2 ? 4 : vectors <= 4 ? 2 : 1;
    ints partial[3 * 4];
    UNROLL for (int v = 0; v < (chains - 1) * vectors; v++)
        partial[v] = splat_int(0);
    if (chains > 1)
        for (; count >= (uint32_t)chains; count -= (uint32_t)chains, next.weights += 4 * chains, next.offsets += chains)
            UNROLL for (int i = 0; i < chains; i++) {
                ints *to = i ? partial + (i - 1) * vectors : sum, w = splat_four(next.weights + 4 * i);
                const float *pixels = in + next.offsets[i] * scale;
                UNROLL for (int v = 0; v < vectors; v++)
                    to[v] = dot4(to[v], load_words(pixels + v * LANES), w);
            }
    for (; count > 0; count--, next.weights += 4, next.offsets++) {
        const ints w = splat_four(next.weights);
        const float *pixels = in + *next.offsets * scale;
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] = dot4(sum[v], load_words(pixels + v * LANES), w);
    }
    UNROLL for (int v = 0; v < (chains - 1) * vectors; v++)
        sum[v % vectors] += partial[v];
}

INLINE void blocks_tile(const struct register_tile *tile, const int units) {
    const struct register_tile t = *tile;
    const struct conv_blocks *c = (const struct conv_blocks *)(const void *)t.conv;
    const struct requantisation *r = &c->requantisation;
    const unsigned char *weights = (const unsigned char *)t.values, *records = (const unsigned char *)t.bias;
    const int vectors = units * UNIT_VECTORS;
    for (int q = t.channels.begin; q < t.channels.end; q++) {
        float *out = t.out + (size_t)q * t.pitch;
        const float *residual = t.residual ? t.residual + (size_t)q * t.pitch : NULL;
        ints words[UNITS_MAX * UNIT_VECTORS];
        for (int k = 0; k < 4; k++) {
            const size_t o = (size_t)q * 4 + (size_t)k;
            const struct channel channel = read_channel(records, o);
            const uint32_t start = t.starts[o];
            const struct blocks blocks = {weights + 4 * (size_t)start, t.offsets + start};
            ints sum[UNITS_MAX * UNIT_VECTORS];
            UNROLL for (int v = 0; v < vectors; v++)
                sum[v] = splat_int(channel.bias + FLIPPED_ZERO * channel.weights);
            accumulate_blocks(sum, vectors, t.packed, t.offset_scale, blocks, t.starts[o + 1] - start);
            UNROLL for (int v = 0; v < vectors; v++) {
                ints other = splat_int(0), code;
                if (residual)
                    other = load_words(residual + t.unit_offset[v / UNIT_VECTORS] + v % UNIT_VECTORS * LANES) >> 8 * k & 255;
                code = requantise(sum[v], &channel, r, other);
                words[v] = k ? words[v] | code << 8 * k : code;
            }
        }
        UNROLL for (int v = 0; v < vectors; v++)
            store_words(out + t.unit_offset[v / UNIT_VECTORS] + v % UNIT_VECTORS * LANES, words[v]);
        if (r->table)
            for (int u = 0; u < units; u++)
                look_up(out + t.unit_offset[u], UNIT, r->table);
    }
}

#define BLOCKS_CASE(n) \
    case n: \
        blocks_tile(t, n); \
        break;

PRIVATE void blocks_kernel(const struct register_tile *t) {
    switch (t->units) { BLOCKS_UNITS(BLOCKS_CASE) }
}

PRIVATE void pack_codes(const struct conv *c, const float *arena, const float *image, int images, struct range channels,
                        int y0, int rows, float *dst) {
    const struct words codes = {((const struct conv_blocks *)(const void *)c)->fill ^ FLIP, FLIP};
    pack_words(c, arena, image, images, channels, y0, rows, dst, codes);
}

PRIVATE void conv_blocks(const struct job *j, const struct conv_blocks *c) {
    static const struct method blocks = {pack_codes, blocks_kernel, 1, 0, 0};
    run_conv(&c->conv, j, &blocks);
}

#endif
