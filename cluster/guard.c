/*
 * guard.c - what the host must add so that the engine (libraft 0.22) is safe; one function a rule.
 *
 * A rule is here with its reason, and tests/unit/test_guard.c has a test that fails without it.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>

#include "base/clock.h"
#include "cluster/internal.h"

/* A sole voter elects itself inside START without raising its term. After a crash it would lead the
 * same term twice, and what it wrote the first time and lost could be confused with what it writes
 * now. So the term is raised, with the vote for itself, and durable before START. Within one epoch
 * the counter has 20 bits; the term must never run into the next epoch. */
int guard_start_term(struct cluster *c, bool sole_voter)
{
    const uint64_t counter_max = (1u << CLUSTER_EPOCH_SHIFT) - 1;

    if (!sole_voter)
        return 0;
    if ((c->state.term & counter_max) == counter_max)
        return cluster_fail(c, -EOVERFLOW, "the terms of epoch %" PRIu64 " are used up",
                            c->state.term >> CLUSTER_EPOCH_SHIFT);
#ifndef PLANT_GUARD_TERM
    c->state.term++;
#endif
    c->state.voted_for = c->config.node;
    assert(c->state.term >> CLUSTER_EPOCH_SHIFT > 0);
    return state_write(c);
}

static uint64_t term_of(const struct raft_message *m)
{
    switch (m->type) {
    case RAFT_REQUEST_VOTE:
        return m->request_vote.term;
    case RAFT_REQUEST_VOTE_RESULT:
        return m->request_vote_result.term;
    case RAFT_APPEND_ENTRIES:
        return m->append_entries.term;
    case RAFT_APPEND_ENTRIES_RESULT:
        return m->append_entries_result.term;
    case RAFT_INSTALL_SNAPSHOT:
        return m->install_snapshot.term;
    case RAFT_TIMEOUT_NOW:
        return m->timeout_now.term;
    default:
        return 0;
    }
}

/* A term that is believed once is every node's for ever: one of a later epoch would be of the other
 * region, or one after which no log can be started (guard_start_digits()). One of an earlier epoch
 * is only old. */
bool guard_epoch(const struct cluster *c, const struct raft_message *m)
{
    return term_of(m) >> CLUSTER_EPOCH_SHIFT <= c->state.term >> CLUSTER_EPOCH_SHIFT;
}

/* E11: a server votes only once its own log says that it is a voter; but whether it is one the
 * candidate's configuration decides, and a new voter that is needed for the quorum may not have
 * that entry yet, or none at all (failover.c): then the engine is lent a configuration that names
 * it. And one that is no voter never forgets its leader, so it would deny for ever.
 *
 * E18: nor does one that installs a snapshot; were its leader gone, and the vote needed, nobody
 * could become leader, and what it fetches might be told by nobody. It compares with the snapshot's
 * end, which is committed by others: whoever is without that it still denies. */
void guard_vote_begin(struct cluster *c, struct guard_vote *g)
{
    *g = (struct guard_vote){ .server = NULL };
#ifndef PLANT_GUARD_VOTE
    struct raft_server *self = NULL;

    for (unsigned i = 0; i < c->raft.configuration.n; i++) {
        if (c->raft.configuration.servers[i].id == c->raft.id)
            self = &c->raft.configuration.servers[i];
    }
    if (self == NULL) {
        g->lent = true;
        g->alone = (struct raft_server){ .id = c->raft.id, .address = "", .role = RAFT_VOTER };
        g->servers = c->raft.configuration.servers;
        g->n = c->raft.configuration.n;
        c->raft.configuration.servers = &g->alone;
        c->raft.configuration.n = 1;
    } else if (self->role != RAFT_VOTER) {
        g->server = self;
        g->role = self->role;
        self->role = RAFT_VOTER;
    }
    g->installing = c->raft.snapshot.installing;
    c->raft.snapshot.installing = false;
    if (c->raft.state == RAFT_FOLLOWER &&
        node_now_ns(c) / NS_PER_MS > c->heard_ms + c->raft.election_timeout &&
        (g->server != NULL || g->lent || g->installing || !guard_may_lead(c))) {
        c->raft.follower_state.current_leader.id = 0;
        /* Whether there is a leader to answer, it sees by the address. */
        raft_free(c->raft.follower_state.current_leader.address);
        c->raft.follower_state.current_leader.address = NULL;
    }
#endif
}

void guard_vote_end(struct cluster *c, const struct guard_vote *g)
{
    if (g->server != NULL)
        g->server->role = g->role;
    if (g->lent) {
        assert(c->raft.configuration.servers == &g->alone);
        c->raft.configuration.servers = g->servers;
        c->raft.configuration.n = g->n;
    }
    if (g->installing)
        c->raft.snapshot.installing = true;
}

