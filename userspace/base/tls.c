/*
 * tls.c - one connection over TLS; see tls.h.
 *
 * OpenSSL sees neither the descriptor nor the caller's buffers: it reads and writes through a BIO
 * of ours. So both kinds are one, a write never raises SIGPIPE, what is held is bounded, and the
 * end of the bytes, an error of the system and a lack of bytes are told apart here.
 *
 * OpenSSL reads a record's header, then its rest. After it has asked for more than there was,
 * nothing is left in our buffer: so what is left there is always worth another tls_read().
 */
#include <assert.h>
#include <errno.h>
#include <openssl/err.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "base/tls_internal.h"

#define SILENT_RECORDS_MAX 32u /* one after the other without data for us: key updates */

struct held {
    uint8_t *at; /* TLS_HELD_BYTES, or NULL while nothing is held */
    uint32_t start, end;
};

struct tls {
    SSL *ssl;
    int fd; /* -1: in memory */
    bool ready, ended /* no more bytes will come */, shut /* close_notify is on its way */;
    short wants;
    int failed, io_error; /* 0 or a negative errno */
    uint32_t writing;     /* bytes of a write that returned -EAGAIN */
    uint32_t silent;
    uint32_t handshake_bytes;
    struct certificate peer;
    bool peer_known;
    const char *peer_why;
    struct held in, out;
    char error[192];
};

_Static_assert(TLS_HELD_BYTES >= 5 + TLS_RECORD_BYTES + 256, "a record fits (RFC 8446, 5.2)");

/* --- what is held --------------------------------------------------------------------------- */

static size_t held_bytes(const struct held *h) { return h->end - h->start; }

static void held_drop(struct held *h)
{
    assert(h->start == h->end);
    free(h->at);
    *h = (struct held){ .at = NULL };
}

/* Room for up to n bytes behind what is held; 0 when it is full, or without memory. */
static size_t held_room(struct held *h, size_t n)
{
    if (h->at == NULL)
        h->at = malloc(TLS_HELD_BYTES);
    if (h->at == NULL)
        return 0;
    if (h->start == h->end)
        h->start = h->end = 0;
    if (h->start > 0 && TLS_HELD_BYTES - h->end < n) {
        memmove(h->at, h->at + h->start, held_bytes(h));
        h->end -= h->start;
        h->start = 0;
    }
    return n < TLS_HELD_BYTES - h->end ? n : TLS_HELD_BYTES - h->end;
}

static size_t held_put(struct held *h, const void *data, size_t n)
{
    n = held_room(h, n);
    if (n > 0)
        memcpy(h->at + h->end, data, n);
    h->end += (uint32_t)n;
    assert(h->end <= TLS_HELD_BYTES);
    return n;
}

static size_t held_take(struct held *h, void *ret, size_t n)
{
    if (n > held_bytes(h))
        n = held_bytes(h);
    if (n > 0)
        memcpy(ret, h->at + h->start, n);
    h->start += (uint32_t)n;
    assert(h->start <= h->end);
    return n;
}

/* --- OpenSSL's way to the bytes ------------------------------------------------------------- */

/* From the descriptor into the buffer, which is empty. */
static void refill(struct tls *t)
{
    size_t room = held_room(&t->in, TLS_HELD_BYTES);
    ssize_t n = -1;

    errno = ENOMEM;
    if (room > 0)
        do
            n = recv(t->fd, t->in.at, room, MSG_DONTWAIT);
        while (n < 0 && errno == EINTR);
    if (n > 0)
        t->in.end = (uint32_t)n;
    else if (n == 0)
        t->ended = true;
    else if (errno != EAGAIN && errno != EWOULDBLOCK)
        t->io_error = -errno;
}

static int on_read(BIO *b, char *buf, int n)
{
    struct tls *t = BIO_get_data(b);
    size_t got;

    assert(n > 0);
    BIO_clear_retry_flags(b);
    if (held_bytes(&t->in) == 0 && t->fd >= 0 && !t->ended && t->io_error == 0)
        refill(t);
    got = held_take(&t->in, buf, (size_t)n);
    if (!t->ready) {
        t->handshake_bytes += (uint32_t)got;
        if (t->handshake_bytes > TLS_HANDSHAKE_BYTES_MAX) {
            t->io_error = -EMSGSIZE;
            return -1;
        }
    }
    if (got > 0)
        return (int)got;
    if (t->io_error != 0)
        return -1;
    if (t->ended)
        return 0;
    BIO_set_retry_read(b);
    return -1;
}

