/* Values as the weights file stores them: float, or IEEE half, widened where it is used. */
#if VALUE_BYTES == 4
typedef float value;

INLINE float number(value x) { return x; }
#else
typedef uint16_t value;

#if defined(__F16C__)
#include <immintrin.h>
INLINE float number(value half) { return _cvtsh_ss(half); }
#elif defined(__aarch64__)
INLINE float number(value half) {
    __fp16 x;
    memcpy(&x, &half, sizeof x);
    return (float)x;
}
#else
INLINE float number(value half) {
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

/* A vector of values. */
#if VALUE_BYTES == 4
INLINE vec load_values(const value *p) { return load(p); }
#elif defined(__F16C__) && LANES == 16
INLINE vec load_values(const value *p) { return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p)); }
#else
INLINE vec load_values(const value *p) {
    float x[LANES];
    UNROLL for (int i = 0; i < LANES; i++)
        x[i] = number(p[i]);
    return load(x);
}
#endif

/* Four values, over and over. */
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
    const float four[4] = {number(p[0]), number(p[1]), number(p[2]), number(p[3])};
    return _mm512_broadcast_f32x4(_mm_loadu_ps(four));
}
#endif

#if RUN > 1
/* RUN values in the first lanes of a vector; what else a whole vector holds costs time and is not used. */
#if LANES == 16 && VALUE_BYTES == 4
INLINE vec load_whole_run(const value *p) { return _mm512_castps256_ps512(_mm256_loadu_ps(p)); }
#elif LANES == 16 && defined(__F16C__)
INLINE vec load_whole_run(const value *p) {
    return _mm512_castps256_ps512(_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
#else
INLINE vec load_whole_run(const value *p) { return load_values(p); }
#endif

/* RUN values about to be spread over all lanes. From fours that costs a load more and less to spread: worth it where
   each is multiplied with several vectors. */
struct run {
    vec part[RUN / 4];
};

INLINE struct run load_run(const value *p, const int vectors) {
    struct run r;
#if LANES == 16
    if (vectors > 2) {
        UNROLL for (int i = 0; i < RUN / 4; i++)
            r.part[i] = load_four(p + 4 * i);
        return r;
    }
#endif
    (void)vectors;
    r.part[0] = load_whole_run(p);
    return r;
}

INLINE vec spread(const struct run *r, const int i, const int vectors) {
#if LANES == 16
    if (vectors > 2)
        return lane_of_four(r->part[i / 4], i % 4);
#endif
    (void)vectors;
    return lane(r->part[0], i);
}
#endif
