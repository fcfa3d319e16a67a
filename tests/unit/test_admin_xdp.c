/*
 * test_admin_xdp.c - the XDP prefilter over the admin socket: its state, policy tests, taps.
 *
 * Most tests run the server on its own thread and speak through the CLI's client; those about slow
 * readers turn it by hand, so that nothing depends on how fast this machine is.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pb_decode.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "tests/lib/admin_fixture.h"

/* Decodes the body of x->response, which must be `which`. */
static void body(struct fixture *x, enum admin_response_body which, const pb_msgdesc_t *fields,
                 void *ret)
{
    pb_istream_t in = pb_istream_from_buffer(x->response.body, x->response.body_bytes);

    assert_string_equal(x->response.error, "");
    assert_int_equal(x->response.which, which);
    assert_true(pb_decode(&in, fields, ret));
}

static void the_state_comes_with_sources_only_when_asked_for(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_XDP_STATUS };
    static sluice_v1_XdpStatusResponse s;

    serve(x, true);
    call(x, &r);
    body(x, ADMIN_BODY_XDP_STATUS, sluice_v1_XdpStatusResponse_fields, &s);
    assert_string_equal(s.mode, "native");
    assert_int_equal(s.interfaces_count, 2);
    assert_int_equal(s.interfaces[0].redirected, 900);
    assert_int_equal(s.classes_count, 4);
    assert_int_equal(s.sources_count, 0);
    r.xdp_status.sources = true;
    call(x, &r);
    body(x, ADMIN_BODY_XDP_STATUS, sluice_v1_XdpStatusResponse_fields, &s);
    assert_int_equal(s.sources_count, 3);
    assert_string_equal(s.sources[1].address, "2001:db8::7");
}

static void the_ledger_has_an_xdp_part_only_where_there_is_xdp(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_LEDGER };
    static sluice_v1_LedgerResponse l;

    serve(x, true);
    call(x, &r);
    body(x, ADMIN_BODY_LEDGER, sluice_v1_LedgerResponse_fields, &l);
    assert_false(l.has_xdp);
    atomic_store(&x->fake.xdp.present, true);
    call(x, &r);
    body(x, ADMIN_BODY_LEDGER, sluice_v1_LedgerResponse_fields, &l);
    assert_true(l.has_xdp && l.xdp.present);
    assert_int_equal(l.xdp.ring_waiting, 40);
}

static void a_policy_test_carries_the_longest_datagram(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_POLICY_TEST };
    static sluice_v1_PolicyTestResponse p;

    serve(x, true);
    r.policy_test.datagram.size = sizeof r.policy_test.datagram.bytes;
    for (size_t i = 0; i < sizeof r.policy_test.datagram.bytes; i++)
        r.policy_test.datagram.bytes[i] = (uint8_t)(i * 7);
    strcpy(r.policy_test.from, "192.0.2.9");
    r.policy_test.shadow = true;
    call(x, &r);
    body(x, ADMIN_BODY_POLICY_TEST, sluice_v1_PolicyTestResponse_fields, &p);
    assert_string_equal(p.verdict, "accept");
    assert_int_equal(p.events_count, 2);
    assert_memory_equal(&x->fake.xdp.tested, &r.policy_test, sizeof r.policy_test);

    /* The next is answered from a clean message. */
    r.policy_test.datagram.size = 0;
    strcpy(r.policy_test.from, "203.0.113.1");
    call(x, &r);
    body(x, ADMIN_BODY_POLICY_TEST, sluice_v1_PolicyTestResponse_fields, &p);
    assert_string_equal(p.verdict, "drop");
    assert_string_equal(p.reason, "source_denied");

    strcpy(r.policy_test.from, "203.0.113.1 ");
    call(x, &r);
    assert_int_equal(x->response.code, EINVAL);
    assert_string_equal(x->response.error, "\"203.0.113.1 \" is not an address");
}

