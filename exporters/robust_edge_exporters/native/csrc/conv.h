/* A convolution of planes: its geometry, and what all of its kernels share. */
#ifndef ROBUST_EDGE_CONV_H
#define ROBUST_EDGE_CONV_H

#include <stddef.h>
#include <stdint.h>

#include "activation.h"
#include "context.h"
#include "job.h"
#include "tensor.h"

/* Taps of a depthwise filter, 7 x 7, and taps that reach into a plane of one unit, (2h - 1)(2w - 1). */
#define TAPS_MAX 49

/* A tap (ky, kx) is a position of the filter. A packed copy of an input plane is shifted: for output pixel (y, x) it
   holds input pixel (y * stride_y + dy, x * stride_x + dx). */
struct shift {
    int dy, dx;
};

/* A kernel that needs more than this has a struct of its own that begins with it, as in conv_columns.h. */
struct conv {
    struct tensor in, out;
    size_t residual;        /* arena offset of a tensor laid out like out, perhaps out itself, or NO_TENSOR */
    int groups, stride_y, stride_x;
    int block;              /* input channels of a group that are read at a time */
    int rows, extra_rows;   /* output rows of a tile; rows that a copy holds beyond them */
    int images;             /* images of a tile */
    int taps;               /* of the filter: height * width; offsets of a channel in conv_columns.h */
    int copies;             /* packed copies of a plane; 0: the plane is read in place */
    int copy_floats;        /* from one copy to the next */
    int whole_plane;        /* a copy is a whole shifted plane, so masks cover rows too */
    const struct shift *shifts; /* of each copy; of each tap where the kernel makes no copies */
    size_t masks;           /* arena offset of copies * copy_floats lane masks, or NO_TENSOR where none are needed */
    size_t values, bias;    /* byte offsets in the weights file */
    size_t starts, offsets; /* indices of the first of its starts and offsets in the context */
    struct activation act;
};

/* From the first pixel of a tensor to that of a plane. */
INLINE size_t plane_offset(const struct tensor *t, int image, int channel) {
    return (size_t)image * t->image + (size_t)channel * (size_t)t->pitch;
}

/* A plane of the input and of the output, and the residual of the latter, or NULL. */
INLINE const float *in_plane(const re_context *ctx, const struct conv *c, int image, int channel) {
    return ctx->arena + c->in.offset + plane_offset(&c->in, image, channel);
}

INLINE float *out_plane(const re_context *ctx, const struct conv *c, int image, int channel) {
    return ctx->arena + c->out.offset + plane_offset(&c->out, image, channel);
}

INLINE const float *residual_plane(const re_context *ctx, const struct conv *c, int image, int channel) {
    return c->residual == NO_TENSOR ? NULL : ctx->arena + c->residual + plane_offset(&c->out, image, channel);
}

/* Lane masks: all ones where a pixel of a shifted plane is inside the input, in its column and, for whole planes, its
   row. */
PRIVATE void make_masks(const struct conv *c, uint32_t *mask) {
    int width = c->out.width;
    for (int s = 0; s < c->copies; s++)
        for (int i = 0; i < c->copy_floats; i++, mask++) {
            int x = i % width * c->stride_x + c->shifts[s].dx, y = i / width * c->stride_y + c->shifts[s].dy;
            int inside = x >= 0 && x < c->in.width;
            if (c->whole_plane)
                inside = inside && y >= 0 && y < c->in.height && i < c->out.height * width;
            *mask = inside ? 0xffffffffu : 0;
        }
}

/* Input channels are computed in blocks, whose sums are kept in the output tensor between blocks. The first block's
   sums begin with the bias, and the last block's go through the activation; the others' through none. */
PRIVATE const struct activation no_activation = {LINEAR, 0, 0};

/* What the sums of a block are added to, or NULL: the residual in the first block, which is the one that has the bias,
   and the sums of the previous blocks in the others. */
INLINE const float *previous_sums(const float *bias, const float *residual, const float *out) {
    return bias ? residual : out;
}

#endif
