/*
 * lane.c - see lane.h.
 */
#include "tests/lib/lane.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/frame.h"
#include "tests/lib/sample.h"

#define SEND_BYTES_MAX 262144 /* in one call */
#define REQUEST_FIRST  128u   /* with the window more of them, all varints have two bytes */
#define SILENT_MS_MAX  20000
#define REDIAL_NS      (2 * NS_PER_MS)
#define SILENT_NS_MAX  (2 * NS_PER_S) /* of a lane that may go elsewhere */

_Static_assert(REQUEST_FIRST + LANE_WINDOW_MAX < 16384, "a request's varint has two bytes");

static uint64_t next_id = 1; /* of all lanes */

__attribute__((noreturn)) static void fail(const char *what)
{
    fprintf(stderr, "bench: %s\n", what);
    exit(1);
}

/* --- frames ----------------------------------------------------------------------------------- */

/* One frame at buf; its bytes. */
static size_t frame_make(struct lane *l, uint8_t *buf, size_t room, uint32_t slot)
{
    const uint32_t bytes = l->kind.event_bytes;
    struct frame_batch head = { .request = REQUEST_FIRST + slot };
    uint8_t *event = malloc(SAMPLE_BYTES_MAX);
    ssize_t n, event_head = frame_put_event_head(buf, room, bytes);
    size_t at;

    assert(event != NULL && event_head > 0);
    l->event_stride = (size_t)event_head + bytes;
    head.batch_bytes = (uint32_t)(l->kind.batch * l->event_stride);
    n = frame_put_batch_head(buf, room, &head);
    assert(n > 0);
    at = (size_t)n;
    for (uint32_t i = 0; i < l->kind.batch; i++) {
        const unsigned type = l->kind.custom ? SAMPLE_CUSTOM : 1;
        struct sample s = {
            .type = type, .n = i, .time_ns = clock_unix_ns(), .bytes_exact = bytes
        };
        char id[32];
        uint8_t *found;

        sample_event(event, SAMPLE_BYTES_MAX, &s);
        snprintf(id, sizeof id, "%u-%012u", type, i);
        found = memmem(event, bytes, id, strlen(id));
        assert(found != NULL && at + l->event_stride <= room);
        frame_put_event_head(buf + at, room - at, bytes);
        memcpy(buf + at + event_head, event, bytes);
        if (i == 0)
            l->id_at = at + (size_t)event_head + (size_t)(found - event);
        assert(l->id_at + i * l->event_stride == at + (size_t)event_head + (size_t)(found - event));
        at += l->event_stride;
    }
    free(event);
    return at;
}

static void frames_make(struct lane *l)
{
    const size_t room =
        FRAME_BATCH_HEAD_MAX + l->kind.batch * (FRAME_EVENT_HEAD_MAX + (size_t)l->kind.event_bytes);
    uint8_t *frame = malloc(room);

    for (uint32_t i = 0; i < l->kind.window; i++) {
        assert(frame != NULL);
        l->frame_bytes = frame_make(l, frame, room, i);
        if (i == 0)
            l->frames = malloc(l->kind.window * l->frame_bytes);
        assert(l->frames != NULL);
        memcpy(l->frames + i * l->frame_bytes, frame, l->frame_bytes);
    }
    free(frame);
}

/* New ids for the next frame that has none. */
static void frame_renew(struct lane *l)
{
    uint8_t *id = l->frames + (l->renewed % l->kind.window) * l->frame_bytes + l->id_at;

    for (uint32_t i = 0; i < l->kind.batch; i++, next_id++, id += l->event_stride)
        memcpy(id, &next_id, sizeof next_id);
    l->renewed++;
}

/* --- connections ------------------------------------------------------------------------------ */

/* Says hello on l->fd. What was not answered is sent again. */
static bool lane_greet(struct lane *l)
{
    sluice_v1_Hello hello = { .protocol = 1, .producer = "bench" };
    uint8_t buf[256];
    ssize_t n = frame_put_hello(buf, sizeof buf, &hello);

    l->sent = l->answered;
    l->part = l->in_bytes = 0;
    l->silent_ns = clock_monotonic_ns();
    l->connects++;
    return send(l->fd, buf, (size_t)n, MSG_NOSIGNAL) == n;
}

/* The connection is no good. */
static void lane_lost(struct lane *l, const char *why)
{
    if (!l->reconnects)
        fail(why);
    close(l->fd);
    l->fd = -1;
    l->at = (l->at + 1) % l->tos;
    l->redial_ns = clock_monotonic_ns() + REDIAL_NS;
}

static void lane_redial(struct lane *l)
{
    if (l->fd >= 0 || clock_monotonic_ns() < l->redial_ns)
        return;
    l->fd = daemon_try_dial(&l->to[l->at]);
    if (l->fd < 0) {
        l->at = (l->at + 1) % l->tos;
        l->redial_ns = clock_monotonic_ns() + REDIAL_NS;
    } else if (!lane_greet(l)) {
        lane_lost(l, "hello: not sent");
    }
}

