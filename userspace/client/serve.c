/*
 * serve.c - the traffic of one connection: requests out, frames in, time-outs.
 *
 * Requests go out back to back from `unsent`; answers are taken in whatever order they come.
 * Silence ends the connection: receipt_timeout_ms without a receipt while one is due (or four times
 * that for one request, whatever else is answered), output that the peer has not taken for so long,
 * or a ping without a pong. An idle connection is pinged, which keeps a server from closing it and
 * finds a peer that is gone. Thread:  the client's. Memory:  the input buffer, which grows to the
 * longest frame, at most CLIENT_INPUT_BYTES_MAX. Errors:  said in a sentence and returned.
 */
#include "client/internal.h"

#include <assert.h>
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "base/clock.h"
#include "proto/wire.pb.h"

#define WRITE_REQUESTS_MAX 16
#define PATIENCE_TIMES_MAX 4

static int lost(struct sluice_client *c, int rc, const char *why)
{
    if (rc != -ECANCELED)
        client_say(c, 0, "%s: %s", c->connection.peer, why);
    return rc;
}

int serve_tls_lost(struct sluice_client *c, int rc)
{
    client_say(c, 0, "%s: %s", c->connection.peer, tls_error(c->connection.tls));
    if (rc == -EACCES)
        return ++c->refusals >= c->addresses ? -EACCES : -ECONNABORTED;
    c->refusals = 0;
    return rc == -EPROTO ? -EBADMSG : rc; /* another time, another server may be there */
}

/* --- both ways ------------------------------------------------------------------------------ */

/* Bytes taken, or a negative errno. After -EAGAIN the same come again first, as TLS asks for. */
static ssize_t bytes_write(struct connection *conn, struct iovec *iov, int n)
{
    struct msghdr message = { .msg_iov = iov, .msg_iovlen = (size_t)n };
    ssize_t sent;

    if (conn->tls)
        return tls_writev(conn->tls, iov, n);
    do
        sent = sendmsg(conn->fd, &message, MSG_NOSIGNAL);
    while (sent < 0 && errno == EINTR);
    return sent < 0 ? -errno : sent;
}

static ssize_t bytes_read(struct connection *conn, void *to, size_t room)
{
    ssize_t n;

    if (conn->tls)
        return tls_read(conn->tls, to, room);
    do
        n = recv(conn->fd, to, room, 0);
    while (n < 0 && errno == EINTR);
    return n < 0 ? -errno : n;
}

/* --- output --------------------------------------------------------------------------------- */

/* Counts what the socket took: requests that are complete wait for receipts from now on. */
static void requests_sent(struct sluice_client *c, size_t bytes)
{
    struct connection *conn = &c->connection;
    uint64_t now_ns = clock_monotonic_ns();

    conn->written_ns = now_ns;
    pthread_mutex_lock(&c->mutex);
    c->stats.bytes_sent += bytes;
    while (bytes) {
        struct request *r = c->unsent;
        size_t left = r->bytes - conn->offset;

        if (conn->offset == 0) {
            if (r->attempts++ == 0)
                r->first_sent_ns = now_ns;
            else
                c->stats.resent++;
        }
        if (bytes < left) {
            conn->offset += bytes;
            break;
        }
        bytes -= left;
        conn->offset = 0;
        r->sent_ns = now_ns;
        r->connection = conn->number;
        c->unsent = r->next;
    }
    pthread_mutex_unlock(&c->mutex);
}

/* The next requests' bytes; a request that this server would not take is answered instead. */
static int requests_gather(struct sluice_client *c, struct iovec *iov)
{
    struct request *too_large = NULL;
    int n = 0;

    pthread_mutex_lock(&c->mutex);
    for (struct request *r = c->unsent; r && n < WRITE_REQUESTS_MAX; r = r->next) {
        size_t offset = n == 0 ? c->connection.offset : 0;

        if (r->bytes > c->frame_bytes_max || r->events > c->batch_events_max) {
            if (n == 0)
                too_large = r;
            break;
        }
        iov[n++] = (struct iovec){ .iov_base = (void *)(uintptr_t)(r->frame + offset),
                                   .iov_len = r->bytes - offset };
    }
    c->asleep = n == 0 && !too_large;
    pthread_mutex_unlock(&c->mutex);
    if (too_large) {
        struct sluice_receipt receipt = { .status = -EMSGSIZE };

        assert(c->connection.offset == 0);
        client_complete(c, too_large, &receipt);
        return -EAGAIN;
    }
    return n;
}

