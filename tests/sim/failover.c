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
    struct sim_node *n = arg;

    trace("failover, of node %u: %s (%d)", number_of(n), r->sentence, result);
    sim.failed_over += result == 0;
    for (unsigned i = 1; result == 0 && i <= sim.nodes; i++)
        sim.node[i].removed = operator_role(n->c, i) < 0;
    if (result == 0 && n->c->state.term >> CLUSTER_EPOCH_SHIFT != r->epoch)
        violation("node %u has failed over to epoch %" PRIu64 ", but is of epoch %" PRIu64,
                  number_of(n), r->epoch, n->c->state.term >> CLUSTER_EPOCH_SHIFT);
    if (result != 0 && result != -EBUSY && result != -EPERM && result != -EAGAIN &&
        result != -ETIMEDOUT && result != -EHOSTUNREACH && result != -ESTALE && result != -EINVAL)
        violation("failover: %s", r->sentence);
}

static bool leads(unsigned node)
{
    const struct cluster *c = sim.node[node].c;

    return c != NULL && !c->recovery.fenced && consensus_leads(c);
}

static void ask(struct sim_node *n, uint8_t region)
{
    struct failover_request r = { .region = region, .timeout_ms = (uint32_t)between(1000, 20000) };

    /* With another that was taken out, it would make an epoch that no member believes: what is
     * taken out is to be stopped. */
    if (n->c == NULL || n->removed || sim.now_ns < n->stopped_ns ||
        n->c->failover.step != FAILOVER_NONE)
        return;
    snprintf(r.actor, sizeof r.actor, "sim");
    trace("node %u is asked to fail over to region %u", number_of(n), r.region);
    sim.failovers++;
    (void)failover_begin(n->c, &r, ended, n);
    n->turn_ns = sim.now_ns;
}

/* Without those that are lost for good. */
static void ask_survivor(void)
{
    const struct declared *d = &sim.declared;
    struct sim_node *n = &sim.node[d->survivor];
    struct failover_request r = { .region = region_of(d->survivor),
                                  .timeout_ms = (uint32_t)between(1000, 20000),
                                  .dead_n = 2 };
    struct member m[CLUSTER_MEMBERS_MAX];
    int members;

    if (n->c == NULL || sim.now_ns < n->stopped_ns || n->c->failover.step != FAILOVER_NONE)
        return;
    snprintf(r.actor, sizeof r.actor, "sim");
    members = recovery_members(n->c, m);
    for (unsigned k = 0; k < 2; k++) {
        r.dead[k] = (uint16_t)d->dead[k];
        if (members > 0 && members_find(m, (unsigned)members, (uint16_t)d->fresh[k]) == NULL)
            r.fresh[r.fresh_n++] = operator_member(d->fresh[k]);
    }
    trace("node %u is asked to fail over without nodes %u and %u", d->survivor, r.dead[0],
          r.dead[1]);
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

/* Has somebody promised an epoch, or begun one, that no running attempt will end, and no leader? */
static bool stands_still(void)
{
    uint64_t begun = EPOCHS_MAX - 1, promised = 0, led = 0;

    while (begun > 1 && (sim.history[begun] == NULL ||
                         sim.history[begun]->committed <= sim.history[begun]->last))
        begun--;
    for (unsigned i = 1; i <= sim.nodes; i++) {
        const struct sim_node *n = &sim.node[i];

        if (n->c == NULL)
            continue;
        if (n->c->failover.step != FAILOVER_NONE)
            return false;
        if (n->c->state.promised > promised)
            promised = n->c->state.promised;
        if (n->epoch > promised)
            promised = n->epoch;
        if (leads(i) && n->epoch > led)
            led = n->epoch;
    }
    return promised > begun && promised > led;
}

/* Two of its region are lost for good, by its survivor's configuration. */
static void go_on_without(void)
{
    const struct declared *d = &sim.declared;
    const struct sim_node *survivor = &sim.node[d->survivor];
    uint8_t region = region_of(d->survivor), other = (uint8_t)(3 - region);
    bool dead_vote = false;

    for (unsigned i = 1; i <= sim.nodes; i++) {
        if (region_of(i) != other || !leads(i) || sim.node[i].epoch < survivor->epoch)
            continue;
        dead_vote = operator_role(sim.node[i].c, d->dead[0]) == MEMBER_VOTER &&
                    operator_role(sim.node[i].c, d->dead[1]) == MEMBER_VOTER;
        if (!dead_vote)
            return; /* this one is asked to take them out (operator.c) */
    }
    /* In the middle of a switchover a node leads with the votes of both regions: then two are dead
     * of six voters, and no other change is allowed. New nodes that had a place once, in an epoch
     * that was given up since, are not new. */
    if (!dead_vote && (leads(d->survivor) || loss_is_offered()))
        ask(one_of(other), other);
    else
        ask_survivor();
}

void failover_ask(void)
{
    uint8_t region = (uint8_t)between(1, 2);

    if (sim.healing) {
        sim.failover_ns = sim.now_ns + NS_PER_S;
        if (loss_is_declared())
            go_on_without();
        else if (stands_still())
            ask(one_of(region), region);
        return;
    }
    sim.failover_ns = sim.now_ns + between(100 * NS_PER_MS, 8 * NS_PER_S);
    if (loss_is_declared() && !loss_is_offered() && chance(70)) {
        ask_survivor();
        return;
    }
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
