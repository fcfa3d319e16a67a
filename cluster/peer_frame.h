/*
 * peer_frame.h - the frame in which nodes speak to each other: its header, and the limits of its
 * parts.
 *
 *   0        4     8       10      12           16           20           24      32
 *   | magic  | crc | type  | flags | body bytes | head bytes | head crc   | epoch | body |
 *
 *   body:    | head: what the type says | payloads of entries, one after the other |
 *
 * Numbers are little-endian; body and head are multiples of 8 bytes. `crc` is the CRC32C of the
 * header from `type` on, so a length is used only after it was found whole. `head crc` is the
 * CRC32C of the head. Only APPEND_ENTRIES has something behind the head: payloads, whose CRCs and
 * digests are in the head. From FETCH on the engine has no part in it (posts): all of the body is
 * head. So every bit of a stream is covered by one CRC, and a payload by the same one as on disk.
 * `epoch` is the sender's (its term >> 20), in every frame.
 *
 * This header, the types HELLO, WELCOME and REFUSE, and the first fields of their heads
 * (handshake.h) are the same in every version of the protocol; the rest may change with the
 * version that the two nodes have agreed on. Streams go one way: what the dialler sends after its
 * HELLO was welcomed is all of one version.
 *
 * Nothing here allocates or does I/O; any thread.
 */
#ifndef SLUICE_CLUSTER_PEER_FRAME_H
#define SLUICE_CLUSTER_PEER_FRAME_H

#include <assert.h>
#include <stdint.h>
#include <sys/uio.h>

#include "cluster/log.h"

#define PEER_MAGIC       0x50434c53u /* "SLCP" */
#define PEER_VERSION_MIN 1u
#ifdef PLANT_NEXT_VERSION /* no bug: a build that knows one more, for rolling upgrades in tests */
#define PEER_VERSION_MAX 4u
#else
#define PEER_VERSION_MAX 3u
#endif
#define PEER_VERSION_REGION  2u /* knows REGION */
#define PEER_VERSION_RECOVER 3u /* knows RECOVER */

#define PEER_HEADER_BYTES            32u
#define PEER_ENTRIES_MAX             64u                  /* in one message */
#define PEER_BODY_MAX                (4u * 1024u * 1024u) /* 16 entries of the largest size */
#define PEER_HANDSHAKE_MAX           1024u /* head of a HELLO, WELCOME or REFUSE, for ever */
#define PEER_CONFIGURATION_BYTES_MAX 4096u /* the engine's encoding */
#define PEER_SNAPSHOT_BYTES_MAX      (64u * 1024u)
#define PEER_ERROR_BYTES             256u

/* Heads: those of one size have it here too, since the header is checked against it. */
#define PEER_REQUEST_VOTE_BYTES  40u
#define PEER_VOTE_RESULT_BYTES   16u
#define PEER_APPEND_BYTES        40u
#define PEER_ENTRY_BYTES         64u /* for each entry of an APPEND_ENTRIES */
#define PEER_APPEND_RESULT_BYTES 32u
#define PEER_SNAPSHOT_BYTES      48u
#define PEER_TIMEOUT_NOW_BYTES   32u
#define PEER_APPEND_HEAD_MAX     (PEER_APPEND_BYTES + PEER_ENTRIES_MAX * PEER_ENTRY_BYTES)
#define PEER_SNAPSHOT_HEAD_MAX                                                                     \
    (PEER_SNAPSHOT_BYTES + PEER_CONFIGURATION_BYTES_MAX + PEER_SNAPSHOT_BYTES_MAX)
#define PEER_POST_MAX    (1024u * 1024u)
#define PEER_HEAD_MAX    PEER_POST_MAX /* of any type */
#define PEER_PAYLOAD_MAX (LOG_RECORD_BYTES_MAX - LOG_HEADER_BYTES)

