/*
 * recovery_copy.c - a fenced node's log becomes another's (recovery.c).
 *
 * Where the two part is found by the chain's digests, with a binary search: a FETCH of one entry
 * says what the digest before it is over there. What is behind that here is set aside (orphan.c),
 * what stands on it is rolled back (the checkpoints and the app's own files, first, so that nothing
 * is ever ahead of the log), the log is cut there, and the rest comes by FETCH.
 *
 * Thread: the node's. Memory: struct recovery; what is on its way is bounded by RECOVERY_WINDOW.
 * Errors: a negative errno is final for the node; where there is no room, it waits.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/report.h"
#include "cluster/internal.h"
#include "cluster/peer_fetch.h"
#include "cluster/record.h"

#define RECOVERY_WINDOW (4 << 20)
#define PROBE_BYTES     1u /* one entry: a body may go beyond what was asked for by one */
#define SILENCE_NS      (1 * NS_PER_S)
#define RETRY_NS        (10 * NS_PER_MS)
#define ROOM_NS         (1 * NS_PER_S) /* the disk is full */

int recovery_digest(struct cluster *c, uint64_t index, uint8_t ret[SHA256_BYTES])
{
    struct peer_entry entry;
    int e;

    if (index == log_last_index(c->log)) {
        log_digest(c->log, ret);
        return 0;
    }
    if (index == 0) {
        memcpy(ret, c->config.log.genesis, SHA256_BYTES);
        return 0;
    }
    e = node_entry(c, index, &entry);
    if (e == 0)
        record_digest((const void *)((const uint8_t *)entry.payload - LOG_HEADER_BYTES), ret);
    return e;
}

void recovery_copy_begin(struct cluster *c, uint16_t source, uint64_t index,
                         const uint8_t digest[SHA256_BYTES])
{
    struct recovery *r = &c->recovery;
    uint64_t last = log_last_index(c->log);

    assert(r->fenced && !c->raft_open && source != c->config.node && index > 0);
    orphan_close(&r->orphan);
    r->source = source;
    r->target = index;
    memcpy(r->target_digest, digest, SHA256_BYTES);
    r->copy = COPY_SEARCH;
    r->same = 0;
    r->differs = (last < index ? last : index) + 1;
    r->probe = r->differs - 1; /* mostly all of the shorter one is in the other */
    r->granted = 0;
    r->ask_ns = r->retry_ns = 0;
    r->heard_ns = node_now_ns(c);
}

/* Asks for entries from `from` on. */
static int ask(struct cluster *c, uint64_t from, uint64_t to, uint32_t bytes, uint64_t now_ns)
{
    struct recovery *r = &c->recovery;
    /* Before all of it has come, so that the way to that node and back is not waited for. */
    bool more = r->copy == COPY_FETCH && r->granted > 0 && r->granted < RECOVERY_WINDOW / 2;
    struct peer_fetch m = { .from = from,
                            .to = to,
                            .bytes = bytes,
                            .more = more,
                            .recovers = true,
                            .packs = fetch_packs(c) };
    uint8_t body[PEER_FETCH_BYTES] __attribute__((aligned(8)));
    struct iovec iov = { body, sizeof body };
    const struct node_post post = { .to = r->source, .type = PEER_FETCH, .iov = &iov, .iovs = 1 };
    int e;

    assert(r->source != 0 && r->source != c->config.node && from <= to);
    if ((r->granted > 0 && !more && now_ns < r->ask_ns) || now_ns < r->retry_ns)
        return 0;
    if (now_ns >= r->heard_ns + 2 * SILENCE_NS)
        recovery_note(c, "fenced: node %u, whose log it is to have, does not answer", r->source);
    r->retry_ns = now_ns + RETRY_NS;
    peer_fetch_put(body, &m);
    e = c->environment.post(c->environment.arg, &post);
    if (e < 0 && e != -EAGAIN)
        return cluster_fail(c, e, "a message to node %u: %s", r->source, strerror(-e));
    if (e < 0)
        return 0;
    if (!more)
        r->next = from;
    r->granted = more ? r->granted + bytes : bytes;
    r->ask_ns = now_ns + SILENCE_NS;
    return 1;
}

/* A record that is needed here has rotted: other nodes have it, if it is of the log that they have.
 * Then the search begins again. */
static int mend(struct cluster *c, uint64_t index, int error)
{
    char rot[LOG_ERROR_BYTES];
    struct log_damage damage;
    int e = error;

    snprintf(rot, sizeof rot, "record %" PRIu64 " cannot be read", index);
    if (e == -EILSEQ)
        e = log_check_segment(c->disk, index, c->config.log.segment_bytes, NULL, NULL, &damage,
                              NULL);
    if (e == -EILSEQ && repair_begin(c, &damage, rot) == 0) {
        c->recovery.granted = 0; /* what comes from there now is for repair.c */
        c->recovery.copy = COPY_NONE;
        return 0;
    }
    return cluster_fail(c, e < 0 ? e : -EIO, "log: %s: %s", rot, strerror(e < 0 ? -e : EIO));
}

