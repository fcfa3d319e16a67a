/*
 * test_failover_dead.c - a failover without those that are declared lost for good, and with new
 * nodes in their place.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "tests/lib/regions_rig.h"

/* Two of region 2 are lost for good, two are new. */
static const struct failover_request *two_of_three(void)
{
    static struct failover_request r;

    r = (struct failover_request){ .region = 2,
                                   .dead = { 5, 6 },
                                   .dead_n = 2,
                                   .fresh = { regions_member(7), regions_member(8) },
                                   .fresh_n = 2 };
    return &r;
}

static void assert_not_so(struct failover_request r, const char *why)
{
    assert_int_equal(regions_begin(4, r), -EINVAL);
    assert_int_equal(regions_outcome[4].told, 1);
    if (strstr(regions_outcome[4].report.sentence, why) == NULL)
        fail_msg("it says: %s", regions_outcome[4].report.sentence);
    assert_int_equal(regions_node[4].c->failover.step, FAILOVER_NONE);
}

static void who_is_declared_dead_and_who_is_new_has_to_fit(void **state)
{
    struct failover_request r = *two_of_three();

    (void)state;
    r.fresh_n = 1;
    assert_not_so(r, "fewer than three nodes");
    r = *two_of_three();
    r.dead_n = 0;
    assert_not_so(r, "which those are");
    r = *two_of_three();
    r.dead[1] = 4;
    assert_not_so(r, "not dead");
    r.dead[1] = 3;
    assert_not_so(r, "has to be a member");
    r.dead[1] = 9;
    assert_not_so(r, "has to be a member");
    r = *two_of_three();
    r.fresh[0].region = 1;
    assert_not_so(r, "another region");
    r = *two_of_three();
    r.fresh[0].node = 6;
    assert_not_so(r, "number of a member");
    r = *two_of_three();
    snprintf(r.fresh[0].host, sizeof r.fresh[0].host, "node1");
    assert_not_so(r, "address");
    r = *two_of_three();
    memset(r.fresh[1].directory_id, 4, sizeof r.fresh[1].directory_id);
    assert_not_so(r, "data directory");
    regions_assert_nothing_promised();
}

static void a_dead_one_that_answers_is_not_dead(void **state)
{
    (void)state;
    regions_stop(5);
    (void)regions_begin(4, *two_of_three());
    assert_int_equal(regions_finish(4), -EPERM);
    assert_non_null(strstr(regions_outcome[4].report.sentence, "node 6 answers"));
    assert_int_equal(regions_node[4].c->state.promised, 0);
    regions_cut_between(4, 6, true); /* it lives, but cannot say so in time */
    (void)regions_begin(4, *two_of_three());
    for (unsigned ms = 0; ms < 500; ms++) {
        regions_turn();
        assert_int_equal(regions_node[4].c->state.promised, 0);
    }
    regions_cut_between(4, 6, false);
    assert_int_equal(regions_finish(4), -EPERM);
    assert_int_equal(regions_node[4].c->state.promised, 0);
}

/* Until the survivor's epoch has begun on it, and it waits for a vote. */
static void begin_epoch(void)
{
    (void)regions_begin(4, *two_of_three());
    for (unsigned ms = 0; regions_epoch_of(4) == 1; ms++) {
        assert_true(ms < WAIT_MS);
        regions_turn();
    }
}

/* The survivor has what only it has; it leads with the vote of an empty node, and commits nothing
 * before that one has all of the log. */
