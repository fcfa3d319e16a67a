/*
 * test_peers.c - three nodes in one process, over real connections on loopback: a cluster is made,
 * takes blocks, loses its leader, and gets it back.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "tests/lib/pki_rig.h"
#include "tests/lib/test_app.h"

#define NODES   3
#define WAIT_NS (20 * NS_PER_S)

static struct test_app app[NODES];
static struct cluster_peering peering[NODES];
static sluice_v1_Member member[NODES];

/* One that nobody listens on now. */
static unsigned port_free(void)
{
    struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
    socklen_t n = sizeof a;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

    assert_int_equal(bind(fd, (struct sockaddr *)&a, n), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&a, &n), 0);
    close(fd);
    return ntohs(a.sin_port);
}

static int start(void **state)
{
    (void)state;
    memset(member, 0, sizeof member);
    memset(peering, 0, sizeof peering);
    for (int i = 0; i < NODES; i++) {
        test_app_init(&app[i]);
        app[i].node = (uint16_t)(i + 1);
        app[i].peering = &peering[i];
        snprintf(peering[i].listen, sizeof peering[i].listen, "127.0.0.1:%u", port_free());
        snprintf(peering[i].zone, sizeof peering[i].zone, "rack%d", i);
        peering[i].user_timeout_ms = 5000;
        member[i].node = (uint32_t)i + 1;
        memcpy(member[i].address, peering[i].listen, sizeof peering[i].listen);
    }
    return 0;
}

static int stop(void **state)
{
    (void)state;
    for (int i = 0; i < NODES; i++)
        test_app_fini(&app[i]);
    for (int i = 0; i < NODES; i++)
        tls_context_free(peering[i].tls);
    return 0;
}

/* Node 3 has the certificate of this node. */
static void secure(uint16_t third)
{
    static const char *const file[NODES] = { "n1", "n2", "n3" };
    struct pki pki;

    pki_open(&pki);
    for (int i = 0; i < NODES; i++) {
        pki_add(&pki, file[i], CERTIFICATE_NODE, (uint16_t)(i < 2 ? i + 1 : third));
        peering[i].tls = pki_context(&pki, file[i]);
    }
    pki_close(&pki);
}

static enum cluster_state state_of(int i)
{
    struct cluster_status s;

    cluster_status(app[i].cluster, &s);
    return s.state;
}

static void pause_briefly(void)
{
    const struct timespec ms = { .tv_nsec = 5000000 };

    nanosleep(&ms, NULL);
}

/* The node that leads and takes blocks. */
static int leader(void)
{
    uint64_t until = clock_monotonic_ns() + WAIT_NS;

    while (clock_monotonic_ns() < until) {
        for (int i = 0; i < NODES; i++) {
            if (app[i].cluster != NULL && state_of(i) == CLUSTER_LEADER)
                return i;
        }
        pause_briefly();
    }
    for (int i = 0; i < NODES; i++) {
        struct cluster_status s = { .term = 0 };

        if (app[i].cluster != NULL)
            cluster_status(app[i].cluster, &s);
        print_error("node %d: state %d, term %llx, log to %llu, committed %llu %s\n", i + 1,
                    s.state, (unsigned long long)s.term, (unsigned long long)s.last_index,
                    (unsigned long long)s.commit_index, s.error);
    }
    fail_msg("no node leads");
    return -1;
}

static void found_at(int i)
{
    char sentence[LOG_ERROR_BYTES] = "";
    int e = cluster_found(app[i].cluster, member, NODES, sentence);

    if (e < 0)
        fail_msg("no cluster is made: %s (%s)", sentence, strerror(-e));
}

static void start_all(void)
{
    for (int i = 0; i < NODES; i++) {
        test_app_start(&app[i]);
        assert_int_equal(state_of(i), CLUSTER_WAITING);
    }
}

/* All nodes that run have applied what this one has, and have the same chain. */
static void assert_together(int as)
{
    struct cluster_status first, other;

    cluster_status(app[as].cluster, &first);
    for (int i = 0; i < NODES; i++) {
        if (app[i].cluster == NULL)
            continue;
        assert_int_equal(cluster_wait(app[i].cluster, first.applied_index, WAIT_NS), 0);
        cluster_status(app[i].cluster, &other);
        if (other.last_index == first.last_index)
            assert_memory_equal(other.digest, first.digest, sizeof first.digest);
        assert_false(app[i].out_of_order);
    }
}

static void blocks_at(int i, unsigned n, uint64_t first)
{
    for (unsigned b = 0; b < n; b++) {
        struct block *answer;

        test_app_fill(&app[i], 0, 10, 200, first + 10ull * b);
        test_app_submit(&app[i], 0);
        answer = test_app_answer(&app[i]);
        assert_int_equal(answer->verdict[0], VERDICT_COMMITTED);
        assert_int_equal(answer->accepted, 10);
    }
}

static void three_nodes_become_a_cluster_and_take_blocks(void **state)
{
    int lead;

    (void)state;
    start_all();
    found_at(0);
    lead = leader();
    blocks_at(lead, 100, 0);
    assert_together(lead);
    for (int i = 0; i < NODES; i++)
        assert_true(app[i].seen[999] <= 1);
    found_at(2); /* again, elsewhere: it is there */
}

