/* out[c][i] = in[c][i] * (1 + erf(in[c][i] / sqrt(2))) / 2: GELU. */
#ifndef ROBUST_EDGE_GELU_H
#define ROBUST_EDGE_GELU_H

#include "elementwise.h"
#include "exponential.h"

PRIVATE void gelu(const struct job *j, const struct elementwise *e) {
    const int floats = plane_floats(&e->out);
    struct range channels = split_evenly(e->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            struct planes p = channel_planes(j, e, g, c);
            for (int i = 0; i < floats; i++)
                p.out[i] = p.in[i] * (0.5f + 0.5f * error_function(p.in[i] * 0.70710678f));
        }
}

#endif
