/*
 * test_cluster_faults.c - the host on a disk that loses power at every single operation of a run.
 *
 * A run starts a new node, hands over blocks, several at a time, and stops. For every operation of
 * the disk in it, and for several outcomes of what was in flight, the power is cut there; then the
 * node is started again on what is left. What had an answer must be there, once; what had none may
 * be there, once.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tests/lib/test_app.h"
#include "tests/lib/test_disk.h"

#define ROUNDS     6
#define PER_ROUND  4
#define EVENTS     300u
#define EVENT_SIZE 150u
#define SEEDS      4

static struct test_app t;
static bool answered[ROUNDS * PER_ROUND];
static uint64_t term_answered;

static int setup(void **state)
{
    (void)state;
    test_app_init(&t);
    t.disk = test_disk_make(1);
    return 0;
}

static void stall(void *arg) { test_disk_stall(t.disk, arg != NULL); }

static int teardown(void **state)
{
    (void)state;
    if (t.cluster != NULL)
        cluster_call(t.cluster, stall, NULL); /* a test that failed may have left it so */
    test_app_stop(&t);
    test_disk_free(t.disk);
    t.disk = NULL;
    test_app_fini(&t);
    return 0;
}

static void remove_checkpoints(void)
{
    char command[128];

    snprintf(command, sizeof command, "rm -rf %s/checkpoint", t.dir);
    assert_int_equal(system(command), 0);
}

/* Block number n holds events n * EVENTS .. n * EVENTS + EVENTS - 1. */
static void submit(int n)
{
    test_app_fill(&t, n % TEST_APP_BLOCKS, EVENTS, EVENT_SIZE, (uint64_t)n * EVENTS);
    test_app_submit(&t, n % TEST_APP_BLOCKS);
}

/* Returns false when the node could not be started or failed. */
static bool script(void)
{
    char error[LOG_ERROR_BYTES] = "";

    memset(answered, 0, sizeof answered);
    if (test_app_try_start(&t, error) < 0)
        return false;
    for (int round = 0; round < ROUNDS; round++) {
        for (int i = 0; i < PER_ROUND; i++)
            submit(round * PER_ROUND + i);
        for (int i = 0; i < PER_ROUND; i++) {
            struct block *b = test_app_answer_or_failure(&t);

            if (b == NULL)
                return false;
            assert_int_equal(b->accepted, EVENTS);
            answered[round * PER_ROUND + i] = true;
            term_answered = b->term;
        }
    }
    return true;
}

static void check_after_restart(uint64_t operation, uint64_t seed)
{
    char error[LOG_ERROR_BYTES] = "";
    struct cluster_status s;

    if (test_app_try_start(&t, error) < 0)
        fail_msg("operation %llu, seed %llu: no start after the power cut: %s",
                 (unsigned long long)operation, (unsigned long long)seed, error);
    cluster_status(t.cluster, &s);
    assert_false(t.out_of_order);
    assert_true(s.term > term_answered);
    for (int n = 0; n < ROUNDS * PER_ROUND; n++) {
        unsigned first = t.seen[(unsigned)n * EVENTS];

        for (unsigned e = 0; e < EVENTS; e++) {
            unsigned times = t.seen[(unsigned)n * EVENTS + e];

            if (times != first || times > 1 || (answered[n] && times != 1))
                fail_msg(
                    "operation %llu, seed %llu: block %d, answered: %d, event %u is there %u times",
                    (unsigned long long)operation, (unsigned long long)seed, n, answered[n], e,
                    times);
        }
    }
    /* And it goes on. */
    submit(ROUNDS * PER_ROUND);
    assert_int_equal(test_app_answer(&t)->accepted, EVENTS);
    test_app_stop(&t);
}

static void what_was_answered_is_there_after_a_power_cut_at_any_operation(void **state)
{
    uint64_t operations, cuts = 0;

    (void)state;
    assert_true(script());
    test_app_stop(&t);
    operations = test_disk_operations(t.disk);
    assert_true(operations > ROUNDS * PER_ROUND);
    for (uint64_t at = 0; at < operations; at++) {
        for (uint64_t seed = 1; seed <= SEEDS; seed++) {
            test_disk_free(t.disk);
            t.disk = test_disk_make(seed);
            remove_checkpoints();
            term_answered = 0;
            test_disk_fault_at(t.disk, at, TEST_DISK_POWER_CUT, 0, 0);
            /* How the threads met may have made fewer operations this time. */
            if (script()) {
                test_app_stop(&t);
                continue;
            }
            test_app_stop(&t);
            while (ring_pop(&t.link.submit) != NULL || ring_pop(&t.link.answer) != NULL) {
            }
            test_disk_power_on(t.disk, seed + at * SEEDS);
            check_after_restart(at, seed);
            cuts++;
        }
    }
    assert_true(cuts > operations);
}

