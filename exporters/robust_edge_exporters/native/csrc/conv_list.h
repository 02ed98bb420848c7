/* A list of non-zeros: values, and for each the offset of the pixels that it is multiplied with. */
struct list {
    const value *values;
    const uint16_t *offsets;
};

/* Small tiles read entries faster than memory brings them, unless it is asked in time. Asks for `count` entries, AHEAD
   of the list: a layer's mean, since the end of a loop whose length changes is mispredicted. Tiles of one vector read
   fastest of all: they ask with every run, so that requests are spread. */
#define PREFETCHES_RUNS(vectors) (RUN > 1 && (vectors) == 1)
#define AHEAD 768
#define LINE 64 /* bytes that memory brings at a time */

INLINE void prefetch_ahead(struct list at, uint32_t count) {
    for (uint32_t i = 0; i < count; i += LINE / sizeof *at.values)
        PREFETCH(at.values + AHEAD + i);
    for (uint32_t i = 0; i < count; i += LINE / sizeof *at.offsets)
        PREFETCH(at.offsets + AHEAD + i);
}

/* Mean length of `lists` lists. */
INLINE uint32_t mean_length(const uint32_t *starts, int lists) {
    return lists > 0 ? (starts[lists] - starts[0]) / (uint32_t)lists : 0;
}

/* Adds a list's products to the sums of `units` units of pixels, which lie `step` floats apart from `in` on; an offset
   counts `scale` floats. Returns what follows the list.

   Few sums wait for each other, so they are kept in several chains; and a short tile has few products to share the two
   loads that value and offset are, so RUN of them are read at a time. */
INLINE struct list add_list(vec *sum, const int units, const float *in, size_t step, size_t scale, struct list at,
                            uint32_t count) {
    const int vectors = units * UNIT_VECTORS, chains = vectors <= 2 ? 4 : vectors <= 4 ? 2 : 1;
    const value *const end = at.values + count;
    vec more[4 * 4];
    UNROLL for (int v = 0; v < (chains - 1) * vectors; v++)
        more[v] = splat(0);
#if RUN > 1
    if (vectors <= RUN_VECTORS)
        for (; end - at.values >= RUN; at.values += RUN, at.offsets += RUN) {
            const struct run run = load_run(at.values, vectors);
            if (PREFETCHES_RUNS(vectors))
                prefetch_ahead(at, RUN);
            uint64_t offsets[RUN / 4];
            memcpy(offsets, at.offsets, sizeof offsets);
            UNROLL for (int i = 0; i < RUN; i++) {
                vec *to = i % chains ? more + (i % chains - 1) * vectors : sum, x = spread(&run, i, vectors);
                const float *pixels = in + (offsets[i / 4] >> i % 4 * 16 & 0xffff) * scale;
                UNROLL for (int v = 0; v < vectors; v++)
                    to[v] += x * load(pixels + (size_t)(v / UNIT_VECTORS) * step + v % UNIT_VECTORS * LANES);
            }
        }
#endif
    if (chains > 1)
        for (; end - at.values >= chains; at.values += chains, at.offsets += chains)
            UNROLL for (int i = 0; i < chains; i++) {
                vec *to = i ? more + (i - 1) * vectors : sum, x = splat(number(at.values[i]));
                const float *pixels = in + at.offsets[i] * scale;
                UNROLL for (int v = 0; v < vectors; v++)
                    to[v] += x * load(pixels + (size_t)(v / UNIT_VECTORS) * step + v % UNIT_VECTORS * LANES);
            }
    for (; at.values < end; at.values++, at.offsets++) {
        vec x = splat(number(*at.values));
        const float *pixels = in + *at.offsets * scale;
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] += x * load(pixels + (size_t)(v / UNIT_VECTORS) * step + v % UNIT_VECTORS * LANES);
    }
    UNROLL for (int v = 0; v < (chains - 1) * vectors; v++)
        sum[v % vectors] += more[v];
    return at;
}
