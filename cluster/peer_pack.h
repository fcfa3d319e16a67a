/*
 * peer_pack.h - payloads of entries, compressed for a node of the other region.
 *
 * A packed payload is one zstd frame, padded with zeros to a multiple of 8, and shorter than the
 * payload. What is in it is the payload, or if that is a block and the key is known, a shorter form
 * of it (block_lean.h): its length tells. Three nodes over there get the same entries at about the
 * same time: what was packed last is kept for the others.
 *
 * Thread:  one.
 * Memory:  a packer: zstd's context, and up to PACK_KEPT payloads; an unpacker: a context, and room
 *          for one payload while it comes in. All when it is first needed.
 * Errors:  packing has none, what cannot be packed is sent as it is. Unpacking: -EBADMSG, -ENOMEM.
 */
#ifndef SLUICE_CLUSTER_PEER_PACK_H
#define SLUICE_CLUSTER_PEER_PACK_H

#include "cluster/peer_message.h"

#define PACK_KEPT      64u
#define PACK_BYTES_MIN 512u /* shorter ones are not worth it */

struct packed {
    uint64_t index, term;
    uint32_t crc, payload_bytes;
    uint32_t bytes; /* 0: it does not get shorter */
    bool lean;
    uint32_t cap;
    uint8_t *data;
};

struct peer_packer {
    int level;               /* zstd's; 0: nothing is packed */
    const uint8_t *hash_key; /* the cluster's; NULL: not known yet, or nothing is to be lean */
    void *context;
    uint8_t *lean; /* PEER_PAYLOAD_MAX */
    struct packed kept[PACK_KEPT];
};

void peer_packer_fini(struct peer_packer *p);
/* Packs entry's payload, or finds it packed: then entry says so (borrowed, until PACK_KEPT others
 * were). Otherwise leaves it. knows: the receiver has the cluster's key. */
void peer_pack(struct peer_packer *p, struct peer_entry *entry, bool knows);

struct peer_unpacker {
    const uint8_t *hash_key; /* the cluster's; NULL: not known */
    void *context;
    uint8_t *buf, *lean; /* PEER_PAYLOAD_MAX each */
};

void peer_unpacker_fini(struct peer_unpacker *u);
/* Where a packed payload comes in, aligned to 8; NULL: no memory. */
uint8_t *peer_unpacker_buf(struct peer_unpacker *u);
/* What is there becomes payload_bytes bytes at `to`, no more and no less. */
int peer_unpack(struct peer_unpacker *u, uint32_t packed_bytes, void *to, uint32_t payload_bytes);

#endif
