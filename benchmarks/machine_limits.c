/* Prints what one core of this machine can do at best: multiply-adds from registers, multiply-adds with one operand
   loaded from the first-level cache (what a sparse kernel needs), and bytes read from memory, each per nanosecond. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#if defined(__AVX512F__)
#define LANES 16
#elif defined(__AVX__)
#define LANES 8
#else
#define LANES 4
#endif
#define SUMS 12
#define BIG ((size_t)16 << 20)
typedef float vec __attribute__((vector_size(4 * LANES)));

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static vec sums[SUMS];

static double registers(void) {
    vec w = sums[0] + 1.0f, x = sums[1];
    double start = now_ns();
    for (int k = 0; k < 1000000; k++)
        for (int i = 0; i < SUMS; i++)
            sums[i] = sums[i] * w + x;
    return 1e6 * SUMS * LANES / (now_ns() - start);
}

static double loads(const vec *data) {
    vec w = sums[0] + 1.0f;
    double start = now_ns();
    for (int k = 0; k < 1000000; k++) {
        const vec *in = data + k % 16 * SUMS;
        for (int i = 0; i < SUMS; i++)
            sums[i] += w * in[i];
    }
    return 1e6 * SUMS * LANES / (now_ns() - start);
}

static double memory(const vec *data) {
    size_t vectors = BIG / sizeof(vec) / SUMS * SUMS;
    double start = now_ns();
    for (size_t k = 0; k < vectors; k += SUMS)
        for (size_t i = 0; i < SUMS; i++)
            sums[i] += data[k + i];
    return (double)(vectors * sizeof(vec)) / (now_ns() - start);
}

int main(void) {
    double best[3] = {0, 0, 0};
    void *data;
    if (posix_memalign(&data, 64, BIG))
        return 1;
    memset(data, 0, BIG);
    for (int round = 0; round < 9; round++) {
        double got[3] = {registers(), loads(data), memory(data)};
        for (int i = 0; i < 3; i++)
            best[i] = got[i] > best[i] ? got[i] : best[i];
    }
    printf("%.2f %.2f %.2f\n", best[0], best[1], best[2]);
    free(data);
    return sums[0][0] == 1.0f;
}
