/* Sparse convolution of filters with several columns, for rows of any width: (I, H, W) -> (O, P, Q) at stride 1 or 2, with
   I / groups input channels for each output channel:

       for o < O, y < P, x < Q:
           out[o][y][x] = act(bias[o] + residual[o][y][x] + sum over the nonzeros (i, ky, kx) of channel o of
                              weight[o][i][ky][kx] * in[i][y * stride + ky * dilation - top]
                                                       [x * stride + kx * dilation - left])

   The filter's columns are grouped by their shift s in output pixels, counted from the leftmost column. This is done as

       for o < O, s < S, y < P, x < Q + S:
           sum[s][y][x] = sum over the nonzeros (i, ky, kx) of channel o and shift s
       for o < O, y < P, x < Q:
           out[o][y][x] = act(bias[o] + residual[o][y][x] + sum over s of sum[s][y][x + s])

   Products are summed before they are shifted, so one copy of each input row serves all columns; at stride 2 there is
   one of its even pixels and one of its odd ones. A packed row is whole units and begins with the zeros of the left
   padding, so the rows of the filter shift by whole units, which is what offsets count. Sums of all shifts share their
   registers: those of the largest shift are summed first, moved by one pixel, then those of the next one are added. At
   the end of a row they take garbage from the next row, S - 1 pixels of each row are never stored. Wide rows are computed
   in tiles of columns. A segment holds the nonzeros of an output channel and a shift, the largest shift first.

   Rows of less than half a unit are packed in pairs, row y next to row y + pairs, if the zeros of a row's left padding
   serve as the right padding of the row before it. */
#ifndef ROBUST_EDGE_CONV_STRIPS_H
#define ROBUST_EDGE_CONV_STRIPS_H

#include "conv_tiles.h"
#include "nonzeros.h"
#include "pack_strips.h"
#include "tile_sizes.h"

#define STRIP_UNITS_MAX (UNITS_MAX > ROW_UNITS_MAX ? UNITS_MAX : ROW_UNITS_MAX)

#ifndef STRIPS_UNITS
#define STRIPS_UNITS(EACH) EACH(1)
#endif

struct conv_strips {
    struct conv conv;
    int columns;   /* output columns of a tile */
    int row_units; /* of a packed row */
    int segments;  /* of an output channel in a block: S */
    int paired;    /* units hold two rows; tiles are whole planes, and conv.rows counts pairs */
};

/* A register tile: whole rows of a tile. */
struct strip_tile {
    const float *packed;
    const value *values;
    const uint16_t *offsets;
    const uint32_t *starts;
    const float *bias;       /* first block: of the group's channels, else NULL */
    const float *residual;   /* first block: of the tile's first pixel, or NULL */
    float *out;              /* last block: the tile's first pixel, else NULL */
    float *partial;          /* sums between blocks, of output channel 0 */
    size_t pitch;            /* floats from one output channel to the next */
    size_t partial_pitch;
    int units, segments;
    int whole;               /* all lanes are pixels of the tile */
    int pair_distance;       /* floats from a row to the row in the second half of its unit; 0: rows are not paired */
    struct range channels;
    const struct activation *act;
    int pixel[STRIP_UNITS_MAX * UNIT_VECTORS]; /* of each vector, from the tile's first pixel */
    int lanes[STRIP_UNITS_MAX * UNIT_VECTORS]; /* of each vector that are pixels of the tile */
    int second[STRIP_UNITS_MAX * UNIT_VECTORS]; /* where those of the second row end, if rows share a vector */
};

/* Adds to `sum` the pixels of vector `v` of a tile, or stores them; the pixels of an output channel begin at `p`. A
   vector of paired rows has its second row in the lanes from HALF on. */
INLINE vec add_pixels(const struct strip_tile *t, const float *p, int v, vec sum) {
#if LANES == UNIT
    if (t->pair_distance) {
        sum += load_lanes(p + t->pixel[v], lanes_between(0, t->lanes[v]));
        return sum + load_lanes(p + t->pixel[v] + t->pair_distance - HALF, lanes_between(HALF, t->second[v]));
    }
#endif
    return sum + load(p + t->pixel[v]);
}

INLINE void store_pixels(const struct strip_tile *t, float *p, int v, vec sum) {
    store_lanes(p + t->pixel[v], sum, t->lanes[v]);
#if LANES == UNIT
    if (t->pair_distance)
        _mm512_mask_storeu_ps(p + t->pixel[v] + t->pair_distance - HALF, lanes_between(HALF, t->second[v]).mask, sum);
#endif
}

/* Adds bias and residual in the first block, in the others the sums of the blocks before. */
INLINE void add_to_strip(const struct strip_tile *t, vec *sum, const int vectors, int o) {
    if (t->bias) {
        vec bias = splat(t->bias[o]);
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] += bias;
        if (t->residual)
            UNROLL for (int v = 0; v < vectors; v++)
                sum[v] = add_pixels(t, t->residual + (size_t)o * t->pitch, v, sum[v]);
    } else
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] += load(t->partial + (size_t)o * t->partial_pitch + v * LANES);
}

