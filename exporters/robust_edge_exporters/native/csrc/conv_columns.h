/* Sparse kernel of three kernel columns, for rows of half a unit, one or two: the input is read unmoved. An output
   channel has a list for each kernel column; the sums of the outer columns are moved by one pixel in registers, with a
   zero at the ends of the rows. Kernel rows move by whole units, which offsets count: rows of whole units are read in
   place, with spare rows of zeros beyond the plane; rows of half a unit are packed in pairs, half a plane apart. At
   stride 2 even and odd pixels are packed apart: only the first column is moved then, and the other two share a list. */

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

/* Lanes of one vector that are not the first or the last of a row of `width` pixels. */
INLINE void row_masks(int width, uint32_t *inner, uint32_t *outer) {
    for (int i = 0; i < LANES; i++) {
        inner[i] = i % width ? 0xffffffffu : 0;
        outer[i] = (i + 1) % width ? 0xffffffffu : 0;
    }
}

/* Vector `v` of a strip of the plane `p`. */
#if LANES == UNIT
INLINE vec load_placed(const struct strip *s, const float *p, int v, const int width) {
    __m512d first;
    p += s->at[v];
    if (width >= UNIT)
        return load(p);
    first = _mm512_castps_pd(_mm512_castps256_ps512(_mm256_loadu_ps(p)));
    return _mm512_castpd_ps(_mm512_insertf64x4(first, _mm256_castps_pd(_mm256_loadu_ps(p + s->apart)), 1));
}

INLINE void store_placed(const struct strip *s, float *p, int v, const int width, vec x) {
    p += s->at[v];
    if (width >= UNIT) {
        store(p, x);
        return;
    }
    _mm256_storeu_ps(p, _mm512_castps512_ps256(x));
    _mm256_storeu_ps(p + s->apart, _mm256_castpd_ps(_mm512_extractf64x4_pd(_mm512_castps_pd(x), 1)));
}
#else
INLINE size_t place(const struct strip *s, int v, const int width) {
    size_t in_unit = (size_t)(v % UNIT_VECTORS * LANES);
    if (width < UNIT)
        in_unit = in_unit / (UNIT / 2) * s->apart + in_unit % (UNIT / 2);
    return s->at[v / UNIT_VECTORS] + in_unit;
}

INLINE vec load_placed(const struct strip *s, const float *p, int v, const int width) {
    return load(p + place(s, v, width));
}

INLINE void store_placed(const struct strip *s, float *p, int v, const int width, vec x) {
    store(p + place(s, v, width), x);
}
#endif

/* Adds what is there: bias and residual, or the sums of earlier blocks. */
INLINE void add_earlier(const struct strip *s, vec *sum, const int vectors, const int width, int o) {
    const float *earlier = earlier_sums(s->bias, s->residual, s->out);
    if (s->bias) {
        vec bias = splat(s->bias[o]);
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] += bias;
    }
    if (earlier)
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] += load_placed(s, earlier + (size_t)o * s->pitch, v, width);
}

/* Activation of finished sums. */
INLINE void store_sums(const struct strip *s, vec *sum, const int vectors, const int width, float *out) {
    if (s->act->kind == CLAMP) {
        vec lo = splat(s->act->lo), hi = splat(s->act->hi);
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] = clamp(sum[v], lo, hi);
    }
    UNROLL for (int v = 0; v < vectors; v++)
        store_placed(s, out, v, width, sum[v]);
}

/* `width` and `lists` are constants where this is called. */
INLINE void columns_strip(const struct strip *strip, const int units, const int width, const int lists) {
    const struct strip copy = *strip, *s = &copy;
    const int vectors = units * UNIT_VECTORS, row = width > LANES ? width / LANES : 1;
    const vec none = {0};
    const uint32_t *starts = s->starts + (size_t)s->channels.begin * (size_t)lists;
    const uint32_t mean = mean_length(starts, (s->channels.end - s->channels.begin) * lists);
    uint32_t not_first[LANES], not_last[LANES];
    row_masks(width, not_first, not_last);
    for (int o = s->channels.begin; o < s->channels.end; o++) {
        const uint32_t *start = s->starts + (size_t)o * (size_t)lists;
        struct list list = {s->values + *start, s->offsets + *start};
        float *out = s->out + (size_t)o * s->pitch;
        vec sum[UNITS_MAX * UNIT_VECTORS];
        if (vectors <= 4)
            prefetch_ahead(list, mean * (uint32_t)lists);
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] = none;
        list = add_list(sum, units, s->packed, UNIT, UNIT, list, start[1] - start[0]);
        UNROLL for (int v = vectors - 1; v >= 0; v--) {
            sum[v] = one_before(v % row ? sum[v - 1] : none, sum[v]);
            if (width < LANES)
                sum[v] = masked(sum[v], not_first);
        }
        list = add_list(sum, units, s->packed, UNIT, UNIT, list, start[2] - start[1]);
        add_earlier(s, sum, vectors, width, o);
        if (lists > 2) {
            vec last[UNITS_MAX * UNIT_VECTORS];
            UNROLL for (int v = 0; v < vectors; v++)
                last[v] = none;
            add_list(last, units, s->packed, UNIT, UNIT, list, start[3] - start[2]);
            UNROLL for (int v = 0; v < vectors; v++) {
                vec moved = one_after(last[v], (v + 1) % row ? last[v + 1] : none);
                sum[v] += width < LANES ? masked(moved, not_last) : moved;
            }
        }
        store_sums(s, sum, vectors, width, out);
        if (s->act->kind > CLAMP)
            for (int u = 0; u < units; u++) {
                activate(out + s->at[u], UNIT / 2, s->act);
                activate(out + s->at[u] + s->apart, UNIT / 2, s->act);
            }
    }
}

#define ROWS(n) \
    case n: \
        columns_strip(s, n, ROW_WIDTH, ROW_LISTS); \
        break;

/* The kernel of one width and number of lists; those that the network needs follow this file. */
#define COLUMNS_KERNEL(width, lists) \
    static void columns_##width##_##lists(const struct strip *s) { \
        enum { ROW_WIDTH = width, ROW_LISTS = lists }; \
        switch (s->units) { COLUMNS_##width##_##lists##_UNITS(ROWS) } \
    } \
    static void pack_columns_##width##_##lists(const struct conv *c, const float *arena, const float *image, int images, \
                                               struct range channels, int y0, int rows, float *dst) { \
        (void)arena, (void)images; /* one */ \
        pack_columns(c, image, channels, y0, rows, dst, width, lists == 2 ? 2 : 1); \
    } \
    static void conv_columns_##width##_##lists(const struct job *j, const struct conv *c) { \
        static const struct method columns = {pack_columns_##width##_##lists, columns_##width##_##lists, lists}; \
        run_conv(c, j, &columns); \
    }
