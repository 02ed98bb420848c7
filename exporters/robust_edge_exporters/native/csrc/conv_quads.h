/* Dense convolution of codes: (I, H, W) -> (O, P, Q), as in conv_blocks.h, where the four output channels of a word have
   blocks at the same places: layers that were not pruned, and depthwise ones.

   A register tile holds the sums of four output channels for up to QUAD_VECTORS vectors of pixels, so that each vector
   loaded is used four times. The weights of a place are 16 bytes, four for each output channel. */
#ifndef ROBUST_EDGE_CONV_QUADS_H
#define ROBUST_EDGE_CONV_QUADS_H

#include "conv_words.h"

#if LANES == 16
#define QUAD_VECTORS 6
#elif LANES == 4 && defined(__aarch64__)
#define QUAD_VECTORS 4
#else
#define QUAD_VECTORS 2
#endif

/* Bytes of weights that are prefetched before they are used, a page, as in conv_dense.h. */
#define AHEAD_QUADS 4096

/* A word of output channels: its places, and where its pixels lie. */
struct quad {
    const unsigned char *weights;
    const uint16_t *offsets;
    uint32_t count;
    size_t scale; /* words that an offset counts, of all images */
    struct channel channels[4];
    float *out;
    const float *residual;
};

/* `vectors` vectors of pixels from `first` on; `vectors` is a constant where this is called. */
INLINE void quad_tile(const struct register_tile *t, const struct requantisation *r, const struct quad *q, int first,
                      const int vectors) {
    const unsigned char *weights = q->weights;
    const uint16_t *offsets = q->offsets, *const end = offsets + q->count;
    ints sum[4 * QUAD_VECTORS];
    UNROLL for (int k = 0; k < 4; k++)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[k * vectors + v] = splat_int(q->channels[k].start);
    for (; offsets < end; offsets++, weights += 16) {
        const float *pixels = t->packed + *offsets * q->scale + first * LANES;
        PREFETCH(weights + AHEAD_QUADS);
        const ints w[4] = {splat_four(weights), splat_four(weights + 4), splat_four(weights + 8), splat_four(weights + 12)};
        UNROLL for (int v = 0; v < vectors; v++) {
            const ints x = load_words(pixels + v * LANES);
            UNROLL for (int k = 0; k < 4; k++)
                sum[k * vectors + v] = dot4(sum[k * vectors + v], x, w[k]);
        }
    }
    UNROLL for (int k = 0; k < 4; k++)
        finish_channel(sum + k * vectors, first, vectors, t, &q->channels[k], r, q->residual, k);
    UNROLL for (int v = 0; v < vectors; v++)
        store_words(q->out + t->unit_offset[(first + v) / UNIT_VECTORS] + (first + v) % UNIT_VECTORS * LANES,
                    join_codes(sum[v], sum[vectors + v], sum[2 * vectors + v], sum[3 * vectors + v]));
}

PRIVATE void quads_kernel(const struct register_tile *t) {
    const struct conv_words *words = (const struct conv_words *)(const void *)t->conv;
    const struct requantisation r = words->requantisation;
    const size_t group = (size_t)t->group * (size_t)(t->conv->out.channels / t->conv->groups);
    const unsigned char *weights = (const unsigned char *)t->values;
    const int vectors = t->units * UNIT_VECTORS;
    for (int word = t->channels.begin; word < t->channels.end; word++) {
        const uint32_t *start = t->starts + word;
        struct quad q;
        int v = 0;
        q.weights = weights + 16 * (size_t)start[0];
        q.offsets = t->offsets + start[0];
        q.count = start[1] - start[0];
        q.scale = t->offset_scale * words->offset_unit;
        q.out = t->out + (size_t)word * t->pitch;
        q.residual = t->residual ? t->residual + (size_t)word * t->pitch : NULL;
        for (int k = 0; k < 4; k++)
            q.channels[k] = channel_of(t->context, &r, (group + (size_t)word) * 4 + (size_t)k);
        for (; v + QUAD_VECTORS <= vectors; v += QUAD_VECTORS)
            quad_tile(t, &r, &q, v, QUAD_VECTORS);
        for (; v + 2 <= vectors; v += 2)
            quad_tile(t, &r, &q, v, 2);
        if (v < vectors)
            quad_tile(t, &r, &q, v, 1);
        if (r.table)
            for (int u = 0; u < t->units; u++)
                look_up(q.out + t->unit_offset[u], UNIT, r.table);
    }
}

PRIVATE void conv_quads(const struct job *j, const struct conv_words *c) {
    static const struct method quads = {pack_codes, quads_kernel, 1, 0, 0, 0};
    run_conv(&c->conv, j, &quads);
}

#endif
