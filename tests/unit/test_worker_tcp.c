/*
 * test_worker_tcp.c - connections through real sockets: frames, receipts, limits, ends.
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

static void a_batch_gets_its_receipt_over_both_families(void **state)
{
    struct rig r;

    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    for (int v6 = 0; v6 < 2; v6++) {
        open_stream(&r, v6);
        rig_send(stream.fd, frame, request_of(frame, sizeof frame, 42, 100, 1));
        next_receipt(42);
        assert_int_equal(receipt.r.accepted, 100);
        assert_int_equal(receipt.r.epoch, FAKE_EPOCH);
        assert_int_equal(receipt.r.term, FAKE_TERM);
        assert_int_equal(receipt.r.durability, sluice_v1_Durability_QUORUM);
        close(stream.fd);
    }
    RIG_WAIT(&r, l->connections_closed == 2);
    assert_int_equal(r.snap.ledger.committed[1], 200);
    rig_close(&r);
}

static void next_error(unsigned code)
{
    const uint8_t *body;
    size_t bytes;
    sluice_v1_Error e = sluice_v1_Error_init_zero;
    pb_istream_t in;

    next_is(ERROR_FRAME, &body, &bytes);
    in = pb_istream_from_buffer(body, bytes);
    assert_true(pb_decode(&in, sluice_v1_Error_fields, &e));
    assert_int_equal(e.code, code);
    assert_true(e.closing);
    assert_true(strlen(e.message) > 0);
    assert_int_equal(rig_next(&stream, &body, &bytes), 0);
    close(stream.fd);
}

static void the_welcome_says_the_limits(void **state)
{
    struct rig r;
    const uint8_t *body;
    size_t bytes;
    sluice_v1_Welcome m = sluice_v1_Welcome_init_zero;
    pb_istream_t in;

    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    stream.fd = rig_tcp(&r, false);
    stream.bytes = 0;
    rig_send(stream.fd, frame, rig_hello(frame, 1, NULL));
    next_is(WELCOME, &body, &bytes);
    in = pb_istream_from_buffer(body, bytes);
    assert_true(pb_decode(&in, sluice_v1_Welcome_fields, &m));
    assert_int_equal(m.protocol, 1);
    assert_int_equal(m.frame_bytes_max, r.config.ingest.tcp.frame_bytes_max);
    assert_int_equal(m.batch_events_max, 1024);
    assert_int_equal(m.cluster_id.size, 16);
    close(stream.fd);
    rig_close(&r);
}

static void a_stream_may_be_cut_at_every_byte(void **state)
{
    struct rig r;
    const uint8_t *body;
    size_t bytes, n, cut;

    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    n = rig_hello(frame, 1, NULL);
    n += request_of(frame + n, sizeof frame - n, 1, 2, 1);
    n += rig_ping(frame + n, 300);
    n += request_of(frame + n, sizeof frame - n, 2, 1, 10);
    for (cut = 1; cut < n; cut++) {
        stream.fd = rig_tcp(&r, cut % 2);
        stream.bytes = 0;
        rig_send(stream.fd, frame, cut);
        /* The first part has been looked at before the second comes. */
        RIG_WAIT(&r, l->connections_accepted == cut);
        rig_send(stream.fd, frame + cut, n - cut);
        next_is(WELCOME, &body, &bytes);
        /* A pong does not wait for the log. */
        for (unsigned i = 0; i < 3; i++) {
            int tag = rig_next(&stream, &body, &bytes);

            assert_true(tag == RECEIPT || tag == PONG);
        }
        close(stream.fd);
    }
    RIG_WAIT(&r, l->connections_closed == n - 1);
    assert_int_equal(r.snap.ledger.committed[1], 3 * (n - 1));
    assert_int_equal(r.snap.ledger.frames, 4 * (n - 1));
    rig_close(&r);
}

static void a_stream_may_come_byte_by_byte(void **state)
{
    struct rig r;
    size_t n;

    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    open_stream(&r, false);
    n = request_of(frame, sizeof frame, 9, 2, 1);
    for (size_t i = 0; i < n; i++) {
        rig_send(stream.fd, frame + i, 1);
        if (i % 16 == 0)
            (void)rig_snapshot(&r);
    }
    next_receipt(9);
    assert_int_equal(receipt.r.accepted, 2);
    close(stream.fd);
    rig_close(&r);
}

