/* A crew: the caller and threads - 1 workers run the same function and meet at barriers between operators. */
struct crew {
    int threads;
    int started;    /* workers that exist */
    int stop;
    unsigned round; /* counts the calls: a change wakes the workers */
    unsigned phase; /* counts the barriers: a change lets everyone on */
    int arrived;    /* at the barrier */
    int asleep;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    pthread_t worker[THREADS_MAX];
};

#if defined(__GNUC__)
/* Reads before a thread sleeps: some 50 us, more than a layer's imbalance. No pause instruction between them:
   hypervisors take a virtual CPU away from a loop of pauses. */
#define SPINS 30000
#define READ(x) __atomic_load_n(&(x), __ATOMIC_SEQ_CST)

static void await_change(struct crew *crew, const unsigned *value, unsigned old) {
    for (int i = 0; i < SPINS; i++)
        if (READ(*value) != old)
            return;
    pthread_mutex_lock(&crew->lock);
    /* first asleep, then read again; who changes the value does it the other way round: one sees the other */
    __atomic_add_fetch(&crew->asleep, 1, __ATOMIC_SEQ_CST);
    while (READ(*value) == old)
        pthread_cond_wait(&crew->changed, &crew->lock);
    __atomic_sub_fetch(&crew->asleep, 1, __ATOMIC_SEQ_CST);
    pthread_mutex_unlock(&crew->lock);
}

static void change(struct crew *crew, unsigned *value) {
    __atomic_add_fetch(value, 1, __ATOMIC_SEQ_CST);
    if (READ(crew->asleep) == 0)
        return;
    pthread_mutex_lock(&crew->lock);
    pthread_cond_broadcast(&crew->changed);
    pthread_mutex_unlock(&crew->lock);
}

static int arrive(struct crew *crew) { return __atomic_add_fetch(&crew->arrived, 1, __ATOMIC_SEQ_CST); }

#else /* no atomics: everything under the lock */
#define READ(x) (x)

static void await_change(struct crew *crew, const unsigned *value, unsigned old) {
    pthread_mutex_lock(&crew->lock);
    while (*value == old)
        pthread_cond_wait(&crew->changed, &crew->lock);
    pthread_mutex_unlock(&crew->lock);
}

static void change(struct crew *crew, unsigned *value) {
    pthread_mutex_lock(&crew->lock);
    ++*value;
    pthread_cond_broadcast(&crew->changed);
    pthread_mutex_unlock(&crew->lock);
}

static int arrive(struct crew *crew) {
    int count;
    pthread_mutex_lock(&crew->lock);
    count = ++crew->arrived;
    pthread_mutex_unlock(&crew->lock);
    return count;
}
#endif

/* Returns when all threads of the crew have called it; memory written before is seen after. */
static void barrier(struct crew *crew) {
    unsigned phase = READ(crew->phase);
    if (crew->threads == 1)
        return;
    if (arrive(crew) < crew->threads) {
        await_change(crew, &crew->phase, phase);
        return;
    }
    crew->arrived = 0; /* nobody arrives before the phase changes */
    change(crew, &crew->phase);
}

/* The end of an operator: all threads have done their share. RE_PROFILE builds also note the caller's time. */
#ifdef RE_PROFILE
#include <time.h>
double re_profile_ns[OPERATORS];
const int re_profile_operators = OPERATORS;

static void end_operator(struct crew *crew, int thread, int operator) {
    static double before;
    struct timespec t;
    barrier(crew);
    if (thread != 0)
        return;
    clock_gettime(CLOCK_MONOTONIC, &t);
    if (operator > 0)
        re_profile_ns[operator] += (double)t.tv_sec * 1e9 + (double)t.tv_nsec - before;
    before = (double)t.tv_sec * 1e9 + (double)t.tv_nsec;
}
#else
static void end_operator(struct crew *crew, int thread, int operator) {
    (void)thread, (void)operator;
    barrier(crew);
}
#endif
