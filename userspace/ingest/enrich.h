/*
 * enrich.h - the calendars of one worker: the config's, with cursors of its own.
 *
 * Thread:  the worker.
 * Memory:  the caller's; borrows the set, which lives as long as the config.
 */
#ifndef SLUICE_INGEST_ENRICH_H
#define SLUICE_INGEST_ENRICH_H

#include "base/calendar.h"

struct calendars {
    const struct calendar_set *set;
    struct calendar_cursor cursor[CALENDAR_SET_MAX];
};

static inline void calendars_init(struct calendars *c, const struct calendar_set *set)
{
    *c = (struct calendars){ .set = set };
}

#endif
