/* Group normalisation (C, H, W) -> (C, H, W): for each group of C / groups channels

       out[c][i] = act((in[c][i] - mean) / sqrt(variance + epsilon) * scale[c] + shift[c])

   with mean and variance over all pixels of the group's channels, summed in double. */
#ifndef ROBUST_EDGE_GROUP_NORM_H
#define ROBUST_EDGE_GROUP_NORM_H

#include <math.h>

#include "normalisation.h"

/* Mean over (x - centre)^power of a group, for a power of 1 or 2. */
PRIVATE double group_moment(const struct normalisation *n, const float *group, double centre, int power) {
    int channels = n->in.channels / n->groups, pixels = n->in.height * n->in.width;
    double sum = 0;
    for (int c = 0; c < channels; c++, group += n->in.pitch)
        for (int i = 0; i < pixels; i++) {
            double x = group[i] - centre;
            sum += power == 1 ? x : x * x;
        }
    return sum / ((double)channels * pixels);
}

PRIVATE void group_norm(const struct job *j, const struct normalisation *n) {
    int channels = n->in.channels / n->groups, pixels = n->in.height * n->in.width;
    struct range groups = split_evenly(n->groups, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int k = groups.begin; k < groups.end; k++) {
            size_t first = (size_t)(k * channels);
            const float *in = j->context->arena + n->in.offset + (size_t)g * n->in.image + first * (size_t)n->in.pitch;
            float *out = j->context->arena + n->out.offset + (size_t)g * n->out.image + first * (size_t)n->out.pitch;
            double mean = group_moment(n, in, 0, 1);
            double inverse = 1 / sqrt(group_moment(n, in, mean, 2) + (double)n->epsilon);
            for (int c = 0; c < channels; c++, in += n->in.pitch, out += n->out.pitch) {
                float scale = (float)inverse * n->scale[first + (size_t)c], shift = n->shift[first + (size_t)c];
                for (int i = 0; i < pixels; i++)
                    out[i] = (in[i] - (float)mean) * scale + shift;
                activate_plane(n, out);
            }
        }
}

#endif
