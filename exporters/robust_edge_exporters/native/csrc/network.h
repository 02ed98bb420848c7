/* The tables and the operators of one network, in the order in which they run. This example has no layers and no
   weights: the exporter writes the network's own in its place (emit.py). */
#ifndef ROBUST_EDGE_NETWORK_H
#define ROBUST_EDGE_NETWORK_H

#include "input_output.h"
#include "weights_file.h"

static const struct elementwise input = {
    .in = {2048, RE_INPUT_CHANNELS, RE_INPUT_HEIGHT, RE_INPUT_WIDTH, 16, 16}, .out = {2048, 1, 1, 1, 16, 16}};
static const struct elementwise output = {.in = {2048, 1, 1, 1, 16, 16}, .out = {2048, 1, 1, 1, 16, 16}};

static const struct segments all_segments[SEGMENT_TABLES] = {
    {.per_block = 1, .blocks = 1, .taps = 1},
};

/* What re_create computes from the weights file. */
PRIVATE void prepare(re_context *c) {
    for (size_t i = 0; i < SEGMENT_TABLES; i++)
        read_segments(c->weights, &all_segments[i], c->starts, c->offsets);
}

PRIVATE void network(const struct job *j) {
    struct thread_pool *pool = &j->context->pool;
    read_input(j, &input);
    end_operator(pool, j->thread, 0);
    write_output(j, &output);
    end_operator(pool, j->thread, 1);
}

#endif
