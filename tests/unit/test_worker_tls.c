/*
 * test_worker_tls.c - producers over mutual TLS: who may send, what becomes of those who may not,
 * and that the protocol is the same as without it.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pb_decode.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "tests/lib/ingest_rig.h"
#include "tests/lib/pki_rig.h"

enum { WELCOME = 1, RECEIPT = 2, ERROR_FRAME = 3, PONG = 4 };

static struct pki pki, others;
static uint8_t batch[1 << 18], frame[1 << 18];
static struct rig_stream stream;
static struct rig_receipt receipt;
static struct rig r;

static int open_files(void **state)
{
    pki_open(&pki);
    pki_open(&others);
    pki_add(&pki, "node", CERTIFICATE_NODE, 1);
    pki_add(&pki, "producer", CERTIFICATE_PRODUCER, 0);
    pki_add(&pki, "admin", CERTIFICATE_ADMIN, 0);
    pki_add(&pki, "reader", CERTIFICATE_READER, 0);
    pki_add(&others, "producer", CERTIFICATE_PRODUCER, 0);
    return 0;
}

static int close_files(void **state)
{
    pki_close(&pki);
    pki_close(&others);
    return 0;
}

static void start(void)
{
    r.tls = pki_context(&pki, "node");
    rig_open(&r);
    rig_start(&r);
}

static void stop(void)
{
    rig_close(&r);
    tls_context_free(r.tls);
}

/* Connects as whoever has this certificate. */
static void dial(const struct pki *p, const char *file)
{
    struct tls_context *x = pki_context(p, file);

    stream.fd = rig_tcp(&r, false);
    stream.bytes = 0;
    assert_int_equal(tls_new_fd(&stream.tls, x, false, stream.fd), 0);
    tls_context_free(x); /* the connection has what it needs */
}

static void hang_up(void)
{
    tls_free(stream.tls);
    stream.tls = NULL;
    close(stream.fd);
}

static void next_is(int tag)
{
    const uint8_t *body;
    size_t bytes;

    assert_int_equal(rig_next(&stream, &body, &bytes), tag);
}

static void greet(void)
{
    uint8_t hello[128];

    assert_int_equal(rig_tls_handshake(&stream), 0);
    rig_tls_send(&stream, hello, rig_hello(hello, 1, NULL));
    next_is(WELCOME);
}

static size_t request_of(uint64_t request, uint32_t n, uint64_t id)
{
    size_t bytes = rig_batch(batch, sizeof batch, 1, n, id, 0, false);

    return rig_batch_frame(frame, sizeof frame, request, batch, bytes);
}

static void next_receipt(uint64_t request, uint32_t accepted)
{
    const uint8_t *body;
    size_t bytes;

    assert_int_equal(rig_next(&stream, &body, &bytes), RECEIPT);
    assert_true(rig_receipt_decode(&receipt, body, bytes));
    assert_int_equal(receipt.r.request, request);
    assert_int_equal(receipt.r.accepted, accepted);
}

/* An Error with this code, and then a clean end. */
static void next_error(unsigned code)
{
    sluice_v1_Error e = sluice_v1_Error_init_zero;
    const uint8_t *body;
    size_t bytes;
    pb_istream_t in;

    assert_int_equal(rig_next(&stream, &body, &bytes), ERROR_FRAME);
    in = pb_istream_from_buffer(body, bytes);
    assert_true(pb_decode(&in, sluice_v1_Error_fields, &e));
    assert_int_equal(e.code, code);
    assert_true(strlen(e.message) > 0);
    assert_int_equal(rig_next(&stream, &body, &bytes), 0);
}

static void producers_admins_and_nodes_may_send(void **state)
{
    static const char *const who[] = { "producer", "admin", "node" };

    rig_init(&r);
    start();
    for (unsigned i = 0; i < 3; i++) {
        dial(&pki, who[i]);
        greet();
        assert_string_equal(tls_peer(stream.tls)->name, "node");
        rig_tls_send(&stream, frame, request_of(7, 100, 1 + 1000 * i));
        next_receipt(7, 100);
        hang_up();
    }
    RIG_WAIT(&r, l->connections_closed == 3);
    assert_int_equal(r.snap.ledger.connections_refused, 0);
    assert_int_equal(r.snap.ledger.committed[1], 300);
    stop();
}

