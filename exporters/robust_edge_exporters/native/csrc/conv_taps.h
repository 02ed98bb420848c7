/* Sparse convolution of small planes without packing: for each output channel and tap, the sum over input channels is
   taken at the tap's own pixels, aligned and in place; the sums are then moved by the taps' shifts and added, masked
   where they leave the plane. A tile is a plane of up to TAP_UNITS units. */
#define TAP_UNITS 4

struct tap_tile {
    const float *in;        /* first channel of the block */
    const value *values;
    const uint16_t *offsets;
    const uint32_t *starts; /* of the block: channels * taps lists */
    const float *bias, *residual;
    float *out, *sums;      /* sums: taps * units, with room before and after */
    const uint32_t *masks;
    struct range channels;
    const struct activation *act;
};

/* How sums get to the pixels that they belong to: a single tap of exact size does not move, a plane that one vector
   holds is moved in registers. */
enum way { UNMOVED, IN_REGISTERS, THROUGH_MEMORY };

#if LANES == UNIT
INLINE vec moved(vec sum, const uint32_t *from, const uint32_t *mask) {
    return masked(_mm512_permutexvar_ps(_mm512_loadu_si512(from), sum), mask);
}
#else
INLINE vec moved(vec sum, const uint32_t *from, const uint32_t *mask) { return (void)from, masked(sum, mask); }
#endif

INLINE void run_taps(const struct conv *c, const struct tap_tile *tile, const int units, const enum way way) {
    const struct tap_tile t = *tile;
    const int vectors = units * UNIT_VECTORS, taps = way == UNMOVED ? 1 : c->taps;
    const vec lo = splat(t.act->lo), hi = splat(t.act->hi);
    const uint32_t *start = t.starts + (size_t)t.channels.begin * (size_t)taps;
    const uint32_t mean = mean_length(start, (t.channels.end - t.channels.begin) * taps);
    uint32_t from[TAPS_MAX][UNIT];
    for (int k = 0; k < taps && way == IN_REGISTERS; k++)
        for (int i = 0; i < UNIT; i++)
            from[k][i] = (uint32_t)(i + tap_shift(c, k)) % UNIT;
    for (int o = t.channels.begin; o < t.channels.end; o++, start += taps) {
        struct list list = {t.values + start[0], t.offsets + start[0]};
        float *out = t.out + (size_t)o * (size_t)c->out.pitch;
        vec sum[TAP_UNITS * UNIT_VECTORS], total[TAP_UNITS * UNIT_VECTORS];
        const float *earlier = earlier_sums(t.bias, t.residual, t.out);
        UNROLL for (int v = 0; v < vectors; v++) {
            total[v] = splat(t.bias ? t.bias[o] : 0);
            if (earlier)
                total[v] += load(earlier + (size_t)o * (size_t)c->out.pitch + v * LANES);
        }
        for (int k = 0; k < taps; k++) {
            UNROLL for (int v = 0; v < vectors; v++)
                sum[v] = splat(0);
            if (!PREFETCHES_RUNS(vectors))
                prefetch_ahead(list, mean);
            list = add_list(sum, units, t.in, UNIT, 1, list, start[k + 1] - start[k]);
            UNROLL for (int v = 0; v < vectors; v++)
                if (way == UNMOVED)
                    total[v] += sum[v];
                else if (way == IN_REGISTERS)
                    total[v] += moved(sum[v], from[k], t.masks + (size_t)k * UNIT);
                else
                    store(t.sums + (k * vectors + v) * LANES, sum[v]);
        }
        for (int k = 0; k < taps && way == THROUGH_MEMORY; k++) {
            int shift = tap_shift(c, k);
            const uint32_t *mask = t.masks + (size_t)k * (size_t)c->copy_floats;
            UNROLL for (int v = 0; v < vectors; v++)
                total[v] += masked(load(t.sums + (k * vectors + v) * LANES + shift), mask + v * LANES);
        }
        UNROLL for (int v = 0; v < vectors; v++) {
            if (t.act->kind == CLAMP)
                total[v] = clamp(total[v], lo, hi);
            store(out + v * LANES, total[v]);
        }
        if (t.act->kind > CLAMP)
            activate(out, units * UNIT, t.act);
    }
}

INLINE void run_units(const struct conv *c, const struct tap_tile *t, int units, const enum way way) {
    switch (units) {
    case 1:
        run_taps(c, t, 1, way);
        break;
    case 2:
        run_taps(c, t, 2, way);
        break;
    case 3:
        run_taps(c, t, 3, way);
        break;
    case 4:
        run_taps(c, t, 4, way);
        break;
    }
}

static void choose_taps(const struct conv *c, const struct tap_tile *t, int units) {
    if (c->taps == 1)
        run_units(c, t, units, UNMOVED);
    else if (LANES == UNIT && units == 1)
        run_taps(c, t, 1, IN_REGISTERS);
    else
        run_units(c, t, units, THROUGH_MEMORY);
}

static void conv_taps(const struct job *j, const struct conv *c) {
    re_context *ctx = j->context;
    const int blocks = (c->in.channels + c->block - 1) / c->block;
    struct tap_tile t;
    t.values = value_section(ctx, c->values);
    t.offsets = ctx->offsets + c->offsets;
    t.masks = c->masks == NO_TENSOR ? NULL : (const uint32_t *)(const void *)(ctx->arena + c->masks);
    t.sums = ctx->scratch + (size_t)j->thread * SCRATCH_FLOATS + TAP_UNITS * UNIT;
    t.channels = share(c->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++) {
        size_t out = (size_t)g * c->out.image;
        for (int b = 0; b < blocks; b++) {
            int last = b == blocks - 1;
            int count = last ? c->in.channels - b * c->block : c->block;
            t.in = ctx->arena + c->in.at + (size_t)g * c->in.image + (size_t)(b * c->block) * (size_t)c->in.pitch;
            if (c->stride_x == 2) {
                float *phases = t.sums + (c->taps + 1) * TAP_UNITS * UNIT;
                for (int k = 0; k < count; k++)
                    split_phases(c, t.in + k * c->in.pitch, phases + k * 4 * c->copy_floats);
                t.in = phases;
            }
            t.out = ctx->arena + c->out.at + out;
            t.starts = ctx->starts + c->starts + (size_t)(b * c->out.channels) * (size_t)c->taps;
            t.bias = b == 0 ? float_section(ctx, c->bias) : NULL;
            t.residual = b == 0 && c->residual != NO_TENSOR ? ctx->arena + c->residual + out : NULL;
            t.act = last ? &c->act : &no_activation;
            choose_taps(c, &t, (c->out.height * c->out.width + UNIT - 1) / UNIT);
        }
    }
}
