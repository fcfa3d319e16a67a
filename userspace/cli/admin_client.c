/*
 * admin_client.c - see admin_client.h.
 */
#include "cli/admin_client.h"

#include <assert.h>
#include <errno.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/clock.h"

#define CLIENT_BUF_BYTES (ADMIN_RESPONSE_BYTES_MAX + ADMIN_DELIMITER_MAX)
#define CONNECT_MS_MAX   10000 /* to connect and shake hands */

int admin_client_open(struct admin_client *ret, const char *path)
{
    struct sockaddr_un address = { .sun_family = AF_UNIX };
    int rc;

    *ret = (struct admin_client){ .fd = -1 };
    if (strlen(path) >= sizeof address.sun_path)
        return -ENAMETOOLONG;
    memcpy(address.sun_path, path, strlen(path));
    ret->buf = malloc(CLIENT_BUF_BYTES);
    if (ret->buf == NULL)
        return -ENOMEM;
    ret->fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    rc = ret->fd < 0 ? -errno : 0;
    if (rc == 0 && connect(ret->fd, (struct sockaddr *)&address, sizeof address) < 0)
        rc = -errno;
    if (rc < 0)
        admin_client_close(ret);
    return rc;
}

/* --- over TLS ------------------------------------------------------------------------------- */

/* HOST:PORT into a new copy of it; the port is behind its first NUL. NULL when it is not. */
static char *address_split(const char *address, const char **ret_port)
{
    const char *colon = strrchr(address, ':');
    size_t host = colon ? (size_t)(colon - address) : 0;
    char *copy;

    if (host == 0 || colon[1] == '\0')
        return NULL;
    if (address[0] == '[' && address[host - 1] == ']') {
        address++;
        host -= 2;
    } else if (memchr(address, ':', host) != NULL) {
        return NULL; /* IPv6 without brackets */
    }
    copy = host > 0 ? strdup(address) : NULL;
    if (copy == NULL)
        return NULL;
    *ret_port = strrchr(copy, ':') + 1;
    copy[host] = '\0';
    return copy;
}

static int wait_for(int fd, short events, uint64_t deadline_ns)
{
    struct pollfd p = { .fd = fd, .events = events };

    for (;;) {
        uint64_t now = clock_monotonic_ns();
        int rc = now < deadline_ns ? poll(&p, 1, (int)((deadline_ns - now) / NS_PER_MS) + 1) : 0;

        if (rc > 0)
            return 0;
        if (rc == 0)
            return -ETIMEDOUT;
        if (errno != EINTR)
            return -errno;
    }
}

/* A connected socket that does not block, or a negative errno. */
static int dial(const struct addrinfo *to, uint64_t deadline_ns)
{
    int fd = socket(to->ai_family, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), rc = 0, one = 1;
    socklen_t bytes = sizeof rc;

    if (fd < 0)
        return -errno;
    (void)setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof one);
    if (connect(fd, to->ai_addr, to->ai_addrlen) < 0)
        rc = errno == EINPROGRESS ? wait_for(fd, POLLOUT, deadline_ns) : -errno;
    if (rc == 0 && getsockopt(fd, SOL_SOCKET, SO_ERROR, &rc, &bytes) == 0)
        rc = -rc;
    if (rc == 0)
        return fd;
    close(fd);
    return rc;
}

static int dial_all(const char *address, uint64_t deadline_ns, char error[ADMIN_CLIENT_ERROR_BYTES])
{
    struct addrinfo hints = { .ai_socktype = SOCK_STREAM, .ai_flags = AI_NUMERICSERV }, *list;
    const char *port;
    char *host = address_split(address, &port);
    int rc;

    if (host == NULL) {
        snprintf(error, ADMIN_CLIENT_ERROR_BYTES, "'%.200s' is not HOST:PORT", address);
        return -EINVAL;
    }
    rc = getaddrinfo(host, port, &hints, &list);
    free(host);
    if (rc != 0) {
        snprintf(error, ADMIN_CLIENT_ERROR_BYTES, "%.200s: %s", address, gai_strerror(rc));
        return -EHOSTUNREACH;
    }
    rc = -EHOSTUNREACH;
    for (const struct addrinfo *to = list; to != NULL && rc < 0; to = to->ai_next)
        rc = dial(to, deadline_ns);
    freeaddrinfo(list);
    if (rc < 0)
        snprintf(error, ADMIN_CLIENT_ERROR_BYTES, "no daemon answers at %.200s: %s", address,
                 strerror(-rc));
    return rc;
}

static int handshake(struct admin_client *c, const char *address, uint64_t deadline_ns,
                     char error[ADMIN_CLIENT_ERROR_BYTES])
{
    int rc;

    while ((rc = tls_handshake(c->tls)) == -EAGAIN) {
        rc = wait_for(c->fd, tls_wants(c->tls), deadline_ns);
        if (rc < 0) {
            snprintf(error, ADMIN_CLIENT_ERROR_BYTES, "%.200s does not answer: %s", address,
                     strerror(-rc));
            return rc;
        }
    }
    if (rc < 0)
        snprintf(error, ADMIN_CLIENT_ERROR_BYTES, "%.200s: %s", address, tls_error(c->tls));
    return rc;
}