static void a_reader_is_told_that_it_may_not_send(void **state)
{
    rig_init(&r);
    start();
    dial(&pki, "reader");
    assert_int_equal(rig_tls_handshake(&stream), 0);
    next_error(sluice_v1_ErrorCode_ERROR_NOT_PERMITTED);
    hang_up();
    RIG_WAIT(&r, l->connections_closed == 1);
    assert_int_equal(r.snap.ledger.connections_refused, 1);
    assert_int_equal(r.snap.ledger.frames, 0);
    stop();
}

static void who_does_not_know_our_ca_or_tls_is_refused(void **state)
{
    uint8_t hello[128];

    rig_init(&r);
    start();
    dial(&others, "producer");
    assert_int_equal(rig_tls_handshake(&stream), -EACCES);
    hang_up();
    RIG_WAIT(&r, l->connections_closed == 1 && l->connections_refused == 1);
    stream.fd = rig_tcp(&r, false);
    rig_send(stream.fd, hello, rig_hello(hello, 1, NULL));
    next_error(sluice_v1_ErrorCode_ERROR_TLS_REQUIRED);
    close(stream.fd);
    RIG_WAIT(&r, l->connections_closed == 2 && l->connections_refused == 2);
    assert_int_equal(r.snap.ledger.frames, 0);
    stop();
}

/* The first bytes of a ClientHello, and no more: or nothing at all. */
static void a_handshake_that_is_not_finished_times_out(void **state)
{
    int fd[3];

    rig_init(&r);
    r.config.ingest.tcp.frame_s_max = 1;
    start();
    for (int i = 0; i < 3; i++)
        fd[i] = rig_tcp(&r, false);
    rig_send(fd[1], "\x16\x03\x01\x01\x00\x01", 6);
    dial(&pki, "producer");
    assert_int_equal(rig_tls_handshake(&stream), 0); /* and then no Hello */
    RIG_WAIT(&r, l->connections_timed_out == 4);
    next_error(sluice_v1_ErrorCode_ERROR_FRAME_TIMEOUT);
    hang_up();
    for (int i = 0; i < 3; i++) {
        char byte;

        assert_int_equal(recv(fd[i], &byte, 1, 0), 0);
        close(fd[i]);
    }
    RIG_WAIT(&r, l->connections_closed == 4);
    stop();
}

static void one_byte_at_a_time_is_enough(void **state)
{
    size_t bytes;

    rig_init(&r);
    start();
    dial(&pki, "producer");
    greet();
    bytes = request_of(9, 3, 1);
    for (size_t i = 0; i < bytes; i++) /* each of them a record */
        rig_tls_send(&stream, frame + i, 1);
    next_receipt(9, 3);
    hang_up();
    stop();
}

/* More than the worker, TLS and the sockets hold together: the client is kept waiting, and gets all
 * of its receipts. */
static void back_pressure_reaches_the_client(void **state)
{
    uint64_t sent = 0, answered = 0;
    size_t bytes = 0, at = 0;

    rig_init(&r);
    r.config.ingest.tcp.output_bytes_max = 64 << 10;
    start();
    dial(&pki, "producer");
    greet();
    fake_cluster_hold(&r.cluster, true);
    for (;;) {
        struct pollfd p = { .fd = stream.fd, .events = POLLOUT };
        struct iovec iov;
        ssize_t n;

        if (at == bytes) {
            sent++;
            bytes = request_of(sent, 200, 1 + 200 * sent);
            at = 0;
        }
        iov = (struct iovec){ frame + at, bytes - at };
        n = tls_writev(stream.tls, &iov, 1);
        at += n > 0 ? (size_t)n : 0;
        assert_true(sent < 100000);
        if (n == -EAGAIN && rig_snapshot(&r)->receive_paused > 0 && poll(&p, 1, 200) == 0)
            break;
    }
    assert_true(sent > 8);
    fake_cluster_hold(&r.cluster, false);
    rig_tls_send(&stream, frame + at, bytes - at);
    while (answered < sent)
        next_receipt(++answered, 200);
    hang_up();
    RIG_WAIT(&r, l->connections_closed == 1);
    assert_int_equal(r.snap.ledger.committed[1], 200 * sent);
    stop();
}

