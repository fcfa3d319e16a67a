/*
 * cluster.h - the face of the replicated log: blocks in, committed and answered blocks out.
 *
 * One thread (libuv loop) owns the engine, the log and everything behind this header. Workers hand
 * it sealed blocks through their link's ring and get each of them back when it may be answered:
 * never before its entry, and every entry that a duplicate in it points to, is committed.
 *
 * What must be known about events (have we had this one? what do the settings say?) is asked from
 * above through struct cluster_app; its functions run on the cluster thread.
 */
#ifndef SLUICE_CLUSTER_CLUSTER_H
#define SLUICE_CLUSTER_CLUSTER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/ring.h"
#include "base/wake.h"
#include "cluster/block.h"
#include "cluster/log.h"
#include "cluster/member.h"
#include "proto/entry.pb.h"
#include "proto/node.pb.h"

#define CLUSTER_WORKERS_MAX  64u
#define CLUSTER_ELECTION_MS  300u
#define CLUSTER_TRAILING     65536u /* costs no memory */
#define CLUSTER_FORWARD_MS   10000u
#define CLUSTER_EPOCH_SHIFT  20   /* term = epoch << 20 | counter */
#define CLUSTER_SETTINGS_MAX 926u /* in a checkpoint */

struct cluster;

/* Between one worker and the cluster thread. Both rings hold struct block and are large enough for
 * all of the worker's blocks, so a push never fails. */
struct cluster_link {
    struct ring submit; /* worker -> cluster: sealed blocks */
    struct ring answer; /* cluster -> worker: decided blocks */
    struct wake wake;   /* the worker's */
    /* Everything up to that index is durable on majorities of both regions, and stays so whichever
     * of them is lost; 0: nothing, as far as this node knows. And could the leader, at its last
     * word, hear a majority of each? No, when there has been none for a second. All of it is of the
     * node's epoch, which is set before an index of that: in another one there are other entries.
     */
    _Atomic uint64_t region_index;
    _Atomic uint64_t region_epoch;
    _Atomic bool region_reached;
    _Atomic uint64_t region_lost_ns; /* since when it could not (monotonic); 0: it could, or there
                                      * is one region */
    _Atomic bool holds;              /* the worker's: it is to be woken when these change */
};

/* A checkpoint in memory. The message's settings, which are its largest part, are in the array. */
struct cluster_checkpoint {
    sluice_v1_Checkpoint message;
    uint32_t settings;
    sluice_v1_Setting setting[CLUSTER_SETTINGS_MAX];
};

/* How an entry comes to be applied. */
enum cluster_apply {
    APPLY_OTHERS, /* admitted elsewhere, or here and read again from the disk */
    APPLY_OURS,   /* its events went through admit() here */
    APPLY_START,  /* found by a start, before opened(): nothing else is done meanwhile */
};

struct cluster_app {
    void *arg;
    /* Can n more events be admitted now? 0, or -ENOSPC / -EAGAIN; another negative errno stops the
     * node. */
    int (*ready)(void *arg, size_t n);
    /* Decides b->verdict[] for an entry that will have this index, adds an exception for every
     * duplicate and conflict that a request waits for, and sets b->wait_index (>= what it is) to
     * the highest index that a duplicate points to. Returns the number of events that stay, or a
     * negative errno (final). */
    int (*admit)(void *arg, struct block *b, uint64_t index);
    /* The entry of b, for which admit() was given b->index, will not be in the log; b->verdict
     * still says which of its events are new. Newest first; then cut() says from which index on
     * all that was in the log, blocks or not, has made room for another leader's. */
    void (*withdraw)(void *arg, const struct block *b);
    void (*cut)(void *arg, uint64_t from);
    /* A committed entry, in order, each once per start. -EAGAIN and -ENOSPC: nothing of it was
     * applied; it is given again later, and all behind it waits. Others are final. */
    int (*apply)(void *arg, const struct log_record *record, const void *payload,
                 enum cluster_apply how);
    /* The log is open and belongs to this cluster. *ret_covered: the app's own state holds
     * everything at or below it; every entry above is given to apply(). last_index is the log's:
     * state beyond it is of another log. */
    int (*open)(void *arg, const uint8_t cluster_id[16], uint64_t last_index,
                uint64_t *ret_covered);
    /* The start is over: nothing is applied as APPLY_START any more. */
    void (*opened)(void *arg);
    /* All that it has from load() and open() on is forgotten; it may be opened again, also with a
     * last_index that is lower than before. Whether it was opened or not. */
    void (*close)(void *arg);
    /* The node must end now, without answering anything more; the sentence says why. */
    void (*failed)(void *arg, const char *sentence);
    /* The app's part of a checkpoint. */
    void (*save)(void *arg, struct cluster_checkpoint *c);
    int (*load)(void *arg, const struct cluster_checkpoint *c);
};