static void many_frames_in_one_send_are_answered_in_order(void **state)
{
    enum { REQUESTS = 2000 };
    static uint8_t all[REQUESTS * 128];
    struct rig r;
    size_t n = 0;

    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    open_stream(&r, true);
    for (uint64_t i = 1; i <= REQUESTS; i++)
        n += request_of(all + n, sizeof all - n, i, 1, i);
    rig_send(stream.fd, all, n);
    for (uint64_t i = 1; i <= REQUESTS; i++) {
        next_receipt(i);
        assert_int_equal(receipt.r.accepted, 1);
    }
    close(stream.fd);
    rig_close(&r);
}

static void large_frames_cross_buffers(void **state)
{
    enum { REQUESTS = 100 };
    struct rig r;
    size_t n;

    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    open_stream(&r, false);
    for (uint64_t i = 1; i <= REQUESTS; i++) {
        n = request_of(frame, sizeof frame, i, 900, 1);
        rig_send(stream.fd, frame, n);
    }
    for (uint64_t i = 1; i <= REQUESTS; i++) {
        next_receipt(i);
        assert_int_equal(receipt.r.accepted, 900);
    }
    close(stream.fd);
    RIG_WAIT(&r, l->committed[1] == REQUESTS * 900);
    rig_close(&r);
}

static void bad_events_are_exceptions_and_the_rest_is_accepted(void **state)
{
    struct rig r;
    uint8_t event[512];
    size_t n = 0, bytes;

    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    open_stream(&r, false);
    for (unsigned i = 0; i < 40; i++) { /* every fourth is empty, every fifth has no id */
        bytes = i % 4 == 0 ? 0 : rig_event(event, sizeof event, 1, 1, i % 5 == 0 ? 0 : i);
        batch[n++] = 0x0a;
        batch[n++] = (uint8_t)bytes;
        memcpy(batch + n, event, bytes);
        n += bytes;
    }
    rig_send(stream.fd, frame, rig_batch_frame(frame, sizeof frame, 5, batch, n));
    next_receipt(5);
    assert_int_equal(receipt.r.accepted, 30);
    assert_int_equal(receipt.r.refused, 10);
    for (unsigned i = 0; i < 10; i++) {
        assert_int_equal(receipt.exception[i].position, 4 * i);
        assert_true(receipt.exception[i].reason > 0 && receipt.exception[i].reason < 100);
    }
    assert_int_equal(receipt.assigned, 6);
    for (unsigned i = 0; i < receipt.assigned; i++) {
        assert_int_equal(receipt.id[i].position % 5, 0);
        assert_int_equal(receipt.id[i].id.size, 16);
    }
    /* Nothing of this one survives; it is answered all the same. */
    memcpy(batch, "\x0a\x00\x0a\x00", 4);
    rig_send(stream.fd, frame, rig_batch_frame(frame, sizeof frame, 6, batch, 4));
    next_receipt(6);
    assert_int_equal(receipt.r.refused, 2);
    assert_int_equal(receipt.r.index, 0);
    assert_int_equal(receipt.r.durability, 0);
    /* And an empty batch. */
    rig_send(stream.fd, frame, rig_batch_frame(frame, sizeof frame, 7, batch, 0));
    next_receipt(7);
    assert_int_equal(receipt.r.accepted, 0);
    close(stream.fd);
    rig_close(&r);
}

static void a_batch_of_too_many_events_is_refused_as_a_whole(void **state)
{
    struct rig r;

    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    open_stream(&r, false);
    memset(batch, 0, 2 * 1025);
    for (unsigned i = 0; i < 1025; i++)
        batch[2 * i] = 0x0a;
    rig_send(stream.fd, frame, rig_batch_frame(frame, sizeof frame, 1, batch, 2 * 1025));
    rig_send(stream.fd, frame, request_of(frame, sizeof frame, 2, 3, 1));
    next_receipt(1);
    assert_int_equal(receipt.r.refused, 1025);
    assert_int_equal(receipt.r.accepted, 0);
    assert_int_equal(receipt.exceptions, 1);
    assert_int_equal(receipt.exception[0].reason, sluice_v1_Reason_BATCH_TOO_LARGE);
    next_receipt(2);
    assert_int_equal(receipt.r.accepted, 3);
    close(stream.fd);
    assert_int_equal(rig_snapshot(&r)->reason[sluice_v1_Reason_BATCH_TOO_LARGE], 1025);
    rig_close(&r);
}

