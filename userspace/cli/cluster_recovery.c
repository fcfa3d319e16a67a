/*
 * cluster_recovery.c - `sluice cluster failover|rejoin|orphans|reconcile`: after the loss of a
 * region; and `pause|resume`: nothing is taken meanwhile.
 */
#include <inttypes.h>
#include <pb_decode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "cli/cluster.h"

#define REJOIN_LOOK_NS (500 * 1000000l)
#define REJOIN_S_MAX   600

/* --- failover -----------------------------------------------------------------------------------
 */

static json_t *report_json(const sluice_v1_FailoverReport *r)
{
    return json_pack("{s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I}", "epoch",
                     (json_int_t)r->epoch, "index", (json_int_t)r->index, "node",
                     (json_int_t)r->node, "knownCommitted", (json_int_t)r->committed, "lastTimeNs",
                     (json_int_t)r->last_time_ns, "silentMs",
                     r->silent_ms == UINT64_MAX ? (json_int_t)-1 : (json_int_t)r->silent_ms,
                     "leader", (json_int_t)r->leader, "nodesAnswering", (json_int_t)r->answering,
                     "othersAnswering", (json_int_t)r->others, "oldLeader",
                     (json_int_t)r->old_leader, "events", (json_int_t)r->events);
}

/* What may be lost nobody here can know: only what there is, and since when nothing was heard. */
static void describe(const sluice_v1_FailoverReport *r, const sluice_v1_RecoveryRequest *asked,
                     char *ret, size_t bytes)
{
    char time[CLI_TIME_BYTES], since[96];

    if (r->silent_ms == UINT64_MAX)
        snprintf(since, sizeof since, "none of its nodes has heard a leader since it was opened");
    else
        snprintf(since, sizeof since, "a leader was heard %.1f s ago", (double)r->silent_ms / 1e3);
    snprintf(
        ret, bytes,
        "Region %" PRIu32 ": %" PRIu32 " nodes answer. It has the log to index %" PRIu64
        ", at node %" PRIu32 "; that entry is of %s, and %s. What was receipted at `quorum` "
        "after it is missing; %s.\n"
        "%s",
        asked->region, r->answering, (uint64_t)r->index, r->node,
        cli_time(time, (uint64_t)r->last_time_ns), since,
        asked->dead_count > 0
            ? "WHAT ONLY THE NODES DECLARED DEAD HAD IS LOST, also where it was receipted for "
              "`region`, and if one of them comes back, what it has is not taken"
            : "receipts for `region` are all in it",
        r->old_leader != 0
            ? "THE OTHER REGION STILL HAS A LEADER, which can be reached from here, and may be "
              "accepting: `switchover` loses nothing."
        : r->others > 0 ? "Nodes of the other region answer; none of them leads."
                        : "No node of the other region answers. If it is alive behind a "
                          "partition, what it accepts until it hears of this is set aside "
                          "there (`orphans`, `reconcile`).");
}

/* Behind --dead: numbers are who is lost for good, NODE=HOST:PORT who takes their place. */
static int parse_dead(const struct cluster_options *o, sluice_v1_RecoveryRequest *q)
{
    int rc = CLI_OK;

    if (!o->dead)
        return o->args == 0 ? CLI_OK
                            : cli_usage("cluster", "failover takes nodes behind --dead only");
    for (int i = 0; rc == CLI_OK && i < o->args; i++) {
        if (strchr(o->arg[i], '=') != NULL && q->fresh_count < sizeof q->fresh / sizeof *q->fresh) {
            sluice_v1_Member *m = &q->fresh[q->fresh_count++];

            rc = cluster_parse_member(o->arg[i], &m->node, m->address, sizeof m->address);
        } else if (q->dead_count < sizeof q->dead / sizeof *q->dead) {
            rc = cluster_parse_node(o->arg[i], &q->dead[q->dead_count++]);
        } else {
            rc = cli_usage("cluster",
                           "--dead takes at most three nodes that are lost, and three new "
                           "ones");
        }
    }
    if (rc == CLI_OK && q->dead_count == 0)
        rc = cli_usage("cluster", "--dead takes the nodes that are lost for good, and new ones in "
                                  "their place, each as NODE=HOST:PORT");
    return rc;
}

