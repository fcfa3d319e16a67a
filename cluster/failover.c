/*
 * failover.c - a region is lost, and another one goes on: who leads the others there.
 *
 * The node that is asked is one of the region that is to go on, and itself one of those that it
 * asks (recovery.c, peer_recover.h):
 *
 *   look     how long are the logs, which epochs are there; a dry run ends with what that says
 *   promise  a majority of the region's nodes promises a new epoch to this attempt, and stops
 *   copy     the best log among those, the one with the highest last term and then index, becomes
 *            that of a majority, this node among them
 *   finish   they append the same two entries (the audit's, and the configuration in which the
 *            region's nodes vote and the others do not), and start in the new epoch
 *   wait     until one of them leads, and has committed them
 *
 * Where most of the region is lost for good, an operator may say so (--dead), and which nodes are
 * to take their place. Then a majority of the others is enough, one of one. It votes not alone:
 * those that are fresh vote, too, with nothing in their logs. So it leads with the vote of one of
 * them, and commits nothing before one of them has all of its log, by the way of any standby.
 *
 * An attempt has a number of its own, and an epoch is promised to one attempt: of two at once one
 * has a majority, or none. What ends early leaves nodes that have promised: the next attempt takes
 * a higher epoch, and goes on from what it finds. A promise is never taken back.
 *
 * Thread: the node's. Memory: struct failover. Limits: its deadline; each question is repeated
 * until then. Errors: a negative errno is final for the node; what cannot be is the result.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <pb_encode.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/report.h"
#include "cluster/internal.h"

#define FAILOVER_NS (60 * NS_PER_S)
#define REPEAT_NS   (50 * NS_PER_MS)
#define LOOK_NS     (3 * NS_PER_S)
#define PATIENCE_NS (300 * NS_PER_MS) /* for the last one, when there is a majority */
#define LED_MS      1000u             /* so long ago its leader has spoken */
#define DEAD_NS     NS_PER_S          /* that the dead have to say that they are not */
#define VOTERS_MIN  3u                /* where fresh ones are among them */

static uint64_t epoch_of(uint64_t term) { return term >> CLUSTER_EPOCH_SHIFT; }

uint64_t failover_next_epoch(uint64_t seen, uint8_t region)
{
    assert(region == 1 || region == 2);
    return seen + 1 + ((seen + 1) % 2 != region % 2);
}

/* Returns 1: work was done. */
__attribute__((format(printf, 3, 4))) static int end(struct cluster *c, int result,
                                                     const char *format, ...)
{
    struct failover *f = &c->failover;
    struct failover_report report = f->report;
    va_list a;

    assert(f->step != FAILOVER_NONE && result <= 0);
    va_start(a, format);
    vsnprintf(report.sentence, sizeof report.sentence, format, a);
    va_end(a);
    f->step = FAILOVER_NONE;
    if (!f->request.dry_run)
        report_warn("failover", "to region %u: %s", f->request.region, report.sentence);
    f->done(f->arg, result, &report);
    return 1;
}

/* How many nodes of the region have come so far. */
static unsigned count(const struct failover *f, unsigned mark)
{
    unsigned n = 0;

    for (unsigned i = 0; i < f->nodes; i++)
        n += !f->node[i].other && (f->node[i].marks & mark) != 0;
    return n;
}

static unsigned majority(const struct failover *f) { return count(f, FAILOVER_MEMBER) / 2 + 1; }

static struct failover_node *find(struct failover *f, uint16_t node)
{
    for (unsigned i = 0; i < f->nodes; i++) {
        if (f->node[i].node == node)
            return &f->node[i];
    }
    return NULL;
}

static bool has(const struct failover *f, const struct cluster *c, unsigned mark)
{
    for (unsigned i = 0; i < f->nodes; i++) {
        if (f->node[i].node == c->config.node)
            return (f->node[i].marks & mark) != 0;
    }
    return false;
}

