/*
 * dedupe_internal.h - what dedupe.c (the admitting thread, A) and dedupe_work.c (the working
 * thread, B) share, and how they hand it over without locks.
 *
 * Run sets: B makes a new set of runs, publishes its address and goes on; A takes it up at its next
 * call and acknowledges its generation. Only then does B close what the old set alone had, and only
 * then may it publish again, so two sets suffice. Sets, runs and filters never change while
 * published.
 *
 * Tables: A freezes the active table when `spare` is SPARE_FREE (release), B writes it, publishes
 * the set with the new run, and when A has acknowledged that set (and so no longer looks into the
 * frozen table) clears it and sets SPARE_FREE again.
 *
 * B looks into a frozen table only once `handed_needs` is committed. What A withdraws is not, so
 * until then the table is still A's to take keys out of; it lowers handed_needs (release) behind
 * that.
 */
#ifndef SLUICE_STORE_DEDUPE_INTERNAL_H
#define SLUICE_STORE_DEDUPE_INTERNAL_H

#include <stdatomic.h>

#include "store/dedupe.h"
#include "store/manifest.h"
#include "store/run.h"
#include "store/table.h"

#define MERGE_INPUTS_MAX 8u
#define MERGE_JOBS       3u
/* In the set; in the old set alone; being written. */
#define RUNS_HELD_MAX  (DEDUPE_RUNS_MAX + MERGE_INPUTS_MAX + MERGE_JOBS + 1u)
#define GROUP_KEYS     32u
#define PREFETCH_AHEAD 12u /* keys, where the active table is walked */
#define CACHE_LINE     64u

_Static_assert(DEDUPE_RUNS_MAX == MANIFEST_RUNS_MAX, "MANIFEST names all runs");
_Static_assert(DEDUPE_EVENTS_MAX <= TABLE_TAIL_SLOTS, "a call fits into an empty table");

enum spare { SPARE_FREE, SPARE_FROZEN };

struct held_run {
    struct run run;
    bool used, busy; /* B's: not free; being merged */
};

struct run_ref {
    struct held_run *held;
    uint64_t *filter; /* NULL: look on disk */
    bool summarised;  /* all its keys are in the summary */
};

struct run_set {
    uint64_t generation;
    uint64_t flushes; /* frozen tables that are in the runs */
    uint64_t last;    /* the highest index in the runs */
    uint32_t count;
    struct run_ref at[DEDUPE_RUNS_MAX]; /* oldest first */
};

struct job {
    bool active, written; /* in use; all added, to be finished */
    struct held_run *out;
    struct run_writer writer;
};

struct flush_job {
    struct job job;
    uint64_t at; /* slot of the frozen table */
};

struct merge_job {
    struct job job;
    uint32_t inputs;
    uint64_t keys;                            /* of all inputs */
    struct held_run *input[MERGE_INPUTS_MAX]; /* neighbours, oldest first */
    struct run_cursor cursor[MERGE_INPUTS_MAX];
};

struct dedupe {
    /* Fixed when opened. */
    int dirfd;
    uint64_t log_id;
    uint64_t bytes; /* of this struct */
    uint64_t filter_bytes_max;
    uint64_t runs_damaged;
    uint64_t summary_blocks;
    struct table table[2];

    /* A's. */
    _Alignas(CACHE_LINE) struct table *active;
    struct table *frozen; /* NULL: none to look into */
    const struct run_set *set;
    uint64_t entered; /* all keys of the log up to here are in */
    uint64_t freezes;
    uint64_t *summary; /* a filter (filter.h) over all keys entered since the start */
    struct entry found[DEDUPE_EVENTS_MAX];
    _Alignas(RUN_PAGE_BYTES) uint8_t page[RUN_PAGE_BYTES];

    /* Written by A, read by B. */
    _Alignas(CACHE_LINE) _Atomic uint64_t acknowledged; /* generation */
    _Atomic uint64_t committed;
    struct table *handed;          /* with `handed_needs` */
    uint64_t handed_to;            /* the log is covered up to here, once this table is a run */
    _Atomic uint64_t handed_needs; /* B's once this index is committed */
    _Atomic uint64_t keys_active, keys_frozen, disk_lookups;

    /* Written by both. */
    _Atomic int spare;
    _Atomic int error; /* final */

    /* Written by B, read by A. */
    _Alignas(CACHE_LINE) struct run_set *_Atomic published;
    _Atomic bool no_space;
    _Atomic uint64_t keys_runs, runs, runs_unfiltered, disk_bytes, filter_bytes, covered;

    /* B's. */
    _Alignas(CACHE_LINE) struct run_set sets[2];
    struct run_set *old; /* not acknowledged away yet, or NULL */
    bool clear_frozen;   /* when old is gone */
    uint64_t seq_next;
    struct flush_job flush;
    struct merge_job merge[MERGE_JOBS];
    struct held_run held[RUNS_HELD_MAX];
};

static inline uint64_t set_covered(const struct run_set *s)
{
    return s->count == 0 ? 0 : s->at[s->count - 1].held->run.info.to;
}

/* Remembers a final error; the first one stays. Returns it. */
int dedupe_fail(struct dedupe *d, int error);

/* Removes a run that was found damaged, so that the next start rebuilds it, and fails. */
int dedupe_condemn(struct dedupe *d, const struct run *r, int error);

struct held_run *dedupe_hold(struct dedupe *d);
/* Maps and reads the filter of r if the memory allows; *ret is NULL when it does not. */
int dedupe_load_filter(struct dedupe *d, const struct run *r, uint64_t **ret);
void dedupe_drop_filter(struct dedupe *d, const struct run *r, uint64_t *filter);
/* Sets last and the figures for dedupe_stats(). */
void dedupe_describe(struct dedupe *d, struct run_set *s);
void dedupe_manifest(const struct dedupe *d, const struct run_set *s, struct manifest *ret);
/* dedupe_close(): ends the jobs, closes all runs. */
void dedupe_work_fini(struct dedupe *d);

#endif
