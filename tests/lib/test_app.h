/*
 * test_app.h - a cluster with one worker's link and an app that remembers what it was told, for
 * tests that play the worker themselves.
 */
#ifndef SLUICE_TEST_APP_H
#define SLUICE_TEST_APP_H

#include "cluster/cluster.h"

#define TEST_APP_BLOCKS  16
#define TEST_APP_NUMBERS 65536

struct test_app {
    struct cluster *cluster;
    struct cluster_link link;
    struct block *block[TEST_APP_BLOCKS];
    char dir[64];
    struct disk *disk;          /* NULL: the real one */
    uint64_t segment_age_ns;    /* 0: five minutes */
    uint64_t scrub_bytes_per_s; /* 0: no scrub; else with 1 ms between passes */
    uint16_t node;              /* 0: 1 */
    uint8_t region;             /* 0: 1 */
    const struct cluster_peering *peering;
    /* What apply() was given; on the cluster thread, read after the cluster was stopped or waited
     * for. */
    uint64_t applied_entries, applied_events, last_applied;
    uint64_t opened_last_index;
    bool opened, out_of_order;
    uint8_t seen[TEST_APP_NUMBERS]; /* how often apply() was given the event of that number */
    _Atomic bool failed;
    int ready;      /* what ready() answers; set before the block is handed over */
    int admit_left; /* events that admit() leaves, -1: all */
    char failure[LOG_ERROR_BYTES];
};

/* Makes the directory. */
void test_app_init(struct test_app *t);
void test_app_fini(struct test_app *t);

/* Asserts that the cluster starts, or gives the error. */
void test_app_start(struct test_app *t);
int test_app_try_start(struct test_app *t, char error[LOG_ERROR_BYTES]);
void test_app_stop(struct test_app *t);

/* Fills block i with n events of `bytes` bytes each, numbered from first, and seals it. */
void test_app_fill(struct test_app *t, int i, uint32_t n, uint32_t bytes, uint64_t first);
void test_app_submit(struct test_app *t, int i);

/* Waits for the next answered block; asserts that it comes within 20 s. */
struct block *test_app_answer(struct test_app *t);
/* The same, but NULL when the node has failed and no answer is left. */
struct block *test_app_answer_or_failure(struct test_app *t);

#endif
