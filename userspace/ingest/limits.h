/*
 * limits.h - what the policy's rates remember: of types (shared with the program in the driver) and
 * of sources (of the datagrams that the program has not decided about).
 *
 * Sources are kept in a table of fixed size, four to a set; a new one takes the place of the one
 * that has been quiet for longest. Workers write it without locks: two that meet on one entry may
 * let a datagram more or less through, never a wrong source.
 *
 * Thread:  any number.
 * Memory:  mapped in limits_open(): 16 bytes a source.
 * Limits:  ingest.sources_max.
 */
#ifndef SLUICE_INGEST_LIMITS_H
#define SLUICE_INGEST_LIMITS_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "bpf/policy.h"

struct limits {
    struct policy_cells *cells;
    bool cells_mapped; /* ours to unmap */
    struct source_entry *source;
    size_t sources;
    uint64_t seed;
};

/* cells: the program's, or NULL for own ones. sources: a power of two, at least 4. 0 or -ENOMEM. */
int limits_open(struct limits *l, struct policy_cells *cells, size_t sources);
void limits_close(struct limits *l);

/* May the source send one more? kind tells its buckets apart. */
bool limits_take(struct limits *l, const struct in6_addr *ip, enum bucket_kind kind,
                 uint64_t now_ns, uint64_t interval_ns, uint64_t burst_ns);

#endif
