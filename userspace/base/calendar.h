/*
 * calendar.h - which market session a moment falls into: closed, pre-market, regular, post-market.
 *
 * US equities are built in (NYSE hours, holidays by rule, the one-off closures, early closes);
 * other markets come from the config. Nothing is asked of the machine: time zones are POSIX TZ
 * rules (`EST5EDT,M3.2.0,M11.1.0`), so the answer is the same everywhere, without tzdata.
 *
 * Exact for us_equities: sessions from 1998 on (before that some one-off closures are missing);
 * New York's daylight saving time from 1970 on. A zone from the config applies to all years.
 *
 * Rules for days (holidays and early closes):
 *   2026-04-03  12-25  easter-2  easter+1  third monday january  last monday may
 *   fourth thursday november+1            any of these may be followed by
 *   if mon,tue,thu      only when it falls on one of these days
 *   nearest             Saturday moves to Friday, Sunday to Monday
 *   monday              Sunday moves to Monday, Saturday is dropped
 *   next                a weekend day moves to the next weekday that is not a holiday already
 *   from 2022           until 2012           first and last year
 *
 * Thread:  built before any thread starts, read-only afterwards; a cursor has one owner.
 * Memory:  one byte for each day from 1970 to 2554 a calendar; freed in calendar_set_fini().
 * Limits:  CALENDAR_*_MAX.
 * Errors:  -EINVAL and a sentence, without a final dot, for text that is not understood.
 */
#ifndef SLUICE_BASE_CALENDAR_H
#define SLUICE_BASE_CALENDAR_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define CALENDAR_ERROR_BYTES 200u
#define CALENDAR_SET_MAX     8u
#define CALENDAR_NAME_BYTES  32u
#define CALENDAR_TEXT_BYTES  64u
#define CALENDAR_ERAS_MAX    8u
#define CALENDAR_HOURS_MAX   6u
#define CALENDAR_RULES_MAX   128u
#define CALENDAR_VENUES_MAX  48u
#define CALENDAR_SLOTS       1024u   /* of the hash table of venues: a power of two */
#define CALENDAR_DAYS        213504u /* 1970-01-01 .. 2554-07-20: all that unix_ns can say */

/* Equal to sluice.v1.Session. */
enum calendar_session {
    SESSION_NONE = 0,
    SESSION_CLOSED = 1,
    SESSION_PRE = 2,
    SESSION_REGULAR = 3,
    SESSION_POST = 4,
};

/* One date of a TZ rule: Mm.w.d, Jn or n, and the time of day. */
struct calendar_change {
    enum { CHANGE_MONTH, CHANGE_JULIAN, CHANGE_DAY } kind;
    int32_t month, week, day;
    int32_t time_s;
};

struct calendar_zone {
    int32_t standard_s, daylight_s; /* east of UTC */
    bool daylight;
    struct calendar_change start, end; /* of daylight saving time */
};

struct calendar_rule {
    enum { RULE_DATE, RULE_YEARLY, RULE_EASTER, RULE_WEEKDAY } kind;
    enum { MOVE_NONE, MOVE_NEAREST, MOVE_MONDAY, MOVE_NEXT } move;
    int32_t year, month, day; /* DATE, YEARLY */
    int32_t nth, weekday;     /* WEEKDAY: nth is 1..5 or -1 for last; Sunday is 0 */
    int32_t offset_days;      /* EASTER, WEEKDAY */
    uint32_t weekdays;        /* `if`: bit 0 is Sunday */
    int32_t year_first, year_last;
    bool early;                    /* an early close, not a holiday */
    int32_t close_s, post_until_s; /* early: regular ends, post ends (0: there is none) */
    char text[CALENDAR_TEXT_BYTES];
};

struct calendar_hours {
    enum calendar_session session;
    int32_t from_s, until_s; /* local time of day */
};

