/*
 * test_client_retry.c - libsluice: what the server cannot take now is sent again, and told once.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <poll.h>

#include "tests/lib/client_rig.h"

static void refuse(struct server *s, uint64_t request, uint32_t events, uint32_t reason)
{
    struct receipt_exception e[4];
    struct receipt r = {
        .request = request, .refused = events, .exceptions = events, .exception = e
    };
    uint8_t buf[256];

    for (uint32_t i = 0; i < events; i++)
        e[i] = (struct receipt_exception){ .position = i, .reason = (sluice_v1_Reason)reason };
    server_write(s, buf, frame_put_receipt(buf, sizeof(buf), &r));
}

static void what_cannot_be_taken_now_is_sent_again(void **state)
{
    static const uint32_t reasons[] = { sluice_v1_Reason_NOT_LEADER, sluice_v1_Reason_OVERLOADED,
                                        sluice_v1_Reason_STOPPING };
    struct sluice_client *c = client_open_default();
    uint64_t request = batch_of_two(c);
    struct sluice_stats stats;
    uint8_t sent[512];
    uint32_t bytes = (uint32_t)server.taken;
    struct frame f;

    memcpy(sent, server.in, bytes);
    for (unsigned i = 0; i < 6; i++) {
        refuse(&server, request, 2, reasons[i % 3]);
        assert_int_equal(server_read_batch(&server, &f), request);
        assert_int_equal(f.frame_bytes, bytes);
        assert_memory_equal(server.in, sent, bytes);
        assert_int_equal(reports.n, 0);
    }
    server_receipt(&server, request, 2);
    assert_int_equal(sluice_flush(c, -1), 0);
    assert_int_equal(reports.result[1].reports, 1);
    assert_int_equal(reports.result[1].attempts, 7);
    assert_int_equal(reports.result[1].outcome[1].reason, 0);
    sluice_stats(c, &stats);
    assert_int_equal(stats.connects, 1);
    assert_int_equal(stats.events_refused, 0);
    assert_int_equal(stats.events_accepted, 2);
    sluice_close(c);
}

/* Three events: one is taken, one refused for good, one is to come again; then two of them are
 * known as duplicates, which nobody has to hear. */
static void what_was_decided_stays_decided(void **state)
{
    struct receipt_exception first[] = { { .position = 1, .reason = sluice_v1_Reason_ID_CONFLICT },
                                         { .position = 2, .reason = sluice_v1_Reason_OVERLOADED } };
    struct receipt_exception second[] = {
        { .position = 0,
          .reason = sluice_v1_Reason_DUPLICATE,
          .first_index = 50,
          .first_slot = 11 },
        { .position = 1, .reason = sluice_v1_Reason_ID_CONFLICT },
    };
    struct receipt r = { .index = 50,
                         .first_slot = 11,
                         .accepted = 1,
                         .refused = 2,
                         .exceptions = 2,
                         .exception = first };
    struct sluice_client *c = client_open_default();
    const struct result *got = &reports.result[1];
    struct sluice_stats stats;
    uint8_t buf[256];
    struct frame f;

    assert_int_equal(batch_send(c, 1, 3, -1, NULL), 0);
    server_welcome(&server);
    r.request = server_read_batch(&server, &f);
    server_write(&server, buf, frame_put_receipt(buf, sizeof(buf), &r));
    assert_int_equal(server_read_batch(&server, &f), r.request);
    assert_int_equal(reports.n, 0);
    r = (struct receipt){ .request = r.request,
                          .index = 60,
                          .first_slot = 3,
                          .accepted = 1,
                          .duplicates = 1,
                          .refused = 1,
                          .exceptions = 2,
                          .exception = second };
    server_write(&server, buf, frame_put_receipt(buf, sizeof(buf), &r));
    assert_int_equal(sluice_flush(c, -1), 0);
    assert_int_equal(got->reports, 1);
    assert_int_equal(got->outcome[0].reason, 0);
    assert_int_equal(got->outcome[0].index, 50);
    assert_int_equal(got->outcome[0].slot, 11);
    assert_int_equal(got->outcome[1].reason, sluice_v1_Reason_ID_CONFLICT);
    assert_int_equal(got->outcome[2].reason, 0);
    assert_int_equal(got->outcome[2].index, 60);
    assert_int_equal(got->outcome[2].slot, 3);
    sluice_stats(c, &stats);
    assert_int_equal(stats.events_accepted, 2);
    assert_int_equal(stats.events_duplicate, 0);
    assert_int_equal(stats.events_refused, 1);
    sluice_close(c);
}

