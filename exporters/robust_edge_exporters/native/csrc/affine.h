/* out[c][i] = act(scale[c] * in[c][i] + shift[c]); without arrays, scale is 1 and shift is 0. */
#ifndef ROBUST_EDGE_AFFINE_H
#define ROBUST_EDGE_AFFINE_H

#include "elementwise.h"

PRIVATE void affine(const struct job *j, const struct elementwise *e) {
    const int floats = plane_floats(&e->out);
    struct range channels = split_evenly(e->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            struct planes p = channel_planes(j, e, g, c);
            float scale = e->scale ? e->scale[c] : 1, shift = e->shift ? e->shift[c] : 0;
            for (int i = 0; i < floats; i++)
                p.out[i] = scale * p.in[i] + shift;
            activate(p.out, floats, &e->act);
        }
}

#endif
