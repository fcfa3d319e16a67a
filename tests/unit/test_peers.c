/*
 * test_peers.c - three nodes in one process, over real connections on loopback: a cluster is made,
 * takes blocks, loses its leader, and gets it back.
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

#include "cluster/segment.h"
#include "tests/lib/peers_rig.h"

static void three_nodes_become_a_cluster_and_take_blocks(void **state)
{
    int lead;

    (void)state;
    peers_rig_start();
    peers_rig_found(0);
    lead = peers_rig_leader();
    peers_rig_blocks(lead, 100, 0);
    peers_rig_together(lead);
    for (int i = 0; i < NODES; i++)
        assert_true(rig_app[i].seen[999] <= 1);
    peers_rig_found(2); /* again, elsewhere: it is there */
}

static void the_active_region_has_three_nodes(void **state)
{
    char sentence[LOG_ERROR_BYTES] = "";

    (void)state;
    rig_app[0].region = 2;
    peers_rig_start();
    assert_int_equal(cluster_found(rig_app[1].cluster, rig_member, NODES, sentence), -EINVAL);
    assert_string_equal(sentence, "in region 1, which is the active one since this node is in it, "
                                  "there are 2 of these nodes; it takes 3");
    assert_int_equal(peers_rig_state(1), CLUSTER_WAITING);
}

static void a_cluster_begins_in_its_region_s_epoch(void **state)
{
    struct cluster_status s;

    (void)state;
    for (int i = 0; i < NODES; i++)
        rig_app[i].region = 2;
    peers_rig_start();
    peers_rig_found(1);
    peers_rig_blocks(peers_rig_leader(), 3, 0);
    peers_rig_together(peers_rig_leader());
    cluster_status(rig_app[1].cluster, &s);
    assert_int_equal(s.epoch, 2);
}

static void over_tls_it_is_the_same(void **state)
{
    sluice_v1_Member listed[CLUSTER_MEMBERS_MAX];
    sluice_v1_NodeReply reply[CLUSTER_MEMBERS_MAX];
    int lead;

    (void)state;
    peers_rig_secure(3, YEAR_S);
    peers_rig_start();
    peers_rig_found(0);
    lead = peers_rig_leader();
    for (unsigned i = 0; i < 20; i++) {
        test_app_fill(&rig_app[lead], 0, 100, 2000, 100ull * i);
        test_app_submit(&rig_app[lead], 0);
        assert_int_equal(test_app_answer(&rig_app[lead])->accepted, 100);
    }
    peers_rig_together(lead);
    assert_int_equal(cluster_members(rig_app[lead].cluster, 5 * NS_PER_S, listed, reply), NODES);
    assert_true(reply[0].status.certificate_until_s > (int64_t)(clock_unix_ns() / NS_PER_S));
}

static void a_certificate_of_another_node_is_refused(void **state)
{
    char sentence[LOG_ERROR_BYTES];

    (void)state;
    peers_rig_secure(7, YEAR_S);
    peers_rig_start();
    assert_true(cluster_found(rig_app[0].cluster, rig_member, NODES, sentence) < 0);
    assert_non_null(strstr(sentence, "its certificate is that of another node"));
}

static uint64_t last_of(int i)
{
    struct cluster_status s;

    cluster_status(rig_app[i].cluster, &s);
    return s.last_index;
}

/* The others close what they have with it, in both directions, and take nothing new from it. */
static void a_node_whose_certificate_expires_is_cut_off(void **state)
{
    const uint64_t until = clock_unix_ns() + 3 * NS_PER_S;
    static sluice_v1_NodeReply reply[CLUSTER_MEMBERS_MAX];
    sluice_v1_Member listed[CLUSTER_MEMBERS_MAX];
    uint64_t first = 0;

    (void)state;
    peers_rig_secure(3, 3);
    peers_rig_start();
    peers_rig_found(0);
    (void)peers_rig_leader();
    peers_rig_blocks(0, 1, first);
    peers_rig_together(0);
    while (last_of(0) < last_of(2) + 50) {
        assert_true(clock_unix_ns() < until + WAIT_NS);
        peers_rig_blocks(0, 1, first += 10);
        peers_rig_pause();
    }
    assert_true(clock_unix_ns() >= until);
    assert_int_not_equal(peers_rig_leader(), 2);
    /* And who asks is told why. */
    assert_int_equal(cluster_members(rig_app[0].cluster, 5 * NS_PER_S, listed, reply), NODES);
    assert_false(reply[2].has_status);
    assert_non_null(strstr(reply[2].sentence, "there is no connection to node 3: "));
    assert_non_null(strstr(reply[2].sentence, "certificate"));
}

