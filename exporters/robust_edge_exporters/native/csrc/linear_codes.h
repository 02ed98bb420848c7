/* Fully connected layer of codes (inputs) -> codes or logits (outputs):

       for o < outputs:
           sum = bias[o] + sum over i < inputs of values[o][i] * in[i]
           out[o] = requantise(sum), or (float)sum * scale[o] where logits are asked for

   Rows are padded with zeros to whole units of words; what lies behind the input vector is multiplied with these. */
#ifndef ROBUST_EDGE_LINEAR_CODES_H
#define ROBUST_EDGE_LINEAR_CODES_H

#include "context.h"
#include "job.h"
#include "requantise.h"

struct linear_codes {
    size_t in, out;             /* arena offsets of contiguous vectors */
    size_t in_image, out_image; /* floats from one image to the next */
    int inputs, outputs;        /* words of the input, numbers of the output */
    size_t values;              /* byte offset in the weights file */
    size_t starts, offsets;     /* where blocks of zeros are not stored: as in struct linear */
    int logits;
    struct requantisation requantisation; /* of logits its records, structs logit, and channels */
};

/* Numbers of one logit, as the weights file holds them. */
struct logit {
    int32_t bias;
    float scale;
};

INLINE struct logit read_logit(const unsigned char *records, size_t index) {
    struct logit n;
    memcpy(&n, records + index * sizeof n, sizeof n);
    return n;
}

PRIVATE int32_t row_sum(const float *in, const unsigned char *row, int units) {
    ints sum[UNIT_VECTORS];
    int32_t lanes[UNIT], total = 0;
    for (int v = 0; v < UNIT_VECTORS; v++)
        sum[v] = splat_int(0);
    for (int u = 0; u < units; u++)
        for (int v = 0; v < UNIT_VECTORS; v++) {
            ints x = load_words(in + u * UNIT + v * LANES) ^ (int32_t)FLIP, w;
            memcpy(&w, row + (size_t)(u * UNIT + v * LANES) * 4, sizeof w);
            sum[v] = dot4(sum[v], x, w);
        }
    memcpy(lanes, sum, sizeof lanes);
    for (int i = 0; i < UNIT; i++)
        total += lanes[i];
    return total;
}

/* Output o of image g, from its sum of products. */
INLINE void finish_output(const re_context *ctx, const struct linear_codes *l, int o, int g, int32_t sum) {
    float *out = ctx->arena + l->out + (size_t)g * l->out_image;
    const struct channel c = channel_of(ctx, &l->requantisation, (size_t)o);
    if (l->logits) {
        const float scale = read_logit(ctx->weights + l->requantisation.records, (size_t)o).scale;
        out[o] = (float)wrapping(c.start, sum, 1) * scale;
    } else {
        ((unsigned char *)out)[o] = requantise_one(wrapping(c.start, sum, 1), &c, &l->requantisation, 0);
    }
}

PRIVATE void linear_codes(const struct job *j, const struct linear_codes *l) {
    const re_context *ctx = j->context;
    const unsigned char *values = ctx->weights + l->values;
    int units = (l->inputs + UNIT - 1) / UNIT;
    struct range rows = split_evenly(l->outputs, j->thread, j->threads);
    for (int o = rows.begin; o < rows.end; o++)
        for (int g = 0; g < j->images; g++) {
            const float *in = ctx->arena + l->in + (size_t)g * l->in_image;
            finish_output(ctx, l, o, g, row_sum(in, values + (size_t)o * (size_t)units * UNIT * 4, units));
        }
}

#endif
