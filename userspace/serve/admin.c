/*
 * admin.c - the admin socket and the loop around its connections; see admin.h.
 *
 * Everything happens in admin_do_work(): poll, accept, then for each connection read, one piece of
 * work, write. The thread only calls it until it is told to stop.
 */
#include "serve/admin.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"
#include "serve/admin_connection.h"

#define ACCEPTS_PER_TURN  8u
#define ACCEPT_BACKOFF_NS (200 * NS_PER_MS) /* after accept() had no descriptor or memory */

enum { POLL_WAKE, POLL_SOCKET, POLL_REMOTE, POLL_FIRST };

struct admin {
    struct admin_config config;
    struct admin_answerer answerer;
    char path[sizeof((struct sockaddr_un *)0)->sun_path];
    int fd, remote_fd;
    bool bound; /* path is ours, and this is what we made: */
    dev_t device;
    ino_t inode;
    struct wake wake;
    bool watching;
    uint64_t accept_after_ns;             /* 0: now */
    struct admin_connection **connection; /* [connections_max], packed */
    struct pollfd *poll;                  /* [connections_max + FIRST] */
    unsigned connections, remote;         /* of them, over TLS */
    _Atomic unsigned connections_seen;
    _Atomic bool stop;
    bool started;
    pthread_t thread;
};

/* Does anybody accept on path? 1, 0, or a negative errno. */
static int socket_answers(const struct sockaddr_un *address)
{
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), rc;

    if (fd < 0)
        return -errno;
    rc = connect(fd, (const struct sockaddr *)address, sizeof *address) < 0 ? -errno : 0;
    close(fd);
    /* A full backlog is somebody's. */
    if (rc == 0 || rc == -EAGAIN)
        return 1;
    return rc == -ECONNREFUSED || rc == -ENOENT ? 0 : rc;
}

/* Makes room for our socket where a dead daemon has left its own. */
static int remove_stale(const struct sockaddr_un *address, char error[ADMIN_OPEN_ERROR_BYTES])
{
    struct stat st;
    int rc;

    if (lstat(address->sun_path, &st) < 0)
        return errno == ENOENT ? 0 : -errno;
    if (!S_ISSOCK(st.st_mode)) {
        snprintf(error, ADMIN_OPEN_ERROR_BYTES, "%s exists and is not a socket", address->sun_path);
        return -EEXIST;
    }
    rc = socket_answers(address);
    if (rc == 0)
        return unlink(address->sun_path) < 0 && errno != ENOENT ? -errno : 0;
    if (rc > 0) {
        snprintf(error, ADMIN_OPEN_ERROR_BYTES, "a daemon answers on %s already",
                 address->sun_path);
        return -EADDRINUSE;
    }
    return rc;
}

static int socket_bind(struct admin *a, char error[ADMIN_OPEN_ERROR_BYTES])
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    mode_t mode = a->config.shared ? 0666 : 0600;
    struct stat st;
    int rc;

    memcpy(address.sun_path, a->path, sizeof address.sun_path);
    rc = remove_stale(&address, error);
    if (rc < 0)
        return rc;
    a->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (a->fd < 0)
        return -errno;
    /* Linux gives the file the mode that the descriptor has: it is never open to others. */
    if (fchmod(a->fd, 0600) < 0 || bind(a->fd, (struct sockaddr *)&address, sizeof address) < 0)
        return -errno;
    if (chmod(a->path, mode) < 0 || lstat(a->path, &st) < 0)
        return -errno;
    a->bound = true;
    a->device = st.st_dev;
    a->inode = st.st_ino;
    return listen(a->fd, 64) < 0 ? -errno : 0;
}

static void config_defaults(struct admin_config *c)
{
    if (c->connections_max == 0)
        c->connections_max = 32;
    if (c->connections_max > ADMIN_CONNECTIONS_MAX)
        c->connections_max = ADMIN_CONNECTIONS_MAX;
    if (c->request_ms_max == 0)
        c->request_ms_max = 5000;
    if (c->output_ms_max == 0)
        c->output_ms_max = 30000;
    if (c->idle_ms_max == 0)
        c->idle_ms_max = 300000;
}

