/*
 * recovery.c - a node whose region was lost, or has lost: it promises an epoch, stops its engine,
 * is brought to the log that the epoch begins with, and starts again in it.
 *
 * Promised is durable, in the state file, and above the epoch of the node's term until that has
 * come. Meanwhile the node is *fenced*, also after a restart: its log is open for reading, its
 * engine is not started, nothing is applied, and it hears nothing of other epochs. There are two
 * ways out, and both end with the same opening of the log that a start of the process does:
 *
 * - failover: asked by a coordinator (failover.c), step by step (peer_recover.h): promise, copy the
 *   chosen log, append the entries with which the epoch begins, start
 * - rejoin: a node that has heard of a later epoch, and from a node that has committed something of
 *   it, promises it, becomes exactly what that node has committed, and starts. So does the old
 * region when it is back, and a node that was not there for the failover
 *
 * How a log becomes another's is in recovery_copy.c.
 *
 * A crash at any moment leaves a fenced node that begins again with the search.
 *
 * Thread: the node's. Memory: struct cluster. Errors: a negative errno is final for the node; what
 * is asked and cannot be is the answer's status.
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

#define SILENCE_NS (1 * NS_PER_S)
#define RETRY_NS   (10 * NS_PER_MS)
#define LOOK_NS    (100 * NS_PER_MS) /* between two questions about a later epoch */
#define ROOM_NS    (1 * NS_PER_S)    /* the disk is full */

static uint64_t epoch_of(uint64_t term) { return term >> CLUSTER_EPOCH_SHIFT; }
static uint64_t started(const struct cluster *c) { return epoch_of(c->state.term); }

void recovery_note(struct cluster *c, const char *format, ...)
{
    struct recovery *r = &c->recovery;
    char text[sizeof r->note];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (strcmp(text, r->note) == 0)
        return;
    snprintf(r->note, sizeof r->note, "%s", text);
    report_warn("recovery", "%s", r->note);
}

bool recovery_is_promised(const struct cluster *c)
{
#ifdef PLANT_PROMISE_NOT_KEPT
    if (!c->recovery.promised_here)
        return false;
#endif
    return c->state.promised > started(c);
}

int recovery_members(struct cluster *c, struct member ret[CLUSTER_MEMBERS_MAX])
{
    const void *bytes;
    size_t size;

    if (c->raft_open)
        return consensus_members(c, ret);
    size = consensus_configuration(c, &bytes);
    return size > 0 ? members_list(bytes, size, ret) : 0;
}

/* --- stopping and starting ----------------------------------------------------------------------
 */

/* What was taken and is not decided is refused, as when the node ends; nobody is told of it any
 * more. -EAGAIN: a checkpoint is being written, which uses what is to be closed. */
static int fence(struct cluster *c)
{
    struct recovery *r = &c->recovery;
    int e = 0;

    assert(!r->fenced && recovery_is_promised(c) && c->log != NULL);
    if (c->checkpoint_writing)
        return -EAGAIN;
    while (e >= 0 && log_persisted_index(c->log) < log_last_index(c->log))
        e = log_wait(c->log, node_now_ns(c)); /* forward_give_up() wants it */
    if (e < 0)
        return cluster_fail(c, e, "log: write failed: %s", strerror(-e));
    change_stop(c);
    propose_abandon(c);
    region_fenced(c);
    consensus_close(c);
    (void)commit_abandon(c); /* all of it is durable; the app has what is applied, and no more */
    forward_give_up(c);
    e = commit_turn(c);
    c->commit_ended = false;
    if (e < 0)
        return e;
    /* What a leader has said to be committed, and had not come here yet, may not be in the log that
     * this node gets, and may be. */
    if (c->events_answered > c->events_own + c->events_orphaned) {
        uint64_t ahead = c->events_answered - c->events_own - c->events_orphaned;

        c->events_orphaned += ahead;
        c->events_doubtful += ahead;
    }
    return node_reopen(c);
}

/* Into the epoch that was promised: its log is what it is to be. */
static int start(struct cluster *c)
{
    struct recovery *r = &c->recovery;
    uint64_t term = c->state.promised << CLUSTER_EPOCH_SHIFT;
    int e;

    assert(r->fenced && log_persisted_index(c->log) == log_last_index(c->log));
    if (log_last_term(c->log) > term)
        term = log_last_term(c->log);
    assert(epoch_of(term) == c->state.promised && term > c->state.term);
    c->state.term = term;
    c->state.voted_for = 0;
    e = state_write(c);
    if (e < 0)
        return e;
    recovery_forget(c);
    r->fenced = false;
    r->note[0] = '\0';
    e = r->changed ? node_reopen(c) : node_resume(c);
    if (e == 0)
        report_info("epoch", "node %u is of epoch %" PRIu64 " now", c->config.node, started(c));
    return e;
}

