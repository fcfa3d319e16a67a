/*
 * node_call_recovery.c - what operators ask of a node after the loss of a region: a failover, what
 * it has set aside, and to offer that again. Each is for the node that is asked, whoever leads.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

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

static void do_failover(const struct node_caller *to, const sluice_v1_FailoverRequest *q)
{
    struct failover_request r = { .region = (uint8_t)(q->region <= 2 ? q->region : 0),
                                  .dry_run = q->dry_run };
    struct node_caller *kept = malloc(sizeof *kept);

    if (kept == NULL) {
        node_refuse(to, -ENOMEM, "out of memory");
        return;
    }
    snprintf(r.actor, sizeof r.actor, "%s", q->actor);
    *kept = *to;
    (void)failover_begin(to->c, &r, on_failed_over, kept);
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
