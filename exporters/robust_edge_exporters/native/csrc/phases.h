/* Polyphase components, by which kernels that pack nothing read their input at stride 2: pixel (2y + p, 2x + q) of a
   plane is pixel (y, x) of its phase (p, q), so a tap reads one phase, shifted by a constant. At stride 1 the plane
   itself is the only phase. */
#ifndef ROBUST_EDGE_PHASES_H
#define ROBUST_EDGE_PHASES_H

#include "conv.h"
#include "vector.h"

/* floor(x / 2), also of negative x. */
PRIVATE int floor_half(int x) { return (x - (x & 1)) / 2; }

/* Floats from an output pixel to the pixel of its phase that a tap reads. */
PRIVATE int tap_shift(const struct conv *c, int tap) {
    struct shift s = c->shifts[tap];
    if (c->stride_x == 1)
        return s.dy * c->out.width + s.dx;
    return floor_half(s.dy) * c->out.width + floor_half(s.dx);
}

/* Writes the phases (0, 0), (0, 1), (1, 0), (1, 1) of a plane, each as large as an output plane; for a single tap
   only those of its rows. */
PRIVATE void split_phases(const struct conv *c, const float *plane, float *phases) {
    int width = c->out.width, floats = c->copy_floats;
    for (int parity = 0; parity < 2; parity++) {
        const float *row = plane + parity * c->in.width;
        float *even = phases + parity * 2 * floats;
        if (c->taps > 1 || (c->shifts[0].dy & 1) == parity)
            for (int y = 0; y < c->out.height; y++, row += 2 * c->in.width, even += width)
                deinterleave_row(row, width, even, even + floats);
    }
}

#endif
