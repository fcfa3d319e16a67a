/*
 * test_cli_cluster.c - `sluice cluster` and the read point of `get` and `tail`, against a server
 * with a made-up daemon behind it. Without the program the test is skipped.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <jansson.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "tests/lib/cli_rig.h"

#define DAY_S 86400

/* Three healthy nodes, asked at node 2; node 1 leads. */
static void healthy(struct fixture *x)
{
    sluice_v1_ClusterStatusResponse *s = &x->fake.cluster.status;

    memset(s, 0, sizeof *s);
    s->members_count = s->self.members_count = 3;
    for (unsigned i = 0; i < 3; i++) {
        sluice_v1_ClusterMember *m = &s->members[i];
        sluice_v1_NodeStatus *n = &m->status;

        m->has_member = m->has_status = true;
        m->member.node = n->node = i + 1;
        m->member.voter = true;
        snprintf(m->member.address, sizeof m->member.address, "host%u:7401/1/%032u", i + 1, i);
        snprintf(n->role, sizeof n->role, i == 0 ? "leader" : "follower");
        snprintf(n->zone, sizeof n->zone, "rack%u", i);
        snprintf(n->version, sizeof n->version, "1.0");
        n->term = 2ull << 20 | 5;
        n->epoch = 2;
        n->leader = 1;
        n->first_index = 1;
        n->last_index = n->commit_index = n->applied_index = 1000;
        n->log_bytes = 1024000;
        n->last_time_ns = 1700000000000000000;
        n->certificate_until_s = time(NULL) + 100 * DAY_S;
        s->self.members[i] = m->member;
    }
    for (unsigned i = 0; i < 3; i++) {
        s->members[i].status.members_count = 3;
        memcpy(s->members[i].status.members, s->self.members, sizeof s->self.members);
    }
    s->self.leader = 1;
    s->has_self = true;
    s->self.node = 2;
    snprintf(s->self.role, sizeof s->self.role, "follower");
}

static sluice_v1_NodeStatus *node(struct fixture *x, unsigned i)
{
    return &x->fake.cluster.status.members[i].status;
}

static void silence(struct fixture *x, unsigned i)
{
    sluice_v1_ClusterMember *m = &x->fake.cluster.status.members[i];

    m->has_status = false;
    snprintf(m->sentence, sizeof m->sentence, "there is no connection to node %u", i + 1);
}

static void what_is_wrong_with_the_arguments_is_said(void **state)
{
    static const char *const bad[] = {
        "cluster",
        "cluster nonsense",
        "cluster init",
        "cluster init 1=a:1 2=b:2",
        "cluster init 1=a:1 2=b:2 2=c:3",
        "cluster init 1=a:1 2=b:2 3=b:2",
        "cluster init 1=a:1 2=b:2 0=c:3",
        "cluster init 1=a:1 2=b:2 3=c",
        "cluster init 1=a:1 2=b:2 3=:3",
        "cluster init 1=a:1 2=b:2 3=c:65536",
        "cluster init 1=a:1 2=b:2 3=fe80::1:3",
        "cluster init 1=a:1 2=b:2 3=c/d:3",
        "cluster add 4",
        "cluster add 4=host:7401 --yes extra",
        "cluster add four=host:7401",
        "cluster remove",
        "cluster remove 65536 --yes",
        "cluster remove 3 --standby --yes",
        "cluster replace 3 --yes",
        "cluster replace 3 3=host:7401 --yes",
        "cluster transfer 1 2",
        "cluster status extra",
        "get 1-2-3 --max-lag-s 0",
        "tail --max-lag-s x",
    };
    struct fixture *x = *state;

    serve(x, true);
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        if (sluice(x, "%s", bad[i]) != 2)
            fail_msg("sluice %s ended with %d: %s", bad[i], got.code, got.text);
        assert_int_equal(atomic_load(&x->fake.cluster.calls), 0);
    }
    assert_int_equal(sluice(NULL, "cluster --help"), 0);
    has("Examples:");
}

