/* Vectors of LANES floats: one source for AVX-512, AVX2, SSE and NEON through the vector extensions of GCC and Clang,
   with intrinsics only for instructions that these cannot express; scalars (LANES is 1) elsewhere, or with -DRE_SCALAR.

   A unit is UNIT floats. Planes, tiles and packed rows are whole units, so that one memory layout fits every machine.
   UNITS_MAX is the number of units of pixels whose sums fit the register file; the exporter reads UNIT and UNITS_MAX
   from this file. */
#ifndef ROBUST_EDGE_VECTOR_H
#define ROBUST_EDGE_VECTOR_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "compiler.h"

#define UNIT 16 /* floats */

#if defined(__GNUC__) && !defined(RE_SCALAR)
#if defined(__SSE__)
#include <immintrin.h>
#endif
#if defined(__AVX512F__)
#define LANES 16
#define UNITS_MAX 16 /* units of sums in a register tile of a sparse kernel */
#define DENSE_VECTORS 4 /* vectors of pixels in a register tile of the dense kernel */
/* Values loaded at a time, where broadcasting a lane costs less than loading a value. */
#define CHUNK 8 /* at most */
#define CHUNK_FOR(vectors) ((vectors) <= 2 || ((vectors) > 4 && (vectors) <= 8) ? 8 : 4) /* in a register tile */
#elif defined(__AVX__)
#define LANES 8
#define UNITS_MAX 6
#define DENSE_VECTORS 2
#elif defined(__aarch64__)
#define LANES 4
#define UNITS_MAX 6
#define DENSE_VECTORS 4
#define CHUNK 4
#define CHUNK_FOR(vectors) ((vectors) <= 4 ? 4 : 1)
#else
#define LANES 4
#define UNITS_MAX 3
#define DENSE_VECTORS 2
#endif
typedef float vec __attribute__((vector_size(4 * LANES)));
typedef uint32_t bits __attribute__((vector_size(4 * LANES)));
#else
#define LANES 1
#define UNITS_MAX 2
#define DENSE_VECTORS 2
typedef float vec;
typedef uint32_t bits;
#endif

#ifndef CHUNK
#define CHUNK 1
#define CHUNK_FOR(vectors) 1
#endif

#define UNIT_VECTORS (UNIT / LANES)

