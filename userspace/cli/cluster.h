/*
 * cluster.h - what the parts of `sluice cluster` share.
 *
 * cluster.c         the options, and which command is meant
 * cluster_status.c  `status` and `members`: what is shown
 * cluster_health.c  what is wrong with a cluster
 * cluster_region.c  the regions: what is shown of them, `switchover`
 * cluster_change.c  `init`, `add`, `remove`, `replace`, `transfer`
 * cluster_recovery.c  `failover`, `rejoin`, `orphans`, `reconcile`, `pause`, `resume`
 * cluster_manifest.c  `manifest`: what a failover has lost, signed
 */
#ifndef SLUICE_CLI_CLUSTER_H
#define SLUICE_CLI_CLUSTER_H

#include "cli/cli.h"

#define CLUSTER_VOTERS_MIN 3u /* as cluster/member.h says; the command knows nothing of a node */

struct cluster_options {
    struct cli_options common;
    bool standby, yes, dead, dry_run;
    uint32_t to;          /* a region, 0: not given */
    const char *manifest; /* a file that is to be made; NULL: none */
    int args;
    char **arg; /* behind the command's word */
};

int cluster_show_status(const struct cluster_options *o);
int cluster_show_members(const struct cluster_options *o);
int cluster_init(const struct cluster_options *o);
int cluster_add(const struct cluster_options *o);
int cluster_remove(const struct cluster_options *o);
int cluster_replace(const struct cluster_options *o);
int cluster_transfer(const struct cluster_options *o);
int cluster_switchover(const struct cluster_options *o);
int cluster_failover(const struct cluster_options *o);
int cluster_rejoin(const struct cluster_options *o);
int cluster_orphans(const struct cluster_options *o);
int cluster_reconcile(const struct cluster_options *o);
int cluster_manifest(const struct cluster_options *o);
int cluster_pause(const struct cluster_options *o);
int cluster_resume(const struct cluster_options *o);

/* Arguments: a node's number; NODE=HOST:PORT. CLI_OK, or what was said. */
int cluster_parse_node(const char *text, uint32_t *ret);
int cluster_parse_member(const char *text, uint32_t *ret_node, char *ret_address, size_t bytes);

/* Asks, if --yes was not given; what is lost by it is said before. */
int cluster_confirm(const struct cluster_options *o, const char *what);
/* What `status` asks for. */
int cluster_fetch_status(const struct cluster_options *o, sluice_v1_ClusterStatusResponse *ret);

/* Waits for as long as it takes, and says what it waits for. */
int cluster_ask_long(const struct cluster_options *o, const struct admin_request *r,
                     sluice_v1_ClusterDone *ret);
/* A change, by the daemon or the leader: says what it waits for, then how it ended. */
int cluster_carry_out(const struct cluster_options *o, const struct admin_request *r);

/* The file of --manifest, before anything is asked: an exit code, and a descriptor or -1. Then what
 * is to be in it, or nothing if rc is not CLI_OK; closes it. Returns rc, or what went wrong. */
int cluster_manifest_create(const struct cluster_options *o, int *ret);
int cluster_manifest_save(const struct cluster_options *o, int fd, int rc, const char *pem);

/* Where there are two of them: a line for each, an object for each, and what is wrong. */
void cluster_print_regions(const sluice_v1_ClusterStatusResponse *s);
json_t *cluster_regions_json(const sluice_v1_ClusterStatusResponse *s);
void cluster_judge_regions(const sluice_v1_ClusterStatusResponse *s, json_t *problems);

/* The member that leads, of those that say so the one of the highest term; NULL: none. */
const sluice_v1_NodeStatus *cluster_leader(const sluice_v1_ClusterStatusResponse *s);

/* "leader", "follower", "standby", "silent" ... */
const char *cluster_role(const sluice_v1_ClusterMember *m);

/* HOST:PORT of a member's address. */
#define CLUSTER_PLACE_BYTES 272u
const char *cluster_place(char ret[CLUSTER_PLACE_BYTES], const char *address);

/* What is wrong, a sentence each, into JSON arrays: what makes the cluster unhealthy, and what does
 * not yet. */
void cluster_judge(const sluice_v1_ClusterStatusResponse *s, int64_t now_s, json_t *problems,
                   json_t *notes);

#endif
