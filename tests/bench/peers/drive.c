/*
 * drive.c - see drive.h.
 */
#include "tests/bench/peers/drive.h"

#include <assert.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/lib/lane.h"

#define IN_BYTES      (256u << 10)
#define OUT_BYTES_MAX (256u << 10) /* put ahead of the socket */
#define SILENT_NS_MAX (30 * NS_PER_S)
#define TIMES_MAX     (64u << 20)

static uint64_t *times, times_n; /* of the answers */
static uint64_t heard_ns;
static unsigned window;

void drive_fail(const char *format, ...)
{
    va_list a;

    va_start(a, format);
    vfprintf(stderr, format, a);
    va_end(a);
    fputc('\n', stderr);
    exit(1);
}

static uint64_t number(const char *text, uint64_t max)
{
    char *end;
    uint64_t n = strtoull(text, &end, 10);

    if (*text == '\0' || *end != '\0' || n == 0 || n > max)
        drive_fail("'%s' is not a number from 1 to %llu", text, (unsigned long long)max);
    return n;
}

void drive_options(struct drive_options *ret, int argc, char **argv)
{
    if (argc < 9 || argc > 10)
        drive_fail("%s rate|latency PORT PORT PORT CONNECTIONS WINDOW EVENTS SECONDS [PER_S]",
                   argv[0]);
    *ret = (struct drive_options){
        .paced = strcmp(argv[1], "latency") == 0,
        .connections = (unsigned)number(argv[5], DRIVE_CONNECTIONS_MAX),
        .window = (unsigned)number(argv[6], 1u << 20),
        .events = (unsigned)number(argv[7], 480),
        .seconds = strtod(argv[8], NULL),
        .per_s = argc > 9 ? number(argv[9], 100000000) : 0,
    };
    if (ret->paced != (ret->per_s > 0))
        drive_fail("a rate belongs to latency, and only there");
    for (int i = 0; i < 3; i++)
        ret->port[i] = (uint16_t)number(argv[2 + i], 65535);
}

int drive_dial(uint16_t port)
{
    struct sockaddr_in a = { .sin_family = AF_INET,
                             .sin_port = htons(port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    const uint64_t until = clock_monotonic_ns() + SILENT_NS_MAX;
    int one = 1, fd;

    for (;;) {
        fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, (struct sockaddr *)&a, sizeof a) == 0)
            break;
        if (fd < 0 || clock_monotonic_ns() > until)
            drive_fail("port %u: %s", port, strerror(errno));
        close(fd);
        (void)poll(NULL, 0, 50);
    }
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    return fd;
}

void drive_payload(uint8_t *buf, size_t bytes)
{
    for (size_t at = 0; at < bytes; at += 256)
        (void)!getrandom(buf + at, bytes - at < 256 ? bytes - at : 256, 0);
}

/* --- one connection --------------------------------------------------------------------------- */

void drive_put(struct drive_connection *c, const void *data, size_t bytes)
{
    if (c->out_n + bytes > c->out_cap) {
        c->out_cap = 2 * (c->out_n + bytes);
        c->out = realloc(c->out, c->out_cap);
        assert(c->out != NULL);
    }
    memcpy(c->out + c->out_n, data, bytes);
    c->out_n += bytes;
}

void drive_answered(struct drive_connection *c, uint64_t n)
{
    const uint64_t now = clock_monotonic_ns();

    if (n < c->low || n >= c->sent || c->done[n % window])
        drive_fail("an answer to message %llu, which waits for none", (unsigned long long)n);
    c->done[n % window] = true;
    c->answered++;
    if (times_n < TIMES_MAX)
        times[times_n++] = now - c->due_ns[n % window];
    while (c->low < c->sent && c->done[c->low % window])
        c->low++;
}

static void connection_put(const struct drive_program *p, struct drive_connection *c,
                           uint64_t due_ns)
{
    c->done[c->sent % window] = false;
    c->due_ns[c->sent % window] = due_ns;
    p->put(c, c->sent++);
}