int admin_open(struct admin **ret, const struct admin_config *config,
               const struct admin_source *source, char error[ADMIN_OPEN_ERROR_BYTES])
{
    struct admin *a = calloc(1, sizeof *a);
    int rc = -ENOMEM;

    error[0] = '\0';
    if (a == NULL)
        goto fail;
    a->fd = a->remote_fd = a->wake.fd = -1;
    a->config = *config;
    a->answerer.source = *source;
    a->answerer.wake = &a->wake;
    config_defaults(&a->config);
    rc = -ENAMETOOLONG;
    if (strlen(config->path) >= sizeof a->path)
        goto fail;
    memcpy(a->path, config->path, strlen(config->path));
    a->connection = calloc(a->config.connections_max, sizeof *a->connection);
    a->poll = calloc(a->config.connections_max + POLL_FIRST, sizeof *a->poll);
    rc = -ENOMEM;
    if (a->connection == NULL || a->poll == NULL)
        goto fail;
    rc = wake_open(&a->wake);
    if (rc == 0)
        rc = socket_bind(a, error);
    if (rc == 0 && config->tls != NULL) {
        a->remote_fd = remote_listen(&config->ip, config->port, error);
        rc = a->remote_fd < 0 ? a->remote_fd : 0;
    }
    if (rc < 0)
        goto fail;
    *ret = a;
    return 0;
fail:
    if (error[0] == '\0')
        snprintf(error, ADMIN_OPEN_ERROR_BYTES, "admin socket %s: %s%s", config->path,
                 strerror(-rc), rc == -ENAMETOOLONG ? " (admin.socket names another place)" : "");
    admin_close(a);
    return rc;
}

/* One sentence to somebody who is not taken. What does not fit at once is not sent. */
static void turn_away(int fd, int code, const char *sentence)
{
    uint8_t frame[ADMIN_ERROR_BYTES + 32];
    int64_t n = admin_response_begin(frame, sizeof frame, sentence, (uint32_t)code, true,
                                     ADMIN_BODY_NONE, 0);

    assert(n > 0);
    if (send(fd, frame, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL) < 0) {
    }
    close(fd);
}

static void take(struct admin *a, int fd, uint64_t now_ns)
{
    struct ucred peer;
    socklen_t bytes = sizeof peer;
    char sentence[ADMIN_ERROR_BYTES];

    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) < 0) {
        close(fd);
        return;
    }
    if (!a->config.allows(a->config.allows_arg, peer.uid)) {
        snprintf(sentence, sizeof sentence, "user %u may not administer this node (admin.uids)",
                 (unsigned)peer.uid);
        turn_away(fd, EACCES, sentence);
        return;
    }
    if (a->connections == a->config.connections_max) {
        snprintf(sentence, sizeof sentence, "all %u admin connections are in use",
                 a->config.connections_max);
        turn_away(fd, EBUSY, sentence);
        return;
    }
    if (connection_open(&a->connection[a->connections], fd, peer.uid, now_ns) < 0) {
        turn_away(fd, ENOMEM, "no memory for another admin connection");
        return;
    }
    a->connections++;
}

static void drop(struct admin *a, unsigned i)
{
    struct admin_connection *c = a->connection[i];

    tap_stop(&a->answerer, c);
    operation_leave(c);
    a->remote -= c->tls != NULL;
    connection_close(c);
    a->connection[i] = a->connection[--a->connections];
}

/* Whoever is not known yet gives its place up, the oldest first: so nobody without a certificate
 * keeps an admin out. Is there a place now? */
static bool make_place(struct admin *a)
{
    unsigned max = a->config.connections_max > 1 ? a->config.connections_max / 2 : 1;
    unsigned oldest = a->connections;

    if (a->remote < max && a->connections < a->config.connections_max)
        return true;
    for (unsigned i = 0; i < a->connections; i++) {
        const struct admin_connection *c = a->connection[i];

        if (!connection_is_known(c) &&
            (oldest == a->connections || c->since_ns < a->connection[oldest]->since_ns))
            oldest = i;
    }
    if (oldest == a->connections)
        return false;
    drop(a, oldest);
    return true;
}

static void take_remote(struct admin *a, int fd, uint64_t now_ns)
{
    struct admin_connection *c;

    if (!make_place(a) || connection_open(&c, fd, ADMIN_UID_NOBODY, now_ns) < 0) {
        close(fd);
        return;
    }
    if (remote_begin(c, a->config.tls) < 0) {
        connection_close(c);
        return;
    }
    a->connection[a->connections++] = c;
    a->remote++;
}

static int accept_some(struct admin *a, int from, uint64_t now_ns)
{
    unsigned n;

    for (n = 0; n < ACCEPTS_PER_TURN; n++) {
        int fd = accept4(from, NULL, NULL, SOCK_CLOEXEC | SOCK_NONBLOCK);

        if (fd >= 0) {
            (from == a->fd ? take : take_remote)(a, fd, now_ns);
            continue;
        }
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM || errno == ENOBUFS)
            a->accept_after_ns = now_ns + ACCEPT_BACKOFF_NS;
        if (errno != ECONNABORTED && errno != EINTR)
            break;
    }
    return (int)n;
}

