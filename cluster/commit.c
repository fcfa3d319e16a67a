/*
 * commit.c - what the engine has committed: applied in order, then answered.
 *
 * A block is answered when its own entry and every entry that one of its duplicates points to are
 * committed. Answers leave in the order of admission, so a connection's receipts are in its order.
 *
 * What is above may have no room for an entry yet, on a node that does not lead: no block was held
 * up for it. Then applying stops there, and is tried again after a while.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <pb_decode.h>
#include <string.h>

#include "base/clock.h"
#include "cluster/internal.h"
#include "proto/wire.pb.h"

#define APPLY_RETRY_NS (1 * NS_PER_MS)   /* a table is being written */
#define APPLY_FULL_NS  (100 * NS_PER_MS) /* the disk is full */

void commit_answer_later(struct cluster *c, struct block *b)
{
    b->next = NULL;
    *c->answers_tail = b;
    c->answers_tail = &b->next;
}

/* A block of this node that comes from the leader, or from the disk, is of this run unless it was
 * begun before. */
static void commit_count(struct cluster *c, uint64_t index, const struct block_view *v,
                         enum cluster_apply how)
{
    bool own = v->header->node == c->config.node && index > c->own_counted;

    for (uint32_t i = 0; i < v->header->events; i++)
        c->events_by_type[v->desc[i].type]++;
    c->events += v->header->events;
    if (own && (how == APPLY_OURS || v->header->receive_time_ns >= c->begun_unix_ns))
        c->events_own += v->header->events;
}

static int commit_genesis(struct cluster *c, const struct log_record *r, const void *payload)
{
    pb_istream_t s = pb_istream_from_buffer(payload, r->payload_bytes);
    sluice_v1_Genesis g = sluice_v1_Genesis_init_zero;

    /* The payload is padded with zeros to 8 bytes; a zero tag ends the message. */
    if (!pb_decode_ex(&s, sluice_v1_Genesis_fields, &g, PB_DECODE_NULLTERMINATED))
        return cluster_fail(c, -EBADMSG, "log: genesis at index %" PRIu64 ": %s", r->index,
                            PB_GET_ERROR(&s));
    if (memcmp(g.cluster_id, c->state.cluster_id, sizeof g.cluster_id) != 0)
        return cluster_fail(c, -EILSEQ, "log: belongs to another cluster than the state file");
    if (c->begun && memcmp(c->genesis_hash_key, g.hash_key, sizeof g.hash_key) != 0)
        return cluster_fail(c, -EILSEQ,
                            "the cluster began anew, with another key, in a failover that lost its "
                            "first entries: start this node again");
    c->genesis = g;
    c->have_genesis = true;
    c->genesis_index = r->index;
    memcpy(c->genesis_hash_key, g.hash_key, sizeof c->genesis_hash_key);
    return 0;
}

/* Applies one committed entry. Entries at or below the checkpoint are counted in it already.
 * Returns 0, 1 (there is no room for it yet, and c->apply_wait says why), or a negative errno. */
static int commit_apply(struct cluster *c, const struct log_record *r, const void *payload,
                        enum cluster_apply how)
{
    struct block_view v;
    int e;

    if (r->type == LOG_EVENTS && block_view(&v, payload, r->payload_bytes) < 0)
        return cluster_fail(c, -EBADMSG, "log: index %" PRIu64 " does not hold a block", r->index);
    e = c->app.apply(c->app.arg, r, payload, how);
    if ((e == -EAGAIN || e == -ENOSPC) && how != APPLY_START) {
        c->apply_wait = e;
        c->apply_again_ns = node_now_ns(c) + (e == -EAGAIN ? APPLY_RETRY_NS : APPLY_FULL_NS);
        return 1;
    }
    if (e < 0)
        return cluster_fail(c, e, "apply of index %" PRIu64 ": %s", r->index, strerror(-e));
    if (r->type == LOG_SETTING)
        c->setting_index = r->index;
    c->last_time_ns = r->time_ns;
    if (r->index <= c->origin.index)
        return 0;
    if (r->type == LOG_EVENTS)
        commit_count(c, r->index, &v, how);
    else if (r->type == LOG_GENESIS)
        return commit_genesis(c, r, payload);
    else if (r->type == LOG_CHANGE)
        return consensus_changed(c, r->index, payload, r->payload_bytes);
    return 0;
}

