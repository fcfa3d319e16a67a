/*
 * internal.h - what the files of cluster/ share: one struct, owned by the cluster thread.
 *
 * cluster.c   the thread: loop, mailbox, start and stop
 * node.c      the node without a thread: opened, then turned
 * node_call.c what operators ask, and nodes for them: status, settings, members
 * node_call_recovery.c of those, what is asked after the loss of a region
 * found.c     a new cluster, made from nodes that wait
 * state.c     term, vote and identity, on disk before anything depends on them
 * consensus.c the engine: events in, updates out (it is called only here and in guard.c)
 * consensus_receive.c what other nodes say, into the engine
 * guard.c     what the host must add so that the engine is safe
 * lag.c       how far a read here may be behind
 * region.c    how far the log is durable in both regions
 * propose.c   blocks and other entries into the log
 * forward.c   blocks to the leader, and what became of them back
 * commit.c    what is committed: applied, answered, watched
 * change.c    who is a member and who leads, at an operator's word
 * member.c    members as strings and as the engine's bytes
 * snapshot.c  checkpoints
 * fetch.c     a node that is far behind gets the committed entries in bulk
 * repair.c    records that have rotted here come from another node
 * recovery.c  a node is brought into a later epoch: its side of a failover, and the way back
 * recovery_copy.c its log becomes another's
 * failover.c  who leads the others into a new epoch when a region is lost
 * orphan.c    what a node had that is not in the new epoch's log, in files of its own
 * reconcile.c offers that to the cluster again
 * scrub.c     the thread that looks for rot (scrub.h)
 * log.c, ...  the log itself (log.h)
 * peer_*.c    connections to the other nodes (peer.h), and what is said there, as bytes
 *             (peer_frame.h, peer_message.h, handshake.h)
 */
#ifndef SLUICE_CLUSTER_INTERNAL_H
#define SLUICE_CLUSTER_INTERNAL_H

#include <limits.h>
#include <pthread.h>
#include <raft.h>
#include <stdatomic.h>
#include <uv.h>

#include "cluster/cluster.h"
#include "cluster/peer_message.h"
#include "cluster/peer_frame.h"
#include "cluster/peer_pack.h"
#include "cluster/recovery.h"
#include "cluster/scrub.h"
#include "cluster/state.h"
#include "cluster/twoslot.h"

#define CLUSTER_WATCHERS_MAX    16u
#define CLUSTER_BLOCKS_PER_TURN 64u
#define CLUSTER_FORWARD_WINDOW  8u /* of a node's blocks with the leader: 2.2 MiB */
_Static_assert(CLUSTER_CONFIGURATION_BYTES_MAX == PEER_CONFIGURATION_BYTES_MAX,
               "what is kept can be sent");

/* What nodes say to each other beside the engine's messages; a frame of a type from PEER_POST_FIRST
 * on. */
struct node_post {
    uint16_t to;
    enum peer_type type;
    const struct iovec *iov; /* the body: a multiple of 8 bytes in all, at most PEER_POST_MAX */
    unsigned iovs;
};

/* A node that wants committed entries of this one. */
struct fetch_request {
    uint16_t node; /* 0: free */
    bool recovers;
    uint8_t packs;     /* enum peer_fetch_packs: how it may come */
    uint64_t next, to; /* what is to be sent */
    int64_t credit;    /* bytes that may be sent */
    uint64_t retry_ns; /* not before; the post did not go */
    uint64_t since_ns; /* the last time that something went */
};

struct fetched;

struct fetch {
    /* This node is behind: from the engine's word that it is to have everything up to to.index
     * until it has. */
    bool active;
    bool checked;                     /* the log that was found is known to be a true prefix */
    bool searching;                   /* for where it parts from the source's */
    uint64_t same, differs;           /* then: equal there, and not there */
    struct raft_snapshot_metadata to; /* its configuration is ours until the end */
    uint8_t digest[SHA256_BYTES];     /* of the chain at to.index */
    uint16_t offered_by, source;      /* who began it; who is asked */
    unsigned silences;                /* one after the other */
    uint64_t ask_ns, retry_ns;        /* to ask anew, if nothing comes; not to ask before */
    uint64_t next;                    /* of what is to come */
    int64_t granted, queued;          /* bytes that may still come; that wait to be appended */
    int64_t tokens;                   /* bytes that may be asked for now, under a limit */
    uint64_t tokens_ns;
    struct fetched *queue, **tail;
    bool refuses; /* guard_answer(): the message that is answered had entries */

