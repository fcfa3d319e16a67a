/*
 * calendar.c - dates, the session of a moment, and building a calendar.
 */
#include "base/calendar.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/calendar_private.h"
#include "base/clock.h"

#define DAY_S 86400

/* Days from the civil calendar and back, by 400-year eras counted from March 1 (H. Hinnant,
 * "chrono-compatible low-level date algorithms"). */
int32_t calendar_days(int32_t year, int32_t month, int32_t day)
{
    int32_t y = year - (month <= 2);
    int32_t era = (y >= 0 ? y : y - 399) / 400;
    int32_t of_era = y - era * 400;
    int32_t of_year = (153 * (month + (month > 2 ? -3 : 9)) + 2) / 5 + day - 1;

    assert(month >= 1 && month <= 12 && of_era >= 0 && of_era < 400);
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

void calendar_date(int32_t days, int32_t *ret_year, int32_t *ret_month, int32_t *ret_day)
{
    int32_t z = days + 719468;
    int32_t era = (z >= 0 ? z : z - 146096) / 146097;
    int32_t day = z - era * 146097;
    int32_t year = (day - day / 1460 + day / 36524 - day / 146096) / 365;
    int32_t of_year = day - (365 * year + year / 4 - year / 100);
    int32_t month = (5 * of_year + 2) / 153;

    assert(day >= 0 && day < 146097);
    *ret_day = of_year - (153 * month + 2) / 5 + 1;
    *ret_month = month + (month < 10 ? 3 : -9);
    *ret_year = year + era * 400 + (*ret_month <= 2);
}

/* The anonymous Gregorian algorithm (Nature, 1876; Meeus, Astronomical Algorithms, chapter 8). */
int32_t calendar_easter(int32_t year)
{
    int32_t a = year % 19, b = year / 100, c = year % 100;
    int32_t g = (8 * b + 13) / 25;
    int32_t h = (19 * a + b - b / 4 - g + 15) % 30;
    int32_t l = (32 + 2 * (b % 4) + 2 * (c / 4) - h - c % 4) % 7;
    int32_t m = (a + 11 * h + 22 * l) / 451;
    int32_t n = h + l - 7 * m + 114;

    assert(year > 0);
    return calendar_days(year, n / 31, n % 31 + 1);
}

/* --- asking ------------------------------------------------------------------------------------
 */

/* The hours as they are on that day; until <= from when the session is not held. */
static struct calendar_hours hours_on(const struct calendar *c, uint32_t i, uint8_t day)
{
    struct calendar_hours h = c->hours[i];
    const struct calendar_rule *early;

    if (day < DAY_EARLY)
        return h;
    early = &c->rule[day - DAY_EARLY];
    assert(early->early && day - DAY_EARLY < (int)c->rules);
    if (h.session == SESSION_POST) {
        h.from_s = early->close_s;
        h.until_s = early->post_until_s;
    } else if (h.until_s > early->close_s) {
        h.until_s = early->close_s;
    }
    return h;
}

/* The session at second_s of a day, and the seconds of that day that it spans. */
static enum calendar_session session_on(const struct calendar *c, uint8_t day, int32_t second_s,
                                        int32_t *ret_from_s, int32_t *ret_until_s)
{
    int32_t from_s = 0;

    assert(second_s >= 0 && second_s < DAY_S);
    *ret_until_s = DAY_S;
    for (uint32_t i = 0; day != DAY_CLOSED && i < c->hours_n; i++) {
        struct calendar_hours h = hours_on(c, i, day);

        if (h.until_s <= h.from_s)
            continue;
        if (second_s < h.from_s) { /* the gap before it */
            *ret_until_s = h.from_s;
            break;
        }
        if (second_s < h.until_s) {
            *ret_from_s = h.from_s;
            *ret_until_s = h.until_s;
            return h.session;
        }
        from_s = h.until_s;
    }
    *ret_from_s = from_s;
    return SESSION_CLOSED;
}

static uint64_t to_ns(int64_t s)
{
    if (s <= 0)
        return 0;
    return (uint64_t)s > UINT64_MAX / NS_PER_S ? UINT64_MAX : (uint64_t)s * NS_PER_S;
}

enum calendar_session calendar_seek(const struct calendar *c, struct calendar_cursor *cursor,
                                    uint64_t unix_ns)
{
    int64_t unix_s = (int64_t)(unix_ns / NS_PER_S);
    struct calendar_offset o;
    int64_t local_s, midnight_s, day;
    int32_t from_s, until_s;
    uint8_t state;

    assert(c->day != NULL && "calendar_seal() comes first");
    calendar_offset_span(c, unix_s, &o);
    local_s = unix_s + o.offset_s;
    day = (local_s - (local_s < 0 ? DAY_S - 1 : 0)) / DAY_S;
    state = day >= 0 && day < (int64_t)CALENDAR_DAYS ? c->day[day] : DAY_CLOSED;
    cursor->session = session_on(c, state, (int32_t)(local_s - day * DAY_S), &from_s, &until_s);

    /* Within the span of one offset, local times and Unix times run alike. */
    midnight_s = day * DAY_S - o.offset_s;
    cursor->from_ns = to_ns(midnight_s + from_s > o.from_s ? midnight_s + from_s : o.from_s);
    cursor->until_ns = to_ns(midnight_s + until_s < o.until_s ? midnight_s + until_s : o.until_s);
    assert(unix_ns >= cursor->from_ns);
    assert(unix_ns < cursor->until_ns || cursor->until_ns == UINT64_MAX);
    return cursor->session;
}

enum calendar_session calendar_session(const struct calendar *c, uint64_t unix_ns)
{
    struct calendar_cursor cursor;

    return calendar_seek(c, &cursor, unix_ns);
}

/* A venue's characters as a number; 0 when it cannot be one. */
static uint64_t venue_number(const char *venue, size_t bytes)
{
    uint64_t n = 0;

    if (bytes == 4) /* a MIC: a load, not a call */
        memcpy(&n, venue, 4);
    else if (bytes <= sizeof n)
        memcpy(&n, venue, bytes);
    return n;
}

/* Where the venue is, or the free slot where it would be. */
static uint32_t venue_slot(const struct calendar_set *set, uint64_t number)
{
    uint32_t slot = (uint32_t)((number * 0x9e3779b97f4a7c15ull) >> 54);

    _Static_assert(CALENDAR_SLOTS == 1u << (64 - 54), "the shift");
    _Static_assert(CALENDAR_SET_MAX * CALENDAR_VENUES_MAX * 2 < CALENDAR_SLOTS, "slots stay free");
    assert(number != 0 && set->n <= CALENDAR_SET_MAX);
    while (set->slot_venue[slot] != 0 && set->slot_venue[slot] != number)
        slot = (slot + 1) % CALENDAR_SLOTS;
    return slot;
}

uint32_t calendar_of_venue(const struct calendar_set *set, const char *venue, size_t bytes)
{
    uint64_t number = venue_number(venue, bytes);

    return number != 0 ? set->slot_calendar[venue_slot(set, number)] : 0;
}

/* --- building ----------------------------------------------------------------------------------
 */

__attribute__((format(printf, 2, 3))) static int refuse(char *error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(error, CALENDAR_ERROR_BYTES, format, args);
    va_end(args);
    return -EINVAL;
}

int calendar_set_init(struct calendar_set *set)
{
    int result;

    memset(set, 0, sizeof *set);
    result = calendar_us_build(set);
    if (result != 0)
        calendar_set_fini(set);
    return result;
}

void calendar_set_fini(struct calendar_set *set)
{
    for (uint32_t i = 0; i < set->n; i++) {
        free(set->calendar[i]->day);
        free(set->calendar[i]);
    }
    memset(set, 0, sizeof *set);
}

static bool is_text(const char *s, const char *allowed, size_t bytes_max)
{
    size_t bytes = strlen(s);

    return bytes > 0 && bytes <= bytes_max && strspn(s, allowed) == bytes;
}

struct calendar *calendar_set_add(struct calendar_set *set, const char *name,
                                  char error[CALENDAR_ERROR_BYTES])
{
    struct calendar *c;

    if (!is_text(name, "abcdefghijklmnopqrstuvwxyz0123456789_-", CALENDAR_NAME_BYTES - 1)) {
        refuse(error, "a calendar's name must be 1 to %u of a-z, 0-9, _ and -, not \"%.40s\"",
               CALENDAR_NAME_BYTES - 1, name);
        return NULL;
    }
    for (uint32_t i = 0; i < set->n; i++)
        if (strcmp(set->calendar[i]->name, name) == 0) {
            refuse(error, "there is a calendar named %s already%s", name,
                   i == 0 ? ": it is built in" : "");
            return NULL;
        }
    if (set->n == CALENDAR_SET_MAX) {
        refuse(error, "more than %u calendars", CALENDAR_SET_MAX - 1);
        return NULL;
    }
    c = calloc(1, sizeof *c);
    if (c == NULL) {
        refuse(error, "out of memory");
        return NULL;
    }
    memcpy(c->name, name, strlen(name));
    c->weekdays = 0x3e; /* Monday to Friday */
    set->calendar[set->n++] = c;
    return c;
}

int calendar_add_zone(struct calendar *c, const char *text, char error[CALENDAR_ERROR_BYTES])
{
    int result = 0;

    if (strlen(text) >= sizeof c->zone_text)
        return refuse(error, "a zone has at most %u characters", CALENDAR_TEXT_BYTES - 1);
    if (strcmp(text, "America/New_York") == 0) {
        calendar_zone_new_york(c);
    } else {
        result = calendar_zone_parse(&c->era[0].zone, text, error);
        c->eras = 1;
    }
    memcpy(c->zone_text, text, strlen(text) + 1);
    return result;
}

/* HH:MM, at most 24:00. */
static int parse_time(const char *text, int32_t *ret_s, char *error)
{
    int32_t hour, minute;

    if (strlen(text) != 5 || text[2] != ':' || strspn(text, "0123456789:") != 5 ||
        strchr(text + 3, ':') != NULL || text[0] == ':' || text[1] == ':')
        return refuse(error, "\"%.20s\" is not a time like 09:30 (in quotes)", text);
    hour = (text[0] - '0') * 10 + (text[1] - '0');
    minute = (text[3] - '0') * 10 + (text[4] - '0');
    if (minute > 59 || hour * 60 + minute > 24 * 60)
        return refuse(error, "\"%s\" is not a time of day", text);
    *ret_s = hour * 3600 + minute * 60;
    return 0;
}

int calendar_add_hours(struct calendar *c, enum calendar_session session, const char *from,
                       const char *until, char error[CALENDAR_ERROR_BYTES])
{
    struct calendar_hours h = { .session = session };
    uint32_t at;

    assert(session >= SESSION_PRE && session <= SESSION_POST);
    if (parse_time(from, &h.from_s, error) != 0 || parse_time(until, &h.until_s, error) != 0)
        return -EINVAL;
    if (h.from_s >= h.until_s)
        return refuse(error, "a session must begin before it ends, not %s to %s", from, until);
    if (c->hours_n == CALENDAR_HOURS_MAX)
        return refuse(error, "more than %u sessions a day", CALENDAR_HOURS_MAX);
    for (uint32_t i = 0; i < c->hours_n; i++)
        if (h.from_s < c->hours[i].until_s && c->hours[i].from_s < h.until_s)
            return refuse(error, "the session %s to %s overlaps another one", from, until);
    for (at = c->hours_n++; at > 0 && c->hours[at - 1].from_s > h.from_s; at--)
        c->hours[at] = c->hours[at - 1];
    c->hours[at] = h;
    return 0;
}

int calendar_add_holiday(struct calendar *c, const char *rule, char error[CALENDAR_ERROR_BYTES])
{
    if (c->rules == CALENDAR_RULES_MAX)
        return refuse(error, "more than %u holidays and early closes", CALENDAR_RULES_MAX);
    if (calendar_rule_parse(&c->rule[c->rules], rule, error) != 0)
        return -EINVAL;
    c->rules++;
    return 0;
}

int calendar_add_early_close(struct calendar *c, const char *rule, const char *close,
                             const char *post_until, char error[CALENDAR_ERROR_BYTES])
{
    int32_t close_s, post_s = 0;

    if (parse_time(close, &close_s, error) != 0 ||
        (post_until != NULL && parse_time(post_until, &post_s, error) != 0))
        return -EINVAL;
    if (post_until != NULL && post_s <= close_s)
        return refuse(error, "post_until (%s) must be after close (%s)", post_until, close);
    if (calendar_add_holiday(c, rule, error) != 0)
        return -EINVAL;
    c->rule[c->rules - 1].early = true;
    c->rule[c->rules - 1].close_s = close_s;
    c->rule[c->rules - 1].post_until_s = post_s;
    return 0;
}

int calendar_add_venue(struct calendar_set *set, struct calendar *c, const char *venue,
                       char error[CALENDAR_ERROR_BYTES])
{
    uint64_t number;
    uint32_t slot, i = 0;

    if (!is_text(venue, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789", 8))
        return refuse(error, "a venue must be 1 to 8 of A-Z and 0-9, not \"%.40s\"", venue);
    if (c->venues == CALENDAR_VENUES_MAX)
        return refuse(error, "more than %u venues", CALENDAR_VENUES_MAX);
    number = venue_number(venue, strlen(venue));
    slot = venue_slot(set, number);
    if (set->slot_venue[slot] != 0)
        return refuse(error, "venue %s belongs to calendar %s already", venue,
                      set->calendar[set->slot_calendar[slot]]->name);
    while (set->calendar[i] != c)
        i++;
    assert(i < set->n);
    set->slot_venue[slot] = number;
    set->slot_calendar[slot] = (uint8_t)i;
    memcpy(c->venue[c->venues++], venue, strlen(venue) + 1);
    return 0;
}

int calendar_seal(struct calendar *c, char error[CALENDAR_ERROR_BYTES])
{
    int32_t open_s = -1;

    assert(c->eras > 0 && c->day == NULL);
    for (uint32_t i = 0; i < c->hours_n && open_s < 0; i++)
        if (c->hours[i].session == SESSION_REGULAR)
            open_s = c->hours[i].from_s;
    if (open_s < 0)
        return refuse(error, "calendar %s has no regular session", c->name);
    for (uint32_t i = 0; i < c->rules; i++)
        if (c->rule[i].early && c->rule[i].close_s <= open_s)
            return refuse(error, "the early close \"%s\" is before the regular session begins",
                          c->rule[i].text);
    c->day = malloc(CALENDAR_DAYS);
    if (c->day == NULL)
        return -ENOMEM;
    calendar_rule_days(c);
    return 0;
}
