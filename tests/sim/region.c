/*
 * region.c - two regions, of three nodes each: what happens to one as a whole, and whether what is
 * said to be durable in both is.
 */
#include "tests/sim/sim.h"

#include <inttypes.h>
#include <string.h>

uint8_t region_of(unsigned node)
{
    if (node > 2 * FOUNDERS)
        return sim.two ? sim.spare_region : 1;
    return sim.two && node > FOUNDERS ? 2 : 1;
}

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

    int e = term == 0 ? node_read(n->c, index, &payload) : 0;

    if (e < 0)
        trace("node %u: entry %" PRIu64 " cannot be read: %s", number_of(n), index, strerror(-e));
    else if (term == 0)
        term = n->c->read_record.term;
    return term;
}

void region_remember(struct sim_node *n)
{
    static _Alignas(4096) uint8_t buf[LOG_RECORD_BYTES_MAX];
    struct log_record record;
    struct log_reader *r;
    const void *payload;

    if (!n->opened || log_reader_open_on(&r, n->disk) < 0)
        return;
    n->durable_from = n->c->applied_index;
    for (uint64_t i = 0; i < DURABLE_MAX && n->durable_from + 1 + i <= n->durable; i++)
        n->durable_term[i] =
            log_reader_get(r, n->durable_from + 1 + i, buf, sizeof buf, &record, &payload) == 0
                ? record.term
                : 0;
    log_reader_close(r);
}

/* Has it an entry of that term there, on its disk? What it has applied is the committed one. */
static bool has(const struct sim_node *n, uint64_t index, uint64_t term)
{
    if (n->c != NULL && n->opened)
        return log_persisted_index(n->c->log) >= index &&
               ((index <= n->c->applied_index && n->epoch == sim.newest->epoch) ||
                term_of(n, index) == term);
    if (n->durable < index)
        return false;
    return index <= n->durable_from || index > n->durable_from + DURABLE_MAX ||
           n->durable_term[index - n->durable_from - 1] == term;
}

/* Two disks of three are lost, and what they had said with them: then the third one has it. */
static unsigned may_lack(unsigned region, unsigned members, uint64_t index)
{
    const struct declared *d = &sim.declared;

    if (d->survivor != 0 && region_of(d->survivor) == region && index <= d->index)
        return members - 1;
    return members / 2;
}

/* Of each region's members, so many may be without it that whoever asks a majority of them meets
 * one that has it. */
static void check_held(const struct member *m, int members, uint64_t index, uint64_t term,
                       const char *who)
{
    unsigned all[2] = { 0, 0 }, have[2] = { 0, 0 };

    for (int i = 0; i < members; i++) {
        all[m[i].region - 1]++;
        have[m[i].region - 1] += has(&sim.node[m[i].node], index, term);
    }
    for (unsigned r = 0; r < 2; r++) {
        if (all[r] == 0 || have[r] + may_lack(r + 1, all[r], index) >= all[r])
            continue;
        for (int i = 0; i < members; i++)
            trace("node %u: durable %" PRIu64 ", term %" PRIx64 " there, not %" PRIx64, m[i].node,
                  sim.node[m[i].node].durable,
                  sim.node[m[i].node].opened ? term_of(&sim.node[m[i].node], index) : 0, term);
        violation("%s: both regions have entry %" PRIu64 ", but of region %u's %u members %u do",
                  who, index, r + 1, all[r], have[r]);
    }
}

/* The members have changed. */
void region_check_members(void)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    int n = newest_members(m);

    if (sim.two && sim.region > 0)
        check_held(m, n, sim.region, sim.region_term, "the members now");
}

/* The leader says that both regions have it to there. */
static void check_claim(struct sim_node *n, uint64_t index)
{
    const struct history *h = history_of(n, n->c->state.term);
    uint64_t term = index <= n->c->applied_index ? h->entry[index].term : term_of(n, index);
    struct member m[CLUSTER_MEMBERS_MAX];
    int members = consensus_members(n->c, m);

    sim.region_term = term;
    history_check_region(index, term);
    check_held(m, members, index, term, "a leader says");
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
    trace("node %u: both regions have entry %" PRIu64, number_of(n), index);
    sim.region = index;
}
