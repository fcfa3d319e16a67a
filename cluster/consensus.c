/*
 * consensus.c - drives the engine: a pure state machine that gets events and returns updates.
 *
 * The engine keeps index/term records only; entries are the log's. Memory: on START the entries
 * stay ours and the snapshot's configuration becomes the engine's; on SUBMIT and RAFT_SNAPSHOT as
 * said below. The rules for handling an update are in its order: term and vote durable first, then
 * entries, then the commit index. A node with one voter sends no messages; an update that has some
 * is an error here.
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

/* With fewer entries than this kept in the engine a follower would need a snapshot; costs no
 * memory. */
#define CONSENSUS_TRAILING 65536u

static int consensus_step(struct cluster *c, struct raft_event *event)
{
    struct raft_update update;
    int e;

    memset(&update, 0, sizeof update);
    event->time = clock_monotonic_ns() / NS_PER_MS;
    event->capacity = UINT16_MAX;
    e = raft_step(&c->raft, event, &update);
    if (e != 0)
        return cluster_fail(c, -EPROTO, "engine: event %d: %s", (int)event->type, raft_strerror(e));
    if (update.flags & (RAFT_UPDATE_CURRENT_TERM | RAFT_UPDATE_VOTED_FOR)) {
        c->state.term = raft_current_term(&c->raft);
        c->state.voted_for = raft_voted_for(&c->raft);
        e = state_write(c);
        if (e < 0)
            return e;
    }
    if ((update.flags & RAFT_UPDATE_ENTRIES) && event->type != RAFT_SUBMIT)
        return cluster_fail(c, -EPROTO, "engine: entries out of event %d", (int)event->type);
    if ((update.flags & RAFT_UPDATE_MESSAGES) && update.messages.n > 0)
        return cluster_fail(c, -EPROTO, "engine: messages to other nodes in a cluster of one");
    if (raft_commit_index(&c->raft) > c->commit_index)
        c->commit_index = raft_commit_index(&c->raft);
    /* Never earlier than the next millisecond: a timer in the past would spin. */
    c->raft_timeout_ms = raft_timeout(&c->raft);
    if (c->raft_timeout_ms <= event->time)
        c->raft_timeout_ms = event->time + 1;
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

static void consensus_forget_entries(struct cluster *c)
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

/* Entry 1 of every log: who is in the cluster. Written before the engine is started. */
int consensus_bootstrap(struct cluster *c)
{
    struct raft_configuration configuration;
    struct raft_buffer encoded = { NULL, 0 };
    struct proposal *p = NULL;
    int e = -ENOMEM;

    raft_configuration_init(&configuration);
    if (raft_configuration_add(&configuration, c->config.node, "", RAFT_VOTER) == 0 &&
        raft_configuration_encode(&configuration, &encoded) == 0)
        p = proposal_new(LOG_CHANGE, encoded.base, encoded.len);
    if (p == NULL)
        goto out;
    e = log_reserve_own(c->log, p->write.record.payload_bytes);
    while (e == -EAGAIN) {
        e = log_wait(c->log, clock_monotonic_ns());
        if (e >= 0)
            e = log_reserve_own(c->log, p->write.record.payload_bytes);
    }
    if (e < 0)
        goto out;
    p->write.record.index = 1;
    p->write.record.term = c->state.term;
    p->write.record.time_ns = clock_unix_ns();
    e = log_append(c->log, &p->write);
    while (e >= 0 && log_persisted_index(c->log) < 1)
        e = log_wait(c->log, clock_monotonic_ns());
    if (e >= 0)
        e = consensus_collect(c, &p->write.record, encoded.base);
    if (e < 0)
        goto out;
    c->state.bootstrapped = 1;
    e = state_write(c);
out:
    proposal_failed(c, p);
    raft_free(encoded.base);
    raft_configuration_close(&configuration);
    return e < 0 ? cluster_fail(c, e, "bootstrap: %s", strerror(-e)) : 0;
}

/* Is this node the only voter, by the last configuration of its log? */
static int consensus_sole_voter(struct cluster *c, bool *ret)
{
    struct raft_configuration configuration;
    const void *bytes = c->configuration;
    size_t n = c->configuration_bytes;
    unsigned voters = 0;

    for (size_t i = 0; i < c->start_entries; i++) {
        if (c->start_entry[i].type == RAFT_CHANGE) {
            bytes = c->start_entry[i].buf.base;
            n = c->start_entry[i].buf.len;
        }
    }
    if (configuration_decode(bytes, n, &configuration) < 0)
        return cluster_fail(c, -EBADMSG, "log: the cluster's configuration cannot be read");
    *ret = false;
    for (unsigned i = 0; i < configuration.n; i++) {
        voters += configuration.servers[i].role == RAFT_VOTER;
        if (configuration.servers[i].id == c->config.node)
            *ret = configuration.servers[i].role == RAFT_VOTER;
    }
    *ret = *ret && voters == 1;
    raft_configuration_close(&configuration);
    return 0;
}

int consensus_start(struct cluster *c)
{
    struct raft_snapshot_metadata metadata = { .index = c->origin.index, .term = c->origin.term };
    struct raft_event event = { .type = RAFT_START };
    bool sole = false;
    int e;

    e = consensus_sole_voter(c, &sole);
    if (e < 0)
        return e;
    if (!sole)
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
    e = guard_start_digits(c->origin.index, c->origin.index + 1, c->state.term,
                           log_last_index(c->log), c->state.term);
    if (e < 0)
        return cluster_fail(c, e, "engine: too many entries since the last checkpoint");
    if (raft_init(&c->raft, NULL, NULL, c->config.node, "") != 0)
        return cluster_fail(c, -ENOMEM, "engine: out of memory");
    c->raft_open = true;
    c->raft.tracer = NULL; /* the default one formats on every call */
    if (c->origin.index > 0) {
        if (configuration_decode(c->configuration, c->configuration_bytes,
                                 &metadata.configuration) < 0)
            return cluster_fail(c, -EBADMSG, "checkpoint: the configuration cannot be read");
        metadata.configuration_index = c->configuration_index;
        event.start.metadata = &metadata;
    }
    event.start.term = c->state.term;
    event.start.voted_for = c->state.voted_for;
    event.start.start_index = c->origin.index + 1;
    event.start.entries = c->start_entry;
    event.start.n_entries = (unsigned)c->start_entries;
    assert(c->origin.index + c->start_entries == log_last_index(c->log));
    e = consensus_step(c, &event);
    consensus_forget_entries(c);
    if (e == 0 && !consensus_leads(c))
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
    struct raft_event event = { .type = RAFT_PERSISTED_ENTRIES, .persisted_entries = { index } };

    if (index <= c->raft.last_stored)
        return 0;
    return consensus_step(c, &event);
}

int consensus_tick(struct cluster *c)
{
    struct raft_event event = { .type = RAFT_TIMEOUT };

    if (clock_monotonic_ns() / NS_PER_MS < c->raft_timeout_ms)
        return 0;
    return consensus_step(c, &event);
}

/* After the checkpoint is durable. The event's configuration becomes the engine's. */
int consensus_snapshot(struct cluster *c, uint64_t index, uint64_t term)
{
    struct raft_event event = { .type = RAFT_SNAPSHOT };
    int e;

    event.snapshot.metadata.index = index;
    event.snapshot.metadata.term = term;
    event.snapshot.metadata.configuration_index = c->configuration_index;
    event.snapshot.trailing = CONSENSUS_TRAILING;
    e = configuration_decode(c->configuration, c->configuration_bytes,
                             &event.snapshot.metadata.configuration);
    if (e < 0)
        return cluster_fail(c, e, "checkpoint: the configuration cannot be read");
    return consensus_step(c, &event);
}

/* For every committed CHANGE, also of a start. The engine keeps its own copy of the configuration.
 */
int consensus_changed(struct cluster *c, uint64_t index, const void *payload, size_t bytes)
{
    struct raft_event event = { .type = RAFT_CONFIGURATION, .configuration = { .index = index } };
    int e;

    if (bytes > sizeof c->configuration)
        return cluster_fail(c, -EMSGSIZE, "log: configuration of %zu bytes at index %llu", bytes,
                            (unsigned long long)index);
    memcpy(c->configuration, payload, bytes);
    c->configuration_bytes = bytes;
    c->configuration_index = index;
    e = configuration_decode(payload, bytes, &event.configuration.conf);
    if (e < 0)
        return cluster_fail(c, e, "log: the configuration at index %llu cannot be read",
                            (unsigned long long)index);
    return consensus_step(c, &event);
}
