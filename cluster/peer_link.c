/*
 * peer_link.c - one connection between nodes: a socket in the loop, with TLS or without. The
 * cluster thread's.
 */
#include <arpa/inet.h>
#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "cluster/peer_internal.h"

static void on_poll(uv_poll_t *h, int status, int events)
{
    struct peer_link *l = h->data;

    /* What an error is the next read or write says. */
    l->ready(l, status < 0 ? UV_READABLE | UV_WRITABLE : events);
}

static void on_closed(uv_handle_t *h)
{
    struct peer_link *l = h->data;

    tls_free(l->tls);
    close(l->fd);
    free(l);
}

static void link_options(int fd, uint32_t user_timeout_ms)
{
    const int on = 1, idle_s = 5, interval_s = 1, probes = 5;

    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on);
    (void)setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof on);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle_s, sizeof idle_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &interval_s, sizeof interval_s);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof probes);
    (void)setsockopt(fd, IPPROTO_TCP, TCP_USER_TIMEOUT, &user_timeout_ms, sizeof user_timeout_ms);
}

struct peer_link *link_new(struct peers *p, int fd, bool server,
                           void (*ready)(struct peer_link *l, int events), void *owner)
{
    struct peer_link *l = calloc(1, sizeof *l);
    const struct cluster_peering *peering = p->c->config.peering;

    if (l == NULL) {
        close(fd);
        return NULL;
    }
    *l = (struct peer_link){ .fd = fd, .ready = ready, .owner = owner };
    if ((peering->tls != NULL && tls_new_fd(&l->tls, peering->tls, server, fd) < 0) ||
        uv_poll_init(p->loop, &l->poll, fd) < 0) {
        tls_free(l->tls);
        close(fd);
        free(l);
        return NULL;
    }
    l->poll.data = l;
    link_options(fd, peering->user_timeout_ms);
    return l;
}

void link_peer(struct peer_link *l)
{
    struct sockaddr_storage a = { 0 };
    socklen_t n = sizeof a;
    char service[8];

    if (getpeername(l->fd, (struct sockaddr *)&a, &n) == 0)
        (void)getnameinfo((struct sockaddr *)&a, n, l->address, sizeof l->address, service,
                          sizeof service, NI_NUMERICHOST | NI_NUMERICSERV);
}

void link_close(struct peer_link *l)
{
    if (l == NULL)
        return;
    if (l->tls != NULL)
        (void)tls_close_notify(l->tls);
    uv_poll_stop(&l->poll);
    uv_close((uv_handle_t *)&l->poll, on_closed);
}

void link_poll(struct peer_link *l, int events)
{
    assert((events & ~(UV_READABLE | UV_WRITABLE)) == 0);
    if (l->events == events)
        return;
    l->events = events;
    if (events == 0)
        uv_poll_stop(&l->poll);
    else
        uv_poll_start(&l->poll, events, on_poll);
}

int link_handshake(struct peer_link *l)
{
    int e = l->tls != NULL ? tls_handshake(l->tls) : 0;

    if (e == -EAGAIN)
        link_poll(l, tls_wants(l->tls) == POLLOUT ? UV_WRITABLE : UV_READABLE);
    return e;
}

ssize_t link_read(struct peer_link *l, void *buf, size_t n)
{
    ssize_t got;

    assert(n > 0);
    if (l->tls != NULL)
        return tls_read(l->tls, buf, n);
    do {
        got = read(l->fd, buf, n);
    } while (got < 0 && errno == EINTR);
    return got < 0 ? -errno : got;
}

ssize_t link_writev(struct peer_link *l, const struct iovec *iov, int n)
{
    struct msghdr m = { .msg_iov = (struct iovec *)(uintptr_t)iov, .msg_iovlen = (size_t)n };
    ssize_t sent;

    assert(n > 0);
    if (l->tls != NULL)
        return tls_writev(l->tls, iov, n);
    do {
        sent = sendmsg(l->fd, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    } while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

const char *link_error(const struct peer_link *l, ssize_t e)
{
    if (e == 0)
        return "it has closed the connection";
    return l->tls != NULL ? tls_error(l->tls) : strerror((int)-e);
}

const char *link_identity(const struct peer_link *l, uint16_t node)
{
    const struct certificate *who = l->tls != NULL ? tls_peer(l->tls) : NULL;

    assert(l->tls == NULL || who != NULL);
    if (l->tls == NULL)
        return NULL;
    if (who->role != CERTIFICATE_NODE)
        return "its certificate is not one of a node";
    if (node != 0 && who->node != node)
        return "its certificate is that of another node";
    return NULL;
}

bool link_expired(const struct peer_link *l, const struct cluster *c)
{
    return l->tls != NULL && tls_peer_expired(l->tls, node_unix_ns(c));
}

int link_address(const char *host, uint16_t port, struct sockaddr_storage *ret, socklen_t *ret_n)
{
    struct sockaddr_in *v4 = (struct sockaddr_in *)ret;
    struct sockaddr_in6 *v6 = (struct sockaddr_in6 *)ret;

    memset(ret, 0, sizeof *ret);
    if (inet_pton(AF_INET, host, &v4->sin_addr) == 1) {
        v4->sin_family = AF_INET;
        v4->sin_port = htons(port);
        *ret_n = sizeof *v4;
        return 0;
    }
    if (inet_pton(AF_INET6, host, &v6->sin6_addr) == 1) {
        v6->sin6_family = AF_INET6;
        v6->sin6_port = htons(port);
        *ret_n = sizeof *v6;
        return 0;
    }
    return -EINVAL;
}

int link_split(const char *address, char ret_host[PEER_HOST_BYTES], uint16_t *ret_port)
{
    const char *colon = strrchr(address, ':'), *from = address, *to = colon;
    char *end;
    unsigned long port;

    if (colon == NULL || colon == address)
        return -EINVAL;
    if (*from == '[') {
        from++;
        if (*--to != ']')
            return -EINVAL;
    }
    port = strtoul(colon + 1, &end, 10);
    if (colon[1] < '0' || colon[1] > '9' || *end != '\0' || port == 0 || port > UINT16_MAX)
        return -EINVAL;
    if (to <= from || (size_t)(to - from) >= PEER_HOST_BYTES)
        return -EINVAL;
    memcpy(ret_host, from, (size_t)(to - from));
    ret_host[to - from] = '\0';
    *ret_port = (uint16_t)port;
    return 0;
}
