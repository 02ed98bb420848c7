/* The functions of model.h. In the exporter, this file includes the engine's headers; a model.c that is exported holds
   their text instead, and config.h, tile_sizes.h and network.h of its network. */
#define _POSIX_C_SOURCE 200809L
#define _DEFAULT_SOURCE /* MADV_HUGEPAGE */
#include "model.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sys/mman.h>
#endif

#include "network.h"

#define LARGE_PAGE ((size_t)2 << 20)

static void run_batches(re_context *c, int thread) {
    struct job j;
    j.context = c;
    j.in = c->in;
    j.out = c->out;
    j.thread = thread;
    j.threads = c->pool.threads;
    for (int left = c->images; left > 0; left -= j.images) {
        j.images = left < IMAGES_MAX ? left : IMAGES_MAX;
        network(&j);
        j.in += (size_t)j.images * RE_INPUT_CHANNELS * RE_INPUT_HEIGHT * RE_INPUT_WIDTH;
        j.out += (size_t)j.images * RE_OUTPUTS;
    }
}

static void *worker_main(void *argument) {
    struct worker worker = *(struct worker *)argument;
    struct thread_pool *pool = &worker.context->pool;
    unsigned generation = 0;
    for (;; generation++) {
        wait_for_change(pool, &pool->generation, generation);
        if (pool->stop)
            return NULL;
        run_batches(worker.context, worker.thread);
    }
}

/* Starts threads - 1 workers, or as many as the system grants. */
static void start_workers(re_context *c, int threads) {
    struct thread_pool *pool = &c->pool;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->changed, NULL);
    for (int t = 1; t < threads; t++) {
        c->workers[t].context = c;
        c->workers[t].thread = t;
        if (pthread_create(&pool->handles[t], NULL, worker_main, &c->workers[t]))
            break;
        pool->started++;
    }
    pool->threads = pool->started + 1;
}

static size_t arena_bytes(int threads) {
    return (ARENA_FLOATS + (size_t)threads * SCRATCH_FLOATS) * sizeof(float) +
           STARTS_COUNT * sizeof(uint32_t) + CHANNELS_COUNT * sizeof(struct channel) + OFFSETS_COUNT * sizeof(uint16_t);
}

/* Zeroed memory, in large pages where the system has them, since each inference reads all offsets once. */
static void *allocate_zeroed(size_t bytes) {
    void *memory;
    if (posix_memalign(&memory, bytes < LARGE_PAGE ? 64 : LARGE_PAGE, bytes))
        return NULL;
#ifdef MADV_HUGEPAGE
    if (bytes >= LARGE_PAGE)
        madvise(memory, bytes, MADV_HUGEPAGE);
#endif
    memset(memory, 0, bytes);
    return memory;
}

enum re_status re_check(const void *weights, size_t bytes) {
    enum re_status status = (uintptr_t)weights % 4 ? RE_UNALIGNED : check_header(weights, bytes);
    if (status == RE_OK)
        status = check_sums(weights);
    for (size_t i = 0; status == RE_OK && i < SEGMENT_TABLES; i++)
        status = read_segments(weights, &all_segments[i], NULL, NULL);
    return status;
}

re_context *re_create(const void *weights, size_t bytes, int threads) {
    re_context *c;
    threads = threads < 1 ? 1 : threads > THREADS_MAX ? THREADS_MAX : threads;
    if (re_check(weights, bytes) != RE_OK)
        return NULL;
    c = calloc(1, sizeof *c);
    if (c == NULL)
        return NULL;
    c->memory = allocate_zeroed(arena_bytes(threads));
    if (c->memory == NULL) {
        free(c);
        return NULL;
    }
    c->weights = weights;
    c->arena = c->memory;
    c->scratch = c->arena + ARENA_FLOATS;
    c->starts = (uint32_t *)(void *)(c->scratch + (size_t)threads * SCRATCH_FLOATS);
    c->channels = (struct channel *)(void *)(c->starts + STARTS_COUNT);
    c->offsets = (uint16_t *)(void *)(c->channels + CHANNELS_COUNT);
    prepare(c);
    start_workers(c, threads);
    return c;
}

void re_infer(re_context *c, const float *in, float *out, int n) {
    if (n < 1)
        return;
    c->in = in;
    c->out = out;
    c->images = n;
    if (c->pool.threads > 1)
        notify_change(&c->pool, &c->pool.generation);
    run_batches(c, 0);
}

size_t re_memory(const re_context *c) { return sizeof *c + arena_bytes(c->pool.threads); }

void re_destroy(re_context *c) {
    if (c == NULL)
        return;
    c->pool.stop = 1;
    if (c->pool.started)
        notify_change(&c->pool, &c->pool.generation);
    for (int t = 1; t <= c->pool.started; t++)
        pthread_join(c->pool.handles[t], NULL);
    pthread_mutex_destroy(&c->pool.lock);
    pthread_cond_destroy(&c->pool.changed);
    free(c->memory);
    free(c);
}

void re_shape(int shape[4]) {
    shape[0] = RE_INPUT_CHANNELS;
    shape[1] = RE_INPUT_HEIGHT;
    shape[2] = RE_INPUT_WIDTH;
    shape[3] = RE_OUTPUTS;
}

const char *re_status_text(enum re_status status) {
    switch (status) {
    case RE_OK:
        return "ok";
    case RE_TOO_SHORT:
        return "the weights file is cut short";
    case RE_BAD_MAGIC:
        return "not a weights file of this engine (or of the other byte order)";
    case RE_BAD_VERSION:
        return "the weights file has another format version";
    case RE_OTHER_MODEL:
        return "the weights file belongs to another network";
    case RE_BAD_SIZE:
        return "the weights file has the wrong size";
    case RE_BAD_CHECKSUM:
        return "the weights file is damaged (checksum)";
    case RE_UNALIGNED:
        return "the weights do not lie at a multiple of 4 bytes";
    case RE_BAD_CONTENT:
        return "the weights file holds an offset or a count outside its layer";
    }
    return "unknown status";
}
