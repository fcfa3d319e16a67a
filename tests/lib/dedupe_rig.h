/*
 * dedupe_rig.h - a dedupe index in a temporary directory, with a log beside it (in memory, always
 * durable) that says exactly what it must know.
 *
 * Every admission is checked against the log at once; dedupe_rig_check_all() checks every key
 * again.
 */
#ifndef SLUICE_TESTS_DEDUPE_RIG_H
#define SLUICE_TESTS_DEDUPE_RIG_H

#include <stdint.h>

#include "store/dedupe.h"

#define RIG_DIR_BYTES 256u

struct dedupe_rig_event {
    struct dedupe_event event;
    struct dedupe_place place;
};

struct rig {
    struct dedupe *d;
    struct dedupe_config config;
    char dir[RIG_DIR_BYTES];
    uint64_t covered;
    uint64_t index; /* the log's last */
    uint64_t seed;
    struct dedupe_rig_event *log; /* in order; all keys differ */
    uint64_t count, room;
    struct dedupe_place first; /* of the last dedupe_rig_admit() */
    uint64_t runs_written;     /* guessed from the keys admitted */
};

/* dedupe_rig_open() opens and replays; dedupe_rig_open_only() leaves the replay to the caller. */
void dedupe_rig_make(struct rig *g);
void dedupe_rig_open(struct rig *g);
void dedupe_rig_open_only(struct rig *g);
void dedupe_rig_replay(struct rig *g, uint64_t above);
void dedupe_rig_close(struct rig *g);
void dedupe_rig_restart(struct rig *g);
void dedupe_rig_fini(struct rig *g); /* removes the directory too */

uint64_t dedupe_rig_random(struct rig *g);
struct key128 dedupe_rig_key(uint64_t number);
void dedupe_rig_remember(struct rig *g, struct dedupe_event e, struct dedupe_place p);

/* One event at the next index (which is used up when it is new); returns the verdict. */
int dedupe_rig_admit(struct rig *g, struct key128 key, uint64_t content);
/* n events, old and new, at the next index; checks verdicts and places. */
void dedupe_rig_admit_random(struct rig *g, size_t n);
void dedupe_rig_commit(struct rig *g, uint64_t index);
void dedupe_rig_work(struct rig *g);   /* one step; must not fail */
void dedupe_rig_settle(struct rig *g); /* all there is to do */
void dedupe_rig_check_all(struct rig *g);
struct dedupe_stats dedupe_rig_stats(struct rig *g);
unsigned dedupe_rig_files(struct rig *g); /* in the directory */

#endif
