/* out[c][i] = x * (1 + tanh(sqrt(2 / pi) * (x + 0.044715 * x^3))) / 2 with x = in[c][i], where (1 + tanh(u)) / 2 is
   1 / (1 + exp(-2u)): GELU in the approximation by tanh. */
#ifndef ROBUST_EDGE_GELU_TANH_H
#define ROBUST_EDGE_GELU_TANH_H

#include "elementwise.h"
#include "exponential.h"

PRIVATE void gelu_tanh(const struct job *j, const struct elementwise *e) {
    const int floats = plane_floats(&e->out);
    struct range channels = split_evenly(e->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            struct planes p = channel_planes(j, e, g, c);
            for (int i = 0; i < floats; i++)
                p.out[i] = p.in[i] / (1 + exponential(-1.59576912f * (p.in[i] + 0.044715f * p.in[i] * p.in[i] * p.in[i])));
        }
}

#endif
