/*
 * dedupe.h - has this event been accepted before? Exact, over everything the log holds.
 *
 * The key is (source, id), as the 128-bit keyed hash of base/hash.h; with each key go the place of
 * the event in the log (index, slot) and a 64-bit hash of its bytes, which tells a duplicate from a
 * conflict.
 *
 * Memory: an open-addressing table of the newest keys. When it is full it is frozen, sorted and
 * written as a run file (by the thread that calls dedupe_do_work()), and a new table takes over.
 * Runs are merged, so that there are never more than DEDUPE_RUNS_MAX. Each run has a filter in
 * memory; when the cap does not allow all filters, the largest runs go without and are looked up on
 * disk. memory_bytes_max is hard. The runs are derived from the log: MANIFEST says up to which
 * index they cover it, every file is checked by checksum, and what is missing or damaged is rebuilt
 * by replaying the log from there.
 *
 * Thread:  dedupe_admit/replay/lookup: one thread (the cluster thread). dedupe_do_work: one other
 * thread. Errors:  -ENOSPC when the table is full and its run cannot be written: events must be
 * refused until dedupe_ready() says 0 again. -EIO and the like are final.
 */
#ifndef SLUICE_STORE_DEDUPE_H
#define SLUICE_STORE_DEDUPE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/hash.h"

#define DEDUPE_RUNS_MAX 24u

struct dedupe_config {
    const char *dir;           /* made when it does not exist */
    uint64_t memory_bytes_max; /* hard; at least 16 MiB */
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

/* 0: n more keys can be admitted; -EAGAIN: a frozen table is still being written; -ENOSPC; final
 * error. */
int dedupe_ready(struct dedupe *d, size_t n);

/* Decides n events in order, after a dedupe_ready(d, n) that said 0. A new key is entered at once
 * with place {index, slot}, slot counting the new ones from 0. For the others ret_first[i] is the
 * first place. Two events of the same call with one key: the second is the duplicate. stride: bytes
 * between the key128s (they sit in an array of larger structs). Returns the number of new ones or a
 * negative errno, and then nothing was decided. */
int dedupe_admit(struct dedupe *d, const struct key128 *key, size_t stride, const uint64_t *content,
                 size_t n, uint64_t index, uint8_t *ret_verdict, struct dedupe_place *ret_first);

/* Enters one event of the log at start; places already covered by runs may be given again. Waits
 * for do_work by calling it itself. */
int dedupe_replay(struct dedupe *d, struct key128 key, uint64_t content, struct dedupe_place place);

/* Returns 1 and the place, 0 when the key is not known, or a negative errno. */
int dedupe_lookup(struct dedupe *d, struct key128 key, struct dedupe_place *ret);

/* All keys at or below index are entered: a table frozen from now on covers the log up to it. */
void dedupe_commit(struct dedupe *d, uint64_t index);

/* Writes a frozen table, merges runs. Returns the work done (0: nothing to do) or a negative errno.
 */
int dedupe_do_work(struct dedupe *d);

struct dedupe_stats {
    uint64_t keys, keys_in_memory, runs, disk_bytes, memory_bytes, covered_index;
    uint64_t disk_lookups; /* lookups that had to read a run */
};
void dedupe_stats(struct dedupe *d, struct dedupe_stats *ret);

#endif
