/*
 * bench_node.c - a whole daemon over TCP on loopback: events made durable per second, and how long
 * a receipt takes at a steady rate. The sender shares the machine with the daemon.
 *
 * Events are trades of 128 bytes with ids of their own (dedupe, hash chain and checksums at work),
 * serialized beforehand: only the id is written anew each time. Every receipt must say that all of
 * its batch was accepted, or the bench fails.
 *
 *   rate      LANES connections, as many batches in flight as the daemon takes; from the first send
 *             to the last receipt. Then the daemon is killed and started on that log, and the log
 *             is verified and measured.
 *   latency   one connection, a batch every 1/LATENCY_BATCHES_PER_S s whatever the daemon does;
 * from when a batch was due to its receipt.
 *
 * SLUICE_BENCH_NODE_EVENTS, _LANES and _BATCH change the first; SLUICE_BENCH_NODE_ONLY=rate or
 * latency leaves the other one out.
 */
#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/frame.h"
#include "cluster/log.h"
#include "tests/lib/daemon.h"
#include "tests/lib/sample.h"

#define EVENT_BYTES           128u
#define EVENTS                6000000u
#define LANES                 4u
#define LANES_MAX             16u
#define BATCH_EVENTS          200u
#define WINDOW                64u    /* batches in flight on a connection at most */
#define SEND_BYTES_MAX        262144 /* in one call */
#define REQUEST_FIRST         128u   /* with WINDOW more of them, all varints have two bytes */
#define RECEIVE_BYTES         65536u
#define SILENT_MS_MAX         20000
#define LATENCY_BATCH         10u
#define LATENCY_BATCHES_PER_S 2000u
#define LATENCY_S             10u
#define IDLE_S                2u

_Static_assert(REQUEST_FIRST + WINDOW < 16384, "a request's varint has two bytes");

/* A connection, and a circle of WINDOW frames that all have the same size. */
struct lane {
    int fd;
    uint32_t batch;
    uint8_t *frames;
    size_t frame_bytes;
    size_t id_at, event_stride; /* the first event's id in a frame; from one event to the next */
    uint64_t sent, answered, wanted; /* frames */
    size_t part;                     /* bytes of frame `sent` that are sent */
    uint64_t due_ns[WINDOW];
    size_t in_bytes;
    uint8_t in[RECEIVE_BYTES];
};

static struct daemon sluiced;
static uint64_t next_id = 1; /* of all lanes */

__attribute__((noreturn)) static void fail(const char *what)
{
    fprintf(stderr, "bench_node: %s\n", what);
    exit(1);
}

static uint64_t env_number(const char *name, uint64_t otherwise)
{
    const char *text = getenv(name);

    return text != NULL ? strtoull(text, NULL, 10) : otherwise;
}

static bool is_left_out(const char *part)
{
    const char *only = getenv("SLUICE_BENCH_NODE_ONLY");

    return only != NULL && strcmp(only, part) != 0;
}

/* --- frames ----------------------------------------------------------------------------------- */

/* One frame at buf; its bytes. */
static size_t frame_make(struct lane *l, uint8_t *buf, size_t room, uint32_t slot)
{
    struct frame_batch head = { .request = REQUEST_FIRST + slot };
    uint8_t event[EVENT_BYTES];
    ssize_t n, event_head = frame_put_event_head(buf, room, EVENT_BYTES);
    size_t at;

    assert(event_head > 0);
    l->event_stride = (size_t)event_head + EVENT_BYTES;
    head.batch_bytes = (uint32_t)(l->batch * l->event_stride);
    n = frame_put_batch_head(buf, room, &head);
    assert(n > 0);
    at = (size_t)n;
    for (uint32_t i = 0; i < l->batch; i++) {
        struct sample s = { .type = 1, .n = i, .time_ns = clock_unix_ns(), .bytes_exact = 128 };
        char id[32];
        uint8_t *found;

        sample_event(event, sizeof event, &s);
        snprintf(id, sizeof id, "1-%012u", i);
        found = memmem(event, sizeof event, id, strlen(id));
        assert(found != NULL && at + l->event_stride <= room);
        frame_put_event_head(buf + at, room - at, EVENT_BYTES);
        memcpy(buf + at + event_head, event, EVENT_BYTES);
        if (i == 0)
            l->id_at = at + (size_t)event_head + (size_t)(found - event);
        assert(l->id_at + i * l->event_stride == at + (size_t)event_head + (size_t)(found - event));
        at += l->event_stride;
    }
    return at;
}

