/* Sparse convolution of small planes, up to TAP_UNITS units: (I, H, W) -> (O, P, Q), where H = P * stride, W = Q * stride
   and stride is 1 or 2; one group. Tap k of the filter reads the input at a distance (dy(k), dx(k)). It computes

       for o < O, y < P, x < Q:
           out[o][y][x] = act(bias[o] + residual[o][y][x] + sum over the nonzeros (i, k) of channel o of
                              weight[o][i][k] * in[i][y * stride + dy(k)][x * stride + dx(k)])

   At stride 1 this is done as

       for o < O, k < taps, y < P, x < Q:
           sum[k][y][x] = sum over the nonzeros i of channel o and tap k of weight[o][i][k] * in[i][y][x]
       for o < O, y < P, x < Q:
           out[o][y][x] = act(bias[o] + residual[o][y][x] + sum over k of sum[k][y + dy(k)][x + dx(k)])

   Products are summed before they are shifted: for each tap, the sum over the input channels is taken at aligned pixels
   of the input in place (at stride 2, of its phases, see phases.h). Then each tap's sums are shifted once and added,
   masked where they leave the plane. Nothing is packed, and sums of a whole plane stay in registers. A segment holds
   the nonzeros of an output channel and a tap. */
#ifndef ROBUST_EDGE_CONV_TAPS_H
#define ROBUST_EDGE_CONV_TAPS_H

#include "nonzeros.h"
#include "phases.h"

#define TAP_UNITS 4 /* units of a plane, at most */

struct tap_tile {
    const float *in;        /* first channel of the block */
    const value *values;
    const uint16_t *offsets;
    const uint32_t *starts; /* of the block's segments: channels * taps */
    const float *bias, *residual;
    float *out, *sums;      /* sums: taps * units, with room for shifts before and after */
    const uint32_t *masks;
    struct range channels;
    const struct activation *act;
};

/* How the sums of a tap are shifted: those of a single tap are not, those of a plane of one vector are in a register,
   and those of larger planes are stored and loaded again from a shifted address. */
enum shift_method { NO_SHIFT, SHIFT_IN_REGISTERS, SHIFT_THROUGH_MEMORY };

/* Lane i of the result is lane from[i] of `sum`, or zero where the mask is. */
#if LANES == UNIT
INLINE vec shifted(vec sum, const uint32_t *from, const uint32_t *mask) {
    return masked(_mm512_permutexvar_ps(_mm512_loadu_si512(from), sum), mask);
}
#else
INLINE vec shifted(vec sum, const uint32_t *from, const uint32_t *mask) { return (void)from, masked(sum, mask); }
#endif

