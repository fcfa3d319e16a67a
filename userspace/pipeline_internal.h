/*
 * pipeline_internal.h - struct pipeline, for pipeline.c (the map) and pipeline_admin.c,
 * pipeline_cluster.c and pipeline_xdp.c (what the admin server asks).
 */
#ifndef SLUICE_PIPELINE_INTERNAL_H
#define SLUICE_PIPELINE_INTERNAL_H

#include <pthread.h>

#include "base/ledger_file.h"
#include "base/tls.h"
#include "cluster/cluster.h"
#include "detacher.h"
#include "ingest/worker.h"
#include "pipeline.h"
#include "serve/admin.h"
#include "store/apply.h"

#define POLICY_PUSH_S_MAX 5u /* that a change waits for the driver */

/* A version of the settings that some worker may still be reading. */
struct policy_version {
    struct admission admission;
    uint64_t number; /* 0, 1, ... in this run */
    struct policy_version *older;
};

struct pipeline {
    const struct config *config;
    char log_dir[CONFIG_PATH_BYTES + 16], dedupe_dir[CONFIG_PATH_BYTES + 16];
    struct store *store;
    struct cluster *cluster;
    struct cluster_peering peering;
    unsigned workers, workers_started;
    struct cluster_link link[CLUSTER_WORKERS_MAX];
    struct limits limits;
    struct tls_context *tls;     /* NULL: no TLS anywhere */
    struct prefilter *prefilter; /* NULL: only the kernel's sockets */
    struct detacher detacher;
    struct worker *worker[CLUSTER_WORKERS_MAX];
    struct admin *admin;

    pthread_mutex_t policy_lock; /* pipeline_policy.c */
    struct policy_version *policy;
    struct policy_version *pushing; /* into the driver, now */
    uint64_t pushed;                /* version number + 1 of the last */
    int push_error;
    pthread_cond_t pushed_wake;

    pthread_mutex_t snapshot_lock; /* admin and keeper threads ask the workers in turn */
    struct ledger_file ledger_file;
    struct ledger ledger_before; /* earlier runs on this directory */
    uint64_t ledger_since_ns;
    _Atomic uint64_t log_events_before;
    uint64_t started_ns; /* monotonic */
    pthread_t keeper;
    bool keeper_started, keeper_stop, begun; /* the last two with policy_lock */
    bool port_lost[XDP_INTERFACES_MAX];      /* the keeper has said so */
    pthread_cond_t keeper_wake;

    /* pipeline_admin.c, admin thread only */
    struct log_reader *reader;
    uint64_t reader_history; /* cluster_history() when it was opened */
    void *read_buf;
};

/* The workers' ledgers and what the driver has counted, added up; at a moment of each one's own.
 * ret_ports: the driver's part by interface, or NULL. */
void pipeline_ledger(struct pipeline *p, struct ledger *ret_run,
                     struct xdp_counters ret_ports[XDP_INTERFACES_MAX]);

/* pipeline_admin.c: "trade", "type 70", "unknown". */
void pipeline_type_name(const struct settings *s, unsigned type, char *ret, size_t bytes);

/* pipeline_xdp.c: its parts of status ("native on eth0 (4 queues)") and ledger. */
void pipeline_xdp_line(struct pipeline *p, char *ret, size_t bytes);
void pipeline_xdp_ledger(struct pipeline *p, const struct ledger *run, const struct ledger *all,
                         sluice_v1_XdpLedger *r);

/* pipeline_policy.c. Makes a version of the settings and hands it to the workers; -1 without
 * memory. Cluster thread, and start. */
int policy_publish(struct pipeline *p, const struct settings *settings);
/* Is the newest version not in the driver yet? With policy_lock. */
bool policy_pending(const struct pipeline *p);
/* Puts it there. Keeper, and start. */
void policy_push(struct pipeline *p);
/* Waits until it is there, or has been refused. 0, the refusal, or -ETIMEDOUT. Any thread. */
int policy_wait(struct pipeline *p);
void policy_free(struct pipeline *p);

/* pipeline_admin.c: changes a setting; its part of operate(). */
int pipeline_set(struct pipeline *p, const sluice_v1_SettingSetRequest *request,
                 const struct admin_asker *asker, sluice_v1_SettingEntry *ret,
                 char error[ADMIN_ERROR_BYTES]);

/* pipeline_cluster.c: the admin server's operate(), on any thread; its part of status. */
int pipeline_operate(void *arg, const struct admin_request *request,
                     const struct admin_asker *asker, union admin_operation_answer *ret,
                     char error[ADMIN_ERROR_BYTES]);
void pipeline_peers(struct pipeline *p, sluice_v1_StatusResponse *r);

/* pipeline_manifest.c: into done->manifest, by the rest of it; only where there is TLS. Returns 0,
 * or why there is none, or why it was not kept. */
int manifest_of_failover(struct pipeline *p, const sluice_v1_RecoveryRequest *asked,
                         sluice_v1_ClusterDone *done);
int manifest_of_losses(struct pipeline *p, bool complete, sluice_v1_ClusterDone *done);

/* Fills in the admin server's source. */
void pipeline_admin_source(struct pipeline *p, struct admin_source *ret);
/* The part of it that is about XDP. */
void pipeline_xdp_source(struct admin_source *ret);

#endif
