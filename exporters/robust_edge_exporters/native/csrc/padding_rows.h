/* Zeroes the padding rows behind each plane and the one before the first plane, so that a convolution that reads its
   input in place (conv_columns.h) reads zeros beyond a plane's first and last row. The row before an image's first
   plane is the one behind the last plane of the image before it. */
#ifndef ROBUST_EDGE_PADDING_ROWS_H
#define ROBUST_EDGE_PADDING_ROWS_H

#include "context.h"
#include "job.h"
#include "tensor.h"

PRIVATE void zero_padding_rows(const struct job *j, const struct tensor *t) {
    const int used = plane_floats(t);
    struct range channels = split_evenly(t->channels, j->thread, j->threads);
    float *image = j->context->arena + t->offset;
    if (j->thread == 0)
        for (int i = 0; i < t->width; i += LANES)
            store(image - t->width + i, splat(0));
    for (int g = 0; g < j->images; g++, image += t->image)
        for (int c = channels.begin; c < channels.end; c++)
            for (int i = used; i < t->pitch; i += LANES)
                store(image + c * t->pitch + i, splat(0));
}

#endif
