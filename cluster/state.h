/*
 * state.h - what the two-slot file `state` beside the segments holds: term, vote, identity, and the
 * epoch that was promised.
 */
#ifndef SLUICE_CLUSTER_STATE_H
#define SLUICE_CLUSTER_STATE_H

#include <stdint.h>

#define STATE_NAME  "state"
#define STATE_MAGIC 0x54534c53u /* "SLST" */

/* Of a region's first epoch. */
#define STATE_FIRST_TERM(epoch) (((uint64_t)(epoch) << CLUSTER_EPOCH_SHIFT) | 1)

struct node_state {
    uint64_t term;
    uint64_t voted_for; /* node id, 0: nobody */
    uint8_t cluster_id[16];
    uint8_t directory_id[16];
    uint16_t node;
    uint8_t region;
    uint8_t bootstrapped; /* entry 1 is durable: an empty log is a lost one from then on */
    uint8_t zero[4];
    uint64_t promised; /* an epoch: above the term's, the node waits to be brought into it */
    uint64_t attempt;  /* to which failover; 0: to none, the node rejoins */
};
_Static_assert(sizeof(struct node_state) == 72, "stored");
#define STATE_BYTES_BEFORE 56u /* of builds that knew no promise: the same fields up to there */

#endif
