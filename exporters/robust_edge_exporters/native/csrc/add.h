/* out[c][i] = act(in[c][i] + second[c][i]), or + second[c] where the second tensor holds one value per channel. */
#ifndef ROBUST_EDGE_ADD_H
#define ROBUST_EDGE_ADD_H

#include "elementwise.h"

PRIVATE void add(const struct job *j, const struct elementwise *e) {
    const int floats = plane_floats(&e->out);
    struct range channels = split_evenly(e->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            struct planes p = channel_planes(j, e, g, c);
            for (int i = 0; i < floats; i++)
                p.out[i] = p.in[i] + (e->broadcast ? *p.second : p.second[i]);
            activate(p.out, floats, &e->act);
        }
}

#endif
