/*
 * change.c - who is a member and who leads, changed at an operator's word.
 *
 * One operation at a time, on the leader, as a state machine that node_turn() advances. What is to
 * be done next is read from the configuration in force, every time: so an operation that ended
 * early (its deadline, another leader) goes on from there when it is asked for again, and one that
 * is done already succeeds at once. When a step may be taken is for guard.c to say.
 *
 *   add       standby -> the engine's catch-up -> voter
 *   remove    out of the configuration; the leader itself hands over first
 *   replace   add the new one, then remove the old one, which may be dead
 *   transfer  quiet -> the next leader has all of the log -> it is told to take over
 *   switchover  the region's standbys become voters -> the others, but for the leader, standbys,
 *             so that the next leader needs nobody's vote or copy from over the WAN -> transfer to
 *             one of the region -> which makes the last of the others a standby
 *
 * An operation leaves two entries in the log: that it began, and how it ended. A leader that hands
 * over cannot write how that went.
 *
 * Thread: the node's. Memory: struct cluster. Errors: a negative errno is final for the node; what
 * an operation cannot do is its result.
 */
#include <assert.h>
#include <errno.h>
#include <pb_encode.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/clock.h"
#include "base/report.h"
#include "cluster/internal.h"

#define CHANGE_TIMEOUT_MS  60000u
#define TRANSFER_ELECTIONS 2u /* how long the log stands still for a hand-over */
#define YIELD_MS           10000u
#define GROWING_VOTERS     2u /* what a failover may leave of a region that had lost one */
#define SILENCE_ELECTIONS  3u /* who is dead has not answered for so long */

/* The members by the engine's configuration, committed or not. */
struct members {
    struct member m[CLUSTER_MEMBERS_MAX];
    unsigned n;
};

static uint64_t now_ms(const struct cluster *c) { return node_now_ns(c) / NS_PER_MS; }

static int members_now(struct cluster *c, struct members *ret)
{
    int n = consensus_members(c, ret->m);

    if (n < 0)
        return cluster_fail(c, n, "the members of the configuration cannot be read: %s",
                            strerror(-n));
    ret->n = (unsigned)n;
    return 0;
}

/* --- beginning and ending -----------------------------------------------------------------------
 */

/* Returns 1: work was done. The result is told once its entry is committed. */
__attribute__((format(printf, 3, 4))) static int change_end(struct cluster *c, int result,
                                                            const char *format, ...)
{
    struct change *h = &c->change;
    va_list a;

    assert(h->step == CHANGE_BEGINS || h->step == CHANGE_WORKS);
    va_start(a, format);
    vsnprintf(h->sentence, sizeof h->sentence, format, a);
    va_end(a);
    h->result = result;
    h->quiet = false;
    h->step = CHANGE_ENDS;
    h->deadline_ms = now_ms(c) + TRANSFER_ELECTIONS * c->raft.election_timeout;
    return 1;
}

static int change_tell(struct cluster *c)
{
    const struct change h = c->change;

    memset(&c->change, 0, sizeof c->change);
    assert(h.step != CHANGE_NONE);
    h.done(h.arg, h.result, h.sentence);
    return 1;
}

static int change_not_leader(struct cluster *c)
{
    unsigned leader = consensus_leader(c);

    if (consensus_leads(c))
        (void)change_end(c, -EAGAIN, "this node lost the lead and has it again; ask again");
    else if (leader != 0)
        (void)change_end(c, -EAGAIN, "node %u leads; ask it", leader);
    else
        (void)change_end(c, -EAGAIN, "this node does not lead; ask the next leader");
    return change_tell(c);
}

static void describe(const struct change_request *r, char *ret, size_t bytes)
{
    const char *standby = r->member.role == MEMBER_STANDBY ? " as a standby" : "";
    char address[MEMBER_ADDRESS_BYTES] = "";

    (void)member_format(&r->member, address);
    switch (r->kind) {
    case CHANGE_ADD:
        snprintf(ret, bytes, "add node %u, %s%s", r->member.node, address, standby);
        break;
    case CHANGE_REMOVE:
        snprintf(ret, bytes, "remove node %u", r->node);
        break;
    case CHANGE_REPLACE:
        snprintf(ret, bytes, "replace node %u by node %u, %s%s", r->node, r->member.node, address,
                 standby);
        break;
    case CHANGE_SWITCHOVER:
        snprintf(ret, bytes, "switch over to region %u", r->region);
        break;
    case CHANGE_TRANSFER:
        snprintf(ret, bytes, "transfer the lead to node %u", r->node);
        break;
    }
}

