/* Pooling of codes, four channels to a word, whose scale and zero the output keeps:

       max_pool_codes       out[y][x] = max over the taps (ky, kx) inside the plane of
                                in[y * stride_y - top + ky * dilation_y][x * stride_x - left + kx * dilation_x]
       average_pool_codes   out[y][x] = (2 * sum over the taps + n) / (2 * n), where the n taps are those inside the plane
                                or, if count_padding, inside the padded plane, around which the code is `padding` */
#ifndef ROBUST_EDGE_POOL_CODES_H
#define ROBUST_EDGE_POOL_CODES_H

#include "codes.h"
#include "context.h"
#include "job.h"
#include "tensor.h"

struct pool_codes {
    struct tensor in, out; /* words */
    int kernel_y, kernel_x, stride_y, stride_x, top, left, bottom, right, dilation_y, dilation_x;
    int count_padding, padding;
};

/* Fills one output row from an input plane. */
typedef void pool_code_row(const struct pool_codes *, const unsigned char *plane, int y, unsigned char *out);

PRIVATE void pool_planes(const struct job *j, const struct pool_codes *p, pool_code_row *row) {
    float *arena = j->context->arena;
    struct range planes = split_evenly(p->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = planes.begin; c < planes.end; c++) {
            const float *in = arena + p->in.offset + (size_t)g * p->in.image + (size_t)c * (size_t)p->in.pitch;
            float *out = arena + p->out.offset + (size_t)g * p->out.image + (size_t)c * (size_t)p->out.pitch;
            for (int y = 0; y < p->out.height; y++)
                row(p, (const unsigned char *)in, y, (unsigned char *)(out + y * p->out.width));
        }
}

#if LANES > 1
/* LANES words of max_words_into from x on. */
INLINE void max_vector_into(unsigned char *out, const unsigned char *in, int x, const int step) {
    float *to = (float *)(void *)(out + 4 * x);
    const float *from = (const float *)(const void *)(in + 4 * x * step);
    vec even = load(from), odd;
    ints words;
    if (step == 2)
        deinterleave(from, &even, &odd);
    memcpy(&words, &even, sizeof words);
    store_words(to, max_codes(words, load_words(to)));
}
#endif

/* out[x] = max(out[x], in[x * step]), word by word, for x < count; reads up to 2 * LANES words of `in` at a time. The
   last vector overlaps the one before it, which changes no maximum. */
INLINE void max_words_into(unsigned char *out, const unsigned char *in, int count, const int step) {
    int x = 0;
#if LANES > 1
    if (step <= 2 && count >= LANES) {
        for (; x + LANES <= count; x += LANES)
            max_vector_into(out, in, x, step);
        max_vector_into(out, in, count - LANES, step);
        return;
    }
#endif
    for (; x < count; x++)
        for (int k = 0; k < 4; k++)
            out[4 * x + k] = in[4 * x * step + k] > out[4 * x + k] ? in[4 * x * step + k] : out[4 * x + k];
}

PRIVATE void max_code_row(const struct pool_codes *p, const unsigned char *plane, int y, unsigned char *out) {
    int step = p->stride_x;
    for (int i = 0; i < 4 * p->out.width; i++)
        out[i] = 0;
    for (int ky = 0; ky < p->kernel_y; ky++) {
        int from = y * p->stride_y - p->top + ky * p->dilation_y;
        if (from < 0 || from >= p->in.height)
            continue;
        for (int kx = 0; kx < p->kernel_x; kx++) {
            int dx = kx * p->dilation_x - p->left, first = dx < 0 ? (-dx + step - 1) / step : 0;
            int last = dx < p->in.width ? (p->in.width - 1 - dx) / step + 1 : 0;
            const unsigned char *in = plane + 4 * (from * p->in.width + (first * step + dx));
            last = last > p->out.width ? p->out.width : last;
            if (step == 1)
                max_words_into(out + 4 * first, in, last - first, 1);
            else if (step == 2)
                max_words_into(out + 4 * first, in, last - first, 2);
            else
                max_words_into(out + 4 * first, in, last - first, step);
        }
    }
}

PRIVATE void average_code(const struct pool_codes *p, const unsigned char *plane, int y0, int x0, unsigned char *out) {
    int sum[4] = {0, 0, 0, 0}, count = 0;
    for (int ky = 0; ky < p->kernel_y; ky++)
        for (int kx = 0; kx < p->kernel_x; kx++) {
            int y = y0 + ky * p->dilation_y, x = x0 + kx * p->dilation_x;
            int inside = y >= 0 && y < p->in.height && x >= 0 && x < p->in.width;
            if (!inside && !(p->count_padding && y < p->in.height + p->bottom && x < p->in.width + p->right))
                continue;
            for (int k = 0; k < 4; k++)
                sum[k] += inside ? plane[4 * (y * p->in.width + x) + k] : p->padding;
            count++;
        }
    for (int k = 0; k < 4; k++)
        out[k] = (unsigned char)((2 * sum[k] + count) / (2 * count));
}

PRIVATE void average_code_row(const struct pool_codes *p, const unsigned char *plane, int y, unsigned char *out) {
    for (int x = 0; x < p->out.width; x++)
        average_code(p, plane, y * p->stride_y - p->top, x * p->stride_x - p->left, out + 4 * x);
}

PRIVATE void max_pool_codes(const struct job *j, const struct pool_codes *p) { pool_planes(j, p, max_code_row); }
PRIVATE void average_pool_codes(const struct job *j, const struct pool_codes *p) { pool_planes(j, p, average_code_row); }

#endif
