/*
 * settings_rig.c - see settings_rig.h.
 */
#include <stdarg.h>
#include <stddef.h>
#include <setjmp.h>
#include <stdint.h>
#include <cmocka.h>

#include <errno.h>
#include <string.h>

#include "tests/lib/settings_rig.h"

void settings_takes(struct settings *s, const char *key, const char *value)
{
    char error[SETTINGS_ERROR_BYTES];

    if (settings_check(s, key, value, error) != 0)
        fail_msg("%s = %s: %s", key, value, error);
    assert_int_equal(settings_apply(s, key, value), 0);
}

void settings_refuses(struct settings *s, const char *key, const char *value, const char *says)
{
    char error[SETTINGS_ERROR_BYTES] = "";
    struct settings before = *s;

    if (settings_check(s, key, value, error) != -EINVAL)
        fail_msg("taken: %s = %s", key, value);
    if (strstr(error, says) == NULL)
        fail_msg("%s = %s: \"%s\" does not say \"%s\"", key, value, error, says);
    assert_int_equal(settings_apply(s, key, value), -EINVAL);
    assert_memory_equal(s, &before, sizeof *s);
}

static void collect(void *arg, const struct setting_line *line)
{
    struct settings_lines *l = arg;

    assert_true(l->n < SETTINGS_LINES_MAX);
    l->at[l->n++] = *line;
}

const struct settings_lines *settings_lines(const struct settings *s)
{
    static struct settings_lines l;

    l.n = 0;
    settings_list(s, collect, &l);
    return &l;
}

const char *settings_listed(const struct settings *s, const char *key)
{
    const struct settings_lines *l = settings_lines(s);

    for (uint32_t i = 0; i < l->n; i++)
        if (strcmp(l->at[i].key, key) == 0)
            return l->at[i].value;
    return NULL;
}

void settings_rebuild(const struct settings *s)
{
    static struct settings again, shorter;
    const struct settings_lines *l = settings_lines(s);
    char error[SETTINGS_ERROR_BYTES];

    settings_init(&again);
    settings_init(&shorter);
    for (uint32_t i = 0; i < l->n; i++) {
        const struct setting_line *line = &l->at[i];

        if (settings_check(&again, line->key, line->value, error) != 0)
            fail_msg("%s = %s is listed but refused: %s", line->key, line->value, error);
        assert_int_equal(settings_apply(&again, line->key, line->value), 0);
        if (strcmp(line->value, line->value_default) != 0)
            assert_int_equal(settings_apply(&shorter, line->key, line->value), 0);
    }
    assert_memory_equal(s, &again, sizeof *s);
    assert_memory_equal(s, &shorter, sizeof *s);
}
