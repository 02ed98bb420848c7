/* Requantisation, from sums of products to codes:

       code = clamp(((sum >> first) * multiplier + residual code * residual multiplier + offset) >> down)
       offset = zero << down, + 1 << (down - 1), - residual zero * residual multiplier

   in 32 bits; the exporter has checked that nothing overflows, and a damaged file wraps around. docs/int8-engine.md says
   how the numbers are chosen. */
#ifndef ROBUST_EDGE_REQUANTISE_H
#define ROBUST_EDGE_REQUANTISE_H

#include "context.h"
#include "codes.h"

#define SIGNIFICAND_BITS 11
#define SHIFT_BITS 5
#define BIAS_BITS 15 /* and a sign */

/* Numbers of a tensor. */
struct requantisation {
    int32_t down, offset, residual_multiplier, lowest, highest;
    size_t records;       /* byte offset of those of a layer's channels in the weights file */
    size_t first_channel; /* the index of the first one in the context */
    int wide;             /* records are structs wide_record */
    const unsigned char *table; /* of an activation, or NULL */
};

/* A channel in the weights file. `packed` has the significand of the multiplier, and above it a signed shift, of sums to
   the right, or of the significand to the left. The bias is in units of 2 to the power of shift + down - BIAS_BITS, if that
   is positive; where those of a layer do not fit, all are in units of the sums. */
struct record {
    int16_t bias;
    uint16_t packed;
};

struct wide_record {
    int32_t bias;
    uint16_t packed, unused;
};

/* a + b * factor, modulo 2 to the power of 32. */
INLINE int32_t wrapping(int32_t a, int32_t b, int32_t factor) {
    return (int32_t)((uint32_t)a + (uint32_t)b * (uint32_t)factor);
}

/* Output channel `index` of a layer. */
INLINE struct channel channel_of(const re_context *ctx, const struct requantisation *r, size_t index) {
    return ctx->channels[r->first_channel + index];
}

/* The same from its record, but for the sum of its weights. */
INLINE struct channel read_channel(const unsigned char *records, const struct requantisation *r, size_t index) {
    struct wide_record n;
    struct channel c;
    int shift, unit = 0;
    if (r->wide)
        memcpy(&n, records + index * sizeof n, sizeof n);
    else {
        struct record narrow;
        memcpy(&narrow, records + index * sizeof narrow, sizeof narrow);
        n.bias = narrow.bias;
        n.packed = narrow.packed;
    }
    shift = (n.packed >> SIGNIFICAND_BITS ^ 1 << (SHIFT_BITS - 1)) - (1 << (SHIFT_BITS - 1));
    if (!r->wide && shift + r->down > BIAS_BITS)
        unit = shift + r->down - BIAS_BITS;
    c.first = shift > 0 ? shift : 0;
    c.multiplier = (n.packed & ((1 << SIGNIFICAND_BITS) - 1)) << (shift < 0 ? -shift : 0);
    c.start = wrapping((int32_t)1 << c.first >> 1, n.bias, (int32_t)((uint32_t)1 << unit));
    return c;
}

/* Whether codes are cut off at other bounds than 0 and 255, where joining them does. */
INLINE int cuts_off(const struct requantisation *r) { return r->lowest > 0 || r->highest < 255; }

INLINE unsigned char requantise_one(int32_t sum, const struct channel *c, const struct requantisation *r,
                                    int32_t residual) {
    int32_t code = wrapping(r->offset, sum >> c->first, c->multiplier);
    code = wrapping(code, residual, r->residual_multiplier) >> r->down;
    code = code < r->lowest ? r->lowest : code > r->highest ? r->highest : code;
    return r->table ? r->table[code] : (unsigned char)code;
}

#endif