int admin_client_open_tls(struct admin_client *ret, const char *address,
                          const struct tls_files *files, char error[ADMIN_CLIENT_ERROR_BYTES])
{
    uint64_t deadline_ns = clock_monotonic_ns() + CONNECT_MS_MAX * NS_PER_MS;
    struct tls_context *x;
    char sentence[TLS_ERROR_BYTES];
    int rc;

    *ret = (struct admin_client){ .fd = -1 };
    rc = tls_context_new(&x, files, sentence);
    if (rc < 0) {
        snprintf(error, ADMIN_CLIENT_ERROR_BYTES, "%s", sentence);
        return -EINVAL;
    }
    snprintf(error, ADMIN_CLIENT_ERROR_BYTES, "no memory");
    ret->buf = malloc(CLIENT_BUF_BYTES);
    rc = ret->buf == NULL ? -ENOMEM : dial_all(address, deadline_ns, error);
    if (rc >= 0) {
        ret->fd = rc;
        rc = tls_new_fd(&ret->tls, x, false, ret->fd);
    }
    if (rc == 0)
        rc = handshake(ret, address, deadline_ns, error);
    tls_context_free(x);
    if (rc < 0)
        admin_client_close(ret);
    return rc;
}

const char *admin_client_error(const struct admin_client *c)
{
    return c->tls != NULL && tls_error(c->tls)[0] != '\0' ? tls_error(c->tls) : NULL;
}

/* --- both ----------------------------------------------------------------------------------- */

void admin_client_close(struct admin_client *c)
{
    if (c->tls != NULL)
        (void)tls_close_notify(c->tls);
    tls_free(c->tls);
    if (c->fd >= 0)
        close(c->fd);
    free(c->buf);
    *c = (struct admin_client){ .fd = -1 };
}

static ssize_t client_write(struct admin_client *c, const void *data, size_t bytes)
{
    struct iovec iov = { (void *)(uintptr_t)data, bytes };
    ssize_t n;

    if (c->tls == NULL) {
        n = send(c->fd, data, bytes, MSG_NOSIGNAL);
        return n < 0 ? -errno : n;
    }
    while ((n = tls_writev(c->tls, &iov, 1)) == -EAGAIN) {
        int rc =
            wait_for(c->fd, tls_wants(c->tls), clock_monotonic_ns() + CONNECT_MS_MAX * NS_PER_MS);

        if (rc < 0)
            return rc;
    }
    return n;
}

/* What there is, after a wait of at most timeout_ms (-1: for ever). 0 is the end. */
static ssize_t client_read(struct admin_client *c, void *to, size_t bytes, int timeout_ms)
{
    struct pollfd p = { .fd = c->fd, .events = POLLIN };
    ssize_t n = c->tls != NULL ? tls_read(c->tls, to, bytes) : -EAGAIN;

    while (n == -EAGAIN) {
        if (c->tls != NULL)
            p.events = tls_wants(c->tls);
        n = poll(&p, 1, timeout_ms);
        if (n <= 0)
            return n == 0 ? -ETIMEDOUT : -errno;
        if (c->tls != NULL)
            n = tls_read(c->tls, to, bytes);
        else
            n = recv(c->fd, to, bytes, 0);
        if (n < 0 && c->tls == NULL)
            n = -errno;
    }
    return n;
}

int admin_client_send(struct admin_client *c, const struct admin_request *r)
{
    uint8_t frame[ADMIN_REQUEST_ENCODED_MAX];
    int64_t bytes = admin_request_encode(r, frame, sizeof frame), at = 0;

    if (bytes < 0)
        return (int)bytes;
    while (at < bytes) {
        ssize_t n = client_write(c, frame + at, (size_t)(bytes - at));

        if (n == -EINTR)
            continue;
        /* Somebody who is turned away finds the reason in what the daemon has sent. */
        if (n < 0)
            return n == -EPIPE || n == -ECONNRESET ? 0 : (int)n;
        at += n;
    }
    return 0;
}

static int client_find(const struct admin_client *c, size_t *head, size_t *body)
{
    return admin_frame_find(c->buf + c->at, c->bytes - c->at, ADMIN_RESPONSE_BYTES_MAX, head, body);
}

bool admin_client_ready(const struct admin_client *c)
{
    size_t head, body;

    return client_find(c, &head, &body) != -EAGAIN;
}

/* More bytes into the buffer. */
static int client_fill(struct admin_client *c, int timeout_ms)
{
    ssize_t n;

    if (c->at > 0) {
        memmove(c->buf, c->buf + c->at, c->bytes - c->at);
        c->bytes -= c->at;
        c->at = 0;
    }
    assert(c->bytes < CLIENT_BUF_BYTES);
    n = client_read(c, c->buf + c->bytes, CLIENT_BUF_BYTES - c->bytes, timeout_ms);
    if (n < 0)
        return (int)n;
    if (n == 0)
        return -ECONNRESET;
    c->bytes += (size_t)n;
    return 0;
}

int admin_client_next(struct admin_client *c, int timeout_ms, struct admin_response *ret)
{
    size_t head, body;
    int rc;

    while ((rc = client_find(c, &head, &body)) == -EAGAIN) {
        rc = client_fill(c, timeout_ms);
        if (rc < 0)
            return rc;
    }
    if (rc < 0)
        return rc;
    rc = admin_response_decode(ret, c->buf + c->at + head, body);
    c->at += head + body;
    return rc;
}
