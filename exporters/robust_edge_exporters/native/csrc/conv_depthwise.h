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

/* `units` units of pixels of a plane, from `unit` on: `units` is a constant where this is called. */
INLINE void depthwise_units(const struct conv *c, const float *const *taps, const uint16_t *tap, const value *values,
                            uint32_t count, const uint32_t *masks, size_t unit, const int units, float bias,
                            const float *residual, float *out) {
    vec sum[4 * UNIT_VECTORS];
    UNROLL for (int v = 0; v < units * UNIT_VECTORS; v++)
        sum[v] = splat(bias);
    for (uint32_t k = 0; k < count; k++) {
        const float *in = taps[tap[k]] + unit * UNIT;
        const uint32_t *mask = masks + (size_t)tap[k] * (size_t)c->copy_floats + unit * UNIT;
        vec w = splat(to_float(values[k]));
        UNROLL for (int v = 0; v < units * UNIT_VECTORS; v++)
            sum[v] += w * masked(load(in + v * LANES), mask + v * LANES);
    }
    UNROLL for (int v = 0; v < units * UNIT_VECTORS; v++) {
        if (residual)
            sum[v] += load(residual + unit * UNIT + v * LANES);
        if (c->act.kind == CLAMP)
            sum[v] = clamp(sum[v], splat(c->act.lo), splat(c->act.hi));
        store(out + unit * UNIT + v * LANES, sum[v]);
    }
}

/* The phase that a tap reads. */
PRIVATE int tap_phase(const struct conv *c, int tap) {
    return c->stride_x == 1 ? 0 : (c->shifts[tap].dy & 1) * 2 + (c->shifts[tap].dx & 1);
}

/* The address that each tap reads for the plane's first pixel: in the plane itself, or in one of its phases. */
PRIVATE void tap_addresses(const struct conv *c, const float *plane, const float **taps) {
    for (int k = 0; k < c->taps; k++)
        taps[k] = plane + tap_phase(c, k) * c->copy_floats + tap_shift(c, k);
}

PRIVATE void depthwise_plane(const struct job *j, const struct conv *c, int g, int channel) {
    const re_context *ctx = j->context;
    const uint32_t *masks = (const uint32_t *)(const void *)(ctx->arena + c->masks);
    const uint32_t *start = ctx->starts + c->starts + channel;
    const value *values = value_section(ctx, c->values) + start[0];
    const uint16_t *tap = ctx->offsets + c->offsets + start[0];
    const float *in = ctx->arena + c->in.offset + (size_t)g * c->in.image + (size_t)channel * (size_t)c->in.pitch;
    size_t plane = (size_t)g * c->out.image + (size_t)channel * (size_t)c->out.pitch;
    const float *residual = c->residual == NO_TENSOR ? NULL : ctx->arena + c->residual + plane;
    float *out = ctx->arena + c->out.offset + plane, bias = float_section(ctx, c->bias)[channel];
    const float *taps[TAPS_MAX];
    size_t unit = 0, units = (size_t)plane_floats(&c->out) / UNIT;
    uint32_t count = start[1] - start[0];
    if (c->stride_x == 2) {
        float *phases = ctx->scratch + (size_t)j->thread * SCRATCH_FLOATS + c->copy_floats + UNIT;
        if (count)
            split_phases(c, in, phases);
        in = phases;
    }
    tap_addresses(c, in, taps);
    for (; units - unit >= 4; unit += 4)
        depthwise_units(c, taps, tap, values, count, masks, unit, 4, bias, residual, out);
    for (size_t left = units % 4; left > 0; left--, unit++) /* gcc warns of an overflow with `unit < units` */
        depthwise_units(c, taps, tap, values, count, masks, unit, 1, bias, residual, out);
    if (c->act.kind > CLAMP)
        activate(out, plane_floats(&c->out), &c->act);
}

PRIVATE void conv_depthwise(const struct job *j, const struct conv *c) {
    struct range channels = split_evenly(c->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int k = channels.begin; k < channels.end; k++)
            depthwise_plane(j, c, g, k);
}

#endif
