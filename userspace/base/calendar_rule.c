/*
 * calendar_rule.c - rules for days: parsing, the date in a year, and the table of all days.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "base/calendar_private.h"

#define YEAR_FIRST 1969 /* a rule of that year may move a day into 1970 */
#define YEAR_LAST  2555
#define WORDS_MAX  12

static const char *const weekday_name[] = { "sunday",   "monday", "tuesday", "wednesday",
                                            "thursday", "friday", "saturday" };
static const char *const month_name[] = { "january",   "february", "march",    "april",
                                          "may",       "june",     "july",     "august",
                                          "september", "october",  "november", "december" };
static const char *const nth_name[] = { "first", "second", "third", "fourth", "fifth", "last" };
static const char *const move_name[] = { "", "nearest", "monday", "next" };

/* The place of word among names, in full or by its first three letters; -1 when it is none. */
static int find_name(const char *const *names, int n, const char *word, bool short_too)
{
    for (int i = 0; i < n; i++)
        if (strcmp(names[i], word) == 0 ||
            (short_too && strlen(word) == 3 && strncmp(names[i], word, 3) == 0))
            return i;
    return -1;
}

/* Exactly `digits` digits; -1 otherwise. */
static int32_t digits_of(const char *s, int digits)
{
    int32_t n = 0;

    assert(digits > 0 && digits <= 4);
    for (int i = 0; i < digits; i++) {
        if (s[i] < '0' || s[i] > '9')
            return -1;
        n = n * 10 + (s[i] - '0');
    }
    return n;
}

/* "", "+n" or "-n" with n up to 99. */
static bool parse_offset(const char *s, int32_t *ret)
{
    size_t bytes = strlen(s);
    int32_t n;

    *ret = 0;
    if (bytes == 0)
        return true;
    if ((*s != '+' && *s != '-') || bytes < 2 || bytes > 3)
        return false;
    n = digits_of(s + 1, (int)bytes - 1);
    *ret = *s == '-' ? -n : n;
    return n >= 0;
}

static bool parse_date(struct calendar_rule *r, const char *word)
{
    bool full = strlen(word) == 10 && word[4] == '-' && word[7] == '-';
    const char *tail = full ? word + 5 : word;

    if (!full && (strlen(word) != 5 || word[2] != '-'))
        return false;
    r->kind = full ? RULE_DATE : RULE_YEARLY;
    r->year = full ? digits_of(word, 4) : 2000; /* a leap year: 02-29 is a date */
    r->month = digits_of(tail, 2);
    r->day = digits_of(tail + 3, 2);
    return r->year >= 1970 && r->year <= 2554 && r->month >= 1 && r->month <= 12 && r->day >= 1 &&
           r->day <= calendar_month_days(r->year, r->month);
}

/* "third monday january+1", from three words. */
static bool parse_weekday(struct calendar_rule *r, char *const *word)
{
    char month[16];
    size_t bytes = strcspn(word[2], "+-");
    int nth = find_name(nth_name, 6, word[0], false);
    int weekday = find_name(weekday_name, 7, word[1], true);

    if (bytes >= sizeof month)
        return false;
    memcpy(month, word[2], bytes);
    month[bytes] = '\0';
    r->kind = RULE_WEEKDAY;
    r->month = find_name(month_name, 12, month, true) + 1;
    r->weekday = weekday;
    r->nth = nth == 5 ? -1 : nth + 1;
    return nth >= 0 && weekday >= 0 && r->month > 0 &&
           parse_offset(word[2] + bytes, &r->offset_days);
}

static bool parse_if(struct calendar_rule *r, char *list)
{
    char *next, *day = strtok_r(list, ",", &next);

    r->weekdays = 0;
    for (; day != NULL; day = strtok_r(NULL, ",", &next)) {
        int i = find_name(weekday_name, 7, day, true);

        if (i < 0)
            return false;
        r->weekdays |= 1u << i;
    }
    return r->weekdays != 0;
}

static bool parse_words(struct calendar_rule *r, char *const *word, int n)
{
    int i = 1;

    if (n == 0)
        return false;
    if (strncmp(word[0], "easter", 6) == 0) {
        r->kind = RULE_EASTER;
        if (!parse_offset(word[0] + 6, &r->offset_days))
            return false;
    } else if (word[0][0] >= '0' && word[0][0] <= '9') {
        if (!parse_date(r, word[0]))
            return false;
    } else if (n >= 3 && parse_weekday(r, word)) {
        i = 3;
    } else {
        return false;
    }
    while (i < n) {
        int move = find_name(move_name, 4, word[i], false);
        bool two = i + 1 < n;

        if (move > 0) {
            r->move = (unsigned)move;
            i++;
            continue;
        }
        if (two && strcmp(word[i], "if") == 0) {
            if (!parse_if(r, word[i + 1]))
                return false;
        } else if (two && strlen(word[i + 1]) == 4 && strcmp(word[i], "from") == 0) {
            r->year_first = digits_of(word[i + 1], 4);
        } else if (two && strlen(word[i + 1]) == 4 && strcmp(word[i], "until") == 0) {
            r->year_last = digits_of(word[i + 1], 4);
        } else {
            return false;
        }
        i += 2;
    }
    return r->year_first >= YEAR_FIRST && r->year_last >= r->year_first;
}

