/*
 * settings.c - one table of the settings' families; check and apply are one path.
 */
#include "base/settings.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct family {
    const char *prefix; /* ends with a dot: one key a type; otherwise the whole key */
    /* Makes the change in s, or says why not. */
    int (*set)(struct settings *s, const struct family *f, const char *rest, const char *value,
               char *error);
    size_t offset; /* numbers: where in struct settings */
    bool wide;     /* uint64_t, not uint32_t */
    uint64_t min, max, value_default;
};

__attribute__((format(printf, 2, 3))) static int refuse(char *error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(error, SETTINGS_ERROR_BYTES, format, args);
    va_end(args);
    return -EINVAL;
}

static const char *const built_in[] = { [1] = "trade", [2] = "quote", [3] = "orderbook" };
#define BUILT_IN_N (sizeof built_in / sizeof *built_in)

static uint8_t class_default(uint32_t type)
{
    assert(type < SETTINGS_TYPES);
    return type >= 1 && type < BUILT_IN_N ? (uint8_t)(type - 1) : 3;
}

/* Decimal digits alone, at most 19, without a leading zero. */
static bool read_number(const char *s, uint64_t *ret)
{
    size_t bytes = strlen(s);

    if (bytes == 0 || bytes > 19 || strspn(s, "0123456789") != bytes || (*s == '0' && bytes > 1))
        return false;
    *ret = strtoull(s, NULL, 10);
    return true;
}

static bool is_name(const char *s)
{
    size_t bytes = strlen(s);

    return bytes > 0 && bytes < SETTINGS_NAME_BYTES && *s >= 'a' && *s <= 'z' &&
           strspn(s, "abcdefghijklmnopqrstuvwxyz0123456789_") == bytes;
}

static int named_type(const struct settings *s, const char *name)
{
    for (uint32_t t = 1; t < SETTINGS_TYPES; t++)
        if (s->known[t] && strcmp(s->name[t], name) == 0)
            return (int)t;
    return -ENOENT;
}

int settings_type(const struct settings *s, const char *name)
{
    uint64_t number;

    if (read_number(name, &number))
        return number < SETTINGS_TYPES && s->known[number] ? (int)number : -ENOENT;
    return *name != '\0' ? named_type(s, name) : -ENOENT;
}

/* --- one function a family ---------------------------------------------------------------------
 */

static int set_type(struct settings *s, const struct family *f, const char *name, const char *value,
                    char *error)
{
    uint64_t number;
    int now;

    if (!is_name(name))
        return refuse(error,
                      "a type's name must be 1 to %u of a-z, 0-9 and _, beginning with a "
                      "letter, not \"%.40s\"",
                      SETTINGS_NAME_BYTES - 1, name);
    now = named_type(s, name);
    if (now > 0 && now < (int)SETTINGS_CUSTOM_MIN)
        return refuse(error, "%s is built in and keeps its number %d", name, now);
    if (*value == '\0') {
        if (now < 0)
            return refuse(error, "there is no type named %s", name);
        s->known[now] = 0;
        memset(s->name[now], 0, SETTINGS_NAME_BYTES);
        return 0;
    }
    if (!read_number(value, &number) || number < f->min || number > f->max)
        return refuse(error, "type.%s must be a number from %u to %u, not \"%.40s\"", name,
                      (unsigned)f->min, (unsigned)f->max, value);
    if (s->known[number] && strcmp(s->name[number], name) != 0)
        return refuse(error, "type %u is named %s already", (unsigned)number, s->name[number]);
    if (now >= 0 && now != (int)number)
        return refuse(error, "%s is the name of type %d already; take that back first", name, now);
    assert(number >= SETTINGS_CUSTOM_MIN && number < SETTINGS_TYPES);
    s->known[number] = 1;
    memset(s->name[number], 0, SETTINGS_NAME_BYTES);
    memcpy(s->name[number], name, strlen(name));
    return 0;
}

