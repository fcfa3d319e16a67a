/*
 * test_client.c - libsluice against a scripted server on loopback.
 *
 * The test's own thread is the server: it accepts, reads frames and answers step by step, so
 * nothing depends on timing. What the client reports is collected under a mutex.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <arpa/inet.h>
#include <errno.h>
#include <pb_encode.h>
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/frame.h"
#include "client/internal.h"
#include "proto/event.pb.h"

#define RESULTS_MAX 4096
#define PATIENCE_S  20
#define FRAME_MAX   (1u << 20)
#define EVENT_MAX   256

/* --- what the client reports ---------------------------------------------------------------- */

struct result {
    unsigned reports;
    int status;
    uint32_t attempts;
    size_t outcomes;
    struct sluice_outcome outcome[4];
    uint8_t id[16];
};

struct reports {
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    unsigned n;
    struct result result[RESULTS_MAX]; /* by user */
    struct sluice_client *send_from_callback;
    int sent_from_callback;
};

static struct reports reports;

static size_t event_make(uint8_t *ret, const char *id)
{
    sluice_v1_Event e = sluice_v1_Event_init_zero;
    pb_ostream_t out = pb_ostream_from_buffer(ret, EVENT_MAX);

    e.type = sluice_v1_EventType_TRADE;
    strcpy(e.source, "test");
    e.id.size = (pb_size_t)strlen(id);
    memcpy(e.id.bytes, id, e.id.size);
    assert_true(pb_encode(&out, sluice_v1_Event_fields, &e));
    return out.bytes_written;
}

/* n events, named after the batch. */
static int batch_send(struct sluice_client *c, unsigned batch, size_t n, int timeout_ms,
                      uint64_t *ret_request)
{
    uint8_t data[4][EVENT_MAX];
    const void *event[4];
    size_t bytes[4];

    for (size_t i = 0; i < n; i++) {
        char id[32];

        snprintf(id, sizeof(id), "%u.%zu", batch, i);
        bytes[i] = event_make(data[i], id);
        event[i] = data[i];
    }
    return sluice_send(c, event, bytes, n, (void *)(uintptr_t)batch, timeout_ms, ret_request);
}

static void on_receipt(void *arg, const struct sluice_receipt *receipt)
{
    uintptr_t user = (uintptr_t)receipt->user;

    pthread_mutex_lock(&reports.mutex);
    assert_true(user < RESULTS_MAX);
    struct result *r = &reports.result[user];

    r->reports++;
    r->status = receipt->status;
    r->attempts = receipt->attempts;
    r->outcomes = receipt->outcomes;
    for (size_t i = 0; i < receipt->outcomes && i < 4; i++)
        r->outcome[i] = receipt->outcome[i];
    if (receipt->outcomes && receipt->outcome[0].id)
        memcpy(r->id, receipt->outcome[0].id, receipt->outcome[0].id_bytes);
    struct sluice_client *c = reports.send_from_callback;

    reports.send_from_callback = NULL;
    reports.n++;
    pthread_cond_broadcast(&reports.changed);
    pthread_mutex_unlock(&reports.mutex);
    if (c) {
        assert_int_equal(sluice_flush(c, -1), -EDEADLK);
        int first = batch_send(c, 1000, 1, -1, NULL);
        int second = batch_send(c, 1001, 1, -1, NULL);

        pthread_mutex_lock(&reports.mutex);
        reports.sent_from_callback = first == 0 && second == -EAGAIN;
        pthread_mutex_unlock(&reports.mutex);
    }
}

static void reports_wait(unsigned n)
{
    struct timespec until;

    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += PATIENCE_S;
    pthread_mutex_lock(&reports.mutex);
    while (reports.n < n)
        assert_int_equal(pthread_cond_timedwait(&reports.changed, &reports.mutex, &until), 0);
    pthread_mutex_unlock(&reports.mutex);
}

/* --- the server ----------------------------------------------------------------------------- */

struct server {
    int listen_fd, fd;
    char address[32];
    size_t in_bytes, taken; /* taken: of the frame read last */
    uint8_t *in;
};

static void server_listen(struct server *s)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    struct timeval patience = { .tv_sec = PATIENCE_S };
    socklen_t bytes = sizeof(a);

    *s = (struct server){ .fd = -1, .in = malloc(FRAME_MAX) };
    s->listen_fd = socket(AF_INET, SOCK_STREAM, 0);
    assert_true(s->in && s->listen_fd >= 0);
    assert_int_equal(bind(s->listen_fd, (void *)&a, sizeof(a)), 0);
    assert_int_equal(listen(s->listen_fd, 8), 0);
    assert_int_equal(getsockname(s->listen_fd, (void *)&a, &bytes), 0);
    /* accept() obeys it too: a client that never comes fails the test instead of hanging it. */
    setsockopt(s->listen_fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
    snprintf(s->address, sizeof(s->address), "127.0.0.1:%u", ntohs(a.sin_port));
}

static void server_drop(struct server *s)
{
    if (s->fd >= 0)
        close(s->fd);
    s->fd = -1;
    s->in_bytes = s->taken = 0;
}