/* Until when may c stay as it is? */
static uint64_t connection_deadline_ns(const struct admin *a, const struct admin_connection *c)
{
    const uint32_t ms[] = {
        [CONNECTION_IDLE] = a->config.idle_ms_max,
        [CONNECTION_REQUEST] = a->config.request_ms_max,
        [CONNECTION_OUTPUT] = a->config.output_ms_max,
    };

    if (c->state == CONNECTION_TAIL)
        return UINT64_MAX;
    return c->since_ns + ms[c->state] * NS_PER_MS;
}

static void expire(struct admin *a, struct admin_connection *c, uint64_t now_ns)
{
    if (connection_deadline_ns(a, c) > now_ns || c->closing) {
        c->broken |= c->closing && connection_deadline_ns(a, c) <= now_ns;
        return;
    }
    if (c->state == CONNECTION_REQUEST && connection_is_known(c)) {
        connection_fail(c, ETIMEDOUT, true, "the request was not complete within %u ms",
                        a->config.request_ms_max);
        connection_flush(c, now_ns);
    } else {
        c->broken = true;
    }
}

/* Has TLS read more than it has given out? */
static bool is_pending(const struct admin_connection *c)
{
    return c->tls != NULL && connection_is_known(c) && tls_pending(c->tls);
}

static int connection_turn(struct admin *a, struct admin_connection *c, short revents,
                           uint64_t now_ns)
{
    int n = 0, work;

    if (!connection_is_known(c) && revents != 0) {
        remote_handshake(c);
        n++;
    }
    if (!connection_is_known(c)) {
        connection_update(c, now_ns);
        expire(a, c, now_ns);
        return n;
    }
    remote_expire(&a->answerer, c);
    if (((revents & (POLLIN | POLLHUP | POLLERR)) != 0 || is_pending(c)) &&
        connection_wants_input(c)) {
        connection_read(c);
        n++;
    } else if ((revents & (POLLERR | POLLHUP | POLLRDHUP)) != 0) {
        c->broken = true;
    }
    work = connection_work(&a->answerer, c, now_ns);
    if (work > 0 && !c->tap.on)
        c->since_ns = now_ns;
    connection_flush(c, now_ns);
    connection_update(c, now_ns);
    expire(a, c, now_ns);
    connection_update(c, now_ns);
    return n + work;
}

/* The source wakes us for commits only while somebody follows the log. */
static void watch_update(struct admin *a)
{
    const struct admin_source *s = &a->answerer.source;
    bool follow = false;
    unsigned i;

    for (i = 0; i < a->connections; i++)
        follow |= a->connection[i]->tail.on && a->connection[i]->tail.request.follow;
    if (follow && !a->watching)
        a->watching = s->watch(s->arg, &a->wake) == 0;
    else if (!follow && a->watching) {
        s->unwatch(s->arg, &a->wake);
        a->watching = false;
    }
    /* Without a watch, followers are refused rather than left to starve. */
    for (i = 0; follow && !a->watching && i < a->connections; i++) {
        struct admin_connection *c = a->connection[i];

        if (!c->tail.on || !c->tail.request.follow)
            continue;
        c->tail.on = false;
        connection_fail(c, EBUSY, false, "the log has too many followers");
    }
}

static int wait_ms(const struct admin *a, int timeout_ms, uint64_t now_ns)
{
    const struct admin_source *s = &a->answerer.source;
    uint64_t commit = s->commit_index(s->arg), until = UINT64_MAX, ms;
    unsigned i;

    if (atomic_load(&a->stop))
        return 0;
    for (i = 0; i < a->connections; i++) {
        uint64_t deadline = connection_deadline_ns(a, a->connection[i]);

        if (connection_runnable(a->connection[i], commit, now_ns) ||
            (is_pending(a->connection[i]) && connection_wants_input(a->connection[i])))
            return 0;
        until = deadline < until ? deadline : until;
        if (a->connection[i]->tap.on && a->connection[i]->tap.next_ns < until)
            until = a->connection[i]->tap.next_ns;
    }
    if (a->accept_after_ns != 0 && a->accept_after_ns < until)
        until = a->accept_after_ns;
    if (until == UINT64_MAX)
        return timeout_ms;
    ms = until > now_ns ? (until - now_ns + NS_PER_MS - 1) / NS_PER_MS : 0;
    return timeout_ms >= 0 && (uint64_t)timeout_ms < ms ? timeout_ms : (int)ms;
}

