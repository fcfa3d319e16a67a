/*
 * socket.c - UDP: datagrams in, sorted by class, the highest class served first.
 *
 * One multishot recvmsg per address fills buffers of one provided ring. With UDP_GRO a buffer holds
 * several datagrams of one sender; each is looked at and counted by itself. What can be decided by
 * looking (source, size, policy) is decided when a buffer arrives, as the program in the driver
 * would; the rest waits in its class's queue, still in its buffer, until receive.c takes it.
 *
 * Thread:  the worker's.
 * Memory:  buffers are mapped in udp_open(). Only UDP_PUBLISHED_MAX are with the kernel at a time
 *          and the rest form a LIFO, so that in normal running few and warm ones are used.
 * Limits:  ingest.udp.*; UDP_SEGMENTS_MAX datagrams in a buffer.
 * Counts:  what it drops. DROP_KERNEL is the kernel's own count, which takes datagrams that it had
 * joined (UDP_GRO) for one.
 */
#include <errno.h>
#include <linux/sock_diag.h>
#include <netinet/udp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "ingest/worker_internal.h"

#ifndef UDP_GRO
#define UDP_GRO 104
#endif

/* 8-byte aligned, so that the control messages behind it are. */
#define NAME_BYTES 32u
#define CONTROL_BYTES                                                                              \
    (CMSG_SPACE(sizeof(uint32_t)) + CMSG_SPACE(sizeof(int)) +                                      \
     CMSG_SPACE(sizeof(struct in6_pktinfo)))
#define HEADER_BYTES (sizeof(struct io_uring_recvmsg_out) + NAME_BYTES + CONTROL_BYTES)

/* Of a socket of every address: which of them was asked, so that it is the one that answers. */
static int ask_for_address(int fd, const struct in6_addr *ip)
{
    int one = 1, rc = 0;

    if (listener_is_any(ip) && IN6_IS_ADDR_V4MAPPED(ip))
        rc = setsockopt(fd, IPPROTO_IP, IP_PKTINFO, &one, sizeof one);
    else if (listener_is_any(ip))
        rc = setsockopt(fd, IPPROTO_IPV6, IPV6_RECVPKTINFO, &one, sizeof one);
    return rc < 0 ? -errno : 0;
}

static int socket_options(struct worker *w, int fd)
{
    int bytes = (int)w->config->ingest.udp.receive_buffer_bytes, one = 1, got = 0;
    socklen_t len = sizeof got;

    if (setsockopt(fd, SOL_SOCKET, SO_RXQ_OVFL, &one, sizeof one) < 0)
        return -errno;
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &bytes, sizeof bytes) < 0 &&
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &bytes, sizeof bytes) < 0)
        return -errno;
    /* The kernel reports twice what it was asked for. */
    if (getsockopt(fd, SOL_SOCKET, SO_RCVBUF, &got, &len) == 0 && got / 2 < bytes)
        worker_note(w, "UDP receive buffer is %d of %d bytes (net.core.rmem_max)", got / 2, bytes);
    if (setsockopt(fd, IPPROTO_UDP, UDP_GRO, &one, sizeof one) < 0)
        w->udp.gro = false;
    return 0;
}

