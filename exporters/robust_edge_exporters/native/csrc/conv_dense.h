/* Dense kernel: DENSE_CHANNELS output channels by `vectors` vectors of pixels in registers; values lie as
   [channels / DENSE_CHANNELS][tap][DENSE_CHANNELS], padded with zeros. */
INLINE void finish_dense(const struct strip *s, int o, int vector, const int vectors, const vec *sum) {
    float *out = s->out + (size_t)o * s->pitch;
    const float *earlier = earlier_sums(s->bias, s->residual, s->out);
    UNROLL for (int v = 0; v < vectors; v++) {
        size_t at = s->at[(vector + v) / UNIT_VECTORS] + (size_t)((vector + v) % UNIT_VECTORS * LANES);
        vec y = sum[v];
        if (s->bias)
            y += splat(s->bias[o]);
        if (earlier)
            y += load(earlier + (size_t)o * s->pitch + at);
        if (s->act->kind == CLAMP)
            y = clamp(y, splat(s->act->lo), splat(s->act->hi));
        store(out + at, y);
    }
}

INLINE void dense_tile(const struct strip *s, int o, int vector, const int vectors) {
    const value *values = s->values + (size_t)o * (size_t)s->taps;
    const float *packed = s->packed + vector * LANES;
    int channels = s->channels.end - o < DENSE_CHANNELS ? s->channels.end - o : DENSE_CHANNELS;
    vec sum[DENSE_CHANNELS * DENSE_VECTORS];
    UNROLL for (int v = 0; v < DENSE_CHANNELS * vectors; v++)
        sum[v] = splat(0);
    for (int k = 0; k < s->taps; k++, values += DENSE_CHANNELS) {
        const float *in = packed + s->offsets[k] * s->scale;
        vec x[DENSE_VECTORS];
        UNROLL for (int v = 0; v < vectors; v++)
            x[v] = load(in + v * LANES);
        UNROLL for (int i = 0; i < DENSE_CHANNELS; i++) {
            vec w = splat(number(values[i]));
            UNROLL for (int v = 0; v < vectors; v++)
                sum[i * vectors + v] += w * x[v];
        }
    }
    UNROLL for (int i = 0; i < DENSE_CHANNELS; i++) {
        if (i < channels)
            finish_dense(s, o + i, vector, vectors, sum + i * vectors);
    }
}

static void dense_kernel(const struct strip *s) {
    int vectors = s->units * UNIT_VECTORS;
    for (int o = s->channels.begin; o < s->channels.end; o += DENSE_CHANNELS) {
        int v = 0;
        for (; v + DENSE_VECTORS <= vectors; v += DENSE_VECTORS)
            dense_tile(s, o, v, DENSE_VECTORS);
        for (; v < vectors; v++)
            dense_tile(s, o, v, 1);
    }
    if (s->act->kind > CLAMP)
        for (int o = s->channels.begin; o < s->channels.end; o++)
            for (int u = 0; u < s->units; u++)
                activate(s->out + (size_t)o * s->pitch + s->at[u], UNIT, s->act);
}

static void conv_dense(const struct job *j, const struct conv *c) {
    static const struct method dense = {pack_block, dense_kernel, 0};
    run_conv(c, j, &dense);
}