static void without_its_leader_it_goes_on_and_the_old_one_follows(void **state)
{
    int old, lead;

    (void)state;
    peers_rig_start();
    peers_rig_found(1);
    old = peers_rig_leader();
    peers_rig_blocks(old, 20, 0);
    test_app_stop(&rig_app[old]);
    lead = peers_rig_leader();
    assert_int_not_equal(lead, old);
    peers_rig_blocks(lead, 20, 1000);
    test_app_start(&rig_app[old]);
    peers_rig_blocks(lead, 20, 2000);
    peers_rig_together(lead);
}

/* Wherever they come from; and while the leader goes, what it had in hand goes to the next. */
static void blocks_may_come_to_any_node(void **state)
{
    int old, lead;

    (void)state;
    peers_rig_start();
    peers_rig_found(0);
    old = peers_rig_leader();
    for (int i = 0; i < NODES; i++)
        peers_rig_blocks(i, 30, 1000ull * (uint64_t)i);
    peers_rig_together(old);
    for (int i = 0; i < NODES; i++) {
        for (unsigned e = 0; e < 300; e++)
            assert_int_equal(rig_app[old].seen[1000 * i + e], 1);
    }
    for (int i = 0; i < NODES; i++) {
        for (int b = 0; b < TEST_APP_BLOCKS && i != old; b++) {
            test_app_fill(&rig_app[i], b, 10, 200,
                          5000 + 100ull * (uint64_t)(i * TEST_APP_BLOCKS + b));
            test_app_submit(&rig_app[i], b);
        }
    }
    test_app_stop(&rig_app[old]);
    for (int i = 0; i < NODES; i++) {
        for (int b = 0; b < TEST_APP_BLOCKS && i != old; b++)
            assert_int_equal(test_app_answer(&rig_app[i])->accepted, 10);
    }
    lead = peers_rig_leader();
    assert_int_not_equal(lead, old);
    peers_rig_blocks(lead, 5, 9000);
    peers_rig_together(lead);
}

static void members_say_what_they_are(void **state)
{
    sluice_v1_Member listed[CLUSTER_MEMBERS_MAX];
    sluice_v1_NodeReply reply[CLUSTER_MEMBERS_MAX];
    int lead, n;

    (void)state;
    peers_rig_start();
    assert_int_equal(cluster_members(rig_app[0].cluster, NS_PER_S, listed, reply), 0);
    peers_rig_found(0);
    lead = peers_rig_leader();
    peers_rig_together(lead);
    n = cluster_members(rig_app[(lead + 1) % NODES].cluster, 5 * NS_PER_S, listed, reply);
    assert_int_equal(n, NODES);
    for (int i = 0; i < n; i++) {
        if (!reply[i].has_status)
            fail_msg("node %u: %s", listed[i].node, reply[i].sentence);
        assert_int_equal(reply[i].status.node, listed[i].node);
        assert_string_equal(reply[i].status.role,
                            (int)listed[i].node == lead + 1 ? "leader" : "follower");
        assert_int_equal(reply[i].status.leader, lead + 1);
        assert_int_equal(reply[i].status.members_count, NODES);
        assert_string_equal(reply[i].status.zone, rig_peering[listed[i].node - 1].zone);
    }
}

static void a_setting_can_be_changed_at_any_node(void **state)
{
    sluice_v1_Setting s = sluice_v1_Setting_init_zero;
    char sentence[LOG_ERROR_BYTES];
    int64_t last = 0;
    int lead;

    (void)state;
    peers_rig_start();
    peers_rig_found(0);
    lead = peers_rig_leader();
    snprintf(s.key, sizeof s.key, "skew.past_ms");
    for (int i = 0; i < NODES; i++) {
        int64_t index;

        snprintf(s.value, sizeof s.value, "%d", 1000 + i);
        index = cluster_propose_setting(rig_app[i].cluster, &s, sentence);
        if (index < 0)
            fail_msg("node %d: %s", i + 1, sentence);
        assert_true(index > last);
        assert_true(cluster_commit_index(rig_app[i].cluster) >= (uint64_t)index);
        last = index;
    }
    peers_rig_together(lead);
}

