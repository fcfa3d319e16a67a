/*
 * test_tls.c - mutual TLS: who is let in and who is not, and that bytes arrive as they are, whole
 * or not at all; on descriptors and in memory.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <fcntl.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "tests/lib/pki_rig.h"

#define BIG_BYTES (3u << 20)
#define DAY_S     86400

static struct pki pki, others;
static struct tls_context *node, *producer;

/* Two ends: in memory, or over a pair of sockets. */
struct pair {
    struct tls *server, *client;
    int fd[2];
    size_t step; /* in memory: bytes moved at once */
};

static int open_files(void **state)
{
    signal(SIGPIPE, SIG_DFL); /* a write that raised it would end the test */
    pki_open(&pki);
    pki_open(&others);
    pki_add(&pki, "node", CERTIFICATE_NODE, 3);
    pki_add(&pki, "producer", CERTIFICATE_PRODUCER, 0);
    pki_add(&pki, "reader", CERTIFICATE_READER, 0);
    pki_add(&others, "node", CERTIFICATE_NODE, 3);
    pki_add(&others, "producer", CERTIFICATE_PRODUCER, 0);
    node = pki_context(&pki, "node");
    producer = pki_context(&pki, "producer");
    return 0;
}

static int close_files(void **state)
{
    tls_context_free(node);
    tls_context_free(producer);
    pki_close(&pki);
    pki_close(&others);
    return 0;
}

static void pair_open(struct pair *p, struct tls_context *server, struct tls_context *client,
                      bool memory)
{
    *p = (struct pair){ .fd = { -1, -1 }, .step = TLS_HELD_BYTES };
    if (memory) {
        assert_int_equal(tls_new_memory(&p->server, server, true), 0);
        assert_int_equal(tls_new_memory(&p->client, client, false), 0);
        return;
    }
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, p->fd), 0);
    assert_int_equal(tls_new_fd(&p->server, server, true, p->fd[0]), 0);
    assert_int_equal(tls_new_fd(&p->client, client, false, p->fd[1]), 0);
}

static void pair_close(struct pair *p)
{
    tls_free(p->server);
    tls_free(p->client);
    for (int i = 0; i < 2; i++)
        if (p->fd[i] >= 0)
            close(p->fd[i]);
}

/* In memory: what one end has to say comes to the other, as far as there is room. */
static void move(struct pair *p, struct tls *from, struct tls *to)
{
    uint8_t buf[TLS_HELD_BYTES];

    while (p->fd[0] < 0 && tls_drainable(from) > 0 && tls_feedable(to) > 0) {
        size_t room = tls_feedable(to), n = tls_drain(from, buf, p->step < room ? p->step : room);

        assert_true(n > 0 && n <= p->step);
        assert_int_equal(tls_feed(to, buf, n), n);
        if (p->step < TLS_HELD_BYTES)
            break;
    }
}

/* Both ends' handshakes, until both are over. */
static void pair_handshake(struct pair *p, int *ret_server, int *ret_client)
{
    int s = -EAGAIN, c = -EAGAIN;

    for (unsigned turn = 0; s == -EAGAIN || c == -EAGAIN; turn++) {
        assert_true(turn < 100000);
        if (c == -EAGAIN)
            c = tls_handshake(p->client);
        move(p, p->client, p->server);
        if (s == -EAGAIN)
            s = tls_handshake(p->server);
        move(p, p->server, p->client);
        if (p->step == TLS_HELD_BYTES && turn > 20 && (s < 0) != (c < 0))
            break; /* one has ended it, the other will not hear of it in its handshake */
    }
    *ret_server = s;
    *ret_client = c;
}

static void pair_ready(struct pair *p, bool memory)
{
    int s, c;

    pair_open(p, node, producer, memory);
    pair_handshake(p, &s, &c);
    assert_int_equal(s, 0);
    assert_int_equal(c, 0);
}

static ssize_t put(struct tls *t, const void *data, size_t n)
{
    struct iovec iov = { (void *)data, n };

    return tls_writev(t, &iov, 1);
}

/* --- who is who ----------------------------------------------------------------------------- */