/* Opens, sends, and wants this error and the end. */
static void breaks(struct rig *r, const char *what, bool hello, const void *data, size_t bytes,
                   unsigned code)
{
    print_message("  %s\n", what);
    if (hello) {
        open_stream(r, false);
    } else {
        stream.fd = rig_tcp(r, false);
        stream.bytes = 0;
    }
    rig_send(stream.fd, data, bytes);
    next_error(code);
}

static void whoever_breaks_the_protocol_is_told_and_closed(void **state)
{
    struct rig r;
    uint8_t junk[64];
    size_t n;

    rig_init(&r);
    r.config.ingest.tcp.frame_s_max = 1; /* for the one that looks like a begun frame */
    rig_open(&r);
    rig_start(&r);
    breaks(&r, "a batch before the hello", false, frame, request_of(frame, sizeof frame, 1, 1, 1),
           sluice_v1_ErrorCode_ERROR_HELLO_EXPECTED);
    breaks(&r, "a second hello", true, frame, rig_hello(frame, 1, NULL),
           sluice_v1_ErrorCode_ERROR_HELLO_EXPECTED);
    breaks(&r, "another protocol", false, frame, rig_hello(frame, 2, NULL),
           sluice_v1_ErrorCode_ERROR_PROTOCOL_VERSION);
    memset(junk, 0xff, sizeof junk);
    breaks(&r, "a length without an end", true, junk, sizeof junk,
           sluice_v1_ErrorCode_ERROR_MALFORMED_FRAME);
    breaks(&r, "a length beyond the limit", true, "\xff\xff\xff\x7f", 4,
           sluice_v1_ErrorCode_ERROR_FRAME_TOO_LARGE);
    breaks(&r, "an empty frame", true, "\x00", 1, sluice_v1_ErrorCode_ERROR_MALFORMED_FRAME);
    breaks(&r, "an unknown body", true, "\x02\x7a\x00", 3,
           sluice_v1_ErrorCode_ERROR_MALFORMED_FRAME);
    breaks(&r, "two bodies", true, "\x04\x1a\x00\x1a\x00", 5,
           sluice_v1_ErrorCode_ERROR_MALFORMED_FRAME);
    breaks(&r, "HTTP", false, "GET / HTTP/1.1\r\nHost: x\r\n\r\n" /* 'G' = 71 bytes */, 27,
           sluice_v1_ErrorCode_ERROR_FRAME_TIMEOUT);
    n = rig_batch_frame(frame, sizeof frame, 1, (const uint8_t *)"\x0a\x7f\x08", 3);
    breaks(&r, "a batch that cannot be walked", true, frame, n,
           sluice_v1_ErrorCode_ERROR_MALFORMED_FRAME);
    /* What came before is answered first. */
    open_stream(&r, false);
    n = request_of(frame, sizeof frame, 3, 5, 1);
    memcpy(frame + n, "\x00", 1);
    rig_send(stream.fd, frame, n + 1);
    next_receipt(3);
    assert_int_equal(receipt.r.accepted, 5);
    next_error(sluice_v1_ErrorCode_ERROR_MALFORMED_FRAME);
    RIG_WAIT(&r, l->connections_closed == 11);
    assert_int_equal(r.snap.ledger.frames_malformed, 10);
    rig_close(&r);
}

