/*
 * stages.h - the four stages in their order of running, and the walk over a batch before them.
 *
 * A stage looks at events whose reason is REASON_NONE, refuses with event_refuse() (which counts by
 * type and reason), and returns how many are left. When a stage has used up its time
 * (stages.stage_ns_max), the rest of the run is refused as STAGE_TIMEOUT: stage_is_late().
 */
#ifndef SLUICE_INGEST_STAGES_H
#define SLUICE_INGEST_STAGES_H

#include "ingest/event.h"

enum stage { STAGE_DECODE, STAGE_VALIDATE, STAGE_ENRICH, STAGE_BATCH, STAGE_N };

/* Refuses ev for good: counts it as invalid or, for TYPE_NOT_ADMITTED, OVERLOADED, DISK_FULL,
 * STOPPING, REGION_UNREACHABLE and STAGE_TIMEOUT, as refused. decode has counted it as decoded
 * before. */
void event_refuse(struct stages *s, struct event *ev, unsigned reason);

/* True while the stage that began at start_ns (monotonic) may go on: for its limit by that clock,
 * and then for as much again of its thread's processor time. With a limit of 0 it never may, so
 * that only the first event of a run is looked at. */
bool stage_in_time(struct stages *s, enum stage stage, uint64_t start_ns);

struct stage_watch {
    uint64_t start_ns; /* monotonic */
    bool late;         /* and it stays so for this run */
};
/* Before event i of a run: must it be refused? Events take microseconds and limits are
 * milliseconds, so the clock is looked at before the second event and every fourth from there on.
 */
static inline bool stage_is_late(struct stages *s, enum stage stage, struct stage_watch *w,
                                 size_t i)
{
    if (i % 4 == 1 && !w->late)
        w->late = !stage_in_time(s, stage, w->start_ns);
    return w->late;
}

size_t decode_run(struct stages *s, struct event *ev, size_t n);
size_t validate_run(struct stages *s, struct event *ev, size_t n);
size_t enrich_run(struct stages *s, struct event *ev, size_t n);

/* Copies the events that are left into s->open, counts them in its by_type, and adds an exception
 * for every refused event that a request waits for. The caller has made sure that they fit. */
size_t batch_run(struct stages *s, struct event *ev, size_t n);

/* All four, timed. Returns the events that entered the block. */
size_t stages_run(struct stages *s, struct event *ev, size_t n);

/* Iterates over the top level of an EventBatch; nothing is copied. */
struct batch_walk {
    struct slice producer;
    uint64_t seq;
    bool receipt_wanted;
    uint32_t events;      /* how many */
    uint32_t event_bytes; /* of all of them together */
};

/* Checks the whole top level. Fills slices[0..min(events, max)). Returns 0, -EBADMSG (malformed) or
 * -E2BIG (more than max events). */
int batch_walk(struct batch_walk *ret, struct slice *slices, uint32_t max, const uint8_t *data,
               size_t bytes);

/* The type of a serialized Event if its first field is the type (what the kernel sees), else 0. */
unsigned event_peek_type(const uint8_t *data, size_t bytes);

#endif
