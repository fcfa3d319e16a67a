/*
 * send_udp.c - `sluice send` over UDP: datagrams of one event or of a batch, by sendmmsg().
 *
 * Nothing says that a datagram arrived unless receipts are asked for; then each datagram is a batch
 * with a number, and what answers within the wait is counted.
 * Thread:  the caller's alone.
 * Memory:  UDP_HELD datagrams of the largest size, and a table of those that wait for a receipt.
 */
#include "cli/send.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/frame.h"

#define UDP_HELD      64u
#define UDP_BYTES_MAX 65507u
#define UDP_TAIL_MAX  96u    /* producer, number, receipt wanted */
#define UDP_WAITING   65536u /* a power of two */
#define SOCKET_BYTES  (8 << 20)
#define TAG_PRODUCER  (2u << 3 | 2)
#define TAG_SEQ       (3u << 3 | 0)
#define TAG_RECEIPT   (4u << 3 | 0)

struct waiting {
    uint64_t seq, due_ns;
    uint32_t n;
};

struct send_udp {
    const struct send_options *options;
    int fd;
    bool nobody; /* the host answered that nobody listens */
    unsigned held;
    struct mmsghdr message[UDP_HELD];
    struct iovec iov[UDP_HELD];
    uint32_t events[UDP_HELD];
    uint8_t (*data)[UDP_BYTES_MAX];
    uint64_t seq, waits;
    struct waiting *waiting;
    struct send_totals totals;
};

/* --- opening -------------------------------------------------------------------------------- */

/* Takes HOST:PORT apart; the host may be in brackets. */
static int address_split(const char *address, char *host, size_t host_max, const char **ret_port)
{
    const char *colon = strrchr(address, ':');
    size_t bytes = colon ? (size_t)(colon - address) : 0;

    if (bytes >= 2 && address[0] == '[' && address[bytes - 1] == ']') {
        address++;
        bytes -= 2;
    }
    if (bytes == 0 || bytes >= host_max || !colon[1] || strchr(address, ','))
        return -EINVAL;
    memcpy(host, address, bytes);
    host[bytes] = '\0';
    *ret_port = colon + 1;
    return 0;
}

static int socket_open(const char *address)
{
    struct addrinfo hints = { .ai_socktype = SOCK_DGRAM }, *list;
    char host[256];
    const char *port;
    int fd = -1, bytes = SOCKET_BYTES;

    if (address_split(address, host, sizeof(host), &port) < 0) {
        fprintf(stderr, "sluice send: --address %s: is not one HOST:PORT\n", address);
        return -SEND_USAGE;
    }
    int rc = getaddrinfo(host, port, &hints, &list);

    if (rc != 0) {
        fprintf(stderr, "sluice send: %s: %s\n", address, gai_strerror(rc));
        return -SEND_UNREACHABLE;
    }
    for (const struct addrinfo *to = list; to && fd < 0; to = to->ai_next) {
        fd = socket(to->ai_family, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd >= 0 && connect(fd, to->ai_addr, to->ai_addrlen) < 0) {
            close(fd);
            fd = -1;
        }
    }
    freeaddrinfo(list);
    if (fd < 0) {
        fprintf(stderr, "sluice send: %s: %s\n", address, strerror(errno));
        return -SEND_UNREACHABLE;
    }
    /* As much as the system allows. */
    setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &bytes, sizeof(bytes));
    setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof(bytes));
    return fd;
}

int send_udp_open(struct send_udp **ret, const struct send_options *o)
{
    struct send_udp *u = calloc(1, sizeof(*u));

    *ret = u;
    if (!u)
        goto no_memory;
    u->options = o;
    u->fd = -1;
    u->data = calloc(UDP_HELD, sizeof(*u->data));
    u->waiting = o->udp_receipts ? calloc(UDP_WAITING, sizeof(*u->waiting)) : NULL;
    if (!u->data || (o->udp_receipts && !u->waiting))
        goto no_memory;
    int fd = socket_open(o->address);

    if (fd < 0)
        return -fd;
    u->fd = fd;
    return 0;

no_memory:
    fprintf(stderr, "sluice send: no memory\n");
    return SEND_USAGE;
}

void send_udp_close(struct send_udp *u)
{
    if (!u)
        return;
    if (u->fd >= 0)
        close(u->fd);
    free(u->data);
    free(u->waiting);
    free(u);
}

/* --- receipts ------------------------------------------------------------------------------- */

static void receipt_take(struct send_udp *u, const uint8_t *data, size_t bytes)
{
    struct receipt r;
    struct receipt_exception e;
    size_t at = 0;

    if (frame_get_receipt(&r, data, bytes) < 0)
        return;
    struct waiting *w = &u->waiting[r.request & (UDP_WAITING - 1)];

    if (w->n == 0 || w->seq != r.request)
        return; /* answered already, or too late */
    histogram_add(&u->totals.latency_ns, clock_monotonic_ns() - w->due_ns, 1);
    u->totals.answered += w->n;
    u->totals.accepted += r.accepted;
    u->totals.duplicates += r.duplicates;
    u->totals.refused += r.refused;
    u->totals.truncated += r.truncated;
    while (receipt_next_exception(&r, &at, &e))
        u->totals.by_reason[e.reason < SEND_REASONS ? e.reason : SEND_REASONS - 1]++;
    u->waits -= w->n;
    w->n = 0;
}

static void receipts_take(struct send_udp *u)
{
    uint8_t data[2048]; /* none is larger than what asked for it, and those stay under the MTU */
    ssize_t n;

    while ((n = recv(u->fd, data, sizeof(data), MSG_DONTWAIT)) >= 0)
        receipt_take(u, data, (size_t)n);
    if (errno == ECONNREFUSED)
        u->nobody = true;
}