static void changes_are_asked_for_as_they_are_written(void **state)
{
    struct fixture *x = *state;
    const sluice_v1_MembershipRequest *m = &x->fake.cluster.asked.cluster_change;
    const sluice_v1_ClusterInitRequest *init = &x->fake.cluster.asked.cluster_init;

    serve(x, true);
    assert_int_equal(sluice(x, "cluster init 1=a:1 2=[::1]:2 3=c.example:3"), 0);
    has("it is done");
    assert_int_equal(init->members_count, 3);
    assert_int_equal(init->members[1].node, 2);
    assert_string_equal(init->members[1].address, "[::1]:2");
    assert_int_equal(sluice(x, "cluster add 4=d:4 --standby"), 0);
    assert_int_equal(m->kind, sluice_v1_MembershipRequest_Kind_ADD);
    assert_int_equal(m->node, 4);
    assert_true(m->standby);
    assert_string_equal(m->address, "d:4");
    assert_int_equal(sluice(x, "cluster remove 4 --yes"), 0);
    assert_int_equal(m->kind, sluice_v1_MembershipRequest_Kind_REMOVE);
    assert_int_equal(m->node, 4);
    assert_int_equal(sluice(x, "cluster replace 3 5=e:5 --yes"), 0);
    assert_int_equal(m->kind, sluice_v1_MembershipRequest_Kind_REPLACE);
    assert_int_equal(m->old, 3);
    assert_int_equal(m->node, 5);
    assert_int_equal(sluice(x, "cluster transfer"), 0);
    assert_int_equal(m->kind, sluice_v1_MembershipRequest_Kind_TRANSFER);
    assert_int_equal(m->node, 0);
    assert_int_equal(sluice(x, "cluster transfer 2 --json"), 0);
    assert_int_equal(m->node, 2);
    has("{\"result\":\"it is done\"}");
}

static void what_loses_something_is_not_done_unasked(void **state)
{
    struct fixture *x = *state;

    serve(x, true);
    assert_int_equal(sluice(x, "cluster remove 3 </dev/null"), 2);
    has("Node 3 will be no member any more");
    has("--yes");
    assert_int_equal(sluice(x, "cluster replace 3 4=host:7401 </dev/null"), 2);
    has("Node 4 at host:7401 will get the whole log");
    assert_int_equal(atomic_load(&x->fake.cluster.calls), 0);
}

static void a_refusal_is_one_sentence(void **state)
{
    struct fixture *x = *state;

    serve(x, true);
    atomic_store(&x->fake.cluster.error, -EPERM);
    assert_int_equal(sluice(x, "cluster remove 3 --yes"), 4);
    assert_string_equal(got.text, "sluice: it cannot be done\n");
}

static void a_healthy_cluster_ends_with_0(void **state)
{
    struct fixture *x = *state;
    json_t *d;

    healthy(x);
    serve(x, true);
    assert_int_equal(sluice(x, "cluster status"), 0);
    has("leader");
    has("host3:7401");
    has_not("problem");
    has_not("note");
    assert_int_equal(lines(), 4);
    assert_int_equal(sluice(x, "cluster status --json"), 0);
    d = document();
    assert_true(json_is_true(json_object_get(d, "healthy")));
    assert_int_equal(json_integer_value(json_object_get(d, "leader")), 1);
    assert_int_equal(json_array_size(json_object_get(d, "members")), 3);
    json_decref(d);
    assert_int_equal(sluice(x, "cluster members"), 0);
    assert_int_equal(lines(), 3);
    has("leads");
}

static void a_node_behind_is_shown_in_entries_bytes_and_seconds(void **state)
{
    struct fixture *x = *state;
    json_t *d, *m;

    healthy(x);
    node(x, 2)->applied_index = 900;
    node(x, 2)->last_time_ns -= 2500000000;
    serve(x, true);
    assert_int_equal(sluice(x, "cluster status"), 0);
    has("100 (about 100.0 KiB, 2.5 s)");
    assert_int_equal(sluice(x, "cluster status --json"), 0);
    d = document();
    m = json_array_get(json_object_get(d, "members"), 2);
    assert_int_equal(json_integer_value(json_object_get(m, "lagEntries")), 100);
    assert_int_equal(json_integer_value(json_object_get(m, "lagBytes")), 102400);
    assert_true(json_real_value(json_object_get(m, "lagSeconds")) == 2.5);
    json_decref(d);
}

