/* out[c][i] = x * tanh(log(1 + exp(x))) with x = in[c][i], where tanh(log(1 + y)) is (y * y + 2 * y) / (y * y + 2 * y + 2):
   Mish. Above 20 that quotient is 1 in float. */
#ifndef ROBUST_EDGE_MISH_H
#define ROBUST_EDGE_MISH_H

#include "elementwise.h"
#include "exponential.h"

PRIVATE void mish(const struct job *j, const struct elementwise *e) {
    const int floats = plane_floats(&e->out);
    struct range channels = split_evenly(e->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            struct planes p = channel_planes(j, e, g, c);
            for (int i = 0; i < floats; i++) {
                float y = exponential(p.in[i] > 20 ? 20 : p.in[i]), n = y * y + 2 * y;
                p.out[i] = p.in[i] * (n / (n + 2));
            }
        }
}

#endif