struct lane *lane_open(const struct lane_kind *kind, const struct daemon *to, unsigned tos,
                       unsigned at)
{
    struct lane *l = calloc(1, sizeof *l);

    if (kind->batch == 0 || kind->window == 0 || kind->window > LANE_WINDOW_MAX)
        fail("a lane's batch or window is out of bounds");
    assert(l != NULL && at < tos);
    *l = (struct lane){ .kind = *kind, .to = to, .tos = tos, .at = at, .reconnects = tos > 1 };
    l->due_ns = calloc(kind->window, sizeof *l->due_ns);
    assert(l->due_ns != NULL);
    frames_make(l);
    l->fd = daemon_dial(&to[at]);
    if (!lane_greet(l))
        fail("hello: not sent");
    return l;
}

void lane_move(struct lane *l, unsigned at)
{
    assert(l->reconnects && at < l->tos);
    if (l->at == at && l->fd >= 0)
        return;
    if (l->fd >= 0)
        close(l->fd);
    l->fd = -1;
    l->at = at;
    l->redial_ns = 0;
}

void lane_close(struct lane *l)
{
    if (l->fd >= 0)
        close(l->fd);
    free(l->due_ns);
    free(l->frames);
    free(l);
}

/* --- sending ---------------------------------------------------------------------------------- */

/* Frames that lie behind one another from the one that is sent next, up to limit; all of them with
 * ids. */
static size_t frames_ready(struct lane *l, uint64_t limit)
{
    const uint64_t window = l->kind.window;
    uint64_t end = l->sent + (window - l->sent % window);

    end = end < limit ? end : limit;
    while (l->renewed < end)
        frame_renew(l);
    return (size_t)(end - l->sent);
}