/* The digest at r->probe is this one over there. */
static int probed(struct cluster *c, const uint8_t theirs[SHA256_BYTES])
{
    struct recovery *r = &c->recovery;
    uint8_t ours[SHA256_BYTES];
    int e;

    assert(r->copy == COPY_SEARCH && r->same < r->differs && r->probe < r->differs);
    assert(r->probe <= log_last_index(c->log));
    e = recovery_digest(c, r->probe, ours);

    if (e < 0)
        return mend(c, r->probe, e);
    if (memcmp(ours, theirs, SHA256_BYTES) == 0)
        r->same = r->probe;
    else
        r->differs = r->probe;
    r->granted = 0;
    r->retry_ns = 0;
    r->probe = r->same + (r->differs - r->same) / 2;
    return 1;
}

/* Where do the two logs part? Behind r->same, once nothing is between it and r->differs. */
static int search_turn(struct cluster *c, uint64_t now_ns)
{
    struct recovery *r = &c->recovery;

    assert(r->probe >= r->same && r->differs <= r->target + 1);
    if (r->same + 1 < r->differs && r->probe == r->target)
        return probed(c, r->target_digest);
    if (r->same + 1 < r->differs)
        return ask(c, r->probe + 1, r->probe + 1, PROBE_BYTES, now_ns);
#ifdef PLANT_NO_ROLLBACK
    r->copy = COPY_CUT;
    return 1;
#endif
    if (log_persisted_index(c->log) < log_last_index(c->log))
        return 0;
    r->copy = log_last_index(c->log) > r->same ? COPY_SET_ASIDE : COPY_FETCH;
    return 1;
}

/* Returns 1: more, 0: wait, or an error. */
static int set_aside_turn(struct cluster *c, uint64_t now_ns)
{
    struct recovery *r = &c->recovery;
    int e = 0;

    assert(r->same < log_last_index(c->log));
    if (now_ns < r->retry_ns)
        return 0;
    if (r->orphan.file < 0)
        e = orphan_create(c, r->same + 1, log_last_index(c->log), c->state.promised);
    if (e == 0)
        e = orphan_write(c);
    if (e == -ENOSPC || e == -EDQUOT) {
        recovery_note(c, "fenced: no room to set aside the entries from %" PRIu64 " on",
                      r->same + 1);
        r->retry_ns = now_ns + ROOM_NS;
        return 0;
    }
    if (e == -EILSEQ)
        return mend(c, r->orphan.next, e);
    if (e < 0)
        return cluster_fail(c, e, "orphans: %s", strerror(-e));
    if (e == 0) {
        report_warn("orphans",
                    "%" PRIu64 " entries from %" PRIu64 " on are not in epoch %" PRIu64
                    ": they are set aside, with %" PRIu64 " events",
                    log_last_index(c->log) - r->same, r->same + 1, c->state.promised,
                    r->orphan.head.events);
        r->copy = COPY_CUT;
    }
    return 1;
}

/* All that stands on what goes: first, so that nothing is ever ahead of the log. An app that has
 * applied no more than what stays is kept as it is. */
static int roll_back(struct cluster *c)
{
    const uint64_t same = c->recovery.same;
    int e = snapshot_cut(c, same);

    assert(!c->app_open && !c->raft_open);

#ifndef PLANT_DEDUPE_NOT_ROLLED_BACK
    if (e == 0 && (!c->kept.is || c->kept.applied > same || c->app_covered > same)) {
        uint64_t covered;

        node_drop_app(c);
        e = c->app.open(c->app.arg, c->state.cluster_id, same, &covered);
        node_drop_app(c);
    }
#endif
    if (e < 0)
        return cluster_fail(c, e, "rolling back to index %" PRIu64 ": %s", same, strerror(-e));
    return same < c->origin.index ? node_reopen(c) : 0;
}

static int cut_turn(struct cluster *c, uint64_t now_ns)
{
    struct recovery *r = &c->recovery;
    int e;

    if (now_ns < r->retry_ns)
        return 0;
    if (log_cut_room(c->log, r->same + 1) == -ENOSPC) {
        recovery_note(c, "fenced: no room to cut the log at index %" PRIu64, r->same + 1);
        r->retry_ns = now_ns + ROOM_NS;
        return 0;
    }
#ifdef PLANT_NO_ROLLBACK
    if (r->same >= c->origin.index) {
        r->copy = COPY_FETCH;
        return log_last_index(c->log) > r->same ? propose_cut(c, r->same + 1) : 1;
    }
#endif
    e = roll_back(c);
    if (e < 0)
        return e;
    if (c->repair.at_start) /* met on the way: it is mended first */
        return 1;
    if (r->same < r->committed) {
        atomic_fetch_add_explicit(&c->history_public, 1, memory_order_release);
        r->committed = r->same;
    }
    if (c->checkpoint_region > r->same)
        c->checkpoint_region = r->same;
    if (c->own_counted > r->same)
        c->own_counted = r->same;
    r->changed = true;
    c->events_own -= r->orphan.own;
    c->events_orphaned += r->orphan.own;
    r->orphan.own = 0;
    e = propose_cut(c, r->same + 1);
    r->copy = COPY_FETCH;
    return e < 0 ? e : 1;
}