/* Returns 1 when p is in the log, 0 when there is no room yet. */
static int change_append(struct cluster *c, struct proposal *p)
{
    int e = p != NULL ? propose_entry(c, p) : -ENOMEM;

    if (e == 0)
        return 1;
    if (e == -EAGAIN || e == -ENOSPC) {
        proposal_free(p);
        return 0;
    }
    proposal_failed(c, p);
    return cluster_fail(c, e, "change of members: %s", strerror(-e));
}

static int change_audit(struct cluster *c, const char *result, int error)
{
    sluice_v1_Audit a = { .time_ns = node_unix_ns(c), .error = error };
    uint8_t bytes[sluice_v1_Audit_size];
    pb_ostream_t s = pb_ostream_from_buffer(bytes, sizeof bytes);
    bool ok;

    snprintf(a.actor, sizeof a.actor, "%s", c->change.request.actor);
    describe(&c->change.request, a.command, sizeof a.command);
    snprintf(a.result, sizeof a.result, "%s", result);
    ok = pb_encode(&s, sluice_v1_Audit_fields, &a);
    assert(ok);
    return change_append(c, proposal_new(LOG_AUDIT, bytes, s.bytes_written));
}

static const char *check_request(const struct change_request *r)
{
    static const uint8_t unknown[MEMBER_DIRECTORY_BYTES];
    char address[MEMBER_ADDRESS_BYTES];
    const struct member *m = &r->member;

    if (strnlen(r->actor, sizeof r->actor) == sizeof r->actor)
        return "the name of who asks is too long";
    if (r->kind == CHANGE_SWITCHOVER)
        return r->region == 1 || r->region == 2 ? NULL : "a region is 1 or 2";
    if ((r->kind == CHANGE_REMOVE || r->kind == CHANGE_REPLACE) && r->node == 0)
        return "there is no node 0";
    if (r->kind == CHANGE_REMOVE || r->kind == CHANGE_TRANSFER)
        return NULL;
    if (m->node == 0)
        return "there is no node 0";
    if (r->kind == CHANGE_REPLACE && m->node == r->node)
        return "a node is replaced by one with another number";
    if (m->role != MEMBER_VOTER && m->role != MEMBER_STANDBY)
        return "a member is a voter or a standby";
    if (m->region == 0 || m->host[0] == '\0')
        return "a member that is added has a host, a port and a region";
    if (memcmp(m->directory_id, unknown, sizeof unknown) == 0)
        return "a member that is added has a data directory";
    return member_format(m, address);
}

void change_tell_status(const struct cluster *c, char *ret, size_t bytes)
{
    const struct change *h = &c->change;
    size_t n;

    ret[0] = '\0';
    if (h->step == CHANGE_NONE)
        return;
    describe(&h->request, ret, bytes);
    n = strlen(ret);
    if (h->waits[0] != '\0' && h->step == CHANGE_WORKS && n < bytes)
        snprintf(ret + n, bytes - n, ": %s", h->waits);
}

int change_begin(struct cluster *c, const struct change_request *r,
                 void (*done)(void *arg, int result, const char *sentence), void *arg)
{
    char sentence[CHANGE_SENTENCE_BYTES];
    const char *wrong = check_request(r);
    struct change *h = &c->change;

    if (wrong != NULL) {
        done(arg, -EINVAL, wrong);
        return -EINVAL;
    }
    if (h->step != CHANGE_NONE) {
        describe(&h->request, sentence, sizeof sentence);
        done(arg, -EBUSY, sentence);
        return -EBUSY;
    }
    *h = (struct change){ .step = CHANGE_BEGINS, .request = *r, .done = done, .arg = arg };
    if (!consensus_leads(c)) {
        change_not_leader(c);
        return -EAGAIN;
    }
    h->term = c->state.term;
    h->begun_ms = now_ms(c);
    h->deadline_ms = now_ms(c) + (r->timeout_ms != 0 ? r->timeout_ms : CHANGE_TIMEOUT_MS);
    return 0;
}

