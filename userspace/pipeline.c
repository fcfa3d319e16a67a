/*
 * pipeline.c - THE MAP: every stage, thread and ring of a node.
 *
 *   stage     file                       thread   gets                  gives
 *   --------  -------------------------  -------  --------------------  -------------------------
 *   filter    bpf/ingress.bpf.c          driver   frames                datagrams, by class
 *   receive   ingest/afxdp.c (driver)    worker   datagrams             datagrams, by class
 *             ingest/socket.c (UDP)      worker   datagrams             datagrams, by class
 *             ingest/receive.c           worker   datagrams, by class   events and batches
 *             ingest/stream.c (TCP)      worker   frames                batches
 *   decode    ingest/decode.c            worker   bytes                 events: slices of it
 *   validate  ingest/validate.c          worker   events                events, refused ones marked
 *   enrich    ingest/enrich.c            worker   events                + session, id, hashes
 *   batch     ingest/batch.c             worker   events                the open block (one copy)
 *   propose   cluster/propose.c          cluster  blocks                entries, no duplicates
 *             store/apply.c: admit       cluster  blocks                verdicts
 *   order     cluster/consensus.c        cluster  entries               commit index
 *   write     cluster/log.c              cluster  entries               durable records
 *   commit    cluster/commit.c           cluster  the commit index      applied, answered blocks
 *             store/apply.c: apply       cluster  committed entries     settings, dedupe index
 *   answer    ingest/ack.c               worker   answered blocks       receipts; free blocks
 *   index     store/dedupe_work.c         store    frozen tables         runs on disk
 *   read      serve/admin.c              admin    requests              status, ledger, events
 *   keep      this file                  keeper   ledgers               the ledger file
 *             pipeline_policy.c          keeper   settings              the policy in the driver
 *
 *   thread          how many         sleeps on                    ends
 *   --------------  ---------------  ---------------------------  -------------------------------
 *   worker-N        ingest.workers   its io_uring                 worker_close(), after the cluster
 *   sluice-cluster  1                libuv loop                   cluster_stop(), once drained
 *   sluice-store    1                its wake                     store_fini(), after the cluster
 *   admin           1                poll()                       admin_close(), first
 *   sluice-operator as asked for     other nodes, at most 8       admin_close(), or its answer
 *   sluice-keeper   1                a condition, ledger.save_ms  pipeline_stop()
 *   sluice-detacher 0 or 1, a process one byte                     detacher_stop(), or the daemon's
 * end
 *
 *   ring         from -> to         holds           full
 *   -----------  -----------------  --------------  ----------------------------------------------
 *   AF_XDP       driver -> worker   datagrams       counted and dropped, a class at a time
 *   link.submit  worker -> cluster  sealed blocks   never: a slot for every block of the worker
 *   link.answer  cluster -> worker  decided blocks  never: the same
 *
 * Back-pressure comes from the blocks: a worker without a free block stops reading TCP, and drops
 * UDP datagrams of the lowest class first.
 */
#include <assert.h>
#include <errno.h>
#include <libgen.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/clock.h"
#include "base/report.h"
#include "base/tls.h"
#include "client/sluice.h"
#include "pipeline_internal.h"
#include "privileges.h"

#define CERTIFICATE_WARN_S (14 * 86400)

_Static_assert(CONFIG_WORKERS_MAX == CLUSTER_WORKERS_MAX, "every worker has a link");

/* A node that can no longer keep its promises ends at once: nothing may be answered after this. */
static void on_failed(void *arg, const char *sentence)
{
    (void)arg;
    report_error("node_failed", "%s", sentence);
    _exit(3);
}

/* Cluster thread: the workers can be started. */
static void on_begun(void *arg)
{
    struct pipeline *p = arg;

    pthread_mutex_lock(&p->policy_lock);
    p->begun = true;
    pthread_cond_broadcast(&p->keeper_wake);
    pthread_mutex_unlock(&p->policy_lock);
}

static void on_settings(void *arg, const struct settings *settings)
{
    if (policy_publish(arg, settings) < 0)
        on_failed(arg, "settings: out of memory");
}