static int on_write(BIO *b, const char *buf, int n)
{
    struct tls *t = BIO_get_data(b);
    ssize_t put;

    assert(n > 0);
    BIO_clear_retry_flags(b);
    if (t->fd < 0) {
        put = (ssize_t)held_put(&t->out, buf, (size_t)n);
        errno = t->out.at == NULL ? ENOMEM : EAGAIN;
    } else {
        do
            put = send(t->fd, buf, (size_t)n, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (put < 0 && errno == EINTR);
    }
    if (put > 0)
        return (int)put;
    if (errno == EAGAIN || errno == EWOULDBLOCK)
        BIO_set_retry_write(b);
    else
        t->io_error = -errno;
    return -1;
}

static long on_ctrl(BIO *b, int what, long a, void *p)
{
    const struct tls *t = BIO_get_data(b);

    if (what == BIO_CTRL_EOF)
        return t->ended && held_bytes(&t->in) == 0;
    return what == BIO_CTRL_FLUSH;
}

static BIO_METHOD *method;

static void method_make(void)
{
    BIO_METHOD *m = BIO_meth_new(BIO_get_new_index() | BIO_TYPE_SOURCE_SINK, "sluice");

    if (m != NULL && BIO_meth_set_read(m, on_read) == 1 && BIO_meth_set_write(m, on_write) == 1 &&
        BIO_meth_set_ctrl(m, on_ctrl) == 1)
        method = m; /* for as long as the process lives */
    else
        BIO_meth_free(m);
}

/* --- errors --------------------------------------------------------------------------------- */

/* What OpenSSL's reason is to us. Above SSL_AD_REASON_OFFSET it is an alert of the peer's. */
static const struct reason {
    int reason, error;
    const char *text;
} reasons[] = {
    { SSL_R_PEER_DID_NOT_RETURN_A_CERTIFICATE, -EACCES, "the peer has shown no certificate" },
    { SSL_R_WRONG_VERSION_NUMBER, -EPROTO, "the peer does not speak TLS" },
    { SSL_R_HTTP_REQUEST, -EPROTO, "the peer speaks HTTP without TLS" },
    { SSL_R_BAD_RECORD_TYPE, -EPROTO, "the peer does not speak TLS" },
    { SSL_R_PACKET_LENGTH_TOO_LONG, -EPROTO, "the peer does not speak TLS" },
    { SSL_R_RECORD_LENGTH_MISMATCH, -EPROTO, "the peer does not speak TLS" },
    { SSL_R_UNSUPPORTED_PROTOCOL, -EPROTO, "the peer does not speak TLS 1.3" },
    { SSL_R_NO_PROTOCOLS_AVAILABLE, -EPROTO, "the peer does not speak TLS 1.3" },
    { SSL_R_VERSION_TOO_LOW, -EPROTO, "the peer does not speak TLS 1.3" },
    { SSL_R_DECRYPTION_FAILED_OR_BAD_RECORD_MAC, -EPROTO, "what came was changed on its way" },
    { SSL_R_EXCESSIVE_MESSAGE_SIZE, -EPROTO, "the peer's certificates are too long" },
    { SSL_R_TLSV13_ALERT_CERTIFICATE_REQUIRED, -EACCES, "the peer wants a certificate" },
    { SSL_R_SSLV3_ALERT_CERTIFICATE_EXPIRED, -EACCES,
      "the peer does not take our certificate: it has expired, or is not valid yet" },
    { SSL_R_TLSV1_ALERT_UNKNOWN_CA, -EACCES,
      "the peer does not take our certificate: it is not signed by the peer's CA" },
    { SSL_R_SSLV3_ALERT_BAD_CERTIFICATE, -EACCES, "the peer does not take our certificate" },
    { SSL_R_SSLV3_ALERT_UNSUPPORTED_CERTIFICATE, -EACCES,
      "the peer does not take our certificate for this side of a connection" },
    { SSL_R_SSLV3_ALERT_CERTIFICATE_UNKNOWN, -EACCES, "the peer does not take our certificate" },
    { SSL_R_SSLV3_ALERT_HANDSHAKE_FAILURE, -EACCES, "the peer has refused the handshake" },
    { SSL_R_TLSV1_ALERT_DECRYPT_ERROR, -EACCES,
      "the peer does not take our certificate: its signature is not the CA's" },
    { SSL_R_TLSV1_ALERT_PROTOCOL_VERSION, -EPROTO, "the peer does not speak TLS 1.3" },
};

static int fail(struct tls *t, int error, const char *text)
{
    assert(error < 0 && error != -EAGAIN);
    if (t->failed == 0) {
        t->failed = error;
        snprintf(t->error, sizeof t->error, "%s", text);
    }
    ERR_clear_error();
    return t->failed;
}

static int fail_verify(struct tls *t)
{
    char text[sizeof t->error];

    snprintf(text, sizeof text, "the peer's certificate %s",
             t->peer_why ? t->peer_why : tls_verify_text((int)SSL_get_verify_result(t->ssl)));
    return fail(t, -EACCES, text);
}

static int fail_io(struct tls *t)
{
    if (t->io_error == -EMSGSIZE)
        return fail(t, -EPROTO, "the peer's handshake is too long");
    if (t->io_error == -ECONNRESET || t->io_error == -EPIPE)
        return fail(t, -ECONNRESET, "the peer has reset the connection");
    return fail(t, t->io_error, strerror(-t->io_error));
}

static int classify(struct tls *t)
{
    unsigned long e = ERR_peek_error();
    int reason = ERR_GET_LIB(e) == ERR_LIB_SSL ? ERR_GET_REASON(e) : 0;
    char text[sizeof t->error];
    const char *said;

    if (reason == SSL_R_CERTIFICATE_VERIFY_FAILED)
        return fail_verify(t);
    for (size_t i = 0; i < sizeof reasons / sizeof *reasons; i++)
        if (reasons[i].reason == reason)
            return fail(t, reasons[i].error, reasons[i].text);
    if (t->io_error != 0)
        return fail_io(t);
#ifdef PLANT_TLS_CUT_IS_END
    if (t->ended && t->ready)
        return 0;
#endif
    if (t->ended && (e == 0 || reason == SSL_R_UNEXPECTED_EOF_WHILE_READING))
        return fail(t, -ECONNRESET,
                    t->ready ? "the connection was cut: its end was not announced"
                             : "the peer has ended the connection during the handshake");
    said = ERR_reason_error_string(e);
    snprintf(text, sizeof text, "TLS has failed: %s", said ? said : "OpenSSL does not say why");
    return fail(t, -EPROTO, text);
}

/* What a call of OpenSSL's that returned rc <= 0 comes to: -EAGAIN, 0 for a close_notify, or an
 * error. */
static int judge(struct tls *t, int rc)
{
    switch (SSL_get_error(t->ssl, rc)) {
    case SSL_ERROR_WANT_READ:
        t->wants = POLLIN;
        return -EAGAIN;
    case SSL_ERROR_WANT_WRITE:
        t->wants = POLLOUT;
        return -EAGAIN;
    case SSL_ERROR_ZERO_RETURN:
        return 0;
    default:
        return classify(t);
    }
}

/* A write that failed: has the peer said why, before it closed? */
static int judge_write(struct tls *t, int rc)
{
    size_t n;
    char c;

    rc = judge(t, rc);
    if (rc != -ECONNRESET || t->fd < 0)
        return rc;
    t->failed = t->io_error = 0;
    if (SSL_peek_ex(t->ssl, &c, 1, &n) != 1 && judge(t, 0) < 0 && t->failed < 0)
        return t->failed;
    return fail(t, -ECONNRESET, "the peer has reset the connection");
}

/* --- begin and end -------------------------------------------------------------------------- */

/* After OpenSSL's own checks of each certificate, and for the peer's own also ours. */
static int on_verify(int ok, X509_STORE_CTX *store)
{
    SSL *ssl = X509_STORE_CTX_get_ex_data(store, SSL_get_ex_data_X509_STORE_CTX_idx());
    struct tls *t = SSL_get_app_data(ssl);

    if (!ok || X509_STORE_CTX_get_error_depth(store) > 0)
        return ok;
    if (certificate_read(X509_STORE_CTX_get_current_cert(store), &t->peer, &t->peer_why) < 0) {
        X509_STORE_CTX_set_error(store, X509_V_ERR_APPLICATION_VERIFICATION);
        return 0;
    }
    t->peer_known = true;
    return 1;
}

static int new (struct tls **ret, struct tls_context *x, bool server, int fd)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    struct tls *t = calloc(1, sizeof *t);
    BIO *bio = NULL;

    (void)pthread_once(&once, method_make);
    if (t != NULL)
        t->ssl = SSL_new(x->ctx);
    if (t != NULL && method != NULL)
        bio = BIO_new(method);
    if (t == NULL || t->ssl == NULL || bio == NULL) {
        tls_free(t);
        ERR_clear_error();
        return -ENOMEM;
    }
    t->fd = fd;
    t->wants = server ? POLLIN : POLLOUT;
    BIO_set_data(bio, t);
    BIO_set_init(bio, 1);
    SSL_set_bio(t->ssl, bio, bio); /* takes it */
    SSL_set_app_data(t->ssl, t);
    SSL_set_verify(t->ssl, SSL_VERIFY_PEER | SSL_VERIFY_FAIL_IF_NO_PEER_CERT, on_verify);
    if (server)
        SSL_set_accept_state(t->ssl);
    else
        SSL_set_connect_state(t->ssl);
    *ret = t;
    return 0;
}

