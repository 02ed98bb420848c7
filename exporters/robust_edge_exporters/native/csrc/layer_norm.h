/* Layer normalisation (C, H, W) -> (C, H, W) over channels: for each pixel i

       out[c][i] = act((in[c][i] - mean[i]) / sqrt(variance[i] + epsilon) * scale[c] + shift[c])

   with mean and variance over the channels. A unit of pixels is computed at a time, so that planes are read as vectors;
   threads share the units. */
#ifndef ROBUST_EDGE_LAYER_NORM_H
#define ROBUST_EDGE_LAYER_NORM_H

#include <math.h>

#include "normalisation.h"

/* Pixels [0, pixels) of all channels, at most UNIT. */
PRIVATE void normalise_pixels(const struct normalisation *n, const float *in, int pixels, float *out) {
    const int channels = n->in.channels;
    const float *plane = in;
    float mean[UNIT] = {0}, variance[UNIT] = {0};
    for (int c = 0; c < channels; c++, plane += n->in.pitch)
        for (int i = 0; i < pixels; i++)
            mean[i] += plane[i];
    for (int i = 0; i < pixels; i++)
        mean[i] /= (float)channels;
    plane = in;
    for (int c = 0; c < channels; c++, plane += n->in.pitch)
        for (int i = 0; i < pixels; i++)
            variance[i] += (plane[i] - mean[i]) * (plane[i] - mean[i]);
    for (int i = 0; i < pixels; i++)
        variance[i] = 1 / sqrtf(variance[i] / (float)channels + n->epsilon);
    for (int c = 0; c < channels; c++, in += n->in.pitch, out += n->out.pitch) {
        float unit[UNIT] = {0};
        for (int i = 0; i < pixels; i++)
            unit[i] = (in[i] - mean[i]) * variance[i] * n->scale[c] + n->shift[c];
        activate(unit, UNIT, &n->act);
        for (int i = 0; i < pixels; i++)
            out[i] = unit[i];
    }
}

PRIVATE void layer_norm(const struct job *j, const struct normalisation *n) {
    int pixels = n->in.height * n->in.width;
    struct range units = split_evenly((pixels + UNIT - 1) / UNIT, j->thread, j->threads);
    for (int g = 0; g < j->images; g++) {
        const float *in = j->context->arena + n->in.offset + (size_t)g * n->in.image;
        float *out = j->context->arena + n->out.offset + (size_t)g * n->out.image;
        for (int u = units.begin; u < units.end; u++) {
            int first = u * UNIT, count = pixels - first < UNIT ? pixels - first : UNIT;
            normalise_pixels(n, in + first, count, out + first);
        }
    }
}

#endif
