/*
 * consensus.c - drives the engine: a pure state machine that gets events and returns updates.
 *
 * The engine keeps index/term records only; entries are the log's. Memory: on START the entries
 * stay ours and the snapshot's configuration becomes the engine's; on SUBMIT and RAFT_SNAPSHOT as
 * said below. The rules for handling an update are in its order: term and vote durable first, then
 * entries into the log, then messages, which may be about entries that are not durable yet, then
 * the commit index.
 *
 * Any error of the engine ends the node: it has no event for a failed disk or a lost entry.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cluster/entry_type.h"
#include "cluster/internal.h"

/* An entry that the engine has made itself: a barrier, when it has become leader. */
static int take_own(struct cluster *c, const struct raft_update *u)
{
    struct proposal *p = proposal_new(LOG_BARRIER, NULL, 0);
    int e = p != NULL ? 0 : -ENOMEM;

    raft_free(u->entries.batch[0].batch);
    if (e == 0 && (u->entries.n != 1 || u->entries.batch[0].type != RAFT_BARRIER))
        e = -EPROTO;
    while (e >= 0 && (e = propose_room(c, 0)) == -EAGAIN)
        e = log_wait(c->log, node_now_ns(c));
    if (e < 0) {
        proposal_failed(c, p);
        return cluster_fail(c, e, "engine: an entry of its own: %s", strerror(-e));
    }
    c->lead = LEAD_BEGUN;
    c->lead_index = u->entries.index;
    return propose_take(c, p, u->entries.index);
}

static int take_received(struct cluster *c, const struct raft_update *u)
{
    struct proposal *p = c->receiving;
    int e = 0;

    raft_free(u->entries.batch[0].batch);
    if (p == NULL || u->entries.n != 1 || u->entries.index != p->write.record.index ||
        u->entries.index <= c->applied_index)
        return cluster_fail(c, -EPROTO, "engine: %u entries from index %llu out of a message",
                            u->entries.n, (unsigned long long)u->entries.index);
    if (u->entries.index <= log_last_index(c->log)) {
        e = propose_withdraw(c, u->entries.index);
        while (e >= 0 && (e = propose_room(c, p->write.record.payload_bytes)) == -EAGAIN)
            e = log_wait(c->log, node_now_ns(c));
    }
    if (e < 0)
        return cluster_fail(c, e, "log: no room after a cut at index %llu: %s",
                            (unsigned long long)u->entries.index, strerror(-e));
    c->receiving = NULL;
    return propose_take(c, p, u->entries.index);
}

static int consensus_entries(struct cluster *c, const struct raft_event *event,
                             const struct raft_update *u)
{
    if (event->type == RAFT_SUBMIT)
        return propose_taken(c, u->entries.index);
    if (event->type == RAFT_RECEIVE && event->receive.message->type == RAFT_APPEND_ENTRIES)
        return take_received(c, u);
    return take_own(c, u);
}

static int consensus_send(struct cluster *c, bool stale, struct raft_update *u)
{
    for (unsigned i = 0; i < u->messages.n; i++) {
        struct raft_message *m = &u->messages.batch[i];
        int e;

        if (c->environment.send == NULL)
            return cluster_fail(c, -EPROTO, "engine: messages to other nodes in a cluster of one");
        if (m->server_id == 0) /* an answer to a leader that guard_vote_begin() made it forget */
            continue;
        guard_answer(c, stale, m);
        e = m->type == RAFT_INSTALL_SNAPSHOT ? fetch_offer(c, &m->install_snapshot) : 0;
        if (e == -EAGAIN) { /* the engine repeats it */
            fetch_offer_end(&m->install_snapshot);
            continue;
        }
        if (e < 0)
            return e;
        e = c->environment.send(c->environment.arg, m);
        if (m->type == RAFT_INSTALL_SNAPSHOT)
            fetch_offer_end(&m->install_snapshot);
        if (e < 0)
            return cluster_fail(c, e, "a message to node %llu: %s",
                                (unsigned long long)m->server_id, strerror(-e));
    }
    return 0;
}

static bool is_stale(const struct cluster *c, const struct raft_event *event)
{
    const struct raft_message *m;

    if (event->type != RAFT_RECEIVE)
        return false;
    m = event->receive.message;
    return (m->type == RAFT_APPEND_ENTRIES && m->append_entries.term < c->state.term) ||
           (m->type == RAFT_INSTALL_SNAPSHOT && m->install_snapshot.term < c->state.term);
}

