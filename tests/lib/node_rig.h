/*
 * node_rig.h - one node without a thread, on a disk in memory, in the test's time: alone, or as one
 * of three. What it posts is kept; its application takes what the test says for duplicates.
 */
#ifndef SLUICE_TESTS_NODE_RIG_H
#define SLUICE_TESTS_NODE_RIG_H

#include "base/clock.h"
#include "cluster/internal.h"
#include "cluster/peer_forward.h"
#include "tests/lib/test_disk.h"

#define SELF   1
#define OTHER  2
#define THIRD  3
#define BLOCKS 16
#define POSTS  64u
#define EVENTS 12u

struct sent {
    uint16_t to;
    enum peer_type type;
    size_t bytes;
    uint64_t body[256];
};

struct node_rig {
    struct cluster *c;
    struct disk *disk;
    struct cluster_link link;
    struct block *block[BLOCKS], *foreign;
    struct cluster_bootstrap bootstrap;
    char dir[64];
    uint64_t now_ns;
    struct sent sent[POSTS];
    unsigned posts;
    int post_error, send_error;
    uint32_t duplicates; /* this many of a block's first events are taken for duplicates ... */
    uint32_t conflicts;  /* ... and of those behind them for conflicts */
    int ready;
    unsigned admitted, withdrawn;
    uint64_t withdrawn_index; /* the last one's */
    uint64_t cut_from;        /* what the app was told last */
    unsigned applied_ours;
};

extern struct node_rig t;

/* cmocka's: the rig as new, without a node; and all of it away. */
int node_rig_setup(void **state);
int node_rig_teardown(void **state);

/* Node SELF, alone or of a cluster of SELF, OTHER and THIRD. */
void node_rig_start(bool alone);
/* Until there is nothing more to do; the disk completes something about every other time. */
void node_rig_turn(void);
void node_rig_later_ms(uint64_t ms);
/* A leader of a later term than any so far speaks. */
void node_rig_follow(uint16_t leader);

/* A sealed block of this node's: events first, first + 1, ... of 9 bytes and more, so that what is
 * left has to move; three requests, of which the first event of each has none. */
void node_rig_fill(struct block *b, uint16_t node, uint64_t first);
/* From the worker; and back, or NULL. */
void node_rig_submit(unsigned i);
struct block *node_rig_answer(void);

#endif
