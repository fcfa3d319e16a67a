/*
 * pipeline_cluster.c - what operators ask of the cluster: how its members are, a new one, changes
 * of its members, and from when on a read sees what was committed.
 *
 * On a thread of the admin server for each request, so it may wait; cluster_interrupt() ends the
 * waiting. An operation goes on to its end whether or not somebody still waits for it.
 */
#include <assert.h>
#include <errno.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "base/clock.h"
#include "base/report.h"
#include "pipeline_internal.h"

#define STATUS_NS       (2 * NS_PER_S)  /* unless the request says */
#define STATUS_NS_MAX   (30 * NS_PER_S) /* whatever it says */
#define LEADER_NS_MAX   (15 * NS_PER_S) /* that a new cluster has for its first election */
#define MEMBERS_NS_MAX  (5 * NS_PER_S)  /* and to find each other */
#define BARRIER_NS_MAX  (10 * NS_PER_S)
#define FAILOVER_NS_MAX (75 * NS_PER_S) /* the node itself ends it after a minute */
#define ORPHANS_NS_MAX  (2 * NS_PER_S)
#define ASK_NS_MAX      (75 * NS_PER_S) /* the leader itself ends a change after a minute */
#define SHORT_NS_MAX    (60 * NS_PER_S)
#define CHANGE_NS_MAX   (900 * NS_PER_S) /* and is asked to go on until then: a whole log to send */
#define PAUSE_NS        (50 * NS_PER_MS)

__attribute__((format(printf, 3, 4))) static int refuse(char error[ADMIN_ERROR_BYTES], int code,
                                                        const char *format, ...)
{
    va_list args;

    assert(code < 0);
    va_start(args, format);
    vsnprintf(error, ADMIN_ERROR_BYTES, format, args);
    va_end(args);
    return code;
}

static void pause_briefly(void)
{
    const struct timespec pause = { .tv_nsec = (long)PAUSE_NS };

    nanosleep(&pause, NULL);
}

/* --- status -------------------------------------------------------------------------------------
 */

void pipeline_peers(struct pipeline *p, sluice_v1_StatusResponse *r)
{
    uint64_t connected_ns[CLUSTER_MEMBERS_MAX], now = clock_monotonic_ns();
    sluice_v1_NodeStatus *self = calloc(1, sizeof *self);

    if (self != NULL && cluster_self(p->cluster, self, connected_ns) == 0) {
        for (unsigned i = 0; i < self->members_count; i++) {
            const sluice_v1_Member *m = &self->members[i];
            sluice_v1_PeerStatus *to = &r->peers[r->peers_count];

            if (m->node == self->node || r->peers_count == sizeof r->peers / sizeof *r->peers)
                continue;
            r->peers_count++;
            to->node = m->node;
            to->voter = m->voter;
            memcpy(to->address, m->address, sizeof to->address);
            if (connected_ns[i] != 0)
                to->connected_ns = now > connected_ns[i] ? now - connected_ns[i] : 1;
        }
    }
    free(self);
}

/* What the members are, and what they say of themselves. */
struct asked {
    sluice_v1_Member member[CLUSTER_MEMBERS_MAX];
    sluice_v1_NodeReply reply[CLUSTER_MEMBERS_MAX];
};

static int do_status(struct pipeline *p, const sluice_v1_ClusterStatusRequest *request,
                     sluice_v1_ClusterStatusResponse *ret, char error[ADMIN_ERROR_BYTES])
{
    struct asked *all = calloc(1, sizeof *all);
    uint64_t ns = request->timeout_ms != 0 ? request->timeout_ms * NS_PER_MS : STATUS_NS;
    int n;

    if (all == NULL)
        return refuse(error, -ENOMEM, "no memory");
    n = cluster_members(p->cluster, ns < STATUS_NS_MAX ? ns : STATUS_NS_MAX, all->member,
                        all->reply);
    if (n >= 0)
        n = cluster_self(p->cluster, &ret->self, NULL) < 0 ? -ESHUTDOWN : n;
    ret->has_self = true;
    for (int i = 0; i < n; i++) {
        sluice_v1_ClusterMember *to = &ret->members[ret->members_count++];

        to->has_member = true;
        to->member = all->member[i];
        to->has_status = all->reply[i].has_status;
        to->status = all->reply[i].status;
        snprintf(to->sentence, sizeof to->sentence, "%.*s", (int)sizeof to->sentence - 1,
                 all->reply[i].sentence);
    }
    free(all);
    return n < 0 ? refuse(error, n, "this node is being stopped") : 0;
}