/* --- the ledger ---------------------------------------------------------------------------------
 */

void pipeline_ledger(struct pipeline *p, struct ledger *ret_run,
                     struct xdp_counters ret_ports[XDP_INTERFACES_MAX])
{
    struct xdp_counters here[XDP_INTERFACES_MAX], *xdp = ret_ports ? ret_ports : here;
    struct worker_snapshot s;

    memset(ret_run, 0, sizeof *ret_run);
    pthread_mutex_lock(&p->snapshot_lock);
    prefilter_count(p->prefilter, xdp);
    for (unsigned i = 0; i < prefilter_ports(p->prefilter); i++)
        prefilter_ledger(&xdp[i], ret_run);
    for (unsigned i = 0; i < p->workers; i++) {
        worker_snapshot(p->worker[i], &s);
        ledger_add(ret_run, &s.ledger);
    }
    pthread_mutex_unlock(&p->snapshot_lock);
}

static void ledger_keep(struct pipeline *p, bool closed)
{
    static struct report_limit limit;
    struct ledger l;
    int e;

    pipeline_ledger(p, &l, NULL);
    ledger_add(&l, &p->ledger_before);
    e = ledger_file_save(&p->ledger_file, &l, p->ledger_since_ns, closed);
    if (e < 0)
        report_every(&limit, 60 * NS_PER_S, REPORT_WARN, "ledger_not_saved", "%s: %s",
                     p->ledger_file.path, strerror(-e));
}

static struct timespec time_of(uint64_t ns)
{
    return (struct timespec){ (time_t)(ns / NS_PER_S), (long)(ns % NS_PER_S) };
}

/* Somebody may have taken the program away, or the interface. */
static void look_at_ports(struct pipeline *p)
{
    prefilter_refresh(p->prefilter);
    for (uint32_t i = 0; i < prefilter_ports(p->prefilter); i++) {
        struct prefilter_port *port = prefilter_port(p->prefilter, i);

        if (port->mode == PREFILTER_SOCKET || port->attached == !p->port_lost[i])
            continue;
        p->port_lost[i] = !port->attached;
        if (p->port_lost[i])
            report_warn("xdp_lost",
                        "%s: the program is no longer attached; datagrams come by the "
                        "kernel's sockets",
                        port->name);
        else
            report_info("xdp_back", "%s: the program is attached again", port->name);
    }
}

static int start_workers(struct pipeline *p, char error[PIPELINE_ERROR_BYTES]);

/* A node that has waited, or was the first to come, has a cluster now; or one that had to repair
 * its log has done so, and knows what is in it. */
static void start_late(struct pipeline *p)
{
    char error[PIPELINE_ERROR_BYTES] = "workers";
    struct cluster_status status;

    cluster_status(p->cluster, &status);
    p->log_events_before = status.events;
    if (start_workers(p, error) < 0)
        on_failed(p, error);
    report_info("ready", "node %u takes events in", p->config->node.id);
}

/* With policy_lock, except while it works. */
static void *keeper_main(void *arg)
{
    struct pipeline *p = arg;
    uint64_t save_ns = p->config->ledger.save_ms * NS_PER_MS;
    uint64_t save_at = clock_monotonic_ns() + save_ns, look_at = 0;

    pthread_setname_np(pthread_self(), "sluice-keeper");
    pthread_mutex_lock(&p->policy_lock);
    while (!p->keeper_stop) {
        uint64_t now = clock_monotonic_ns();
        bool start = p->begun && p->workers_started == 0;
        bool push = policy_pending(p) && !start, save = now >= save_at;
        bool look = p->prefilter != NULL && now >= look_at;

        if (!start && !push && !save && !look) {
            struct timespec until = time_of(p->prefilter && look_at < save_at ? look_at : save_at);

            pthread_cond_timedwait(&p->keeper_wake, &p->policy_lock, &until);
            continue;
        }
        pthread_mutex_unlock(&p->policy_lock);
        if (start)
            start_late(p);
        if (push)
            policy_push(p);
        if (look)
            look_at_ports(p);
        if (save)
            ledger_keep(p, false);
        look_at = look ? now + NS_PER_S : look_at;
        save_at = save ? now + save_ns : save_at;
        pthread_mutex_lock(&p->policy_lock);
    }
    pthread_mutex_unlock(&p->policy_lock);
    return NULL;
}