    /* What came packed. */
    struct peer_unpacker unpacker;
    uint8_t *unpacked; /* PEER_POST_MAX */

    /* Others are. */
    struct fetch_request request[CLUSTER_MEMBERS_MAX];
    unsigned turn;
    uint8_t *buf; /* PEER_POST_MAX */
    struct peer_packer packer;
    struct log_reader *reader;
    uint8_t offer[SHA256_BYTES]; /* of the message that is being sent */
};

#define REPAIR_PEERS_MAX (2 * CLUSTER_MEMBERS_MAX)

struct repair {
    bool at_start; /* the node is not open until its log is good; the engine hears and says nothing
                    */
    bool active;   /* a segment is being made anew */
    struct log_damage damage;
    struct log_rebuild *rebuild;
    uint16_t peer[REPAIR_PEERS_MAX]; /* who may have what is missing */
    unsigned peers, turn;
    uint16_t source;           /* who is asked; 0: nobody */
    int64_t granted;           /* bytes that may still come */
    uint64_t ask_ns, retry_ns; /* to ask another, if nothing comes; not to ask before */
    uint64_t heard_ns;         /* something came */
    uint64_t last_first, last_from, segments; /* where it was begun last; those that are mended */
    unsigned tries;
    uint8_t configuration[CLUSTER_CONFIGURATION_BYTES_MAX]; /* whom to connect to */
    size_t configuration_bytes;
    char rot[LOG_ERROR_BYTES], note[LOG_ERROR_BYTES]; /* what log_open() said; for status */
};

/* The app stands on a log that is closed, and opened again with the same entries up to there: what
 * a failover does to a node that survives. */
struct kept_app {
    bool is;
    uint64_t applied, setting_index, last_time_ns, configuration_index;
    uint64_t events, events_by_type[BLOCK_TYPES];
    sluice_v1_Genesis genesis;
};

/* What a node takes from outside. */
struct node_environment {
    uint64_t (*monotonic_ns)(void *arg);
    uint64_t (*unix_ns)(void *arg);
    void (*random)(void *arg, void *ret, size_t bytes);
    /* A message to m->server_id; NULL: there are no other nodes. What it promises is durable. The
     * entries of an AppendEntries, prev_log_index + 1 and n_entries - 1 more, are to be taken now,
     * one after the other, by node_entry(). It may be lost, but not overtake another. Returns 0 or
     * a negative errno, which is final. */
    int (*send)(void *arg, const struct raft_message *m);
    /* A post, behind the messages sent before: taken now, and lost only with the connection.
     * Returns 0, -EAGAIN: there is no connection to that node, or too much waits for it already;
     * another negative errno is final. */
    int (*post)(void *arg, const struct node_post *p);
    void *arg;
};

enum lead {
    LEAD_NONE,  /* nothing of this term is in the log yet */
    LEAD_BEGUN, /* until lead_index is applied */
    LEAD_READY, /* takes blocks */
};

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

struct forward {
    uint64_t process, last_id;
    unsigned waiting;          /* blocks among the answers that nobody has decided about yet */
    uint64_t blocked_ns;       /* until then nothing is sent: there is no connection */
    struct forward_pool *pool; /* for blocks of other nodes; NULL: there was none yet */
    unsigned unsent;           /* answers in it that could not be posted */
    uint64_t sent, resent;     /* blocks; resent after a time in which no answer came */
};

/* When another member has last answered this node, as a leader (E12). */
struct peer_heard {
    uint16_t node;
    uint64_t ms;
};

/* What a leader of this term said at this time of its commit index. */
struct promise {
    uint64_t index, term, ms; /* ms 0: there is none */
};

