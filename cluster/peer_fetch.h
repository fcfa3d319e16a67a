/*
 * peer_fetch.h - the bodies of the posts FETCH and FETCHED: committed entries are asked for, and
 * given.
 *
 *   FETCH    | from | to | bytes u32, more u32 |                                       24 bytes
 *   FETCHED  | from | entries u32, zero u32 | digest of the chain at from - 1 |        48 bytes
 *            and for each entry:
 *            | as in the head of an APPEND_ENTRIES | payload |        64 bytes, payload_bytes
 *                                                     (or packed_bytes, where they are not 0)
 *
 * `more`: bit 1 says that it is for a recovery, bits 2 and 3 whether payloads may come packed
 * (peer_pack.h): 0: no; 1: yes; 2: and the cluster's key is known. Bit 0 is 0: the entries from..to
 * are wanted, of which `bytes` bytes of bodies may be sent; what was asked before is forgotten. Bit
 * 0 is 1: as many bytes more of what was asked. The last body may go beyond it by one entry. Bytes
 * are those of the body unpacked, which is bounded as one that was never packed.
 *
 * Thread:  any; no state.  Memory:  the caller's; what was read borrows the body.
 * Errors:  reading: NULL or what is wrong.
 */
#ifndef SLUICE_CLUSTER_PEER_FETCH_H
#define SLUICE_CLUSTER_PEER_FETCH_H

#include "cluster/peer_pack.h"

#define PEER_FETCH_BYTES     24u
#define PEER_FETCHED_BYTES   48u
#define PEER_FETCH_BYTES_MAX (64u * 1024u * 1024u) /* in one FETCH */
_Static_assert(PEER_FETCHED_BYTES + PEER_ENTRY_BYTES + PEER_PAYLOAD_MAX <= PEER_POST_MAX,
               "one entry always fits");

enum peer_fetch_packs {
    FETCH_PLAIN, /* all that a node knows before PEER_VERSION_RECOVER */
    FETCH_PACKED,
    FETCH_LEAN,
};

struct peer_fetch {
    uint64_t from, to;
    uint32_t bytes;
    bool more;
    bool recovers; /* it is for recovery_copy.c: what is not committed is wanted, too */
    uint8_t packs; /* enum peer_fetch_packs */
};

/* buf is aligned to 8. */
void peer_fetch_put(uint8_t buf[PEER_FETCH_BYTES], const struct peer_fetch *m);
/* For a node before PEER_VERSION_RECOVER: without what that does not know. */
void peer_fetch_plain(uint8_t buf[PEER_FETCH_BYTES], const void *body);
/* body is aligned to 8, here and below. */
const char *peer_fetch_get(struct peer_fetch *ret, const void *body, size_t bytes);

struct peer_fetched {
    uint64_t from;
    uint32_t entries;
    const uint8_t *before; /* h[from - 1] */
    const uint8_t *body;
    size_t at; /* of the next entry in it */
    uint32_t done;
};

/* A body without an entry. Returns its size. */
size_t peer_fetched_begin(uint8_t *buf, uint64_t from, const uint8_t before[SHA256_BYTES]);
/* Puts an entry behind the `used` bytes; buf has room for PEER_POST_MAX. Returns the size then, or
 * used when there is no room for it. */
size_t peer_fetched_add(uint8_t *buf, size_t used, const struct peer_entry *entry);

/* Is any payload packed? Of a body that cannot be, either may be said. */
bool peer_fetched_is_packed(const void *body, size_t bytes);
/* As it is without a packed payload, in `to`, of PEER_POST_MAX bytes, aligned to 8. Returns 0,
 * -EBADMSG or -ENOMEM. */
int peer_fetched_unpack(struct peer_unpacker *u, const void *body, size_t bytes, uint8_t *to,
                        size_t *ret_bytes);

/* Checks all of the body but the content of the payloads; none is packed. */
const char *peer_fetched_get(struct peer_fetched *ret, const void *body, size_t bytes);
/* Are the payloads what their CRC and SHA-256 say? */
const char *peer_fetched_check_payloads(const struct peer_fetched *f);
/* The next entry. False: there is none. */
bool peer_fetched_next(struct peer_fetched *f, struct log_record *ret,
                       struct peer_entry *ret_entry);

#endif
