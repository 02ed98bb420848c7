/* The argument of a worker. */
struct seat {
    re_context *context;
    int thread;
};

struct re_context {
    const unsigned char *weights;
    float *arena;
    uint32_t *starts;       /* of each list among its layer's entries */
    uint16_t *offsets;      /* of all entries */
    float *scratch;         /* SCRATCH_FLOATS for each thread */
    void *memory;           /* what arena and scratch lie in */
    struct crew crew;
    struct seat seats[THREADS_MAX];
    const float *in;
    float *out;
    int images;
};

static inline const float *float_section(const re_context *c, size_t at) {
    return (const float *)(const void *)(c->weights + at);
}

static inline const value *value_section(const re_context *c, size_t at) {
    return (const value *)(const void *)(c->weights + at);
}
