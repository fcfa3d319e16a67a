/*
 * test_calendar.c - market sessions against what the exchanges published, and time zones against
 * the C library.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/calendar.h"
#include "proto/event.pb.h"

#define NS      1000000000ull
#define ZONE_NY "/usr/share/zoneinfo/America/New_York"

static struct calendar_set set;
static const struct calendar *us;
static char error[CALENDAR_ERROR_BYTES];

static int set_up(void **state)
{
    assert_int_equal(calendar_set_init(&set), 0);
    us = set.calendar[0];
    return 0;
}

static int tear_down(void **state)
{
    calendar_set_fini(&set);
    return 0;
}

/* Unix time of a UTC date and time. */
static uint64_t utc(int y, int mo, int d, int h, int mi, int s)
{
    return ((uint64_t)calendar_days(y, mo, d) * 86400 + (uint64_t)(h * 3600 + mi * 60 + s)) * NS;
}

static uint64_t random_number(void) /* splitmix64 */
{
    static uint64_t x = 20240229;
    uint64_t z = (x += 0x9e3779b97f4a7c15ull);

    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return z ^ (z >> 31);
}

/* The holidays and early closes (after the |) that the exchange published, weekdays only. */
static const struct {
    int year;
    const char *days;
} published[] = {
    { 1998, "01-01 01-19 02-16 04-10 05-25 07-03 09-07 11-26 12-25 | 11-27 12-24" },
    { 1999, "01-01 01-18 02-15 04-02 05-31 07-05 09-06 11-25 12-24 | 11-26 12-31" },
    { 2001, "01-01 01-15 02-19 04-13 05-28 07-04 09-03 09-11 09-12 09-13 09-14 11-22 12-25 | "
            "07-03 11-23 12-24" },
    { 2002, "01-01 01-21 02-18 03-29 05-27 07-04 09-02 11-28 12-25 | 07-05 11-29 12-24" },
    { 2003, "01-01 01-20 02-17 04-18 05-26 07-04 09-01 11-27 12-25 | 07-03 11-28 12-24 12-26" },
    { 2004, "01-01 01-19 02-16 04-09 05-31 06-11 07-05 09-06 11-25 12-24 | 11-26" },
    { 2007, "01-01 01-02 01-15 02-19 04-06 05-28 07-04 09-03 11-22 12-25 | 07-03 11-23 12-24" },
    { 2012, "01-02 01-16 02-20 04-06 05-28 07-04 09-03 10-29 10-30 11-22 12-25 | "
            "07-03 11-23 12-24" },
    { 2013, "01-01 01-21 02-18 03-29 05-27 07-04 09-02 11-28 12-25 | 07-03 11-29 12-24" },
    { 2015, "01-01 01-19 02-16 04-03 05-25 07-03 09-07 11-26 12-25 | 11-27 12-24" },
    { 2016, "01-01 01-18 02-15 03-25 05-30 07-04 09-05 11-24 12-26 | 11-25" },
    { 2017, "01-02 01-16 02-20 04-14 05-29 07-04 09-04 11-23 12-25 | 07-03 11-24" },
    { 2018, "01-01 01-15 02-19 03-30 05-28 07-04 09-03 11-22 12-05 12-25 | 07-03 11-23 12-24" },
    { 2019, "01-01 01-21 02-18 04-19 05-27 07-04 09-02 11-28 12-25 | 07-03 11-29 12-24" },
    { 2020, "01-01 01-20 02-17 04-10 05-25 07-03 09-07 11-26 12-25 | 11-27 12-24" },
    { 2021, "01-01 01-18 02-15 04-02 05-31 07-05 09-06 11-25 12-24 | 11-26" },
    { 2022, "01-17 02-21 04-15 05-30 06-20 07-04 09-05 11-24 12-26 | 11-25" },
    { 2023, "01-02 01-16 02-20 04-07 05-29 06-19 07-04 09-04 11-23 12-25 | 07-03 11-24" },
    { 2024, "01-01 01-15 02-19 03-29 05-27 06-19 07-04 09-02 11-28 12-25 | 07-03 11-29 12-24" },
    { 2025, "01-01 01-09 01-20 02-17 04-18 05-26 06-19 07-04 09-01 11-27 12-25 | "
            "07-03 11-28 12-24" },
    { 2026, "01-01 01-19 02-16 04-03 05-25 06-19 07-03 09-07 11-26 12-25 | 11-27 12-24" },
    { 2027, "01-01 01-18 02-15 03-26 05-31 06-18 07-05 09-06 11-25 12-24 | 11-26" },
    { 2028, "01-17 02-21 04-14 05-29 06-19 07-04 09-04 11-23 12-25 | 07-03 11-24" },
};

