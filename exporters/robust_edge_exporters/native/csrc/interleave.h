/* Vectors in which the four lanes of 16 bytes are the four channels of a pixel, each with the codes of four filter taps.

   INTERLEAVES is 1 where an instruction set has what this takes: unpacking, narrowing and different shifts in the lanes
   of a vector. */
#ifndef ROBUST_EDGE_INTERLEAVE_H
#define ROBUST_EDGE_INTERLEAVE_H

#include "codes.h"

#if LANES == 16 && defined(__AVX512BW__)
#define INTERLEAVES 1
INLINE ints low_bytes(ints a, ints b) { return (ints)_mm512_unpacklo_epi8((__m512i)a, (__m512i)b); }
INLINE ints high_bytes(ints a, ints b) { return (ints)_mm512_unpackhi_epi8((__m512i)a, (__m512i)b); }
INLINE ints low_pairs(ints a, ints b) { return (ints)_mm512_unpacklo_epi16((__m512i)a, (__m512i)b); }
INLINE ints high_pairs(ints a, ints b) { return (ints)_mm512_unpackhi_epi16((__m512i)a, (__m512i)b); }
INLINE ints splat_sixteen(const void *p) { return (ints)_mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)p)); }
INLINE ints join_pixels(ints a, ints b, ints c, ints d) {
    __m512i first = _mm512_packs_epi32((__m512i)a, (__m512i)b), second = _mm512_packs_epi32((__m512i)c, (__m512i)d);
    return (ints)_mm512_packus_epi16(first, second);
}
#elif LANES == 8 && defined(__AVX2__)
#define INTERLEAVES 1
INLINE ints low_bytes(ints a, ints b) { return (ints)_mm256_unpacklo_epi8((__m256i)a, (__m256i)b); }
INLINE ints high_bytes(ints a, ints b) { return (ints)_mm256_unpackhi_epi8((__m256i)a, (__m256i)b); }
INLINE ints low_pairs(ints a, ints b) { return (ints)_mm256_unpacklo_epi16((__m256i)a, (__m256i)b); }
INLINE ints high_pairs(ints a, ints b) { return (ints)_mm256_unpackhi_epi16((__m256i)a, (__m256i)b); }
INLINE ints splat_sixteen(const void *p) {
    return (ints)_mm256_broadcastsi128_si256(_mm_loadu_si128((const __m128i *)p));
}
INLINE ints join_pixels(ints a, ints b, ints c, ints d) {
    __m256i first = _mm256_packs_epi32((__m256i)a, (__m256i)b), second = _mm256_packs_epi32((__m256i)c, (__m256i)d);
    return (ints)_mm256_packus_epi16(first, second);
}
#elif LANES == 4 && defined(__SSE2__)
#define INTERLEAVES 1
INLINE ints low_bytes(ints a, ints b) { return (ints)_mm_unpacklo_epi8((__m128i)a, (__m128i)b); }
INLINE ints high_bytes(ints a, ints b) { return (ints)_mm_unpackhi_epi8((__m128i)a, (__m128i)b); }
INLINE ints low_pairs(ints a, ints b) { return (ints)_mm_unpacklo_epi16((__m128i)a, (__m128i)b); }
INLINE ints high_pairs(ints a, ints b) { return (ints)_mm_unpackhi_epi16((__m128i)a, (__m128i)b); }
INLINE ints splat_sixteen(const void *p) { return (ints)_mm_loadu_si128((const __m128i *)p); }
INLINE ints join_pixels(ints a, ints b, ints c, ints d) {
    __m128i first = _mm_packs_epi32((__m128i)a, (__m128i)b), second = _mm_packs_epi32((__m128i)c, (__m128i)d);
    return (ints)_mm_packus_epi16(first, second);
}
#elif LANES == 4 && defined(__aarch64__)
#define INTERLEAVES 1
INLINE ints low_bytes(ints a, ints b) { return (ints)vzip1q_u8((uint8x16_t)a, (uint8x16_t)b); }
INLINE ints high_bytes(ints a, ints b) { return (ints)vzip2q_u8((uint8x16_t)a, (uint8x16_t)b); }
INLINE ints low_pairs(ints a, ints b) { return (ints)vzip1q_u16((uint16x8_t)a, (uint16x8_t)b); }
INLINE ints high_pairs(ints a, ints b) { return (ints)vzip2q_u16((uint16x8_t)a, (uint16x8_t)b); }
INLINE ints splat_sixteen(const void *p) { return (ints)vld1q_u8((const uint8_t *)p); }
INLINE ints join_pixels(ints a, ints b, ints c, ints d) {
    int16x8_t first = vcombine_s16(vqmovn_s32((int32x4_t)a), vqmovn_s32((int32x4_t)b));
    int16x8_t second = vcombine_s16(vqmovn_s32((int32x4_t)c), vqmovn_s32((int32x4_t)d));
    return (ints)vcombine_u8(vqmovun_s16(first), vqmovun_s16(second));
}
#else
#define INTERLEAVES 0
#endif

#if INTERLEAVES
/* Of words of LANES pixels, four taps each: to[k] has the pixels k, 4 + k, 8 + k, ... */
INLINE void interleave(const ints taps[4], ints to[4]) {
    const ints low[2] = {low_bytes(taps[0], taps[1]), low_bytes(taps[2], taps[3])};
    const ints high[2] = {high_bytes(taps[0], taps[1]), high_bytes(taps[2], taps[3])};
    to[0] = low_pairs(low[0], low[1]);
    to[1] = high_pairs(low[0], low[1]);
    to[2] = low_pairs(high[0], high[1]);
    to[3] = high_pairs(high[0], high[1]);
}

#endif
#endif
