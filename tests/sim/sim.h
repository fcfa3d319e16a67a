/*
 * sim.h - what the simulator's files share: the world of one run.
 *
 * sim.c      what happens when, faults; a run and its end
 * machine.c  the nodes on their disks, and what is checked of them
 * app.c      the store on them, and what is checked of it
 * client.c   what is sent, what is sent again, and what must be answered
 * network.c  the links between them
 * rot.c      bits that flip and old files that come back on the disks, and who looks for them
 * loss.c     disks that fill up, that fail, and that are lost with their machine
 * plan.c     a run's worst moment, which chance would not find
 * history.c  the committed log, epoch by epoch
 * failover.c who asks for forced failovers, at any time, and at several places
 * region.c   two regions: what is lost with one, and what is durable in both
 * operator.c who asks for members to be added, removed and replaced, and for the lead to move
 */
#ifndef SLUICE_TESTS_SIM_H
#define SLUICE_TESTS_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "cluster/internal.h"
#include "cluster/segment.h"
#include "store/apply.h"

#define NODES       9 /* at most, with those that take a lost one's place */
#define FOUNDERS    3
#define JOINERS     2  /* more, from the beginning; or none */
#define BLOCKS      16 /* of a node's workers; more than are forwarded at a time */
#define INDEX_MAX   20000
#define TERMS_MAX   20000
#define NUMBERS_MAX 100000 /* events */
#define AGAIN_MAX   4096
#define LINK_MAX    4096 /* messages under way on one link */
#define DURABLE_MAX 4096
#define FAULTS_NS   (20ull * NS_PER_S)
#define HEAL_NS     (30ull * NS_PER_S)
#define EVENTS_MAX  20u
#define EVENT_BYTES 64u
#define EPOCHS_MAX  128u

struct message {
    uint64_t due_ns;
    uint8_t *bytes; /* a frame */
    size_t n;
    bool decoded;
    enum peer_type type;
    uint64_t epoch; /* the sender's */
    struct raft_message raft;
    struct proposal *entry[PEER_ENTRIES_MAX];
    unsigned entries, taken;
    bool given; /* the snapshot's memory */
    struct message *next;
};

struct link {
    struct message *head, **tail;
    unsigned n;
    uint64_t blocked_ns; /* until then */
    bool waits;          /* for room at the receiver */
};

/* What a client sends: an event is known by its number, and there may be two of one number. */
struct sim_event {
    uint32_t number;
    uint8_t version;
};

struct sent {
    uint32_t events; /* 0: the block is free */
    uint64_t ns;     /* when */
    bool refused;    /* the worker has refused one more */
    struct sim_event event[EVENTS_MAX];
};

/* A segment as it was once. */
struct old_file {
    char name[SEGMENT_NAME_BYTES];
    uint8_t *bytes;   /* NULL: none */
    uint64_t n, next; /* the first record that it does not have */
};

struct sim_node {
    struct cluster *c;
    struct store *store;
    struct cluster_app app; /* the store's */
    uint64_t store_ns;      /* when it works next */
    struct disk *disk;
    struct cluster_link link;
    struct block *block[BLOCKS];
    struct sent sent[BLOCKS];
    uint64_t led_ns;   /* when it last did */
    uint64_t receipts; /* since all has healed */
    char dir[64], dedupe_dir[80];
    uint64_t turn_ns, disk_ns, up_ns, stopped_ns, slow_ns;
    int64_t clock_ns;    /* off the true time */
    int64_t drift;       /* of its monotonic clock, in 1/1024 */
    uint64_t full_ns;    /* its disk is full until then; 0: it is not */
    uint64_t fails_at;   /* the operation of its disk that fails; 0: none */
    bool gone;           /* with its disk */
    uint64_t join_epoch; /* in which it is offered its place */
    bool removed;        /* that the operator knows of */
    struct old_file old;
    uint64_t applied;
    uint64_t persisted;                               /* before its last turn */
    uint64_t durable;                                 /* what it has said to be */
    uint64_t durable_from, durable_term[DURABLE_MAX]; /* of a crashed one: of what is behind that */
    uint64_t region_known;                            /* what it has said of both regions */
    bool led, fetching;
    uint64_t changing; /* the uncommitted CHANGE in its log */
    void (*work)(struct cluster *);
    void (*work_done)(struct cluster *, int);
    uint64_t work_ns;
    uint64_t scrub_ns, scrub_index; /* the next segment; when */
    bool opened;                    /* its log is whole */
    enum { RECONCILE_NOT, RECONCILES, RECONCILED } reconciles;
    bool fenced;
    uint64_t epoch, epoch_ns; /* when that, or the one before, was another */
};

