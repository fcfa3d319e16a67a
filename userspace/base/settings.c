/*
 * settings.c - one table of the settings' families; check and apply are one path.
 */
#include "base/settings_internal.h"

#include <assert.h>
#include <errno.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int settings_refuse(char *error, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(error, SETTINGS_ERROR_BYTES, format, args);
    va_end(args);
    return -EINVAL;
}

static const char *const built_in[] = { [1] = "trade", [2] = "quote", [3] = "orderbook" };
#define BUILT_IN_N (sizeof built_in / sizeof *built_in)

uint8_t settings_class_default(uint32_t type)
{
    assert(type < SETTINGS_TYPES);
    return type >= 1 && type < BUILT_IN_N ? (uint8_t)(type - 1) : 3;
}

bool settings_read_number(const char *s, uint64_t *ret)
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

    if (settings_read_number(name, &number))
        return number < SETTINGS_TYPES && s->known[number] ? (int)number : -ENOENT;
    return *name != '\0' ? named_type(s, name) : -ENOENT;
}

/* --- one function a family ---------------------------------------------------------------------
 */

static int set_type(struct settings *s, const struct settings_family *f,
                    const struct settings_change *c)
{
    const char *name = c->rest;
    uint64_t number;
    int now;

    if (!is_name(name))
        return settings_refuse(c->error,
                               "a type's name must be 1 to %u of a-z, 0-9 and _, beginning with a "
                               "letter, not \"%.40s\"",
                               SETTINGS_NAME_BYTES - 1, name);
    now = named_type(s, name);
    if (now > 0 && now < (int)SETTINGS_CUSTOM_MIN)
        return settings_refuse(c->error, "%s is built in and keeps its number %d", name, now);
    if (*c->value == '\0') {
        if (now < 0)
            return settings_refuse(c->error, "there is no type named %s", name);
        s->known[now] = 0;
        memset(s->name[now], 0, SETTINGS_NAME_BYTES);
        return 0;
    }
    if (!settings_read_number(c->value, &number) || number < SETTINGS_CUSTOM_MIN ||
        number >= SETTINGS_TYPES)
        return settings_refuse(c->error, "type.%s must be a number from %u to %u, not \"%.40s\"",
                               name, SETTINGS_CUSTOM_MIN, SETTINGS_TYPES - 1, c->value);
    if (s->known[number] && strcmp(s->name[number], name) != 0)
        return settings_refuse(c->error, "type %u is named %s already", (unsigned)number,
                               s->name[number]);
    if (now >= 0 && now != (int)number)
        return settings_refuse(c->error, "%s is the name of type %d already; take that back first",
                               name, now);
    assert(number >= SETTINGS_CUSTOM_MIN && number < SETTINGS_TYPES);
    s->known[number] = 1;
    memset(s->name[number], 0, SETTINGS_NAME_BYTES);
    memcpy(s->name[number], name, strlen(name));
    return 0;
}

/* class and admit may be set by number before the type has a name. */
int settings_find_type(const struct settings *s, const struct settings_change *c)
{
    uint64_t number;
    int type = named_type(s, c->rest);

    if (type > 0)
        return type;
    if (settings_read_number(c->rest, &number) && number >= SETTINGS_CUSTOM_MIN &&
        number < SETTINGS_TYPES)
        return (int)number;
    return settings_refuse(c->error,
                           "%s: there is no type of that name; known are trade, quote, "
                           "orderbook, the names given by type.NAME, and the numbers %u to %u",
                           c->key, SETTINGS_CUSTOM_MIN, SETTINGS_TYPES - 1);
}

static int set_number(struct settings *s, const struct settings_family *f,
                      const struct settings_change *c)
{
    uint64_t number = f->value_default;

    assert(f->min <= number && number <= f->max && f->offset > 0);
    assert(f->wide || f->max <= UINT32_MAX);
    if (*c->value != '\0' &&
        (!settings_read_number(c->value, &number) || number < f->min || number > f->max))
        return settings_refuse(c->error, "%s must be a number from %ju to %ju, not \"%.40s\"",
                               c->key, (uintmax_t)f->min, (uintmax_t)f->max, c->value);
    if (f->wide)
        memcpy((char *)s + f->offset, &number, sizeof number);
    else
        memcpy((char *)s + f->offset, &(uint32_t){ (uint32_t)number }, sizeof(uint32_t));
    return 0;
}