/* What all nodes of a new cluster begin with. */
struct cluster_bootstrap {
    uint8_t cluster_id[16];
    uint64_t time_ns;                          /* Unix, of entry 1 */
    struct member member[CLUSTER_MEMBERS_MAX]; /* this node among them; the same order everywhere */
    unsigned members;
};

struct tls_context;

/* How the other nodes are reached. */
struct cluster_peering {
    char listen[64];     /* ADDRESS:PORT */
    char advertise[265]; /* HOST:PORT; "": as listen */
    char zone[65];
    struct tls_context *tls; /* NULL: nothing is encrypted, and everybody is believed */
    uint32_t user_timeout_ms;
    uint32_t pack_level; /* of zstd, for payloads to the other region; 0: they go as they are */
};

struct cluster_config {
    const char *dir; /* data directory; made when it does not exist */
    uint16_t node;   /* 1.. */
    uint8_t region;  /* 1 or 2 */
    uint64_t segment_age_ns_max;
    struct log_config log;
    struct disk *disk; /* NULL: <dir>/log by io_uring; else borrowed, for tests that break it */
    struct cluster_link *link;
    unsigned links;
    const struct cluster_bootstrap *bootstrap; /* NULL: a new directory is a cluster of its own */
    /* A new directory waits, without a log, for the cluster of this id to add and fill it; NULL: it
     * begins one. */
    const uint8_t *join_cluster_id;
    uint64_t join_epoch;  /* of that cluster, once it is known; 0: this region's first */
    unsigned election_ms; /* 0: CLUSTER_ELECTION_MS */
    /* Entries below a checkpoint that a follower can still be brought up with by the engine, the
     * same on all nodes; further back it fetches in bulk. 0: CLUSTER_TRAILING. */
    unsigned trailing;
    uint64_t
        scrub_bytes_per_s;   /* old segments are read for rot; 0: they are not. Of <dir>/log only */
    uint64_t scrub_pause_ms; /* between two passes */
    uint64_t fetch_bytes_per_s; /* this node's, when it fetches; 0: no limit */
    /* How long a block waits for a leader's word before it is refused as NOT_LEADER; 0:
     * CLUSTER_FORWARD_MS. */
    unsigned forward_ms;
    const struct cluster_peering *peering; /* NULL: a cluster of one */
    const char *version;                   /* of the program, for status */
    /* Once, on the cluster thread: the cluster's id and key are known, so events can be taken in.
     * May be NULL. */
    void (*begun)(void *arg);
    void *begun_arg;
};

/* What an operator may ask of the leader; one at a time. What was done stays done: whatever ended
 * early may be asked for again, and goes on from there. */
enum change_kind {
    CHANGE_ADD,     /* member: as a standby first; its role VOTER: promoted once it has the log */
    CHANGE_REMOVE,  /* node; of the leader itself: it hands over first, see -EAGAIN */
    CHANGE_REPLACE, /* node by member: that is added, then node is removed; node may be dead */
    CHANGE_SWITCHOVER, /* region becomes the active one: its members vote, one of them leads, the
                        * others are standbys. -EAGAIN when the next leader is to go on */
    CHANGE_TRANSFER,   /* the lead to node, a voter; 0: to the one that has most of the log */
};

#define CHANGE_ACTOR_BYTES    64u
#define CHANGE_SENTENCE_BYTES 256u

