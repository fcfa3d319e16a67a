/*
 * operator.c - asks the leader for other members, and to hand over: anything at any time while
 * there are faults, again and again what did not work out; in the end for one set of members, which
 * has to be reached.
 */
#include "tests/sim/sim.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

struct member operator_member(unsigned node)
{
    struct member m = {
        .node = (uint16_t)node,
        .role = region_of(node) == 1 ? MEMBER_VOTER : MEMBER_STANDBY,
        .port = (uint16_t)(7000 + node),
        .region = region_of(node),
    };

    snprintf(m.host, sizeof m.host, "n%u", node);
    memset(m.directory_id, (int)node, sizeof m.directory_id);
    return m;
}

int operator_members(const struct cluster *c, struct member ret[CLUSTER_MEMBERS_MAX])
{
    int n = c->configuration_bytes > 0 ? members_list(c->configuration, c->configuration_bytes, ret)
                                       : 0;

    if (n < 0)
        violation("node %u has a configuration that cannot be read", c->config.node);
    return n;
}

/* The one that leads the highest term, as far as can be seen from outside. */
static struct sim_node *leader(void)
{
    struct sim_node *best = NULL;

    for (unsigned i = 1; i <= sim.nodes; i++) {
        struct sim_node *n = &sim.node[i];

        if (n->c != NULL && consensus_leads(n->c) &&
            (best == NULL || n->c->state.term > best->c->state.term))
            best = n;
    }
    return best;
}

int operator_role(const struct cluster *c, unsigned node)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    int n = operator_members(c, m);
    const struct member *found = members_find(m, (unsigned)n, (uint16_t)node);

    return found != NULL ? (int)found->role : -1;
}

/* --- what is asked for --------------------------------------------------------------------------
 */

/* The regions change places, or a node of one of them is replaced by the spare one, or by one that
 * was replaced before. */
static void draw_of_two(struct change_request *r)
{
    r->kind = chance(30) ? CHANGE_TRANSFER : CHANGE_SWITCHOVER;
    r->region = (uint8_t)between(1, 2);
    /* While two are lost for good, nothing else is done about members than to take those out. */
    if (sim.nodes == 2 * FOUNDERS || sim.declared.survivor != 0 || chance(50))
        return;
    r->kind = chance(60) ? CHANGE_REPLACE : chance(50) ? CHANGE_ADD : CHANGE_REMOVE;
    while (region_of(r->node) != sim.spare_region)
        r->node = (uint16_t)between(1, sim.nodes);
    while (region_of(r->member.node) != sim.spare_region || sim.node[r->member.node].gone)
        r->member = operator_member((unsigned)between(1, sim.nodes));
    if (chance(50))
        r->member.role = MEMBER_STANDBY;
}

static void draw_request(struct change_request *r)
{
    unsigned new = (unsigned)between(1, sim.nodes);

    while (sim.node[new].gone)
        new = new % sim.nodes + 1;
    r->node = (uint16_t)between(1, sim.nodes);
    for (unsigned i = 1; i <= sim.nodes; i++) {
        if (sim.node[i].gone && chance(50)) /* what has gone is replaced sooner */
            r->node = (uint16_t)i;
    }
    r->member = operator_member(new);
    if (chance(20))
        r->member.role = MEMBER_STANDBY;
    r->kind = chance(35)   ? CHANGE_ADD
              : chance(40) ? CHANGE_REMOVE
              : chance(60) ? CHANGE_REPLACE
                           : CHANGE_TRANSFER;
    if (sim.two)
        draw_of_two(r);
    if (r->kind == CHANGE_TRANSFER && chance(30))
        r->node = 0;
    if (r->node == r->member.node)
        r->node = (uint16_t)(r->node % sim.nodes + 1);
}

/* A member that has gone with its machine, a voter if there is one; 0: none. */
static unsigned gone_member(const struct cluster *c)
{
    unsigned found = 0;

    for (unsigned i = 1; i <= sim.nodes; i++) {
        if (sim.node[i].gone && operator_role(c, i) >= 0 &&
            (found == 0 || operator_role(c, i) == MEMBER_VOTER))
            found = i;
    }
    return found;
}

/* Do its members vote, and those of the other region not? */
static bool is_active(const struct cluster *c, uint8_t region)
{
    for (unsigned i = 1; i <= sim.nodes; i++) {
        int role = operator_role(c, i);

        if (role >= 0 && role != (region_of(i) == region ? MEMBER_VOTER : MEMBER_STANDBY))
            return false;
    }
    return true;
}

/* One more that a region needs, to be of three; false: both are. */
static bool missing_member(const struct cluster *c, struct change_request *r)
{
    unsigned members[3] = { 0 };

    for (unsigned i = 1; i <= sim.nodes; i++)
        members[region_of(i)] += operator_role(c, i) >= 0;
    for (unsigned i = 1; i <= sim.nodes; i++) {
        if (members[region_of(i)] >= FOUNDERS || operator_role(c, i) >= 0 || sim.node[i].gone)
            continue;
        r->kind = CHANGE_ADD;
        r->member = operator_member(i);
        r->member.role = MEMBER_STANDBY;
        return true;
    }
    return false;
}

/* Where there is a leader yet, those of a region that are lost for good come out first, since most
 * of that region will never have the log; of the two, who votes, since nothing is done while a
 * voter does not answer. */