static void server_end(struct server *s)
{
    server_drop(s);
    close(s->listen_fd);
    free(s->in);
}

static void server_accept(struct server *s)
{
    struct timeval patience = { .tv_sec = PATIENCE_S };

    server_drop(s);
    s->fd = accept(s->listen_fd, NULL, NULL);
    assert_true(s->fd >= 0);
    setsockopt(s->fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof(patience));
}

/* The next frame that is no ping; valid until the next call. False: the client has left. */
static bool server_read(struct server *s, struct frame *f)
{
    for (;;) {
        memmove(s->in, s->in + s->taken, s->in_bytes - s->taken);
        s->in_bytes -= s->taken;
        s->taken = 0;
        int rc = frame_parse_client(f, s->in, s->in_bytes, FRAME_MAX);

        if (rc == 0) {
            s->taken = f->frame_bytes;
            if (f->kind != CLIENT_PING)
                return true;
            continue;
        }
        assert_int_equal(rc, -EAGAIN);
        ssize_t n = recv(s->fd, s->in + s->in_bytes, FRAME_MAX - s->in_bytes, 0);

        if (n <= 0) {
            assert_true(n == 0 || errno == ECONNRESET);
            return false;
        }
        s->in_bytes += (size_t)n;
    }
}

static uint64_t server_read_batch(struct server *s, struct frame *f)
{
    struct frame_batch batch;

    assert_true(server_read(s, f));
    assert_int_equal(f->kind, CLIENT_BATCH);
    assert_int_equal(frame_get_batch(&batch, f), 0);
    return batch.request;
}

static void server_write(struct server *s, const void *data, ssize_t bytes)
{
    assert_true(bytes > 0);
    assert_int_equal(send(s->fd, data, (size_t)bytes, MSG_NOSIGNAL), bytes);
}

static void server_hello(struct server *s)
{
    sluice_v1_Hello hello;
    struct frame f;

    assert_true(server_read(s, &f));
    assert_int_equal(f.kind, CLIENT_HELLO);
    assert_int_equal(frame_get_hello(&hello, &f), 0);
    assert_int_equal(hello.protocol, 1);
}

static void server_welcome_limits(struct server *s, uint32_t frame_bytes_max, uint32_t events_max)
{
    sluice_v1_Welcome welcome = { .protocol = 1,
                                  .frame_bytes_max = frame_bytes_max,
                                  .batch_events_max = events_max };
    uint8_t buf[128];

    server_hello(s);
    server_write(s, buf, frame_put_welcome(buf, sizeof(buf), &welcome));
}

static void server_welcome(struct server *s)
{
    server_accept(s);
    server_welcome_limits(s, FRAME_MAX, 1000);
}

static void server_receipt(struct server *s, uint64_t request, uint32_t accepted)
{
    struct receipt r = { .request = request, .index = 1000 + request, .accepted = accepted };
    uint8_t buf[128];

    server_write(s, buf, frame_put_receipt(buf, sizeof(buf), &r));
}

static void server_error(struct server *s, sluice_v1_ErrorCode code)
{
    sluice_v1_Error error = { .code = code, .message = "because", .closing = true };
    uint8_t buf[128];

    server_write(s, buf, frame_put_error(buf, sizeof(buf), &error));
}

/* --- set up --------------------------------------------------------------------------------- */

static struct server server;

static int setup(void **state)
{
    memset(&reports, 0, sizeof(reports));
    pthread_mutex_init(&reports.mutex, NULL);
    pthread_cond_init(&reports.changed, NULL);
    server_listen(&server);
    return 0;
}

static int teardown(void **state)
{
    server_end(&server);
    pthread_cond_destroy(&reports.changed);
    pthread_mutex_destroy(&reports.mutex);
    return 0;
}

static struct sluice_options options_make(void)
{
    struct sluice_options o;

    sluice_options_init(&o);
    o.addresses = server.address;
    o.on_receipt = on_receipt;
    o.backoff_ms_max = 20;
    o.receipt_timeout_ms = 1000 * PATIENCE_S;
    o.connect_timeout_ms = 1000 * PATIENCE_S;
    return o;
}

static struct sluice_client *client_open(const struct sluice_options *o)
{
    struct sluice_client *c;

    assert_int_equal(sluice_open(&c, o), 0);
    return c;
}

static struct sluice_client *client_open_default(void)
{
    struct sluice_options o = options_make();

    return client_open(&o);
}

/* --- tests ---------------------------------------------------------------------------------- */