/* --- listing -----------------------------------------------------------------------------------
 */

bool settings_type_listed(const struct settings *s, uint32_t type)
{
    const struct settings_admit *a = &s->policy.type[type];

    return s->known[type] || a->class != settings_class_default(type) ||
           a->action != SETTINGS_ACCEPT;
}

void settings_type_key(const struct settings *s, const char *before, const char *prefix,
                       uint32_t type, struct setting_line *line)
{
    char number[12];
    int n;

    assert(type > 0 && type < SETTINGS_TYPES);
    snprintf(number, sizeof number, "%u", type);
    n = snprintf(line->key, sizeof line->key, "%s%s%s", before, prefix,
                 s->known[type] ? s->name[type] : number);
    assert(n > 0 && n < (int)sizeof line->key);
}

static void list_type(const struct settings *s, const struct settings_family *f,
                      const struct settings_listing *l)
{
    assert(!l->shadow);
    for (uint32_t t = SETTINGS_CUSTOM_MIN; t < SETTINGS_TYPES; t++) {
        struct setting_line line = { 0 };

        if (!s->known[t])
            continue;
        settings_type_key(s, "", f->prefix, t, &line);
        snprintf(line.value, sizeof line.value, "%u", t);
        l->line(l->arg, &line);
    }
}

static void list_number(const struct settings *s, const struct settings_family *f,
                        const struct settings_listing *l)
{
    struct setting_line line = { 0 };
    uint64_t wide = 0;
    uint32_t narrow = 0;

    assert(!l->shadow);
    if (f->wide)
        memcpy(&wide, (const char *)s + f->offset, sizeof wide);
    else
        memcpy(&narrow, (const char *)s + f->offset, sizeof narrow);
    snprintf(line.key, sizeof line.key, "%s", f->prefix);
    snprintf(line.value, sizeof line.value, "%ju", (uintmax_t)(f->wide ? wide : narrow));
    snprintf(line.value_default, sizeof line.value_default, "%ju", (uintmax_t)f->value_default);
    l->line(l->arg, &line);
}

/* --- the table ---------------------------------------------------------------------------------
 */

#define NUMBER(name, member, lowest, highest, at_first)                                            \
    {                                                                                              \
        .prefix = name, .set = set_number, .list = list_number,                                    \
        .offset = offsetof(struct settings, member),                                               \
        .wide = sizeof((struct settings *)0)->member == sizeof(uint64_t), .min = lowest,           \
        .max = highest, .value_default = at_first                                                  \
    }
#define LIMIT(member, lowest, highest, at_first)                                                   \
    {                                                                                              \
        .prefix = "limit." #member, .set = settings_set_limit, .list = settings_list_limit,        \
        .policy = true, .offset = offsetof(struct settings_policy, member), .min = lowest,         \
        .max = highest, .value_default = at_first                                                  \
    }
#define POLICY(name)                                                                               \
    {                                                                                              \
        .prefix = #name ".", .set = settings_set_##name, .list = settings_list_##name,             \
        .policy = true                                                                             \
    }