/* A frame of one request, whose body is of `which` and all one bytes field of n bytes. */
static size_t long_request(uint8_t *frame, unsigned which, unsigned field, size_t n)
{
    size_t at = 0, inner = 1 + (n < 128 ? 1 : n < 16384 ? 2 : 3) + n;
    size_t outer = 1 + (inner < 128 ? 1 : inner < 16384 ? 2 : 3) + inner;
    const size_t lengths[] = { outer, inner, n };

    for (unsigned i = 0; i < 3; i++) {
        size_t v = lengths[i];

        if (i > 0)
            frame[at++] = (uint8_t)((i == 1 ? which : field) << 3 | 2);
        for (; v >= 0x80; v >>= 7)
            frame[at++] = (uint8_t)(v & 0x7f) | 0x80;
        frame[at++] = (uint8_t)v;
    }
    memset(frame + at, 'a', n);
    return at + n;
}

static void requests_over_their_bounds_are_refused(void **state)
{
    static const struct {
        unsigned which, field;
        size_t bytes;
    } cases[] = {
        { ADMIN_POLICY_TEST, 1, 16385 }, /* the datagram */
        { ADMIN_POLICY_TEST, 2, 65 },    /* the address */
        { ADMIN_TAP, 1, 33 },            /* a reason */
        { ADMIN_XDP_STATUS, 1, 5 },      /* a bool that is bytes */
    };
    static uint8_t frame[20000];
    struct fixture *x = *state;

    serve(x, true);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        int fd = dial(x);

        send_all(fd, frame, long_request(frame, cases[i].which, cases[i].field, cases[i].bytes));
        adopt(x, fd);
        next(x);
        assert_int_equal(x->response.code, EBADMSG);
    }
    /* 17 reasons. */
    memcpy(frame, "\x35\x52\x33", 3);
    for (unsigned i = 0; i < 17; i++)
        memcpy(frame + 3 + 3 * i, "\x0a\x01r", 3);
    adopt(x, dial(x));
    send_all(x->client.fd, frame, 3 + 17 * 3);
    next(x);
    assert_int_equal(x->response.code, EBADMSG);
    assert_int_equal(atomic_load(&x->fake.xdp.tap_starts), 0);
}

static struct admin_request tap_request(uint64_t count)
{
    return (struct admin_request){ .which = ADMIN_TAP, .tap.count_max = count };
}

static void sample_of(struct fixture *x, uint64_t number)
{
    static sluice_v1_TapSample s;

    body(x, ADMIN_BODY_TAP_SAMPLE, sluice_v1_TapSample_fields, &s);
    assert_false(x->response.done);
    assert_int_equal(s.time_ns, TEST_RECEIVE_NS + number);
    assert_string_equal(s.reason, x->fake.xdp.sample.reason);
    assert_int_equal(s.data.size, x->fake.xdp.sample.data.size);
}

/* Turns the server until the tap is open or not. */
static void turn_until_tap(struct fixture *x, bool open)
{
    uint64_t give_up = clock_monotonic_ns() + WAIT_MS * NS_PER_MS;

    while (atomic_load(&x->fake.xdp.tap_open) != open && clock_monotonic_ns() < give_up)
        admin_do_work(x->admin, 10);
    assert_int_equal(atomic_load(&x->fake.xdp.tap_open), open);
}

static void a_tap_ends_after_the_samples_asked_for_and_stops_the_source(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = tap_request(5), status = { .which = ADMIN_STATUS };

    strcpy(x->fake.xdp.sample.reason, "type_rate");
    x->fake.xdp.sample.data.size = 256;
    atomic_store(&x->fake.xdp.tap_ready, 7);
    serve(x, true);
    r.tap.reasons_count = 2;
    strcpy(r.tap.reasons[0], "type_rate");
    strcpy(r.tap.reasons[1], "empty");
    ask(x, &r);
    for (unsigned i = 0; i < 5; i++) {
        next(x);
        sample_of(x, i);
    }
    next(x);
    assert_true(x->response.done);
    assert_int_equal(x->response.which, ADMIN_BODY_NONE);
    assert_int_equal(x->fake.xdp.tapped.reasons_count, 2);
    assert_string_equal(x->fake.xdp.tapped.reasons[1], "empty");
    call(x, &status); /* the connection goes on */
    assert_false(atomic_load(&x->fake.xdp.tap_open));
    assert_int_equal(atomic_load(&x->fake.xdp.tap_given), 5);
}

