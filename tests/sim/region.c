/*
 * region.c - two regions, of three nodes each: what happens to one as a whole, and whether what is
 * said to be durable in both is.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>

uint8_t region_of(unsigned node) { return sim.two && node > FOUNDERS ? 2 : 1; }

/* --- what goes wrong -------------------------------------------------------------------------- */

/* The other region hears nothing of this one, and maybe the other way round. */
static void isolate(uint8_t region)
{
    uint64_t until = sim.now_ns + between(50 * NS_PER_MS, 4 * NS_PER_S);
    bool both = chance(60);

    trace("region %u %s until %.3f ms", region, both ? "is cut off" : "is not heard",
          (double)until / 1e6);
    for (unsigned i = 1; i <= sim.nodes; i++) {
        for (unsigned j = 1; j <= sim.nodes; j++) {
            if (region_of(i) == region_of(j) || (region_of(i) != region && !both))
                continue;
            sim.link[i][j].blocked_ns = until;
        }
    }
}

void region_fault(void)
{
    uint8_t region = chance(50) ? 1 : 2;

    if (chance(60)) {
        isolate(region);
        return;
    }
    trace("region %u is lost", region);
    for (unsigned i = 1; i <= sim.nodes; i++) {
        if (region_of(i) == region && sim.node[i].c != NULL)
            machine_crash(&sim.node[i]);
    }
}

/* --- what is durable in both ------------------------------------------------------------------ */

/* The engine of one that fetches has forgotten it. */
static uint64_t term_of(const struct sim_node *n, uint64_t index)
{
    uint64_t term = consensus_term(n->c, index);
    const void *payload;

    if (term == 0 && node_read(n->c, index, &payload) == 0)
        term = n->c->read_record.term;
    return term;
}

void region_remember(struct sim_node *n)
{
    if (!n->opened)
        return;
    n->durable_from = n->c->applied_index;
    for (uint64_t i = 0; i < DURABLE_MAX && n->durable_from + 1 + i <= n->durable; i++)
        n->durable_term[i] = term_of(n, n->durable_from + 1 + i);
}

/* Has it an entry of that term there, on its disk? What it has applied is the committed one. */
static bool has(const struct sim_node *n, uint64_t index, uint64_t term)
{
    if (n->c != NULL && n->opened)
        return log_persisted_index(n->c->log) >= index &&
               (index <= n->c->applied_index || term_of(n, index) == term);
    if (n->durable < index)
        return false;
    return index <= n->durable_from || index > n->durable_from + DURABLE_MAX ||
           n->durable_term[index - n->durable_from - 1] == term;
}

/* The leader says that both regions have it to there. */
static void check_claim(const struct sim_node *n, uint64_t index)
{
    uint64_t term =
        index <= n->c->applied_index ? sim.entry[index].term : consensus_term(n->c, index);
    unsigned have[2] = { 0, 0 };

    for (unsigned i = 1; i <= sim.nodes; i++)
        have[region_of(i) - 1] += has(&sim.node[i], index, term);
    if (have[0] <= FOUNDERS / 2 || have[1] <= FOUNDERS / 2)
        violation("node %u says that both regions have entry %" PRIu64
                  ", but %u and %u of their nodes do",
                  number_of(n), index, have[0], have[1]);
    /* One of an older term may be on majorities and not stay, across a failover too. */
    if (term != n->c->state.term)
        violation("node %u, of term %" PRIx64 ", says that both regions have entry %" PRIu64
                  " of term %" PRIx64 ", and nothing behind it",
                  number_of(n), n->c->state.term, index, term);
}

void region_check(struct sim_node *n)
{
    uint64_t index = n->c->region.index;

    if (index <= n->region_known)
        return;
    n->region_known = index;
    if (index <= sim.region)
        return;
    if (!consensus_leads(n->c))
        violation("node %u has heard that both regions have entry %" PRIu64
                  ", which no leader has said",
                  number_of(n), index);
    check_claim(n, index);
    sim.region = index;
}
