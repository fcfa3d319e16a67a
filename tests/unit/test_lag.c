/*
 * test_lag.c - what a follower believes of its leaders' word about what is committed, one node by
 * itself, the leaders played by the test.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "tests/lib/node_rig.h"

/* An entry behind the last one of this node, or none. Returns as consensus_receive(); what was not
 * taken is freed, as by one whose connection ends then. */
static int say(uint16_t leader, uint64_t term, bool entry)
{
    struct raft_message m = { .type = RAFT_APPEND_ENTRIES, .server_id = leader };
    struct proposal *p = entry ? proposal_new(LOG_BARRIER, NULL, 0) : NULL;
    unsigned taken;
    int e;

    m.server_address = "";
    m.append_entries = (struct raft_append_entries){ .term = term,
                                                     .prev_log_index = log_last_index(t.c->log),
                                                     .prev_log_term = log_last_term(t.c->log),
                                                     .leader_commit = 1,
                                                     .n_entries = entry ? 1 : 0 };
    if (entry) {
        p->write.record.index = log_last_index(t.c->log) + 1;
        p->write.record.term = term;
        p->write.record.time_ns = log_last_time_ns(t.c->log);
    }
    e = consensus_receive(t.c, &m, &p, &taken);
    if (entry && taken == 0)
        proposal_free(p);
    return e;
}

/* The disk of this node is slow, and the lead moves. */
static void two_leaders_may_speak_while_there_is_no_room(void **state)
{
    uint64_t term;
    int e = 0;

    (void)state;
    node_rig_start(false);
    node_rig_follow(OTHER);
    term = t.c->state.term;
    test_disk_stall(t.disk, true);
    for (unsigned i = 0; i < 1000 && e == 0; i++)
        e = say(OTHER, term, true);
    assert_int_equal(e, -EAGAIN);
    assert_int_equal(say(THIRD, term + 1, true), -EAGAIN);
    assert_int_equal(t.c->state.term, term); /* it does not know of the new one yet */
    assert_int_equal(say(OTHER, term, true), -EAGAIN);
    assert_int_equal(say(OTHER, term, false), 0);
    test_disk_stall(t.disk, false);
    node_rig_turn();
    assert_int_equal(say(THIRD, term + 1, true), 0);
    assert_int_equal(consensus_leader(t.c), THIRD);
    assert_int_equal(say(OTHER, term, false), 0);
}

/* No node of this cluster says that: there is one leader in a term. */
static void who_leads_believes_no_other_leader_of_its_term(void **state)
{
    (void)state;
    node_rig_start(true);
    assert_true(consensus_leads(t.c));
    assert_int_equal(say(OTHER, t.c->state.term, false), -EBADMSG);
    assert_int_equal(say(OTHER, t.c->state.term, true), -EBADMSG);
    assert_true(consensus_leads(t.c));
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, node_rig_setup, node_rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(two_leaders_may_speak_while_there_is_no_room),
        TEST(who_leads_believes_no_other_leader_of_its_term),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
