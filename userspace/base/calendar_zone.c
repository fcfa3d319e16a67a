/*
 * calendar_zone.c - POSIX TZ rules (POSIX.1-2017, 8.3): parsing, and the offset at a moment.
 *
 * `std offset [dst [offset] [,start[/time],end[/time]]]`, dates as Mm.w.d, Jn or n, times up to
 * +-167 hours. Without a rule, daylight saving time follows the US rule, as POSIX leaves open and
 * glibc does.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/calendar_private.h"

static int parse_number(const char **s, int32_t max, int32_t *ret)
{
    int32_t n = 0;
    const char *at = *s;

    if (*at < '0' || *at > '9')
        return -EINVAL;
    for (; *at >= '0' && *at <= '9'; at++) {
        n = n * 10 + (*at - '0');
        if (n > max)
            return -EINVAL;
    }
    *s = at;
    *ret = n;
    return 0;
}

/* [+-]hh[:mm[:ss]] in seconds. */
static int parse_time(const char **s, int32_t hours_max, int32_t *ret_s)
{
    int32_t part[3] = { 0, 0, 0 };
    int32_t sign = **s == '-' ? -1 : 1;

    *s += **s == '-' || **s == '+';
    for (int i = 0; i < 3; i++) {
        if (i > 0 && **s != ':')
            break;
        *s += i > 0;
        if (parse_number(s, i == 0 ? hours_max : 59, &part[i]) != 0)
            return -EINVAL;
    }
    *ret_s = sign * (part[0] * 3600 + part[1] * 60 + part[2]);
    return 0;
}

