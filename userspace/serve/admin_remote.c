/*
 * admin_remote.c - the admin server's connections over mutual TLS: how they begin, and what they
 * may ask.
 *
 * Thread:  the server's.
 * Errors:  whoever is refused is reported, one line a second at most.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/report.h"
#include "serve/admin_connection.h"

#define BACKLOG             64
#define KEEPALIVE_IDLE_S    60 /* a tail may be silent for long: is anybody there? */
#define KEEPALIVE_PROBE_S   10
#define KEEPALIVE_PROBES    3
#define REFUSAL_INTERVAL_NS NS_PER_S

int remote_listen(const struct in6_addr *ip, uint16_t port, char error[ADMIN_OPEN_ERROR_BYTES])
{
    struct sockaddr_in a4 = { .sin_family = AF_INET, .sin_port = htons(port) };
    struct sockaddr_in6 a6 = { .sin6_family = AF_INET6,
                               .sin6_port = htons(port),
                               .sin6_addr = *ip };
    bool v4 = IN6_IS_ADDR_V4MAPPED(ip);
    int fd = socket(v4 ? AF_INET : AF_INET6, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    char text[INET6_ADDRSTRLEN] = "?";
    int one = 1, rc;

    memcpy(&a4.sin_addr, ip->s6_addr + 12, 4);
    if (fd >= 0 && setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one) == 0 &&
        (v4 || setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof one) == 0) &&
        bind(fd, v4 ? (struct sockaddr *)&a4 : (struct sockaddr *)&a6,
             v4 ? sizeof a4 : sizeof a6) == 0 &&
        listen(fd, BACKLOG) == 0)
        return fd;
    rc = -errno;
    (void)inet_ntop(v4 ? AF_INET : AF_INET6, v4 ? (void *)&a4.sin_addr : (void *)ip, text,
                    sizeof text);
    snprintf(error, ADMIN_OPEN_ERROR_BYTES, "admin.listen: %s port %u: %s", text, port,
             strerror(-rc));
    if (fd >= 0)
        close(fd);
    return rc;
}

int remote_begin(struct admin_connection *c, struct tls_context *tls)
{
    int one = 1, idle = KEEPALIVE_IDLE_S, probe = KEEPALIVE_PROBE_S, probes = KEEPALIVE_PROBES;

    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    (void)setsockopt(c->fd, SOL_SOCKET, SO_KEEPALIVE, &one, sizeof one);
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof idle);
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPINTVL, &probe, sizeof probe);
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    return tls_new_fd(&c->tls, tls, true, c->fd);
}

static void report(const struct admin_connection *c, const char *why)
{
    static struct report_limit limit;
    char from[INET6_ADDRSTRLEN] = "?";
    struct sockaddr_in6 peer = { 0 };
    socklen_t bytes = sizeof peer;

    if (getpeername(c->fd, (struct sockaddr *)&peer, &bytes) == 0)
        (void)inet_ntop(peer.sin6_family,
                        peer.sin6_family == AF_INET
                            ? (void *)&((struct sockaddr_in *)&peer)->sin_addr
                            : (void *)&peer.sin6_addr,
                        from, sizeof from);
    report_every(&limit, REFUSAL_INTERVAL_NS, REPORT_WARN, "admin_refused", "%s: %s", from, why);
}

void remote_handshake(struct admin_connection *c)
{
    int rc = tls_handshake(c->tls);

    if (rc == -EAGAIN)
        return;
    if (rc < 0) {
        report(c, tls_error(c->tls));
        c->broken = true;
        return;
    }
    c->role = tls_peer(c->tls)->role;
    snprintf(c->name, sizeof c->name, "%s", tls_peer(c->tls)->name);
    if (c->role != CERTIFICATE_ADMIN && c->role != CERTIFICATE_READER)
        report(c, "neither an admin nor a reader"); /* each of its requests is told, too */
}

void remote_expire(struct admin_answerer *a, struct admin_connection *c)
{
    if (c->tls == NULL || c->closing || !tls_peer_expired(c->tls, clock_unix_ns()))
        return;
    report(c, "the certificate has expired");
    tap_stop(a, c);
    c->tail.on = false;
    connection_fail(c, EACCES, true, "your certificate has expired");
}

bool remote_may(const struct admin_connection *c, uint32_t which)
{
    if (c->role == CERTIFICATE_ADMIN)
        return true;
    if (c->role != CERTIFICATE_READER)
        return false;
    switch (which) {
    case ADMIN_STATUS:
    case ADMIN_LEDGER:
    case ADMIN_GET:
    case ADMIN_TAIL:
    case ADMIN_SETTINGS:
    case ADMIN_XDP_STATUS:
    case ADMIN_CLUSTER_STATUS:
    case ADMIN_READ_POINT:
        return true;
    default: /* what changes something, and what says more than the log: files, dropped datagrams */
        return false;
    }
}
