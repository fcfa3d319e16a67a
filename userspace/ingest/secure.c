/*
 * secure.c - TLS on a worker's connections: what came is decrypted, output is encrypted.
 *
 * A receive buffer is fed to the connection's TLS in pieces, and what comes out of it goes the way
 * of plaintext, so a connection never keeps the worker waiting. All of a buffer is decrypted at
 * once, also while the connection is paused: what cannot be taken yet waits in its region. The
 * handshake is a part of the time that a client has for its Hello (ingest.tcp.frame_s_max).
 *
 * Producers, admins and nodes may send. A reader gets an Error that says so; whoever has no
 * certificate of our CA gets TLS's own alert, and who speaks no TLS an Error in plaintext.
 *
 * Thread:  the worker's.
 * Memory:  OpenSSL's, and what base/tls.h says, for each connection.
 * Counts:  connections_refused, and one line a second at most.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/report.h"
#include "ingest/worker_internal.h"

#define REPORT_INTERVAL_NS NS_PER_S

static void refused(struct worker *w, const struct connection *c, const char *why)
{
    static struct report_limit limit;
    char from[INET6_ADDRSTRLEN] = "?";
    struct sockaddr_in6 peer = { 0 };
    socklen_t bytes = sizeof peer;

    if (getpeername(c->fd, (struct sockaddr *)&peer, &bytes) == 0) {
        socket_peer_map(&peer);
        config_address_text(&peer.sin6_addr, from);
    }
    w->ledger.connections_refused++;
    report_every(&limit, REPORT_INTERVAL_NS, REPORT_WARN, "client_refused", "%s: %s", from, why);
}

static bool may_send(const struct certificate *who)
{
#ifdef PLANT_TLS_READER_SENDS
    return true;
#endif
    return who->role == CERTIFICATE_PRODUCER || who->role == CERTIFICATE_ADMIN ||
           who->role == CERTIFICATE_NODE;
}

/* Sends TLS's alert. There is none for what is no TLS at all: that is perhaps a client of ours,
 * which understands an Error. */
static void fail(struct worker *w, struct connection *c, int error)
{
    unsigned code = 0;

    if (error == -EPROTO && tls_drainable(c->tls) == 0) {
        tls_free(c->tls);
        c->tls = NULL;
        code = sluice_v1_ErrorCode_ERROR_TLS_REQUIRED;
    }
    connection_finish(w, c, code);
}

/* True once it is done and the client may go on. */
static bool handshake(struct worker *w, struct connection *c)
{
    const struct certificate *who;
    char why[128];
    int rc = tls_handshake(c->tls);

    if (rc == -EAGAIN)
        return false;
    if (rc < 0) {
        refused(w, c, tls_error(c->tls));
        fail(w, c, rc);
        return false;
    }
    who = tls_peer(c->tls);
    if (may_send(who))
        return true;
    snprintf(why, sizeof why, "%s %s may not send events", certificate_role_name(who->role),
             who->name);
    refused(w, c, why);
    connection_finish(w, c, sluice_v1_ErrorCode_ERROR_NOT_PERMITTED);
    return false;
}

static bool is_taken(const struct connection *c)
{
    return c->state == CONN_HELLO || c->state == CONN_OPEN;
}

/* All that TLS has now. */
static void take(struct worker *w, struct connection *c)
{
    ssize_t n;

    if (!tls_is_ready(c->tls) && !handshake(w, c))
        return;
    while (is_taken(c)) {
        n = tls_read(c->tls, w->tcp.plain, TCP_BUFFER_BYTES);
        if (n == -EAGAIN)
            return;
        if (n > 0) {
            stream_bytes(w, c, w->tcp.plain, (size_t)n);
        } else if (n == 0) {
            c->ended = true;
            connection_finish(w, c, 0);
        } else {
            refused(w, c, tls_error(c->tls));
            connection_kill(w, c);
        }
    }
}

void secure_received(struct worker *w, struct connection *c, const uint8_t *data, size_t bytes)
{
    /* Of a connection that has ended, what still comes is thrown away. */
    while (bytes > 0 && is_taken(c)) {
        size_t n = tls_feed(c->tls, data, bytes);

        if (n == 0) { /* no memory: take() leaves nothing behind */
            connection_kill(w, c);
            return;
        }
        data += n;
        bytes -= n;
        take(w, c);
    }
    if (is_taken(c))
        connection_send(w, c); /* the handshake's answers */
}

/* From the circle into TLS, as far as it holds. */
static void encrypt(struct worker *w, struct connection *c)
{
    uint32_t cap = (uint32_t)w->config->ingest.tcp.output_bytes_max;

    while (c->out_bytes > 0 && tls_is_ready(c->tls)) {
        uint8_t *out = connection_out(w, c);
        uint32_t room = cap - c->out_start;
        uint32_t first = c->out_bytes < room ? c->out_bytes : room;
        struct iovec iov[2] = { { out + c->out_start, first }, { out, c->out_bytes - first } };
        ssize_t n = tls_writev(c->tls, iov, 2);

        /* An error here has come up in tls_read() or is a lack of memory: what waits is then not
         * taken, and ingest.tcp.output_s_max ends the connection. */
        if (n <= 0)
            return;
        connection_taken(w, c, (uint32_t)n);
    }
}

uint32_t secure_output(struct worker *w, struct connection *c, const uint8_t **ret)
{
    uint8_t *cipher = connection_out(w, c) + w->tcp.cipher_at;

    if (c->cipher_bytes == 0) {
        encrypt(w, c);
        c->cipher_start = 0;
        c->cipher_bytes = (uint32_t)tls_drain(c->tls, cipher, TLS_HELD_BYTES);
        if (c->cipher_bytes > 0) {
            c->out_touched = (uint32_t)w->tcp.out_bytes;
            c->output_ns = w->now_ns; /* all that was before it has been taken */
        }
    }
    *ret = cipher + c->cipher_start;
    return c->cipher_bytes;
}

void secure_sent(struct connection *c, uint32_t bytes)
{
    assert(bytes <= c->cipher_bytes);
    c->cipher_start += bytes;
    c->cipher_bytes -= bytes;
}
