/*
 * test_worker_crowd.c - many connections, greedy ones, damaged streams, no descriptors left.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <pb_decode.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/lib/alloc_guard.h"
#include "tests/lib/ingest_rig.h"

enum { WELCOME = 1, RECEIPT = 2, ERROR_FRAME = 3, PONG = 4 };

static uint8_t batch[1 << 18], frame[1 << 18];
static struct rig_stream stream;
static struct rig_receipt receipt;

static void next_is(int tag, const uint8_t **ret, size_t *ret_bytes)
{
    assert_int_equal(rig_next(&stream, ret, ret_bytes), tag);
}

static void open_stream(const struct rig *r, bool v6)
{
    const uint8_t *body;
    uint8_t hello[128];
    size_t bytes;

    stream.fd = rig_tcp(r, v6);
    stream.bytes = 0;
    rig_send(stream.fd, hello, rig_hello(hello, 1, NULL));
    next_is(WELCOME, &body, &bytes);
}

static void next_receipt(uint64_t request)
{
    const uint8_t *body;
    size_t bytes;

    next_is(RECEIPT, &body, &bytes);
    assert_true(rig_receipt_decode(&receipt, body, bytes));
    assert_int_equal(receipt.r.request, request);
    /* One exception for each, but for a batch that was refused as a whole. */
    if (receipt.exceptions != 1 || receipt.exception[0].reason != sluice_v1_Reason_BATCH_TOO_LARGE)
        assert_int_equal(receipt.r.duplicates + receipt.r.refused, receipt.exceptions);
}

static size_t request_of(uint8_t *buf, size_t cap, uint64_t request, uint32_t n, uint64_t id)
{
    size_t bytes = rig_batch(batch, sizeof batch, 1, n, id, 0, false);

    return rig_batch_frame(buf, cap, request, batch, bytes);
}

static void two_thousand_connections_at_once(void **state)
{
    enum { CLIENTS = 2000 };
    static int fd[CLIENTS];
    struct rlimit limit;
    struct rig r;
    size_t n;

    assert_int_equal(getrlimit(RLIMIT_NOFILE, &limit), 0);
    if (limit.rlim_cur < 2 * CLIENTS + 64) {
        limit.rlim_cur = limit.rlim_max < 8192 ? limit.rlim_max : 8192;
        (void)setrlimit(RLIMIT_NOFILE, &limit);
    }
    if (limit.rlim_cur < 2 * CLIENTS + 64) {
        print_message("skipped: RLIMIT_NOFILE allows only %ju files\n", (uintmax_t)limit.rlim_cur);
        skip();
    }
    rig_init(&r);
    r.config.ingest.tcp.connections_max = CLIENTS;
    rig_open(&r);
    rig_start(&r);
    n = rig_hello(frame, 1, NULL);
    for (uint64_t i = 1; i <= 3; i++)
        n += request_of(frame + n, sizeof frame - n, i, 2, 1);
    for (unsigned i = 0; i < CLIENTS; i++)
        fd[i] = rig_tcp(&r, i % 2);
    RIG_WAIT(&r, r.snap.connections == CLIENTS);
    for (unsigned i = 0; i < CLIENTS; i++)
        rig_send(fd[i], frame, n);
    RIG_WAIT(&r, l->receipts == 3 * CLIENTS);
    for (unsigned i = 0; i < CLIENTS; i++) {
        const uint8_t *body;
        size_t bytes;

        stream.fd = fd[i];
        stream.bytes = 0;
        next_is(WELCOME, &body, &bytes);
        for (uint64_t k = 1; k <= 3; k++)
            next_receipt(k);
        close(fd[i]);
    }
    RIG_WAIT(&r, r.snap.connections == 0);
    assert_int_equal(r.snap.ledger.committed[1], CLIENTS * 6);
    rig_close(&r);
}

