/* Dense fully connected layer (inputs) -> (outputs):

       for o < outputs:
           out[o] = act(bias[o] + sum over i < inputs of values[o][i] * in[i])

   Rows of the matrix are padded to whole units and read as vectors; a unit of partial sums hides the latency of the
   additions. What lies behind the input vector is not read, since it may be a NaN of an earlier call. */
#ifndef ROBUST_EDGE_LINEAR_DENSE_H
#define ROBUST_EDGE_LINEAR_DENSE_H

#include "linear.h"
#include "vector.h"

PRIVATE void linear_dense(const struct job *j, const struct linear *l) {
    const re_context *ctx = j->context;
    const value *values = value_section(ctx, l->values);
    const float *bias = float_section(ctx, l->bias);
    int padded = (l->inputs + UNIT - 1) / UNIT * UNIT;
    struct range rows = split_evenly(l->outputs, j->thread, j->threads);
    for (int o = rows.begin; o < rows.end; o++)
        for (int g = 0; g < j->images; g++) {
            const float *in = ctx->arena + l->in + (size_t)g * l->in_image;
            const value *w = values + (size_t)o * (size_t)padded;
            vec sum[UNIT_VECTORS];
            float lanes[UNIT], y = bias[o];
            int k = 0;
            for (int v = 0; v < UNIT_VECTORS; v++)
                sum[v] = splat(0);
            for (; k + UNIT <= l->inputs; k += UNIT)
                for (int v = 0; v < UNIT_VECTORS; v++)
                    sum[v] += load_values(w + k + v * LANES) * load(in + k + v * LANES);
            memcpy(lanes, sum, sizeof lanes);
            for (int i = 0; i < UNIT; i++)
                y += lanes[i];
            for (; k < l->inputs; k++)
                y += to_float(w[k]) * in[k];
            activate_one(&y, &l->act);
            ctx->arena[l->out + (size_t)g * l->out_image + (size_t)o] = y;
        }
}

#endif