static void a_receipt_is_told_event_by_event(void **state)
{
    struct receipt_exception e[] = {
        { .position = 1, .reason = sluice_v1_Reason_DUPLICATE, .first_index = 7, .first_slot = 3 },
        { .position = 2, .reason = sluice_v1_Reason_ID_CONFLICT },
    };
    struct receipt_assigned a = { .position = 0, .id_bytes = 4, .id = (const uint8_t *)"abcd" };
    struct receipt r = { .epoch = 2,
                         .term = 9,
                         .index = 50,
                         .first_slot = 11,
                         .accepted = 2,
                         .duplicates = 1,
                         .refused = 1,
                         .exceptions = 2,
                         .assigned = 1,
                         .exception = e,
                         .assigned_id = &a };
    struct sluice_client *c = client_open_default();
    struct sluice_stats stats;
    uint64_t request;
    struct frame f;
    uint8_t buf[256];

    assert_int_equal(batch_send(c, 1, 4, -1, &request), 0);
    server_welcome(&server);
    r.request = server_read_batch(&server, &f);
    assert_int_equal(r.request, request);
    server_write(&server, buf, frame_put_receipt(buf, sizeof(buf), &r));
    assert_int_equal(sluice_flush(c, -1), 0);

    const struct result *got = &reports.result[1];

    assert_int_equal(got->reports, 1);
    assert_int_equal(got->status, 0);
    assert_int_equal(got->attempts, 1);
    assert_int_equal(got->outcomes, 4);
    assert_int_equal(got->outcome[0].reason, 0);
    assert_int_equal(got->outcome[0].index, 50);
    assert_int_equal(got->outcome[0].slot, 11);
    assert_int_equal(got->outcome[0].id_bytes, 4);
    assert_memory_equal(got->id, "abcd", 4);
    assert_int_equal(got->outcome[1].reason, sluice_v1_Reason_DUPLICATE);
    assert_int_equal(got->outcome[1].index, 7);
    assert_int_equal(got->outcome[1].slot, 3);
    assert_int_equal(got->outcome[2].reason, sluice_v1_Reason_ID_CONFLICT);
    assert_int_equal(got->outcome[2].index, 0);
    assert_int_equal(got->outcome[3].index, 50);
    assert_int_equal(got->outcome[3].slot, 12);
    sluice_stats(c, &stats);
    assert_int_equal(stats.events_accepted, 2);
    assert_int_equal(stats.events_duplicate, 1);
    assert_int_equal(stats.events_refused, 1);
    assert_int_equal(stats.in_flight, 0);
    sluice_close(c);
}

static void receipts_are_taken_in_any_order(void **state)
{
    struct sluice_client *c = client_open_default();
    uint64_t request[5];
    struct frame f;

    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(batch_send(c, i, 1, -1, NULL), 0);
    server_welcome(&server);
    for (unsigned i = 0; i < 5; i++)
        request[i] = server_read_batch(&server, &f);
    static const unsigned order[] = { 3, 0, 4, 2, 1 };

    for (unsigned i = 0; i < 5; i++)
        server_receipt(&server, request[order[i]], 1);
    reports_wait(5);
    for (unsigned i = 0; i < 5; i++) {
        assert_int_equal(reports.result[i].reports, 1);
        assert_int_equal(reports.result[i].outcome[0].index, 1000 + request[i]);
    }
    sluice_close(c);
}

static void after_a_break_what_has_no_receipt_goes_out_again_with_the_same_bytes(void **state)
{
    struct sluice_client *c = client_open_default();
    uint8_t sent[6][512];
    uint32_t bytes[6];
    uint64_t request[6];
    struct sluice_stats stats;
    struct frame f;

    for (unsigned i = 0; i < 6; i++)
        assert_int_equal(batch_send(c, i, 2, -1, NULL), 0);
    server_welcome(&server);
    for (unsigned i = 0; i < 6; i++) {
        request[i] = server_read_batch(&server, &f);
        bytes[i] = f.frame_bytes;
        memcpy(sent[i], server.in, f.frame_bytes);
    }
    server_receipt(&server, request[0], 2);
    server_receipt(&server, request[3], 2);
    reports_wait(2);

    server_welcome(&server); /* drops the first connection */
    static const unsigned left[] = { 1, 2, 4, 5 };

    for (unsigned i = 0; i < 4; i++) {
        assert_int_equal(server_read_batch(&server, &f), request[left[i]]);
        assert_int_equal(f.frame_bytes, bytes[left[i]]);
        assert_memory_equal(server.in, sent[left[i]], f.frame_bytes);
        server_receipt(&server, request[left[i]], 2);
    }
    reports_wait(6);
    for (unsigned i = 0; i < 6; i++) {
        assert_int_equal(reports.result[i].reports, 1);
        assert_int_equal(reports.result[i].status, 0);
        assert_int_equal(reports.result[i].attempts, i == 0 || i == 3 ? 1 : 2);
    }
    sluice_stats(c, &stats);
    assert_int_equal(stats.resent, 4);
    assert_int_equal(stats.connects, 2);
    assert_int_equal(stats.disconnects, 1);
    sluice_close(c);
}

static void a_second_receipt_and_one_for_nobody_are_counted_and_ignored(void **state)
{
    struct sluice_client *c = client_open_default();
    struct sluice_stats stats;
    struct frame f;

    server_welcome(&server);
    assert_int_equal(batch_send(c, 1, 1, -1, NULL), 0);
    uint64_t first = server_read_batch(&server, &f);

    server_receipt(&server, first, 1);
    server_receipt(&server, first, 1);
    server_receipt(&server, 987654321, 1);
    assert_int_equal(batch_send(c, 2, 1, -1, NULL), 0);
    server_receipt(&server, server_read_batch(&server, &f), 1);
    reports_wait(2);
    assert_int_equal(reports.result[1].reports, 1);
    assert_int_equal(reports.result[2].reports, 1);
    sluice_stats(c, &stats);
    assert_int_equal(stats.receipts_unknown, 2);
    assert_int_equal(stats.connects, 1);
    sluice_close(c);
}

