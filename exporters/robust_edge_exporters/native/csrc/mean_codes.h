/* out[c] = requantise(start + sum over i of in[c][i]): the mean of each plane, four channels to a word. */
#ifndef ROBUST_EDGE_MEAN_CODES_H
#define ROBUST_EDGE_MEAN_CODES_H

#include "pointwise_codes.h"

PRIVATE void mean_codes(const struct job *j, const struct pointwise *p) {
    struct range planes = split_evenly(p->in.channels, j->thread, j->threads);
    int pixels = p->in.height * p->in.width;
    for (int g = 0; g < j->images; g++)
        for (int c = planes.begin; c < planes.end; c++) {
            struct code_planes at = code_planes(j, p, g, c);
            int32_t sum[4] = {0, 0, 0, 0};
            for (int i = 0; i < pixels; i++)
                for (int k = 0; k < 4; k++)
                    sum[k] += at.in[4 * i + k];
            for (int k = 0; k < 4; k++)
                at.out[k] = requantise_one(sum[k] + p->channel.start, &p->channel, &p->requantisation, 0);
        }
}

#endif
