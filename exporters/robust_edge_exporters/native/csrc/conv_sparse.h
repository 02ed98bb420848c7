/* Sparse kernel: one output channel by `units` units of pixels in registers; for each non-zero, its value is
   broadcast and multiplied with units read at its offset. */
INLINE void sparse_strip(const struct strip *strip, const int units) {
    const struct strip s = *strip;
    const int vectors = units * UNIT_VECTORS;
    const int clamped = s.act->kind == CLAMP, special = s.act->kind > CLAMP;
    const vec lo = splat(s.act->lo), hi = splat(s.act->hi);
    for (int o = s.channels.begin; o < s.channels.end; o++) {
        struct list list = {s.values + s.starts[o], s.offsets + s.starts[o]};
        float *out = s.out + (size_t)o * s.pitch;
        const float *earlier = earlier_sums(s.bias, s.residual, s.out);
        vec sum[UNITS_MAX * UNIT_VECTORS];
        const vec bias = splat(s.bias ? s.bias[o] : 0);
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] = bias;
        if (earlier)
            UNROLL for (int v = 0; v < vectors; v++)
                sum[v] += load(earlier + (size_t)o * s.pitch + s.at[v / UNIT_VECTORS] + v % UNIT_VECTORS * LANES);
        add_list(sum, units, s.packed, UNIT, s.scale, list, s.starts[o + 1] - s.starts[o]);
        if (clamped) {
            UNROLL for (int v = 0; v < vectors; v++)
                sum[v] = clamp(sum[v], lo, hi);
        }
        UNROLL for (int v = 0; v < vectors; v++)
            store(out + s.at[v / UNIT_VECTORS] + v % UNIT_VECTORS * LANES, sum[v]);
        if (special)
            for (int u = 0; u < units; u++)
                activate(out + s.at[u], UNIT, s.act);
    }
}

#define STRIP(n) \
    case n: \
        sparse_strip(s, n); \
        break;

static void sparse_kernel(const struct strip *s) {
    switch (s->units) { SPARSE_UNITS(STRIP) }
}

static void conv_sparse(const struct job *j, const struct conv *c) {
    static const struct method sparse = {pack_block, sparse_kernel, 1};
    run_conv(c, j, &sparse);
}
