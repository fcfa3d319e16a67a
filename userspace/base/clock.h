/*
 * clock.h - the two clocks: monotonic for durations, Unix time for what is stored.
 */
#ifndef SLUICE_BASE_CLOCK_H
#define SLUICE_BASE_CLOCK_H

#include <stdint.h>
#include <time.h>

#define NS_PER_US 1000ull
#define NS_PER_MS 1000000ull
#define NS_PER_S  1000000000ull

static inline uint64_t clock_read(clockid_t id)
{
    struct timespec t;

    clock_gettime(id, &t);
    return (uint64_t)t.tv_sec * NS_PER_S + (uint64_t)t.tv_nsec;
}

static inline uint64_t clock_monotonic_ns(void) { return clock_read(CLOCK_MONOTONIC); }

/* Unix time; may jump. */
static inline uint64_t clock_unix_ns(void) { return clock_read(CLOCK_REALTIME); }

#endif
