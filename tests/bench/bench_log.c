/*
 * bench_log.c - appends to a log on the real disk in ${SLUICE_BENCH_DIR:-/tmp}, and starts from it.
 */
#include <assert.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <poll.h>
#include <unistd.h>

#include "base/clock.h"
#include "cluster/log.h"

#define WRITES 16

struct slot {
    struct log_write write;
    bool busy;
};

static struct slot slot[WRITES];
static const struct log_origin origin = { .index = 0 };
static const struct log_config config = { .segment_bytes = 64u << 20,
                                          .writes_max = WRITES,
                                          .mark_idle_ms = 10 };

static void on_done(struct log_write *w) { ((struct slot *)w->owner)->busy = false; }

static int on_replay(void *arg, const struct log_record *record, const void *payload)
{
    *(uint64_t *)arg += LOG_HEADER_BYTES + record->payload_bytes;
    return 0;
}

static void must(int r, const char *what)
{
    if (r >= 0)
        return;
    fprintf(stderr, "bench_log: %s: %s\n", what, strerror(-r));
    exit(1);
}

static struct log *open_log(struct disk **d, const char *dir, uint64_t *replayed)
{
    char error[LOG_ERROR_BYTES];
    struct log *l;

    *replayed = 0;
    must(disk_uring_open(d, dir, WRITES + 2), "disk");
    must(log_open(&l, *d, &config, &origin, on_replay, replayed, error), error);
    return l;
}

/* Work until something happened. */
static void work(struct log *l, struct disk *d)
{
    struct pollfd p = { .fd = d->ops->event_fd(d), .events = POLLIN };
    int n = log_do_work(l, clock_monotonic_ns());

    must(n, "log_do_work");
    if (n == 0)
        poll(&p, 1, 1);
}

/* Returns MB/s over `total` bytes of records of record_bytes each. */
static double append(struct log *l, struct disk *d, uint32_t record_bytes, uint64_t total)
{
    const uint32_t payload = record_bytes - LOG_HEADER_BYTES;
    uint64_t start, n = total / record_bytes, wanted;
    double seconds;

    while (log_reserve(l, payload) != 0)
        work(l, d);
    start = clock_monotonic_ns();
    wanted = log_last_index(l) + n;
    while (log_persisted_index(l) < wanted) {
        for (int i = 0; i < WRITES && log_last_index(l) < wanted; i++) {
            struct slot *s = &slot[i];

            if (s->busy || log_reserve(l, payload) != 0)
                continue;
            s->write.record = (struct log_record){ .index = log_last_index(l) + 1,
                                                   .term = 1,
                                                   .time_ns = 1,
                                                   .type = LOG_EVENTS,
                                                   .payload_bytes = payload };
            log_write_seal(&s->write);
            s->busy = true;
            must(log_append(l, &s->write), "log_append");
        }
        work(l, d);
    }
    seconds = (double)(clock_monotonic_ns() - start) / 1e9;
    return (double)(n * record_bytes) / 1e6 / seconds;
}

static void remove_dir(const char *dir)
{
    char path[1024];
    struct dirent *e;
    DIR *d = opendir(dir);

    while (d != NULL && (e = readdir(d)) != NULL) {
        snprintf(path, sizeof path, "%s/%s", dir, e->d_name);
        unlink(path);
    }
    if (d != NULL)
        closedir(d);
    rmdir(dir);
}

int main(void)
{
    const char *base = getenv("SLUICE_BENCH_DIR");
    uint64_t replayed, start;
    char dir[512];
    struct disk *d;
    struct log *l;

    snprintf(dir, sizeof dir, "%s/sluice-bench-XXXXXX", base ? base : "/tmp");
    if (mkdtemp(dir) == NULL) {
        perror(dir);
        return 1;
    }
    for (int i = 0; i < WRITES; i++) {
        slot[i].write.buf = aligned_alloc(LOG_ALIGN, LOG_RECORD_BYTES_MAX);
        assert(slot[i].write.buf != NULL);
        memset(slot[i].write.buf, i + 1, LOG_RECORD_BYTES_MAX);
        slot[i].write.done = on_done;
        slot[i].write.owner = &slot[i];
    }
    l = open_log(&d, dir, &replayed);
    printf("bench log_append_mb_per_s %.1f MB/s\n", append(l, d, 256u << 10, 320u << 20));
    printf("bench log_append_mb_per_s_4k %.1f MB/s\n", append(l, d, 4096, 16u << 20));
    log_close(l);
    d->ops->fini(d);
    start = clock_monotonic_ns();
    l = open_log(&d, dir, &replayed);
    assert(replayed >= 256u << 20);
    printf("bench log_open_s_per_gb %.3f s\n",
           (double)(clock_monotonic_ns() - start) / 1e9 / ((double)replayed / 1e9));
    log_close(l);
    d->ops->fini(d);
    for (int i = 0; i < WRITES; i++)
        free(slot[i].write.buf);
    remove_dir(dir);
    return 0;
}