static bool remove_dead(const struct cluster *c, struct change_request *r)
{
    const struct declared *d = &sim.declared;
    unsigned dead = 0;

    for (unsigned k = 0; k < 2 && d->survivor != 0; k++) {
        if (operator_role(c, d->dead[k]) >= 0 &&
            (dead == 0 || operator_role(c, d->dead[k]) == MEMBER_VOTER))
            dead = d->dead[k];
    }
    if (dead == 0)
        return false;
    r->kind = CHANGE_REMOVE;
    r->dead = true;
    r->node = (uint16_t)dead;
    return true;
}

/* The next step to the members of the end: first who is missing, in the place of one that has gone,
 * since nothing else is done while a voter does not answer. False: they are it. */
static bool next_request(const struct cluster *c, struct change_request *r)
{
    if (sim.two) {
        if (sim.declared.survivor != 0)
            loss_offer(c->state.term >> CLUSTER_EPOCH_SHIFT);
        if (remove_dead(c, r) || missing_member(c, r))
            return true;
        r->kind = CHANGE_SWITCHOVER;
        r->region = sim.operator.region;
        return !is_active(c, r->region);
    }
    r->node = (uint16_t)gone_member(c);
    for (unsigned i = 1; i <= sim.nodes; i++) {
        if (sim.operator.role[i] == MEMBER_VOTER && operator_role(c, i) != MEMBER_VOTER) {
            r->kind = r->node != 0 ? CHANGE_REPLACE : CHANGE_ADD;
            r->member = operator_member(i);
            return true;
        }
    }
    for (unsigned i = 1; i <= sim.nodes; i++) {
        if (sim.operator.role[i] != operator_role(c, i)) {
            r->kind = CHANGE_REMOVE;
            r->node = (uint16_t)i;
            return true;
        }
    }
    return false;
}

/* At least three of the nodes that there are. */
void operator_end(void)
{
    unsigned there = sim.nodes - (unsigned)sim.lost, left = (unsigned)between(FOUNDERS, there);

    for (unsigned i = 1; i <= sim.nodes; i++) {
        bool in = !sim.node[i].gone && draw(there) < left;

        there -= !sim.node[i].gone;
        sim.operator.role[i] = in ? MEMBER_VOTER : - 1;
        left -= in;
    }
    sim.operator.region =(uint8_t) between(1, 2);
    sim.operator.final = true;
    sim.operator.wants = false;
    sim.operator.next_ns = sim.now_ns;
}

bool operator_satisfied(void)
{
    const struct sim_node *l = leader();
    struct change_request r;

    return sim.operator.final && !sim.operator.waits && l != NULL &&
        l->c->lead == LEAD_READY && !next_request(l->c, &r);
}

/* --- asking -------------------------------------------------------------------------------------
 */

static void answered(void *arg, int result, const char *sentence)
{
    struct sim_node *at = arg;
    const struct change_request *r = &sim.operator.request;

    trace("operator, of node %u: %s (%d)", number_of(at), sentence, result);
    sim.operator.waits = false;
    sim.operator.done += result == 0;
    sim.operator.wants = result == - EAGAIN || result == - EBUSY || result == - ETIMEDOUT;
    if (result != 0 && !sim.operator.wants && result != - EPERM && result != - ENOENT)
        violation("the operator is told: %s", sentence);
    if (sim.operator.final)
        sim.operator.wants = false; /* what is missing then is asked for anew */
    if (result == 0 && (r->kind == CHANGE_REMOVE || r->kind == CHANGE_REPLACE))
        sim.node[r->node].removed = true;
    if (result == 0 && (r->kind == CHANGE_ADD || r->kind == CHANGE_REPLACE))
        sim.node[r->member.node].removed = false;
    if (result == 0 && r->kind == CHANGE_ADD &&
        operator_role(at->c, r->member.node) < (int)r->member.role)
        violation("node %u is not added", r->member.node);
    if (result == 0 && r->kind == CHANGE_SWITCHOVER && !is_active(at->c, r->region))
        violation("region %u is not the active one", r->region);
    if (result == 0 && (r->kind == CHANGE_REMOVE || r->kind == CHANGE_REPLACE) &&
        operator_role(at->c, r->node) >= 0)
        violation("node %u is not removed", r->node);
}

void operator_crashed(struct sim_node *n)
{
    if (sim.operator.at == n)
        sim.operator.waits = false;
}

void operator_ask(void)
{
    struct operator* o = & sim.operator;
    struct sim_node *n = leader();

    o->next_ns = sim.now_ns + between(10 * NS_PER_MS, o->final ? 50 * NS_PER_MS : NS_PER_S);
    if (plan_runs())
        o->next_ns = sim.now_ns + 10 * NS_PER_MS;
    else if (!o->final && chance(10))
        n = &sim.node[between(1, sim.nodes)];
    if (o->waits || n == NULL || n->c == NULL || sim.now_ns < n->stopped_ns)
        return;
    if (!o->wants || plan_runs() || (!o->final && chance(10))) {
        memset(&o->request, 0, sizeof o->request);
        snprintf(o->request.actor, sizeof o->request.actor, "sim");
        o->wants = false;
        if (plan_runs() && !plan_request(n, &o->request))
            return;
        if (!plan_runs() && !o->final)
            draw_request(&o->request);
        else if (o->final && !next_request(n->c, &o->request))
            return;
    }
    o->request.timeout_ms = (uint32_t)between(500, 10000);
    o->wants = o->waits = true;
    o->at = n;
    o->asked++;
    trace("operator asks node %u: kind %d, node %u, member %u, role %d", number_of(n),
          (int)o->request.kind, o->request.node, o->request.member.node,
          (int)o->request.member.role);
    (void)change_begin(n->c, &o->request, answered, n);
    n->turn_ns = sim.now_ns;
}
