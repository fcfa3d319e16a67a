/*
 * failover.c - who asks for forced failovers: at any time, whatever is the matter, sometimes at two
 * places at once; and, when all is well again, until no node stands still any more.
 */
#include "tests/sim/sim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

static void ended(void *arg, int result, const struct failover_report *r)
{
    const struct sim_node *n = arg;

    trace("failover, of node %u: %s (%d)", number_of(n), r->sentence, result);
    sim.failed_over += result == 0;
    if (result == 0 && n->c->state.term >> CLUSTER_EPOCH_SHIFT != r->epoch)
        violation("node %u has failed over to epoch %" PRIu64 ", but is of epoch %" PRIu64,
                  number_of(n), r->epoch, n->c->state.term >> CLUSTER_EPOCH_SHIFT);
    if (result != 0 && result != -EBUSY && result != -EPERM && result != -EAGAIN &&
        result != -ETIMEDOUT && result != -EHOSTUNREACH && result != -ESTALE && result != -EINVAL)
        violation("failover: %s", r->sentence);
}

static void ask(struct sim_node *n, uint8_t region)
{
    struct failover_request r = { .region = region, .timeout_ms = (uint32_t)between(1000, 20000) };

    if (n->c == NULL || sim.now_ns < n->stopped_ns || n->c->failover.step != FAILOVER_NONE)
        return;
    snprintf(r.actor, sizeof r.actor, "sim");
    trace("node %u is asked to fail over to region %u", number_of(n), r.region);
    sim.failovers++;
    (void)failover_begin(n->c, &r, ended, n);
    n->turn_ns = sim.now_ns;
}

static struct sim_node *one_of(uint8_t region)
{
    unsigned i;

    do
        i = (unsigned)between(1, 2 * FOUNDERS);
    while (region_of(i) != region);
    return &sim.node[i];
}

/* Has somebody promised an epoch, or begun one, that no running attempt will end? */
static bool stands_still(void)
{
    uint64_t begun = EPOCHS_MAX - 1;
    bool still = false;

    while (begun > 1 && (sim.history[begun] == NULL ||
                         sim.history[begun]->committed <= sim.history[begun]->last))
        begun--;
    for (unsigned i = 1; i <= sim.nodes; i++) {
        const struct sim_node *n = &sim.node[i];

        if (n->c == NULL)
            continue;
        if (n->c->failover.step != FAILOVER_NONE)
            return false;
        still = still || n->c->state.promised > begun ||
                n->c->state.term >> CLUSTER_EPOCH_SHIFT > begun;
    }
    return still;
}

void failover_ask(void)
{
    uint8_t region = (uint8_t)between(1, 2);

    if (sim.healing) {
        sim.failover_ns = sim.now_ns + NS_PER_S;
        if (stands_still())
            ask(one_of(region), region);
        return;
    }
    sim.failover_ns = sim.now_ns + between(100 * NS_PER_MS, 8 * NS_PER_S);
    ask(one_of(region), region);
    if (chance(20))
        ask(one_of(region), region);
    if (chance(10))
        ask(one_of(3 - region), 3 - region);
}

/* --- what was set aside, offered again ----------------------------------------------------------
 */

static void reconciled(void *arg, int result, const struct reconcile_report *r)
{
    struct sim_node *n = arg;

    trace("node %u reconciles: %s (%d)", number_of(n), r->sentence, result);
    if (result != 0 && result != -ETIMEDOUT && result != -EAGAIN)
        violation("node %u: %s", number_of(n), r->sentence);
    n->reconciles = result == 0 ? RECONCILED : RECONCILE_NOT;
    sim.reconciled += r->accepted;
}

bool failover_reconciled(void)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    int members = newest_members(m);
    bool all = !stands_still();

    for (unsigned i = 1; i <= sim.nodes; i++) {
        struct sim_node *n = &sim.node[i];

        if (n->gone || members_find(m, (unsigned)members, (uint16_t)i) == NULL ||
            (n->reconciles == RECONCILED && n->epoch == sim.newest->epoch && !n->fenced))
            continue;
        all = false;
        if (n->reconciles == RECONCILES || n->c == NULL || !n->opened || n->fenced ||
            n->epoch != sim.newest->epoch || !n->c->have_genesis)
            continue;
        n->reconciles = RECONCILES;
        reconcile_begin(n->c, reconciled, n);
        n->turn_ns = sim.now_ns;
    }
    return all;
}
