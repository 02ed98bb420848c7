/* What layer and group normalisation share. */
#ifndef ROBUST_EDGE_NORMALISATION_H
#define ROBUST_EDGE_NORMALISATION_H

#include "activation.h"
#include "context.h"
#include "job.h"
#include "tensor.h"

struct normalisation {
    struct tensor in, out;
    int groups;                 /* of channels */
    float epsilon;              /* added to the variance */
    const float *scale, *shift; /* one per channel */
    struct activation act;
};

/* Applies the activation to a plane. */
PRIVATE void activate_plane(const struct normalisation *n, float *plane) {
    if (n->out.pitch == 1)
        activate_one(plane, &n->act);
    else
        activate(plane, plane_floats(&n->out), &n->act);
}

#endif
