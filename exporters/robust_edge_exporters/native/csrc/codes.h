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

/* Whether codes are multiplied as they are, so that a convolution that needs no shifted copies packs nothing. */
#define READS_IN_PLACE (FLIP == 0)

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

/* Sums and products modulo 2 to the power of 32, which those of a damaged weights file may exceed. */
INLINE ints add_ints(ints a, ints b) { return (ints)((bits)a + (bits)b); }
INLINE ints multiply_ints(ints a, ints b) { return (ints)((bits)a * (bits)b); }

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
    return add_ints(sum, (ints)_mm512_madd_epi16(pairs, _mm512_set1_epi16(1)));
}
#elif LANES == 8 && defined(__AVXVNNI__)
INLINE ints dot4(ints sum, ints x, ints w) {
    return (ints)_mm256_dpbusd_avx_epi32((__m256i)sum, (__m256i)x, (__m256i)w);
}
#elif LANES == 8 && defined(__AVX2__)
INLINE ints dot4(ints sum, ints x, ints w) {
    __m256i pairs = _mm256_maddubs_epi16((__m256i)x, (__m256i)w);
    return add_ints(sum, (ints)_mm256_madd_epi16(pairs, _mm256_set1_epi16(1)));
}
#elif LANES == 4 && defined(__SSSE3__)
INLINE ints dot4(ints sum, ints x, ints w) {
    __m128i pairs = _mm_maddubs_epi16((__m128i)x, (__m128i)w);
    return add_ints(sum, (ints)_mm_madd_epi16(pairs, _mm_set1_epi16(1)));
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
        sum = add_ints(sum, (ints)((bits)x >> 8 * k & 255) * ((ints)((bits)w << (24 - 8 * k)) >> 24));
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

/* The codes of channel k of the words: by one shuffle, whose indices above 127 give 0, instead of a shift and a mask. */
#if LANES == 16 && defined(__AVX512BW__)
INLINE ints codes_of(ints words, int k) {
    const __m512i order = _mm512_set4_epi32(0x8080800c, 0x80808008, 0x80808004, 0x80808000);
    return (ints)_mm512_shuffle_epi8((__m512i)words, _mm512_add_epi32(order, _mm512_set1_epi32(k)));
}
#elif LANES == 8 && defined(__AVX2__)
INLINE ints codes_of(ints words, int k) {
    const __m256i order = _mm256_broadcastsi128_si256(_mm_set_epi32(0x8080800c, 0x80808008, 0x80808004, 0x80808000));
    return (ints)_mm256_shuffle_epi8((__m256i)words, _mm256_add_epi32(order, _mm256_set1_epi32(k)));
}
#elif LANES == 4 && defined(__SSSE3__)
INLINE ints codes_of(ints words, int k) {
    const __m128i order = _mm_set_epi32(0x8080800c, 0x80808008, 0x80808004, 0x80808000);
    return (ints)_mm_shuffle_epi8((__m128i)words, _mm_add_epi32(order, _mm_set1_epi32(k)));
}
#else
INLINE ints codes_of(ints words, int k) { return words >> 8 * k & 255; }
#endif

/* The codes of four channels, one in each lane, joined to words; numbers outside 0 to 255 become 0 and 255. Packing to
   16 and 8 bits saturates, and leaves four pixels of each channel side by side, which one shuffle interleaves. */
#if LANES == 4 && defined(__aarch64__)
INLINE ints join_codes(ints a, ints b, ints c, ints d) {
    static const uint8_t order[16] = {0, 8, 4, 12, 1, 9, 5, 13, 2, 10, 6, 14, 3, 11, 7, 15};
    int16x8_t even = vcombine_s16(vqmovn_s32((int32x4_t)a), vqmovn_s32((int32x4_t)c));
    int16x8_t odd = vcombine_s16(vqmovn_s32((int32x4_t)b), vqmovn_s32((int32x4_t)d));
    return (ints)vqtbl1q_u8(vcombine_u8(vqmovun_s16(even), vqmovun_s16(odd)), vld1q_u8(order));
}
#elif LANES == 16 && defined(__AVX512BW__)
INLINE ints join_codes(ints a, ints b, ints c, ints d) {
    __m512i even = _mm512_packs_epi32((__m512i)a, (__m512i)c), odd = _mm512_packs_epi32((__m512i)b, (__m512i)d);
    __m512i order = _mm512_set4_epi32(0x0f070b03, 0x0e060a02, 0x0d050901, 0x0c040800);
    return (ints)_mm512_shuffle_epi8(_mm512_packus_epi16(even, odd), order);
}
#elif LANES == 8 && defined(__AVX2__)
INLINE ints join_codes(ints a, ints b, ints c, ints d) {
    __m256i even = _mm256_packs_epi32((__m256i)a, (__m256i)c), odd = _mm256_packs_epi32((__m256i)b, (__m256i)d);
    __m256i order = _mm256_broadcastsi128_si256(_mm_set_epi32(0x0f070b03, 0x0e060a02, 0x0d050901, 0x0c040800));
    return (ints)_mm256_shuffle_epi8(_mm256_packus_epi16(even, odd), order);
}
#elif LANES == 4 && defined(__SSSE3__)
INLINE ints join_codes(ints a, ints b, ints c, ints d) {
    __m128i even = _mm_packs_epi32((__m128i)a, (__m128i)c), odd = _mm_packs_epi32((__m128i)b, (__m128i)d);
    __m128i order = _mm_set_epi32(0x0f070b03, 0x0e060a02, 0x0d050901, 0x0c040800);
    return (ints)_mm_shuffle_epi8(_mm_packus_epi16(even, odd), order);
}
#else
INLINE ints join_codes(ints a, ints b, ints c, ints d) {
    const ints lo = splat_int(0), hi = splat_int(255);
    return clamp_ints(a, lo, hi) | clamp_ints(b, lo, hi) << 8 | clamp_ints(c, lo, hi) << 16 |
           (ints)((bits)clamp_ints(d, lo, hi) << 24);
}
#endif

/* The larger one of each two codes. */
#if LANES == 16 && defined(__AVX512BW__)
INLINE ints max_codes(ints a, ints b) { return (ints)_mm512_max_epu8((__m512i)a, (__m512i)b); }
#elif LANES == 8 && defined(__AVX2__)
INLINE ints max_codes(ints a, ints b) { return (ints)_mm256_max_epu8((__m256i)a, (__m256i)b); }
#elif LANES == 4 && defined(__SSE2__)
INLINE ints max_codes(ints a, ints b) { return (ints)_mm_max_epu8((__m128i)a, (__m128i)b); }
#elif LANES == 4 && defined(__aarch64__)
INLINE ints max_codes(ints a, ints b) { return (ints)vmaxq_u8((uint8x16_t)a, (uint8x16_t)b); }
#elif LANES > 1
INLINE ints max_codes(ints a, ints b) {
    typedef uint8_t bytes __attribute__((vector_size(4 * LANES)));
    ints larger = (ints)((bytes)a > (bytes)b);
    return (a & larger) | (b & ~larger);
}
#else
INLINE ints max_codes(ints a, ints b) {
    unsigned char x[4], y[4];
    memcpy(x, &a, sizeof a);
    memcpy(y, &b, sizeof b);
    for (int k = 0; k < 4; k++)
        x[k] = x[k] > y[k] ? x[k] : y[k];
    memcpy(&a, x, sizeof a);
    return a;
}
#endif

/* One code as a table of 256 has it: in place, of `words` words. */
PRIVATE void look_up(float *words, int count, const unsigned char *table) {
    unsigned char *code = (unsigned char *)words;
    for (int i = 0; i < 4 * count; i++)
        code[i] = table[code[i]];
}

#endif