/* Applies from..log_last_index() by reading the log: what a start finds. */
int commit_replay(struct cluster *c, uint64_t from)
{
    struct log_record r;
    const void *payload;

    assert(from >= log_first_index(c->log) || from > log_last_index(c->log));
    for (uint64_t i = from; i <= c->commit_index; i++) {
        int e = node_read(c, i, &payload);

        if (e == -EILSEQ)
            return e;
        if (e < 0)
            return cluster_fail(c, e, "log: index %" PRIu64 " cannot be read: %s", i, strerror(-e));
        r = c->read_record; /* applying may read another */
        e = commit_apply(c, &r, payload, APPLY_START);
        if (e < 0)
            return e;
        c->applied_index = i;
        c->replayed_entries++;
        if (i >= log_segment_first(c->log))
            propose_note_content(c, r.type);
    }
    c->applied_index = c->commit_index;
    atomic_store_explicit(&c->commit_public, c->applied_index, memory_order_release);
    return 0;
}

/* One that is on disk alone: a start has found it, or it had to give way. Returns as
 * commit_apply(). */
static int commit_stored(struct cluster *c)
{
    struct log_record r;
    const void *payload;
    uint64_t index = c->applied_index + 1;
    int e = node_read(c, index, &payload);

    if (e < 0)
        return cluster_fail(c, e, "log: index %" PRIu64 " cannot be read: %s", index, strerror(-e));
    r = c->read_record;
    e = commit_apply(c, &r, payload, APPLY_OTHERS);
    if (e != 0)
        return e;
    c->applied_index = index;
    atomic_store_explicit(&c->commit_public, index, memory_order_release);
    return 0;
}

/* The entries up to `end`, or up to the first for which there is no room yet. */
static int commit_entries_to(struct cluster *c, uint64_t end)
{
    int done = 0;

    while (c->applied_index < end && c->apply_wait == 0) {
        struct appended a = c->appended[c->appended_head];
        const struct log_record *r;
        int e;

        if (c->appended_n == 0 || a.write->record.index > c->applied_index + 1) {
            e = commit_stored(c);
            if (e < 0)
                return e;
            done += e == 0;
            continue;
        }
        r = &a.write->record;
        assert(r->index == c->applied_index + 1);
        e = commit_apply(c, r, (const uint8_t *)a.write->buf + LOG_HEADER_BYTES,
                         a.block != NULL ? APPLY_OURS : APPLY_OTHERS);
        if (e < 0)
            return e;
        if (e > 0)
            break;
        c->applied_index = r->index;
        /* Before anybody is told: who has an answer can read what it is about. */
        atomic_store_explicit(&c->commit_public, r->index, memory_order_release);
        c->appended_head = (c->appended_head + 1) % c->appended_max;
        c->appended_n--;
        done++;
        if (a.ends_segment) {
            e = snapshot_take(c, &a);
            if (e < 0)
                return e;
        }
        if (a.proposal != NULL) {
            if (a.proposal->committed != NULL)
                a.proposal->committed(a.proposal, (int64_t)r->index);
            proposal_free(a.proposal);
        }
    }
    return done;
}

static int commit_entries(struct cluster *c)
{
    uint64_t end = log_persisted_index(c->log);
    bool was_full = c->apply_wait == -ENOSPC;
    int done;

    if (end > c->commit_index)
        end = c->commit_index;
    if (c->commit_ended || (c->apply_wait != 0 && node_now_ns(c) < c->apply_again_ns))
        return 0;
    c->apply_wait = 0;
    done = commit_entries_to(c, end);
    if (was_full || c->apply_wait == -ENOSPC)
        c->disk_full = c->apply_wait == -ENOSPC;
    return done;
}

static struct block *reverse(struct block *b)
{
    struct block *to = NULL;

    while (b != NULL) {
        struct block *next = b->next;

        b->next = to;
        to = b;
        b = next;
    }
    return to;
}