static int fail_over(const struct cluster_options *o, sluice_v1_ClusterDone *done)
{
    struct admin_request r = { .which = ADMIN_RECOVERY };
    sluice_v1_RecoveryRequest *q = &r.recovery;
    char what[1024];
    int rc;

    q->kind = sluice_v1_RecoveryRequest_Kind_FAILOVER;
    q->region = o->to;
    q->dry_run = true;
    rc = parse_dead(o, q);
    if (rc != CLI_OK)
        return rc;
    rc = o->yes && !o->dry_run ? CLI_OK : cluster_ask_long(o, &r, done);
    if (rc != CLI_OK || o->dry_run) {
        if (rc == CLI_OK && !o->common.json) {
            describe(&done->failover, q, what, sizeof what);
            printf("%s\n%s\n", what, done->sentence);
        }
        return rc;
    }
    describe(&done->failover, q, what, sizeof what);
    rc = cluster_confirm(o, what);
    q->dry_run = false;
    if (rc == CLI_OK)
        rc = cluster_ask_long(o, &r, done);
    if (rc == CLI_OK && !o->common.json)
        printf("%s\n", done->sentence);
    return rc;
}

int cluster_failover(const struct cluster_options *o)
{
    sluice_v1_ClusterDone *done;
    int rc, fd;

    if (o->to == 0)
        return cli_usage("cluster", "failover takes --to REGION, which is 1 or 2");
    if (o->manifest != NULL && o->dry_run)
        return cli_usage("cluster", "a dry run loses nothing: there is no manifest of it");
    rc = cluster_manifest_create(o, &fd);
    if (rc != CLI_OK)
        return rc;
    done = calloc(1, sizeof *done);
    rc = done != NULL ? fail_over(o, done) : cli_error(CLI_REFUSED, "no memory");
    if (rc == CLI_OK && o->common.json)
        rc = cli_print_json(json_pack("{s:s, s:b, s:o}", "result", done->sentence, "dryRun",
                                      (int)o->dry_run, "report", report_json(&done->failover)),
                            CLI_OK);
    else if (rc == CLI_OK)
        rc = cli_finish(CLI_OK);
    rc = cluster_manifest_save(o, fd, rc, done != NULL ? done->manifest : "");
    free(done);
    return rc;
}

/* --- rejoin -------------------------------------------------------------------------------------
 */

/* Is that member of the leader's epoch, and has it what was committed when it was asked? Else says
 * why not. */
static bool is_in(const sluice_v1_ClusterMember *m, const sluice_v1_NodeStatus *leader, char *ret,
                  size_t bytes)
{
    if (!m->has_status)
        snprintf(ret, bytes, "node %" PRIu32 " does not answer", m->member.node);
    else if (m->status.epoch < leader->epoch && m->status.note[0] != '\0')
        snprintf(ret, bytes, "node %" PRIu32 " is of epoch %" PRIu64 ": %.300s", m->member.node,
                 (uint64_t)m->status.epoch, m->status.note);
    else if (m->status.epoch < leader->epoch)
        snprintf(ret, bytes, "node %" PRIu32 " is of epoch %" PRIu64 ", the leader of %" PRIu64,
                 m->member.node, (uint64_t)m->status.epoch, (uint64_t)leader->epoch);
    else if (strcmp(m->status.role, "follower") != 0 && strcmp(m->status.role, "leader") != 0)
        snprintf(ret, bytes, "node %" PRIu32 " is %s: %.300s", m->member.node, m->status.role,
                 m->status.note);
    else
        return true;
    return false;
}

/* All of them? Else ret says of one what it waits for. */
static bool all_in(const sluice_v1_ClusterStatusResponse *s, uint64_t *wanted, char *ret,
                   size_t bytes)
{
    const sluice_v1_NodeStatus *leader = cluster_leader(s);

    if (leader == NULL) {
        snprintf(ret, bytes, "no node leads");
        return false;
    }
    if (*wanted == 0)
        *wanted = leader->commit_index;
    for (pb_size_t i = 0; i < s->members_count; i++) {
        const sluice_v1_ClusterMember *m = &s->members[i];

        if (!is_in(m, leader, ret, bytes))
            return false;
        if (m->status.applied_index >= *wanted)
            continue;
        snprintf(ret, bytes, "node %" PRIu32 " has the log to index %" PRIu64 " of %" PRIu64,
                 m->member.node, (uint64_t)m->status.applied_index, *wanted);
        return false;
    }
    return true;
}