int tls_new_fd(struct tls **ret, struct tls_context *x, bool server, int fd)
{
    assert(fd >= 0);
    return new (ret, x, server, fd);
}

int tls_new_memory(struct tls **ret, struct tls_context *x, bool server)
{
    return new (ret, x, server, -1);
}

void tls_free(struct tls *t)
{
    if (t == NULL)
        return;
    SSL_free(t->ssl);
    free(t->in.at);
    free(t->out.at);
    free(t);
}

int tls_handshake(struct tls *t)
{
    int rc;

    if (t->failed < 0 || t->ready)
        return t->failed;
    ERR_clear_error();
    rc = SSL_do_handshake(t->ssl);
    if (rc != 1) {
        rc = judge(t, rc);
        if (rc == -EAGAIN && held_bytes(&t->in) == 0)
            held_drop(&t->in);
        return rc == 0 ? fail(t, -ECONNRESET, "the peer has ended the connection") : rc;
    }
    if (!t->peer_known || SSL_version(t->ssl) != TLS1_3_VERSION)
        return fail(t, -EACCES, "the peer has shown no certificate");
    t->ready = true;
    assert(t->peer.role != CERTIFICATE_CA && t->peer.name[0] != '\0');
    return 0;
}

bool tls_is_ready(const struct tls *t) { return t->ready && t->failed == 0; }

