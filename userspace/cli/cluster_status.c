/*
 * cluster_status.c - `sluice cluster status` and `members`.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/hex.h"
#include "cli/cluster.h"
#include "cli/columns.h"

#define EPOCH_SHIFT 20 /* term = epoch << 20 | counter */
#define DAY_S       86400
#define NS_PER_S    1e9

/* How far a member is behind the leader. */
struct lag {
    bool known;
    uint64_t entries, bytes;
    double seconds;
};

static struct lag lag_of(const sluice_v1_NodeStatus *n, const sluice_v1_NodeStatus *leader)
{
    struct lag lag = { .known = leader != NULL };
    uint64_t held;

    if (leader == NULL || n->applied_index >= leader->commit_index)
        return lag;
    held = leader->last_index - leader->first_index + 1;
    lag.entries = leader->commit_index - n->applied_index;
    lag.bytes = (uint64_t)((double)leader->log_bytes / (double)held * (double)lag.entries);
    if (leader->last_time_ns > n->last_time_ns && n->last_time_ns != 0)
        lag.seconds = (double)(leader->last_time_ns - n->last_time_ns) / NS_PER_S;
    return lag;
}

int cluster_fetch_status(const struct cluster_options *o, sluice_v1_ClusterStatusResponse *ret)
{
    const struct admin_request r = { .which = ADMIN_CLUSTER_STATUS };

    return cli_call(&o->common, &r, ADMIN_BODY_CLUSTER_STATUS,
                    sluice_v1_ClusterStatusResponse_fields, ret);
}

/* A node of no cluster: what to do. */
static int show_waiting(const struct cluster_options *o, const sluice_v1_NodeStatus *self)
{
    if (o->common.json)
        return cli_print_json(json_pack("{s:I, s:s, s:s, s:b, s:[]}", "node",
                                        (json_int_t)self->node, "role", self->role, "address",
                                        self->address, "healthy", 0, "members"),
                              CLI_NEGATIVE);
    printf("node %" PRIu32 " is of no cluster yet. It waits at %s, for one of these:\n"
           "  sluice cluster init %" PRIu32
           "=%s NODE=HOST:PORT NODE=HOST:PORT   here: a new cluster\n"
           "  sluice cluster add %" PRIu32 "=%s   at a member: one more of that cluster\n",
           self->node, self->address, self->node, self->address, self->node, self->address);
    return cli_finish(CLI_NEGATIVE);
}

/* --- status for programs ------------------------------------------------------------------------
 */

static void set_number(json_t *o, const char *key, uint64_t n)
{
    json_object_set_new(o, key, json_integer((json_int_t)n));
}

static void set_text(json_t *o, const char *key, const char *text)
{
    json_object_set_new(o, key, json_string(text));
}

static json_t *member_json(const sluice_v1_ClusterMember *m, const sluice_v1_NodeStatus *leader)
{
    const sluice_v1_NodeStatus *n = &m->status;
    char place[CLUSTER_PLACE_BYTES], digest[2 * sizeof n->digest + 1];
    struct lag lag = lag_of(n, leader);
    json_t *o = json_object();

    set_number(o, "node", m->member.node);
    json_object_set_new(o, "voter", json_boolean(m->member.voter));
    set_text(o, "role", cluster_role(m));
    set_text(o, "address", cluster_place(place, m->member.address));
    if (!m->has_status) {
        set_text(o, "silent", m->sentence);
        return o;
    }
    set_text(o, "zone", n->zone);
    set_number(o, "region", n->region);
    set_text(o, "version", n->version);
    set_number(o, "term", n->term);
    set_number(o, "epoch", n->epoch);
    set_number(o, "leader", n->leader);
    set_number(o, "firstIndex", n->first_index);
    set_number(o, "lastIndex", n->last_index);
    set_number(o, "persistedIndex", n->persisted_index);
    set_number(o, "commitIndex", n->commit_index);
    set_number(o, "appliedIndex", n->applied_index);
    set_number(o, "lastTimeNs", n->last_time_ns);
    if (lag.known) {
        set_number(o, "lagEntries", lag.entries);
        set_number(o, "lagBytes", lag.bytes);
        json_object_set_new(o, "lagSeconds", json_real(lag.seconds));
    }
    set_number(o, "logBytes", n->log_bytes);
    set_number(o, "diskFreeBytes", n->disk_free_bytes);
    json_object_set_new(o, "diskFull", json_boolean(n->disk_full));
    set_number(o, "certificateUntil", (uint64_t)n->certificate_until_s);
    hex_put(digest, n->digest, sizeof n->digest);
    set_text(o, "digest", digest);
    set_text(o, "change", n->change);
    return o;
}