/* In one piece with the welcome, so it is there before anything could be sent again. */
static void an_answer_to_what_this_connection_has_not_carried_is_ignored(void **state)
{
    struct sluice_client *c = client_open_default();
    sluice_v1_Welcome welcome = { .protocol = 1 };
    struct sluice_stats stats;
    struct frame f;
    uint8_t buf[256];

    assert_int_equal(batch_send(c, 1, 2, -1, NULL), 0);
    server_welcome(&server);
    struct receipt r = { .request = server_read_batch(&server, &f), .index = 66, .accepted = 2 };

    server_accept(&server);
    server_hello(&server);
    ssize_t bytes = frame_put_welcome(buf, sizeof(buf), &welcome);

    bytes += frame_put_receipt(buf + bytes, sizeof(buf) - (size_t)bytes, &r);
    server_write(&server, buf, bytes);
    assert_int_equal(server_read_batch(&server, &f), r.request);
    assert_int_equal(reports.n, 0);
    server_receipt(&server, r.request, 2);
    assert_int_equal(sluice_flush(c, -1), 0);
    assert_int_equal(reports.result[1].reports, 1);
    assert_int_equal(reports.result[1].outcome[0].index, 1000 + r.request);
    sluice_stats(c, &stats);
    assert_int_equal(stats.receipts_unknown, 1);
    sluice_close(c);
}

/* Answers one batch properly on a new connection: whatever came before was not believed. */
static void settle_on_a_new_connection(struct sluice_client *c, uint64_t request)
{
    struct frame f;

    server_welcome(&server);
    assert_int_equal(server_read_batch(&server, &f), request);
    assert_int_equal(reports.n, 0);
    server_receipt(&server, request, 2);
    reports_wait(1);
    assert_int_equal(reports.result[1].reports, 1);
    assert_int_equal(reports.result[1].status, 0);
    sluice_close(c);
}

static uint64_t batch_of_two(struct sluice_client *c)
{
    struct frame f;

    assert_int_equal(batch_send(c, 1, 2, -1, NULL), 0);
    server_welcome(&server);
    return server_read_batch(&server, &f);
}

static void garbage_makes_it_connect_again(void **state)
{
    struct sluice_client *c = client_open_default();
    uint64_t request = batch_of_two(c);

    server_write(&server, "\xff\xff\xff\xff\xff\xff\xff", 7);
    settle_on_a_new_connection(c, request);
}

static void a_server_of_another_protocol_makes_it_try_again(void **state)
{
    struct sluice_client *c = client_open_default();

    assert_int_equal(batch_send(c, 1, 2, -1, NULL), 0);
    server_accept(&server);
    server_write(&server, "HTTP/1.1 400 Bad Request\r\n\r\n", 28);
    settle_on_a_new_connection(c, 1);
}

static void a_connection_closed_in_the_middle_of_a_receipt_loses_nothing(void **state)
{
    struct sluice_client *c = client_open_default();
    uint64_t request = batch_of_two(c);
    struct receipt r = { .request = request, .index = 5, .accepted = 2 };
    uint8_t buf[64];
    ssize_t bytes = frame_put_receipt(buf, sizeof(buf), &r);

    server_write(&server, buf, bytes - 1);
    settle_on_a_new_connection(c, request);
}

static void a_receipt_that_does_not_add_up_is_not_believed(void **state)
{
    struct receipt_exception twice[] = { { .position = 0, .reason = 3 },
                                         { .position = 0, .reason = 4 } };
    struct receipt_exception outside = { .position = 2, .reason = 3 };
    struct receipt_exception nowhere = { .position = 0, .reason = sluice_v1_Reason_DUPLICATE };
    struct receipt_assigned a = { .position = 9, .id_bytes = 1, .id = (const uint8_t *)"x" };
    struct receipt wrong[] = {
        { .index = 5, .accepted = 1 },
        { .index = 5, .accepted = 3 },
        { .index = 0, .accepted = 2 },
        { .index = 5, .accepted = 2, .truncated = true },
        { .index = 5, .accepted = 1, .refused = 1 },
        { .refused = 2, .exceptions = 2, .exception = twice },
        { .index = 5, .accepted = 1, .refused = 1, .exceptions = 1, .exception = &outside },
        { .index = 5, .accepted = 1, .duplicates = 1, .exceptions = 1, .exception = &nowhere },
        { .index = 5, .accepted = 2, .assigned = 1, .assigned_id = &a },
    };
    struct sluice_client *c = client_open_default();
    uint64_t request = batch_of_two(c);
    struct frame f;

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        uint8_t buf[128];

        wrong[i].request = request;
        server_write(&server, buf, frame_put_receipt(buf, sizeof(buf), &wrong[i]));
        assert_false(server_read(&server, &f));
        server_welcome(&server);
        assert_int_equal(server_read_batch(&server, &f), request);
        assert_int_equal(reports.n, 0);
    }
    server_receipt(&server, request, 2);
    reports_wait(1);
    assert_int_equal(reports.result[1].status, 0);
    sluice_close(c);
}

