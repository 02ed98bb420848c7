/* Codes of 8 bits, four to a word of 32: those of four consecutive channels of one pixel. Words lie in the arena as floats
   do. Vectors of LANES words, and the product of four codes with four weights, which every instruction set has in a form
   of its own:

       sum += x[0] * w[0] + x[1] * w[1] + x[2] * w[2] + x[3] * w[3]

   with codes x of 0 to 255 and weights w of -64 to 64, so that two products fit 16 bits. All forms give the same sum. */
#ifndef ROBUST_EDGE_CODES_H
#define ROBUST_EDGE_CODES_H

#include "vector.h"

#if LANES > 1
typedef int32_t ints __attribute__((vector_size(4 * LANES)));
#else
typedef int32_t ints;
#endif

#if defined(__aarch64__) && LANES == 4
#include <arm_neon.h>
#endif

/* Without a product of unsigned and signed bytes (Armv8.6), NEON multiplies signed ones: what a convolution packs is
   code - 128, which is the code with its highest bit flipped, and its sums begin with 128 times the sum of weights. */
#if defined(__aarch64__) && LANES == 4 && !defined(__ARM_FEATURE_MATMUL_INT8)
#define FLIP 0x80808080u
#define FLIPPED_ZERO 128
#else
#define FLIP 0u
#define FLIPPED_ZERO 0
#endif

INLINE ints load_words(const float *p) {
    ints v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void store_words(float *p, ints v) { memcpy(p, &v, sizeof v); }

INLINE ints splat_int(int32_t x) {
    const ints zeros = {0};
    return zeros + x;
}

/* The four bytes at p in all lanes. */
INLINE ints splat_four(const void *p) {
    int32_t x;
    memcpy(&x, p, sizeof x);
    return splat_int(x);
}

#if LANES == 16 && defined(__AVX512VNNI__)
INLINE ints dot4(ints sum, ints x, ints w) { return (ints)_mm512_dpbusd_epi32((__m512i)sum, (__m512i)x, (__m512i)w); }
#elif LANES == 16 && defined(__AVX512BW__)
INLINE ints dot4(ints sum, ints x, ints w) {
    __m512i pairs = _mm512_maddubs_epi16((__m512i)x, (__m512i)w);
    return sum + (ints)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1));
}
#elif LANES == 8 && defined(__AVXVNNI__)
INLINE ints dot4(ints sum, ints x, ints w) {
    return (ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)x, (__m256i)w);
}
#elif LANES == 8 && defined(__AVX2__)
INLINE ints dot4(ints sum, ints x, ints w) {
    __m256i pairs = _mm256_maddubs_epi16((__m256i)x, (__m256i)w);
    return sum + (ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1));
}
#elif LANES == 4 && defined(__SSSE3__)
INLINE ints dot4(ints sum, ints x, ints w) {
    __m128i pairs = _mm_maddubs_epi16((__m128i)x, (__m128i)w);
    return sum + (ints)_mm_madd_epi16(pairs, _mm_set1_epi16(1));
}
#elif LANES == 4 && defined(__aarch64__) && defined(__ARM_FEATURE_MATMUL_INT8)
INLINE ints dot4(ints sum, ints x, ints w) {
    return (ints)vusdotq_s32((int32x4_t)sum, (uint8x16_t)x, (int8x16_t)w);
}
#elif LANES == 4 && defined(__aarch64__) && defined(__ARM_FEATURE_DOTPROD)
INLINE ints dot4(ints sum, ints x, ints w) { return (ints)vdotq_s32((int32x4_t)sum, (int8x16_t)x, (int8x16_t)w); }
#elif LANES == 4 && defined(__aarch64__)
INLINE ints dot4(ints sum, ints x, ints w) {
    int16x8_t low = vmull_s8(vget_low_s8((int8x16_t)x), vget_low_s8((int8x16_t)w));
    int16x8_t high = vmull_high_s8((int8x16_t)x, (int8x16_t)w);
    return (ints)vpadalq_s16((int32x4_t)sum, vpaddq_s16(low, high));
}
#else
INLINE ints dot4(ints sum, ints x, ints w) {
    UNROLL for (int k = 0; k < 4; k++)
        sum += (ints)((bits)x >> 8 * k & 255) * ((ints)((bits)w << (24 - 8 * k)) >> 24);
    return sum;
}
#endif

/* min(max(v, lo), hi). */
#if LANES == 16
INLINE ints clamp_ints(ints v, ints lo, ints hi) {
    return (ints)_mm512_min_epi32((__m512i)hi, _mm512_max_epi32((__m512i)lo, (__m512i)v));
}
#elif LANES == 8 && defined(__AVX2__)
INLINE ints clamp_ints(ints v, ints lo, ints hi) {
    return (ints)_mm256_min_epi32((__m256i)hi, _mm256_max_epi32((__m256i)lo, (__m256i)v));
}
#elif LANES == 4 && defined(__SSE4_1__)
INLINE ints clamp_ints(ints v, ints lo, ints hi) {
    return (ints)_mm_min_epi32((__m128i)hi, _mm_max_epi32((__m128i)lo, (__m128i)v));
}
#elif LANES == 4 && defined(__aarch64__)
INLINE ints clamp_ints(ints v, ints lo, ints hi) {
    return (ints)vminq_s32((int32x4_t)hi, vmaxq_s32((int32x4_t)lo, (int32x4_t)v));
}
#elif LANES > 1
INLINE ints clamp_ints(ints v, ints lo, ints hi) {
    ints below = v < lo, above = v > hi;
    v = (v & ~below) | (lo & below);
    return (v & ~above) | (hi & above);
}
#else
INLINE ints clamp_ints(ints v, ints lo, ints hi) { return v < lo ? lo : v > hi ? hi : v; }
#endif

/* One code as a table of 256 has it: in place, of `words` words. */
PRIVATE void look_up(float *words, int count, const unsigned char *table) {
    unsigned char *code = (unsigned char *)words;
    for (int i = 0; i < 4 * count; i++)
        code[i] = table[code[i]];
}

#endif
