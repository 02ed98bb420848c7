/* Operators that compute each channel by itself, from one tensor or two. */
#ifndef ROBUST_EDGE_ELEMENTWISE_H
#define ROBUST_EDGE_ELEMENTWISE_H

#include "activation.h"
#include "context.h"
#include "job.h"
#include "tensor.h"

struct elementwise {
    struct tensor in, out;
    struct tensor second;
    int broadcast;              /* second holds one value per channel */
    const float *scale, *shift; /* one per channel, or NULL */
    struct activation act;
};

/* Where one channel of one image begins in each tensor. */
struct planes {
    const float *in, *second;
    float *out;
};

PRIVATE struct planes channel_planes(const struct job *j, const struct elementwise *e, int image, int channel) {
    float *arena = j->context->arena;
    struct planes p;
    size_t c = (size_t)channel, i = (size_t)image;
    p.in = arena + e->in.offset + i * e->in.image + c * (size_t)e->in.pitch;
    p.second = arena + e->second.offset + i * e->second.image + c * (size_t)e->second.pitch;
    p.out = arena + e->out.offset + i * e->out.image + c * (size_t)e->out.pitch;
    return p;
}

#endif
