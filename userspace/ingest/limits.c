/*
 * limits.c - see limits.h.
 */
#include "ingest/limits.h"

#include <assert.h>
#include <errno.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <xxhash.h>

#define WAYS 4u

struct source_entry {
    uint64_t key; /* a keyed hash of source and kind; 0: free */
    __u64 tat_ns;
};

static void *map(size_t bytes)
{
    void *p = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

    return p == MAP_FAILED ? NULL : p;
}

int limits_open(struct limits *l, struct policy_cells *cells, size_t sources)
{
    assert(sources >= WAYS && (sources & (sources - 1)) == 0);
    memset(l, 0, sizeof *l);
    /* So that nobody can look for sources that share a set. */
    if (getrandom(&l->seed, sizeof l->seed, 0) != (ssize_t)sizeof l->seed)
        return -EIO;
    l->cells = cells;
    if (cells == NULL) {
        l->cells = map(sizeof *l->cells);
        l->cells_mapped = l->cells != NULL;
    }
    l->sources = sources;
    l->source = map(sources * sizeof *l->source);
    return l->cells && l->source ? 0 : -ENOMEM;
}

void limits_close(struct limits *l)
{
    if (l->cells_mapped)
        munmap(l->cells, sizeof *l->cells);
    if (l->source)
        munmap(l->source, l->sources * sizeof *l->source);
    memset(l, 0, sizeof *l);
}

/* The entry of this key, or the one to take: a free one, or the one whose time is up first. */
static struct source_entry *entry_of(struct source_entry *set, uint64_t key)
{
    struct source_entry *oldest = &set[0];
    uint64_t oldest_ns = UINT64_MAX;

    for (unsigned i = 0; i < WAYS; i++) {
        uint64_t there = __atomic_load_n(&set[i].key, __ATOMIC_RELAXED);
        uint64_t tat_ns = there ? __atomic_load_n(&set[i].tat_ns, __ATOMIC_RELAXED) : 0;

        if (there == key)
            return &set[i];
        if (tat_ns < oldest_ns) {
            oldest_ns = tat_ns;
            oldest = &set[i];
        }
    }
    return oldest;
}

/* Makes the entry this key's. False when another source was faster. What the one before has used up
 * is taken back, but never what a thread with the same key has taken in the meantime. */
static bool entry_claim(struct source_entry *e, uint64_t key, uint64_t now_ns)
{
    uint64_t tat_ns = __atomic_load_n(&e->tat_ns, __ATOMIC_RELAXED);
    uint64_t there = __atomic_load_n(&e->key, __ATOMIC_RELAXED);

    if (there == key)
        return true;
    if (!__atomic_compare_exchange_n(&e->key, &there, key, false, __ATOMIC_RELAXED,
                                     __ATOMIC_RELAXED))
        return there == key;
    if (tat_ns > now_ns)
        (void)__sync_bool_compare_and_swap(&e->tat_ns, tat_ns, now_ns);
    return true;
}

bool limits_take(struct limits *l, const struct in6_addr *ip, enum bucket_kind kind,
                 uint64_t now_ns, uint64_t interval_ns, uint64_t burst_ns)
{
    uint64_t key = XXH3_64bits_withSeed(ip, sizeof *ip, l->seed + kind) | 1;
    struct source_entry *e = entry_of(&l->source[(key >> 8) & (l->sources - WAYS)], key);

    return !entry_claim(e, key, now_ns) || rate_take(&e->tat_ns, now_ns, interval_ns, burst_ns);
}
