/*
 * pipeline_admin.c - answers the admin server's questions about the node. Admin thread.
 */
#include <errno.h>
#include <inttypes.h>
#include <pb_decode.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/clock.h"
#include "client/sluice.h"
#include "pipeline_internal.h"

#define HISTORY_CHANGES_MAX 100000u /* that one listing goes back */
_Static_assert(SETTINGS_ERROR_BYTES <= ADMIN_ERROR_BYTES, "a refused setting's sentence is whole");

static uint64_t rss_bytes(void)
{
    unsigned long long size, resident = 0;
    FILE *f = fopen("/proc/self/statm", "re");

    if (f == NULL)
        return 0;
    if (fscanf(f, "%llu %llu", &size, &resident) != 2)
        resident = 0;
    fclose(f);
    return resident * (uint64_t)sysconf(_SC_PAGESIZE);
}

static const char *role_name(enum cluster_state s)
{
    switch (s) {
    case CLUSTER_STARTING:
        return "starting";
    case CLUSTER_WAITING:
        return "waiting";
    case CLUSTER_REPAIRING:
        return "repairing";
    case CLUSTER_FENCED:
        return "fenced";
    case CLUSTER_FOLLOWER:
        return "follower";
    case CLUSTER_LEADER:
        return "leader";
    case CLUSTER_FAILED:
        return "failed";
    default:
        return "stopped";
    }
}

static void add_note(sluice_v1_StatusResponse *r, const char *note)
{
    const size_t max = sizeof r->notes / sizeof r->notes[0];

    for (pb_size_t i = 0; i < r->notes_count; i++) {
        if (strcmp(r->notes[i], note) == 0)
            return;
    }
    if (r->notes_count < max)
        snprintf(r->notes[r->notes_count++], sizeof r->notes[0], "%s", note);
}

static void add_port_note(sluice_v1_StatusResponse *r, const struct prefilter_port *port)
{
    char note[sizeof r->notes[0]];

    if (port->mode != PREFILTER_SOCKET && !port->attached) {
        snprintf(note, sizeof note, "xdp on %.15s: the program is no longer attached", port->name);
        add_note(r, note);
    }
    if (port->note[0] == '\0')
        return;
    snprintf(note, sizeof note, "xdp on %.15s: %.*s", port->name, (int)sizeof note - 32,
             port->note);
    add_note(r, note);
}

static void add_listening(struct pipeline *p, sluice_v1_StatusResponse *r, uint16_t udp,
                          uint16_t tcp)
{
    const struct config_addresses *a = &p->config->ingest.address;
    const size_t max = sizeof r->listening / sizeof r->listening[0];
    char ip[INET6_ADDRSTRLEN];

    for (uint32_t i = 0; i < a->n; i++) {
        bool v4 = IN6_IS_ADDR_V4MAPPED(&a->at[i].ip);

        config_address_text(&a->at[i].ip, ip);
        if (udp != 0 && r->listening_count < max)
            snprintf(r->listening[r->listening_count++], sizeof r->listening[0],
                     v4 ? "udp %s:%u" : "udp [%s]:%u", ip, udp);
        if (tcp != 0 && r->listening_count < max)
            snprintf(r->listening[r->listening_count++], sizeof r->listening[0],
                     v4 ? "tcp %s:%u" : "tcp [%s]:%u", ip, tcp);
    }
}

static void status_workers(struct pipeline *p, sluice_v1_StatusResponse *r)
{
    struct worker_snapshot s;

    pthread_mutex_lock(&p->snapshot_lock);
    for (unsigned i = 0; i < p->workers; i++) {
        worker_snapshot(p->worker[i], &s);
        r->workers[i] = (sluice_v1_WorkerStatus){ i, s.connections, s.blocks_free, s.blocks };
        if (s.fallback[0] != '\0')
            add_note(r, s.fallback);
        if (i == 0)
            add_listening(p, r, s.udp_port, s.tcp_port);
    }
    r->workers_count = (pb_size_t)p->workers;
    pthread_mutex_unlock(&p->snapshot_lock);
}

