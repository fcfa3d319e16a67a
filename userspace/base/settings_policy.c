/*
 * settings_policy.c - class, admit and limit, in force and in the shadow, and what becomes of the
 * shadow.
 */
#include "base/settings_internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

#define SAMPLE_MAX 1000000u
#define RATE_MAX   10000000u

/* The limits are one row of numbers, counted from this one. */
#define LIMIT_OFFSET(i) (offsetof(struct settings_policy, source_per_s) + (i) * sizeof(uint32_t))
_Static_assert(LIMIT_OFFSET(3) == offsetof(struct settings_policy, syn_burst) &&
                   LIMIT_OFFSET(SETTINGS_LIMITS) == offsetof(struct settings_policy, sources),
               "the limits are one row of numbers");

/* Where a change goes to, or a listing comes from. */
static struct settings_policy *target(struct settings *s, bool shadow)
{
    return shadow ? &s->shadow.value : &s->policy;
}

static const struct settings_policy *origin(const struct settings *s, bool shadow)
{
    return shadow ? &s->shadow.value : &s->policy;
}

/* --- classes -----------------------------------------------------------------------------------
 */

int settings_set_class(struct settings *s, const struct settings_family *f,
                       const struct settings_change *c)
{
    int type = settings_find_type(s, c);
    bool empty = *c->value == '\0';
    uint64_t number = 0;

    if (type < 0)
        return type;
    assert(type < (int)SETTINGS_TYPES);
    if (!empty && (!settings_read_number(c->value, &number) || number >= SETTINGS_CLASSES))
        return settings_refuse(c->error, "%s must be 0 (dropped last) to %u, not \"%.40s\"", c->key,
                               SETTINGS_CLASSES - 1, c->value);
    if (empty && !c->shadow)
        number = settings_class_default((uint32_t)type);
    target(s, c->shadow)->type[type].class = (uint8_t)number;
    if (c->shadow)
        s->shadow.class[type] = !empty;
    return 0;
}

void settings_list_class(const struct settings *s, const struct settings_family *f,
                         const struct settings_listing *l)
{
    for (uint32_t t = 1; t < SETTINGS_TYPES; t++) {
        struct setting_line line = { 0 };

        if (l->shadow ? !s->shadow.class[t] : !settings_type_listed(s, t))
            continue;
        settings_type_key(s, settings_before(l->shadow), f->prefix, t, &line);
        snprintf(line.value, sizeof line.value, "%u", origin(s, l->shadow)->type[t].class);
        if (!l->shadow)
            snprintf(line.value_default, sizeof line.value_default, "%u",
                     settings_class_default(t));
        l->line(l->arg, &line);
    }
}

/* --- admission ---------------------------------------------------------------------------------
 */

/* "<word> <number>" at *at, which is moved behind it. */
static bool read_part(const char **at, const char *word, uint32_t min, uint32_t max,
                      uint32_t *ret_number)
{
    size_t bytes = strlen(word), digits_n;
    char digits[20] = "";
    uint64_t number;

    if (strncmp(*at, word, bytes) != 0 || (*at)[bytes] != ' ')
        return false;
    digits_n = strcspn(*at + bytes + 1, " ");
    if (digits_n >= sizeof digits)
        return false;
    memcpy(digits, *at + bytes + 1, digits_n);
    if (!settings_read_number(digits, &number) || number < min || number > max)
        return false;
    *ret_number = (uint32_t)number;
    *at += bytes + 1 + digits_n;
    return true;
}

/* Into action, number and burst; the class stays. */
static bool read_admit(const char *at, struct settings_admit *ret)
{
    uint32_t number = 0, burst = 0;
    uint8_t action;

    if (strcmp(at, "accept") == 0 || strcmp(at, "drop") == 0) {
        action = *at == 'd' ? SETTINGS_DROP : SETTINGS_ACCEPT;
        at += strlen(at);
    } else if (read_part(&at, "sample", 2, SAMPLE_MAX, &number)) {
        action = SETTINGS_SAMPLE;
    } else if (read_part(&at, "rate", 1, RATE_MAX, &number)) {
        action = SETTINGS_RATE;
        burst = number < 10 ? 1 : number / 10;
        if (*at == ' ') {
            at++;
            if (!read_part(&at, "burst", 1, RATE_MAX, &burst))
                return false;
        }
    } else {
        return false;
    }
    if (*at != '\0')
        return false;
    ret->action = action;
    ret->number = number;
    ret->burst = burst;
    return true;
}

static void print_admit(const struct settings_admit *a, char ret[SETTINGS_VALUE_BYTES])
{
    assert(a->action <= SETTINGS_RATE);
    if (a->action == SETTINGS_SAMPLE)
        snprintf(ret, SETTINGS_VALUE_BYTES, "sample %u", a->number);
    else if (a->action == SETTINGS_RATE)
        snprintf(ret, SETTINGS_VALUE_BYTES, "rate %u burst %u", a->number, a->burst);
    else
        snprintf(ret, SETTINGS_VALUE_BYTES, "%s", a->action == SETTINGS_DROP ? "drop" : "accept");
}