/* --- steps ---------------------------------------------------------------------------------------
 * Each returns 1: it is as it was asked for, 0: not yet (or the operation has ended), or a negative
 * errno.
 */

static int change_submit(struct cluster *c, const struct members *to)
{
    uint8_t bytes[CLUSTER_CONFIGURATION_BYTES_MAX];
    int n = members_encode(to->m, to->n, bytes, sizeof bytes);

    if (n < 0)
        return cluster_fail(c, n, "change of members: the new configuration cannot be: %s",
                            strerror(-n));
    n = change_append(c, proposal_new(LOG_CHANGE, bytes, (size_t)n));
    return n < 0 ? n : 0;
}

static bool change_allowed(struct cluster *c, uint16_t except)
{
    return guard_change(c, except, c->change.waits, sizeof c->change.waits);
}

static bool region_settled(struct cluster *c, uint8_t region, bool leaves)
{
    return region_allows(c, region, leaves, c->change.waits, sizeof c->change.waits);
}

/* May this one be added? Ends the operation if not. */
static bool check_new(struct cluster *c, const struct members *now, const struct member *new)
{
    for (unsigned i = 0; i < now->n; i++) {
        const struct member *m = &now->m[i];
        bool same_directory =
            memcmp(m->directory_id, new->directory_id, sizeof m->directory_id) == 0;
        char address[MEMBER_ADDRESS_BYTES] = "";

        if (m->node == new->node
                ? member_same(m, new)
                : !same_directory && (m->port != new->port || strcmp(m->host, new->host) != 0))
            continue;
        (void)member_format(m, address);
        if (m->node == new->node)
            change_end(c, -EEXIST, "node %u is another: %.200s", m->node, address);
        else if (same_directory)
            change_end(c, -EEXIST, "that data directory is node %u's", m->node);
        else
            change_end(c, -EEXIST, "node %u listens at that address", m->node);
        return false;
    }
    if (members_voters(now->m, now->n) < GROWING_VOTERS) {
        change_end(c, -EPERM, "a cluster of fewer than %u voters does not grow one by one",
                   GROWING_VOTERS);
        return false;
    }
    return true;
}

/* The engine looks whether a standby keeps up with the log. */
static int catch_up(struct cluster *c, uint16_t node)
{
    const uint16_t under_way = (uint16_t)c->raft.leader_state.promotee_id;
    struct change *h = &c->change;
    int status = RAFT_CATCH_UP_NONE, e = 0;

    if (under_way != 0 && under_way != node) {
        snprintf(h->waits, sizeof h->waits, "node %u is still being caught up", under_way);
        return 0;
    }
    snprintf(h->waits, sizeof h->waits, "node %u does not have the log yet", node);
#ifdef PLANT_CATCH_UP_SKIPPED
    return 1;
#endif
    (void)raft_catch_up(&c->raft, node, &status);
    if (h->catching_up != node || status == RAFT_CATCH_UP_ABORTED) {
        h->catching_up = node;
        if (under_way == 0)
            e = consensus_catch_up(c, node);
    } else if (guard_catch_up(c, node)) {
        e = change_append(c, proposal_new(LOG_BARRIER, NULL, 0));
    } else {
        return status == RAFT_CATCH_UP_FINISHED;
    }
    return e < 0 ? e : 0;
}

/* Node `except` may be dead. */
static int change_add(struct cluster *c, const struct member *new, uint16_t except)
{
    struct members now;
    struct member *m;
    int e = members_now(c, &now);

    if (e < 0 || !check_new(c, &now, new))
        return e;
    m = members_find(now.m, now.n, new->node);
    if (m == NULL) {
        if (now.n == CLUSTER_MEMBERS_MAX) {
            change_end(c, -EPERM, "a cluster has at most %u members", CLUSTER_MEMBERS_MAX);
            return 0;
        }
        if (!change_allowed(c, except) || !region_settled(c, new->region, false))
            return 0;
        now.m[now.n] = *new;
        now.m[now.n++].role = MEMBER_STANDBY;
        return change_submit(c, &now);
    }
    if (c->raft.configuration_uncommitted_index != 0)
        return 0;
    if (m->role == MEMBER_VOTER || new->role == MEMBER_STANDBY)
        return 1;
    e = catch_up(c, new->node);
    if (e <= 0 || !change_allowed(c, except))
        return e < 0 ? e : 0;
    if (!guard_healthy(c, new->node)) {
        c->change.catching_up = 0; /* that it had the log is long ago */
        return 0;
    }
    m->role = MEMBER_VOTER;
    return change_submit(c, &now);
}

