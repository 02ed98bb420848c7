/* Vectors: one source for AVX-512, AVX2, SSE and NEON through GCC/Clang vector extensions, else scalars.
   A unit is 16 floats; planes, tiles and packed rows are whole units, so that a layout fits every machine. */
#define UNIT 16

#if defined(__GNUC__) && !defined(RE_SCALAR)
#if defined(__AVX512F__)
#define LANES 16
#define UNITS_MAX 16 /* accumulators of a sparse register tile, in units */
#define DENSE_VECTORS 4
#elif defined(__AVX__)
#define LANES 8
#define UNITS_MAX 6
#define DENSE_VECTORS 2
#elif defined(__aarch64__)
#define LANES 4
#define UNITS_MAX 6
#define DENSE_VECTORS 4
#else
#define LANES 4
#define UNITS_MAX 3
#define DENSE_VECTORS 2
#endif
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));
#define INLINE static inline __attribute__((always_inline))
#define PREFETCH(p) __builtin_prefetch(p)
#if defined(__clang__)
#define UNROLL _Pragma("unroll")
#else
#define UNROLL _Pragma("GCC unroll 32")
#endif
#else
#define LANES 1
#define UNITS_MAX 2
#define DENSE_VECTORS 2
typedef float vec;
typedef uint32_t bits;
#define INLINE static inline
#define PREFETCH(p) (void)(p)
#define UNROLL
#endif

#define UNIT_VECTORS (UNIT / LANES)

INLINE vec load(const float *p) {
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store(float *p, vec v) { memcpy(p, &v, sizeof v); }

/* x - 0 is x for every x, so that compilers drop the subtraction; 0 + x is not (-0) and stays. */
INLINE vec splat(float x) {
    const vec zeros = {0};
    return x - zeros;
}

INLINE vec masked(vec v, const uint32_t *mask) {
    bits m, b;
    memcpy(&m, mask, sizeof m);
    memcpy(&b, &v, sizeof b);
    b &= m;
    memcpy(&v, &b, sizeof v);
    return v;
}

/* min(max(v, lo), hi), a NaN stays. By masks: C has no ?: for vectors. */
#if LANES > 1
INLINE vec choose(bits mask, vec yes, vec no) {
    bits y, n;
    vec v;
    memcpy(&y, &yes, sizeof y);
    memcpy(&n, &no, sizeof n);
    n = (mask & y) | (~mask & n);
    memcpy(&v, &n, sizeof v);
    return v;
}

INLINE vec clamp(vec v, vec lo, vec hi) {
    v = choose((bits)(v < lo), lo, v);
    return choose((bits)(v > hi), hi, v);
}
#else
INLINE vec clamp(vec v, vec lo, vec hi) { return v < lo ? lo : v > hi ? hi : v; }
#endif