/* What the calendar says of a local day: its session at noon, at 13:00 and at 17:00. */
static enum calendar_session at_local(const struct calendar *c, int32_t day, int hour)
{
    int64_t s = (int64_t)day * 86400 + hour * 3600;

    s -= calendar_offset_s(c, s); /* far from any change of offset */
    return calendar_session(c, (uint64_t)s * NS);
}

/* "MM-DD ... | MM-DD ...": all weekdays of a year that are not plain ones. */
static void days_of_year(const struct calendar *c, int year, char *text)
{
    char early[512] = "";
    int32_t y, m, d;

    text[0] = '\0';
    for (int32_t day = calendar_days(year, 1, 1); day < calendar_days(year + 1, 1, 1); day++) {
        char one[32];

        calendar_date(day, &y, &m, &d);
        snprintf(one, sizeof one, "%02d-%02d ", m, d);
        if (at_local(c, day, 12) == SESSION_CLOSED) {
            if ((day + 4) % 7 != 0 && (day + 4) % 7 != 6)
                strcat(text, one);
        } else if (at_local(c, day, 13) != SESSION_REGULAR) {
            strcat(early, one);
            assert_int_equal(at_local(c, day, 16), SESSION_POST);
            assert_int_equal(at_local(c, day, 17), SESSION_CLOSED);
        }
    }
    strcat(text, "| ");
    strcat(text, early);
    text[strlen(text) - 1] = '\0';
}

static void us_holidays_are_those_that_were_published(void **state)
{
    for (size_t i = 0; i < sizeof published / sizeof *published; i++) {
        char text[1024];

        days_of_year(us, published[i].year, text);
        if (strcmp(text, published[i].days) != 0)
            fail_msg("%d:\n  %s\nbut published was\n  %s", published[i].year, text,
                     published[i].days);
    }
}

static void once_only_closures_are_known(void **state)
{
    static const int32_t date[][3] = { { 1977, 7, 14 }, { 1985, 9, 27 },  { 1994, 4, 27 },
                                       { 2001, 9, 11 }, { 2001, 9, 14 },  { 2004, 6, 11 },
                                       { 2007, 1, 2 },  { 2012, 10, 30 }, { 2018, 12, 5 },
                                       { 2025, 1, 9 } };

    for (size_t i = 0; i < sizeof date / sizeof *date; i++)
        assert_int_equal(at_local(us, calendar_days(date[i][0], date[i][1], date[i][2]), 12),
                         SESSION_CLOSED);
    assert_int_equal(at_local(us, calendar_days(2001, 9, 10), 12), SESSION_REGULAR);
    assert_int_equal(at_local(us, calendar_days(2001, 9, 17), 12), SESSION_REGULAR);
}

static void sessions_begin_and_end_to_the_nanosecond(void **state)
{
    /* a Monday in summer (UTC-4), one in winter (UTC-5), and an early close */
    static const struct {
        int y, mo, d, offset_h;
        int hour[4][2]; /* local hour and minute at which the sessions below begin */
        bool early;
    } day[] = {
        { 2024, 7, 1, 4, { { 4, 0 }, { 9, 30 }, { 16, 0 }, { 20, 0 } }, false },
        { 2024, 1, 8, 5, { { 4, 0 }, { 9, 30 }, { 16, 0 }, { 20, 0 } }, false },
        { 2024, 11, 29, 5, { { 4, 0 }, { 9, 30 }, { 13, 0 }, { 17, 0 } }, true },
    };
    static const enum calendar_session order[] = { SESSION_CLOSED, SESSION_PRE, SESSION_REGULAR,
                                                   SESSION_POST, SESSION_CLOSED };

    for (size_t i = 0; i < 3; i++)
        for (int b = 0; b < 4; b++) {
            uint64_t at = utc(day[i].y, day[i].mo, day[i].d, 0, 0, 0);

            at += (uint64_t)((day[i].hour[b][0] + day[i].offset_h) * 60 + day[i].hour[b][1]) * 60 *
                  NS;
            assert_int_equal(calendar_session(us, at - 1), order[b]);
            assert_int_equal(calendar_session(us, at), order[b + 1]);
            assert_int_equal(calendar_session(us, at + 1), order[b + 1]);
        }
}