/* class and admit may be set by number before the type has a name. */
static int find_type(const struct settings *s, const char *prefix, const char *name, char *error)
{
    uint64_t number;
    int type = named_type(s, name);

    if (type > 0)
        return type;
    if (read_number(name, &number) && number >= SETTINGS_CUSTOM_MIN && number < SETTINGS_TYPES)
        return (int)number;
    return refuse(error,
                  "%s%.40s: there is no type of that name; known are trade, quote, "
                  "orderbook, the names given by type.NAME, and the numbers %u to %u",
                  prefix, name, SETTINGS_CUSTOM_MIN, SETTINGS_TYPES - 1);
}

static int set_class(struct settings *s, const struct family *f, const char *name,
                     const char *value, char *error)
{
    int type = find_type(s, f->prefix, name, error);
    uint64_t number = 0;

    if (type < 0)
        return type;
    assert(type < (int)SETTINGS_TYPES && f->max < SETTINGS_CLASSES);
    if (*value != '\0' && (!read_number(value, &number) || number > f->max))
        return refuse(error, "%s%.40s must be 0 (dropped last) to %u, not \"%.40s\"", f->prefix,
                      name, (unsigned)f->max, value);
    s->class[type] = *value != '\0' ? (uint8_t)number : class_default((uint32_t)type);
    return 0;
}

static int set_admit(struct settings *s, const struct family *f, const char *name,
                     const char *value, char *error)
{
    int type = find_type(s, f->prefix, name, error);

    if (type < 0)
        return type;
    assert(type < (int)SETTINGS_TYPES);
    if (*value != '\0' && strcmp(value, "accept") != 0 && strcmp(value, "drop") != 0)
        return refuse(error, "%s%.40s must be accept or drop, not \"%.40s\"", f->prefix, name,
                      value);
    s->admitted[type] = strcmp(value, "drop") != 0;
    return 0;
}

static int set_number(struct settings *s, const struct family *f, const char *rest,
                      const char *value, char *error)
{
    uint64_t number = f->value_default;

    assert(f->min <= number && number <= f->max && f->offset > 0);
    assert(f->wide || f->max <= UINT32_MAX);
    if (*value != '\0' && (!read_number(value, &number) || number < f->min || number > f->max))
        return refuse(error, "%s must be a number from %ju to %ju, not \"%.40s\"", f->prefix,
                      (uintmax_t)f->min, (uintmax_t)f->max, value);
    if (f->wide)
        memcpy((char *)s + f->offset, &number, sizeof number);
    else
        memcpy((char *)s + f->offset, &(uint32_t){ (uint32_t)number }, sizeof(uint32_t));
    return 0;
}

/* clang-format off */
static const struct family families[] = {
    { "type.",           set_type,   0, false, SETTINGS_CUSTOM_MIN, SETTINGS_TYPES - 1, 0 },
    { "class.",          set_class,  0, false, 0, SETTINGS_CLASSES - 1, 0 },
    { "admit.",          set_admit,  0, false, 0, 0, 0 },
    { "skew.past_ms",    set_number, offsetof(struct settings, skew_past_ms), true,
      0, 366ull * 86400 * 1000, 7ull * 86400 * 1000 },
    { "skew.future_ms",  set_number, offsetof(struct settings, skew_future_ms), true,
      0, 86400ull * 1000, 5000 },
    { "event.bytes_max", set_number, offsetof(struct settings, event_bytes_max), false,
      256, 65535, 16384 },
};
/* clang-format on */
#define FAMILIES_N (sizeof families / sizeof *families)
_Static_assert(BUILT_IN_N - 1 < SETTINGS_CUSTOM_MIN, "user types begin above the built-in ones");

void settings_init(struct settings *s)
{
    char error[SETTINGS_ERROR_BYTES];

    memset(s, 0, sizeof *s);
    for (uint32_t t = 0; t < SETTINGS_TYPES; t++) {
        s->admitted[t] = 1;
        s->class[t] = class_default(t);
    }
    for (uint32_t t = 1; t < BUILT_IN_N; t++) {
        s->known[t] = 1;
        memcpy(s->name[t], built_in[t], strlen(built_in[t]));
    }
    for (size_t i = 0; i < FAMILIES_N; i++)
        if (families[i].set == set_number) {
            int result = set_number(s, &families[i], "", "", error);

            assert(result == 0);
        }
}

