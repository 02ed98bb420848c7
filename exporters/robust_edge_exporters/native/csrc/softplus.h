/* out[c][i] = log(1 + exp(in[c][i])), as max(x, 0) + log(1 + exp(-|x|)), which does not overflow: softplus. */
#ifndef ROBUST_EDGE_SOFTPLUS_H
#define ROBUST_EDGE_SOFTPLUS_H

#include <math.h>

#include "elementwise.h"
#include "exponential.h"

PRIVATE void softplus(const struct job *j, const struct elementwise *e) {
    const int floats = plane_floats(&e->out);
    struct range channels = split_evenly(e->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            struct planes p = channel_planes(j, e, g, c);
            for (int i = 0; i < floats; i++) {
                float x = p.in[i];
                p.out[i] = (x > 0 ? x : 0) + log1pf(exponential(x > 0 ? -x : x));
            }
        }
}

#endif