static void session_values_are_those_of_the_messages(void **state)
{
    assert_int_equal(SESSION_CLOSED, sluice_v1_Session_CLOSED);
    assert_int_equal(SESSION_PRE, sluice_v1_Session_PRE_MARKET);
    assert_int_equal(SESSION_REGULAR, sluice_v1_Session_REGULAR);
    assert_int_equal(SESSION_POST, sluice_v1_Session_POST_MARKET);
    assert_int_equal(SESSION_NONE, sluice_v1_Session_SESSION_UNSPECIFIED);
}

/* Adds up the seconds of each session in [from, until) by walking the cursor's spans. */
static void add_up(const struct calendar *c, uint64_t from, uint64_t until, uint64_t seconds[5])
{
    struct calendar_cursor cursor = { 0 };

    memset(seconds, 0, 5 * sizeof *seconds);
    for (uint64_t at = from; at < until; at = cursor.until_ns) {
        uint64_t end;

        calendar_session_at(c, &cursor, at);
        assert_true(cursor.from_ns <= at && cursor.until_ns > at);
        end = cursor.until_ns < until ? cursor.until_ns : until;
        seconds[cursor.session] += (end - at) / NS;
    }
}

static void a_year_has_the_published_trading_hours(void **state)
{
    /* trading days, and those among them that close early */
    static const struct {
        int year, days, early;
    } year[] = { { 2019, 252, 3 }, { 2020, 253, 2 }, { 2021, 252, 1 }, { 2022, 251, 1 },
                 { 2023, 250, 2 }, { 2024, 252, 3 }, { 2025, 250, 3 } };

    for (size_t i = 0; i < sizeof year / sizeof *year; i++) {
        uint64_t s[5], days = (uint64_t)year[i].days, early = (uint64_t)year[i].early;

        add_up(us, utc(year[i].year, 1, 1, 5, 0, 0), utc(year[i].year + 1, 1, 1, 5, 0, 0), s);
        assert_int_equal(s[SESSION_PRE], days * 5 * 3600 + days * 1800);
        assert_int_equal(s[SESSION_REGULAR], days * 23400 - early * 3 * 3600);
        assert_int_equal(s[SESSION_POST], days * 4 * 3600);
        assert_int_equal(s[0], 0);
    }
}

static void the_cursor_agrees_with_a_fresh_answer(void **state)
{
    struct calendar_cursor cursor = { 0 };

    for (int i = 0; i < 200000; i++) {
        uint64_t at = i % 2 ? utc(2024, 1, 1, 0, 0, 0) + random_number() % (400 * 86400 * NS)
                            : random_number();
        enum calendar_session s = calendar_session_at(us, &cursor, at);

        assert_int_equal(s, calendar_session(us, at));
        assert_int_equal(s, calendar_session(us, cursor.from_ns));
        assert_int_equal(s, calendar_session(us, cursor.until_ns - 1));
    }
}

static void the_ends_of_time_are_answered(void **state)
{
    struct calendar_cursor cursor = { 0 };

    assert_int_equal(calendar_session(us, 0), SESSION_CLOSED); /* 1969-12-31 19:00 there */
    for (uint64_t i = 0; i < 3 * 86400; i += 599) {
        calendar_session_at(us, &cursor, i * NS);
        calendar_session_at(us, &cursor, UINT64_MAX - i * NS);
    }
    assert_int_not_equal(calendar_session(us, UINT64_MAX), SESSION_NONE);
}

