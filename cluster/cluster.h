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
#include "proto/entry.pb.h"

#define CLUSTER_WORKERS_MAX  64u
#define CLUSTER_MEMBERS_MAX  6u
#define CLUSTER_ELECTION_MS  300u
#define CLUSTER_EPOCH_SHIFT  20   /* term = epoch << 20 | counter */
#define CLUSTER_SETTINGS_MAX 855u /* in a checkpoint */

struct cluster;

/* Between one worker and the cluster thread. Both rings hold struct block and are large enough for
 * all of the worker's blocks, so a push never fails. */
struct cluster_link {
    struct ring submit; /* worker -> cluster: sealed blocks */
    struct ring answer; /* cluster -> worker: decided blocks */
    struct wake wake;   /* the worker's */
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
    APPLY_START,  /* found by a start: nothing else is done meanwhile */
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
     * still says which of its events are new. Newest first. */
    void (*withdraw)(void *arg, const struct block *b);
    /* A committed entry, in order, each once per start. -EAGAIN and -ENOSPC: nothing of it was
     * applied; it is given again later, and all behind it waits. Others are final. */
    int (*apply)(void *arg, const struct log_record *record, const void *payload,
                 enum cluster_apply how);
    /* The log is open and belongs to this cluster. *ret_covered: the app's own state holds
     * everything at or below it; every entry above is given to apply(). last_index is the log's:
     * state beyond it is of another log. */
    int (*open)(void *arg, const uint8_t cluster_id[16], uint64_t last_index,
                uint64_t *ret_covered);
    /* The node must end now, without answering anything more; the sentence says why. */
    void (*failed)(void *arg, const char *sentence);
    /* The app's part of a checkpoint. */
    void (*save)(void *arg, struct cluster_checkpoint *c);
    int (*load)(void *arg, const struct cluster_checkpoint *c);
};

/* What all nodes of a new cluster begin with. */
struct cluster_bootstrap {
    uint8_t cluster_id[16];
    uint64_t time_ns; /* Unix, of entry 1 */
    uint16_t member[CLUSTER_MEMBERS_MAX];
    unsigned members; /* this node among them; all are voters */
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
    unsigned election_ms;                      /* 0: CLUSTER_ELECTION_MS */
};

enum cluster_state {
    CLUSTER_STARTING,
    CLUSTER_FOLLOWER,
    CLUSTER_LEADER,
    CLUSTER_FAILED,
    CLUSTER_STOPPED
};

struct cluster_status {
    enum cluster_state state;
    uint64_t term, epoch, first_index, last_index, persisted_index, commit_index, applied_index;
    uint64_t checkpoint_index, log_bytes, disk_free_bytes, replayed_entries;
    uint64_t start_ns; /* how long recovery and replay took */
    uint64_t events;   /* in the log */
    uint64_t events_by_type[BLOCK_TYPES];
    uint8_t cluster_id[16], digest[SHA256_BYTES];
    uint16_t node;
    uint8_t region;
    bool disk_full;
    char error[LOG_ERROR_BYTES]; /* CLUSTER_FAILED: why */
};

/* Recovers, replays, and elects; returns when the node is leader (one voter) and has applied all
 * that its log holds, or a negative errno with the reason in error. */
int cluster_start(struct cluster **ret, const struct cluster_config *config,
                  const struct cluster_app *app, char error[LOG_ERROR_BYTES]);

/* After the workers have handed over their last blocks: commits and answers all of them, writes the
 * mark, ends the thread. Safe on NULL. */
void cluster_stop(struct cluster *c);

/* Wakes the cluster thread after a push to a link's submit ring. Any thread. */
void cluster_wake(struct cluster *c);

/* A random key that the whole cluster shares (Genesis.hash_key). Constant after cluster_start(). */
const uint8_t *cluster_hash_key(const struct cluster *c);
const uint8_t *cluster_id(const struct cluster *c);

/* The following may be called by any thread but workers; they wait for the cluster thread. */
void cluster_status(struct cluster *c, struct cluster_status *ret);
/* Runs fn on the cluster thread. -ESHUTDOWN when it has ended. */
int cluster_call(struct cluster *c, void (*fn)(void *arg), void *arg);
/* Commits a setting (already checked). Returns its index or a negative errno. */
int64_t cluster_propose_setting(struct cluster *c, const sluice_v1_Setting *setting);
/* Highest index that readers may see. Cheap; any thread. */
uint64_t cluster_commit_index(const struct cluster *c);
/* An eventfd that becomes readable whenever the commit index moves while it is armed; for followers
 * of the log (tail). At most 16. */
int cluster_watch(struct cluster *c, struct wake *watcher);
void cluster_unwatch(struct cluster *c, struct wake *watcher);

#endif