static uint8_t region_of(const struct raft_server *s)
{
    struct member m = { 0 };

    return member_parse(s->address, &m) == NULL ? m.region : 0;
}

/* The voter that has most of the log, of those of the region (0: any) that answer; 0: none does. */
static uint16_t furthest_voter(const struct cluster *c, uint8_t region)
{
    const struct raft_configuration *all = &c->raft.configuration;
    raft_index best = 0;
    uint16_t node = 0;

    for (unsigned i = 0; i < all->n; i++) {
        const struct raft_server *s = &all->servers[i];
        raft_index match;

        if (s->role != RAFT_VOTER || s->id == c->raft.id || !guard_healthy(c, (uint16_t)s->id) ||
            (region != 0 && region_of(s) != region) ||
            raft_match_index(&c->raft, s->id, &match) != 0 || (node != 0 && match <= best))
            continue;
        best = match;
        node = (uint16_t)s->id;
    }
    return node;
}

static bool is_other_voter(const struct cluster *c, uint16_t node)
{
    const struct raft_configuration *all = &c->raft.configuration;

    for (unsigned i = 0; i < all->n; i++) {
        if (all->servers[i].id == node)
            return node != c->raft.id && all->servers[i].role == RAFT_VOTER;
    }
    return false;
}

/* To node `to`, or if that is 0 to any of the region, or if that is 0 to any. Goes on in
 * transfer_after(), when this node leads no more. */
static int change_transfer(struct cluster *c, uint16_t to, uint8_t region)
{
    struct change *h = &c->change;

    if (h->transfer_to == 0) {
        if (c->lead != LEAD_READY)
            return 0;
        h->transfer_to = to != 0 ? to : furthest_voter(c, region);
        if (!is_other_voter(c, h->transfer_to)) {
            if (to == 0)
                change_end(c, -ENOENT, "no other voter answers");
            else
                change_end(c, -ENOENT, "node %u is not another voter", to);
            return 0;
        }
        h->quiet = true;
        h->transfer_due_ms = now_ms(c) + TRANSFER_ELECTIONS * c->raft.election_timeout;
    }
    if (!h->told && guard_transfer(c, h->transfer_to)) {
        h->told = true;
        return consensus_transfer(c, h->transfer_to);
    }
    if (!h->told && now_ms(c) >= h->transfer_due_ms)
        change_end(c, -ETIMEDOUT, "node %u does not have the log in time", h->transfer_to);
    else if (h->told && raft_transferee(&c->raft) == 0)
        change_end(c, -ETIMEDOUT, "node %u was told to lead and did not", h->transfer_to);
    return 0;
}

/* This node has told another to lead, and leads no more. */
static int transfer_after(struct cluster *c)
{
    struct change *h = &c->change;
    uint16_t leader = consensus_leader(c);

    h->quiet = false;
    if (leader == 0 &&
        now_ms(c) < h->transfer_due_ms + TRANSFER_ELECTIONS * c->raft.election_timeout)
        return 0;
    if (leader != h->transfer_to)
        return change_not_leader(c);
    if (h->request.kind == CHANGE_TRANSFER)
        change_end(c, 0, "node %u leads", leader);
    else if (h->request.kind == CHANGE_SWITCHOVER)
        change_end(c, -EAGAIN, "node %u leads now; ask it to go on", leader);
    else
        change_end(c, -EAGAIN, "node %u leads now; ask it to remove node %u", leader,
                   h->request.node);
    return change_tell(c);
}

static int change_remove(struct cluster *c, uint16_t node)
{
    struct members now;
    struct member *m;
    int e = members_now(c, &now);

    if (e < 0)
        return e;
    m = members_find(now.m, now.n, node);
    if (m == NULL)
        return c->raft.configuration_uncommitted_index == 0;
    if (m->role == MEMBER_VOTER && members_voters(now.m, now.n) <= CLUSTER_VOTERS_MIN) {
        change_end(c, -EPERM, "fewer than %u voters would be left; replace it", CLUSTER_VOTERS_MIN);
        return 0;
    }
    if (c->change.request.dead && guard_healthy(c, node)) {
        if (now_ms(c) < c->change.begun_ms + SILENCE_ELECTIONS * c->raft.election_timeout)
            return 0; /* its last word may be from before */
        change_end(c, -EINVAL, "node %u answers: it is not dead", node);
        return 0;
    }
    if (c->change.transfer_to == 0 &&
        (!change_allowed(c, node) ||
         (!c->change.request.dead && !region_settled(c, m->region, true))))
        return 0;
    if (node == c->config.node)
        return change_transfer(c, 0, 0);
    memmove(m, m + 1, (size_t)(now.m + --now.n - m) * sizeof *m);
    return change_submit(c, &now);
}

