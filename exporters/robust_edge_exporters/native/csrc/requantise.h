/* Requantisation, from sums of products to codes:

       code = clamp(((sum >> first) * multiplier + residual code * residual multiplier + offset) >> down)
       offset = zero << down, + 1 << (down - 1), - residual zero * residual multiplier

   in 32 bits; the exporter has checked that nothing overflows. docs/int8-engine.md says how the numbers are chosen. */
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
    return c;
}

INLINE int32_t offset_of(const struct channel *c, const struct requantisation *r) {
    return r->zero * ((int32_t)1 << c->down) + ((int32_t)1 << (c->down - 1)) - r->residual_zero * c->residual;
}

/* Codes before the table, one in each lane. */
INLINE ints requantise(ints sum, const struct channel *c, const struct requantisation *r, ints residual) {
    ints scaled = (sum >> c->first) * splat_int(c->multiplier) + residual * splat_int(c->residual);
    return clamp_ints((scaled + splat_int(offset_of(c, r))) >> c->down, splat_int(r->lowest), splat_int(r->highest));
}

INLINE unsigned char requantise_one(int32_t sum, const struct channel *c, const struct requantisation *r,
                                    int32_t residual) {
    int32_t scaled = (sum >> c->first) * (int32_t)c->multiplier + residual * c->residual + offset_of(c, r);
    scaled >>= c->down;
    scaled = scaled < r->lowest ? r->lowest : scaled > r->highest ? r->highest : scaled;
    return r->table ? r->table[scaled] : (unsigned char)scaled;
}

#endif