static void lane_open(struct lane *l, uint32_t batch)
{
    const size_t room = FRAME_BATCH_HEAD_MAX + batch * (FRAME_EVENT_HEAD_MAX + EVENT_BYTES);
    sluice_v1_Hello hello = { .protocol = 1, .producer = "bench" };
    uint8_t *frame = malloc(room), buf[256];
    ssize_t n = frame_put_hello(buf, sizeof buf, &hello);

    *l = (struct lane){ .batch = batch };
    for (uint32_t i = 0; i < WINDOW; i++) {
        assert(frame != NULL);
        l->frame_bytes = frame_make(l, frame, room, i);
        if (i == 0)
            l->frames = malloc(WINDOW * l->frame_bytes);
        assert(l->frames != NULL);
        memcpy(l->frames + i * l->frame_bytes, frame, l->frame_bytes);
    }
    free(frame);
    l->fd = daemon_dial(&sluiced);
    if (send(l->fd, buf, (size_t)n, MSG_NOSIGNAL) != n)
        fail("hello: not sent");
}

static void lane_close(struct lane *l)
{
    close(l->fd);
    free(l->frames);
    free(l);
}

/* New ids for the frame that is sent next. */
static void frame_renew(struct lane *l)
{
    uint8_t *id = l->frames + (l->sent % WINDOW) * l->frame_bytes + l->id_at;

    for (uint32_t i = 0; i < l->batch; i++, next_id++, id += l->event_stride)
        memcpy(id, &next_id, sizeof next_id);
}

/* --- sending and receiving -------------------------------------------------------------------- */

/* Frames that lie behind one another from the one that is sent next, up to limit; all of them with
 * new ids but a first one that is partly out. */
static size_t frames_ready(struct lane *l, uint64_t limit)
{
    uint64_t was = l->sent, end = l->sent + (WINDOW - l->sent % WINDOW);

    end = end < limit ? end : limit;
    for (l->sent += l->part > 0; l->sent < end; l->sent++)
        frame_renew(l);
    l->sent = was;
    return (size_t)(end - was);
}

/* Sends what the window and limit admit, or part of it. False when the socket is full. */
static bool lane_send(struct lane *l, uint64_t limit)
{
    size_t at = (l->sent % WINDOW) * l->frame_bytes, most = SEND_BYTES_MAX / l->frame_bytes, n;
    ssize_t r;

    if (limit > l->answered + WINDOW)
        limit = l->answered + WINDOW;
    if (limit > l->sent + most + 1)
        limit = l->sent + most + 1;
    while (l->sent < limit) {
        n = frames_ready(l, limit) * l->frame_bytes - l->part;
        at = (l->sent % WINDOW) * l->frame_bytes + l->part;
        r = 0;
        /* Until it is all out: the ids are in place. */
        while (n > 0 && r >= 0) {
            r = send(l->fd, l->frames + at, n, MSG_NOSIGNAL | MSG_DONTWAIT);
            if (r < 0 && errno != EAGAIN)
                fail("the connection broke");
            if (r > 0) {
                at += (size_t)r;
                n -= (size_t)r;
                l->part += (size_t)r;
            }
        }
        l->sent += l->part / l->frame_bytes;
        l->part %= l->frame_bytes;
        if (n > 0)
            return false;
    }
    return true;
}

__attribute__((noreturn)) static void fail_receipt(const struct receipt *r)
{
    struct receipt_exception x = { 0 };
    size_t at = 0;

    (void)receipt_next_exception(r, &at, &x);
    fprintf(stderr,
            "bench_node: %u events accepted, %u duplicates, %u refused; the first for reason %u\n",
            r->accepted, r->duplicates, r->refused, x.reason);
    exit(1);
}

static void lane_take(struct lane *l, const struct frame *f, uint64_t *latency_ns, uint64_t now_ns)
{
    struct receipt r;

    if (f->kind == SERVER_WELCOME)
        return;
    if (f->kind != SERVER_RECEIPT || frame_get_receipt(&r, f->body, f->body_bytes) < 0)
        fail("an error, or not a receipt");
    if (r.request != REQUEST_FIRST + l->answered % WINDOW)
        fail("a receipt out of order");
    if (r.accepted != l->batch || r.exceptions != 0 || r.index == 0)
        fail_receipt(&r);
    if (latency_ns != NULL)
        latency_ns[l->answered] = now_ns - l->due_ns[l->answered % WINDOW];
    l->answered++;
}

static void lane_receive(struct lane *l, uint64_t *latency_ns)
{
    ssize_t n = recv(l->fd, l->in + l->in_bytes, sizeof l->in - l->in_bytes, MSG_DONTWAIT);
    uint64_t now_ns = clock_monotonic_ns();
    size_t at = 0;
    struct frame f;

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        fail("the daemon hung up");
    l->in_bytes += (size_t)n;
    while (frame_parse_server(&f, l->in + at, l->in_bytes - at, RECEIVE_BYTES) == 0) {
        lane_take(l, &f, latency_ns, now_ns);
        at += f.frame_bytes;
    }
    memmove(l->in, l->in + at, l->in_bytes - at);
    l->in_bytes -= at;
}