/* It has come to the end, and is durable there. */
static int copy_end(struct cluster *c)
{
    struct recovery *r = &c->recovery;
    uint8_t digest[SHA256_BYTES];

    assert(log_last_index(c->log) == r->target && log_persisted_index(c->log) == r->target);
    log_digest(c->log, digest);
    if (memcmp(digest, r->target_digest, sizeof digest) != 0) {
        recovery_note(c, "fenced: what node %u has is not the log that was to come", r->source);
        r->copy = COPY_NONE; /* who wants it says so again */
        return 0;
    }
    r->copy = COPY_DONE;
    return 1;
}

static int fetch_more(struct cluster *c, uint64_t now_ns)
{
    struct recovery *r = &c->recovery;
    uint64_t last = log_last_index(c->log);

    /* What is behind the last one that came may be on its way already. */
    if (last < r->target && (r->granted <= 0 || now_ns >= r->ask_ns))
        return ask(c, last + 1, r->target, RECOVERY_WINDOW, now_ns);
    if (last < r->target)
        return r->granted < RECOVERY_WINDOW / 2
                   ? ask(c, r->next, r->target, RECOVERY_WINDOW / 2, now_ns)
                   : 0;
    return log_persisted_index(c->log) == last ? copy_end(c) : 0;
}

/* One entry. Returns 1, 0: there is no room now, or an error. */
static int take_entry(struct cluster *c, const struct log_record *r, const struct peer_entry *entry)
{
    struct proposal *p;
    int e = propose_room(c, r->payload_bytes);

    assert(r->index == log_last_index(c->log) + 1 && r->index <= c->recovery.target);
    assert(r->payload_bytes % 8 == 0);

    if (e == -EAGAIN || e == -ENOSPC)
        return 0;
    if (e < 0)
        return cluster_fail(c, e, "log: %s", strerror(-e));
    p = proposal_room(r->payload_bytes);
    if (p == NULL)
        return cluster_fail(c, -ENOMEM, "recovery: out of memory");
    p->write.record = *r;
    p->write.payload_crc = entry->payload_crc;
    if (r->payload_bytes > 0)
        memcpy((uint8_t *)p->write.buf + LOG_HEADER_BYTES, entry->payload, r->payload_bytes);
    e = propose_take(c, p, r->index);
    if (e < 0) {
        proposal_failed(c, p);
        return e;
    }
    c->recovery.changed = true;
    return 1;
}

bool recovery_expects(const struct cluster *c, uint16_t from)
{
    const struct recovery *r = &c->recovery;

    return r->fenced && from == r->source && r->granted > 0;
}

/* -EAGAIN: as much of it as there was room for; it is given again. */
int recovery_fetched(struct cluster *c, uint16_t from, const void *body, size_t bytes)
{
    struct recovery *r = &c->recovery;
    struct peer_fetched m;
    struct log_record record;
    struct peer_entry entry;
    uint8_t digest[SHA256_BYTES];
    int e = 1;

    if (peer_fetched_get(&m, body, bytes) != NULL)
        return -EBADMSG;
    if (!recovery_expects(c, from) || m.from != r->next)
        return 0;
    r->heard_ns = node_now_ns(c);
    if (r->copy == COPY_SEARCH) {
        e = m.from == r->probe + 1 ? probed(c, m.before) : 0;
        return e < 0 ? e : 0;
    }
    if (r->copy != COPY_FETCH || m.from > log_last_index(c->log) + 1)
        return 0;
    log_digest(c->log, digest);
    if (m.from == log_last_index(c->log) + 1 && memcmp(digest, m.before, sizeof digest) != 0) {
        recovery_copy_begin(c, r->source, r->target,
                            r->target_digest); /* it has changed meanwhile */
        return 0;
    }
    if (peer_fetched_check_payloads(&m) != NULL)
        return -EBADMSG;
    while (e == 1 && peer_fetched_next(&m, &record, &entry) && record.index <= r->target) {
        if (record.index <= log_last_index(c->log))
            continue;
        if (record.term < log_last_term(c->log) || record.time_ns < log_last_time_ns(c->log))
            return -EBADMSG;
        e = take_entry(c, &record, &entry);
    }
    r->ask_ns = r->heard_ns + SILENCE_NS;
    if (e <= 0)
        return e < 0 ? e : -EAGAIN;
    r->next = log_last_index(c->log) + 1;
    r->granted = r->granted > (int64_t)bytes ? r->granted - (int64_t)bytes : 0;
    r->retry_ns = 0;
    return 0;
}

int recovery_copy_turn(struct cluster *c, uint64_t now_ns)
{
    assert(c->recovery.fenced && c->log != NULL);
    switch (c->recovery.copy) {
    case COPY_SEARCH:
        return search_turn(c, now_ns);
    case COPY_SET_ASIDE:
        return set_aside_turn(c, now_ns);
    case COPY_CUT:
        return cut_turn(c, now_ns);
    case COPY_FETCH:
        return fetch_more(c, now_ns);
    case COPY_NONE:
    case COPY_DONE:
        break;
    }
    return 0;
}