static bool is_letter(char c) { return (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z'); }

static int parse_name(const char **s)
{
    const char *at = *s;
    size_t bytes = 0;

    if (*at == '<') {
        for (at++; is_letter(*at) || (*at >= '0' && *at <= '9') || *at == '+' || *at == '-'; at++)
            bytes++;
        if (*at++ != '>')
            return -EINVAL;
    } else {
        for (; is_letter(*at); at++)
            bytes++;
    }
    *s = at;
    return bytes >= 3 ? 0 : -EINVAL;
}

static int parse_change(const char **s, struct calendar_change *ret)
{
    int error = 0;

    *ret = (struct calendar_change){ .time_s = 2 * 3600 };
    if (*(*s)++ != ',')
        return -EINVAL;
    if (**s == 'M') {
        ret->kind = CHANGE_MONTH;
        *s += 1;
        error = parse_number(s, 12, &ret->month);
        if (error != 0 || ret->month < 1 || *(*s)++ != '.')
            return -EINVAL;
        error = parse_number(s, 5, &ret->week);
        if (error != 0 || ret->week < 1 || *(*s)++ != '.')
            return -EINVAL;
        error = parse_number(s, 6, &ret->day);
    } else if (**s == 'J') {
        ret->kind = CHANGE_JULIAN;
        *s += 1;
        error = parse_number(s, 365, &ret->day);
        if (ret->day < 1)
            error = -EINVAL;
    } else {
        ret->kind = CHANGE_DAY;
        error = parse_number(s, 365, &ret->day);
    }
    if (error == 0 && **s == '/') {
        *s += 1;
        error = parse_time(s, 167, &ret->time_s);
    }
    return error;
}

static int parse_zone(struct calendar_zone *z, const char *s)
{
    int32_t west;

    if (parse_name(&s) != 0 || parse_time(&s, 24, &west) != 0)
        return -EINVAL;
    z->standard_s = -west;
    if (*s == '\0')
        return 0;
    if (parse_name(&s) != 0)
        return -EINVAL;
    z->daylight = true;
    z->daylight_s = z->standard_s + 3600;
    if (*s != '\0' && *s != ',') {
        if (parse_time(&s, 24, &west) != 0)
            return -EINVAL;
        z->daylight_s = -west;
    }
    if (*s == '\0')
        s = ",M3.2.0,M11.1.0";
    if (parse_change(&s, &z->start) != 0 || parse_change(&s, &z->end) != 0)
        return -EINVAL;
    return *s == '\0' ? 0 : -EINVAL;
}

int calendar_zone_parse(struct calendar_zone *ret, const char *text,
                        char error[CALENDAR_ERROR_BYTES])
{
    struct calendar_zone z = { 0 };

    if (parse_zone(&z, text) != 0) {
        snprintf(error, CALENDAR_ERROR_BYTES,
                 "\"%.60s\" is not a POSIX time zone like EST5EDT,M3.2.0,M11.1.0", text);
        return -EINVAL;
    }
    *ret = z;
    return 0;
}

/* The day of a change in a year, as days since 1970. */
static int32_t change_day(const struct calendar_change *c, int32_t year)
{
    int32_t first = calendar_days(year, 1, 1);
    int32_t month, day;

    _Static_assert(CALENDAR_ERAS_MAX > 0, "a calendar has a zone");
    if (c->kind == CHANGE_DAY)
        return first + c->day;
    if (c->kind == CHANGE_JULIAN) /* February 29 is never counted */
        return first + c->day - 1 + (calendar_is_leap(year) && c->day >= 60);
    assert(c->month >= 1 && c->month <= 12 && c->week >= 1 && c->week <= 5);
    month = calendar_days(year, c->month, 1);
    day = month + (c->day - calendar_weekday(month) + 7) % 7 + 7 * (c->week - 1);
    if (day >= month + calendar_month_days(year, c->month)) /* week 5 is the last one */
        day -= 7;
    assert(day >= month && calendar_weekday(day) == c->day);
    return day;
}

struct moment {
    int64_t at_s; /* Unix time */
    int32_t offset_s;
};

/* The changes of a year in UTC; a start counts in standard time, an end in daylight time. Inserts
 * them into list, which is in order; at one moment the one inserted last counts. */
static uint32_t add_changes(const struct calendar_zone *z, int32_t year, struct moment *list,
                            uint32_t n)
{
    const struct moment two[2] = {
        { (int64_t)change_day(&z->end, year) * 86400 + z->end.time_s - z->daylight_s,
          z->standard_s },
        { (int64_t)change_day(&z->start, year) * 86400 + z->start.time_s - z->standard_s,
          z->daylight_s },
    };

    for (int i = 0; i < 2; i++) {
        uint32_t at = n++;

        for (; at > 0 && list[at - 1].at_s > two[i].at_s; at--)
            list[at] = list[at - 1];
        list[at] = two[i];
    }
    return n;
}

const struct calendar_zone *calendar_zone_of(const struct calendar *c, int32_t year)
{
    uint32_t i = c->eras;

    assert(c->eras > 0 && c->eras <= CALENDAR_ERAS_MAX);
    while (--i > 0 && c->era[i].year_first > year)
        ;
    return &c->era[i].zone;
}

void calendar_offset_span(const struct calendar *c, int64_t unix_s, struct calendar_offset *ret)
{
    int64_t local = unix_s + c->era[0].zone.standard_s;
    int32_t year, month, day;
    struct moment list[6];
    uint32_t n = 0;

    calendar_date((int32_t)((local - (local < 0 ? 86399 : 0)) / 86400), &year, &month, &day);
    *ret = (struct calendar_offset){ .from_s = INT64_MIN, .until_s = INT64_MAX };
    ret->offset_s = calendar_zone_of(c, year)->standard_s;
    for (int32_t y = year - 1; y <= year + 1; y++)
        if (calendar_zone_of(c, y)->daylight)
            n = add_changes(calendar_zone_of(c, y), y, list, n);
    assert(n <= 6);
    for (uint32_t i = 0; i < n; i++) {
        /* cppcheck-suppress uninitvar ; add_changes set the first n */
        assert(i == 0 || list[i - 1].at_s <= list[i].at_s);
        if (list[i].at_s > unix_s) {
            ret->until_s = list[i].at_s;
            break;
        }
        ret->from_s = list[i].at_s;
        ret->offset_s = list[i].offset_s;
    }
    assert(ret->from_s <= unix_s && unix_s < ret->until_s);
}

int32_t calendar_offset_s(const struct calendar *c, int64_t unix_s)
{
    struct calendar_offset o;

    calendar_offset_span(c, unix_s, &o);
    return o.offset_s;
}
