/*
 * test_state.c - the state file of a build that knew no promises: taken over, and longer from then
 * on, whatever comes between its two slots.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "cluster/disk.h"
#include "cluster/internal.h"
#include "cluster/state.h"
#include "cluster/twoslot.h"
#include "tests/lib/test_app.h"
#include "tests/lib/test_disk.h"

static struct node_state was, now;

static struct disk *open_disk(const struct test_app *t)
{
    char dir[600];
    struct disk *d;

    snprintf(dir, sizeof dir, "%s/log", t->dir);
    assert_int_equal(disk_uring_open(&d, dir, 8), 0);
    return d;
}

/* As a build before has left it. */
static void shorten(const struct test_app *t)
{
    struct disk *d = open_disk(t);
    struct twoslot f;

    assert_int_equal(twoslot_peek(d, STATE_NAME, STATE_MAGIC, &was, sizeof was), 0);
    assert_int_equal(d->ops->remove(d, STATE_NAME), 0);
    assert_int_equal(twoslot_open(&f, d, STATE_NAME, STATE_MAGIC, &was, STATE_BYTES_BEFORE), 0);
    twoslot_close(&f);
    assert_int_equal(twoslot_peek(d, STATE_NAME, STATE_MAGIC, &now, sizeof now), -EILSEQ);
    d->ops->fini(d);
}

static void a_state_file_of_a_build_before_is_taken_over(void **state)
{
    static struct test_app t;
    struct disk *d;

    (void)state;
    test_app_init(&t);
    test_app_start(&t);
    test_app_stop(&t);
    shorten(&t);
    test_app_start(&t);
    test_app_stop(&t);
    d = open_disk(&t);
    assert_int_equal(twoslot_peek(d, STATE_NAME, STATE_MAGIC, &now, sizeof now), 0);
    d->ops->fini(d);
    assert_true(now.term > was.term); /* a sole voter raises it at each start */
    assert_memory_equal(now.cluster_id, was.cluster_id, sizeof now.cluster_id);
    assert_memory_equal(now.directory_id, was.directory_id, sizeof now.directory_id);
    assert_int_equal(now.bootstrapped, 1);
    assert_int_equal(now.promised, 0);
    assert_int_equal(now.attempt, 0);
    test_app_fini(&t);
}

/* What an empty node has voted and promised in a cluster holds when it is given its place again. */
static void a_vote_is_kept_by_one_that_is_given_its_place_again(void **state)
{
    const uint8_t id[16] = { 1 }, other[16] = { 2 };
    const uint64_t epoch = 3, term = STATE_FIRST_TERM(epoch) + 6;
    struct node_state s = {
        .term = term, .voted_for = 7, .cluster_id = { 1 }, .promised = 5, .attempt = 9
    };

    (void)state;
    for (uint64_t e = 0; e <= epoch; e++) { /* 0: with what it begins with */
        state_enter(&s, id, e);
        assert_int_equal(s.term, term);
        assert_int_equal(s.voted_for, 7);
        assert_int_equal(s.promised, 5);
        assert_int_equal(s.attempt, 9);
    }
    state_enter(&s, id, epoch + 1); /* in which it has voted for nobody */
    assert_int_equal(s.term, STATE_FIRST_TERM(epoch + 1));
    assert_int_equal(s.voted_for, 0);
    assert_int_equal(s.promised, 5);
    state_enter(&s, other, 1);
    assert_memory_equal(s.cluster_id, other, sizeof other);
    assert_int_equal(s.term, STATE_FIRST_TERM(1));
    assert_int_equal(s.promised, 0);
    assert_int_equal(s.attempt, 0);
}

/* The power is cut at each operation in turn: afterwards it is the same, of the one length or the
 * other. */
static void a_crash_between_the_slots_leaves_one_of_the_two(void **state)
{
    (void)state;
    for (uint64_t at = 0;; at++) {
        struct disk *d = test_disk_make(at + 1);
        struct node_state s = { .term = 77, .node = 3, .region = 2 };
        struct twoslot f;
        bool whole;
        int e;

        assert_int_equal(twoslot_open(&f, d, STATE_NAME, STATE_MAGIC, &s, STATE_BYTES_BEFORE), 0);
        test_disk_fault_at(d, test_disk_operations(d) + at, TEST_DISK_POWER_CUT, 0, 0);
        whole = twoslot_write(&f, &s, sizeof s) == 0;
        twoslot_close(&f);
        if (whole)
            test_disk_power_cut(d);
        test_disk_power_on(d, at);
        memset(&now, 0xff, sizeof now);
        e = twoslot_open(&f, d, STATE_NAME, STATE_MAGIC, &now, sizeof now);
        if (e == -EILSEQ)
            e = twoslot_open(&f, d, STATE_NAME, STATE_MAGIC, &now, STATE_BYTES_BEFORE);
        else
            assert_int_equal(now.promised, 0);
        assert_true(e >= 0);
        assert_int_equal(now.term, 77);
        assert_int_equal(now.node, 3);
        twoslot_close(&f);
        test_disk_free(d);
        if (whole)
            break;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_state_file_of_a_build_before_is_taken_over),
        cmocka_unit_test(a_crash_between_the_slots_leaves_one_of_the_two),
        cmocka_unit_test(a_vote_is_kept_by_one_that_is_given_its_place_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
