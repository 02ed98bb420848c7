/* Sparse convolution with filters of three columns, for rows of half a unit, one or two: (I, H, W) -> (O, P, Q), where
   W = Q * stride, stride is 1 or 2, and one pixel is padded to the left; one group or several. It computes

       for o < O, y < P, x < Q:
           out[o][y][x] = act(bias[o] + residual[o][y][x] + sum over the nonzeros (i, ky, kx) of channel o of
                              weight[o][i][ky][kx] * in[i][y * stride + ky * dilation - top][x * stride + kx - 1])

   At stride 1 this is done as

       for o < O, kx < 3, y < P, x < Q:
           sum[kx][y][x] = sum over the nonzeros (i, ky) of channel o and column kx of
                           weight[o][i][ky][kx] * in[i][y + ky * dilation - top][x]
       for o < O, y < P, x < Q:
           out[o][y][x] = act(bias[o] + residual[o][y][x] + sum[0][y][x - 1] + sum[1][y][x] + sum[2][y][x + 1])

   Products are summed before they are shifted, so that the input is read without a shift: the sums of the outer columns
   are shifted by one pixel in registers, with a zero at the ends of the rows. The rows of the filter shift by whole
   units, which is what offsets count. Rows of whole units are read in place, with padding rows of zeros behind each
   plane (padding_rows.h); rows of half a unit are packed in pairs, half a plane apart. At stride 2 even and odd pixels
   are packed separately: then only the first column's sums are shifted, and the other two columns share a segment.
   Otherwise a segment holds the nonzeros of an output channel and a column. */
#ifndef ROBUST_EDGE_CONV_COLUMNS_H
#define ROBUST_EDGE_CONV_COLUMNS_H

#include "conv_tiles.h"
#include "nonzeros.h"
#include "tile_sizes.h"

struct conv_columns {
    struct conv conv;
    int padding_floats, pair_distance; /* as in struct method */
};

/* The even and the odd pixels of a row of 2 * width. */
INLINE void deinterleave_columns(const float *row, const int width, float *even, float *odd) {
    if (width < LANES)
        deinterleave_row(row, width, even, odd);
    else
        for (int x = 0; x < width; x += LANES) {
            vec e, o;
            deinterleave(row + 2 * x, &e, &o);
            store(even + x, e);
            store(odd + x, o);
        }
}

/* Copies a row of the input; at stride 2 its even and odd pixels. Rows outside the plane are zeros. */
INLINE void pack_row_of_columns(const struct conv *c, const float *plane, int y, const int width, const int stride,
                                float *even, float *odd) {
    const size_t bytes = (size_t)width * sizeof *even;
    if (y < 0 || y >= c->in.height) {
        memset(even, 0, bytes);
        if (stride == 2)
            memset(odd, 0, bytes);
    } else if (stride == 2)
        deinterleave_columns(plane + y * (2 * width), width, even, odd);
    else
        memcpy(even, plane + y * width, bytes);
}

/* Packs rows without a shift; at stride 2, even and odd pixels separately. Rows of half a unit share units in pairs:
   unit r holds rows r and r + half of the height. */
INLINE void pack_columns(const struct conv *c, const float *image, struct range channels, int y0, int rows, float *dst,
                         const int width, const int stride) {
    const int halves = width < UNIT ? 2 : 1, distance = rows / halves * stride, packed = rows / halves + c->extra_rows;
    for (int k = channels.begin; k < channels.end; k++)
        for (int s = 0; s < c->copies; s += stride, dst += stride * c->copy_floats) {
            const float *plane = image + (size_t)k * (size_t)c->in.pitch;
            float *even = dst, *odd = dst + c->copy_floats;
            int y = y0 * stride + c->shifts[s].dy;
            for (int r = 0; r < packed; r++, y += stride)
                UNROLL for (int h = 0; h < halves; h++, even += width, odd += width)
                    pack_row_of_columns(c, plane, y + h * distance, width, stride, even, odd);
        }
}

/* Masks of the lanes of a vector that are not the first, or not the last, of a row of `width` pixels. */
INLINE void row_masks(int width, uint32_t *inner, uint32_t *outer) {
    for (int i = 0; i < LANES; i++) {
        inner[i] = i % width ? 0xffffffffu : 0;
        outer[i] = (i + 1) % width ? 0xffffffffu : 0;
    }
}

/* Loads and stores vector `v` of a register tile in the output plane `p`. The halves of a unit lie pair_distance apart
   where a row is half a unit. */
#if LANES == UNIT
INLINE vec load_placed(const struct register_tile *t, const float *p, int v, const int width) {
    __m512d first;
    p += t->unit_offset[v];
    if (width >= UNIT)
        return load(p);
    first = _mm512_castps_pd(_mm512_castps256_ps512(_mm256_loadu_ps(p)));
    return _mm512_castpd_ps(_mm512_insertf64x4(first, _mm256_castps_pd(_mm256_loadu_ps(p + t->pair_distance)), 1));
}