static int change_replace(struct cluster *c, const struct change_request *r)
{
    struct members now;
    int e = members_now(c, &now);

    if (e < 0)
        return e;
    if (members_find(now.m, now.n, r->node) == NULL &&
        members_find(now.m, now.n, r->member.node) == NULL) {
        change_end(c, -ENOENT, "there is no node %u", r->node);
        return 0;
    }
    e = c->change.transfer_to == 0 ? change_add(c, &r->member, r->node) : 1;
    return e == 1 ? change_remove(c, r->node) : e;
}

/* A voter of the region that is left may be dead, and one alone: who is left without it still
 * decides. 0: all answer. */
static uint16_t left_behind(const struct cluster *c, const struct members *now, uint8_t region)
{
    for (unsigned i = 0; i < now->n; i++) {
        const struct member *m = &now->m[i];

        if (m->role == MEMBER_VOTER && m->region != region && m->node != c->config.node &&
            !guard_healthy(c, m->node))
            return m->node;
    }
    return 0;
}

static int change_demote(struct cluster *c, struct members *now, struct member *m, uint16_t except)
{
    if (!change_allowed(c, except))
        return 0;
    m->role = MEMBER_STANDBY;
    return change_submit(c, now);
}

static int change_switchover(struct cluster *c, uint8_t region)
{
    struct member *behind = NULL;
    struct members now;
    unsigned there = 0;
    uint16_t except;
    int e = members_now(c, &now);

    if (e < 0 || c->change.transfer_to != 0)
        return e < 0 ? e : change_transfer(c, 0, region);
    if (c->raft.configuration_uncommitted_index != 0)
        return 0;
    for (unsigned i = 0; i < now.n; i++) {
        there += now.m[i].region == region;
        if (now.m[i].region != region && now.m[i].role == MEMBER_VOTER &&
            (behind == NULL || behind->node == c->config.node))
            behind = &now.m[i];
    }
    if (there < CLUSTER_VOTERS_MIN) {
        change_end(c, -EPERM, "region %u has %u members; to be the active one takes %u", region,
                   there, CLUSTER_VOTERS_MIN);
        return 0;
    }
    except = left_behind(c, &now, region);
    for (unsigned i = 0; i < now.n; i++) {
        struct member voter = now.m[i];

        if (voter.region != region || voter.role == MEMBER_VOTER)
            continue;
        voter.role = MEMBER_VOTER;
        return change_add(c, &voter, except);
    }
    if (behind == NULL)
        return 1;
    if (behind->node == c->config.node)
        return change_allowed(c, 0) ? change_transfer(c, 0, region) : 0;
    return change_demote(c, &now, behind, except);
}

static int change_work(struct cluster *c)
{
    struct change *h = &c->change;
    const struct change_request *r = &h->request;
    int e = 0;

    if (now_ms(c) >= h->deadline_ms && h->transfer_to == 0)
        return change_end(c, -ETIMEDOUT, "not done in time; ask again%s%s",
                          h->waits[0] != '\0' ? ": " : "", h->waits);
    switch (r->kind) {
    case CHANGE_ADD:
        e = change_add(c, &r->member, 0);
        if (e == 1)
            return change_end(c, 0, "node %u is a %s", r->member.node,
                              r->member.role == MEMBER_VOTER ? "voter" : "standby");
        break;
    case CHANGE_REMOVE:
        e = change_remove(c, r->node);
        if (e == 1)
            return change_end(c, 0, "node %u is no member", r->node);
        break;
    case CHANGE_REPLACE:
        e = change_replace(c, r);
        if (e == 1)
            return change_end(c, 0, "node %u is in the place of node %u", r->member.node, r->node);
        break;
    case CHANGE_TRANSFER:
        e = r->node == c->config.node ? change_end(c, 0, "node %u leads", r->node)
                                      : change_transfer(c, r->node, 0);
        break;
    case CHANGE_SWITCHOVER:
        e = change_switchover(c, r->region);
        if (e == 1)
            return change_end(c, 0, "region %u is the active one; node %u leads", r->region,
                              c->config.node);
        break;
    }
    return e;
}

