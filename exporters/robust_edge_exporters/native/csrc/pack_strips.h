/* Packing for strips (conv_strips.h): the rows of a tile of columns, for each channel of a block:

       for k < K, s < copies, r < rows, i < row_units * UNIT:
           dst[k][s][r][i] = in[k][(y0 + r) * stride + dy(s)][(x0 + i) * stride + dx(s)]

   and 0 where this is outside the plane, or i >= used. At stride 2 two copies of the same rows, of their even and of
   their odd pixels, are made of one reading of them. Paired rows share a unit: its second half holds the row that lies
   `distance` rows below that of its first half. */
#ifndef ROBUST_EDGE_PACK_STRIPS_H
#define ROBUST_EDGE_PACK_STRIPS_H

#include <stddef.h>
#include <string.h>

#include "conv.h"
#include "pack_rows.h"
#include "vector.h"

#define ROW_UNITS_MAX 6 /* units of a packed row; pack_strip has a case for each */
#define HALF (UNIT / 2)
#define COPIES_MAX 4    /* stride phases of rows times those of columns */

/* One copy, the same for all channels. */
struct strip_copy {
    struct range rows; /* that are inside the plane */
    ptrdiff_t first;   /* from a plane's first pixel to the pixel that belongs to the first of these rows */
    int pair;          /* the next copy holds the pixels between those of this one */
    struct lanes inside[ROW_UNITS_MAX * UNIT_VECTORS];
};

/* Copies `rows` rows, every other pixel of them at stride 2; `units` and `stride` are constants where this is called. */
INLINE void pack_strip_rows(const struct strip_copy *copy, float *to, const float *from, ptrdiff_t step, int rows,
                            const int units, const int stride) {
    for (int r = 0; r < rows; r++, from += step, to += units * UNIT)
        UNROLL for (int v = 0; v < units * UNIT_VECTORS; v++) {
            vec pixels, odd;
            if (stride == 1) {
                store(to + v * LANES, load_lanes(from + v * LANES, copy->inside[v]));
                continue;
            }
            deinterleave(from + 2 * v * LANES, &pixels, &odd);
            store(to + v * LANES, keep_lanes(pixels, copy->inside[v]));
        }
}

/* The same for a copy and the next one, of odd pixels. */
INLINE void pack_strip_pairs(const struct strip_copy *copy, float *to, float *odd_to, const float *from, ptrdiff_t step,
                             int rows, const int units) {
    for (int r = 0; r < rows; r++, from += step, to += units * UNIT, odd_to += units * UNIT)
        UNROLL for (int v = 0; v < units * UNIT_VECTORS; v++) {
            vec even, odd;
            deinterleave(from + 2 * v * LANES, &even, &odd);
            store(to + v * LANES, keep_lanes(even, copy[0].inside[v]));
            store(odd_to + v * LANES, keep_lanes(odd, copy[1].inside[v]));
        }
}

/* The rows of one channel that are inside the plane; `units` is a constant where this is called. */
INLINE void pack_strip_units(const struct strip_copy *copy, float *to, float *odd_to, const float *from, ptrdiff_t step,
                             int stride, const int units) {
    const int rows = copy->rows.end - copy->rows.begin;
    if (stride == 1)
        pack_strip_rows(copy, to, from, step, rows, units, 1);
    else if (copy->pair)
        pack_strip_pairs(copy, to, odd_to, from, step, rows, units);
    else
        pack_strip_rows(copy, to, from, step, rows, units, 2);
}

INLINE void zero_rows(float *to, int floats) {
    if (floats > 0)
        memset(to, 0, (size_t)floats * sizeof *to);
}

/* Finds the rows and lanes of copy `s` that are inside the plane. */
PRIVATE void find_strip_copy(const struct conv *c, int s, int y0, int x0, int rows, int units, int used,
                             struct strip_copy *copy) {
    const int stride = c->stride_x, y = y0 * stride + c->shifts[s].dy, x = x0 * stride + c->shifts[s].dx;
    const struct range columns = inside(x, stride, c->in.width, used);
    copy->rows = inside(y, stride, c->in.height, rows);
    copy->first = (ptrdiff_t)(y + copy->rows.begin * stride) * c->in.width + x;
    copy->pair = stride == 2 && s + 1 < c->copies && c->shifts[s + 1].dy == c->shifts[s].dy;
    for (int v = 0; v < units * UNIT_VECTORS; v++)
        copy->inside[v] = lanes_between(columns.begin - v * LANES, columns.end - v * LANES);
}

