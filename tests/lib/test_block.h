/*
 * test_block.h - builds blocks and committed records for tests of readers, from event bytes.
 */
#ifndef SLUICE_TESTS_TEST_BLOCK_H
#define SLUICE_TESTS_TEST_BLOCK_H

#include "cluster/block.h"
#include "proto/event.pb.h"

#define TEST_RECEIVE_NS 1700000000000000000ull

/* A record with its payload; one allocation, free() it. */
struct test_record {
    struct log_record record;
    uint32_t payload_bytes;
    uint32_t events;
    struct block_desc desc[BLOCK_EVENTS_MAX];
    _Alignas(8) uint8_t payload[BLOCK_PAYLOAD_MAX];
};

/* A LOG_EVENTS record with no event; NULL when there is no memory. */
struct test_record *test_record_open(uint64_t index, uint64_t term);

/* Adds a serialized event. Call test_record_seal() after the last. */
void test_record_add(struct test_record *r, const uint8_t *event, size_t bytes, unsigned type,
                     const char *symbol, bool id_assigned);

void test_record_seal(struct test_record *r);

/* A serialized trade; returns its bytes. */
size_t test_trade(uint8_t *buf, size_t cap, const char *source, const char *id, const char *symbol);

#endif
