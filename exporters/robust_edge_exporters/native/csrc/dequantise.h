/* out[i] = (float)(in[i] - zero) * scale: logits of codes. The input is a vector, of features or of flattened images, whose
   words lie as those of the images do; or planes of one pixel. */
#ifndef ROBUST_EDGE_DEQUANTISE_H
#define ROBUST_EDGE_DEQUANTISE_H

#include "context.h"
#include "job.h"
#include "tensor.h"

struct dequantise {
    struct tensor in; /* words */
    size_t out, out_image;
    int parts;                    /* of the features */
    const int *channels, *pixels; /* of the image that each part was */
    int zero;
    float scale;
};

PRIVATE void dequantise(const struct job *j, const struct dequantise *d) {
    float *arena = j->context->arena;
    size_t step = d->in.channels == 1 ? 1 : (size_t)d->in.pitch; /* from one word to the next */
    if (j->thread != 0)
        return;
    for (int g = 0; g < j->images; g++) {
        const float *in = arena + d->in.offset + (size_t)g * d->in.image;
        float *out = arena + d->out + (size_t)g * d->out_image;
        for (int p = 0; p < d->parts; p++) {
            for (int c = 0; c < d->channels[p]; c++)
                for (int i = 0; i < d->pixels[p]; i++) {
                    const float *word = in + (size_t)(c / 4 * d->pixels[p] + i) * step;
                    *out++ = (float)(((const unsigned char *)word)[c % 4] - d->zero) * d->scale;
                }
            in += (size_t)((d->channels[p] + 3) / 4 * d->pixels[p]) * step;
        }
    }
}

#endif