static void daylight_saving_time_begins_and_ends_as_announced(void **state)
{
    static const struct {
        int y, mo, d, h; /* the first second of the new offset, in UTC */
        int before_h, after_h;
    } edge[] = {
        { 2024, 3, 10, 7, -5, -4 }, { 2024, 11, 3, 6, -4, -5 }, { 2007, 3, 11, 7, -5, -4 },
        { 2007, 11, 4, 6, -4, -5 }, { 2006, 4, 2, 7, -5, -4 },  { 2006, 10, 29, 6, -4, -5 },
        { 1986, 4, 27, 7, -5, -4 }, { 1987, 4, 5, 7, -5, -4 },  { 1974, 1, 6, 7, -5, -4 },
        { 1975, 2, 23, 7, -5, -4 }, { 1976, 4, 25, 7, -5, -4 }, { 2100, 3, 14, 7, -5, -4 },
    };

    for (size_t i = 0; i < sizeof edge / sizeof *edge; i++) {
        int64_t s = (int64_t)(utc(edge[i].y, edge[i].mo, edge[i].d, edge[i].h, 0, 0) / NS);

        assert_int_equal(calendar_offset_s(us, s - 1), edge[i].before_h * 3600);
        assert_int_equal(calendar_offset_s(us, s), edge[i].after_h * 3600);
    }
    /* the opening bell before and after the change */
    assert_int_equal(calendar_session(us, utc(2024, 3, 8, 14, 30, 0)), SESSION_REGULAR);
    assert_int_equal(calendar_session(us, utc(2024, 3, 8, 14, 29, 59)), SESSION_PRE);
    assert_int_equal(calendar_session(us, utc(2024, 3, 11, 13, 30, 0)), SESSION_REGULAR);
    assert_int_equal(calendar_session(us, utc(2024, 3, 11, 13, 29, 59)), SESSION_PRE);
}

/* Offsets of c against localtime_r() under TZ=name, at random moments and around every hour near
 * the changes. */
static void compare_with_libc(const struct calendar *c, const char *name, int64_t until_s)
{
    char *before = getenv("TZ") != NULL ? strdup(getenv("TZ")) : NULL;
    struct tm tm;

    setenv("TZ", name, 1);
    tzset();
    for (int i = 0; i < 60000; i++) {
        /* every third one lands on the hour or a second beside it, where changes happen */
        time_t t = (time_t)(random_number() % (uint64_t)until_s);

        if (i % 3 == 0)
            t = t / 3600 * 3600 + (i % 2) - 1;
        assert_non_null(localtime_r(&t, &tm));
        if (tm.tm_gmtoff != calendar_offset_s(c, t))
            fail_msg("%s at %jd: %d s, libc says %ld s", name, (intmax_t)t, calendar_offset_s(c, t),
                     tm.tm_gmtoff);
    }
    for (int32_t y = 1971; y < 2100; y++) /* all hours' edges of one random week a month */
        for (int32_t m = 1; m <= 12; m++)
            for (int h = 0; h < 36; h++) {
                time_t t = (time_t)calendar_days(y, m, 1) * 86400 +
                           (time_t)(random_number() % 35) * 86400 + h * 3600 - (h & 1);

                localtime_r(&t, &tm);
                if (tm.tm_gmtoff != calendar_offset_s(c, t))
                    fail_msg("%s at %jd: %d s, libc says %ld s", name, (intmax_t)t,
                             calendar_offset_s(c, t), tm.tm_gmtoff);
            }
    if (before != NULL)
        setenv("TZ", before, 1);
    else
        unsetenv("TZ");
    free(before);
    tzset();
}

static void new_york_agrees_with_the_tz_database(void **state)
{
    if (access(ZONE_NY, R_OK) != 0) {
        print_message("skip: no %s on this machine\n", ZONE_NY);
        skip();
    }
    compare_with_libc(us, "America/New_York", (int64_t)580 * 365 * 86400);
}

static void posix_zones_agree_with_the_c_library(void **state)
{
    static const char *const zones[] = {
        "UTC0",
        "JST-9",
        "<+0330>-3:30",
        "GMT0BST,M3.5.0/1,M10.5.0",
        "CET-1CEST,M3.5.0,M10.5.0/3",
        "AEST-10AEDT,M10.1.0,M4.1.0/3",
        "NZST-12NZDT,M9.5.0,M4.1.0/3",
        "<+1245>-12:45<+1345>,M9.5.0/2:45,M4.1.0/3:45",
        "IST-1GMT0,M10.5.0,M3.5.0/1",
        "<-02>2<-01>,M3.5.0/-1,M10.5.0/0",
        "XXX3YYY,J60/0,J300",
        "XXX3YYY,59/0,299/25:30:15",
        "XXX-0:30:15YYY-2,M2.5.6/12,M12.1.3/0",
    };

    for (size_t i = 0; i < sizeof zones / sizeof *zones; i++) {
        struct calendar c = { 0 };

        if (calendar_add_zone(&c, zones[i], error) != 0)
            fail_msg("%s: %s", zones[i], error);
        compare_with_libc(&c, zones[i], (int64_t)200 * 365 * 86400);
    }
}

