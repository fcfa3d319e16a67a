/*
 * test_admin_operation.c - requests that take long: others are answered meanwhile, who goes away
 * does not end them, and the same change asked for again is the one that is under way. Threads: the
 * server's, and one for each operation.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <pb_decode.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/lib/admin_fixture.h"

static struct admin_request add(unsigned node)
{
    struct admin_request r = { .which = ADMIN_CLUSTER_CHANGE };

    r.cluster_change.kind = sluice_v1_MembershipRequest_Kind_ADD;
    r.cluster_change.node = node;
    snprintf(r.cluster_change.address, sizeof r.cluster_change.address, "host:1");
    return r;
}

static void until_called(struct fixture *x, unsigned n)
{
    const struct timespec pause = { .tv_nsec = 1000000 };
    uint64_t until = clock_monotonic_ns() + WAIT_MS * NS_PER_MS;

    while (atomic_load(&x->fake.cluster.calls) < n && clock_monotonic_ns() < until)
        nanosleep(&pause, NULL);
    assert_int_equal(atomic_load(&x->fake.cluster.calls), n);
}

static void done_is(struct fixture *x, const char *sentence)
{
    sluice_v1_ClusterDone done = sluice_v1_ClusterDone_init_zero;
    pb_istream_t in = pb_istream_from_buffer(x->response.body, x->response.body_bytes);

    assert_string_equal(x->response.error, "");
    assert_true(x->response.done);
    assert_int_equal(x->response.which, ADMIN_BODY_CLUSTER_DONE);
    assert_true(pb_decode(&in, sluice_v1_ClusterDone_fields, &done));
    assert_string_equal(done.sentence, sentence);
}

static void a_change_is_answered_when_it_is_done(void **state)
{
    struct fixture *x = *state;
    const struct admin_request r = add(4);

    serve(x, true);
    call(x, &r);
    done_is(x, "it is done");
    assert_memory_equal(&x->fake.cluster.asked.cluster_change, &r.cluster_change,
                        sizeof r.cluster_change);
    assert_int_equal(x->fake.cluster.asker.uid, geteuid());
    assert_string_equal(x->fake.cluster.asker.name, "");
    call(x, &r); /* on the same connection */
    done_is(x, "it is done");
    assert_int_equal(atomic_load(&x->fake.cluster.calls), 2);
}

static void what_cannot_be_done_is_said_in_its_sentence(void **state)
{
    struct fixture *x = *state;
    const struct admin_request r = add(4);

    serve(x, true);
    atomic_store(&x->fake.cluster.error, -EHOSTUNREACH);
    call(x, &r);
    assert_string_equal(x->response.error, "it cannot be done");
    assert_int_equal(x->response.code, EHOSTUNREACH);
}

static void others_are_answered_while_a_change_goes_on(void **state)
{
    struct fixture *x = *state;
    const struct admin_request change = add(4), other = add(5);
    const struct admin_request status = { .which = ADMIN_STATUS };
    const struct admin_request look = { .which = ADMIN_CLUSTER_STATUS };
    struct admin_client waits;

    serve(x, true);
    atomic_store(&x->fake.cluster.hold, true);
    ask(x, &change);
    until_called(x, 1);
    waits = x->client;
    assert_int_equal(admin_client_open(&x->client, x->path), 0);
    call(x, &status);
    assert_int_equal(x->response.which, ADMIN_BODY_STATUS);
    call(x, &look);
    assert_int_equal(x->response.which, ADMIN_BODY_CLUSTER_STATUS);
    call(x, &other);
    assert_int_equal(x->response.code, EBUSY);
    assert_false(admin_client_ready(&waits));
    atomic_store(&x->fake.cluster.hold, false);
    admin_client_close(&x->client);
    x->client = waits;
    next(x);
    done_is(x, "it is done");
}