static int change(struct settings *s, const char *key, const char *value, char *error)
{
    if (strlen(key) >= SETTINGS_KEY_BYTES || strlen(value) >= SETTINGS_VALUE_BYTES)
        return refuse(error, "a key has at most %u bytes and a value at most %u",
                      SETTINGS_KEY_BYTES - 1, SETTINGS_VALUE_BYTES - 1);
    for (size_t i = 0; i < FAMILIES_N; i++) {
        const struct family *f = &families[i];
        size_t bytes = strlen(f->prefix);
        bool by_type = f->prefix[bytes - 1] == '.';

        if (strncmp(key, f->prefix, bytes) == 0 && (by_type || key[bytes] == '\0'))
            return f->set(s, f, key + bytes, value, error);
    }
    return refuse(error,
                  "there is no setting \"%.63s\"; known are type.NAME, class.TYPE, "
                  "admit.TYPE, skew.past_ms, skew.future_ms and event.bytes_max",
                  key);
}

int settings_check(const struct settings *s, const char *key, const char *value,
                   char error[SETTINGS_ERROR_BYTES])
{
    struct settings copy = *s;

    error[0] = '\0';
    return change(&copy, key, value, error);
}

int settings_apply(struct settings *s, const char *key, const char *value)
{
    char error[SETTINGS_ERROR_BYTES];

    return change(s, key, value, error);
}

/* --- listing -----------------------------------------------------------------------------------
 */

static bool is_listed(const struct settings *s, uint32_t type)
{
    return s->known[type] || s->class[type] != class_default(type) || !s->admitted[type];
}

static void list_type(const struct settings *s, const struct family *f, uint32_t type,
                      struct setting_line *line)
{
    char number[12];

    assert(type > 0 && type < SETTINGS_TYPES && f->set != set_number);
    snprintf(number, sizeof number, "%u", type);
    snprintf(line->key, sizeof line->key, "%s%s", f->prefix,
             s->known[type] ? s->name[type] : number);
    if (f->set == set_type) {
        snprintf(line->value, sizeof line->value, "%u", type);
    } else if (f->set == set_class) {
        snprintf(line->value, sizeof line->value, "%u", s->class[type]);
        snprintf(line->value_default, sizeof line->value_default, "%u", class_default(type));
    } else {
        snprintf(line->value, sizeof line->value, "%s", s->admitted[type] ? "accept" : "drop");
        snprintf(line->value_default, sizeof line->value_default, "accept");
    }
}

static uint64_t number_now(const struct settings *s, const struct family *f)
{
    uint64_t wide;
    uint32_t narrow;

    if (f->wide)
        memcpy(&wide, (const char *)s + f->offset, sizeof wide);
    else
        memcpy(&narrow, (const char *)s + f->offset, sizeof narrow);
    return f->wide ? wide : narrow;
}

void settings_list(const struct settings *s,
                   void (*line)(void *arg, const struct setting_line *line), void *arg)
{
    for (size_t i = 0; i < FAMILIES_N; i++) {
        const struct family *f = &families[i];

        for (uint32_t t = 0; t < SETTINGS_TYPES && f->set != set_number; t++) {
            struct setting_line l = { 0 };

            if (!is_listed(s, t) ||
                (f->set == set_type && (t < SETTINGS_CUSTOM_MIN || !s->known[t])))
                continue;
            list_type(s, f, t, &l);
            line(arg, &l);
        }
        if (f->set == set_number) {
            struct setting_line l = { 0 };
            uint64_t now = number_now(s, f);

            snprintf(l.key, sizeof l.key, "%s", f->prefix);
            snprintf(l.value, sizeof l.value, "%ju", (uintmax_t)now);
            snprintf(l.value_default, sizeof l.value_default, "%ju", (uintmax_t)f->value_default);
            line(arg, &l);
        }
    }
}