static void both_sides_learn_who_the_other_is(void **state)
{
    for (int memory = 0; memory < 2; memory++) {
        struct pair p;

        pair_ready(&p, memory);
        assert_int_equal(tls_peer(p.client)->role, CERTIFICATE_NODE);
        assert_int_equal(tls_peer(p.client)->node, 3);
        assert_string_equal(tls_peer(p.client)->name, "node");
        assert_int_equal(tls_peer(p.server)->role, CERTIFICATE_PRODUCER);
        assert_int_equal(tls_peer(p.server)->node, 0);
        assert_string_equal(tls_peer(p.server)->name, "producer");
        pair_close(&p);
    }
    assert_int_equal(tls_context_identity(node)->node, 3);
    assert_int_equal(tls_context_identity(producer)->role, CERTIFICATE_PRODUCER);
}

/* The server's end of a refusal, and what the client hears of it with its first read. */
static void check_refused(struct tls_context *server, struct tls_context *client,
                          const char *said_by_server, const char *said_by_client)
{
    for (int memory = 0; memory < 2; memory++) {
        struct pair p;
        char byte;
        int s, c;

        pair_open(&p, server, client, memory);
        pair_handshake(&p, &s, &c);
        if (said_by_server != NULL) {
            assert_int_equal(s, -EACCES);
            assert_string_equal(tls_error(p.server), said_by_server);
            assert_int_equal(tls_handshake(p.server), -EACCES);
        }
        if (c == 0)
            c = (int)tls_read(p.client, &byte, 1);
        assert_int_equal(c, -EACCES);
        assert_string_equal(tls_error(p.client), said_by_client);
        assert_int_equal(tls_read(p.client, &byte, 1), -EACCES);
        assert_int_equal(put(p.client, "x", 1), -EACCES);
        pair_close(&p);
    }
}

static void a_client_of_another_ca_is_refused_and_told(void **state)
{
    struct pki_files a, b;
    struct tls_files f = *pki_files(&others, "producer", &a);
    char error[TLS_ERROR_BYTES];
    struct tls_context *x;

    /* It knows our CA, and has no certificate of it. Such a context is not made; so the two CAs
     * meet, and the client is the first to see it. */
    f.ca = pki_files(&pki, "producer", &b)->ca;
    assert_int_equal(tls_context_new(&x, &f, error), -EACCES);
    assert_non_null(strstr(error, "/producer.crt is not signed by "));
    x = pki_context(&others, "producer");
    check_refused(node, x, NULL, "the peer's certificate is not signed by our CA");
    tls_context_free(x);
}

/* A context as another program might have one: it checks nothing of its own files. */
static SSL_CTX *foreign(const char *cert, const char *key, const char *ca)
{
    SSL_CTX *c = SSL_CTX_new(TLS_method());

    assert_non_null(c);
    if (cert != NULL) {
        assert_int_equal(SSL_CTX_use_certificate_file(c, cert, SSL_FILETYPE_PEM), 1);
        assert_int_equal(SSL_CTX_use_PrivateKey_file(c, key, SSL_FILETYPE_PEM), 1);
    }
    assert_int_equal(SSL_CTX_load_verify_locations(c, ca, NULL), 1);
    return c;
}

/* A server of ours meets a client that OpenSSL makes alone. */
static int meet(SSL_CTX *c, char said[TLS_ERROR_BYTES])
{
    int fd[2], rc = -EAGAIN;
    struct tls *t;
    SSL *ssl;

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    assert_int_equal(tls_new_fd(&t, node, true, fd[0]), 0);
    ssl = SSL_new(c);
    assert_int_equal(SSL_set_fd(ssl, fd[1]), 1);
    for (unsigned i = 0; i < 100 && rc == -EAGAIN; i++) {
        (void)SSL_connect(ssl);
        rc = tls_handshake(t);
    }
    snprintf(said, TLS_ERROR_BYTES, "%s", tls_error(t));
    SSL_free(ssl);
    tls_free(t);
    close(fd[0]);
    close(fd[1]);
    return rc;
}

