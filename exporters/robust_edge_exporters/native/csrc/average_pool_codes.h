/* Average pooling of codes, four channels to a word, whose scale and zero the output keeps:

       out[y][x] = (2 * sum over the taps + n) / (2 * n)

   where the n taps are those inside the plane or, if count_padding, inside the padded plane, around which the code is
   `padding`. */
#ifndef ROBUST_EDGE_AVERAGE_POOL_CODES_H
#define ROBUST_EDGE_AVERAGE_POOL_CODES_H

#include "pooling.h"

PRIVATE void average_code(const struct pooling *p, const unsigned char *plane, int y0, int x0, unsigned char *out) {
    int sum[4] = {0, 0, 0, 0}, count = 0;
    for (int ky = 0; ky < p->kernel_y; ky++)
        for (int kx = 0; kx < p->kernel_x; kx++) {
            int y = y0 + ky * p->dilation_y, x = x0 + kx * p->dilation_x;
            int inside = y >= 0 && y < p->in.height && x >= 0 && x < p->in.width;
            if (!inside && !(p->count_padding && y < p->in.height + p->bottom && x < p->in.width + p->right))
                continue;
            for (int k = 0; k < 4; k++)
                sum[k] += inside ? plane[4 * (y * p->in.width + x) + k] : p->padding;
            count++;
        }
    for (int k = 0; k < 4; k++)
        out[k] = (unsigned char)((2 * sum[k] + count) / (2 * count));
}

PRIVATE void average_code_row(const struct pooling *p, const float *plane, int y, float *out) {
    for (int x = 0; x < p->out.width; x++)
        average_code(p, (const unsigned char *)plane, y * p->stride_y - p->top, x * p->stride_x - p->left,
                     (unsigned char *)(out + x));
}

PRIVATE void average_pool_codes(const struct job *j, const struct pooling *p) { pool_channels(j, p, average_code_row); }

#endif
