/* Max pooling of floats, or of words of four codes: for each channel,

       out[y][x] = act(max over (ky, kx) inside the plane of
                       in[y * stride_y - top + ky * dilation_y][x * stride_x - left + kx * dilation_x])

   by vectors of pixels: the maximum of the rows of a column first, then that of the columns; at stride 2 two columns of
   the window, the even and the odd pixels, are read at once. Codes keep their scale and zero. */
#ifndef ROBUST_EDGE_MAX_POOL_H
#define ROBUST_EDGE_MAX_POOL_H

#include <float.h>

#include "codes.h"
#include "pack_rows.h"
#include "pooling.h"

/* The larger pixels, of floats or of codes. */
INLINE vec larger(vec a, vec b, const int codes) {
    ints x, y;
    if (!codes)
        return maximum(a, b);
    memcpy(&x, &a, sizeof x);
    memcpy(&y, &b, sizeof y);
    x = max_codes(x, y);
    memcpy(&a, &x, sizeof a);
    return a;
}

/* The pixels x, x + 1, ... of a row of one column of the window, at any stride; `least` outside the plane. */
INLINE vec strided_pixels(const struct pooling *p, const float *row, int x, int column, vec least) {
    float lanes[LANES];
    store(lanes, least);
    for (int i = 0; i < LANES && x + i < p->out.width; i++) {
        const int at = (x + i) * p->stride_x + column;
        if (at >= 0 && at < p->in.width)
            memcpy(lanes + i, row + at, sizeof *lanes);
    }
    return load(lanes);
}

/* The pixels x, x + 1, ... in a range, `least` elsewhere. */
INLINE vec pixels_in(vec pixels, struct range r, int x, vec least) {
    return lanes_or(pixels, lanes_between(r.begin - x, r.end - x), least);
}

/* LANES pixels from x on; `in` is row 0 of the window, of whose rows `rows` are inside the plane. Stride (3 for larger
   ones), `edge` (whether columns may be outside the plane) and `codes` are constants where this is called. */
INLINE vec max_pixels(const struct pooling *p, const float *in, struct range rows, int x, const int stride,
                      const int edge, const int codes) {
    const vec least = splat(codes ? 0 : -FLT_MAX);
    const int columns = stride == 2 && p->dilation_x == 1 ? 2 : 1; /* of the window, at once */
    const ptrdiff_t pitch = (ptrdiff_t)p->dilation_y * p->in.width;
    const int masked = edge && stride <= 2;
    vec most = least;
    for (int kx = 0; kx < p->kernel_x; kx += columns) {
        const int column = kx * p->dilation_x - p->left;
        vec first = least, second = least; /* variables and no array, which compilers would keep in memory */
        const struct range seen = inside(column, stride, p->in.width, p->out.width);
        const struct range next = inside(column + columns - 1, stride, p->in.width, p->out.width);
        if (masked && (next.begin >= x + LANES || seen.end <= x))
            continue; /* nothing is read far from the plane */
        for (int ky = rows.begin; ky < rows.end; ky++) {
            const float *row = in + ky * pitch;
            if (stride > 2)
                first = larger(first, strided_pixels(p, row, x, column, least), codes);
            else
                first = larger(first, load(row + x * stride + column), codes);
            if (stride == 2)
                second = larger(second, load(row + x * stride + column + LANES), codes);
        }
        if (stride == 2)
            deinterleave_vectors(first, second, &first, &second);
        most = larger(most, masked ? pixels_in(first, seen, x, least) : first, codes);
        if (columns == 2 && kx + 1 < p->kernel_x)
            most = larger(most, masked ? pixels_in(second, next, x, least) : second, codes);
    }
    return most;
}

/* Output row y; the last vector overlaps the one before, or is not whole. */
INLINE void max_row(const struct pooling *p, const float *plane, int y, float *out, const int stride, const int codes) {
    const int top = y * p->stride_y - p->top, reach = (p->kernel_x - 1) * p->dilation_x, width = p->out.width;
    const struct range rows = inside(top, p->dilation_y, p->in.height, p->kernel_y);
    const int begin = inside(-p->left, p->stride_x, p->in.width, width).begin;
    const int end = inside(reach - p->left, p->stride_x, p->in.width, width).end;
    const float *in = plane + (ptrdiff_t)top * p->in.width;
    for (int x = 0; x < width; x += LANES) {
        const int at = x + LANES <= width || width < LANES ? x : width - LANES;
        if (at < begin || at + LANES > end)
            store_lanes(out + at, max_pixels(p, in, rows, at, stride, 1, codes), width < LANES ? width : LANES);
        else
            store(out + at, max_pixels(p, in, rows, at, stride, 0, codes));
    }
}

INLINE void max_row_of(const struct pooling *p, const float *plane, int y, float *out, const int codes) {
    if (p->stride_x == 1)
        max_row(p, plane, y, out, 1, codes);
    else if (p->stride_x == 2)
        max_row(p, plane, y, out, 2, codes);
    else
        max_row(p, plane, y, out, 3, codes);
}

PRIVATE void max_float_row(const struct pooling *p, const float *plane, int y, float *out) {
    max_row_of(p, plane, y, out, 0);
}

PRIVATE void max_code_row(const struct pooling *p, const float *plane, int y, float *out) {
    max_row_of(p, plane, y, out, 1);
}

PRIVATE void max_pool(const struct job *j, const struct pooling *p) { pool_channels(j, p, max_float_row); }
PRIVATE void max_pool_codes(const struct job *j, const struct pooling *p) { pool_channels(j, p, max_code_row); }

#endif
