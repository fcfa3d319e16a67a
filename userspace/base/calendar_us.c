/*
 * calendar_us.c - us_equities: the hours, holidays and early closes of the New York Stock Exchange
 * (Rules 7.1 and 7.2; nyse.com/markets/hours-calendars), which Nasdaq and the others share.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/calendar_private.h"

/* clang-format off */
static const char *const holidays[] = {
    "01-01 monday",                     /* on a Saturday it is not observed */
    "third monday january from 1998",   /* Martin Luther King, Jr. Day */
    "third monday february from 1971",  /* Washington's Birthday */
    "easter-2",                         /* Good Friday */
    "last monday may from 1971",        /* Memorial Day */
    "06-19 nearest from 2022",          /* Juneteenth */
    "07-04 nearest",                    /* Independence Day */
    "first monday september",           /* Labor Day */
    "fourth thursday november",         /* Thanksgiving Day */
    "12-25 nearest",
    /* once only */
    "1972-12-28", "1973-01-25",         /* Presidents Truman's and Johnson's funerals */
    "1977-07-14",                       /* New York blackout */
    "1985-09-27",                       /* Hurricane Gloria */
    "1994-04-27",                       /* President Nixon's funeral */
    "2001-09-11", "2001-09-12", "2001-09-13", "2001-09-14",
    "2004-06-11",                       /* President Reagan's funeral */
    "2007-01-02",                       /* mourning for President Ford */
    "2012-10-29", "2012-10-30",         /* Hurricane Sandy */
    "2018-12-05", "2025-01-09",         /* mourning for Presidents G. H. W. Bush and Carter */
};

static const struct { const char *rule, *close, *post_until; } early_closes[] = {
    /* Before Independence Day. Until 2012 a Thursday's was followed by a short Friday instead of
     * preceded by a short Wednesday. July 3 on a Friday is the holiday itself. */
    { "07-03 if mon,tue,thu from 1995",        "13:00", "17:00" },
    { "07-03 if wed from 2013",                "13:00", "17:00" },
    { "07-05 if fri from 1995 until 2012",     "13:00", "17:00" },
    { "fourth thursday november+1 from 1993",  "13:00", "17:00" },
    { "12-24 if mon,tue,wed,thu from 1993",    "13:00", "17:00" },
    /* once only */
    { "1997-12-26", "13:00", "17:00" },
    { "1999-12-31", "13:00", "17:00" },
    { "2003-12-26", "13:00", "17:00" },
};

/* Daylight saving time in New York since 1970, from the tz database; 1974 and 1975 were the oil
 * crisis. */
static const struct { int32_t year_first; const char *zone; } eras[] = {
    { 1967, "EST5EDT,M4.5.0,M10.5.0" },
    { 1974, "EST5EDT,M1.1.0,M10.5.0" },
    { 1975, "EST5EDT,M2.5.0,M10.5.0" },
    { 1976, "EST5EDT,M4.5.0,M10.5.0" },
    { 1987, "EST5EDT,M4.1.0,M10.5.0" },
    { 2007, "EST5EDT,M3.2.0,M11.1.0" },
};

static const char *const venues[] = {
    "XNYS", "ARCX", "XASE", "XCHI", "XCIS",                 /* NYSE group */
    "XNAS", "XNGS", "XNMS", "XNCM", "XBOS", "XPHL", "XPSX", /* Nasdaq group */
    "BATS", "BATY", "EDGA", "EDGX",                         /* Cboe */
    "IEXG", "MEMX", "EPRL", "MPRL", "LTSE",
    "XADF", "FINN", "FINC", "FINY", "FINR",                 /* FINRA's facilities */
    "OTCM", "OTCQ", "OTCB", "PINX", "PSGM", "OOTC",
};
/* clang-format on */

#define N(list) (sizeof(list) / sizeof *(list))
_Static_assert(N(eras) <= CALENDAR_ERAS_MAX, "fits");
_Static_assert(N(venues) <= CALENDAR_VENUES_MAX, "fits");
_Static_assert(N(holidays) + N(early_closes) <= CALENDAR_RULES_MAX, "fits");

void calendar_zone_new_york(struct calendar *c)
{
    char error[CALENDAR_ERROR_BYTES];

    for (size_t i = 0; i < N(eras); i++) {
        int result = calendar_zone_parse(&c->era[i].zone, eras[i].zone, error);

        assert(result == 0);
        c->era[i].year_first = eras[i].year_first;
    }
    c->eras = N(eras);
}

int calendar_us_build(struct calendar_set *set)
{
    char error[CALENDAR_ERROR_BYTES];
    struct calendar *c = calendar_set_add(set, "us_equities", error);
    int bad = 0;

    if (c == NULL)
        return -ENOMEM;
    bad |= calendar_add_zone(c, "America/New_York", error);
    bad |= calendar_add_hours(c, SESSION_PRE, "04:00", "09:30", error);
    bad |= calendar_add_hours(c, SESSION_REGULAR, "09:30", "16:00", error);
    bad |= calendar_add_hours(c, SESSION_POST, "16:00", "20:00", error);
    for (size_t i = 0; i < N(holidays); i++)
        bad |= calendar_add_holiday(c, holidays[i], error);
    for (size_t i = 0; i < N(early_closes); i++)
        bad |= calendar_add_early_close(c, early_closes[i].rule, early_closes[i].close,
                                        early_closes[i].post_until, error);
    for (size_t i = 0; i < N(venues); i++)
        bad |= calendar_add_venue(set, c, venues[i], error);
    assert(bad == 0);
    return calendar_seal(c, error);
}
