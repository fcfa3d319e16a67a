/*
 * repair.c - records that have rotted here come from another node.
 *
 * At a start: what was durable once and is bad is not cut, since this node may have acknowledged
 * it. The engine is not started: the node hears and says nothing as a member, but asks the others,
 * one after the other, for the committed records that it lacks (peer_fetch.h), has the segment made
 * anew (rebuild.c), and opens its log again, until all of it is good. Where nothing behind the rot
 * says what was there, all up to the highest index that this node may have acknowledged has to
 * come; the others send it when they have committed so far, and until then it waits. Meanwhile it
 * serves what its checkpoint covers and it can read: so nodes with rot in different places mend
 * each other.
 *
 * What the others have committed may differ from what is here, when that was never committed: then
 * all of the segment comes, log_damage_whole(), or it makes room, log_damage_widen().
 *
 * While it runs: a segment that is not the last one, and whose records are applied, is made anew in
 * the same way, and nobody waits for it.
 *
 * Thread:  the cluster thread's; the copying and writing is done in pieces of a quarter of a MiB,
 * in synchronous writes.  Memory:  struct log_rebuild's.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/report.h"
#include "cluster/internal.h"
#include "cluster/peer_fetch.h"

#define REPAIR_WINDOW      (4u << 20) /* asked for at a time */
#define REPAIR_SILENCE_NS  (1 * NS_PER_S)
#define REPAIR_PATIENCE_NS (2 * NS_PER_S)   /* before it is said that nothing comes */
#define REPAIR_RETRY_NS    (10 * NS_PER_MS) /* a post did not go, nobody is there */
#define REPAIR_ROOM_NS     (5 * NS_PER_S)   /* the disk is full */
#define REPAIR_TRIES       3u               /* at one place, one after the other */

__attribute__((format(printf, 2, 3))) static void note(struct cluster *c, const char *format, ...)
{
    struct repair *r = &c->repair;
    char text[sizeof r->note];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (strcmp(text, r->note) == 0)
        return;
    snprintf(r->note, sizeof r->note, "%s", text);
    report_warn("repair", "%s", r->note);
}

/* In the words of a sentence. */
#define WHAT_BYTES 96
static const char *what(const struct log_damage *d, char ret[WHAT_BYTES])
{
    if (d->from > d->to)
        snprintf(ret, WHAT_BYTES, "the header of the segment of record %" PRIu64, d->first);
    else if (d->from == d->to)
        snprintf(ret, WHAT_BYTES, "record %" PRIu64, d->from);
    else
        snprintf(ret, WHAT_BYTES, "records %" PRIu64 " to %" PRIu64, d->from, d->to);
    return ret;
}

/* --- whom to ask --------------------------------------------------------------------------------
 */

static void know_peer(struct repair *r, uint16_t node)
{
    for (unsigned i = 0; i < r->peers; i++) {
        if (r->peer[i] == node)
            return;
    }
    assert(node != 0 && r->peers <= REPAIR_PEERS_MAX);
    if (r->peers < REPAIR_PEERS_MAX)
        r->peer[r->peers++] = node;
}

void repair_introduced(struct cluster *c, uint16_t node)
{
    if (c->repair.at_start)
        know_peer(&c->repair, node);
}

/* The members, by the newest configuration that can be read. Returns how many there are, 0: it is
 * not known. */
static int know_members(struct cluster *c)
{
    struct repair *r = &c->repair;
    struct member member[CLUSTER_MEMBERS_MAX];
    const void *bytes;
    size_t size = consensus_configuration(c, &bytes);
    int n;

    if (size == 0 || size > sizeof r->configuration)
        return 0;
    n = members_list(bytes, size, member);
    if (n <= 0)
        return 0;
    memcpy(r->configuration, bytes, size);
    r->configuration_bytes = size;
    for (int i = 0; i < n; i++) {
        if (member[i].node != c->config.node)
            know_peer(r, member[i].node);
    }
    return n;
}

/* --- begin and end ------------------------------------------------------------------------------
 */

static void stop(struct repair *r)
{
    assert(r->active || r->rebuild == NULL);
    log_rebuild_close(r->rebuild);
    r->rebuild = NULL;
    r->active = false;
}

static void begin(struct cluster *c, const struct log_damage *d)
{
    struct repair *r = &c->repair;

    assert(!r->active && r->rebuild == NULL && d->first > 0);
    r->damage = *d;
    r->active = true;
    r->source = 0;
    r->granted = 0;
    r->retry_ns = 0;
    r->heard_ns = node_now_ns(c);
}

int repair_begin(struct cluster *c, const struct log_damage *d, const char *rot)
{
    struct repair *r = &c->repair;
    char text[WHAT_BYTES];

    if (d->first == 0 || c->environment.post == NULL)
        return -ENOTSUP;
    (void)know_members(c); /* there may be more by now than can be read: they will connect */
    r->tries = d->first == r->last_first && d->from == r->last_from ? r->tries + 1 : 1;
    if (r->tries > REPAIR_TRIES)
        return -ENOTSUP;
    r->last_first = d->first;
    r->last_from = d->from;
    r->at_start = true;
    snprintf(r->rot, sizeof r->rot, "%s", rot);
    begin(c, d);
    note(c, "the log is damaged, and %s %s: %s", what(d, text),
         d->from > d->to ? "is made anew" : "must come from the other nodes", rot);
    return 0;
}