struct region {
    uint64_t index;   /* durable in both regions, as far as this node knows */
    bool reached;     /* the leader hears a majority of each region */
    uint64_t said_ns; /* when that was said */
    uint64_t lost_ns; /* since when it is not so; 0: it is, or nobody has spoken of two */
    bool two;         /* there are members of another region */
    bool spoken;      /* that was seen here, or a leader has said so */
    unsigned members;
    uint16_t node[CLUSTER_MEMBERS_MAX];
    uint8_t of[CLUSTER_MEMBERS_MAX];
    uint64_t seen_committed, seen_uncommitted; /* of the configuration that these are of */
    uint64_t told_index, told_ns;              /* to the others */
};

enum change_step {
    CHANGE_NONE,
    CHANGE_BEGINS, /* its entry is not in the log yet */
    CHANGE_WORKS,
    CHANGE_ENDS,   /* its result's entry is not in the log yet */
    CHANGE_LOGGED, /* nor committed */
};

/* The operation under way; change.c. */
struct change {
    enum change_step step;
    struct change_request request;
    void (*done)(void *arg, int result, const char *sentence);
    void *arg;
    uint64_t term; /* of this node's lead: it ends with that */
    uint64_t begun_ms, deadline_ms;
    uint64_t result_index; /* of the result's entry */
    int result;
    char sentence[CHANGE_SENTENCE_BYTES];
    char waits[CHANGE_SENTENCE_BYTES / 2]; /* for what; may be empty */
    uint16_t catching_up; /* the node whose catch-up this operation has begun; 0: none */
    bool quiet;           /* nothing enters the log */
    bool told;            /* the next leader has been told to take over */
    uint16_t transfer_to;
    uint64_t transfer_due_ms;
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
    struct log_reader *reader;     /* for entries that are applied from disk: at start */
    void *read_buf;                /* LOG_RECORD_BYTES_MAX */
    struct log_record read_record; /* of what is in it */
    struct twoslot state_file;
    struct node_state state;
    bool segments_found; /* in the log's directory, before anything was opened */
    struct log_origin origin;

    /* consensus.c */
    struct raft raft;
    bool raft_open;
    uint64_t commit_index; /* highest ever seen (E6) */
    uint64_t raft_timeout_ms;
    uint64_t heard_ms, ticked_ms; /* a leader of this term spoke; RAFT_TIMEOUT was told */
    struct promise promise;       /* of a leader: how far everything was committed */
    uint64_t current_ms;          /* what was committed by then is applied here; 0: not known */
    struct proposal *receiving;   /* the entry of the message that the engine looks at */
    struct peer_heard heard[CLUSTER_MEMBERS_MAX];
    struct raft_entry *start_entry; /* of the log above the origin, until START */
    size_t start_entries, start_capacity;

    /* propose.c */
    struct block *arrived, **arrived_tail; /* handed over, not admitted yet */
    unsigned next_link;
    struct appended *appended; /* circular */
    uint32_t appended_head, appended_n, appended_max;
    struct appended submitting;
    uint64_t seal_due_ns; /* monotonic: when the segment is to be sealed, since it holds what is
                           * worth it (an event, a setting); 0: it does not */
    bool disk_full;
    /* change.c: since when the lead is handed over for a full disk (0: never), and was it. */
    uint64_t yield_ms;
    bool yield_told;
    struct proposal *failed_proposals; /* the log may still borrow them: freed after log_close() */

    struct forward forward; /* forward.c */

    struct region region; /* region.c */

    /* commit.c */
    struct block *answers, **answers_tail; /* in order of admission */
    uint64_t applied_index;
    bool commit_ended;
    int apply_wait;          /* -EAGAIN, -ENOSPC: why the next entry is not applied yet; 0 */
    uint64_t apply_again_ns; /* then it is tried again */
    uint64_t events, events_by_type[BLOCK_TYPES];
    uint64_t events_own;      /* of blocks that this node has made in this run */
    uint64_t events_doubtful; /* that may be among them, although they were answered otherwise */
    uint64_t events_answered; /* as committed, to this node's workers */
    uint64_t events_orphaned; /* that were among them, and were set aside (orphan.c) */
    uint64_t own_counted;     /* events_own has those up to this index */
    uint64_t replayed_entries;
    _Atomic uint64_t commit_public, history_public;
    struct wake *watcher[CLUSTER_WATCHERS_MAX];
    pthread_mutex_t watch_lock;