/* Late is refused as a whole, and the second sending finds it there. */
static void what_is_not_durable_in_both_regions_in_time_comes_again(void **state)
{
    struct receipt_exception whole = { .reason = sluice_v1_Reason_REGION_UNREACHABLE };
    struct receipt_exception there[2] = {
        { .position = 0, .reason = sluice_v1_Reason_DUPLICATE, .first_index = 50, .first_slot = 1 },
        { .position = 1, .reason = sluice_v1_Reason_DUPLICATE, .first_index = 50, .first_slot = 2 }
    };
    struct receipt r = { .refused = 2, .exceptions = 1, .exception = &whole };
    struct sluice_options o = options_make();
    struct frame_batch batch;
    uint8_t buf[256];
    struct frame f;

    o.durability = SLUICE_DEGRADED; /* is for receipts */
    assert_int_equal(sluice_open(&(struct sluice_client *){ NULL }, &o), -EINVAL);
    o.durability = SLUICE_REGION;
    struct sluice_client *c = client_open(&o);

    assert_int_equal(batch_send(c, 1, 2, -1, NULL), 0);
    server_welcome(&server);
    for (unsigned i = 0; i < 2; i++) {
        r.request = server_read_batch(&server, &f);
        assert_int_equal(frame_get_batch(&batch, &f), 0);
        assert_int_equal(batch.durability, sluice_v1_Durability_REGION);
        server_write(&server, buf, frame_put_receipt(buf, sizeof(buf), &r));
    }
    r = (struct receipt){ .request = server_read_batch(&server, &f),
                          .durability = sluice_v1_Durability_REGION,
                          .duplicates = 2,
                          .exceptions = 2,
                          .exception = there };
    server_write(&server, buf, frame_put_receipt(buf, sizeof(buf), &r));
    assert_int_equal(sluice_flush(c, -1), 0);
    assert_int_equal(reports.result[1].attempts, 3);
    assert_int_equal(reports.result[1].durability, SLUICE_REGION);
    assert_int_equal(reports.result[1].outcome[1].index, 50);
    sluice_close(c);
}

/* One event is durable in one region alone, the other, later, in both: all of it in one. */
static void of_a_batch_the_least_durability_is_told(void **state)
{
    static const struct {
        uint32_t first, second;
        int told;
    } cases[] = {
        { sluice_v1_Durability_DEGRADED, sluice_v1_Durability_REGION, SLUICE_DEGRADED },
        { sluice_v1_Durability_REGION, sluice_v1_Durability_DEGRADED, SLUICE_DEGRADED },
        { sluice_v1_Durability_QUORUM, sluice_v1_Durability_REGION, SLUICE_QUORUM },
        { sluice_v1_Durability_REGION, sluice_v1_Durability_REGION, SLUICE_REGION },
    };
    struct sluice_client *c = client_open_default();
    uint8_t buf[256];
    struct frame f;

    for (unsigned i = 0; i < 4; i++) {
        struct receipt_exception e = { .position = 1, .reason = sluice_v1_Reason_OVERLOADED };
        struct receipt r = { .index = 50,
                             .durability = cases[i].first,
                             .accepted = 1,
                             .refused = 1,
                             .exceptions = 1,
                             .exception = &e };

        assert_int_equal(batch_send(c, i + 1, 2, -1, NULL), 0);
        if (i == 0)
            server_welcome(&server);
        r.request = server_read_batch(&server, &f);
        server_write(&server, buf, frame_put_receipt(buf, sizeof(buf), &r));
        r.request = server_read_batch(&server, &f);
        e = (struct receipt_exception){ .reason = sluice_v1_Reason_DUPLICATE,
                                        .first_index = 50,
                                        .first_slot = 0 };
        r.durability = cases[i].second;
        r.duplicates = 1;
        r.refused = 0;
        server_write(&server, buf, frame_put_receipt(buf, sizeof(buf), &r));
        assert_int_equal(sluice_flush(c, -1), 0);
        assert_int_equal(reports.result[i + 1].durability, cases[i].told);
    }
    sluice_close(c);
}

/* True when there is something to read, false when a receipt was passed on. */
static bool comes_again(void)
{
    struct pollfd p = { .fd = server.fd, .events = POLLIN };
    bool told = false;

    while (!told && server.in_bytes == server.taken && poll(&p, 1, 5) == 0) {
        pthread_mutex_lock(&reports.mutex);
        told = reports.n > 0;
        pthread_mutex_unlock(&reports.mutex);
    }
    return !told;
}

static void after_the_deadline_the_refusal_is_told(void **state)
{
    struct sluice_options o = options_make();
    unsigned refusals = 0;
    struct frame f;

    o.retry_ms_max = 100;
    struct sluice_client *c = client_open(&o);
    uint64_t request = batch_of_two(c);

    do {
        refuse(&server, request, 2, sluice_v1_Reason_OVERLOADED);
        refusals++;
    } while (comes_again() && server_read_batch(&server, &f) == request);
    reports_wait(1);
    assert_true(refusals > 1);
    assert_int_equal(reports.result[1].reports, 1);
    assert_int_equal(reports.result[1].attempts, refusals);
    assert_int_equal(reports.result[1].outcome[0].reason, sluice_v1_Reason_OVERLOADED);
    sluice_close(c);
}

