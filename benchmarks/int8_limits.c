/* Prints what one core of this machine can do at best with the int8 engine's product of four codes (codes.h): multiply-adds
   from registers, and multiply-adds with the codes loaded from the first-level cache, each per nanosecond. */
#define _POSIX_C_SOURCE 200809L
#include <stdio.h>
#include <time.h>

#include "codes.h"

#define SUMS 12

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static float data[16 * SUMS * UNIT] __attribute__((aligned(64)));
static volatile int32_t seen;

INLINE double rate(const int loads, int32_t weights) {
    ints sum[SUMS], x[SUMS], w = splat_int(weights), total = splat_int(0);
    double start = now_ns();
    UNROLL for (int v = 0; v < SUMS; v++)
        sum[v] = x[v] = splat_int(weights + v);
    for (int k = 0; k < 1000000; k++) {
        const float *in = data + k % 16 * SUMS * LANES;
        w ^= k; /* so that no product is computed once for all rounds */
        UNROLL for (int v = 0; v < SUMS; v++)
            sum[v] = dot4(sum[v], loads ? load_words(in + v * LANES) : x[v], w);
        __asm__ volatile("" ::: "memory");
    }
    UNROLL for (int v = 0; v < SUMS; v++)
        total += sum[v];
    memcpy((void *)&seen, &total, sizeof seen);
    return 4e6 * SUMS * LANES / (now_ns() - start);
}

int main(int argc, char **argv) {
    double best[2] = {0, 0};
    (void)argv;
    for (int i = 0; i < 16 * SUMS * UNIT; i++) /* pages that were never written are one page, which caches treat badly */
        data[i] = (float)i;
    for (int round = 0; round < 9; round++)
        for (int i = 0; i < 2; i++) {
            double got = i ? rate(1, argc + round) : rate(0, argc + round);
            best[i] = got > best[i] ? got : best[i];
        }
    printf("%.2f %.2f\n", best[0], best[1]);
    return 0;
}
