/*
 * worker.c - the worker's loop, its ring, and what other threads ask of it.
 *
 * A turn: answered blocks back, completions sorted to their owners, UDP served by class, paused
 * connections resumed, the open block handed over when it is time, buffers returned, everything
 * submitted in one system call. When a turn has left nothing to do the thread sleeps in that call
 * until a completion, the cluster's or a control call's wake-up, or the next deadline.
 *
 * Thread:  worker_run() and what it calls are the worker's thread. The public functions set atomics
 *          and wake it.
 * Memory:  everything is allocated in worker_open().
 * Errors:  come from worker_open() and worker_start(); after that a failing io_uring_enter() is the
 *          only one, and it ends the program: the node cannot take events any more.
 */
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <poll.h>
#include <unistd.h>

#include "base/report.h"
#include "ingest/worker_internal.h"

#define SQ_ENTRIES 1024u
#define CQ_ENTRIES 8192u

void worker_note(struct worker *w, const char *format, ...)
{
    size_t used = strlen(w->fallback);
    char text[sizeof w->fallback];
    va_list ap;

    va_start(ap, format);
    vsnprintf(text, sizeof text, format, ap);
    va_end(ap);
    /* Every socket may have the same to say. */
    if (strstr(w->fallback, text) == NULL)
        snprintf(w->fallback + used, sizeof w->fallback - used, "%s%s", used > 0 ? "; " : "", text);
}

/* --- sockets ------------------------------------------------------------------------------- */

static socklen_t address_of(const struct in6_addr *ip, uint16_t port, struct sockaddr_storage *ret)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;

    memset(ret, 0, sizeof *ret);
    if (IN6_IS_ADDR_V4MAPPED(ip)) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        memcpy(&v4->sin_addr, ip->s6_addr + 12, 4);
        return sizeof *v4;
    }
    v6->sin6_family = AF_INET6;
    v6->sin6_port = htons(port);
    v6->sin6_addr = *ip;
    return sizeof *v6;
}

int worker_bind(struct worker *w, unsigned i, int type, uint16_t port, char error[256])
{
    const struct in6_addr *ip = &w->config->ingest.address.at[i].ip;
    struct sockaddr_storage address;
    socklen_t len = address_of(ip, port, &address);
    char text[INET6_ADDRSTRLEN];
    int one = 1, rc, fd = socket(address.ss_family, type | SOCK_CLOEXEC, 0);
    /* Workers share a port, but not with another daemon, which would silently get half of what
     * comes: so the first one binds alone and lets the others in afterwards. A port that the
     * kernel picks is nobody else's either. */
    int shared = w->config->ingest.port != 0, joins = shared && w->wc.id > 0;

    if (fd < 0 || setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &joins, sizeof joins) < 0 ||
        (type == SOCK_STREAM && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) < 0) ||
        (address.ss_family == AF_INET6 &&
         setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) < 0) ||
        bind(fd, (struct sockaddr *)&address, len) < 0 ||
        setsockopt(fd, SOL_SOCKET, SO_REUSEPORT, &shared, sizeof shared) < 0)
        goto fail;
    return fd;

fail:
    rc = -errno;
    config_address_text(ip, text);
    snprintf(error, 256, "cannot bind %s port %u on %s: %s", type == SOCK_DGRAM ? "UDP" : "TCP",
             port, text, strerror(-rc));
    if (fd >= 0)
        close(fd);
    return rc;
}

uint16_t worker_port_of(int fd)
{
    struct sockaddr_storage a;
    socklen_t len = sizeof a;

    if (getsockname(fd, (struct sockaddr *)&a, &len) < 0)
        return 0;
    if (a.ss_family == AF_INET)
        return ntohs(((struct sockaddr_in *)&a)->sin_port);
    return ntohs(((struct sockaddr_in6 *)&a)->sin6_port);
}

/* --- the ring ------------------------------------------------------------------------------ */

/* A full submission queue is submitted on the spot. What enter() may say in passing (EAGAIN, EBUSY,
 * EINTR) is tried again; anything else cannot be lived with. */
static void check_enter(int rc)
{
    if (rc >= 0 || rc == -ETIME || rc == -EINTR || rc == -EAGAIN || rc == -EBUSY || rc == -ENOMEM)
        return;
    report_error("worker_ring", "io_uring_enter: %s", strerror(-rc));
    abort();
}

struct io_uring_sqe *worker_sqe(struct worker *w)
{
    struct io_uring_sqe *sqe;

    while (!(sqe = io_uring_get_sqe(&w->ring)))
        check_enter(io_uring_submit(&w->ring));
    return sqe;
}

