/*
 * load.h - sends datagrams into a veth pair, at an exact pace or as fast as it can be done.
 *
 * BPF_PROG_TEST_RUN on live frames (Linux >= 5.18): they come to the other end as a network card's
 * driver would bring them, without a socket buffer, checksums complete. A frame costs this sender
 * some 170 ns; by AF_PACKET past the queue discipline it was 1,900 on a veth whose other end runs
 * a program, since the kernel copies every socket buffer there. Starting a run takes 30 ms, so all
 * of a stream is one run, and its program waits for what is due. What a driver does in its
 * softirq, that of the other end included, is done on the sender's processor; while nothing is due
 * the sender keeps that busy, and says for how long (load_spun_ns()). Since the sender does not
 * leave the kernel, what comes from a disk would wait there for a tick: so its processor is the one
 * that devices interrupt least.
 *
 * Thread:  one of its own.
 * Errors:  a sentence on stderr, and exit(1).
 */
#ifndef SLUICE_TESTS_LOAD_H
#define SLUICE_TESTS_LOAD_H

#include <pthread.h>
#include <stdint.h>

#include "tests/lib/veth.h"

#define LOAD_PORT 7400u

/* What all datagrams of a stream are. Events get ids of their own when they are sent. */
struct load_kind {
    const void *payload;
    uint32_t bytes;
    uint32_t ids, id_at, stride; /* where in the payload the ids' eight bytes are */
    uint16_t source_port, port;
    uint64_t per_s; /* 0: as many as can be sent */
};

struct load {
    struct sender *program;
    const struct veth *veth;
    pthread_t thread;
    _Atomic int began, ended;
    uint64_t cpu_ns;
};

void load_open(struct load *l, const struct veth *v);
void load_close(struct load *l);
/* Sends `first`, and `second`, which may be NULL, in what time is left. Both have as many bytes. */
void load_start(struct load *l, const struct load_kind *first, const struct load_kind *second);
void load_stop(struct load *l);
/* Starts, waits, stops. Returns how many of the first were sent. */
uint64_t load_for(struct load *l, const struct load_kind *first, const struct load_kind *second,
                  double seconds);
uint64_t load_sent(const struct load *l, unsigned stream);
/* The sender's. */
unsigned load_processor(void);
/* Since load_open(): time in which the sender's processor had nothing to do. */
uint64_t load_spun_ns(const struct load *l);

/* Since load_open(): all time of its threads, softirqs included. */
uint64_t load_cpu_ns(const struct load *l);

/* A payload of n trades, 128 bytes each, or of other events of `type`; n = 0: one that is not in a
 * batch. The buffer must stay. */
void load_events(struct load_kind *k, uint8_t *buf, uint32_t bytes, unsigned type, uint32_t n);

#endif