_Static_assert(PEER_HEAD_MAX >= PEER_APPEND_HEAD_MAX && PEER_HEAD_MAX >= PEER_HANDSHAKE_MAX &&
                   PEER_HEAD_MAX >= PEER_SNAPSHOT_HEAD_MAX && PEER_HEAD_MAX <= PEER_BODY_MAX,
               "one buffer holds any head");
_Static_assert(PEER_BODY_MAX >= PEER_APPEND_HEAD_MAX + PEER_PAYLOAD_MAX,
               "a single entry can always be sent");
_Static_assert(PEER_PAYLOAD_MAX % 8 == 0, "what follows a payload is aligned, too");

enum peer_type {
    PEER_HELLO = 1,
    PEER_WELCOME = 2,
    PEER_REFUSE = 3,
    PEER_REQUEST_VOTE = 4,
    PEER_REQUEST_VOTE_RESULT = 5,
    PEER_APPEND_ENTRIES = 6,
    PEER_APPEND_ENTRIES_RESULT = 7,
    PEER_INSTALL_SNAPSHOT = 8,
    PEER_TIMEOUT_NOW = 9,
    PEER_PING = 10, /* empty: the connection is alive */
    PEER_POST_FIRST = 11,
    PEER_FETCH = 11,     /* committed entries are wanted */
    PEER_FETCHED = 12,   /* and here are some */
    PEER_FORWARD = 13,   /* a block for the leader */
    PEER_FORWARDED = 14, /* what became of it */
    PEER_CALL = 15,      /* a request of an operator, for another node */
    PEER_REPLY = 16,
    PEER_REGION = 17,  /* how far the log is durable in both regions */
    PEER_RECOVER = 18, /* a failover: what is asked, and what is answered */
    PEER_TYPE_END
};

/* Sets of types, for peer_decoder_accept(). */
#define PEER_TYPE_SET(type) (1u << (type))
#define PEER_TYPES_FIRST    PEER_TYPE_SET(PEER_HELLO)
#define PEER_TYPES_ANSWER   (PEER_TYPE_SET(PEER_WELCOME) | PEER_TYPE_SET(PEER_REFUSE))
#define PEER_TYPES_WELCOMED (((1u << PEER_TYPE_END) - 1) & ~((1u << PEER_REQUEST_VOTE) - 1))
_Static_assert(PEER_TYPE_END <= 32, "a set of types is 32 bits");

struct peer_header {
    uint32_t magic;
    uint32_t crc; /* of all that follows */
    uint16_t type;
    uint16_t flags; /* 0 */
    uint32_t body_bytes;
    uint32_t head_bytes;
    uint32_t head_crc;
    uint64_t epoch;
};
_Static_assert(sizeof(struct peer_header) == PEER_HEADER_BYTES, "sent");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "sent little-endian");

/* A frame whose head is there and whole. */
struct peer_frame {
    uint32_t type; /* enum peer_type */
    uint32_t body_bytes;
    uint32_t head_bytes;
    uint64_t epoch;
    const void *head; /* aligned to 8; borrowed */
};

/* Writes the header in front of the head of head_bytes bytes at buf + PEER_HEADER_BYTES. buf is
 * aligned to 8; payload_bytes follow the head. */
void peer_frame_put(void *buf, enum peer_type type, uint64_t epoch, uint32_t head_bytes,
                    uint32_t payload_bytes);

/* Writes the header of a post whose body is in iov: a multiple of 8 bytes in all, at most
 * PEER_POST_MAX. */
void peer_frame_put_post(void *buf, enum peer_type type, uint64_t epoch, const struct iovec *iov,
                         unsigned iovs);

/* Is this a header, of a type that is in the set and with lengths that such a frame can have?
 * Returns NULL, or what is wrong with it. */
const char *peer_frame_check(const struct peer_header *h, uint32_t types);

/* "HELLO" and so on; "frame" for a type that is none. */
const char *peer_type_name(uint32_t type);

#endif
