/* What each thread of a pass computes. */
#ifndef ROBUST_EDGE_JOB_H
#define ROBUST_EDGE_JOB_H

#include "model.h"
#include "compiler.h"
#include "tensor.h"

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

/* A thread's part of a plane has so many pixels, and so many rows, at least. Where parts are smaller, a core often
   prefetches pixels of the next part, and writing a pixel that another core holds is slow. */
#define PART_PIXELS 384
#define PART_ROWS 4

/* Whether the threads share the rows of each plane of a tensor, not its channels. The kernels that ask split planes of a
   size in the same places, so that most of what a thread reads is what it wrote itself, and is in its caches. */
INLINE int splits_rows(const struct job *j, const struct tensor *out) {
    return j->threads > 1 && out->height >= PART_ROWS * j->threads &&
           out->height * out->width >= PART_PIXELS * j->threads;
}

/* The rows, and the channels, of each plane of a tensor that this thread computes. */
INLINE struct range rows_of_thread(const struct job *j, const struct tensor *out) {
    return splits_rows(j, out) ? split_evenly(out->height, j->thread, j->threads) : split_evenly(out->height, 0, 1);
}
INLINE struct range channels_of_thread(const struct job *j, const struct tensor *out) {
    return splits_rows(j, out) ? split_evenly(out->channels, 0, 1) : split_evenly(out->channels, j->thread, j->threads);
}

#endif