static void one_of_three_goes_on_with_new_ones(void **state)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    unsigned voters = 0;
    uint64_t had;
    int n;

    (void)state;
    for (unsigned i = 1; i <= NODES; i++) {
        if (i != 4)
            regions_stop(i);
    }
    had = log_last_index(regions_node[4].c->log);
    assert_int_equal(regions_fail_over(4, 2), -EHOSTUNREACH);
    assert_non_null(strstr(regions_outcome[4].report.sentence, "--dead"));
    begin_epoch();
    regions_pass_ms(2000);
    assert_int_equal(regions_outcome[4].told, 0);
    assert_false(consensus_leads(regions_node[4].c)); /* alone it is nobody */
    regions_start(7);
    assert_int_equal(log_last_index(regions_node[7].c->log), 0);
    assert_int_equal(regions_finish(4), 0);
    assert_int_equal(regions_outcome[4].report.leader, 4);
    assert_int_equal(regions_outcome[4].report.index, had);
    regions_commit_block(4);
    regions_settle(4, 7);
    regions_start(8);
    regions_settle(7, 8);
    n = recovery_members(regions_node[8].c, m);
    assert_int_equal(n, 6);
    for (int i = 0; i < n; i++) {
        assert_true(m[i].node != 5 && m[i].node != 6);
        assert_int_equal(m[i].role, m[i].region == 2 ? MEMBER_VOTER : MEMBER_STANDBY);
        voters += m[i].role == MEMBER_VOTER;
    }
    assert_int_equal(voters, 3);
    assert_int_equal(regions_node[8].c->events, 2 * EVENTS);
    assert_int_equal(regions_begin(4, *two_of_three()), 0); /* once more */
    assert_int_equal(regions_outcome[4].told, 1);
    assert_int_equal(regions_epoch_of(4), 2);
    for (unsigned i = 1; i <= 3; i++)
        regions_start(i);
    regions_settle(
        1, 8); /* the old region is brought into it, and the dead are no members there, either */
}

/* They have the first entries, which name neither of them, when the one that leads is gone for a
 * moment: it leads again by their votes. */
static void new_ones_with_part_of_the_log_vote(void **state)
{
    uint64_t had;

    (void)state;
    for (unsigned i = 0; i < 40; i++)
        regions_commit_block(1);
    regions_settle(1, NODES);
    had = log_last_index(regions_node[4].c->log);
    for (unsigned i = 1; i <= NODES; i++) {
        if (i != 4)
            regions_stop(i);
    }
    begin_epoch();
    regions_start(7);
    regions_start(8);
    for (unsigned ms = 0; log_last_index(regions_node[7].c->log) == 0; ms++) {
        assert_true(ms < WAIT_MS);
        regions_turn();
    }
    assert_true(log_last_index(regions_node[7].c->log) < had);
    regions_stop(4);
    regions_stop(7);
    regions_pass_ms(3000);
    regions_start(4);
    regions_start(7);
    assert_int_equal(regions_leader_of(2), 4);
    regions_commit_block(4);
    regions_settle(7, 8);
    assert_int_equal(regions_node[7].c->events, 42 * EVENTS);
}

/* It had heard of more than it has itself: that is of the log of before. */
static void what_was_in_both_regions_is_not_of_the_new_log(void **state)
{
    const uint64_t index = 40;
    const uint64_t told[2] = { index, 0 };

    (void)state;
    assert_int_equal(node_receive(regions_node[4].c, 1, PEER_REGION, told, sizeof told), 0);
    assert_int_equal(regions_node[4].c->region.index, index);
    for (unsigned i = 1; i <= NODES; i++) {
        if (i != 4)
            regions_stop(i);
    }
    begin_epoch();
    regions_start(7);
    assert_int_equal(regions_finish(4), 0);
    regions_commit_block(4);
    assert_true(log_last_index(regions_node[4].c->log) < index);
    assert_int_equal(regions_node[4].c->region.index, 0);
    assert_int_equal(regions_node[7].c->region.index, 0);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, regions_setup, regions_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(who_is_declared_dead_and_who_is_new_has_to_fit),
        TEST(a_dead_one_that_answers_is_not_dead),
        TEST(one_of_three_goes_on_with_new_ones),
        TEST(new_ones_with_part_of_the_log_vote),
        TEST(what_was_in_both_regions_is_not_of_the_new_log),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
