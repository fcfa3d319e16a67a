/*
 * afxdp.c - datagrams from the driver: for every queue of an interface one UMEM, and an AF_XDP
 * socket for each class.
 *
 * A datagram stays in its frame until batch has copied its events. What cannot be taken yet stays
 * in the ring of its class, so that a flood of one class fills its own ring only. There are frames
 * enough that the fill ring does not run empty even when all are flooded: see frames_of().
 *
 * Thread:  the worker's; afxdp_open() and afxdp_close() any.
 * Memory:  mapped in afxdp_open() and locked by the kernel, for each queue: 8 KiB a descriptor and
 *          10 MiB, or twice that with frames of 4 KiB.
 * Limits:  ingest.xdp.ring; halved while memory cannot be locked (RLIMIT_MEMLOCK). Of what can be
 *          some is left for io_uring.
 * Counts:  ring_taken, DROP_CHECKSUM, DROP_NO_BUFFER, DROP_RING_FULL_x and DROP_FILL_EMPTY.
 */
#include <errno.h>
#include <linux/capability.h>
#include <linux/if_link.h>
#include <linux/if_xdp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>
#include <xdp/xsk.h>

#include "ingest/checksum.h"
#include "ingest/worker_internal.h"

#define FRAMES_DRIVER 1024u /* that the driver fills while the worker sleeps */
#define RING_MIN      64u
#define PEEKED_MAX    64u
#define FETCH_AHEAD   4u
#define FETCH_LINE    64u
#define FETCH_BYTES                                                                                \
    256u /* of a frame; what comes after it in order the processor fetches itself                  \
          */
/* A worker that sleeps and is woken for every datagram spends several times as long on that as on
 * the datagram. So a ring out of which something came a short time ago is looked at again after
 * MODERATION_NS, as a network card waits before it interrupts; one that comes alone, later than
 * BUSY_NS after the last, wakes the worker at once. */
#define MODERATION_NS 50000u
#define BUSY_NS       (4 * MODERATION_NS)

/* What io_uring locks once AF_XDP has taken its part: the log's ring, and a worker's. */
#define LOCKED_BYTES_LOG    (512u * 1024u)
#define LOCKED_BYTES_WORKER (128u * 1024u)

struct class_ring {
    struct xsk_socket *socket;
    struct xsk_ring_cons rx;
    uint32_t at, peeked; /* the descriptors that were looked at and wait */
    uint32_t done;       /* given back to the ring at the end of the turn */
    bool armed, broken;
    uint64_t took_ns, look_ns;        /* when something was last taken; no poll before */
    uint64_t full_seen, dropped_seen; /* the kernel's counters so far */
};

struct afxdp {
    struct prefilter_port *port;
    uint32_t queue, frames, descriptors;
    bool unfinished; /* checksums of senders on this machine */
    bool verify;
    uint8_t *memory;
    size_t bytes;
    struct xsk_umem *umem;
    struct xsk_ring_prod fill;
    struct xsk_ring_cons completion;
    uint64_t *free; /* frames to be given to the driver at the end of the turn */
    uint32_t free_n;
    bool timer; /* armed */
    struct class_ring ring[WORKER_CLASSES];
    struct packet packet; /* of the datagram that afxdp_next() returned */
};

/* --- open and close -----------------------------------------------------------------------------
 */

static void queue_close(struct afxdp *q)
{
    for (unsigned c = WORKER_CLASSES; c-- > 0;) {
        if (q->ring[c].socket)
            xsk_socket__delete(q->ring[c].socket);
        q->ring[c].socket = NULL;
    }
    if (q->umem)
        (void)xsk_umem__delete(q->umem);
    q->umem = NULL;
    if (q->memory)
        munmap(q->memory, q->bytes);
    q->memory = NULL;
    free(q->free);
    q->free = NULL;
}

static uint32_t at_most(uint32_t a, uint32_t b) { return a < b ? a : b; }

/* All rings full, what the worker holds in a turn, and some for the driver. */
static uint32_t frames_of(uint32_t descriptors)
{
    return WORKER_CLASSES * descriptors + at_most(TURN_EVENTS_MAX, WORKER_CLASSES * descriptors) +
           at_most(FRAMES_DRIVER, descriptors);
}