/* A whole plane of `units` units; `units` and `method` are constants where this is called. */
INLINE void taps_tile(const struct conv *c, const struct tap_tile *tile, const int units,
                      const enum shift_method method) {
    const struct tap_tile t = *tile;
    const int vectors = units * UNIT_VECTORS, taps = method == NO_SHIFT ? 1 : c->taps;
    const vec lo = splat(t.act->lo), hi = splat(t.act->hi);
    const uint32_t *start = t.starts + (size_t)t.channels.begin * (size_t)taps;
    const uint32_t mean = mean_length(start, (t.channels.end - t.channels.begin) * taps);
    uint32_t from[TAPS_MAX][UNIT];
    for (int k = 0; k < taps && method == SHIFT_IN_REGISTERS; k++)
        for (int i = 0; i < UNIT; i++)
            from[k][i] = (uint32_t)(i + tap_shift(c, k)) % UNIT;
    for (int o = t.channels.begin; o < t.channels.end; o++, start += taps) {
        struct nonzeros nonzeros = {t.values + start[0], t.offsets + start[0]};
        float *out = t.out + (size_t)o * (size_t)c->out.pitch;
        vec sum[TAP_UNITS * UNIT_VECTORS], total[TAP_UNITS * UNIT_VECTORS];
        const float *previous = previous_sums(t.bias, t.residual, t.out);
        UNROLL for (int v = 0; v < vectors; v++) {
            total[v] = splat(t.bias ? t.bias[o] : 0);
            if (previous)
                total[v] += load(previous + (size_t)o * (size_t)c->out.pitch + v * LANES);
        }
        for (int k = 0; k < taps; k++) {
            UNROLL for (int v = 0; v < vectors; v++)
                sum[v] = splat(0);
            if (!PREFETCHES_CHUNKS(vectors))
                prefetch_ahead(nonzeros, mean);
            nonzeros = accumulate(sum, units, t.in, UNIT, 1, nonzeros, start[k + 1] - start[k]);
            UNROLL for (int v = 0; v < vectors; v++)
                if (method == NO_SHIFT)
                    total[v] += sum[v];
                else if (method == SHIFT_IN_REGISTERS)
                    total[v] += shifted(sum[v], from[k], t.masks + (size_t)k * UNIT);
                else
                    store(t.sums + (k * vectors + v) * LANES, sum[v]);
        }
        for (int k = 0; k < taps && method == SHIFT_THROUGH_MEMORY; k++) {
            int shift = tap_shift(c, k);
            const uint32_t *mask = t.masks + (size_t)k * (size_t)c->copy_floats;
            UNROLL for (int v = 0; v < vectors; v++)
                total[v] += masked(load(t.sums + (k * vectors + v) * LANES + shift), mask + v * LANES);
        }
        UNROLL for (int v = 0; v < vectors; v++) {
            if (t.act->kind == CLAMP)
                total[v] = clamp(total[v], lo, hi);
            store(out + v * LANES, total[v]);
        }
        if (t.act->kind > CLAMP)
            activate(out, units * UNIT, t.act);
    }
}

INLINE void run_units(const struct conv *c, const struct tap_tile *t, int units, const enum shift_method method) {
    switch (units) {
    case 1:
        taps_tile(c, t, 1, method);
        break;
    case 2:
        taps_tile(c, t, 2, method);
        break;
    case 3:
        taps_tile(c, t, 3, method);
        break;
    case 4:
        taps_tile(c, t, 4, method);
        break;
    }
}

PRIVATE void run_plane(const struct conv *c, const struct tap_tile *t, int units) {
    if (c->taps == 1)
        run_units(c, t, units, NO_SHIFT);
    else if (LANES == UNIT && units == 1)
        taps_tile(c, t, 1, SHIFT_IN_REGISTERS);
    else
        run_units(c, t, units, SHIFT_THROUGH_MEMORY);
}

PRIVATE void conv_taps(const struct job *j, const struct conv *c) {
    re_context *ctx = j->context;
    const int blocks = (c->in.channels + c->block - 1) / c->block;
    struct tap_tile t;
    t.values = value_section(ctx, c->values);
    t.offsets = ctx->offsets + c->offsets;
    t.masks = c->masks == NO_TENSOR ? NULL : (const uint32_t *)(const void *)(ctx->arena + c->masks);
    t.sums = ctx->scratch + (size_t)j->thread * SCRATCH_FLOATS + TAP_UNITS * UNIT;
    t.channels = split_evenly(c->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++) {
        size_t out = (size_t)g * c->out.image;
        for (int b = 0; b < blocks; b++) {
            int last = b == blocks - 1;
            int count = last ? c->in.channels - b * c->block : c->block;
            t.in = ctx->arena + c->in.offset + (size_t)g * c->in.image + (size_t)(b * c->block) * (size_t)c->in.pitch;
            if (c->stride_x == 2) {
                float *phases = t.sums + (c->taps + 1) * TAP_UNITS * UNIT;
                for (int k = 0; k < count; k++)
                    split_phases(c, t.in + k * c->in.pitch, phases + k * 4 * c->copy_floats);
                t.in = phases;
            }
            t.out = ctx->arena + c->out.offset + out;
            t.starts = ctx->starts + c->starts + (size_t)(b * c->out.channels) * (size_t)c->taps;
            t.bias = b == 0 ? float_section(ctx, c->bias) : NULL;
            t.residual = b == 0 && c->residual != NO_TENSOR ? ctx->arena + c->residual + out : NULL;
            t.act = last ? &c->act : &no_activation;
            run_plane(c, &t, (c->out.height * c->out.width + UNIT - 1) / UNIT);
        }
    }
}

#endif
