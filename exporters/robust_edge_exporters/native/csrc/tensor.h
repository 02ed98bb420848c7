/* Tensors of activations. They lie in the arena: one block of memory of a context, whose addresses the exporter plans. */
#ifndef ROBUST_EDGE_TENSOR_H
#define ROBUST_EDGE_TENSOR_H

#include <stddef.h>

#include "vector.h"

#define NO_TENSOR ((size_t)-1)

/* A tensor (channels, height, width) of each image. Planes begin `pitch` floats apart, images `image` floats apart. A
   vector of features is either one plane of one row, or a channel of one pixel for each feature, with a pitch of 1. */
struct tensor {
    size_t offset; /* of the first image, in floats of the arena */
    int channels, height, width, pitch;
    size_t image;
};

/* Floats of a plane that operators write: its pixels, rounded up to whole units. */
INLINE int plane_floats(const struct tensor *t) {
    return t->pitch == 1 ? 1 : (t->height * t->width + UNIT - 1) / UNIT * UNIT;
}

#endif