/* --- a new cluster ------------------------------------------------------------------------------
 */

/* It is of use once somebody leads. */
static int wait_for_leader(struct pipeline *p, sluice_v1_NodeStatus *self)
{
    const uint64_t until = clock_monotonic_ns() + LEADER_NS_MAX;

    for (;;) {
        int e = cluster_self(p->cluster, self, NULL);

        if (e < 0)
            return e;
        if (self->leader != 0)
            return 0;
        if (clock_monotonic_ns() >= until)
            return -ETIMEDOUT;
        e = cluster_wait(p->cluster, UINT64_MAX, PAUSE_NS);
        if (e != -ETIMEDOUT)
            return e;
    }
}

/* They find each other in a moment; one that does not is for status to tell of. */
static void wait_for_members(struct pipeline *p)
{
    const uint64_t until = clock_monotonic_ns() + MEMBERS_NS_MAX;
    struct asked *all = calloc(1, sizeof *all);
    int n = 1, silent = 1;

    while (all != NULL && n > 0 && silent > 0 && clock_monotonic_ns() < until) {
        n = cluster_members(p->cluster, STATUS_NS, all->member, all->reply);
        silent = 0;
        for (int i = 0; i < n; i++)
            silent += !all->reply[i].has_status || all->reply[i].status.leader == 0;
        if (silent > 0)
            pause_briefly();
    }
    free(all);
}

static int do_init(struct pipeline *p, const sluice_v1_ClusterInitRequest *request,
                   sluice_v1_ClusterDone *ret, char error[ADMIN_ERROR_BYTES])
{
    char sentence[LOG_ERROR_BYTES] = "";
    sluice_v1_NodeStatus *self;
    int e;

    e = cluster_found(p->cluster, request->members, request->members_count, sentence);
    if (e < 0)
        return refuse(error, e, "%s", sentence[0] != '\0' ? sentence : strerror(-e));
    self = calloc(1, sizeof *self);
    if (self == NULL)
        return refuse(error, -ENOMEM, "no memory");
    e = wait_for_leader(p, self);
    if (e == 0)
        wait_for_members(p);
    if (e == 0)
        snprintf(ret->sentence, sizeof ret->sentence,
                 "a cluster of %u nodes; node %" PRIu32 " leads", (unsigned)self->members_count,
                 self->leader);
    else
        snprintf(error, ADMIN_ERROR_BYTES,
                 "the cluster is made, but no node leads yet; sluice cluster status says how the "
                 "nodes are");
    free(self);
    return e;
}

/* --- changes ------------------------------------------------------------------------------------
 */

static bool may_be_long(const sluice_v1_MembershipRequest *m)
{
    return m->kind == sluice_v1_MembershipRequest_Kind_ADD ||
           m->kind == sluice_v1_MembershipRequest_Kind_SWITCHOVER ||
           m->kind == sluice_v1_MembershipRequest_Kind_REPLACE;
}

static void name_actor(const struct pipeline *p, const struct admin_asker *asker, char *ret,
                       size_t bytes)
{
    if (asker->name[0] != '\0')
        snprintf(ret, bytes, "%.*s", (int)bytes - 1, asker->name);
    else
        snprintf(ret, bytes, "uid %" PRIu32 " on node %" PRIu32, asker->uid, p->config->node.id);
}

/* Asks until it is done. The leader does one change at a time, and gives each a minute; a node that
 * has a whole log to fetch may take more. */
