/*
 * line.h - the four stages with all that they need, for tests, benches and fuzzers.
 *
 * The settings are the defaults and one custom type, SAMPLE_CUSTOM, named `signal`.
 */
#ifndef SLUICE_TESTS_LINE_H
#define SLUICE_TESTS_LINE_H

#include "ingest/admission.h"
#include "ingest/enrich.h"
#include "ingest/limits.h"
#include "ingest/stages.h"

struct line {
    struct admission admission;
    struct limits limits;
    struct ledger ledger;
    struct calendar_set set;
    struct calendars calendars;
    struct block block;
    struct stages stages;
    struct event ev[EVENTS_RUN_MAX];
};

/* Allocated, since it is large; never fails. */
struct line *line_new(void);
void line_free(struct line *l);

/* Changes a setting; the test fails when it is refused. */
void line_set(struct line *l, const char *key, const char *value);

/* Empties block and ledger. */
void line_reset(struct line *l);

/* Makes ev[i] an event as receive gives it, that came 1 ms after `time_ns`. */
void line_receive(struct line *l, size_t i, const void *data, size_t bytes, uint64_t time_ns);

/* One event through decode alone, or through decode and validate. Returns its reason. */
unsigned line_decode(struct line *l, const void *data, size_t bytes);
unsigned line_validate(struct line *l, const void *data, size_t bytes);
/* One event through all four, at SAMPLE_TIME_NS. */
unsigned line_run(struct line *l, const void *data, size_t bytes);

/* Does everything decoded stand under invalid, refused or in the open block, type by type? */
bool line_balances(const struct line *l);

#endif
