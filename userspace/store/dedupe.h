/*
 * dedupe.h - has this event been accepted before? Exact, over everything the log holds.
 *
 * The key is (source, id), as the 128-bit keyed hash of base/hash.h; with each key go the place of
 * the event in the log (index, slot) and a 64-bit hash of its bytes, which tells a duplicate from a
 * conflict.
 *
 * A filter over all keys entered since the start (the summary) comes first: what it does not know
 * is in none of the runs made since, and a new key costs two or three cache lines, however many
 * runs there are. Runs of an earlier start are asked one by one until they are merged away or the
 * process ends.
 *
 * Memory: an open-addressing table of the newest keys (store/table.h). When it is full it is frozen
 * and written as a run file (store/run.h, by the thread that calls dedupe_do_work()), and a second
 * table takes over. Runs are merged, so that there are never more than DEDUPE_RUNS_MAX. Each run
 * has a filter in memory; when the cap does not allow all filters, the largest runs go without and
 * are looked up on disk. memory_bytes_max is hard: everything is allocated when it is opened, but
 * for the filters, which dedupe_do_work() maps within what is left. The runs are derived from the
 * log: MANIFEST says up to which index they cover it, every file is checked by checksum, and what
 * is missing or damaged is rebuilt by replaying the log from there.
 *
 * Invariants, of A, the admitting thread:
 *   I1 the tables and runs hold all keys of the log up to `entered`, and none that is not in the
 *      log: dedupe_admit() enters those of an entry that will have this index. Then the entry is
 *      either committed with those very events, or dedupe_withdraw() takes them out again.
 *   I2 dedupe_enter() and dedupe_replay() are given committed entries alone.
 *   I3 a node admits only after it has entered every entry that was in its log when it began to
 *      lead. So what is above `committed` and entered is its own, and what it withdraws is the end
 *      of it.
 *
 * What makes a rebuild safe. The runs on disk are those of the log's indexes 1..covered, without a
 * gap, and hold no key that the log does not hold:
 *   I4 a frozen table is not written before every index in it, and up to the one that it will
 *      cover, is committed. Otherwise a crash could leave a key in a run whose event never reached
 *      the log, and the event, sent again, would be answered as a duplicate: lost. So what is
 *      withdrawn is in the two tables, never in a run; the summary may keep a bit of it, which
 * costs a lookup and decides nothing. Keys above `covered` may be in a run (a table was frozen in
 *      the middle of an entry); they are given again, with the same place.
 *
 * Damage that is met while running (a page that fails its checksum) removes that run file and is a
 * final error: the node stops, and the next dedupe_open() says from where to replay.
 *
 * Thread:  dedupe_ready/admit/withdraw/enter/replay/lookup/commit: one thread (the cluster thread).
 * dedupe_do_work: one other thread, which starts after the last dedupe_replay() and ends before
 * dedupe_close(), or the same one. dedupe_stats: any. No call waits for another thread. Errors:
 * -ENOSPC when the table is full and its run cannot be written: events must be refused, and
 * committed entries wait, until dedupe_ready() says 0 again. All others (-EIO, -EILSEQ) are final:
 * every later call returns them.
 */
#ifndef SLUICE_STORE_DEDUPE_H
#define SLUICE_STORE_DEDUPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"

#define DEDUPE_RUNS_MAX         24u
#define DEDUPE_EVENTS_MAX       8192u /* of one dedupe_admit() */
#define DEDUPE_MEMORY_BYTES_MIN (16ull << 20)

struct dedupe_config {
    const char *dir;           /* made when it does not exist */
    uint64_t memory_bytes_max; /* hard; at least DEDUPE_MEMORY_BYTES_MIN */
    /* Names the log that the runs are of (first bytes of the cluster id, say). Runs of another log
     * are removed. */
    uint64_t log_id;
    /* The last index that the log holds, 0 when it is empty. Runs with keys above it are not of
     * this log (it was replaced, or cut) and are removed. */
    uint64_t log_last_index;
    bool verify; /* read and check every page of every run when opening */
    /* 0: as many as the memory allows. Less makes more and smaller runs. */
    uint64_t table_keys_max;
    uint64_t filter_bytes_max;
    uint64_t summary_bytes_max;
};

