/*
 * admin_client.c - see admin_client.h.
 */
#include "cli/admin_client.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define CLIENT_BUF_BYTES (ADMIN_RESPONSE_BYTES_MAX + ADMIN_DELIMITER_MAX)

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

void admin_client_close(struct admin_client *c)
{
    if (c->fd >= 0)
        close(c->fd);
    free(c->buf);
    *c = (struct admin_client){ .fd = -1 };
}

int admin_client_send(struct admin_client *c, const struct admin_request *r)
{
    uint8_t frame[ADMIN_REQUEST_ENCODED_MAX];
    int64_t bytes = admin_request_encode(r, frame, sizeof frame), at = 0;

    if (bytes < 0)
        return (int)bytes;
    while (at < bytes) {
        ssize_t n = send(c->fd, frame + at, (size_t)(bytes - at), MSG_NOSIGNAL);

        if (n < 0 && errno == EINTR)
            continue;
        /* Somebody who is turned away finds the reason in what the daemon has sent. */
        if (n < 0)
            return errno == EPIPE || errno == ECONNRESET ? 0 : -errno;
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
    struct pollfd p = { .fd = c->fd, .events = POLLIN };
    ssize_t n;

    if (c->at > 0) {
        memmove(c->buf, c->buf + c->at, c->bytes - c->at);
        c->bytes -= c->at;
        c->at = 0;
    }
    assert(c->bytes < CLIENT_BUF_BYTES);
    n = poll(&p, 1, timeout_ms);
    if (n == 0)
        return -ETIMEDOUT;
    if (n > 0)
        n = recv(c->fd, c->buf + c->bytes, CLIENT_BUF_BYTES - c->bytes, 0);
    if (n < 0)
        return -errno;
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
