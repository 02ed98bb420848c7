/* Convolution of codes, (I, H, W) -> (O, P, Q), of one to three input channels at stride 1 or 2: the first layer of a
   network. As in conv_quads.h, but a word that is multiplied holds no single pixel, of which one byte or more would be
   zero: it holds the next four of all codes that an output pixel reads, by tap (ky, kx), then by channel. A 7x7 filter of
   three channels so takes 37 products of four, and not 49.

   The rows that a tile reads are copied once (copy_rows.h), and joined to one plane of the tile's pixels for each word. */
#ifndef ROBUST_EDGE_CONV_STEM_H
#define ROBUST_EDGE_CONV_STEM_H

#include "conv_quads.h"
#include "copy_rows.h"

/* The codes of a tap in a word: pixel << left >> right, where one of both is 0. */
struct part_of_word {
    int offset, left, right; /* offset: of the copied pixel that the first output pixel reads */
};

struct conv_stem {
    struct conv_words words; /* of its struct conv, copy_floats is from one joined plane to the next */
    struct copied_rows copy; /* of the plane of the input */
    int copied_floats;       /* of all copied rows */
    int channels, count;     /* of the input; words */
    const struct part_of_word *parts; /* of each word four for one channel, else two */
};

/* Joins one word for the pixels of `rows` output rows; `count` is a constant where this is called. */
INLINE void join_word(const struct conv_stem *c, const float *copied, const struct part_of_word *parts, int rows,
                      const int count, float *dst) {
    const int width = c->words.conv.out.width, right = parts[0].right; /* of other parts it is 0 */
    const float *from[4];
    int left[4];
    UNROLL for (int i = 0; i < count; i++) {
        from[i] = copied + parts[i].offset;
        left[i] = parts[i].left;
    }
    for (int y = 0; y < rows; y++, dst += width) {
        for (int x = 0; x < width; x += LANES) {
            bits codes = (bits)load_words(from[0] + x) >> right;
            UNROLL for (int i = 1; i < count; i++)
                codes |= (bits)load_words(from[i] + x) << left[i];
            store_words(dst + x, (ints)(codes ^ FLIP));
        }
        UNROLL for (int i = 0; i < count; i++)
            from[i] += c->copy.pitch;
    }
}

PRIVATE void pack_stem(const struct conv *conv, const float *arena, const float *image, int images, struct range channels,
                       int y0, int rows, float *dst) {
    const struct conv_stem *c = (const struct conv_stem *)(const void *)conv;
    const struct words w = {c->words.fill, 0};
    const bits zeros = {0}, used = zeros + ((1u << 8 * c->channels) - 1);
    float *copied = dst + c->count * conv->copy_floats;
    (void)arena, (void)images, (void)channels; /* one image, one plane of words */
    if (conv->stride_x == 1)
        copy_rows(&c->copy, &conv->in, image, y0, rows, 1, w, copied);
    else
        copy_rows(&c->copy, &conv->in, image, y0, rows, 2, w, copied);
    for (int i = 0; i < c->copied_floats; i += LANES)
        store_words(copied + i, (ints)((bits)load_words(copied + i) & used));
    for (int word = 0; word < c->count; word++, dst += conv->copy_floats)
        if (c->channels == 1)
            join_word(c, copied, c->parts + 4 * word, rows, 4, dst);
        else
            join_word(c, copied, c->parts + 2 * word, rows, 2, dst);
}

PRIVATE void conv_stem(const struct job *j, const struct conv_stem *c) {
    static const struct method stem = {pack_stem, quads_kernel, 1, 0, 0, 0};
    run_conv(&c->words.conv, j, &stem);
}

#endif
