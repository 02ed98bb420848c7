/* The first and the last operator copy between the caller's contiguous arrays and the arena:
   arena[c][i] = act(scale[c] * in[c][i] + shift[c]), which includes a normalisation at the start of the network, and
   out[c][i] = arena[c][i]. */
#ifndef ROBUST_EDGE_INPUT_OUTPUT_H
#define ROBUST_EDGE_INPUT_OUTPUT_H

#include <string.h>

#include "elementwise.h"

PRIVATE void read_input(const struct job *j, const struct elementwise *e) {
    int pixels = e->out.height * e->out.width;
    struct range channels = split_evenly(e->out.channels, j->thread, j->threads);
    for (int g = 0; g < j->images; g++)
        for (int c = channels.begin; c < channels.end; c++) {
            const float *in = j->in + ((size_t)g * (size_t)e->out.channels + (size_t)c) * (size_t)pixels;
            float *out = channel_planes(j, e, g, c).out, scale = e->scale ? e->scale[c] : 1;
            float shift = e->shift ? e->shift[c] : 0;
            for (int i = 0; i < pixels; i++)
                out[i] = scale * in[i] + shift;
            activate(out, plane_floats(&e->out), &e->act);
        }
}

PRIVATE void write_output(const struct job *j, const struct elementwise *e) {
    size_t pixels = (size_t)e->in.height * (size_t)e->in.width, outputs = (size_t)e->in.channels * pixels;
    if (j->thread != 0)
        return;
    for (int g = 0; g < j->images; g++)
        for (int c = 0; c < e->in.channels; c++)
            memcpy(j->out + (size_t)g * outputs + (size_t)c * pixels, channel_planes(j, e, g, c).in, pixels * sizeof(float));
}

#endif
