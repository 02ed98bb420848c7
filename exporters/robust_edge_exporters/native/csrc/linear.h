/* A fully connected layer: its sizes, and where its vectors and weights are. */
#ifndef ROBUST_EDGE_LINEAR_H
#define ROBUST_EDGE_LINEAR_H

#include "activation.h"
#include "context.h"
#include "job.h"

struct linear {
    size_t in, out;                        /* arena offsets of contiguous vectors */
    size_t in_image, out_image;            /* floats from one image to the next */
    int inputs, outputs;
    size_t values, bias;                   /* byte offsets in the weights file */
    size_t starts, offsets;                /* indices of the first of its starts and offsets in the context */
    struct activation act;
};

#endif
