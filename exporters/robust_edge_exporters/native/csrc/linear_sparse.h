/* Sparse fully connected layer (inputs) -> (outputs):

       for o < outputs:
           out[o] = act(bias[o] + sum over the nonzeros k of row o of values[k] * in[offsets[k]])

   The weights are stored row by row, like CSR with 16-bit column indices. Four partial sums hide the latency of the
   additions. */
#ifndef ROBUST_EDGE_LINEAR_SPARSE_H
#define ROBUST_EDGE_LINEAR_SPARSE_H

#include "linear.h"

PRIVATE void linear_sparse(const struct job *j, const struct linear *l) {
    const re_context *ctx = j->context;
    const value *values = value_section(ctx, l->values);
    const float *bias = float_section(ctx, l->bias);
    const uint16_t *offsets = ctx->offsets + l->offsets;
    const uint32_t *starts = ctx->starts + l->starts;
    struct range rows = split_evenly(l->outputs, j->thread, j->threads);
    for (int o = rows.begin; o < rows.end; o++)
        for (int g = 0; g < j->images; g++) {
            const float *in = ctx->arena + l->in + (size_t)g * l->in_image;
            float sum[4] = {bias[o], 0, 0, 0}, y;
            uint32_t k = starts[o], end = starts[o + 1];
            for (; k + 4 <= end; k += 4)
                for (int i = 0; i < 4; i++)
                    sum[i] += to_float(values[k + (uint32_t)i]) * in[offsets[k + (uint32_t)i]];
            for (; k < end; k++)
                sum[0] += to_float(values[k]) * in[offsets[k]];
            y = (sum[0] + sum[1]) + (sum[2] + sum[3]);
            activate_one(&y, &l->act);
            ctx->arena[l->out + (size_t)g * l->out_image + (size_t)o] = y;
        }
}

#endif
