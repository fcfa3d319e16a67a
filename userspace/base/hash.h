/*
 * hash.h - the four hashes and what each is for.
 *
 * crc32c    finds torn and rotten records (RFC 3720 polynomial; hardware instruction).
 * sha256    the hash chain, and the digest of a block's payload.
 * key128    SipHash-2-4-128 under the cluster's secret key: the identity of (source, id). A PRF, so
 *           nobody without the key can make two identities meet.
 * content64 XXH3 seeded by the cluster's key: tells a duplicate from a conflict.
 */
#ifndef SLUICE_BASE_HASH_H
#define SLUICE_BASE_HASH_H

#include <stddef.h>
#include <stdint.h>

#define SHA256_BYTES   32
#define HASH_KEY_BYTES 16

struct key128 {
    uint64_t lo, hi;
};

/* Continues from crc (0 to start). */
uint32_t crc32c(uint32_t crc, const void *data, size_t bytes);

/* Two pieces, so that no caller has to join them; b may be NULL when b_bytes is 0. */
void sha256(uint8_t ret_digest[SHA256_BYTES], const void *a, size_t a_bytes, const void *b,
            size_t b_bytes);

/* The identity of an event: the source's length comes first, so ("a","bc") and ("ab","c") differ.
 * source_bytes <= 64, id_bytes <= 64. */
struct key128 hash_event_key(const uint8_t key[HASH_KEY_BYTES], const void *source,
                             size_t source_bytes, const void *id, size_t id_bytes);

uint64_t hash_content(const uint8_t key[HASH_KEY_BYTES], const void *event, size_t bytes);

/* For finding by symbol; not secret. */
uint32_t hash_symbol(const void *symbol, size_t bytes);

#endif
