/* Requantisation, from sums of products to codes:

       code = clamp(((sum >> first) * multiplier + residual code * residual multiplier + offset) >> down)
       offset = zero << down, + 1 << (down - 1), - residual zero * residual multiplier

   in 32 bits; the exporter has checked that nothing overflows, and a damaged file wraps around. docs/int8-engine.md says
   how the numbers are chosen. */
#ifndef ROBUST_EDGE_REQUANTISE_H
#define ROBUST_EDGE_REQUANTISE_H

#include "codes.h"

/* Numbers of one output channel, as the weights file holds them. */
struct channel {
    int32_t bias;         /* what the sum begins with */
    int32_t weights;      /* sum of the weights */
    uint16_t multiplier;
    uint8_t first, down;
    int32_t residual;     /* multiplier */
};

/* Numbers of a tensor. */
struct requantisation {
    int32_t zero, residual_zero, lowest, highest;
    const unsigned char *table; /* of an activation, or NULL */
};

INLINE struct channel read_channel(const unsigned char *records, size_t index) {
    struct channel c;
    memcpy(&c, records + index * sizeof c, sizeof c);
    c.first = c.first > 31 ? 31 : c.first; /* shifts are in range, whatever the file holds */
    c.down = c.down < 1 ? 1 : c.down > 31 ? 31 : c.down;
    return c;
}

/* a + b * factor, modulo 2 to the power of 32. */
INLINE int32_t wrapping(int32_t a, int32_t b, int32_t factor) {
    return (int32_t)((uint32_t)a + (uint32_t)b * (uint32_t)factor);
}

/* What the sum of a channel begins with, where packed codes are flipped. */
INLINE int32_t start_of(int32_t bias, int32_t weights) { return wrapping(bias, weights, FLIPPED_ZERO); }

INLINE int32_t offset_of(const struct channel *c, const struct requantisation *r) {
    const int32_t half = (int32_t)1 << (c->down - 1);
    return wrapping(wrapping(half, r->zero, (int32_t)((uint32_t)half << 1)), -r->residual_zero, c->residual);
}

/* Whether codes are cut off at other bounds than 0 and 255, where joining them does. */
INLINE int cuts_off(const struct requantisation *r) { return r->lowest > 0 || r->highest < 255; }

INLINE unsigned char requantise_one(int32_t sum, const struct channel *c, const struct requantisation *r,
                                    int32_t residual) {
    int32_t code = wrapping(offset_of(c, r), sum >> c->first, c->multiplier);
    code = wrapping(code, residual, c->residual) >> c->down;
    code = code < r->lowest ? r->lowest : code > r->highest ? r->highest : code;
    return r->table ? r->table[code] : (unsigned char)code;
}

#endif