static void a_server_that_never_answers_is_left_after_the_receipt_timeout(void **state)
{
    struct sluice_options o = options_make();

    o.receipt_timeout_ms = 50;
    struct sluice_client *c = client_open(&o);
    struct frame f;

    assert_int_equal(batch_send(c, 1, 2, -1, NULL), 0);
    server_welcome(&server);
    uint64_t request = server_read_batch(&server, &f);

    assert_false(server_read(&server, &f)); /* it leaves by itself */
    /* The second time it may lose patience again before we have answered: serve until it is told.
     */
    do {
        server_welcome(&server);
        assert_int_equal(server_read_batch(&server, &f), request);
        server_receipt(&server, request, 2);
    } while (sluice_flush(c, 1000) != 0);
    assert_int_equal(reports.result[1].reports, 1);
    assert_true(reports.result[1].attempts >= 2);
    sluice_close(c);
}

static void a_server_that_never_welcomes_is_left_after_the_connect_timeout(void **state)
{
    struct sluice_options o = options_make();

    o.connect_timeout_ms = 50;
    struct sluice_client *c = client_open(&o);
    struct frame f;

    server_accept(&server);
    server_hello(&server);
    assert_false(server_read(&server, &f));
    server_accept(&server);
    sluice_close(c);
}

static void fails_for_good(sluice_v1_ErrorCode code, int status)
{
    struct sluice_client *c = client_open_default();

    assert_int_equal(batch_send(c, 1, 1, -1, NULL), 0);
    assert_int_equal(batch_send(c, 2, 1, -1, NULL), 0);
    server_accept(&server);
    server_hello(&server);
    server_error(&server, code);
    assert_int_equal(sluice_flush(c, -1), 0);
    assert_int_equal(reports.result[1].status, status);
    assert_int_equal(reports.result[2].status, status);
    assert_int_equal(reports.result[1].reports, 1);
    assert_int_equal(reports.result[1].outcomes, 0);
    assert_int_equal(batch_send(c, 3, 1, -1, NULL), status);
    sluice_close(c);
    assert_int_equal(reports.n, 2);
}

static void a_wrong_token_ends_the_client(void **state)
{
    fails_for_good(sluice_v1_ErrorCode_ERROR_UNAUTHENTICATED, -EACCES);
}

static void a_wrong_protocol_version_ends_the_client(void **state)
{
    fails_for_good(sluice_v1_ErrorCode_ERROR_PROTOCOL_VERSION, -EPROTO);
}

/* Or the client would take the receipt for nonsense, and send the batch again for ever. */
static void a_batch_that_is_refused_whole_is_told_event_by_event(void **state)
{
    struct receipt_exception e[] = { { .reason = sluice_v1_Reason_BATCH_TOO_LARGE } };
    struct receipt r = { .refused = 3, .exceptions = 1, .exception = e };
    struct sluice_client *c = client_open_default();
    struct sluice_stats stats;
    uint8_t buf[128];
    struct frame f;

    assert_int_equal(batch_send(c, 1, 3, -1, NULL), 0);
    server_welcome(&server);
    r.request = server_read_batch(&server, &f);
    server_write(&server, buf, frame_put_receipt(buf, sizeof(buf), &r));
    assert_int_equal(sluice_flush(c, -1), 0);
    sluice_stats(c, &stats);
    sluice_close(c);
    assert_int_equal(reports.result[1].status, 0);
    assert_int_equal(reports.result[1].outcomes, 3);
    assert_int_equal(stats.events_refused, 3);
    assert_int_equal(stats.resent, 0);
}

static char said[1024]; /* of the client's thread, until it has ended */

static void on_state_keep(void *arg, int connected, const char *sentence)
{
    (void)arg;
    (void)connected;
    strncat(said, sentence, sizeof(said) - strlen(said) - 1);
}

static void what_a_server_says_commands_no_terminal(void **state)
{
    sluice_v1_Error error = { .code = sluice_v1_ErrorCode_ERROR_UNAUTHENTICATED,
                              .message = "no\x1b[2J \xc2\x9bJ\xc3\xa9",
                              .closing = true };
    struct sluice_options o = options_make();
    struct sluice_client *c;
    uint8_t buf[128];

    said[0] = '\0';
    o.on_state = on_state_keep;
    c = client_open(&o);
    server_accept(&server);
    server_hello(&server);
    server_write(&server, buf, frame_put_error(buf, sizeof(buf), &error));
    assert_false(server_read(&server, &(struct frame){ 0 }));
    sluice_close(c);
    assert_non_null(strstr(said, "no?[2J ??J\xc3\xa9"));
}