static void on_status(void *arg, sluice_v1_StatusResponse *r)
{
    struct pipeline *p = arg;
    struct cluster_status c;
    struct dedupe_stats d;

    cluster_status(p->cluster, &c);
    store_stats(p->store, &d);
    snprintf(r->version, sizeof r->version, "%s", SLUICE_VERSION);
    r->uptime_ns = clock_monotonic_ns() - p->started_ns;
    r->node = c.node;
    snprintf(r->node_name, sizeof r->node_name, "%s", p->config->node.name);
    r->region = c.region;
    snprintf(r->region_name, sizeof r->region_name, "%s", p->config->node.region_name);
    if (c.state != CLUSTER_WAITING) {
        r->cluster_id.size = sizeof c.cluster_id;
        memcpy(r->cluster_id.bytes, c.cluster_id, sizeof c.cluster_id);
    }
    snprintf(r->role, sizeof r->role, "%s", role_name(c.state));
    r->term = c.term;
    r->epoch = c.epoch;
    r->first_index = c.first_index;
    r->last_index = c.last_index;
    r->persisted_index = c.persisted_index;
    r->commit_index = c.commit_index;
    r->applied_index = c.applied_index;
    r->checkpoint_index = c.checkpoint_index;
    r->log_bytes = c.log_bytes;
    r->disk_free_bytes = c.disk_free_bytes;
    r->disk_full = c.disk_full;
    r->events = c.events;
    r->leader = c.leader;
    r->leader_heard_ns = c.leader_heard_ns;
    r->lag_ns = c.lag_ns;
    r->start_ns = c.start_ns;
    r->dedupe_keys = d.keys;
    r->dedupe_memory_bytes = d.memory_bytes;
    r->dedupe_runs = d.runs;
    r->dedupe_disk_bytes = d.disk_bytes;
    r->rss_bytes = rss_bytes();
    r->digest.size = sizeof c.digest;
    memcpy(r->digest.bytes, c.digest, sizeof c.digest);
    snprintf(r->data_dir, sizeof r->data_dir, "%.*s", (int)sizeof r->data_dir - 1,
             p->config->data.dir);
    snprintf(r->error, sizeof r->error, "%s", c.error);
    if (c.note[0] != '\0')
        add_note(r, c.note);
    if (c.disk_full)
        add_note(r, "disk full: new events are refused until there is room");
    if (d.runs_unfiltered > 0)
        add_note(r, "dedupe: the memory limit leaves some runs without a filter; every new key is "
                    "looked up there");
    if (c.state == CLUSTER_WAITING)
        add_note(r, "of no cluster yet: it waits for sluice cluster init, or to be added to one");
    pipeline_peers(p, r);
    status_workers(p, r);
    pipeline_xdp_line(p, r->xdp, sizeof r->xdp);
    for (uint32_t i = 0; i < prefilter_ports(p->prefilter); i++)
        add_port_note(r, prefilter_port(p->prefilter, i));
}

static void add_count(sluice_v1_LedgerDrop *list, pb_size_t *n, size_t max, const char *name,
                      uint64_t count)
{
    if (*n == max)
        return;
    snprintf(list[*n].reason, sizeof list[*n].reason, "%s", name);
    list[(*n)++].count = count;
}

static void ledger_streams(const struct ledger *l, sluice_v1_LedgerResponse *r)
{
    const struct {
        const char *name;
        uint64_t count;
    } rows[] = {
        { "connections_accepted", l->connections_accepted },
        { "connections_refused", l->connections_refused },
        { "connections_denied", l->connections_denied },
        { "connections_closed", l->connections_closed },
        { "connections_timed_out", l->connections_timed_out },
        { "frames", l->frames },
        { "frames_malformed", l->frames_malformed },
        { "receipts", l->receipts },
        { "receipts_undeliverable", l->receipts_undeliverable },
        { "receive_paused", l->receive_paused },
        { "udp_receipts", l->udp_receipts },
        { "udp_receipts_unsent", l->udp_receipts_unsent },
        { "region_receipts", l->region_receipts },
        { "region_degraded", l->region_degraded },
        { "region_late", l->region_late },
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++)
        add_count(r->streams, &r->streams_count, sizeof r->streams / sizeof r->streams[0],
                  rows[i].name, rows[i].count);
}

void pipeline_type_name(const struct settings *s, unsigned type, char *ret, size_t bytes)
{
    if (type == 0)
        snprintf(ret, bytes, "unknown");
    else if (s->name[type][0] != '\0')
        snprintf(ret, bytes, "%s", s->name[type]);
    else
        snprintf(ret, bytes, "type %u", type);
}