/* --- saying what there is -----------------------------------------------------------------------
 */

static int describe(struct cluster *c, struct peer_recover *a)
{
    uint64_t now_ms = node_now_ns(c) / NS_PER_MS;

    a->started = started(c);
    a->promised = c->state.promised;
    a->index = log_last_index(c->log);
    a->term = log_last_term(c->log);
    a->time_ns = log_last_time_ns(c->log);
    log_digest(c->log, a->digest);
    a->committed = c->commit_index;
    a->events = c->events;
    a->leader = c->recovery.fenced ? 0 : consensus_leader(c);
    a->silent_ms = consensus_leads(c) ? 0 : c->heard_ms != 0 ? now_ms - c->heard_ms : UINT64_MAX;
    /* A leader of its epoch has committed something, and so what the epoch begins with: that is of
     * term epoch << 20, and there are two of it, of which the first alone changes no votes. */
    if (c->recovery.fenced || c->fetch.active || c->applied_index == 0 ||
        consensus_term(c, c->applied_index) <= a->started << CLUSTER_EPOCH_SHIFT)
        return 0;
    a->settled = c->applied_index;
    return recovery_digest(c, a->settled, a->settled_digest);
}

static int answer(struct cluster *c, uint16_t to, const struct peer_recover *request, int status)
{
    struct peer_recover a = { .step = request->step,
                              .answer = 1,
                              .status = status,
                              .epoch = request->epoch,
                              .attempt = request->attempt };
    const struct iovec iov = { &a, sizeof a };
    const struct node_post post = { .to = to, .type = PEER_RECOVER, .iov = &iov, .iovs = 1 };
    int e = 0;

    assert(request->answer == 0 && status <= 0);
    if (c->log != NULL && !c->repair.at_start)
        e = describe(c, &a);
    if (e == -EILSEQ || e == -ENOENT) { /* rot: who asks will ask another */
        a.settled = 0;
        e = 0;
    }
    if (e < 0)
        return cluster_fail(c, e, "log: %s", strerror(-e));
    if (to == c->config.node)
        return failover_answered(c, to, &a);
    e = c->environment.post(c->environment.arg, &post);
    return e < 0 && e != -EAGAIN ? cluster_fail(c, e, "an answer to node %u: %s", to, strerror(-e))
                                 : 0; /* one that is lost is asked for again */
}

void recovery_forget(struct cluster *c)
{
    struct recovery *r = &c->recovery;

    orphan_close(&r->orphan);
    r->copy = COPY_NONE;
    r->asked = false;
    r->source = 0;
    r->granted = 0;
    r->newer = 0;
}

/* --- what a coordinator asks --------------------------------------------------------------------
 */

/* Returns 0, or why not. */
static int promise(struct cluster *c, uint64_t epoch, uint64_t attempt)
{
    if (epoch <= started(c))
        return -ESTALE;
    if (epoch == c->state.promised && attempt == c->state.attempt)
        return 0;
    if (epoch <= c->state.promised)
        return -EEXIST;
    assert(epoch > c->state.promised && epoch > started(c));
    c->state.promised = epoch;
    c->state.attempt = attempt;
    recovery_forget(c);
    c->recovery.rejoins = false;
#ifdef PLANT_PROMISE_NOT_KEPT
    c->recovery.promised_here = true;
#endif
#ifdef PLANT_PROMISE_UNSAVED
    return 0;
#endif
    return state_write(c);
}

static bool is_of_attempt(const struct cluster *c, const struct peer_recover *q)
{
    return c->recovery.fenced && !c->recovery.rejoins && q->epoch == c->state.promised &&
           q->attempt == c->state.attempt;
}

/* Is its beginning written here? Then nothing is copied over it. */
static bool is_begun(const struct cluster *c, uint64_t epoch)
{
    return epoch_of(log_last_term(c->log)) == epoch;
}

static int append_entry(struct cluster *c, enum log_type type, const void *payload, size_t bytes,
                        const struct peer_recover *q, uint64_t index)
{
    struct proposal *p = proposal_new(type, payload, bytes);
    int e;

    assert(index == log_last_index(c->log) + 1 && q->time_ns >= log_last_time_ns(c->log));
    if (p == NULL)
        return cluster_fail(c, -ENOMEM, "recovery: out of memory");
    p->write.record.index = index;
    p->write.record.term = q->epoch << CLUSTER_EPOCH_SHIFT;
    p->write.record.time_ns = q->time_ns;
    e = consensus_collect(c, &p->write.record, (uint8_t *)p->write.buf + LOG_HEADER_BYTES);
    if (e < 0) {
        proposal_failed(c, p);
        return cluster_fail(c, e, "recovery: out of memory");
    }
    e = propose_take(c, p, index);
    if (e < 0)
        proposal_failed(c, p);
    return e;
}

