/* Depthwise convolution of codes, (C, H, W) -> (C, P, Q), at stride 1 or 2, where a word holds four channels:

       for c < C, y < P, x < Q:
           out[c][y][x] = requantise(bias[c] + sum over the taps (ky, kx) of
                                         weight[c][ky][kx] * in[c][y * stride + ky - top][x * stride + kx - left])

   The rows that a band of output rows reads are copied behind each other, each with its padding, at stride 2 once for each
   parity of row and column. So tap (ky, kx) reads the band of output pixels, whose rows have the padding's pixels too, at
   one constant offset. The codes of four rows are interleaved to words, whose product with the weights of four taps of a
   filter column is the sum of one channel at one pixel. Of the pixels of a vector, each fourth one shares a vector of
   interleaved words, so that the next filter column reads the next of these vectors. */
#ifndef ROBUST_EDGE_CONV_DEPTHWISE_CODES_H
#define ROBUST_EDGE_CONV_DEPTHWISE_CODES_H

#include "copy_rows.h"
#include "interleave.h"
#include "requantise.h"

#define DEPTHWISE_TAPS 7 /* rows and columns of the largest filter */

struct conv_depthwise_codes {
    struct tensor in, out;   /* words */
    struct copied_rows copy; /* of a plane */
    int rows;                /* output rows of a band */
    uint32_t fill;           /* the word around the image */
    size_t values;           /* byte offset in the weights file: 16 bytes for each word, four rows and filter column */
    struct requantisation requantisation;
};

/* Where tap row `ky` of a band's first pixel is copied, for columns of a parity. */
INLINE size_t depthwise_row(const struct conv_depthwise_codes *c, int ky, int parity, const int stride) {
    return (size_t)(ky % stride * stride + parity) * (size_t)c->copy.floats + (size_t)(ky / stride) * (size_t)c->copy.pitch;
}

#if INTERLEAVES
/* Numbers of the four channels of a word, repeated in each four lanes. */
struct depthwise_word {
    ints start, first, multiplier;
};

PRIVATE struct depthwise_word depthwise_word(const struct channel channels[4]) {
    struct depthwise_word w;
    int32_t numbers[3][4];
    for (int k = 0; k < 4; k++) {
        numbers[0][k] = channels[k].start;
        numbers[1][k] = channels[k].first;
        numbers[2][k] = channels[k].multiplier;
    }
    w.start = splat_sixteen(numbers[0]);
    w.first = splat_sixteen(numbers[1]);
    w.multiplier = splat_sixteen(numbers[2]);
    return w;
}

/* Adds the products of LANES pixels with the filter columns of one parity, for four rows: sum[k] is of the pixels k,
   4 + k, ... `in` points to the first pixel in each of the rows; weights are those of the parity's first column. */
INLINE void depthwise_columns(ints sum[4], const float *const in[4], const ints *weights, const int columns,
                              const int stride) {
    const int fours = (columns + 2) / 4 + 1;
    ints pixels[4 * 3];
    UNROLL for (int b = 0; b < fours; b++) {
        const ints taps[4] = {load_words(in[0] + 4 * b), load_words(in[1] + 4 * b), load_words(in[2] + 4 * b),
                              load_words(in[3] + 4 * b)};
        interleave(taps, pixels + 4 * b);
    }
    UNROLL for (int x = 0; x < columns; x++)
        UNROLL for (int k = 0; k < 4; k++)
            sum[k] = dot4(sum[k], pixels[x + k], weights[x * stride]);
}

