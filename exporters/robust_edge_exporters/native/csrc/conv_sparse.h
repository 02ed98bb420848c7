/* Sparse convolution of any geometry: (I, H, W) -> (O, P, Q), with I / groups input channels for each output channel:

       for o < O, y < P, x < Q:
           out[o][y][x] = act(bias[o] + residual[o][y][x] + sum over the nonzeros (i, ky, kx) of channel o of
                              weight[o][i][ky][kx] * in[i][y * stride_y + ky * dilation_y - top]
                                                       [x * stride_x + kx * dilation_x - left])

   A register tile holds the sums of one output channel for up to UNITS_MAX units of pixels. The input rows are packed
   (pack_rows.h), so that for each nonzero the value is broadcast and multiplied with whole units at one offset. The
   nonzeros of an output channel in a block are one segment, which is read once for each register tile. */
#ifndef ROBUST_EDGE_CONV_SPARSE_H
#define ROBUST_EDGE_CONV_SPARSE_H

#include "conv_tiles.h"
#include "nonzeros.h"
#include "pack_rows.h"
#include "tile_sizes.h"

#ifndef SPARSE_UNITS
#define SPARSE_UNITS(EACH) EACH(1)
#endif

INLINE void sparse_tile(const struct register_tile *tile, const int units) {
    const struct register_tile t = *tile;
    const int vectors = units * UNIT_VECTORS;
    const int clamped = t.act->kind == CLAMP, special = t.act->kind > CLAMP;
    const vec lo = splat(t.act->lo), hi = splat(t.act->hi);
    for (int o = t.channels.begin; o < t.channels.end; o++) {
        struct nonzeros nonzeros = {t.values + t.starts[o], t.offsets + t.starts[o]};
        float *out = t.out + (size_t)o * t.pitch;
        const float *previous = previous_sums(t.bias, t.residual, t.out);
        vec sum[UNITS_MAX * UNIT_VECTORS];
        const vec bias = splat(t.bias ? t.bias[o] : 0);
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] = bias;
        if (previous)
            UNROLL for (int v = 0; v < vectors; v++)
                sum[v] += load(previous + (size_t)o * t.pitch + t.unit_offset[v / UNIT_VECTORS] + v % UNIT_VECTORS * LANES);
        accumulate(sum, units, t.packed, UNIT, t.offset_scale, nonzeros, t.starts[o + 1] - t.starts[o]);
        if (clamped) {
            UNROLL for (int v = 0; v < vectors; v++)
                sum[v] = clamp(sum[v], lo, hi);
        }
        UNROLL for (int v = 0; v < vectors; v++)
            store(out + t.unit_offset[v / UNIT_VECTORS] + v % UNIT_VECTORS * LANES, sum[v]);
        if (special)
            for (int u = 0; u < units; u++)
                activate(out + t.unit_offset[u], UNIT, t.act);
    }
}

#define SPARSE_CASE(n) \
    case n: \
        sparse_tile(t, n); \
        break;

PRIVATE void sparse_kernel(const struct register_tile *t) {
    switch (t->units) { SPARSE_UNITS(SPARSE_CASE) }
}

PRIVATE void conv_sparse(const struct job *j, const struct conv *c) {
    static const struct method sparse = {pack_block, sparse_kernel, 1, 0, 0, 0};
    run_conv(c, j, &sparse);
}

#endif