int consensus_step(struct cluster *c, struct raft_event *event)
{
    bool stale = is_stale(c, event);
    struct raft_update update;
    int e;

    memset(&update, 0, sizeof update);
    event->time = node_now_ns(c) / NS_PER_MS;
    event->capacity = UINT16_MAX;
    e = raft_step(&c->raft, event, &update);
    if (e != 0)
        return cluster_fail(c, -EPROTO, "engine: event %d: %s", (int)event->type, raft_strerror(e));
    if (raft_current_term(&c->raft) >> CLUSTER_EPOCH_SHIFT != c->state.term >> CLUSTER_EPOCH_SHIFT)
        return cluster_fail(c, -EOVERFLOW, "the terms of epoch %llu are used up",
                            (unsigned long long)(c->state.term >> CLUSTER_EPOCH_SHIFT));
    if (update.flags & (RAFT_UPDATE_CURRENT_TERM | RAFT_UPDATE_VOTED_FOR)) {
        c->state.term = raft_current_term(&c->raft);
        c->state.voted_for = raft_voted_for(&c->raft);
#ifndef PLANT_VOTE_UNSAVED
        e = state_write(c);
#endif
        if (e < 0 && (update.flags & RAFT_UPDATE_ENTRIES) && event->type == RAFT_RECEIVE)
            raft_free(update.entries.batch[0].batch);
        if (e < 0)
            return e;
    }
    if (!consensus_leads(c)) {
        c->lead = LEAD_NONE;
        c->lead_index = 0;
    }
    if (update.flags & RAFT_UPDATE_ENTRIES)
        e = consensus_entries(c, event, &update);
    if (e == 0 && (update.flags & RAFT_UPDATE_SNAPSHOT))
        e = fetch_begin(c, (uint16_t)event->receive.message->server_id, &update);
    if (e == 0 && (update.flags & RAFT_UPDATE_MESSAGES))
        e = consensus_send(c, stale, &update);
    if (e < 0)
        return e;
    /* While it fetches, the engine speaks of entries that are not here yet. */
    if (!c->fetch.active && raft_commit_index(&c->raft) > c->commit_index)
        c->commit_index = raft_commit_index(&c->raft);
    c->raft_timeout_ms = guard_timeout_ms(c, event->time);
    return 0;
}

/* log_replay_fn: remembers term and type of every entry above the origin, and the payload of a
 * CHANGE. */
int consensus_collect(void *arg, const struct log_record *record, const void *payload)
{
    struct cluster *c = arg;
    struct raft_entry *entry;

    if (c->start_entries == c->start_capacity) {
        size_t capacity = c->start_capacity ? c->start_capacity * 2 : 1024;
        void *p = realloc(c->start_entry, capacity * sizeof *c->start_entry);

        if (p == NULL)
            return -ENOMEM;
        c->start_entry = p;
        c->start_capacity = capacity;
    }
    entry = &c->start_entry[c->start_entries];
    *entry = (struct raft_entry){ .term = record->term, .type = entry_type(record->type) };
    if (record->type == LOG_CHANGE) {
        entry->buf.len = record->payload_bytes;
        entry->buf.base = malloc(record->payload_bytes + 1);
        if (entry->buf.base == NULL)
            return -ENOMEM;
        memcpy(entry->buf.base, payload, record->payload_bytes);
    }
    c->start_entries++;
    return 0;
}

void consensus_forget_entries(struct cluster *c)
{
    for (size_t i = 0; i < c->start_entries; i++)
        free(c->start_entry[i].buf.base);
    free(c->start_entry);
    c->start_entry = NULL;
    c->start_entries = c->start_capacity = 0;
}

static int configuration_decode(const void *bytes, size_t n, struct raft_configuration *ret)
{
    struct raft_buffer b = { .base = (void *)(uintptr_t)bytes, .len = n };

    raft_configuration_init(ret);
    return raft_configuration_decode(&b, ret) == 0 ? 0 : -EBADMSG;
}

/* What the log begins with. Returns its size. */
static int configuration_begin(const struct cluster *c, uint8_t *ret, size_t cap)
{
    const struct cluster_bootstrap *b = c->config.bootstrap;
    const struct member self = { .node = c->config.node, .role = MEMBER_VOTER };

    return b == NULL ? members_encode(&self, 1, ret, cap)
                     : members_encode(b->member, b->members, ret, cap);
}

