/* Sparse convolution of codes: (I, H, W) -> (O, P, Q), where a block is four consecutive input channels at one tap:

       for o < O, y < P, x < Q:
           out[o][y][x] = requantise(bias[o] + sum over the blocks (i, ky, kx) of channel o, over k < 4, of
                                         weight[o][4 * i + k][ky][kx] * in[4 * i + k][y * stride_y + ky * dilation_y - top]
                                                                                     [x * stride_x + kx * dilation_x - left],
                                     residual[o][y][x])

   The four codes of a pixel are one word, so a vector of words is a vector of pixels, and a block costs one broadcast of
   its four weights, and one product of four per vector (codes.h). A register tile holds the sums of one output channel
   for up to CODES_UNITS_MAX units of pixels; those of four output channels are then joined to words. The input rows are packed
   as for floats (pack_rows.h), with the input's zero around the image. */
#ifndef ROBUST_EDGE_CONV_BLOCKS_H
#define ROBUST_EDGE_CONV_BLOCKS_H

#include "conv_words.h"
#include "tile_sizes.h"

#ifndef BLOCKS_UNITS
#define BLOCKS_UNITS(EACH) EACH(1)
#endif

/* Blocks of an output channel, from some block on. */
struct blocks {
    const unsigned char *weights; /* four bytes each */
    const uint16_t *offsets;      /* of the words that they are multiplied with */
};

/* The weights of four blocks: in AVX-512 in each four lanes, where broadcasting a lane costs less than loading it. */
struct four_blocks {
#if LANES == 16
    __m512i weights;
#else
    const unsigned char *weights;
#endif
};

#if LANES == 16
INLINE struct four_blocks load_four_blocks(const unsigned char *weights) {
    struct four_blocks four = {_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)weights))};
    return four;
}

/* The weights of block `k` in all lanes; `k` is a constant once the loop around it is unrolled. */
INLINE ints weights_of(const struct four_blocks *four, const int k) {
    switch (k) {
    case 0:
        return (ints)_mm512_shuffle_epi32(four->weights, 0x00);
    case 1:
        return (ints)_mm512_shuffle_epi32(four->weights, 0x55);
    case 2:
        return (ints)_mm512_shuffle_epi32(four->weights, 0xaa);
    default:
        return (ints)_mm512_shuffle_epi32(four->weights, 0xff);
    }
}
#else
INLINE struct four_blocks load_four_blocks(const unsigned char *weights) {
    struct four_blocks four = {weights};
    return four;
}

INLINE ints weights_of(const struct four_blocks *four, const int k) { return splat_four(four->weights + 4 * k); }
#endif

/* Adds the products of `count` blocks to the sums of `vectors` vectors of pixels; few sums are kept in several parts,
   since a product waits for the sum before it. In short tiles, and where a vector is as long as a cache line, loading
   weights and offsets takes time from the products, so four blocks are loaded at a time. `vectors` is a constant where
   this is called. */
INLINE void accumulate_blocks(ints *sum, const int vectors, const float *in, size_t scale, struct blocks next,
                              uint32_t count) {
    const int chains = vectors <= 2 ? 4 : vectors <= 4 ? 2 : 1;
    ints partial[3 * 4];
    UNROLL for (int v = 0; v < (chains - 1) * vectors; v++)
        partial[v] = splat_int(0);
    if (LANES == 16 || chains > 1)
        for (; count >= 4; count -= 4, next.weights += 16, next.offsets += 4) {
            const struct four_blocks four = load_four_blocks(next.weights);
            uint64_t offsets;
            memcpy(&offsets, next.offsets, sizeof offsets);
            UNROLL for (int i = 0; i < 4; i++) {
                ints *to = i % chains ? partial + (i % chains - 1) * vectors : sum;
                const ints w = weights_of(&four, i);
                const float *pixels = in + (offsets >> 16 * i & 0xffff) * scale;
                UNROLL for (int v = 0; v < vectors; v++)
                    to[v] = dot4(to[v], load_words(pixels + v * LANES), w);
            }
        }
    for (; count > 0; count--, next.weights += 4, next.offsets++) {
        const ints w = splat_four(next.weights);
        const float *pixels = in + *next.offsets * scale;
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] = dot4(sum[v], load_words(pixels + v * LANES), w);
    }
    UNROLL for (int v = 0; v < (chains - 1) * vectors; v++)
        sum[v % vectors] = add_ints(sum[v % vectors], partial[v]);
}

