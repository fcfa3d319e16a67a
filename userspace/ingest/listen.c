/*
 * listen.c - TCP: listeners, memory of all connections, tokens, deadlines.
 *
 * Thread:  stream_open() and stream_close() any; the rest the worker's.
 * Memory:  connections are allocated, their regions mapped and touched when used.
 * Limits:  ingest.tcp.connections_max, or what RLIMIT_NOFILE leaves: one more is told so and
 * closed. Counts:  connections_accepted, _refused, _timed_out.
 */
#include <errno.h>
#include <fcntl.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include "ingest/worker_internal.h"

#define SWEEP_SLOTS      4096u
#define TOKENS_BYTES_MAX (1u << 20)
#define DESCRIPTORS_KEPT 256u /* for the log, the dedupe index and whatever else opens files */

static int tokens_load(struct worker *w, char error[256])
{
    const char *path = w->config->ingest.tcp.tokens_file;
    struct tcp *t = &w->tcp;
    struct stat st;
    ssize_t n;
    int rc, fd;

    if (path[0] == '\0')
        return 0;
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || fstat(fd, &st) < 0)
        goto fail;
    errno = EFBIG;
    if (st.st_size > TOKENS_BYTES_MAX)
        goto fail;
    t->tokens = malloc((size_t)st.st_size + 1);
    if (!t->tokens)
        goto fail;
    n = read(fd, t->tokens, (size_t)st.st_size);
    if (n < 0)
        goto fail;
    t->tokens_bytes = (size_t)n;
    close(fd);
    return 0;

fail:
    rc = -errno;
    snprintf(error, 256, "ingest.tcp.tokens_file %.150s: %s", path, strerror(-rc));
    if (fd >= 0)
        close(fd);
    return rc;
}

static void *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE,
                   -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

static size_t pages(size_t bytes) { return (bytes + 4095) & ~(size_t)4095; }

static int memory_open(struct worker *w, char error[256])
{
    struct tcp *t = &w->tcp;

    /* A frame that is nearly complete, and a buffer behind it. */
    t->in_bytes =
        pages(w->config->ingest.tcp.frame_bytes_max + FRAME_LENGTH_BYTES_MAX + TCP_BUFFER_BYTES);
    t->out_bytes = pages(w->config->ingest.tcp.output_bytes_max);
    t->cipher_at = t->out_bytes;
    if (w->wc.tls != NULL) {
        /* What TLS kept of an earlier buffer comes on top of this one. */
        t->in_bytes += pages(TLS_HELD_BYTES + TLS_RECORD_BYTES);
        t->out_bytes += pages(TLS_HELD_BYTES);
        t->plain = malloc(TCP_BUFFER_BYTES);
    }
    t->free_head = NONE32;
    t->connection = calloc(t->connections_max, sizeof *t->connection);
    for (uint32_t i = t->connection ? t->connections_max : 0; i > 0; i--) {
        t->connection[i - 1] = (struct connection){ .fd = -1, .next = t->free_head };
        t->free_head = i - 1;
    }
    t->memory = map(TCP_BUFFERS * TCP_BUFFER_BYTES);
    t->ring = map(TCP_BUFFERS * sizeof(struct io_uring_buf));
    t->in = map(t->in_bytes * t->connections_max);
    t->out = map(t->out_bytes * t->connections_max);
    if (!t->connection || !t->memory || !t->ring || !t->in || !t->out || (w->wc.tls && !t->plain)) {
        snprintf(error, 256, "no memory for ingest.tcp.connections_max = %u", t->connections_max);
        return -ENOMEM;
    }
    return 0;
}

/* Without a descriptor the log cannot go on, and the node with it: so clients never get the last
 * ones. The kernel accepts all that wait before we see one of them, so those count as well. */
static void limits_init(struct worker *w)
{
    uint64_t listeners = w->config->ingest.address.n, workers = config_workers(w->config);
    uint64_t kept = DESCRIPTORS_KEPT + w->config->admin.connections_max;
    struct tcp *t = &w->tcp;
    struct rlimit limit;
    uint64_t share, room;

    t->backlog = w->config->ingest.tcp.backlog;
    t->connections_max = w->config->ingest.tcp.connections_max;
    if (listeners == 0 || getrlimit(RLIMIT_NOFILE, &limit) < 0)
        return;
    kept += workers * (2 * listeners + 4);
    if (kept > limit.rlim_cur / 2)
        kept = limit.rlim_cur / 2;
    share = (limit.rlim_cur - kept) / workers;
    if (t->backlog > share / (4 * listeners))
        t->backlog = (uint32_t)(share / (4 * listeners));
    room = share - listeners * t->backlog;
    room -= room > listeners ? listeners : 0; /* a backlog of n holds n + 1 */
    if (t->connections_max <= room)
        return;
    t->connections_max = room > 0 ? (uint32_t)room : 1;
    worker_note(w, "%u of %u TCP connections: RLIMIT_NOFILE is %ju", t->connections_max,
                w->config->ingest.tcp.connections_max, (uintmax_t)limit.rlim_cur);
}