/* --- asking -------------------------------------------------------------------------------------
 */

static int ask(struct cluster *c, uint16_t node, const struct peer_recover *q)
{
    static const uint8_t zeros[8];
    struct failover *f = &c->failover;
    const bool finish = q->step == RECOVER_FINISH;
    const struct iovec iov[5] = {
        { (void *)(uintptr_t)q, sizeof *q },
        { f->audit, f->audit_bytes },
        { (void *)(uintptr_t)zeros, peer_recover_padded(f->audit_bytes) - f->audit_bytes },
        { f->change, f->change_bytes },
        { (void *)(uintptr_t)zeros, peer_recover_padded(f->change_bytes) - f->change_bytes },
    };
    const struct node_post post = {
        .to = node, .type = PEER_RECOVER, .iov = iov, .iovs = finish ? 5 : 1
    };
    const struct peer_recover_view view = { *q, f->audit, f->change };
    int e;

    assert(q->answer == 0 && (!finish || (f->audit_bytes > 0 && f->change_bytes > 0)));
    assert(q->step == RECOVER_LOOK || (q->epoch == f->epoch && q->attempt == f->attempt));

    if (node == c->config.node)
        return recovery_asked(c, node, &view);
    e = c->environment.post(c->environment.arg, &post);
    return e < 0 && e != -EAGAIN /* it is repeated */
               ? cluster_fail(c, e, "a message to node %u: %s", node, strerror(-e))
               : 0;
}

/* Each that has `needs` and not yet `done`. */
static int ask_all(struct cluster *c, const struct peer_recover *q, unsigned needs, unsigned done,
                   uint64_t now_ns)
{
    struct failover *f = &c->failover;
    enum failover_step step = f->step;
    int e = 0;

    if (now_ns < f->repeat_ns)
        return 0;
    f->repeat_ns = now_ns + REPEAT_NS;
    for (unsigned i = 0; i < f->nodes && e >= 0 && f->step == step; i++) {
        const struct failover_node *n = &f->node[i];

        if ((!n->other || step == FAILOVER_LOOK) && (n->marks & needs) == needs &&
            (n->marks & done) == 0)
            e = ask(c, n->node, q);
    }
    return e;
}

static void go_to(struct cluster *c, enum failover_step step, uint64_t now_ns)
{
    struct failover *f = &c->failover;

    assert(step > f->step);
    f->step = step;
    f->step_ns = now_ns;
    f->repeat_ns = 0;
    f->enough_ns = 0;
}

/* Is there a majority, and was the last one waited for? */
static bool is_enough(struct failover *f, unsigned mark, unsigned of, uint64_t now_ns)
{
    if (count(f, mark) < majority(f))
        return false;
    if (f->enough_ns == 0)
        f->enough_ns = now_ns;
    return count(f, mark) >= of || now_ns >= f->enough_ns + PATIENCE_NS;
}

/* --- looking ------------------------------------------------------------------------------------
 */

static bool is_longer(const struct peer_recover *a, const struct peer_recover *b)
{
    return a->term != b->term ? a->term > b->term : a->index > b->index;
}

/* Of those that have this mark. */
static const struct failover_node *best_of(const struct failover *f, unsigned mark)
{
    const struct failover_node *best = NULL;

    for (unsigned i = 0; i < f->nodes; i++) {
        const struct failover_node *n = &f->node[i];

        if (!n->other && (n->marks & mark) != 0 &&
            (best == NULL || is_longer(&n->seen, &best->seen)))
            best = n;
    }
    return best;
}

