/* Sparse depthwise convolution of planes of any size, row by row: (C, H, W) -> (C, P, Q) at stride 1 or 2:

       for c < C, y < P, x < Q:
           out[c][y][x] = act(bias[c] + residual[c][y][x] + sum over the nonzeros (ky, kx) of channel c of
                              weight[c][ky][kx] * in[c][y * stride + dy(ky)][x * stride + dx(kx)])

   Nothing is packed: each tap reads its row of the plane in place, at stride 2 every other pixel. Taps above and below
   the plane are left out, and masks of one row set pixels to its left and right to zero. The segment of a channel names
   its taps, so pruned taps cost nothing. */
#ifndef ROBUST_EDGE_CONV_DEPTHWISE_ROWS_H
#define ROBUST_EDGE_CONV_DEPTHWISE_ROWS_H

#include "conv.h"
#include "values.h"

#define ROW_VECTORS 4 /* vectors of a register tile */

/* A tap of the current channel that lies inside the plane for the current row. */
struct row_tap {
    ptrdiff_t offset; /* from the row's first pixel times the stride to the tap's */
    const uint32_t *mask;
    float weight;
    int dy;
};

/* One row: the rows that it reads begin at `in`. */
struct depthwise_row {
    const struct row_tap *taps;
    int count, width;
    float bias;
    const float *in, *residual;
    float *out;
    const struct activation *act;
};

/* `vectors` vectors of pixels from x on; `vectors` and `stride` are constants where this is called. */
INLINE void depthwise_row_tile(const struct depthwise_row *r, int x, const int vectors, const int stride) {
    vec sum[ROW_VECTORS];
    UNROLL for (int v = 0; v < vectors; v++)
        sum[v] = splat(r->bias);
    for (int k = 0; k < r->count; k++) {
        const float *in = r->in + r->taps[k].offset + (ptrdiff_t)x * stride;
        const uint32_t *mask = r->taps[k].mask + x;
        const vec w = splat(r->taps[k].weight);
        UNROLL for (int v = 0; v < vectors; v++) {
            vec pixels, odd;
            if (stride == 1)
                pixels = load(in + v * LANES);
            else
                deinterleave(in + 2 * v * LANES, &pixels, &odd);
            sum[v] += w * masked(pixels, mask + v * LANES);
        }
    }
    UNROLL for (int v = 0; v < vectors; v++) {
        int left = r->width - x - v * LANES;
        if (r->residual)
            sum[v] += load(r->residual + x + v * LANES);
        if (r->act->kind == CLAMP)
            sum[v] = clamp(sum[v], splat(r->act->lo), splat(r->act->hi));
        store_lanes(r->out + x + v * LANES, sum[v], left < LANES ? left : LANES);
    }
}

INLINE void run_depthwise_row(const struct depthwise_row *r, const int stride) {
    int x = 0;
    for (; r->width - x > (ROW_VECTORS - 1) * LANES; x += ROW_VECTORS * LANES)
        depthwise_row_tile(r, x, ROW_VECTORS, stride);
    for (; r->width - x > LANES; x += 2 * LANES)
        depthwise_row_tile(r, x, 2, stride);
    for (; x < r->width; x += LANES)
        depthwise_row_tile(r, x, 1, stride);
}

/* The taps of a channel whose row is inside the plane, where the row of dy = 0 is `y`; the number of them. */
PRIVATE int taps_inside(const struct row_tap *all, int count, int y, int height, struct row_tap *inside) {
    int found = 0;
    for (int k = 0; k < count; k++)
        if (y + all[k].dy >= 0 && y + all[k].dy < height)
            inside[found++] = all[k];
    return found;
}

/* The plane of a channel, whose input is at `in`. */
PRIVATE void depthwise_rows_of_plane(const re_context *ctx, const struct conv *c, int image, int channel,
                                     const float *in) {
    const uint32_t *masks = (const uint32_t *)(const void *)(ctx->arena + c->masks);
    const uint32_t *start = ctx->starts + c->starts + channel;
    const value *values = value_section(ctx, c->values) + start[0];
    const uint16_t *tap = ctx->offsets + c->offsets + start[0];
    const int count = (int)(start[1] - start[0]), stride = c->stride_x;
    float *plane = out_plane(ctx, c, image, channel);
    struct row_tap all[TAPS_MAX], some[TAPS_MAX];
    struct depthwise_row r;
    for (int k = 0; k < count; k++) {
        struct shift s = c->shifts[tap[k]];
        all[k].offset = (ptrdiff_t)s.dy * c->in.width + s.dx;
        all[k].mask = masks + tap[k] * c->copy_floats;
        all[k].weight = to_float(values[k]);
        all[k].dy = s.dy;
    }
    r.width = c->out.width;
    r.bias = float_section(ctx, c->bias)[channel];
    r.in = in;
    r.residual = residual_plane(ctx, c, image, channel);
    r.out = plane;
    r.act = &c->act;
    for (int y = 0; y < c->out.height; y++) {
        r.taps = some;
        r.count = taps_inside(all, count, y * stride, c->in.height, some);
        if (stride == 1)
            run_depthwise_row(&r, 1);
        else
            run_depthwise_row(&r, 2);
        r.in += stride * c->in.width;
        r.residual = r.residual ? r.residual + r.width : NULL;
        r.out += r.width;
    }
    if (c->act.kind > CLAMP)
        activate(plane, plane_floats(&c->out), &c->act);
}

PRIVATE void conv_depthwise_rows(const struct job *j, const struct conv *c) {
    struct range channels = split_evenly(c->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int k = channels.begin; k < channels.end; k++)
            depthwise_rows_of_plane(j->context, c, g, k, in_plane(j->context, c, g, k));
}

#endif
