/* The inner loop of the sparse convolutions: sums of nonzero weights times vectors of pixels. */
#ifndef ROBUST_EDGE_NONZEROS_H
#define ROBUST_EDGE_NONZEROS_H

#include <stdint.h>
#include <string.h>

#include "values.h"
#include "vector.h"

/* Entries of a layer, from some entry on. */
struct nonzeros {
    const value *values;
    const uint16_t *offsets; /* of the pixels that each value is multiplied with */
};

/* Small tiles read entries faster than memory delivers them, unless they are prefetched. prefetch_ahead prefetches
   `count` entries that lie AHEAD entries behind the current one. Kernels pass a layer's mean length of a segment
   instead of the segment's own, since the end of a loop of varying length is mispredicted. Tiles of one vector read
   entries fastest: they prefetch with every chunk, which spreads the requests evenly. */
#define PREFETCHES_CHUNKS(vectors) (CHUNK > 1 && (vectors) == 1)
#define AHEAD 768
#define LINE 64 /* bytes of a cache line */

INLINE void prefetch_ahead(struct nonzeros next, uint32_t count) {
    for (uint32_t i = 0; i < count; i += LINE / sizeof *next.values)
        PREFETCH(next.values + AHEAD + i);
    for (uint32_t i = 0; i < count; i += LINE / sizeof *next.offsets)
        PREFETCH(next.offsets + AHEAD + i);
}

/* Mean number of entries of `segments` segments. */
INLINE uint32_t mean_length(const uint32_t *starts, int segments) {
    return segments > 0 ? (starts[segments] - starts[0]) / (uint32_t)segments : 0;
}

/* Adds the products of a segment of `count` entries to the sums of `units` units of pixels:

       for k < count, u < units, i < UNIT:
           sum[u][i] += values[k] * in[offsets[k] * scale + u * step + i]

   Returns the entry after the segment. `units` is a constant where this is called, so that the sums stay in registers.

   Fused multiply-adds to few sums wait for each other, so up to four partial sums are kept of each. Loading value and
   offset costs as much as one or two products, so that CHUNK_FOR(vectors) entries are loaded at a time. */
INLINE struct nonzeros accumulate(vec *sum, const int units, const float *in, size_t step, size_t scale,
                                  struct nonzeros next, uint32_t count) {
    const int vectors = units * UNIT_VECTORS, chains = vectors <= 2 ? 4 : vectors <= 4 ? 2 : 1;
    const int size = CHUNK_FOR(vectors);
    const value *const end = next.values + count;
    vec partial[4 * 4];
    UNROLL for (int v = 0; v < (chains - 1) * vectors; v++)
        partial[v] = splat(0);
#if CHUNK > 1
    if (size > 1)
        for (; end - next.values >= size; next.values += size, next.offsets += size) {
            const struct chunk chunk = load_chunk(next.values, vectors);
            if (PREFETCHES_CHUNKS(vectors))
                prefetch_ahead(next, CHUNK);
            uint64_t offsets[CHUNK / 4];
            memcpy(offsets, next.offsets, (size_t)size * sizeof *next.offsets);
            UNROLL for (int i = 0; i < size; i++) {
                vec *to = i % chains ? partial + (i % chains - 1) * vectors : sum, x = broadcast(&chunk, i, vectors);
                const float *pixels = in + (offsets[i / 4] >> i % 4 * 16 & 0xffff) * scale;
                UNROLL for (int v = 0; v < vectors; v++)
                    to[v] += x * load(pixels + (size_t)(v / UNIT_VECTORS) * step + v % UNIT_VECTORS * LANES);
            }
        }
#endif
    if (chains > 1 && chains != size)
        for (; end - next.values >= chains; next.values += chains, next.offsets += chains)
            UNROLL for (int i = 0; i < chains; i++) {
                vec *to = i ? partial + (i - 1) * vectors : sum, x = splat(to_float(next.values[i]));
                const float *pixels = in + next.offsets[i] * scale;
                UNROLL for (int v = 0; v < vectors; v++)
                    to[v] += x * load(pixels + (size_t)(v / UNIT_VECTORS) * step + v % UNIT_VECTORS * LANES);
            }
    for (; next.values < end; next.values++, next.offsets++) {
        vec x = splat(to_float(*next.values));
        const float *pixels = in + *next.offsets * scale;
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] += x * load(pixels + (size_t)(v / UNIT_VECTORS) * step + v % UNIT_VECTORS * LANES);
    }
    UNROLL for (int v = 0; v < (chains - 1) * vectors; v++)
        sum[v % vectors] += partial[v];
    return next;
}

#endif
