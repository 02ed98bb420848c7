/* Weights as the weights file stores them: float, or IEEE half, widened where it is used; or bytes (codes.h). */
#ifndef ROBUST_EDGE_VALUES_H
#define ROBUST_EDGE_VALUES_H

#include "config.h"
#include "vector.h"

#if VALUE_BYTES == 1
typedef int8_t value;
#else
#if VALUE_BYTES == 4
typedef float value;

INLINE float to_float(value x) { return x; }
#else
typedef uint16_t value;

#if defined(__F16C__)
#include <immintrin.h>
INLINE float to_float(value half) { return _cvtsh_ss(half); }
#elif defined(__aarch64__)
INLINE float to_float(value half) {
    __fp16 x;
    memcpy(&x, &half, sizeof x);
    return (float)x;
}
#else
INLINE float to_float(value half) {
    uint32_t sign = (uint32_t)(half & 0x8000u) << 16, exponent = (half >> 10) & 31u, fraction = half & 1023u, word;
    float x;
    if (exponent == 0) {
        x = (float)fraction * (1.0f / 16777216.0f);
        return sign ? -x : x;
    }
    word = sign | (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | fraction << 13;
    memcpy(&x, &word, sizeof x);
    return x;
}
#endif
#endif

/* Loads a vector of consecutive values. */
#if VALUE_BYTES == 4
INLINE vec load_values(const value *p) { return load(p); }
#elif defined(__F16C__) && LANES == 16
INLINE vec load_values(const value *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p)); }
#else
INLINE vec load_values(const value *p) {
    float x[LANES];
    UNROLL for (int i = 0; i < LANES; i++)
        x[i] = to_float(p[i]);
    return load(x);
}
#endif

/* Loads four values, repeated over the vector. */
#if LANES == 16 && VALUE_BYTES == 4
INLINE vec load_four(const value *p) { return _mm512_broadcast_f32x4(_mm_loadu_ps(p)); }
#elif LANES == 16 && defined(__F16C__)
INLINE vec load_four(const value *p) {
    long long four;
    memcpy(&four, p, sizeof four);
    return _mm512_cvtph_ps(_mm256_set1_epi64x(four));
}
#elif LANES == 16
INLINE vec load_four(const value *p) {
    const float four[4] = {to_float(p[0]), to_float(p[1]), to_float(p[2]), to_float(p[3])};
    return _mm512_broadcast_f32x4(_mm_loadu_ps(four));
}
#endif

#if CHUNK > 1
/* Loads CHUNK values into the first lanes of a vector; loading a whole vector would cost more. */
#if LANES == 16 && VALUE_BYTES == 4
INLINE vec load_first_lanes(const value *p) { return _mm512_castps256_ps512(_mm256_loadu_ps(p)); }
#elif LANES == 16 && defined(__F16C__)
INLINE vec load_first_lanes(const value *p) {
    return _mm512_castps256_ps512(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
#else
INLINE vec load_first_lanes(const value *p) { return load_values(p); }
#endif

/* CHUNK_FOR(vectors) values, each of which is about to be broadcast to all lanes. Where each is multiplied with more
   than two vectors, they are loaded by fours, which takes one load more but makes the broadcasts cheaper. */
struct chunk {
    vec fours[CHUNK / 4]; /* or all values in the first one */
};

INLINE struct chunk load_chunk(const value *p, const int vectors) {
    struct chunk c;
#if LANES == 16
    if (vectors > 2) {
        c.fours[0] = load_four(p);
        c.fours[CHUNK / 4 - 1] = CHUNK_FOR(vectors) > 4 ? load_four(p + 4) : c.fours[0];
        return c;
    }
#endif
    (void)vectors;
    c.fours[0] = load_first_lanes(p);
    return c;
}

/* Value i of the chunk in all lanes. */
INLINE vec broadcast(const struct chunk *c, const int i, const int vectors) {
#if LANES == 16
    if (vectors > 2)
        return broadcast_lane_of_four(c->fours[i / 4], i % 4);
#endif
    (void)vectors;
    return broadcast_lane(c->fours[0], i);
}
#endif
#endif

#endif