INLINE void store_placed(const struct register_tile *t, float *p, int v, const int width, vec x) {
    p += t->unit_offset[v];
    if (width >= UNIT) {
        store(p, x);
        return;
    }
    _mm256_storeu_ps(p, _mm512_castps512_ps256(x));
    _mm256_storeu_ps(p + t->pair_distance, _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1)));
}
#else
INLINE size_t vector_offset(const struct register_tile *t, int v, const int width) {
    size_t in_unit = (size_t)(v % UNIT_VECTORS * LANES);
    if (width < UNIT)
        in_unit = in_unit / (UNIT / 2) * t->pair_distance + in_unit % (UNIT / 2);
    return t->unit_offset[v / UNIT_VECTORS] + in_unit;
}

INLINE vec load_placed(const struct register_tile *t, const float *p, int v, const int width) {
    return load(p + vector_offset(t, v, width));
}

INLINE void store_placed(const struct register_tile *t, float *p, int v, const int width, vec x) {
    store(p + vector_offset(t, v, width), x);
}
#endif

/* Adds bias and residual, or the sums of previous blocks. */
INLINE void add_previous(const struct register_tile *t, vec *sum, const int vectors, const int width, int o) {
    const float *previous = previous_sums(t->bias, t->residual, t->out);
    if (t->bias) {
        vec bias = splat(t->bias[o]);
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] += bias;
    }
    if (previous)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] += load_placed(t, previous + (size_t)o * t->pitch, v, width);
}

/* Applies the activation and stores the sums. */
INLINE void store_sums(const struct register_tile *t, vec *sum, const int vectors, const int width, float *out) {
    activate_sums(sum, vectors, t->act);
    UNROLL for (int v = 0; v < vectors; v++)
        store_placed(t, out, v, width, sum[v]);
}

/* `units`, `width` and `segments` are constants where this is called. */
INLINE void columns_tile(const struct register_tile *tile, const int units, const int width,
                         const int segments) {
    const struct register_tile copy = *tile, *t = &copy;
    const int vectors = units * UNIT_VECTORS, row = width > LANES ? width / LANES : 1;
    const vec none = {0};
    const uint32_t *starts = t->starts + (size_t)t->channels.begin * (size_t)segments;
    const uint32_t mean = mean_length(starts, (t->channels.end - t->channels.begin) * segments);
    uint32_t not_first[LANES], not_last[LANES];
    row_masks(width, not_first, not_last);
    for (int o = t->channels.begin; o < t->channels.end; o++) {
        const uint32_t *start = t->starts + (size_t)o * (size_t)segments;
        struct nonzeros nonzeros = {t->values + *start, t->offsets + *start};
        float *out = t->out + (size_t)o * t->pitch;
        vec sum[UNITS_MAX * UNIT_VECTORS];
        if (vectors <= 4)
            prefetch_ahead(nonzeros, mean * (uint32_t)segments);
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] = none;
        nonzeros = accumulate(sum, units, t->packed, UNIT, UNIT, nonzeros, start[1] - start[0]);
        UNROLL for (int v = vectors - 1; v >= 0; v--) {
            sum[v] = one_before(v % row ? sum[v - 1] : none, sum[v]);
            if (width < LANES)
                sum[v] = masked(sum[v], not_first);
        }
        nonzeros = accumulate(sum, units, t->packed, UNIT, UNIT, nonzeros, start[2] - start[1]);
        add_previous(t, sum, vectors, width, o);
        if (segments > 2) {
            vec last[UNITS_MAX * UNIT_VECTORS];
            UNROLL for (int v = 0; v < vectors; v++)
                last[v] = none;
            accumulate(last, units, t->packed, UNIT, UNIT, nonzeros, start[3] - start[2]);
            UNROLL for (int v = 0; v < vectors; v++) {
                vec shifted = one_after(last[v], (v + 1) % row ? last[v + 1] : none);
                sum[v] += width < LANES ? masked(shifted, not_last) : shifted;
            }
        }
        store_sums(t, sum, vectors, width, out);
    }
}

#define COLUMNS_CASE(n) \
    case n: \
        columns_tile(t, n, ROW_WIDTH, ROW_SEGMENTS); \
        break;

/* Defines the kernel of one width and number of segments, conv_columns_WIDTH_SEGMENTS; the exporter adds a line for
   each that the network needs. COLUMNS_WIDTH_SEGMENTS_UNITS names its tile sizes, as in tile_sizes.h. */
#define COLUMNS_KERNEL(width, segments) \
    static void columns_##width##_##segments(const struct register_tile *t) { \
        enum { ROW_WIDTH = width, ROW_SEGMENTS = segments }; \
        switch (t->units) { COLUMNS_##width##_##segments##_UNITS(COLUMNS_CASE) } \
    } \
    static void pack_columns_##width##_##segments(const struct conv *c, const float *arena, const float *image, int images, \
                                               struct range channels, int y0, int rows, float *dst) { \
        (void)arena, (void)images; /* tiles are of one image */ \
        pack_columns(c, image, channels, y0, rows, dst, width, segments == 2 ? 2 : 1); \
    } \
    static void conv_columns_##width##_##segments(const struct job *j, const struct conv_columns *c) { \
        const struct method columns = {pack_columns_##width##_##segments, columns_##width##_##segments, segments, \
                                       c->padding_floats, c->pair_distance, 0}; \
        run_conv(&c->conv, j, &columns); \
    }

#endif
