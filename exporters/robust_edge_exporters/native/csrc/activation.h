/* Activation functions: x[i] = f(x[i]). */
#ifndef ROBUST_EDGE_ACTIVATION_H
#define ROBUST_EDGE_ACTIVATION_H

#include "sigmoid.h"
#include "vector.h"

/* The order matters: kernels apply those up to CLAMP to sums in registers, the others in memory. */
enum activation_kind { LINEAR, CLAMP, LEAKY_RELU, SIGMOID, HARD_SWISH, SILU };

struct activation {
    enum activation_kind kind;
    float lo, hi; /* CLAMP: the interval; LEAKY_RELU: lo is the slope */
};

/* In place, of `floats` floats rounded up to whole vectors. */
PRIVATE void activate_vectors(float *x, int floats, const struct activation *a) {
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
        for (int i = 0; i < floats; i += LANES)
            store(x + i, sigmoid(load(x + i)));
        break;
    case HARD_SWISH:
        for (int i = 0; i < floats; i += LANES) {
            vec v = load(x + i), gate = v * splat(1.0f / 6.0f) + splat(0.5f);
            store(x + i, v * clamp(gate, splat(0), splat(1)));
        }
        break;
    case SILU:
        for (int i = 0; i < floats; i += LANES) {
            vec v = load(x + i);
            store(x + i, v * sigmoid(v));
        }
        break;
    }
}

/* Of sums in registers, up to VECTORS_MAX vectors; `vectors` is a constant where this is called. */
#define VECTORS_MAX (16 * UNIT_VECTORS)
INLINE void activate_sums(vec *sum, const int vectors, const struct activation *a) {
    if (a->kind == CLAMP) {
        const vec lo = splat(a->lo), hi = splat(a->hi);
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] = clamp(sum[v], lo, hi);
    } else if (a->kind > CLAMP) {
        float all[VECTORS_MAX * LANES];
        UNROLL for (int v = 0; v < vectors; v++)
            store(all + v * LANES, sum[v]);
        activate_vectors(all, vectors * LANES, a);
        UNROLL for (int v = 0; v < vectors; v++)
            sum[v] = load(all + v * LANES);
    }
}

/* Of a single value, computed as that of a vector is. */
PRIVATE void activate_one(float *x, const struct activation *a) {
    float unit[UNIT] = {0};
    if (a->kind == LINEAR)
        return;
    unit[0] = *x;
    activate_vectors(unit, UNIT, a);
    *x = unit[0];
}

/* Of `floats` floats of any number; what lies behind them stays as it is. */
PRIVATE void activate_part(float *x, int floats, const struct activation *a) {
    const int whole = floats / UNIT * UNIT;
    float last[UNIT] = {0};
    activate_vectors(x, whole, a);
    memcpy(last, x + whole, (size_t)(floats - whole) * sizeof *last);
    activate_vectors(last, UNIT, a);
    memcpy(x + whole, last, (size_t)(floats - whole) * sizeof *last);
}

/* Of a plane of `floats` floats, which is a channel of one pixel (next to those of other channels) or whole units. */
PRIVATE void activate(float *x, int floats, const struct activation *a) {
    if (floats == 1)
        activate_one(x, a);
    else
        activate_vectors(x, floats, a);
}

#endif
