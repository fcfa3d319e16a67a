/*
 * node_call_recovery.c - what operators ask of a node after the loss of a region: a failover, what
 * it has set aside, and to offer that again. Each is for the node that is asked, whoever leads.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "cluster/node_call.h"

static void on_failed_over(void *arg, int result, const struct failover_report *r)
{
    struct node_caller *to = arg;
    sluice_v1_NodeReply reply = sluice_v1_NodeReply_init_zero;

    assert(result <= 0 && r->sentence[0] != '\0');
    snprintf(reply.sentence, sizeof reply.sentence, "%s", r->sentence);
    reply.has_failover = true;
    reply.failover = (sluice_v1_FailoverReport){ .epoch = r->epoch,
                                                 .index = r->index,
                                                 .term = r->term,
                                                 .node = r->node,
                                                 .committed = r->committed,
                                                 .last_time_ns = r->last_time_ns,
                                                 .events = r->events,
                                                 .silent_ms = r->silent_ms,
                                                 .leader = r->leader,
                                                 .answering = r->answering,
                                                 .others = r->others,
                                                 .old_leader = r->old_leader };
    node_answer(to, result, &reply);
    free(to);
}

static void begin_failover(const struct node_caller *to, const struct failover_request *r)
{
    struct node_caller *kept = malloc(sizeof *kept);

    if (kept == NULL) {
        node_refuse(to, -ENOMEM, "out of memory");
        return;
    }
    *kept = *to;
    (void)failover_begin(to->c, r, on_failed_over, kept);
}

/* A failover that waits for what new nodes say of themselves, one after the other. */
struct failover_asked {
    struct node_caller to;
    sluice_v1_FailoverRequest q;
    struct failover_request r;
};

static void ask_fresh(struct failover_asked *w);

/* Of an attempt before it may have its place, and so a cluster, already. */
static bool is_new(struct cluster *c, const sluice_v1_NodeStatus *s)
{
    static const uint8_t no_id[sizeof s->cluster_id];
    struct member m[CLUSTER_MEMBERS_MAX];
    int n = recovery_members(c, m);

    return memcmp(s->cluster_id, no_id, sizeof no_id) == 0 ||
           (n > 0 && members_find(m, (unsigned)n, (uint16_t)s->node) != NULL);
}

static void on_fresh(void *arg, const struct peer_answer *a)
{
    struct failover_asked *w = arg;
    const sluice_v1_Member *m = &w->q.fresh[w->r.fresh_n];
    struct member *to = &w->r.fresh[w->r.fresh_n];
    sluice_v1_NodeReply reply;
    const char *wrong;

    if (!a->there) {
        node_refuse(&w->to, -EHOSTUNREACH, "node %u at %s does not answer: %.*s", m->node,
                    m->address, (int)a->bytes, (const char *)a->body);
    } else if (node_reply_decode(&reply, a) < 0 || !reply.has_status) {
        node_refuse(&w->to, -EBADMSG, "node %u at %s: its answer cannot be read", m->node,
                    m->address);
    } else if ((wrong = node_newcomer(w->to.c, m->node, m->address, &reply.status, to)) != NULL) {
        node_refuse(&w->to, -EINVAL, "node %u at %s: %s", m->node, m->address, wrong);
    } else if (!is_new(w->to.c, &reply.status)) {
        node_refuse(
            &w->to, -EEXIST,
            "node %u at %s has been in this cluster before: give a node that waits, with an "
            "empty data directory",
            m->node, m->address);
    } else {
        w->r.fresh_n++;
        ask_fresh(w);
        return;
    }
    free(w);
}

/* The next one, or all of them are known. Frees w in the end. */
static void ask_fresh(struct failover_asked *w)
{
    const sluice_v1_NodeRequest status = { .which_body = sluice_v1_NodeRequest_status_tag };
    const sluice_v1_Member *m = &w->q.fresh[w->r.fresh_n];
    uint8_t bytes[sluice_v1_NodeRequest_size];
    int e;

    assert(w->r.fresh_n <= w->q.fresh_count && w->q.fresh_count <= FAILOVER_FRESH_MAX);
    if (w->r.fresh_n == w->q.fresh_count) {
        begin_failover(&w->to, &w->r);
        free(w);
        return;
    }
    e = w->to.c->peers == NULL || m->node == 0 || m->node > UINT16_MAX ||
                m->node == w->to.c->config.node
            ? -EINVAL
            : peers_call(w->to.c->peers, (uint16_t)m->node, m->address, bytes,
                         node_request_encode(&status, bytes), NEWCOMER_NS_MAX, on_fresh, w);
    if (e < 0) {
        node_refuse(&w->to, e, "node %u at %s cannot be asked: %s", m->node, m->address,
                    strerror(-e));
        free(w);
    }
}

