/* What the convolutions of codes share, whose planes hold words: four channels of a pixel. */
#ifndef ROBUST_EDGE_CONV_WORDS_H
#define ROBUST_EDGE_CONV_WORDS_H

#include "conv_tiles.h"
#include "pack_rows.h"
#include "requantise.h"

struct conv_words {
    struct conv conv;      /* planes, channels and floats are those of words; the biases are four structs channel each */
    uint32_t fill;         /* the word around the image */
    size_t offset_unit;    /* words that an offset counts */
    struct requantisation requantisation;
};

PRIVATE void pack_codes(const struct conv *c, const float *arena, const float *image, int images, struct range channels,
                        int y0, int rows, float *dst) {
    const struct words codes = {((const struct conv_words *)(const void *)c)->fill ^ FLIP, FLIP};
    pack_words(c, arena, image, images, channels, y0, rows, dst, codes);
}

/* Requantises the sums of channel k of a word in place, from vector `first` of the tile on; the residual's words lie at
   `residual`, or it is NULL. `vectors` is a constant where this is called. */
INLINE void finish_channel(ints *sum, int first, const int vectors, const struct register_tile *t,
                           const struct channel *c, const struct requantisation *r, const float *residual, int k) {
    UNROLL for (int v = 0; v < vectors; v++) {
        ints code = scaled(sum[v], c, r);
        if (residual) {
            const int at = first + v;
            const float *words = residual + t->unit_offset[at / UNIT_VECTORS] + at % UNIT_VECTORS * LANES;
            code = add_ints(code, multiply_ints(load_words(words) >> 8 * k & 255, splat_int(c->residual)));
        }
        code >>= c->down;
        sum[v] = cuts_off(r) ? clamp_ints(code, splat_int(r->lowest), splat_int(r->highest)) : code;
    }
}

#endif