/* Finishes a ping that was begun. 0 when there is nothing left of it, -EAGAIN, or another error. */
static int control_write(struct connection *conn)
{
    while (conn->control_offset < conn->control_bytes) {
        struct iovec iov = { conn->control + conn->control_offset,
                             conn->control_bytes - conn->control_offset };
        ssize_t n = bytes_write(conn, &iov, 1);

        if (n < 0)
            return (int)n;
        conn->control_offset += (size_t)n;
    }
    conn->control_bytes = conn->control_offset = 0;
    return 0;
}

/* Writes until nothing is left (0) or the socket is full (1). */
static int serve_write(struct sluice_client *c)
{
    struct iovec iov[WRITE_REQUESTS_MAX];
    int rc = control_write(&c->connection);

    if (rc < 0)
        return rc == -EAGAIN ? 1 : rc;
    for (;;) {
        int n = requests_gather(c, iov);

        if (n == 0)
            return 0;
        if (n == -EAGAIN)
            continue;
        ssize_t sent = bytes_write(&c->connection, iov, n);

        if (sent < 0)
            return sent == -EAGAIN ? 1 : (int)sent;
        requests_sent(c, (size_t)sent);
    }
}

static void ping_start(struct sluice_client *c)
{
    struct connection *conn = &c->connection;
    ssize_t bytes = frame_put_ping(conn->control, sizeof(conn->control), ++conn->ping_nonce);

    assert(bytes > 0 && conn->control_bytes == 0 && conn->offset == 0);
    conn->control_bytes = (size_t)bytes;
    conn->ping_waits = true;
    conn->ping_ns = clock_monotonic_ns();
}

/* --- input ---------------------------------------------------------------------------------- */

static int input_grow(struct connection *conn, size_t bytes)
{
    if (bytes <= conn->input_max)
        return 0;
    uint8_t *input = realloc(conn->input, bytes);

    if (!input)
        return -ENOMEM;
    conn->input = input;
    conn->input_max = bytes;
    return 0;
}

static int frames_take(struct sluice_client *c)
{
    struct connection *conn = &c->connection;
    struct frame f = { 0 };
    size_t at = 0;
    int rc;

    while ((rc = frame_parse_server(&f, conn->input + at, conn->input_bytes - at,
                                    CLIENT_INPUT_BYTES_MAX)) == 0) {
        rc = reply_take(c, &f);
        if (rc < 0)
            return rc;
        at += f.frame_bytes;
    }
    if (rc != -EAGAIN)
        return lost(c, -EBADMSG,
                    conn->welcome ? "sent a frame that cannot be"
                                  : "does not speak Sluice's protocol");
    memmove(conn->input, conn->input + at, conn->input_bytes - at);
    conn->input_bytes -= at;
    return input_grow(conn, f.frame_bytes);
}

/* Takes all that is there. 0, or why the connection ended. */
static int serve_read(struct sluice_client *c)
{
    struct connection *conn = &c->connection;

    for (;;) {
        size_t room = conn->input_max - conn->input_bytes;

        assert(room > 0);
        ssize_t n = bytes_read(conn, conn->input + conn->input_bytes, room);

        if (n == -EAGAIN)
            return 0;
        if (n < 0)
            return conn->tls ? serve_tls_lost(c, (int)n) : lost(c, (int)n, strerror((int)-n));
        if (n == 0)
            return lost(c, -ECONNRESET, "closed the connection");
        conn->input_bytes += (size_t)n;
        conn->read_ns = clock_monotonic_ns();
        int rc = frames_take(c);

        /* Of what TLS has read poll() does not know: that is taken to its end. */
        if (rc < 0 || ((size_t)n < room && !conn->tls))
            return rc;
    }
}

/* --- the loop ------------------------------------------------------------------------------- */

