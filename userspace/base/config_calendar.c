/*
 * config_calendar.c - the `calendars:` list of the config: from the tree into a calendar_set.
 *
 * calendar.c judges the texts; this file knows where they stand.
 */
#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/calendar.h"
#include "base/config_table.h"

struct source {
    struct calendar_set *set;
    struct calendar *calendar;
    const char *file;
    char *error;
};

#define REFUSE(s, n, ...) config_refuse((s)->error, (s)->file, (n)->line, (n)->column, __VA_ARGS__)

uint32_t config_distance(const char *a, const char *b)
{
    uint32_t row[3][129];
    size_t a_bytes = strnlen(a, 128), b_bytes = strnlen(b, 128);

    _Static_assert(sizeof row[0] / sizeof row[0][0] > 128, "a row holds the longest text");
    for (size_t j = 0; j <= b_bytes; j++)
        row[0][j] = (uint32_t)j;
    for (size_t i = 1; i <= a_bytes; i++) {
        uint32_t *now = row[i % 3], *before = row[(i + 2) % 3], *older = row[(i + 1) % 3];

        now[0] = (uint32_t)i;
        for (size_t j = 1; j <= b_bytes; j++) {
            uint32_t d = before[j - 1] + (a[i - 1] != b[j - 1]);

            d = before[j] + 1 < d ? before[j] + 1 : d;
            d = now[j - 1] + 1 < d ? now[j - 1] + 1 : d;
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] &&
                older[j - 2] + 1 < d)
                d = older[j - 2] + 1;
            now[j] = d;
        }
    }
    assert(row[a_bytes % 3][b_bytes] <= (a_bytes > b_bytes ? a_bytes : b_bytes));
    return row[a_bytes % 3][b_bytes];
}

/* Every key of mapping n must be among names (ended by NULL). */
static int check_keys(const struct source *s, const struct yaml_node *n, const char *what,
                      const char *const *names)
{
    if (n->type != YAML_MAPPING)
        return REFUSE(s, n, "%s must be a group of keys, not %s", what, yaml_type_name(n));
    for (const struct yaml_node *k = n->first; k != NULL; k = k->next) {
        const char *best = names[0];

        for (size_t i = 0; names[i] != NULL; i++)
            if (config_distance(k->name, names[i]) < config_distance(k->name, best))
                best = names[i];
        if (strcmp(best, k->name) != 0)
            return config_refuse(s->error, s->file, k->name_line, k->name_column,
                                 "unknown key \"%.60s\" in %s; the nearest one is \"%s\"", k->name,
                                 what, best);
    }
    return 0;
}

static int check_scalar(const struct source *s, const struct yaml_node *n, const char *what)
{
    if (n->type != YAML_SCALAR || yaml_is_null(n))
        return REFUSE(s, n, "%s must be text, not %s", what, yaml_type_name(n));
    return 0;
}

/* calendar.c's verdict, with the place put in front. */
static int judged(const struct source *s, const struct yaml_node *n, int result,
                  const char *sentence)
{
    if (result == -ENOMEM)
        snprintf(s->error, CONFIG_ERROR_BYTES, "%.200s: out of memory", s->file);
    else if (result != 0)
        REFUSE(s, n, "%s", sentence);
    return result;
}

/* One session: two times like ["09:30", "16:00"]. */
static int add_session(const struct source *s, enum calendar_session session,
                       const struct yaml_node *n)
{
    const struct yaml_node *from = n->first, *until = from != NULL ? from->next : NULL;
    char sentence[CALENDAR_ERROR_BYTES];
    int error;

    if (n->type != YAML_SEQUENCE || until == NULL || until->next != NULL ||
        from->type != YAML_SCALAR || until->type != YAML_SCALAR)
        return REFUSE(s, n,
                      "a session must be two times like [\"09:30\", \"16:00\"], or a list "
                      "of such pairs");
    error = calendar_add_hours(s->calendar, session, from->text, until->text, sentence);
    return judged(s, n, error, sentence);
}

static int set_sessions(const struct source *s, const struct yaml_node *n)
{
    static const char *const names[] = { "pre", "regular", "post", NULL };
    static const enum calendar_session session[] = { SESSION_PRE, SESSION_REGULAR, SESSION_POST };
    int error = check_keys(s, n, "sessions", names);

    for (const struct yaml_node *k = error == 0 ? n->first : NULL; k && error == 0; k = k->next) {
        size_t i = 0;

        while (strcmp(names[i], k->name) != 0)
            i++;
        assert(names[i] != NULL);
        if (k->first == NULL || k->first->type != YAML_SEQUENCE) {
            error = add_session(s, session[i], k);
            continue;
        }
        for (const struct yaml_node *p = k->first; p != NULL && error == 0; p = p->next)
            error = add_session(s, session[i], p);
    }
    return error;
}

