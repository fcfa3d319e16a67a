/*
 * cluster_health.c - what is wrong with a cluster, by what its members say of themselves.
 *
 * A problem makes it unhealthy; a note is what will become one, or what one should know.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "cli/cluster.h"

#define DAY_S                86400
#define CERTIFICATE_DAYS_MIN 30

__attribute__((format(printf, 2, 3))) static void say(json_t *list, const char *format, ...)
{
    char sentence[512];
    va_list args;

    va_start(args, format);
    vsnprintf(sentence, sizeof sentence, format, args);
    va_end(args);
    json_array_append_new(list, json_string(sentence));
}

const sluice_v1_NodeStatus *cluster_leader(const sluice_v1_ClusterStatusResponse *s)
{
    const sluice_v1_NodeStatus *leader = NULL;

    for (pb_size_t i = 0; i < s->members_count; i++) {
        const sluice_v1_NodeStatus *n = &s->members[i].status;

        if (s->members[i].has_status && strcmp(n->role, "leader") == 0 &&
            (leader == NULL || n->term > leader->term))
            leader = n;
    }
    return leader;
}

const char *cluster_role(const sluice_v1_ClusterMember *m)
{
    if (!m->has_status)
        return "silent";
    return strcmp(m->status.role, "follower") == 0 && !m->member.voter ? "standby" : m->status.role;
}

const char *cluster_place(char ret[CLUSTER_PLACE_BYTES], const char *address)
{
    snprintf(ret, CLUSTER_PLACE_BYTES, "%.*s", (int)strcspn(address, "/"), address);
    return ret;
}

/* After a failover, or in one. */
static void judge_epochs(const sluice_v1_ClusterStatusResponse *s, json_t *problems)
{
    const sluice_v1_NodeStatus *leader = cluster_leader(s);

    for (pb_size_t i = 0; i < s->members_count; i++) {
        const sluice_v1_NodeStatus *n = &s->members[i].status;

        if (!s->members[i].has_status)
            continue;
        if (strcmp(n->role, "fenced") == 0)
            say(problems, "node %" PRIu32 " is %.400s", n->node,
                n->note[0] != '\0' ? n->note : "fenced");
        else if (leader != NULL && n->epoch != leader->epoch && n->last_index > 0)
            say(problems, "node %" PRIu32 " is of epoch %" PRIu64 ", the leader of %" PRIu64,
                n->node, (uint64_t)n->epoch, (uint64_t)leader->epoch);
    }
}

static void judge_voters(const sluice_v1_ClusterStatusResponse *s, json_t *problems, json_t *notes)
{
    unsigned voters = 0, answer = 0;

    for (pb_size_t i = 0; i < s->members_count; i++) {
        voters += s->members[i].member.voter;
        answer += s->members[i].member.voter && s->members[i].has_status;
    }
    if (voters == 1) {
        say(notes, "a cluster of one: no other node has what this one has");
        return;
    }
    if (answer <= voters / 2)
        say(problems, "%u of %u voters answer: nothing can be committed", answer, voters);
    else if (answer < CLUSTER_VOTERS_MIN)
        say(problems, "%u of %u voters answer: with the loss of another nothing can be committed",
            answer, voters);
    else if (voters % 2 == 0)
        say(notes, "%u voters survive the loss of no more than %u would", voters, voters - 1);
}

/* Who was taken out hears no more of it: what it knows is old. */
static void judge_members(const sluice_v1_ClusterStatusResponse *s, json_t *problems)
{
    const sluice_v1_NodeStatus *leader = cluster_leader(s);

    for (pb_size_t i = 0; leader != NULL && i < s->members_count; i++) {
        bool there = false;

        for (pb_size_t k = 0; k < leader->members_count; k++)
            there = there || leader->members[k].node == s->members[i].member.node;
        if (!there)
            say(problems,
                "node %" PRIu32 " is no member any more, says node %" PRIu32 ", which leads",
                s->members[i].member.node, leader->node);
    }
}

/* Everybody that shares m's zone is named by the first of them. */
static void judge_zone(const sluice_v1_ClusterStatusResponse *s, pb_size_t at, json_t *notes)
{
    const char *zone = s->members[at].status.zone;
    char nodes[128] = "";
    size_t used = 0;

    for (pb_size_t i = 0; i < s->members_count; i++) {
        const sluice_v1_ClusterMember *m = &s->members[i];

        if (!m->has_status || !m->member.voter || strcmp(m->status.zone, zone) != 0)
            continue;
        if (i < at)
            return;
        used += (size_t)snprintf(nodes + used, sizeof nodes - used, "%s%" PRIu32,
                                 used > 0 ? ", " : "", m->member.node);
    }
    if (strchr(nodes, ',') != NULL)
        say(notes, "nodes %s share the zone '%s': what takes one away may take all of them", nodes,
            zone);
}

static void judge_certificate(const sluice_v1_NodeStatus *n, int64_t now_s, json_t *problems,
                              json_t *notes)
{
    int64_t left_s = n->certificate_until_s - now_s;

    if (n->certificate_until_s == 0)
        return;
    if (left_s <= 0)
        say(problems, "node %" PRIu32 ": its certificate has expired", n->node);
    else if (left_s < CERTIFICATE_DAYS_MIN * (int64_t)DAY_S)
        say(notes, "node %" PRIu32 ": its certificate ends in %" PRId64 " days", n->node,
            left_s / DAY_S);
}

/* Logs that end at the same index have the same chain, if all of it is committed. */
static void judge_digests(const sluice_v1_ClusterStatusResponse *s, const sluice_v1_NodeStatus *n,
                          json_t *problems)
{
    const sluice_v1_NodeStatus *leader = cluster_leader(s);

    if (leader == NULL || n->last_index != leader->last_index || n->commit_index != n->last_index ||
        leader->commit_index != leader->last_index ||
        memcmp(n->digest, leader->digest, sizeof n->digest) == 0)
        return;
    say(problems,
        "node %" PRIu32 ": its log to index %" PRIu64 " is not the leader's; check both with "
        "sluice log verify",
        n->node, (uint64_t)n->last_index);
}

void cluster_judge(const sluice_v1_ClusterStatusResponse *s, int64_t now_s, json_t *problems,
                   json_t *notes)
{
    const sluice_v1_NodeStatus *first = NULL;

    if (cluster_leader(s) == NULL)
        say(problems, "no node leads: nothing is taken now");
    judge_members(s, problems);
    for (pb_size_t i = 0; i < s->members_count; i++) {
        const sluice_v1_ClusterMember *m = &s->members[i];

        if (!m->has_status) {
            say(problems, "node %" PRIu32 " is silent: %s", m->member.node, m->sentence);
            continue;
        }
        if (m->status.disk_full)
            say(problems, "node %" PRIu32 ": its disk is full", m->member.node);
        judge_certificate(&m->status, now_s, problems, notes);
        judge_digests(s, &m->status, problems);
        if (m->member.voter)
            judge_zone(s, i, notes);
        if (first != NULL && strcmp(first->version, m->status.version) != 0)
            say(notes, "node %" PRIu32 " has version %s, node %" PRIu32 " %s", first->node,
                first->version, m->status.node, m->status.version);
        first = first == NULL ? &m->status : first;
        if (m->status.change[0] != '\0')
            say(notes, "under way: %s", m->status.change);
    }
    judge_epochs(s, problems);
    judge_voters(s, problems, notes);
    cluster_judge_regions(s, problems);
}
