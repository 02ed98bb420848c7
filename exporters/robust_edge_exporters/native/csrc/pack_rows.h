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

/* dst[i] = src[i] & mask[i] for i < floats; writes up to UNIT - 1 floats more. */
PRIVATE void copy_masked(float *dst, const float *src, const uint32_t *mask, int floats) {
    for (int i = 0; i < floats; i += LANES)
        store(dst + i, masked(load(src + i), mask + i));
}

PRIVATE void zero(float *dst, int floats) {
    if (floats > 0)
        memset(dst, 0, (size_t)floats * sizeof *dst);
}

/* Stride 1, output as wide as the input: the copy is a contiguous part of the plane. A copy that is shifted sideways
   takes pixels from the neighbouring rows, which are masked. */
PRIVATE void pack_shifted(const struct conv *c, const float *plane, struct shift s, const uint32_t *mask, int y0,
                         int rows, float *dst) {
    int width = c->in.width, first = -(y0 + s.dy), last = c->in.height - (y0 + s.dy);
    if (c->whole_plane) {
        copy_masked(dst, plane + ((ptrdiff_t)s.dy * width + s.dx), mask, rows * width);
        return;
    }
    first = first < 0 ? 0 : first > rows ? rows : first;
    last = last > rows ? rows : last < first ? first : last;
    plane += (ptrdiff_t)(y0 + first + s.dy) * width + s.dx;
    zero(dst, first * width);
    if (s.dx != 0)
        copy_masked(dst + first * width, plane, mask, (last - first) * width);
    else if (last > first)
        memcpy(dst + first * width, plane, (size_t)((last - first) * width) * sizeof *dst);
    zero(dst + last * width, (rows - last) * width);
}

/* Rows of a copy at stride 2 whose columns all lie inside the input; writes up to UNIT - 1 floats more. */
PRIVATE void pack_stride_2(const float *row, ptrdiff_t step, int width, int rows, float *dst) {
    for (int j = 0; j < rows; j++, row += step, dst += width)
        for (int x = 0; x < width; x += LANES) {
            vec even, odd;
            deinterleave(row + 2 * x, &even, &odd);
            store(dst + x, even);
        }
}

PRIVATE void pack_row(const float *row, int stride, int first, int last, int width, float *dst) {
    zero(dst, first);
    for (int x = first; x < last; x++)
        dst[x] = row[x * stride];
    zero(dst + last, width - last);
}

/* The range of i < count for which shift + i * stride is in [0, size). */
PRIVATE struct range inside(int shift, int stride, int size, int count) {
    struct range r = {shift < 0 ? (-shift + stride - 1) / stride : 0, shift < size ? (size - 1 - shift) / stride + 1 : 0};
    r.begin = r.begin > count ? count : r.begin;
    r.end = r.end > count ? count : r.end < r.begin ? r.begin : r.end;
    return r;
}

/* Any stride and size: row by row, with zeros outside the input. */
PRIVATE void pack_strided(const struct conv *c, const float *plane, struct shift s, int y0, int rows, float *dst) {
    int width = c->out.width, top = y0 * c->stride_y + s.dy;
    struct range columns = inside(s.dx, c->stride_x, c->in.width, width), r = inside(top, c->stride_y, c->in.height, rows);
    ptrdiff_t step = (ptrdiff_t)c->stride_y * c->in.width;
    const float *row = plane + (ptrdiff_t)top * c->in.width + r.begin * step + s.dx;
    zero(dst, r.begin * width);
    if (c->stride_x == 2 && columns.begin == 0 && columns.end == width)
        pack_stride_2(row, step, width, r.end - r.begin, dst + r.begin * width);
    else
        for (int j = r.begin; j < r.end; j++, row += step)
            pack_row(row, c->stride_x, columns.begin, columns.end, width, dst + j * width);
    zero(dst + r.end * width, (rows - r.end) * width);
}

/* Copies the input of output rows [y0, y0 + rows), of `images` images, to dst as [channel][copy][image][row][column]. */
PRIVATE void pack_block(const struct conv *c, const float *arena, const float *image, int images, struct range channels,
                       int y0, int rows, float *dst) {
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
                                 rows + c->extra_rows, to);
                else
                    pack_strided(c, plane, c->shifts[s], y0, rows + c->extra_rows, to);
            }
}

#endif
