/*
 * regions_rig.h - two regions of three nodes in one process, in the test's own time, on a network
 * that loses only what the test takes away; and two nodes more, which are new to the second region.
 *
 * What goes wrong fails the test (cmocka). One cluster at a time; memory: regions_setup() to
 * regions_teardown().
 */
#ifndef SLUICE_TESTS_REGIONS_RIG_H
#define SLUICE_TESTS_REGIONS_RIG_H

#include "tests/lib/node_rig.h"

#define NODES    6u
#define ALL      8u /* with two that are new */
#define WAIT_MS  70000u
#define ANYWHERE 0u

struct regions_node {
    struct cluster *c;
    struct disk *disk;
    struct cluster_link link;
    struct block block;
    char dir[64];
    uint64_t opened_at; /* what the app was told of the log's end last */
    const char *ends;   /* with such an error; NULL: that fails the test. Set to NULL when it has */
};

extern struct regions_node regions_node[ALL + 1]; /* by number */
extern uint64_t regions_now_ns;

/* What the failovers that were asked of each node have come to. */
extern struct regions_outcome {
    unsigned told;
    int result;
    struct failover_report report;
} regions_outcome[ALL + 1];

uint8_t regions_of(unsigned n); /* a node's region */
struct member regions_member(unsigned n);

/* Members up to that node; the first region's vote. */
void regions_make(unsigned members);
int regions_setup(void **state); /* all six, with one block in the log */
int regions_teardown(void **state);
void regions_start(unsigned n);
void regions_stop(unsigned n);

void regions_turn(void); /* a millisecond */
void regions_pass_ms(unsigned ms);
void regions_cut_between(unsigned a, unsigned b, bool is);
void regions_cut_off(unsigned n, bool is);
void regions_part(bool is);

/* Of that region, or ANYWHERE; waits for one. */
unsigned regions_leader_of(unsigned region);
/* By that node's worker; until it is answered. */
void regions_commit_block(unsigned n);
uint64_t regions_epoch_of(unsigned n);
/* Until all from a to b that there are have applied one log. */
void regions_settle(unsigned a, unsigned b);
void regions_assert_nothing_promised(void);

/* A failover: for failover_begin(); asked of a node; until it is told; both of it. */
void regions_told(void *arg, int result, const struct failover_report *report);
int regions_begin(unsigned at, struct failover_request r);
int regions_finish(unsigned at);
int regions_fail_over(unsigned at, uint8_t region);

#endif