static void keeper_end(struct pipeline *p)
{
    if (!p->keeper_started)
        return;
    pthread_mutex_lock(&p->policy_lock);
    p->keeper_stop = true;
    pthread_cond_broadcast(&p->keeper_wake);
    pthread_mutex_unlock(&p->policy_lock);
    pthread_join(p->keeper, NULL);
    p->keeper_started = false;
}

/* --- start and stop -----------------------------------------------------------------------------
 */

static void wake_cluster(void *arg)
{
    struct pipeline *p = arg;

    cluster_wake(p->cluster);
}

static size_t ring_slots(uint32_t blocks)
{
    size_t n = 1;

    while (n < blocks)
        n *= 2;
    return n;
}

static int start_links(struct pipeline *p)
{
    for (unsigned i = 0; i < p->workers; i++) {
        int e = ring_init(&p->link[i].submit, ring_slots(p->config->pipeline.blocks));

        if (e == 0)
            e = ring_init(&p->link[i].answer, ring_slots(p->config->pipeline.blocks));
        if (e == 0)
            e = wake_open(&p->link[i].wake);
        if (e < 0)
            return e;
    }
    return 0;
}

/* The other nodes, as the config says. */
static const struct cluster_peering *peering_of(struct pipeline *p)
{
    const struct config_peer *peer = &p->config->peer;

    if (peer->listen.port == 0)
        return NULL;
    config_endpoint_text(&peer->listen, p->peering.listen);
    snprintf(p->peering.advertise, sizeof p->peering.advertise, "%.264s", peer->advertise);
    snprintf(p->peering.zone, sizeof p->peering.zone, "%s", p->config->node.zone);
    p->peering.user_timeout_ms = peer->user_timeout_ms;
    p->peering.pack_level = peer->pack_level;
    p->peering.tls = p->tls;
    return &p->peering;
}

static int start_store_and_cluster(struct pipeline *p, char error[PIPELINE_ERROR_BYTES])
{
    const struct config *f = p->config;
    struct store_config store = {
        .dir = p->dedupe_dir,
        .dedupe_memory_bytes_max = f->dedupe.memory_bytes_max,
        .on_settings = on_settings,
        .failed = on_failed,
        .arg = p,
    };
    struct cluster_config cluster = {
        .dir = f->data.dir,
        .node = (uint16_t)f->node.id,
        .region = (uint8_t)f->node.region,
        .segment_age_ns_max = f->log.segment_age_s_max * NS_PER_S,
        .log = { .segment_bytes = f->log.segment_bytes,
                 .disk_free_bytes_min = f->log.disk_free_bytes_min,
                 .writes_max = f->log.writes_max,
                 .mark_idle_ms = f->log.mark_idle_ms },
        .scrub_bytes_per_s = f->log.scrub_bytes_per_s,
        .scrub_pause_ms = f->log.scrub_pause_s * 1000ull,
        .link = p->link,
        .links = p->workers,
        .peering = peering_of(p),
        .election_ms = f->peer.election_ms,
        .fetch_bytes_per_s = f->peer.fetch_bytes_per_s,
        .version = SLUICE_VERSION,
        .begun = on_begun,
        .begun_arg = p,
    };
    struct cluster_app app;
    char sentence[LOG_ERROR_BYTES] = "";
    int e = store_init(&p->store, &store);

    if (e < 0)
        return e;
    store_app(p->store, &app);
    app.failed = on_failed;
    e = cluster_start(&p->cluster, &cluster, &app, sentence);
    if (e < 0) {
        snprintf(error, PIPELINE_ERROR_BYTES, "%s", sentence);
        return e;
    }
    return store_start(p->store);
}

