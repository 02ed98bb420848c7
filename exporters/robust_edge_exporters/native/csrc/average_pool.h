/* Average pooling: for each channel,

       out[y][x] = act(mean over (ky, kx) inside the plane of
                       in[y * stride_y - top + ky * dilation_y][x * stride_x - left + kx * dilation_x])

   where the mean divides by the pixels inside the plane or, if count_padding, inside the padded plane. */
#ifndef ROBUST_EDGE_AVERAGE_POOL_H
#define ROBUST_EDGE_AVERAGE_POOL_H

#include "pooling.h"

PRIVATE float window_average(const struct pooling *p, const float *plane, int y0, int x0) {
    float sum = 0;
    int count = 0;
    for (int ky = 0; ky < p->kernel_y; ky++)
        for (int kx = 0; kx < p->kernel_x; kx++) {
            int y = y0 + ky * p->dilation_y, x = x0 + kx * p->dilation_x;
            int inside = y >= 0 && y < p->in.height && x >= 0 && x < p->in.width;
            if (inside)
                sum += plane[y * p->in.width + x];
            count += inside || (p->count_padding && y < p->in.height + p->bottom && x < p->in.width + p->right);
        }
    return count ? sum / (float)count : 0;
}

PRIVATE void average_row(const struct pooling *p, const float *plane, int y, float *out) {
    for (int x = 0; x < p->out.width; x++)
        out[x] = window_average(p, plane, y * p->stride_y - p->top, x * p->stride_x - p->left);
}

PRIVATE void average_pool(const struct job *j, const struct pooling *p) { pool_channels(j, p, average_row); }

#endif
