/*
 * test_consensus.c - what a node believes of the others' messages: one node by itself, the others
 * are played by the test.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>
#include <string.h>

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

static int hear(struct raft_message m)
{
    unsigned taken;

    m.server_id = OTHER;
    m.server_address = "";
    return consensus_receive(t.c, &m, NULL, &taken);
}

/* It would have to be the other region's, and who has entered it cannot go back. */
static void a_term_of_a_later_epoch_is_not_entered(void **state)
{
    const uint64_t later = 2ull << CLUSTER_EPOCH_SHIFT;
    struct raft_message snapshot = { .type = RAFT_INSTALL_SNAPSHOT };
    uint64_t term;

    (void)state;
    node_rig_start(false);
    node_rig_follow(OTHER);
    term = t.c->state.term;
    assert_int_equal(say(OTHER, later, false), -EBADMSG);
    assert_int_equal(say(OTHER, UINT64_MAX, true), -EBADMSG);
    assert_int_equal(hear((struct raft_message){ .type = RAFT_REQUEST_VOTE,
                                                 .request_vote = { .term = later,
                                                                   .candidate_id = OTHER,
                                                                   .last_log_index = 9,
                                                                   .last_log_term = term } }),
                     -EBADMSG);
    assert_int_equal(hear((struct raft_message){ .type = RAFT_REQUEST_VOTE_RESULT,
                                                 .request_vote_result = { .term = later } }),
                     -EBADMSG);
    assert_int_equal(hear((struct raft_message){ .type = RAFT_APPEND_ENTRIES_RESULT,
                                                 .append_entries_result = { .term = later } }),
                     -EBADMSG);
    assert_int_equal(
        hear((struct raft_message){ .type = RAFT_TIMEOUT_NOW, .timeout_now = { .term = later } }),
        -EBADMSG);
    snapshot.install_snapshot.term = later;
    snapshot.install_snapshot.data = (struct raft_buffer){ raft_malloc(32), 32 };
    assert_int_equal(hear(snapshot), -EBADMSG); /* and its memory is freed */
    assert_int_equal(t.c->state.term, term);
    assert_int_equal(say(OTHER, term, false), 0);
    assert_int_equal(say(OTHER, later - 1, false), 0);
    assert_int_equal(t.c->state.term, later - 1);
}

static void a_node_does_not_stand_for_election_into_the_next_epoch(void **state)
{
    const uint64_t last = (2ull << CLUSTER_EPOCH_SHIFT) - 1;
    struct raft_message yes = { .type = RAFT_REQUEST_VOTE_RESULT };

    (void)state;
    node_rig_start(false);
    assert_int_equal(say(OTHER, last, false), 0);
    node_rig_later_ms(200000);
    assert_int_equal(t.c->raft.state, RAFT_CANDIDATE);
    yes.request_vote_result = (struct raft_request_vote_result){
        .version = 2, .term = last, .vote_granted = true, .pre_vote = true
    };
    assert_int_equal(hear(yes), -EOVERFLOW);
    assert_non_null(strstr(t.c->error, "used up"));
    assert_int_equal(t.c->state.term, last);
}

/* It was offered a place before, heard of a term there, and died without an entry. */
static void the_first_entry_is_the_same_whatever_a_node_has_been_through(void **state)
{
    const uint64_t first = (1ull << CLUSTER_EPOCH_SHIFT) | 1;
    struct node_state old = { .term = first + 6, .node = SELF, .region = 1 };
    struct twoslot file;
    struct peer_entry entry;

    (void)state;
    memcpy(old.cluster_id, t.bootstrap.cluster_id, sizeof old.cluster_id);
    memset(old.directory_id, 1, sizeof old.directory_id);
    assert_true(twoslot_open(&file, t.disk, STATE_NAME, STATE_MAGIC, &old, sizeof old) >= 0);
    twoslot_close(&file);
    node_rig_start(false);
    assert_int_equal(node_entry(t.c, 1, &entry), 0);
    assert_int_equal(entry.record->term, first);
    assert_int_equal(entry.record->time_ns, t.bootstrap.time_ns);
    assert_int_equal(t.c->state.term, first + 6); /* and what it may have promised there holds */
}

/* It died between its first entry and saying that it has one. An empty log would not be taken for a
 * lost one, and who has acknowledged something would vote without it. */
static void that_a_log_was_begun_is_on_disk_before_anything_is_acknowledged(void **state)
{
    struct node_state s;
    struct twoslot file;

    (void)state;
    node_rig_start(false);
    node_free(t.c);
    assert_true(twoslot_open(&file, t.disk, STATE_NAME, STATE_MAGIC, &s, sizeof s) >= 0);
    assert_int_equal(s.bootstrapped, 1);
    s.bootstrapped = 0;
    assert_int_equal(twoslot_write(&file, &s, sizeof s), 0);
    twoslot_close(&file);
    node_rig_start(false);
    assert_true(twoslot_peek(t.disk, STATE_NAME, STATE_MAGIC, &s, sizeof s) >= 0);
    assert_int_equal(s.bootstrapped, 1);
}

/* Whatever fails, and when, an entry has one owner: the sanitizer looks at the end of each. */
static void an_entry_of_a_message_that_fails_is_freed_once(void **state)
{
    (void)state;
    node_rig_start(false);
    node_rig_follow(OTHER);
    test_disk_fail_file(t.disk, STATE_NAME, -EIO);
    assert_true(say(THIRD, t.c->state.term + 1, true) < 0);
    assert_non_null(strstr(t.c->error, "state"));
    test_disk_fail_file(t.disk, NULL, 0);
}

static void an_entry_that_cannot_be_sent_is_freed_once(void **state)
{
    struct raft_message yes = { .type = RAFT_REQUEST_VOTE_RESULT };
    int e = 0;

    (void)state;
    node_rig_start(false);
    node_rig_later_ms(200000);
    for (int pre_vote = 1; pre_vote >= 0; pre_vote--) {
        yes.request_vote_result = (struct raft_request_vote_result){
            .version = 2, .term = t.c->state.term, .vote_granted = true, .pre_vote = pre_vote == 1
        };
        assert_int_equal(hear(yes), 0);
    }
    assert_true(consensus_leads(t.c));
    assert_int_equal(t.c->lead, LEAD_NONE); /* its first entry comes with the next turn */
    t.send_error = -EINVAL;
    for (int i = 0; i < 32 && e >= 0; i++) {
        t.now_ns += 13 * NS_PER_S; /* a heartbeat is due */
        e = node_turn(t.c);
    }
    assert_int_equal(e, -EINVAL);
    assert_int_equal(t.c->appended_n, 1);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, node_rig_setup, node_rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(two_leaders_may_speak_while_there_is_no_room),
        TEST(who_leads_believes_no_other_leader_of_its_term),
        TEST(a_term_of_a_later_epoch_is_not_entered),
        TEST(a_node_does_not_stand_for_election_into_the_next_epoch),
        TEST(the_first_entry_is_the_same_whatever_a_node_has_been_through),
        TEST(that_a_log_was_begun_is_on_disk_before_anything_is_acknowledged),
        TEST(an_entry_of_a_message_that_fails_is_freed_once),
        TEST(an_entry_that_cannot_be_sent_is_freed_once),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