static int ring_open(struct worker *w, char error[256])
{
    struct io_uring_params p = {
        .flags = IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN | IORING_SETUP_R_DISABLED |
                 IORING_SETUP_CQSIZE,
        .cq_entries = CQ_ENTRIES,
    };
    int rc = io_uring_queue_init_params(SQ_ENTRIES, &w->ring, &p);

    if (rc < 0) {
        snprintf(error, 256, "io_uring: %s%s", strerror(-rc),
                 rc == -EINVAL   ? " (Linux 6.1 or newer is needed)"
                 : rc == -EPERM  ? " (see the sysctl kernel.io_uring_disabled)"
                 : rc == -ENOMEM ? " (see the limit of locked memory, ulimit -l)"
                                 : "");
        return rc;
    }
    w->ring_open = true;
    rc = udp_register(w, error);
    return rc < 0 ? rc : stream_register(w, error);
}

static void wake_arm(struct worker *w)
{
    struct io_uring_sqe *sqe;

    if (w->wake_armed)
        return;
    sqe = worker_sqe(w);
    io_uring_prep_poll_multishot(sqe, w->link->wake.fd, POLLIN);
    io_uring_sqe_set_data64(sqe, op_data(OP_WAKE, 0));
    w->wake_armed = true;
}

static void complete(struct worker *w, const struct io_uring_cqe *cqe)
{
    uint32_t index = (uint32_t)cqe->user_data;

    switch ((enum op)(cqe->user_data >> 32)) {
    case OP_WAKE:
        wake_drain(&w->link->wake);
        if (!(cqe->flags & IORING_CQE_F_MORE))
            w->wake_armed = false;
        break;
    case OP_UDP:
        udp_on_receive(w, index, cqe);
        break;
    case OP_RING:
        afxdp_on_poll(w, index, cqe->res);
        break;
    case OP_ACCEPT:
        stream_on_accept(w, index, cqe);
        break;
    case OP_RECV:
        stream_on_receive(w, index, cqe);
        break;
    case OP_SEND:
        stream_on_send(w, index, cqe);
        break;
    case OP_IGNORED:
        break;
    }
}

/* Bounded in number and, because a TCP buffer may hold thousands of events, in events. What is left
 * stays in the completion queue. */
static void complete_all(struct worker *w)
{
    struct io_uring_cqe *cqe;
    unsigned head, n = 0;

    w->tcp.turn_events = 0;
    io_uring_for_each_cqe(&w->ring, head, cqe)
    {
        if (n == TURN_CQES_MAX || w->tcp.turn_events >= TURN_EVENTS_MAX)
            break;
        complete(w, cqe);
        n++;
    }
    io_uring_cq_advance(&w->ring, n);
}

/* --- the loop ------------------------------------------------------------------------------ */

static void snapshot_fill(struct worker *w, struct worker_snapshot *ret)
{
    struct ledger *l = &ret->ledger;
    uint64_t waiting[WORKER_CLASSES] = { 0 };

    udp_count_kernel_drops(w);
    afxdp_count(w, waiting);
    *l = w->ledger;
    memcpy(l->ring_waiting, waiting, sizeof waiting);
    for (uint64_t i = w->handed_head; i <= w->handed_tail; i++) {
        const struct block *b = i < w->handed_tail ? w->handed[i & w->handed_mask] : w->stages.open;

        for (unsigned t = 0; b && t < LEDGER_TYPES; t++)
            l->in_flight[t] += b->by_type[t];
    }
    ret->connections = w->tcp.connections;
    ret->blocks_free = w->free_n;
    ret->blocks = w->blocks_n;
    ret->udp_port = w->udp.n > 0 ? worker_port_of(w->udp.at[0].fd) : 0;
    ret->tcp_port = w->tcp.n > 0 ? worker_port_of(w->tcp.at[0].fd) : 0;
    ret->udp_gro = w->udp.gro;
    memcpy(ret->fallback, w->fallback, sizeof ret->fallback);
}

static void control(struct worker *w)
{
    const struct admission *next = atomic_load_explicit(&w->admission_next, memory_order_acquire);

    if (next != w->stages.admission) {
        if (next->shadow && !(w->stages.admission && w->stages.admission->shadow))
            ledger_forget_shadow(&w->ledger);
        w->stages.admission = next;
        atomic_store_explicit(&w->admission_seen, next, memory_order_release);
    }
    if (atomic_load_explicit(&w->drain, memory_order_relaxed) && !w->draining) {
        w->draining = true;
        w->udp.drain_until_ns = w->now_ns + 500 * NS_PER_MS;
        stream_drain(w);
    }
}