/* Entry 1 of every log: who is in the cluster. Written before the engine is started. */
int consensus_bootstrap(struct cluster *c)
{
    uint8_t bytes[CLUSTER_CONFIGURATION_BYTES_MAX];
    struct proposal *p = NULL;
    uint64_t term;
    int e = state_first_term(c, &term);

    if (e == 0)
        e = configuration_begin(c, bytes, sizeof bytes);
    if (e > 0) {
        p = proposal_new(LOG_CHANGE, bytes, (size_t)e);
        e = p != NULL ? log_reserve_own(c->log, p->write.record.payload_bytes) : -ENOMEM;
    }
    while (e == -EAGAIN) {
        e = log_wait(c->log, node_now_ns(c));
        if (e >= 0)
            e = log_reserve_own(c->log, p->write.record.payload_bytes);
    }
    if (e < 0)
        goto out;
    p->write.record.index = 1;
    p->write.record.term = term;
    p->write.record.time_ns =
        c->config.bootstrap != NULL ? c->config.bootstrap->time_ns : node_unix_ns(c);
    e = log_append(c->log, &p->write);
    while (e >= 0 && log_persisted_index(c->log) < 1)
        e = log_wait(c->log, node_now_ns(c));
    if (e >= 0)
        e = consensus_collect(c, &p->write.record, bytes);
    if (e < 0)
        goto out;
    c->state.bootstrapped = 1;
    e = state_write(c);
out:
    proposal_failed(c, p);
    return e < 0 ? cluster_fail(c, e, "bootstrap: %s", strerror(-e)) : 0;
}

size_t consensus_configuration(const struct cluster *c, const void **ret)
{
    size_t n = c->configuration_bytes;

    *ret = c->configuration;
    for (size_t i = 0; i < c->start_entries; i++) {
        if (c->start_entry[i].type == RAFT_CHANGE) {
            *ret = c->start_entry[i].buf.base;
            n = c->start_entry[i].buf.len;
        }
    }
    return n;
}

/* Is this node the only voter, by the last configuration of its log? */
static int consensus_sole_voter(struct cluster *c, bool *ret)
{
    struct raft_configuration configuration;
    const void *bytes;
    size_t n = consensus_configuration(c, &bytes);
    unsigned voters = 0;

    *ret = false;
    if (n == 0 && log_last_index(c->log) == 0)
        return 0; /* it waits to be added */
    if (configuration_decode(bytes, n, &configuration) < 0)
        return cluster_fail(c, -EBADMSG, "log: the cluster's configuration cannot be read");
    for (unsigned i = 0; i < configuration.n; i++) {
        voters += configuration.servers[i].role == RAFT_VOTER;
        if (configuration.servers[i].id == c->config.node)
            *ret = configuration.servers[i].role == RAFT_VOTER;
    }
    *ret = *ret && voters == 1;
    raft_configuration_close(&configuration);
    return 0;
}

static unsigned consensus_trailing(const struct cluster *c)
{
    return c->config.trailing != 0 ? c->config.trailing : CLUSTER_TRAILING;
}

#define INFLIGHT_MAX 1000u /* entries that a follower has not answered for */

static void consensus_tune(struct cluster *c)
{
    unsigned election_ms = c->config.election_ms ? c->config.election_ms : CLUSTER_ELECTION_MS;
    unsigned seed;

    node_random(c, &seed, sizeof seed);
    raft_seed(&c->raft, seed);
    raft_set_election_timeout(&c->raft, election_ms);
    raft_set_heartbeat_timeout(&c->raft, election_ms / 5);
    /* E20: one that was lost, or came while another was fetched, is else repeated after half a
     * minute: ours is a few bytes. */
    raft_set_install_snapshot_timeout(&c->raft, 4 * election_ms);
    raft_set_pre_vote(&c->raft, true);
    raft_set_max_inflight_entries(&c->raft, INFLIGHT_MAX);
}

/* What the checkpoint remembers of the entries before it: with their terms the engine can serve a
 * follower that is behind; their content it does not look at, and the log has it. Returns the first
 * index, and puts them in front of the others. */