static void tell_what_is_there(struct failover *f)
{
    const struct failover_node *best = best_of(f, FAILOVER_LOOKED);
    struct failover_report *r = &f->report;

    assert(best != NULL);
    r->node = best->node;
    r->index = best->seen.index;
    r->term = best->seen.term;
    r->silent_ms = UINT64_MAX;
    for (unsigned i = 0; i < f->nodes; i++) {
        const struct peer_recover *s = &f->node[i].seen;

        if ((f->node[i].marks & FAILOVER_LOOKED) == 0)
            continue;
        if (f->node[i].dead)
            continue;
        if (f->node[i].other) {
            r->others++;
            if (s->leader == f->node[i].node)
                r->old_leader = f->node[i].node;
            continue;
        }
        r->answering++;
        if (s->committed > r->committed)
            r->committed = s->committed;
        if (s->events > r->events)
            r->events = s->events;
        if (s->silent_ms < r->silent_ms)
            r->silent_ms = s->silent_ms;
    }
    r->last_time_ns = best->seen.time_ns;
}

/* One of the region's own leads it, as one of them says. Not if a node of another region has
 * promised a later epoch: it stands still until this region goes on with one that is later yet. */
static const struct failover_node *find_led(struct failover *f)
{
    const struct failover_node *led = NULL;

    for (unsigned i = 0; i < f->nodes; i++) {
        const struct failover_node *n = &f->node[i], *leader = find(f, (uint16_t)n->seen.leader);

        if (!n->other && (n->marks & FAILOVER_LOOKED) != 0 && leader != NULL && !leader->other &&
            n->seen.silent_ms < LED_MS)
            led = n;
    }
    for (unsigned i = 0; led != NULL && i < f->nodes; i++) {
        if ((f->node[i].marks & FAILOVER_LOOKED) != 0 &&
            f->node[i].seen.promised > led->seen.started)
            return NULL;
    }
    return led;
}

static bool is_dead(const struct failover_request *r, uint16_t node)
{
    for (unsigned i = 0; i < r->dead_n; i++) {
        if (r->dead[i] == node)
            return true;
    }
    return false;
}

static int decide(struct cluster *c, uint64_t now_ns)
{
    struct failover *f = &c->failover;
    const struct failover_node *led = find_led(f);
    uint64_t seen = c->state.promised, own = epoch_of(c->state.term);

    for (unsigned i = 0; i < f->nodes; i++) {
        if (f->node[i].dead && (f->node[i].marks & FAILOVER_LOOKED) != 0)
            return end(c, -EPERM, "node %u answers, so it is not dead: leave it out of --dead",
                       f->node[i].node);
    }
    if (!c->recovery.fenced && is_dead(&f->request, consensus_leader(c)) &&
        now_ns < c->heard_ms * NS_PER_MS + DEAD_NS)
        return end(c, -EPERM, "node %u leads, and was heard just now: it is not dead",
                   consensus_leader(c));
    tell_what_is_there(f);
    if (led != NULL)
        return end(c, -EPERM,
                   "region %u is the active one: node %" PRIu64 " leads it, in epoch %" PRIu64
                   "; there is nothing to fail over",
                   f->request.region, led->seen.leader, led->seen.started);
    for (unsigned i = 0; i < f->nodes; i++) {
        const struct peer_recover *s = &f->node[i].seen;

        if ((f->node[i].marks & FAILOVER_LOOKED) == 0)
            continue;
        if (s->started > own && s->settled > 0)
            return end(c, -ESTALE,
                       "node %u is of epoch %" PRIu64 " already, which has begun; this node, of "
                       "epoch %" PRIu64 ", is being brought into it",
                       f->node[i].node, s->started, own);
        seen = s->started > seen ? s->started : seen;
        seen = s->promised > seen ? s->promised : seen;
    }
    seen = own > seen ? own : seen;
    if (seen > PEER_RECOVER_EPOCH_MAX - 2)
        return end(c, -EOVERFLOW, "the epochs are used up");
    f->epoch = f->report.epoch = failover_next_epoch(seen, f->request.region);
    if (f->request.dry_run)
        return end(c, 0,
                   "region %u could go on from index %" PRIu64 ", which node %u has, in "
                   "epoch %" PRIu64,
                   f->request.region, f->report.index, f->report.node, f->epoch);
    do {
        node_random(c, &f->attempt, sizeof f->attempt);
    } while (f->attempt == 0);
    go_to(c, FAILOVER_PROMISE, now_ns);
    return 1;
}