/* A leader begins with an entry of the engine's own, which cannot be refused: without room for it
 * the node would end. So who has none does not campaign. It then never forgets its leader by
 * itself, but it votes: see guard_vote_begin(). */
bool guard_may_lead(struct cluster *c)
{
#ifdef PLANT_GUARD_ROOM
    return true;
#endif
    assert(c->appended_n <= c->appended_max);
    return propose_room(c, 0) == 0;
}

/* E15: a leader that is told of a rejection goes one index back, a round trip for each. Our whole
 * term at the rejected index differs from its own, so it may skip that. */
static void guard_hint(const struct cluster *c, struct raft_append_entries_result *r)
{
    uint64_t at = r->rejected, term = consensus_term(c, at);

#ifdef PLANT_GUARD_HINT
    return;
#endif
    if (term == 0)
        return;
    while (at > c->commit_index && consensus_term(c, at) == term)
        at--;
    if (at < r->last_log_index)
        r->last_log_index = at;
}

/* E19: while it installs a snapshot the engine says that its log ends there, and says nothing to
 * entries: a new leader would send it entries from there on, again and again, which it drops. By
 * where our log really ends that leader sees that a snapshot is needed, and then it waits. */
static void guard_installing(const struct cluster *c, struct raft_append_entries_result *r)
{
    uint64_t last = log_last_index(c->log);

    if (r->rejected == 0 && c->fetch.refuses)
        r->rejected = c->raft.trail.snapshot.index;
    if (r->rejected == 0)
        return;
    if (last >= r->rejected)
        last = r->rejected - 1;
    if (r->last_log_index == 0 || r->last_log_index > last)
        r->last_log_index = last;
}

/* What the engine is about to answer.
 * E7: to a message of an old term it answers with a last index that was never set, which the old
 * leader, were it one again, would take for a promise; and it may be one that no log can have.
 * E10: a pre-vote that is denied must teach the candidate our term, or two of them deny each other
 * for a minute. */
void guard_answer(const struct cluster *c, bool stale, struct raft_message *m)
{
    if (m->type == RAFT_APPEND_ENTRIES_RESULT) {
        struct raft_append_entries_result *r = &m->append_entries_result;

#ifndef PLANT_GUARD_STALE
        if (stale)
            r->last_log_index = 0;
#endif
        if (!stale && c->raft.snapshot.installing)
            guard_installing(c, r);
        else if (!stale && r->rejected != 0)
            guard_hint(c, r);
    } else if (m->type == RAFT_REQUEST_VOTE_RESULT) {
        struct raft_request_vote_result *r = &m->request_vote_result;

        bool denied = r->pre_vote && !r->vote_granted;

#ifdef PLANT_GUARD_PREVOTE
        denied = false;
#endif
        if (denied && r->term < c->state.term)
            r->term = c->state.term;
    }
}

/* E9: a rejection that comes late puts the next index at or below what the follower has already
 * confirmed, and the engine asserts. */
void guard_rejection(const struct cluster *c, struct raft_message *m)
{
    struct raft_append_entries_result *r = &m->append_entries_result;
    raft_index match;

#ifdef PLANT_GUARD_REJECTION
    return;
#endif
    if (r->rejected == 0 || !consensus_leads(c) || r->term != c->state.term ||
        raft_match_index(&c->raft, m->server_id, &match) != 0)
        return;
    if (r->rejected <= match) {
        r->rejected = 0;
        r->last_log_index = 0;
    } else if (r->last_log_index < match) {
        r->last_log_index = match;
    }
}

/* E13: never in the past, where it would spin. E14: with a peer dead the leader's timer comes so
 * often that heartbeats to the others fall out of step with their answers, and they are taken for
 * dead, too: so no oftener than every other heartbeat. */
uint64_t guard_timeout_ms(const struct cluster *c, uint64_t now_ms)
{
    uint64_t at = raft_timeout(&c->raft);

#ifdef PLANT_GUARD_TIMER
    return at;
#endif
    if (consensus_leads(c) && at < c->ticked_ms + 2 * c->raft.heartbeat_timeout)
        at = c->ticked_ms + 2 * c->raft.heartbeat_timeout;
    return at > now_ms ? at : now_ms + 1;
}

#define HEALTHY_ELECTIONS 2u /* a voter that has answered within so many timeouts is healthy */

/* E12: the engine notes when a follower has answered, but does not say so. Only members are kept:
 * there are never more of them than places. */