/* --- rate ------------------------------------------------------------------------------------- */

static bool lanes_turn(struct lane *lane[], uint64_t lanes)
{
    struct pollfd p[LANES_MAX];
    bool more = false;

    for (uint64_t i = 0; i < lanes; i++) {
        bool full = !lane_send(lane[i], lane[i]->wanted);

        p[i] = (struct pollfd){ .fd = lane[i]->fd, .events = POLLIN };
        if (full)
            p[i].events |= POLLOUT;
        more |= lane[i]->answered < lane[i]->wanted;
    }
    if (!more)
        return false;
    if (poll(p, lanes, SILENT_MS_MAX) == 0)
        fail("no receipt for too long");
    for (uint64_t i = 0; i < lanes; i++) {
        if (p[i].revents & (POLLIN | POLLHUP | POLLERR))
            lane_receive(lane[i], NULL);
    }
    return true;
}

static uint64_t own_cpu_ns(void) { return clock_read(CLOCK_PROCESS_CPUTIME_ID); }

/* Returns the events sent. */
static uint64_t measure_rate(void)
{
    uint64_t lanes = env_number("SLUICE_BENCH_NODE_LANES", LANES), start, spent, cpu, own;
    uint64_t batch = env_number("SLUICE_BENCH_NODE_BATCH", BATCH_EVENTS), per_lane, events;
    struct lane *lane[LANES_MAX];

    if (lanes == 0 || lanes > LANES_MAX || batch == 0 || batch > 480)
        fail("SLUICE_BENCH_NODE_LANES: 1 to 16; SLUICE_BENCH_NODE_BATCH: 1 to 480");
    per_lane = env_number("SLUICE_BENCH_NODE_EVENTS", EVENTS) / batch / lanes;
    events = per_lane * lanes * batch;
    for (uint64_t i = 0; i < lanes; i++) {
        lane[i] = malloc(sizeof *lane[i]);
        assert(lane[i] != NULL);
        lane_open(lane[i], (uint32_t)batch);
        lane[i]->wanted = per_lane;
    }
    cpu = daemon_cpu_ns(&sluiced);
    own = own_cpu_ns();
    start = clock_monotonic_ns();
    while (lanes_turn(lane, lanes)) {
    }
    spent = clock_monotonic_ns() - start;
    cpu = daemon_cpu_ns(&sluiced) - cpu;
    own = own_cpu_ns() - own;
    for (uint64_t i = 0; i < lanes; i++)
        lane_close(lane[i]);
    printf("bench log_events_per_s_durable %.0f events/s\n", (double)events * 1e9 / (double)spent);
    printf("bench node_cpu_ns_per_event %.0f ns\n", (double)cpu / (double)events);
    fprintf(stderr,
            "# %llu events in batches of %llu on %llu connections in %.2f s; processor time an "
            "event: daemon %.0f ns, this sender %.0f ns\n",
            (unsigned long long)events, (unsigned long long)batch, (unsigned long long)lanes,
            (double)spent / 1e9, (double)cpu / (double)events, (double)own / (double)events);
    daemon_print_threads(&sluiced);
    return events;
}

/* --- the log that is left --------------------------------------------------------------------- */

static void on_problem(void *arg, const char *sentence)
{
    (void)arg;
    fprintf(stderr, "bench_node: %s\n", sentence);
}

/* Bytes that the log's records take on disk. */
static uint64_t records_bytes(const char *dir, const struct log_verify_report *report)
{
    void *buf = aligned_alloc(LOG_ALIGN, LOG_RECORD_BYTES_MAX);
    uint64_t sum = 0;
    struct log_reader *reader;
    struct log_record r;
    const void *payload;

    if (buf == NULL || log_reader_open(&reader, dir) < 0)
        fail("the log cannot be read");
    log_reader_bound(reader, report->last_index);
    for (uint64_t i = report->first_index; i <= report->last_index; i++) {
        if (log_reader_get(reader, i, buf, LOG_RECORD_BYTES_MAX, &r, &payload) < 0)
            fail("a record cannot be read");
        sum += (LOG_HEADER_BYTES + r.payload_bytes + LOG_ALIGN - 1) / LOG_ALIGN * LOG_ALIGN;
    }
    log_reader_close(reader);
    free(buf);
    return sum;
}