/* A setting waits for its commit, which there may be none of for long. */
static void others_are_answered_while_a_setting_waits(void **state)
{
    struct fixture *x = *state;
    struct admin_request set = { .which = ADMIN_SETTING_SET };
    const struct admin_request status = { .which = ADMIN_STATUS };
    struct admin_client waits;

    strcpy(set.setting_set.key, "class.trade");
    strcpy(set.setting_set.value, "2");
    serve(x, true);
    atomic_store(&x->fake.cluster.hold, true);
    ask(x, &set);
    waits = x->client;
    assert_int_equal(admin_client_open(&x->client, x->path), 0);
    call(x, &status);
    assert_int_equal(x->response.which, ADMIN_BODY_STATUS);
    assert_false(admin_client_ready(&waits));
    atomic_store(&x->fake.cluster.hold, false);
    admin_client_close(&x->client);
    x->client = waits;
    next(x);
    assert_int_equal(x->response.which, ADMIN_BODY_SETTING);
}

static void who_goes_away_does_not_end_it_and_may_ask_again(void **state)
{
    struct fixture *x = *state;
    const struct admin_request r = add(4);

    serve(x, true);
    atomic_store(&x->fake.cluster.hold, true);
    ask(x, &r);
    until_called(x, 1);
    admin_client_close(&x->client);
    assert_int_equal(admin_client_open(&x->client, x->path), 0);
    ask(x, &r);
    assert_int_equal(admin_client_next(&x->client, 50, &x->response), -ETIMEDOUT);
    atomic_store(&x->fake.cluster.hold, false);
    next(x);
    done_is(x, "it is done");
    assert_int_equal(atomic_load(&x->fake.cluster.calls), 1); /* not another */
}

/* Nobody is left: the server waits for the thread alone. */
static void the_server_ends_with_a_change_that_nobody_waits_for(void **state)
{
    struct fixture *x = *state;
    const struct admin_request r = add(4);

    serve(x, true);
    atomic_store(&x->fake.cluster.hold, true);
    ask(x, &r);
    until_called(x, 1);
    admin_client_close(&x->client);
    atomic_store(&x->fake.cluster.hold, false);
    admin_close(x->admin);
    x->admin = NULL;
    assert_int_equal(atomic_load(&x->fake.cluster.calls), 1);
}

static void a_read_point_is_one_message(void **state)
{
    struct fixture *x = *state;
    const struct admin_request r = { .which = ADMIN_READ_POINT, .read_point.barrier = true };
    sluice_v1_ReadPoint point = sluice_v1_ReadPoint_init_zero;
    pb_istream_t in;

    serve(x, true);
    x->fake.cluster.point = (sluice_v1_ReadPoint){ .node = 2, .leader = 1, .applied_index = 77 };
    call(x, &r);
    assert_int_equal(x->response.which, ADMIN_BODY_READ_POINT);
    in = pb_istream_from_buffer(x->response.body, x->response.body_bytes);
    assert_true(pb_decode(&in, sluice_v1_ReadPoint_fields, &point));
    assert_int_equal(point.applied_index, 77);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_change_is_answered_when_it_is_done, admin_fixture_setup,
                                        admin_fixture_teardown),
        cmocka_unit_test_setup_teardown(what_cannot_be_done_is_said_in_its_sentence,
                                        admin_fixture_setup, admin_fixture_teardown),
        cmocka_unit_test_setup_teardown(others_are_answered_while_a_change_goes_on,
                                        admin_fixture_setup, admin_fixture_teardown),
        cmocka_unit_test_setup_teardown(others_are_answered_while_a_setting_waits,
                                        admin_fixture_setup, admin_fixture_teardown),
        cmocka_unit_test_setup_teardown(who_goes_away_does_not_end_it_and_may_ask_again,
                                        admin_fixture_setup, admin_fixture_teardown),
        cmocka_unit_test_setup_teardown(the_server_ends_with_a_change_that_nobody_waits_for,
                                        admin_fixture_setup, admin_fixture_teardown),
        cmocka_unit_test_setup_teardown(a_read_point_is_one_message, admin_fixture_setup,
                                        admin_fixture_teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