static void check_foreign(const struct pki *p, const char *file, int wanted, const char *said)
{
    char got[TLS_ERROR_BYTES];
    struct pki_files f, ours;
    SSL_CTX *c;

    pki_files(&pki, "node", &ours);
    pki_files(p, file ? file : "producer", &f);
    c = foreign(file ? f.cert : NULL, f.key, ours.ca);
    assert_int_equal(meet(c, got), wanted);
    assert_string_equal(got, said);
    SSL_CTX_free(c);
}

static void clients_that_are_not_ours_are_refused_by_reason(void **state)
{
    struct rig_certificate none = { .name = { RIG_NAME(GEN_DNS, "a.example") },
                                    .usage = "clientAuth" };
    struct rig_certificate two = { .name = { RIG_NAME(GEN_URI, "urn:sluice:client:reader:a"),
                                             RIG_NAME(GEN_URI, "urn:sluice:client:admin:a") },
                                   .usage = "clientAuth" };
    struct rig_certificate server_only = { .name = { RIG_NAME(GEN_URI, "urn:sluice:node:1:a") },
                                           .usage = "serverAuth" };

    pki_add_dated(&pki, "expired", CERTIFICATE_PRODUCER, 0, -2 * DAY_S, -DAY_S);
    pki_add_dated(&pki, "early", CERTIFICATE_PRODUCER, 0, DAY_S, 2 * DAY_S);
    pki_add_as(&pki, "none", &none);
    pki_add_as(&pki, "two", &two);
    pki_add_as(&pki, "server-only", &server_only);
    check_foreign(&pki, "producer", 0, "");
    check_foreign(&pki, NULL, -EACCES, "the peer has shown no certificate");
    check_foreign(&others, "producer", -EACCES, "the peer's certificate is not signed by our CA");
    check_foreign(&pki, "expired", -EACCES, "the peer's certificate has expired");
    check_foreign(&pki, "early", -EACCES, "the peer's certificate is not valid yet");
    check_foreign(&pki, "none", -EACCES,
                  "the peer's certificate has no role of Sluice: no urn:sluice: is in it");
    check_foreign(&pki, "two", -EACCES, "the peer's certificate has more than one role of Sluice");
    check_foreign(&pki, "server-only", -EACCES,
                  "the peer's certificate may not be used for its side of a connection");
}

static void older_versions_of_tls_are_refused(void **state)
{
    char said[TLS_ERROR_BYTES];
    struct pki_files f;
    SSL_CTX *c;

    pki_files(&pki, "producer", &f);
    c = foreign(f.cert, f.key, f.ca);
    SSL_CTX_set_max_proto_version(c, TLS1_2_VERSION);
    assert_int_equal(meet(c, said), -EPROTO);
    assert_string_equal(said, "the peer does not speak TLS 1.3");
    SSL_CTX_free(c);
}

/* A client's certificate is no server's: whoever has one cannot pass for a node. */
static void a_client_is_no_server(void **state)
{
    check_refused(producer, node, NULL,
                  "the peer's certificate may not be used for its side of a connection");
}

/* A session that was kept is of no use: certificates are looked at again. */
static void nothing_is_resumed(void **state)
{
    struct pki_files f;
    struct tls *t;
    char byte = 'x';
    SSL_CTX *c;
    int fd[2];
    SSL *ssl;

    pki_files(&pki, "producer", &f);
    c = foreign(f.cert, f.key, f.ca);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    assert_int_equal(tls_new_fd(&t, node, true, fd[0]), 0);
    ssl = SSL_new(c);
    assert_int_equal(SSL_set_fd(ssl, fd[1]), 1);
    for (unsigned i = 0; i < 100 && !tls_is_ready(t); i++) {
        (void)SSL_connect(ssl);
        (void)tls_handshake(t);
    }
    assert_int_equal(put(t, &byte, 1), 1);
    assert_int_equal(SSL_read(ssl, &byte, 1), 1); /* a ticket would have come before it */
    assert_false(SSL_SESSION_is_resumable(SSL_get0_session(ssl)));
    SSL_free(ssl);
    SSL_CTX_free(c);
    tls_free(t);
    close(fd[0]);
    close(fd[1]);
}

/* --- files ---------------------------------------------------------------------------------- */