static int look_turn(struct cluster *c, uint64_t now_ns)
{
    const struct peer_recover q = { .step = RECOVER_LOOK, .epoch = 1 };
    struct failover *f = &c->failover;
    int e = ask_all(c, &q, 0, FAILOVER_LOOKED, now_ns);
    unsigned looked = 0;

    if (e < 0 || f->step != FAILOVER_LOOK)
        return e;
    for (unsigned i = 0; i < f->nodes; i++)
        looked += (f->node[i].marks & FAILOVER_LOOKED) != 0;
    /* The others need not be there, but are waited for, too; and for what the dead may say. */
    if (f->request.dead_n > 0 && now_ns < f->step_ns + DEAD_NS)
        return 0;
    if (is_enough(f, FAILOVER_LOOKED, looked == f->nodes ? 0 : UINT_MAX, now_ns))
        return decide(c, now_ns);
    if (now_ns < f->step_ns + LOOK_NS)
        return 0;
    return end(
        c, -EHOSTUNREACH,
        "of the %u nodes of region %u only %u can be asked; it takes %u of them, or others in "
        "the place of those that are lost for good: see --dead",
        count(f, FAILOVER_MEMBER), f->request.region, count(f, FAILOVER_LOOKED), majority(f));
}

/* --- promises, the best log ---------------------------------------------------------------------
 */

static int promise_turn(struct cluster *c, uint64_t now_ns)
{
    struct failover *f = &c->failover;
    const struct peer_recover q = { .step = RECOVER_PROMISE,
                                    .epoch = f->epoch,
                                    .attempt = f->attempt };
    const struct failover_node *best;
    int e = ask_all(c, &q, 0, FAILOVER_PROMISED | FAILOVER_REFUSED, now_ns);

    if (e < 0 || f->step != FAILOVER_PROMISE)
        return e;
    if (count(f, FAILOVER_REFUSED) > count(f, FAILOVER_MEMBER) - majority(f))
        return end(c, -EBUSY,
                   "another failover is under way: node %u has promised epoch %" PRIu64
                   ", and not to this one; ask again when it has ended",
                   f->report.node, f->report.epoch);
    if (!is_enough(f, FAILOVER_PROMISED, count(f, FAILOVER_LOOKED), now_ns) ||
        !has(f, c, FAILOVER_PROMISED))
        return 0;
    best = best_of(f, FAILOVER_PROMISED);
    assert(best != NULL && best->seen.promised == f->epoch);
    f->best = best->node;
    f->report.node = best->node;
    f->report.index = best->seen.index;
    f->report.term = best->seen.term;
    f->report.last_time_ns = best->seen.time_ns;
    f->log = best->seen;
    go_to(c, FAILOVER_COPY, now_ns);
    return 1;
}

/* --- the new epoch's first entries --------------------------------------------------------------
 */

static void make_audit(struct cluster *c)
{
    struct failover *f = &c->failover;
    sluice_v1_Audit a = { .time_ns = f->time_ns };
    pb_ostream_t s = pb_ostream_from_buffer(f->audit, sizeof f->audit);
    bool ok;
    int n;

    snprintf(a.actor, sizeof a.actor, "%s", f->request.actor);
    n = snprintf(a.command, sizeof a.command, "fail over to region %u", f->request.region);
    for (unsigned i = 0; i < f->request.dead_n; i++)
        n += snprintf(a.command + n, sizeof a.command - (size_t)n, "%s %u",
                      i == 0 ? ", without those that are lost for good:" : ",", f->request.dead[i]);
    snprintf(a.result, sizeof a.result,
             "epoch %" PRIu64 " begins with the log of node %u, to index %" PRIu64, f->epoch,
             f->best, f->log.index);
    ok = pb_encode(&s, sluice_v1_Audit_fields, &a);
    assert(ok);
    f->audit_bytes = (uint32_t)s.bytes_written;
}
_Static_assert(sluice_v1_Audit_size <= PEER_RECOVER_AUDIT_MAX &&
                   sizeof((sluice_v1_Audit *)0)->command >= 64 + 8 * FAILOVER_DEAD_MAX,
               "it fits");