static void a_token_must_be_one_of_the_file(void **state)
{
    static const char *const wrong[] = { NULL, "", "secre", "secret1", "Secret", "secret\n", "\n" };
    char path[64] = "/tmp/sluice-tokens-XXXXXX";
    struct rig r;
    const uint8_t *body;
    size_t bytes;
    int fd = mkstemp(path);

    assert_true(fd >= 0);
    assert_int_equal(write(fd, "first\n\nsecret\r\nlast", 19), 19);
    close(fd);
    rig_init(&r);
    snprintf(r.config.ingest.tcp.tokens_file, sizeof r.config.ingest.tcp.tokens_file, "%s", path);
    rig_open(&r);
    unlink(path);
    rig_start(&r);
    for (unsigned i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        breaks(&r, "a wrong token", false, frame, rig_hello(frame, 1, wrong[i]),
               sluice_v1_ErrorCode_ERROR_UNAUTHENTICATED);
    for (unsigned i = 0; i < 3; i++) {
        static const char *const right[] = { "first", "secret", "last" };

        stream.fd = rig_tcp(&r, false);
        rig_send(stream.fd, frame, rig_hello(frame, 1, right[i]));
        next_is(WELCOME, &body, &bytes);
        close(stream.fd);
    }
    rig_close(&r);
}

static void a_tokens_file_that_is_not_there_is_an_error(void **state)
{
    struct rig r;
    struct worker *w;
    char error[256];
    struct worker_config wc = {
        .config = &r.config,
        .link = &r.cluster.link,
    };

    rig_init(&r);
    assert_int_equal(fake_cluster_open(&r.cluster), 0);
    strcpy(r.config.ingest.tcp.tokens_file, "/nonexistent/tokens");
    assert_int_equal(worker_open(&w, &wc, error), -ENOENT);
    assert_non_null(strstr(error, "/nonexistent/tokens"));
    fake_cluster_close(&r.cluster);
    config_fini(&r.config);
}

static void deadlines_end_those_who_dawdle(void **state)
{
    struct rig r;

    rig_init(&r);
    r.config.ingest.tcp.frame_s_max = 1;
    r.config.ingest.tcp.idle_s_max = 2;
    rig_open(&r);
    rig_start(&r);
    /* No hello; half a hello; half a frame, dribbled; nothing after the hello. */
    stream.fd = rig_tcp(&r, false);
    stream.bytes = 0;
    next_error(sluice_v1_ErrorCode_ERROR_FRAME_TIMEOUT);
    stream.fd = rig_tcp(&r, false);
    rig_send(stream.fd, frame, rig_hello(frame, 1, NULL) / 2);
    next_error(sluice_v1_ErrorCode_ERROR_FRAME_TIMEOUT);
    open_stream(&r, false);
    (void)request_of(frame, sizeof frame, 1, 100, 1);
    for (unsigned i = 0; rig_snapshot(&r)->connections_timed_out < 3; i++) {
        struct timespec pause = { .tv_nsec = 10000000 };

        /* Until it is ended; sending may then fail. */
        (void)!send(stream.fd, frame + i, 1, MSG_NOSIGNAL);
        nanosleep(&pause, NULL);
        assert_true(i < 2000);
    }
    next_error(sluice_v1_ErrorCode_ERROR_FRAME_TIMEOUT);
    open_stream(&r, false);
    next_error(sluice_v1_ErrorCode_ERROR_IDLE_TIMEOUT);
    RIG_WAIT(&r, l->connections_timed_out == 4);
    rig_close(&r);
}

static void a_client_that_never_reads_stops_only_itself(void **state)
{
    struct rig r;
    struct timeval t = { .tv_usec = 100000 };
    int small = 4096;
    size_t n, sent = 0;
    struct rig_stream other;

    rig_init(&r);
    r.config.ingest.tcp.output_bytes_max = 64 * 1024;
    r.config.ingest.tcp.output_s_max = 2;
    rig_open(&r);
    rig_start(&r);
    open_stream(&r, false);
    assert_int_equal(setsockopt(stream.fd, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t), 0);
    assert_int_equal(setsockopt(stream.fd, SOL_SOCKET, SO_RCVBUF, &small, sizeof small), 0);
    other.fd = stream.fd;
    n = request_of(frame, sizeof frame, 1, 500, 0); /* assigned ids make long receipts */
    while (rig_snapshot(&r)->connections_timed_out == 0) {
        ssize_t k = send(stream.fd, frame + sent % n, n - sent % n, MSG_NOSIGNAL);

        if (k < 0 && errno != EAGAIN)
            break;
        sent += k > 0 ? (size_t)k : 0;
    }
    RIG_WAIT(&r, l->connections_timed_out == 1);
    assert_true(r.snap.ledger.receive_paused > 0);
    /* Another is served. */
    open_stream(&r, false);
    rig_send(stream.fd, frame, request_of(frame, sizeof frame, 8, 10, 1));
    next_receipt(8);
    close(stream.fd);
    close(other.fd);
    RIG_WAIT(&r, l->connections_closed == 2);
    rig_close(&r);
}

static void one_too_many_is_told_so(void **state)
{
    struct rig r;
    int fd[4];

    rig_init(&r);
    r.config.ingest.tcp.connections_max = 4;
    rig_open(&r);
    rig_start(&r);
    for (unsigned i = 0; i < 4; i++) {
        open_stream(&r, false);
        fd[i] = stream.fd;
    }
    stream.fd = rig_tcp(&r, false);
    stream.bytes = 0;
    next_error(sluice_v1_ErrorCode_ERROR_TOO_MANY_CONNECTIONS);
    assert_int_equal(rig_snapshot(&r)->connections_refused, 1);
    assert_int_equal(r.snap.connections, 4);
    close(fd[0]);
    RIG_WAIT(&r, l->connections_closed == 1);
    open_stream(&r, true); /* there is room again */
    close(stream.fd);
    for (unsigned i = 1; i < 4; i++)
        close(fd[i]);
    rig_close(&r);
}

static void a_client_that_has_said_all_still_gets_its_receipts(void **state)
{
    struct rig r;
    const uint8_t *body;
    size_t bytes, n = 0;

    rig_init(&r);
    rig_open(&r);
    fake_cluster_hold(&r.cluster, true);
    rig_start(&r);
    open_stream(&r, false);
    for (uint64_t i = 1; i <= 20; i++)
        n += request_of(frame + n, sizeof frame - n, i, 5, 1);
    rig_send(stream.fd, frame, n);
    assert_int_equal(shutdown(stream.fd, SHUT_WR), 0);
    RIG_WAIT(&r, l->frames == 21);
    assert_int_equal(r.snap.connections, 1);
    fake_cluster_hold(&r.cluster, false);
    for (uint64_t i = 1; i <= 20; i++)
        next_receipt(i);
    assert_int_equal(rig_next(&stream, &body, &bytes), 0);
    close(stream.fd);
    RIG_WAIT(&r, l->connections_closed == 1);
    assert_int_equal(r.snap.ledger.receipts, 20);
    rig_close(&r);
}

static void receipts_for_those_who_left_are_counted(void **state)
{
    struct linger reset = { .l_onoff = 1 };
    struct rig r;
    int fd;

    rig_init(&r);
    rig_open(&r);
    fake_cluster_hold(&r.cluster, true);
    rig_start(&r);
    open_stream(&r, false);
    rig_send(stream.fd, frame, request_of(frame, sizeof frame, 1, 5, 1));
    rig_send(stream.fd, frame, request_of(frame, sizeof frame, 2, 5, 1));
    /* In the middle of a frame. */
    rig_send(stream.fd, frame, request_of(frame, sizeof frame, 3, 5, 1) / 2);
    RIG_WAIT(&r, l->frames == 3);
    fd = stream.fd;
    assert_int_equal(setsockopt(fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset), 0);
    close(fd);
    RIG_WAIT(&r, l->connections_closed == 1);
    open_stream(&r, false); /* takes the same slot */
    fake_cluster_hold(&r.cluster, false);
    RIG_WAIT(&r, l->receipts_undeliverable == 2 && l->committed[1] == 10);
    rig_send(stream.fd, frame, request_of(frame, sizeof frame, 4, 1, 1));
    next_receipt(4);
    close(stream.fd);
    rig_close(&r);
}

static void without_a_free_block_clients_wait_and_nothing_is_lost(void **state)
{
    enum { CLIENTS = 16, REQUESTS = 40 };
    struct rig r;
    int fd[CLIENTS];

    rig_init(&r);
    r.config.pipeline.blocks = 2;
    rig_open(&r);
    fake_cluster_hold(&r.cluster, true);
    rig_start(&r);
    for (unsigned c = 0; c < CLIENTS; c++) {
        open_stream(&r, c % 2);
        fd[c] = stream.fd;
        for (uint64_t i = 1; i <= REQUESTS; i++) {
            size_t n = request_of(frame, sizeof frame, i, 20, 1);

            rig_send(fd[c], frame, n);
        }
    }
    RIG_WAIT(&r, l->receive_paused > 0 && r.snap.blocks_free == 0);
    rig_check_balance(&r.snap.ledger);
    fake_cluster_hold(&r.cluster, false);
    for (unsigned c = 0; c < CLIENTS; c++) {
        stream.fd = fd[c];
        stream.bytes = 0;
        for (uint64_t i = 1; i <= REQUESTS; i++) {
            next_receipt(i);
            assert_int_equal(receipt.r.accepted, 20);
        }
        close(fd[c]);
    }
    RIG_WAIT(&r, l->committed[1] == CLIENTS * REQUESTS * 20);
    rig_close(&r);
}

static void a_drain_answers_what_is_in_flight_and_says_stopping(void **state)
{
    struct rig r;

    rig_init(&r);
    rig_open(&r);
    fake_cluster_hold(&r.cluster, true);
    rig_start(&r);
    open_stream(&r, false);
    rig_send(stream.fd, frame, request_of(frame, sizeof frame, 1, 5, 1));
    rig_send(stream.fd, frame, request_of(frame, sizeof frame, 2, 5, 1));
    RIG_WAIT(&r, l->frames == 3);
    worker_drain(r.worker);
    (void)rig_snapshot(&r);
    assert_false(worker_drained(r.worker));
    fake_cluster_hold(&r.cluster, false);
    next_receipt(1);
    next_receipt(2);
    next_error(sluice_v1_ErrorCode_ERROR_STOPPING);
    RIG_WAIT(&r, worker_drained(r.worker));
    rig_close(&r);
}

static void nothing_is_allocated_once_it_runs(void **state)
{
    struct rig r;

    if (!alloc_guard_works()) {
        print_message("skipped: the sanitizer brings an allocator of its own\n");
        skip();
    }
    rig_init(&r);
    rig_open(&r);
    rig_start(&r);
    alloc_guard_arm();
    for (unsigned c = 0; c < 20; c++) {
        open_stream(&r, c % 2);
        for (uint64_t i = 1; i <= 20; i++) {
            rig_send(stream.fd, frame, request_of(frame, sizeof frame, i, 200, i % 2));
            next_receipt(i);
        }
        close(stream.fd);
    }
    assert_int_equal(alloc_guard_disarm(), 0);
    rig_close(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_gets_its_receipt_over_both_families),
        cmocka_unit_test(the_welcome_says_the_limits),
        cmocka_unit_test(a_stream_may_be_cut_at_every_byte),
        cmocka_unit_test(a_stream_may_come_byte_by_byte),
        cmocka_unit_test(many_frames_in_one_send_are_answered_in_order),
        cmocka_unit_test(large_frames_cross_buffers),
        cmocka_unit_test(bad_events_are_exceptions_and_the_rest_is_accepted),
        cmocka_unit_test(a_batch_of_too_many_events_is_refused_as_a_whole),
        cmocka_unit_test(whoever_breaks_the_protocol_is_told_and_closed),
        cmocka_unit_test(a_token_must_be_one_of_the_file),
        cmocka_unit_test(a_tokens_file_that_is_not_there_is_an_error),
        cmocka_unit_test(deadlines_end_those_who_dawdle),
        cmocka_unit_test(a_client_that_never_reads_stops_only_itself),
        cmocka_unit_test(one_too_many_is_told_so),
        cmocka_unit_test(a_client_that_has_said_all_still_gets_its_receipts),
        cmocka_unit_test(receipts_for_those_who_left_are_counted),
        cmocka_unit_test(without_a_free_block_clients_wait_and_nothing_is_lost),
        cmocka_unit_test(a_drain_answers_what_is_in_flight_and_says_stopping),
        cmocka_unit_test(nothing_is_allocated_once_it_runs),
    };

    if (getenv("TEST_FILTER")) /* cmocka's pattern of the tests to run */
        cmocka_set_test_filter(getenv("TEST_FILTER"));
    return cmocka_run_group_tests(tests, NULL, NULL);
}