static int leave_dispatchers(void *arg) { return prefilter_leave_dispatchers(arg); }

/* With the process's privileges, as the key may be root's alone. */
static int open_tls(struct pipeline *p, char error[PIPELINE_ERROR_BYTES])
{
    const struct config_tls *t = &p->config->tls;
    const struct tls_files files = { t->ca, t->cert, t->key };
    const struct certificate *who;
    char sentence[TLS_ERROR_BYTES];
    int e;

    if (!config_has_tls(p->config))
        return 0;
    e = tls_context_new(&p->tls, &files, sentence);
    if (e < 0) {
        snprintf(error, PIPELINE_ERROR_BYTES, "%s", sentence);
        return e;
    }
    who = tls_context_identity(p->tls);
    if (who->role != CERTIFICATE_NODE || who->node != p->config->node.id) {
        snprintf(error, PIPELINE_ERROR_BYTES,
                 "%s is not the certificate of node %u, which is node.id: its role is %s %u",
                 t->cert, p->config->node.id, certificate_role_name(who->role), who->node);
        return -EINVAL;
    }
    if (who->until_s - (int64_t)(clock_unix_ns() / NS_PER_S) < CERTIFICATE_WARN_S)
        report_warn("certificate_expires", "%s expires in less than 14 days", t->cert);
    return 0;
}

/* With the process's privileges: the program is attached, the sockets are bound. */
static int open_workers(struct pipeline *p, char error[PIPELINE_ERROR_BYTES])
{
    char sentence[256] = "no memory";
    int e = prefilter_open(&p->prefilter, p->config);

    if (e == 0 && prefilter_in_dispatcher(p->prefilter))
        e = detacher_start(&p->detacher, leave_dispatchers, p->prefilter);
    if (e == 0)
        e = limits_open(&p->limits, prefilter_cells(p->prefilter), p->config->ingest.sources_max);
    for (unsigned i = 0; i < p->workers && e == 0; i++) {
        struct worker_config config = {
            .config = p->config,
            .id = i,
            .link = &p->link[i],
            .wake_cluster = wake_cluster,
            .wake_arg = p,
            .limits = &p->limits,
            .prefilter = p->prefilter,
            .tls = p->config->ingest.tcp.tls ? p->tls : NULL,
        };

        e = worker_open(&p->worker[i], &config, sentence);
    }
    if (e < 0)
        snprintf(error, PIPELINE_ERROR_BYTES, "%s", sentence);
    return e;
}

static void report_ports(struct pipeline *p)
{
    for (uint32_t i = 0; i < prefilter_ports(p->prefilter); i++) {
        const struct prefilter_port *port = prefilter_port(p->prefilter, i);

        (port->rings ? report_info : report_warn)(
            "xdp", "%s: %s%s%s%s", port->name, prefilter_mode_name(port->mode),
            port->rings ? ", AF_XDP" : "", port->note[0] != '\0' ? "; " : "", port->note);
    }
}

/* Without any, from here on. A directory that cannot be used without is a reason to keep some. */
static int drop_privileges(struct pipeline *p)
{
    struct privileges keep = { .detach = false }; /* the detacher has those */
    char admin[CONFIG_PATH_BYTES], names[128];
    int e;

    config_admin_socket(p->config, admin);
    keep.files = privileges_opens(p->config->data.dir) || privileges_opens(p->log_dir) ||
                 privileges_opens(p->dedupe_dir) || privileges_opens(dirname(admin));
    e = privileges_drop(&keep, names, sizeof names);
    if (e == 0 && names[0] != '\0')
        report_info("privileges", "kept: %s", names);
    return e;
}

