/* Pooling of codes, four channels to a word, whose scale and zero the output keeps:

       max_pool_codes       out[y][x] = max over the taps (ky, kx) inside the plane of
                                in[y * stride_y - top + ky * dilation_y][x * stride_x - left + kx * dilation_x]
       average_pool_codes   out[y][x] = (2 * sum over the taps + n) / (2 * n), where the n taps are those inside the plane
                                or, if count_padding, inside the padded plane, around which the code is `padding` */
#ifndef ROBUST_EDGE_POOL_CODES_H
#define ROBUST_EDGE_POOL_CODES_H

#include "codes.h"
#include "context.h"
#include "pack_rows.h"
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

/* The largest codes of the word at x, of the taps inside the plane; `in` points to word 0 of the row of tap 0. */
PRIVATE void max_word(const struct pool_codes *p, const unsigned char *in, struct range taps, int x, unsigned char *out) {
    unsigned char largest[4] = {0, 0, 0, 0};
    for (int ky = taps.begin; ky < taps.end; ky++)
        for (int kx = 0; kx < p->kernel_x; kx++) {
            const int column = x * p->stride_x - p->left + kx * p->dilation_x;
            const unsigned char *word = in + 4 * ((ptrdiff_t)ky * p->dilation_y * p->in.width + column);
            if (column < 0 || column >= p->in.width)
                continue;
            for (int k = 0; k < 4; k++)
                largest[k] = word[k] > largest[k] ? word[k] : largest[k];
        }
    memcpy(out, largest, 4);
}

#if LANES > 1
/* The same for LANES words from x on, all of whose columns are inside the plane; reads up to 2 * LANES words at a time.
   `stride` is 1 or 2, a constant where this is called. */
INLINE void max_vector(const struct pool_codes *p, const unsigned char *in, struct range taps, int x, const int stride,
                       unsigned char *out) {
    ints largest = splat_int(0), words;
    for (int ky = taps.begin; ky < taps.end; ky++) {
        const ptrdiff_t row = (ptrdiff_t)ky * p->dilation_y * p->in.width + x * stride - p->left;
        for (int kx = 0; kx < p->kernel_x; kx++) {
            const float *from = (const float *)(const void *)(in + 4 * (row + kx * p->dilation_x));
            vec even = load(from), odd;
            if (stride == 2)
                deinterleave(from, &even, &odd);
            memcpy(&words, &even, sizeof words);
            largest = max_codes(largest, words);
        }
    }
    store_words((float *)(void *)(out + 4 * x), largest);
}
#endif

/* Vectors where all columns are inside the plane, the last of which overlaps the one before, and words elsewhere. */
PRIVATE void max_code_row(const struct pool_codes *p, const unsigned char *plane, int y, unsigned char *out) {
    const int top = y * p->stride_y - p->top, reach = (p->kernel_x - 1) * p->dilation_x;
    const struct range taps = inside(top, p->dilation_y, p->in.height, p->kernel_y);
    const struct range first = inside(-p->left, p->stride_x, p->in.width, p->out.width);
    const struct range last = inside(reach - p->left, p->stride_x, p->in.width, p->out.width);
    const unsigned char *in = plane + 4 * (ptrdiff_t)top * p->in.width;
    int x = 0, end = last.end < first.end ? last.end : first.end;
    for (; x < first.begin || (x < last.begin && x < p->out.width); x++)
        max_word(p, in, taps, x, out + 4 * x);
#if LANES > 1
    if (p->stride_x <= 2)
        while (x < end && end - first.begin >= LANES && end - last.begin >= LANES) {
            x = x + LANES <= end ? x : end - LANES;
            if (p->stride_x == 1)
                max_vector(p, in, taps, x, 1, out);
            else
                max_vector(p, in, taps, x, 2, out);
            x += LANES;
        }
#else
    (void)end;
#endif
    for (; x < p->out.width; x++)
        max_word(p, in, taps, x, out + 4 * x);
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
