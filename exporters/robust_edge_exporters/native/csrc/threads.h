/* A crew: the caller and threads - 1 workers run the same function and meet at barriers between operators. */
struct crew {
    int threads;
    int started; /* workers that exist */
    int stop;
    unsigned round;      /* counts the calls, workers wait for it to change */
    unsigned phase;      /* counts the barriers */
    int waiting;
    pthread_mutex_t lock;
    pthread_cond_t wake, met;
    pthread_t worker[THREADS_MAX];
};

#define SPINS 4000 /* a few microseconds: barriers are that far apart, waking a sleeper costs more */

#if defined(__GNUC__)
#define READ(x) __atomic_load_n(&(x), __ATOMIC_ACQUIRE)
#define WRITE(x, v) __atomic_store_n(&(x), v, __ATOMIC_RELEASE)
static int changed_while_spinning(const unsigned *value, unsigned old) {
    for (int i = 0; i < SPINS; i++) {
        if (READ(*value) != old)
            return 1;
#if defined(__x86_64__)
        __builtin_ia32_pause();
#endif
    }
    return 0;
}
#else
#define READ(x) (x)
#define WRITE(x, v) ((x) = (v))
static int changed_while_spinning(const unsigned *value, unsigned old) {
    (void)value, (void)old;
    return 0;
}
#endif

/* Returns when all threads of the crew have called it; memory written before is seen after. */
static void barrier(struct crew *crew) {
    if (crew->threads == 1)
        return;
    pthread_mutex_lock(&crew->lock);
    unsigned phase = crew->phase;
    if (++crew->waiting == crew->threads) {
        crew->waiting = 0;
        WRITE(crew->phase, phase + 1);
        pthread_cond_broadcast(&crew->met);
        pthread_mutex_unlock(&crew->lock);
        return;
    }
    pthread_mutex_unlock(&crew->lock);
    if (changed_while_spinning(&crew->phase, phase))
        return;
    pthread_mutex_lock(&crew->lock);
    while (crew->phase == phase)
        pthread_cond_wait(&crew->met, &crew->lock);
    pthread_mutex_unlock(&crew->lock);
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
