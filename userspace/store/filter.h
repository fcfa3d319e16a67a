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

/* The bits of one key: made once, tried on the blocks of many runs. */
struct filter_bits {
    uint64_t word[FILTER_WORDS];
};

static inline struct filter_bits filter_bits(struct key128 key)
{
    struct filter_bits b;

    for (unsigned i = 0; i < FILTER_WORDS; i++)
        b.word[i] = 1ull << (key.hi >> (6 * i) & 63);
    return b;
}

static inline void filter_set(uint64_t *block, struct key128 key)
{
    struct filter_bits b = filter_bits(key);

    for (unsigned i = 0; i < FILTER_WORDS; i++)
        block[i] |= b.word[i];
}

/* The first half without a branch: it turns away 39 of 40 keys that are not there. */
static inline bool filter_may_have(const uint64_t *block, const struct filter_bits *b)
{
    const uint64_t *w = b->word;

    if (((w[0] & ~block[0]) | (w[1] & ~block[1]) | (w[2] & ~block[2]) | (w[3] & ~block[3])) != 0)
        return false;
    return ((w[4] & ~block[4]) | (w[5] & ~block[5]) | (w[6] & ~block[6]) | (w[7] & ~block[7])) == 0;
}

#endif