    /* snapshot.c */
    struct cluster_checkpoint *checkpoint; /* newest: loaded, or being written */
    uint64_t checkpoint_index;             /* durable */
    uint64_t checkpoint_region; /* while it is written: both regions have the log to there */
    bool checkpoint_writing;
    int checkpoint_result;
    uint8_t genesis_hash_key[HASH_KEY_BYTES];
    sluice_v1_Genesis genesis;
    bool have_genesis;
    uint64_t genesis_index;                                 /* there, or before */
    uint8_t configuration[CLUSTER_CONFIGURATION_BYTES_MAX]; /* last committed, engine's encoding */
    size_t configuration_bytes;
    uint64_t configuration_index;

    struct change change;

    /* fetch.c */
    struct fetch fetch;

    struct repair repair;        /* repair.c */
    struct recovery recovery;    /* recovery.c */
    struct failover failover;    /* failover.c */
    struct reconcile *reconcile; /* reconcile.c; NULL: nothing is under way */
    struct scrub *scrub;         /* NULL: there is none; of who starts and stops the cluster */
    _Atomic uint64_t scrub_wanted, scrub_passes; /* to be looked at next, 0: nothing; that ended */

    /* node.c */
    bool app_open;        /* app.open() was called */
    uint64_t app_covered; /* and said that it holds so much, which may be more than is applied */
    struct kept_app kept; /* while it is not, and has not been closed either */
    struct node_environment environment;
    /* Runs fn beside the node, then done on its thread; one at a time. Nonzero: not now. */
    int (*background)(struct cluster *c, void (*fn)(struct cluster *),
                      void (*done)(struct cluster *, int status));
    enum lead lead;
    uint64_t lead_index;

    /* found.c */
    struct found *found;                /* a new cluster that is being made from here */
    struct cluster_bootstrap bootstrap; /* what a node that waited was given */
    uint8_t join_id[16];                /* the cluster that it was offered a place in */
    uint8_t offer_id[16];               /* the one whose node is being asked about it */
    uint64_t offer_epoch;               /* of that one */
    bool bootstrap_given, join_offered, offer_asked;

    /* node_call.c */
    uint64_t setting_index;    /* of the last setting applied */
    uint64_t setting_proposed; /* of the last one proposed here */
    struct ask *asks;          /* requests of this process that are not answered yet */

    /* cluster.c */
    struct peers *peers;   /* NULL: a cluster of one */
    uint64_t last_time_ns; /* of the last record applied */
    bool begun;            /* config.begun() was called */
    uv_work_t background_request;
    void (*background_fn)(struct cluster *c);
    void (*background_done)(struct cluster *c, int status);
    uint64_t begun_ns, begun_unix_ns;
    bool started; /* has led once */
    uv_loop_t loop;
    uv_prepare_t prepare;
    uv_idle_t idle;
    uv_timer_t timer;
    uv_poll_t disk_poll, wake_poll;
    struct wake wake; /* the cluster thread's */
    pthread_t thread;
    pthread_mutex_t lock; /* state, calls, error */
    pthread_cond_t changed;
    enum cluster_state run_state, told_state; /* with the lock; the thread's own */
    bool ended;                               /* the thread takes no more calls */
    bool interrupted;                         /* nobody waits for answers any more */
    struct call *calls;
    atomic_bool stop_wanted, drain_wanted;
    uint64_t drain_ns; /* monotonic: until then what was taken may be committed; 0: no limit */
    uint64_t start_ns;
    char error[LOG_ERROR_BYTES];
};