static void a_zone_without_a_rule_follows_the_us_rule(void **state)
{
    struct calendar_zone with, without;

    assert_int_equal(calendar_zone_parse(&with, "EST5EDT,M3.2.0/2,M11.1.0/2", error), 0);
    assert_int_equal(calendar_zone_parse(&without, "EST5EDT", error), 0);
    assert_memory_equal(&with, &without, sizeof with);
}

static void malformed_zones_are_refused(void **state)
{
    static const char *const zones[] = {
        "",
        "E5",
        "EST",
        "5EST",
        "EST5EDT,",
        "EST5EDT,M3.2.0",
        "EST5EDT,M3.2.0,",
        "EST25",
        "EST5EDT,M13.1.0,M11.1.0",
        "EST5EDT,M0.1.0,M11.1.0",
        "EST5EDT,M3.6.0,M11.1.0",
        "EST5EDT,M3.0.0,M11.1.0",
        "EST5EDT,M3.2.7,M11.1.0",
        "EST5EDT,J0,J300",
        "EST5EDT,J366,J1",
        "EST5EDT,366,1",
        "EST5EDT,M3.2.0/168,M11.1.0",
        "EST5EDT,M3.2.0,M11.1.0x",
        "<EST5",
        "<E>5",
        "EST5:60",
        "EST5EDT,M3.2.0/2:,M11.1.0",
        "Europe/London",
        "EST99999999999",
    };
    struct calendar_zone z;

    for (size_t i = 0; i < sizeof zones / sizeof *zones; i++)
        if (calendar_zone_parse(&z, zones[i], error) == 0)
            fail_msg("taken: \"%s\"", zones[i]);
}

static void dates_go_both_ways_and_know_leap_years(void **state)
{
    int32_t y, m, d, year = 1900, month = 1, day = 1;
    static const int month_days[] = { 31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31 };

    assert_int_equal(calendar_days(1970, 1, 1), 0);
    assert_int_equal(calendar_days(2000, 3, 1) - calendar_days(2000, 2, 28), 2);
    assert_int_equal(calendar_days(1900, 3, 1) - calendar_days(1900, 2, 28), 1);
    assert_int_equal(calendar_days(2024, 2, 29), 19782);
    for (int32_t n = calendar_days(1900, 1, 1); n < calendar_days(2600, 1, 1); n++) {
        bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;

        calendar_date(n, &y, &m, &d);
        assert_true(y == year && m == month && d == day);
        assert_int_equal(calendar_days(y, m, d), n);
        if (++day > month_days[month - 1] + (month == 2 && leap)) {
            day = 1;
            year += month == 12;
            month = month % 12 + 1;
        }
    }
}

static void easter_is_on_the_known_dates(void **state)
{
    static const int32_t easter[][3] = {
        { 1943, 4, 25 }, { 1954, 4, 18 }, { 1970, 3, 29 }, { 1981, 4, 19 }, { 1999, 4, 4 },
        { 2000, 4, 23 }, { 2008, 3, 23 }, { 2011, 4, 24 }, { 2015, 4, 5 },  { 2016, 3, 27 },
        { 2017, 4, 16 }, { 2018, 4, 1 },  { 2019, 4, 21 }, { 2020, 4, 12 }, { 2021, 4, 4 },
        { 2022, 4, 17 }, { 2023, 4, 9 },  { 2024, 3, 31 }, { 2025, 4, 20 }, { 2026, 4, 5 },
        { 2027, 3, 28 }, { 2028, 4, 16 }, { 2038, 4, 25 }, { 2285, 3, 22 },
    };

    for (size_t i = 0; i < sizeof easter / sizeof *easter; i++)
        assert_int_equal(calendar_easter(easter[i][0]),
                         calendar_days(easter[i][0], easter[i][1], easter[i][2]));
}

static struct calendar *build_lse(void)
{
    static const char *const holidays[] = { "01-01 next",
                                            "easter-2",
                                            "easter+1",
                                            "first monday may until 2019",
                                            "2020-05-08",
                                            "first mon may from 2021",
                                            "last monday may until 2021",
                                            "2022-06-02",
                                            "2022-06-03",
                                            "last monday aug",
                                            "12-25 next",
                                            "12-26 next" };
    struct calendar *c = calendar_set_add(&set, "lse", error);