/* All pixels of a band, to `out`. The sizes are constants where this is called. */
INLINE void depthwise_band(const struct conv_depthwise_codes *c, const float *in, const unsigned char *values,
                           const struct channel channels[4], int count, float *out, const int kernel_y,
                           const int kernel_x, const int stride) {
    const struct requantisation *r = &c->requantisation;
    const struct depthwise_word w = depthwise_word(channels);
    const int cuts = cuts_off(r), groups = (kernel_y + 3) / 4;
    const ints offset = splat_int(r->offset), lowest = splat_int(r->lowest), highest = splat_int(r->highest);
    ints weights[(DEPTHWISE_TAPS + 3) / 4 * DEPTHWISE_TAPS];
    UNROLL for (int i = 0; i < groups * kernel_x; i++)
        weights[i] = splat_sixteen(values + 16 * i);
    for (int i = 0; i < count; i += LANES) {
        ints sum[4] = {w.start, w.start, w.start, w.start};
        UNROLL for (int g = 0; g < groups; g++)
            UNROLL for (int parity = 0; parity < stride; parity++) {
                const float *rows[4];
                UNROLL for (int k = 0; k < 4; k++) {
                    const int ky = 4 * g + k < kernel_y ? 4 * g + k : kernel_y - 1; /* of a row too many: its weight is 0 */
                    rows[k] = in + depthwise_row(c, ky, parity, stride) + i;
                }
                depthwise_columns(sum, rows, weights + g * kernel_x + parity, (kernel_x - parity + stride - 1) / stride,
                                  stride);
            }
        UNROLL for (int k = 0; k < 4; k++) {
            sum[k] = add_ints(multiply_ints(sum[k] >> w.first, w.multiplier), offset) >> r->down;
            if (cuts)
                sum[k] = clamp_ints(sum[k], lowest, highest);
        }
        store_words(out + i, join_pixels(sum[0], sum[1], sum[2], sum[3]));
    }
}
#else
INLINE void depthwise_band(const struct conv_depthwise_codes *c, const float *in, const unsigned char *values,
                           const struct channel channels[4], int count, float *out, const int kernel_y,
                           const int kernel_x, const int stride) {
    const unsigned char *codes = (const unsigned char *)in;
    struct requantisation r = c->requantisation;
    r.table = NULL;
    for (int i = 0; i < 4 * count; i++) {
        const int k = i % 4;
        int32_t sum = channels[k].start;
        for (int ky = 0; ky < kernel_y; ky++)
            for (int kx = 0; kx < kernel_x; kx++) {
                const size_t at = depthwise_row(c, ky, kx % stride, stride) + (size_t)(kx / stride);
                const int tap = 16 * (ky / 4 * kernel_x + kx) + 4 * k + ky % 4;
                sum = wrapping(sum, codes[4 * at + (size_t)i], (int8_t)values[tap]);
            }
        ((unsigned char *)out)[i] = requantise_one(sum, &channels[k], &r, 0);
    }
}
#endif

INLINE void depthwise_codes(const struct job *j, const struct conv_depthwise_codes *c, const int kernel_y,
                            const int kernel_x, const int stride) {
    const re_context *ctx = j->context;
    const size_t word_bytes = (size_t)((kernel_y + 3) / 4 * kernel_x) * 16;
    const struct range planes = split_evenly(c->out.channels, j->thread, j->threads);
    const struct words w = {c->fill ^ FLIP, FLIP};
    float *copied = ctx->scratch + (size_t)j->thread * SCRATCH_FLOATS, *found = copied + stride * stride * c->copy.floats;
    for (int g = 0; g < j->images; g++)
        for (int word = planes.begin; word < planes.end; word++) {
            const float *in = ctx->arena + c->in.offset + (size_t)g * c->in.image + (size_t)word * (size_t)c->in.pitch;
            float *out = ctx->arena + c->out.offset + (size_t)g * c->out.image + (size_t)word * (size_t)c->out.pitch;
            struct channel channels[4];
            for (int k = 0; k < 4; k++)
                channels[k] = channel_of(ctx, &c->requantisation, (size_t)(4 * word + k));
            for (int y0 = 0; y0 < c->out.height; y0 += c->rows) {
                const int rows = c->out.height - y0 < c->rows ? c->out.height - y0 : c->rows;
                copy_rows(&c->copy, &c->in, in, y0, rows, stride, w, copied);
                depthwise_band(c, copied, ctx->weights + c->values + (size_t)word * word_bytes, channels,
                               rows * c->copy.pitch, found, kernel_y, kernel_x, stride);
                for (int y = 0; y < rows; y++)
                    copy_exactly(out + (y0 + y) * c->out.width, found + y * c->copy.pitch, c->out.width);
            }
            if (c->requantisation.table)
                look_up(out, c->out.height * c->out.width, c->requantisation.table);
        }
}

/* The function for filters of kernel_y x kernel_x taps at a stride. */
#define DEPTHWISE_CODES(kernel_y, kernel_x, stride)                                                                    \
    static void conv_depthwise_codes_##kernel_y##x##kernel_x##_##stride(const struct job *j,                            \
                                                                        const struct conv_depthwise_codes *c) {         \
        depthwise_codes(j, c, kernel_y, kernel_x, stride);                                                              \
    }

#endif
