/*
 * fake_cluster.h - a cluster thread for tests of workers: takes blocks, decides, gives them back.
 *
 * Thread:  one of its own; the functions here are for the test's thread.
 * Decides: everything is committed, unless `decide` says otherwise. While held, blocks pile up.
 */
#ifndef SLUICE_TESTS_FAKE_CLUSTER_H
#define SLUICE_TESTS_FAKE_CLUSTER_H

#include <pthread.h>

#include "cluster/cluster.h"

#define FAKE_EPOCH 3u
#define FAKE_TERM  ((uint64_t)FAKE_EPOCH << CLUSTER_EPOCH_SHIFT | 7)

struct fake_cluster {
    struct cluster_link link;
    struct wake wake;
    pthread_t thread;
    bool started;
    _Atomic bool stop, hold;
    _Atomic uint64_t events, blocks, held; /* seen so far; waiting */
    _Atomic uint32_t events_max;           /* of one block */
    uint64_t index;
    /* Sets verdicts, exceptions and refuse_reason; runs on the cluster's thread. */
    void (*decide)(void *arg, struct block *b);
    /* Sees every block that is given back, sealed; may be NULL. */
    void (*seen)(void *arg, const struct block *b);
    void *arg;
    struct block *pending[4096];
    uint32_t pending_n;
};

int fake_cluster_open(struct fake_cluster *f);
int fake_cluster_start(struct fake_cluster *f);
void fake_cluster_hold(struct fake_cluster *f, bool hold);
/* Both regions have the log to that index; can the other one be reached? */
void fake_cluster_region(struct fake_cluster *f, uint64_t index, bool reached);
/* Gives back what it has and ends. */
void fake_cluster_stop(struct fake_cluster *f);
void fake_cluster_close(struct fake_cluster *f);
/* For worker_config.wake_cluster. */
void fake_cluster_wake(void *f);

/* Marks event i, with the exception that its request is owed. */
void fake_cluster_verdict(struct block *b, uint32_t i, enum verdict verdict, uint64_t first_index,
                          uint16_t first_slot);

#endif