/* Half a unit: four floats at a time, those where the mask is 0 become zeros. */
INLINE void pack_half(float *to, const float *from, const uint32_t *mask) {
    UNROLL for (int i = 0; i < HALF; i += 4) {
        uint32_t words[4];
        memcpy(words, from + i, sizeof words);
        UNROLL for (int k = 0; k < 4; k++)
            words[k] &= mask[i + k];
        memcpy(to + i, words, sizeof words);
    }
}

/* Half a unit of a copy, at stride 2 perhaps of the next one too, whose masks follow. */
INLINE void pack_half_row(const struct strip_copy *copy, float *to, float *odd_to, const float *from, int stride,
                          const uint32_t *masks) {
    float even[HALF], odd[HALF];
    if (stride == 1) {
        pack_half(to, from, masks);
        return;
    }
    deinterleave_row(from, HALF, even, odd);
    pack_half(to, even, masks);
    if (copy->pair)
        pack_half(odd_to, odd, masks + HALF);
}

/* Paired rows of all channels, for tiles of whole planes. */
PRIVATE void pack_paired_strip(const struct conv *c, const float *image, struct range channels, int rows, int distance,
                               int used, float *dst) {
    const int stride = c->stride_x;
    struct strip_copy copies[COPIES_MAX][2]; /* of the first and the second halves of units */
    uint32_t masks[COPIES_MAX][HALF];
    for (int s = 0; s < c->copies; s++) {
        const struct range in = inside(c->shifts[s].dx, stride, c->in.width, used < HALF ? used : HALF);
        for (int half = 0; half < 2; half++)
            find_strip_copy(c, s, half * distance, 0, rows, 0, 0, &copies[s][half]);
        for (int i = 0; i < HALF; i++)
            masks[s][i] = i >= in.begin && i < in.end ? 0xffffffffu : 0;
    }
    for (int k = channels.begin; k < channels.end; k++, dst += c->copies * c->copy_floats)
        for (int s = 0; s < c->copies; s += 1 + copies[s][0].pair)
            for (int half = 0; half < 2; half++) {
                const struct strip_copy *copy = &copies[s][half];
                const float *from = image + (size_t)k * (size_t)c->in.pitch + copy->first;
                float *to = dst + s * c->copy_floats + half * HALF;
                for (int r = 0; r < rows; r++, to += UNIT) {
                    if (r < copy->rows.begin || r >= copy->rows.end) {
                        memset(to, 0, HALF * sizeof *to);
                        if (copy->pair)
                            memset(to + c->copy_floats, 0, HALF * sizeof *to);
                        continue;
                    }
                    pack_half_row(copy, to, to + c->copy_floats, from, stride, masks[s]);
                    from += (ptrdiff_t)stride * c->in.width;
                }
            }
}

#define PACK_UNITS(n) \
    case n: \
        pack_strip_units(copy, to, to + c->copy_floats, from, step, c->stride_x, n); \
        break;

PRIVATE void pack_strip(const struct conv *c, const float *image, struct range channels, int y0, int x0, int rows,
                        int units, int used, float *dst) {
    const ptrdiff_t step = (ptrdiff_t)c->stride_x * c->in.width;
    const int floats = units * UNIT;
    struct strip_copy copies[COPIES_MAX];
    for (int s = 0; s < c->copies; s++)
        find_strip_copy(c, s, y0, x0, rows, units, used, &copies[s]);
    for (int k = channels.begin; k < channels.end; k++, dst += c->copies * c->copy_floats)
        for (int s = 0; s < c->copies; s += 1 + copies[s].pair) {
            const struct strip_copy *copy = &copies[s];
            const float *from = image + (size_t)k * (size_t)c->in.pitch + copy->first;
            float *to = dst + s * c->copy_floats;
            for (int i = 0; i <= copy->pair; i++) {
                zero_rows(to + i * c->copy_floats, copy->rows.begin * floats);
                zero_rows(to + i * c->copy_floats + copy->rows.end * floats, (rows - copy->rows.end) * floats);
            }
            to += copy->rows.begin * floats;
            switch (units) { PACK_UNITS(1) PACK_UNITS(2) PACK_UNITS(3) PACK_UNITS(4) PACK_UNITS(5) PACK_UNITS(6) }
        }
}

#endif