struct change_request {
    enum change_kind kind;
    uint8_t region;
    bool dead; /* REMOVE, REPLACE: node is lost for good, whatever it had */
    uint16_t node;
    struct member member;
    char actor[CHANGE_ACTOR_BYTES]; /* who asks: for the log */
    uint32_t timeout_ms;            /* 0: a minute */
};

#define FAILOVER_SENTENCE_BYTES 256u
#define FAILOVER_DEAD_MAX       3u
#define FAILOVER_FRESH_MAX      3u

/* A region that is lost is given up, and another goes on (failover.c). */
struct failover_request {
    uint8_t region; /* that goes on; the node that is asked is of it */
    bool dry_run;
    char actor[CHANGE_ACTOR_BYTES];
    uint32_t timeout_ms; /* 0: a minute */
    /* Of its members, those that are lost for good: they come out of the configuration, and a
     * majority of the others is enough. Then what only those had is lost, whatever was said of it:
     * also what was said to be in both regions. Others, which wait and have nothing, take their
     * place, so that three vote. */
    uint16_t dead[FAILOVER_DEAD_MAX];
    struct member fresh[FAILOVER_FRESH_MAX];
    unsigned dead_n, fresh_n;
};

/* What it found, or did. */
struct failover_report {
    uint64_t epoch;        /* the new one */
    uint64_t index, term;  /* the last entry that the region has */
    uint64_t committed;    /* the highest index that one of its nodes knows to be committed */
    uint64_t last_time_ns; /* Unix, of the entry at index */
    uint64_t events;       /* applied there */
    uint64_t silent_ms;    /* since the leader was heard; UINT64_MAX: it never was */
    uint16_t node;         /* who has that entry */
    uint16_t leader;       /* once it is done */
    uint16_t old_leader;   /* of another region, that leads yet, and may be accepting; 0: none */
    unsigned answering;    /* nodes of the region */
    unsigned others;       /* and of the other one */
    char sentence[FAILOVER_SENTENCE_BYTES];
};

struct reconcile_report {
    unsigned files; /* offered again */
    uint64_t accepted, duplicates, conflicts;
    uint64_t others; /* entries that are no events */
    char sentence[FAILOVER_SENTENCE_BYTES];
};

enum cluster_state {
    CLUSTER_STARTING,
    CLUSTER_WAITING,   /* of no cluster yet: for cluster_found(), or to be added */
    CLUSTER_REPAIRING, /* its log is damaged; what it lacks comes from the others, see note */
    CLUSTER_FENCED,    /* its region was given up, or is about to go on: see note */
    CLUSTER_FOLLOWER,
    CLUSTER_LEADER,
    CLUSTER_FAILED,
    CLUSTER_STOPPED
};

struct cluster_status {
    enum cluster_state state;
    uint64_t term, epoch, first_index, last_index, persisted_index, commit_index, applied_index;
    uint64_t checkpoint_index, log_bytes, disk_free_bytes, replayed_entries;
    uint64_t start_ns;        /* how long recovery and replay took */
    uint64_t events;          /* in the log */
    uint64_t events_own;      /* of those: in blocks that this node has made in this run */
    uint64_t events_doubtful; /* that may be among those, and were answered as duplicates of their
                               * own first sending to a leader, or as refused */
    uint64_t events_orphaned; /* that were among those, and were set aside after a failover */
    uint64_t leader_heard_ns; /* how long ago the leader spoke; 0: this node leads, or nobody did */
    uint64_t lag_ns;       /* everything that was committed so long ago is applied; UINT64_MAX: not
                            * known */
    uint64_t last_time_ns; /* Unix, of the last record that is applied; 0: none in this run */
    uint16_t leader;       /* 0: not known */
    uint64_t scrub_passes, repaired_segments; /* of this process */
    uint64_t events_by_type[BLOCK_TYPES];
    uint8_t cluster_id[16], digest[SHA256_BYTES];
    uint16_t node;
    uint8_t region;
    bool disk_full;
    char error[LOG_ERROR_BYTES]; /* CLUSTER_FAILED: why */
    char note[LOG_ERROR_BYTES];  /* what is damaged, and what is done about it; may be empty */
};

