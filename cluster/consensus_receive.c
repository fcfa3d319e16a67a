/*
 * consensus_receive.c - messages of other nodes, into the engine.
 *
 * What is received is fed to the engine an entry at a time: it costs less than half a microsecond,
 * the log can say after each one that it has no room for more, and a CHANGE is never behind another
 * entry (E1 of guard.c).
 *
 * Any error of the engine ends the node. The node's thread, and memory as consensus.c says.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cluster/entry_type.h"
#include "cluster/internal.h"

/* An AppendEntries with one entry of m's, or none. The engine takes p or does not. */
static int feed(struct cluster *c, const struct raft_message *m, struct proposal *p)
{
    struct raft_message one = *m;
    struct raft_entry entry = { 0 };
    struct raft_event event = { .type = RAFT_RECEIVE, .receive = { &one } };
    void *batch;
    int e;

    one.append_entries.n_entries = p != NULL ? 1 : 0;
    one.append_entries.entries = p != NULL ? &entry : NULL;
    if (p != NULL) {
        entry = peer_raft_entry(&p->write);
        /* The engine reads a CHANGE's bytes and frees them; of the others it wants some memory. */
        batch = raft_malloc(entry.type == RAFT_CHANGE ? entry.buf.len : 8);
        if (batch == NULL)
            return cluster_fail(c, -ENOMEM, "a message: out of memory");
        if (entry.type == RAFT_CHANGE)
            memcpy(batch, entry.buf.base, entry.buf.len);
        else
            entry.buf.len = 8;
        entry.batch = entry.buf.base = batch;
    }
    assert(c->receiving == NULL);
    c->receiving = p;
    e = consensus_step(c, &event);
    if (e < 0)
        proposal_failed(c, p); /* the log may have it; freed after that is closed */
    else
        proposal_free(c->receiving);
    c->receiving = NULL;
    return e;
}

/* E8: what the engine has forgotten here is committed, and so this leader has it, too: the message
 * may as well begin at our checkpoint, which is remembered. */
static void restart_at_checkpoint(const struct cluster *c, struct raft_append_entries *a)
{
    const struct raft_trail *t = &c->raft.trail;

    assert(a->n_entries == 0 || c->raft.snapshot.installing);
    if (a->prev_log_index > t->offset || a->prev_log_index >= t->snapshot.index ||
        c->raft.snapshot.installing || a->term < raft_current_term(&c->raft))
        return;
    a->prev_log_index = t->snapshot.index;
    a->prev_log_term = t->snapshot.term;
}

/* Does the message's previous entry, and its term, still hold here? */
static bool follows(const struct cluster *c, const struct raft_append_entries *a)
{
    return raft_current_term(&c->raft) == a->term && !consensus_leads(c) &&
           (a->prev_log_index == 0 || a->prev_log_index <= c->applied_index ||
            consensus_term(c, a->prev_log_index) == a->prev_log_term);
}

/* E2: a second CHANGE, before the first is known to be committed, makes the engine forget what to
 * roll back to. It follows the first only if that is committed, whatever this leader says of it. */
static int settle_change(struct cluster *c, const struct raft_message *m, uint64_t term)
{
    const struct raft_append_entries *a = &m->append_entries;
    struct peer_entry entry;
    uint64_t pending;
    int e = feed(c, m, NULL);

#ifdef PLANT_CHANGE_UNSETTLED
    return e;
#endif
    pending = c->raft.configuration_uncommitted_index;
    if (e < 0 || !follows(c, a) || pending == 0 || pending > a->prev_log_index ||
        consensus_term(c, a->prev_log_index + 1) == term)
        return e; /* nothing is pending, or the entry is there already */
    e = node_entry(c, pending, &entry);
    if (e < 0)
        return e;
    return consensus_tell_changed(c, pending, entry.payload, entry.record->payload_bytes);
}

static void drop_entries(struct raft_append_entries *a, struct proposal **entry,
                         unsigned *ret_taken)
{
    for (unsigned i = 0; i < a->n_entries; i++)
        proposal_free(entry[i]);
    *ret_taken += a->n_entries;
    a->n_entries = 0;
}

/* Also for what has to go before it, once the engine has said so. */
static int room_for(struct cluster *c, const struct log_record *r)
{
    int e = propose_room(c, r->payload_bytes);

    if (e == 0 && r->index <= log_last_index(c->log) && consensus_term(c, r->index) != r->term)
        e = log_cut_room(c->log, r->index);
    c->disk_full = c->disk_full || e == -ENOSPC;
    return e == -ENOSPC ? -EAGAIN : e;
}

/* The first of m's entries. Returns 1 when it was dealt with. */
static int receive_entry(struct cluster *c, struct raft_message *m, struct proposal *p,
                         unsigned *ret_taken)
{
    struct raft_append_entries *a = &m->append_entries;
    const struct log_record r = p->write.record;
    int e;

    if (r.index != a->prev_log_index + 1 || r.term < a->prev_log_term || r.term > a->term)
        return -EBADMSG;
    if (r.type == LOG_CHANGE &&
        peer_configuration_check((const uint8_t *)p->write.buf + LOG_HEADER_BYTES,
                                 r.payload_bytes) != NULL)
        return -EBADMSG;
    if (r.index > c->applied_index) {
        e = room_for(c, &r);
        if (e < 0)
            return e;
        if (r.type == LOG_CHANGE) {
            e = settle_change(c, m, r.term);
            if (e < 0 || !follows(c, a))
                return e;
        }
        (*ret_taken)++;
        e = feed(c, m, p);
        if (e < 0)
            return e;
    } else {
        (*ret_taken)++;
        proposal_free(p); /* E8: committed, and perhaps compacted: nothing to look at */
    }
    a->prev_log_index = r.index;
    a->prev_log_term = r.term;
    return 1;
}

