/* Sparse depthwise convolution: (C, H, W) -> (C, P, Q), with H = P * stride and W = Q * stride, stride 1 or 2:

       for c < C, y < P, x < Q:
           out[c][y][x] = act(bias[c] + residual[c][y][x] + sum over the nonzeros (ky, kx) of channel c of
                              weight[c][ky][kx] * in[c][y * stride + dy(ky)][x * stride + dx(kx)])

   Each tap reads the plane shifted by a constant, and masks set pixels outside the plane to zero. At stride 2 every other
   pixel of every other row is taken from whole vectors, where rows of the output are whole vectors, or a half or a quarter
   of one; other planes are split into phases first (phases.h). The segment of a channel names its taps, so pruned taps cost
   nothing. */
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

/* Whether at stride 2 the pixels of a vector are taken from whole vectors of the plane. */
INLINE int takes_every_other(int width) {
    return width % LANES == 0 || LANES == 2 * width || (LANES == 16 && width == 4);
}

/* LANES output pixels from `first` on, in rows of `width`: every other pixel of every other row of the plane at `in`. */
INLINE vec every_other(const float *in, int width, int first) {
    const ptrdiff_t rows = 4 * (ptrdiff_t)width; /* from a row that is read to the next one */
    vec even, odd;
    if (width >= LANES) {
        deinterleave(in + first / width * rows + 2 * (first % width), &even, &odd);
        return even;
    }
    in += first / width * rows;
    deinterleave_vectors(load(in), load(in + rows), &even, &odd);
#if LANES == 16
    if (width == 4) { /* vectors hold two rows, of which the second one is left out */
        vec next;
        deinterleave_vectors(load(in + 2 * rows), load(in + 3 * rows), &next, &odd);
        even = _mm512_shuffle_f32x4(even, next, 0x88);
    }
#endif
    return even;
}

/* `units` units of pixels of a plane, from `unit` on. `units`, and `stride` of what is read, are constants where this is
   called. */
INLINE void depthwise_units(const struct depthwise_channel *d, size_t unit, const int units, const int stride) {
    const struct activation *act = &d->conv->act;
    vec sum[4 * UNIT_VECTORS];
    UNROLL for (int v = 0; v < units * UNIT_VECTORS; v++)
        sum[v] = splat(d->bias);
    for (uint32_t k = 0; k < d->count; k++) {
        const float *in = d->in + d->shifts[d->tap[k]] + (stride == 1 ? unit * UNIT : 0);
        const uint32_t *mask = d->masks + (size_t)d->tap[k] * (size_t)d->conv->copy_floats + unit * UNIT;
        vec w = splat(to_float(d->values[k]));
        UNROLL for (int v = 0; v < units * UNIT_VECTORS; v++) {
            const int first = (int)unit * UNIT + v * LANES;
            const vec pixels = stride == 1 ? load(in + v * LANES) : every_other(in, d->conv->out.width, first);
            sum[v] += w * masked(pixels, mask + v * LANES);
        }
    }
    UNROLL for (int v = 0; v < units * UNIT_VECTORS; v++) {
        if (d->residual)
            sum[v] += load(d->residual + unit * UNIT + v * LANES);
        if (act->kind == CLAMP)
            sum[v] = clamp(sum[v], splat(act->lo), splat(act->hi));
        store(d->out + unit * UNIT + v * LANES, sum[v]);
    }
}

/* From the first pixel of a plane, or of its phases, to the pixel that each tap reads. */
PRIVATE void tap_shifts(const struct conv *c, int phases, ptrdiff_t *shifts) {
    for (int k = 0; k < c->taps; k++) {
        if (!phases) {
            shifts[k] = (ptrdiff_t)c->shifts[k].dy * c->in.width + c->shifts[k].dx;
            continue;
        }
        int phase = (c->shifts[k].dy & 1) * 2 + (c->shifts[k].dx & 1);
        shifts[k] = phase * c->copy_floats + tap_shift(c, k);
    }
}

/* A plane of `floats` floats. */
INLINE void depthwise_plane(const struct depthwise_channel *d, int floats, const int stride) {
    size_t unit = 0, units = (size_t)floats / UNIT;
    for (; units - unit >= 4; unit += 4)
        depthwise_units(d, unit, 4, stride);
    for (size_t left = units % 4; left > 0; left--, unit++) /* gcc warns of an overflow with `unit < units` */
        depthwise_units(d, unit, 1, stride);
}

/* Some channels of an image, whose input begins at `in`. Planes may be as small as one vector: everything but the channel's
   own addresses is computed once for all channels, and `c` is copied, since the compiler would load its fields again after
   each store. The stride of what is read is 1 where phases are, a constant where this is called. */
INLINE void depthwise_of_stride(const struct job *j, const struct conv *conv, int image, struct range channels,
                                const float *in, const int stride) {
    const struct conv copy = *conv, *c = &copy;
    const re_context *ctx = j->context;
    const uint32_t *starts = ctx->starts + c->starts;
    const float *bias = float_section(ctx, c->bias);
    const int floats = plane_floats(&c->out), splits = c->stride_x > stride;
    float *phases = ctx->scratch + (size_t)j->thread * SCRATCH_FLOATS + c->copy_floats + UNIT;
    ptrdiff_t shifts[TAPS_MAX];
    tap_shifts(c, splits, shifts);
    for (int k = channels.begin; k < channels.end; k++, in += c->in.pitch) {
        struct depthwise_channel d;
        d.in = in;
        d.residual = residual_plane(ctx, c, image, k);
        d.out = out_plane(ctx, c, image, k);
        d.bias = bias[k];
        d.tap = ctx->offsets + c->offsets + starts[k];
        d.values = value_section(ctx, c->values) + starts[k];
        d.count = starts[k + 1] - starts[k];
        d.shifts = shifts;
        d.masks = (const uint32_t *)(const void *)(ctx->arena + c->masks);
        d.conv = c;
        if (splits) {
            if (d.count)
                split_phases(c, d.in, phases);
            d.in = phases;
        }
        if (floats == UNIT)
            depthwise_units(&d, 0, 1, stride);
        else
            depthwise_plane(&d, floats, stride);
        if (c->act.kind > CLAMP)
            activate(d.out, floats, &c->act);
    }
}

PRIVATE void depthwise_channels(const struct job *j, const struct conv *c, int image, struct range channels,
                                const float *in) {
    if (c->stride_x == 2 && takes_every_other(c->out.width))
        depthwise_of_stride(j, c, image, channels, in, 2);
    else
        depthwise_of_stride(j, c, image, channels, in, 1);
}

PRIVATE void conv_depthwise(const struct job *j, const struct conv *c) {
    struct range channels = split_evenly(c->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        depthwise_channels(j, c, g, channels, in_plane(j->context, c, g, channels.begin));
}

#endif
