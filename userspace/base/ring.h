/*
 * ring.h - a bounded queue of pointers between exactly two threads.
 *
 * Thread:  one producer, one consumer; no locks.
 * Memory:  allocated in ring_init(); the ring never owns what its pointers name.
 * Full:    a result, not an error: the caller decides (back-pressure or a counted drop).
 */
#ifndef SLUICE_BASE_RING_H
#define SLUICE_BASE_RING_H

#include <assert.h>
#include <errno.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#define RING_CACHE_LINE 64

struct ring {
    _Alignas(RING_CACHE_LINE) _Atomic uint64_t head; /* consumer's: next to take */
    uint64_t tail_seen;                              /* consumer's copy of tail */
    _Alignas(RING_CACHE_LINE) _Atomic uint64_t tail; /* producer's: next to fill */
    uint64_t head_seen;                              /* producer's copy of head */
    _Alignas(RING_CACHE_LINE) uint64_t mask;
    void **slot;
};

/* slots: a power of two. Returns 0, -EINVAL or -ENOMEM. */
static inline int ring_init(struct ring *r, size_t slots)
{
    if (slots == 0 || (slots & (slots - 1)) != 0)
        return -EINVAL;
    *r = (struct ring){ .mask = slots - 1 };
    r->slot = calloc(slots, sizeof *r->slot);
    return r->slot ? 0 : -ENOMEM;
}

static inline void ring_fini(struct ring *r)
{
    free(r->slot);
    r->slot = NULL;
}

/* Gives p to the consumer. Returns false when the ring is full; p then stays the caller's. */
static inline bool ring_push(struct ring *r, void *p)
{
    uint64_t t = atomic_load_explicit(&r->tail, memory_order_relaxed);

    assert(p != NULL);
    if (t - r->head_seen > r->mask) {
        r->head_seen = atomic_load_explicit(&r->head, memory_order_acquire);
        if (t - r->head_seen > r->mask)
            return false;
    }
    r->slot[t & r->mask] = p;
    atomic_store_explicit(&r->tail, t + 1, memory_order_release);
    return true;
}

/* Takes the oldest pointer, or NULL when there is none. */
static inline void *ring_pop(struct ring *r)
{
    uint64_t h = atomic_load_explicit(&r->head, memory_order_relaxed);
    void *p;

    if (h == r->tail_seen) {
        r->tail_seen = atomic_load_explicit(&r->tail, memory_order_acquire);
        if (h == r->tail_seen)
            return NULL;
    }
    p = r->slot[h & r->mask];
    atomic_store_explicit(&r->head, h + 1, memory_order_release);
    return p;
}

/* Consumer's side: is there nothing to take? */
static inline bool ring_empty(struct ring *r)
{
    return atomic_load_explicit(&r->head, memory_order_relaxed) ==
           atomic_load_explicit(&r->tail, memory_order_acquire);
}

#endif