static json_t *status_json(const sluice_v1_ClusterStatusResponse *s, json_t *problems,
                           json_t *notes)
{
    const sluice_v1_NodeStatus *leader = cluster_leader(s);
    char id[2 * sizeof s->self.cluster_id + 1];
    json_t *members = json_array();

    hex_put(id, s->self.cluster_id, sizeof s->self.cluster_id);
    for (pb_size_t i = 0; i < s->members_count; i++)
        json_array_append_new(members, member_json(&s->members[i], leader));
    return json_pack("{s:I, s:s, s:s, s:I, s:b, s:o, s:o, s:O, s:O}", "node",
                     (json_int_t)s->self.node, "role", s->self.role, "clusterId", id, "leader",
                     (json_int_t)(leader != NULL ? leader->node : 0), "healthy",
                     json_array_size(problems) == 0, "members", members, "regions",
                     cluster_regions_json(s), "problems", problems, "notes", notes);
}

/* --- status for people --------------------------------------------------------------------------
 */

static void cell_lag(struct columns *t, const sluice_v1_ClusterMember *m,
                     const sluice_v1_NodeStatus *leader)
{
    struct lag lag = lag_of(&m->status, leader);
    char number[COLUMNS_NUMBER_BYTES], bytes[CLI_BYTES_BYTES];

    if (!lag.known)
        columns_text(t, "?");
    else if (&m->status == leader)
        columns_text(t, "-");
    else if (lag.entries == 0)
        columns_text(t, "0");
    else
        columns_text(t, "%s (about %s, %.1f s)",
                     columns_number_text(number, lag.entries, t->separators),
                     cli_bytes(bytes, lag.bytes), lag.seconds);
}

static void row(struct columns *t, const sluice_v1_ClusterMember *m,
                const sluice_v1_NodeStatus *leader, int64_t now_s)
{
    const sluice_v1_NodeStatus *n = &m->status;
    char place[CLUSTER_PLACE_BYTES], bytes[CLI_BYTES_BYTES];

    columns_text(t, "%" PRIu32, m->member.node);
    columns_text(t, "%s", cluster_role(m));
    if (!m->has_status) {
        for (int i = 0; i < 10; i++)
            columns_text(t, "%s", "");
    } else {
        columns_text(t, "%s", n->zone);
        columns_text(t, "%" PRIu64, (uint64_t)(n->term & ((1u << EPOCH_SHIFT) - 1)));
        columns_text(t, "%" PRIu64, (uint64_t)n->epoch);
        columns_number(t, n->last_index);
        columns_number(t, n->commit_index);
        columns_number(t, n->applied_index);
        cell_lag(t, m, leader);
        columns_text(t, "%s", cli_bytes(bytes, n->log_bytes));
        columns_text(t, "%s%s", cli_bytes(bytes, n->disk_free_bytes), n->disk_full ? " FULL" : "");
        if (n->certificate_until_s == 0)
            columns_text(t, "-");
        else
            columns_text(t, "%" PRId64 " d", (n->certificate_until_s - now_s) / DAY_S);
    }
    columns_text(t, "%s", cluster_place(place, m->member.address));
    columns_text(t, "%s", m->has_status ? n->version : "");
}

static void print_list(const char *name, const json_t *list)
{
    size_t i;
    json_t *sentence;

    json_array_foreach(list, i, sentence) { printf("%s: %s\n", name, json_string_value(sentence)); }
}

