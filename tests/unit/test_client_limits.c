/*
 * test_client_limits.c - libsluice: refusals for good, limits, waiting, closing, many breaks.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/lib/client_rig.h"

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

static void without_retries_transient_refusals_are_reported(void **state)
{
    struct receipt_exception e = { .position = 1, .reason = sluice_v1_Reason_OVERLOADED };
    struct sluice_options o = options_make();

    o.retry_ms_max = 0;
    struct sluice_client *c = client_open(&o);
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
    /* A policy is an answer: sending again would only go round it. */
    assert_string_equal(sluice_reason_name(sluice_v1_Reason_RATE_LIMITED), "RATE_LIMITED");
    assert_false(sluice_reason_is_transient(sluice_v1_Reason_RATE_LIMITED));
    for (uint32_t reason = 0; reason <= sluice_v1_Reason_NOT_LEADER; reason++)
        assert_string_not_equal(sluice_reason_name(reason), "UNKNOWN");
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
#define TEST(name) cmocka_unit_test_setup_teardown(name, client_rig_setup, client_rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(a_wrong_token_ends_the_client),
        TEST(a_wrong_protocol_version_ends_the_client),
        TEST(a_batch_that_is_refused_whole_is_told_event_by_event),
        TEST(what_a_server_says_commands_no_terminal),
        TEST(too_many_connections_is_tried_again),
        TEST(without_retries_transient_refusals_are_reported),
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