/* --- sending -------------------------------------------------------------------------------- */

int send_udp_flush(struct send_udp *u)
{
    unsigned done = 0;

    while (done < u->held) {
        int n = sendmmsg(u->fd, u->message + done, u->held - done, 0);

        if (n < 0 && errno == ECONNREFUSED) {
            /* Said of an earlier datagram. Whoever listens may come back: go on. */
            u->nobody = true;
            continue;
        }
        if (n < 0 && (errno == EINTR || errno == EAGAIN || errno == ENOBUFS)) {
            if (send_is_interrupted())
                break;
            continue;
        }
        if (n < 0) {
            fprintf(stderr, "sluice send: %s: %s\n", u->options->address, strerror(errno));
            return errno == EMSGSIZE ? SEND_USAGE : SEND_UNREACHABLE;
        }
        for (int i = 0; i < n; i++, done++) {
            u->totals.batches++;
            u->totals.events += u->events[done];
            u->totals.bytes += u->iov[done].iov_len;
        }
    }
    u->held = 0;
    if (u->waiting)
        receipts_take(u);
    return 0;
}

static uint8_t *varint_put(uint8_t *at, uint64_t v)
{
    for (; v >= 0x80; v >>= 7)
        *at++ = (uint8_t)(v | 0x80);
    *at++ = (uint8_t)v;
    return at;
}

/* Behind the events of a batch: who, which, and that an answer is wanted. */
static uint8_t *tail_put(struct send_udp *u, uint8_t *at, uint32_t n, uint64_t due_ns)
{
    const char *producer = u->options->producer;

    if (producer && *producer) {
        *at++ = TAG_PRODUCER;
        at = varint_put(at, strlen(producer));
        at = mempcpy(at, producer, strlen(producer));
    }
    if (!u->waiting)
        return at;
    struct waiting *w = &u->waiting[++u->seq & (UDP_WAITING - 1)];

    u->waits += n; /* what stood here unanswered stays so */
    *w = (struct waiting){ .seq = u->seq, .due_ns = due_ns, .n = n };
    *at++ = TAG_SEQ;
    at = varint_put(at, u->seq);
    *at++ = TAG_RECEIPT;
    *at++ = 1;
    return at;
}

static int datagram_hold(struct send_udp *u, size_t bytes, uint32_t events)
{
    unsigned i = u->held++;

    assert(bytes <= UDP_BYTES_MAX);
    u->iov[i] = (struct iovec){ .iov_base = u->data[i], .iov_len = bytes };
    u->message[i] = (struct mmsghdr){ .msg_hdr = { .msg_iov = &u->iov[i], .msg_iovlen = 1 } };
    u->events[i] = events;
    return u->held == UDP_HELD ? send_udp_flush(u) : 0;
}

/* One datagram of as many events from `from` on as fit. *ret_next is the first that did not. */
static int datagram_make(struct send_udp *u, const struct send_batch *batch, size_t from,
                         size_t *ret_next)
{
    uint8_t *begin = u->data[u->held], *at = begin;
    size_t room = u->options->datagram_bytes - UDP_TAIL_MAX, i = from;

    for (; i < batch->n; i++) {
        size_t bytes = batch->event_bytes[i];

        /* One that is larger than asked for goes alone. */
        if (i > from && (size_t)(at - begin) + bytes + FRAME_EVENT_HEAD_MAX > room)
            break;
        if (bytes + FRAME_EVENT_HEAD_MAX + UDP_TAIL_MAX > UDP_BYTES_MAX)
            return -EMSGSIZE;
        at += frame_put_event_head(at, FRAME_EVENT_HEAD_MAX, (uint32_t)bytes);
        at = mempcpy(at, batch->event[i], bytes);
    }
    *ret_next = i;
    at = tail_put(u, at, (uint32_t)(i - from), batch->due_ns);
    return datagram_hold(u, (size_t)(at - begin), (uint32_t)(i - from));
}

int send_udp_batch(struct send_udp *u, const struct send_batch *batch)
{
    bool bare = u->options->batch == 1 && !u->waiting;
    int rc = 0;

    for (size_t i = 0; i < batch->n && rc == 0;) {
        if (!bare) {
            rc = datagram_make(u, batch, i, &i);
            continue;
        }
        memcpy(u->data[u->held], batch->event[i], batch->event_bytes[i]);
        rc = datagram_hold(u, batch->event_bytes[i], 1);
        i++;
    }
    return rc;
}

int send_udp_finish(struct send_udp *u)
{
    int rc = send_udp_flush(u);
    uint64_t until_ns = clock_monotonic_ns() + (uint64_t)(u->options->wait_s * (double)NS_PER_S);

    while (u->waiting && u->waits && rc == 0 && !send_is_interrupted()) {
        struct pollfd p = { .fd = u->fd, .events = POLLIN };
        uint64_t now_ns = clock_monotonic_ns();

        if (now_ns >= until_ns)
            break;
        poll(&p, 1, (int)((until_ns - now_ns) / NS_PER_MS) + 1);
        receipts_take(u);
    }
    u->totals.unanswered = u->waits;
    if (rc == 0 && u->nobody) {
        fprintf(stderr, "sluice send: %s: nobody listened there for at least some of the time\n",
                u->options->address);
        rc = SEND_UNREACHABLE;
    }
    return rc;
}

void send_udp_totals(struct send_udp *u, struct send_totals *ret) { *ret = u->totals; }