static void what_cannot_become_a_cluster_is_refused(void **state)
{
    char sentence[LOG_ERROR_BYTES];

    (void)state;
    peers_rig_start();
    assert_int_equal(cluster_found(rig_app[0].cluster, rig_member, 2, sentence), -EINVAL);
    assert_int_equal(cluster_found(rig_app[0].cluster, rig_member + 1, 2, sentence), -EINVAL);
    snprintf(rig_member[1].address, sizeof rig_member[1].address, "nowhere");
    assert_int_equal(cluster_found(rig_app[0].cluster, rig_member, NODES, sentence), -EINVAL);
    snprintf(rig_member[1].address, sizeof rig_member[1].address, "%s", rig_member[2].address);
    assert_true(cluster_found(rig_app[0].cluster, rig_member, NODES, sentence) < 0);
    assert_non_null(strstr(sentence, "node 2"));
    for (int i = 0; i < NODES; i++)
        assert_int_equal(peers_rig_state(i), CLUSTER_WAITING);
}

/* What a node leaves that dies between the name of its first segment and its first entry. */
static void leave_empty_segment(const struct test_app *a)
{
    const struct segment s = { .epoch = 1, .first = 1, .bytes = SEGMENT_BYTES_MIN };
    const uint8_t before[SHA256_BYTES] = { 0 };
    struct segment_header h;
    char dir[128], name[SEGMENT_NAME_BYTES], path[256];
    struct disk *d;
    FILE *f;

    snprintf(dir, sizeof dir, "%s/log", a->dir);
    segment_encode(&h, &s, 0, SEGMENT_BYTES_MIN, before);
    segment_name(&s, name);
    snprintf(path, sizeof path, "%s/%s", dir, name);
    f = fopen(path, "we");
    assert_non_null(f);
    assert_int_equal(fwrite(&h, sizeof h, 1, f), 1);
    assert_int_equal(ftruncate(fileno(f), SEGMENT_BYTES_MIN), 0);
    assert_int_equal(fclose(f), 0);
    assert_int_equal(disk_uring_open(&d, dir, 8), 0);
    assert_int_equal(log_mark_init(d, 0), 0);
    d->ops->fini(d);
}

static void one_that_died_while_it_began_waits_again(void **state)
{
    (void)state;
    test_app_start(&rig_app[0]);
    assert_int_equal(peers_rig_state(0), CLUSTER_WAITING);
    test_app_stop(&rig_app[0]);
    leave_empty_segment(&rig_app[0]);
    test_app_start(&rig_app[0]);
    assert_int_equal(peers_rig_state(0), CLUSTER_WAITING);
}

static void a_member_can_be_added_again_and_again(void **state)
{
    sluice_v1_NodeRequest request = { .which_body = sluice_v1_NodeRequest_membership_tag };
    sluice_v1_MembershipRequest *m = &request.body.membership;
    sluice_v1_NodeReply reply;
    sluice_v1_NodeStatus self;
    uint64_t connected[CLUSTER_MEMBERS_MAX], after[CLUSTER_MEMBERS_MAX];
    int lead;

    (void)state;
    peers_rig_start();
    peers_rig_found(0);
    lead = peers_rig_leader();
    peers_rig_together(lead);
    m->kind = sluice_v1_MembershipRequest_Kind_ADD;
    m->node = (uint32_t)((lead + 1) % NODES) + 1;
    snprintf(m->address, sizeof m->address, "%s", rig_peering[m->node - 1].listen);
    assert_int_equal(cluster_self(rig_app[lead].cluster, &self, connected), 0);
    for (int i = 0; i < 3; i++) {
        if (cluster_ask(rig_app[lead].cluster, &request, WAIT_NS, &reply) < 0)
            fail_msg("added again: %s", reply.sentence);
    }
    m->node = (uint32_t)lead + 1; /* the leader itself */
    snprintf(m->address, sizeof m->address, "%s", rig_peering[lead].listen);
    if (cluster_ask(rig_app[(lead + 1) % NODES].cluster, &request, WAIT_NS, &reply) < 0)
        fail_msg("the leader, added again: %s", reply.sentence);
    assert_int_equal(cluster_self(rig_app[lead].cluster, &self, after), 0);
    assert_memory_equal(after, connected, self.members_count * sizeof *after);
}

