/* A 1x1 convolution, the depthwise one that alone reads it, and perhaps the mean of each plane of that, together:

       for c < C, y < H, x < W:
           wide[c][y][x] = act(bias[c] + sum over the nonzeros i of channel c of weight[c][i] * in[i][y][x])
       out = the depthwise convolution of wide (conv_depthwise.h or conv_depthwise_rows.h)
       means[c] = the mean of out[c] (mean.h)

   A plane of `out` depends on one plane of `wide`, so they are computed a few channels at a time: their planes of `wide`
   lie in a thread's scratch memory and do not leave the second-level cache. Threads share the channels, and do not wait
   for each other in between. The 1x1 convolution has the weights of conv_strips.h, in one block: offsets count
   units, from the first pixel of the input's first plane. */
#ifndef ROBUST_EDGE_EXPAND_DEPTHWISE_H
#define ROBUST_EDGE_EXPAND_DEPTHWISE_H

#include "conv_depthwise.h"
#include "conv_depthwise_rows.h"
#include "conv_strips.h"
#include "mean.h"

#define PLANE_UNITS (UNITS_MAX > 6 ? 8 : UNITS_MAX > 3 ? 4 : UNITS_MAX) /* of a register tile */

struct expand_depthwise {
    const struct conv_strips *expand;
    const struct conv *depthwise;   /* of conv_depthwise.h if it has masks of whole planes, else conv_depthwise_rows.h */
    const struct elementwise *mean; /* or NULL */
    int channels;                   /* that are computed at a time */
    size_t planes;                  /* of these channels, in a thread's scratch memory */
};

/* `units` units of an output plane from `unit` on; `units` is a constant where this is called. */
INLINE void expand_units(const float *in, struct nonzeros nonzeros, uint32_t count, float bias, float *out, int unit,
                         const int units, const struct activation *act) {
    const int vectors = units * UNIT_VECTORS;
    vec sum[PLANE_UNITS * UNIT_VECTORS];
    in += (size_t)unit * UNIT;
    out += (size_t)unit * UNIT;
    UNROLL for (int v = 0; v < vectors; v++)
        sum[v] = splat(0);
    accumulate(sum, units, in, UNIT, UNIT, nonzeros, count);
    UNROLL for (int v = 0; v < vectors; v++)
        sum[v] += splat(bias);
    activate_sums(sum, vectors, act);
    UNROLL for (int v = 0; v < vectors; v++)
        store(out + v * LANES, sum[v]);
}

PRIVATE void expand_channels(const re_context *ctx, const struct conv *c, int image, struct range channels, float *out) {
    const float *in = in_plane(ctx, c, image, 0), *bias = float_section(ctx, c->bias);
    const uint32_t *starts = ctx->starts + c->starts;
    const struct activation act = c->act;
    const int units = plane_floats(&c->out) / UNIT;
    for (int o = channels.begin; o < channels.end; o++, out += c->out.pitch) {
        struct nonzeros nonzeros = {value_section(ctx, c->values) + starts[o], ctx->offsets + c->offsets + starts[o]};
        uint32_t count = starts[o + 1] - starts[o];
        int unit = 0;
        for (; units - unit >= PLANE_UNITS; unit += PLANE_UNITS)
            expand_units(in, nonzeros, count, bias[o], out, unit, PLANE_UNITS, &act);
        for (; unit < units; unit++)
            expand_units(in, nonzeros, count, bias[o], out, unit, 1, &act);
    }
}

PRIVATE void expand_depthwise(const struct job *j, const struct expand_depthwise *e) {
    const re_context *ctx = j->context;
    const struct conv *expand = &e->expand->conv, *c = e->depthwise;
    const struct range mine = split_evenly(c->out.channels, j->thread, j->threads);
    float *planes = ctx->scratch + (size_t)j->thread * SCRATCH_FLOATS + e->planes;
    for (int image = 0; image < j->images; image++)
        for (struct range some = {mine.begin, mine.begin}; some.end < mine.end; some.begin = some.end) {
            some.end = mine.end - some.begin < e->channels ? mine.end : some.begin + e->channels;
            expand_channels(ctx, expand, image, some, planes);
            if (c->whole_plane)
                depthwise_channels(j, c, image, some, planes);
            else
                for (int k = some.begin; k < some.end; k++)
                    depthwise_rows_of_plane(ctx, c, image, k, planes + (size_t)(k - some.begin) * (size_t)c->in.pitch);
            if (e->mean)
                mean_channels(j, e->mean, image, some);
        }
}

#endif
