/* Dense convolution of any geometry: (I, H, W) -> (O, P, Q), with I / groups input channels for each output channel:

       for o < O, y < P, x < Q:
           out[o][y][x] = act(bias[o] + residual[o][y][x] + sum over i, ky, kx of
                              weight[o][i][ky][kx] * in[i][y * stride_y + ky * dilation_y - top]
                                                       [x * stride_x + kx * dilation_x - left])

   A register tile holds the sums of DENSE_CHANNELS output channels for DENSE_VECTORS vectors of pixels, so that each
   vector loaded is used DENSE_CHANNELS times. The input rows are packed (pack_rows.h). Values lie as [block][channels /
   DENSE_CHANNELS][tap][DENSE_CHANNELS], padded with zeros, where a tap is one of all (i, ky, kx) of the block. */
#ifndef ROBUST_EDGE_CONV_DENSE_H
#define ROBUST_EDGE_CONV_DENSE_H

#include "conv_tiles.h"
#include "pack_rows.h"

/* Values that are prefetched before they are used, a page of floats: all weights of a network do not fit the caches, and
   processors do not prefetch from one page to the next. */
#define AHEAD_DENSE 1024

/* Adds bias and previous sums, applies the activation if it is a clamp, and stores the sums of one output channel. */
INLINE void finish_dense(const struct register_tile *t, int o, int vector, const int vectors, const vec *sum) {
    float *out = t->out + (size_t)o * t->pitch;
    const float *previous = previous_sums(t->bias, t->residual, t->out);
    UNROLL for (int v = 0; v < vectors; v++) {
        size_t pixel = t->unit_offset[(vector + v) / UNIT_VECTORS] + (size_t)((vector + v) % UNIT_VECTORS * LANES);
        vec y = sum[v];
        if (t->bias)
            y += splat(t->bias[o]);
        if (previous)
            y += load(previous + (size_t)o * t->pitch + pixel);
        if (t->act->kind == CLAMP)
            y = clamp(y, splat(t->act->lo), splat(t->act->hi));
        store(out + pixel, y);
    }
}

/* DENSE_CHANNELS output channels from o on, `vectors` vectors of pixels; `vectors` is a constant where this is called. */
INLINE void dense_tile(const struct register_tile *t, int o, int vector, const int vectors) {
    const value *values = t->values + (size_t)o * (size_t)t->taps;
    const float *packed = t->packed + vector * LANES;
    int channels = t->channels.end - o < DENSE_CHANNELS ? t->channels.end - o : DENSE_CHANNELS;
    vec sum[DENSE_CHANNELS * DENSE_VECTORS];
    UNROLL for (int v = 0; v < DENSE_CHANNELS * vectors; v++)
        sum[v] = splat(0);
    for (int k = 0; k < t->taps; k++, values += DENSE_CHANNELS) {
        const float *in = packed + t->offsets[k] * t->offset_scale;
        PREFETCH(values + AHEAD_DENSE);
        vec x[DENSE_VECTORS];
        UNROLL for (int v = 0; v < vectors; v++)
            x[v] = load(in + v * LANES);
        UNROLL for (int i = 0; i < DENSE_CHANNELS; i++) {
            vec w = splat(to_float(values[i]));
            UNROLL for (int v = 0; v < vectors; v++)
                sum[i * vectors + v] += w * x[v];
        }
    }
    UNROLL for (int i = 0; i < DENSE_CHANNELS; i++) {
        if (i < channels)
            finish_dense(t, o + i, vector, vectors, sum + i * vectors);
    }
}

PRIVATE void dense_kernel(const struct register_tile *t) {
    int vectors = t->units * UNIT_VECTORS;
    for (int o = t->channels.begin; o < t->channels.end; o += DENSE_CHANNELS) {
        int v = 0;
        for (; v + DENSE_VECTORS <= vectors; v += DENSE_VECTORS)
            dense_tile(t, o, v, DENSE_VECTORS);
        for (; v + 2 <= vectors; v += 2) /* sums of one vector are too few: each waits for the one before */
            dense_tile(t, o, v, 2);
        for (; v < vectors; v++)
            dense_tile(t, o, v, 1);
    }
    if (t->act->kind > CLAMP)
        for (int o = t->channels.begin; o < t->channels.end; o++)
            for (int u = 0; u < t->units; u++)
                activate(t->out + (size_t)o * t->pitch + t->unit_offset[u], UNIT, t->act);
}

PRIVATE void conv_dense(const struct job *j, const struct conv *c) {
    static const struct method dense = {pack_block, dense_kernel, 0, 0, 0, 0};
    run_conv(c, j, &dense);
}

#endif
