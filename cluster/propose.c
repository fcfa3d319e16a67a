/*
 * propose.c - brings blocks and other entries into the log, in one order.
 *
 * A block is admitted (duplicates taken out) only when the log has said that it has room for it, so
 * nothing has to be taken back. What cannot be admitted for lack of disk is refused as DISK_FULL
 * and goes straight to the answers; what cannot be admitted yet waits, and with it everything
 * behind it.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cluster/internal.h"
#include "cluster/peer_decoder.h"
#include "proto/wire.pb.h"

#define SEAL_RETRY_NS (100 * NS_PER_MS)

int propose_init(struct cluster *c)
{
    c->arrived_tail = &c->arrived;
    /* Writes in flight, and as many that are durable but not applied yet. */
    c->appended_max = 2 * c->config.log.writes_max;
    c->appended = calloc(c->appended_max, sizeof *c->appended);
    return c->appended ? 0 : -ENOMEM;
}

void propose_abandon(struct cluster *c)
{
    for (unsigned i = 0; i < c->appended_n; i++) {
        struct proposal *p = c->appended[(c->appended_head + i) % c->appended_max].proposal;

        if (p == NULL || p->committed == NULL)
            continue;
        p->committed(p, -ESHUTDOWN);
        p->committed = NULL;
    }
}

void propose_reset(struct cluster *c)
{
    for (; c->appended_n > 0; c->appended_n--) {
        proposal_free(c->appended[c->appended_head].proposal);
        c->appended_head = (c->appended_head + 1) % c->appended_max;
    }
    while (c->failed_proposals != NULL) {
        struct proposal *p = c->failed_proposals;

        c->failed_proposals = p->next;
        proposal_free(p);
    }
}

void propose_fini(struct cluster *c)
{
    propose_reset(c);
    free(c->appended);
    c->appended = NULL;
}

/* What is durable is learned from log_persisted_index(), once a turn. */
static void on_durable(struct log_write *w) { (void)w; }

struct proposal *proposal_room(size_t payload_bytes)
{
    size_t room = (LOG_HEADER_BYTES + payload_bytes + LOG_ALIGN - 1) / LOG_ALIGN * LOG_ALIGN;
    struct proposal *p = calloc(1, sizeof *p);

    assert(room <= LOG_RECORD_BYTES_MAX && payload_bytes % 8 == 0);
    if (p == NULL)
        return NULL;
    p->write.buf = aligned_alloc(LOG_ALIGN, room);
    if (p->write.buf == NULL) {
        free(p);
        return NULL;
    }
    p->write.done = on_durable;
    p->write.record.payload_bytes = (uint32_t)payload_bytes;
    return p;
}

struct proposal *proposal_new(enum log_type type, const void *payload, size_t bytes)
{
    size_t padded = (bytes + 7) & ~(size_t)7;
    struct proposal *p = proposal_room(padded);
    uint8_t *to;

    if (p == NULL)
        return NULL;
    to = (uint8_t *)p->write.buf + LOG_HEADER_BYTES;
    memset(to, 0, padded);
    if (bytes > 0)
        memcpy(to, payload, bytes);
    p->write.record.type = type;
    log_write_seal(&p->write);
    return p;
}

void proposal_free(struct proposal *p)
{
    if (p == NULL)
        return;
    free(p->write.buf);
    free(p);
}

static int entry_alloc(void *arg, const struct log_record *record, struct log_write **ret)
{
    struct proposal *p = proposal_room(record->payload_bytes);

    (void)arg;
    if (p == NULL)
        return -ENOMEM;
    *ret = &p->write;
    return 0;
}

static void entry_free(void *arg, struct log_write *w)
{
    (void)arg;
    proposal_free((struct proposal *)w);
}
_Static_assert(offsetof(struct proposal, write) == 0, "one is the other");

const struct peer_decoder_memory proposal_memory = { entry_alloc, entry_free, NULL };

void proposal_failed(struct cluster *c, struct proposal *p)
{
    if (p == NULL)
        return;
    for (uint32_t i = 0; i < c->appended_n; i++) {
        if (c->appended[(c->appended_head + i) % c->appended_max].proposal == p)
            return; /* what failed came after it; freed with the others */
    }
    p->next = c->failed_proposals;
    c->failed_proposals = p;
}

/* What a start writes does not count: an idle node would end a segment with every start. */
void propose_note_content(struct cluster *c, uint32_t type)
{
    assert(type != LOG_SEAL);
    if (c->seal_due_ns == 0 && (type == LOG_EVENTS || type == LOG_SETTING || type == LOG_AUDIT))
        c->seal_due_ns = node_now_ns(c) + c->config.segment_age_ns_max;
}

/* The log writes it, and it waits in c->appended to be applied. */
static int propose_write(struct cluster *c, struct appended *entry)
{
    struct log_write *w = entry->write;
    struct appended *a;
    int e;

    assert(c->appended_n < c->appended_max);
    w->done = on_durable;
    e = log_append(c->log, w);
    if (e < 0)
        return cluster_fail(c, e, "log: append of index %" PRIu64 ": %s", w->record.index,
                            strerror(-e));
    entry->ends_segment = log_at_segment_end(c->log);
    a = &c->appended[(c->appended_head + c->appended_n) % c->appended_max];
    *a = *entry;
    c->appended_n++;
    if (a->ends_segment) {
        log_digest(c->log, a->digest);
        c->seal_due_ns = 0;
    } else {
        propose_note_content(c, w->record.type);
    }
    return 0;
}

