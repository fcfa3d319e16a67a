/*
 * peer_recover.h - the body of the post RECOVER: what a failover asks of a node, and what the node
 * answers (failover.c, recovery.c).
 *
 *   RECOVER  | struct peer_recover, 184 bytes | audit entry | configuration |
 *
 * The last two are of a FINISH only, each with zeros to a multiple of 8 bytes: the payloads of the
 * two entries with which the new epoch begins.
 *
 *   LOOK     changes nothing: how long is the log there, and of which epoch is the node?
 *   PROMISE  to this attempt alone, for this epoch; answered once the engine has stopped
 *   COPY     its log is to be exactly the one that node `source` has; answered once it is
 *   FINISH   the two entries behind it; answered once the node is of the new epoch
 *
 * Thread: any; no state. Memory: the caller's; what was read borrows the body. Errors: NULL or what
 * is wrong.
 */
#ifndef SLUICE_CLUSTER_PEER_RECOVER_H
#define SLUICE_CLUSTER_PEER_RECOVER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"

#define PEER_RECOVER_BYTES     184u
#define PEER_RECOVER_AUDIT_MAX 1024u
#define PEER_RECOVER_EPOCH_MAX (1ull << 43) /* a term has 44 bits for it */

enum recover_step {
    RECOVER_LOOK = 1,
    RECOVER_PROMISE = 2,
    RECOVER_COPY = 3,
    RECOVER_FINISH = 4,
};

/* The fields of an answer: the log's end in index, term, digest. */
struct peer_recover {
    uint16_t step;   /* enum recover_step */
    uint16_t answer; /* 0: a request */
    int32_t status;  /* of an answer: 0, or a negative errno */
    uint64_t epoch, attempt;
    uint64_t index, term,
        time_ns; /* COPY: the log's end; FINISH: of the first entry, and its time */
    uint8_t digest[SHA256_BYTES]; /* COPY: at index; FINISH: at index - 1 */
    uint64_t started, promised;   /* of an answer: epochs */
    uint64_t settled;             /* the node has applied to there, and something of its epoch */
    uint8_t settled_digest[SHA256_BYTES];
    uint64_t committed; /* as far as it knows */
    uint64_t silent_ms; /* since the leader spoke; UINT64_MAX: nobody has */
    uint64_t events;    /* in its log, applied */
    uint64_t leader;    /* node; 0: it knows none */
    uint32_t audit_bytes, change_bytes;
    uint16_t source, zero[3];
};
_Static_assert(sizeof(struct peer_recover) == PEER_RECOVER_BYTES, "sent");

struct peer_recover_view {
    struct peer_recover head;
    const void *audit, *change; /* aligned to 8 */
};

static inline size_t peer_recover_padded(uint32_t bytes)
{
    return ((size_t)bytes + 7) & ~(size_t)7;
}

/* body is aligned to 8. */
const char *peer_recover_get(struct peer_recover_view *ret, const void *body, size_t bytes);

#endif