/* The members with which the region goes on: all of it vote, without the dead and with those that
 * are fresh, and the others do not. m has room for all. Returns how many there are, or -E2BIG. */
static int new_members(const struct failover_request *r, struct member *m, unsigned n)
{
    unsigned to = 0;

    assert(n <= CLUSTER_MEMBERS_MAX && r->dead_n <= FAILOVER_DEAD_MAX);
    for (unsigned i = 0; i < n; i++) {
        if (is_dead(r, m[i].node))
            continue;
        m[to] = m[i];
        m[to++].role = m[i].region == r->region ? MEMBER_VOTER : MEMBER_STANDBY;
    }
    if (to + r->fresh_n > CLUSTER_MEMBERS_MAX)
        return -E2BIG;
    for (unsigned i = 0; i < r->fresh_n; i++) {
        m[to] = r->fresh[i];
        m[to++].role = MEMBER_VOTER;
    }
    return (int)to;
}

/* By the chosen log, which this node has now. Returns 1, 0: the attempt has ended. */
static int make_change(struct cluster *c)
{
    struct failover *f = &c->failover;
    struct member m[CLUSTER_MEMBERS_MAX];
    int n = recovery_members(c, m), bytes;
    unsigned voters = 0, promised = 0;

    assert(c->recovery.fenced && log_last_index(c->log) == f->log.index);
    if (n <= 0)
        return cluster_fail(c, n < 0 ? n : -EBADMSG, "log: the configuration cannot be read");
    n = new_members(&f->request, m, (unsigned)n);
    for (int i = 0; i < n; i++) {
        const struct failover_node *p = find(f, m[i].node);

        voters += m[i].role == MEMBER_VOTER;
        promised += m[i].role == MEMBER_VOTER && p != NULL && (p->marks & FAILOVER_PROMISED) != 0;
    }
    voters -= f->request.fresh_n; /* which have nothing to promise */
    bytes = n < 0 ? n : members_encode(m, (unsigned)n, f->change, sizeof f->change);
    if (bytes == -E2BIG || bytes == -EINVAL || promised < voters / 2 + 1 ||
        voters + f->request.fresh_n < 2) {
        end(c, -EAGAIN, "region %u has other nodes by the log than this node knew: ask again",
            f->request.region);
        return 0;
    }
    if (bytes < 0)
        return cluster_fail(c, bytes, "the new configuration cannot be: %s", strerror(-bytes));
    f->change_bytes = (uint32_t)bytes;
    return 1;
}

static int copy_turn(struct cluster *c, uint64_t now_ns)
{
    struct failover *f = &c->failover;
    struct peer_recover q = { .step = RECOVER_COPY,
                              .epoch = f->epoch,
                              .attempt = f->attempt,
                              .index = f->log.index,
                              .term = f->log.term,
                              .source = f->best };
    uint64_t now_unix = node_unix_ns(c);
    int e;

    memcpy(q.digest, f->log.digest, sizeof q.digest);
    e = ask_all(c, &q, FAILOVER_PROMISED, FAILOVER_COPIED, now_ns);
    if (e < 0 || f->step != FAILOVER_COPY)
        return e;
    if (!has(f, c, FAILOVER_COPIED) ||
        !is_enough(f, FAILOVER_COPIED, count(f, FAILOVER_PROMISED), now_ns))
        return 0;
    f->time_ns = now_unix > f->log.time_ns ? now_unix : f->log.time_ns;
    make_audit(c);
    e = make_change(c);
    if (e <= 0)
        return e;
    go_to(c, FAILOVER_FINISH, now_ns);
    return 1;
}