/* Recovers and replays; returns when the node is leader and has applied all that its log holds (a
 * cluster of one), when it follows the others, waits or repairs its log (one with peering), or a
 * negative errno with the reason in error. */
int cluster_start(struct cluster **ret, const struct cluster_config *config,
                  const struct cluster_app *app, char error[LOG_ERROR_BYTES]);

/* A stop is near: what was handed over, or is from now on, and is not committed in a few seconds is
 * refused (NOT_LEADER), since that may take a majority that is not there. Any thread. */
void cluster_drain(struct cluster *c);

/* After the workers have handed over their last blocks: commits and answers all of them, writes the
 * mark, ends the thread. Safe on NULL. */
void cluster_stop(struct cluster *c);

/* Wakes the cluster thread after a push to a link's submit ring. Any thread. */
void cluster_wake(struct cluster *c);

/* A random key that the whole cluster shares (Genesis.hash_key). Constant after begun(). */
const uint8_t *cluster_hash_key(const struct cluster *c);
const uint8_t *cluster_id(const struct cluster *c);

/* The following may be called by any thread but workers; they wait for the cluster thread. */
void cluster_status(struct cluster *c, struct cluster_status *ret);
/* Runs fn on the cluster thread. -ESHUTDOWN when it has ended. */
int cluster_call(struct cluster *c, void (*fn)(void *arg), void *arg);
/* Commits a setting (already checked), here or at the leader. Returns its index or a negative
 * errno, with a sentence. */
int64_t cluster_propose_setting(struct cluster *c, const sluice_v1_Setting *setting,
                                char sentence[LOG_ERROR_BYTES]);
/* The request of an operator, at any node: answered here, or by the leader. Fills in ret. Returns
 * 0, or a negative errno with ret->sentence. Waits for timeout_ns at most. */
int cluster_ask(struct cluster *c, const sluice_v1_NodeRequest *request, uint64_t timeout_ns,
                sluice_v1_NodeReply *ret);
/* The same once, of one node; 0: of this one. */
int cluster_ask_node(struct cluster *c, uint16_t node, const sluice_v1_NodeRequest *request,
                     uint64_t timeout_ns, sluice_v1_NodeReply *ret);
/* What each member says of itself; those that say nothing in timeout_ns have has_status false, and
 * why in sentence. Returns how many members there are (0: this node is of no cluster). */
int cluster_members(struct cluster *c, uint64_t timeout_ns,
                    sluice_v1_Member member[CLUSTER_MEMBERS_MAX],
                    sluice_v1_NodeReply ret[CLUSTER_MEMBERS_MAX]);
/* What this node says of itself, of no cluster too. ret_connected_ns, or NULL: since when there is
 * a connection to ret->members[i] (monotonic; 0: there is none). */
int cluster_self(struct cluster *c, sluice_v1_NodeStatus *ret,
                 uint64_t ret_connected_ns[CLUSTER_MEMBERS_MAX]);
/* Whoever waits in one of these is told -ESHUTDOWN, now and from now on: before cluster_stop(). */
void cluster_interrupt(struct cluster *c);
/* A new cluster of these nodes (id, and HOST:PORT as its address), this one among them. May be
 * asked again, at any of them, until it returns 0; otherwise sentence says what is in the way. */
int cluster_found(struct cluster *c, const sluice_v1_Member *member, unsigned members,
                  char sentence[LOG_ERROR_BYTES]);

/* Highest index that readers may see. Cheap; any thread. */
uint64_t cluster_commit_index(const struct cluster *c);
/* Another number once what readers could see as committed may have been cut, by a forced failover:
 * what they have read ahead, or told, from an index on is not in the log any more. Any thread. */
uint64_t cluster_history(const struct cluster *c);
/* Until this node has applied that index. 0, -ETIMEDOUT or -ESHUTDOWN. Not the cluster thread. */
int cluster_wait(struct cluster *c, uint64_t index, uint64_t timeout_ns);
/* An eventfd that becomes readable whenever the commit index moves while it is armed; for followers
 * of the log (tail). At most 16. */
int cluster_watch(struct cluster *c, struct wake *watcher);
void cluster_unwatch(struct cluster *c, struct wake *watcher);

#endif
