/* out[c] = act(sum over i of in[c][i] / pixels): the mean of each plane.

   UNIT partial sums are kept, and added by halves, so that compilers add vectors. */
#ifndef ROBUST_EDGE_MEAN_H
#define ROBUST_EDGE_MEAN_H

#include "elementwise.h"

PRIVATE void mean_channels(const struct job *j, const struct elementwise *e, int image, struct range channels) {
    int pixels = e->in.height * e->in.width;
    for (int c = channels.begin; c < channels.end; c++) {
        struct planes p = channel_planes(j, e, image, c);
        float lanes[UNIT], sum;
        vec sums[UNIT_VECTORS];
        int i = 0;
        for (int v = 0; v < UNIT_VECTORS; v++)
            sums[v] = splat(0);
        for (; i + UNIT <= pixels; i += UNIT)
            UNROLL for (int v = 0; v < UNIT_VECTORS; v++)
                sums[v] += load(p.in + i + v * LANES);
        memcpy(lanes, sums, sizeof lanes);
        for (int half = UNIT / 2; half > 0; half /= 2)
            for (int k = 0; k < half; k++)
                lanes[k] += lanes[k + half];
        sum = lanes[0];
        for (; i < pixels; i++)
            sum += p.in[i];
        *p.out = sum / (float)pixels;
        activate_one(p.out, &e->act);
    }
}

PRIVATE void mean(const struct job *j, const struct elementwise *e) {
    struct range channels = split_evenly(e->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        mean_channels(j, e, g, channels);
}

#endif
