/*
 * record.h - one record of a segment file: its layout, its encoding, its checks.
 *
 *   0                  64                     160
 *   | node's own part  | agreed part          | payload | zeros to the next 4 KiB boundary |
 *
 * The agreed part is what the whole cluster signs with the chain: it begins with the digest of the
 * record before, so h[i] = SHA-256(agreed part). The node's own part holds the CRCs and the highest
 * index that was durable on this node when the record was written.
 *
 * The header's CRC starts from a seed made of the digest before the segment's first record and the
 * record's offset. A record at a wrong place, or of another segment, is so not a record; and a
 * producer, who cannot know that digest, cannot send bytes that look like one inside a payload.
 *
 * Numbers are little-endian. Nothing here allocates or does I/O; any thread.
 */
#ifndef SLUICE_CLUSTER_RECORD_H
#define SLUICE_CLUSTER_RECORD_H

#include <assert.h>

#include "cluster/log.h"

#define RECORD_MAGIC   0x44524c53u /* "SLRD" */
#define RECORD_VERSION 1u

struct record_agreed {
    uint8_t before[SHA256_BYTES];
    uint64_t index;
    uint64_t term;
    uint64_t time_ns;
    uint32_t type;
    uint32_t payload_bytes;
    uint8_t payload_sha256[SHA256_BYTES];
};
_Static_assert(sizeof(struct record_agreed) == 96, "stored");

struct record_header {
    uint32_t magic;
    uint32_t header_crc; /* of all that follows */
    uint32_t version;
    uint32_t payload_crc;
    uint64_t durable; /* highest durable index when this was written */
    uint8_t zero[40];
    struct record_agreed agreed;
};
_Static_assert(sizeof(struct record_header) == LOG_HEADER_BYTES, "stored");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "stored little-endian");

/* Bytes on disk of a record with this payload. */
static inline uint32_t record_bytes(uint32_t payload_bytes)
{
    assert(payload_bytes <= LOG_RECORD_BYTES_MAX - LOG_HEADER_BYTES);
    return (payload_bytes + LOG_HEADER_BYTES + LOG_ALIGN - 1) & ~(LOG_ALIGN - 1);
}

/* Seed of a segment, from the digest before its first record. */
uint32_t record_seed(const uint8_t before_segment[SHA256_BYTES]);

/* Writes the header in front of the payload in buf, and zeros behind it. */
void record_encode(void *buf, uint32_t seed, uint64_t offset, const uint8_t before[SHA256_BYTES],
                   const struct log_record *record, uint32_t payload_crc, uint64_t durable);

/* h[i]. */
void record_digest(const struct record_header *h, uint8_t ret[SHA256_BYTES]);

/* Is this header whole and at its place? Returns NULL, or what is wrong with it. */
const char *record_check_header(const struct record_header *h, uint32_t seed, uint64_t offset);

/* The same for the payload and the zeros behind it; the header was checked. */
const char *record_check_payload(const struct record_header *h);

void record_decode(const struct record_header *h, struct log_record *ret);

/* All zero? bytes is a multiple of 8, p is aligned to 8. */
bool record_is_zero(const void *p, size_t bytes);

#endif