int repair_segment(struct cluster *c, const struct log_damage *d)
{
    struct repair *r = &c->repair;
    char text[WHAT_BYTES];

    assert(d->first > 0 && !d->last);
    if (r->at_start || r->active || c->fetch.active)
        return -EBUSY;
    if (d->to > c->applied_index || d->first >= log_segment_first(c->log))
        return -EAGAIN;
    r->peers = 0;
    if (c->environment.post == NULL || know_members(c) <= 1) {
        note(c, "damaged, and there is no other node that could have it: %s", what(d, text));
        return -ENOTSUP;
    }
    begin(c, d);
    note(c, "damaged, and fetched from the other nodes: %s", what(d, text));
    return 0;
}

void repair_close(struct cluster *c)
{
    stop(&c->repair);
    c->repair.at_start = false;
}

static bool is_later(const struct cluster *c, uint64_t epoch)
{
#ifdef PLANT_REPAIR_ANY_EPOCH
    return false;
#endif
    return c->repair.at_start && epoch > c->state.term >> CLUSTER_EPOCH_SHIFT;
}

/* The others have gone on, in an epoch that this node is not of. What they have there in the place
 * of the damage was never this node's: taken as such, it would be of that epoch without having been
 * brought into it (recovery.c). */
static int other_epoch(struct cluster *c, uint64_t epoch)
{
    return cluster_fail(
        c, -EILSEQ,
        "log: %s; and meanwhile the cluster has gone on in epoch %" PRIu64
        ", whose log has other records there. What is good of this one is in %s/log; "
        "remove this node, and add it with a new directory and id",
        c->repair.rot, epoch, c->config.dir);
}

/* What has come does not fit what is here. */
static int differs(struct cluster *c)
{
    struct repair *r = &c->repair;
    struct log_damage d = r->damage;
    uint16_t source = r->source;
    char text[WHAT_BYTES];
    int e;

    if (is_later(c, c->recovery.newer))
        return other_epoch(c, c->recovery.newer);
    stop(r);
    e = log_damage_whole(c->disk, c->config.log.segment_bytes, &d);
    if (e == 0) {
        begin(c, &d);
        note(c,
             "damaged, and what is good of it does not go on to what node %u has; instead must "
             "come: %s",
             source, what(&d, text));
        return 0;
    }
    if (e != -ENOENT)
        return cluster_fail(c, e, "log: %s", strerror(-e));
    d = r->damage;
    if (!r->at_start) {
        note(c, "what node %u has instead of what is damaged here, %s, does not fit", source,
             what(&d, text));
        return 0;
    }
    e = log_damage_widen(c->disk, &c->origin, &d);
    if (e == -EUCLEAN)
        return cluster_fail(
            c, -EILSEQ,
            "log: %s; and what node %u has committed does not go on where the log "
            "here is good. Remove this node, and add it with a new directory and id",
            r->rot, source);
    if (e < 0)
        return cluster_fail(c, e, "log: %s", strerror(-e));
    begin(c, &d);
    note(c, "the log is damaged, and has entries that were never committed; instead must come: %s",
         what(&d, text));
    return 0;
}

static int failed(struct cluster *c, int e)
{
    struct repair *r = &c->repair;
    char text[WHAT_BYTES];

    if (e == -EILSEQ)
        return differs(c);
    if (e != -ENOSPC && e != -EDQUOT && (r->at_start || e != -ENOENT))
        return cluster_fail(c, e, "repair: %s", strerror(-e));
    note(c, "damaged, and cannot be written anew: %s: %s", what(&r->damage, text), strerror(-e));
    if (!r->at_start) {
        stop(r);
        return 0;
    }
    log_rebuild_close(r->rebuild);
    r->rebuild = NULL;
    r->source = 0;
    r->retry_ns = node_now_ns(c) + REPAIR_ROOM_NS;
    return 0;
}

/* No term enters the log before it is in the state file. */
static int raise_term(struct cluster *c, uint64_t term)
{
    if (!c->repair.at_start || term <= c->state.term)
        return 0;
    c->state.term = term;
    c->state.voted_for = 0;
    return state_write(c);
}

static int finish(struct cluster *c)
{
    struct repair *r = &c->repair;
    char text[WHAT_BYTES];
    int e = raise_term(c, log_rebuild_term(r->rebuild));

    assert(r->active && log_rebuild_next(r->rebuild) == 0);
    if (e < 0)
        return e;
    e = log_rebuild_commit(r->rebuild);
    if (e < 0)
        return failed(c, e);
    stop(r);
    r->segments++;
    fetch_log_cut(c); /* what was read ahead is of the old file */
    report_info("repaired", "whole again: %s", what(&r->damage, text));
    if (!r->at_start) {
        r->note[0] = '\0';
        return 1;
    }
    e = node_go_on(c);
    if (e == 0 && !r->at_start)
        r->note[0] = '\0';
    return e < 0 ? e : 1;
}

