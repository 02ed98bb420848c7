/* Fully connected layer of codes as in linear_codes.h, of which blocks of four weights that are all zero are not stored:

       sum = bias[o] + sum over the blocks k of row o of values[k] * in[offsets[k]], a product of four

   The words of a chunk of blocks are gathered first, and are multiplied as vectors then. */
#ifndef ROBUST_EDGE_LINEAR_BLOCKS_H
#define ROBUST_EDGE_LINEAR_BLOCKS_H

#include "linear_codes.h"

#define GATHERED 256 /* blocks, a multiple of LANES; long enough that no load waits for the stores before it */

/* Adds the products of up to GATHERED blocks. The last vector of weights reads on into the next row, or into the end of
   the file, and is multiplied with zeros there. */
INLINE ints add_blocks(ints sum, const float *in, const unsigned char *values, const uint16_t *offsets, uint32_t blocks) {
    int32_t words[GATHERED + LANES];
    const ints zeros = splat_int((int32_t)FLIP);
    memcpy(words + blocks, &zeros, sizeof zeros);
    for (uint32_t k = 0; k < blocks; k++)
        memcpy(&words[k], in + offsets[k], sizeof words[k]);
    for (uint32_t k = 0; k < blocks; k += LANES) {
        ints x, w;
        memcpy(&x, words + k, sizeof x);
        memcpy(&w, values + 4 * (size_t)k, sizeof w);
        sum = dot4(sum, x ^ (int32_t)FLIP, w);
    }
    return sum;
}

PRIVATE int32_t blocks_sum(const float *in, const unsigned char *values, const uint16_t *offsets, uint32_t blocks) {
    ints sum = splat_int(0);
    int32_t lanes[LANES], total = 0;
    for (uint32_t k = 0; k < blocks; k += GATHERED)
        sum = add_blocks(sum, in, values + 4 * (size_t)k, offsets + k, blocks - k < GATHERED ? blocks - k : GATHERED);
    memcpy(lanes, &sum, sizeof lanes);
    for (int i = 0; i < LANES; i++)
        total += lanes[i];
    return total;
}

PRIVATE void linear_blocks(const struct job *j, const struct linear_codes *l) {
    const re_context *ctx = j->context;
    const unsigned char *values = ctx->weights + l->values;
    const uint16_t *offsets = ctx->offsets + l->offsets;
    const uint32_t *starts = ctx->starts + l->starts;
    struct range rows = split_evenly(l->outputs, j->thread, j->threads);
    for (int o = rows.begin; o < rows.end; o++)
        for (int g = 0; g < j->images; g++) {
            const float *in = ctx->arena + l->in + (size_t)g * l->in_image;
            uint32_t first = starts[o], blocks = starts[o + 1] - first;
            finish_output(ctx, l, o, g, blocks_sum(in, values + 4 * (size_t)first, offsets + first, blocks));
        }
}

#endif