int cluster_rejoin(const struct cluster_options *o)
{
    const struct timespec pause = { .tv_nsec = REJOIN_LOOK_NS };
    sluice_v1_ClusterStatusResponse *s = calloc(1, sizeof *s);
    char why[512] = "", shown[512] = "";
    uint64_t wanted = 0;
    bool in = false;
    int rc = CLI_OK;

    if (s == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    const time_t begun = time(NULL);

    for (unsigned i = 0; rc == CLI_OK && !in && time(NULL) < begun + REJOIN_S_MAX; i++) {
        if (i > 0)
            nanosleep(&pause, NULL);
        memset(s, 0, sizeof *s);
        rc = cluster_fetch_status(o, s);
        in = rc == CLI_OK && all_in(s, &wanted, why, sizeof why);
        if (rc == CLI_OK && !in && strcmp(why, shown) != 0) {
            fprintf(stderr, "%s\n", why);
            snprintf(shown, sizeof shown, "%s", why);
        }
    }
    if (rc == CLI_OK && !in)
        rc = cli_error(CLI_NEGATIVE, "not in ten minutes: %s", why);
    if (rc == CLI_OK && o->common.json)
        rc = cli_print_json(json_pack("{s:I, s:I, s:I}", "members", (json_int_t)s->members_count,
                                      "epoch", (json_int_t)cluster_leader(s)->epoch, "index",
                                      (json_int_t)wanted),
                            CLI_OK);
    else if (rc == CLI_OK) {
        printf("all %u members are of epoch %" PRIu64 ", and have the log to index %" PRIu64 "\n",
               (unsigned)s->members_count, (uint64_t)cluster_leader(s)->epoch, wanted);
        rc = cli_finish(CLI_OK);
    }
    free(s);
    return rc;
}

/* --- orphans ------------------------------------------------------------------------------------
 */

static json_t *orphan_json(const sluice_v1_Orphan *o)
{
    return json_pack(
        "{s:s, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:I, s:b, s:s}", "name",
        o->name, "node", (json_int_t)o->node, "epoch", (json_int_t)o->epoch, "into",
        (json_int_t)o->into, "first", (json_int_t)o->first, "last", (json_int_t)o->last,
        "committed", (json_int_t)o->committed, "events", (json_int_t)o->events, "eventsCommitted",
        (json_int_t)o->events_committed, "bytes", (json_int_t)o->bytes, "firstTimeNs",
        (json_int_t)o->first_time_ns, "lastTimeNs", (json_int_t)o->last_time_ns, "setAsideNs",
        (json_int_t)o->set_aside_ns, "reconciled", (int)o->reconciled, "error", o->error);
}

static json_t *silent_json(const sluice_v1_ClusterDone *done)
{
    json_t *list = json_array();

    for (pb_size_t i = 0; i < done->silent_count; i++)
        json_array_append_new(list, json_integer((json_int_t)done->silent[i]));
    return list;
}

static void print_silent(const sluice_v1_ClusterDone *done)
{
    for (pb_size_t i = 0; i < done->silent_count; i++)
        fprintf(stderr, "node %" PRIu32 " does not answer: what it has is not known\n",
                done->silent[i]);
}

static void print_orphan(const sluice_v1_Orphan *o)
{
    char first[CLI_TIME_BYTES], last[CLI_TIME_BYTES], bytes[CLI_BYTES_BYTES];

    printf("node %" PRIu32 "  %s\n", o->node, o->name);
    if (o->error[0] != '\0') {
        printf("    cannot be read: %s\n", o->error);
        return;
    }
    printf("    entries %" PRIu64 " to %" PRIu64 " of epoch %" PRIu64 ", %s; %" PRIu64
           " events, %s; epoch %" PRIu64 " has others there%s\n",
           (uint64_t)o->first, (uint64_t)o->last, (uint64_t)o->epoch,
           o->committed >= o->last    ? "all known as committed there"
           : o->committed >= o->first ? "some known as committed there"
                                      : "none known as committed there",
           (uint64_t)o->events, cli_bytes(bytes, o->bytes), (uint64_t)o->into,
           o->reconciled ? "; offered again" : "");
    printf("    from %s to %s\n", cli_time(first, (int64_t)o->first_time_ns),
           cli_time(last, (int64_t)o->last_time_ns));
}

int cluster_orphans(const struct cluster_options *o)
{
    const struct admin_request r = { .which = ADMIN_RECOVERY,
                                     .recovery.kind = sluice_v1_RecoveryRequest_Kind_ORPHANS };
    sluice_v1_ClusterDone *done;
    json_t *list;
    int fd, rc = cluster_manifest_create(o, &fd);

    if (rc != CLI_OK)
        return rc;
    done = calloc(1, sizeof *done);
    rc = done != NULL ? cluster_ask_long(o, &r, done) : cli_error(CLI_REFUSED, "no memory");
    if (rc == CLI_OK && o->common.json) {
        list = json_array();
        for (pb_size_t i = 0; i < done->orphans_count; i++)
            json_array_append_new(list, orphan_json(&done->orphans[i]));
        rc = cli_print_json(json_pack("{s:o, s:o}", "orphans", list, "silent", silent_json(done)),
                            CLI_OK);
    } else if (rc == CLI_OK) {
        for (pb_size_t i = 0; i < done->orphans_count; i++)
            print_orphan(&done->orphans[i]);
        if (done->orphans_count == 0)
            printf("none\n");
        print_silent(done);
        rc = cli_finish(CLI_OK);
    }
    rc = cluster_manifest_save(o, fd, rc, done != NULL ? done->manifest : "");
    free(done);
    return rc;
}

int cluster_reconcile(const struct cluster_options *o)
{
    const struct admin_request r = { .which = ADMIN_RECOVERY,
                                     .recovery.kind = sluice_v1_RecoveryRequest_Kind_RECONCILE };
    sluice_v1_ClusterDone *done = calloc(1, sizeof *done);
    const sluice_v1_ReconcileReport *t = &done->reconcile;
    int rc = done != NULL ? cluster_ask_long(o, &r, done) : cli_error(CLI_REFUSED, "no memory");

    if (rc == CLI_OK && o->common.json) {
        rc = cli_print_json(
            json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:o}", "result", done->sentence, "files",
                      (json_int_t)t->files, "accepted", (json_int_t)t->accepted, "duplicates",
                      (json_int_t)t->duplicates, "conflicts", (json_int_t)t->conflicts, "others",
                      (json_int_t)t->others, "silent", silent_json(done)),
            done->silent_count > 0 ? CLI_NEGATIVE : CLI_OK);
    } else if (rc == CLI_OK) {
        printf("%s\n", done->sentence);
        print_silent(done);
        rc = cli_finish(done->silent_count > 0 ? CLI_NEGATIVE : CLI_OK);
    }
    free(done);
    return rc;
}

/* --- the intake ---------------------------------------------------------------------------------
 */

/* A setting like others, so it is in force at every node, in the log, and in `config history`. */
static int set_paused(const struct cluster_options *o, const char *value, const char *sentence)
{
    struct admin_request r = { .which = ADMIN_SETTING_SET };
    sluice_v1_SettingEntry entry = sluice_v1_SettingEntry_init_zero;
    int rc;

    snprintf(r.setting_set.key, sizeof r.setting_set.key, "ingest.paused");
    snprintf(r.setting_set.value, sizeof r.setting_set.value, "%s", value);
    rc = cli_call(&o->common, &r, ADMIN_BODY_SETTING, sluice_v1_SettingEntry_fields, &entry);
    if (rc != CLI_OK)
        return rc;
    if (o->common.json)
        return cli_print_json(
            json_pack("{s:s, s:I}", "result", sentence, "index", (json_int_t)entry.index), CLI_OK);
    printf("%s\n", sentence);
    return cli_finish(CLI_OK);
}

int cluster_pause(const struct cluster_options *o)
{
    return set_paused(o, "1", "no node takes events: they are refused as PAUSED, to be sent again");
}

int cluster_resume(const struct cluster_options *o)
{
    return set_paused(o, "", "events are taken again");
}
