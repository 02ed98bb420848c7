/* What the convolutions of codes share, whose planes hold words: four channels of a pixel. */
#ifndef ROBUST_EDGE_CONV_WORDS_H
#define ROBUST_EDGE_CONV_WORDS_H

#include "conv_tiles.h"
#include "interleave.h"
#include "pack_rows.h"
#include "requantise.h"

struct conv_words {
    struct conv conv;      /* planes, channels and floats are those of words; records have the biases */
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
    const int cuts = cuts_off(r); /* tested once, not for each vector */
    int32_t offset = r->offset, residual_multiplier = r->residual_multiplier, down = r->down;
    KEEP_IN_LOOP(offset);
    KEEP_IN_LOOP(residual_multiplier);
    KEEP_IN_LOOP(down);
    if (c->first > 0) /* sums of few products need no shift */
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] >>= c->first;
    UNROLL for (int v = 0; v < vectors; v++)
        sum[v] = add_ints(multiply_ints(sum[v], splat_int(c->multiplier)), splat_int(offset));
    if (residual)
        UNROLL for (int v = 0; v < vectors; v++) {
            const int at = first + v;
            const float *words = residual + t->unit_offset[at / UNIT_VECTORS] + at % UNIT_VECTORS * LANES;
            sum[v] = add_ints(sum[v], multiply_ints(codes_of(load_words(words), k), splat_int(residual_multiplier)));
        }
    UNROLL for (int v = 0; v < vectors; v++)
        sum[v] >>= down;
    if (cuts)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] = clamp_ints(sum[v], splat_int(r->lowest), splat_int(r->highest));
}

/* Codes of one output channel for the pixels of a register tile, as narrow as they are kept until those of the other three
   channels of the word are there: four vectors of pixels in one. `vectors` is a constant where these are called. */
#if INTERLEAVES
#define JOINED 4
INLINE void keep_codes(const ints *code, const int vectors, ints *kept) {
    UNROLL for (int v = 0; v < vectors; v += 4) {
        const int last = vectors - 1;
        kept[v / 4] = join_pixels(code[v], code[v + 1 < last ? v + 1 : last], code[v + 2 < last ? v + 2 : last],
                                  code[v + 3 < last ? v + 3 : last]);
    }
}
#else
#define JOINED 1
INLINE void keep_codes(const ints *code, const int vectors, ints *kept) {
    UNROLL for (int v = 0; v < vectors; v++)
        kept[v] = code[v];
}
#endif
#define KEPT_VECTORS ((TILE_UNITS * UNIT_VECTORS + JOINED - 1) / JOINED)

/* Joins the codes that were kept of the four channels of a word, looks them up if there is a table, and stores them. */
INLINE void store_channels(ints kept[4][KEPT_VECTORS], const int vectors, const struct register_tile *t,
                           const struct requantisation *r, float *out) {
    UNROLL for (int v = 0; v < vectors; v += JOINED) {
        const ints codes[4] = {kept[0][v / JOINED], kept[1][v / JOINED], kept[2][v / JOINED], kept[3][v / JOINED]};
        ints words[JOINED];
#if INTERLEAVES
        interleave(codes, words);
#else
        words[0] = join_codes(codes[0], codes[1], codes[2], codes[3]);
#endif
        UNROLL for (int i = 0; i < JOINED; i++) {
            if (v + i < vectors)
                store_words(out + t->unit_offset[(v + i) / UNIT_VECTORS] + (v + i) % UNIT_VECTORS * LANES, words[i]);
        }
    }
    if (r->table)
        for (int u = 0; u < vectors / UNIT_VECTORS; u++)
            look_up(out + t->unit_offset[u], UNIT, r->table);
}

#endif
