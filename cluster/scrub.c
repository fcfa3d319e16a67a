/*
 * scrub.c - the thread that looks for rot: one pass after the other over all segments but the last,
 * with every check that a start makes, at a bounded rate and the lowest priority, reading past the
 * page cache.
 *
 * What it finds is looked at twice, since a segment may just have been removed, and then told to
 * the cluster thread, which has it mended (repair.c) or at least says so.
 */
#include "cluster/scrub.h"

#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/report.h"
#include "cluster/internal.h"

#define SCRUB_NICE     19
#define SCRUB_BUSY_NS  (100 * NS_PER_MS) /* another one is being mended */
#define SCRUB_AGAIN_NS (1 * NS_PER_S)    /* what was asked for is not looked at more often */

/* linux/ioprio.h: the whole header is for the kernel's side. */
#define IOPRIO_WHO_PROCESS 1
#define IOPRIO_IDLE        (3 << 13)

struct scrub {
    struct cluster *c;
    struct disk *disk;
    uint64_t bytes_per_s, pause_ns, segment_bytes;
    uint64_t due_ns; /* when what was read is paid for */
    pthread_t thread;
    pthread_mutex_t lock;
    pthread_cond_t changed;
    bool stop;
};

/* Returns false when the thread is to end. */
static bool sleep_until(struct scrub *s, uint64_t ns)
{
    const struct timespec at = { (time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S) };
    bool go_on;
    int e = 0;

    pthread_mutex_lock(&s->lock);
    while (!s->stop && e == 0)
        e = pthread_cond_timedwait(&s->changed, &s->lock, &at);
    go_on = !s->stop;
    pthread_mutex_unlock(&s->lock);
    assert(e == 0 || e == ETIMEDOUT);
    return go_on;
}

/* So many bytes were read. */
static bool pace(void *arg, uint64_t bytes)
{
    struct scrub *s = arg;
    uint64_t now = clock_monotonic_ns();

    if (s->due_ns < now)
        s->due_ns = now;
    s->due_ns += (uint64_t)((double)bytes * (double)NS_PER_S / (double)s->bytes_per_s);
    return sleep_until(s, s->due_ns);
}

struct found {
    struct cluster *c;
    const struct log_damage *damage;
    int result;
};

static void found_run(void *arg)
{
    struct found *f = arg;

    f->result = f->c->log != NULL ? repair_segment(f->c, f->damage) : -EAGAIN;
}

/* Returns false when it has to be looked at again, as another one is being mended; or perhaps this
 * one. */
static bool tell(struct scrub *s, const struct log_damage *damage)
{
    struct found f = { s->c, damage, 0 };

    assert(damage->first > 0 && !damage->last);
    return cluster_call(s->c, found_run, &f) < 0 || f.result != -EBUSY;
}

/* The segment of record index. Returns where to go on, 0: there is none behind it. */
static uint64_t look(struct scrub *s, uint64_t index, bool *ret_go_on)
{
    static struct report_limit limit;
    struct log_damage damage;
    uint64_t next = 0;
    int e = log_check_segment(s->disk, index, s->segment_bytes, pace, s, &damage, &next);

    if (e == -EILSEQ)
        e = log_check_segment(s->disk, index, s->segment_bytes, pace, s, &damage, &next);
    if (e == -ECANCELED) {
        *ret_go_on = false;
    } else if (e == -EILSEQ && damage.first > 0 && !tell(s, &damage)) {
        *ret_go_on = sleep_until(s, clock_monotonic_ns() + SCRUB_BUSY_NS);
        return index;
    } else if (e < 0 && e != -ENOENT && e != -EILSEQ) {
        report_every(&limit, NS_PER_S, REPORT_WARN, "scrub",
                     "the segment of record %" PRIu64 " cannot be looked at: %s", index,
                     strerror(-e));
    }
    return next;
}

/* Between two passes, until something is asked for. */
static bool rest(struct scrub *s)
{
    uint64_t end = clock_monotonic_ns() + s->pause_ns, now;
    bool go_on = true;

    while (go_on && atomic_load(&s->c->scrub_wanted) == 0 && (now = clock_monotonic_ns()) < end)
        go_on = sleep_until(s, end - now > SCRUB_AGAIN_NS ? now + SCRUB_AGAIN_NS : end);
    return go_on;
}

static void *scrub_main(void *arg)
{
    struct scrub *s = arg;
    uint64_t next = 1, wanted;
    bool go_on = true;

    pthread_setname_np(pthread_self(), "sluice-scrub");
    /* It is as well without. */
    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), SCRUB_NICE);
    (void)syscall(SYS_ioprio_set, IOPRIO_WHO_PROCESS, gettid(), IOPRIO_IDLE);
    while (go_on) {
        wanted = atomic_exchange(&s->c->scrub_wanted, 0);
        if (wanted != 0) {
            (void)look(s, wanted, &go_on);
            go_on = go_on && sleep_until(s, clock_monotonic_ns() + SCRUB_AGAIN_NS);
            continue;
        }
        if (next != 0)
            next = look(s, next, &go_on);
        if (next == 0 && go_on) {
            atomic_fetch_add(&s->c->scrub_passes, 1);
            next = 1;
            go_on = rest(s);
        }
    }
    return NULL;
}

int scrub_start(struct scrub **ret, struct cluster *c)
{
    struct scrub *s = calloc(1, sizeof *s);
    pthread_condattr_t attr;
    char dir[PATH_MAX];
    int n = snprintf(dir, sizeof dir, "%s/log", c->config.dir), e;

    assert(c->config.scrub_bytes_per_s > 0);
    if (s == NULL || n <= 0 || n >= (int)sizeof dir) {
        free(s);
        return s == NULL ? -ENOMEM : -ENAMETOOLONG;
    }
    s->c = c;
    s->bytes_per_s = c->config.scrub_bytes_per_s;
    s->pause_ns = c->config.scrub_pause_ms * NS_PER_MS;
    s->segment_bytes = c->config.log.segment_bytes;
    pthread_mutex_init(&s->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&s->changed, &attr);
    pthread_condattr_destroy(&attr);
    e = disk_uring_open_shared(&s->disk, dir);
    if (e == 0) {
        e = -pthread_create(&s->thread, NULL, scrub_main, s);
        if (e < 0)
            s->disk->ops->fini(s->disk);
    }
    if (e < 0) {
        pthread_mutex_destroy(&s->lock);
        pthread_cond_destroy(&s->changed);
        free(s);
        return e;
    }
    *ret = s;
    return 0;
}

void scrub_stop(struct scrub *s)
{
    if (s == NULL)
        return;
    assert(s->disk != NULL);
    pthread_mutex_lock(&s->lock);
    s->stop = true;
    pthread_cond_broadcast(&s->changed);
    pthread_mutex_unlock(&s->lock);
    pthread_join(s->thread, NULL);
    s->disk->ops->fini(s->disk);
    pthread_mutex_destroy(&s->lock);
    pthread_cond_destroy(&s->changed);
    free(s);
}