static int print_status(const sluice_v1_ClusterStatusResponse *s, const json_t *problems,
                        const json_t *notes, int64_t now_s)
{
    static const char *const heads[] = { "node", "role",      "zone",    "term",   "epoch",
                                         "last", "committed", "applied", "behind", "log",
                                         "free", "cert ends", "address", "version" };
    struct columns *t = calloc(1, sizeof *t);

    if (t == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    columns_init(t, "rllrrrrrrrrrll", isatty(STDOUT_FILENO));
    for (size_t i = 0; i < sizeof heads / sizeof *heads; i++)
        columns_text(t, "%s", heads[i]);
    for (pb_size_t i = 0; i < s->members_count; i++)
        row(t, &s->members[i], cluster_leader(s), now_s);
    columns_print(t, stdout, 0);
    free(t);
    cluster_print_regions(s);
    print_list("problem", problems);
    print_list("note", notes);
    return cli_finish(json_array_size(problems) == 0 ? CLI_OK : CLI_NEGATIVE);
}

int cluster_show_status(const struct cluster_options *o)
{
    sluice_v1_ClusterStatusResponse *s = calloc(1, sizeof *s);
    json_t *problems = json_array(), *notes = json_array();
    int64_t now_s = time(NULL);
    int rc;

    if (s == NULL)
        rc = cli_error(CLI_REFUSED, "no memory");
    else
        rc = cluster_fetch_status(o, s);
    if (rc == CLI_OK && s->members_count == 0) {
        rc = show_waiting(o, &s->self);
    } else if (rc == CLI_OK) {
        cluster_judge(s, now_s, problems, notes);
        if (o->common.json)
            rc = cli_print_json(status_json(s, problems, notes),
                                json_array_size(problems) == 0 ? CLI_OK : CLI_NEGATIVE);
        else
            rc = print_status(s, problems, notes, now_s);
    }
    json_decref(problems);
    json_decref(notes);
    free(s);
    return rc;
}

/* --- members ------------------------------------------------------------------------------------
 */

static int print_members(const sluice_v1_NodeStatus *self)
{
    struct columns *t = calloc(1, sizeof *t);
    char place[CLUSTER_PLACE_BYTES];

    if (t == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    columns_init(t, "rlll", false);
    for (pb_size_t i = 0; i < self->members_count; i++) {
        columns_text(t, "%" PRIu32, self->members[i].node);
        columns_text(t, "%s", self->members[i].voter ? "voter" : "standby");
        columns_text(t, "%s", cluster_place(place, self->members[i].address));
        columns_text(t, "%s", self->members[i].node == self->leader ? "leads" : "");
    }
    columns_print(t, stdout, 0);
    free(t);
    return cli_finish(CLI_OK);
}

static json_t *members_json(const sluice_v1_NodeStatus *self)
{
    json_t *members = json_array();
    char place[CLUSTER_PLACE_BYTES];

    for (pb_size_t i = 0; i < self->members_count; i++)
        json_array_append_new(members, json_pack("{s:I, s:b, s:s}", "node",
                                                 (json_int_t)self->members[i].node, "voter",
                                                 (int)self->members[i].voter, "address",
                                                 cluster_place(place, self->members[i].address)));
    return json_pack("{s:I, s:I, s:o}", "node", (json_int_t)self->node, "leader",
                     (json_int_t)self->leader, "members", members);
}

int cluster_show_members(const struct cluster_options *o)
{
    sluice_v1_ClusterStatusResponse *s = calloc(1, sizeof *s);
    int rc = s == NULL ? cli_error(CLI_REFUSED, "no memory") : cluster_fetch_status(o, s);

    if (rc == CLI_OK && s->members_count == 0)
        rc = show_waiting(o, &s->self);
    else if (rc == CLI_OK && o->common.json)
        rc = cli_print_json(members_json(&s->self), CLI_OK);
    else if (rc == CLI_OK)
        rc = print_members(&s->self);
    free(s);
    return rc;
}