static void check_files(const char *ca, const char *cert, const char *key, int wanted,
                        const char *said)
{
    char path[3][PKI_PATH_BYTES], error[TLS_ERROR_BYTES];
    const char *name[3] = { ca, cert, key };
    struct tls_context *x = NULL;
    struct tls_files f;

    for (int i = 0; i < 3; i++)
        snprintf(path[i], sizeof path[i], "%s/%s", pki.dir, name[i]);
    f = (struct tls_files){ path[0], path[1], path[2] };
    assert_int_equal(tls_context_new(&x, &f, error), wanted);
    assert_null(x);
    if (strstr(error, said) == NULL)
        fail_msg("'%s' says nothing of '%s'", error, said);
}

static void files_that_do_not_go_together_are_refused_by_name(void **state)
{
    char path[PKI_PATH_BYTES];

    pki_add_dated(&pki, "old", CERTIFICATE_NODE, 3, -2 * DAY_S, -DAY_S);
    pki_add_dated(&pki, "new", CERTIFICATE_NODE, 3, DAY_S, 2 * DAY_S);
    check_files("no.crt", "node.crt", "node.key", -ENOENT, "/no.crt does not exist");
    check_files("ca.crt", "node.crt", "no.key", -ENOENT, "/no.key: No such file");
    check_files("ca.crt", "node.crt", "reader.key", -EINVAL, "/reader.key is not the key of ");
    check_files("node.crt", "node.crt", "node.key", -EINVAL, "/node.crt is not a CA's");
    check_files("ca.crt", "ca.crt", "node.key", -EINVAL, "/ca.crt is the certificate of a CA");
    check_files("ca.crt", "node.key", "node.key", -EBADMSG, "/node.key is no certificate in PEM");
    check_files("ca.crt", "node.crt", "node.crt", -EACCES, "others can read or change ");
    check_files("ca.crt", "old.crt", "old.key", -EACCES,
                "/old.crt has expired: it was good until ");
    check_files("ca.crt", "new.crt", "new.key", -EACCES, "/new.crt is not valid yet: it will be ");
    check_files("ca.crt", "node.crt", ".", -EBADMSG, "/. is not a regular file");
    snprintf(path, sizeof path, "%s/reader.key", pki.dir);
    assert_int_equal(chmod(path, 0644), 0);
    check_files("ca.crt", "reader.crt", "reader.key", -EACCES, "chmod go-rwx");
    assert_int_equal(chmod(path, 0600), 0);
    assert_int_equal(truncate(path, 20), 0);
    check_files("ca.crt", "reader.crt", "reader.key", -EBADMSG, "is no private key in PEM");
    assert_int_equal(truncate(path, 1 << 20), 0);
    check_files("ca.crt", "reader.crt", "reader.key", -EFBIG, "longer than 16 KiB");
}

/* --- bytes ---------------------------------------------------------------------------------- */

static uint8_t pattern(size_t at) { return (uint8_t)(at * 7 + at / 251 + at / 65521); }

/* BIG_BYTES one way, in iovecs of uneven sizes and reads of other ones. */
static void transfer(struct pair *p, struct tls *from, struct tls *to)
{
    static uint8_t data[BIG_BYTES], got[BIG_BYTES];
    size_t sent = 0, read = 0, part = 1;
    bool waited = false;

    for (size_t i = 0; i < sizeof data; i++)
        data[i] = pattern(i);
    memset(got, 0, sizeof got);
    for (unsigned turn = 0; read < sizeof data; turn++) {
        struct iovec iov[9];
        uint8_t *copy = NULL;
        size_t n = 0, at = 0;
        ssize_t rc;

        assert_true(turn < 10 * BIG_BYTES);
        part = part * 3 % 40009;
        if (sent < sizeof data) {
            /* The same bytes after -EAGAIN, but elsewhere. */
            n = sizeof data - sent < 150000 ? sizeof data - sent : 150000;
            copy = malloc(n);
            memcpy(copy, data + sent, n);
            for (int i = 0; i < 9; i++) {
                size_t bytes = i == 8       ? n - at
                               : i % 3 == 2 ? 0
                                            : (part + (size_t)i * 1999) % (n - at);

                iov[i] = (struct iovec){ copy + at, bytes };
                at += bytes;
            }
            rc = tls_writev(from, iov, 9);
            assert_true(rc > 0 || rc == -EAGAIN);
            waited |= rc == -EAGAIN || (size_t)rc < n;
            sent += rc > 0 ? (size_t)rc : 0;
            free(copy);
        }
        move(p, from, to);
        rc = tls_read(to, got + read, 1 + part * 5 % (sizeof got - read));
        assert_true(rc > 0 || (rc == -EAGAIN && tls_wants(to) == POLLIN));
        read += rc > 0 ? (size_t)rc : 0;
    }
    assert_int_equal(sent, sizeof data);
    assert_memory_equal(data, got, sizeof data);
    assert_true(waited);
    assert_false(tls_pending(to));
}

