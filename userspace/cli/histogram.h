/*
 * histogram.h - how often which duration: log-linear, 64 steps in each power of two.
 *
 * A percentile is at most 1.6 % above the true one; the maximum is exact. One thread writes.
 */
#ifndef SLUICE_CLI_HISTOGRAM_H
#define SLUICE_CLI_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_STEP_BITS 6u
#define HISTOGRAM_BUCKETS   ((64u - HISTOGRAM_STEP_BITS + 1u) << HISTOGRAM_STEP_BITS)

struct histogram {
    uint64_t n, max;
    uint64_t bucket[HISTOGRAM_BUCKETS];
};

static inline unsigned histogram_bucket(uint64_t v)
{
    if (v < 1u << HISTOGRAM_STEP_BITS)
        return (unsigned)v;
    unsigned shift = 63u - (unsigned)__builtin_clzll(v) - HISTOGRAM_STEP_BITS;

    return ((shift + 1) << HISTOGRAM_STEP_BITS) +
           (unsigned)(v >> shift & ((1u << HISTOGRAM_STEP_BITS) - 1));
}

/* The largest value of a bucket. */
static inline uint64_t histogram_value(unsigned bucket)
{
    if (bucket < 1u << HISTOGRAM_STEP_BITS)
        return bucket;
    unsigned shift = (bucket >> HISTOGRAM_STEP_BITS) - 1;
    uint64_t step = bucket & ((1u << HISTOGRAM_STEP_BITS) - 1);

    return (((1ull << HISTOGRAM_STEP_BITS) + step) << shift) + ((1ull << shift) - 1);
}

static inline void histogram_add(struct histogram *h, uint64_t v, uint64_t times)
{
    h->n += times;
    h->bucket[histogram_bucket(v)] += times;
    if (v > h->max)
        h->max = v;
}

/* The value that per_mille of all are at or below; 0 of none. */
static inline uint64_t histogram_percentile(const struct histogram *h, unsigned per_mille)
{
    uint64_t rank = (h->n * per_mille + 999) / 1000, seen = 0;

    for (unsigned i = 0; i < HISTOGRAM_BUCKETS && h->n; i++) {
        seen += h->bucket[i];
        if (seen >= rank && seen > 0) {
            uint64_t v = histogram_value(i);

            return v < h->max ? v : h->max;
        }
    }
    return h->max;
}

#endif
