/* The loops around the kernels that pack their input: sparse, columns, dense.

       for each tile of output rows (of one image, or of several small ones):
           for each group, for each block of its input channels:
               pack the rows that the tile reads, unless they are read in place
               for each register tile: the kernel adds the block's products to the sums of all output channels

   Sums stay in the output tensor between blocks. */
#ifndef ROBUST_EDGE_CONV_TILES_H
#define ROBUST_EDGE_CONV_TILES_H

#include "conv.h"
#include "values.h"
#include "vector.h"

/* Output channels of a dense register tile, by which values are laid out and channels are split among threads. */
#define DENSE_CHANNELS 6

/* Units of a row of pixels that some kernels keep in one register tile, whatever fits registers. */
#define ROW_UNITS 4

/* Units of sums of codes that fit the register file of AVX-512: beside them products need the weights and the pixels. */
#define WIDE_UNITS 28
#if LANES == 16
#define CODES_UNITS_MAX WIDE_UNITS
#else
#define CODES_UNITS_MAX UNITS_MAX
#endif
#define TILE_UNITS (CODES_UNITS_MAX < ROW_UNITS ? ROW_UNITS : CODES_UNITS_MAX)

/* A register tile: up to TILE_UNITS units of pixels, for a range of output channels. */
struct register_tile {
    const re_context *context;    /* this, conv and group: for what only some kernels need */
    const struct conv *conv;
    int group;
    const float *packed;          /* the input that offsets of the tile's first unit count from */
    const value *values;          /* of the block */
    const uint16_t *offsets;
    const uint32_t *starts;       /* of the segments of the block's output channels; NULL for dense values */
    const float *bias;            /* first block: initial sums, else NULL */
    float *out;                   /* output channel 0 of the group, image 0 */
    const float *residual;        /* first block: added to the initial sums, or NULL; may be out itself */
    size_t pitch;                 /* floats from one output channel to the next */
    struct range channels;        /* output channels of the group */
    size_t offset_scale;          /* images of the tile, since offsets in floats count those of one image */
    int units, taps;              /* taps: rows of dense values in the block */
    size_t unit_offset[TILE_UNITS]; /* of each unit, or of the first row of its pair, in an output plane */
    size_t pair_distance;         /* from a unit's first half to its second */
    const struct activation *act; /* last block, else none */
};

typedef void conv_kernel(const struct register_tile *);
typedef void pack_rows(const struct conv *, const float *arena, const float *image, int images, struct range channels,
                       int y0, int rows, float *dst);

/* A kind of convolution: how it packs its input, and how it computes a register tile. */
struct method {
    pack_rows *pack;
    conv_kernel *kernel;
    int segments;       /* of an output channel in a block; 0: values are dense */
    int padding_floats; /* in place: floats of padding above a tile's first row, where offsets count from */
    int pair_distance;  /* pixels between the two rows that share a packed unit; 0: units are consecutive pixels */
    int units;          /* of a register tile, at most; 0: UNITS_MAX */
};

/* What one thread computes of a layer: its tiles (bands of rows of one or several images), its groups, and its output
   channels of a group. Only one of the three is split, the tiles if each writes its own pixels only. */
struct work {
    struct range tiles, groups, channels;
};

PRIVATE struct work thread_work(const struct conv *c, const struct job *j, int tiles, int apart) {
    int per_group = c->out.channels / c->groups;
    struct work work = {{0, tiles}, {0, c->groups}, {0, per_group}};
    if (apart && (tiles % j->threads == 0 || tiles >= 4 * j->threads))
        work.tiles = split_evenly(tiles, j->thread, j->threads);
    else if (c->groups > 1)
        work.groups = split_evenly(c->groups, j->thread, j->threads);
    else {
        struct range blocks = split_evenly((per_group + DENSE_CHANNELS - 1) / DENSE_CHANNELS, j->thread, j->threads);
        work.channels.begin = blocks.begin * DENSE_CHANNELS;
        work.channels.end = blocks.end * DENSE_CHANNELS < per_group ? blocks.end * DENSE_CHANNELS : per_group;
    }
    return work;
}

/* Splits the pixels of a tile into register tiles of nearly equal size, at multiples of `step` units, and runs the
   kernel on each. The exporter computes the same sizes (register_tile_units in tiling.py). */