int calendar_rule_parse(struct calendar_rule *ret, const char *text,
                        char error[CALENDAR_ERROR_BYTES])
{
    struct calendar_rule r = { .weekdays = 0x7f, .year_first = YEAR_FIRST, .year_last = 9999 };
    char copy[CALENDAR_TEXT_BYTES];
    char *word[WORDS_MAX], *next, *w;
    int n = 0;
    bool fits = strlen(text) < sizeof copy;

    if (fits) {
        memcpy(copy, text, strlen(text) + 1);
        memcpy(r.text, text, strlen(text) + 1);
        for (w = strtok_r(copy, " ", &next); w != NULL && n < WORDS_MAX;
             w = strtok_r(NULL, " ", &next))
            word[n++] = w;
    }
    if (!fits || n == WORDS_MAX || !parse_words(&r, word, n)) {
        _Static_assert(CALENDAR_ERROR_BYTES > 60 + 100, "the whole sentence fits");
        snprintf(error, CALENDAR_ERROR_BYTES,
                 "\"%.60s\" is not a rule for a day like 2026-04-03, 12-25, easter-2 or third "
                 "monday january",
                 text);
        return -EINVAL;
    }
    *ret = r;
    return 0;
}

/* The day that the rule names in that year, before it is moved; INT32_MIN when there is none. */
static int32_t rule_day(const struct calendar_rule *r, int32_t year)
{
    int32_t day;

    if (year < r->year_first || year > r->year_last || (r->kind == RULE_DATE && r->year != year))
        return INT32_MIN;
    switch (r->kind) {
    case RULE_DATE:
    case RULE_YEARLY:
        assert(r->month >= 1 && r->month <= 12 && r->day >= 1);
        if (r->day > calendar_month_days(year, r->month))
            return INT32_MIN;
        day = calendar_days(year, r->month, r->day);
        break;
    case RULE_EASTER:
        day = calendar_easter(year) + r->offset_days;
        break;
    default: {
        int32_t first = calendar_days(year, r->month, 1);
        int32_t days = calendar_month_days(year, r->month);

        assert(r->weekday >= 0 && r->weekday < 7 && r->nth != 0);
        day = first + (r->weekday - calendar_weekday(first) + 7) % 7;
        day += r->nth > 0 ? 7 * (r->nth - 1) : (first + days - 1 - day) / 7 * 7;
        if (day >= first + days)
            return INT32_MIN;
        assert(day >= first && calendar_weekday(day) == r->weekday);
        day += r->offset_days;
    }
    }
    return r->weekdays >> calendar_weekday(day) & 1 ? day : INT32_MIN;
}

static bool is_open(const struct calendar *c, int32_t day)
{
    assert(day >= 0 && day < (int32_t)CALENDAR_DAYS);
    return (c->weekdays >> calendar_weekday(day) & 1) && c->day[day] == DAY_OPEN;
}

/* Where an observance moves the day; INT32_MIN when it is not observed. */
static int32_t move_day(const struct calendar *c, const struct calendar_rule *r, int32_t day)
{
    int32_t weekday = calendar_weekday(day);

    assert(day != INT32_MIN && weekday >= 0 && weekday < 7);
    if (r->move == MOVE_NEAREST)
        return weekday == 6 ? day - 1 : weekday == 0 ? day + 1 : day;
    if (r->move == MOVE_MONDAY)
        return weekday == 6 ? INT32_MIN : weekday == 0 ? day + 1 : day;
    if (r->move == MOVE_NEXT && !(c->weekdays >> weekday & 1))
        for (int32_t d = day; d < (int32_t)CALENDAR_DAYS; d++)
            if (d >= 0 && is_open(c, d))
                return d;
    return day;
}

static void mark(struct calendar *c, int32_t day, uint8_t value)
{
    if (day >= 0 && day < (int32_t)CALENDAR_DAYS)
        c->day[day] = value;
}

/* The holidays that "next" may move are marked in a second pass, when the others are known: a
 * Christmas on Sunday must see that Boxing Day has Monday already. */
static void mark_holidays(struct calendar *c, bool second)
{
    for (int32_t year = YEAR_FIRST; year <= YEAR_LAST; year++)
        for (uint32_t i = 0; i < c->rules; i++) {
            const struct calendar_rule *r = &c->rule[i];
            int32_t day = rule_day(r, year);
            bool moves;

            if (r->early || day == INT32_MIN)
                continue;
            moves = r->move == MOVE_NEXT && !(c->weekdays >> calendar_weekday(day) & 1);
            if (moves == second)
                mark(c, move_day(c, r, day), DAY_CLOSED);
        }
}

void calendar_rule_days(struct calendar *c)
{
    assert(c->day != NULL && c->rules <= CALENDAR_RULES_MAX);
    assert(c->weekdays != 0 && c->weekdays <= 0x7f);
    memset(c->day, DAY_OPEN, CALENDAR_DAYS);
    mark_holidays(c, false);
    mark_holidays(c, true);
    for (int32_t d = 0; d < (int32_t)CALENDAR_DAYS; d++)
        if (!(c->weekdays >> calendar_weekday(d) & 1))
            c->day[d] = DAY_CLOSED;
    for (int32_t year = YEAR_FIRST; year <= YEAR_LAST; year++)
        for (uint32_t i = 0; i < c->rules; i++) {
            int32_t day = c->rule[i].early ? rule_day(&c->rule[i], year) : INT32_MIN;

            if (day != INT32_MIN)
                day = move_day(c, &c->rule[i], day);
            if (day >= 0 && day < (int32_t)CALENDAR_DAYS && c->day[day] == DAY_OPEN)
                mark(c, day, (uint8_t)(DAY_EARLY + i));
        }
}
