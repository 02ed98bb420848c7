/* The state of one caller: its memory and its threads. */
#ifndef ROBUST_EDGE_CONTEXT_H
#define ROBUST_EDGE_CONTEXT_H

#include <stddef.h>
#include <stdint.h>

#include "model.h"
#include "thread_pool.h"
#include "values.h"

/* The argument of a worker's thread. */
struct worker {
    re_context *context;
    int thread;
};

/* Numbers of an output channel of codes, as requantise.h reads them from the weights file. */
struct channel {
    int32_t start; /* of the sum: the bias, with half a unit of the first shift */
    int32_t multiplier;
    int first;
};

struct re_context {
    const unsigned char *weights;
    float *arena;
    uint32_t *starts;  /* index of the first entry of each segment among its layer's entries */
    uint16_t *offsets; /* of each entry: from a tile's first pixel to the pixels that its value is multiplied with */
    struct channel *channels; /* output channels of the layers of codes */
    float *scratch;    /* SCRATCH_FLOATS for each thread */
    void *memory;      /* the allocation that holds arena, scratch, starts, offsets and channels */
    struct thread_pool pool;
    struct worker workers[THREADS_MAX];
    const float *in; /* arguments of the current call of re_infer */
    float *out;
    int images;
};

/* Sections of the weights file, by their byte offset. */
INLINE const float *float_section(const re_context *c, size_t offset) {
    return (const float *)(const void *)(c->weights + offset);
}

INLINE const value *value_section(const re_context *c, size_t offset) {
    return (const value *)(const void *)(c->weights + offset);
}

#endif