static void control_turn_end(struct worker *w)
{
    if (w->draining) {
        udp_drain_step(w);
        if (w->udp.stopped && w->tcp.connections == 0 && w->handed_head == w->handed_tail &&
            hold_is_empty(w) && blocks_deadline_ns(w) == UINT64_MAX)
            atomic_store_explicit(&w->drained, true, memory_order_release);
    }
    if (atomic_load_explicit(&w->snapshot.wanted, memory_order_acquire)) {
        atomic_store_explicit(&w->snapshot.wanted, false, memory_order_relaxed);
        snapshot_fill(w, &w->snapshot.copy);
        sem_post(&w->snapshot.done);
    }
}

static bool control_waiting(struct worker *w)
{
    return atomic_load_explicit(&w->stop, memory_order_relaxed) ||
           atomic_load_explicit(&w->snapshot.wanted, memory_order_relaxed) ||
           (atomic_load_explicit(&w->drain, memory_order_relaxed) && !w->draining) ||
           atomic_load_explicit(&w->admission_next, memory_order_relaxed) != w->stages.admission;
}

/* Is there anything that the next turn could do at once? */
static bool work_waiting(struct worker *w)
{
    bool block = blocks_ready(w);

    return !ring_empty(&w->link->answer) || control_waiting(w) || blocks_answerable(w) ||
           hold_due(w) || (block && (receive_waiting(w) || stream_waiting(w)));
}

static uint64_t deadline_ns(const struct worker *w)
{
    uint64_t at = blocks_deadline_ns(w);

    if (hold_deadline_ns(w) < at)
        at = hold_deadline_ns(w);
    if (stream_sweep_due_ns(w) < at)
        at = stream_sweep_due_ns(w);
    if (w->draining && !w->udp.stopped && w->now_ns + NS_PER_MS < at)
        at = w->now_ns + NS_PER_MS;
    return at;
}

/* Submits, and sleeps when there is nothing to do. */
static void submit(struct worker *w)
{
    struct io_uring_cqe *cqe;
    uint64_t at = deadline_ns(w), now;
    struct __kernel_timespec ts;

    if (io_uring_cq_ready(&w->ring) > 0 || work_waiting(w)) {
        check_enter(io_uring_submit_and_get_events(&w->ring));
        return;
    }
    afxdp_arm(w);
    wake_prepare(&w->link->wake);
    if (work_waiting(w)) {
        wake_done(&w->link->wake);
        check_enter(io_uring_submit_and_get_events(&w->ring));
        return;
    }
    now = clock_monotonic_ns();
    at = at == UINT64_MAX ? UINT64_MAX : at > now ? at - now : 0;
    ts.tv_sec = at == UINT64_MAX ? 3600 : (long long)(at / NS_PER_S);
    ts.tv_nsec = at == UINT64_MAX ? 0 : (long long)(at % NS_PER_S);
    check_enter(io_uring_submit_and_wait_timeout(&w->ring, &cqe, 1, &ts, NULL));
    wake_done(&w->link->wake);
}

/* TCP goes first, as what it has is here already; but while there are too few blocks for both, they
 * take turns at those that come back. */
static void serve(struct worker *w)
{
    bool first = w->datagrams_first;

    if (first)
        receive_serve(w);
    stream_resume(w);
    complete_all(w);
    if (!first)
        receive_serve(w);
}

static void turn(struct worker *w)
{
    w->now_ns = clock_monotonic_ns();
    w->now_unix_ns = clock_unix_ns();
    control(w);
    (void)blocks_collect(w);
    serve(w);
    blocks_turn_end(w);
    udp_turn_end(w);
    afxdp_turn_end(w);
    stream_turn_end(w);
    control_turn_end(w);
    wake_arm(w);
    submit(w);
}

static void *worker_run(void *arg)
{
    struct worker *w = arg;
    char name[16];

    snprintf(name, sizeof name, "worker-%u", w->wc.id);
    (void)pthread_setname_np(pthread_self(), name);
    /* From here on this thread is the ring's single issuer. (io_uring_enable_rings() is declared by
     * liburing 2.3 but not exported.) */
    w->begin_error =
        io_uring_register((unsigned)w->ring.ring_fd, IORING_REGISTER_ENABLE_RINGS, NULL, 0);
    if (w->begin_error < 0) {
        sem_post(&w->begun);
        return NULL;
    }
    sem_post(&w->begun);
    while (!atomic_load_explicit(&w->stop, memory_order_acquire))
        turn(w);
    /* The ring's operations end with the thread that issued them. */
    io_uring_queue_exit(&w->ring);
    w->ring_open = false;
    return NULL;
}

/* --- what others call ---------------------------------------------------------------------- */