static uint32_t fill_size_of(uint32_t frames)
{
    uint32_t n = RING_MIN;

    while (n < frames)
        n *= 2;
    return n;
}

static int umem_open(struct afxdp *q, uint32_t descriptors)
{
    struct xsk_umem_config config = {
        .fill_size = fill_size_of(frames_of(descriptors)),
        .comp_size = RING_MIN, /* nothing is sent */
        .frame_size = q->port->frame_bytes,
    };

    q->descriptors = descriptors;
    q->frames = frames_of(descriptors);
    q->bytes = (size_t)q->frames * q->port->frame_bytes;
    q->memory = mmap(NULL, q->bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (q->memory == MAP_FAILED) {
        q->memory = NULL;
        return -ENOMEM;
    }
    (void)madvise(q->memory, q->bytes, MADV_HUGEPAGE);
    q->free = calloc(q->frames, sizeof *q->free);
    if (!q->free)
        return -ENOMEM;
    for (; q->free_n < q->frames; q->free_n++)
        q->free[q->free_n] = (uint64_t)q->free_n * q->port->frame_bytes;
    return xsk_umem__create(&q->umem, q->memory, q->bytes, &q->fill, &q->completion, &config);
}

static int sockets_open(struct afxdp *q)
{
    struct xsk_socket_config config = {
        .rx_size = q->descriptors,
        .libxdp_flags = XSK_LIBXDP_FLAGS__INHIBIT_PROG_LOAD,
        .xdp_flags = q->port->mode == PREFILTER_NATIVE ? XDP_FLAGS_DRV_MODE : XDP_FLAGS_SKB_MODE,
        .bind_flags = XDP_USE_NEED_WAKEUP,
    };

    for (unsigned c = 0; c < WORKER_CLASSES; c++) {
        struct class_ring *r = &q->ring[c];
        int rc = xsk_socket__create_shared(&r->socket, q->port->name, q->queue, q->umem, &r->rx,
                                           NULL, &q->fill, &q->completion, &config);

        if (rc < 0)
            return rc;
    }
    return 0;
}

static void refill(struct afxdp *q)
{
    uint32_t at, n = q->free_n;

    if (n > 0 && xsk_ring_prod__reserve(&q->fill, n, &at) == n) {
        for (uint32_t i = 0; i < n; i++)
            *xsk_ring_prod__fill_addr(&q->fill, at + i) = q->free[i];
        xsk_ring_prod__submit(&q->fill, n);
        q->free_n = 0;
    }
    if (xsk_ring_prod__needs_wakeup(&q->fill))
        (void)recvfrom(xsk_socket__fd(q->ring[0].socket), NULL, 0, MSG_DONTWAIT, NULL, NULL);
}

static void mode_look(struct afxdp *q)
{
    struct xdp_options o = { 0 };
    socklen_t len = sizeof o;

    if (getsockopt(xsk_socket__fd(q->ring[0].socket), SOL_XDP, XDP_OPTIONS, &o, &len) == 0)
        q->port->zero_copy = (o.flags & XDP_OPTIONS_ZEROCOPY) != 0;
}

/* Bytes that all queues together may lock. */
static uint64_t lock_budget(const struct worker *w)
{
    struct __user_cap_header_struct header = { .version = _LINUX_CAPABILITY_VERSION_3 };
    uint64_t others = LOCKED_BYTES_LOG + config_workers(w->config) * LOCKED_BYTES_WORKER;
    struct __user_cap_data_struct data[2] = { 0 };
    struct rlimit limit;

    if ((syscall(SYS_capget, &header, data) == 0 &&
         (data[0].effective & 1u << CAP_IPC_LOCK) != 0) ||
        getrlimit(RLIMIT_MEMLOCK, &limit) < 0)
        return UINT64_MAX;
    return limit.rlim_cur > others ? limit.rlim_cur - others : 0;
}

/* Descriptors of a ring: ingest.xdp.ring, or what the budget allows; 0 when that is too few. */
static uint32_t descriptors_of(const struct worker *w)
{
    uint64_t budget = lock_budget(w), frame_bytes = 0; /* of one frame in each queue */
    uint32_t n = w->config->ingest.xdp.ring;

    for (uint32_t i = 0; i < prefilter_ports(w->wc.prefilter); i++) {
        const struct prefilter_port *port = prefilter_port(w->wc.prefilter, i);

        if (port->mode != PREFILTER_SOCKET)
            frame_bytes += (uint64_t)port->queues * port->frame_bytes;
    }
    while (n >= RING_MIN && frames_of(n) * frame_bytes > budget)
        n /= 2;
    return n >= RING_MIN ? n : 0;
}

static int queue_open(struct worker *w, struct afxdp *q, uint32_t port)
{
    const struct config_xdp *x = &w->config->ingest.xdp;
    int rc = -ENOBUFS;

    q->verify = x->checksum != CONFIG_CHECKSUM_NEVER;
    q->unfinished = x->checksum == CONFIG_CHECKSUM_AUTO && q->port->virtual_device;
    for (uint32_t n = descriptors_of(w); n >= RING_MIN; n /= 2) {
        q->free_n = 0;
        rc = umem_open(q, n);
        if (rc == 0)
            rc = sockets_open(q);
        if (rc == 0) {
            if (n < x->ring)
                prefilter_note(q->port, "ingest.xdp.ring is %u: RLIMIT_MEMLOCK", n);
            break;
        }
        queue_close(q);
        if (rc != -ENOBUFS && rc != -ENOMEM)
            break;
    }
    if (rc < 0)
        return rc;
    refill(q);
    mode_look(q);
    for (unsigned c = 0; c < WORKER_CLASSES && rc == 0; c++)
        rc = prefilter_add_socket(w->wc.prefilter, port, q->queue, c,
                                  xsk_socket__fd(q->ring[c].socket));
    if (rc < 0)
        queue_close(q);
    return rc;
}

/* The queues of an interface are dealt out to the workers. */
static uint32_t queues_of(const struct worker *w, const struct prefilter_port *port)
{
    uint32_t workers = config_workers(w->config);

    return port->mode == PREFILTER_SOCKET ? 0 : (port->queues + workers - 1 - w->wc.id) / workers;
}

static void port_open(struct worker *w, uint32_t p)
{
    struct prefilter_port *port = prefilter_port(w->wc.prefilter, p);
    uint32_t n = queues_of(w, port);

    for (uint32_t i = 0; i < n; i++) {
        struct afxdp *q = &w->rings.at[w->rings.n];
        int rc;

        *q = (struct afxdp){ .port = port, .queue = w->wc.id + i * config_workers(w->config) };
        rc = queue_open(w, q, p);
        if (rc < 0) {
            prefilter_note(port, "no AF_XDP on queue %u: %s", q->queue,
                           rc == -ENOBUFS ? "RLIMIT_MEMLOCK"
                           : rc == -EPERM ? "it asks for CAP_NET_RAW"
                                          : strerror(-rc));
            return;
        }
        w->rings.n++;
    }
}

int afxdp_open(struct worker *w)
{
    uint32_t ports = prefilter_ports(w->wc.prefilter), queues = 0;

    for (uint32_t p = 0; p < ports; p++)
        queues += queues_of(w, prefilter_port(w->wc.prefilter, p));
    if (queues == 0)
        return 0;
    w->rings.at = calloc(queues, sizeof *w->rings.at);
    if (!w->rings.at)
        return -ENOMEM;
    for (uint32_t p = 0; p < ports; p++)
        port_open(w, p);
    return 0;
}

void afxdp_close(struct worker *w)
{
    for (uint32_t i = 0; i < w->rings.n; i++)
        queue_close(&w->rings.at[i]);
    w->rings.n = 0;
    free(w->rings.at);
}

/* --- taking -------------------------------------------------------------------------------------
 */

static bool ring_look(struct class_ring *r)
{
    if (r->peeked == 0)
        r->peeked = xsk_ring_cons__peek(&r->rx, PEEKED_MAX, &r->at);
    return r->peeked > 0;
}

static void ring_done(struct afxdp *q, struct class_ring *r)
{
    const struct xdp_desc *d = xsk_ring_cons__rx_desc(&r->rx, r->at);

    assert(r->peeked > 0 && q->free_n < q->frames);
    /* The address of the frame, from that of the data in it. */
    q->free[q->free_n++] = d->addr & ~(uint64_t)(q->port->frame_bytes - 1);
    r->at++;
    r->peeked--;
    r->done++;
}

/* Another processor has written the frames: those that come next are fetched while this one is
 * worked on. */
static void fetch_ahead(const struct afxdp *q, const struct class_ring *r)
{
    const struct xdp_desc *d;
    const uint8_t *frame;

    if (r->peeked <= FETCH_AHEAD)
        return;
    d = xsk_ring_cons__rx_desc(&r->rx, r->at + FETCH_AHEAD);
    frame = q->memory + d->addr;
    for (uint32_t at = 0; at < d->len && at < FETCH_BYTES; at += FETCH_LINE)
        __builtin_prefetch(frame + at);
}

/* Looks at the headers of the ring's first frame. The program has found them in order. */
static bool ring_first(struct worker *w, struct afxdp *q, unsigned class, struct datagram *ret)
{
    struct class_ring *r = &q->ring[class];
    const struct xdp_desc *d = xsk_ring_cons__rx_desc(&r->rx, r->at);
    const uint8_t *frame = q->memory + d->addr;
    enum datagram_drop why = DROP_LENGTH;

    assert(d->addr + d->len <= q->bytes);
    fetch_ahead(q, r);
    if (packet_parse(frame, frame + d->len, &q->packet) == PACKET_UDP) {
        *ret = (struct datagram){
            .bytes = { q->packet.udp + 8, q->packet.payload_bytes },
            .packet = &q->packet,
            .ifindex = q->port->ifindex,
            .decided = q->packet.payload_bytes > 0 && q->packet.udp[8] == 0x08,
        };
        if (q->verify && !checksum_ok(&q->packet, q->unfinished))
            why = DROP_CHECKSUM;
        else if (ret->bytes.bytes > w->config->ingest.udp.datagram_bytes_max)
            why = DROP_NO_BUFFER;
        else
            return true;
    }
    w->ledger.ring_taken[class]++;
    w->turn_events++;
    receive_drop(w, why,
                 &(struct datagram){
                     .bytes = { frame, d->len },
                     .packet = why != DROP_LENGTH ? &q->packet : NULL,
                     .ifindex = q->port->ifindex,
                 });
    ring_done(q, r);
    return false;
}

bool afxdp_next(struct worker *w, unsigned class, struct datagram *ret)
{
    struct rings *g = &w->rings;

    for (uint32_t tried = 0; tried < g->n; tried++) {
        struct afxdp *q = &g->at[g->turn[class]];

        while (w->turn_events < TURN_EVENTS_MAX && ring_look(&q->ring[class])) {
            if (ring_first(w, q, class, ret))
                return true;
        }
        g->turn[class] = (g->turn[class] + 1) % g->n;
    }
    return false;
}

void afxdp_done(struct worker *w, unsigned class)
{
    struct rings *g = &w->rings;
    struct afxdp *q = &g->at[g->turn[class]];

    w->ledger.ring_taken[class]++;
    ring_done(q, &q->ring[class]);
    /* The next queue's turn comes when this one's batch is through. */
    if (q->ring[class].peeked == 0)
        g->turn[class] = (g->turn[class] + 1) % g->n;
}

static bool ring_waits(struct class_ring *r)
{
    return r->peeked > 0 || xsk_cons_nb_avail(&r->rx, 1) > 0;
}

bool afxdp_waiting(const struct worker *w, unsigned class)
{
    for (uint32_t i = 0; i < w->rings.n; i++) {
        if (ring_waits(&w->rings.at[i].ring[class]))
            return true;
    }
    return false;
}

static void moderate(struct class_ring *r, uint64_t now_ns)
{
    if (now_ns < r->took_ns + BUSY_NS)
        r->look_ns = now_ns + MODERATION_NS;
    r->took_ns = now_ns;
}

/* Nothing of the turn's datagrams is in use any more. */
void afxdp_turn_end(struct worker *w)
{
    for (uint32_t i = 0; i < w->rings.n; i++) {
        struct afxdp *q = &w->rings.at[i];

        for (unsigned c = 0; c < WORKER_CLASSES; c++) {
            if (q->ring[c].done > 0) {
                xsk_ring_cons__release(&q->ring[c].rx, q->ring[c].done);
                moderate(&q->ring[c], w->now_ns);
            }
            q->ring[c].done = 0;
        }
        refill(q);
    }
}

/* --- sleeping -----------------------------------------------------------------------------------
 */

static void arm_timer(struct worker *w, uint32_t queue)
{
    static struct __kernel_timespec pause = { .tv_nsec = MODERATION_NS };
    struct io_uring_sqe *sqe;

    if (w->rings.at[queue].timer)
        return;
    sqe = worker_sqe(w);
    io_uring_prep_timeout(sqe, &pause, 0, 0);
    io_uring_sqe_set_data64(sqe, op_data(OP_RING, w->rings.n * WORKER_CLASSES + queue));
    w->rings.at[queue].timer = true;
}

/* Before the worker sleeps: a poll on every empty ring that has none, or a timer. The kernel looks
 * at once whether there is something, so that nothing is missed. What is there already waits for a
 * block, and a poll would return at once, again and again: the cluster wakes the worker for that.
 */
void afxdp_arm(struct worker *w)
{
    for (uint32_t i = 0; i < w->rings.n * WORKER_CLASSES; i++) {
        struct class_ring *r = &w->rings.at[i / WORKER_CLASSES].ring[i % WORKER_CLASSES];
        struct io_uring_sqe *sqe;

        if (r->armed || r->broken || ring_waits(r))
            continue;
        if (w->now_ns < r->look_ns) {
            arm_timer(w, i / WORKER_CLASSES);
            continue;
        }
        sqe = worker_sqe(w);
        io_uring_prep_poll_add(sqe, xsk_socket__fd(r->socket), POLLIN);
        io_uring_sqe_set_data64(sqe, op_data(OP_RING, i));
        r->armed = true;
    }
}

void afxdp_on_poll(struct worker *w, uint32_t index, int res)
{
    struct class_ring *r;

    if (index >= w->rings.n * WORKER_CLASSES) {
        w->rings.at[index - w->rings.n * WORKER_CLASSES].timer = false;
        return;
    }
    r = &w->rings.at[index / WORKER_CLASSES].ring[index % WORKER_CLASSES];
    r->armed = false;
    /* The interface is gone: no frame will ever come, and every poll would return at once. */
    if (res < 0 || (res & (POLLERR | POLLHUP | POLLNVAL)) != 0)
        r->broken = true;
}

/* --- counting -----------------------------------------------------------------------------------
 */

static void count_drops(struct worker *w, enum datagram_drop reason, uint64_t *seen, uint64_t now)
{
    w->ledger.datagrams_seen += now - *seen;
    w->ledger.datagram_drop[reason] += now - *seen;
    *seen = now;
}

void afxdp_count(struct worker *w, uint64_t ret_waiting[WORKER_CLASSES])
{
    for (uint32_t i = 0; i < w->rings.n; i++) {
        for (unsigned c = 0; c < WORKER_CLASSES; c++) {
            struct class_ring *r = &w->rings.at[i].ring[c];
            struct xdp_statistics s = { 0 };
            socklen_t len = sizeof s;

            if (getsockopt(xsk_socket__fd(r->socket), SOL_XDP, XDP_STATISTICS, &s, &len) == 0) {
                count_drops(w, DROP_RING_FULL_0 + c, &r->full_seen, s.rx_ring_full);
                count_drops(w, DROP_FILL_EMPTY, &r->dropped_seen, s.rx_dropped);
            }
            ret_waiting[c] +=
                __atomic_load_n(r->rx.producer, __ATOMIC_ACQUIRE) - *r->rx.consumer - r->done;
        }
    }
}

/* What is left when the worker stops taking. Nothing comes any more: prefilter_stop(). */
void afxdp_stop(struct worker *w)
{
    struct datagram d;

    for (unsigned c = 0; c < WORKER_CLASSES; c++) {
        /* Frames that are not taken count as events of a turn: many of them end it. */
        while (afxdp_waiting(w, c)) {
            w->turn_events = 0;
            if (!afxdp_next(w, c, &d))
                continue;
            receive_drop(w, DROP_STOPPING, &d);
            afxdp_done(w, c);
        }
    }
}