/* --- without being asked ------------------------------------------------------------------------
 */

/* Who comes next by number among the voters that answer, and has all of the log if `whole`; 0:
 * nobody. Nobody knows whose disk is full, too: so the lead goes round. */
static uint16_t next_voter(struct cluster *c, bool whole)
{
    const struct raft_configuration *all = &c->raft.configuration;
    uint16_t node = 0, best = UINT16_MAX;

    for (unsigned i = 0; i < all->n; i++) {
        const struct raft_server *s = &all->servers[i];
        uint16_t distance = (uint16_t)(s->id - c->raft.id);

        if (s->role != RAFT_VOTER || s->id == c->raft.id || distance >= best ||
            !guard_healthy(c, (uint16_t)s->id) || (whole && !guard_transfer(c, (uint16_t)s->id)))
            continue;
        assert(distance > 0);
        best = distance;
        node = (uint16_t)s->id;
    }
    return node;
}

int change_yield(struct cluster *c)
{
    uint64_t now = now_ms(c);
    uint16_t to;
    int e;

    assert(consensus_leads(c) && !change_quiet(c));
    if (c->lead != LEAD_READY || c->change.step != CHANGE_NONE ||
        c->raft.configuration_uncommitted_index != 0 || c->raft.leader_state.promotee_id != 0)
        return 0;
    if (c->yield_ms == 0 || now >= c->yield_ms + YIELD_MS) {
        if (next_voter(c, false) == 0)
            return 0;
        c->yield_ms = now;
        c->yield_told = false;
    }
    if (c->yield_told || now >= c->yield_ms + TRANSFER_ELECTIONS * c->raft.election_timeout)
        return 0;
    to = next_voter(c, true);
    if (to == 0)
        return 1;
    assert(is_other_voter(c, to) && !c->yield_told);
    report_warn("disk_full", "this node's disk is full: node %u is to lead", to);
    c->yield_told = true;
    e = consensus_transfer(c, to);
    return e < 0 ? e : 1;
}

/* --- turns ---------------------------------------------------------------------------------------
 */

bool change_quiet(const struct cluster *c)
{
    return c->change.quiet || (consensus_leads(c) && raft_transferee(&c->raft) != 0);
}

void change_stop(struct cluster *c)
{
    struct change *h = &c->change;

    if (h->step == CHANGE_NONE)
        return;
    h->result = -EAGAIN;
    snprintf(h->sentence, sizeof h->sentence,
             "a failover has begun meanwhile; ask again when it has ended");
    (void)change_tell(c);
}

int change_turn(struct cluster *c)
{
    struct change *h = &c->change;
    int e = 0;

    if (h->step == CHANGE_NONE)
        return 0;
    if (!consensus_leads(c) || c->state.term != h->term) {
        if (h->step == CHANGE_ENDS || h->step == CHANGE_LOGGED)
            return change_tell(c);
        return h->told ? transfer_after(c) : change_not_leader(c);
    }
    switch (h->step) {
    case CHANGE_NONE:
        break;
    case CHANGE_BEGINS:
        if (now_ms(c) >= h->deadline_ms)
            return change_end(c, -ETIMEDOUT, "not begun in time; ask again");
#ifndef PLANT_GUARD_BARRIER
        if (c->lead != LEAD_READY)
            return 0;
#endif
        e = change_audit(c, "", 0);
        if (e == 1)
            h->step = CHANGE_WORKS;
        break;
    case CHANGE_WORKS:
        return change_work(c);
    case CHANGE_ENDS:
        if (now_ms(c) >= h->deadline_ms)
            return change_tell(c);
        e = change_audit(c, h->sentence, h->result);
        if (e == 1) {
            h->result_index = log_last_index(c->log);
            h->step = CHANGE_LOGGED;
        }
        break;
    case CHANGE_LOGGED:
        if (c->applied_index >= h->result_index || now_ms(c) >= h->deadline_ms)
            return change_tell(c);
        break;
    }
    return e;
}