int settings_set_admit(struct settings *s, const struct settings_family *f,
                       const struct settings_change *c)
{
    const char *value = *c->value != '\0' ? c->value : "accept";
    int type = settings_find_type(s, c);

    if (type < 0)
        return type;
    assert(type < (int)SETTINGS_TYPES && SETTINGS_ACCEPT == 0);
    if (!read_admit(value, &target(s, c->shadow)->type[type]))
        return settings_refuse(c->error,
                               "%s must be accept, drop, sample N (one in N is taken, 2 to %u), "
                               "rate N or rate N burst B (events a second and at once, 1 to %u), "
                               "not \"%.40s\"",
                               c->key, SAMPLE_MAX, RATE_MAX, c->value);
    if (c->shadow)
        s->shadow.admit[type] = *c->value != '\0';
    return 0;
}

void settings_list_admit(const struct settings *s, const struct settings_family *f,
                         const struct settings_listing *l)
{
    for (uint32_t t = 1; t < SETTINGS_TYPES; t++) {
        struct setting_line line = { 0 };

        if (l->shadow ? !s->shadow.admit[t] : !settings_type_listed(s, t))
            continue;
        settings_type_key(s, settings_before(l->shadow), f->prefix, t, &line);
        print_admit(&origin(s, l->shadow)->type[t], line.value);
        if (!l->shadow)
            print_admit(&(struct settings_admit){ .action = SETTINGS_ACCEPT }, line.value_default);
        l->line(l->arg, &line);
    }
}

/* --- limits ------------------------------------------------------------------------------------
 */

static uint32_t limit_index(const struct settings_family *f)
{
    uint32_t i = (uint32_t)((f->offset - LIMIT_OFFSET(0)) / sizeof(uint32_t));

    assert(f->offset >= LIMIT_OFFSET(0) && i < SETTINGS_LIMITS);
    return i;
}

static uint32_t limit_get(const struct settings_policy *p, uint32_t i)
{
    uint32_t number;

    memcpy(&number, (const char *)p + LIMIT_OFFSET(i), sizeof number);
    return number;
}

static void limit_put(struct settings_policy *p, uint32_t i, uint32_t number)
{
    memcpy((char *)p + LIMIT_OFFSET(i), &number, sizeof number);
}

int settings_set_limit(struct settings *s, const struct settings_family *f,
                       const struct settings_change *c)
{
    bool empty = *c->value == '\0';
    uint32_t i = limit_index(f);
    uint64_t number = c->shadow ? 0 : f->value_default;

    assert(f->max <= UINT32_MAX);
    if (!empty && (!settings_read_number(c->value, &number) || number < f->min || number > f->max))
        return settings_refuse(c->error, "%s must be a number from %ju to %ju, not \"%.40s\"",
                               c->key, (uintmax_t)f->min, (uintmax_t)f->max, c->value);
    limit_put(target(s, c->shadow), i, (uint32_t)number);
    if (c->shadow)
        s->shadow.limit[i] = !empty;
    return 0;
}

void settings_list_limit(const struct settings *s, const struct settings_family *f,
                         const struct settings_listing *l)
{
    struct setting_line line = { 0 };
    uint32_t i = limit_index(f);

    if (l->shadow && !s->shadow.limit[i])
        return;
    snprintf(line.key, sizeof line.key, "%s%s", settings_before(l->shadow), f->prefix);
    snprintf(line.value, sizeof line.value, "%u", limit_get(origin(s, l->shadow), i));
    if (!l->shadow)
        snprintf(line.value_default, sizeof line.value_default, "%ju", (uintmax_t)f->value_default);
    l->line(l->arg, &line);
}

/* --- the shadow --------------------------------------------------------------------------------
 */

/* What is not set is zero, so that nothing set is nothing but zeros. */
static bool is_empty(const struct settings_overlay *o)
{
    static const struct settings_overlay none;

    return memcmp(o, &none, sizeof none) == 0;
}

static void overlay(const struct settings_overlay *o, struct settings_policy *p)
{
    for (uint32_t t = 0; t < SETTINGS_TYPES; t++) {
        const struct settings_admit *from = &o->value.type[t];
        struct settings_admit *to = &p->type[t];

        if (o->admit[t]) {
            to->action = from->action;
            to->number = from->number;
            to->burst = from->burst;
        }
        if (o->class[t])
            to->class = from->class;
    }
    for (uint32_t i = 0; i < SETTINGS_LIMITS; i++)
        if (o->limit[i])
            limit_put(p, i, limit_get(&o->value, i));
    settings_overlay_sources(&o->value, p);
}

bool settings_shadow(const struct settings *s, struct settings_policy *ret)
{
    if (is_empty(&s->shadow))
        return false;
    *ret = s->policy;
    overlay(&s->shadow, ret);
    return true;
}

int settings_set_shadow(struct settings *s, const struct settings_family *f,
                        const struct settings_change *c)
{
    bool promote = strcmp(c->value, "promote") == 0;

    assert(!c->shadow);
    if (!promote && strcmp(c->value, "discard") != 0)
        return settings_refuse(c->error, "shadow must be promote or discard, not \"%.40s\"",
                               c->value);
    if (promote && is_empty(&s->shadow))
        return settings_refuse(c->error, "there is no shadow to promote");
    if (promote)
        overlay(&s->shadow, &s->policy);
    memset(&s->shadow, 0, sizeof s->shadow);
    return 0;
}
