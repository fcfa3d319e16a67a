/*
 * sample.h - valid serialized events, as a feed would send them, made by nanopb.
 *
 * The n-th event of a type has its own id; the same options give the same bytes.
 */
#ifndef SLUICE_TESTS_SAMPLE_H
#define SLUICE_TESTS_SAMPLE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SAMPLE_CUSTOM    64u                    /* the custom type that samples use */
#define SAMPLE_TIME_NS   1772548200000000000ull /* 2026-03-03 09:30 in New York */
#define SAMPLE_BYTES_MAX 24576u

struct sample {
    unsigned type; /* 1..3, or SAMPLE_CUSTOM */
    uint64_t n;
    uint64_t time_ns; /* 0: SAMPLE_TIME_NS + n us */
    bool without_id;
    bool attributes;    /* two of them, and a traceparent */
    size_t bytes_exact; /* 0: as it comes; else padded by longer strings or body */
};

/* Returns the bytes written to buf, which must have room. */
size_t sample_event(uint8_t *buf, size_t buf_bytes, const struct sample *s);

/* An EventBatch of n events of the given types in turn (types ends with 0). */
size_t sample_batch(uint8_t *buf, size_t buf_bytes, const unsigned *types, size_t n, uint64_t seq,
                    bool receipt_wanted);

/* A small generator with a seed (splitmix64). */
struct sample_random {
    uint64_t state;
};
uint64_t sample_random(struct sample_random *r);
uint64_t sample_below(struct sample_random *r, uint64_t limit);

#endif