void guard_heard(struct cluster *c, const struct raft_message *m)
{
    struct peer_heard *to = &c->heard[0];
    raft_index match;

    if (!consensus_leads(c) || m->append_entries_result.term != c->state.term ||
        raft_match_index(&c->raft, m->server_id, &match) != 0)
        return;
    for (unsigned i = 0; i < CLUSTER_MEMBERS_MAX; i++) {
        if (c->heard[i].node == m->server_id) {
            to = &c->heard[i];
            break;
        }
        if (c->heard[i].ms < to->ms)
            to = &c->heard[i];
    }
    *to = (struct peer_heard){ (uint16_t)m->server_id, node_now_ns(c) / NS_PER_MS };
}

bool guard_healthy(const struct cluster *c, uint16_t node)
{
    uint64_t now_ms = node_now_ns(c) / NS_PER_MS;

    for (unsigned i = 0; i < CLUSTER_MEMBERS_MAX; i++) {
        if (c->heard[i].node == node)
            return c->heard[i].ms + HEALTHY_ELECTIONS * c->raft.election_timeout >= now_ms;
    }
    return false;
}

/* A CHANGE is of force as soon as it is in a log, so two of them must not be decided by majorities
 * that need not meet.
 * E4: the engine itself submits one before anything of its own term is committed: then an older
 * leader's CHANGE, which nobody here knows of, may be completed by a majority without any of ours.
 * E2: and each follower must know the one before as committed, to roll back to.
 * E12: who has a role taken away, and alone knows it, does not campaign; and who else would win
 * does not have its vote. With all voters healthy the entry reaches them all.
 * Beside that, the engine ends the node when asked while something is pending. */
bool guard_change(const struct cluster *c, uint16_t except, char *ret_why, size_t bytes)
{
    const struct raft *r = &c->raft;

    assert(consensus_leads(c));
#ifndef PLANT_GUARD_BARRIER
    if (c->lead != LEAD_READY) {
        snprintf(ret_why, bytes, "this node has just begun to lead");
        return false;
    }
#endif
    if (r->configuration_uncommitted_index != 0 || r->leader_state.promotee_id != 0 ||
        raft_transferee(r) != 0) {
        snprintf(ret_why, bytes, "another change is not complete");
        return false;
    }
    for (unsigned i = 0; i < r->configuration.n; i++) {
        const struct raft_server *s = &r->configuration.servers[i];
        raft_index match = 0;

        (void)raft_match_index(r, s->id, &match);
        if (s->role != RAFT_VOTER || s->id == r->id || s->id == except)
            continue;
#ifndef PLANT_CHANGE_UNHEALTHY
        if (!guard_healthy(c, (uint16_t)s->id)) {
            snprintf(ret_why, bytes, "node %llu does not answer", s->id);
            return false;
        }
#endif
#ifndef PLANT_CHANGE_UNSETTLED
        if (match < r->configuration_committed_index) {
            snprintf(ret_why, bytes, "node %llu does not have the last change yet", s->id);
            return false;
        }
#endif
    }
    return true;
}

/* E17: the engine looks at a catch-up when an answer tells it something new. If the node has all of
 * the log already, on an idle log none does, and the catch-up ends as one that failed: then an
 * entry is wanted. */
bool guard_catch_up(struct cluster *c, uint16_t node)
{
    int status = RAFT_CATCH_UP_NONE;
    raft_index match = 0;

#ifdef PLANT_GUARD_CATCH_UP
    return false;
#endif
    return raft_catch_up(&c->raft, node, &status) == 0 && status == RAFT_CATCH_UP_RUNNING &&
           raft_match_index(&c->raft, node, &match) == 0 && match == raft_last_index(&c->raft);
}

/* E5: the engine tells the next leader to take over at its first answer, even if that is behind,
 * and tells it once; then nothing can be submitted for an election timeout. */
bool guard_transfer(struct cluster *c, uint16_t to)
{
    raft_index match;

#ifdef PLANT_GUARD_TRANSFER
    return true;
#endif
    return raft_match_index(&c->raft, to, &match) == 0 && match == raft_last_index(&c->raft);
}

/* START formats "N entries (first^term..last^term)" into 64 bytes, with or without a tracer, and
 * the overflow aborts the process: that node could never start again. Returns 0 or -EOVERFLOW. */
int guard_start_digits(uint64_t snapshot_index, uint64_t first, uint64_t first_term, uint64_t last,
                       uint64_t last_term)
{
    const int bytes_max = 64;
    int n;

    assert(last + 1 >= first);
    n = snprintf(NULL, 0, "%" PRIu64 " entries (%" PRIu64 "^%" PRIu64 "..%" PRIu64 "^%" PRIu64 ")",
                 last - first + 1, first, first_term, last, last_term);
    if (n >= bytes_max)
        return -EOVERFLOW;
    n = snprintf(NULL, 0, "1 snapshot (%" PRIu64 "^%" PRIu64 ")", snapshot_index, last_term);
    return n >= bytes_max ? -EOVERFLOW : 0;
}