static int start_workers(struct pipeline *p, char error[PIPELINE_ERROR_BYTES])
{
    struct worker_snapshot s;

    pthread_mutex_lock(&p->policy_lock);
    for (unsigned i = 0; i < p->workers; i++)
        worker_set_admission(p->worker[i], &p->policy->admission);
    pthread_mutex_unlock(&p->policy_lock);
    for (unsigned i = 0; i < p->workers; i++) {
        int e = worker_start(p->worker[i], cluster_id(p->cluster), cluster_hash_key(p->cluster));

        if (e < 0) {
            snprintf(error, PIPELINE_ERROR_BYTES, "worker %u: io_uring: %s", i, strerror(-e));
            return e;
        }
        p->workers_started++;
    }
    if (p->prefilter == NULL)
        return 0;
    policy_push(p);
    worker_snapshot(p->worker[0], &s);
    /* Without a policy the program would deny every source; so it passes them on. */
    if (p->push_error == 0)
        prefilter_go(p->prefilter, s.udp_port);
    report_ports(p);
    return 0;
}

static bool admin_allows(void *arg, uid_t uid)
{
    struct pipeline *p = arg;

    return config_admin_allows(p->config, uid, geteuid());
}

static int start_admin(struct pipeline *p, char error[PIPELINE_ERROR_BYTES])
{
    char path[CONFIG_PATH_BYTES], sentence[ADMIN_OPEN_ERROR_BYTES] = "";
    struct admin_config config = {
        .path = path,
        .allows = admin_allows,
        .allows_arg = p,
        .shared = p->config->admin.uids.n > 0,
        .connections_max = p->config->admin.connections_max,
        .tls = p->config->admin.listen.port != 0 ? p->tls : NULL,
        .ip = p->config->admin.listen.ip,
        .port = (uint16_t)p->config->admin.listen.port,
    };
    struct admin_source source;
    int e;

    config_admin_socket(p->config, path);
    pipeline_admin_source(p, &source);
    e = log_reader_open(&p->reader, p->log_dir);
    p->read_buf = aligned_alloc(LOG_ALIGN, LOG_RECORD_BYTES_MAX);
    if (e == 0 && p->read_buf == NULL)
        e = -ENOMEM;
    if (e == 0)
        e = admin_open(&p->admin, &config, &source, sentence);
    if (e == 0)
        e = admin_start(p->admin);
    if (e < 0)
        snprintf(error, PIPELINE_ERROR_BYTES, "%s", sentence[0] ? sentence : strerror(-e));
    return e;
}

static int start_keeper(struct pipeline *p)
{
    int e = -pthread_create(&p->keeper, NULL, keeper_main, p);

    p->keeper_started = e == 0;
    return e;
}

static void open_ledger(struct pipeline *p)
{
    uint64_t lost;
    int e;

    p->ledger_since_ns = clock_unix_ns();
    e = ledger_file_open(&p->ledger_file, p->config->data.dir, &p->ledger_before,
                         &p->ledger_since_ns, &lost);
    if (e < 0)
        report_warn("ledger_restarted", "%s: %s; the account starts anew", p->ledger_file.path,
                    strerror(-e));
    if (lost > 0)
        report_warn("ledger_unaccounted",
                    "the last run ended without closing its account; it had %llu events in flight, "
                    "whose fate "
                    "only the log knows",
                    (unsigned long long)lost);
}

/* Why it may take no events in yet. */
static void report_state(const struct config *config, const struct cluster_status *status)
{
    if (status->state == CLUSTER_WAITING)
        report_info("waiting",
                    "node %u is of no cluster yet: it waits for `sluice cluster init`, or "
                    "to be added to one",
                    config->node.id);
    if (status->state == CLUSTER_REPAIRING)
        report_warn("repairing", "node %u takes no events in yet: %s", config->node.id,
                    status->note);
}

