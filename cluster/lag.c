/*
 * lag.c - how far a read at this node may be behind what is committed.
 *
 * Each message of a leader says its commit index. Once this node has applied to there, it has
 * everything that had been committed when the message was sent, provided that something of that
 * leader's own term is among it: before, the leader does not know of all itself (section 8 of the
 * Raft paper). Nothing else is counted on: neither the clocks of other nodes, nor that the leader
 * still leads. The time that the message was on its way is not in it.
 *
 * Thread: the node's. Memory: struct cluster.
 */
#include <assert.h>

#include "base/clock.h"
#include "cluster/internal.h"

static bool is_kept(const struct cluster *c, const struct promise *p)
{
    return p->ms != 0 && c->applied_index >= p->index &&
           consensus_term(c, c->applied_index) >= p->term;
}

/* One at a time: a node that is behind keeps the one that it is about to reach. */
void lag_note(struct cluster *c, const struct raft_append_entries *a)
{
    assert(c->heard_ms >= c->promise.ms);
    /* That of a newer leader is noted already, though it could not be taken yet. */
    if (a->term < c->promise.term)
        return;
    if (is_kept(c, &c->promise))
        c->current_ms = c->promise.ms;
    else if (c->promise.ms != 0 && c->promise.term == a->term)
        return;
    c->promise = (struct promise){ a->leader_commit, a->term, c->heard_ms };
}

uint64_t lag_ms(const struct cluster *c)
{
    uint64_t at = is_kept(c, &c->promise) ? c->promise.ms : c->current_ms;

    assert(at <= c->heard_ms);
    if (consensus_leads(c) && c->lead == LEAD_READY)
        return 0;
    return at != 0 ? node_now_ns(c) / NS_PER_MS - at : UINT64_MAX;
}