static const struct settings_family families[] = {
    { .prefix = "type.", .set = set_type, .list = list_type },
    POLICY(class),
    POLICY(admit),
    NUMBER("skew.past_ms", skew_past_ms, 0, 366ull * 86400 * 1000, 7ull * 86400 * 1000),
    NUMBER("skew.future_ms", skew_future_ms, 0, 86400ull * 1000, 5000),
    NUMBER("event.bytes_max", event_bytes_max, 256, 65535, 16384),
    { .prefix = "durability.", .set = settings_set_durability, .list = settings_list_durability },
    { .prefix = "region.unreachable",
      .set = settings_set_unreachable,
      .list = settings_list_unreachable },
    NUMBER("region.wait_ms", region_wait_ms, 10, 60000, 2000),
    NUMBER("region.stop_after_s", region_stop_after_s, 0, 86400, 0),
    NUMBER("ingest.paused", ingest_paused, 0, 1, 0),
    POLICY(source),
    LIMIT(source_per_s, 0, 10000000, 0),
    LIMIT(source_burst, 1, 10000000, 1000),
    LIMIT(syn_per_s, 0, 1000000, 0),
    LIMIT(syn_burst, 1, 1000000, 100),
    { .prefix = "shadow", .set = settings_set_shadow },
};
#define FAMILIES_N (sizeof families / sizeof *families)
_Static_assert(BUILT_IN_N - 1 < SETTINGS_CUSTOM_MIN, "user types begin above the built-in ones");
_Static_assert(BUILT_IN_N - 1 + SETTINGS_TYPES - SETTINGS_CUSTOM_MIN == SETTINGS_TYPES_SET,
               "the types that can be set");

void settings_init(struct settings *s)
{
    char error[SETTINGS_ERROR_BYTES] = "";

    memset(s, 0, sizeof *s);
    for (uint32_t t = 0; t < SETTINGS_TYPES; t++)
        s->policy.type[t].class = settings_class_default(t);
    for (uint32_t t = 1; t < BUILT_IN_N; t++) {
        s->known[t] = 1;
        memcpy(s->name[t], built_in[t], strlen(built_in[t]));
    }
    for (size_t i = 0; i < FAMILIES_N; i++)
        if (families[i].set == set_number || families[i].set == settings_set_limit) {
            const struct settings_change c = { families[i].prefix, "", "", false, error };
            int result = families[i].set(s, &families[i], &c);

            assert(result == 0);
        }
}

static int change(struct settings *s, const char *key, const char *value, char *error)
{
    struct settings_change c = { .key = key, .value = value, .error = error };
    const char *within = key;

    if (strlen(key) >= SETTINGS_KEY_BYTES || strlen(value) >= SETTINGS_VALUE_BYTES)
        return settings_refuse(error, "a key has at most %u bytes and a value at most %u",
                               SETTINGS_KEY_BYTES - 1, SETTINGS_VALUE_BYTES - 1);
    if (strncmp(key, SETTINGS_SHADOW_PREFIX, strlen(SETTINGS_SHADOW_PREFIX)) == 0) {
        c.shadow = true;
        within += strlen(SETTINGS_SHADOW_PREFIX);
    }
    for (size_t i = 0; i < FAMILIES_N; i++) {
        const struct settings_family *f = &families[i];
        size_t bytes = strlen(f->prefix);
        bool many = f->prefix[bytes - 1] == '.';

        if (strncmp(within, f->prefix, bytes) != 0 || (!many && within[bytes] != '\0') ||
            (c.shadow && !f->policy))
            continue;
        c.rest = within + bytes;
        return f->set(s, f, &c);
    }
    return settings_refuse(
        error,
        "there is no setting \"%s\"; known are type.NAME, class.TYPE, "
        "admit.TYPE, skew.past_ms, skew.future_ms, event.bytes_max, "
        "durability.TYPE, region.unreachable, region.wait_ms, region.stop_after_s, ingest.paused, "
        "source.NETWORK, limit.source_per_s, limit.source_burst, "
        "limit.syn_per_s, limit.syn_burst, shadow, and shadow. before a key of "
        "class, admit, source or limit",
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

void settings_list(const struct settings *s,
                   void (*line)(void *arg, const struct setting_line *line), void *arg)
{
    const struct settings_listing active = { line, arg, false }, shadow = { line, arg, true };

    for (size_t i = 0; i < FAMILIES_N; i++)
        if (families[i].list != NULL)
            families[i].list(s, &families[i], &active);
    for (size_t i = 0; i < FAMILIES_N; i++)
        if (families[i].policy)
            families[i].list(s, &families[i], &shadow);
}
