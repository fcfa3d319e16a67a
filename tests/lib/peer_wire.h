/*
 * peer_wire.h - for tests of what nodes say to each other: random messages of every type, a stream
 * that they are written to, memory for entries that counts, and comparison with what came out.
 *
 * Thread:  one.
 * Memory:  a sample and a stream own theirs; _fini() frees it.
 * Errors:  cmocka's assertions.
 */
#ifndef SLUICE_TESTS_PEER_WIRE_H
#define SLUICE_TESTS_PEER_WIRE_H

#include "cluster/handshake.h"
#include "cluster/peer_decoder.h"

/* The same numbers for the same seed. */
uint64_t wire_random(uint64_t *seed);
/* 0 to n - 1. */
uint32_t wire_below(uint64_t *seed, uint32_t n);

#define WIRE_SERVERS_MAX 16u

struct wire_sample {
    enum peer_type type;
    uint64_t epoch;
    struct raft_message raft;
    struct log_record record[PEER_ENTRIES_MAX];
    struct peer_entry entry[PEER_ENTRIES_MAX];
    struct raft_server server[WIRE_SERVERS_MAX];
    char address[WIRE_SERVERS_MAX][64];
    struct raft_buffer configuration; /* of a LOG_CHANGE */
    uint8_t *memory;                  /* payloads, snapshot data */
};

/* A message of any type from REQUEST_VOTE on that may be sent, with up to entries_max entries of up
 * to payload_max bytes, or that much snapshot data. */
void wire_sample_init(struct wire_sample *s, enum peer_type type, uint64_t *seed,
                      uint32_t entries_max, uint32_t payload_max);
void wire_sample_fini(struct wire_sample *s);

struct wire_stream {
    uint8_t *bytes;
    size_t n, cap;
};

/* Writes it behind what the stream has. */
void wire_stream_put(struct wire_stream *to, const struct wire_sample *s);
void wire_stream_put_bytes(struct wire_stream *to, const void *bytes, size_t n);
void wire_stream_fini(struct wire_stream *s);

/* Makes both CRCs of the frame at p right again, after a test has changed it. */
void wire_frame_mend(uint8_t *p);

/* Memory for entries. */
struct wire_pool {
    unsigned live;          /* given and not given back */
    unsigned again;         /* says -EAGAIN that many times from now on */
    int error;              /* says this instead, if not 0 */
    struct log_write *last; /* that was given */
};
struct peer_decoder_memory wire_pool_memory(struct wire_pool *p);
void wire_pool_free(struct wire_pool *p, struct log_write *w);

/* Gives the decoder bytes in pieces of 1 to piece_max (0: as it wants them) until there are none,
 * or it says something else than 0, or wants nothing. Returns what it said; *at counts the bytes.
 */
int wire_feed(struct peer_decoder *d, const uint8_t *bytes, size_t n, size_t *at,
              uint32_t piece_max, uint64_t *seed);

/* The message is the sample. */
void wire_assert_equal(const struct peer_message *m, const struct wire_sample *s);
/* Gives back the entries of a message that was taken. */
void wire_free_entries(struct wire_pool *p, const struct peer_message *m);

#endif