static void damaged_streams_are_answered_and_the_ledger_balances(void **state)
{
    enum { STREAMS = 600 };
    uint64_t seed = 7, receipts = 0;
    struct rig r;

    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    for (unsigned i = 0; i < STREAMS; i++) {
        size_t n = rig_hello(frame, 1, NULL), head = n;
        const uint8_t *body;
        size_t bytes;
        int tag;

        for (uint64_t q = 1; q <= 10; q++)
            n += request_of(frame + n, sizeof frame - n, q, 1 + (uint32_t)(q + i) % 5, q);
        for (uint64_t k = rig_random(&seed) % 4; k > 0; k--)
            frame[i % 4 == 0 ? rig_random(&seed) % n : head + rig_random(&seed) % (n - head)] =
                (uint8_t)rig_random(&seed);
        stream.fd = rig_tcp(&r, i % 2);
        stream.bytes = 0;
        for (size_t at = 0; at < n;) {
            size_t part = 1 + rig_random(&seed) % 300;

            part = part < n - at ? part : n - at;
            if (send(stream.fd, frame + at, part, MSG_NOSIGNAL) < 0)
                break; /* ended already */
            at += part;
        }
        (void)shutdown(stream.fd, SHUT_WR);
        while ((tag = rig_next(&stream, &body, &bytes)) > 0) {
            if (tag != RECEIPT)
                continue;
            assert_true(rig_receipt_decode(&receipt, body, bytes));
            receipts++;
        }
        close(stream.fd);
    }
    RIG_WAIT(&r, l->connections_closed == STREAMS);
    rig_check_balance(&r.snap.ledger);
    assert_int_equal(r.snap.ledger.receipts, receipts);
    assert_int_equal(r.snap.ledger.receipts_undeliverable, 0);
    rig_close(&r);
}

static void when_descriptors_run_out_clients_wait(void **state)
{
    struct sockaddr_in to = { .sin_family = AF_INET };
    struct rlimit before, limit;
    const uint8_t *body;
    size_t bytes;
    struct rig r;

    rig_init(&r);
    rig_open(&r);
    to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    to.sin_port = htons(r.tcp_port);
    stream.fd = socket(AF_INET, SOCK_STREAM, 0);
    stream.bytes = 0;
    assert_int_equal(getrlimit(RLIMIT_NOFILE, &before), 0);
    limit = before;
    limit.rlim_cur = (rlim_t)stream.fd + 1;
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &limit), 0);
    rig_start(&r); /* an accept keeps the limit that was there when it was asked for */
    assert_int_equal(connect(stream.fd, (struct sockaddr *)&to, sizeof to), 0);
    rig_send(stream.fd, frame, rig_hello(frame, 1, NULL));
    for (unsigned i = 0; i < 20; i++)
        assert_int_equal(rig_snapshot(&r)->connections_accepted, 0);
    assert_int_equal(setrlimit(RLIMIT_NOFILE, &before), 0);
    next_is(WELCOME, &body, &bytes);
    close(stream.fd);
    rig_close(&r);
}

struct flood {
    int fd;
    _Atomic bool stop;
    uint8_t frames[1 << 16];
    size_t bytes;
};

static void *flood(void *arg)
{
    struct flood *f = arg;
    uint8_t ignored[4096];

    while (!atomic_load(&f->stop)) {
        rig_send(f->fd, f->frames, f->bytes);
        while (recv(f->fd, ignored, sizeof ignored, MSG_DONTWAIT) > 0) {
        }
    }
    shutdown(f->fd, SHUT_WR);
    while (recv(f->fd, ignored, sizeof ignored, 0) > 0) {
    }
    return NULL;
}

static void a_flood_does_not_starve_another(void **state)
{
    static struct flood f;
    struct rig r;
    pthread_t thread;

    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    open_stream(&r, false);
    f.fd = stream.fd;
    f.bytes = request_of(f.frames, sizeof f.frames, 1, 500, 1);
    pthread_create(&thread, NULL, flood, &f);
    open_stream(&r, false);
    for (uint64_t i = 1; i <= 200; i++) {
        rig_send(stream.fd, frame, request_of(frame, sizeof frame, i, 1, 1));
        next_receipt(i);
    }
    atomic_store(&f.stop, true);
    pthread_join(thread, NULL);
    close(f.fd);
    close(stream.fd);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(two_thousand_connections_at_once),
        cmocka_unit_test(damaged_streams_are_answered_and_the_ledger_balances),
        cmocka_unit_test(when_descriptors_run_out_clients_wait),
        cmocka_unit_test(a_flood_does_not_starve_another),
    };

    if (getenv("TEST_FILTER")) /* cmocka's pattern of the tests to run */
        cmocka_set_test_filter(getenv("TEST_FILTER"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