/* Each returns 0 or a negative errno, with a sentence in c->error. */
int cluster_fail(struct cluster *c, int error, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* cluster.c */
/* Has it ended, or does nobody wait for it any more? Not the cluster thread. */
bool cluster_is_over(struct cluster *c);

/* node.c */
/* Opens the disk and reads the state. */
int node_prepare(struct cluster *c);
/* Is it of no cluster yet? After node_prepare(). */
bool node_waits(const struct cluster *c);
/* Recovers what the disk holds and applies what is committed. Where that takes other nodes, it is
 * done by turns: c->repair.at_start is set until then. */
int node_open(struct cluster *c);
/* From what node_open() has come to. */
int node_go_on(struct cluster *c);
/* Closes the log and what stands on it, and opens it again as a start does: into the epoch of the
 * term, or fenced, when a later one is promised. No checkpoint is being written. */
int node_reopen(struct cluster *c);
/* One that was fenced goes on from there, in the epoch of its term: its log is as it was opened,
 * and longer by what consensus_collect() was told of. */
int node_resume(struct cluster *c);
/* The app forgets what it stands on: the log is going to be cut below that. */
void node_drop_app(struct cluster *c);
/* Returns the work done, 0: nothing can be done before node_deadline_ns() or a completion. */
int node_turn(struct cluster *c);
uint64_t node_deadline_ns(const struct cluster *c, uint64_t now_ns);

static inline uint64_t node_now_ns(const struct cluster *c)
{
    return c->environment.monotonic_ns(c->environment.arg);
}

static inline uint64_t node_unix_ns(const struct cluster *c)
{
    return c->environment.unix_ns(c->environment.arg);
}

static inline void node_random(const struct cluster *c, void *ret, size_t bytes)
{
    c->environment.random(c->environment.arg, ret, bytes);
}

/* A post of another node, its body aligned to 8 and borrowed. Returns 0; -EAGAIN: again after a
 * completion, what comes behind it waits; -EBADMSG: the sender is not to be believed; another is
 * final. */
int node_receive(struct cluster *c, uint16_t from, enum peer_type type, const void *body,
                 size_t bytes);

/* state.c */
int state_open(struct cluster *c);
int state_write(struct cluster *c);
/* The term of entry 1, the same on all nodes that begin a cluster; this node is in it then, or in a
 * later one. */
int state_first_term(struct cluster *c, uint64_t *ret);
/* A node that waits is given a cluster, and an epoch of it (0: of what it begins with). Not
 * written. */
void state_enter(struct node_state *s, const uint8_t cluster_id[16], uint64_t epoch);

/* An entry from the disk, which c->read_record is of then. Valid until the next call. */
int node_read(struct cluster *c, uint64_t index, const void **ret_payload);
/* An entry of the log, for a message. Valid until the next call of this node. */
int node_entry(struct cluster *c, uint64_t index, struct peer_entry *ret);
/* Is it in memory still? */
bool node_entry_kept(const struct cluster *c, uint64_t index);
/* A node that is given its environment: for cluster.c, and tests. */
struct cluster *node_new(const struct cluster_config *config, const struct cluster_app *app,
                         const struct node_environment *environment);
void node_free(struct cluster *c);

/* consensus.c */
int consensus_collect(void *arg, const struct log_record *record, const void *payload);
/* The log is going to be read again. */
void consensus_forget_entries(struct cluster *c);
/* The newest configuration that was read, or is in force. Returns its size, 0: there is none. */
size_t consensus_configuration(const struct cluster *c, const void **ret);
int consensus_start(struct cluster *c);
void consensus_close(struct cluster *c);
/* An event into the engine, and what it says about it carried out. */
int consensus_step(struct cluster *c, struct raft_event *event);
/* A CHANGE is committed. The engine keeps its own copy. */
int consensus_tell_changed(struct cluster *c, uint64_t index, const void *payload, size_t bytes);
/* The engine takes the entry, and calls propose_taken() for it. */
int consensus_submit(struct cluster *c, enum log_type type, const void *payload, size_t bytes);
/* The term of an entry that the engine remembers, 0: it does not. */
uint64_t consensus_term(const struct cluster *c, uint64_t index);
/* A message of m->server_id, in the order in which that sent them. Of an AppendEntries, entry[0] is
 * the first of its n_entries; the call takes *ret_taken of them, whatever it returns, and -EAGAIN
 * asks to be called again with the rest, after a completion (m says by then what is left). Takes
 * the memory of an InstallSnapshot (peer_snapshot_take()), whatever it returns. -EBADMSG: the
 * sender is not to be believed. Others are final. */
int consensus_receive(struct cluster *c, struct raft_message *m, struct proposal **entry,
                      unsigned *ret_taken);
int consensus_persisted(struct cluster *c, uint64_t index);
int consensus_tick(struct cluster *c);
/* The checkpoint in c->checkpoint is durable. */
int consensus_snapshot(struct cluster *c);
/* The log is durable and applied up to m->index. Takes m's configuration. */
int consensus_fetched(struct cluster *c, struct raft_snapshot_metadata *m);
int consensus_changed(struct cluster *c, uint64_t index, const void *payload, size_t bytes);
bool consensus_leads(const struct cluster *c);
/* The members by the engine's configuration, committed or not. Returns how many, 0: of none yet; or
 * -ENOMEM, -EBADMSG. */
int consensus_members(const struct cluster *c, struct member ret[CLUSTER_MEMBERS_MAX]);
/* Whom this node takes for the leader; 0: nobody. */
uint16_t consensus_leader(const struct cluster *c);
/* Only a leader may call these; a standby, and one that guard_transfer() has nothing against. */
int consensus_catch_up(struct cluster *c, uint16_t node);
int consensus_transfer(struct cluster *c, uint16_t node);
int consensus_bootstrap(struct cluster *c);

/* lag.c */
/* A leader of this term has spoken, just now. */
void lag_note(struct cluster *c, const struct raft_append_entries *a);
/* What was committed so long ago is applied; UINT64_MAX: not known. A leader says 0; one that was
 * deposed does not know it for an election timeout. */
uint64_t lag_ms(const struct cluster *c);

/* region.c */
void region_opened(struct cluster *c);               /* in the epoch of its term */
void region_fenced(struct cluster *c);               /* nothing more is said of that */
int region_turn(struct cluster *c, uint64_t now_ns); /* the work done or a negative errno */
uint64_t region_deadline_ns(const struct cluster *c);
int region_told(struct cluster *c, const void *body, size_t bytes); /* for node_receive() */
/* May a member of that region come now, or leave? Else says what this leader waits for. */
bool region_allows(struct cluster *c, uint8_t region, bool leaves, char *ret_why, size_t bytes);

/* guard.c */
int guard_start_term(struct cluster *c, bool sole_voter);
/* Is the message's term one that this node may enter? */
bool guard_epoch(const struct cluster *c, const struct raft_message *m);
struct guard_vote {
    struct raft_server *server;
    int role;
    bool installing;
    bool lent; /* a configuration of `alone`, in the place of these */
    struct raft_server alone, *servers;
    unsigned n;
};
void guard_vote_begin(struct cluster *c, struct guard_vote *g);
void guard_vote_end(struct cluster *c, const struct guard_vote *g);
void guard_answer(const struct cluster *c, bool stale, struct raft_message *m);
void guard_rejection(const struct cluster *c, struct raft_message *m);
uint64_t guard_timeout_ms(const struct cluster *c, uint64_t now_ms);
void guard_heard(struct cluster *c, const struct raft_message *m);
bool guard_healthy(const struct cluster *c, uint16_t node);
/* May this leader change the configuration now? Node `except` may be dead. Else says what it waits
 * for. */
bool guard_change(const struct cluster *c, uint16_t except, char *ret_why, size_t bytes);
/* Does the catch-up of that node need an entry to be seen to be over? */
bool guard_catch_up(struct cluster *c, uint16_t node);
/* Does that node have all of this leader's log? */
bool guard_transfer(struct cluster *c, uint16_t to);
bool guard_may_lead(struct cluster *c);
int guard_start_digits(uint64_t snapshot_index, uint64_t first, uint64_t first_term, uint64_t last,
                       uint64_t last_term);

/* propose.c */
int propose_init(struct cluster *c);
void propose_fini(struct cluster *c);
void propose_reset(struct cluster *c); /* nothing is appended; after log_close() */
/* Removes the log's entries from there on, all of them durable, from under a stopped engine. */
int propose_cut(struct cluster *c, uint64_t from);
/* The node ends: whoever waits for a proposal to be committed is told -ESHUTDOWN. */
void propose_abandon(struct cluster *c);
/* Takes p. -EAGAIN and -ENOSPC leave it to the caller. */
int propose_entry(struct cluster *c, struct proposal *p);
/* For what comes from another node: the payload's bytes are not set. */
struct proposal *proposal_room(size_t payload_bytes);
struct proposal *proposal_new(enum log_type type, const void *payload, size_t bytes);
void proposal_free(struct proposal *p);
/* Entries of messages are proposals: each write that it gives is the first member of one. */
struct peer_decoder_memory;
extern const struct peer_decoder_memory proposal_memory;
/* The engine has given c->submitting this index: into the log, and among what is to be applied. */
int propose_taken(struct cluster *c, uint64_t index);
/* An entry of another node, or of the engine's own, after a propose_room(). */
int propose_take(struct cluster *c, struct proposal *p, uint64_t index);
int propose_room(struct cluster *c, uint32_t payload_bytes);
/* The log's entries from this index on are not to be: another leader has others. */
int propose_withdraw(struct cluster *c, uint64_t from);
/* Takes from the workers in turn, a bounded number of blocks. Returns how many. */
int propose_collect(struct cluster *c, uint64_t now_ns);
/* Decides about b: appended, or refused for lack of disk. Returns 1; 0 when it has to wait; or a
 * negative errno. It is then to be answered at wait_index. */
int propose_block(struct cluster *c, struct block *b);
/* The memory of what is appended up to this index is its owner's again; false: it is not durable
 * yet. */
bool propose_release(struct cluster *c, uint64_t index);
/* Nothing of b will be in the log, as far as this node knows. */
void propose_refuse(struct block *b, uint32_t reason);
/* For one that may have been given to the log, after an error. */
void proposal_failed(struct cluster *c, struct proposal *p);
int propose_turn(struct cluster *c,
                 uint64_t now_ns); /* returns the work done or a negative errno */
/* An entry of this type is in the segment that is appended to: it will have to be sealed. */
void propose_note_content(struct cluster *c, uint32_t type);
bool propose_idle(const struct cluster *c);

/* forward.c */
#define FORWARDED_WORKER UINT32_MAX       /* block.worker: another node's */
#define RECONCILE_WORKER (UINT32_MAX - 1) /* of an orphan file */
static inline bool is_of_worker(const struct block *b) { return b->worker < RECONCILE_WORKER; }
void forward_init(struct cluster *c);
void forward_fini(struct cluster *c);                 /* after log_close() */
int forward_turn(struct cluster *c, uint64_t now_ns); /* the work done or a negative errno */
uint64_t forward_deadline_ns(const struct cluster *c);
/* Posts: see node_receive(). */
int forward_receive(struct cluster *c, uint16_t from, const void *body, size_t bytes);
int forward_receive_answer(struct cluster *c, uint16_t from, const void *body, size_t bytes);
/* The node ends, and no write is under way: what is not decided about is refused, whoever would
 * have to decide. */
void forward_give_up(struct cluster *c);
/* A block of this node's workers, among the answers, is for the leader to decide about. */
void forward_begin(struct cluster *c, struct block *b);
/* A block of another node is decided about. Takes it. Returns 0 or a negative errno. */
int forward_answer(struct cluster *c, struct block *b);

static inline bool forward_waits(const struct block *b) { return b->forward.id != 0; }
/* change.c */
/* done is called once, perhaps before this returns; not when the node ends first. Returns 0, or
 * what done was told if the operation was refused at once. */
int change_begin(struct cluster *c, const struct change_request *r,
                 void (*done)(void *arg, int result, const char *sentence), void *arg);
int change_turn(struct cluster *c);  /* returns the work done or a negative errno */
void change_stop(struct cluster *c); /* the engine stops: what is under way ends */
/* What is under way, and what it waits for; "": nothing. */
void change_tell_status(const struct cluster *c, char *ret, size_t bytes);
/* Nothing may enter the log: the lead is being handed over. */
bool change_quiet(const struct cluster *c);
/* The disk of this leader is full: it hands the lead to a voter that has the log, at most once in
 * ten seconds. Returns 1 while that may succeed (blocks wait), 0 if not, or a negative errno. */
int change_yield(struct cluster *c);

/* commit.c */
int commit_turn(struct cluster *c); /* applies and answers what has become committed */
/* Applies what is committed from this index on; again from applied_index + 1 after -EILSEQ, which
 * is rot there. */
int commit_replay(struct cluster *c, uint64_t from);
bool commit_idle(const struct cluster *c);
void commit_answer_later(struct cluster *c, struct block *b);
/* Nobody has told this node, which does not lead any more, what became of what it had admitted:
 * that is refused. The entries stay in the log, to be cut, or applied like another node's. False:
 * not yet, they are not durable. */
bool commit_abandon(struct cluster *c);
/* What waits for an index from here on is forwarded, or answered as refused. */
void commit_withdraw(struct cluster *c, uint64_t from);

/* fetch.c */
/* Fills what the engine leaves to the host of an InstallSnapshot that is about to be sent (-EAGAIN:
 * what it is about has rotted here); then frees that. */
int fetch_offer(struct cluster *c, struct raft_install_snapshot *m);
void fetch_offer_end(struct raft_install_snapshot *m);
/* The engine wants everything up to u->snapshot.metadata.index, which node `from` has offered.
 * Takes the update's memory. */
int fetch_begin(struct cluster *c, uint16_t from, struct raft_update *u);
int fetch_turn(struct cluster *c, uint64_t now_ns); /* returns the work done or an error */
uint64_t fetch_deadline_ns(const struct cluster *c, uint64_t now_ns);
/* For node_receive(). */
int fetch_asked(struct cluster *c, uint16_t from, const void *body, size_t bytes);
/* A body that came, which is what is in it: into its own, if anything is packed. 0, -EBADMSG, or a
 * final error. */
int fetch_unpack(struct cluster *c, const void **body, size_t *bytes);
uint8_t fetch_packs(const struct cluster *c); /* for a FETCH: how it may come */
int fetch_received(struct cluster *c, uint16_t from, const void *body, size_t bytes);
void fetch_log_cut(struct cluster *c); /* what was read ahead may be gone */
void fetch_close(struct cluster *c);

/* repair.c */
/* The node does not open: rot says why, in a sentence. Returns 0, -ENOTSUP: nobody could mend it.
 */
int repair_begin(struct cluster *c, const struct log_damage *d, const char *rot);
/* Of a node that is open, and a segment that is not its last. Returns 0; -EBUSY: later; -EAGAIN:
 * not of what is applied; -ENOTSUP: there are no other nodes. */
int repair_segment(struct cluster *c, const struct log_damage *d);
int repair_turn(struct cluster *c, uint64_t now_ns); /* returns the work done or an error */
uint64_t repair_deadline_ns(const struct cluster *c, uint64_t now_ns);
void repair_introduced(struct cluster *c, uint16_t node); /* it has connected */
bool repair_expects(const struct cluster *c, uint16_t from);
/* For node_receive(). */
int repair_received(struct cluster *c, uint16_t from, const void *body, size_t bytes);
void repair_close(struct cluster *c);

/* found.c */
/* A node has dialled this one, and one of them is of no cluster. */
struct hello;
void node_offered(struct cluster *c, const struct hello *h);
/* Takes it, or says why not in sentence. */
int found_take(struct cluster *c, const sluice_v1_Bootstrap *b, char sentence[LOG_ERROR_BYTES]);
/* What this node began with, beside its status; no members: it did not begin a cluster. */
void found_tell(struct cluster *c, sluice_v1_NodeStatus *ret);

/* node_call.c */
void node_tell_status(struct cluster *c, sluice_v1_NodeStatus *ret);

/* snapshot.c */
int snapshot_load(struct cluster *c); /* fills origin, genesis, configuration, events_by_type */
bool snapshot_exists(const struct cluster *c); /* any, good or not */
int snapshot_take(struct cluster *c, const struct appended *a);
int snapshot_cut(const struct cluster *c, uint64_t last); /* removes those above */

#endif