INLINE vec load(const float *p) {
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store(float *p, vec v) { memcpy(p, &v, sizeof v); }

/* x in all lanes. Since x - 0 is x for every x, compilers drop the subtraction; 0 + x is not x where x is -0. */
INLINE vec splat(float x) {
    const vec zeros = {0};
    return x - zeros;
}

/* Lane `k` of v in all lanes; `k` is a constant once the loop around it is unrolled. */
#if LANES == 1
INLINE vec broadcast_lane(vec v, const int k) { return (void)k, v; }
#elif defined(__clang__)
INLINE vec broadcast_lane(vec v, const int k) { return splat(v[k]); }
#else
INLINE vec broadcast_lane(vec v, const int k) {
    const bits zeros = {0};
    return __builtin_shuffle(v, zeros + (uint32_t)k);
}
#endif

/* Lane `k` of each four lanes in all four of them; `k` is a constant likewise. */
#if LANES == 16
INLINE vec broadcast_lane_of_four(vec v, const int k) {
    switch (k) {
    case 0:
        return _mm512_permute_ps(v, 0x00);
    case 1:
        return _mm512_permute_ps(v, 0x55);
    case 2:
        return _mm512_permute_ps(v, 0xaa);
    default:
        return _mm512_permute_ps(v, 0xff);
    }
}
#endif

/* The even and the odd ones of the floats of two vectors. */
#if LANES == 1
INLINE void deinterleave_vectors(vec first, vec second, vec *even, vec *odd) { *even = first, *odd = second; }
#else
#if LANES == 16
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30
#define ODD 1, 3, 5, 7, 9, 11, 13, 15, 17, 19, 21, 23, 25, 27, 29, 31
#elif LANES == 8
#define EVEN 0, 2, 4, 6, 8, 10, 12, 14
#define ODD 1, 3, 5, 7, 9, 11, 13, 15
#else
#define EVEN 0, 2, 4, 6
#define ODD 1, 3, 5, 7
#endif
INLINE void deinterleave_vectors(vec first, vec second, vec *even, vec *odd) {
#if defined(__clang__)
    *even = __builtin_shufflevector(first, second, EVEN);
    *odd = __builtin_shufflevector(first, second, ODD);
#else
    *even = __builtin_shuffle(first, second, (bits){EVEN});
    *odd = __builtin_shuffle(first, second, (bits){ODD});
#endif
}
#endif

/* The even and the odd ones of the 2 * LANES floats at p. */
INLINE void deinterleave(const float *p, vec *even, vec *odd) {
    deinterleave_vectors(load(p), load(p + LANES), even, odd);
}

#if LANES > 1
typedef float quad __attribute__((vector_size(16)));
#if defined(__clang__)
#define EVEN_QUAD(a, b) __builtin_shufflevector(a, b, 0, 2, 4, 6)
#define ODD_QUAD(a, b) __builtin_shufflevector(a, b, 1, 3, 5, 7)
#else
typedef uint32_t quad_bits __attribute__((vector_size(16)));
#define EVEN_QUAD(a, b) __builtin_shuffle(a, b, (quad_bits){0, 2, 4, 6})
#define ODD_QUAD(a, b) __builtin_shuffle(a, b, (quad_bits){1, 3, 5, 7})
#endif
#endif

/* The even and the odd ones of 2 * `floats` floats, four at a time since rows may be shorter than a vector. */
INLINE void deinterleave_row(const float *row, int floats, float *even, float *odd) {
    int i = 0;
#if LANES > 1
    for (; i + 4 <= floats; i += 4) {
        quad pair[2], halves[2];
        memcpy(pair, row + 2 * i, sizeof pair);
        halves[0] = EVEN_QUAD(pair[0], pair[1]);
        halves[1] = ODD_QUAD(pair[0], pair[1]);
        memcpy(even + i, &halves[0], sizeof halves[0]);
        memcpy(odd + i, &halves[1], sizeof halves[1]);
    }
#endif
    for (; i < floats; i++) {
        even[i] = row[2 * i];
        odd[i] = row[2 * i + 1];
    }
}

/* The floats one before those of `v`: the last one of `before`, then all but the last one of `v`. And one after: all
   but the first one of `v`, then the first one of `after`. */
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

/* Lanes begin <= i < end of a vector; none, if end is not above begin. */
#if LANES == 16
struct lanes {
    __mmask16 mask;
};

INLINE struct lanes lanes_between(int begin, int end) {
    struct lanes l;
    begin = begin < 0 ? 0 : begin < LANES ? begin : LANES;
    end = end < begin ? begin : end < LANES ? end : LANES;
    l.mask = (__mmask16)((1u << end) - (1u << begin));
    return l;
}

/* v in these lanes, 0 in the others. */
INLINE vec keep_lanes(vec v, struct lanes l) { return _mm512_maskz_mov_ps(l.mask, v); }

/* The floats at p in these lanes, 0 in the others. */
INLINE vec load_lanes(const float *p, struct lanes l) { return _mm512_maskz_loadu_ps(l.mask, p); }

/* v in these lanes, `other` in the others. */
INLINE vec lanes_or(vec v, struct lanes l, vec other) { return _mm512_mask_mov_ps(other, l.mask, v); }
#else
struct lanes {
    uint32_t mask[LANES];
};

INLINE struct lanes lanes_between(int begin, int end) {
    struct lanes l;
    for (int i = 0; i < LANES; i++)
        l.mask[i] = i >= begin && i < end ? 0xffffffffu : 0;
    return l;
}

INLINE vec keep_lanes(vec v, struct lanes l) {
    bits m, b;
    memcpy(&m, l.mask, sizeof m);
    memcpy(&b, &v, sizeof b);
    b &= m;
    memcpy(&v, &b, sizeof v);
    return v;
}

INLINE vec load_lanes(const float *p, struct lanes l) { return keep_lanes(load(p), l); }

INLINE vec lanes_or(vec v, struct lanes l, vec other) {
    bits m, b, o;
    memcpy(&m, l.mask, sizeof m);
    memcpy(&b, &v, sizeof b);
    memcpy(&o, &other, sizeof o);
    b = (m & b) | (~m & o);
    memcpy(&v, &b, sizeof v);
    return v;
}
#endif

/* Stores the first `lanes` lanes of v, by a plain store if these are all: one through a mask is slower. */
#if LANES == 16
INLINE void store_lanes(float *p, vec v, int lanes) {
    if (lanes == LANES)
        store(p, v);
    else
        _mm512_mask_storeu_ps(p, (__mmask16)((1u << lanes) - 1), v);
}
#else
INLINE void store_lanes(float *p, vec v, int lanes) {
    float all[LANES];
    int i = 0;
    if (lanes == LANES) {
        store(p, v);
        return;
    }
    store(all, v);
    for (int size = LANES / 2; size > 0; size /= 2)
        if (lanes & size) {
            memcpy(p + i, all + i, (size_t)size * sizeof *p);
            i += size;
        }
}
#endif

/* v where the mask is all ones, 0 where it is 0. */
INLINE vec masked(vec v, const uint32_t *mask) {
    bits m, b;
    memcpy(&m, mask, sizeof m);
    memcpy(&b, &v, sizeof b);
    b &= m;
    memcpy(&v, &b, sizeof v);
    return v;
}

#if LANES > 1
/* `yes` where the mask is all ones, `no` where it is 0. */
INLINE vec blend(bits mask, vec yes, vec no) {
    bits y, n;
    vec v;
    memcpy(&y, &yes, sizeof y);
    memcpy(&n, &no, sizeof n);
    n = (mask & y) | (~mask & n);
    memcpy(&v, &n, sizeof v);
    return v;
}
#endif

/* a > b ? a : b, which is b where either is a NaN. */
#if LANES == 16
INLINE vec maximum(vec a, vec b) { return _mm512_max_ps(a, b); }
#elif LANES == 8
INLINE vec maximum(vec a, vec b) { return _mm256_max_ps(a, b); }
#elif LANES == 4 && defined(__SSE__)
INLINE vec maximum(vec a, vec b) { return _mm_max_ps(a, b); }
#elif LANES > 1
INLINE vec maximum(vec a, vec b) { return blend((bits)(a > b), a, b); }
#else
INLINE vec maximum(vec a, vec b) { return a > b ? a : b; }
#endif

/* min(max(v, lo), hi), where a NaN stays a NaN: the x86 instructions return their second operand for one. Elsewhere
   masks select the lanes, since C has no ?: for vectors. */
#if LANES == 16
INLINE vec clamp(vec v, vec lo, vec hi) { return _mm512_min_ps(hi, _mm512_max_ps(lo, v)); }
#elif LANES == 8
INLINE vec clamp(vec v, vec lo, vec hi) { return _mm256_min_ps(hi, _mm256_max_ps(lo, v)); }
#elif LANES == 4 && defined(__SSE__)
INLINE vec clamp(vec v, vec lo, vec hi) { return _mm_min_ps(hi, _mm_max_ps(lo, v)); }
#elif LANES > 1
INLINE vec clamp(vec v, vec lo, vec hi) {
    v = blend((bits)(v < lo), lo, v);
    return blend((bits)(v > hi), hi, v);
}
#else
INLINE vec clamp(vec v, vec lo, vec hi) { return v < lo ? lo : v > hi ? hi : v; }
#endif

#endif
