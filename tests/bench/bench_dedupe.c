/*
 * bench_dedupe.c - what admission costs, in time and in memory: 20 million new keys in batches of
 * 512 with the working thread beside it, then as many duplicates drawn from all over them.
 *
 * Time spent waiting for dedupe_ready() counts: it is what a caller sees.
 */
#include <assert.h>
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "store/dedupe.h"

#define BATCH        512u
#define KEYS         (39062ull * BATCH) /* 20 million */
#define DUPLICATES   (3906ull * BATCH)
#define MEMORY_BYTES (256ull << 20)
#define IDLE_US      200u

struct worker {
    struct dedupe *d;
    _Atomic bool stop;
};

static void *work(void *arg)
{
    struct worker *w = arg;
    int r;

    while (!atomic_load_explicit(&w->stop, memory_order_relaxed)) {
        r = dedupe_do_work(w->d);
        assert(r >= 0);
        if (r == 0)
            usleep(IDLE_US);
    }
    return NULL;
}

static uint64_t mix(uint64_t x)
{
    x += 0x9e3779b97f4a7c15ull;
    x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9ull;
    x = (x ^ (x >> 27)) * 0x94d049bb133111ebull;
    return x ^ (x >> 31);
}

static struct key128 key_of(uint64_t n) { return (struct key128){ mix(n), mix(~n) }; }

/* ns an event in dedupe_ready() and dedupe_admit() alone; number(i) gives the key of event i. */
static double admit(struct dedupe *d, uint64_t events, uint64_t (*number)(uint64_t i),
                    uint64_t *index, uint8_t expect)
{
    struct key128 key[BATCH];
    uint64_t content[BATCH], spent = 0, start;
    uint8_t verdict[BATCH];
    struct dedupe_place first[BATCH];
    int r;

    for (uint64_t i = 0; i < events; i += BATCH) {
        for (unsigned j = 0; j < BATCH; j++) {
            key[j] = key_of(number(i + j));
            content[j] = key[j].lo;
        }
        start = clock_monotonic_ns();
        while ((r = dedupe_ready(d, BATCH)) == -EAGAIN)
            sched_yield();
        assert(r == 0);
        r = dedupe_admit(d, key, sizeof key[0], content, BATCH, *index + 1, verdict, first);
        spent += clock_monotonic_ns() - start;
        assert(r >= 0);
        for (unsigned j = 0; j < BATCH; j++)
            assert(verdict[j] == expect);
        *index += r > 0;
        dedupe_commit(d, *index);
    }
    return (double)spent / (double)events;
}

static uint64_t in_order(uint64_t i) { return i; }
static uint64_t at_random(uint64_t i) { return mix(i) % KEYS; }

static void settle(struct dedupe *d)
{
    uint64_t quiet = 0, before = 0;
    struct dedupe_stats s;

    while (quiet < 100) {
        (void)dedupe_ready(d, 0);
        dedupe_stats(d, &s);
        quiet = s.disk_bytes == before ? quiet + 1 : 0;
        before = s.disk_bytes;
        usleep(10 * IDLE_US);
    }
}

int main(void)
{
    char dir[256], command[300];
    const char *tmp = getenv("TMPDIR");
    struct dedupe_config c = { .dir = dir, .memory_bytes_max = MEMORY_BYTES };
    struct worker w = { 0 };
    struct dedupe_stats s;
    uint64_t covered, index = 0;
    pthread_t thread;
    double ns;

    snprintf(dir, sizeof dir, "%s/bench-dedupe-XXXXXX", tmp != NULL ? tmp : "/tmp");
    if (mkdtemp(dir) == NULL || dedupe_open(&w.d, &c, &covered) < 0 ||
        pthread_create(&thread, NULL, work, &w) != 0) {
        perror("bench_dedupe");
        return 1;
    }
    ns = admit(w.d, KEYS, in_order, &index, DEDUPE_NEW);
    printf("bench dedupe_ns_per_event %.1f ns\n", ns);
    settle(w.d);
    dedupe_stats(w.d, &s);
    printf("bench dedupe_mb_per_million %.2f MB\n",
           (double)s.memory_bytes / 1e6 / ((double)s.keys / 1e6));
    printf("bench dedupe_disk_mb_per_million %.2f MB\n",
           (double)s.disk_bytes / 1e6 / ((double)(s.keys - s.keys_in_memory) / 1e6));
    printf("bench dedupe_runs %llu runs\n", (unsigned long long)s.runs);
    ns = admit(w.d, DUPLICATES, at_random, &index, DEDUPE_DUPLICATE);
    printf("bench dedupe_ns_per_event_duplicate %.1f ns\n", ns);
    atomic_store(&w.stop, true);
    pthread_join(thread, NULL);
    dedupe_close(w.d);
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command) == 0 ? 0 : 1;
}