/* --- asking -------------------------------------------------------------------------------------
 */

static void wait_for(struct cluster *c, uint64_t next, uint64_t now_ns)
{
    struct repair *r = &c->repair;

    if (r->peers == 0)
        note(c,
             "record %" PRIu64 " is damaged; the other nodes are not known, and none has "
             "connected yet",
             next);
    else if (now_ns >= r->heard_ns + REPAIR_PATIENCE_NS)
        note(c,
             "record %" PRIu64 " is damaged, and has to come from another node: none that "
             "answers has committed it yet",
             next);
}

static int ask(struct cluster *c, uint64_t next, uint64_t now_ns)
{
    struct repair *r = &c->repair;
    struct peer_fetch m = {
        .from = next, .to = r->damage.to, .bytes = REPAIR_WINDOW, .packs = fetch_packs(c)
    };
    uint8_t body[PEER_FETCH_BYTES] __attribute__((aligned(8)));
    struct iovec iov = { body, sizeof body };
    struct node_post post = { .type = PEER_FETCH, .iov = &iov, .iovs = 1 };
    int e;

    assert(r->rebuild != NULL && next >= r->damage.from && next <= r->damage.to);
    if (r->source != 0 && r->granted > 0 && now_ns >= r->ask_ns)
        r->source = 0;
    if ((r->source != 0 && r->granted > 0) || now_ns < r->retry_ns || c->fetch.active)
        return 0;
    wait_for(c, next, now_ns);
    r->retry_ns = now_ns + REPAIR_RETRY_NS;
    if (r->peers == 0)
        return 0;
    if (r->source == 0)
        r->source = r->peer[r->turn++ % r->peers];
    post.to = r->source;
    peer_fetch_put(body, &m);
    e = c->environment.post(c->environment.arg, &post);
    if (e < 0 && e != -EAGAIN)
        return cluster_fail(c, e, "a message to node %u: %s", post.to, strerror(-e));
    if (e < 0) {
        r->source = 0;
        return 0;
    }
    r->granted = REPAIR_WINDOW;
    r->ask_ns = now_ns + REPAIR_SILENCE_NS;
    return 1;
}

bool repair_expects(const struct cluster *c, uint16_t from)
{
    return c->repair.rebuild != NULL && from == c->repair.source;
}

int repair_received(struct cluster *c, uint16_t from, const void *body, size_t bytes)
{
    struct repair *r = &c->repair;
    struct peer_fetched m;
    struct log_record record;
    struct peer_entry entry;
    const uint8_t *before;
    int e = 1;

    if (peer_fetched_get(&m, body, bytes) != NULL)
        return -EBADMSG;
    /* What was asked before, of this node or another, may still come. */
    if (!repair_expects(c, from) || m.from != log_rebuild_next(r->rebuild) || r->granted <= 0)
        return 0;
    if (peer_fetched_check_payloads(&m) != NULL)
        return -EBADMSG;
    before = m.before;
    while (e == 1 && peer_fetched_next(&m, &record, &entry)) {
        if (is_later(c, record.term >> CLUSTER_EPOCH_SHIFT))
            return other_epoch(c, record.term >> CLUSTER_EPOCH_SHIFT);
        e = log_rebuild_add(r->rebuild, before, &record, entry.payload, entry.payload_crc);
        before = NULL;
    }
    if (e < 0)
        return failed(c, e);
    r->retry_ns = 0;
    r->granted -= (int64_t)bytes;
    r->heard_ns = node_now_ns(c);
    r->ask_ns = r->heard_ns + REPAIR_SILENCE_NS;
    return 0;
}

/* --- turns --------------------------------------------------------------------------------------
 */

int repair_turn(struct cluster *c, uint64_t now_ns)
{
    struct repair *r = &c->repair;
    uint64_t next;
    int e = 0;

    if (!r->active || (r->rebuild == NULL && now_ns < r->retry_ns))
        return 0;
    if (r->rebuild == NULL)
        e = log_rebuild_open(&r->rebuild, c->disk, &r->damage);
    if (e == 0)
        e = log_rebuild_step(r->rebuild);
    if (e < 0)
        return failed(c, e);
    if (e > 0)
        return 1;
    next = log_rebuild_next(r->rebuild);
    assert(r->active && (c->log != NULL || r->at_start));
    return next != 0 ? ask(c, next, now_ns) : finish(c);
}

uint64_t repair_deadline_ns(const struct cluster *c, uint64_t now_ns)
{
    const struct repair *r = &c->repair;

    if (!r->active)
        return UINT64_MAX;
    if (r->rebuild != NULL && log_rebuild_next(r->rebuild) == 0)
        return now_ns;
    if (r->rebuild != NULL && c->fetch.active)
        return now_ns + REPAIR_RETRY_NS;
    return r->rebuild != NULL && r->source != 0 && r->granted > 0 ? r->ask_ns : r->retry_ns;
}