int stream_open(struct worker *w, char error[256])
{
    uint16_t port = (uint16_t)w->config->ingest.port;
    struct tcp *t = &w->tcp;
    uint64_t events;
    int rc;

    t->paused_head = t->paused_tail = NONE32;
    if (!w->config->ingest.tcp.enabled)
        return 0;
    limits_init(w);
    /* One receipt must always fit. */
    events = (w->config->ingest.tcp.output_bytes_max - 2 * ERROR_BYTES_MAX - RECEIPT_BYTES_BASE) /
             RECEIPT_BYTES_EVENT;
    t->batch_events_max = events < BATCH_EVENTS_MAX ? (uint32_t)events : BATCH_EVENTS_MAX;
    for (unsigned i = 0; i < w->config->ingest.address.n; i++) {
        int fd = worker_bind(w, i, SOCK_STREAM, port, error);

        if (fd < 0)
            return fd;
        t->at[t->n++] = (struct listener){ .fd = fd };
        port = worker_port_of(fd);
        if (listen(fd, (int)t->backlog) < 0) {
            rc = -errno;
            snprintf(error, 256, "cannot listen on TCP port %u: %s", port, strerror(-rc));
            return rc;
        }
    }
    rc = tokens_load(w, error);
    return rc < 0 ? rc : memory_open(w, error);
}

int stream_register(struct worker *w, char error[256])
{
    struct tcp *t = &w->tcp;
    struct io_uring_buf_reg reg = { .bgid = GROUP_TCP, .ring_entries = TCP_BUFFERS };
    int rc;

    if (t->n == 0)
        return 0;
    reg.ring_addr = (uintptr_t)t->ring;
    rc = io_uring_register_buf_ring(&w->ring, &reg, 0);
    if (rc < 0) {
        snprintf(error, 256, "io_uring buffer ring: %s (Linux 6.1 or newer is needed)",
                 strerror(-rc));
        return rc;
    }
    io_uring_buf_ring_init(t->ring);
    for (unsigned i = 0; i < TCP_BUFFERS; i++)
        io_uring_buf_ring_add(t->ring, t->memory + (size_t)i * TCP_BUFFER_BYTES, TCP_BUFFER_BYTES,
                              (unsigned short)i, TCP_BUFFERS - 1, (int)i);
    io_uring_buf_ring_advance(t->ring, TCP_BUFFERS);
    return 0;
}

static void unmap(void *p, size_t bytes)
{
    if (p)
        munmap(p, bytes);
}

void stream_close(struct worker *w)
{
    struct tcp *t = &w->tcp;

    for (uint32_t i = 0; i < t->n; i++) {
        if (t->at[i].fd >= 0)
            close(t->at[i].fd);
    }
    for (uint32_t i = 0; t->connection && i < t->connections_max; i++) {
        if (t->connection[i].fd >= 0)
            close(t->connection[i].fd);
        tls_free(t->connection[i].tls);
    }
    unmap(t->memory, TCP_BUFFERS * TCP_BUFFER_BYTES);
    unmap(t->ring, TCP_BUFFERS * sizeof(struct io_uring_buf));
    unmap(t->in, t->in_bytes * t->connections_max);
    unmap(t->out, t->out_bytes * t->connections_max);
    free(t->connection);
    free(t->tokens);
    free(t->plain);
}

/* --- accepting ----------------------------------------------------------------------------- */

static void accept_arm(struct worker *w)
{
    struct tcp *t = &w->tcp;

    for (uint32_t i = 0; i < t->n && !t->stopped; i++) {
        struct io_uring_sqe *sqe;

        if (t->at[i].armed || w->now_ns < t->accept_ns)
            continue;
        sqe = worker_sqe(w);
        io_uring_prep_multishot_accept(sqe, t->at[i].fd, NULL, NULL, SOCK_CLOEXEC);
        io_uring_sqe_set_data64(sqe, op_data(OP_ACCEPT, i));
        t->at[i].armed = true;
    }
}

/* Says why, which only plaintext can, and closes. What the client has sent already is read first:
 * unread bytes would turn the close into a reset. */
static void turn_away(struct worker *w, int fd, unsigned error)
{
    uint8_t frame[ERROR_BYTES_MAX], ignored[512];
    size_t bytes = stream_error_frame(error, frame);

    if (w->wc.tls == NULL)
        (void)!send(fd, frame, bytes, MSG_DONTWAIT | MSG_NOSIGNAL);
    (void)shutdown(fd, SHUT_WR);
    (void)!recv(fd, ignored, sizeof ignored, MSG_DONTWAIT);
    close(fd);
    w->ledger.connections_refused++;
}

/* The program in the driver has looked where there is one, but not on every interface. */
static bool is_denied(const struct worker *w, int fd)
{
    const struct source_rules *rules = &w->stages.admission->sources[POLICY_ACTIVE];
    struct sockaddr_in6 peer = { 0 };
    socklen_t len = sizeof peer;

    if (!rules->denies || getpeername(fd, (struct sockaddr *)&peer, &len) < 0)
        return false;
    socket_peer_map(&peer);
    return admission_source(rules, &peer.sin6_addr) == SOURCE_DENY;
}