static void connection_send(struct drive_connection *c)
{
    ssize_t n;

    if (c->out_at == c->out_n)
        return;
    n = send(c->fd, c->out + c->out_at, c->out_n - c->out_at, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (n < 0 && errno != EAGAIN)
        drive_fail("the connection broke: %s", strerror(errno));
    c->out_at += n > 0 ? (size_t)n : 0;
    if (c->out_at == c->out_n)
        c->out_at = c->out_n = 0;
}

static void connection_receive(const struct drive_program *p, struct drive_connection *c)
{
    ssize_t n = recv(c->fd, c->in + c->in_n, IN_BYTES - c->in_n, MSG_DONTWAIT);
    size_t taken;

    if (n < 0 && errno == EAGAIN)
        return;
    if (n <= 0)
        drive_fail("the server hung up");
    heard_ns = clock_monotonic_ns();
    c->in_n += (size_t)n;
    taken = p->take(c, c->in, c->in_n);
    assert(taken <= c->in_n);
    memmove(c->in, c->in + taken, c->in_n - taken);
    c->in_n -= taken;
    if (c->in_n == IN_BYTES)
        drive_fail("an answer that is too long");
}

/* --- all of them ------------------------------------------------------------------------------ */

/* Sends what is there, waits until at_ns at most, takes what comes. */
static void drive_turn(const struct drive_options *o, const struct drive_program *p,
                       struct drive_connection *c, uint64_t at_ns)
{
    struct pollfd poll_fd[DRIVE_CONNECTIONS_MAX];
    uint64_t now, ns;
    struct timespec t;

    for (unsigned i = 0; i < o->connections; i++) {
        connection_send(&c[i]);
        poll_fd[i] = (struct pollfd){ .fd = c[i].fd, .events = POLLIN };
        if (c[i].out_n > 0)
            poll_fd[i].events |= POLLOUT;
    }
    now = clock_monotonic_ns();
    ns = at_ns > now ? at_ns - now : 0;
    t = (struct timespec){ (time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S) };
    (void)ppoll(poll_fd, o->connections, &t, NULL);
    for (unsigned i = 0; i < o->connections; i++) {
        if (poll_fd[i].revents & (POLLIN | POLLHUP | POLLERR))
            connection_receive(p, &c[i]);
    }
    if (clock_monotonic_ns() - heard_ns > SILENT_NS_MAX)
        drive_fail("no answer for too long");
}

static bool has_room(const struct drive_connection *c) { return c->sent < c->low + window; }

static bool all_answered(const struct drive_options *o, const struct drive_connection *c)
{
    for (unsigned i = 0; i < o->connections; i++) {
        if (c[i].low < c[i].sent)
            return false;
    }
    return true;
}

static void run_closed(const struct drive_options *o, const struct drive_program *p,
                       struct drive_connection *c)
{
    const uint64_t until = clock_monotonic_ns() + (uint64_t)(o->seconds * 1e9);
    uint64_t now;

    while ((now = clock_monotonic_ns()) < until) {
        for (unsigned i = 0; i < o->connections; i++) {
            while (has_room(&c[i]) && c[i].out_n - c[i].out_at < OUT_BYTES_MAX)
                connection_put(p, &c[i], now);
        }
        drive_turn(o, p, c, now + 100 * NS_PER_MS);
    }
}

/* Each due at its time, whatever the server does. */
static void run_paced(const struct drive_options *o, const struct drive_program *p,
                      struct drive_connection *c)
{
    const uint64_t messages = (uint64_t)(o->seconds * (double)o->per_s);
    const uint64_t start = clock_monotonic_ns() + NS_PER_MS;
    uint64_t released = 0;

    (void)prctl(PR_SET_TIMERSLACK, 1ul);
    while (released < messages) {
        uint64_t due = start + released * NS_PER_S / o->per_s;
        struct drive_connection *to = &c[released % o->connections];

        if (has_room(to) && clock_monotonic_ns() >= due) {
            connection_put(p, to, due);
            released++;
            continue;
        }
        drive_turn(o, p, c, has_room(to) ? due : clock_monotonic_ns() + NS_PER_MS);
    }
}

uint64_t drive_run(const struct drive_options *o, const struct drive_program *p,
                   struct drive_connection *c)
{
    uint64_t start, ns, messages = 0, skip;

    times = malloc(TIMES_MAX * sizeof *times);
    assert(times != NULL);
    window = o->window;
    for (unsigned i = 0; i < o->connections; i++) {
        c[i].due_ns = calloc(window, sizeof *c[i].due_ns);
        c[i].done = calloc(window, sizeof *c[i].done);
        c[i].in = malloc(IN_BYTES);
        assert(c[i].due_ns != NULL && c[i].done != NULL && c[i].in != NULL);
    }
    start = heard_ns = clock_monotonic_ns();
    if (o->paced)
        run_paced(o, p, c);
    else
        run_closed(o, p, c);
    while (!all_answered(o, c))
        drive_turn(o, p, c, clock_monotonic_ns() + 100 * NS_PER_MS);
    ns = clock_monotonic_ns() - start;
    for (unsigned i = 0; i < o->connections; i++)
        messages += c[i].answered;
    /* The first tenth of an open loop is for the server to get warm. */
    skip = o->paced ? times_n / 10 : 0;
    printf("%.0f %llu %.0f %.0f\n", (double)messages * o->events * 1e9 / (double)ns,
           (unsigned long long)messages, lane_quantile(times + skip, times_n - skip, 0.5) / 1e3,
           lane_quantile(times + skip, times_n - skip, 0.99) / 1e3);
    return messages;
}