static void too_many_connections_is_tried_again(void **state)
{
    struct sluice_client *c = client_open_default();

    assert_int_equal(batch_send(c, 1, 2, -1, NULL), 0);
    for (unsigned i = 0; i < 3; i++) {
        server_accept(&server);
        server_hello(&server);
        server_error(&server, sluice_v1_ErrorCode_ERROR_TOO_MANY_CONNECTIONS);
    }
    settle_on_a_new_connection(c, 1);
}

static void transient_refusals_are_reported_and_not_sent_again(void **state)
{
    struct receipt_exception e = { .position = 1, .reason = sluice_v1_Reason_OVERLOADED };
    struct sluice_client *c = client_open_default();
    struct receipt r = { .request = batch_of_two(c),
                         .index = 5,
                         .accepted = 1,
                         .refused = 1,
                         .exceptions = 1,
                         .exception = &e };
    struct sluice_stats stats;
    uint8_t buf[64];

    server_write(&server, buf, frame_put_receipt(buf, sizeof(buf), &r));
    assert_int_equal(sluice_flush(c, -1), 0);
    assert_int_equal(reports.result[1].outcome[1].reason, sluice_v1_Reason_OVERLOADED);
    assert_true(sluice_reason_is_transient(reports.result[1].outcome[1].reason));
    assert_false(sluice_reason_is_transient(sluice_v1_Reason_ID_CONFLICT));
    assert_string_equal(sluice_reason_name(sluice_v1_Reason_OVERLOADED), "OVERLOADED");
    assert_string_equal(sluice_reason_name(77), "UNKNOWN");
    sluice_stats(c, &stats);
    assert_int_equal(stats.in_flight, 0);
    assert_int_equal(stats.resent, 0);
    sluice_close(c);
}

static void no_more_requests_than_allowed_are_in_flight(void **state)
{
    struct sluice_options o = options_make();

    o.requests_in_flight_max = 3;
    struct sluice_client *c = client_open(&o);
    struct frame f;

    server_welcome(&server);
    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(batch_send(c, i, 1, 0, NULL), 0);
    assert_int_equal(batch_send(c, 3, 1, 0, NULL), -EAGAIN);
    assert_int_equal(batch_send(c, 3, 1, 5, NULL), -EAGAIN);
    server_receipt(&server, server_read_batch(&server, &f), 1);
    assert_int_equal(batch_send(c, 3, 1, -1, NULL), 0); /* waits for the receipt */
    assert_int_equal(batch_send(c, 4, 1, 0, NULL), -EAGAIN);
    assert_int_equal(sluice_flush(c, 0), -ETIMEDOUT);
    sluice_close(c);
}

static void no_more_bytes_than_allowed_are_in_flight(void **state)
{
    struct sluice_options o = options_make();

    o.bytes_in_flight_max = 150;
    struct sluice_client *c = client_open(&o);
    unsigned taken = 0;

    while (batch_send(c, taken, 1, 0, NULL) == 0)
        taken++;
    assert_in_range(taken, 1, 7); /* an event and its frame are over 20 bytes */
    assert_int_equal(batch_send(c, taken, 4, 0, NULL), -EAGAIN);
    uint8_t large[200] = { 0x08, 1, 0x12, 1, 's', 0x1a, 1, 'i', 0x2a, 100 };
    const void *event = large;
    size_t bytes = 110;

    assert_int_equal(sluice_send(c, &event, &bytes, 1, NULL, -1, NULL), -EMSGSIZE);
    sluice_close(c);
    for (unsigned i = 0; i < taken; i++) {
        assert_int_equal(reports.result[i].reports, 1);
        assert_int_equal(reports.result[i].status, -ECANCELED);
    }
}

static void what_the_server_says_it_takes_is_respected(void **state)
{
    struct sluice_client *c = client_open_default();
    struct frame f;

    /* Queued before anybody had said how much a batch may be. */
    assert_int_equal(batch_send(c, 1, 4, -1, NULL), 0);
    assert_int_equal(batch_send(c, 2, 3, -1, NULL), 0);
    server_accept(&server);
    server_welcome_limits(&server, FRAME_MAX, 3);
    server_receipt(&server, server_read_batch(&server, &f), 3);
    assert_int_equal(sluice_flush(c, -1), 0);
    assert_int_equal(reports.result[1].status, -EMSGSIZE);
    assert_int_equal(reports.result[1].attempts, 0);
    assert_int_equal(reports.result[2].status, 0);
    assert_int_equal(batch_send(c, 3, 4, -1, NULL), -EMSGSIZE);
    server_accept(&server);
    server_welcome_limits(&server, 60, 1000);
    while (batch_send(c, 4, 1, -1, NULL) == -EMSGSIZE) /* until the new limits are known */
        ;
    server_receipt(&server, server_read_batch(&server, &f), 1);
    assert_int_equal(sluice_flush(c, -1), 0);
    assert_int_equal(batch_send(c, 5, 4, -1, NULL), -EMSGSIZE);
    sluice_close(c);
}

static int send_raw(struct sluice_client *c, const char *data, size_t bytes)
{
    const void *event = data;

    return sluice_send(c, &event, &bytes, 1, NULL, 0, NULL);
}