static uint64_t earlier(uint64_t a_ns, uint64_t b_ns) { return a_ns < b_ns ? a_ns : b_ns; }
static uint64_t later(uint64_t a_ns, uint64_t b_ns) { return a_ns > b_ns ? a_ns : b_ns; }

/* When something has to be done if nothing happens. *ret_waits: something is awaited from the peer,
 * so that then is too late; else a ping is due then. */
static uint64_t serve_deadline(struct sluice_client *c, bool blocked, bool *ret_waits)
{
    const struct connection *conn = &c->connection;
    uint64_t patience_ns = c->options.receipt_timeout_ms * NS_PER_MS, deadline_ns = UINT64_MAX;

    pthread_mutex_lock(&c->mutex);
    /* Requests are sent in the list's order: the first one waits longest. While others are answered
     * the server is only slow, and to send it everything again would not help; but not for ever. */
    if (c->head && c->head->connection == conn->number)
        deadline_ns = earlier(later(c->head->sent_ns, conn->answered_ns) + patience_ns,
                              c->head->sent_ns + PATIENCE_TIMES_MAX * patience_ns);
    pthread_mutex_unlock(&c->mutex);
    if (blocked && deadline_ns > conn->written_ns + patience_ns)
        deadline_ns = conn->written_ns + patience_ns;
    if (conn->ping_waits && deadline_ns > conn->ping_ns + patience_ns)
        deadline_ns = conn->ping_ns + patience_ns;
    *ret_waits = deadline_ns != UINT64_MAX;
    if (!*ret_waits)
        deadline_ns = later(conn->read_ns, conn->written_ns) + CLIENT_PING_IDLE_MS * NS_PER_MS;
    return deadline_ns;
}

/* What a full socket or a dead one left to read may say why, or hold receipts. */
static int write_failed(struct sluice_client *c, int rc)
{
    int read_rc = serve_read(c);

    return read_rc < 0 ? read_rc : lost(c, rc, strerror(-rc));
}

int serve_run(struct sluice_client *c)
{
    struct connection *conn = &c->connection;
    int rc = frames_take(c); /* what came with the Welcome */

    while (rc == 0) {
        bool waits;

        client_resume(c, clock_monotonic_ns());
        int blocked = serve_write(c);

        if (blocked < 0)
            return write_failed(c, blocked);
        uint64_t deadline_ns = serve_deadline(c, blocked, &waits);
        short events = blocked ? POLLIN | POLLOUT : POLLIN;
        int revents = client_poll(c, conn->fd, events, earlier(deadline_ns, client_due_ns(c)));

        if (client_is_closing(c))
            return -ECANCELED;
        if (revents & ~POLLOUT)
            rc = serve_read(c);
        else if (!revents && clock_monotonic_ns() >= deadline_ns) {
            if (serve_deadline(c, blocked, &waits) > deadline_ns)
                continue; /* a request was queued meanwhile */
            if (waits)
                return lost(c, -ETIMEDOUT, "has not answered in time");
            ping_start(c);
        }
    }
    return rc;
}

int serve_greet(struct sluice_client *c, uint64_t deadline_ns)
{
    struct connection *conn = &c->connection;
    sluice_v1_Hello hello = { .protocol = 1 };
    uint8_t frame[sizeof(hello) + 32];
    ssize_t bytes;

    strcpy(hello.producer, c->producer);
    hello.token.size = (pb_size_t)c->options.token_bytes;
    memcpy(hello.token.bytes, c->token, c->options.token_bytes);
    bytes = frame_put_hello(frame, sizeof(frame), &hello);
    assert(bytes > 0);
    /* A new socket has room for it. */
    if (bytes_write(conn, &(struct iovec){ frame, (size_t)bytes }, 1) != bytes)
        return write_failed(c, -ECONNRESET);
    while (!conn->welcome) {
        int rc = 0;

        if (client_poll(c, conn->fd, POLLIN, deadline_ns))
            rc = serve_read(c);
        else if (client_is_closing(c))
            rc = -ECANCELED;
        else if (clock_monotonic_ns() >= deadline_ns)
            rc = lost(c, -ETIMEDOUT, "has not answered in time");
        if (rc < 0)
            return rc;
    }
    return 0;
}
