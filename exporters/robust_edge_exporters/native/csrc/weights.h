/* The weights file: a header, then sections at the byte offsets compiled into the tables. Little-endian.
       0 magic "RE-SPARS"   8 uint32 version   12 uint32 value bytes (4, or 2 for fp16)
      16 uint64 file bytes  24 uint64 model    32 uint64 sum of words   40 uint64 sum of (i + 1) * word i
   Words are the uint32 after the header, i from 0; sums are modulo 2^64. */
#define HEADER_BYTES 64

struct header {
    unsigned char magic[8];
    uint32_t version, value_bytes;
    uint64_t bytes, model, sum, weighted_sum;
};

/* The lists of one layer, coded: for each its count, then for each entry the places between it and the one before it.
   A number is as many bytes of 255 as it holds 255s, and a last byte for the rest. A place is input channel * taps + tap,
   or the input channel where list i stands for tap i % taps. */
struct lists {
    size_t coded, coded_bytes, entries;
    size_t starts, offsets; /* where the context keeps them */
    size_t lists, per_block, blocks;
    size_t places, last_places; /* of a block; the last block of a group may be smaller */
    size_t channel_offset; /* from one channel's offsets to the next's */
    size_t taps;
    const uint16_t *tap_offsets;
    int by_tap;
};

static enum re_status check_header(const void *weights, size_t bytes) {
    struct header h;
    if (weights == NULL || bytes < HEADER_BYTES)
        return RE_TOO_SHORT;
    memcpy(&h, weights, sizeof h);
    if (memcmp(h.magic, "RE-SPARS", 8) != 0 || (h.version & 0xffff0000u) != 0)
        return RE_BAD_MAGIC;
    if (h.version != FORMAT_VERSION)
        return RE_BAD_VERSION;
    if (h.model != MODEL || h.value_bytes != VALUE_BYTES)
        return RE_OTHER_MODEL;
    if (h.bytes != WEIGHTS_BYTES || bytes != WEIGHTS_BYTES)
        return bytes < WEIGHTS_BYTES ? RE_TOO_SHORT : RE_BAD_SIZE;
    return RE_OK;
}

static enum re_status check_sums(const unsigned char *weights) {
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
    const unsigned char *at, *end;
};

/* The next number, or more than any place or count where the bytes end before it does. */
static size_t read_number(struct reader *r) {
    size_t number = 0;
    while (r->at < r->end) {
        unsigned byte = *r->at++;
        number += byte;
        if (byte < 255)
            return number;
    }
    return SIZE_MAX / 2;
}

/* No entry may lie beyond what is packed for its block, and together the lists hold all entries. Notes where lists
   start and the offsets of entries, unless both are NULL. */
static enum re_status read_lists(const unsigned char *weights, const struct lists *l, uint32_t *starts,
                                 uint16_t *offsets) {
    struct reader r = {weights + l->coded, weights + l->coded + l->coded_bytes};
    size_t entry = 0;
    for (size_t i = 0; i < l->lists; i++) {
        size_t count = read_number(&r), next = 0;
        size_t places = i / l->per_block % l->blocks == l->blocks - 1 ? l->last_places : l->places;
        uint32_t taps = l->by_tap ? 1 : (uint32_t)l->taps;
        const uint16_t *tap_offsets = l->by_tap ? l->tap_offsets + i % l->taps : l->tap_offsets;
        if (count > l->entries - entry)
            return RE_BAD_CONTENT;
        if (starts)
            starts[l->starts + i] = (uint32_t)entry;
        for (size_t end = entry + count; entry < end; entry++) {
            size_t place = next + read_number(&r);
            if (place >= places)
                return RE_BAD_CONTENT;
            next = place + 1;
            if (offsets) {
                uint32_t channel = (uint32_t)place / taps, tap = (uint32_t)place - channel * taps;
                offsets[l->offsets + entry] = (uint16_t)(channel * l->channel_offset + tap_offsets[tap]);
            }
        }
    }
    if (starts)
        starts[l->starts + l->lists] = (uint32_t)entry;
    return entry == l->entries && r.at == r.end ? RE_OK : RE_BAD_CONTENT;
}