const struct certificate *tls_peer(const struct tls *t)
{
    assert(t->ready);
    return &t->peer;
}

bool tls_peer_expired(const struct tls *t, uint64_t now_unix_ns)
{
    return t->ready && (int64_t)(now_unix_ns / NS_PER_S) > t->peer.until_s;
}

short tls_wants(const struct tls *t) { return t->wants; }
const char *tls_error(const struct tls *t) { return t->error; }

/* --- data ----------------------------------------------------------------------------------- */

ssize_t tls_read(struct tls *t, void *buf, size_t n)
{
    size_t total = 0, got;
    int rc = tls_handshake(t);

    assert(n > 0);
    if (rc < 0)
        return rc;
    while (total < n) {
        ERR_clear_error();
        if (SSL_read_ex(t->ssl, (uint8_t *)buf + total, n - total, &got) == 1) {
            total += got;
            t->silent = 0;
            continue;
        }
        rc = judge(t, 0);
        if (rc != -EAGAIN)
            break; /* it will be the same the next time */
        if (held_bytes(&t->in) == 0) {
            held_drop(&t->in);
            break;
        }
        if (++t->silent > SILENT_RECORDS_MAX)
            rc = fail(t, -EPROTO, "the peer sends records without data and no end");
        if (rc != -EAGAIN)
            break;
    }
    return total > 0 ? (ssize_t)total : rc;
}