static void samples_that_come_later_are_fetched_without_a_wake_up(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = tap_request(1);

    r.tap.follow = true; /* so the count does not end it */
    serve(x, true);
    ask(x, &r);
    for (unsigned i = 0; i < 5; i++) {
        atomic_fetch_add(&x->fake.xdp.tap_ready, 1);
        next(x);
        sample_of(x, i);
    }
    assert_true(atomic_load(&x->fake.xdp.tap_open));
}

static void a_second_tap_is_told_and_the_first_goes_on(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = tap_request(0);
    struct admin_client second;
    unsigned i;

    serve(x, false);
    assert_int_equal(admin_client_open(&x->client, x->path), 0);
    assert_int_equal(admin_client_open(&second, x->path), 0);
    ask(x, &r);
    turn_until_tap(x, true);
    assert_int_equal(admin_client_send(&second, &r), 0);
    assert_int_equal(admin_start(x->admin), 0);
    assert_int_equal(admin_client_next(&second, WAIT_MS, &x->response), 0);
    assert_int_equal(x->response.code, EBUSY);
    assert_string_equal(x->response.error, "a tap is running already");
    for (i = 0; i < 3; i++) {
        atomic_fetch_add(&x->fake.xdp.tap_ready, 1);
        next(x);
        sample_of(x, i);
    }
    assert_int_equal(atomic_load(&x->fake.xdp.tap_starts), 1);
    admin_client_close(&second);
}

static void a_client_that_goes_away_leaves_the_tap_to_others(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = tap_request(0);

    serve(x, false);
    for (unsigned i = 1; i <= 3; i++) {
        assert_int_equal(admin_client_open(&x->client, x->path), 0);
        ask(x, &r);
        turn_until_tap(x, true);
        admin_client_close(&x->client);
        turn_until_tap(x, false);
        assert_int_equal(atomic_load(&x->fake.xdp.tap_starts), i);
    }
}

static void a_server_that_closes_stops_the_tap(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = tap_request(0);

    serve(x, false);
    assert_int_equal(admin_client_open(&x->client, x->path), 0);
    ask(x, &r);
    turn_until_tap(x, true);
    admin_close(x->admin);
    x->admin = NULL;
    assert_false(atomic_load(&x->fake.xdp.tap_open));
}

static void an_unknown_reason_is_answered_with_the_known_ones(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = tap_request(1);

    serve(x, true);
    r.tap.reasons_count = 1;
    strcpy(r.tap.reasons[0], "nonsense");
    call(x, &r);
    assert_int_equal(x->response.code, EINVAL);
    assert_non_null(strstr(x->response.error, "no reason nonsense; known are source_denied"));
    assert_false(atomic_load(&x->fake.xdp.tap_open));
    r.tap.reasons_count = 0; /* and whoever comes next is not taken for a second one */
    atomic_store(&x->fake.xdp.tap_ready, 1);
    ask(x, &r);
    next(x);
    sample_of(x, 0);
}

static void a_source_that_fails_ends_the_tap_with_a_sentence(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = tap_request(0);

    atomic_store(&x->fake.xdp.tap_ready, 1);
    serve(x, true);
    ask(x, &r);
    next(x);
    sample_of(x, 0);
    atomic_store(&x->fake.xdp.tap_error, -EIO);
    next(x);
    assert_true(x->response.done);
    assert_int_equal(x->response.code, EIO);
    assert_non_null(strstr(x->response.error, "the tap has ended"));
    atomic_store(&x->fake.xdp.tap_error, 0);
    atomic_store(&x->fake.xdp.tap_ready, 1);
    ask(x, &r);
    next(x);
    sample_of(x, 1);
}

