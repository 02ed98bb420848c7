/* Activation functions: x[i] = f(x[i]). */
#ifndef ROBUST_EDGE_ACTIVATION_H
#define ROBUST_EDGE_ACTIVATION_H

#include <math.h>

#include "vector.h"

/* The order matters: kernels apply those up to CLAMP to sums in registers, the others in memory. */
enum activation_kind { LINEAR, CLAMP, LEAKY_RELU, SIGMOID, HARD_SWISH };

struct activation {
    enum activation_kind kind;
    float lo, hi; /* CLAMP: the interval; LEAKY_RELU: lo is the slope */
};

/* In place, of `floats` floats rounded up to whole vectors. */
PRIVATE void activate(float *x, int floats, const struct activation *a) {
    switch (a->kind) {
    case LINEAR:
        break;
    case CLAMP:
        for (int i = 0; i < floats; i += LANES)
            store(x + i, clamp(load(x + i), splat(a->lo), splat(a->hi)));
        break;
    case LEAKY_RELU:
        for (int i = 0; i < floats; i++)
            x[i] = x[i] < 0 ? a->lo * x[i] : x[i];
        break;
    case SIGMOID:
        for (int i = 0; i < floats; i++)
            x[i] = 1.0f / (1.0f + expf(-x[i]));
        break;
    case HARD_SWISH:
        for (int i = 0; i < floats; i++) {
            float gate = x[i] * (1.0f / 6.0f) + 0.5f;
            x[i] *= gate < 0 ? 0 : gate > 1 ? 1 : gate;
        }
        break;
    }
}

/* Of a single value, computed as that of a vector is. */
PRIVATE void activate_one(float *x, const struct activation *a) {
    float unit[UNIT] = {0};
    unit[0] = *x;
    activate(unit, UNIT, a);
    *x = unit[0];
}

#endif