/* Newest first: so what admission has entered ends, each time, with what is taken back. */
void commit_withdraw(struct cluster *c, uint64_t from)
{
    c->answers = reverse(c->answers);
    for (struct block *b = c->answers; b != NULL; b = b->next) {
        if (forward_waits(b) || b->wait_index < from)
            continue;
        if (b->index >= from)
            c->app.withdraw(c->app.arg, b);
#ifdef PLANT_WITHDRAW_FORGOTTEN
        continue;
#endif
        /* One that was appended as it came can go to the next leader as it came. */
        if (b->accepted == b->events && b->worker != FORWARDED_WORKER)
            forward_begin(c, b);
        else
            propose_refuse(b, sluice_v1_Reason_NOT_LEADER);
    }
    c->app.cut(c->app.arg, from);
    c->answers = reverse(c->answers);
}

bool commit_abandon(struct cluster *c)
{
    uint64_t last = 0;

    assert(!consensus_leads(c));
    /* Not of those that another leader has decided, whose index is of a log that may be longer. */
    for (const struct block *b = c->answers; b != NULL; b = b->next) {
        if (!forward_waits(b) && b->wait_index > c->applied_index && b->index > last)
            last = b->index;
    }
    if (last > c->applied_index && !propose_release(c, last))
        return false;
    c->answers = reverse(c->answers);
    for (struct block *b = c->answers; b != NULL; b = b->next) {
        if (forward_waits(b) || b->wait_index <= c->applied_index)
            continue;
#ifndef PLANT_ABANDONED_KEPT
        if (b->index > c->applied_index)
            c->app.withdraw(c->app.arg, b);
#endif
        if (is_of_worker(b))
            c->events_doubtful += b->accepted; /* they may be committed yet */
        propose_refuse(b, sluice_v1_Reason_NOT_LEADER);
    }
    c->app.cut(c->app.arg, c->applied_index + 1);
    c->answers = reverse(c->answers);
    return true;
}

static int commit_answers(struct cluster *c)
{
    bool touched[CLUSTER_WORKERS_MAX] = { false };
    int done = 0;

    while (c->answers != NULL && c->answers->wait_index <= c->applied_index) {
        struct block *b = c->answers;
        bool pushed;
        int e;

        c->answers = b->next;
        if (c->answers == NULL)
            c->answers_tail = &c->answers;
        b->next = NULL;
        done++;
        if (b->worker == FORWARDED_WORKER) {
            e = forward_answer(c, b);
            if (e < 0)
                return e;
            continue;
        }
        if (b->worker == RECONCILE_WORKER) {
            reconcile_answered(c, b);
            continue;
        }
        c->events_answered += b->accepted;
        touched[b->worker] = true;
        pushed = ring_push(&c->config.link[b->worker].answer, b);
        assert(pushed); /* the ring has a slot for every block of the worker */
    }
    for (unsigned i = 0; i < c->config.links; i++) {
        if (touched[i])
            wake_up(&c->config.link[i].wake);
    }
    return done;
}

int commit_turn(struct cluster *c)
{
    int applied, answered;

#ifdef PLANT_RECEIPT_EARLY
    for (struct block *b = c->answers; b != NULL; b = b->next)
        b->wait_index = forward_waits(b) ? b->wait_index : 0;
#endif
#ifdef PLANT_FORWARD_EARLY
    for (struct block *b = c->answers; b != NULL; b = b->next) {
        if (b->worker == FORWARDED_WORKER)
            b->wait_index = 0;
    }
#endif
    applied = commit_entries(c);
    if (applied < 0)
        return applied;
    if (applied > 0) {
        pthread_mutex_lock(&c->watch_lock);
        for (unsigned i = 0; i < CLUSTER_WATCHERS_MAX; i++) {
            if (c->watcher[i] != NULL)
                wake_up(c->watcher[i]);
        }
        pthread_mutex_unlock(&c->watch_lock);
    }
    answered = commit_answers(c);
    return answered < 0 ? answered : applied + answered;
}

/* What has no room now is found by the next start. */
bool commit_idle(const struct cluster *c)
{
    return (c->appended_n == 0 || c->apply_wait != 0) && c->answers == NULL;
}