static void ledger_types(struct pipeline *p, const struct ledger *l, const struct ledger_sums *sums,
                         sluice_v1_LedgerResponse *r)
{
    pthread_mutex_lock(&p->policy_lock);
    for (unsigned t = 0; t < LEDGER_TYPES; t++) {
        sluice_v1_LedgerType *row = &r->types[r->types_count];

        if (l->decoded[t] + l->invalid[t] + l->refused[t] + l->committed[t] + l->unaccounted[t] ==
            0)
            continue;
        *row = (sluice_v1_LedgerType){
            .type = t,
            .decoded = l->decoded[t],
            .invalid = l->invalid[t],
            .refused = l->refused[t],
            .duplicate = l->duplicate[t],
            .conflict = l->conflict[t],
            .in_flight = l->in_flight[t],
            .committed = l->committed[t],
            .unaccounted = l->unaccounted[t],
            .balances = sums->type_balances[t],
        };
        pipeline_type_name(&p->policy->admission.settings, t, row->name, sizeof row->name);
        r->types_count++;
    }
    pthread_mutex_unlock(&p->policy_lock);
    r->has_total = true;
    r->total = (sluice_v1_LedgerType){
        .name = "total",
        .decoded = sums->decoded,
        .invalid = sums->invalid,
        .refused = sums->refused,
        .duplicate = sums->duplicate,
        .conflict = sums->conflict,
        .in_flight = sums->in_flight,
        .committed = sums->committed,
        .unaccounted = sums->unaccounted,
        .balances = sums->events_balance,
    };
}

static void on_ledger(void *arg, sluice_v1_LedgerResponse *r)
{
    struct pipeline *p = arg;
    struct cluster_status before, after;
    struct ledger run, all;
    struct ledger_sums run_sums, sums;

    cluster_status(p->cluster, &before);
    pipeline_ledger(p, &run, NULL);
    cluster_status(p->cluster, &after);
    all = run;
    ledger_add(&all, &p->ledger_before);
    ledger_check(&run, &run_sums);
    ledger_check(&all, &sums);
    r->datagrams_seen = all.datagrams_seen;
    r->datagrams_delivered = all.datagrams_delivered;
    for (unsigned d = 0; d < DROP_N; d++)
        add_count(r->drops, &r->drops_count, sizeof r->drops / sizeof r->drops[0],
                  datagram_drop_name((enum datagram_drop)d), all.datagram_drop[d]);
    for (unsigned i = 1; i < LEDGER_REASONS; i++) {
        if (all.reason[i] > 0)
            add_count(r->reasons, &r->reasons_count, sizeof r->reasons / sizeof r->reasons[0],
                      reason_name(i), all.reason[i]);
    }
    ledger_types(p, &all, &sums, r);
    ledger_streams(&all, r);
    pipeline_xdp_ledger(p, &run, &all, &r->xdp);
    r->datagrams_balance = sums.datagrams_balance;
    r->events_balance = sums.events_balance;
    r->unaccounted = sums.unaccounted;
    r->log_events = after.events;
    r->log_events_before = p->log_events_before;
    r->own_events = after.events_own;
    r->doubtful_events = after.events_doubtful;
    r->orphaned_events = after.events_orphaned;
    /* Of the blocks that this node has made, not of other nodes': what the log held before the
     * workers were asked was answered or in flight then, and what was answered is in the log
     * afterwards. At rest the two pin down equality, but for blocks that went to two leaders, or
     * to one whose answer did not come. */
    r->log_agrees = before.events_own + before.events_orphaned <=
                        run_sums.committed + run_sums.in_flight + after.events_doubtful &&
                    run_sums.committed <= after.events_own + after.events_orphaned;
    r->since_ns = p->ledger_since_ns;
}

struct find_call {
    struct pipeline *p;
    const char *source;
    const void *id;
    size_t id_bytes;
    struct dedupe_place place;
    int result;
};

static void find_run(void *arg)
{
    struct find_call *f = arg;

    f->result =
        store_lookup(f->p->store, f->source, strlen(f->source), f->id, f->id_bytes, &f->place);
}

static int on_find(void *arg, const char *source, const void *id, size_t id_bytes,
                   struct admin_place *ret)
{
    struct find_call f = { .p = arg, .source = source, .id = id, .id_bytes = id_bytes };
    int e = cluster_call(f.p->cluster, find_run, &f);

    if (e < 0 || f.result < 0)
        return e < 0 ? e : f.result;
    /* Admitted is not yet committed: nobody may see it before. */
    if (f.result == 0 || f.place.index > cluster_commit_index(f.p->cluster))
        return -ENOENT;
    *ret = (struct admin_place){ f.place.index, f.place.slot };
    return 0;
}

