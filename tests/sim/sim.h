/*
 * sim.h - what the simulator's files share: the world of one run.
 *
 * sim.c      what happens when, clients, faults; a run and its end
 * machine.c  the nodes on their disks, and what is checked of them
 * network.c  the links between them
 */
#ifndef SLUICE_TESTS_SIM_H
#define SLUICE_TESTS_SIM_H

#include <stdbool.h>
#include <stdint.h>

#include "base/clock.h"
#include "cluster/internal.h"

#define NODES        3
#define BLOCKS       8
#define INDEX_MAX    20000
#define TERMS_MAX    20000
#define RECEIPTS_MAX 20000
#define LINK_MAX     4096 /* messages under way on one link */
#define FAULTS_NS    (20ull * NS_PER_S)
#define HEAL_NS      (30ull * NS_PER_S)
#define EVENTS_MAX   20u

struct message {
    uint64_t due_ns;
    uint8_t *bytes; /* a frame */
    size_t n;
    bool decoded;
    enum peer_type type;
    struct raft_message raft;
    struct proposal *entry[PEER_ENTRIES_MAX];
    unsigned entries, taken;
    struct message *next;
};

struct link {
    struct message *head, **tail;
    unsigned n;
    uint64_t blocked_ns; /* until then */
    bool waits;          /* for room at the receiver */
};

struct sim_node {
    struct cluster *c;
    struct disk *disk;
    struct cluster_link link;
    struct block *block[BLOCKS];
    uint64_t content[BLOCKS]; /* number of the block's first event, 0: free */
    char dir[64];
    uint64_t turn_ns, disk_ns, up_ns, stopped_ns, slow_ns;
    int64_t clock_ns; /* off the true time */
    uint64_t applied;
    uint64_t durable; /* what it has said to be */
    bool led;
    void (*work)(struct cluster *);
    void (*work_done)(struct cluster *, int);
    uint64_t work_ns;
};

struct committed {
    uint64_t term, in_term; /* of the entry; of the first who knew it to be committed */
    uint8_t sha256[SHA256_BYTES];
    uint64_t number; /* of its first event */
    bool known;
};

struct receipt {
    uint64_t index, number;
};

struct sim {
    uint64_t seed, random, now_ns, number;
    struct sim_node node[NODES + 1];
    struct link link[NODES + 1][NODES + 1];
    struct committed entry[INDEX_MAX];
    uint64_t committed;
    unsigned leader[TERMS_MAX]; /* by the term's counter */
    struct receipt receipt[RECEIPTS_MAX];
    uint64_t receipts, refused, crashes, elections, messages, withdrawn;
    uint64_t client_ns, chaos_ns;
    bool healing, verbose;
    struct cluster_bootstrap bootstrap;
};

extern struct sim sim;

/* sim.c */
uint64_t draw(uint64_t below);
uint64_t between(uint64_t low, uint64_t high);
bool chance(unsigned percent);
void trace(const char *format, ...) __attribute__((format(printf, 1, 2)));
void violation(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

/* network.c */
void link_break(unsigned from, unsigned to);
int sim_send(void *arg, const struct raft_message *raft);
int sim_post(void *arg, const struct node_post *p);
void deliver(unsigned from, unsigned to);

/* machine.c */
unsigned number_of(const struct sim_node *n);
void sim_random(void *arg, void *ret, size_t bytes);
void machine_start(struct sim_node *n);
void machine_crash(struct sim_node *n);
void machine_run(struct sim_node *n);
void machine_disk(struct sim_node *n);
void machine_check(struct sim_node *n, int e);

#endif