static int do_change(struct pipeline *p, const sluice_v1_MembershipRequest *asked,
                     const struct admin_asker *asker, sluice_v1_ClusterDone *ret,
                     char error[ADMIN_ERROR_BYTES])
{
    const uint64_t until =
        clock_monotonic_ns() + (may_be_long(asked) ? CHANGE_NS_MAX : SHORT_NS_MAX);
    sluice_v1_NodeRequest request = { .which_body = sluice_v1_NodeRequest_membership_tag };
    sluice_v1_MembershipRequest *m = &request.body.membership;
    sluice_v1_NodeReply *reply = calloc(1, sizeof *reply);
    int e;

    if (reply == NULL)
        return refuse(error, -ENOMEM, "no memory");
    *m = *asked;
    name_actor(p, asker, m->actor, sizeof m->actor);
    for (;;) {
        e = cluster_ask(p->cluster, &request, ASK_NS_MAX, reply);
        if ((e != -EBUSY && e != -ETIMEDOUT) || clock_monotonic_ns() >= until)
            break;
        pause_briefly();
    }
    if (e == -EBUSY)
        refuse(error, e, "another change is under way: %s", reply->sentence);
    else if (e < 0)
        refuse(error, e, "%s", reply->sentence[0] != '\0' ? reply->sentence : strerror(-e));
    else
        snprintf(ret->sentence, sizeof ret->sentence, "%s", reply->sentence);
    free(reply);
    return e;
}

/* --- after the loss of a region -----------------------------------------------------------------
 */

static int do_failover(struct pipeline *p, const sluice_v1_RecoveryRequest *asked,
                       const struct admin_asker *asker, sluice_v1_ClusterDone *ret,
                       char error[ADMIN_ERROR_BYTES])
{
    sluice_v1_NodeRequest request = { .which_body = sluice_v1_NodeRequest_failover_tag };
    sluice_v1_FailoverRequest *f = &request.body.failover;
    sluice_v1_NodeReply *reply = calloc(1, sizeof *reply);
    int e;

    if (reply == NULL)
        return refuse(error, -ENOMEM, "no memory");
    f->region = asked->region;
    f->dry_run = asked->dry_run;
    f->dead_count = asked->dead_count;
    memcpy(f->dead, asked->dead, sizeof f->dead);
    f->fresh_count = asked->fresh_count;
    memcpy(f->fresh, asked->fresh, sizeof f->fresh);
    name_actor(p, asker, f->actor, sizeof f->actor);
    e = cluster_ask_node(p->cluster, 0, &request, FAILOVER_NS_MAX, reply);
    if (e < 0)
        refuse(error, e, "%s", reply->sentence[0] != '\0' ? reply->sentence : strerror(-e));
    snprintf(ret->sentence, sizeof ret->sentence, "%s", reply->sentence);
    ret->has_failover = reply->has_failover;
    ret->failover = reply->failover;
    free(reply);
    if (e == 0 && !asked->dry_run && p->tls != NULL && ret->failover.epoch > 0) {
        int kept = manifest_of_failover(p, asked, ret);

        if (kept < 0) /* what was done is done, and the log has the audit's entry of it */
            report_warn("failover", "its loss manifest was not kept: %s", strerror(-kept));
    }
    return e;
}

static void add_orphans(sluice_v1_ClusterDone *ret, const sluice_v1_NodeReply *reply)
{
    const pb_size_t max = sizeof ret->orphans / sizeof *ret->orphans;

    for (pb_size_t i = 0; i < reply->orphans_count && ret->orphans_count < max; i++)
        ret->orphans[ret->orphans_count++] = reply->orphans[i];
}

static void add_reconciled(sluice_v1_ClusterDone *ret, const sluice_v1_NodeReply *reply)
{
    sluice_v1_ReconcileReport *sum = &ret->reconcile;

    ret->has_reconcile = true;
    sum->files += reply->reconcile.files;
    sum->accepted += reply->reconcile.accepted;
    sum->duplicates += reply->reconcile.duplicates;
    sum->conflicts += reply->reconcile.conflicts;
    sum->others += reply->reconcile.others;
}

/* Of each member, one after the other. One that does not answer is told of, and may be asked later;
 * one that cannot do it ends it, and what the others did stays done. */