static void over_tls_it_is_the_same(void **state)
{
    sluice_v1_Member listed[CLUSTER_MEMBERS_MAX];
    sluice_v1_NodeReply reply[CLUSTER_MEMBERS_MAX];
    int lead;

    (void)state;
    secure(3);
    start_all();
    found_at(0);
    lead = leader();
    for (unsigned i = 0; i < 20; i++) {
        test_app_fill(&app[lead], 0, 100, 2000, 100ull * i);
        test_app_submit(&app[lead], 0);
        assert_int_equal(test_app_answer(&app[lead])->accepted, 100);
    }
    assert_together(lead);
    assert_int_equal(cluster_members(app[lead].cluster, 5 * NS_PER_S, listed, reply), NODES);
    assert_true(reply[0].status.certificate_until_s > (int64_t)(clock_unix_ns() / NS_PER_S));
}

static void a_certificate_of_another_node_is_refused(void **state)
{
    char sentence[LOG_ERROR_BYTES];

    (void)state;
    secure(7);
    start_all();
    assert_true(cluster_found(app[0].cluster, member, NODES, sentence) < 0);
    assert_non_null(strstr(sentence, "its certificate is that of another node"));
}

static void without_its_leader_it_goes_on_and_the_old_one_follows(void **state)
{
    int old, lead;

    (void)state;
    start_all();
    found_at(1);
    old = leader();
    blocks_at(old, 20, 0);
    test_app_stop(&app[old]);
    lead = leader();
    assert_int_not_equal(lead, old);
    blocks_at(lead, 20, 1000);
    test_app_start(&app[old]);
    blocks_at(lead, 20, 2000);
    assert_together(lead);
}

static void members_say_what_they_are(void **state)
{
    sluice_v1_Member listed[CLUSTER_MEMBERS_MAX];
    sluice_v1_NodeReply reply[CLUSTER_MEMBERS_MAX];
    int lead, n;

    (void)state;
    start_all();
    assert_int_equal(cluster_members(app[0].cluster, NS_PER_S, listed, reply), 0);
    found_at(0);
    lead = leader();
    assert_together(lead);
    n = cluster_members(app[(lead + 1) % NODES].cluster, 5 * NS_PER_S, listed, reply);
    assert_int_equal(n, NODES);
    for (int i = 0; i < n; i++) {
        if (!reply[i].has_status)
            fail_msg("node %u: %s", listed[i].node, reply[i].sentence);
        assert_int_equal(reply[i].status.node, listed[i].node);
        assert_string_equal(reply[i].status.role,
                            (int)listed[i].node == lead + 1 ? "leader" : "follower");
        assert_int_equal(reply[i].status.leader, lead + 1);
        assert_int_equal(reply[i].status.members_count, NODES);
        assert_string_equal(reply[i].status.zone, peering[listed[i].node - 1].zone);
    }
}

static void a_setting_can_be_changed_at_any_node(void **state)
{
    sluice_v1_Setting s = sluice_v1_Setting_init_zero;
    char sentence[LOG_ERROR_BYTES];
    int64_t last = 0;
    int lead;

    (void)state;
    start_all();
    found_at(0);
    lead = leader();
    snprintf(s.key, sizeof s.key, "skew.past_ms");
    for (int i = 0; i < NODES; i++) {
        int64_t index;

        snprintf(s.value, sizeof s.value, "%d", 1000 + i);
        index = cluster_propose_setting(app[i].cluster, &s, sentence);
        if (index < 0)
            fail_msg("node %d: %s", i + 1, sentence);
        assert_true(index > last);
        assert_true(cluster_commit_index(app[i].cluster) >= (uint64_t)index);
        last = index;
    }
    assert_together(lead);
}

static void what_cannot_become_a_cluster_is_refused(void **state)
{
    char sentence[LOG_ERROR_BYTES];

    (void)state;
    start_all();
    assert_int_equal(cluster_found(app[0].cluster, member, 2, sentence), -EINVAL);
    assert_int_equal(cluster_found(app[0].cluster, member + 1, 2, sentence), -EINVAL);
    snprintf(member[1].address, sizeof member[1].address, "nowhere");
    assert_int_equal(cluster_found(app[0].cluster, member, NODES, sentence), -EINVAL);
    snprintf(member[1].address, sizeof member[1].address, "%s", member[2].address);
    assert_true(cluster_found(app[0].cluster, member, NODES, sentence) < 0);
    assert_non_null(strstr(sentence, "node 2"));
    for (int i = 0; i < NODES; i++)
        assert_int_equal(state_of(i), CLUSTER_WAITING);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(three_nodes_become_a_cluster_and_take_blocks, start, stop),
        cmocka_unit_test_setup_teardown(over_tls_it_is_the_same, start, stop),
        cmocka_unit_test_setup_teardown(a_certificate_of_another_node_is_refused, start, stop),
        cmocka_unit_test_setup_teardown(without_its_leader_it_goes_on_and_the_old_one_follows,
                                        start, stop),
        cmocka_unit_test_setup_teardown(members_say_what_they_are, start, stop),
        cmocka_unit_test_setup_teardown(a_setting_can_be_changed_at_any_node, start, stop),
        cmocka_unit_test_setup_teardown(what_cannot_become_a_cluster_is_refused, start, stop),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