/* The two entries with which the epoch begins, the same bytes on every node. A crash may leave the
 * first without the second. Returns 0, -EAGAIN: there is no room yet; or an error. */
static int begin_epoch(struct cluster *c, const struct recovery_finish *f)
{
    const struct peer_recover *q = &f->head;
    int e = 0;

    assert(log_last_index(c->log) + 1 >= q->index && epoch_of(log_last_term(c->log)) <= q->epoch);
    while (e >= 0 && log_last_index(c->log) < q->index + 1) {
        e = propose_room(c, (uint32_t)peer_recover_padded(PEER_CONFIGURATION_BYTES_MAX));
        if (e == -EAGAIN)
            e = log_wait(c->log, node_now_ns(c));
        else if (e == 0 && log_last_index(c->log) < q->index)
            e = append_entry(c, LOG_AUDIT, f->audit, q->audit_bytes, q, q->index);
        else if (e == 0)
            e = append_entry(c, LOG_CHANGE, f->change, q->change_bytes, q, q->index + 1);
        if (e == -ENOSPC)
            return -EAGAIN;
    }
    while (e >= 0 && log_persisted_index(c->log) < log_last_index(c->log))
        e = log_wait(c->log, node_now_ns(c));
    return e < 0 ? cluster_fail(c, e, "log: write failed: %s", strerror(-e)) : 0;
}

/* The log is what the epoch begins with, without its two entries, with one of them, or both. */
static bool may_finish(struct cluster *c, const struct peer_recover *q)
{
    uint64_t last = log_last_index(c->log);
    uint8_t digest[SHA256_BYTES];

    if (last + 1 < q->index || last > q->index + 1 || (last >= q->index) != is_begun(c, q->epoch) ||
        q->time_ns < log_last_time_ns(c->log))
        return false;
    return recovery_digest(c, q->index - 1, digest) == 0 &&
           memcmp(digest, q->digest, sizeof digest) == 0;
}

static int finish_turn(struct cluster *c, uint64_t now_ns)
{
    struct recovery *r = &c->recovery;
    const struct peer_recover request = r->finish.head;
    uint16_t to = r->asker;
    int e;

    assert(r->fenced && request.step == RECOVER_FINISH && r->copy == COPY_NONE);
    if (now_ns < r->retry_ns)
        return 0;
    e = begin_epoch(c, &r->finish);
    if (e == -EAGAIN) {
        recovery_note(c, "fenced: no room for the first entries of epoch %" PRIu64, request.epoch);
        r->retry_ns = now_ns + ROOM_NS;
        return 0;
    }
    if (e == 0)
        e = start(c);
    if (e == 0)
        e = answer(c, to, &request, 0);
    return e < 0 ? e : 1;
}

/* What takes time is answered by recovery_turn(), when it is done. */
static void keep(struct cluster *c, uint16_t from, const struct peer_recover *q)
{
    struct recovery *r = &c->recovery;

    assert(from != 0 && q->answer == 0 && q->step != RECOVER_LOOK);
    r->asked = true;
    r->asker = from;
    r->request = *q;
}

static int asked_to_copy(struct cluster *c, uint16_t from, const struct peer_recover *q)
{
    struct recovery *r = &c->recovery;
    uint8_t digest[SHA256_BYTES];

    if (!is_of_attempt(c, q) || is_begun(c, q->epoch))
        return answer(c, from, q, -EEXIST);
    log_digest(c->log, digest);
    if (log_last_index(c->log) == q->index && memcmp(digest, q->digest, sizeof digest) == 0) {
        keep(c, from, q);
        r->copy = COPY_DONE;
        return 0;
    }
    if (q->source == c->config.node)
        return answer(c, from, q, -ESTALE);
    keep(c, from, q);
    if (r->copy == COPY_NONE || r->copy == COPY_DONE)
        recovery_copy_begin(c, q->source, q->index, q->digest);
    return 0;
}