static int consensus_remember(struct cluster *c, uint64_t *ret_first)
{
    const sluice_v1_Checkpoint *m = &c->checkpoint->message;
    uint64_t first =
        m->trail_first > log_first_index(c->log) ? m->trail_first : log_first_index(c->log);
    struct raft_entry *all;
    size_t before, at = 0;

    *ret_first = c->origin.index + 1;
    if (c->origin.index == 0 || m->trail_first == 0 || first > c->origin.index)
        return 0;
    assert(m->trail_index[m->trail_index_count - 1] == c->origin.index);
    if (first + consensus_trailing(c) <= c->origin.index)
        first = c->origin.index - consensus_trailing(c) + 1;
    before = c->origin.index - first + 1;
    all = calloc(before + c->start_entries, sizeof *all);
    if (all == NULL)
        return -ENOMEM;
    for (pb_size_t i = 0; i < m->trail_index_count; i++) {
        for (; at < before && first + at <= m->trail_index[i]; at++)
            all[at] = (struct raft_entry){ .term = m->trail_term[i], .type = RAFT_COMMAND };
    }
    if (c->start_entries > 0)
        memcpy(all + before, c->start_entry, c->start_entries * sizeof *all);
    free(c->start_entry);
    c->start_entry = all;
    c->start_entries += before;
    c->start_capacity = c->start_entries;
    *ret_first = first;
    return 0;
}

int consensus_start(struct cluster *c)
{
    struct raft_snapshot_metadata metadata = { .index = c->origin.index, .term = c->origin.term };
    struct raft_event event = { .type = RAFT_START };
    uint64_t first;
    bool sole = false;
    int e;

    e = consensus_sole_voter(c, &sole);
    if (e < 0)
        return e;
    e = consensus_remember(c, &first);
    if (e < 0)
        return cluster_fail(c, e, "start: out of memory");
    if (!sole && c->environment.send == NULL)
        return cluster_fail(c, -ENOTSUP, "log: the configuration names more voters than this node");
    /* No term enters the log before it is in the state file. */
    if (log_last_term(c->log) > c->state.term)
        return cluster_fail(c, -EILSEQ,
                            "%s/log/state: says term %llu, but the log has entries of term %llu; "
                            "it is an old copy, or another log's",
                            c->config.dir, (unsigned long long)c->state.term,
                            (unsigned long long)log_last_term(c->log));
    e = guard_start_term(c, sole);
    if (e < 0)
        return e;
    e = guard_start_digits(c->origin.index, first, c->state.term, log_last_index(c->log),
                           c->state.term);
    if (e < 0)
        return cluster_fail(c, e, "engine: too many entries since the last checkpoint");
    if (raft_init(&c->raft, NULL, NULL, c->config.node, "") != 0)
        return cluster_fail(c, -ENOMEM, "engine: out of memory");
    c->raft_open = true;
    c->raft.tracer = NULL; /* the default one formats on every call */
    consensus_tune(c);
    if (c->origin.index > 0) {
        if (configuration_decode(c->configuration, c->configuration_bytes,
                                 &metadata.configuration) < 0)
            return cluster_fail(c, -EBADMSG, "checkpoint: the configuration cannot be read");
        metadata.configuration_index = c->configuration_index;
        event.start.metadata = &metadata;
    }
    event.start.term = c->state.term;
    event.start.voted_for = c->state.voted_for;
    event.start.start_index = first;
    event.start.entries = c->start_entry;
    event.start.n_entries = (unsigned)c->start_entries;
    assert(first - 1 + c->start_entries == log_last_index(c->log));
    e = consensus_step(c, &event);
    consensus_forget_entries(c);
    if (e == 0 && sole && !consensus_leads(c))
        e = cluster_fail(c, -EPROTO, "engine: the only voter is not leader after its start");
    return e;
}

void consensus_close(struct cluster *c)
{
    consensus_forget_entries(c);
    if (c->raft_open)
        raft_close(&c->raft, NULL);
    c->raft_open = false;
}

bool consensus_leads(const struct cluster *c)
{
    return c->raft_open && c->raft.state == RAFT_LEADER;
}

int consensus_members(const struct cluster *c, struct member ret[CLUSTER_MEMBERS_MAX])
{
    struct raft_buffer b;
    int n;

    if (!c->raft_open)
        return 0;
    if (raft_configuration_encode(&c->raft.configuration, &b) != 0)
        return -ENOMEM;
    n = members_list(b.base, b.len, ret);
    raft_free(b.base);
    return n;
}

uint16_t consensus_leader(const struct cluster *c)
{
    if (consensus_leads(c))
        return c->config.node;
    return c->raft.state == RAFT_FOLLOWER ? (uint16_t)c->raft.follower_state.current_leader.id : 0;
}

int consensus_catch_up(struct cluster *c, uint16_t node)
{
    struct raft_event event = { .type = RAFT_CATCH_UP, .catch_up = { node } };

    assert(consensus_leads(c) && c->raft.leader_state.promotee_id == 0);
    return consensus_step(c, &event);
}

int consensus_transfer(struct cluster *c, uint16_t node)
{
    struct raft_event event = { .type = RAFT_TRANSFER, .transfer = { node } };

    assert(consensus_leads(c) && raft_transferee(&c->raft) == 0);
    return consensus_step(c, &event);
}

