/* Sparse kernel: one output channel by `units` units of pixels in registers; for each non-zero, its value is
   broadcast and multiplied with units read at its offset. Short strips keep several chains of sums, since one
   multiply-add waits four cycles for the sum before it. */
INLINE void sparse_strip(const struct strip *strip, const int units) {
    const struct strip s = *strip;
    const int vectors = units * UNIT_VECTORS, chains = vectors <= 2 ? 4 : vectors <= 4 ? 2 : 1;
    const int clamped = s.act->kind == CLAMP, special = s.act->kind > CLAMP;
    const vec lo = splat(s.act->lo), hi = splat(s.act->hi);
    for (int o = s.channels.begin; o < s.channels.end; o++) {
        const float *value = s.values + s.starts[o], *end = s.values + s.starts[o + 1];
        const uint16_t *offset = s.offsets + s.starts[o];
        float *out = s.out + (size_t)o * s.pitch;
        vec sum[UNITS_MAX * UNIT_VECTORS];
        if (s.bias) {
            vec bias = splat(s.bias[o]);
            UNROLL for (int v = 0; v < vectors; v++)
                sum[v] = bias;
        } else {
            UNROLL for (int v = 0; v < vectors; v++)
                sum[v] = load(out + s.at[v / UNIT_VECTORS] + v % UNIT_VECTORS * LANES);
        }
        if (chains > 1) {
            UNROLL for (int v = vectors; v < chains * vectors; v++)
                sum[v] = splat(0);
            for (; end - value >= chains; value += chains, offset += chains) {
                PREFETCH(value + 512);
                PREFETCH(offset + 512);
                UNROLL for (int k = 0; k < chains; k++) {
                    vec w = splat(value[k]);
                    const float *in = s.packed + offset[k] * s.scale;
                    UNROLL for (int v = 0; v < vectors; v++)
                        sum[k * vectors + v] += w * load(in + v * LANES);
                }
            }
            UNROLL for (int v = vectors; v < chains * vectors; v++)
                sum[v % vectors] += sum[v];
        }
        for (; value < end; value++, offset++) {
            vec w = splat(*value);
            const float *in = s.packed + *offset * s.scale;
            UNROLL for (int v = 0; v < vectors; v++)
                sum[v] += w * load(in + v * LANES);
        }
        if (s.residual) {
            const float *residual = s.residual + (size_t)o * s.pitch;
            UNROLL for (int v = 0; v < vectors; v++)
                sum[v] += load(residual + s.at[v / UNIT_VECTORS] + v % UNIT_VECTORS * LANES);
        }
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
    switch (s->units) {
        STRIP(1)
        STRIP(2)
#if UNITS_MAX >= 3
        STRIP(3)
#endif
#if UNITS_MAX >= 6
        STRIP(4)
        STRIP(5)
        STRIP(6)
#endif
#if UNITS_MAX >= 16
        STRIP(7)
        STRIP(8)
        STRIP(9)
        STRIP(10)
        STRIP(11)
        STRIP(12)
        STRIP(13)
        STRIP(14)
        STRIP(15)
        STRIP(16)
#endif
    }
}

static void conv_sparse(const struct job *j, const struct conv *c) { run_conv(c, j, sparse_kernel, 1); }