struct committed {
    uint64_t term, in_term; /* of the entry; of the first who knew it to be committed */
    uint8_t sha256[SHA256_BYTES];
    bool known;
};

/* Where the event of a number is in the committed log; index 0: nowhere. */
struct accepted {
    struct dedupe_place place;
    uint8_t version;
    bool receipted;
};

/* The committed log as the nodes of an epoch have it; history.c. */
struct history {
    uint64_t epoch, fork;     /* what its parent had committed up to there is its own */
    uint64_t last;            /* of the log that it began with */
    uint64_t term[INDEX_MAX]; /* of that log's entries */
    struct history *parent;
    uint64_t committed;
    struct committed entry[INDEX_MAX];
    struct accepted event[NUMBERS_MAX + 1];
};

/* The operator; one operation at a time, asked for until it is done or given up. */
struct operator
{
    uint64_t next_ns;
    bool wants, waits;   /* an operation; its answer */
    bool final;          /* all is well: only what leads to the roles below is asked for */
    struct sim_node *at; /* whom it was asked of */
    struct change_request request;
    int role[NODES + 1];  /* in the end; -1: no member */
    uint8_t region;       /* and of two, the active one */
    uint64_t asked, done; /* how many */
};

/* plan.c */
enum plan_step { PLAN_NONE, PLAN_GROW, PLAN_FIRST, PLAN_SECOND };
struct plan {
    enum plan_step step;
    unsigned first; /* the leader of that step */
    uint64_t quiet_ns, until_ns;
};

/* Two of a region's three are lost for good, and the operator says so; loss.c. */
struct declared {
    uint64_t index;    /* of the last entry that the survivor had then */
    unsigned survivor; /* 0: it did not happen */
    unsigned dead[2], fresh[2];
};

struct sim {
    uint64_t seed, random, now_ns;
    uint32_t number;                     /* the last event made */
    struct history *history[EPOCHS_MAX]; /* by the epoch; NULL: it has not begun */
    struct history *newest;
    struct sim_event again[AGAIN_MAX]; /* to be sent again */
    uint32_t agains;
    bool two;                     /* regions, of three nodes each; the second one's are standbys */
    uint8_t spare_region;         /* of the node that is no member at first */
    uint64_t region, region_term; /* to there a leader has said that both have it */
    uint64_t newest_change, newest_change_epoch; /* of the members, that anybody has applied */
    bool fails_over;                             /* in this run */
    uint64_t ping_ns;                            /* when all say their epochs next */
    uint64_t failover_ns;                        /* when one is asked for next */
    uint64_t failovers, failed_over, rejoined;   /* asked for; done; nodes */
    uint64_t orphans, reconciled;                /* events: set aside; put in again */
    uint64_t wan_ns;                             /* between the two, at most */
    unsigned founders;                           /* that begin the cluster */
    unsigned nodes;
    struct sim_node node[NODES + 1];
    struct link link[NODES + 1][NODES + 1];
    unsigned leader[EPOCHS_MAX][TERMS_MAX]; /* by the term's parts */
    uint64_t receipts, refused, crashes, elections, messages;
    uint64_t duplicates, conflicts, withdrawn, waits, rebuilds, store_works;
    uint64_t fetches, fetched;  /* begun; done */
    uint64_t forwarded, resent; /* by processes that have ended */
    uint64_t client_ns, chaos_ns;
    unsigned trailing, long_percent, to_leader_percent; /* of power cuts, of blocks */
    uint64_t fetch_bytes_per_s, segment_age_ns;
    struct operator operator;
    struct plan plan;
    struct declared declared;
    unsigned rotten; /* the node with rot; 0: none */
    uint64_t rot_index, rots, mended;
    unsigned rot_percent;  /* of starts */
    unsigned loss_percent; /* of what goes wrong */
    uint64_t drift;        /* of clocks, at most */
    bool healing, verbose;
    bool settled;                             /* it heals, and the members stay who they are */
    uint64_t full_ns;                         /* when a full disk had room again */
    uint64_t fulls, failures, lost, restored; /* how many */
    struct cluster_bootstrap bootstrap;
};

