/*
 * scrub.h - reads what is old of the log again and again, so that rot is found while others still
 * have what it took.
 *
 * Thread:  its own; what is said otherwise.  Memory:  SCAN_BYTES while a segment is read.
 * Errors:  a disk that cannot be read is reported, and tried again with the next pass.
 */
#ifndef SLUICE_CLUSTER_SCRUB_H
#define SLUICE_CLUSTER_SCRUB_H

#include <stdint.h>

struct cluster;
struct scrub;

/* Of c's log, by its config's scrub_bytes_per_s and scrub_pause_ms; what c->scrub_wanted says comes
 * first. Returns 0 or a negative errno. */
int scrub_start(struct scrub **ret, struct cluster *c);
/* Before the cluster thread ends. Safe on NULL. */
void scrub_stop(struct scrub *s);

#endif