/* What follows is behind by a heartbeat or so, and knows it; who waits, knows nothing. */
static void how_far_a_node_is_behind_is_known(void **state)
{
    struct cluster_status s;
    uint64_t until = clock_monotonic_ns() + WAIT_NS;
    int lead;

    (void)state;
    peers_rig_start();
    cluster_status(rig_app[1].cluster, &s);
    assert_true(s.lag_ns == UINT64_MAX);
    peers_rig_found(0);
    lead = peers_rig_leader();
    peers_rig_together(lead);
    cluster_status(rig_app[lead].cluster, &s);
    assert_int_equal(s.leader, lead + 1);
    assert_int_equal(s.lag_ns, 0);
    for (int i = 0; i < NODES; i++) {
        do {
            cluster_status(rig_app[i].cluster, &s);
        } while (s.lag_ns == UINT64_MAX && clock_monotonic_ns() < until);
        assert_true(s.lag_ns < WAIT_NS);
        assert_int_equal(s.leader, lead + 1);
    }
    /* Without a leader it grows. */
    for (int i = 0; i < NODES; i++) {
        if (i != (lead + 1) % NODES)
            test_app_stop(&rig_app[i]);
    }
    do {
        peers_rig_pause();
        cluster_status(rig_app[(lead + 1) % NODES].cluster, &s);
    } while (s.lag_ns < NS_PER_S && clock_monotonic_ns() < until);
    assert_true(s.lag_ns >= NS_PER_S && s.lag_ns < WAIT_NS);
}

/* Of blocks taken here, since this start: not those of others, nor of an earlier run. */
static void own_events_are_counted_apart(void **state)
{
    struct cluster_status s;
    int lead, other;

    (void)state;
    peers_rig_start();
    peers_rig_found(0);
    lead = peers_rig_leader();
    other = (lead + 1) % NODES;
    peers_rig_blocks(lead, 5, 0);
    peers_rig_blocks(other, 3, 1000); /* forwarded */
    peers_rig_together(lead);
    cluster_status(rig_app[lead].cluster, &s);
    assert_int_equal(s.events, 80);
    assert_int_equal(s.events_own, 50);
    cluster_status(rig_app[other].cluster, &s);
    assert_int_equal(s.events, 80);
    assert_int_equal(s.events_own, 30);
    test_app_stop(&rig_app[other]);
    test_app_start(&rig_app[other]);
    assert_int_equal(cluster_wait(rig_app[other].cluster, s.commit_index, WAIT_NS), 0);
    cluster_status(rig_app[other].cluster, &s);
    assert_int_equal(s.events, 80);
    assert_int_equal(s.events_own, 0);
}

static void who_waits_for_an_answer_is_let_go_before_a_stop(void **state)
{
    sluice_v1_NodeRequest request = { .which_body = sluice_v1_NodeRequest_barrier_tag };
    sluice_v1_NodeReply reply;
    char sentence[LOG_ERROR_BYTES];

    (void)state;
    test_app_start(&rig_app[0]);
    assert_int_equal(cluster_ask(rig_app[0].cluster, &request, WAIT_NS, &reply), -ENXIO);
    cluster_interrupt(rig_app[0].cluster);
    assert_int_equal(cluster_wait(rig_app[0].cluster, 1, WAIT_NS), -ESHUTDOWN);
    assert_int_equal(cluster_found(rig_app[0].cluster, rig_member, NODES, sentence), -ESHUTDOWN);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, peers_rig_setup, peers_rig_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(three_nodes_become_a_cluster_and_take_blocks),
        TEST(the_active_region_has_three_nodes),
        TEST(a_cluster_begins_in_its_region_s_epoch),
        TEST(over_tls_it_is_the_same),
        TEST(a_certificate_of_another_node_is_refused),
        TEST(a_node_whose_certificate_expires_is_cut_off),
        TEST(blocks_may_come_to_any_node),
        TEST(without_its_leader_it_goes_on_and_the_old_one_follows),
        TEST(members_say_what_they_are),
        TEST(a_setting_can_be_changed_at_any_node),
        TEST(what_cannot_become_a_cluster_is_refused),
        TEST(one_that_died_while_it_began_waits_again),
        TEST(a_member_can_be_added_again_and_again),
        TEST(how_far_a_node_is_behind_is_known),
        TEST(own_events_are_counted_apart),
        TEST(who_waits_for_an_answer_is_let_go_before_a_stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