    assert_non_null(c);
    assert_int_equal(calendar_add_zone(c, "GMT0BST,M3.5.0/1,M10.5.0", error), 0);
    assert_int_equal(calendar_add_hours(c, SESSION_REGULAR, "08:00", "16:30", error), 0);
    assert_int_equal(calendar_add_hours(c, SESSION_PRE, "05:05", "07:50", error), 0);
    for (size_t i = 0; i < sizeof holidays / sizeof *holidays; i++)
        assert_int_equal(calendar_add_holiday(c, holidays[i], error), 0);
    assert_int_equal(calendar_add_early_close(c, "12-24", "12:30", NULL, error), 0);
    assert_int_equal(calendar_add_venue(&set, c, "XLON", error), 0);
    assert_int_equal(calendar_seal(c, error), 0);
    return c;
}

static bool lse_open(const struct calendar *c, int32_t y, int32_t m, int32_t d)
{
    return at_local(c, calendar_days(y, m, d), 12) == SESSION_REGULAR;
}

static void holidays_on_a_weekend_move_to_the_next_free_day(void **state)
{
    const struct calendar *c = build_lse();

    /* 2021: Saturday and Sunday -> Monday and Tuesday */
    assert_false(lse_open(c, 2021, 12, 27) || lse_open(c, 2021, 12, 28));
    assert_true(lse_open(c, 2021, 12, 29) && lse_open(c, 2021, 12, 24));
    /* 2022: Christmas on Sunday, Boxing Day keeps Monday, Christmas goes to Tuesday */
    assert_false(lse_open(c, 2022, 12, 26) || lse_open(c, 2022, 12, 27));
    assert_true(lse_open(c, 2022, 12, 28) && lse_open(c, 2022, 12, 23));
    /* 2020: Boxing Day on Saturday -> Monday */
    assert_false(lse_open(c, 2020, 12, 25) || lse_open(c, 2020, 12, 28));
    assert_true(lse_open(c, 2020, 12, 29));
    assert_false(lse_open(c, 2022, 1, 3) || lse_open(c, 2023, 1, 2));
    assert_true(lse_open(c, 2022, 1, 4) && lse_open(c, 2023, 1, 3));
    /* moved by law, once: `from`, `until` and a date say it */
    assert_true(lse_open(c, 2020, 5, 4) && !lse_open(c, 2020, 5, 8));
    assert_true(lse_open(c, 2022, 5, 30) && !lse_open(c, 2022, 6, 2) && !lse_open(c, 2022, 6, 3));
    assert_false(lse_open(c, 2024, 4, 1) || lse_open(c, 2024, 3, 29) || lse_open(c, 2024, 8, 26));
    /* early close without a post-market; gaps between sessions are closed */
    assert_int_equal(at_local(c, calendar_days(2024, 12, 24), 12), SESSION_REGULAR);
    assert_int_equal(at_local(c, calendar_days(2024, 12, 24), 13), SESSION_CLOSED);
    assert_int_equal(calendar_session(c, utc(2024, 7, 1, 6, 49, 59)), SESSION_PRE);
    assert_int_equal(calendar_session(c, utc(2024, 7, 1, 6, 50, 0)), SESSION_CLOSED);
    assert_int_equal(calendar_session(c, utc(2024, 7, 1, 7, 0, 0)), SESSION_REGULAR);
}

static void venues_lead_to_their_calendar(void **state)
{
    static const char *const mics[] = { "XNAS", "XNYS", "ARCX", "BATS", "IEXG", "EDGX", "MEMX" };

    build_lse();
    for (size_t i = 0; i < sizeof mics / sizeof *mics; i++)
        assert_int_equal(calendar_of_venue(&set, mics[i], 4), 0);
    assert_int_equal(calendar_of_venue(&set, "XLON", 4), 1);
    assert_int_equal(calendar_of_venue(&set, "XLO", 3), 0);
    assert_int_equal(calendar_of_venue(&set, "XLONX", 5), 0);
    assert_int_equal(calendar_of_venue(&set, "", 0), 0);
    assert_int_equal(calendar_of_venue(&set, "ABCDEFGHI", 9), 0);
    assert_int_equal(calendar_of_venue(&set, "\0\0\0\0", 4), 0);
    assert_int_not_equal(calendar_add_venue(&set, set.calendar[1], "XNAS", error), 0);
    assert_non_null(strstr(error, "us_equities"));
}