static int finish_turn(struct cluster *c, uint64_t now_ns)
{
    struct failover *f = &c->failover;
    struct peer_recover q = { .step = RECOVER_FINISH,
                              .epoch = f->epoch,
                              .attempt = f->attempt,
                              .index = f->log.index + 1,
                              .time_ns = f->time_ns,
                              .audit_bytes = f->audit_bytes,
                              .change_bytes = f->change_bytes };
    bool begun;
    int e;

    memcpy(q.digest, f->log.digest, sizeof q.digest);
    e = ask_all(c, &q, FAILOVER_COPIED, FAILOVER_FINISHED, now_ns);
    if (e < 0 || f->step != FAILOVER_FINISH)
        return e;
    /* Fresh nodes have to get all of the log before anything is committed: that may take long. */
    begun = epoch_of(c->state.term) == f->epoch &&
            (c->applied_index > f->log.index + 1 || f->request.fresh_n > 0);
    if (!begun || consensus_leader(c) == 0)
        return 0;
    f->report.leader = consensus_leader(c);
    if (f->request.fresh_n > 0)
        return end(c, 0,
                   "region %u is the active one: node %u leads it, in epoch %" PRIu64
                   ", which begins behind index %" PRIu64
                   "; it takes events once a new node has the log: see sluice cluster status",
                   f->request.region, f->report.leader, f->epoch, f->log.index);
    return end(c, 0,
               "region %u is the active one: node %u leads it, in epoch %" PRIu64
               ", which begins behind index %" PRIu64,
               f->request.region, f->report.leader, f->epoch, f->log.index);
}

/* --- answers ------------------------------------------------------------------------------------
 */

static void note_promise(struct failover *f, struct failover_node *n, const struct peer_recover *a)
{
    if (a->status == 0 && a->promised == f->epoch && (n->marks & FAILOVER_PROMISED) == 0) {
        n->marks |= FAILOVER_PROMISED; /* only the first reading counts */
        n->seen = *a;
    } else if (a->status == -EEXIST || a->status == -ESTALE) {
        n->marks |= FAILOVER_REFUSED;
        f->report.node = n->node;
        f->report.epoch = a->promised > a->started ? a->promised : a->started;
    }
}

int failover_answered(struct cluster *c, uint16_t from, const struct peer_recover *a)
{
    struct failover *f = &c->failover;
    struct failover_node *n = find(f, from);

    if (f->step == FAILOVER_NONE || n == NULL ||
        (a->step != RECOVER_LOOK && (a->epoch != f->epoch || a->attempt != f->attempt)))
        return 0;
    switch (a->step) {
    case RECOVER_LOOK:
        if (f->step == FAILOVER_LOOK && (a->status == 0 || n->dead)) {
            n->marks |= FAILOVER_LOOKED;
            n->seen = *a;
        }
        break;
    case RECOVER_PROMISE:
        if (f->step == FAILOVER_PROMISE)
            note_promise(f, n, a);
        break;
    case RECOVER_COPY:
        if (a->status == 0 && a->index == f->log.index &&
            memcmp(a->digest, f->log.digest, sizeof a->digest) == 0)
            n->marks |= FAILOVER_COPIED;
        break;
    case RECOVER_FINISH:
        if (a->status == 0)
            n->marks |= FAILOVER_FINISHED;
        break;
    }
    return 0;
}

/* --- beginning, turns ---------------------------------------------------------------------------
 */

