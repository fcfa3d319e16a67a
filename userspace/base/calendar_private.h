/*
 * calendar_private.h - what the calendar_*.c files share.
 */
#ifndef SLUICE_BASE_CALENDAR_PRIVATE_H
#define SLUICE_BASE_CALENDAR_PRIVATE_H

#include "base/calendar.h"

enum { DAY_OPEN = 0, DAY_CLOSED = 1, DAY_EARLY = 2 };
_Static_assert(DAY_EARLY + CALENDAR_RULES_MAX <= 256, "calendar.day is a byte");

struct calendar_offset {
    int32_t offset_s;
    int64_t from_s, until_s; /* Unix time: while the offset does not change */
};

void calendar_offset_span(const struct calendar *c, int64_t unix_s, struct calendar_offset *ret);
const struct calendar_zone *calendar_zone_of(const struct calendar *c, int32_t year);

/* Parses a rule for days into ret, its text included. */
int calendar_rule_parse(struct calendar_rule *ret, const char *text,
                        char error[CALENDAR_ERROR_BYTES]);

/* Fills c->day from weekdays and rules. */
void calendar_rule_days(struct calendar *c);

/* The zone America/New_York with its eras. */
void calendar_zone_new_york(struct calendar *c);

/* us_equities into an empty calendar of the set. Returns 0 or -ENOMEM. */
int calendar_us_build(struct calendar_set *set);

static inline bool calendar_is_leap(int32_t year)
{
    return year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
}

static inline int32_t calendar_month_days(int32_t year, int32_t month)
{
    return month == 2 ? 28 + calendar_is_leap(year) : 30 + ((month + (month > 7)) & 1);
}

/* 0 is Sunday; 1970-01-01 was a Thursday. */
static inline int32_t calendar_weekday(int32_t days) { return ((days + 4) % 7 + 7) % 7; }

#endif
