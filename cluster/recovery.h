/*
 * recovery.h - what a node knows of a failover, as its leader and as one of the led, and of the way
 * back: the part of internal.h that is of recovery.c, recovery_copy.c, failover.c, orphan.c and
 * reconcile.c.
 */
#ifndef SLUICE_CLUSTER_RECOVERY_H
#define SLUICE_CLUSTER_RECOVERY_H

#include "cluster/cluster.h"
#include "cluster/orphan.h"
#include "cluster/peer_recover.h"

#define CLUSTER_CONFIGURATION_BYTES_MAX 4096u

struct cluster;
struct block;

enum recovery_copy {
    COPY_NONE,
    COPY_SEARCH,    /* for where the two logs part */
    COPY_SET_ASIDE, /* what is behind that here */
    COPY_CUT,
    COPY_FETCH,
    COPY_DONE,
};

/* What is being set aside. */
struct orphan {
    int file; /* -1: nothing */
    uint64_t next, offset;
    uint64_t own; /* of events_own, that are in it */
    struct orphan_head head;
};

struct recovery_finish {
    struct peer_recover head;
    uint8_t audit[PEER_RECOVER_AUDIT_MAX], change[CLUSTER_CONFIGURATION_BYTES_MAX];
};

struct recovery {
#ifdef PLANT_PROMISE_NOT_KEPT
    bool promised_here; /* by this process */
#endif
    bool fenced; /* a later epoch is promised; the engine is not started */

    /* To another's log. */
    enum recovery_copy copy;
    bool changed;                        /* the log is not what it was when it was opened */
    uint16_t source;                     /* whose it is */
    uint64_t target;                     /* its end */
    uint8_t target_digest[SHA256_BYTES]; /* of the chain there */
    uint64_t same, differs, probe;       /* equal there; different there; asked about */
    uint64_t next;                       /* of what comes */
    int64_t granted;                     /* bytes that may come yet */
    uint64_t ask_ns, retry_ns, heard_ns;
    uint64_t committed; /* the highest index that was known to be committed before it stopped */
    struct orphan orphan;

    /* By a coordinator. */
    bool asked; /* and not answered yet */
    uint16_t asker;
    struct peer_recover request;
    struct recovery_finish finish;

    /* By itself. */
    uint64_t newer; /* epoch that was heard of; 0: none */
    uint16_t newer_from;
    uint64_t look_ns;
    bool rejoins;
    uint16_t rejoin_source;
    uint64_t rejoin_index;
    uint8_t rejoin_digest[SHA256_BYTES];

    char note[LOG_ERROR_BYTES]; /* for status */
};

enum failover_step {
    FAILOVER_NONE,
    FAILOVER_LOOK,
    FAILOVER_PROMISE,
    FAILOVER_COPY,
    FAILOVER_FINISH,
};

#define FAILOVER_LOOKED   1u /* what a node has answered; a set */
#define FAILOVER_PROMISED 2u
#define FAILOVER_REFUSED  4u
#define FAILOVER_COPIED   8u
#define FAILOVER_FINISHED 16u
#define FAILOVER_MEMBER   32u

struct failover_node {
    uint16_t node;
    bool other; /* of another region, or declared dead: it is looked at, and not counted */
    bool dead;
    unsigned marks;
    struct peer_recover seen; /* the last LOOK, then the first PROMISE */
};

/* The failover that this node leads; failover.c. */
struct failover {
    enum failover_step step;
    struct failover_request request;
    void (*done)(void *arg, int result, const struct failover_report *report);
    void *arg;
    uint64_t epoch, attempt;
    uint64_t step_ns, deadline_ns, repeat_ns, enough_ns;
    struct failover_node node[CLUSTER_MEMBERS_MAX];
    unsigned nodes;
    uint16_t best;           /* whose log it is */
    struct peer_recover log; /* that one's end */
    uint64_t time_ns;
    uint8_t audit[PEER_RECOVER_AUDIT_MAX], change[CLUSTER_CONFIGURATION_BYTES_MAX];
    uint32_t audit_bytes, change_bytes;
    struct failover_report report;
};

/* recovery.c */
/* Has it promised an epoch that it has not come to? */
bool recovery_is_promised(const struct cluster *c);
/* By the newest configuration here, committed or not, whether the engine runs or not. As
 * consensus_members(). */
int recovery_members(struct cluster *c, struct member ret[CLUSTER_MEMBERS_MAX]);
/* A frame of a sender of this epoch: is this node to hear it now? Takes note of later epochs. */
bool recovery_hears(struct cluster *c, uint16_t from, uint32_t type, uint64_t epoch);
int recovery_turn(struct cluster *c, uint64_t now_ns); /* the work done or a negative errno */
uint64_t recovery_deadline_ns(const struct cluster *c, uint64_t now_ns);
/* A request, of this node's own coordinator, too. */
int recovery_asked(struct cluster *c, uint16_t from, const struct peer_recover_view *v);
/* For node_receive(). */
int recovery_receive(struct cluster *c, uint16_t from, const void *body, size_t bytes);
bool recovery_expects(const struct cluster *c, uint16_t from);
int recovery_fetched(struct cluster *c, uint16_t from, const void *body, size_t bytes);
void recovery_forget(struct cluster *c); /* what is under way; frees what it holds */
/* For status, and the report when it is news. */
void recovery_note(struct cluster *c, const char *format, ...)
    __attribute__((format(printf, 2, 3)));

/* recovery_copy.c */
/* This fenced node's log is to be node `source`'s, up to there. */
void recovery_copy_begin(struct cluster *c, uint16_t source, uint64_t index,
                         const uint8_t digest[SHA256_BYTES]);
/* The work done or a negative errno; c->recovery.copy is COPY_DONE in the end. */
int recovery_copy_turn(struct cluster *c, uint64_t now_ns);
/* Of the chain at an entry of the log, or at 0. */
int recovery_digest(struct cluster *c, uint64_t index, uint8_t ret[SHA256_BYTES]);

/* failover.c */
/* done is called once, perhaps before this returns; not when the node ends first. Returns 0, what
 * done was told if it was refused at once, or an error that is final. */
int failover_begin(struct cluster *c, const struct failover_request *r,
                   void (*done)(void *arg, int result, const struct failover_report *report),
                   void *arg);
int failover_turn(struct cluster *c, uint64_t now_ns); /* the work done or a negative errno */
uint64_t failover_deadline_ns(const struct cluster *c, uint64_t now_ns);
int failover_answered(struct cluster *c, uint16_t from, const struct peer_recover *a);
/* The lowest of that region above this one: 2n + region. */
uint64_t failover_next_epoch(uint64_t seen, uint8_t region);

/* reconcile.c */
/* All files of this node that were not offered yet. done is called once, perhaps before this
 * returns; not when the node ends first. */
void reconcile_begin(struct cluster *c,
                     void (*done)(void *arg, int result, const struct reconcile_report *report),
                     void *arg);
int reconcile_turn(struct cluster *c, uint64_t now_ns); /* the work done or a negative errno */
uint64_t reconcile_deadline_ns(const struct cluster *c, uint64_t now_ns);
void reconcile_answered(struct cluster *c, struct block *b); /* a block of its is decided */
void reconcile_close(struct cluster *c);                     /* after log_close() */

/* orphan.c */
/* Begins to set aside the log's entries from first to last, its end. */
int orphan_create(struct cluster *c, uint64_t first, uint64_t last, uint64_t into);
int orphan_write(struct cluster *c); /* a piece: 1: more; 0: it is done; or an error, and closed */
void orphan_close(struct orphan *o);

#endif