static int memory_open(struct worker *w)
{
    struct udp *u = &w->udp;
    size_t payload = u->gro ? UDP_GRO_BYTES : w->config->ingest.udp.datagram_bytes_max;

    u->buffers = w->config->ingest.udp.buffers;
    u->low_water = u->buffers / 8 + 1;
    u->stride = (HEADER_BYTES + payload + 4095) & ~(size_t)4095;
    u->memory_bytes = u->stride * u->buffers;
    u->memory = mmap(NULL, u->memory_bytes, PROT_READ | PROT_WRITE,
                     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (u->memory == MAP_FAILED) {
        u->memory = NULL;
        return -ENOMEM;
    }
    u->buffer = calloc(u->buffers, sizeof *u->buffer);
    u->free = calloc(u->buffers, sizeof *u->free);
    if (!u->buffer || !u->free)
        return -ENOMEM;
    for (uint32_t i = u->buffers; i > 0; i--)
        u->free[u->free_n++] = i - 1;
    for (unsigned c = 0; c < WORKER_CLASSES; c++)
        u->queue[c] = (struct udp_queue){ NONE32, NONE32 };
    return 0;
}

int udp_open(struct worker *w, char error[256])
{
    struct udp *u = &w->udp;
    uint16_t port = (uint16_t)w->config->ingest.port;
    int rc;

    if (!w->config->ingest.udp.enabled)
        return 0;
    u->gro = true;
    for (unsigned i = 0; i < w->config->ingest.address.n; i++) {
        int fd = worker_bind(w, i, SOCK_DGRAM, port, error);

        if (fd < 0)
            return fd;
        u->at[u->n++] = (struct listener){ .fd = fd, .ip = w->config->ingest.address.at[i].ip };
        port = worker_port_of(fd); /* port 0: the same one everywhere */
        rc = socket_options(w, fd);
        if (rc == 0)
            rc = ask_for_address(fd, &u->at[i].ip);
        if (rc < 0) {
            snprintf(error, 256, "UDP socket options: %s", strerror(-rc));
            return rc;
        }
    }
    if (!u->gro)
        worker_note(w, "no UDP_GRO: one receive a datagram");
    u->msg.msg_namelen = NAME_BYTES;
    u->msg.msg_controllen = CONTROL_BYTES;
    if (memory_open(w) < 0) {
        snprintf(error, 256, "no memory for ingest.udp.buffers = %u",
                 w->config->ingest.udp.buffers);
        return -ENOMEM;
    }
    return 0;
}

static void publish(struct worker *w)
{
    struct udp *u = &w->udp;
    int n = 0;

    while (u->free_n > 0 && u->published < u->ring_entries) {
        uint32_t b = u->free[--u->free_n];

        io_uring_buf_ring_add(u->ring, u->memory + b * u->stride, (unsigned)u->stride,
                              (unsigned short)b, (int)u->ring_entries - 1, n++);
        u->published++;
    }
    if (n > 0)
        io_uring_buf_ring_advance(u->ring, n);
}

int udp_register(struct worker *w, char error[256])
{
    struct udp *u = &w->udp;
    struct io_uring_buf_reg reg = { .bgid = GROUP_UDP };
    size_t bytes;
    int rc;

    if (u->n == 0)
        return 0;
    u->ring_entries = u->buffers < UDP_PUBLISHED_MAX ? u->buffers : UDP_PUBLISHED_MAX;
    bytes = u->ring_entries * sizeof(struct io_uring_buf);
    u->ring = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (u->ring == MAP_FAILED) {
        u->ring = NULL;
        snprintf(error, 256, "no memory for a buffer ring");
        return -ENOMEM;
    }
    reg.ring_addr = (uintptr_t)u->ring;
    reg.ring_entries = u->ring_entries;
    rc = io_uring_register_buf_ring(&w->ring, &reg, 0);
    if (rc < 0) {
        snprintf(error, 256, "io_uring buffer ring: %s (Linux 6.1 or newer is needed)",
                 strerror(-rc));
        return rc;
    }
    io_uring_buf_ring_init(u->ring);
    publish(w);
    return 0;
}

void udp_close(struct worker *w)
{
    struct udp *u = &w->udp;

    for (uint32_t i = 0; i < u->n; i++)
        close(u->at[i].fd);
    u->n = 0;
    if (u->ring)
        munmap(u->ring, u->ring_entries * sizeof(struct io_uring_buf));
    if (u->memory)
        munmap(u->memory, u->memory_bytes);
    free(u->buffer);
    free(u->free);
}

static void udp_arm(struct worker *w)
{
    for (uint32_t i = 0; i < w->udp.n; i++) {
        struct io_uring_sqe *sqe;

        if (w->udp.at[i].armed)
            continue;
        sqe = worker_sqe(w);
        io_uring_prep_recvmsg_multishot(sqe, w->udp.at[i].fd, &w->udp.msg, 0);
        sqe->flags |= IOSQE_BUFFER_SELECT;
        sqe->buf_group = GROUP_UDP;
        io_uring_sqe_set_data64(sqe, op_data(OP_UDP, i));
        w->udp.at[i].armed = true;
    }
}

/* The kernel's counter runs modulo 2^32, and what a datagram tells is older than what SO_MEMINFO
 * tells. */
static void kernel_drops(struct worker *w, struct listener *l, uint32_t counter)
{
    uint32_t delta = counter - l->drops_seen;

    if (delta == 0 || delta > INT32_MAX)
        return;
    l->drops_seen = counter;
    receive_count(w, DROP_KERNEL, delta);
}

void udp_count_kernel_drops(struct worker *w)
{
    for (uint32_t i = 0; i < w->udp.n; i++) {
        uint32_t info[SK_MEMINFO_VARS];
        socklen_t len = sizeof info;

        if (getsockopt(w->udp.at[i].fd, SOL_SOCKET, SO_MEMINFO, info, &len) == 0 &&
            len == sizeof info)
            kernel_drops(w, &w->udp.at[i], info[SK_MEMINFO_DROPS]);
    }
}

static void buffer_free(struct udp *u, uint32_t b)
{
    assert(u->free_n < u->buffers);
    u->free[u->free_n++] = b;
}

void socket_peer_map(struct sockaddr_in6 *peer)
{
    struct sockaddr_in6 mapped = { .sin6_family = AF_INET6 };
    struct sockaddr_in v4;

    if (peer->sin6_family != AF_INET)
        return;
    memcpy(&v4, peer, sizeof v4);
    mapped.sin6_port = v4.sin_port;
    mapped.sin6_addr.s6_addr[10] = mapped.sin6_addr.s6_addr[11] = 0xff;
    memcpy(mapped.sin6_addr.s6_addr + 12, &v4.sin_addr, 4);
    *peer = mapped;
}

/* The address that a datagram was sent to. One that came by multicast is answered from whichever
 * the route takes. */
static void local_read(struct udp_buffer *slot, struct cmsghdr *c)
{
    struct in6_pktinfo v6;
    struct in_pktinfo v4;

    if (c->cmsg_level == IPPROTO_IPV6 && c->cmsg_type == IPV6_PKTINFO) {
        memcpy(&v6, CMSG_DATA(c), sizeof v6);
        if (!IN6_IS_ADDR_MULTICAST(&v6.ipi6_addr))
            slot->local = v6.ipi6_addr;
    } else if (c->cmsg_level == IPPROTO_IP && c->cmsg_type == IP_PKTINFO) {
        memcpy(&v4, CMSG_DATA(c), sizeof v4);
        slot->local = (struct in6_addr){ .s6_addr = { [10] = 0xff, [11] = 0xff } };
        memcpy(slot->local.s6_addr + 12, &v4.ipi_spec_dst, 4);
    }
}

/* Fills what the kernel wrote in front of the payload into the buffer's slot. Returns false when
 * there is no sense in it. */
static bool buffer_parse(struct worker *w, uint32_t at, uint32_t b, int res, uint32_t *ret_flags)
{
    struct udp *u = &w->udp;
    struct udp_buffer *slot = &u->buffer[b];
    uint8_t *memory = u->memory + b * u->stride;
    struct io_uring_recvmsg_out *out = io_uring_recvmsg_validate(memory, res, &u->msg);

    if (!out)
        return false;
    slot->socket = (uint16_t)at;
    slot->nodes = 0;
    slot->segment_bytes = 0;
    slot->local = in6addr_any;
    slot->bytes = io_uring_recvmsg_payload_length(out, res, &u->msg);
    slot->offset = (uint32_t)((uint8_t *)io_uring_recvmsg_payload(out, &u->msg) - memory);
    *ret_flags = out->flags;
    for (struct cmsghdr *c = io_uring_recvmsg_cmsg_firsthdr(out, &u->msg); c;
         c = io_uring_recvmsg_cmsg_nexthdr(out, &u->msg, c)) {
        uint32_t value;

        memcpy(&value, CMSG_DATA(c), sizeof value);
        if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == SO_RXQ_OVFL)
            kernel_drops(w, &u->at[at], value);
        else if (c->cmsg_level == IPPROTO_UDP && c->cmsg_type == UDP_GRO)
            slot->segment_bytes = value;
        else
            local_read(slot, c);
    }
    memcpy(&slot->peer, io_uring_recvmsg_name(out), sizeof slot->peer);
    socket_peer_map(&slot->peer);
    return true;
}