/* Applies the activation and stores the pixels. */
INLINE void store_strip(const struct strip_tile *t, vec *sum, const int vectors, int o) {
    float *out = t->out + (size_t)o * t->pitch;
    activate_sums(sum, vectors, t->act);
    if (t->whole) {
        UNROLL for (int v = 0; v < vectors; v++)
            store(out + t->pixel[v], sum[v]);
    } else
        UNROLL for (int v = 0; v < vectors; v++)
            store_pixels(t, out, v, sum[v]);
}

/* `units` is a constant where this is called. */
INLINE void strip_register_tile(const struct strip_tile *tile, const int units) {
    const struct strip_tile copy = *tile, *t = &copy;
    const int vectors = units * UNIT_VECTORS, segments = t->segments;
    const vec none = {0};
    const uint32_t *starts = t->starts + (size_t)t->channels.begin * (size_t)segments;
    const uint32_t mean = mean_length(starts, (t->channels.end - t->channels.begin) * segments);
    for (int o = t->channels.begin; o < t->channels.end; o++) {
        const uint32_t *start = t->starts + (size_t)o * (size_t)segments;
        struct nonzeros nonzeros = {t->values + *start, t->offsets + *start};
        vec sum[STRIP_UNITS_MAX * UNIT_VECTORS];
        prefetch_ahead(nonzeros, mean * (uint32_t)segments);
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] = none;
        for (int s = 0; s < segments; s++) {
            if (s > 0)
                UNROLL for (int v = 0; v < vectors; v++)
                    sum[v] = one_after(sum[v], v + 1 < vectors ? sum[v + 1] : none);
            nonzeros = accumulate(sum, units, t->packed, UNIT, UNIT, nonzeros, start[s + 1] - start[s]);
        }
        add_to_strip(t, sum, vectors, o);
        if (t->out)
            store_strip(t, sum, vectors, o);
        else
            UNROLL for (int v = 0; v < vectors; v++)
                store(t->partial + (size_t)o * t->partial_pitch + v * LANES, sum[v]);
    }
}

#define STRIPS_CASE(n) \
    case n: \
        strip_register_tile(t, n); \
        break;

PRIVATE void strips_kernel(const struct strip_tile *t) {
    switch (t->units) { STRIPS_UNITS(STRIPS_CASE) }
}

/* Where vector `v` of a register tile lies in the plane, and which lanes of it are pixels of the tile. `y` is the first
   row of the register tile. */
PRIVATE void place_vector(const struct conv_strips *r, struct strip_tile *t, int v, int y, int columns) {
    const struct conv *c = &r->conv;
    const int row_vectors = r->row_units * UNIT_VECTORS, pairs = r->paired ? c->rows : 0;
    const int half = r->paired ? v % row_vectors * LANES / HALF : 0, x = v % row_vectors * LANES - half * HALF;
    const int row = v / row_vectors + half * pairs, left = columns - x;
    const int inside = !r->paired || y + row < c->out.height;
    t->pixel[v] = row * c->out.width + x;
    t->lanes[v] = left < 0 || !inside ? 0 : left < LANES ? left : LANES;
    t->second[v] = y + row + pairs < c->out.height ? HALF + columns : 0;
    t->pair_distance = pairs * c->out.width;
}

/* Whether the kernel is compiled for tiles of so many units. */
#define STRIPS_BIT(n) | 1u << n
PRIVATE int has_strips_kernel(int units) { return (0u STRIPS_UNITS(STRIPS_BIT)) >> units & 1; }

/* The rows of the register tile that begins at row `begin` of `rows`: nearly a `tiles`-th of them or, where many threads
   share a plane and no kernel is compiled for that size, as many as a kernel is compiled for; there is one for one row.
   The exporter computes the same sizes for a few threads (strip_units in kernels/conv_strips.py). */
PRIVATE struct range strip_tile_rows(const struct conv_strips *r, int begin, int rows, int most) {
    const int left = rows - begin, tiles = (left + most - 1) / most;
    struct range range = {begin, begin + left / tiles};
    while (!has_strips_kernel((range.end - range.begin) * r->row_units))
        range.end--;
    return range;
}

