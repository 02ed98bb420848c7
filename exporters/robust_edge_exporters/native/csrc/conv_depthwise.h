/* Depthwise convolution in place: each tap reads the plane (at stride s: one of its s * s phases, split out first)
   moved by a constant, masked where it leaves the plane. Lists name taps, so pruned taps cost nothing. */
INLINE void depthwise_units(const struct conv *c, const float *const *taps, const uint16_t *tap, const float *value,
                            uint32_t count, const uint32_t *masks, int unit, const int units, float bias,
                            const float *residual, float *out) {
    vec sum[4 * UNIT_VECTORS];
    UNROLL for (int v = 0; v < units * UNIT_VECTORS; v++)
        sum[v] = splat(bias);
    for (uint32_t k = 0; k < count; k++) {
        const float *in = taps[tap[k]] + unit * UNIT;
        const uint32_t *mask = masks + (size_t)tap[k] * (size_t)c->copy_floats + unit * UNIT;
        vec w = splat(value[k]);
        UNROLL for (int v = 0; v < units * UNIT_VECTORS; v++)
            sum[v] += w * masked(load(in + v * LANES), mask + v * LANES);
    }
    UNROLL for (int v = 0; v < units * UNIT_VECTORS; v++) {
        if (residual)
            sum[v] += load(residual + unit * UNIT + v * LANES);
        if (c->act.kind == CLAMP)
            sum[v] = clamp(sum[v], splat(c->act.lo), splat(c->act.hi));
        store(out + unit * UNIT + v * LANES, sum[v]);
    }
}

/* The four phases of a plane, from (0, 0) to (1, 1), each as large as an output plane. */
static void split_phases(const struct conv *c, const float *plane, float *phases) {
    int width = c->out.width, floats = c->copy_floats;
    for (int y = 0; y < c->in.height; y++, plane += c->in.width) {
        float *even = phases + (y % 2) * 2 * floats + y / 2 * width, *odd = even + floats;
        for (int x = 0; x < width; x++) {
            even[x] = plane[2 * x];
            odd[x] = plane[2 * x + 1];
        }
    }
}

static int floor_half(int x) { return (x - (x < 0)) / 2; }

/* Where each tap reads, relative to the plane or to the first phase. */
static void tap_places(const struct conv *c, const float *plane, const float **taps) {
    for (int k = 0; k < c->taps; k++) {
        int dy = c->shifts[k].dy, dx = c->shifts[k].dx, y = floor_half(dy), x = floor_half(dx);
        if (c->stride_x == 1)
            taps[k] = plane + ((ptrdiff_t)dy * c->in.width + dx);
        else
            taps[k] = plane + ((dy - 2 * y) * 2 + (dx - 2 * x)) * c->copy_floats + ((ptrdiff_t)y * c->out.width + x);
    }
}

static void depthwise_plane(const struct job *j, const struct conv *c, int g, int channel) {
    const re_context *ctx = j->context;
    const uint32_t *masks = (const uint32_t *)(const void *)(ctx->arena + c->masks);
    const uint32_t *start = ctx->starts + c->starts + channel;
    const float *value = layer_values(ctx, c->values, c->expanded) + start[0];
    const uint16_t *tap = short_section(ctx, c->offsets) + start[0];
    const float *in = ctx->arena + c->in.at + (size_t)g * c->in.image + (size_t)channel * (size_t)c->in.pitch;
    size_t at = (size_t)g * c->out.image + (size_t)channel * (size_t)c->out.pitch;
    const float *residual = c->residual == NO_TENSOR ? NULL : ctx->arena + c->residual + at;
    float *out = ctx->arena + c->out.at + at, bias = float_section(ctx, c->bias)[channel];
    const float *taps[TAPS_MAX];
    int unit = 0, units = (c->out.height * c->out.width + UNIT - 1) / UNIT;
    uint32_t count = start[1] - start[0];
    if (c->stride_x == 2) {
        float *phases = ctx->scratch + (size_t)j->thread * SCRATCH_FLOATS + c->copy_floats + UNIT;
        if (count)
            split_phases(c, in, phases);
        in = phases;
    }
    tap_places(c, in, taps);
    for (; unit + 4 <= units; unit += 4)
        depthwise_units(c, taps, tap, value, count, masks, unit, 4, bias, residual, out);
    for (; unit < units; unit++)
        depthwise_units(c, taps, tap, value, count, masks, unit, 1, bias, residual, out);
    if (c->act.kind > CLAMP)
        activate(out, units * UNIT, &c->act);
}

static void conv_depthwise(const struct job *j, const struct conv *c) {
    struct range channels = share(c->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int k = channels.begin; k < channels.end; k++)
            depthwise_plane(j, c, g, k);
}
