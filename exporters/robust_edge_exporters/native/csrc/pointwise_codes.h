/* Operators that compute each code by itself, from one tensor of codes or two:

       table_codes       out = table[in]
       add_codes         out = requantise(in + start, second)
       mul_codes         out = requantise((in - zero) * (second - second_zero) + start)
       copy_codes        out = in, for tensors of different pitches */
#ifndef ROBUST_EDGE_POINTWISE_CODES_H
#define ROBUST_EDGE_POINTWISE_CODES_H

#include "context.h"
#include "job.h"
#include "requantise.h"
#include "tensor.h"

struct pointwise {
    struct tensor in, out, second;      /* words */
    int broadcast;                      /* second has planes of one pixel */
    int zero, second_zero;
    struct channel channel;
    struct requantisation requantisation;
};

/* Where one plane of one image begins in each tensor, as bytes. */
struct code_planes {
    const unsigned char *in, *second;
    unsigned char *out;
};

PRIVATE struct code_planes code_planes(const struct job *j, const struct pointwise *p, int g, int c) {
    float *arena = j->context->arena;
    struct code_planes found;
    size_t image = (size_t)g, plane = (size_t)c;
    found.in = (unsigned char *)(arena + p->in.offset + image * p->in.image + plane * (size_t)p->in.pitch);
    found.second =
        (unsigned char *)(arena + p->second.offset + image * p->second.image + plane * (size_t)p->second.pitch);
    found.out = (unsigned char *)(arena + p->out.offset + image * p->out.image + plane * (size_t)p->out.pitch);
    return found;
}

typedef void plane_of_codes(const struct pointwise *, struct code_planes, int codes);

/* Runs a function on each plane; a vector is split by its words. */
PRIVATE void each_plane(const struct job *j, const struct pointwise *p, plane_of_codes *function) {
    int flat = p->in.channels == 1;
    struct range planes = split_evenly(p->in.channels, j->thread, j->threads);
    struct range words = {0, p->in.height * p->in.width};
    if (flat) {
        planes.begin = 0;
        planes.end = 1;
        words = split_evenly(words.end, j->thread, j->threads);
    }
    for (int g = 0; g < j->images; g++)
        for (int c = planes.begin; c < planes.end; c++) {
            struct code_planes at = code_planes(j, p, g, c);
            at.in += 4 * words.begin;
            at.out += 4 * words.begin;
            at.second += p->broadcast ? 0 : 4 * words.begin;
            function(p, at, 4 * (words.end - words.begin));
        }
}

PRIVATE void table_plane(const struct pointwise *p, struct code_planes at, int codes) {
    for (int i = 0; i < codes; i++)
        at.out[i] = p->requantisation.table[at.in[i]];
}

PRIVATE void add_plane(const struct pointwise *p, struct code_planes at, int codes) {
    const struct channel c = p->channel;
    for (int i = 0; i < codes; i++)
        at.out[i] = requantise_one(at.in[i] + c.start, &c, &p->requantisation, at.second[p->broadcast ? i % 4 : i]);
}

PRIVATE void mul_plane(const struct pointwise *p, struct code_planes at, int codes) {
    const struct channel c = p->channel;
    for (int i = 0; i < codes; i++) {
        int32_t product = (at.in[i] - p->zero) * (at.second[p->broadcast ? i % 4 : i] - p->second_zero);
        at.out[i] = requantise_one(product + c.start, &c, &p->requantisation, 0);
    }
}

PRIVATE void copy_plane(const struct pointwise *p, struct code_planes at, int codes) {
    (void)p;
    memcpy(at.out, at.in, (size_t)codes);
}

PRIVATE void table_codes(const struct job *j, const struct pointwise *p) { each_plane(j, p, table_plane); }
PRIVATE void add_codes(const struct job *j, const struct pointwise *p) { each_plane(j, p, add_plane); }
PRIVATE void mul_codes(const struct job *j, const struct pointwise *p) { each_plane(j, p, mul_plane); }
PRIVATE void copy_codes(const struct job *j, const struct pointwise *p) { each_plane(j, p, copy_plane); }

#endif
