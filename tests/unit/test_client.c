/*
 * test_client.c - libsluice: receipts, breaks, resending, servers that misbehave.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include "tests/lib/client_rig.h"

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

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, client_rig_setup, client_rig_teardown)
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
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