static int asked_to_finish(struct cluster *c, uint16_t from, const struct peer_recover_view *v)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    struct recovery *r = &c->recovery;

    if (started(c) >= v->head.epoch)
        return answer(c, from, &v->head, 0);
    if (members_list(v->change, v->head.change_bytes, m) <= 0)
        return answer(c, from, &v->head, -EBADMSG);
    if (!is_of_attempt(c, &v->head) || !may_finish(c, &v->head))
        return answer(c, from, &v->head, -EEXIST);
    keep(c, from, &v->head);
    r->finish.head = v->head;
    memcpy(r->finish.audit, v->audit, v->head.audit_bytes);
    memcpy(r->finish.change, v->change, v->head.change_bytes);
    r->copy = COPY_NONE;
    r->retry_ns = 0;
    return 0;
}

int recovery_asked(struct cluster *c, uint16_t from, const struct peer_recover_view *v)
{
    const struct peer_recover *q = &v->head;
    int e;

    if (c->log == NULL || c->repair.at_start)
        return answer(c, from, q, -EAGAIN);
    switch (q->step) {
    case RECOVER_PROMISE:
        e = promise(c, q->epoch, q->attempt);
        if (e < 0 && e != -ESTALE && e != -EEXIST)
            return e;
        if (e < 0 || c->recovery.fenced)
            return answer(c, from, q, e);
        keep(c, from, q);
        return 0;
    case RECOVER_COPY:
        return asked_to_copy(c, from, q);
    case RECOVER_FINISH:
        return asked_to_finish(c, from, v);
    default:
        return answer(c, from, q, 0);
    }
}

/* --- what other nodes say -----------------------------------------------------------------------
 */

/* They are of a later epoch, and say where they have the committed log of it. */
static int told_of_newer(struct cluster *c, uint16_t from, const struct peer_recover *a)
{
    struct recovery *r = &c->recovery;
    int e;

    if (a->settled == 0 || a->started <= started(c) || a->started < c->state.promised ||
        c->log == NULL || c->repair.at_start)
        return 0;
    if (r->copy == COPY_SET_ASIDE || r->copy == COPY_CUT)
        return 0; /* which may take its time, and goes on from there */
    if (r->fenced && a->started == c->state.promised && r->rejoins && r->copy != COPY_NONE &&
        node_now_ns(c) < r->heard_ns + 2 * SILENCE_NS)
        return 0; /* it is at it */
    if (a->started > c->state.promised) {
        e = promise(c, a->started, 0);
        if (e < 0)
            return e;
        report_warn("epoch",
                    "node %u is of epoch %" PRIu64 ", this one of %" PRIu64
                    ": it stops, and is brought into that",
                    from, a->started, started(c));
    }
    r->rejoins = true;
    r->asked = false;
    r->rejoin_source = from;
    r->rejoin_index = a->settled;
    memcpy(r->rejoin_digest, a->settled_digest, SHA256_BYTES);
    if (r->fenced)
        recovery_copy_begin(c, from, a->settled, a->settled_digest);
    return 0;
}

/* Who was removed is not believed. One that was added and got nothing of the log since knows of no
 * members: it believes whom the handshake lets in, as it would have believed any leader. */
static bool believes(struct cluster *c, uint16_t from)
{
    struct member m[CLUSTER_MEMBERS_MAX];
    int n = recovery_members(c, m);

    return n == 0 || (n > 0 && members_find(m, (unsigned)n, from) != NULL);
}

int recovery_receive(struct cluster *c, uint16_t from, const void *body, size_t bytes)
{
    struct peer_recover_view v;

    if (peer_recover_get(&v, body, bytes) != NULL)
        return -EBADMSG;
    if ((v.head.answer != 0 || v.head.step != RECOVER_LOOK) && /* anybody may look */
        !believes(c, from))
        return 0;
    if (v.head.answer == 0)
        return recovery_asked(c, from, &v);
    if (v.head.step == RECOVER_LOOK && v.head.epoch == 0)
        return told_of_newer(c, from, &v.head);
    return failover_answered(c, from, &v.head);
}

bool recovery_hears(struct cluster *c, uint16_t from, uint32_t type, uint64_t epoch)
{
    struct recovery *r = &c->recovery;

    if (epoch > started(c) && from != 0 && believes(c, from)) {
        r->newer = epoch;
        r->newer_from = from;
    }
#ifdef PLANT_EPOCH_IGNORED
    return !r->fenced || type == PEER_FETCH || type == PEER_FETCHED || type == PEER_RECOVER;
#endif
    if (type == PEER_FETCHED && epoch != started(c))
        return r->fenced || c->repair.at_start; /* who applies what comes takes it of its epoch */
    if (type == PEER_FETCH || type == PEER_FETCHED || type == PEER_RECOVER || type == PEER_CALL ||
        type == PEER_PING)
        return true;
    return !r->fenced && (epoch == started(c) || c->log == NULL);
}

