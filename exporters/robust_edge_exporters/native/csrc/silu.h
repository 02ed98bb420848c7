/* out[c][i] = in[c][i] / (1 + exp(-in[c][i])): SiLU, or Swish. */
#ifndef ROBUST_EDGE_SILU_H
#define ROBUST_EDGE_SILU_H

#include "elementwise.h"
#include "sigmoid.h"

PRIVATE void silu(const struct job *j, const struct elementwise *e) {
    static const struct activation swish = {SILU, 0, 0};
    const int floats = plane_floats(&e->out);
    struct range channels = split_evenly(e->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            struct planes p = channel_planes(j, e, g, c);
            memmove(p.out, p.in, (size_t)floats * sizeof *p.out);
            activate(p.out, floats, &swish);
        }
}

#endif
