/*
 * peer_forward.h - the bodies of the posts FORWARD and FORWARDED: a block on its way to the leader,
 * and what became of it.
 *
 *   FORWARD     0         8    16       20              24            28     32        64
 *               | process | id | events | payload bytes | payload crc | zero | sha-256 | payload |
 *
 *               | content hash of each event, 8 bytes each |
 *
 *   FORWARDED   0         8    16      24     32       36         40        44           48
 *               | process | id | index | term | events | accepted | outcome | exceptions |
 *
 *               | first index | position | first slot | reason | zero | for each exception, 16
 * bytes
 *
 * The payload is a block as cluster/block.h draws it, as its worker has sealed it. `process` is a
 * random number of the sender's process and `id` grows in it, so no two blocks are taken for each
 * other. Exceptions come by position, which is in the block's original order; every event without
 * one is committed, in the slots from 0 on. Numbers are little-endian; what is zero is checked.
 *
 * Nothing here allocates or does I/O; any thread.
 */
#ifndef SLUICE_CLUSTER_PEER_FORWARD_H
#define SLUICE_CLUSTER_PEER_FORWARD_H

#include <sys/uio.h>

#include "cluster/block.h"
#include "cluster/peer_frame.h"

struct peer_forward {
    uint64_t process, id;
    uint32_t events;
    uint32_t payload_bytes;
    uint32_t payload_crc;
    uint32_t zero;
    uint8_t payload_sha256[SHA256_BYTES];
};
_Static_assert(sizeof(struct peer_forward) == 64, "sent");

enum peer_outcome {
    PEER_DECIDED = 1,   /* committed, but for the exceptions */
    PEER_AGAIN = 2,     /* not taken, or cut again: by whoever leads, later */
    PEER_DISK_FULL = 3, /* refused */
    PEER_OUTCOME_END
};

struct peer_forwarded {
    uint64_t process, id;
    uint64_t index, term; /* 0: nothing of it is in the log */
    uint32_t events, accepted;
    uint32_t outcome; /* enum peer_outcome; of the others than DECIDED the rest is 0 */
    uint32_t exceptions;
};
_Static_assert(sizeof(struct peer_forwarded) == 48, "sent");

struct peer_exception {
    uint64_t first_index;
    uint16_t position;
    uint16_t first_slot;
    uint16_t reason; /* enum Reason of wire.proto: DUPLICATE or ID_CONFLICT */
    uint16_t zero;
};
_Static_assert(sizeof(struct peer_exception) == 16, "sent");

#define PEER_FORWARD_IOVS 3u
#define PEER_FORWARD_MAX                                                                           \
    (sizeof(struct peer_forward) + BLOCK_PAYLOAD_MAX + BLOCK_EVENTS_MAX * sizeof(uint64_t))
_Static_assert(PEER_FORWARD_MAX <= PEER_POST_MAX, "every block can be forwarded");
_Static_assert(sizeof(struct peer_forwarded) + BLOCK_EVENTS_MAX * sizeof(struct peer_exception) <=
                   PEER_POST_MAX,
               "every answer can be sent");

/* The body of a FORWARD of the sealed block b; head and b are borrowed by the iovecs. */
void peer_forward_put(struct peer_forward *head, const struct block *b, uint64_t process,
                      uint64_t id, struct iovec iov[PEER_FORWARD_IOVS]);

/* A body that was checked: all that a reader of the block relies on, that node `from` has sealed
 * it, and the payload's CRC. The SHA-256 is believed, as it is of an entry. Borrows body, which is
 * aligned to 8. Returns 0 or -EBADMSG. */
struct peer_forward_view {
    const struct peer_forward *head;
    struct block_view block;
    const uint64_t *content;
};
int peer_forward_get(struct peer_forward_view *ret, uint16_t from, const void *body, size_t bytes);

/* The same for a FORWARDED; *ret_exception: head->exceptions of them. */
int peer_forwarded_get(const struct peer_forwarded **ret,
                       const struct peer_exception **ret_exception, const void *body, size_t bytes);

#endif
