/* Convolution: for each tile of output pixels and block of input channels, pack what is not read in place, then let a
   kernel add the block's products to all output channels. Partial sums stay in the output tensor. */

/* A register tile: up to UNITS_MAX units of pixels for a range of output channels. */
struct strip {
    const float *packed;    /* packed rows, or the planes, where offsets of the strip's first unit count from */
    const value *values;    /* of the block */
    const uint16_t *offsets;
    const uint32_t *starts; /* sparse: where each output channel's list begins */
    const float *bias;      /* first block: initial sums, else NULL */
    float *out;             /* output channel 0 of the group, image 0 */
    const float *residual;  /* first block: added to the initial sums, or NULL; may be out itself */
    size_t pitch;
    struct range channels;
    size_t scale;           /* images of the tile: an offset counts one image's floats; not where it counts units */
    int units, taps;        /* taps: packed rows of the block, dense only */
    size_t at[UNITS_MAX];   /* where each unit, or the first row of its pair, lies in an output plane */
    size_t apart;           /* from a unit's first half to its second */
    const struct activation *act; /* last block, else none */
};

typedef void conv_kernel(const struct strip *);
typedef void pack_rows(const struct conv *, const float *arena, const float *image, int images, struct range channels,
                       int y0, int rows, float *dst);

/* How a kind of convolution reads its input and computes; `lists` of an output channel in a block, 0: dense values. */
struct method {
    pack_rows *pack;
    conv_kernel *kernel;
    int lists;
};

/* What a thread does of a layer: tiles (row bands, image groups), groups, output channels of a group. */
struct part {
    struct range tiles, groups, channels;
};

static struct part conv_part(const struct conv *c, const struct job *j, int tiles) {
    int per_group = c->out.channels / c->groups, aligned = c->rows * c->out.width % UNIT == 0;
    struct part p = {{0, tiles}, {0, c->groups}, {0, per_group}};
    if (aligned && (tiles % j->threads == 0 || tiles >= 4 * j->threads))
        p.tiles = share(tiles, j->thread, j->threads);
    else if (c->groups > 1)
        p.groups = share(c->groups, j->thread, j->threads);
    else {
        struct range blocks = share((per_group + DENSE_CHANNELS - 1) / DENSE_CHANNELS, j->thread, j->threads);
        p.channels.begin = blocks.begin * DENSE_CHANNELS;
        p.channels.end = blocks.end * DENSE_CHANNELS < per_group ? blocks.end * DENSE_CHANNELS : per_group;
    }
    return p;
}

/* Cuts the pixels of a tile into strips of nearly equal size, at multiples of `step` units, and runs the kernel on
   each. */
static void run_strips(const struct conv *c, struct strip *s, int floats, int step, size_t origin,
                       conv_kernel *kernel) {
    const float *packed = s->packed;
    int units = (floats + UNIT - 1) / UNIT, steps = units / step, most = UNITS_MAX / step;
    int strips = (steps + most - 1) / most;
    size_t image_units = c->images > 1 ? (size_t)(c->out.height * c->out.width / UNIT) : (size_t)units;
    for (int i = 0; i < strips; i++) {
        struct range r = share(steps, i, strips);
        r.begin *= step;
        r.end *= step;
        s->units = r.end - r.begin;
        s->packed = packed + (size_t)r.begin * UNIT;
        for (int u = 0; u < s->units; u++) {
            size_t unit = (size_t)(r.begin + u);
            s->at[u] = origin + unit / image_units * c->out.image + unit % image_units * (c->apart ? UNIT / 2 : UNIT);
        }
        kernel(s);
    }
}

static void run_tile(const struct conv *c, const struct job *j, const struct part *part, int tile,
                     const struct method *method) {
    re_context *ctx = j->context;
    const int lists = method->lists;
    int bands = (c->out.height + c->rows - 1) / c->rows, first_image = tile / bands * c->images;
    int images = j->images - first_image < c->images ? j->images - first_image : c->images;
    int y0 = tile % bands * c->rows, rows = c->out.height - y0 < c->rows ? c->out.height - y0 : c->rows;
    int in_group = c->in.channels / c->groups, out_group = c->out.channels / c->groups;
    int blocks = (in_group + c->block - 1) / c->block, step = lists > 1 && c->out.width > UNIT ? c->out.width / UNIT : 1;
    size_t origin = (size_t)y0 * (size_t)c->out.width;
    const float *image = ctx->arena + c->in.at + (size_t)first_image * c->in.image;
    const value *values = value_section(ctx, c->values);
    float *packed = ctx->scratch + (size_t)j->thread * SCRATCH_FLOATS;
    for (int g = part->groups.begin; g < part->groups.end; g++)
        for (int b = 0; b < blocks; b++) {
            int first = b * c->block, count = in_group - first < c->block ? in_group - first : c->block;
            struct range channels = {g * in_group + first, g * in_group + first + count};
            size_t out = (size_t)first_image * c->out.image + (size_t)(g * out_group) * (size_t)c->out.pitch;
            int last = b == blocks - 1;
            struct strip s;
            s.packed = packed;
            if (c->copies)
                method->pack(c, ctx->arena, image, images, channels, y0, rows, packed);
            else
                s.packed = image + (size_t)channels.begin * (size_t)c->in.pitch + origin - c->lead;
            s.scale = (size_t)images;
            s.apart = c->apart ? (size_t)c->apart : UNIT / 2;
            s.values = values;
            s.offsets = ctx->offsets + c->offsets;
            s.bias = b == 0 ? float_section(ctx, c->bias) + g * out_group : NULL;
            s.out = ctx->arena + c->out.at + out;
            s.residual = b == 0 && c->residual != NO_TENSOR ? ctx->arena + c->residual + out : NULL;
            s.pitch = (size_t)c->out.pitch;
            s.channels = part->channels;
            s.act = last ? &c->act : &no_activation;
            if (lists == 0) {
                size_t padded = (size_t)((out_group + DENSE_CHANNELS - 1) / DENSE_CHANNELS * DENSE_CHANNELS);
                s.taps = count * c->taps;
                s.starts = NULL;
                s.values += (size_t)channels.begin * (size_t)c->taps * padded;
            } else {
                s.taps = 0;
                s.starts = ctx->starts + c->starts + (size_t)(g * blocks + b) * (size_t)(out_group * lists);
            }
            run_strips(c, &s, images * rows * c->out.width, step, origin, method->kernel);
        }
}

static void run_conv(const struct conv *c, const struct job *j, const struct method *method) {
    int bands = (c->out.height + c->rows - 1) / c->rows;
    int tiles = bands * ((j->images + c->images - 1) / c->images);
    struct part part = conv_part(c, j, tiles);
    for (int t = part.tiles.begin; t < part.tiles.end; t++)
        run_tile(c, j, &part, t, method);
}