static void propose_stamp(struct cluster *c, struct log_record *r, uint64_t index)
{
    uint64_t now = node_unix_ns(c);

    r->index = index;
    r->term = c->state.term;
    r->time_ns = now > log_last_time_ns(c->log) ? now : log_last_time_ns(c->log);
}

int propose_taken(struct cluster *c, uint64_t index)
{
    if (index != log_last_index(c->log) + 1)
        return cluster_fail(c, -EPROTO, "engine: submitted index %" PRIu64 " after %" PRIu64, index,
                            log_last_index(c->log));
    propose_stamp(c, &c->submitting.write->record, index);
    return propose_write(c, &c->submitting);
}

static int propose_append(struct cluster *c, struct log_write *w, struct block *b,
                          struct proposal *p)
{
    const void *payload = (const uint8_t *)w->buf + LOG_HEADER_BYTES;

    c->submitting = (struct appended){ .write = w, .block = b, .proposal = p };
    return consensus_submit(c, (enum log_type)w->record.type, payload, w->record.payload_bytes);
}

int propose_take(struct cluster *c, struct proposal *p, uint64_t index)
{
    struct appended a = { .write = &p->write, .proposal = p };

    if (p->write.record.term == 0)
        propose_stamp(c, &p->write.record, index);
    return propose_write(c, &a);
}

/* The oldest entry is not kept in memory any more; it is applied from the disk. */
static void propose_drop_oldest(struct cluster *c)
{
    struct appended *a = &c->appended[c->appended_head];

    assert(c->appended_n > 0 && a->write->record.index <= log_persisted_index(c->log));
    if (a->proposal != NULL && a->proposal->committed != NULL)
        a->proposal->committed(a->proposal, -ECANCELED);
    proposal_free(a->proposal);
    c->appended_head = (c->appended_head + 1) % c->appended_max;
    c->appended_n--;
}

bool propose_release(struct cluster *c, uint64_t index)
{
    if (index > log_persisted_index(c->log))
        return false;
    while (c->appended_n > 0 && c->appended[c->appended_head].write->record.index <= index)
        propose_drop_oldest(c);
    return true;
}

/* What is uncommitted may be more than there is room for, and it may take one entry more to commit
 * it, a new leader's first. So while this node takes no blocks, the oldest that is durable gives
 * way. */
static void propose_make_room(struct cluster *c)
{
    const struct appended *a = &c->appended[c->appended_head];

#ifdef PLANT_NO_ROOM_MADE
    return;
#endif
    if (c->appended_n < c->appended_max || c->lead == LEAD_READY ||
        a->write->record.index > log_persisted_index(c->log))
        return;
    propose_drop_oldest(c);
}

int propose_room(struct cluster *c, uint32_t payload_bytes)
{
    propose_make_room(c);
    return c->appended_n < c->appended_max ? log_reserve_own(c->log, payload_bytes) : -EAGAIN;
}

static int cut(struct cluster *c, uint64_t from)
{
    int e = log_truncate(c->log, from);

#ifndef PLANT_READ_AHEAD_KEPT
    /* What it has read ahead may be of what was cut. */
    if (e >= 0) {
        log_reader_close(c->reader);
        c->reader = NULL;
        e = log_reader_open_on(&c->reader, c->disk);
        fetch_log_cut(c);
    }
#endif
    return e < 0 ? cluster_fail(c, e, "log: cut at index %" PRIu64 ": %s", from, strerror(-e)) : 0;
}

int propose_cut(struct cluster *c, uint64_t from)
{
    int e = 0;

    while (e >= 0 && log_persisted_index(c->log) < log_last_index(c->log))
        e = log_wait(c->log, node_now_ns(c));
    if (e < 0)
        return cluster_fail(c, e, "log: write failed: %s", strerror(-e));
    (void)propose_release(c, log_persisted_index(c->log));
    assert(!c->raft_open && c->appended_n == 0);
    return cut(c, from);
}

/* A write that is under way must have ended: the cut blocks. */
int propose_withdraw(struct cluster *c, uint64_t from)
{
    int e = 0;

    while (e >= 0 && log_persisted_index(c->log) < log_last_index(c->log))
        e = log_wait(c->log, node_now_ns(c));
    while (e >= 0 && c->appended_n > 0) {
        struct appended *a = &c->appended[(c->appended_head + c->appended_n - 1) % c->appended_max];

        if (a->write->record.index < from)
            break;
        if (a->proposal != NULL && a->proposal->committed != NULL)
            a->proposal->committed(a->proposal, -ECANCELED);
        proposal_free(a->proposal);
        c->appended_n--;
    }
    assert(e < 0 || from > c->applied_index);
    commit_withdraw(c, from);
    return e < 0 ? cluster_fail(c, e, "log: cut at index %" PRIu64 ": %s", from, strerror(-e))
                 : cut(c, from);
}

