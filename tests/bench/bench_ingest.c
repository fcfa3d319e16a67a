/*
 * bench_ingest.c - one worker from its sockets to sealed blocks; the cluster behind it accepts
 * everything at once and drops it. Sender and worker share the machine.
 */
#include <errno.h>
#include <netinet/udp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/lib/ingest_rig.h"

#define BATCH_EVENTS   100u
#define SEGMENTS       4u /* datagrams in one send */
#define SECONDS        3u
#define WINDOW_BATCHES 64u
#define EVENT_BYTES    128u

#ifndef UDP_SEGMENT
#define UDP_SEGMENT 103
#endif

struct sender {
    struct rig *rig;
    _Atomic bool stop;
    uint64_t sent;
    pthread_t thread;
    uint8_t buf[1 << 20];
    size_t bytes; /* of one batch */
};

/* A batch whose events have EVENT_BYTES bytes each. */
static size_t batch_make(uint8_t *buf, uint32_t n)
{
    static uint8_t event[512];
    size_t at = 0;

    for (uint32_t i = 0; i < n; i++) {
        size_t bytes = rig_event(event, sizeof event, 1, 1, 1 + i), pad = EVENT_BYTES - bytes;

        assert_true(bytes + 2 <= EVENT_BYTES && pad >= 3 && pad < 128);
        /* Filled up with a field that nobody knows (number 20), as a newer producer might. */
        event[bytes] = 0xa2;
        event[bytes + 1] = 0x01;
        event[bytes + 2] = (uint8_t)(pad - 3);
        memset(event + bytes + 3, 'x', pad - 3);
        buf[at++] = 0x0a;
        buf[at++] = (uint8_t)(EVENT_BYTES | 0x80);
        buf[at++] = EVENT_BYTES >> 7;
        memcpy(buf + at, event, EVENT_BYTES);
        at += EVENT_BYTES;
    }
    return at;
}

static void *udp_send(void *arg)
{
    struct sender *s = arg;
    int fd = rig_udp(s->rig, false), segment;

    s->bytes = batch_make(s->buf, BATCH_EVENTS);
    for (unsigned i = 1; i < SEGMENTS; i++)
        memcpy(s->buf + i * s->bytes, s->buf, s->bytes);
    segment = (int)s->bytes;
    (void)setsockopt(fd, IPPROTO_UDP, UDP_SEGMENT, &segment, sizeof segment);
    while (!atomic_load_explicit(&s->stop, memory_order_relaxed)) {
        if (send(fd, s->buf, SEGMENTS * s->bytes, 0) < 0 && errno != ENOBUFS && errno != EAGAIN) {
            perror("send");
            exit(1);
        }
        s->sent += SEGMENTS * BATCH_EVENTS;
    }
    close(fd);
    return NULL;
}

static void *tcp_receipts(void *arg)
{
    int fd = *(int *)arg;
    uint8_t buf[65536];

    while (recv(fd, buf, sizeof buf, 0) > 0) {
    }
    return NULL;
}

static void *tcp_send(void *arg)
{
    struct sender *s = arg;
    int fd = rig_tcp(s->rig, false);
    static uint8_t batch[1 << 16];
    size_t bytes = batch_make(batch, BATCH_EVENTS);
    pthread_t reader;

    bytes = rig_batch_frame(s->buf + 64, sizeof s->buf - 64, 7, batch, bytes);
    for (unsigned i = 1; i < SEGMENTS; i++)
        memcpy(s->buf + 64 + i * bytes, s->buf + 64, bytes);
    rig_send(fd, s->buf, rig_hello(s->buf, 1, NULL));
    pthread_create(&reader, NULL, tcp_receipts, &fd);
    while (!atomic_load_explicit(&s->stop, memory_order_relaxed)) {
        rig_send(fd, s->buf + 64, SEGMENTS * bytes);
        s->sent += SEGMENTS * BATCH_EVENTS;
    }
    shutdown(fd, SHUT_WR);
    pthread_join(reader, NULL);
    close(fd);
    return NULL;
}

static void bench(const char *name, void *(*send_all)(void *))
{
    static struct rig the_rig; /* aligned as its rings want */
    struct rig *r = &the_rig;
    struct sender *s = calloc(1, sizeof *s);
    uint64_t start, end, from, to;
    struct timespec t = { .tv_nsec = 300000000 };

    rig_init(r);
    r->config.ingest.udp.buffers = 4096;
    r->config.pipeline.blocks = 64;
    rig_open(r);
    rig_start(r);
    s->rig = r;
    pthread_create(&s->thread, NULL, send_all, s);
    nanosleep(&t, NULL); /* warm */
    start = clock_monotonic_ns();
    from = rig_snapshot(r)->committed[1];
    t = (struct timespec){ .tv_sec = SECONDS };
    nanosleep(&t, NULL);
    to = rig_snapshot(r)->committed[1];
    end = clock_monotonic_ns();
    atomic_store(&s->stop, true);
    pthread_join(s->thread, NULL);
    if (getenv("BENCH_VERBOSE")) {
        const struct ledger *l = rig_snapshot(r);

        rig_print(l);
        printf("sent %ju, %.0f events a block, largest %u; ns an event: decode %.0f validate %.0f "
               "enrich %.0f batch %.0f\n",
               (uintmax_t)s->sent, (double)r->cluster.events / (double)r->cluster.blocks,
               r->cluster.events_max, (double)l->stage_ns[0] / (double)l->stage_events[0],
               (double)l->stage_ns[1] / (double)l->stage_events[1],
               (double)l->stage_ns[2] / (double)l->stage_events[2],
               (double)l->stage_ns[3] / (double)l->stage_events[3]);
    }
    rig_close(r);
    printf("bench %s %.0f events/s\n", name, (double)(to - from) * 1e9 / (double)(end - start));
    fflush(stdout);
    free(s);
}

int main(void)
{
    bench("ingest_events_per_s_socket", udp_send);
    bench("ingest_events_per_s_tcp", tcp_send);
    return 0;
}