static void events_that_nobody_could_take_are_refused_at_once(void **state)
{
    struct sluice_options o = options_make();
    struct sluice_client *c = client_open(&o);

    assert_int_equal(send_raw(c, "\x08\x01\x12\x01s\x1a\x01i", 8), 0);
    assert_int_equal(send_raw(c, "\x12\x01s\x1a\x01i\x08\x01", 8), 0); /* any order */
    assert_int_equal(send_raw(c, "\x08\x01\x12\x01s", 5), -EINVAL);    /* no id */
    assert_int_equal(send_raw(c, "\x08\x01\x12\x01s\x1a\x00", 7), -EINVAL);
    assert_int_equal(send_raw(c, "\x08\x01\x1a\x01i", 5), -EINVAL);  /* no source */
    assert_int_equal(send_raw(c, "\x12\x01s\x1a\x01i", 6), -EINVAL); /* no type */
    assert_int_equal(send_raw(c, "\x08\x01\x12\x01s\x1a\x02i", 8), -EINVAL);
    assert_int_equal(send_raw(c, "\x08\x01\x12\x01s\x1a\x01i\x0f", 9), -EINVAL);
    assert_int_equal(send_raw(c, "", 0), -EINVAL);
    assert_int_equal(sluice_send(c, NULL, NULL, 0, NULL, 0, NULL), -EINVAL);
    sluice_close(c);
    o.allow_missing_ids = 1;
    c = client_open(&o);
    assert_int_equal(send_raw(c, "\x08\x01\x12\x01s", 5), 0);
    sluice_close(c);
}

static void closing_tells_what_has_no_receipt(void **state)
{
    struct sluice_client *c = client_open_default();
    struct frame f;

    for (unsigned i = 0; i < 3; i++)
        assert_int_equal(batch_send(c, i, 1, -1, NULL), 0);
    server_welcome(&server);
    server_receipt(&server, server_read_batch(&server, &f), 1);
    server_read_batch(&server, &f);
    reports_wait(1);
    sluice_close(c);
    assert_int_equal(reports.n, 3);
    assert_int_equal(reports.result[0].status, 0);
    assert_int_equal(reports.result[1].status, -ECANCELED);
    assert_int_equal(reports.result[2].status, -ECANCELED);
    sluice_close(NULL);
}

struct sender {
    struct sluice_client *client;
    int rc;
};

static void *send_when_full(void *arg)
{
    struct sender *s = arg;

    s->rc = batch_send(s->client, 2, 1, -1, NULL);
    return NULL;
}

/* Until the other thread waits: only the client's own count can tell. */
static void waiters_wait(struct sluice_client *c)
{
    uint32_t waiters = 0;

    while (waiters == 0) {
        pthread_mutex_lock(&c->mutex);
        waiters = c->waiters;
        pthread_mutex_unlock(&c->mutex);
        sched_yield();
    }
}

static void sender_start(struct sender *s, pthread_t *thread)
{
    struct sluice_options o = options_make();

    o.requests_in_flight_max = 1;
    *s = (struct sender){ .client = client_open(&o), .rc = 1 };
    assert_int_equal(batch_send(s->client, 1, 1, -1, NULL), 0);
    assert_int_equal(pthread_create(thread, NULL, send_when_full, s), 0);
    waiters_wait(s->client);
}

static void a_caller_that_waits_gets_the_room_of_an_answered_request(void **state)
{
    struct sender s;
    struct frame f;
    pthread_t thread;

    sender_start(&s, &thread);
    server_welcome(&server);
    server_receipt(&server, server_read_batch(&server, &f), 1);
    server_read_batch(&server, &f);
    pthread_join(thread, NULL);
    assert_int_equal(s.rc, 0);
    sluice_close(s.client);
    assert_int_equal(reports.result[2].status, -ECANCELED);
}

static void closing_wakes_a_caller_that_waits_for_room(void **state)
{
    struct sender s;
    pthread_t thread;

    sender_start(&s, &thread);
    sluice_close(s.client);
    pthread_join(thread, NULL);
    assert_int_equal(s.rc, -ECANCELED);
    assert_int_equal(reports.n, 1);
    assert_int_equal(reports.result[1].status, -ECANCELED);
}

static void a_callback_may_send_but_does_not_wait(void **state)
{
    struct sluice_options o = options_make();

    o.requests_in_flight_max = 1;
    struct sluice_client *c = client_open(&o);
    struct frame f;

    reports.send_from_callback = c;
    assert_int_equal(batch_send(c, 1, 1, -1, NULL), 0);
    server_welcome(&server);
    server_receipt(&server, server_read_batch(&server, &f), 1);
    server_receipt(&server, server_read_batch(&server, &f), 1);
    reports_wait(2);
    sluice_close(c);
    assert_true(reports.sent_from_callback);
    assert_int_equal(reports.result[1000].status, 0);
}

static void addresses_are_tried_in_turn(void **state)
{
    struct sluice_options o = options_make();
    struct server other;
    char addresses[80];
    struct frame f;

    server_listen(&other);
    snprintf(addresses, sizeof(addresses), "%s,%s", other.address, server.address);
    close(other.listen_fd); /* nobody listens there */
    other.listen_fd = -1;
    o.addresses = addresses;
    struct sluice_client *c = client_open(&o);

    assert_int_equal(batch_send(c, 1, 1, -1, NULL), 0);
    server_welcome(&server);
    server_receipt(&server, server_read_batch(&server, &f), 1);
    reports_wait(1);
    sluice_close(c);
    server_end(&other);
}