static void large_transfers_arrive_as_they_were_both_ways(void **state)
{
    for (int memory = 0; memory < 2; memory++) {
        struct pair p;

        pair_ready(&p, memory);
        transfer(&p, p.client, p.server);
        transfer(&p, p.server, p.client);
        pair_close(&p);
    }
}

static void one_byte_at_a_time_is_enough(void **state)
{
    char got[6] = "";
    struct pair p;
    int s, c;

    pair_open(&p, node, producer, true);
    p.step = 1;
    pair_handshake(&p, &s, &c);
    assert_int_equal(s, 0);
    assert_int_equal(c, 0);
    assert_int_equal(put(p.client, "hello", 5), 5);
    for (unsigned i = 0; tls_drainable(p.client) > 1; i++) {
        move(&p, p.client, p.server);
        assert_int_equal(tls_read(p.server, got, 5), -EAGAIN);
        assert_false(tls_pending(p.server));
    }
    move(&p, p.client, p.server);
    assert_int_equal(tls_read(p.server, got, 5), 5);
    assert_string_equal(got, "hello");
    pair_close(&p);
}

/* Small pieces are sent as one record: 22 bytes more, and not 22 each. */
static void small_pieces_share_a_record(void **state)
{
    struct iovec iov[40];
    struct pair p;

    pair_ready(&p, true);
    for (int i = 0; i < 40; i++)
        iov[i] = (struct iovec){ "0123456789", 10 };
    assert_int_equal(tls_writev(p.client, iov, 40), 400);
    assert_int_equal(tls_drainable(p.client), 400 + 22);
    pair_close(&p);
}

/* poll() does not tell of what has been read from the socket, so tls_pending() must. */
static void what_is_there_already_is_pending(void **state)
{
    struct pair p;
    char got[3];

    pair_ready(&p, false);
    assert_false(tls_pending(p.server));
    assert_int_equal(put(p.client, "abc", 3), 3);
    assert_int_equal(put(p.client, "def", 3), 3);
    assert_int_equal(tls_read(p.server, got, 1), 1);
    assert_true(tls_pending(p.server));
    assert_int_equal(tls_read(p.server, got, 2), 2);
    assert_true(tls_pending(p.server));
    assert_int_equal(tls_read(p.server, got, 3), 3);
    assert_memory_equal(got, "def", 3);
    assert_int_equal(tls_read(p.server, got, 3), -EAGAIN);
    assert_false(tls_pending(p.server));
    pair_close(&p);
}

/* --- ends ----------------------------------------------------------------------------------- */

static void an_end_that_was_announced_is_told_from_a_cut(void **state)
{
    for (int memory = 0; memory < 2; memory++)
        for (int announced = 0; announced < 2; announced++) {
            struct pair p;
            char got[8];

            pair_ready(&p, memory);
            assert_int_equal(put(p.client, "last", 4), 4);
            if (announced)
                assert_int_equal(tls_close_notify(p.client), 0);
            move(&p, p.client, p.server);
            if (memory)
                tls_feed_end(p.server);
            else
                assert_int_equal(shutdown(p.fd[1], SHUT_WR), 0);
            assert_int_equal(tls_read(p.server, got, sizeof got), 4);
            for (int i = 0; i < 2; i++)
                assert_int_equal(tls_read(p.server, got, sizeof got), announced ? 0 : -ECONNRESET);
            if (!announced)
                assert_string_equal(tls_error(p.server),
                                    "the connection was cut: its end was not announced");
            else /* the other direction is still open */
                assert_int_equal(put(p.server, "bye", 3), 3);
            pair_close(&p);
        }
}

