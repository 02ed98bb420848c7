/* Prints what a cache line costs that the two cores of a pair share, in nanoseconds: to read a line that the other core
   has written, to write one that it has written, and to write one that it has read. Each figure is the median over
   rounds in which one core touches all lines, then the other. Linux. */
#define _GNU_SOURCE
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#define LINES 2048 /* 128 KiB, which fit a second-level cache */
#define FLOATS 16  /* of a line */
#define ROUNDS 401

typedef float line __attribute__((vector_size(4 * FLOATS)));

static line data[LINES];
static line sums[2][4]; /* of each core; four, so that additions do not wait for each other */
static int turn;        /* even: the first core's */
static int other_writes;

static void pin(int core) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(core, &set);
    if (sched_setaffinity(0, sizeof set, &set))
        exit(1);
}

static void touch(int core, int writes) {
    for (int i = 0; i < LINES; i++)
        if (writes)
            data[i] = sums[core][0];
        else
            sums[core][i % 4] += data[i];
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
}

static void wait_for(int value) {
    while (__atomic_load_n(&turn, __ATOMIC_ACQUIRE) != value)
        ;
}

static void *other_core(void *core) {
    pin(*(int *)core);
    for (int r = 0; r < ROUNDS; r++) {
        wait_for(2 * r + 1);
        touch(1, other_writes);
        __atomic_store_n(&turn, 2 * r + 2, __ATOMIC_RELEASE);
    }
    return NULL;
}

static double now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b) { return (*(double *)a > *(double *)b) - (*(double *)a < *(double *)b); }

static double measured(int writes, int after_writes, int second) {
    double ns[ROUNDS];
    pthread_t thread;
    turn = 0;
    other_writes = after_writes;
    if (pthread_create(&thread, NULL, other_core, &second))
        exit(1);
    for (int r = 0; r < ROUNDS; r++) {
        __atomic_store_n(&turn, 2 * r + 1, __ATOMIC_RELEASE);
        wait_for(2 * r + 2);
        double start = now_ns();
        touch(0, writes);
        ns[r] = (now_ns() - start) / LINES;
    }
    pthread_join(thread, NULL);
    qsort(ns, ROUNDS, sizeof *ns, ascending);
    return ns[ROUNDS / 2];
}

/* shared_lines FIRST SECOND: two cores. */
int main(int count, char **arguments) {
    if (count != 3)
        return 2;
    int first = atoi(arguments[1]), second = atoi(arguments[2]);
    pin(first);
    double read_written = measured(0, 1, second), write_written = measured(1, 1, second);
    printf("%.1f %.1f %.1f\n", read_written, write_written, measured(1, 0, second));
    return 0;
}
