/* What max and average pooling share: the geometry, and the loop over images, channels and rows. */
#ifndef ROBUST_EDGE_POOLING_H
#define ROBUST_EDGE_POOLING_H

#include "activation.h"
#include "context.h"
#include "job.h"
#include "tensor.h"

struct pooling {
    struct tensor in, out;
    int kernel_y, kernel_x, stride_y, stride_x, top, left, dilation_y, dilation_x;
    int count_padding; /* average: padding counts as pixels (count_include_pad in ONNX) */
    int bottom, right; /* padding that counts */
    int padding;       /* code of the pixels there */
    struct activation act; /* of floats */
};

/* Fills one output row from an input plane. */
typedef void pool_row(const struct pooling *, const float *plane, int y, float *out);

PRIVATE void pool_channels(const struct job *j, const struct pooling *p, pool_row *row) {
    float *arena = j->context->arena;
    const struct range planes = channels_of_thread(j, &p->out), rows = rows_of_thread(j, &p->out);
    for (int g = 0; g < j->images; g++)
        for (int c = planes.begin; c < planes.end; c++) {
            const float *in = arena + p->in.offset + (size_t)g * p->in.image + (size_t)c * (size_t)p->in.pitch;
            float *out = arena + p->out.offset + (size_t)g * p->out.image + (size_t)c * (size_t)p->out.pitch;
            for (int y = rows.begin; y < rows.end; y++)
                row(p, in, y, out + y * p->out.width);
            activate_part(out + rows.begin * p->out.width, (rows.end - rows.begin) * p->out.width, &p->act);
        }
}

#endif