static void a_cut_within_a_record_is_a_cut(void **state)
{
    uint8_t buf[64];
    struct pair p;
    size_t n;

    pair_ready(&p, true);
    assert_int_equal(put(p.client, "whole", 5), 5);
    n = tls_drain(p.client, buf, sizeof buf);
    assert_int_equal(tls_feed(p.server, buf, n - 1), n - 1);
    tls_feed_end(p.server);
    assert_int_equal(tls_read(p.server, buf, sizeof buf), -ECONNRESET);
    pair_close(&p);
}

static void a_peer_that_is_gone_does_not_kill_us(void **state)
{
    struct pair p;
    ssize_t rc = 0;

    pair_ready(&p, false);
    close(p.fd[1]);
    p.fd[1] = -1;
    for (unsigned i = 0; i < 100 && rc >= 0; i++)
        rc = put(p.server, "x", 1);
    assert_int_equal(rc, -ECONNRESET);
    assert_true(strlen(tls_error(p.server)) > 0);
    assert_int_equal(tls_close_notify(p.server), 0); /* there is nobody to tell */
    pair_close(&p);
}

/* --- hostile bytes -------------------------------------------------------------------------- */

static int greet(const void *data, size_t n, char said[TLS_ERROR_BYTES])
{
    int rc = -EAGAIN;
    struct tls *t;

    assert_int_equal(tls_new_memory(&t, node, true), 0);
    for (size_t at = 0; rc == -EAGAIN && at < n;) {
        at += tls_feed(t, (const uint8_t *)data + at, n - at);
        rc = tls_handshake(t);
        assert_true(tls_drainable(t) <= TLS_HELD_BYTES);
    }
    snprintf(said, TLS_ERROR_BYTES, "%s", tls_error(t));
    tls_free(t);
    return rc;
}

static void bytes_that_are_no_tls_are_refused(void **state)
{
    static uint8_t noise[100000];
    char said[TLS_ERROR_BYTES];
    uint32_t x = 1;

    assert_int_equal(greet("GET / HTTP/1.1\r\n\r\n", 18, said), -EPROTO);
    assert_string_equal(said, "the peer speaks HTTP without TLS");
    assert_int_equal(greet("\x15\x0a\x13\x08\x01\x12\x00\x00\x00\x00\x00\x00", 12, said), -EPROTO);
    for (unsigned round = 0; round < 200; round++) {
        for (size_t i = 0; i < sizeof noise; i++)
            noise[i] = (uint8_t)((x = x * 1664525 + 1013904223) >> 24);
        assert_int_equal(greet(noise, sizeof noise, said), -EPROTO);
        assert_true(strlen(said) > 0);
    }
}

/* A ClientHello that says it has 100,000 bytes, in records that are good. */
static void a_handshake_without_end_is_refused(void **state)
{
    static uint8_t flood[100000];
    char said[TLS_ERROR_BYTES];
    size_t n = 0;

    while (n + 5 + 8192 <= sizeof flood) {
        memcpy(flood + n, "\x16\x03\x01\x20\x00", 5);
        memset(flood + n + 5, 0, 8192);
        if (n == 0)
            memcpy(flood + 5, "\x01\x01\x86\xa0\x03\x03", 6);
        n += 5 + 8192;
    }
    assert_int_equal(greet(flood, n, said), -EPROTO);
    assert_string_equal(said, "the peer's handshake is too long");
}