static void options_that_cannot_be_are_refused(void **state)
{
    static const char *const wrong[] = { "",          "host",       "host:",     ":7400",
                                         "host:0",    "host:65536", "host:x",    "::1:7400",
                                         "[::1:7400", "[]:7400",    "a:1,",      "a:1,,b:2",
                                         "a:1 ,b:2",  "host:-1",    "host:7400x" };
    struct sluice_options o = options_make();
    struct sluice_client *c;

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        o.addresses = wrong[i];
        assert_int_equal(sluice_open(&c, &o), -EINVAL);
    }
    o = options_make();
    o.on_receipt = NULL;
    assert_int_equal(sluice_open(&c, &o), -EINVAL);
    o = options_make();
    o.requests_in_flight_max = 0;
    assert_int_equal(sluice_open(&c, &o), -EINVAL);
}

/* A server that breaks the connection, or answers, as a seeded coin says: it remembers what it
 * took, as Sluice would, and answers what comes again as a duplicate. */
static void nothing_is_lost_or_told_twice_over_many_breaks(void **state)
{
    enum { BATCHES = 500 };
    static uint64_t taken[BATCHES + 1];
    struct sluice_client *c = client_open_default();
    unsigned seed = 7, next = 0, answered = 0;
    struct frame f;

    memset(taken, 0, sizeof(taken));
    server_welcome(&server);
    while (answered < BATCHES) {
        while (next < BATCHES && batch_send(c, next, 1, 0, NULL) == 0)
            next++;
        uint64_t request = server_read_batch(&server, &f);

        assert_in_range(request, 1, BATCHES);
        struct receipt_exception e = { .reason = sluice_v1_Reason_DUPLICATE,
                                       .first_index = taken[request] };
        struct receipt r = { .request = request, .index = 1, .accepted = 1 };
        uint8_t buf[64];

        if (taken[request])
            r = (struct receipt){
                .request = request, .duplicates = 1, .exceptions = 1, .exception = &e
            };
        else
            taken[request] = r.index = 5000 + request;
        ssize_t bytes = frame_put_receipt(buf, sizeof(buf), &r);
        unsigned coin = (unsigned)rand_r(&seed) % 16;

        if (coin == 0) { /* taken, and the connection breaks before or in the receipt */
            server_write(&server, buf, 1 + rand_r(&seed) % (bytes - 1));
            server_welcome(&server);
            continue;
        }
        server_write(&server, buf, bytes);
        answered++;
        reports_wait(answered);
    }
    assert_int_equal(sluice_flush(c, -1), 0);
    sluice_close(c);
    assert_int_equal(reports.n, BATCHES);
    for (unsigned i = 0; i < BATCHES; i++) {
        assert_int_equal(reports.result[i].reports, 1);
        assert_int_equal(reports.result[i].status, 0);
        assert_int_equal(reports.result[i].outcome[0].index, 5000 + i + 1);
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_receipt_is_told_event_by_event),
        TEST(receipts_are_taken_in_any_order),
        TEST(after_a_break_what_has_no_receipt_goes_out_again_with_the_same_bytes),
        TEST(a_second_receipt_and_one_for_nobody_are_counted_and_ignored),
        TEST(an_answer_to_what_this_connection_has_not_carried_is_ignored),
        TEST(garbage_makes_it_connect_again),
        TEST(a_server_of_another_protocol_makes_it_try_again),
        TEST(a_connection_closed_in_the_middle_of_a_receipt_loses_nothing),
        TEST(a_receipt_that_does_not_add_up_is_not_believed),
        TEST(a_server_that_never_answers_is_left_after_the_receipt_timeout),
        TEST(a_server_that_never_welcomes_is_left_after_the_connect_timeout),
        TEST(a_wrong_token_ends_the_client),
        TEST(a_wrong_protocol_version_ends_the_client),
        TEST(a_batch_that_is_refused_whole_is_told_event_by_event),
        TEST(what_a_server_says_commands_no_terminal),
        TEST(too_many_connections_is_tried_again),
        TEST(transient_refusals_are_reported_and_not_sent_again),
        TEST(no_more_requests_than_allowed_are_in_flight),
        TEST(no_more_bytes_than_allowed_are_in_flight),
        TEST(what_the_server_says_it_takes_is_respected),
        TEST(events_that_nobody_could_take_are_refused_at_once),
        TEST(closing_tells_what_has_no_receipt),
        TEST(a_caller_that_waits_gets_the_room_of_an_answered_request),
        TEST(closing_wakes_a_caller_that_waits_for_room),
        TEST(a_callback_may_send_but_does_not_wait),
        TEST(addresses_are_tried_in_turn),
        TEST(options_that_cannot_be_are_refused),
        TEST(nothing_is_lost_or_told_twice_over_many_breaks),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
