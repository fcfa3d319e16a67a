/*
 * fake_admin.h - a daemon for tests of the admin server and the CLI: a log in memory, made-up
 * status; fake_xdp.c has the part about XDP.
 *
 * Thread:  the test appends, the server's thread reads; fake_admin_commit() is the hand-over.
 */
#ifndef SLUICE_TESTS_FAKE_ADMIN_H
#define SLUICE_TESTS_FAKE_ADMIN_H

#include "serve/admin.h"
#include "tests/lib/test_block.h"

#define FAKE_RECORDS_MAX 128u
#define FAKE_TERM        ((3ull << 20) | 5) /* epoch 3 */

/* What the XDP part does, and was asked. */
struct fake_xdp {
    _Atomic bool unbalanced, rings_differ, present;
    _Atomic unsigned looks; /* status requests so far: the counters grow by each */
    _Atomic bool tap_open;
    _Atomic unsigned tap_starts;
    _Atomic uint64_t tap_ready; /* samples to give; UINT64_MAX: without end */
    _Atomic uint64_t tap_given;
    _Atomic int tap_error;       /* tap_next() fails with it */
    sluice_v1_TapSample sample;  /* that they are; reason and time are made up */
    sluice_v1_TapRequest tapped; /* the last that was taken */
    sluice_v1_PolicyTestRequest tested;
};

/* What operate() does, and was asked. */
struct fake_cluster_state {
    _Atomic bool hold; /* it does not return */
    _Atomic unsigned calls;
    _Atomic int error;                      /* with a sentence */
    sluice_v1_ClusterStatusResponse status; /* what cluster_status says */
    sluice_v1_ReadPoint point;
    struct admin_request asked; /* the last; to be read when it has returned */
    struct admin_asker asker;
};

struct fake_admin {
    struct test_record *record[FAKE_RECORDS_MAX]; /* [index] */
    uint64_t last, first;
    _Atomic uint64_t commit;
    _Atomic(struct wake *) watcher;
    _Atomic bool unbalanced, watch_fails, rot;
    _Atomic bool refuse; /* every setting */
    _Atomic unsigned reads;
    char set_key[64], set_value[128];
    uint32_t set_uid;
    char set_by[CERTIFICATE_NAME_BYTES];
    uid_t refused_uid; /* 0: none */
    bool policy;       /* the settings are a policy and a shadow */
    struct fake_cluster_state cluster;
    struct fake_xdp xdp;
};

void fake_admin_init(struct fake_admin *f);
void fake_admin_fini(struct fake_admin *f);

/* Fills in a table of functions over f. */
void fake_admin_source(struct fake_admin *f, struct admin_source *ret);

/* The same for what asks about XDP; and the settings of a policy. */
void fake_xdp_source(struct admin_source *ret);
int fake_xdp_settings(admin_setting_fn each, void *each_arg);
/* In a LedgerResponse. */
void fake_xdp_ledger(const struct fake_admin *f, sluice_v1_XdpLedger *ret);

/* The next record, still open; or one of another type, with no payload. */
struct test_record *fake_admin_append(struct fake_admin *f);
void fake_admin_append_other(struct fake_admin *f, uint32_t type);

/* Seals what was appended, makes it visible, wakes the server. */
void fake_admin_commit(struct fake_admin *f);

/* Appends and commits a block of n trades: source "feed-<i % 2>", id "<index>-<i>", symbol "S<i %
 * 4>", type 1 + i % 3. */
void fake_admin_block(struct fake_admin *f, uint32_t n);

#endif
