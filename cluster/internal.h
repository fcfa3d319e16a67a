/*
 * internal.h - what the files of cluster/ share: one struct, owned by the cluster thread.
 *
 * cluster.c   the thread: loop, mailbox, start and stop
 * state.c     term, vote and identity, on disk before anything depends on them
 * consensus.c the engine: events in, updates out (it is called only here and in guard.c)
 * guard.c     what the host must add so that the engine is safe
 * propose.c   blocks and other entries into the log
 * commit.c    what is committed: applied, answered, watched
 * snapshot.c  checkpoints
 * log.c, ...  the log itself (log.h)
 * peer_*.c    what nodes say to each other, as bytes (peer_frame.h, peer_message.h, handshake.h)
 */
#ifndef SLUICE_CLUSTER_INTERNAL_H
#define SLUICE_CLUSTER_INTERNAL_H

#include <limits.h>
#include <pthread.h>
#include <raft.h>
#include <stdatomic.h>
#include <uv.h>

#include "cluster/cluster.h"
#include "cluster/peer_frame.h"
#include "cluster/state.h"
#include "cluster/twoslot.h"

#define CLUSTER_WATCHERS_MAX            16u
#define CLUSTER_CONFIGURATION_BYTES_MAX 4096u
#define CLUSTER_BLOCKS_PER_TURN         64u
_Static_assert(CLUSTER_CONFIGURATION_BYTES_MAX == PEER_CONFIGURATION_BYTES_MAX,
               "what is kept can be sent");

/* An entry that is not a block. Freed when it is committed. */
struct proposal {
    struct log_write write;
    void (*committed)(struct proposal *p, int64_t index_or_error); /* may be NULL */
    void *arg;
    struct proposal *next; /* in cluster.failed_proposals */
};

/* An appended entry that has not been applied yet. */
struct appended {
    struct log_write *write;
    struct block *block;       /* NULL: a proposal */
    struct proposal *proposal; /* NULL: a block */
    bool ends_segment;
    uint8_t digest[SHA256_BYTES]; /* only when ends_segment */
};

struct call {
    void (*fn)(void *arg);
    void *arg;
    bool done;
    struct call *next;
};

struct cluster {
    struct cluster_config config;
    struct cluster_app app;
    struct disk *disk;
    int disk_fd; /* -1: its completions have to be asked for */
    struct log *log;
    struct log_reader *reader; /* for entries that are applied from disk: at start */
    void *read_buf;            /* LOG_RECORD_BYTES_MAX */
    struct twoslot state_file;
    struct node_state state;
    bool segments_found; /* in the log's directory, before anything was opened */
    struct log_origin origin;

    /* consensus.c */
    struct raft raft;
    bool raft_open;
    uint64_t commit_index; /* highest ever seen (E6) */
    uint64_t raft_timeout_ms;
    struct raft_entry *start_entry; /* of the log above the origin, until START */
    size_t start_entries, start_capacity;

    /* propose.c */
    struct block *arrived, **arrived_tail; /* handed over, not admitted yet */
    unsigned next_link;
    struct appended *appended; /* circular */
    uint32_t appended_head, appended_n, appended_max;
    uint64_t seal_due_ns; /* monotonic: when the segment is to be sealed, since it holds what is
                           * worth it (an event, a setting); 0: it does not */
    bool disk_full;
    struct proposal *failed_proposals; /* the log may still borrow them: freed after log_close() */

    /* commit.c */
    struct block *answers, **answers_tail; /* in order of admission */
    uint64_t applied_index;
    uint64_t events, events_by_type[BLOCK_TYPES];
    uint64_t replayed_entries;
    _Atomic uint64_t commit_public;
    struct wake *watcher[CLUSTER_WATCHERS_MAX];
    pthread_mutex_t watch_lock;

    /* snapshot.c */
    struct cluster_checkpoint *checkpoint; /* newest: loaded, or being written */
    uint64_t checkpoint_index;             /* durable */
    bool checkpoint_writing;
    uv_work_t checkpoint_work;
    int checkpoint_result;
    uint8_t genesis_hash_key[HASH_KEY_BYTES];
    sluice_v1_Genesis genesis;
    bool have_genesis;
    uint8_t configuration[CLUSTER_CONFIGURATION_BYTES_MAX]; /* last committed, engine's encoding */
    size_t configuration_bytes;
    uint64_t configuration_index;

    /* cluster.c */
    uv_loop_t loop;
    uv_prepare_t prepare;
    uv_idle_t idle;
    uv_timer_t timer;
    uv_poll_t disk_poll, wake_poll;
    struct wake wake; /* the cluster thread's */
    pthread_t thread;
    pthread_mutex_t lock; /* state, calls, error */
    pthread_cond_t changed;
    enum cluster_state run_state;
    bool ended; /* the thread takes no more calls */
    struct call *calls;
    atomic_bool stop_wanted;
    uint64_t start_ns;
    char error[LOG_ERROR_BYTES];
};

/* Each returns 0 or a negative errno, with a sentence in c->error. */
int cluster_fail(struct cluster *c, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* state.c */
int state_open(struct cluster *c);
int state_write(struct cluster *c);

/* consensus.c */
int consensus_collect(void *arg, const struct log_record *record, const void *payload);
int consensus_start(struct cluster *c);
void consensus_close(struct cluster *c);
/* The engine takes the entry that log_append() will get next; c->raft's last index is its index
 * then. */
int consensus_submit(struct cluster *c, enum log_type type, const void *payload, size_t bytes);
int consensus_persisted(struct cluster *c, uint64_t index);
int consensus_tick(struct cluster *c);
int consensus_snapshot(struct cluster *c, uint64_t index, uint64_t term);
int consensus_changed(struct cluster *c, uint64_t index, const void *payload, size_t bytes);
bool consensus_leads(const struct cluster *c);
int consensus_bootstrap(struct cluster *c);

/* guard.c */
int guard_start_term(struct cluster *c, bool sole_voter);
int guard_start_digits(uint64_t snapshot_index, uint64_t first, uint64_t first_term, uint64_t last,
                       uint64_t last_term);

/* propose.c */
int propose_init(struct cluster *c);
void propose_fini(struct cluster *c);
/* Takes p. -EAGAIN and -ENOSPC leave it to the caller. */
int propose_entry(struct cluster *c, struct proposal *p);
struct proposal *proposal_new(enum log_type type, const void *payload, size_t bytes);
void proposal_free(struct proposal *p);
/* For one that may have been given to the log, after an error. */
void proposal_failed(struct cluster *c, struct proposal *p);
int propose_turn(struct cluster *c,
                 uint64_t now_ns); /* returns the work done or a negative errno */
/* An entry of this type is in the segment that is appended to: it will have to be sealed. */
void propose_note_content(struct cluster *c, uint32_t type);
bool propose_idle(const struct cluster *c);

/* commit.c */
int commit_turn(struct cluster *c); /* applies and answers what has become committed */
int commit_replay(struct cluster *c, uint64_t from);
bool commit_idle(const struct cluster *c);
void commit_answer_later(struct cluster *c, struct block *b);

/* snapshot.c */
int snapshot_load(struct cluster *c); /* fills origin, genesis, configuration, events_by_type */
bool snapshot_exists(const struct cluster *c); /* any, good or not */
int snapshot_take(struct cluster *c, const struct appended *a);
int snapshot_finish(struct cluster *c); /* waits for a checkpoint that is being written */

#endif
