/*
 * connect.c - one connection after the other: addresses in turn, back-off, the end.
 *
 * Thread:  the client's own; this is its main loop.
 * Memory:  none but what getaddrinfo() takes and gives back.
 * Errors:  whatever a connection ends in is said in one sentence and followed by the next attempt,
 *          except -EACCES and -EPROTO, which end the client.
 */
#include "client/internal.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"

#define BACKOFF_MS_MIN   20u
#define BACKOFF_STEPS    16u
#define DEADLINE_NEVER_S 3600u /* the end wakes us; this only bounds one wait */

/* --- addresses ------------------------------------------------------------------------------ */

static int address_parse(struct address *ret, const char *text, size_t bytes)
{
    const char *host = text, *colon = memrchr(text, ':', bytes);
    unsigned long port = 0;

    if (!colon || colon == text)
        return -EINVAL;
    size_t host_bytes = (size_t)(colon - text), port_bytes = bytes - host_bytes - 1;

    if (*host == '[') {
        if (host_bytes < 3 || host[host_bytes - 1] != ']')
            return -EINVAL;
        host++;
        host_bytes -= 2;
    } else if (memchr(host, ':', host_bytes)) {
        return -EINVAL; /* IPv6 without brackets */
    }
    if (host_bytes >= sizeof(ret->host) || port_bytes == 0 || port_bytes > 5)
        return -EINVAL;
    for (size_t i = 0; i < port_bytes; i++) {
        if (colon[1 + i] < '0' || colon[1 + i] > '9')
            return -EINVAL;
        port = 10 * port + (unsigned long)(colon[1 + i] - '0');
    }
    if (port == 0 || port > 65535)
        return -EINVAL;
    memcpy(ret->host, host, host_bytes);
    ret->host[host_bytes] = '\0';
    snprintf(ret->port, sizeof(ret->port), "%lu", port);
    return 0;
}

int connect_parse(struct sluice_client *c, const char *addresses)
{
    const char *at = addresses;

    for (;;) {
        size_t bytes = strcspn(at, ",");

        if (c->addresses == CLIENT_ADDRESSES_MAX ||
            address_parse(&c->address[c->addresses], at, bytes) < 0)
            return -EINVAL;
        c->addresses++;
        if (at[bytes] == '\0')
            return 0;
        at += bytes + 1;
    }
}

/* --- one connection ------------------------------------------------------------------------- */

/* Returns a socket that is connected, or -errno. */
static int socket_connect(struct sluice_client *c, const struct addrinfo *to, uint64_t deadline_ns)
{
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
    int error = 0, one = 1;
    socklen_t bytes = sizeof(error);

    if (fd < 0)
        return -errno;
    if (setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one)) < 0)
        goto fail;
    if (connect(fd, to->ai_addr, to->ai_addrlen) == 0)
        return fd;
    if (errno != EINPROGRESS)
        goto fail;
    while (!client_poll(c, fd, POLLOUT, deadline_ns)) {
        errno = client_is_closing(c) ? ECANCELED : ETIMEDOUT;
        if (errno == ECANCELED || clock_monotonic_ns() >= deadline_ns)
            goto fail;
    }
    if (getsockopt(fd, SOL_SOCKET, SO_ERROR, &error, &bytes) < 0)
        goto fail;
    if (!error)
        return fd;
    errno = error;

fail:
    error = errno;
    close(fd);
    return -error;
}

/* Tries all that the name stands for. Returns a socket, or says why there is none. */
static int address_connect(struct sluice_client *c, const struct address *a, uint64_t deadline_ns)
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV }, *list;
    int rc = getaddrinfo(a->host, a->port, &hints, &list);

    if (rc != 0) {
        client_say(c, 0, "%s: %s", c->connection.peer, gai_strerror(rc));
        return -EHOSTUNREACH;
    }
    rc = -EHOSTUNREACH;
    for (const struct addrinfo *to = list; to && rc < 0 && rc != -ECANCELED; to = to->ai_next)
        rc = socket_connect(c, to, deadline_ns);
    freeaddrinfo(list);
    if (rc < 0 && rc != -ECANCELED)
        client_say(c, 0, "%s: %s", c->connection.peer, strerror(-rc));
    return rc;
}

