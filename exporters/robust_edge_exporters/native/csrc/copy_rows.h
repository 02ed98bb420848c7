/* One copy of the input rows that a band of output rows reads, each with its padding, so that rows follow each other
   without a gap: tap (ky, kx) reads all pixels of the band at one constant offset, and between the rows of the band pixels
   that nobody needs. At stride 2 there are four copies, one for each parity of row and column, in that order. */
#ifndef ROBUST_EDGE_COPY_ROWS_H
#define ROBUST_EDGE_COPY_ROWS_H

#include "pack_rows.h"

#define COPY_SLACK 32 /* floats behind the rows of each of several copies, which vectors reach into */

struct copied_rows {
    int top, left; /* pixels of padding */
    int reach;     /* rows that an output row reads */
    int pitch;     /* floats from one row to the next, which may share the padding between them */
    int floats;    /* from one copy to the next */
};

/* Writes `floats` floats, or up to LANES - 1 more. */
INLINE void fill_vectors(float *to, int floats, const struct words w) {
    const bits zeros = {0}, word = zeros + w.fill;
    for (int i = 0; i < floats; i += LANES)
        memcpy(to + i, &word, sizeof word);
}

/* Copies an input row, at stride 2 its columns of both parities, to[0] and to[1]. */
INLINE void copy_row(const struct copied_rows *c, struct range first, struct range last, const float *row,
                     const int stride, const struct words w, float *const to[2]) {
    UNROLL for (int parity = 0; parity < stride; parity++)
        fill_vectors(to[parity], last.begin, w);
    for (int x = last.begin; x < first.end; x += LANES) {
        vec words = load(row + stride * x - c->left), odd;
        if (stride == 2) {
            deinterleave(row + 2 * x - c->left, &words, &odd);
            store(to[1] + x, flipped(odd, w));
        }
        store(to[0] + x, flipped(words, w));
    }
    if (last.begin < first.begin)
        memcpy(to[0] + last.begin, &w.fill, sizeof w.fill);
    UNROLL for (int parity = 0; parity < stride; parity++) {
        const int end = parity == 0 ? first.end : last.end;
        fill_vectors(to[parity] + end, c->pitch - end, w);
    }
}

/* Copies the input rows of the output rows from y0 on, of which there are `rows`. What is written beyond a row is then
   overwritten by the next one, or lies behind the copy. The stride is 1 or 2, a constant where this is called. */
INLINE void copy_rows(const struct copied_rows *c, const struct tensor *in, const float *plane, int y0, int rows,
                      const int stride, const struct words w, float *dst) {
    const int count = (rows - 1) * stride + c->reach;
    const struct range first_columns = inside(-c->left, stride, in->width, c->pitch);
    const struct range last_columns = inside(stride - 1 - c->left, stride, in->width, c->pitch);
    for (int r = 0; r < count; r++) {
        const int y = y0 * stride + r - c->top;
        float *const first = dst + r % stride * stride * c->floats + r / stride * c->pitch;
        float *const to[2] = {first, first + c->floats};
        if (y >= 0 && y < in->height)
            copy_row(c, first_columns, last_columns, plane + (ptrdiff_t)y * in->width, stride, w, to);
        UNROLL for (int parity = 0; parity < stride; parity++) {
            if (y < 0 || y >= in->height)
                fill_vectors(to[parity], c->pitch, w);
            if (r >= count - stride)
                fill_vectors(to[parity] + c->pitch, c->left, w);
        }
    }
}

/* Copies `floats` floats, and writes no more; may read up to LANES - 1 more. */
INLINE void copy_exactly(float *to, const float *from, int floats) {
    int i = 0;
    for (; i + LANES <= floats; i += LANES)
        store(to + i, load(from + i));
#if LANES == 16
    if (i < floats)
        _mm512_mask_storeu_ps(to + i, (__mmask16)((1u << (floats - i)) - 1), load(from + i));
#else
    for (; i + 4 <= floats; i += 4)
        memcpy(to + i, from + i, 4 * sizeof *to);
    for (; i < floats; i++)
        memcpy(to + i, from + i, sizeof *to);
#endif
}

#endif
