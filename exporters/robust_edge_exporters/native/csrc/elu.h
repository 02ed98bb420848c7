/* out[c][i] = in[c][i], or scale[0] * (exp(in[c][i]) - 1) where it is negative: ELU. */
#ifndef ROBUST_EDGE_ELU_H
#define ROBUST_EDGE_ELU_H

#include "elementwise.h"
#include "exponential.h"

PRIVATE void elu(const struct job *j, const struct elementwise *e) {
    const int floats = plane_floats(&e->out);
    const float alpha = e->scale[0];
    struct range channels = split_evenly(e->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            struct planes p = channel_planes(j, e, g, c);
            for (int i = 0; i < floats; i++)
                p.out[i] = p.in[i] > 0 ? p.in[i] : alpha * (exponential(p.in[i]) - 1);
        }
}

#endif