static int secure(struct sluice_client *c, uint64_t deadline_ns)
{
    struct connection *conn = &c->connection;
    int rc = tls_new_fd(&conn->tls, c->tls, false, conn->fd);

    while (rc == 0 && (rc = tls_handshake(conn->tls)) == -EAGAIN) {
        rc = 0;
        if (client_poll(c, conn->fd, tls_wants(conn->tls), deadline_ns))
            continue;
        if (client_is_closing(c))
            return -ECANCELED;
        if (clock_monotonic_ns() < deadline_ns)
            continue;
        client_say(c, 0, "%s: has not answered in time", conn->peer);
        return -ETIMEDOUT;
    }
    if (!conn->tls)
        client_say(c, 0, "no memory for TLS");
    return rc == 0 || !conn->tls ? rc : serve_tls_lost(c, rc);
}

/* Ends it in good order as far as that takes no time. */
static void connection_close(struct connection *conn)
{
    if (conn->tls)
        (void)tls_close_notify(conn->tls);
    tls_free(conn->tls);
    conn->tls = NULL;
    close(conn->fd);
    conn->fd = -1;
}

/* From connecting to the end of the connection. Results as serve_run(). */
static int connection_run(struct sluice_client *c)
{
    struct connection *conn = &c->connection;
    const struct address *a = &c->address[c->next_address];
    uint64_t now_ns = clock_monotonic_ns();
    uint64_t deadline_ns = now_ns + c->options.connect_timeout_ms * NS_PER_MS;
    int rc;

    c->next_address = (c->next_address + 1) % c->addresses;
    snprintf(conn->peer, sizeof(conn->peer), strchr(a->host, ':') ? "[%s]:%s" : "%s:%s", a->host,
             a->port);
    conn->number++;
    conn->read_ns = conn->written_ns = conn->answered_ns = now_ns;
    conn->ping_waits = conn->welcome = conn->useful = false;
    conn->stray_ns = 0;
    conn->offset = conn->input_bytes = conn->control_bytes = conn->control_offset = 0;
    rc = address_connect(c, a, deadline_ns);
    if (rc < 0)
        return rc;
    conn->fd = rc;
    rc = c->tls ? secure(c, deadline_ns) : 0;
    if (rc == 0)
        rc = serve_greet(c, deadline_ns);
    if (rc == 0) {
        c->refusals = 0;
        pthread_mutex_lock(&c->mutex);
        c->unsent = c->head; /* all that has no receipt goes out again, oldest first */
        c->stats.connects++;
        pthread_mutex_unlock(&c->mutex);
        client_say(c, 1, "connected to %s", conn->peer);
        rc = serve_run(c);
        pthread_mutex_lock(&c->mutex);
        c->stats.disconnects++;
        pthread_mutex_unlock(&c->mutex);
    }
    connection_close(conn);
    return rc;
}

/* xorshift64*: jitter needs to differ between clients, no more. */
uint64_t client_random(struct sluice_client *c)
{
    c->random ^= c->random >> 12;
    c->random ^= c->random << 25;
    c->random ^= c->random >> 27;
    return c->random * 0x2545F4914F6CDD1Dull;
}

/* Doubles once all addresses have failed; half of it is jitter, so that the clients of a server
 * that came back do not come all at once. */
static void backoff_wait(struct sluice_client *c)
{
    unsigned step = c->failures / c->addresses;
    uint64_t wait_ms = (uint64_t)BACKOFF_MS_MIN << (step < BACKOFF_STEPS ? step : BACKOFF_STEPS);

    c->failures++;
    if (wait_ms > c->options.backoff_ms_max)
        wait_ms = c->options.backoff_ms_max;
    uint64_t wait_ns = wait_ms * NS_PER_MS;
    uint64_t until_ns = clock_monotonic_ns() + wait_ns / 2 + client_random(c) % (wait_ns / 2 + 1);

    while (!client_is_closing(c) && clock_monotonic_ns() < until_ns)
        client_poll(c, -1, 0, until_ns);
}

static void client_fail(struct sluice_client *c, int status)
{
    pthread_mutex_lock(&c->mutex);
    c->failed = status;
    pthread_cond_broadcast(&c->room);
    pthread_mutex_unlock(&c->mutex);
    client_complete_all(c, status);
    while (!client_is_closing(c))
        client_poll(c, -1, 0, clock_monotonic_ns() + DEADLINE_NEVER_S * NS_PER_S);
}

void *connect_thread(void *arg)
{
    struct sluice_client *c = arg;

    pthread_setname_np(pthread_self(), "libsluice");
    while (!client_is_closing(c)) {
        int rc = connection_run(c);

        assert(rc < 0);
        if (rc == -EACCES || rc == -EPROTO) {
            client_fail(c, rc);
            break;
        }
        if (c->connection.useful)
            c->failures = 0;
        backoff_wait(c);
    }
    client_complete_all(c, -ECANCELED);
    return NULL;
}