/* Splits a tile of `rows` rows and `columns` columns into register tiles of whole rows. `tile` is that of the first row. */
PRIVATE void run_strip_tiles(const struct conv_strips *r, const struct strip_tile *tile, int rows, int columns) {
    const int width = r->conv.out.width, most = UNITS_MAX / r->row_units > 0 ? UNITS_MAX / r->row_units : 1;
    struct range range = {0, 0};
    while (range.end < rows) {
        struct strip_tile t = *tile;
        range = strip_tile_rows(r, range.end, rows, most);
        size_t first = (size_t)range.begin * (size_t)width, units = (size_t)(range.begin * r->row_units);
        t.units = (range.end - range.begin) * r->row_units;
        t.whole = columns == r->row_units * UNIT;
        t.packed += units * UNIT;
        t.partial += units * UNIT;
        t.residual = t.residual ? t.residual + first : NULL;
        t.out = t.out ? t.out + first : NULL;
        for (int v = 0; v < t.units * UNIT_VECTORS; v++)
            place_vector(r, &t, v, range.begin, columns);
        strips_kernel(&t);
    }
}

/* What one thread computes of a layer: of some images some rows (or pairs of rows) of some channels of some groups. */
struct strip_work {
    struct range images, rows, groups, channels;
};

PRIVATE struct strip_work strip_work(const struct conv_strips *r, const struct job *j) {
    const struct conv *c = &r->conv;
    const int per_group = c->out.channels / c->groups;
    struct strip_work work = {
        {0, j->images}, {0, r->paired ? c->rows : c->out.height}, {0, c->groups}, {0, per_group}};
    if (!r->paired && splits_rows(j, &c->out))
        work.rows = rows_of_thread(j, &c->out);
    else if (j->images % j->threads == 0)
        work.images = split_evenly(j->images, j->thread, j->threads);
    else if (c->groups > 1)
        work.groups = split_evenly(c->groups, j->thread, j->threads);
    else
        work.channels = split_evenly(per_group, j->thread, j->threads);
    return work;
}

/* A tile of some rows of an image, or of pairs of rows, from column `x0` on. */
PRIVATE void run_strip(const struct conv_strips *r, const struct job *j, const struct strip_work *work, int image,
                       struct range band, int x0) {
    const struct conv *c = &r->conv;
    re_context *ctx = j->context;
    const int in_group = c->in.channels / c->groups, out_group = c->out.channels / c->groups;
    const int blocks = (in_group + c->block - 1) / c->block, y0 = band.begin, rows = band.end - band.begin;
    const int columns = c->out.width - x0 < r->columns ? c->out.width - x0 : r->columns;
    const float *in = ctx->arena + c->in.offset + (size_t)image * c->in.image;
    float *packed = ctx->scratch + (size_t)j->thread * SCRATCH_FLOATS;
    for (int g = work->groups.begin; g < work->groups.end; g++)
        for (int b = 0; b < blocks; b++) {
            int first = b * c->block, count = in_group - first < c->block ? in_group - first : c->block;
            struct range channels = {g * in_group + first, g * in_group + first + count};
            size_t pixel = (size_t)image * c->out.image + (size_t)(g * out_group) * (size_t)c->out.pitch +
                           (size_t)y0 * (size_t)c->out.width + (size_t)x0;
            struct strip_tile t;
            if (r->paired)
                pack_paired_strip(c, in, channels, rows + c->extra_rows, rows, r->columns + r->segments - 1, packed);
            else if (c->copies)
                pack_strip(c, in, channels, y0, x0, rows + c->extra_rows, r->row_units, r->columns + r->segments - 1,
                           packed);
            t.packed = c->copies ? packed : in + (size_t)channels.begin * (size_t)c->in.pitch + (size_t)y0 * UNIT;
            t.values = value_section(ctx, c->values);
            t.offsets = ctx->offsets + c->offsets;
            t.segments = r->segments;
            t.starts = ctx->starts + c->starts + (size_t)(g * blocks + b) * (size_t)(out_group * r->segments);
            t.bias = b == 0 ? float_section(ctx, c->bias) + g * out_group : NULL;
            t.residual = b == 0 && c->residual != NO_TENSOR ? ctx->arena + c->residual + pixel : NULL;
            t.out = b == blocks - 1 ? ctx->arena + c->out.offset + pixel : NULL;
            t.partial = packed + c->block * c->copies * c->copy_floats;
            t.pitch = (size_t)c->out.pitch;
            t.partial_pitch = (size_t)(c->rows * r->row_units * UNIT);
            t.channels = work->channels;
            t.act = &c->act;
            run_strip_tiles(r, &t, rows, columns);
        }
}

/* Rows are taken in bands of nearly equal size, as large as the exporter allows. */
PRIVATE void conv_strips(const struct job *j, const struct conv_strips *r) {
    const struct conv *c = &r->conv;
    const struct strip_work work = strip_work(r, j);
    const int rows = work.rows.end - work.rows.begin, bands = (rows + c->rows - 1) / c->rows;
    for (int image = work.images.begin; image < work.images.end; image++)
        for (int b = 0; b < bands; b++) {
            struct range band = split_evenly(rows, b, bands);
            band.begin += work.rows.begin;
            band.end += work.rows.begin;
            for (int x0 = 0; x0 < c->out.width; x0 += r->columns)
                run_strip(r, j, &work, image, band, x0);
        }
}

#endif
