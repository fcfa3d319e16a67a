/*
 * fake_admin.h - a daemon for tests of the admin server and the CLI: a log in memory, made-up
 * status.
 *
 * Thread:  the test appends, the server's thread reads; fake_admin_commit() is the hand-over.
 */
#ifndef SLUICE_TESTS_FAKE_ADMIN_H
#define SLUICE_TESTS_FAKE_ADMIN_H

#include "serve/admin.h"
#include "tests/lib/test_block.h"

#define FAKE_RECORDS_MAX 128u
#define FAKE_TERM        ((3ull << 20) | 5) /* epoch 3 */

struct fake_admin {
    struct test_record *record[FAKE_RECORDS_MAX]; /* [index] */
    uint64_t last, first;
    _Atomic uint64_t commit;
    _Atomic(struct wake *) watcher;
    _Atomic bool unbalanced, watch_fails, rot;
    _Atomic unsigned reads;
    char set_key[64], set_value[128];
    uint32_t set_uid;
    uid_t refused_uid; /* 0: none */
};

void fake_admin_init(struct fake_admin *f);
void fake_admin_fini(struct fake_admin *f);

/* Fills in a table of functions over f. */
void fake_admin_source(struct fake_admin *f, struct admin_source *ret);

/* The next record, still open; or one of another type, with no payload. */
struct test_record *fake_admin_append(struct fake_admin *f);
void fake_admin_append_other(struct fake_admin *f, uint32_t type);

/* Seals what was appended, makes it visible, wakes the server. */
void fake_admin_commit(struct fake_admin *f);

/* Appends and commits a block of n trades: source "feed-<i % 2>", id "<index>-<i>", symbol "S<i %
 * 4>", type 1 + i % 3. */
void fake_admin_block(struct fake_admin *f, uint32_t n);

#endif
