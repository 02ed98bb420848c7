/* out[c][i] = in[c][i], or scale[c] * in[c][i] where it is negative: PReLU. */
#ifndef ROBUST_EDGE_PRELU_H
#define ROBUST_EDGE_PRELU_H

#include "elementwise.h"

PRIVATE void prelu(const struct job *j, const struct elementwise *e) {
    const int floats = plane_floats(&e->out);
    struct range channels = split_evenly(e->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            struct planes p = channel_planes(j, e, g, c);
            for (int i = 0; i < floats; i++)
                p.out[i] = p.in[i] < 0 ? e->scale[c] * p.in[i] : p.in[i];
        }
}

#endif