static void malformed_rules_are_refused(void **state)
{
    static const char *const rules[] = {
        "",
        " ",
        "13-01",
        "00-10",
        "02-30",
        "2023-02-29",
        "1969-01-01",
        "12-5",
        "1225",
        "easter-",
        "easter+100",
        "easterly",
        "third monday",
        "third monday smarch",
        "sixth monday may",
        "third noday may",
        "third monday may+",
        "12-25 nearby",
        "12-25 if",
        "12-25 if noday",
        "12-25 if ,",
        "12-25 from 99",
        "12-25 from 20222",
        "12-25 from 2022 until 2021",
        "12-25 until",
        "12-25 nearest x",
        "1x-25",
        "12-2x",
        "a b c d e f g h i j k l m n o",
        "first monday januaryjanuaryjanuary",
        "12-25 if mon,tue,wed,thu,fri,sat,sun,mon,tue,wed,thu,fri,sat,sun from 1970",
    };
    struct calendar *c = calendar_set_add(&set, "x", error);

    for (size_t i = 0; i < sizeof rules / sizeof *rules; i++)
        if (calendar_add_holiday(c, rules[i], error) == 0)
            fail_msg("taken: \"%s\"", rules[i]);
    assert_int_equal(c->rules, 0);
    assert_int_equal(calendar_add_holiday(c, "02-29", error), 0);
}

static void malformed_hours_are_refused(void **state)
{
    static const char *const hours[][2] = { { "9:30", "16:00" },  { "09:30", "24:01" },
                                            { "09:60", "16:00" }, { "16:00", "09:30" },
                                            { "09:30", "09:30" }, { "09:3o", "16:00" },
                                            { "", "16:00" },      { "0930:", "16:00" } };
    struct calendar *c = calendar_set_add(&set, "x", error);

    for (size_t i = 0; i < sizeof hours / sizeof *hours; i++)
        if (calendar_add_hours(c, SESSION_REGULAR, hours[i][0], hours[i][1], error) == 0)
            fail_msg("taken: %s to %s", hours[i][0], hours[i][1]);
    assert_int_equal(calendar_add_hours(c, SESSION_PRE, "00:00", "24:00", error), 0);
    assert_int_not_equal(calendar_add_hours(c, SESSION_POST, "23:00", "24:00", error), 0);
    assert_int_not_equal(calendar_add_early_close(c, "12-24", "13:00", "12:00", error), 0);
}

static void an_early_close_may_leave_out_a_whole_session(void **state)
{
    struct calendar *c = calendar_set_add(&set, "tse", error);

    assert_int_equal(calendar_add_zone(c, "JST-9", error), 0);
    assert_int_equal(calendar_add_hours(c, SESSION_REGULAR, "12:30", "15:30", error), 0);
    assert_int_equal(calendar_add_hours(c, SESSION_REGULAR, "09:00", "11:30", error), 0);
    assert_int_equal(calendar_add_holiday(c, "02-29", error), 0);
    assert_int_equal(calendar_add_holiday(c, "fifth friday march", error), 0);
    assert_int_equal(calendar_add_early_close(c, "12-30", "11:00", NULL, error), 0);
    assert_int_equal(calendar_add_early_close(c, "12-29", "12:00", NULL, error), 0);
    assert_int_equal(calendar_seal(c, error), 0);
    for (int32_t day = calendar_days(2025, 12, 26); day <= calendar_days(2025, 12, 30); day++) {
        int32_t of_december = day - calendar_days(2025, 11, 30);
        bool open = of_december != 27 && of_december != 28; /* a weekend */
        bool late = of_december == 26;                      /* the only full day */

        assert_int_equal(at_local(c, day, 10), open ? SESSION_REGULAR : SESSION_CLOSED);
        assert_int_equal(at_local(c, day, 11),
                         open && of_december != 30 ? SESSION_REGULAR : SESSION_CLOSED);
        assert_int_equal(at_local(c, day, 12), SESSION_CLOSED);
        assert_int_equal(at_local(c, day, 13), late ? SESSION_REGULAR : SESSION_CLOSED);
    }
    /* leap days are holidays, and March 1 of other years is not */
    assert_int_equal(at_local(c, calendar_days(2024, 2, 29), 10), SESSION_CLOSED);
    assert_int_equal(at_local(c, calendar_days(2023, 3, 1), 10), SESSION_REGULAR);
    assert_int_equal(at_local(c, calendar_days(2023, 2, 28), 10), SESSION_REGULAR);
    /* March 2023 had five Fridays, March 2025 four */
    assert_int_equal(at_local(c, calendar_days(2023, 3, 31), 10), SESSION_CLOSED);
    assert_int_equal(at_local(c, calendar_days(2025, 4, 4), 10), SESSION_REGULAR);
}