struct calendar {
    char name[CALENDAR_NAME_BYTES];
    char zone_text[CALENDAR_TEXT_BYTES];
    struct {
        int32_t year_first;
        struct calendar_zone zone;
    } era[CALENDAR_ERAS_MAX]; /* the first one covers all years before it too */
    uint32_t eras;
    struct calendar_hours hours[CALENDAR_HOURS_MAX]; /* in order of time, not overlapping */
    uint32_t hours_n;
    struct calendar_rule rule[CALENDAR_RULES_MAX];
    uint32_t rules;
    uint32_t weekdays; /* open days: bit 0 is Sunday; default Monday to Friday */
    char venue[CALENDAR_VENUES_MAX][9];
    uint32_t venues;
    uint8_t *day; /* by day since 1970: DAY_OPEN, DAY_CLOSED, or DAY_EARLY + its early-close rule */
};

struct calendar_set {
    struct calendar *calendar[CALENDAR_SET_MAX]; /* [0] is us_equities */
    uint32_t n;
    uint64_t slot_venue[CALENDAR_SLOTS];
    uint8_t slot_calendar[CALENDAR_SLOTS];
};

/* --- asking ------------------------------------------------------------------------------------
 */

enum calendar_session calendar_session(const struct calendar *c, uint64_t unix_ns);

/* Remembers one session's [from, until), so that the next event of the same session costs two
 * comparisons. Zeroed: knows nothing yet. One per calendar and thread. */
struct calendar_cursor {
    uint64_t from_ns, until_ns;
    enum calendar_session session;
};

/* Moves the cursor to unix_ns and returns its session. */
enum calendar_session calendar_seek(const struct calendar *c, struct calendar_cursor *cursor,
                                    uint64_t unix_ns);

static inline enum calendar_session
calendar_session_at(const struct calendar *c, struct calendar_cursor *cursor, uint64_t unix_ns)
{
    if (unix_ns >= cursor->from_ns && unix_ns < cursor->until_ns)
        return cursor->session;
    return calendar_seek(c, cursor, unix_ns);
}

/* The calendar of a venue (MIC), as its number in the set; 0 (us_equities) when the venue is empty
 * or unknown. */
uint32_t calendar_of_venue(const struct calendar_set *set, const char *venue, size_t bytes);

/* Seconds east of UTC at that moment. */
int32_t calendar_offset_s(const struct calendar *c, int64_t unix_s);

/* Days since 1970-01-01 of a date of the Gregorian calendar, and back. */
int32_t calendar_days(int32_t year, int32_t month, int32_t day);
void calendar_date(int32_t days, int32_t *ret_year, int32_t *ret_month, int32_t *ret_day);

/* Easter Sunday, as days since 1970-01-01. */
int32_t calendar_easter(int32_t year);

/* --- building ----------------------------------------------------------------------------------
 */

/* A set that holds us_equities. Returns 0 or -ENOMEM. */
int calendar_set_init(struct calendar_set *set);
void calendar_set_fini(struct calendar_set *set);

/* A new calendar, to be filled by the functions below and then sealed. NULL with a sentence: the
 * name is taken or malformed, the set is full, or no memory. The set owns it. */
struct calendar *calendar_set_add(struct calendar_set *set, const char *name,
                                  char error[CALENDAR_ERROR_BYTES]);

/* text: a POSIX TZ rule or `America/New_York`. */
int calendar_add_zone(struct calendar *c, const char *text, char error[CALENDAR_ERROR_BYTES]);

/* from, until: HH:MM, until at most 24:00. */
int calendar_add_hours(struct calendar *c, enum calendar_session session, const char *from,
                       const char *until, char error[CALENDAR_ERROR_BYTES]);
int calendar_add_holiday(struct calendar *c, const char *rule, char error[CALENDAR_ERROR_BYTES]);

/* Regular trading ends at close; post-market then goes on until post_until, NULL: there is none. */
int calendar_add_early_close(struct calendar *c, const char *rule, const char *close,
                             const char *post_until, char error[CALENDAR_ERROR_BYTES]);

/* 1..8 characters [A-Z0-9]; one calendar a venue. */
int calendar_add_venue(struct calendar_set *set, struct calendar *c, const char *venue,
                       char error[CALENDAR_ERROR_BYTES]);

/* Checks the calendar as a whole and works out every day of it. */
int calendar_seal(struct calendar *c, char error[CALENDAR_ERROR_BYTES]);

/* Parses a POSIX TZ rule. */
int calendar_zone_parse(struct calendar_zone *ret, const char *text,
                        char error[CALENDAR_ERROR_BYTES]);

#endif