bool lane_send(struct lane *l, uint64_t limit)
{
    size_t most = SEND_BYTES_MAX / l->frame_bytes, n, at;
    ssize_t r;

    if (limit > l->answered + l->kind.window)
        limit = l->answered + l->kind.window;
    if (limit > l->sent + most + 1)
        limit = l->sent + most + 1;
    while (l->fd >= 0 && l->sent < limit) {
        n = frames_ready(l, limit) * l->frame_bytes - l->part;
        at = (l->sent % l->kind.window) * l->frame_bytes + l->part;
        r = send(l->fd, l->frames + at, n, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (r < 0 && errno != EAGAIN) {
            lane_lost(l, "the connection broke");
            return true;
        }
        if (r > 0)
            l->part += (size_t)r;
        l->sent += l->part / l->frame_bytes;
        l->part %= l->frame_bytes;
        if (r < (ssize_t)n)
            return false;
    }
    return true;
}

/* --- receipts --------------------------------------------------------------------------------- */

__attribute__((noreturn)) static void fail_receipt(const struct receipt *r)
{
    struct receipt_exception x = { 0 };
    size_t at = 0;

    (void)receipt_next_exception(r, &at, &x);
    fprintf(stderr,
            "bench: %u events accepted, %u duplicates, %u refused; the first for reason %u\n",
            r->accepted, r->duplicates, r->refused, x.reason);
    exit(1);
}

/* False: the lane goes elsewhere. */
static bool lane_take(struct lane *l, const struct frame *f, uint64_t *latency_ns, uint64_t now_ns)
{
    struct receipt r;

    if (f->kind == SERVER_WELCOME)
        return true;
    if (f->kind != SERVER_RECEIPT || frame_get_receipt(&r, f->body, f->body_bytes) < 0) {
        lane_lost(l, "an error, or not a receipt");
        return false;
    }
    if (r.request != REQUEST_FIRST + l->answered % l->kind.window)
        fail("a receipt out of order");
    if (l->reconnects && r.refused > 0) {
        lane_lost(l, "refused");
        return false;
    }
    if (r.accepted + (l->reconnects ? r.duplicates : 0) != l->kind.batch ||
        (r.exceptions != 0 && !l->reconnects) || (r.index == 0 && r.accepted > 0))
        fail_receipt(&r);
    if (latency_ns != NULL)
        latency_ns[l->answered] = now_ns - l->due_ns[l->answered % l->kind.window];
    l->answered++;
    return true;
}

void lane_receive(struct lane *l, uint64_t *latency_ns)
{
    uint64_t now_ns;
    struct frame f;
    size_t at = 0;
    ssize_t n;

    if (l->fd < 0)
        return;
    n = recv(l->fd, l->in + l->in_bytes, sizeof l->in - l->in_bytes, MSG_DONTWAIT);
    now_ns = clock_monotonic_ns();
    if (n < 0 && errno == EAGAIN) {
        if (l->reconnects && l->sent > l->answered && now_ns - l->silent_ns > SILENT_NS_MAX)
            lane_lost(l, "no receipt for too long");
        return;
    }
    if (n <= 0) {
        lane_lost(l, "the daemon hung up");
        return;
    }
    l->silent_ns = now_ns;
    l->in_bytes += (size_t)n;
    while (frame_parse_server(&f, l->in + at, l->in_bytes - at, LANE_IN_BYTES) == 0) {
        if (!lane_take(l, &f, latency_ns, now_ns))
            return;
        at += f.frame_bytes;
    }
    memmove(l->in, l->in + at, l->in_bytes - at);
    l->in_bytes -= at;
}

/* --- all of them ------------------------------------------------------------------------------ */

bool lanes_turn(struct lane *const lane[], unsigned lanes, int timeout_ms)
{
    struct pollfd p[LANES_MAX];
    bool more = false, all = true;

    assert(lanes <= LANES_MAX);
    for (unsigned i = 0; i < lanes; i++) {
        bool full;

        lane_redial(lane[i]);
        full = !lane_send(lane[i], lane[i]->wanted);
        p[i] = (struct pollfd){ .fd = lane[i]->fd, .events = POLLIN };
        if (full)
            p[i].events |= POLLOUT;
        more |= lane[i]->answered < lane[i]->wanted;
        all &= lane[i]->fd >= 0;
    }
    if (!more)
        return false;
    if (!all && timeout_ms > 1)
        timeout_ms = 1;
    (void)poll(p, lanes, timeout_ms);
    for (unsigned i = 0; i < lanes; i++) {
        if (lane[i]->reconnects || (p[i].revents & (POLLIN | POLLHUP | POLLERR)))
            lane_receive(lane[i], NULL);
        else if (lane[i]->sent > lane[i]->answered &&
                 clock_monotonic_ns() - lane[i]->silent_ns > SILENT_MS_MAX * NS_PER_MS)
            fail("no receipt for too long");
    }
    return true;
}

static uint64_t lanes_answered(struct lane *const lane[], unsigned lanes)
{
    uint64_t events = 0;

    for (unsigned i = 0; i < lanes; i++)
        events += lane[i]->answered * lane[i]->kind.batch;
    return events;
}

uint64_t lanes_run(struct lane *const lane[], unsigned lanes, double seconds, uint64_t *ret_ns)
{
    uint64_t before = lanes_answered(lane, lanes), start = clock_monotonic_ns();
    uint64_t until = start + (uint64_t)(seconds * 1e9);

    for (unsigned i = 0; i < lanes; i++) {
        lane[i]->wanted = UINT64_MAX;
        lane[i]->silent_ns = start;
    }
    while (clock_monotonic_ns() < until)
        (void)lanes_turn(lane, lanes, 100);
    /* A frame that is out in part has to be sent. */
    for (unsigned i = 0; i < lanes; i++)
        lane[i]->wanted = lane[i]->renewed;
    while (lanes_turn(lane, lanes, 100)) {
    }
    *ret_ns = clock_monotonic_ns() - start;
    return lanes_answered(lane, lanes) - before;
}

/* --- an open loop ----------------------------------------------------------------------------- */

/* Sleeps until at_ns or a receipt. */
static void lane_wait(struct lane *l, uint64_t at_ns)
{
    struct pollfd p = { .fd = l->fd, .events = POLLIN };
    uint64_t now = clock_monotonic_ns(), ns = at_ns > now ? at_ns - now : 0;
    struct timespec t = { .tv_sec = (time_t)(ns / NS_PER_S), .tv_nsec = (long)(ns % NS_PER_S) };

    if (ppoll(&p, 1, &t, NULL) > 0)
        return;
    if (clock_monotonic_ns() - l->silent_ns > SILENT_MS_MAX * NS_PER_MS && l->sent > l->answered)
        fail("no receipt for too long");
}

void lane_pace(struct lane *l, uint64_t per_s, uint64_t frames, uint64_t *ns)
{
    const uint64_t first = l->answered, window = l->kind.window;
    uint64_t start = clock_monotonic_ns() + NS_PER_MS, released = first, due;

    assert(!l->reconnects && l->sent == l->answered && per_s > 0);
    (void)prctl(PR_SET_TIMERSLACK, 1ul);
    l->silent_ns = start;
    l->wanted = first + frames;
    while (l->answered < l->wanted) {
        due = start + (released - first) * NS_PER_S / per_s;
        if (released < l->wanted && released < l->answered + window &&
            clock_monotonic_ns() >= due) {
            l->due_ns[released++ % window] = due;
            continue;
        }
        (void)lane_send(l, released);
        if (released == l->wanted || released == l->answered + window)
            due = clock_monotonic_ns() + SILENT_MS_MAX * NS_PER_MS;
        lane_wait(l, due);
        lane_receive(l, ns - first);
    }
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;

    return (x > y) - (x < y);
}

double lane_quantile(uint64_t *ns, uint64_t n, double part)
{
    assert(n > 0);
    qsort(ns, n, sizeof *ns, compare);
    return (double)ns[(uint64_t)((double)n * part)];
}