static int ask_members(struct pipeline *p, const sluice_v1_NodeRequest *request,
                       uint64_t timeout_ns, sluice_v1_ClusterDone *ret,
                       char error[ADMIN_ERROR_BYTES])
{
    sluice_v1_NodeReply *reply = calloc(1, sizeof *reply);
    sluice_v1_NodeStatus *self = calloc(1, sizeof *self);
    int e = reply != NULL && self != NULL ? cluster_self(p->cluster, self, NULL) : -ENOMEM;

    if (e == 0 && self->members_count == 0)
        e = refuse(error, -ENXIO, "this node is of no cluster");
    for (pb_size_t i = 0; e == 0 && i < self->members_count; i++) {
        uint32_t node = self->members[i].node;

        e = cluster_ask_node(p->cluster, (uint16_t)node, request, timeout_ns, reply);
        if (e == -ENOTCONN || (e == -ETIMEDOUT && !reply->has_reconcile)) {
            ret->silent[ret->silent_count++] = node;
            e = 0;
        } else if (e < 0) {
            refuse(error, e, "%s", reply->sentence[0] != '\0' ? reply->sentence : strerror(-e));
        } else if (request->which_body == sluice_v1_NodeRequest_orphans_tag) {
            add_orphans(ret, reply);
        } else {
            add_reconciled(ret, reply);
        }
    }
    free(reply);
    free(self);
    return e;
}

/* Are all members there, and of the last epoch? Only then nothing more will be set aside. */
static bool all_have_come(struct pipeline *p)
{
    struct asked *all = calloc(1, sizeof *all);
    int n = all != NULL ? cluster_members(p->cluster, STATUS_NS, all->member, all->reply) : 0;
    uint64_t epoch = 0;
    bool ret = n > 0;

    for (int i = 0; i < n; i++) {
        if (all->reply[i].has_status && all->reply[i].status.epoch > epoch)
            epoch = all->reply[i].status.epoch;
    }
    for (int i = 0; i < n; i++) {
        const sluice_v1_NodeStatus *s = &all->reply[i].status;

        ret &= all->reply[i].has_status && s->epoch == epoch &&
               (strcmp(s->role, "leader") == 0 || strcmp(s->role, "follower") == 0);
    }
    free(all);
    return ret;
}

static int do_orphans(struct pipeline *p, sluice_v1_ClusterDone *ret, char error[ADMIN_ERROR_BYTES])
{
    const sluice_v1_NodeRequest request = { .which_body = sluice_v1_NodeRequest_orphans_tag };
    const bool complete = all_have_come(p); /* before the files are listed */
    int e = ask_members(p, &request, ORPHANS_NS_MAX, ret, error);

    if (e == 0 && p->tls != NULL) {
        e = manifest_of_losses(p, complete && ret->silent_count == 0, ret);
        if (e < 0)
            refuse(error, e, "the loss manifest cannot be made: %s", strerror(-e));
    }
    return e;
}

static int do_recovery(struct pipeline *p, const sluice_v1_RecoveryRequest *asked,
                       const struct admin_asker *asker, sluice_v1_ClusterDone *ret,
                       char error[ADMIN_ERROR_BYTES])
{
    const sluice_v1_NodeRequest request = { .which_body = sluice_v1_NodeRequest_reconcile_tag };
    const sluice_v1_ReconcileReport *sum = &ret->reconcile;
    int e;

    switch (asked->kind) {
    case sluice_v1_RecoveryRequest_Kind_FAILOVER:
        return do_failover(p, asked, asker, ret, error);
    case sluice_v1_RecoveryRequest_Kind_ORPHANS:
        return do_orphans(p, ret, error);
    case sluice_v1_RecoveryRequest_Kind_RECONCILE:
        e = ask_members(p, &request, CHANGE_NS_MAX, ret, error);
        if (e == 0)
            snprintf(ret->sentence, sizeof ret->sentence,
                     "%" PRIu32 " files: %" PRIu64 " events were missing and are in the log now, "
                     "%" PRIu64 " were in it, %" PRIu64
                     " conflict with others of their id, %" PRIu64 " entries are no events",
                     sum->files, (uint64_t)sum->accepted, (uint64_t)sum->duplicates,
                     (uint64_t)sum->conflicts, (uint64_t)sum->others);
        return e;
    default:
        return refuse(error, -EINVAL, "no such request");
    }
}

