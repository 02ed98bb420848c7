/* Sparse depthwise convolution: (C, H, W) -> (C, P, Q), with H = P * stride and W = Q * stride, stride 1 or 2:

       for c < C, y < P, x < Q:
           out[c][y][x] = act(bias[c] + residual[c][y][x] + sum over the nonzeros (ky, kx) of channel c of
                              weight[c][ky][kx] * in[c][y * stride + dy(ky)][x * stride + dx(kx)])

   Nothing is packed: each tap reads the plane (at stride 2 one of its phases, see phases.h) shifted by a constant, and
   masks set pixels outside the plane to zero. The segment of a channel names its taps, so pruned taps cost nothing. */
#ifndef ROBUST_EDGE_CONV_DEPTHWISE_H
#define ROBUST_EDGE_CONV_DEPTHWISE_H

#include "phases.h"
#include "values.h"

/* A channel: its nonzeros, and where the taps of its plane lie. */
struct depthwise_channel {
    const float *in, *residual;
    float *out, bias;
    const uint16_t *tap;
    const value *values;
    uint32_t count;
    const ptrdiff_t *shifts; /* of each tap, from the first pixel of the plane, or of its phases */
    const uint32_t *masks;
    const struct conv *conv;
};

/* `units` units of pixels of a plane, from `unit` on: `units` is a constant where this is called. */
INLINE void depthwise_units(const struct depthwise_channel *d, size_t unit, const int units) {
    const struct activation *act = &d->conv->act;
    vec sum[4 * UNIT_VECTORS];
    UNROLL for (int v = 0; v < units * UNIT_VECTORS; v++)
        sum[v] = splat(d->bias);
    for (uint32_t k = 0; k < d->count; k++) {
        const float *in = d->in + d->shifts[d->tap[k]] + unit * UNIT;
        const uint32_t *mask = d->masks + (size_t)d->tap[k] * (size_t)d->conv->copy_floats + unit * UNIT;
        vec w = splat(to_float(d->values[k]));
        UNROLL for (int v = 0; v < units * UNIT_VECTORS; v++)
            sum[v] += w * masked(load(in + v * LANES), mask + v * LANES);
    }
    UNROLL for (int v = 0; v < units * UNIT_VECTORS; v++) {
        if (d->residual)
            sum[v] += load(d->residual + unit * UNIT + v * LANES);
        if (act->kind == CLAMP)
            sum[v] = clamp(sum[v], splat(act->lo), splat(act->hi));
        store(d->out + unit * UNIT + v * LANES, sum[v]);
    }
}

/* From the first pixel of a plane, at stride 2 of its phases, to the pixel that each tap reads. */
PRIVATE void tap_shifts(const struct conv *c, ptrdiff_t *shifts) {
    for (int k = 0; k < c->taps; k++) {
        int phase = c->stride_x == 1 ? 0 : (c->shifts[k].dy & 1) * 2 + (c->shifts[k].dx & 1);
        shifts[k] = phase * c->copy_floats + tap_shift(c, k);
    }
}

/* A plane of `floats` floats. */
INLINE void depthwise_plane(const struct depthwise_channel *d, int floats) {
    size_t unit = 0, units = (size_t)floats / UNIT;
    for (; units - unit >= 4; unit += 4)
        depthwise_units(d, unit, 4);
    for (size_t left = units % 4; left > 0; left--, unit++) /* gcc warns of an overflow with `unit < units` */
        depthwise_units(d, unit, 1);
}

/* Planes may be as small as one vector: everything but the channel's own addresses is computed once for all channels, and
   `c` is copied, since the compiler would load its fields again after each store. */
PRIVATE void conv_depthwise(const struct job *j, const struct conv *conv) {
    const struct conv copy = *conv, *c = &copy;
    const re_context *ctx = j->context;
    const uint32_t *starts = ctx->starts + c->starts;
    const float *bias = float_section(ctx, c->bias);
    const int floats = plane_floats(&c->out);
    float *phases = ctx->scratch + (size_t)j->thread * SCRATCH_FLOATS + c->copy_floats + UNIT;
    ptrdiff_t shifts[TAPS_MAX];
    struct range channels = split_evenly(c->out.channels, j->thread, j->threads);
    tap_shifts(c, shifts);
    for (int g = 0; g < j->images; g++)
        for (int k = channels.begin; k < channels.end; k++) {
            size_t plane = (size_t)g * c->out.image + (size_t)k * (size_t)c->out.pitch;
            struct depthwise_channel d;
            d.in = ctx->arena + c->in.offset + (size_t)g * c->in.image + (size_t)k * (size_t)c->in.pitch;
            d.residual = c->residual == NO_TENSOR ? NULL : ctx->arena + c->residual + plane;
            d.out = ctx->arena + c->out.offset + plane;
            d.bias = bias[k];
            d.tap = ctx->offsets + c->offsets + starts[k];
            d.values = value_section(ctx, c->values) + starts[k];
            d.count = starts[k + 1] - starts[k];
            d.shifts = shifts;
            d.masks = (const uint32_t *)(const void *)(ctx->arena + c->masks);
            d.conv = c;
            if (c->stride_x == 2) {
                if (d.count)
                    split_phases(c, d.in, phases);
                d.in = phases;
            }
            if (floats == UNIT)
                depthwise_units(&d, 0, 1);
            else
                depthwise_plane(&d, floats);
            if (c->act.kind > CLAMP)
                activate(d.out, floats, &c->act);
        }
}

#endif