static void a_reader_that_is_slow_loses_samples_and_hurts_nobody(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = tap_request(0), status = { .which = ADMIN_STATUS };
    static sluice_v1_TapSample s;
    struct admin_client slow;
    uint64_t given, last;
    unsigned i, gaps = 0;

    x->fake.xdp.sample.data.size = 256;
    atomic_store(&x->fake.xdp.tap_ready, UINT64_MAX);
    serve(x, false);
    assert_int_equal(admin_client_open(&slow, x->path), 0);
    assert_int_equal(admin_client_open(&x->client, x->path), 0);
    assert_int_equal(admin_client_send(&slow, &r), 0);
    for (i = 0; i < 1000; i++)
        admin_do_work(x->admin, 0);
    given = atomic_load(&x->fake.xdp.tap_given);
    assert_true(given > 2 * ADMIN_RESPONSE_BYTES_MAX / 256); /* the source does not wait */
    assert_true(given <= 1000 * 64);                         /* and a turn is bounded */

    ask(x, &status);
    for (i = 0; i < 100 && recv(x->client.fd, &(uint8_t){ 0 }, 1, MSG_PEEK | MSG_DONTWAIT) != 1;
         i++)
        admin_do_work(x->admin, 10);
    next(x);
    assert_int_equal(x->response.which, ADMIN_BODY_STATUS);

    /* When it reads again it gets what its buffers hold, whole and in order, and then, behind a
     * gap, what is dropped now. */
    assert_int_equal(admin_start(x->admin), 0);
    given = TEST_RECEIVE_NS + atomic_load(&x->fake.xdp.tap_given);
    for (last = TEST_RECEIVE_NS - 1; last < given; last = s.time_ns) {
        assert_int_equal(admin_client_next(&slow, WAIT_MS, &x->response), 0);
        body(x, ADMIN_BODY_TAP_SAMPLE, sluice_v1_TapSample_fields, &s);
        assert_true(s.time_ns > last);
        gaps += s.time_ns > last + 1;
    }
    assert_true(gaps > 0);
    admin_client_close(&slow);
}

static void a_tap_that_nobody_reads_is_closed_and_leaves_it_to_others(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = tap_request(0);

    x->config.output_ms_max = 30;
    x->fake.xdp.sample.data.size = 256;
    atomic_store(&x->fake.xdp.tap_ready, UINT64_MAX);
    serve(x, false);
    assert_int_equal(admin_client_open(&x->client, x->path), 0);
    ask(x, &r);
    turn_until_tap(x, true);
    turn_until_tap(x, false);
    assert_int_equal(admin_connections(x->admin), 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, admin_fixture_setup, admin_fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_state_comes_with_sources_only_when_asked_for),
        TEST(the_ledger_has_an_xdp_part_only_where_there_is_xdp),
        TEST(a_policy_test_carries_the_longest_datagram),
        TEST(requests_over_their_bounds_are_refused),
        TEST(a_tap_ends_after_the_samples_asked_for_and_stops_the_source),
        TEST(samples_that_come_later_are_fetched_without_a_wake_up),
        TEST(a_second_tap_is_told_and_the_first_goes_on),
        TEST(a_client_that_goes_away_leaves_the_tap_to_others),
        TEST(a_server_that_closes_stops_the_tap),
        TEST(an_unknown_reason_is_answered_with_the_known_ones),
        TEST(a_source_that_fails_ends_the_tap_with_a_sentence),
        TEST(a_reader_that_is_slow_loses_samples_and_hurts_nobody),
        TEST(a_tap_that_nobody_reads_is_closed_and_leaves_it_to_others),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