int propose_entry(struct cluster *c, struct proposal *p)
{
    int e = change_quiet(c) ? -EAGAIN : propose_room(c, p->write.record.payload_bytes);

    return e < 0 ? e : propose_append(c, &p->write, NULL, p);
}

void propose_refuse(struct block *b, uint32_t reason)
{
    /* What it would have been told of others is not to be told of what is not in the log. */
    b->exceptions = b->exceptions_before;
    memset(b->verdict, VERDICT_REFUSED, b->events);
    b->refuse_reason = reason;
    b->accepted = 0;
    b->index = b->term = b->wait_index = 0;
}

int propose_collect(struct cluster *c, uint64_t now_ns)
{
    unsigned idle = 0;
    int taken = 0;

    while (taken < (int)CLUSTER_BLOCKS_PER_TURN && idle < c->config.links) {
        struct block *b = ring_pop(&c->config.link[c->next_link].submit);

        c->next_link = (c->next_link + 1) % c->config.links;
        if (b == NULL) {
            idle++;
            continue;
        }
        idle = 0;
        b->next = NULL;
        b->wait_index = 0;
        b->refuse_reason = 0;
        b->exceptions_before = b->exceptions;
        b->forward = (struct block_forward){ .arrived_ns = now_ns };
        memset(b->verdict, VERDICT_COMMITTED, b->events);
        *c->arrived_tail = b;
        c->arrived_tail = &b->next;
        taken++;
    }
    return taken;
}

/* Without the events that were left out; it stays the block of the node that it came from. */
static void propose_reseal(struct block *b)
{
    const struct block_header h = *(const struct block_header *)block_payload(b);

    assert(h.magic == BLOCK_MAGIC);
    block_seal(b, h.node, h.region);
}

int propose_block(struct cluster *c, struct block *b)
{
    int64_t left;
    int e;

    if (c->appended_n == c->appended_max || change_quiet(c))
        return 0;
    e = c->app.ready(c->app.arg, b->events);
    if (e == 0)
        e = log_reserve(c->log, b->write.record.payload_bytes);
    if (e == -EAGAIN)
        return 0;
    c->disk_full = e == -ENOSPC;
    if (e == -ENOSPC) {
        e = change_yield(c);
        if (e != 0)
            return e < 0 ? e : 0;
        propose_refuse(b, sluice_v1_Reason_DISK_FULL);
        return 1;
    }
    if (e < 0)
        return cluster_fail(c, e, "before an append: %s", strerror(-e));
    b->exceptions_before = b->exceptions;
    left = c->app.admit(c->app.arg, b, log_last_index(c->log) + 1);
    if (left < 0)
        return cluster_fail(c, (int)left, "dedupe: %s", strerror((int)-left));
    if (left > 0) {
        if ((uint32_t)left < b->events)
            propose_reseal(b);
        assert(b->accepted == (uint32_t)left);
        e = propose_append(c, &b->write, b, NULL);
        if (e < 0)
            return e;
        b->index = b->write.record.index;
        b->term = b->write.record.term;
        if (b->wait_index < b->index)
            b->wait_index = b->index;
    } else {
        b->accepted = 0;
        b->index = 0;
        b->term = c->state.term;
    }
    return 1;
}

/* A segment that holds events or settings for longer than the limit ends. */
static int propose_seal(struct cluster *c, uint64_t now_ns)
{
    struct proposal *p;
    int e;

    if (c->seal_due_ns == 0 || now_ns < c->seal_due_ns)
        return 0;
    e = propose_room(c, 0);
    if (e == -EAGAIN || e == -ENOSPC) {
        c->seal_due_ns = now_ns + SEAL_RETRY_NS;
        return 0;
    }
    if (e < 0)
        return cluster_fail(c, e, "seal: %s", strerror(-e));
    p = proposal_new(LOG_SEAL, NULL, 0);
    if (p == NULL)
        return cluster_fail(c, -ENOMEM, "seal: out of memory");
    e = propose_append(c, &p->write, NULL, p);
    if (e < 0)
        proposal_failed(c, p);
    return e < 0 ? e : 1;
}

int propose_turn(struct cluster *c, uint64_t now_ns)
{
    int done = propose_collect(c, now_ns);

    /* What waited for a leader goes first. */
    while (c->arrived != NULL && c->forward.waiting == 0) {
        struct block *b = c->arrived;
        int e = propose_block(c, b);

        if (e < 0)
            return e;
        if (e == 0)
            break;
        c->arrived = b->next;
        if (c->arrived == NULL)
            c->arrived_tail = &c->arrived;
        commit_answer_later(c, b);
        done++;
    }
    if (c->arrived == NULL) {
        int e = propose_seal(c, now_ns);

        if (e < 0)
            return e;
        done += e;
    }
    return done;
}

bool propose_idle(const struct cluster *c)
{
    for (unsigned i = 0; i < c->config.links; i++) {
        if (!ring_empty(&c->config.link[i].submit))
            return false;
    }
    return c->arrived == NULL;
}
