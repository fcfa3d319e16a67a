/*
 * log_fixture.h - what tests of the log share: a temporary directory, records with contents that
 * follow from their index, appending them one after the other.
 */
#ifndef SLUICE_TESTS_LOG_FIXTURE_H
#define SLUICE_TESTS_LOG_FIXTURE_H

#include "cluster/log.h"

#define FIXTURE_TERM      ((2ull << 20) | 1)
#define FIXTURE_DIR_BYTES 512

/* Makes a directory under ${TMPDIR:-/tmp}; removes it with all files in it. */
void fixture_dir_make(char ret[FIXTURE_DIR_BYTES]);
void fixture_dir_remove(const char *dir);
/* dir/name, in a static buffer. */
const char *fixture_path(const char *dir, const char *name);

extern const struct log_origin fixture_origin;
struct log_config fixture_config(void);

/* A record in memory: payload bytes are a function of index and salt. */
struct fixture_write {
    struct log_write write;
    uint64_t done_index; /* set by done(): the order it ran in is checked */
    bool done;
};
struct fixture_write *fixture_write_make(uint64_t index, uint64_t term, uint32_t type,
                                         uint32_t payload_bytes, uint32_t salt);
void fixture_write_free(struct fixture_write *w);
bool fixture_payload_is(const void *payload, uint32_t bytes, uint64_t index, uint32_t salt);

/* log_do_work() with a clock that goes on by 1 ms a call. */
int fixture_turn(struct log *l);
/* Until log_reserve() says 0 or something else than -EAGAIN; returns that. */
int fixture_reserve(struct log *l, uint32_t payload_bytes);
/* Reserves, appends, waits until durable. Returns 0 or the error. */
int fixture_append(struct log *l, uint64_t term, uint32_t type, uint32_t payload_bytes,
                   uint32_t salt);

#endif
