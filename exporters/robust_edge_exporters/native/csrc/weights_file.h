/* The weights file: a header, then sections at the byte offsets compiled into the tables. Little-endian.

        0 MAGIC               8 uint32 version   12 uint32 value bytes (4, 2 or 1)
       16 uint64 file bytes  24 uint64 model    32 uint64 sum of words   40 uint64 sum of (i + 1) * word i

   Words are the uint32 after the header, i from 0; sums are modulo 2^64. The exporter reads MAGIC,
   FORMAT_VERSION and HEADER_BYTES from this file. */
#ifndef ROBUST_EDGE_WEIGHTS_FILE_H
#define ROBUST_EDGE_WEIGHTS_FILE_H

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "compiler.h"
#include "config.h"
#include "model.h"

#define MAGIC "RE-SPARS" /* without the 0 at its end */
#define FORMAT_VERSION 5u
#define HEADER_BYTES 64

struct header {
    unsigned char magic[8];
    uint32_t version, value_bytes;
    uint64_t bytes, model, sum, weighted_sum;
};

/* The nonzeros of a layer are stored in segments: runs of entries that are added to the same sum. An entry is a value
   and a position: input channel * taps + tap within a block of input channels or, where segment i belongs to tap i %
   taps, the input channel alone. The positions of a segment ascend. The file stores for each segment the number of its
   entries, then for each entry how many positions lie between it and the one before it. A number n is n / 255 bytes of
   255, followed by a byte of n % 255.

   A context expands the positions once to offsets, channel * channel_offset + tap_offsets[tap], which is what kernels
   add to the address of a tile: floats, or units in conv_columns.h. */
struct segments {
    size_t coded, coded_bytes;          /* byte offset and length in the weights file */
    size_t entries;                     /* of all segments */
    size_t starts, offsets;             /* indices of the first of its starts and offsets in the context */
    size_t segments, per_block, blocks; /* segments of the layer, and of each of a group's blocks */
    size_t positions, last_positions;   /* of a block; the last block of a group may be smaller */
    size_t channel_offset;              /* from one channel's offsets to the next channel's */
    size_t taps;
    const uint16_t *tap_offsets;
    int by_tap;                         /* segment i belongs to tap i % taps */
};

PRIVATE enum re_status check_header(const void *weights, size_t bytes) {
    struct header h;
    if (weights == NULL || bytes < HEADER_BYTES)
        return RE_TOO_SHORT;
    memcpy(&h, weights, sizeof h);
    if (memcmp(h.magic, MAGIC, 8) != 0 || (h.version & 0xffff0000u) != 0)
        return RE_BAD_MAGIC;
    if (h.version != FORMAT_VERSION)
        return RE_BAD_VERSION;
    if (h.model != MODEL || h.value_bytes != VALUE_BYTES)
        return RE_OTHER_MODEL;
    if (h.bytes != WEIGHTS_BYTES || bytes != WEIGHTS_BYTES)
        return bytes < WEIGHTS_BYTES ? RE_TOO_SHORT : RE_BAD_SIZE;
    return RE_OK;
}

PRIVATE enum re_status check_sums(const unsigned char *weights) {
    struct header h;
    uint64_t sum = 0, weighted = 0;
    memcpy(&h, weights, sizeof h);
    for (size_t i = 0; i < (WEIGHTS_BYTES - HEADER_BYTES) / 4; i++) {
        uint32_t word;
        memcpy(&word, weights + HEADER_BYTES + 4 * i, sizeof word);
        sum += word;
        weighted += (uint64_t)(i + 1) * word;
    }
    return sum == h.sum && weighted == h.weighted_sum ? RE_OK : RE_BAD_CHECKSUM;
}

struct reader {
    const unsigned char *next, *end;
};

/* The next number; where the bytes end before the number does, one that is larger than any position or count. */
PRIVATE size_t read_number(struct reader *r) {
    size_t number = 0;
    while (r->next < r->end) {
        unsigned byte = *r->next++;
        number += byte;
        if (byte < 255)
            return number;
    }
    return SIZE_MAX / 2;
}

/* Checks that no position lies outside its block and that the segments hold all entries. Writes the starts of the
   segments and the offsets of the entries, unless both are NULL. */
PRIVATE enum re_status read_segments(const unsigned char *weights, const struct segments *s, uint32_t *starts,
                                     uint16_t *offsets) {
    struct reader r = {weights + s->coded, weights + s->coded + s->coded_bytes};
    size_t entry = 0;
    for (size_t i = 0; i < s->segments; i++) {
        size_t count = read_number(&r), next = 0;
        size_t positions = i / s->per_block % s->blocks == s->blocks - 1 ? s->last_positions : s->positions;
        uint32_t taps = s->by_tap ? 1 : (uint32_t)s->taps;
        const uint16_t *tap_offsets = s->by_tap ? s->tap_offsets + i % s->taps : s->tap_offsets;
        if (count > s->entries - entry)
            return RE_BAD_CONTENT;
        if (starts)
            starts[s->starts + i] = (uint32_t)entry;
        for (size_t end = entry + count; entry < end; entry++) {
            size_t position = next + read_number(&r);
            if (position >= positions)
                return RE_BAD_CONTENT;
            next = position + 1;
            if (offsets) {
                uint32_t channel = (uint32_t)position / taps, tap = (uint32_t)position - channel * taps;
                offsets[s->offsets + entry] = (uint16_t)(channel * s->channel_offset + tap_offsets[tap]);
            }
        }
    }
    if (starts)
        starts[s->starts + s->segments] = (uint32_t)entry;
    return entry == s->entries && r.next == r.end ? RE_OK : RE_BAD_CONTENT;
}

#endif
