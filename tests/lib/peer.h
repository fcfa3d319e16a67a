/*
 * peer.h - programs of others that benches are compared with, in the daemon's namespace of a veth
 * pair. Both come as Debian packages; what is not installed is said by `false`.
 *
 *   xdp-filter  (xdp-tools) drops by port in the driver, and knows nothing of what is in a datagram
 *   rsyslogd    (rsyslog) imudp into a file: neither acknowledged nor deduplicated, nor forced to
 *               disk; one receiving thread, a kernel buffer as large as ours, no parsing
 *
 * Thread:  one.
 * Errors:  a sentence on stderr, and exit(1).
 */
#ifndef SLUICE_TESTS_PEER_H
#define SLUICE_TESTS_PEER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "tests/lib/veth.h"

/* Datagrams with this source port are dropped at d0. */
bool peer_xdp_filter_open(const struct veth *v, uint16_t source_port);
/* A descriptor of the program at d0, or -1. */
int peer_xdp_filter_program(const struct veth *v);
void peer_xdp_filter_close(const struct veth *v);

struct peer_rsyslog {
    pid_t pid;
    char dir[256], file[280];
};

/* In a directory of its own below dir. It listens on `port` when this returns. */
bool peer_rsyslog_open(struct peer_rsyslog *r, const struct veth *v, const char *dir,
                       uint16_t port);
/* Lines in its file; it has written all that it has taken when they do not get more. */
uint64_t peer_rsyslog_lines(const struct peer_rsyslog *r);
void peer_rsyslog_close(struct peer_rsyslog *r);

#endif
