/* Thread pool: the caller's thread and threads - 1 workers run the same function, and meet at a barrier after each
   operator. */
#ifndef ROBUST_EDGE_THREAD_POOL_H
#define ROBUST_EDGE_THREAD_POOL_H

#include <pthread.h>

#include "config.h"
#include "compiler.h"

#define THREADS_MAX 64

struct thread_pool {
    int threads;            /* with the caller's */
    int started;            /* workers that exist */
    int stop;               /* tells the workers to end */
    unsigned generation;    /* counts the calls of re_infer: a change wakes the workers */
    unsigned barrier_phase; /* counts the barriers: a change releases the threads that wait */
    int arrived;            /* threads that have reached the current barrier */
    int asleep;             /* threads that wait for the condition */
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t handles[THREADS_MAX];
};

#if defined(__GNUC__)
/* A waiting thread reads the counter this often before it sleeps: for some 50 us, which is more than the imbalance of a
   layer. There is no pause instruction between the reads, since hypervisors take the virtual CPU away from a loop of
   them. */
#define SPINS 30000
#define READ(x) __atomic_load_n(&(x), __ATOMIC_SEQ_CST)

PRIVATE void wait_for_change(struct thread_pool *pool, const unsigned *value, unsigned old) {
    for (int i = 0; i < SPINS; i++)
        if (READ(*value) != old)
            return;
    pthread_mutex_lock(&pool->lock);
    /* This thread counts itself asleep, then reads the value; notify_change writes the value, then reads the count. One
       of the two sees what the other has written, so no wake-up is lost. */
    __atomic_add_fetch(&pool->asleep, 1, __ATOMIC_SEQ_CST);
    while (READ(*value) == old)
        pthread_cond_wait(&pool->changed, &pool->lock);
    __atomic_sub_fetch(&pool->asleep, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&pool->lock);
}

PRIVATE void notify_change(struct thread_pool *pool, unsigned *value) {
    __atomic_add_fetch(value, 1, __ATOMIC_SEQ_CST);
    if (READ(pool->asleep) == 0)
        return;
    pthread_mutex_lock(&pool->lock);
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
}

PRIVATE int arrive(struct thread_pool *pool) { return __atomic_add_fetch(&pool->arrived, 1, __ATOMIC_SEQ_CST); }

#else /* without atomics, everything happens under the lock */
#define READ(x) (x)

PRIVATE void wait_for_change(struct thread_pool *pool, const unsigned *value, unsigned old) {
    pthread_mutex_lock(&pool->lock);
    while (*value == old)
        pthread_cond_wait(&pool->changed, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

PRIVATE void notify_change(struct thread_pool *pool, unsigned *value) {
    pthread_mutex_lock(&pool->lock);
    ++*value;
    pthread_cond_broadcast(&pool->changed);
    pthread_mutex_unlock(&pool->lock);
}

PRIVATE int arrive(struct thread_pool *pool) {
    int count;
    pthread_mutex_lock(&pool->lock);
    count = ++pool->arrived;
    pthread_mutex_unlock(&pool->lock);
    return count;
}
#endif

/* Returns when all threads of the pool have called it; each then sees what the others wrote before. */
PRIVATE void barrier(struct thread_pool *pool) {
    unsigned phase = READ(pool->barrier_phase);
    if (pool->threads == 1)
        return;
    if (arrive(pool) < pool->threads) {
        wait_for_change(pool, &pool->barrier_phase, phase);
        return;
    }
    pool->arrived = 0; /* no thread arrives at the next barrier before the phase changes */
    notify_change(pool, &pool->barrier_phase);
}

/* Ends an operator: its output is complete when all threads have come here. With -DRE_PROFILE, the time of each
   operator on the caller's thread is summed up in re_profile_ns. */
#ifdef RE_PROFILE
#include <time.h>
double re_profile_ns[OPERATORS];
const int re_profile_operators = OPERATORS;

PRIVATE void end_operator(struct thread_pool *pool, int thread, int operator) {
    static double before;
    struct timespec t;
    barrier(pool);
    if (thread != 0)
        return;
    clock_gettime(CLOCK_MONOTONIC, &t);
    if (operator > 0)
        re_profile_ns[operator] += (double)t.tv_sec * 1e9 + (double)t.tv_nsec - before;
    before = (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}
#else
PRIVATE void end_operator(struct thread_pool *pool, int thread, int operator) {
    (void)thread, (void)operator;
    barrier(pool);
}
#endif

#endif