struct dedupe_event {
    struct key128 key;
    uint64_t content;
};

enum dedupe_verdict { DEDUPE_NEW = 0, DEDUPE_DUPLICATE = 1, DEDUPE_CONFLICT = 2 };

struct dedupe_place {
    uint64_t index;
    uint16_t slot;
};

struct dedupe;

/* Opens what is on disk. *ret_covered: everything at or below that index is in the runs; the log
 * above it is to be replayed. Damaged or missing files lower it (to 0 if need be), never an error;
 * only what the disk refuses is one. */
int dedupe_open(struct dedupe **ret, const struct dedupe_config *config, uint64_t *ret_covered);
void dedupe_close(struct dedupe *d);

/* 0: n <= DEDUPE_EVENTS_MAX more keys can be admitted; -EAGAIN: a frozen table is still being
 * written; -ENOSPC; final error. */
int dedupe_ready(struct dedupe *d, size_t n);

/* Decides n events in order, after a dedupe_ready(d, n) that said 0. A new key is entered at once
 * with place {index, slot}, slot counting the new ones from 0. For the others ret_first[i] is the
 * first place. Two events of the same call with one key: the second is the duplicate. stride: bytes
 * between the key128s (they sit in an array of larger structs). index > 0, above that of the last
 * call that had a new key and was not withdrawn. Returns the number of new ones or a negative
 * errno, and then nothing was decided. Allocates nothing. */
int dedupe_admit(struct dedupe *d, const struct key128 *key, size_t stride, const uint64_t *content,
                 size_t n, uint64_t index, uint8_t *ret_verdict, struct dedupe_place *ret_first);

/* Takes back what dedupe_admit() entered for this index, by its verdicts: the entry will not be in
 * the log. None that is committed; dedupe_cut() is to follow. */
void dedupe_withdraw(struct dedupe *d, const struct key128 *key, size_t stride,
                     const uint8_t *verdict, size_t n, uint64_t index);

/* The log ends before index `from` now, and what comes next there is of another leader: entries
 * without events, too, may have gone. What was admitted from there on has been withdrawn. What the
 * runs cover is committed, and stays, whatever the log's owner knows of that yet. */
void dedupe_cut(struct dedupe *d, uint64_t from);

/* Enters the n <= DEDUPE_EVENTS_MAX events of a committed entry, in the log's order; what is there
 * already stays as it is. dedupe_commit() is to follow. 0, or nothing was entered: -EAGAIN (a
 * frozen table is still being written), -ENOSPC, or a final error. */
int dedupe_enter(struct dedupe *d, const struct key128 *key, size_t stride, const uint64_t *content,
                 size_t n, uint64_t index);

/* Enters one event of the log at start, in the log's order; places already covered by runs may be
 * given again. Calls dedupe_do_work() itself, so no other thread may yet. Returns 0, -ENOSPC (not
 * entered; may be called again) or a final error. */
int dedupe_replay(struct dedupe *d, struct key128 key, uint64_t content, struct dedupe_place place);

/* Returns 1 and the place, 0 when the key is not known, or a negative errno. */
int dedupe_lookup(struct dedupe *d, struct key128 key, struct dedupe_place *ret);

/* The log is committed up to index, and all its keys up to there are entered. Lets a frozen table
 * be written, and one frozen from now on covers the log up to index. */
void dedupe_commit(struct dedupe *d, uint64_t index);

/* Writes a frozen table, merges runs: some 2 MiB of it a call. Returns the work done, 0 when there
 * is nothing to do (until the other thread has called something) or a negative errno; -ENOSPC
 * leaves nothing half done and is tried again by the next call. */
int dedupe_do_work(struct dedupe *d);

struct dedupe_stats {
    uint64_t keys, keys_in_memory, runs, disk_bytes, memory_bytes, covered_index;
    uint64_t disk_lookups;    /* lookups that had to read a run */
    uint64_t runs_unfiltered; /* whose filter is not in memory: each new key is looked up there */
    uint64_t runs_damaged;    /* removed by dedupe_open() */
};
void dedupe_stats(struct dedupe *d, struct dedupe_stats *ret);

#endif
