/* Max pooling: for each channel,

       out[y][x] = act(max over (ky, kx) inside the plane of
                       in[y * stride_y - top + ky * dilation_y][x * stride_x - left + kx * dilation_x])

   Where all columns of the window are inside the plane, at stride 1 or 2, pixels are computed by vectors. */
#ifndef ROBUST_EDGE_MAX_POOL_H
#define ROBUST_EDGE_MAX_POOL_H

#include <float.h>

#include "pooling.h"

/* The output columns for which all columns of the window are inside the plane. */
PRIVATE struct range window_columns(const struct pooling *p) {
    int reach = (p->kernel_x - 1) * p->dilation_x - p->left;
    struct range r = {(p->left + p->stride_x - 1) / p->stride_x, (p->in.width - 1 - reach) / p->stride_x + 1};
    r.end = reach >= p->in.width ? 0 : r.end > p->out.width ? p->out.width : r.end;
    r.begin = r.begin > p->out.width ? p->out.width : r.begin;
    return r;
}

/* One pixel of row y. */
PRIVATE float max_pixel(const struct pooling *p, const float *plane, int y, int x) {
    float most = -FLT_MAX;
    for (int ky = 0; ky < p->kernel_y; ky++)
        for (int kx = 0; kx < p->kernel_x; kx++) {
            int row = y * p->stride_y - p->top + ky * p->dilation_y, column = x * p->stride_x - p->left + kx * p->dilation_x;
            if (row >= 0 && row < p->in.height && column >= 0 && column < p->in.width) {
                float pixel = plane[row * p->in.width + column];
                most = most > pixel ? most : pixel;
            }
        }
    return most;
}

/* LANES pixels of row y from x on, where all columns of the window are inside the plane. */
INLINE vec max_pixels(const struct pooling *p, const float *plane, int y, int x, const int stride) {
    vec most = splat(-FLT_MAX);
    for (int ky = 0; ky < p->kernel_y; ky++) {
        int row = y * p->stride_y - p->top + ky * p->dilation_y;
        const float *in = plane + row * p->in.width + (x * stride - p->left);
        if (row < 0 || row >= p->in.height)
            continue;
        for (int kx = 0; kx < p->kernel_x; kx++, in += p->dilation_x) {
            vec pixels, odd;
            if (stride == 1)
                pixels = load(in);
            else
                deinterleave(in, &pixels, &odd);
            most = maximum(most, pixels);
        }
    }
    return most;
}

/* The columns of a range that has at least LANES of them; the last vector may overlap the one before it. */
INLINE void max_columns(const struct pooling *p, const float *plane, int y, struct range columns, const int stride,
                        float *out) {
    for (int x = columns.begin; x < columns.end; x += LANES) {
        int at = x + LANES <= columns.end ? x : columns.end - LANES;
        store(out + at, max_pixels(p, plane, y, at, stride));
    }
}

PRIVATE void max_row(const struct pooling *p, const float *plane, int y, float *out) {
    struct range columns = window_columns(p);
    if (p->stride_x > 2 || columns.end - columns.begin < LANES)
        columns.begin = columns.end = 0;
    else if (p->stride_x == 1)
        max_columns(p, plane, y, columns, 1, out);
    else
        max_columns(p, plane, y, columns, 2, out);
    for (int x = 0; x < columns.begin; x++)
        out[x] = max_pixel(p, plane, y, x);
    for (int x = columns.end; x < p->out.width; x++)
        out[x] = max_pixel(p, plane, y, x);
}

PRIVATE void max_pool(const struct job *j, const struct pooling *p) { pool_channels(j, p, max_row); }

#endif