/* Lanes 1, 2, ... of a, and lane 0 of b. */
INLINE ints next_lanes(ints a, ints b) {
#if LANES == 1
    (void)a;
    return b;
#elif LANES == 16
    return (ints)_mm512_alignr_epi32((__m512i)b, (__m512i)a, 1);
#elif defined(__clang__) && LANES == 8
    return __builtin_shufflevector(a, b, 1, 2, 3, 4, 5, 6, 7, 8);
#elif defined(__clang__)
    return __builtin_shufflevector(a, b, 1, 2, 3, 4);
#elif LANES == 8
    return __builtin_shuffle(a, b, (ints){1, 2, 3, 4, 5, 6, 7, 8});
#else
    return __builtin_shuffle(a, b, (ints){1, 2, 3, 4});
#endif
}

/* All output channels, word by word. Each has `columns` segments, between which its sums are shifted by a pixel to the left
   (conv_rows.h). Both sizes are constants where this is called. */
INLINE void blocks_tile(const struct register_tile *tile, const int units, const int columns) {
    const struct register_tile t = *tile;
    const struct conv_words *words = (const struct conv_words *)(const void *)t.conv;
    const struct requantisation r = words->requantisation;
    const size_t scale = t.offset_scale * words->offset_unit;
    const size_t first = (size_t)t.group * (size_t)(t.conv->out.channels / t.conv->groups); /* word of the group */
    const unsigned char *weights = (const unsigned char *)t.values;
    const uint32_t *starts = t.starts - first;
    const int vectors = units * UNIT_VECTORS;
    for (int q = t.channels.begin; q < t.channels.end; q++) {
        const float *residual = t.residual ? t.residual + (size_t)q * t.pitch : NULL;
        ints kept[4][KEPT_VECTORS];
        for (int k = 0; k < 4; k++) {
            const size_t o = (first + (size_t)q) * 4 + (size_t)k;
            const struct channel channel = channel_of(t.context, &r, o);
            ints sum[TILE_UNITS * UNIT_VECTORS];
            UNROLL for (int v = 0; v < vectors; v++)
                sum[v] = splat_int(channel.start);
            for (int x = 0; x < columns; x++) {
                const uint32_t *start = starts + o * (size_t)columns + (size_t)x;
                const struct blocks blocks = {weights + 4 * (size_t)start[0], t.offsets + start[0]};
                if (x > 0)
                    UNROLL for (int v = 0; v < vectors; v++)
                        sum[v] = next_lanes(sum[v], sum[v + 1 < vectors ? v + 1 : v]);
                accumulate_blocks(sum, vectors, t.packed, scale, blocks, start[1] - start[0]);
            }
            finish_channel(sum, 0, vectors, &t, &channel, &r, residual, k);
            keep_codes(sum, vectors, kept[k]);
        }
        store_channels(kept, vectors, &t, &r, t.out + (size_t)q * t.pitch);
    }
}

#define BLOCKS_CASE(n) \
    case n: \
        blocks_tile(t, n, 1); \
        break;

PRIVATE void blocks_kernel(const struct register_tile *t) {
    switch (t->units) { BLOCKS_UNITS(BLOCKS_CASE) }
}

PRIVATE void conv_blocks(const struct job *j, const struct conv_words *c) {
    static const struct method blocks = {pack_codes, blocks_kernel, 1, 0, 0, CODES_UNITS_MAX};
    run_conv(&c->conv, j, &blocks);
}

#endif
