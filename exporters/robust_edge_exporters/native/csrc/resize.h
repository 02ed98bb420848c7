/* Bilinear interpolation (C, H, W) -> (C, P, Q): for each output pixel, with a = rows_part[y] and b = columns_part[x],

       top    = (1 - b) * in[c][rows_before[y]][columns_before[x]] + b * in[c][rows_before[y]][columns_after[x]]
       bottom = (1 - b) * in[c][rows_after[y]][columns_before[x]] + b * in[c][rows_after[y]][columns_after[x]]
       out[c][y][x] = act((1 - a) * top + a * bottom) */
#ifndef ROBUST_EDGE_RESIZE_H
#define ROBUST_EDGE_RESIZE_H

#include "activation.h"
#include "context.h"
#include "job.h"
#include "tensor.h"

struct resize {
    struct tensor in, out;
    const int *rows_before, *rows_after, *columns_before, *columns_after; /* pixels on both sides of each position */
    const float *rows_part, *columns_part; /* distance of the position from the first of them */
    struct activation act;
};

PRIVATE void resize_row(const struct resize *r, const float *top, const float *bottom, float part, float *out) {
    for (int x = 0; x < r->out.width; x++) {
        int before = r->columns_before[x], after = r->columns_after[x];
        float b = r->columns_part[x];
        float above = (1 - b) * top[before] + b * top[after], below = (1 - b) * bottom[before] + b * bottom[after];
        out[x] = (1 - part) * above + part * below;
    }
}

PRIVATE void resize(const struct job *j, const struct resize *r) {
    float *arena = j->context->arena;
    struct range channels = split_evenly(r->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            const float *in = arena + r->in.offset + (size_t)g * r->in.image + (size_t)c * (size_t)r->in.pitch;
            float *out = arena + r->out.offset + (size_t)g * r->out.image + (size_t)c * (size_t)r->out.pitch;
            for (int y = 0; y < r->out.height; y++)
                resize_row(r, in + r->rows_before[y] * r->in.width, in + r->rows_after[y] * r->in.width, r->rows_part[y],
                           out + y * r->out.width);
            activate(out, plane_floats(&r->out), &r->act);
        }
}

#endif
