/*
 * plan.c - in some runs, what chance would not bring about: two leaders that change the members at
 * the same time, each with a majority of its own that does not meet the other's (the known bug of
 * single-server changes).
 *
 *   1. Four voters and a standby, and nothing under way.
 *   2. The leader promotes the standby, and has only that with it from then on.
 *   3. Another is elected, is asked at once to remove the one before, and then has only one of the
 *      two others with it. The first leader, the new voter and the last one hear each other.
 *
 * Each of the two would have its change committed, if it had not to commit an entry of its own
 * before (E4). No faults and no clients meanwhile.
 */
#include "tests/sim/sim.h"

#include <stdio.h>
#include <string.h>

#define STANDBY  5u
#define PLAN_NS  (10 * NS_PER_S) /* at most */
#define QUIET_NS (500 * NS_PER_MS)
#define PART_NS  (4 * NS_PER_S)

bool plan_runs(void) { return sim.plan.step != PLAN_NONE; }

void plan_begin(void)
{
    sim.plan.step = PLAN_GROW;
    sim.plan.until_ns = PLAN_NS;
    sim.chaos_ns = PLAN_NS;
}

/* The nodes of the set hear each other and nobody else, and so do the others. */
static void part(unsigned set)
{
    trace("plan: nodes %x hear each other, and the others do", set);
    for (unsigned i = 1; i <= sim.nodes; i++) {
        for (unsigned j = 1; j <= sim.nodes; j++)
            sim.link[i][j].blocked_ns =
                ((set >> i) & 1) != ((set >> j) & 1) ? sim.now_ns + PART_NS : 0;
    }
}

static bool caught_up(struct sim_node *l)
{
    raft_index match;

    return raft_match_index(&l->c->raft, STANDBY, &match) == 0 &&
           match == raft_last_index(&l->c->raft);
}

/* What to ask node l, the leader, for. False: nothing now. */
bool plan_request(struct sim_node *l, struct change_request *r)
{
    struct plan *p = &sim.plan;

    if (sim.now_ns >= p->until_ns) {
        p->step = PLAN_NONE;
        return false;
    }
    r->kind = CHANGE_ADD;
    if (p->step == PLAN_GROW && operator_role(l->c, 4) != MEMBER_VOTER) {
        r->member = operator_member(4);
        return true;
    }
    r->member = operator_member(STANDBY);
    if (p->step == PLAN_GROW && operator_role(l->c, STANDBY) != MEMBER_STANDBY) {
        r->member.role = MEMBER_STANDBY;
        p->quiet_ns = sim.now_ns + QUIET_NS;
        return true;
    }
    if (p->step == PLAN_GROW && sim.now_ns >= p->quiet_ns && caught_up(l)) {
        p->step = PLAN_FIRST;
        p->first = number_of(l);
        /* All know that what is there is committed before there is more. */
        sim.link[STANDBY][p->first].blocked_ns = sim.now_ns + QUIET_NS;
        return true;
    }
    r->kind = CHANGE_REMOVE;
    r->node = (uint16_t)p->first;
    return p->step == PLAN_SECOND && number_of(l) != p->first;
}

/* Node l, a leader, has a change in its log. */
void plan_changes(const struct sim_node *l)
{
    struct plan *p = &sim.plan;
    unsigned with = 0;

    if (p->step == PLAN_FIRST && number_of(l) == p->first) {
        part(1u << p->first | 1u << STANDBY);
        p->step = PLAN_SECOND;
    } else if (p->step == PLAN_SECOND && number_of(l) != p->first) {
        while (with == 0 || with == p->first || with == number_of(l))
            with = (unsigned)between(1, STANDBY - 1);
        part(1u << with | 1u << number_of(l));
        p->step = PLAN_NONE;
    }
}