static void limits_of_a_calendar_are_kept(void **state)
{
    struct calendar *c = calendar_set_add(&set, "x", error);
    char text[80];

    for (uint32_t i = 0; i < CALENDAR_RULES_MAX; i++)
        assert_int_equal(calendar_add_holiday(c, "12-25", error), 0);
    assert_int_not_equal(calendar_add_holiday(c, "12-25", error), 0);
    assert_int_not_equal(calendar_add_early_close(c, "12-24", "12:00", NULL, error), 0);
    for (uint32_t i = 0; i < CALENDAR_VENUES_MAX; i++) {
        snprintf(text, sizeof text, "V%u", i);
        assert_int_equal(calendar_add_venue(&set, c, text, error), 0);
    }
    for (uint32_t i = 0; i < CALENDAR_VENUES_MAX; i++) /* neighbours in the table too */
        assert_int_equal(calendar_of_venue(&set, c->venue[i], strlen(c->venue[i])), 1);
    assert_int_not_equal(calendar_add_venue(&set, c, "VX", error), 0);
    for (uint32_t i = 0; i < CALENDAR_HOURS_MAX; i++) {
        char until[16];

        snprintf(text, sizeof text, "%02u:00", i);
        snprintf(until, sizeof until, "%02u:30", i);
        assert_int_equal(calendar_add_hours(c, SESSION_PRE, text, until, error), 0);
    }
    assert_int_not_equal(calendar_add_hours(c, SESSION_PRE, "20:00", "21:00", error), 0);
    assert_int_not_equal(calendar_add_zone(c,
                                           "<AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
                                           "AAAAAAAAAAAAAAAAAA>0",
                                           error),
                         0);
    assert_int_equal(calendar_add_zone(c, "UTC0", error), 0);
    assert_int_not_equal(calendar_seal(c, error), 0); /* no regular session */
}

static void a_set_is_bounded_and_names_are_single(void **state)
{
    char name[CALENDAR_NAME_BYTES];

    assert_null(calendar_set_add(&set, "us_equities", error));
    assert_null(calendar_set_add(&set, "", error));
    assert_null(calendar_set_add(&set, "LSE", error));
    assert_null(calendar_set_add(&set, "abcdefghijklmnopqrstuvwxyz0123456789", error));
    for (uint32_t i = 1; i < CALENDAR_SET_MAX; i++) {
        snprintf(name, sizeof name, "c%u", i);
        assert_non_null(calendar_set_add(&set, name, error));
    }
    assert_null(calendar_set_add(&set, "more", error));
}

int main(void)
{
#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(us_holidays_are_those_that_were_published),
        TEST(once_only_closures_are_known),
        TEST(sessions_begin_and_end_to_the_nanosecond),
        TEST(session_values_are_those_of_the_messages),
        TEST(a_year_has_the_published_trading_hours),
        TEST(the_cursor_agrees_with_a_fresh_answer),
        TEST(the_ends_of_time_are_answered),
        TEST(daylight_saving_time_begins_and_ends_as_announced),
        TEST(new_york_agrees_with_the_tz_database),
        TEST(posix_zones_agree_with_the_c_library),
        TEST(a_zone_without_a_rule_follows_the_us_rule),
        TEST(malformed_zones_are_refused),
        TEST(dates_go_both_ways_and_know_leap_years),
        TEST(easter_is_on_the_known_dates),
        TEST(holidays_on_a_weekend_move_to_the_next_free_day),
        TEST(venues_lead_to_their_calendar),
        TEST(malformed_rules_are_refused),
        TEST(malformed_hours_are_refused),
        TEST(an_early_close_may_leave_out_a_whole_session),
        TEST(limits_of_a_calendar_are_kept),
        TEST(a_set_is_bounded_and_names_are_single),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