PRIVATE void run_register_tiles(const struct conv *c, struct register_tile *t, int floats, int step, size_t origin,
                                const struct method *method) {
    const float *packed = t->packed;
    int units = (floats + UNIT - 1) / UNIT, steps = units / step, most = (method->units ? method->units : UNITS_MAX) / step;
    int tiles = (steps + most - 1) / most;
    size_t stride = method->pair_distance ? UNIT / 2 : UNIT; /* from a unit to the next */
    size_t image_units = c->images > 1 ? (size_t)(c->out.height * c->out.width / UNIT) : (size_t)units;
    for (int i = 0; i < tiles; i++) {
        struct range r = split_evenly(steps, i, tiles);
        r.begin *= step;
        r.end *= step;
        t->units = r.end - r.begin;
        t->packed = packed + (size_t)r.begin * UNIT;
        for (int u = 0; u < t->units; u++) {
            size_t unit = (size_t)(r.begin + u);
            t->unit_offset[u] = origin + unit / image_units * c->out.image + unit % image_units * stride;
        }
        method->kernel(t);
    }
}

PRIVATE void run_tile(const struct conv *c, const struct job *j, const struct work *work, int tile,
                     const struct method *method) {
    re_context *ctx = j->context;
    const int segments = method->segments;
    int bands = (c->out.height + c->rows - 1) / c->rows, first_image = tile / bands * c->images;
    int images = j->images - first_image < c->images ? j->images - first_image : c->images;
    int y0 = tile % bands * c->rows, rows = c->out.height - y0 < c->rows ? c->out.height - y0 : c->rows;
    int in_group = c->in.channels / c->groups, out_group = c->out.channels / c->groups;
    int blocks = (in_group + c->block - 1) / c->block;
    int step = segments > 1 && c->out.width > UNIT ? c->out.width / UNIT : 1;
    size_t origin = (size_t)y0 * (size_t)c->out.width;
    const float *image = ctx->arena + c->in.offset + (size_t)first_image * c->in.image;
    const value *values = value_section(ctx, c->values);
    float *packed = ctx->scratch + (size_t)j->thread * SCRATCH_FLOATS;
    for (int g = work->groups.begin; g < work->groups.end; g++)
        for (int b = 0; b < blocks; b++) {
            int first = b * c->block, count = in_group - first < c->block ? in_group - first : c->block;
            struct range channels = {g * in_group + first, g * in_group + first + count};
            size_t out = (size_t)first_image * c->out.image + (size_t)(g * out_group) * (size_t)c->out.pitch;
            int last = b == blocks - 1;
            struct register_tile t;
            t.context = ctx;
            t.conv = c;
            t.group = g;
            t.packed = packed;
            if (c->copies)
                method->pack(c, ctx->arena, image, images, channels, y0, rows, packed);
            else
                t.packed = image + (size_t)channels.begin * (size_t)c->in.pitch + origin - method->padding_floats;
            t.offset_scale = (size_t)images;
            t.pair_distance = method->pair_distance ? (size_t)method->pair_distance : UNIT / 2;
            t.values = values;
            t.offsets = ctx->offsets + c->offsets;
            t.bias = b == 0 ? float_section(ctx, c->bias) + g * out_group : NULL;
            t.out = ctx->arena + c->out.offset + out;
            t.residual = b == 0 && c->residual != NO_TENSOR ? ctx->arena + c->residual + out : NULL;
            t.pitch = (size_t)c->out.pitch;
            t.channels = work->channels;
            t.act = last ? &c->act : &no_activation;
            if (segments == 0) {
                size_t padded = (size_t)((out_group + DENSE_CHANNELS - 1) / DENSE_CHANNELS * DENSE_CHANNELS);
                t.taps = count * c->taps;
                t.starts = NULL;
                t.values += (size_t)channels.begin * (size_t)c->taps * padded;
            } else {
                t.taps = 0;
                t.starts = ctx->starts + c->starts + (size_t)(g * blocks + b) * (size_t)(out_group * segments);
            }
            run_register_tiles(c, &t, images * rows * c->out.width, step, origin, method);
        }
}

PRIVATE void run_conv(const struct conv *c, const struct job *j, const struct method *method) {
    int bands = (c->out.height + c->rows - 1) / c->rows;
    int tiles = bands * ((j->images + c->images - 1) / c->images);
    struct work work = thread_work(c, j, tiles, c->rows * c->out.width % UNIT == 0);
    for (int t = work.tiles.begin; t < work.tiles.end; t++)
        run_tile(c, j, &work, t, method);
}

#endif
