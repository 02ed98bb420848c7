/* Packing: copies the input rows that a tile reads close together, so that they stay in the first-level cache. For each
   copy the input is shifted by (dy, dx) and subsampled by the stride, so that every tap of the filter reads whole units
   at one constant offset, whatever stride, padding and dilation are. */
#ifndef ROBUST_EDGE_PACK_ROWS_H
#define ROBUST_EDGE_PACK_ROWS_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "conv.h"
#include "vector.h"

/* What a copy does to words of 32 bits: floats, or four codes each (codes.h). Constants where packing is called. */
struct words {
    uint32_t fill; /* outside the input */
    uint32_t flip; /* bits that are inverted inside it */
};

INLINE vec flipped(vec v, const struct words w) {
    bits b;
    if (!w.flip)
        return v;
    memcpy(&b, &v, sizeof b);
    b ^= w.flip;
    memcpy(&v, &b, sizeof v);
    return v;
}

/* v where the mask is all ones, w.fill where it is 0. */
INLINE vec filled(vec v, const uint32_t *mask, const struct words w) {
    bits m, b;
    memcpy(&m, mask, sizeof m);
    memcpy(&b, &v, sizeof b);
    b &= m;
    if (w.fill)
        b |= ~m & w.fill;
    memcpy(&v, &b, sizeof v);
    return v;
}

/* dst[i] = src[i] where mask[i] is all ones, for i < floats; writes up to UNIT - 1 floats more. */
INLINE void copy_masked(float *dst, const float *src, const uint32_t *mask, int floats, const struct words w) {
    for (int i = 0; i < floats; i += LANES)
        store(dst + i, filled(flipped(load(src + i), w), mask + i, w));
}

INLINE void copy_words(float *dst, const float *src, int floats, const struct words w) {
    int i = 0;
    if (!w.flip) {
        memcpy(dst, src, (size_t)floats * sizeof *dst);
        return;
    }
    for (; i + LANES <= floats; i += LANES)
        store(dst + i, flipped(load(src + i), w));
    for (; i < floats; i++) {
        uint32_t word;
        memcpy(&word, src + i, sizeof word);
        word ^= w.flip;
        memcpy(dst + i, &word, sizeof word);
    }
}

INLINE void fill(float *dst, int floats, const struct words w) {
    if (floats > 0 && !w.fill)
        memset(dst, 0, (size_t)floats * sizeof *dst);
    else
        for (int i = 0; i < floats; i++)
            memcpy(dst + i, &w.fill, sizeof w.fill);
}

/* Stride 1, output as wide as the input: the copy is a contiguous part of the plane. A copy that is shifted sideways
   takes pixels from the neighbouring rows, which are masked. */
INLINE void pack_shifted(const struct conv *c, const float *plane, struct shift s, const uint32_t *mask, int y0,
                         int rows, float *dst, const struct words w) {
    int width = c->in.width, first = -(y0 + s.dy), last = c->in.height - (y0 + s.dy);
    if (c->whole_plane) {
        copy_masked(dst, plane + ((ptrdiff_t)s.dy * width + s.dx), mask, rows * width, w);
        return;
    }
    first = first < 0 ? 0 : first > rows ? rows : first;
    last = last > rows ? rows : last < first ? first : last;
    plane += (ptrdiff_t)(y0 + first + s.dy) * width + s.dx;
    fill(dst, first * width, w);
    if (s.dx != 0)
        copy_masked(dst + first * width, plane, mask, (last - first) * width, w);
    else if (last > first)
        copy_words(dst + first * width, plane, (last - first) * width, w);
    fill(dst + last * width, (rows - last) * width, w);
}

/* A row at any stride, whose columns [first, last) lie inside the input. At stride 2, vectors of pixels are deinterleaved,
   which writes up to UNIT - 1 floats more. */
INLINE void pack_row(const float *row, int stride, int first, int last, int width, float *dst, const struct words w) {
    int x = first;
    fill(dst, first, w);
    if (stride == 2)
        for (; x < last; x += LANES) {
            vec even, odd;
            deinterleave(row + 2 * x, &even, &odd);
            store(dst + x, flipped(even, w));
        }
    for (; x < last; x++) {
        uint32_t word;
        memcpy(&word, row + x * stride, sizeof word);
        word ^= w.flip;
        memcpy(dst + x, &word, sizeof word);
    }
    fill(dst + last, width - last, w);
}

/* The range of i < count for which shift + i * stride is in [0, size). */
PRIVATE struct range inside(int shift, int stride, int size, int count) {
    struct range r = {shift < 0 ? (-shift + stride - 1) / stride : 0, shift < size ? (size - 1 - shift) / stride + 1 : 0};
    r.begin = r.begin > count ? count : r.begin;
    r.end = r.end > count ? count : r.end < r.begin ? r.begin : r.end;
    return r;
}

/* Any stride and size: row by row. */
INLINE void pack_strided(const struct conv *c, const float *plane, struct shift s, int y0, int rows, float *dst,
                         const struct words w) {
    int width = c->out.width, top = y0 * c->stride_y + s.dy;
    struct range columns = inside(s.dx, c->stride_x, c->in.width, width), r = inside(top, c->stride_y, c->in.height, rows);
    ptrdiff_t step = (ptrdiff_t)c->stride_y * c->in.width;
    const float *row = plane + (ptrdiff_t)top * c->in.width + r.begin * step + s.dx;
    fill(dst, r.begin * width, w);
    for (int j = r.begin; j < r.end; j++, row += step)
        pack_row(row, c->stride_x, columns.begin, columns.end, width, dst + j * width, w);
    fill(dst + r.end * width, (rows - r.end) * width, w);
}

/* Copies the input of output rows [y0, y0 + rows), of `images` images, to dst as [channel][copy][image][row][column]. */
INLINE void pack_words(const struct conv *c, const float *arena, const float *image, int images, struct range channels,
                       int y0, int rows, float *dst, const struct words w) {
    const uint32_t *masks = c->masks == NO_TENSOR ? NULL : (const uint32_t *)(const void *)(arena + c->masks);
    int pixels = c->out.height * c->out.width;
    int contiguous = c->stride_y == 1 && c->stride_x == 1 && c->in.width == c->out.width && !c->whole_plane;
    for (int k = channels.begin; k < channels.end; k++)
        for (int s = 0; s < c->copies; s++, dst += images * c->copy_floats)
            for (int g = 0; g < images; g++) {
                const float *plane = image + g * c->in.image + (size_t)k * c->in.pitch;
                float *to = dst + g * pixels;
                if (masks || (contiguous && c->shifts[s].dx == 0))
                    pack_shifted(c, plane, c->shifts[s], masks ? masks + (size_t)s * c->copy_floats : NULL, y0,
                                 rows + c->extra_rows, to, w);
                else
                    pack_strided(c, plane, c->shifts[s], y0, rows + c->extra_rows, to, w);
            }
}

/* Of floats, with zeros outside the input. */
PRIVATE void pack_block(const struct conv *c, const float *arena, const float *image, int images, struct range channels,
                       int y0, int rows, float *dst) {
    const struct words floats = {0, 0};
    pack_words(c, arena, image, images, channels, y0, rows, dst, floats);
}

#endif
