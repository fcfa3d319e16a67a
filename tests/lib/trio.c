/*
 * trio.c - see trio.h.
 */
#include "tests/lib/trio.h"

#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cluster/log.h"

#define WAIT_S 120u

__attribute__((noreturn)) static void fail(const char *what)
{
    fprintf(stderr, "trio: %s\n", what);
    exit(1);
}

static void pause_until(uint64_t deadline_ns, const char *what)
{
    if (clock_monotonic_ns() > deadline_ns)
        fail(what);
    (void)poll(NULL, 0, 1);
}

/* --- start ------------------------------------------------------------------------------------ */

/* In the first node's directory. */
static void make_certificates(const struct trio *t)
{
    char dir[300], id[4];

    snprintf(dir, sizeof dir, "%s/certs", t->node[0].dir);
    daemon_call((const char *const[]){ "sluice", "cert", "create-ca", "--dir", dir, NULL });
    for (unsigned i = 0; i < TRIO_NODES; i++) {
        snprintf(id, sizeof id, "%u", i + 1);
        daemon_call((const char *const[]){ "sluice", "cert", "create-node", "--id", id, "--host",
                                           "127.0.0.1", "--dir", dir, NULL });
    }
}

static void configure(struct trio *t, unsigned i, bool tls)
{
    const char *dir = t->node[0].dir;
    char more[1400];
    int n = snprintf(more, sizeof more, "node:\n  id: %u\npeer:\n  listen: \"127.0.0.1:%u\"\n",
                     i + 1, t->peer_port[i]);

    if (tls)
        snprintf(more + n, sizeof more - (size_t)n,
                 "tls:\n  ca: %s/certs/ca.crt\n  cert: %s/certs/node-%u.crt\n"
                 "  key: %s/certs/node-%u.key\n",
                 dir, dir, i + 1, dir, i + 1);
    daemon_configure(&t->node[i], more);
}

void trio_open(struct trio *t, bool tls)
{
    static const struct trio *at_exit; /* its daemons are closed when the program ends */
    char member[TRIO_NODES][32], socket[320];

    for (unsigned i = 0; i < TRIO_NODES; i++) {
        daemon_make(&t->node[i]);
        if (at_exit != t)
            daemon_close_at_exit(&t->node[i]);
        t->peer_port[i] = daemon_port_free();
        snprintf(member[i], sizeof member[i], "%u=127.0.0.1:%u", i + 1, t->peer_port[i]);
    }
    at_exit = t;
    if (tls)
        make_certificates(t);
    for (unsigned i = 0; i < TRIO_NODES; i++) {
        configure(t, i, tls);
        daemon_launch(&t->node[i]);
    }
    snprintf(socket, sizeof socket, "%s/admin.sock", t->node[0].data);
    daemon_call((const char *const[]){ "sluice", "cluster", "init", member[0], member[1], member[2],
                                       "--socket", socket, NULL });
    (void)trio_leader(t);
    trio_settle(t);
}

void trio_set(const struct trio *t, const char *key, const char *value)
{
    char socket[320];

    snprintf(socket, sizeof socket, "%s/admin.sock", t->node[0].data);
    daemon_call(
        (const char *const[]){ "sluice", "config", "set", key, value, "--socket", socket, NULL });
    trio_settle(t);
}

void trio_close(struct trio *t)
{
    for (unsigned i = TRIO_NODES; i-- > 0;)
        daemon_close(&t->node[i]);
}

/* --- what they are ---------------------------------------------------------------------------- */

unsigned trio_leader(const struct trio *t)
{
    const uint64_t until = clock_monotonic_ns() + WAIT_S * NS_PER_S;
    sluice_v1_StatusResponse s;

    for (;; pause_until(until, "no node leads")) {
        for (unsigned i = 0; i < TRIO_NODES; i++) {
            if (daemon_try_status(&t->node[i], &s) && strcmp(s.role, "leader") == 0)
                return i;
        }
    }
}