int pipeline_start(struct pipeline **ret, const struct config *config,
                   char error[PIPELINE_ERROR_BYTES])
{
    struct pipeline *p = calloc(1, sizeof *p);
    pthread_condattr_t monotonic;
    struct cluster_status status;
    bool begun;
    int e = -ENOMEM;

    error[0] = '\0';
    if (p == NULL)
        goto fail;
    p->config = config;
    p->started_ns = clock_monotonic_ns();
    p->workers = config_workers(config);
    assert(p->workers <= CLUSTER_WORKERS_MAX);
    for (unsigned i = 0; i < p->workers; i++)
        p->link[i].wake.fd = -1;
    pthread_mutex_init(&p->policy_lock, NULL);
    pthread_mutex_init(&p->snapshot_lock, NULL);
    pthread_condattr_init(&monotonic);
    pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    pthread_cond_init(&p->keeper_wake, &monotonic);
    pthread_cond_init(&p->pushed_wake, &monotonic);
    snprintf(p->log_dir, sizeof p->log_dir, "%s/log", config->data.dir);
    snprintf(p->dedupe_dir, sizeof p->dedupe_dir, "%s/dedupe", config->data.dir);
    if (mkdir(config->data.dir, 0700) < 0 && errno != EEXIST) {
        e = -errno;
        snprintf(error, PIPELINE_ERROR_BYTES, "%s: %s", config->data.dir, strerror(-e));
        goto fail;
    }
    struct settings defaults;
    settings_init(&defaults);
    on_settings(p, &defaults);
    e = start_links(p);
    if (e == 0)
        e = open_tls(p, error);
    if (e == 0)
        e = open_workers(p, error);
    if (e == 0)
        e = drop_privileges(p);
    if (e == 0)
        e = start_store_and_cluster(p, error);
    if (e < 0)
        goto fail;
    cluster_status(p->cluster, &status);
    p->log_events_before = status.events;
    open_ledger(p);
    report_state(config, &status);
    /* Where the cluster's key is not known yet, the keeper starts them. */
    pthread_mutex_lock(&p->policy_lock);
    begun = p->begun;
    pthread_mutex_unlock(&p->policy_lock);
    e = begun ? start_workers(p, error) : 0;
    if (e == 0)
        e = start_admin(p, error);
    if (e == 0)
        e = start_keeper(p);
    if (e < 0)
        goto fail;
    *ret = p;
    return 0;
fail:
    if (error[0] == '\0')
        snprintf(error, PIPELINE_ERROR_BYTES, "start: %s", strerror(-e));
    pipeline_stop(p);
    return e;
}

/* Until the last receipt is out; the workers bound it by ingest.tcp.output_s_max. */
static void drain_workers(struct pipeline *p)
{
    const struct timespec pause = { .tv_nsec = (long)NS_PER_MS };

    for (unsigned i = 0; i < p->workers_started; i++)
        worker_drain(p->worker[i]);
    for (unsigned i = 0; i < p->workers_started; i++) {
        while (!worker_drained(p->worker[i]))
            nanosleep(&pause, NULL);
    }
}

void pipeline_stop(struct pipeline *p)
{
    int e;

    if (p == NULL)
        return;
    cluster_interrupt(p->cluster);
    admin_close(p->admin);
    keeper_end(p);
    /* Of a start that failed late, too: its workers have taken events, and what they hand over must
     * find the cluster thread there. */
    prefilter_stop(p->prefilter);
    cluster_drain(p->cluster);
    if (p->workers_started > 0) {
        drain_workers(p);
        ledger_keep(p, true);
    }
    cluster_stop(p->cluster);
    for (unsigned i = 0; i < p->workers; i++)
        worker_close(p->worker[i]);
    e = detacher_stop(&p->detacher);
    if (e < 0)
        report_warn("xdp_stays", "the program stays in its dispatcher, until the next start: %s",
                    strerror(-e));
    prefilter_close(p->prefilter);
    limits_close(&p->limits);
    store_fini(p->store);
    for (unsigned i = 0; i < p->workers; i++) {
        ring_fini(&p->link[i].submit);
        ring_fini(&p->link[i].answer);
        wake_close(&p->link[i].wake);
    }
    tls_context_free(p->tls);
    policy_free(p);
    log_reader_close(p->reader);
    free(p->read_buf);
    pthread_cond_destroy(&p->keeper_wake);
    pthread_cond_destroy(&p->pushed_wake);
    pthread_mutex_destroy(&p->policy_lock);
    pthread_mutex_destroy(&p->snapshot_lock);
    free(p);
}
