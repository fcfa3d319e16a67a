/*
 * status.c - `sluice status`: what the node is, and how it is doing.
 */
#include "cli/cli.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/hex.h"
#include "cli/columns.h"

static const char help[] =
    "sluice status [--json]\n\n"
    "Shows the node: role, log, dedupe, memory, workers, and what is unusual now.\n"
    "Exit code 1 when the node has failed or its disk is full.\n\n"
    "Options:\n" CLI_OPTIONS_HELP "\nExamples:\n"
    "  sluice status\n"
    "  sluice status --json | jq .commitIndex\n" CLI_EXIT_HELP;

static json_t *workers_json(const sluice_v1_StatusResponse *s)
{
    json_t *list = json_array();
    pb_size_t i;

    for (i = 0; i < s->workers_count; i++)
        json_array_append_new(list, json_pack("{s:I, s:I, s:I, s:I}", "worker",
                                              (json_int_t)s->workers[i].worker, "connections",
                                              (json_int_t)s->workers[i].connections, "blocksFree",
                                              (json_int_t)s->workers[i].blocks_free, "blocks",
                                              (json_int_t)s->workers[i].blocks));
    return list;
}

static json_t *peers_json(const sluice_v1_StatusResponse *s)
{
    json_t *list = json_array();

    for (pb_size_t i = 0; i < s->peers_count; i++)
        json_array_append_new(
            list, json_pack("{s:I, s:b, s:s, s:I}", "node", (json_int_t)s->peers[i].node, "voter",
                            (int)s->peers[i].voter, "address", s->peers[i].address, "connectedNs",
                            (json_int_t)s->peers[i].connected_ns));
    return list;
}

static void set_number(json_t *o, const char *key, uint64_t n)
{
    json_object_set_new(o, key, json_integer((json_int_t)n));
}

static json_t *status_json(const sluice_v1_StatusResponse *s)
{
    char cluster[33], digest[65];
    json_t *o, *list;
    pb_size_t i;

    hex_put(cluster, s->cluster_id.bytes, s->cluster_id.size);
    hex_put(digest, s->digest.bytes, s->digest.size);
    o = json_pack("{s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:s, s:b}", "version", s->version,
                  "role", s->role, "nodeName", s->node_name, "regionName", s->region_name,
                  "clusterId", cluster, "digest", digest, "dataDir", s->data_dir, "error", s->error,
                  "xdp", s->xdp, "diskFull", s->disk_full);
    if (o == NULL)
        return NULL;
    set_number(o, "uptimeNs", s->uptime_ns);
    set_number(o, "startNs", s->start_ns);
    set_number(o, "node", s->node);
    set_number(o, "region", s->region);
    set_number(o, "term", s->term);
    set_number(o, "epoch", s->epoch);
    set_number(o, "leader", s->leader);
    set_number(o, "leaderHeardNs", s->leader_heard_ns);
    if (s->lag_ns != UINT64_MAX)
        set_number(o, "lagNs", s->lag_ns);
    json_object_set_new(o, "peers", peers_json(s));
    set_number(o, "firstIndex", s->first_index);
    set_number(o, "lastIndex", s->last_index);
    set_number(o, "persistedIndex", s->persisted_index);
    set_number(o, "commitIndex", s->commit_index);
    set_number(o, "appliedIndex", s->applied_index);
    set_number(o, "checkpointIndex", s->checkpoint_index);
    set_number(o, "events", s->events);
    set_number(o, "logBytes", s->log_bytes);
    set_number(o, "diskFreeBytes", s->disk_free_bytes);
    set_number(o, "dedupeKeys", s->dedupe_keys);
    set_number(o, "dedupeMemoryBytes", s->dedupe_memory_bytes);
    set_number(o, "dedupeRuns", s->dedupe_runs);
    set_number(o, "dedupeDiskBytes", s->dedupe_disk_bytes);
    set_number(o, "rssBytes", s->rss_bytes);
    json_object_set_new(o, "workers", workers_json(s));
    json_object_set_new(o, "listening", list = json_array());
    for (i = 0; i < s->listening_count; i++)
        json_array_append_new(list, json_string(s->listening[i]));
    json_object_set_new(o, "notes", list = json_array());
    for (i = 0; i < s->notes_count; i++)
        json_array_append_new(list, json_string(s->notes[i]));
    return o;
}

static const char *duration_text(char ret[48], uint64_t ns)
{
    uint64_t s = ns / 1000000000u;

    if (s >= 86400)
        snprintf(ret, 48, "%" PRIu64 " d %" PRIu64 " h", s / 86400, s / 3600 % 24);
    else if (s >= 3600)
        snprintf(ret, 48, "%" PRIu64 " h %" PRIu64 " min", s / 3600, s / 60 % 60);
    else if (s >= 60)
        snprintf(ret, 48, "%" PRIu64 " min %" PRIu64 " s", s / 60, s % 60);
    else
        snprintf(ret, 48, "%.3f s", (double)ns / 1e9);
    return ret;
}

static void row(struct columns *t, const char *key, const char *value)
{
    columns_text(t, "%s", key);
    columns_text(t, "%s", value);
}

static void row_role(struct columns *t, const sluice_v1_StatusResponse *s)
{
    bool follows = strcmp(s->role, "follower") == 0;
    char leader[64] = "";

    if (follows && s->leader != 0)
        snprintf(leader, sizeof leader, " of node %" PRIu32 " (heard %.1f s ago)", s->leader,
                 (double)s->leader_heard_ns / 1e9);
    columns_text(t, "role");
    columns_text(t, "%s%s, term %" PRIu64 ", epoch %" PRIu64, s->role,
                 follows && s->leader == 0 ? " of nobody now" : leader, (uint64_t)s->term,
                 (uint64_t)s->epoch);
}