static int end_at_once(void (*done)(void *arg, int result, const struct failover_report *r),
                       void *arg, int result, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

static int end_at_once(void (*done)(void *arg, int result, const struct failover_report *r),
                       void *arg, int result, const char *format, ...)
{
    struct failover_report report = { .index = 0 };
    va_list a;

    va_start(a, format);
    vsnprintf(report.sentence, sizeof report.sentence, format, a);
    va_end(a);
    done(arg, result, &report);
    return result;
}

/* Who is declared dead, and who is new: does it fit this node's configuration? Returns NULL, or
 * what is wrong. */
static const char *check_dead(const struct cluster *c, const struct failover_request *r,
                              const struct member *now, unsigned n)
{
    uint8_t bytes[CLUSTER_CONFIGURATION_BYTES_MAX];
    struct member m[CLUSTER_MEMBERS_MAX];
    unsigned voters = 0;
    int members;

    if (r->dead_n == 0 && r->fresh_n > 0)
        return "new nodes take the place of dead ones: say which those are, or add them when the "
               "region is the active one";
    memcpy(m, now, n * sizeof *m);
    for (unsigned i = 0; i < r->dead_n; i++) {
        const struct member *d = members_find(m, n, r->dead[i]);

        if (r->dead[i] == c->config.node)
            return "the node that is asked is not dead";
        if (d == NULL || d->region != r->region)
            return "who is declared dead has to be a member, of the region that is to go on";
    }
    for (unsigned i = 0; i < r->fresh_n; i++) {
        if (r->fresh[i].region != r->region)
            return "a new node is of another region by its configuration";
        if (members_find(m, n, r->fresh[i].node) != NULL)
            return "a new node has the number of a member";
    }
    members = new_members(r, m, n);
    if (members < 0)
        return "that would be more members than a cluster has";
    for (int i = 0; i < members; i++)
        voters += m[i].role == MEMBER_VOTER;
    if (r->dead_n > 0 && voters < VOTERS_MIN)
        return "without the dead the region has fewer than three nodes: give as many new ones, "
               "each as NODE=HOST:PORT, which wait";
    for (int i = 0; i < members; i++) {
        for (int k = 0; k < i; k++) {
            if (m[i].port == m[k].port && strcmp(m[i].host, m[k].host) == 0)
                return "a new node has the address of another";
        }
    }
    return members_encode(m, (unsigned)members, bytes, sizeof bytes) < 0
               ? "a new node has the number or the data directory of another"
               : NULL;
}
/* Is it what an attempt before has begun with? */
static bool is_done(const struct failover_request *r, struct member *m, unsigned n)
{
    for (unsigned i = 0; i < r->dead_n; i++) {
        if (members_find(m, n, r->dead[i]) != NULL)
            return false;
    }
    for (unsigned i = 0; i < r->fresh_n; i++) {
        const struct member *is = members_find(m, n, r->fresh[i].node);

        if (is == NULL || is->role != MEMBER_VOTER ||
            memcmp(is->directory_id, r->fresh[i].directory_id, sizeof is->directory_id) != 0)
            return false;
    }
    return r->dead_n > 0 && r->fresh_n > 0;
}

int failover_begin(struct cluster *c, const struct failover_request *r,
                   void (*done)(void *arg, int result, const struct failover_report *report),
                   void *arg)
{
    struct failover *f = &c->failover;
    struct member m[CLUSTER_MEMBERS_MAX];
    uint64_t now = node_now_ns(c);
    const char *wrong;
    int n;

    assert(r->dead_n <= FAILOVER_DEAD_MAX && r->fresh_n <= FAILOVER_FRESH_MAX);
    if (r->region != 1 && r->region != 2)
        return end_at_once(done, arg, -EINVAL, "a region is 1 or 2");
    if (f->step != FAILOVER_NONE)
        return end_at_once(done, arg, -EBUSY, "this node is at a failover already");
    if (c->repair.at_start)
        return end_at_once(done, arg, -EAGAIN, "node %u repairs its log", c->config.node);
    if (c->log == NULL || c->environment.post == NULL)
        return end_at_once(done, arg, -ENXIO, "node %u is of no cluster of several nodes",
                           c->config.node);
    if (c->config.region != r->region)
        return end_at_once(done, arg, -EINVAL,
                           "node %u is of region %u: ask a node of region %u, which is to go on",
                           c->config.node, c->config.region, r->region);
    n = recovery_members(c, m);
    if (n < 0)
        return cluster_fail(c, n, "the configuration cannot be read: %s", strerror(-n));
    if (members_find(m, (unsigned)n, c->config.node) == NULL)
        return end_at_once(done, arg, -EPERM, "node %u is no member", c->config.node);
    if (!c->recovery.fenced && is_done(r, m, (unsigned)n))
        return end_at_once(done, arg, 0,
                           "region %u goes on with the new nodes already, in epoch %" PRIu64
                           ": see sluice cluster status",
                           r->region, epoch_of(c->state.term));
    wrong = check_dead(c, r, m, (unsigned)n);
    if (wrong != NULL)
        return end_at_once(done, arg, -EINVAL, "%s", wrong);
    *f = (struct failover){ .request = *r, .done = done, .arg = arg };
    for (int i = 0; i < n; i++)
        f->node[f->nodes++] =
            (struct failover_node){ .node = m[i].node,
                                    .marks = FAILOVER_MEMBER,
                                    .dead = is_dead(r, m[i].node),
                                    .other = m[i].region != r->region || is_dead(r, m[i].node) };
    if (r->dead_n == 0 && majority(f) < 2)
        return end_at_once(
            done, arg, -EPERM,
            "region %u has %u members: one that votes alone is never made, since nobody "
            "would have what it loses",
            r->region, count(f, FAILOVER_MEMBER));
    f->step = FAILOVER_LOOK;
    f->step_ns = now;
    f->deadline_ns = now + (r->timeout_ms != 0 ? r->timeout_ms * NS_PER_MS : FAILOVER_NS);
    return 0;
}

int failover_turn(struct cluster *c, uint64_t now_ns)
{
    struct failover *f = &c->failover;

    if (f->step == FAILOVER_NONE)
        return 0;
    assert((majority(f) >= 2 || f->request.dead_n > 0) && f->deadline_ns > f->step_ns);
    if (now_ns >= f->deadline_ns && f->step == FAILOVER_FINISH && f->request.fresh_n > 0 &&
        epoch_of(c->state.term) == f->epoch)
        return end(
            c, 0,
            "region %u goes on in epoch %" PRIu64 ", which begins behind index %" PRIu64
            "; nobody leads it yet: it waits for the vote of a new node, and then for that to "
            "have the log",
            f->request.region, f->epoch, f->log.index);
    if (now_ns >= f->deadline_ns)
        return end(
            c, -ETIMEDOUT,
            f->step == FAILOVER_LOOK
                ? "not done in time; nothing was changed"
                : "not done in time: nodes have promised an epoch, and stand still; ask again");
    if (f->step != FAILOVER_LOOK && f->step != FAILOVER_PROMISE &&
        (c->state.promised != f->epoch || c->state.attempt != f->attempt))
        return end(c, -EBUSY,
                   "another failover has begun meanwhile: this node has promised epoch "
                   "%" PRIu64 " to it",
                   c->state.promised);
    switch (f->step) {
    case FAILOVER_LOOK:
        return look_turn(c, now_ns);
    case FAILOVER_PROMISE:
        return promise_turn(c, now_ns);
    case FAILOVER_COPY:
        return copy_turn(c, now_ns);
    case FAILOVER_FINISH:
        return finish_turn(c, now_ns);
    case FAILOVER_NONE:
        break;
    }
    return 0;
}

uint64_t failover_deadline_ns(const struct cluster *c, uint64_t now_ns)
{
    const struct failover *f = &c->failover;

    if (f->step == FAILOVER_NONE)
        return UINT64_MAX;
    return f->repeat_ns > now_ns + 5 * NS_PER_MS ? now_ns + 5 * NS_PER_MS : f->repeat_ns;
}
