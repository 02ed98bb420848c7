/* out[c] = act(sum over i of in[c][i] / pixels): the mean of each plane.

   UNIT partial sums are kept, so that compilers add vectors. */
#ifndef ROBUST_EDGE_MEAN_H
#define ROBUST_EDGE_MEAN_H

#include "elementwise.h"

PRIVATE void mean(const struct job *j, const struct elementwise *e) {
    struct range channels = split_evenly(e->out.channels, j->thread, j->threads);
    int pixels = e->in.height * e->in.width;
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            struct planes p = channel_planes(j, e, g, c);
            float lanes[UNIT] = {0}, sum = 0;
            int i = 0;
            for (; i + UNIT <= pixels; i += UNIT)
                for (int k = 0; k < UNIT; k++)
                    lanes[k] += p.in[i + k];
            for (int k = 0; k < UNIT; k++)
                sum += lanes[k];
            for (; i < pixels; i++)
                sum += p.in[i];
            *p.out = sum / (float)pixels;
            activate_one(p.out, &e->act);
        }
}

#endif