/* What it has read ahead, and where it has found the segments, is of the log before it was cut. */
static int open_reader_again(struct pipeline *p, uint64_t history)
{
    struct log_reader *reader;
    int e = log_reader_open(&reader, p->log_dir);

    if (e < 0)
        return e;
    log_reader_close(p->reader);
    p->reader = reader;
    p->reader_history = history;
    return 0;
}

static int read_record(struct pipeline *p, uint64_t index, struct admin_record *ret)
{
    uint64_t history = cluster_history(p->cluster), committed = cluster_commit_index(p->cluster);
    int e = 0;

    if (index > committed)
        return -EAGAIN;
    if (history != p->reader_history)
        e = open_reader_again(p, history);
    if (e < 0)
        return e;
    log_reader_bound(p->reader, committed);
    e = log_reader_get(p->reader, index, p->read_buf, LOG_RECORD_BYTES_MAX, &ret->record,
                       &ret->payload);
    /* It may have been cut while it was read. */
    return cluster_history(p->cluster) == history ? e : -EAGAIN;
}

static int on_read(void *arg, uint64_t index, struct admin_record *ret)
{
    return read_record(arg, index, ret);
}

static uint64_t on_commit_index(void *arg)
{
    struct pipeline *p = arg;

    return cluster_commit_index(p->cluster);
}

static uint64_t on_history(void *arg)
{
    struct pipeline *p = arg;

    return cluster_history(p->cluster);
}

static uint64_t on_first_index(void *arg)
{
    struct pipeline *p = arg;
    struct cluster_status c;

    cluster_status(p->cluster, &c);
    return c.first_index;
}

static int on_watch(void *arg, struct wake *w)
{
    return cluster_watch(((struct pipeline *)arg)->cluster, w);
}
static void on_unwatch(void *arg, struct wake *w)
{
    cluster_unwatch(((struct pipeline *)arg)->cluster, w);
}

struct settings_call {
    struct pipeline *p;
    struct settings settings;
    sluice_v1_Setting history[STORE_HISTORY_MAX];
    size_t n;
};

static void settings_run(void *arg)
{
    struct settings_call *s = arg;
    const sluice_v1_Setting *history = store_history(s->p->store, &s->n);

    s->settings = *store_settings(s->p->store);
    memcpy(s->history, history, s->n * sizeof *history);
}

struct settings_each {
    struct settings_call *call;
    admin_setting_fn each;
    void *arg;
    int result;
};

static void settings_line(void *arg, const struct setting_line *line)
{
    struct settings_each *e = arg;
    sluice_v1_SettingEntry entry = sluice_v1_SettingEntry_init_zero;

    if (e->result != 0)
        return;
    snprintf(entry.key, sizeof entry.key, "%s", line->key);
    snprintf(entry.value, sizeof entry.value, "%s", line->value);
    entry.is_default = strcmp(line->value, line->value_default) == 0;
    for (size_t i = e->call->n; i > 0; i--) {
        const sluice_v1_Setting *h = &e->call->history[i - 1];

        if (strcmp(h->key, line->key) == 0) {
            entry.index = h->index;
            entry.uid = h->uid;
            memcpy(entry.by, h->by, sizeof entry.by);
            entry.time_ns = h->time_ns;
            break;
        }
    }
    e->result = e->each(e->arg, &entry);
}

static int give_change(const sluice_v1_Setting *h, admin_setting_fn each, void *each_arg)
{
    sluice_v1_SettingEntry entry = sluice_v1_SettingEntry_init_zero;

    snprintf(entry.key, sizeof entry.key, "%s", h->key);
    snprintf(entry.value, sizeof entry.value, "%s", h->value);
    entry.index = h->index;
    entry.uid = h->uid;
    memcpy(entry.by, h->by, sizeof entry.by);
    entry.time_ns = h->time_ns;
    return each(each_arg, &entry);
}

static int read_change(struct pipeline *p, uint64_t index, sluice_v1_Setting *ret)
{
    struct admin_record a;
    pb_istream_t in;
    int e = read_record(p, index, &a);

    if (e < 0)
        return e;
    in = pb_istream_from_buffer(a.payload, a.record.payload_bytes);
    if (a.record.type != LOG_SETTING ||
        !pb_decode_ex(&in, sluice_v1_Setting_fields, ret, PB_DECODE_NULLTERMINATED) ||
        ret->previous >= index)
        return -EILSEQ;
    ret->index = index;
    return 0;
}

