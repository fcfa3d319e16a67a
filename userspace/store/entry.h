/*
 * entry.h - one key of the dedupe index, the same 32 bytes in the table and in the run files.
 *
 *   | key, 16 bytes: lo, hi | place, 8 bytes: index << 16 | slot | content hash, 8 bytes |
 *
 * Little-endian. Entries are ordered by (lo, hi): lo is uniform, so it also says where to look, in
 * a table and in a file. Indexes start at 1, so a place of 0 marks an empty slot.
 */
#ifndef SLUICE_STORE_ENTRY_H
#define SLUICE_STORE_ENTRY_H

#include <stdint.h>

#include "base/hash.h"

#define ENTRY_INDEX_MAX ((1ull << 48) - 1)

struct entry {
    struct key128 key;
    uint64_t place;
    uint64_t content;
};
_Static_assert(sizeof(struct entry) == 32, "stored");
_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "stored as it is in memory");

static inline uint64_t entry_place(uint64_t index, uint16_t slot) { return index << 16 | slot; }
static inline uint64_t entry_index(const struct entry *e) { return e->place >> 16; }
static inline uint16_t entry_slot(const struct entry *e) { return (uint16_t)e->place; }

/* Below 0, 0, above 0: a before b, equal, a after b. */
static inline int entry_compare(const struct key128 *a, const struct key128 *b)
{
    if (a->lo != b->lo)
        return a->lo < b->lo ? -1 : 1;
#ifdef PLANT_DEDUPE_HALF_KEY
    return 0;
#else
    return (a->hi > b->hi) - (a->hi < b->hi);
#endif
}

/* x, uniform over 64 bits, scaled to 0..n-1; keeps the order. */
static inline uint64_t entry_scale(uint64_t x, uint64_t n)
{
    return (uint64_t)(((unsigned __int128)x * n) >> 64);
}

#endif
