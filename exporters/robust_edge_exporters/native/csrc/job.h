/* What each thread of a pass computes. */
#ifndef ROBUST_EDGE_JOB_H
#define ROBUST_EDGE_JOB_H

#include "model.h"
#include "compiler.h"

/* The arguments of one thread in a pass over at most IMAGES_MAX images. */
struct job {
    re_context *context;
    const float *in; /* (images, C, H, W) */
    float *out;      /* (images, outputs) */
    int images, thread, threads;
};

/* Indices begin <= i < end. */
struct range {
    int begin, end;
};

/* Range `index` of `ranges` nearly equal ones that [0, count) is split into. */
INLINE struct range split_evenly(int count, int index, int ranges) {
    struct range r;
    r.begin = (int)((long)count * index / ranges);
    r.end = (int)((long)count * (index + 1) / ranges);
    return r;
}

#endif
