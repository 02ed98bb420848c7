/* out[c][i] = tanh(in[c][i]), as 1 - 2 / (1 + exp(2 * x)). */
#ifndef ROBUST_EDGE_HYPERBOLIC_TANGENT_H
#define ROBUST_EDGE_HYPERBOLIC_TANGENT_H

#include "elementwise.h"
#include "exponential.h"

PRIVATE void hyperbolic_tangent(const struct job *j, const struct elementwise *e) {
    const int floats = plane_floats(&e->out);
    struct range channels = split_evenly(e->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            struct planes p = channel_planes(j, e, g, c);
            for (int i = 0; i < floats; i++)
                p.out[i] = 1 - 2 / (1 + exponential(2 * p.in[i]));
        }
}

#endif