static struct slice segment_of(const struct udp *u, uint32_t b, uint32_t i)
{
    const struct udp_buffer *slot = &u->buffer[b];
    uint32_t from = i * slot->segment_bytes, bytes = slot->bytes - from;

    return (struct slice){
        .data = u->memory + b * u->stride + slot->offset + from,
        .bytes = bytes < slot->segment_bytes ? bytes : slot->segment_bytes,
    };
}

static void node_add(struct udp *u, uint32_t b, unsigned class, uint32_t segment)
{
    struct udp_buffer *slot = &u->buffer[b];
    struct udp_node *node = &slot->node[class];
    struct udp_queue *q = &u->queue[class];
    bool there = false;

    for (unsigned i = 0; i < UDP_SEGMENTS_MAX / 64; i++)
        there |= node->mask[i] != 0;
    node->mask[segment / 64] |= 1ull << (segment % 64);
    if (there)
        return;
    node->next = NONE32;
    if (q->tail == NONE32)
        q->head = b;
    else
        u->buffer[q->tail].node[class].next = b;
    q->tail = b;
    slot->nodes++;
}

static struct datagram datagram_of(const struct udp *u, uint32_t b, uint32_t segment)
{
    struct slice s = segment_of(u, b, segment);

    return (struct datagram){
        .bytes = s,
        .peer = &u->buffer[b].peer,
        .local = &u->buffer[b].local,
        .socket = u->buffer[b].socket,
        .decided = s.bytes > 0 && s.data[0] == 0x08,
    };
}