static void do_failover(const struct node_caller *to, const sluice_v1_FailoverRequest *q)
{
    struct failover_asked *w = malloc(sizeof *w);

    if (w == NULL) {
        node_refuse(to, -ENOMEM, "out of memory");
        return;
    }
    *w = (struct failover_asked){ .to = *to,
                                  .q = *q,
                                  .r = { .region = (uint8_t)(q->region <= 2 ? q->region : 0),
                                         .dry_run = q->dry_run,
                                         .dead_n = q->dead_count } };
    for (unsigned i = 0; i < q->dead_count; i++)
        w->r.dead[i] = (uint16_t)(q->dead[i] <= UINT16_MAX ? q->dead[i] : 0);
    snprintf(w->r.actor, sizeof w->r.actor, "%s", q->actor);
    ask_fresh(w);
}

static void do_orphans(const struct node_caller *to)
{
    sluice_v1_NodeReply reply = sluice_v1_NodeReply_init_zero;
    struct orphan_file *file = calloc(ORPHANS_MAX, sizeof *file);
    int n = file != NULL ? orphan_list(to->c->config.dir, file, ORPHANS_MAX) : -ENOMEM;

    if (n < 0) {
        node_refuse(to, n, "node %u: its orphans cannot be listed: %s", to->c->config.node,
                    strerror(-n));
        free(file);
        return;
    }
    if (n > (int)(sizeof reply.orphans / sizeof *reply.orphans))
        n = sizeof reply.orphans / sizeof *reply.orphans;
    reply.orphans_count = (pb_size_t)n;
    for (int i = 0; i < n; i++) {
        const struct orphan_head *h = &file[i].head;
        sluice_v1_Orphan *o = &reply.orphans[i];

        *o = (sluice_v1_Orphan){ .node = to->c->config.node, .reconciled = file[i].reconciled };
        snprintf(o->name, sizeof o->name, "%s", file[i].name);
        if (file[i].error != 0) {
            snprintf(o->error, sizeof o->error, "%s",
                     file[i].error == -EILSEQ ? "it is damaged" : strerror(-file[i].error));
            continue;
        }
        o->epoch = h->epoch;
        o->into = h->into;
        o->first = h->first;
        o->last = h->last;
        o->committed = h->committed;
        o->events = h->events;
        o->events_committed = h->events_committed;
        o->bytes = h->bytes;
        o->first_time_ns = h->first_time_ns;
        o->last_time_ns = h->last_time_ns;
        o->set_aside_ns = h->set_aside_ns;
    }
    free(file);
    node_answer(to, 0, &reply);
}

static void on_reconciled(void *arg, int result, const struct reconcile_report *r)
{
    struct node_caller *to = arg;
    sluice_v1_NodeReply reply = sluice_v1_NodeReply_init_zero;

    snprintf(reply.sentence, sizeof reply.sentence, "%s", r->sentence);
    reply.has_reconcile = true;
    reply.reconcile = (sluice_v1_ReconcileReport){ .files = r->files,
                                                   .accepted = r->accepted,
                                                   .duplicates = r->duplicates,
                                                   .conflicts = r->conflicts,
                                                   .others = r->others };
    node_answer(to, result, &reply);
    free(to);
}

static void do_reconcile(const struct node_caller *to)
{
    struct node_caller *kept = malloc(sizeof *kept);

    if (kept == NULL) {
        node_refuse(to, -ENOMEM, "out of memory");
        return;
    }
    *kept = *to;
    reconcile_begin(to->c, on_reconciled, kept);
}

/* Of those that change something: by this process, or by a member, as leads() says. */
static bool may_change(const struct node_caller *to)
{
    if (to->ask != NULL || to->remote.member)
        return true;
    node_refuse(to, -EACCES, "node %u is not a member of this cluster", to->remote.node);
    return false;
}

void node_do_recovery(const struct node_caller *to, const sluice_v1_NodeRequest *request)
{
    switch (request->which_body) {
    case sluice_v1_NodeRequest_failover_tag:
        if (may_change(to))
            do_failover(to, &request->body.failover);
        break;
    case sluice_v1_NodeRequest_orphans_tag:
        do_orphans(to);
        break;
    default:
        assert(request->which_body == sluice_v1_NodeRequest_reconcile_tag);
        if (may_change(to))
            do_reconcile(to);
        break;
    }
}
