/* A copy in another order: out[c][y][x] = in[channels[c] + rows[y] + columns[x]], in floats, or `fill` where one of the
   three is OUTSIDE. Transposes, slices, channel and pixel shuffles, padding and nearest-neighbour resizing are such copies. */
#ifndef ROBUST_EDGE_REARRANGE_H
#define ROBUST_EDGE_REARRANGE_H

#include <string.h>

#include "context.h"
#include "job.h"
#include "tensor.h"

#define OUTSIDE (-2147483647)

struct rearrange {
    struct tensor in, out;
    const int *channels, *rows, *columns;
    int whole_planes; /* each plane is one of the input's, unchanged */
    float fill;
};

PRIVATE void rearrange_row(const struct rearrange *r, const float *in, int outside, float *out) {
    for (int x = 0; x < r->out.width; x++)
        out[x] = outside || r->columns[x] == OUTSIDE ? r->fill : in[r->columns[x]];
}

PRIVATE void rearrange_plane(const struct rearrange *r, const float *image, int c, float *out) {
    int outside = r->channels[c] == OUTSIDE;
    const float *in = outside ? image : image + r->channels[c];
    if (r->whole_planes && !outside) {
        memcpy(out, in, (size_t)r->out.height * (size_t)r->out.width * sizeof *out);
        return;
    }
    for (int y = 0; y < r->out.height; y++, out += r->out.width) {
        int beyond = outside || r->rows[y] == OUTSIDE;
        rearrange_row(r, beyond ? in : in + r->rows[y], beyond, out);
    }
}

PRIVATE void rearrange(const struct job *j, const struct rearrange *r) {
    const float *in = j->context->arena + r->in.offset;
    float *out = j->context->arena + r->out.offset;
    struct range channels = split_evenly(r->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++, in += r->in.image, out += r->out.image)
        for (int c = channels.begin; c < channels.end; c++)
            rearrange_plane(r, in, c, out + (size_t)c * (size_t)r->out.pitch);
}

#endif
