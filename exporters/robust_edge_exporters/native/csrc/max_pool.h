/* Max pooling: for each channel,

       out[y][x] = act(max over (ky, kx) inside the plane of
                       in[y * stride_y - top + ky * dilation_y][x * stride_x - left + kx * dilation_x])

   The taps of the window are the outer loop and the pixels of a row the inner one, which compilers turn into vectors. */
#ifndef ROBUST_EDGE_MAX_POOL_H
#define ROBUST_EDGE_MAX_POOL_H

#include <float.h>

#include "pooling.h"

/* out[x] = max(out[x], in[x * step]) for x < count. */
INLINE void max_into(float *out, const float *in, int count, const int step) {
    for (int x = 0; x < count; x++)
        out[x] = in[x * step] <= out[x] ? out[x] : in[x * step];
}

PRIVATE void max_row(const struct pooling *p, const float *plane, int y, float *out) {
    int step = p->stride_x;
    for (int x = 0; x < p->out.width; x++)
        out[x] = -FLT_MAX;
    for (int ky = 0; ky < p->kernel_y; ky++) {
        int from = y * p->stride_y - p->top + ky * p->dilation_y;
        if (from < 0 || from >= p->in.height)
            continue;
        for (int kx = 0; kx < p->kernel_x; kx++) {
            int dx = kx * p->dilation_x - p->left, first = dx < 0 ? (-dx + step - 1) / step : 0;
            int last = dx < p->in.width ? (p->in.width - 1 - dx) / step + 1 : 0;
            const float *in = plane + from * p->in.width + (first * step + dx);
            last = last > p->out.width ? p->out.width : last;
            if (step == 1)
                max_into(out + first, in, last - first, 1);
            else if (step == 2)
                max_into(out + first, in, last - first, 2);
            else
                max_into(out + first, in, last - first, step);
        }
    }
}

PRIVATE void max_pool(const struct job *j, const struct pooling *p) { pool_channels(j, p, max_row); }

#endif