static int set_early_close(const struct source *s, const struct yaml_node *n)
{
    static const char *const names[] = { "date", "close", "post_until", NULL };
    const struct yaml_node *date, *close, *post;
    char sentence[CALENDAR_ERROR_BYTES];
    int error = check_keys(s, n, "early_closes", names);

    if (error != 0)
        return error;
    date = yaml_child(n, "date");
    close = yaml_child(n, "close");
    post = yaml_child(n, "post_until");
    if (date == NULL || close == NULL)
        return REFUSE(s, n, "an early close needs date and close");
    error = check_scalar(s, date, "date");
    error = error != 0 ? error : check_scalar(s, close, "close");
    if (error == 0 && post != NULL)
        error = check_scalar(s, post, "post_until");
    if (error != 0)
        return error;
    error = calendar_add_early_close(s->calendar, date->text, close->text,
                                     post != NULL ? post->text : NULL, sentence);
    return judged(s, n, error, sentence);
}

static int set_days(const struct source *s, const struct yaml_node *n)
{
    static const char *const names[] = { "sun", "mon", "tue", "wed", "thu", "fri", "sat" };
    uint32_t days = 0;

    for (const struct yaml_node *i = n->first; i != NULL; i = i->next) {
        size_t d = 0;

        while (d < 7 && (i->type != YAML_SCALAR || strcmp(names[d], i->text) != 0))
            d++;
        if (d == 7)
            return REFUSE(s, i, "a day must be one of sun, mon, tue, wed, thu, fri, sat");
        days |= 1u << d;
    }
    if (days == 0)
        return REFUSE(s, n, "days is empty");
    assert(days <= 0x7f);
    s->calendar->weekdays = days;
    return 0;
}

/* holidays, early_closes, venues, days: a list each. */
static int set_list(const struct source *s, const struct yaml_node *n)
{
    char sentence[CALENDAR_ERROR_BYTES];
    int error = 0;

    if (n->type != YAML_SEQUENCE)
        return REFUSE(s, n, "%s must be a list, not %s", n->name, yaml_type_name(n));
    if (strcmp(n->name, "days") == 0)
        return set_days(s, n);
    for (const struct yaml_node *i = n->first; i != NULL && error == 0; i = i->next) {
        if (strcmp(n->name, "early_closes") == 0) {
            error = set_early_close(s, i);
            continue;
        }
        error = check_scalar(s, i, n->name);
        if (error != 0)
            return error;
        if (strcmp(n->name, "holidays") == 0)
            error = calendar_add_holiday(s->calendar, i->text, sentence);
        else
            error = calendar_add_venue(s->set, s->calendar, i->text, sentence);
        judged(s, i, error, sentence);
    }
    return error;
}

static int set_calendar(struct source *s, const struct yaml_node *n)
{
    static const char *const names[] = { "name",     "zone",         "days",   "sessions",
                                         "holidays", "early_closes", "venues", NULL };
    char sentence[CALENDAR_ERROR_BYTES];
    const struct yaml_node *name, *zone;
    int error = check_keys(s, n, "calendars", names);

    if (error != 0)
        return error;
    name = yaml_child(n, "name");
    zone = yaml_child(n, "zone");
    if (name == NULL || zone == NULL || yaml_child(n, "sessions") == NULL)
        return REFUSE(s, n, "a calendar needs name, zone and sessions");
    error = check_scalar(s, name, "name");
    error = error != 0 ? error : check_scalar(s, zone, "zone");
    if (error != 0)
        return error;
    s->calendar = calendar_set_add(s->set, name->text, sentence);
    if (s->calendar == NULL)
        return REFUSE(s, name, "%s", sentence);
    error = calendar_add_zone(s->calendar, zone->text, sentence);
    if (error != 0)
        return judged(s, zone, error, sentence);
    for (const struct yaml_node *k = n->first; k != NULL && error == 0; k = k->next) {
        if (k == name || k == zone)
            continue;
        error = strcmp(k->name, "sessions") == 0 ? set_sessions(s, k) : set_list(s, k);
    }
    if (error != 0)
        return error;
    return judged(s, n, calendar_seal(s->calendar, sentence), sentence);
}

int config_calendars_set(struct calendar_set *set, const struct yaml_node *n, const char *file,
                         char error[CONFIG_ERROR_BYTES])
{
    struct source s = { .set = set, .file = file, .error = error };
    int result = 0;

    assert(set->n == 1); /* us_equities alone: the key can be given once */
    if (n->type != YAML_SEQUENCE)
        return REFUSE(&s, n, "calendars must be a list, not %s", yaml_type_name(n));
    for (const struct yaml_node *i = n->first; i != NULL && result == 0; i = i->next)
        result = set_calendar(&s, i);
    return result;
}