/* One thing at a time is made wrong. */
static void what_is_wrong_ends_with_1_and_is_named(void **state)
{
    struct fixture *x = *state;

    healthy(x);
    serve(x, true);
    silence(x, 2);
    assert_int_equal(sluice(x, "cluster status"), 1);
    has("problem: node 3 is silent: there is no connection to node 3");
    has("problem: 2 of 3 voters answer");
    silence(x, 1);
    assert_int_equal(sluice(x, "cluster status"), 1);
    has("problem: 1 of 3 voters answer: nothing can be committed");

    healthy(x);
    snprintf(node(x, 0)->role, sizeof node(x, 0)->role, "follower");
    assert_int_equal(sluice(x, "cluster status"), 1);
    has("problem: no node leads");

    healthy(x);
    node(x, 1)->disk_full = true;
    assert_int_equal(sluice(x, "cluster status"), 1);
    has("problem: node 2: its disk is full");

    healthy(x);
    node(x, 1)->certificate_until_s = time(NULL) - 1;
    assert_int_equal(sluice(x, "cluster status"), 1);
    has("problem: node 2: its certificate has expired");

    healthy(x);
    node(x, 0)->members_count = 2;
    assert_int_equal(sluice(x, "cluster status"), 1);
    has("problem: node 3 is no member any more, says node 1, which leads");

    healthy(x);
    node(x, 1)->digest[3] = 1;
    assert_int_equal(sluice(x, "cluster status"), 1);
    has("problem: node 2: its log to index 1000 is not the leader's");
}

static void what_is_to_be_known_ends_with_0_and_is_named(void **state)
{
    struct fixture *x = *state;

    healthy(x);
    serve(x, true);
    snprintf(node(x, 2)->zone, sizeof node(x, 2)->zone, "rack0");
    node(x, 1)->certificate_until_s = time(NULL) + 12 * DAY_S + 60;
    snprintf(node(x, 1)->version, sizeof node(x, 1)->version, "2.0");
    snprintf(node(x, 0)->change, sizeof node(x, 0)->change, "add node 4");
    assert_int_equal(sluice(x, "cluster status"), 0);
    has("note: nodes 1, 3 share the zone 'rack0'");
    has("note: node 2: its certificate ends in 12 days");
    has("note: node 1 has version 1.0, node 2 2.0");
    has("note: under way: add node 4");
    has_not("problem");
}

static void a_node_of_no_cluster_says_what_to_do(void **state)
{
    struct fixture *x = *state;
    sluice_v1_NodeStatus *self = &x->fake.cluster.status.self;

    x->fake.cluster.status.has_self = true;
    self->node = 3;
    snprintf(self->role, sizeof self->role, "waiting");
    snprintf(self->address, sizeof self->address, "host3:7401");
    serve(x, true);
    assert_int_equal(sluice(x, "cluster status"), 1);
    has("sluice cluster init 3=host3:7401");
    has("sluice cluster add 3=host3:7401");
    assert_int_equal(sluice(x, "cluster status --json"), 1);
    has("\"healthy\":false");
}

static void a_follower_says_how_far_it_may_be_behind(void **state)
{
    struct fixture *x = *state;

    fake_admin_block(&x->fake, 3);
    x->fake.cluster.point = (sluice_v1_ReadPoint){
        .node = 2, .leader = 1, .applied_index = 77, .lag_ns = 1500000000, .members = 3
    };
    serve(x, true);
    assert_int_equal(sluice(x, "tail --no-follow"), 0);
    has("node 2 follows node 1, and has applied to index 77");
    has("it may be 1.5 s behind");
    assert_int_equal(sluice(x, "tail --no-follow --barrier"), 0);
    has_not("behind");
    assert_int_equal(lines(), 3);
    x->fake.cluster.point.lag_ns = UINT64_MAX;
    assert_int_equal(sluice(x, "get 3-1-0"), 0);
    has("how far that is behind is not known");
    x->fake.cluster.point.leader = 2; /* it leads itself */
    assert_int_equal(sluice(x, "get 3-1-0"), 0);
    has_not("behind");
    atomic_store(&x->fake.cluster.error, -EAGAIN);
    assert_int_equal(sluice(x, "get 3-1-0 --max-lag-s 1"), 4);
    assert_string_equal(got.text, "sluice: it cannot be done\n");
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, admin_fixture_setup, admin_fixture_teardown)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        TEST(what_is_wrong_with_the_arguments_is_said),
        TEST(changes_are_asked_for_as_they_are_written),
        TEST(what_loses_something_is_not_done_unasked),
        TEST(a_refusal_is_one_sentence),
        TEST(a_healthy_cluster_ends_with_0),
        TEST(a_node_behind_is_shown_in_entries_bytes_and_seconds),
        TEST(what_is_wrong_ends_with_1_and_is_named),
        TEST(what_is_to_be_known_ends_with_0_and_is_named),
        TEST(a_node_of_no_cluster_says_what_to_do),
        TEST(a_follower_says_how_far_it_may_be_behind),
    };

    (void)argc;
    if (!cli_rig_find(argv[0]))
        return 77;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
