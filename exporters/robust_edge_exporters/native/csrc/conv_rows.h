/* Sparse convolution of codes, as in conv_blocks.h, that reads one copy of its input rows (copy_rows.h): less
   memory than the shifted copies that conv_blocks.h reads, which then stays in the first-level cache, but vectors that
   are not aligned.

   The pixels of a tile follow each other as those of the copy do, with the padding between rows. Where the kernel writes
   them, and reads the residual, is a buffer for one word of channels; its rows are then copied to the plane.

   Where copied rows are whole units, vectors can be aligned: the blocks of a filter column read the pixels of another
   column, so that the sums are those of pixels to their left. Between columns, from the last to the first, all sums are
   shifted by a pixel to the left, whose place the padding leaves. Register tiles then are whole rows, or a plane
   whose rows are half a unit, of which vectors of odd filter rows are not aligned. At stride 2 the blocks of two filter
   columns share a segment, and read the copies of both parities. */
#ifndef ROBUST_EDGE_CONV_ROWS_H
#define ROBUST_EDGE_CONV_ROWS_H

#include "conv_blocks.h"
#include "copy_rows.h"

struct conv_rows {
    struct conv_words words; /* of its struct conv, the fields of packed copies are not used */
    struct copied_rows copy; /* of each plane */
    int plane_floats;        /* from the copies of a plane to those of the next */
    int columns;             /* segments of an output channel, between which sums are shifted by a pixel */
    int step;                /* register tiles are multiples of so many units */
};

#ifndef COLUMNS_CODES_UNITS
#define COLUMNS_CODES_UNITS(EACH) EACH(1)
#endif

#define COLUMNS_CODES_CASE(n) \
    case n: \
        blocks_tile(t, n, columns); \
        break;

PRIVATE void columns_codes_kernel(const struct register_tile *t) {
    const int columns = ((const struct conv_rows *)(const void *)t->conv)->columns;
    switch (t->units) { COLUMNS_CODES_UNITS(COLUMNS_CODES_CASE) }
}

/* A part of a row of the output plane, and where it lies in a register tile. */
struct row_part {
    size_t plane, tile;
    int count;
};

/* The parts of rows in the pixels [begin, end) of a tile whose first row is y0; returns their number. */
PRIVATE int row_parts(const struct conv_rows *c, int y0, int rows, int begin, int end, struct row_part *parts) {
    int found = 0;
    const int width = c->words.conv.out.width, pitch = c->copy.pitch;
    for (int y = begin / pitch; y < rows && y * pitch < end; y++) {
        const int first = begin > y * pitch ? begin : y * pitch;
        const int last = end < y * pitch + width ? end : y * pitch + width;
        if (first >= last)
            continue;
        parts[found].plane = (size_t)((y0 + y) * width + first - y * pitch);
        parts[found].tile = (size_t)(first - begin);
        parts[found++].count = last - first;
    }
    return found;
}

/* All output channels of a register tile, word by word; `t` has the planes of the image and of the residual. */
PRIVATE void rows_words(struct register_tile *t, struct range words, const struct row_part *parts, int count,
                        conv_kernel *kernel) {
    float out[TILE_UNITS * UNIT], added[TILE_UNITS * UNIT];
    float *planes = t->out;
    const float *residuals = t->residual;
    const size_t pitch = t->pitch;
    t->pitch = 0;
    t->out = out;
    t->residual = residuals ? added : NULL;
    for (int q = words.begin; q < words.end; q++) {
        const size_t plane = (size_t)q * pitch;
        t->channels.begin = q;
        t->channels.end = q + 1;
        for (int i = 0; residuals && i < count; i++)
            copy_exactly(added + parts[i].tile, residuals + plane + parts[i].plane, parts[i].count);
        kernel(t);
        for (int i = 0; i < count; i++)
            copy_exactly(planes + plane + parts[i].plane, out + parts[i].tile, parts[i].count);
    }
    t->out = planes;
    t->residual = residuals;
    t->pitch = pitch;
}

/* The output rows from y0 on, of which there are `rows`, of an image and a group. */
PRIVATE void rows_tile(const struct job *j, const struct conv_rows *c, int image, int group, struct range words, int y0,
                       int rows, int most, conv_kernel *kernel) {
    const struct conv *v = &c->words.conv;
    const struct words w = {c->words.fill ^ FLIP, FLIP};
    const re_context *ctx = j->context;
    const int in_group = v->in.channels / v->groups, out_group = v->out.channels / v->groups;
    const int pixels = (rows - 1) * c->copy.pitch + v->out.width, units = (pixels + UNIT - 1) / UNIT;
    const int step = c->step, steps = (units + step - 1) / step, tiles = (steps + most / step - 1) / (most / step);
    const float *in = ctx->arena + v->in.offset + (size_t)image * v->in.image;
    const size_t out = (size_t)image * v->out.image + (size_t)(group * out_group) * (size_t)v->out.pitch;
    float *copied = ctx->scratch + (size_t)j->thread * SCRATCH_FLOATS;
    struct row_part parts[TILE_UNITS * UNIT / 2];
    struct register_tile t;
    for (int k = 0; k < in_group; k++) {
        const float *plane = in + (size_t)(group * in_group + k) * (size_t)v->in.pitch;
        float *to = copied + (ptrdiff_t)k * c->plane_floats;
        if (v->stride_x == 1)
            copy_rows(&c->copy, &v->in, plane, y0, rows, 1, w, to);
        else
            copy_rows(&c->copy, &v->in, plane, y0, rows, 2, w, to);
    }
    t.context = ctx;
    t.conv = v;
    t.group = group;
    t.values = value_section(ctx, v->values);
    t.offsets = ctx->offsets + v->offsets;
    t.starts = ctx->starts + v->starts + (size_t)(group * out_group);
    t.out = ctx->arena + v->out.offset + out;
    t.residual = v->residual == NO_TENSOR ? NULL : ctx->arena + v->residual + out;
    t.pitch = (size_t)v->out.pitch;
    t.offset_scale = 1;
    for (int i = 0; i < tiles; i++) {
        const struct range r = split_evenly(steps, i, tiles);
        const int begin = r.begin * step * UNIT, end = r.end * step * UNIT;
        t.units = (r.end - r.begin) * step;
        t.packed = copied + begin;
        for (int u = 0; u < t.units; u++)
            t.unit_offset[u] = (size_t)u * UNIT;
        rows_words(&t, words, parts, row_parts(c, y0, rows, begin, end, parts), kernel);
    }
}

/* Register tiles have `most` units at most. */
INLINE void each_rows_tile(const struct job *j, const struct conv_rows *c, int most, conv_kernel *kernel) {
    const struct conv *v = &c->words.conv;
    const int bands = (v->out.height + v->rows - 1) / v->rows;
    const struct work work = thread_work(v, j, bands * j->images, 1);
    for (int i = work.tiles.begin; i < work.tiles.end; i++) {
        const int y0 = i % bands * v->rows, rows = v->out.height - y0 < v->rows ? v->out.height - y0 : v->rows;
        for (int g = work.groups.begin; g < work.groups.end; g++)
            rows_tile(j, c, i / bands, g, work.channels, y0, rows, most, kernel);
    }
}

PRIVATE void conv_rows(const struct job *j, const struct conv_rows *c) {
    each_rows_tile(j, c, CODES_UNITS_MAX, blocks_kernel);
}

PRIVATE void conv_columns_codes(const struct job *j, const struct conv_rows *c) {
    each_rows_tile(j, c, TILE_UNITS, columns_codes_kernel);
}

#endif