void stream_on_accept(struct worker *w, uint32_t at, const struct io_uring_cqe *cqe)
{
    struct tcp *t = &w->tcp;
    struct tls *tls = NULL;
    int one = 1;

    if (!(cqe->flags & IORING_CQE_F_MORE))
        t->at[at].armed = false;
    if (cqe->res < 0) {
        /* No descriptors or no memory: it would fail again at once. */
        if (cqe->res == -EMFILE || cqe->res == -ENFILE || cqe->res == -ENOMEM ||
            cqe->res == -ENOBUFS)
            t->accept_ns = w->now_ns + SWEEP_INTERVAL_NS;
        return;
    }
    if (is_denied(w, cqe->res)) {
        close(cqe->res);
        w->ledger.connections_refused++;
        w->ledger.connections_denied++;
        return;
    }
    w->ledger.connections_accepted++;
    (void)setsockopt(cqe->res, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (t->stopped)
        turn_away(w, cqe->res, sluice_v1_ErrorCode_ERROR_STOPPING);
    else if (t->free_head == NONE32 ||
             (w->wc.tls != NULL && tls_new_memory(&tls, w->wc.tls, true) < 0))
        turn_away(w, cqe->res, sluice_v1_ErrorCode_ERROR_TOO_MANY_CONNECTIONS);
    else
        connection_start(w, cqe->res, tls);
}

/* No more connections; those that are there get what is owed to them and are told. */
void stream_drain(struct worker *w)
{
    struct tcp *t = &w->tcp;

    t->stopped = true;
    for (uint32_t i = 0; i < t->n; i++) {
        struct io_uring_sqe *sqe;

        (void)shutdown(t->at[i].fd, SHUT_RD); /* refuses from now on */
        if (!t->at[i].armed)
            continue;
        sqe = worker_sqe(w);
        io_uring_prep_cancel64(sqe, op_data(OP_ACCEPT, i), 0);
        io_uring_sqe_set_data64(sqe, op_data(OP_IGNORED, 0));
    }
    for (uint32_t i = 0; i < t->connections_max && t->n > 0; i++)
        connection_finish(w, &t->connection[i], sluice_v1_ErrorCode_ERROR_STOPPING);
}

/* --- deadlines ----------------------------------------------------------------------------- */

static void timed_out(struct worker *w, struct connection *c, unsigned error)
{
    w->ledger.connections_timed_out++;
    if (error == 0)
        connection_kill(w, c);
    else
        connection_finish(w, c, error);
}

static void look_at(struct worker *w, struct connection *c)
{
    const struct config_tcp *limit = &w->config->ingest.tcp;
    uint64_t now = w->now_ns, frame_max = limit->frame_s_max * NS_PER_S;

    if (connection_owes(c) && now - c->output_ns > limit->output_s_max * NS_PER_S)
        timed_out(w, c, 0);
    else if (c->state == CONN_LINGER && now > c->linger_ns)
        connection_kill(w, c);
    else if (c->state == CONN_HELLO && now - c->active_ns > frame_max)
        timed_out(w, c, sluice_v1_ErrorCode_ERROR_FRAME_TIMEOUT);
    else if (c->state == CONN_OPEN && c->frame_ns > 0 && now - c->frame_ns > frame_max)
        timed_out(w, c, sluice_v1_ErrorCode_ERROR_FRAME_TIMEOUT);
    else if (c->state == CONN_OPEN && c->requests == 0 && c->pause == PAUSE_NONE &&
             now - c->active_ns > limit->idle_s_max * NS_PER_S)
        timed_out(w, c, sluice_v1_ErrorCode_ERROR_IDLE_TIMEOUT);
    else if (c->state == CONN_OPEN && c->tls != NULL && tls_peer_expired(c->tls, w->now_unix_ns))
        connection_finish(w, c, sluice_v1_ErrorCode_ERROR_NOT_PERMITTED);
    else if (c->state == CONN_OPEN && now - c->active_ns > NS_PER_S)
        connection_trim(w, c);
}

uint64_t stream_sweep_due_ns(const struct worker *w)
{
    const struct tcp *t = &w->tcp;
    bool accept = t->n > 0 && w->now_ns < t->accept_ns && !t->stopped;

    return t->connections > 0 || accept ? t->sweep_ns : UINT64_MAX;
}

/* A part of the connections at a time, so that a turn stays short. */
static void sweep(struct worker *w)
{
    struct tcp *t = &w->tcp;
    uint32_t n = t->connections_max < SWEEP_SLOTS ? t->connections_max : SWEEP_SLOTS;

    if (w->now_ns < t->sweep_ns)
        return;
    t->sweep_ns = w->now_ns + SWEEP_INTERVAL_NS;
    for (; n > 0 && t->connections > 0; n--) {
        struct connection *c = &t->connection[t->sweep_at];

        t->sweep_at = t->sweep_at + 1 == t->connections_max ? 0 : t->sweep_at + 1;
        if (c->state != CONN_FREE && c->state != CONN_DEAD)
            look_at(w, c);
    }
}

void stream_turn_end(struct worker *w)
{
    if (w->tcp.n == 0)
        return;
    sweep(w);
    accept_arm(w);
}