static void sort(struct worker *w, uint32_t b, uint32_t segments)
{
    const struct udp *u = &w->udp;
    struct source_verdict source;
    unsigned class;

    receive_source(w, &u->buffer[b].peer.sin6_addr, &source);
    for (uint32_t i = 0; i < segments; i++) {
        struct datagram d = datagram_of(u, b, i);

        if (i >= UDP_SEGMENTS_MAX)
            receive_drop(w, DROP_NO_BUFFER, &d);
        else if (receive_judge(w, &d, &source, &class))
            node_add(&w->udp, b, class, i);
    }
}

/* A buffer that is not looked into: every datagram in it has the same fate. */
static void drop_all(struct worker *w, enum datagram_drop reason, uint32_t b, uint32_t segments)
{
    for (uint32_t i = 0; i < segments; i++) {
        struct datagram d = datagram_of(&w->udp, b, i);

        receive_drop(w, reason, &d);
    }
}

void udp_on_receive(struct worker *w, uint32_t at, const struct io_uring_cqe *cqe)
{
    struct udp *u = &w->udp;
    struct udp_buffer *slot;
    uint32_t b, flags, segments;

    if (!(cqe->flags & IORING_CQE_F_MORE))
        u->at[at].armed = false;
    if (!(cqe->flags & IORING_CQE_F_BUFFER))
        return; /* no buffer (-ENOBUFS) or no datagram: armed again at the end of the turn */
    b = cqe->flags >> IORING_CQE_BUFFER_SHIFT;
    assert(b < u->buffers && u->published > 0);
    u->published--;
    slot = &u->buffer[b];
    if (cqe->res < 0 || !buffer_parse(w, at, b, cqe->res, &flags)) {
        buffer_free(u, b);
        return;
    }
    if (slot->segment_bytes == 0 || slot->segment_bytes > slot->bytes)
        slot->segment_bytes = slot->bytes;
    segments = slot->bytes == 0 ? 1 : (slot->bytes - 1) / slot->segment_bytes + 1;
    if (u->stopped)
        drop_all(w, DROP_STOPPING, b, segments);
    else if ((flags & MSG_TRUNC) || slot->segment_bytes > w->config->ingest.udp.datagram_bytes_max)
        drop_all(w, DROP_NO_BUFFER, b, segments);
    else
        sort(w, b, segments);
    if (slot->nodes == 0)
        buffer_free(u, b);
}