int consensus_submit(struct cluster *c, enum log_type type, const void *payload, size_t bytes)
{
    /* The engine reads a CHANGE's bytes here and nothing of the others'; `batch` only must not be
     * NULL, and stays ours because the update names the entries. */
    struct raft_entry entry = {
        .term = raft_current_term(&c->raft),
        .type = entry_type(type),
        .buf = { (void *)(uintptr_t)payload, bytes },
        .batch = c,
    };
    struct raft_event event = { .type = RAFT_SUBMIT, .submit = { &entry, 1 } };

    return consensus_step(c, &event);
}

int consensus_persisted(struct cluster *c, uint64_t index)
{
#ifdef PLANT_PERSISTED_EARLY
    index = log_last_index(c->log);
#endif
    struct raft_event event = { .type = RAFT_PERSISTED_ENTRIES, .persisted_entries = { index } };

    if (index <= c->raft.last_stored || c->raft.snapshot.installing)
        return 0;
    return consensus_step(c, &event);
}

int consensus_tick(struct cluster *c)
{
    struct raft_event event = { .type = RAFT_TIMEOUT };
    uint64_t now_ms = node_now_ns(c) / NS_PER_MS;

    if (now_ms < c->raft_timeout_ms)
        return 0;
    assert(c->raft_open && c->log != NULL);
    if (!consensus_leads(c) && !guard_may_lead(c)) {
        c->raft_timeout_ms = now_ms + c->raft.heartbeat_timeout;
        return 0;
    }
    c->ticked_ms = now_ms;
    return consensus_step(c, &event);
}

uint64_t consensus_term(const struct cluster *c, uint64_t index)
{
    const struct raft_trail *t = &c->raft.trail;

    if (index == t->snapshot.index)
        return t->snapshot.term;
    if (index <= t->offset)
        return 0;
    /* Each record has the last index of its term. */
    for (unsigned i = t->front; i != t->back; i = (i + 1) % t->size) {
        if (index <= t->records[i].index)
            return t->records[i].term;
    }
    return 0;
}

/* The engine keeps its own copy of the configuration. */
int consensus_tell_changed(struct cluster *c, uint64_t index, const void *payload, size_t bytes)
{
    struct raft_event event = { .type = RAFT_CONFIGURATION, .configuration = { .index = index } };
    int e = configuration_decode(payload, bytes, &event.configuration.conf);

    if (e < 0)
        return cluster_fail(c, e, "log: the configuration at index %llu cannot be read",
                            (unsigned long long)index);
    return consensus_step(c, &event);
}

/* For every CHANGE that is applied, also of a start. What a checkpoint holds is from here: it must
 * not be newer than the checkpoint. */
int consensus_changed(struct cluster *c, uint64_t index, const void *payload, size_t bytes)
{
    if (bytes > sizeof c->configuration)
        return cluster_fail(c, -EMSGSIZE, "log: configuration of %zu bytes at index %llu", bytes,
                            (unsigned long long)index);
    memcpy(c->configuration, payload, bytes);
    c->configuration_bytes = bytes;
    c->configuration_index = index;
    return consensus_tell_changed(c, index, payload, bytes);
}

/* The event's configuration becomes the engine's. What has been fetched meanwhile goes further than
 * the checkpoint, and the engine has forgotten what is before it. */
int consensus_snapshot(struct cluster *c)
{
    const sluice_v1_Checkpoint *m = &c->checkpoint->message;
    struct raft_event event = { .type = RAFT_SNAPSHOT };
    int e;

    if (c->fetch.active || m->index <= c->raft.trail.snapshot.index)
        return 0;
    event.snapshot.metadata.index = m->index;
    event.snapshot.metadata.term = m->term;
    event.snapshot.metadata.configuration_index = m->configuration_index;
    event.snapshot.trailing = consensus_trailing(c);
    e = configuration_decode(m->configuration.bytes, m->configuration.size,
                             &event.snapshot.metadata.configuration);
    if (e < 0)
        return cluster_fail(c, e, "checkpoint: the configuration cannot be read");
    return consensus_step(c, &event);
}

int consensus_fetched(struct cluster *c, struct raft_snapshot_metadata *m)
{
    struct raft_event event = { .type = RAFT_PERSISTED_SNAPSHOT,
                                .persisted_snapshot = { .metadata = *m, .last = true } };

    assert(c->raft.snapshot.installing && !consensus_leads(c));
    return consensus_step(c, &event);
}
