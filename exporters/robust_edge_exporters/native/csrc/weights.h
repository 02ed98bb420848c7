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

/* A section that create expands: counts of one sparse layer's lists, whose offsets must stay below `limit`. */
struct lists {
    size_t counts, offsets, nonzeros, starts;
    size_t lists; /* how many */
    size_t limit, last_limit; /* of a list's offsets; the last block of a group may be smaller */
    size_t per_block, blocks;
};

struct widened {
    size_t values, count, expanded;
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

static uint16_t read_short(const unsigned char *p) {
    uint16_t x;
    memcpy(&x, p, sizeof x);
    return x;
}

/* A list may not read beyond what is packed for its block, and together the lists hold all non-zeros. */
static enum re_status check_lists(const unsigned char *weights, const struct lists *l) {
    size_t at = 0;
    for (size_t i = 0; i < l->lists; i++) {
        size_t count = read_short(weights + l->counts + 2 * i);
        int last = i / l->per_block % l->blocks == l->blocks - 1;
        unsigned highest = 0;
        if (count > l->nonzeros - at)
            return RE_BAD_CONTENT;
        for (size_t k = at; k < at + count; k++) {
            unsigned offset = read_short(weights + l->offsets + 2 * k);
            highest = offset > highest ? offset : highest;
        }
        if (count && highest > (last ? l->last_limit : l->limit))
            return RE_BAD_CONTENT;
        at += count;
    }
    return at == l->nonzeros ? RE_OK : RE_BAD_CONTENT;
}

static void read_starts(const unsigned char *weights, const struct lists *l, uint32_t *starts) {
    uint32_t at = 0;
    starts += l->starts;
    for (size_t i = 0; i < l->lists; i++) {
        starts[i] = at;
        at += read_short(weights + l->counts + 2 * i);
    }
    starts[l->lists] = at;
}