/* The first waiting datagram of a class, or false. */
static bool queue_first(const struct udp *u, unsigned class, uint32_t *ret_b, uint32_t *ret_segment)
{
    uint32_t b = u->queue[class].head;

    if (b == NONE32)
        return false;
    for (unsigned i = 0; i < UDP_SEGMENTS_MAX / 64; i++) {
        uint64_t m = u->buffer[b].node[class].mask[i];

        if (m == 0)
            continue;
        *ret_b = b;
        *ret_segment = i * 64 + (uint32_t)__builtin_ctzll(m);
        return true;
    }
    assert(!"a node without datagrams is in no queue");
    return false;
}

static void queue_take(struct udp *u, unsigned class, uint32_t b, uint32_t segment)
{
    struct udp_node *node = &u->buffer[b].node[class];
    struct udp_queue *q = &u->queue[class];

    node->mask[segment / 64] &= ~(1ull << (segment % 64));
    for (unsigned i = 0; i < UDP_SEGMENTS_MAX / 64; i++) {
        if (node->mask[i] != 0)
            return;
    }
    q->head = node->next;
    if (q->head == NONE32)
        q->tail = NONE32;
    if (--u->buffer[b].nodes == 0)
        buffer_free(u, b);
}

bool udp_next(struct worker *w, unsigned class, struct datagram *ret)
{
    uint32_t b, segment;

    if (!queue_first(&w->udp, class, &b, &segment))
        return false;
    *ret = datagram_of(&w->udp, b, segment);
    return true;
}

void udp_done(struct worker *w, unsigned class)
{
    uint32_t b, segment;

    if (queue_first(&w->udp, class, &b, &segment))
        queue_take(&w->udp, class, b, segment);
}

static void drop_first(struct worker *w, unsigned class, enum datagram_drop reason)
{
    struct datagram d;

    if (!udp_next(w, class, &d))
        return;
    receive_drop(w, reason, &d);
    udp_done(w, class);
}

/* Behind: the lowest class makes room, oldest first. */
void udp_shed(struct worker *w)
{
    struct udp *u = &w->udp;

    for (unsigned class = WORKER_CLASSES; u->n > 0 && class -- > 0;) {
        while (u->free_n + u->published < u->low_water && u->queue[class].head != NONE32)
            drop_first(w, class, DROP_OVERLOAD_0 + class);
    }
}

bool udp_waiting(const struct worker *w, unsigned class)
{
    return w->udp.n > 0 && w->udp.queue[class].head != NONE32;
}

void udp_turn_end(struct worker *w)
{
    if (w->udp.n == 0)
        return;
    publish(w);
    udp_arm(w);
}

/* What was sent before the drain began is taken; what comes after the sockets were once empty is
 * counted as STOPPING. */
void udp_drain_step(struct worker *w)
{
    struct udp *u = &w->udp;
    bool empty = receive_empty(w) && io_uring_cq_ready(&w->ring) == 0;

    if (u->stopped)
        return;
    for (uint32_t i = 0; i < u->n && empty; i++) {
        uint32_t info[SK_MEMINFO_VARS];
        socklen_t len = sizeof info;

        empty = getsockopt(u->at[i].fd, SOL_SOCKET, SO_MEMINFO, info, &len) == 0 &&
                info[SK_MEMINFO_RMEM_ALLOC] == 0;
    }
    if (!empty && w->now_ns < u->drain_until_ns)
        return;
    u->stopped = true;
    afxdp_stop(w);
    for (unsigned class = 0; class < WORKER_CLASSES; class ++) {
        while (u->n > 0 && u->queue[class].head != NONE32)
            drop_first(w, class, DROP_STOPPING);
    }
}