/* A few new keys are taken, and data behind them; a flood of them alone is not. */
static void records_without_data_have_a_bound(void **state)
{
    struct pki_files f;
    struct tls *t;
    char byte = 'x';
    ssize_t rc = 0;
    SSL_CTX *c;
    int fd[2];
    SSL *ssl;

    pki_files(&pki, "producer", &f);
    c = foreign(f.cert, f.key, f.ca);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0, fd), 0);
    assert_int_equal(tls_new_fd(&t, node, true, fd[0]), 0);
    ssl = SSL_new(c);
    assert_int_equal(SSL_set_fd(ssl, fd[1]), 1);
    for (unsigned i = 0; i < 100 && !tls_is_ready(t); i++) {
        (void)SSL_connect(ssl);
        (void)tls_handshake(t);
    }
    for (unsigned keys = 20; keys <= 40; keys += 20) {
        for (unsigned i = 0; i < keys; i++) {
            assert_int_equal(SSL_key_update(ssl, SSL_KEY_UPDATE_NOT_REQUESTED), 1);
            assert_int_equal(SSL_do_handshake(ssl), 1);
        }
        assert_int_equal(SSL_write(ssl, &byte, 1), 1);
        rc = tls_read(t, &byte, 1);
        assert_int_equal(rc, keys == 20 ? 1 : -EPROTO);
    }
    assert_string_equal(tls_error(t), "the peer sends records without data and no end");
    SSL_free(ssl);
    SSL_CTX_free(c);
    tls_free(t);
    close(fd[0]);
    close(fd[1]);
}

static void what_was_changed_on_its_way_is_refused(void **state)
{
    uint8_t buf[64], got[16];
    struct pair p;
    size_t n;

    pair_ready(&p, true);
    assert_int_equal(put(p.client, "whole", 5), 5);
    n = tls_drain(p.client, buf, sizeof buf);
    buf[n - 1] ^= 1;
    assert_int_equal(tls_feed(p.server, buf, n), n);
    assert_int_equal(tls_read(p.server, got, sizeof got), -EPROTO);
    assert_string_equal(tls_error(p.server), "what came was changed on its way");
    assert_int_equal(tls_read(p.server, got, sizeof got), -EPROTO);
    pair_close(&p);
}

static void what_is_held_is_bounded(void **state)
{
    static uint8_t data[4 * TLS_HELD_BYTES];
    size_t fed = 0, sent = 0;
    struct pair p;
    ssize_t rc;

    pair_ready(&p, true);
    while ((rc = put(p.client, data, sizeof data)) > 0)
        sent += (size_t)rc;
    assert_int_equal(rc, -EAGAIN);
    assert_int_equal(tls_wants(p.client), POLLOUT);
    assert_true(sent > 0 && tls_drainable(p.client) <= TLS_HELD_BYTES);
    assert_int_equal(tls_close_notify(p.client), -EBUSY);
    for (unsigned i = 0; i < 4; i++)
        fed += tls_feed(p.server, data, sizeof data);
    assert_int_equal(fed, TLS_HELD_BYTES);
    pair_close(&p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_sides_learn_who_the_other_is),
        cmocka_unit_test(a_client_of_another_ca_is_refused_and_told),
        cmocka_unit_test(clients_that_are_not_ours_are_refused_by_reason),
        cmocka_unit_test(older_versions_of_tls_are_refused),
        cmocka_unit_test(a_client_is_no_server),
        cmocka_unit_test(nothing_is_resumed),
        cmocka_unit_test(large_transfers_arrive_as_they_were_both_ways),
        cmocka_unit_test(one_byte_at_a_time_is_enough),
        cmocka_unit_test(small_pieces_share_a_record),
        cmocka_unit_test(what_is_there_already_is_pending),
        cmocka_unit_test(an_end_that_was_announced_is_told_from_a_cut),
        cmocka_unit_test(a_cut_within_a_record_is_a_cut),
        cmocka_unit_test(a_peer_that_is_gone_does_not_kill_us),
        cmocka_unit_test(bytes_that_are_no_tls_are_refused),
        cmocka_unit_test(a_handshake_without_end_is_refused),
        cmocka_unit_test(records_without_data_have_a_bound),
        cmocka_unit_test(what_was_changed_on_its_way_is_refused),
        cmocka_unit_test(what_is_held_is_bounded),
        cmocka_unit_test(files_that_do_not_go_together_are_refused_by_name),
    };

    return cmocka_run_group_tests(tests, open_files, close_files);
}
