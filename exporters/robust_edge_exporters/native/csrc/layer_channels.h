/* The output channels of a layer of codes, which re_create reads from the weights file. Where packed codes are flipped
   (codes.h), sums of products begin with the sum of a channel's weights, too. */
#ifndef ROBUST_EDGE_LAYER_CHANNELS_H
#define ROBUST_EDGE_LAYER_CHANNELS_H

#include "linear_codes.h"

/* Where the weights of a layer lie: for each `together` output channels in turn some blocks, each of which has four
   weights of each of these channels. */
struct layer_channels {
    size_t values;           /* byte offset in the weights file */
    size_t count, together;
    size_t starts, segments; /* index of the first start in the context; segments of the channels that lie together */
    size_t blocks;           /* of these channels, where there are no segments */
    int logits;
    struct requantisation requantisation;
};

PRIVATE void add_weights(re_context *c, const struct layer_channels *l) {
    const int8_t *values = (const int8_t *)c->weights + l->values;
    struct channel *channels = c->channels + l->requantisation.first_channel;
    for (size_t i = 0; i < l->count / l->together; i++, channels += l->together) {
        const uint32_t *starts = c->starts + l->starts + i * l->segments;
        const size_t blocks = l->segments ? starts[l->segments] - starts[0] : l->blocks;
        for (size_t n = 0; n < blocks; n++)
            for (size_t k = 0; k < l->together; k++, values += 4) {
                const int32_t sum = values[0] + values[1] + values[2] + values[3];
                channels[k].start = wrapping(channels[k].start, sum, FLIPPED_ZERO);
            }
    }
}

PRIVATE void read_channels(re_context *c, const struct layer_channels *l) {
    const unsigned char *records = c->weights + l->requantisation.records;
    struct channel *channels = c->channels + l->requantisation.first_channel;
    for (size_t i = 0; i < l->count; i++)
        if (l->logits)
            channels[i].start = read_logit(records, i).bias;
        else
            channels[i] = read_channel(records, &l->requantisation, i);
    if (FLIPPED_ZERO)
        add_weights(c, l);
}

#endif
