/* Packing: shifted copies of the input rows that a tile reads, close together, so that they stay in L1 and every
   tap of the kernel reads whole units at a constant offset, whatever stride, padding and dilation are. */

/* dst[0..floats) = src masked; may write up to UNIT - 1 floats more. */
static void copy_masked(float *dst, const float *src, const uint32_t *mask, int floats) {
    for (int i = 0; i < floats; i += LANES)
        store(dst + i, masked(load(src + i), mask + i));
}

static void zero(float *dst, int floats) {
    if (floats > 0)
        memset(dst, 0, (size_t)floats * sizeof *dst);
}

/* Stride 1, output as wide as the input: a copy is one run of the plane, moved, with its wrapped edges masked. */
static void pack_shifted(const struct conv *c, const float *plane, struct shift s, const uint32_t *mask, int y0,
                         int rows, float *dst) {
    int width = c->in.width, first = -(y0 + s.dy), last = c->in.height - (y0 + s.dy);
    if (c->whole) {
        copy_masked(dst, plane + ((ptrdiff_t)s.dy * width + s.dx), mask, rows * width);
        return;
    }
    first = first < 0 ? 0 : first > rows ? rows : first;
    last = last > rows ? rows : last < first ? first : last;
    zero(dst, first * width);
    copy_masked(dst + first * width, plane + ((ptrdiff_t)(y0 + first + s.dy) * width + s.dx), mask,
                (last - first) * width);
    zero(dst + last * width, (rows - last) * width);
}

/* Any stride and size, row by row. */
static void pack_strided(const struct conv *c, const float *plane, struct shift s, int y0, int rows, float *dst) {
    int width = c->out.width, step = c->stride_x;
    int first = s.dx < 0 ? (-s.dx + step - 1) / step : 0;
    int last = s.dx < c->in.width ? (c->in.width - 1 - s.dx) / step + 1 : 0;
    first = first > width ? width : first;
    last = last > width ? width : last < first ? first : last;
    for (int j = 0; j < rows; j++, dst += width) {
        int y = (y0 + j) * c->stride_y + s.dy;
        if (y < 0 || y >= c->in.height) {
            zero(dst, width);
            continue;
        }
        const float *row = plane + (ptrdiff_t)y * c->in.width + s.dx;
        zero(dst, first);
        if (step == 2)
            for (int x = first; x < last; x++)
                dst[x] = row[2 * x];
        else
            for (int x = first; x < last; x++)
                dst[x] = row[x * step];
        zero(dst + last, width - last);
    }
}

/* Channels [channel, channel + count) of `images` images for output rows [y0, y0 + rows). */
static void pack_block(const struct conv *c, const float *arena, const float *image, int images, int channel,
                       int count, int y0, int rows, float *dst) {
    const uint32_t *masks = c->masks == NO_TENSOR ? NULL : (const uint32_t *)(const void *)(arena + c->masks);
    int plane_floats = c->out.height * c->out.width;
    for (int k = channel; k < channel + count; k++)
        for (int s = 0; s < c->copies; s++, dst += images * c->copy_floats)
            for (int g = 0; g < images; g++) {
                const float *plane = image + g * c->in.image + (size_t)k * c->in.pitch;
                float *to = dst + g * plane_floats;
                if (masks)
                    pack_shifted(c, plane, c->shifts[s], masks + (size_t)s * c->copy_floats, y0,
                                 rows + c->extra_rows, to);
                else
                    pack_strided(c, plane, c->shifts[s], y0, rows + c->extra_rows, to);
            }
}
