/*
 * block_lean.h - a block without what its events say themselves, for the way to the other region.
 *
 *   | block_header | event bytes, as in the block | u32 receive_delta, each | u16 bytes, each |
 *   | u8 session_flags, each |
 *
 * receive_delta is the difference to the event before. Of a descriptor that leaves out key, time,
 * type, symbol and offset, 33 of 40 bytes, of which the key alone would not get any shorter by
 * packing.
 *
 * Thread:  any; nothing is allocated.
 */
#ifndef SLUICE_CLUSTER_BLOCK_LEAN_H
#define SLUICE_CLUSTER_BLOCK_LEAN_H

#include <stddef.h>
#include <stdint.h>

/* key: the cluster's. ret has room for payload_bytes; payload and ret are aligned to 8. Returns
 * the bytes, fewer than payload_bytes, or 0: this is no block, or its descriptors say something
 * else than its events. */
uint32_t block_lean_put(const uint8_t *key, const void *payload, uint32_t payload_bytes, void *ret);

/* The block again, exactly payload_bytes; lean and ret are aligned to 8. Returns 0 or -EBADMSG.
 * Whether it is the right one only its CRC can say. */
int block_lean_get(const uint8_t *key, const void *lean, size_t bytes, void *ret,
                   uint32_t payload_bytes);

#endif
