/*
 * settings_region.c - which types are to be durable in both regions, and what becomes of those that
 * cannot be.
 */
#include "base/settings_internal.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

static const char *const durabilities[] = {
    [SETTINGS_QUORUM] = "quorum",
    [SETTINGS_REGION] = "region",
};
static const char *const unreachables[] = {
    [SETTINGS_REGION_WAIT] = "wait",
    [SETTINGS_REGION_FAIL] = "fail",
    [SETTINGS_REGION_DEGRADE] = "degrade",
};

/* One of n words; empty: the first. */
static int read_word(const char *value, const char *const *word, unsigned n, unsigned *ret)
{
    assert(n > 1);
    *ret = 0;
    if (*value == '\0')
        return 0;
    for (unsigned i = 0; i < n; i++) {
        if (strcmp(value, word[i]) != 0)
            continue;
        *ret = i;
        return 0;
    }
    return -1;
}

int settings_set_durability(struct settings *s, const struct settings_family *f,
                            const struct settings_change *c)
{
    int type = settings_find_type(s, c);
    unsigned number;

    if (type < 0)
        return type;
    assert(type < (int)SETTINGS_TYPES);
    if (read_word(c->value, durabilities, 2, &number) < 0)
        return settings_refuse(c->error, "%s must be quorum or region, not \"%.40s\"", c->key,
                               c->value);
    s->durability[type] = (uint8_t)number;
    return 0;
}

void settings_list_durability(const struct settings *s, const struct settings_family *f,
                              const struct settings_listing *l)
{
    assert(!l->shadow);
    for (uint32_t t = 1; t < SETTINGS_TYPES; t++) {
        struct setting_line line = { 0 };

        if (!s->known[t] && s->durability[t] == SETTINGS_QUORUM)
            continue;
        settings_type_key(s, "", f->prefix, t, &line);
        snprintf(line.value, sizeof line.value, "%s", durabilities[s->durability[t]]);
        snprintf(line.value_default, sizeof line.value_default, "%s",
                 durabilities[SETTINGS_QUORUM]);
        l->line(l->arg, &line);
    }
}

int settings_set_unreachable(struct settings *s, const struct settings_family *f,
                             const struct settings_change *c)
{
    unsigned number;

    if (read_word(c->value, unreachables, 3, &number) < 0)
        return settings_refuse(c->error, "%s must be wait, fail or degrade, not \"%.40s\"", c->key,
                               c->value);
    s->region_unreachable = number;
    return 0;
}

void settings_list_unreachable(const struct settings *s, const struct settings_family *f,
                               const struct settings_listing *l)
{
    struct setting_line line = { 0 };

    assert(!l->shadow && s->region_unreachable < 3);
    snprintf(line.key, sizeof line.key, "%s", f->prefix);
    snprintf(line.value, sizeof line.value, "%s", unreachables[s->region_unreachable]);
    snprintf(line.value_default, sizeof line.value_default, "%s",
             unreachables[SETTINGS_REGION_WAIT]);
    l->line(l->arg, &line);
}