static void poll_all(struct admin *a, int timeout_ms)
{
    uint64_t now_ns = clock_monotonic_ns();
    unsigned i;

    if (a->accept_after_ns <= now_ns)
        a->accept_after_ns = 0;
    a->poll[POLL_WAKE] = (struct pollfd){ .fd = a->wake.fd, .events = POLLIN };
    a->poll[POLL_SOCKET] =
        (struct pollfd){ .fd = a->accept_after_ns ? -1 : a->fd, .events = POLLIN };
    a->poll[POLL_REMOTE] =
        (struct pollfd){ .fd = a->accept_after_ns ? -1 : a->remote_fd, .events = POLLIN };
    for (i = 0; i < a->connections; i++) {
        const struct admin_connection *c = a->connection[i];
        int events =
            (connection_wants_input(c) ? POLLIN : 0) | (connection_pending(c) > 0 ? POLLOUT : 0);

        /* TCP tells of a peer that has gone with RDHUP, where a Unix socket has HUP. */
        if (c->tls != NULL)
            events = connection_is_known(c) ? events | POLLRDHUP : tls_wants(c->tls);
        a->poll[i + POLL_FIRST] = (struct pollfd){ .fd = c->fd, .events = (short)events };
    }
    wake_prepare(&a->wake);
    if (poll(a->poll, a->connections + POLL_FIRST, wait_ms(a, timeout_ms, now_ns)) < 0) {
        for (i = 0; i < a->connections + POLL_FIRST; i++)
            a->poll[i].revents = 0;
    }
    wake_done(&a->wake);
    if (a->poll[POLL_WAKE].revents != 0)
        wake_drain(&a->wake);
}

int admin_do_work(struct admin *a, int timeout_ms)
{
    uint64_t now_ns;
    unsigned i;
    int n = 0;

    poll_all(a, timeout_ms);
    now_ns = clock_monotonic_ns();
    for (i = 0; i < a->connections; i++)
        n += connection_turn(a, a->connection[i], a->poll[i + POLL_FIRST].revents, now_ns);
    watch_update(a);
    operations_reap(&a->answerer);
    for (i = a->connections; i > 0; i--) {
        if (a->connection[i - 1]->broken)
            drop(a, i - 1);
    }
    if (a->poll[POLL_SOCKET].revents != 0)
        n += accept_some(a, a->fd, now_ns);
    if (a->poll[POLL_REMOTE].revents != 0)
        n += accept_some(a, a->remote_fd, now_ns);
    atomic_store(&a->connections_seen, a->connections);
    return n;
}

static void *admin_thread(void *arg)
{
    struct admin *a = arg;

    pthread_setname_np(pthread_self(), "admin");
    while (!atomic_load(&a->stop))
        admin_do_work(a, -1);
    return NULL;
}

int admin_start(struct admin *a)
{
    int rc;

    assert(!a->started);
    rc = pthread_create(&a->thread, NULL, admin_thread, a);
    a->started = rc == 0;
    return -rc;
}

/* Another daemon may have taken the path in the meantime. */
static void socket_remove(struct admin *a)
{
    struct stat st;

    if (a->bound && lstat(a->path, &st) == 0 && st.st_dev == a->device && st.st_ino == a->inode)
        unlink(a->path);
    if (a->fd >= 0)
        close(a->fd);
}

void admin_close(struct admin *a)
{
    if (a == NULL)
        return;
    if (a->started) {
        atomic_store(&a->stop, true);
        wake_up(&a->wake);
        pthread_join(a->thread, NULL);
    }
    if (a->watching)
        a->answerer.source.unwatch(a->answerer.source.arg, &a->wake);
    while (a->connections > 0)
        drop(a, 0);
    operations_end(&a->answerer);
    socket_remove(a);
    if (a->remote_fd >= 0)
        close(a->remote_fd);
    wake_close(&a->wake);
    free(a->connection);
    free(a->poll);
    free(a);
}

uint16_t admin_port(const struct admin *a)
{
    struct sockaddr_in6 at = { 0 };
    socklen_t bytes = sizeof at;

    if (a->remote_fd < 0 || getsockname(a->remote_fd, (struct sockaddr *)&at, &bytes) < 0)
        return 0;
    return ntohs(at.sin6_port); /* where sin_port is, too */
}

unsigned admin_connections(const struct admin *a) { return atomic_load(&a->connections_seen); }