static void after_a_write_error_at_any_operation_nothing_is_answered(void **state)
{
    uint64_t operations;

    (void)state;
    assert_true(script());
    test_app_stop(&t);
    operations = test_disk_operations(t.disk);
    for (uint64_t at = 0; at < operations; at++) {
        bool went_on;

        test_disk_free(t.disk);
        t.disk = test_disk_make(1);
        remove_checkpoints();
        test_disk_fault_at(t.disk, at, TEST_DISK_ERROR, -EIO, 0);
        went_on = script();
        if (!went_on && t.cluster != NULL) {
            assert_true(strlen(t.failure) > 0);
            assert_true(ring_empty(&t.link.answer));
        }
        test_app_stop(&t);
        while (ring_pop(&t.link.submit) != NULL || ring_pop(&t.link.answer) != NULL) {
        }
    }
}

static bool drop_log_files(void)
{
    bool dropped = false;

    for (size_t i = 0; test_disk_name(t.disk, i) != NULL;) {
        const char *name = test_disk_name(t.disk, i);

        if (strstr(name, ".seg") == NULL && strcmp(name, "mark") != 0) {
            i++;
            continue;
        }
        dropped = dropped || strstr(name, ".seg") != NULL;
        test_disk_drop(t.disk, name);
    }
    return dropped;
}

/* Whenever the first start was cut short: once the node has run, an empty log is a lost one. */
static void a_log_that_vanished_is_refused_whatever_became_of_the_first_start(void **state)
{
    uint64_t operations;

    (void)state;
    test_app_start(&t);
    test_app_stop(&t);
    operations = test_disk_operations(t.disk);
    for (uint64_t i = 0; i < operations * SEEDS; i++) {
        char error[LOG_ERROR_BYTES] = "";
        uint64_t at = i / SEEDS;

        test_disk_free(t.disk);
        t.disk = test_disk_make(i + 1);
        test_disk_fault_at(t.disk, at, TEST_DISK_POWER_CUT, 0, 0);
        (void)test_app_try_start(&t, error);
        test_app_stop(&t);
        test_disk_power_on(t.disk, i);
        test_app_start(&t);
        test_app_stop(&t);
        assert_true(drop_log_files());
        if (test_app_try_start(&t, error) == 0)
            fail_msg("cut at operation %llu: starts without its log", (unsigned long long)at);
    }
}

static void no_block_is_answered_while_its_write_has_not_completed(void **state)
{
    struct cluster_status s;

    (void)state;
    test_app_start(&t);
    submit(0); /* the first one may wait for a segment; the second finds everything prepared */
    test_app_answer(&t);
    assert_int_equal(cluster_call(t.cluster, stall, &t), 0);
    submit(1);
    do {
        cluster_status(t.cluster, &s);
    } while (s.last_index < 5);
    /* Many more turns of the thread, each of which could answer. */
    for (int i = 0; i < 1000; i++)
        cluster_status(t.cluster, &s);
    assert_int_equal(s.persisted_index, 4);
    assert_int_equal(s.commit_index, 4);
    assert_true(ring_empty(&t.link.answer));
    assert_int_equal(cluster_call(t.cluster, stall, NULL), 0);
    assert_int_equal(test_app_answer(&t)->index, 5);
}

static void fill_disk(void *arg) { test_disk_set_free(t.disk, arg ? 0 : 1 << 30); }

static void a_full_disk_refuses_and_goes_on_when_there_is_room(void **state)
{
    int refused = 0, accepted = 0;

    (void)state;
    test_app_start(&t);
    assert_int_equal(cluster_call(t.cluster, fill_disk, &t), 0);
    for (int n = 0; refused == 0; n++) {
        struct block *b;

        submit(n % 100);
        b = test_app_answer(&t);
        if (b->index == 0) {
            assert_int_equal(b->accepted, 0);
            refused++;
        } else {
            accepted++;
        }
        assert_true(n < 1000);
    }
    assert_true(accepted > 0);
    assert_int_equal(cluster_call(t.cluster, fill_disk, NULL), 0);
    for (int n = 0; refused > 0; n++) {
        submit(n % 100);
        if (test_app_answer(&t)->index != 0)
            refused = 0;
    }
    test_app_stop(&t);
    test_app_start(&t);
    assert_int_equal(t.applied_events, (uint64_t)(accepted + 1) * EVENTS);
}

#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(no_block_is_answered_while_its_write_has_not_completed),
        T(what_was_answered_is_there_after_a_power_cut_at_any_operation),
        T(a_log_that_vanished_is_refused_whatever_became_of_the_first_start),
        T(after_a_write_error_at_any_operation_nothing_is_answered),
        T(a_full_disk_refuses_and_goes_on_when_there_is_room),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
