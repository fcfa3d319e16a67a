/*
 * filter.h - a blocked Bloom filter: one cache line a probe.
 *
 *   | block 0: 8 words of 64 bits | block 1 | ...
 *
 * A key sets one bit in each word of one block. The block comes from the key's lo, in its order, so
 * a filter over sorted keys is made from front to back and needs no memory while a file is written;
 * the bits come from hi. At 16 bits a key about one key in 800 is taken for present that is not;
 * what the filter says is therefore always checked against the keys.
 */
#ifndef SLUICE_STORE_FILTER_H
#define SLUICE_STORE_FILTER_H

#include <stdbool.h>
#include <stdint.h>

#include "store/entry.h"

#define FILTER_WORDS        8u
#define FILTER_BLOCK_BYTES  64u
#define FILTER_BITS_PER_KEY 16u
#define FILTER_PAGE_BLOCKS  64u /* blocks come in whole pages of 4 KiB */

static inline uint64_t filter_blocks(uint64_t keys)
{
    uint64_t blocks = (keys * FILTER_BITS_PER_KEY + 511) / 512;

    return (blocks + FILTER_PAGE_BLOCKS) / FILTER_PAGE_BLOCKS * FILTER_PAGE_BLOCKS;
}

static inline uint64_t filter_block(struct key128 key, uint64_t blocks)
{
    return entry_scale(key.lo, blocks);
}

static inline void filter_set(uint64_t *block, struct key128 key)
{
    for (unsigned i = 0; i < FILTER_WORDS; i++)
        block[i] |= 1ull << (key.hi >> (6 * i) & 63);
}

/* The first half without a branch: it turns away 39 of 40 keys that are not there. */
static inline bool filter_may_have(const uint64_t *block, struct key128 key)
{
    uint64_t h = key.hi;

    if (((block[0] >> (h & 63)) & (block[1] >> (h >> 6 & 63)) & (block[2] >> (h >> 12 & 63)) &
         (block[3] >> (h >> 18 & 63)) & 1) == 0)
        return false;
    return ((block[4] >> (h >> 24 & 63)) & (block[5] >> (h >> 30 & 63)) &
            (block[6] >> (h >> 36 & 63)) & (block[7] >> (h >> 42 & 63)) & 1) != 0;
}

#endif
