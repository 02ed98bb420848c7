/* Sparse kernel of three kernel columns, for rows of half a unit, one or two: the input is packed unmoved (or, for
   half units, moved by whole rows), so that a block holds more channels than with a copy for each column. An output
   channel has a list for each kernel column; the sums of the outer columns are moved by one pixel in registers, with a
   zero at the ends of the rows. */
#define COLUMNS 3

/* The pixels before or after those of `v`, by one: the last of `before` and all but the last of `v`, or all but the
   first of `v` and the first of `after`. */
#if LANES == 16
#define ONE_BEFORE 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30
#define ONE_AFTER 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16
#elif LANES == 8
#define ONE_BEFORE 7, 8, 9, 10, 11, 12, 13, 14
#define ONE_AFTER 1, 2, 3, 4, 5, 6, 7, 8
#else
#define ONE_BEFORE 3, 4, 5, 6
#define ONE_AFTER 1, 2, 3, 4
#endif
#if LANES == 1
INLINE vec one_before(vec before, vec v) { return (void)v, before; }
INLINE vec one_after(vec v, vec after) { return (void)v, after; }
#elif defined(__clang__)
INLINE vec one_before(vec before, vec v) { return __builtin_shufflevector(before, v, ONE_BEFORE); }
INLINE vec one_after(vec v, vec after) { return __builtin_shufflevector(v, after, ONE_AFTER); }
#else
INLINE vec one_before(vec before, vec v) { return __builtin_shuffle(before, v, (bits){ONE_BEFORE}); }
INLINE vec one_after(vec v, vec after) { return __builtin_shuffle(v, after, (bits){ONE_AFTER}); }
#endif

struct lists_at {
    const float *value;
    const uint16_t *offset;
};

INLINE struct lists_at add_list(vec *sum, const int vectors, const float *packed, struct lists_at at, uint32_t count) {
    for (const float *end = at.value + count; at.value < end; at.value++, at.offset++) {
        vec w = splat(*at.value);
        const float *in = packed + *at.offset;
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] += w * load(in + v * LANES);
    }
    return at;
}

/* Lanes of one vector that are not the first or the last of a row of `width` pixels. */
INLINE void row_masks(int width, uint32_t *inner, uint32_t *outer) {
    for (int i = 0; i < LANES; i++) {
        inner[i] = i % width ? 0xffffffffu : 0;
        outer[i] = (i + 1) % width ? 0xffffffffu : 0;
    }
}

/* `width` is a constant where this is called. */
INLINE void columns_strip(const struct strip *strip, const int units, const int width) {
    const struct strip s = *strip;
    const int vectors = units * UNIT_VECTORS, row = width > LANES ? width / LANES : 1;
    const int clamped = s.act->kind == CLAMP, special = s.act->kind > CLAMP;
    const vec lo = splat(s.act->lo), hi = splat(s.act->hi), none = {0};
    uint32_t not_first[LANES], not_last[LANES];
    row_masks(width, not_first, not_last);
    for (int o = s.channels.begin; o < s.channels.end; o++) {
        const uint32_t *start = s.starts + (size_t)o * COLUMNS;
        struct lists_at at = {s.values + *start, s.offsets + *start};
        float *out = s.out + (size_t)o * s.pitch;
        vec sum[UNITS_MAX * UNIT_VECTORS];
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] = splat(0);
        at = add_list(sum, vectors, s.packed, at, start[1] - start[0]);
        UNROLL for (int v = vectors - 1; v >= 0; v--) {
            sum[v] = one_before(v % row ? sum[v - 1] : none, sum[v]);
            if (width < LANES)
                sum[v] = masked(sum[v], not_first);
        }
        at = add_list(sum, vectors, s.packed, at, start[2] - start[1]);
        if (s.bias) {
            vec bias = splat(s.bias[o]);
            UNROLL for (int v = 0; v < vectors; v++)
                store(out + s.at[v / UNIT_VECTORS] + v % UNIT_VECTORS * LANES, sum[v] + bias);
        } else {
            UNROLL for (int v = 0; v < vectors; v++) {
                float *to = out + s.at[v / UNIT_VECTORS] + v % UNIT_VECTORS * LANES;
                store(to, sum[v] + load(to));
            }
        }
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] = splat(0);
        add_list(sum, vectors, s.packed, at, start[3] - start[2]);
        UNROLL for (int v = 0; v < vectors; v++) {
            float *to = out + s.at[v / UNIT_VECTORS] + v % UNIT_VECTORS * LANES;
            vec moved = one_after(sum[v], (v + 1) % row ? sum[v + 1] : none);
            vec y = (width < LANES ? masked(moved, not_last) : moved) + load(to);
            if (s.residual)
                y += load(s.residual + (size_t)o * s.pitch + s.at[v / UNIT_VECTORS] + v % UNIT_VECTORS * LANES);
            store(to, clamped ? clamp(y, lo, hi) : y);
        }
        if (special)
            for (int u = 0; u < units; u++)
                activate(out + s.at[u], UNIT, s.act);
    }
}

#define ROWS(n, width) \
    case n: \
        columns_strip(s, n, width); \
        break;

static void columns_of_8(const struct strip *s) {
    switch (s->units) {
        ROWS(1, 8)
        ROWS(2, 8)
#if UNITS_MAX >= 3
        ROWS(3, 8)
#endif
#if UNITS_MAX >= 6
        ROWS(4, 8)
#endif
    }
}

static void columns_of_16(const struct strip *s) {
    switch (s->units) {
        ROWS(1, 16)
        ROWS(2, 16)
#if UNITS_MAX >= 3
        ROWS(3, 16)
#endif
#if UNITS_MAX >= 6
        ROWS(4, 16)
        ROWS(5, 16)
        ROWS(6, 16)
#endif
#if UNITS_MAX >= 16
        ROWS(7, 16)
        ROWS(8, 16)
        ROWS(9, 16)
        ROWS(10, 16)
        ROWS(11, 16)
        ROWS(12, 16)
        ROWS(13, 16)
        ROWS(14, 16)
        ROWS(15, 16)
        ROWS(16, 16)
#endif
    }
}

static void columns_of_32(const struct strip *s) {
    switch (s->units) {
        ROWS(2, 32)
#if UNITS_MAX >= 6
        ROWS(4, 32)
        ROWS(6, 32)
#endif
#if UNITS_MAX >= 16
        ROWS(8, 32)
        ROWS(10, 32)
        ROWS(12, 32)
        ROWS(14, 32)
        ROWS(16, 32)
#endif
    }
}

static void conv_columns(const struct job *j, const struct conv *c) {
    run_conv(c, j, c->out.width == 8 ? columns_of_8 : c->out.width == 16 ? columns_of_16 : columns_of_32, COLUMNS);
}