extern struct sim sim;

/* sim.c */
uint64_t draw(uint64_t below);
uint64_t between(uint64_t low, uint64_t high);
bool chance(unsigned percent);
int newest_members(struct member ret[CLUSTER_MEMBERS_MAX]);
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
void violation(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* One that believes to be it, or NULL. */
struct sim_node *the_leader(void);
void remove_dir(const char *dir);

/* app.c */
void app_start(struct sim_node *n, struct cluster_app *ret);
void app_stop(struct sim_node *n);
void app_work(struct sim_node *n);
/* What a member knows is what the log says, and what the other one knows. */
void app_check_end(struct sim_node *n, struct sim_node *other);

/* client.c */
void client_send(void);
void client_answered(struct sim_node *n, unsigned at);
void client_lost(struct sim_node *n);
/* An event's bytes, EVENT_BYTES of them, and back. */
void client_event_write(uint8_t *to, struct sim_event e);
struct sim_event client_event_read(const uint8_t *from);
void split(void);

/* operator.c */
void operator_ask(void);
void operator_crashed(struct sim_node *n);
void operator_end(void); /* draws who is to be a member in the end */
bool operator_satisfied(void);
struct member operator_member(unsigned node);
/* By the committed configuration that a node knows; -1: no member. */
int operator_role(const struct cluster *c, unsigned node);
/* The committed members that a node knows. */
int operator_members(const struct cluster *c, struct member ret[CLUSTER_MEMBERS_MAX]);

/* plan.c */
void plan_begin(void);
bool plan_runs(void);
bool plan_request(struct sim_node *l, struct change_request *r);
void plan_changes(const struct sim_node *l);

/* loss.c */
void loss_fill(struct sim_node *n);
void loss_make_room(struct sim_node *n);
bool loss_may_be_full(void); /* any disk, as far as a node knows */
void loss_fail_write(struct sim_node *n);
bool loss_has_failed(const struct sim_node *n);
void loss_of_machine(struct sim_node *n);
void loss_of_most(void); /* of a region, for good; perhaps */
/* Is a failover still to be done, without those? */
bool loss_is_declared(void);
bool loss_is_offered(void); /* to those that are new, a place, once */
/* The survivor's epoch has begun: those that are new are offered their places. */
void loss_offer(uint64_t epoch);

/* region.c */
uint8_t region_of(unsigned node);
void region_fault(void);
/* For when a node crashes: what is on its disk. */
void region_remember(struct sim_node *n);
void region_check(struct sim_node *n);
void region_check_members(void);

/* rot.c */
void rot_remember(struct sim_node *n);
void rot_at_start(struct sim_node *n);
void rot_running(struct sim_node *n);
void rot_scrub(struct sim_node *n);

/* history.c */
/* Of the epoch of this term, in which node n is. */
struct history *history_of(struct sim_node *n, uint64_t term);
void history_follow(struct sim_node *n); /* its epoch may be new */
/* An entry that both regions have, by a leader's word: has the newest epoch begun with it? */
void history_check_region(uint64_t index, uint64_t term);
/* The epoch of the configuration that a node knows to be committed. */
uint64_t history_configured(const struct cluster *c);
void history_check_end(void); /* what was receipted is in the log, or set aside */

/* failover.c */
void failover_ask(void);
/* Has every node offered again what it has set aside? Asks those that have not. */
bool failover_reconciled(void);

/* network.c */
void link_break(unsigned from, unsigned to);
int sim_send(void *arg, const struct raft_message *raft);
int sim_post(void *arg, const struct node_post *p);
void deliver(unsigned from, unsigned to);

/* machine.c */
void machine_make(struct sim_node *n);
unsigned number_of(const struct sim_node *n);
void sim_random(void *arg, void *ret, size_t bytes);
void machine_start(struct sim_node *n);
void machine_crash(struct sim_node *n);
void machine_run(struct sim_node *n);
void machine_disk(struct sim_node *n);
/* False: it had to end, and is down. */
bool machine_check(struct sim_node *n, int e);

#endif