static void measure_log(uint64_t events)
{
    struct log_verify_report report;
    sluice_v1_StatusResponse status;
    uint64_t start, spent, bytes;
    char dir[320];

    daemon_status(&sluiced, &status);
    printf("bench rss_mb %.1f MB\n", (double)status.rss_bytes / 1e6);
    daemon_kill(&sluiced);
    start = clock_monotonic_ns();
    daemon_start(&sluiced);
    spent = clock_monotonic_ns() - start;
    daemon_status(&sluiced, &status);
    if (status.events != events)
        fail("the log holds another number of events than were receipted");
    daemon_kill(&sluiced);
    snprintf(dir, sizeof dir, "%s/log", sluiced.data);
    if (log_verify(dir, on_problem, NULL, &report) < 0 || report.events != events)
        fail("the log is not what it should be");
    bytes = records_bytes(dir, &report);
    printf("bench start_s_per_gb %.3f s\n", (double)spent / 1e9 / ((double)bytes / 1e9));
    printf("bench log_bytes_per_payload_byte %.4f ratio\n",
           (double)bytes / (double)(events * EVENT_BYTES));
    fprintf(stderr, "# %.2f GB of log in %llu records of %.0f events; started on it in %.3f s\n",
            (double)bytes / 1e9, (unsigned long long)report.records,
            (double)events / (double)report.records, (double)spent / 1e9);
}

/* --- latency ---------------------------------------------------------------------------------- */

/* Sleeps until at_ns or a receipt. */
static void lane_wait(struct lane *l, uint64_t at_ns)
{
    struct pollfd p = { .fd = l->fd, .events = POLLIN };
    uint64_t now = clock_monotonic_ns(), ns = at_ns > now ? at_ns - now : 0;
    struct timespec t = { .tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S) };

    if (ppoll(&p, 1, &t, NULL) > 0)
        return;
    if (l->sent == l->wanted && l->answered < l->wanted)
        fail("no receipt for too long");
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

static void measure_latency(void)
{
    const uint64_t batches = LATENCY_S * LATENCY_BATCHES_PER_S, warm = LATENCY_BATCHES_PER_S / 2;
    const uint64_t step_ns = NS_PER_S / LATENCY_BATCHES_PER_S;
    uint64_t *ns = malloc((warm + batches) * sizeof *ns), start, released = 0, due;
    struct lane *l = malloc(sizeof *l);

    assert(ns != NULL && l != NULL);
    lane_open(l, LATENCY_BATCH);
    l->wanted = warm + batches;
    (void)prctl(PR_SET_TIMERSLACK, 1ul);
    start = clock_monotonic_ns() + NS_PER_MS;
    while (l->answered < l->wanted) {
        due = start + released * step_ns;
        if (released < l->wanted && released < l->answered + WINDOW &&
            clock_monotonic_ns() >= due) {
            l->due_ns[released++ % WINDOW] = due;
            continue;
        }
        (void)lane_send(l, released);
        if (released == l->wanted || released == l->answered + WINDOW)
            due = clock_monotonic_ns() + SILENT_MS_MAX * NS_PER_MS;
        lane_wait(l, due);
        lane_receive(l, ns);
    }
    lane_close(l);
    qsort(ns + warm, batches, sizeof *ns, compare);
    printf("bench receipt_latency_rate %u events/s\n", LATENCY_BATCHES_PER_S * LATENCY_BATCH);
    printf("bench receipt_latency_us_p50 %.0f us\n", (double)ns[warm + batches / 2] / 1e3);
    printf("bench receipt_latency_us_p99 %.0f us\n", (double)ns[warm + batches * 99 / 100] / 1e3);
    printf("bench receipt_latency_us_p99.9 %.0f us\n",
           (double)ns[warm + batches * 999 / 1000] / 1e3);
    fprintf(stderr,
            "# latency: %u batches of %u events a second for %u s, from when due; worst %.0f us\n",
            LATENCY_BATCHES_PER_S, LATENCY_BATCH, LATENCY_S, (double)ns[warm + batches - 1] / 1e3);
    free(ns);
}

static void measure_idle(void)
{
    struct timespec t = { .tv_sec = IDLE_S };
    uint64_t cpu = daemon_cpu_ns(&sluiced), start = clock_monotonic_ns();

    nanosleep(&t, NULL);
    printf("bench idle_cpu_percent %.2f %%\n",
           (double)(daemon_cpu_ns(&sluiced) - cpu) * 100 / (double)(clock_monotonic_ns() - start));
}

int main(void)
{
    setvbuf(stdout, NULL, _IOLBF, 0);
    daemon_close_at_exit(&sluiced);
    if (!is_left_out("rate")) {
        daemon_open(&sluiced);
        measure_log(measure_rate());
        daemon_close(&sluiced);
    }
    if (!is_left_out("latency")) {
        daemon_open(&sluiced);
        measure_latency();
        measure_idle();
        daemon_close(&sluiced);
    }
    return 0;
}