uint64_t trio_cpu_ns(const struct trio *t)
{
    uint64_t ns = 0;

    for (unsigned i = 0; i < TRIO_NODES; i++)
        ns += t->node[i].pid != 0 ? daemon_cpu_ns(&t->node[i]) : 0;
    return ns;
}

/* Does that one have what the leader had a moment ago? */
static bool has_all(const struct trio *t, unsigned i, const sluice_v1_StatusResponse *leader)
{
    sluice_v1_StatusResponse s;

    return daemon_try_status(&t->node[i], &s) && s.persisted_index >= leader->last_index &&
           s.applied_index >= leader->commit_index;
}

static bool is_settled(const struct trio *t)
{
    sluice_v1_StatusResponse s[TRIO_NODES];
    const sluice_v1_StatusResponse *leader = NULL;

    for (unsigned i = 0; i < TRIO_NODES; i++) {
        if (t->node[i].pid == 0)
            continue;
        daemon_status(&t->node[i], &s[i]);
        if (strcmp(s[i].role, "leader") == 0)
            leader = &s[i];
    }
    for (unsigned i = 0; i < TRIO_NODES && leader != NULL; i++) {
        if (t->node[i].pid == 0)
            continue;
        if (s[i].last_index != leader->last_index || s[i].persisted_index != s[i].last_index ||
            s[i].applied_index != s[i].last_index)
            return false;
        if (memcmp(s[i].digest.bytes, leader->digest.bytes, sizeof s[i].digest.bytes) != 0)
            fail("two nodes have two chains");
    }
    return leader != NULL;
}

void trio_settle(const struct trio *t)
{
    const uint64_t until = clock_monotonic_ns() + WAIT_S * NS_PER_S;

    while (!is_settled(t))
        pause_until(until, "the nodes do not come to have the same log");
}

uint64_t trio_restart(struct trio *t, unsigned i)
{
    const uint64_t start = clock_monotonic_ns(), until = start + WAIT_S * NS_PER_S;
    sluice_v1_StatusResponse leader;

    daemon_launch(&t->node[i]);
    do {
        pause_until(until, "a node that was started again does not get what it lacks");
        daemon_status(&t->node[trio_leader(t)], &leader);
    } while (!has_all(t, i, &leader));
    return clock_monotonic_ns() - start;
}

/* --- the logs that are left ------------------------------------------------------------------- */

static void on_problem(void *arg, const char *sentence)
{
    (void)arg;
    fprintf(stderr, "trio: %s\n", sentence);
}

void trio_check(struct trio *t, uint64_t events)
{
    struct log_verify_report report[TRIO_NODES];
    sluice_v1_StatusResponse s;
    char dir[320];

    trio_settle(t);
    for (unsigned i = 0; i < TRIO_NODES; i++) {
        daemon_status(&t->node[i], &s);
        if (s.events != events) {
            fprintf(stderr, "trio: node %u has %llu events, %llu were acknowledged\n", i + 1,
                    (unsigned long long)s.events, (unsigned long long)events);
            exit(1);
        }
    }
    /* All at once, so that none is left to be elected by another. */
    for (unsigned i = 0; i < TRIO_NODES; i++)
        (void)kill(t->node[i].pid, SIGKILL);
    for (unsigned i = 0; i < TRIO_NODES; i++) {
        daemon_kill(&t->node[i]);
        snprintf(dir, sizeof dir, "%s/log", t->node[i].data);
        if (log_verify(dir, on_problem, NULL, &report[i]) < 0)
            fail("a log is not what it should be");
        if (report[i].events != events || report[i].last_index != report[0].last_index ||
            memcmp(report[i].digest, report[0].digest, sizeof report[i].digest) != 0)
            fail("the logs on disk are not those of all that was acknowledged");
    }
    fprintf(stderr, "# all three logs verified: %llu events in %llu records, one chain\n",
            (unsigned long long)events, (unsigned long long)report[0].records);
}
