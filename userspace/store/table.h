/*
 * table.h - the newest keys of the dedupe index: open addressing, always in key order.
 *
 * A key's home is its lo scaled to the number of slots. An entry sits at its home or after it, with
 * no empty slot between, and entries are in key order (linear probing that inserts in order). So a
 * search ends early, and a full table is written as a sorted run by walking over it: nothing is
 * sorted. There is no wrap-around; a tail after the last home takes what is pushed past it.
 *
 * Taking one out moves those behind it one slot back, up to the first that is empty or at its home:
 * as homes are in key order too, none behind that one is away from home because of the gap.
 *
 * Thread:  one owner at a time; dedupe.c hands tables over.
 * Memory:  mapped and touched in table_init(); in huge pages where the system has them.
 */
#ifndef SLUICE_STORE_TABLE_H
#define SLUICE_STORE_TABLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "store/entry.h"

#define TABLE_TAIL_SLOTS 8192u /* also the most entries that one table_fits() may promise */

struct table {
    struct entry *entries;
    uint64_t slots;     /* homes */
    uint64_t room;      /* slots and the tail */
    uint64_t count;     /* entries held */
    uint64_t count_max; /* three quarters of slots */
    uint64_t top;       /* no entry at or after this slot; in the tail, right behind the last one */
    uint64_t last;      /* no entry has a higher log index */
    size_t bytes;
};

/* Bytes that a table for keys_max keys takes. */
size_t table_bytes(uint64_t keys_max);
/* The most keys that fit into bytes; 0 when not even the tail does. */
uint64_t table_keys(size_t bytes);

int table_init(struct table *t, uint64_t keys_max);
void table_fini(struct table *t);
void table_clear(struct table *t);

/* True when n <= TABLE_TAIL_SLOTS more keys, whatever they are, can be put. */
bool table_fits(const struct table *t, size_t n);

/* The entry, or NULL. */
const struct entry *table_find(const struct table *t, struct key128 key);

/* Enters e and returns NULL, or returns the entry that already has its key. */
const struct entry *table_put(struct table *t, const struct entry *e);

/* Takes out the entry that has e's key and place; false when there is none. */
bool table_remove(struct table *t, const struct entry *e);

/* There is no entry of this index or a later one any more. */
static inline void table_cut(struct table *t, uint64_t index)
{
    if (t->last >= index)
        t->last = index - 1;
}

static inline void table_prefetch(const struct table *t, struct key128 key)
{
    const struct entry *e = t->entries + entry_scale(key.lo, t->slots);

    __builtin_prefetch(e);
    __builtin_prefetch(e + 2);
}

/* Memory for tables and filters: zeroed, page aligned; from 1 MiB on in whole huge pages. */
size_t table_map_bytes(size_t bytes);
void *table_map(size_t bytes);
void table_unmap(void *p, size_t bytes);

#endif