/* The changes before the ones in memory: the log has them, each naming the one before it. Found
 * from the newest to the oldest, given the other way round. */
static int older_changes(struct pipeline *p, uint64_t newest, admin_setting_fn each, void *each_arg)
{
    uint64_t *index = NULL;
    size_t n = 0, room = 0;
    sluice_v1_Setting change;
    int e = 0;

    for (uint64_t at = newest; at != 0 && e == 0 && n < HISTORY_CHANGES_MAX; at = change.previous) {
        if (n == room) {
            uint64_t *more = realloc(index, (room = room ? 2 * room : 256) * sizeof *index);

            if (more == NULL)
                e = -ENOMEM;
            else
                index = more;
        }
        if (e == 0)
            e = read_change(p, at, &change);
        if (e == 0)
            index[n++] = at;
    }
    while (e == 0 && n > 0) {
        e = read_change(p, index[--n], &change);
        if (e == 0)
            e = give_change(&change, each, each_arg);
    }
    free(index);
    return e;
}

static int on_settings_list(void *arg, bool history, admin_setting_fn each, void *each_arg)
{
    static struct settings_call call; /* the admin thread's alone */
    struct settings_each walk = { &call, each, each_arg, 0 };
    int e;

    call.p = arg;
    e = cluster_call(call.p->cluster, settings_run, &call);
    if (e < 0)
        return e;
    if (!history) {
        settings_list(&call.settings, settings_line, &walk);
        return walk.result;
    }
    if (call.n > 0)
        e = older_changes(call.p, call.history[0].previous, each, each_arg);
    for (size_t i = 0; i < call.n && e == 0; i++)
        e = give_change(&call.history[i], each, each_arg);
    return e;
}

int pipeline_set(struct pipeline *p, const sluice_v1_SettingSetRequest *r,
                 const struct admin_asker *asker, sluice_v1_SettingEntry *ret,
                 char error[ADMIN_ERROR_BYTES])
{
    struct settings_call *call = malloc(sizeof *call);
    sluice_v1_Setting change = { .uid = asker->uid, .time_ns = clock_unix_ns() };
    char sentence[LOG_ERROR_BYTES] = "";
    int64_t index;

    _Static_assert(sizeof sentence >= SETTINGS_ERROR_BYTES, "for both");
    if (call == NULL)
        return -ENOMEM;
    call->p = p;
    index = cluster_call(p->cluster, settings_run, call);
    if (index == 0)
        index = settings_check(&call->settings, r->key, r->value, sentence);
    free(call);
    memcpy(change.key, r->key, sizeof change.key);
    memcpy(change.value, r->value, sizeof change.value);
    snprintf(change.by, sizeof change.by, "%s", asker->name);
    if (index == 0)
        index = cluster_propose_setting(p->cluster, &change, sentence);
    if (index < 0) {
        snprintf(error, ADMIN_ERROR_BYTES, "%s",
                 sentence[0] != '\0' ? sentence : strerror((int)-index));
        return (int)index;
    }
    /* What was changed holds when we say so, in the driver too; where it could not be put there, it
     * is committed all the same, and xdp status says so. */
    (void)policy_wait(p);
    *ret = (sluice_v1_SettingEntry){ .index = (uint64_t)index, .uid = asker->uid };
    memcpy(ret->key, r->key, sizeof ret->key);
    memcpy(ret->value, r->value, sizeof ret->value);
    snprintf(ret->by, sizeof ret->by, "%s", asker->name);
    ret->is_default = r->value[0] == '\0';
    return 0;
}

static int on_config(void *arg, bool json, FILE *f)
{
    struct pipeline *p = arg;

    return config_print(p->config, json ? CONFIG_JSON : CONFIG_TEXT, f);
}

void pipeline_admin_source(struct pipeline *p, struct admin_source *ret)
{
    *ret = (struct admin_source){
        .arg = p,
        .status = on_status,
        .ledger = on_ledger,
        .find = on_find,
        .read = on_read,
        .first_index = on_first_index,
        .commit_index = on_commit_index,
        .history = on_history,
        .watch = on_watch,
        .unwatch = on_unwatch,
        .settings = on_settings_list,
        .config = on_config,
        .operate = pipeline_operate,
    };
    pipeline_xdp_source(ret);
}
