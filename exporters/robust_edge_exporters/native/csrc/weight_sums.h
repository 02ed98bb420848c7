/* Sums of the weights of each output channel of a layer of codes. Where packed codes are flipped (codes.h), sums of
   products begin with them; elsewhere nothing needs them. */
#ifndef ROBUST_EDGE_WEIGHT_SUMS_H
#define ROBUST_EDGE_WEIGHT_SUMS_H

#include "context.h"
#include "codes.h"

/* Where the weights of a layer lie: for each `together` output channels in turn some blocks, each of which has four
   weights of each of these channels. */
struct weight_sums {
    size_t values;           /* byte offset in the weights file */
    size_t sums, channels;   /* index of the first sum in the context; number of sums */
    size_t together;
    size_t starts, segments; /* index of the first start in the context; segments of the channels that lie together */
    size_t blocks;           /* of these channels, where there are no segments */
};

PRIVATE void sum_weights(re_context *c, const struct weight_sums *w) {
    const int8_t *values = (const int8_t *)c->weights + w->values;
    int32_t *sums = c->sums + w->sums;
    for (size_t i = 0; FLIPPED_ZERO && i < w->channels / w->together; i++, sums += w->together) {
        const uint32_t *starts = c->starts + w->starts + i * w->segments;
        const size_t blocks = w->segments ? starts[w->segments] - starts[0] : w->blocks;
        for (size_t n = 0; n < blocks; n++)
            for (size_t k = 0; k < w->together; k++, values += 4)
                sums[k] += values[0] + values[1] + values[2] + values[3];
    }
}

#endif
