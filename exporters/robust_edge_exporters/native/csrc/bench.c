/* bench [weights.bin [threads [images [repeats]]]]: times a pass over random images, prints milliseconds. */
#define _POSIX_C_SOURCE 200809L
#include "model.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "program.h"

#define INPUTS ((size_t)RE_INPUT_CHANNELS * RE_INPUT_HEIGHT * RE_INPUT_WIDTH)

static double now_ms(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static int ascending(const void *a, const void *b) {
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv) {
    const char *path = argc > 1 ? argv[1] : "weights.bin";
    int threads = parse_count(argc, argv, 2, 1), images = parse_count(argc, argv, 3, 1);
    int repeats = parse_count(argc, argv, 4, 100);
    void *weights;
    double start = now_ms(), created, first;
    re_context *context = create_or_explain(path, &weights, threads);
    float *in = malloc((size_t)images * INPUTS * sizeof *in);
    float *out = malloc((size_t)images * RE_OUTPUTS * sizeof *out);
    double *ms = malloc((size_t)repeats * sizeof *ms);
    if (context == NULL || in == NULL || out == NULL || ms == NULL)
        return 1;
    for (size_t i = 0; i < (size_t)images * INPUTS; i++)
        in[i] = (float)rand() / (float)RAND_MAX;
    created = now_ms();
    re_infer(context, in, out, images);
    first = now_ms();
    for (int i = 0; i < repeats; i++) {
        double begin = now_ms();
        re_infer(context, in, out, images);
        ms[i] = now_ms() - begin;
    }
    qsort(ms, (size_t)repeats, sizeof *ms, ascending);
    printf("threads %d  images %d  create %.2f ms  first %.3f ms\n", threads, images, created - start, first - created);
    printf("min %.4f  p50 %.4f  p90 %.4f ms  (n = %d)  memory beyond weights %.2f MB\n", ms[0], ms[repeats / 2],
           ms[repeats * 9 / 10], repeats, (double)re_memory(context) / 1e6);
    re_destroy(context);
    free(weights);
    free(in);
    free(out);
    free(ms);
    return !flush_output();
}