/* --- reads --------------------------------------------------------------------------------------
 */

static int wait_for_barrier(struct pipeline *p, char error[ADMIN_ERROR_BYTES])
{
    const sluice_v1_NodeRequest request = { .which_body = sluice_v1_NodeRequest_barrier_tag };
    sluice_v1_NodeReply *reply = calloc(1, sizeof *reply);
    int e;

    if (reply == NULL)
        return refuse(error, -ENOMEM, "no memory");
    e = cluster_ask(p->cluster, &request, BARRIER_NS_MAX, reply);
    if (e < 0)
        refuse(error, e,
               "the leader cannot be asked, and without it this node cannot know what was "
               "committed: %s",
               reply->sentence[0] != '\0' ? reply->sentence : strerror(-e));
    else if ((e = cluster_wait(p->cluster, reply->index, BARRIER_NS_MAX)) < 0)
        refuse(error, e,
               "this node does not have what was committed, to index %" PRIu64 ", in time",
               (uint64_t)reply->index);
    free(reply);
    return e;
}

static int check_lag(const struct cluster_status *c, uint32_t ms_max, char error[ADMIN_ERROR_BYTES])
{
    if (ms_max == 0 || c->lag_ns <= ms_max * NS_PER_MS)
        return 0;
    if (c->lag_ns == UINT64_MAX)
        return refuse(error, -EAGAIN,
                      "node %u does not know how far it is behind: it has not heard from a leader",
                      c->node);
    return refuse(
        error, -EAGAIN,
        "node %u may be %.1f s behind, and at most %.1f s are wanted: ask the leader%s, or "
        "later",
        c->node, (double)c->lag_ns / 1e9, ms_max / 1e3,
        c->leader == 0 ? ", once there is one" : "");
}

static int do_read_point(struct pipeline *p, const sluice_v1_ReadPointRequest *request,
                         sluice_v1_ReadPoint *ret, char error[ADMIN_ERROR_BYTES])
{
    const uint64_t begun = clock_monotonic_ns();
    sluice_v1_NodeStatus *self = calloc(1, sizeof *self);
    struct cluster_status c;
    int e = 0;

    if (self == NULL)
        return refuse(error, -ENOMEM, "no memory");
    if (request->barrier)
        e = wait_for_barrier(p, error);
    cluster_status(p->cluster, &c);
    if (request->barrier)
        c.lag_ns = clock_monotonic_ns() - begun;
    if (e == 0)
        e = check_lag(&c, request->lag_ms_max, error);
    if (e == 0 && cluster_self(p->cluster, self, NULL) < 0)
        e = refuse(error, -ESHUTDOWN, "this node is being stopped");
    *ret = (sluice_v1_ReadPoint){
        .node = c.node,
        .leader = c.leader,
        .applied_index = c.applied_index,
        .last_time_ns = c.last_time_ns,
        .lag_ns = c.lag_ns,
        .members = self->members_count,
    };
    free(self);
    return e;
}

int pipeline_operate(void *arg, const struct admin_request *request,
                     const struct admin_asker *asker, union admin_operation_answer *ret,
                     char error[ADMIN_ERROR_BYTES])
{
    struct pipeline *p = arg;

    switch (request->which) {
    case ADMIN_SETTING_SET:
        return pipeline_set(p, &request->setting_set, asker, &ret->setting, error);
    case ADMIN_CLUSTER_STATUS:
        return do_status(p, &request->cluster_status, &ret->status, error);
    case ADMIN_CLUSTER_INIT:
        return do_init(p, &request->cluster_init, &ret->done, error);
    case ADMIN_CLUSTER_CHANGE:
        return do_change(p, &request->cluster_change, asker, &ret->done, error);
    case ADMIN_RECOVERY:
        return do_recovery(p, &request->recovery, asker, &ret->done, error);
    case ADMIN_READ_POINT:
        return do_read_point(p, &request->read_point, &ret->read_point, error);
    default:
        return refuse(error, -EOPNOTSUPP, "this is no operation");
    }
}