/* Such an event could not be recognised when it comes again. */
static void a_batch_with_an_assigned_id_is_not_sent_again(void **state)
{
    struct receipt_exception e = { .position = 1, .reason = sluice_v1_Reason_OVERLOADED };
    struct receipt_assigned a = { .position = 0, .id_bytes = 4, .id = (const uint8_t *)"abcd" };
    struct receipt r = { .index = 5,
                         .accepted = 1,
                         .refused = 1,
                         .exceptions = 1,
                         .exception = &e,
                         .assigned = 1,
                         .assigned_id = &a };
    struct sluice_client *c = client_open_default();
    uint8_t buf[128];

    r.request = batch_of_two(c);
    server_write(&server, buf, frame_put_receipt(buf, sizeof(buf), &r));
    assert_int_equal(sluice_flush(c, -1), 0);
    assert_int_equal(reports.result[1].attempts, 1);
    assert_memory_equal(reports.result[1].id, "abcd", 4);
    assert_int_equal(reports.result[1].outcome[1].reason, sluice_v1_Reason_OVERLOADED);
    sluice_close(c);
}

/* What waits does not keep others from being sent, and takes its place in flight. */
static void others_go_on_while_one_waits(void **state)
{
    struct sluice_options o = options_make();
    struct frame f;

    o.requests_in_flight_max = 2;
    o.backoff_ms_max = 1; /* it is back at once */
    struct sluice_client *c = client_open(&o);
    uint64_t first = batch_of_two(c), second;

    for (unsigned i = 2; i < 50; i++) {
        refuse(&server, first, 2, sluice_v1_Reason_NOT_LEADER);
        assert_int_equal(batch_send(c, i, 1, -1, &second), 0);
        assert_int_equal(batch_send(c, 1000, 1, 0, NULL), -EAGAIN);
        for (unsigned k = 0; k < 2; k++) { /* in whatever order */
            uint64_t got = server_read_batch(&server, &f);

            assert_true(got == first || got == second);
            if (got == second)
                server_receipt(&server, second, 1);
        }
        reports_wait(i - 1);
    }
    server_receipt(&server, first, 2);
    assert_int_equal(sluice_flush(c, -1), 0);
    assert_int_equal(reports.result[1].attempts, 49);
    sluice_close(c);
}

/* A connection that breaks meanwhile changes nothing; closing tells what still waits. */
static void what_waits_outlives_a_break_and_not_a_close(void **state)
{
    struct sluice_options o = options_make();
    struct frame f;

    o.backoff_ms_max = 60000;
    struct sluice_client *c = client_open(&o);
    uint64_t request = batch_of_two(c);

    refuse(&server, request, 2, sluice_v1_Reason_NOT_LEADER);
    server_welcome(&server); /* drops the first connection */
    assert_int_equal(server_read_batch(&server, &f), request);
    for (unsigned i = 0; i < 2; i++) {
        refuse(&server, request, 2, sluice_v1_Reason_NOT_LEADER);
        assert_int_equal(server_read_batch(&server, &f), request);
    }
    refuse(&server, request, 2, sluice_v1_Reason_NOT_LEADER);
    server_receipt(&server, request,
                   2); /* for what this connection does not owe any more, or for it */
    sluice_close(c);
    assert_int_equal(reports.n, 1);
    assert_true(reports.result[1].status == -ECANCELED || reports.result[1].status == 0);
}

static void a_server_that_knows_no_leader_is_left_for_the_next(void **state)
{
    struct sluice_options o = options_make();
    struct server other;
    char addresses[80];
    struct frame f;

    server_listen(&other);
    snprintf(addresses, sizeof(addresses), "%s,%s", other.address, server.address);
    o.addresses = addresses;
    struct sluice_client *c = client_open(&o);

    assert_int_equal(batch_send(c, 1, 2, -1, NULL), 0);
    server_welcome(&other);
    while (server_read(&other, &f)) {
        assert_int_equal(f.kind, CLIENT_BATCH);
        refuse(&other, 1, 2, sluice_v1_Reason_NOT_LEADER);
    }
    server_welcome(&server);
    assert_int_equal(server_read_batch(&server, &f), 1);
    server_receipt(&server, 1, 2);
    assert_int_equal(sluice_flush(c, -1), 0);
    assert_int_equal(reports.result[1].reports, 1);
    assert_int_equal(reports.result[1].outcome[0].reason, 0);
    sluice_close(c);
    server_end(&other);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, client_rig_setup, client_rig_teardown)
    const struct CMUnitTest tests[] = {
        TEST(what_cannot_be_taken_now_is_sent_again),
        TEST(what_is_not_durable_in_both_regions_in_time_comes_again),
        TEST(of_a_batch_the_least_durability_is_told),
        TEST(what_was_decided_stays_decided),
        TEST(after_the_deadline_the_refusal_is_told),
        TEST(a_batch_with_an_assigned_id_is_not_sent_again),
        TEST(others_go_on_while_one_waits),
        TEST(what_waits_outlives_a_break_and_not_a_close),
        TEST(a_server_that_knows_no_leader_is_left_for_the_next),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