static void an_end_is_taken_announced_or_not(void **state)
{
    rig_init(&r);
    start();
    for (unsigned i = 0; i < 2; i++) {
        dial(&pki, "producer");
        greet();
        rig_tls_send(&stream, frame, request_of(1, 10, 1 + 10 * i));
        if (i == 0)
            assert_int_equal(tls_close_notify(stream.tls), 0);
        assert_int_equal(shutdown(stream.fd, SHUT_WR), 0);
        next_receipt(1, 10); /* what was sent before is answered */
        hang_up();
    }
    RIG_WAIT(&r, l->connections_closed == 2);
    assert_int_equal(r.snap.ledger.committed[1], 20);
    stop();
}

static void bytes_that_were_changed_end_the_connection(void **state)
{
    const uint8_t *body;
    size_t bytes;

    rig_init(&r);
    start();
    dial(&pki, "producer");
    greet();
    rig_send(stream.fd, "\x17\x03\x03\x00\x20 this is no ciphertext of anybody's", 37);
    assert_int_equal(rig_next(&stream, &body, &bytes), -1);
    hang_up();
    RIG_WAIT(&r, l->connections_closed == 1);
    assert_int_equal(r.snap.ledger.connections_refused, 1);
    stop();
}

static void one_connection_too_many_is_closed(void **state)
{
    char byte;
    int fd;

    rig_init(&r);
    r.config.ingest.tcp.connections_max = 1;
    start();
    dial(&pki, "producer");
    greet();
    fd = rig_tcp(&r, false);
    assert_int_equal(recv(fd, &byte, 1, 0), 0); /* nobody could read why */
    close(fd);
    assert_int_equal(rig_snapshot(&r)->connections_refused, 1);
    hang_up();
    stop();
}

static void a_server_that_stops_says_so(void **state)
{
    rig_init(&r);
    start();
    dial(&pki, "producer");
    greet();
    worker_drain(r.worker);
    next_error(sluice_v1_ErrorCode_ERROR_STOPPING);
    hang_up();
    stop();
}

static void a_certificate_that_expires_meanwhile_ends_the_connection(void **state)
{
    rig_init(&r);
    start();
    pki_add_dated(&pki, "short", CERTIFICATE_PRODUCER, 0, -300, 3);
    dial(&pki, "short");
    greet();
    rig_tls_send(&stream, frame, request_of(1, 1, 1));
    next_receipt(1, 1);
    next_error(sluice_v1_ErrorCode_ERROR_NOT_PERMITTED);
    hang_up();
    stop();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(producers_admins_and_nodes_may_send),
        cmocka_unit_test(a_reader_is_told_that_it_may_not_send),
        cmocka_unit_test(who_does_not_know_our_ca_or_tls_is_refused),
        cmocka_unit_test(a_handshake_that_is_not_finished_times_out),
        cmocka_unit_test(one_byte_at_a_time_is_enough),
        cmocka_unit_test(back_pressure_reaches_the_client),
        cmocka_unit_test(an_end_is_taken_announced_or_not),
        cmocka_unit_test(bytes_that_were_changed_end_the_connection),
        cmocka_unit_test(one_connection_too_many_is_closed),
        cmocka_unit_test(a_server_that_stops_says_so),
        cmocka_unit_test(a_certificate_that_expires_meanwhile_ends_the_connection),
    };

    return cmocka_run_group_tests(tests, open_files, close_files);
}