bool tls_pending(const struct tls *t)
{
    return t->failed == 0 && (SSL_pending(t->ssl) > 0 || held_bytes(&t->in) > 0);
}

/* n bytes behind the first skip of iov[0], in one piece: where they are, or in record. */
static const void *gather(const struct iovec *iov, size_t skip, size_t n,
                          uint8_t record[TLS_RECORD_BYTES])
{
    size_t at = 0;

    assert(n > 0 && n <= TLS_RECORD_BYTES && skip <= iov->iov_len);
    for (; at < n; iov++, skip = 0) {
        size_t part = iov->iov_len - skip < n - at ? iov->iov_len - skip : n - at;

        if (part == n)
            return (const uint8_t *)iov->iov_base + skip;
        if (part > 0)
            memcpy(record + at, (const uint8_t *)iov->iov_base + skip, part);
        at += part;
    }
    return record;
}

/* One record from the front of the bytes, of which there are rest. */
static int write_record(struct tls *t, const struct iovec *iov, size_t skip, size_t rest,
                        size_t *ret)
{
    size_t want = rest < TLS_RECORD_BYTES ? rest : TLS_RECORD_BYTES;
    uint8_t record[TLS_RECORD_BYTES];
    int rc;

    if (t->writing > 0) {
        assert(rest >= t->writing); /* the same bytes again */
        want = t->writing;
    }
    ERR_clear_error();
    if (SSL_write_ex(t->ssl, gather(iov, skip, want, record), want, ret) == 1) {
        assert(*ret > 0 && *ret <= want); /* fewer where the peer asks for short records */
        t->writing = 0;
        return 0;
    }
    rc = judge_write(t, 0);
    if (rc == -EAGAIN)
        t->writing = (uint32_t)want;
    return rc == 0 ? fail(t, -EPIPE, "the connection is shut") : rc;
}

ssize_t tls_writev(struct tls *t, const struct iovec *iov, int n)
{
    size_t total = 0, rest = 0, skip = 0, done;
    int rc = tls_handshake(t);

    assert(!t->shut);
    for (int i = 0; i < n; i++)
        rest += iov[i].iov_len;
    while (rc == 0 && rest > 0) {
        rc = write_record(t, iov, skip, rest, &done);
        if (rc < 0)
            break;
        total += done;
        rest -= done;
        for (skip += done; rest > 0 && skip >= iov->iov_len; iov++)
            skip -= iov->iov_len;
    }
    return total > 0 ? (ssize_t)total : rc;
}

int tls_close_notify(struct tls *t)
{
    int rc;

    if (!tls_is_ready(t) || t->shut)
        return 0;
    if (t->writing > 0)
        return -EBUSY;
    ERR_clear_error();
    rc = SSL_shutdown(t->ssl);
    if (rc < 0) {
        rc = judge(t, rc);
        if (rc < 0)
            return rc;
    }
    t->shut = true;
    return 0;
}

/* --- in memory ------------------------------------------------------------------------------ */

size_t tls_feed(struct tls *t, const void *bytes, size_t n)
{
    assert(t->fd < 0 && !t->ended);
    return held_put(&t->in, bytes, n);
}

void tls_feed_end(struct tls *t)
{
    assert(t->fd < 0);
    t->ended = true;
}

size_t tls_drain(struct tls *t, void *buf, size_t n)
{
    size_t taken = held_take(&t->out, buf, n);

    if (held_bytes(&t->out) == 0)
        held_drop(&t->out);
    return taken;
}

size_t tls_feedable(const struct tls *t) { return TLS_HELD_BYTES - held_bytes(&t->in); }
size_t tls_drainable(const struct tls *t) { return held_bytes(&t->out); }