/* --- turns --------------------------------------------------------------------------------------
 */

/* Is there a later epoch, and has it begun? */
static int look_turn(struct cluster *c, uint64_t now_ns)
{
    struct recovery *r = &c->recovery;
    const struct peer_recover q = { .step = RECOVER_LOOK };
    const struct iovec iov = { (void *)(uintptr_t)&q, sizeof q };
    const struct node_post post = {
        .to = r->newer_from, .type = PEER_RECOVER, .iov = &iov, .iovs = 1
    };
    int e;

    if (r->newer <= started(c) || now_ns < r->look_ns)
        return 0;
    r->look_ns = now_ns + LOOK_NS;
    e = c->environment.post(c->environment.arg, &post);
    return e < 0 && e != -EAGAIN
               ? cluster_fail(c, e, "a message to node %u: %s", post.to, strerror(-e))
               : 0;
}

/* Has the log something of the promised epoch that a leader of it has written, and nothing later?
 */
static bool may_rejoin(const struct cluster *c)
{
    uint64_t term = log_last_term(c->log);

    return term > c->state.promised << CLUSTER_EPOCH_SHIFT && epoch_of(term) == c->state.promised;
}

/* It died after it had written all that the promised epoch begins with, and before it said that it
 * has come into it: nothing else was to be done. */
static bool has_begun(const struct cluster *c)
{
    const struct recovery *r = &c->recovery;

    return !r->rejoins && !r->asked && r->copy == COPY_NONE && !r->changed &&
           c->start_entries > 0 && c->start_entry[c->start_entries - 1].type == RAFT_CHANGE &&
           log_last_term(c->log) == c->state.promised << CLUSTER_EPOCH_SHIFT &&
           log_persisted_index(c->log) == log_last_index(c->log);
}

/* What was asked for is done. */
static int done_turn(struct cluster *c, uint64_t now_ns)
{
    struct recovery *r = &c->recovery;
    const struct peer_recover q = r->request;
    int e;

    if (r->rejoins && r->copy == COPY_DONE) {
        r->rejoins = false;
        r->copy = COPY_NONE;
        if (!may_rejoin(c)) /* what it was told was of another epoch: it asks again */
            return 1;
        e = start(c);
        return e < 0 ? e : 1;
    }
    if (has_begun(c)) {
        e = start(c);
        return e < 0 ? e : 1;
    }
    if (!r->asked)
        return 0;
    if (q.step == RECOVER_FINISH)
        return finish_turn(c, now_ns);
    if (q.step == RECOVER_COPY && r->copy != COPY_DONE)
        return 0;
    r->asked = false;
    r->copy = COPY_NONE;
    if (q.step == RECOVER_COPY && r->changed) {
        e = node_reopen(c); /* whose configuration is another now, maybe */
        if (e < 0)
            return e;
    }
    e = answer(c, r->asker, &q, 0);
    return e < 0 ? e : 1;
}

int recovery_turn(struct cluster *c, uint64_t now_ns)
{
    struct recovery *r = &c->recovery;
    int e = look_turn(c, now_ns), done;

    if (e < 0 || !recovery_is_promised(c))
        return e;
    assert(c->state.promised > started(c) || r->fenced);
    if (!r->fenced) {
        e = fence(c);
        if (e == -EAGAIN)
            return 0;
        if (e < 0)
            return e;
        if (r->rejoins && r->fenced)
            recovery_copy_begin(c, r->rejoin_source, r->rejoin_index, r->rejoin_digest);
        return 1;
    }
    done = recovery_copy_turn(c, now_ns);
    if (done < 0 || !r->fenced || c->repair.at_start)
        return done;
    e = done_turn(c, now_ns);
    return e < 0 ? e : done + e;
}

uint64_t recovery_deadline_ns(const struct cluster *c, uint64_t now_ns)
{
    const struct recovery *r = &c->recovery;
    uint64_t at = UINT64_MAX;

    if (r->newer > started(c))
        at = r->look_ns;
    if (!recovery_is_promised(c))
        return at;
    if (!r->fenced)
        return now_ns + RETRY_NS < at ? now_ns + RETRY_NS : at;
    if (r->copy != COPY_NONE || r->asked) {
        uint64_t next = r->granted > 0 && r->ask_ns > now_ns ? r->ask_ns : r->retry_ns;

        if (next < now_ns + NS_PER_MS)
            next = now_ns + NS_PER_MS;
        at = next < at ? next : at;
    }
    return at;
}
