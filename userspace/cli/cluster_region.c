/*
 * cluster_region.c - the regions of a cluster: what `sluice cluster status` says of each, and
 * `switchover`.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "cli/cluster.h"

#define REGIONS  2u
#define NS_PER_S 1e9

/* What is known of one, by what its members say. */
struct region {
    unsigned members, answer, voters;
    uint64_t last; /* what one of those that answer has durably, at most */
    int64_t last_time_ns;
};

static unsigned region_of(const sluice_v1_ClusterMember *m)
{
    const char *slash = strchr(m->member.address, '/');

    return slash != NULL && (slash[1] == '1' || slash[1] == '2') ? (unsigned)(slash[1] - '0') : 0;
}

static void look(const sluice_v1_ClusterStatusResponse *s, struct region ret[REGIONS])
{
    memset(ret, 0, REGIONS * sizeof *ret);
    for (pb_size_t i = 0; i < s->members_count; i++) {
        const sluice_v1_ClusterMember *m = &s->members[i];
        struct region *r = &ret[region_of(m) == 2];

        r->members += region_of(m) != 0;
        r->voters += m->member.voter;
        r->answer += m->has_status;
        if (!m->has_status)
            continue;
        if (m->status.persisted_index > r->last)
            r->last = m->status.persisted_index;
        if ((int64_t)m->status.last_time_ns > r->last_time_ns)
            r->last_time_ns = (int64_t)m->status.last_time_ns;
    }
}

/* What is committed, and would not be there after a failover to r now. */
struct loss {
    uint64_t entries, bytes;
    double seconds;
};

static struct loss loss_of(const struct region *r, const sluice_v1_NodeStatus *leader)
{
    struct loss loss = { 0 };
    uint64_t held = leader->last_index + 1 - leader->first_index;

    if (leader->commit_index <= r->last)
        return loss;
    loss.entries = leader->commit_index - r->last;
    if (held > 0)
        loss.bytes = (uint64_t)((double)leader->log_bytes / (double)held * (double)loss.entries);
    if ((int64_t)leader->last_time_ns > r->last_time_ns && r->last_time_ns != 0)
        loss.seconds = (double)((int64_t)leader->last_time_ns - r->last_time_ns) / NS_PER_S;
    return loss;
}

static bool is_active(const struct region *r) { return r->voters >= CLUSTER_VOTERS_MIN; }

json_t *cluster_regions_json(const sluice_v1_ClusterStatusResponse *s)
{
    const sluice_v1_NodeStatus *leader = cluster_leader(s);
    struct region all[REGIONS];
    json_t *list = json_array();

    look(s, all);
    for (unsigned i = 0; i < REGIONS && all[0].members > 0 && all[1].members > 0; i++) {
        const struct region *r = &all[i];
        json_t *o =
            json_pack("{s:i, s:b, s:i, s:i, s:i, s:I}", "region", (int)i + 1, "active",
                      (int)is_active(r), "members", (int)r->members, "answer", (int)r->answer,
                      "voters", (int)r->voters, "persistedIndex", (json_int_t)r->last);

        if (leader != NULL && r->answer > 0) { /* else it is not known */
            const struct loss loss = loss_of(r, leader);

            json_object_set_new(o, "durableIndex", json_integer((json_int_t)leader->region_index));
            json_object_set_new(o, "lossEntries", json_integer((json_int_t)loss.entries));
            json_object_set_new(o, "lossBytes", json_integer((json_int_t)loss.bytes));
            json_object_set_new(o, "lossSeconds", json_real(loss.seconds));
        }
        json_array_append_new(list, o);
    }
    return list;
}

void cluster_print_regions(const sluice_v1_ClusterStatusResponse *s)
{
    const sluice_v1_NodeStatus *leader = cluster_leader(s);
    struct region all[REGIONS];

    look(s, all);
    for (unsigned i = 0; i < REGIONS && all[0].members > 0 && all[1].members > 0; i++) {
        const struct region *r = &all[i];
        char bytes[CLI_BYTES_BYTES];
        struct loss loss;

        printf("region %u: %s, %u of %u nodes answer", i + 1,
               r->voters == 0 ? "standby"
               : is_active(r) ? "active"
                              : "in a switchover",
               r->answer, r->members);
        if (r->voters > 0 || leader == NULL) {
            printf("\n");
            continue;
        }
        if (r->answer == 0) {
            printf(": what a failover to it now would lose is not known\n");
            continue;
        }
        loss = loss_of(r, leader);
        printf("; both regions have the log to index %" PRIu64, (uint64_t)leader->region_index);
        if (loss.entries == 0)
            printf("; a failover to it now would lose nothing\n");
        else
            printf("; a failover to it now would lose %" PRIu64 " entries, about %s, %.1f s\n",
                   loss.entries, cli_bytes(bytes, loss.bytes), loss.seconds);
    }
}

void cluster_judge_regions(const sluice_v1_ClusterStatusResponse *s, json_t *problems)
{
    struct region all[REGIONS];
    char sentence[160];

    look(s, all);
    for (unsigned i = 0; i < REGIONS; i++) {
        const struct region *r = &all[i];

        if (r->members == 0 || r->voters > 0 || r->answer > r->members / 2)
            continue;
        snprintf(sentence, sizeof sentence,
                 "%u of %u nodes of region %u answer: nothing can be durable in both regions",
                 r->answer, r->members, i + 1);
        json_array_append_new(problems, json_string(sentence));
    }
}

int cluster_switchover(const struct cluster_options *o)
{
    struct admin_request r = { .which = ADMIN_CLUSTER_CHANGE };

    if (o->to == 0)
        return cli_usage("cluster", "switchover takes --to REGION, which is 1 or 2");
    r.cluster_change.kind = sluice_v1_MembershipRequest_Kind_SWITCHOVER;
    r.cluster_change.region = o->to;
    return cluster_carry_out(o, &r);
}
