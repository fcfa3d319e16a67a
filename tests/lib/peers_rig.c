/*
 * peers_rig.c - see peers_rig.h.
 */
#include "tests/lib/peers_rig.h"

#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/lib/daemon.h"
#include "tests/lib/pki_rig.h"

struct test_app rig_app[NODES];
struct cluster_peering rig_peering[NODES];
sluice_v1_Member rig_member[NODES];

int peers_rig_setup(void **state)
{
    (void)state;
    memset(rig_member, 0, sizeof rig_member);
    memset(rig_peering, 0, sizeof rig_peering);
    for (int i = 0; i < NODES; i++) {
        test_app_init(&rig_app[i]);
        rig_app[i].node = (uint16_t)(i + 1);
        rig_app[i].peering = &rig_peering[i];
        snprintf(rig_peering[i].listen, sizeof rig_peering[i].listen, "127.0.0.1:%u",
                 daemon_port_free());
        snprintf(rig_peering[i].zone, sizeof rig_peering[i].zone, "rack%d", i);
        rig_peering[i].user_timeout_ms = 5000;
        rig_member[i].node = (uint32_t)i + 1;
        memcpy(rig_member[i].address, rig_peering[i].listen, sizeof rig_peering[i].listen);
    }
    return 0;
}

int peers_rig_teardown(void **state)
{
    (void)state;
    for (int i = 0; i < NODES; i++)
        test_app_fini(&rig_app[i]);
    for (int i = 0; i < NODES; i++)
        tls_context_free(rig_peering[i].tls);
    return 0;
}

/* Node 3 has the certificate of this node, for so long. */
void peers_rig_secure(uint16_t third, int64_t third_s)
{
    static const char *const file[NODES] = { "n1", "n2", "n3" };
    struct pki pki;

    pki_open(&pki);
    for (int i = 0; i < NODES; i++) {
        pki_add_dated(&pki, file[i], CERTIFICATE_NODE, (uint16_t)(i < 2 ? i + 1 : third), -300,
                      i < 2 ? YEAR_S : third_s);
        rig_peering[i].tls = pki_context(&pki, file[i]);
    }
    pki_close(&pki);
}

enum cluster_state peers_rig_state(int i)
{
    struct cluster_status s;

    cluster_status(rig_app[i].cluster, &s);
    return s.state;
}

void peers_rig_pause(void)
{
    const struct timespec ms = { .tv_nsec = 5000000 };

    nanosleep(&ms, NULL);
}

/* The node that leads and takes blocks. */
int peers_rig_leader(void)
{
    uint64_t until = clock_monotonic_ns() + WAIT_NS;

    while (clock_monotonic_ns() < until) {
        for (int i = 0; i < NODES; i++) {
            if (rig_app[i].cluster != NULL && peers_rig_state(i) == CLUSTER_LEADER)
                return i;
        }
        peers_rig_pause();
    }
    for (int i = 0; i < NODES; i++) {
        struct cluster_status s = { .term = 0 };

        if (rig_app[i].cluster != NULL)
            cluster_status(rig_app[i].cluster, &s);
        print_error("node %d: state %d, term %llx, log to %llu, committed %llu %s\n", i + 1,
                    s.state, (unsigned long long)s.term, (unsigned long long)s.last_index,
                    (unsigned long long)s.commit_index, s.error);
    }
    fail_msg("no node leads");
    return -1;
}

void peers_rig_found(int i)
{
    char sentence[LOG_ERROR_BYTES] = "";
    int e = cluster_found(rig_app[i].cluster, rig_member, NODES, sentence);

    if (e < 0)
        fail_msg("no cluster is made: %s (%s)", sentence, strerror(-e));
}

void peers_rig_start(void)
{
    for (int i = 0; i < NODES; i++) {
        test_app_start(&rig_app[i]);
        assert_int_equal(peers_rig_state(i), CLUSTER_WAITING);
    }
}

/* All nodes that run have applied what this one has, and have the same chain. */
void peers_rig_together(int as)
{
    struct cluster_status first, other;

    cluster_status(rig_app[as].cluster, &first);
    for (int i = 0; i < NODES; i++) {
        if (rig_app[i].cluster == NULL)
            continue;
        assert_int_equal(cluster_wait(rig_app[i].cluster, first.applied_index, WAIT_NS), 0);
        cluster_status(rig_app[i].cluster, &other);
        if (other.last_index == first.last_index)
            assert_memory_equal(other.digest, first.digest, sizeof first.digest);
        assert_false(rig_app[i].out_of_order);
    }
}

void peers_rig_blocks(int i, unsigned n, uint64_t first)
{
    for (unsigned b = 0; b < n; b++) {
        struct block *answer;

        test_app_fill(&rig_app[i], 0, 10, 200, first + 10ull * b);
        test_app_submit(&rig_app[i], 0);
        answer = test_app_answer(&rig_app[i]);
        assert_int_equal(answer->verdict[0], VERDICT_COMMITTED);
        assert_int_equal(answer->accepted, 10);
    }
}
