/*
 * test_admin_tail.c - following the log over the admin socket: filters, wake-ups, slow readers.
 *
 * Most tests run the server on its own thread and speak through the CLI's client; those about time
 * and fairness turn it by hand, so that nothing depends on how fast this machine is.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/clock.h"
#include "tests/lib/admin_fixture.h"

static void a_tail_that_does_not_follow_ends_at_what_is_committed(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_TAIL };
    unsigned i;

    fake_admin_append_other(&x->fake, LOG_GENESIS);
    fake_admin_block(&x->fake, 5);
    fake_admin_append_other(&x->fake, LOG_BARRIER);
    fake_admin_block(&x->fake, 3);
    serve(x, true);
    r.tail.from_index = 1;
    ask(x, &r);
    for (i = 0; i < 8; i++) {
        struct admin_event e;

        next(x);
        e = event_of(x);
        assert_int_equal(e.index, i < 5 ? 2 : 4);
        assert_int_equal(e.slot, i < 5 ? i : i - 5);
        assert_false(x->response.done);
    }
    next(x);
    assert_true(x->response.done);
    assert_int_equal(x->response.which, ADMIN_BODY_NONE);
    /* The connection goes on. */
    r.which = ADMIN_STATUS;
    call(x, &r);
    assert_int_equal(x->response.which, ADMIN_BODY_STATUS);
}

static void a_tail_follows_commits_as_they_come(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_TAIL };
    unsigned round, i;

    fake_admin_block(&x->fake, 4);
    serve(x, true);
    r.tail.follow = true;
    r.tail.from_index = 1;
    ask(x, &r);
    for (i = 0; i < 4; i++)
        next(x);
    for (round = 0; round < 50; round++) {
        fake_admin_block(&x->fake, 2);
        for (i = 0; i < 2; i++) {
            next(x);
            assert_int_equal(event_of(x).index, round + 2);
        }
    }
}

static void the_source_is_watched_only_while_somebody_follows(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_TAIL };
    int turns;

    fake_admin_block(&x->fake, 1);
    serve(x, false);
    assert_int_equal(admin_client_open(&x->client, x->path), 0);
    r.tail.follow = true;
    ask(x, &r);
    for (turns = 0; turns < 100 && atomic_load(&x->fake.watcher) == NULL; turns++)
        admin_do_work(x->admin, 10);
    assert_non_null(atomic_load(&x->fake.watcher));
    admin_client_close(&x->client);
    for (turns = 0; turns < 100 && atomic_load(&x->fake.watcher) != NULL; turns++)
        admin_do_work(x->admin, 10);
    assert_null(atomic_load(&x->fake.watcher));
    for (turns = 0; turns < 100 && admin_connections(x->admin) > 0; turns++)
        admin_do_work(x->admin, 10);
    assert_int_equal(admin_connections(x->admin), 0);
}

static void a_follower_that_cannot_be_woken_is_told(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_TAIL };

    atomic_store(&x->fake.watch_fails, true);
    serve(x, true);
    r.tail.follow = true;
    call(x, &r);
    assert_int_equal(x->response.code, EBUSY);
}

/* Counts the events of a tail over everything. */
static unsigned tail_count(struct fixture *x, const struct admin_request *r)
{
    unsigned n = 0;

    ask(x, r);
    for (next(x); !x->response.done; next(x)) {
        event_of(x);
        n++;
    }
    assert_string_equal(x->response.error, "");
    return n;
}

static void a_tail_filters_by_type_source_and_symbol(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_TAIL };

    fake_admin_block(&x->fake, 120);
    serve(x, true);
    r.tail.from_index = 1;
    assert_int_equal(tail_count(x, &r), 120);
    r.tail.types_count = 1;
    r.tail.types[0] = 2;
    assert_int_equal(tail_count(x, &r), 40);
    r.tail.types_count = 2;
    r.tail.types[1] = 3;
    assert_int_equal(tail_count(x, &r), 80);
    r.tail.types_count = 0;
    strcpy(r.tail.source, "feed-0");
    assert_int_equal(tail_count(x, &r), 60);
    strcpy(r.tail.symbol, "S2");
    assert_int_equal(tail_count(x, &r), 30);
    strcpy(r.tail.symbol, "S1"); /* only feed-1 has it */
    assert_int_equal(tail_count(x, &r), 0);
    r.tail.source[0] = '\0';
    assert_int_equal(tail_count(x, &r), 30);
    strcpy(r.tail.symbol, "S");
    assert_int_equal(tail_count(x, &r), 0);
}

static void a_symbol_with_the_same_hash_is_not_taken_for_another(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_TAIL };
    struct test_record *record = fake_admin_append(&x->fake);
    uint8_t event[256];
    size_t bytes = test_trade(event, sizeof event, "feed", "1", "OTHER");

    /* Its descriptor carries the hash of what is asked for. */
    test_record_add(record, event, bytes, 1, "AAPL", false);
    fake_admin_commit(&x->fake);
    serve(x, true);
    r.tail.from_index = 1;
    strcpy(r.tail.symbol, "AAPL");
    assert_int_equal(tail_count(x, &r), 0);
}

static void a_tail_ends_after_the_number_of_events_asked_for(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_TAIL };

    fake_admin_block(&x->fake, 50);
    fake_admin_block(&x->fake, 50);
    serve(x, true);
    r.tail.from_index = 1;
    r.tail.follow = true;
    r.tail.count_max = 50;
    assert_int_equal(tail_count(x, &r), 50);
    r.tail.count_max = 51;
    assert_int_equal(tail_count(x, &r), 51);
    r.tail.count_max = 1;
    assert_int_equal(tail_count(x, &r), 1);
}