static void stages_begin(struct worker *w)
{
    const struct config_stage_ms_max *ms = &w->config->pipeline.stage_ms_max;
    struct stages *s = &w->stages;

    s->ledger = &w->ledger;
    s->stage_ns_max[STAGE_DECODE] = ms->decode * NS_PER_MS;
    s->stage_ns_max[STAGE_VALIDATE] = ms->validate * NS_PER_MS;
    s->stage_ns_max[STAGE_ENRICH] = ms->enrich * NS_PER_MS;
    s->stage_ns_max[STAGE_BATCH] = ms->batch * NS_PER_MS;
    s->limits = w->wc.limits;
    calendars_init(&w->calendars, w->config->calendars);
    s->calendars = &w->calendars;
    s->node = (uint16_t)w->config->node.id;
    s->region = (uint8_t)w->config->node.region;
}

int worker_open(struct worker **ret, const struct worker_config *config, char error[256])
{
    struct worker *w = calloc(1, sizeof *w);
    int rc;

    error[0] = '\0';
    if (!w) {
        snprintf(error, 256, "no memory");
        return -ENOMEM;
    }
    w->wc = *config;
    w->config = config->config;
    w->link = config->link;
    sem_init(&w->begun, 0, 0);
    sem_init(&w->snapshot.done, 0, 0);
    pthread_mutex_init(&w->snapshot.lock, NULL);
    stages_begin(w);
    if (getrandom(w->stages.id_prefix, sizeof w->stages.id_prefix, 0) !=
        (ssize_t)sizeof w->stages.id_prefix) {
        snprintf(error, 256, "no random numbers: %s", strerror(errno));
        rc = -EIO;
        goto fail;
    }
    rc = blocks_open(w, error);
    if (rc < 0)
        goto fail;
    rc = hold_open(w, error);
    if (rc < 0)
        goto fail;
    rc = udp_open(w, error);
    if (rc < 0)
        goto fail;
    rc = stream_open(w, error);
    if (rc < 0)
        goto fail;
    rc = afxdp_open(w);
    if (rc < 0) {
        snprintf(error, 256, "no memory for AF_XDP");
        goto fail;
    }
    rc = ring_open(w, error);
    if (rc < 0)
        goto fail;
    *ret = w;
    return 0;

fail:
    worker_close(w);
    return rc;
}

void worker_set_admission(struct worker *w, const struct admission *admission)
{
    assert(admission);
    atomic_store_explicit(&w->admission_next, admission, memory_order_release);
    wake_up(&w->link->wake);
}

const struct admission *worker_admission_seen(struct worker *w)
{
    return atomic_load_explicit(&w->admission_seen, memory_order_acquire);
}

int worker_start(struct worker *w, const uint8_t *cluster_id, const uint8_t *hash_key)
{
    int rc;

    assert(!w->started && atomic_load(&w->admission_next));
    memcpy(w->cluster_id, cluster_id, sizeof w->cluster_id);
    memcpy(w->stages.hash_key, hash_key, sizeof w->stages.hash_key);
    rc = -pthread_create(&w->thread, NULL, worker_run, w);
    if (rc < 0)
        return rc;
    while (sem_wait(&w->begun) < 0) {
    }
    w->started = true;
    if (w->begin_error >= 0)
        return 0;
    pthread_join(w->thread, NULL);
    w->started = false;
    return w->begin_error;
}

void worker_drain(struct worker *w)
{
    atomic_store_explicit(&w->drain, true, memory_order_release);
    wake_up(&w->link->wake);
}

bool worker_drained(struct worker *w)
{
    return atomic_load_explicit(&w->drained, memory_order_acquire);
}

void worker_snapshot(struct worker *w, struct worker_snapshot *ret)
{
    memset(ret, 0, sizeof *ret);
    pthread_mutex_lock(&w->snapshot.lock);
    if (w->started) {
        atomic_store_explicit(&w->snapshot.wanted, true, memory_order_release);
        wake_up(&w->link->wake);
        while (sem_wait(&w->snapshot.done) < 0) {
        }
        *ret = w->snapshot.copy;
    } else {
        snapshot_fill(w, ret);
    }
    pthread_mutex_unlock(&w->snapshot.lock);
}

void worker_close(struct worker *w)
{
    if (!w)
        return;
    if (w->started) {
        atomic_store_explicit(&w->stop, true, memory_order_release);
        wake_up(&w->link->wake);
        pthread_join(w->thread, NULL);
    }
    if (w->ring_open)
        io_uring_queue_exit(&w->ring);
    udp_close(w);
    afxdp_close(w);
    stream_close(w);
    hold_close(w);
    blocks_close(w);
    sem_destroy(&w->begun);
    sem_destroy(&w->snapshot.done);
    pthread_mutex_destroy(&w->snapshot.lock);
    free(w);
}
