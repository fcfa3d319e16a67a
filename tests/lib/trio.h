/*
 * trio.h - three real daemons on loopback that are one cluster, each in a directory and on ports of
 * its own (daemon.h). Made by `sluice cluster init`; with TLS between the nodes, the certificates
 * by `sluice cert`. Producers come without TLS either way.
 *
 * Thread:  one.
 * Errors:  a sentence on stderr, and exit(1).
 */
#ifndef SLUICE_TESTS_TRIO_H
#define SLUICE_TESTS_TRIO_H

#include "tests/lib/daemon.h"

#define TRIO_NODES 3u

struct trio {
    struct daemon node[TRIO_NODES]; /* their ids are 1 to 3 */
    uint16_t peer_port[TRIO_NODES];
};

/* Starts them; returns when one leads. Closed when the program ends, too. */
void trio_open(struct trio *t, bool tls);
void trio_close(struct trio *t);
/* Commits a setting. */
void trio_set(const struct trio *t, const char *key, const char *value);

/* The one that leads and takes events; waits for one. */
unsigned trio_leader(const struct trio *t);
/* Processor time of those that run. */
uint64_t trio_cpu_ns(const struct trio *t);
/* Waits until all that run have all of the leader's log, durable, and one chain. */
void trio_settle(const struct trio *t);
/* Starts one that does not run, and waits until it has what the leader has. Returns the time from
 * its start until then. */
uint64_t trio_restart(struct trio *t, unsigned i);
/* All must run and hold so many events, under one chain. Kills them, verifies their logs on disk:
 * there, too. */
void trio_check(struct trio *t, uint64_t events);

#endif