static void a_tail_from_before_the_log_is_refused(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_TAIL };

    fake_admin_block(&x->fake, 1);
    fake_admin_block(&x->fake, 1);
    x->fake.first = 2;
    serve(x, true);
    r.tail.from_index = 1;
    call(x, &r);
    assert_int_equal(x->response.code, ENOENT);
    assert_non_null(strstr(x->response.error, "begins at 2"));
}

/* A block as full as it gets. */
static void append_full_block(struct fake_admin *f)
{
    struct test_record *r = fake_admin_append(f);
    uint8_t event[256];
    size_t bytes = test_trade(event, sizeof event, "feed", "0123456789", "SYM");

    while (r->events < BLOCK_EVENTS_MAX &&
           r->payload_bytes + bytes + (r->events + 3) * sizeof(struct block_desc) <
               BLOCK_PAYLOAD_MAX)
        test_record_add(r, event, bytes, 1, "SYM", true);
    fake_admin_commit(f);
}

static void a_slow_reader_is_paused_hurts_nobody_and_misses_nothing(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_TAIL }, status = { .which = ADMIN_STATUS };
    struct admin_client slow;
    unsigned i, reads, expected = 0, got = 0;

    for (i = 0; i < 20; i++) {
        append_full_block(&x->fake);
        expected += x->fake.record[i + 1]->events;
    }
    serve(x, false);
    assert_int_equal(admin_client_open(&slow, x->path), 0);
    assert_int_equal(admin_client_open(&x->client, x->path), 0);
    r.tail.from_index = 1;
    assert_int_equal(admin_client_send(&slow, &r), 0);
    for (i = 0; i < 50; i++)
        admin_do_work(x->admin, 0);
    reads = atomic_load(&x->fake.reads);
    assert_true(reads >= 1 && reads < 10); /* paused: its buffer and the socket's are full */
    for (i = 0; i < 50; i++)
        admin_do_work(x->admin, 0);
    assert_int_equal(atomic_load(&x->fake.reads), reads);

    ask(x, &status);
    for (i = 0; i < 100 && !admin_client_ready(&x->client); i++) {
        uint8_t byte;

        admin_do_work(x->admin, 10);
        if (recv(x->client.fd, &byte, 1, MSG_PEEK | MSG_DONTWAIT) == 1)
            break;
    }
    next(x);
    assert_int_equal(x->response.which, ADMIN_BODY_STATUS);

    /* And when it reads again, everything comes, in order. */
    assert_int_equal(admin_start(x->admin), 0);
    for (;;) {
        assert_int_equal(admin_client_next(&slow, WAIT_MS, &x->response), 0);
        if (x->response.done)
            break;
        event_of(x);
        got++;
    }
    assert_int_equal(got, expected);
    admin_client_close(&slow);
}

static void an_answer_that_nobody_reads_is_dropped_with_its_connection(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_TAIL }, status = { .which = ADMIN_STATUS };
    uint64_t give_up = clock_monotonic_ns() + WAIT_MS * NS_PER_MS;
    unsigned i;

    x->config.output_ms_max = 30;
    for (i = 0; i < 8; i++)
        append_full_block(&x->fake);
    serve(x, false);
    assert_int_equal(admin_client_open(&x->client, x->path), 0);
    /* A count that ends the tail while its events still wait to be read. */
    r.tail.from_index = 1;
    r.tail.count_max = 2 * x->fake.record[1]->events;
    ask(x, &r);
    ask(x, &status);
    do {
        admin_do_work(x->admin, 10);
    } while (admin_connections(x->admin) == 0 && clock_monotonic_ns() < give_up);
    while (admin_connections(x->admin) > 0 && clock_monotonic_ns() < give_up)
        admin_do_work(x->admin, 10);
    assert_int_equal(admin_connections(x->admin), 0);
}

static void a_peer_that_only_closes_its_sending_side_gets_its_answer(void **state)
{
    struct fixture *x = *state;
    struct admin_request r = { .which = ADMIN_TAIL };
    unsigned i;

    fake_admin_block(&x->fake, 9);
    serve(x, true);
    r.tail.from_index = 1;
    ask(x, &r);
    assert_int_equal(shutdown(x->client.fd, SHUT_WR), 0);
    for (i = 0; i < 9; i++) {
        next(x);
        event_of(x);
    }
    next(x);
    assert_true(x->response.done);
    assert_int_equal(admin_client_next(&x->client, WAIT_MS, &x->response), -ECONNRESET);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, admin_fixture_setup, admin_fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(a_tail_that_does_not_follow_ends_at_what_is_committed),
        TEST(a_tail_follows_commits_as_they_come),
        TEST(the_source_is_watched_only_while_somebody_follows),
        TEST(a_follower_that_cannot_be_woken_is_told),
        TEST(a_tail_filters_by_type_source_and_symbol),
        TEST(a_symbol_with_the_same_hash_is_not_taken_for_another),
        TEST(a_tail_ends_after_the_number_of_events_asked_for),
        TEST(a_tail_from_before_the_log_is_refused),
        TEST(a_slow_reader_is_paused_hurts_nobody_and_misses_nothing),
        TEST(an_answer_that_nobody_reads_is_dropped_with_its_connection),
        TEST(a_peer_that_only_closes_its_sending_side_gets_its_answer),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