/* The message without its entries: for its term, its leader and its commit index. */
static int receive_rest(struct cluster *c, struct raft_append_entries *a, struct raft_message *m)
{
    assert(a->n_entries == 0);
    restart_at_checkpoint(c, a);
    return feed(c, m, NULL);
}

static int take_entries(struct cluster *c, struct raft_message *m, struct proposal **entry,
                        unsigned *ret_taken)
{
    struct raft_append_entries *a = &m->append_entries;
    bool any = a->n_entries > 0;
    int e;

    if (a->term < raft_current_term(&c->raft) || !any || c->raft.snapshot.installing) {
        drop_entries(a, entry, ret_taken);
        c->fetch.refuses = any;
        e = receive_rest(c, a, m);
        c->fetch.refuses = false;
        return e;
    }
    while (a->n_entries > 0) {
        e = receive_entry(c, m, *entry, ret_taken);
        if (e < 0)
            return e;
        if (e == 1) {
            a->n_entries--;
            entry++;
        }
        if (e == 0 || !follows(c, a)) {
            drop_entries(a, entry, ret_taken);
            return 0;
        }
    }
    /* Also what begins within what is applied is answered, by its last entry's end. */
    return a->prev_log_index <= c->applied_index ? receive_rest(c, a, m) : 0;
}

static void note_leader(struct cluster *c, const struct raft_append_entries *a)
{
    c->heard_ms = node_now_ns(c) / NS_PER_MS;
    lag_note(c, a);
}

static int receive_entries(struct cluster *c, struct raft_message *m, struct proposal **entry,
                           unsigned *ret_taken)
{
    const struct raft_append_entries *a = &m->append_entries;
    bool known = a->term == raft_current_term(&c->raft);
    int e;

    /* The engine would write a follower's state over the leader's. */
    if (known && consensus_leads(c))
        return -EBADMSG;
    if (known)
        note_leader(c, a);
    e = take_entries(c, m, entry, ret_taken);
    /* One of a new term is a leader once the engine is in that term. Its message may have to wait
     * for room, and the one before may speak meanwhile. */
    if (!known && a->term == raft_current_term(&c->raft))
        note_leader(c, a);
    return e;
}

static void free_snapshot(struct raft_install_snapshot *s)
{
    raft_configuration_close(&s->conf);
    raft_free(s->data.base);
}

/* The engine takes the message's memory if it begins with it or has no use for it; while it is at
 * one already, it forgets it. */
static int receive_snapshot(struct cluster *c, struct raft_message *m)
{
    struct raft_install_snapshot *s = &m->install_snapshot;
    struct raft_event event = { .type = RAFT_RECEIVE, .receive = { m } };
    bool current = s->term >= raft_current_term(&c->raft);
    bool forgotten = current && c->raft.snapshot.installing;
    int e = s->data.len == SHA256_BYTES ? 0 : -EBADMSG;

    if (s->term == raft_current_term(&c->raft) && consensus_leads(c))
        e = -EBADMSG;
    if (e == 0 && current && s->last_index <= log_last_index(c->log) &&
        log_cut_room(c->log, c->commit_index + 1) == -ENOSPC) {
        c->disk_full = true;
        free_snapshot(s); /* it is offered again */
        return 0;
    }
    if (e == 0 && current)
        c->heard_ms = node_now_ns(c) / NS_PER_MS;
    if (e < 0 || forgotten) {
        struct raft_install_snapshot ours = *s;

        if (e == 0)
            e = consensus_step(c, &event);
        free_snapshot(&ours);
        return e;
    }
    return consensus_step(c, &event);
}

/* This node does not know yet what it has: it neither votes nor acknowledges. */
static int drop_message(struct raft_message *m, struct proposal **entry, unsigned *ret_taken)
{
    if (m->type == RAFT_APPEND_ENTRIES)
        drop_entries(&m->append_entries, entry, ret_taken);
    else if (m->type == RAFT_INSTALL_SNAPSHOT)
        free_snapshot(&m->install_snapshot);
    return 0;
}

int consensus_receive(struct cluster *c, struct raft_message *m, struct proposal **entry,
                      unsigned *ret_taken)
{
    struct raft_event event = { .type = RAFT_RECEIVE, .receive = { m } };
    struct guard_vote vote;
    int e;

    *ret_taken = 0;
    if (c->repair.at_start)
        return drop_message(m, entry, ret_taken);
    if (!guard_epoch(c, m)) {
        if (m->type == RAFT_INSTALL_SNAPSHOT)
            free_snapshot(&m->install_snapshot);
        return -EBADMSG;
    }
    switch (m->type) {
    case RAFT_APPEND_ENTRIES:
        return receive_entries(c, m, entry, ret_taken);
    case RAFT_REQUEST_VOTE:
        guard_vote_begin(c, &vote);
        e = consensus_step(c, &event);
        guard_vote_end(c, &vote);
        return e;
    case RAFT_INSTALL_SNAPSHOT:
        return receive_snapshot(c, m);
    case RAFT_APPEND_ENTRIES_RESULT:
        guard_heard(c, m);
        guard_rejection(c, m);
        return consensus_step(c, &event);
    case RAFT_REQUEST_VOTE_RESULT:
        return consensus_step(c, &event);
    case RAFT_TIMEOUT_NOW:
        return guard_may_lead(c) ? consensus_step(c, &event) : 0;
    default:
        return -EBADMSG;
    }
}
