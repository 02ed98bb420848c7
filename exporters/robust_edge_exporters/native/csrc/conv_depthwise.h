/* Depthwise convolution in place: each tap reads the plane (at stride s: one of its s * s phases, split out first)
   moved by a constant, masked where it leaves the plane. Lists name taps, so pruned taps cost nothing. */
INLINE void depthwise_units(const struct conv *c, const float *const *taps, const uint16_t *tap, const value *values,
                            uint32_t count, const uint32_t *masks, size_t unit, const int units, float bias,
                            const float *residual, float *out) {
    vec sum[4 * UNIT_VECTORS];
    UNROLL for (int v = 0; v < units * UNIT_VECTORS; v++)
        sum[v] = splat(bias);
    for (uint32_t k = 0; k < count; k++) {
        const float *in = taps[tap[k]] + unit * UNIT;
        const uint32_t *mask = masks + (size_t)tap[k] * (size_t)c->copy_floats + unit * UNIT;
        vec w = splat(number(values[k]));
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

static int tap_phase(const struct conv *c, int tap) {
    return c->stride_x == 1 ? 0 : (c->shifts[tap].dy & 1) * 2 + (c->shifts[tap].dx & 1);
}

/* Where each tap reads, relative to the plane or to its first phase. */
static void tap_places(const struct conv *c, const float *plane, const float **taps) {
    for (int k = 0; k < c->taps; k++)
        taps[k] = plane + tap_phase(c, k) * c->copy_floats + tap_shift(c, k);
}

static void depthwise_plane(const struct job *j, const struct conv *c, int g, int channel) {
    const re_context *ctx = j->context;
    const uint32_t *masks = (const uint32_t *)(const void *)(ctx->arena + c->masks);
    const uint32_t *start = ctx->starts + c->starts + channel;
    const value *values = value_section(ctx, c->values) + start[0];
    const uint16_t *tap = ctx->offsets + c->offsets + start[0];
    const float *in = ctx->arena + c->in.at + (size_t)g * c->in.image + (size_t)channel * (size_t)c->in.pitch;
    size_t at = (size_t)g * c->out.image + (size_t)channel * (size_t)c->out.pitch;
    const float *residual = c->residual == NO_TENSOR ? NULL : ctx->arena + c->residual + at;
    float *out = ctx->arena + c->out.at + at, bias = float_section(ctx, c->bias)[channel];
    const float *taps[TAPS_MAX];
    size_t unit = 0, units = (size_t)plane_floats(&c->out) / UNIT;
    uint32_t count = start[1] - start[0];
    if (c->stride_x == 2) {
        float *phases = ctx->scratch + (size_t)j->thread * SCRATCH_FLOATS + c->copy_floats + UNIT;
        if (count)
            split_phases(c, in, phases);
        in = phases;
    }
    tap_places(c, in, taps);
    for (; units - unit >= 4; unit += 4)
        depthwise_units(c, taps, tap, values, count, masks, unit, 4, bias, residual, out);
    for (size_t left = units % 4; left > 0; left--, unit++) /* `unit < units` makes gcc warn of overflow */
        depthwise_units(c, taps, tap, values, count, masks, unit, 1, bias, residual, out);
    if (c->act.kind > CLAMP)
        activate(out, plane_floats(&c->out), &c->act);
}

static void conv_depthwise(const struct job *j, const struct conv *c) {
    struct range channels = share(c->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int k = channels.begin; k < channels.end; k++)
            depthwise_plane(j, c, g, k);
}