static void row_peers(struct columns *t, const sluice_v1_StatusResponse *s)
{
    char text[48];

    for (pb_size_t i = 0; i < s->peers_count; i++) {
        const sluice_v1_PeerStatus *p = &s->peers[i];

        columns_text(t, "peer %" PRIu32, p->node);
        columns_text(t, "%.*s, %s, %s%s", (int)strcspn(p->address, "/"), p->address,
                     p->voter ? "voter" : "standby",
                     p->connected_ns != 0 ? "connected for " : "NOT CONNECTED",
                     p->connected_ns != 0 ? duration_text(text, p->connected_ns) : "");
    }
}

static void row_log(struct columns *t, const sluice_v1_StatusResponse *s)
{
    char a[COLUMNS_NUMBER_BYTES], b[COLUMNS_NUMBER_BYTES], c[COLUMNS_NUMBER_BYTES], x[32], y[32];
    char digest[65];
    bool sep = t->separators;

    columns_text(t, "log");
    columns_text(
        t, "indexes %s to %s, committed to %s", columns_number_text(a, s->first_index, sep),
        columns_number_text(b, s->last_index, sep), columns_number_text(c, s->commit_index, sep));
    columns_text(t, "%s", "");
    columns_text(t, "on disk to %s, applied to %s, checkpoint at %s",
                 columns_number_text(a, s->persisted_index, sep),
                 columns_number_text(b, s->applied_index, sep),
                 columns_number_text(c, s->checkpoint_index, sep));
    columns_text(t, "events");
    columns_text(t, "%s", columns_number_text(a, s->events, sep));
    columns_text(t, "disk");
    columns_text(t, "%s of log, %s free%s", cli_bytes(x, s->log_bytes),
                 cli_bytes(y, s->disk_free_bytes),
                 s->disk_full ? "; FULL: events are refused" : "");
    hex_put(digest, s->digest.bytes, s->digest.size);
    row(t, "digest", digest);
    columns_text(t, "dedupe");
    columns_text(t, "%s keys, %s in memory; %s runs, %s on disk",
                 columns_number_text(a, s->dedupe_keys, sep), cli_bytes(x, s->dedupe_memory_bytes),
                 columns_number_text(b, s->dedupe_runs, sep), cli_bytes(y, s->dedupe_disk_bytes));
}

static void print_text(const sluice_v1_StatusResponse *s)
{
    struct columns *t = calloc(1, sizeof *t);
    char text[48], id[33], mem[32];
    pb_size_t i;

    if (t == NULL)
        return;
    columns_init(t, "ll", isatty(STDOUT_FILENO));
    columns_text(t, "node");
    columns_text(t, "%" PRIu32 " %s, region %" PRIu32 " %s", s->node, s->node_name, s->region,
                 s->region_name);
    row_role(t, s);
    if (s->error[0] != '\0')
        row(t, "error", s->error);
    columns_text(t, "up");
    columns_text(t, "%s, sluiced %s", duration_text(text, s->uptime_ns), s->version);
    row(t, "started in", duration_text(text, s->start_ns));
    row_log(t, s);
    if (s->xdp[0] != '\0')
        row(t, "xdp", s->xdp);
    row(t, "memory", cli_bytes(mem, s->rss_bytes));
    hex_put(id, s->cluster_id.bytes, s->cluster_id.size);
    row(t, "cluster", id);
    row_peers(t, s);
    row(t, "data", s->data_dir);
    for (i = 0; i < s->listening_count; i++)
        row(t, i ? "" : "listening", s->listening[i]);
    for (i = 0; i < s->workers_count; i++) {
        columns_text(t, "worker %" PRIu32, s->workers[i].worker);
        columns_text(t, "%" PRIu32 " connections, %" PRIu32 " of %" PRIu32 " blocks free",
                     s->workers[i].connections, s->workers[i].blocks_free, s->workers[i].blocks);
    }
    for (i = 0; i < s->notes_count; i++)
        row(t, "note", s->notes[i]);
    columns_print(t, stdout, 0);
    free(t);
}

int status_main(int argc, char **argv)
{
    static const struct option options[] = { CLI_LONG_OPTIONS };
    struct cli_options o = { 0 };
    struct admin_request r = { .which = ADMIN_STATUS };
    sluice_v1_StatusResponse *s;
    int opt, rc;

    while ((opt = getopt_long(argc, argv, "", options, NULL)) != -1) {
        rc = cli_option(&o, opt, help);
        if (rc >= 0)
            return rc;
    }
    if (optind < argc)
        return cli_usage("status", "what is '%s' for?", argv[optind]);
    s = calloc(1, sizeof *s);
    if (s == NULL)
        return cli_error(CLI_REFUSED, "no memory");
    rc = cli_call(&o, &r, ADMIN_BODY_STATUS, sluice_v1_StatusResponse_fields, s);
    if (rc == CLI_OK) {
        rc = s->error[0] || s->disk_full || strcmp(s->role, "failed") == 0 ? CLI_NEGATIVE : CLI_OK;
        if (o.json) {
            rc = cli_print_json(status_json(s), rc);
        } else {
            print_text(s);
            rc = cli_finish(rc);
        }
    }
    free(s);
    return rc;
}
