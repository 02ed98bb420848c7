/* The first operator of a network of codes: codes of the caller's floats, four channels to a word.

       out[c][i] = floor(clamp(scale[c] * in[c][i] + shift[c], 0, 255))

   in double precision, where the product is exact: a fused multiply-add gives the same. A NaN becomes 0. */
#ifndef ROBUST_EDGE_QUANTISE_H
#define ROBUST_EDGE_QUANTISE_H

#include "context.h"
#include "job.h"
#include "tensor.h"

struct quantise {
    struct tensor out;   /* words */
    int channels;
    const float *scale;  /* one per channel */
    const double *shift; /* with 0.5 for the rounding */
};

PRIVATE void quantise(const struct job *j, const struct quantise *q) {
    size_t pixels = (size_t)q->out.height * (size_t)q->out.width;
    struct range rows = split_evenly(q->out.height, j->thread, j->threads);
    size_t begin = (size_t)rows.begin * (size_t)q->out.width, end = (size_t)rows.end * (size_t)q->out.width;
    for (int g = 0; g < j->images; g++)
        for (int c = 0; c < q->channels; c++) {
            const float *in = j->in + ((size_t)g * (size_t)q->channels + (size_t)c) * pixels;
            float *plane = j->context->arena + q->out.offset + (size_t)g * q->out.image;
            unsigned char *out = (unsigned char *)(plane + (size_t)(c / 4) * (size_t)q->out.pitch) + c % 4;
            double scale = q->scale[c], shift = q->shift[c];
            for (size_t i = begin; i < end; i++) {
                double code = scale * in[i] + shift;
                code = code > 0 ? code : 0;
                out[4 * i] = (unsigned char)(int)(code < 255 ? code : 255);
            }
        }
}

#endif
