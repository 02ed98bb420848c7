/* The first operator of a network of codes: codes of the caller's floats, four channels to a word.

       out[c][i] = floor(clamp(scale[c] * in[c][i] + shift[c], 0, 255))

   in double precision, where the product is exact: a fused multiply-add gives the same. A NaN becomes 0. */
#ifndef ROBUST_EDGE_QUANTISE_H
#define ROBUST_EDGE_QUANTISE_H

#include "codes.h"
#include "context.h"
#include "job.h"
#include "tensor.h"

struct quantise {
    struct tensor out;   /* words */
    int channels;
    const float *scale;  /* one per channel */
    const double *shift; /* with 0.5 for the rounding */
};

INLINE int32_t quantise_one(float x, double scale, double shift) {
    double code = scale * x + shift;
    code = code > 0 ? code : 0;
    return (int32_t)(code < 255 ? code : 255);
}

/* LANES codes of one channel. */
INLINE ints quantise_vector(const float *in, double scale, double shift) {
#if LANES == 16
    const __m512d scales = _mm512_set1_pd(scale), shifts = _mm512_set1_pd(shift), lowest = _mm512_setzero_pd();
    const __m512d highest = _mm512_set1_pd(255);
    __m256i half[2];
    UNROLL for (int i = 0; i < 2; i++) {
        __m512d code = _mm512_fmadd_pd(_mm512_cvtps_pd(_mm256_loadu_ps(in + 8 * i)), scales, shifts);
        half[i] = _mm512_cvttpd_epi32(_mm512_min_pd(highest, _mm512_max_pd(code, lowest)));
    }
    return (ints)_mm512_inserti64x4(_mm512_castsi256_si512(half[0]), half[1], 1);
#elif LANES == 8
    const __m256d scales = _mm256_set1_pd(scale), shifts = _mm256_set1_pd(shift), lowest = _mm256_setzero_pd();
    const __m256d highest = _mm256_set1_pd(255);
    __m128i half[2];
    UNROLL for (int i = 0; i < 2; i++) {
        __m256d code = _mm256_add_pd(_mm256_mul_pd(_mm256_cvtps_pd(_mm_loadu_ps(in + 4 * i)), scales), shifts);
        half[i] = _mm256_cvttpd_epi32(_mm256_min_pd(highest, _mm256_max_pd(code, lowest)));
    }
    return (ints)_mm256_insertf128_si256(_mm256_castsi128_si256(half[0]), half[1], 1);
#else
    int32_t codes[LANES];
    ints v;
    for (int i = 0; i < LANES; i++)
        codes[i] = quantise_one(in[i], scale, shift);
    memcpy(&v, codes, sizeof v);
    return v;
#endif
}

/* Pixels of a range, four channels at most; `in` has the planes of the first one on. */
PRIVATE void quantise_words(const struct quantise *q, const float *in, size_t pixels, int first, size_t begin, size_t end,
                            float *out) {
    const int channels = q->channels - first < 4 ? q->channels - first : 4;
    for (; begin + LANES <= end; begin += LANES) {
        ints codes[4] = {splat_int(0), splat_int(0), splat_int(0), splat_int(0)};
        for (int k = 0; k < channels; k++)
            codes[k] = quantise_vector(in + (size_t)k * pixels + begin, q->scale[first + k], q->shift[first + k]);
        store_words(out + begin, join_codes(codes[0], codes[1], codes[2], codes[3]));
    }
    for (int k = 0; k < channels; k++)
        for (size_t i = begin; i < end; i++)
            ((unsigned char *)(out + i))[k] =
                (unsigned char)quantise_one(in[(size_t)k * pixels + i], q->scale[first + k], q->shift[first + k]);
}

PRIVATE void quantise(const struct job *j, const struct quantise *q) {
    size_t pixels = (size_t)q->out.height * (size_t)q->out.width;
    struct range rows = split_evenly(q->out.height, j->thread, j->threads);
    size_t begin = (size_t)rows.begin * (size_t)q->out.width, end = (size_t)rows.end * (size_t)q->out.width;
    for (int g = 0; g < j->images; g++)
        for (int c = 0; c < q->channels; c += 4)
            quantise_words(q, j->in + ((size_t)g * (size_t)q->channels + (size_t)c) * pixels, pixels, c, begin, end,
                           j->context->arena + q->out.offset + (size_t)g * q->out.image +
                               (size_t)(c / 4) * (size_t)q->out.pitch);
}

#endif
