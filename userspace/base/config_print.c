/*
 * config_print.c - the effective config as text and JSON, and the commented sample file.
 */
#include <assert.h>
#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#include "base/calendar.h"
#include "base/config_table.h"

static void calendars_text(const struct calendar_set *set, char text[CONFIG_VALUE_BYTES])
{
    size_t used = 1;

    _Static_assert(CALENDAR_SET_MAX * (CALENDAR_NAME_BYTES + 2) < CONFIG_VALUE_BYTES, "fits");
    strcpy(text, "[");
    for (uint32_t i = 1; i < set->n; i++) {
        snprintf(text + used, CONFIG_VALUE_BYTES - used, "%s%s", i > 1 ? ", " : "",
                 set->calendar[i]->name);
        used = strlen(text);
    }
    snprintf(text + used, CONFIG_VALUE_BYTES - used, "]");
}

static int print_text(const struct config *c, FILE *f)
{
    char text[CONFIG_VALUE_BYTES], origin[32];

    for (uint32_t i = 0; i < config_keys_n; i++) {
        const struct config_key *key = &config_keys[i];

        if (key->type == TYPE_CALENDARS)
            calendars_text(c->calendars, text);
        else
            config_value_text(c, key, text);
        snprintf(origin, sizeof origin, "file, line %u", c->origin_line[i]);
        fprintf(f, "%-34s %-30s %s\n", key->path, text, c->origin_line[i] ? origin : "default");
    }
    return ferror(f) ? -EIO : 0;
}

/* --- JSON --------------------------------------------------------------------------------------
 */

/* Text from a file may hold bytes that are not UTF-8, which jansson refuses: those become "?". */
static json_t *json_text(const char *text)
{
    json_t *j = json_string(text);
    char clean[CONFIG_VALUE_BYTES];

    if (j != NULL)
        return j;
    snprintf(clean, sizeof clean, "%s", text);
    for (char *s = clean; *s != '\0'; s++)
        if ((unsigned char)*s >= 0x80)
            *s = '?';
    return json_string(clean);
}

static json_t *json_time(int32_t s)
{
    char text[16];

    snprintf(text, sizeof text, "%02d:%02d", s / 3600, s / 60 % 60);
    return json_string(text);
}

static json_t *calendar_json(const struct calendar *c)
{
    static const char *const day[] = { "sun", "mon", "tue", "wed", "thu", "fri", "sat" };
    static const char *const session[] = { NULL, NULL, "pre", "regular", "post" };
    json_t *j = json_pack("{s:s, s:s}", "name", c->name, "zone", c->zone_text);
    json_t *hours = json_object(), *holidays = json_array(), *early = json_array();
    json_t *venues = json_array(), *days = json_array();

    for (uint32_t i = SESSION_PRE; i <= SESSION_POST; i++)
        json_object_set_new(hours, session[i], json_array());
    for (uint32_t i = 0; i < c->hours_n; i++)
        json_array_append_new(
            json_object_get(hours, session[c->hours[i].session]),
            json_pack("[o, o]", json_time(c->hours[i].from_s), json_time(c->hours[i].until_s)));
    for (uint32_t i = 0; i < c->rules; i++) {
        json_t *rule = json_string(c->rule[i].text);

        if (!c->rule[i].early) {
            json_array_append_new(holidays, rule);
            continue;
        }
        rule = json_pack("{s:o, s:o}", "date", rule, "close", json_time(c->rule[i].close_s));
        if (c->rule[i].post_until_s > 0)
            json_object_set_new(rule, "post_until", json_time(c->rule[i].post_until_s));
        json_array_append_new(early, rule);
    }
    for (uint32_t i = 0; i < c->venues; i++)
        json_array_append_new(venues, json_string(c->venue[i]));
    for (uint32_t i = 0; i < 7; i++)
        if (c->weekdays >> i & 1)
            json_array_append_new(days, json_string(day[i]));
    json_object_set_new(j, "days", days);
    json_object_set_new(j, "sessions", hours);
    json_object_set_new(j, "holidays", holidays);
    json_object_set_new(j, "early_closes", early);
    json_object_set_new(j, "venues", venues);
    return j;
}

static json_t *list_json(const struct config *c, const struct config_key *key)
{
    uint32_t n = config_count_items(c, key);
    char item[CONFIG_ITEM_BYTES];
    json_t *list = json_array();

    for (uint32_t i = 0; i < n; i++) {
        config_item_text(c, key, i, item);
        json_array_append_new(list,
                              key->type == TYPE_UIDS ? json_integer(atoll(item)) : json_text(item));
    }
    return list;
}

static json_t *value_json(const struct config *c, const struct config_key *key)
{
    const void *from = (const char *)c + key->offset;
    char text[CONFIG_VALUE_BYTES];
    json_t *list;

    assert(key->offset + key->bytes <= sizeof *c);
    switch (key->type) {
    case TYPE_NUMBER:
        return json_integer(*(const uint32_t *)from);
    case TYPE_SIZE:
        return json_integer((json_int_t) * (const uint64_t *)from);
    case TYPE_BOOL:
        return json_boolean(*(const bool *)from);
    case TYPE_CHOICE:
        config_value_text(c, key, text);
        return json_string(text);
    case TYPE_NAME:
    case TYPE_PATH:
        return json_text(from);
    case TYPE_ENDPOINT:
        config_endpoint_text(from, text);
        return json_string(text);
    case TYPE_CALENDARS:
        list = json_array();
        for (uint32_t i = 1; i < c->calendars->n; i++)
            json_array_append_new(list, calendar_json(c->calendars->calendar[i]));
        return list;
    default:
        return list_json(c, key);
    }
}

static int print_json(const struct config *c, FILE *f)
{
    json_t *keys = json_object(), *root = json_object();
    int result = -ENOMEM;

    if (keys == NULL || root == NULL)
        goto fail;
    for (uint32_t i = 0; i < config_keys_n; i++) {
        bool file = c->origin_line[i] != 0;
        json_t *k = json_pack("{s:o, s:s}", "value", value_json(c, &config_keys[i]), "origin",
                              file ? "file" : "default");

        if (file)
            json_object_set_new(k, "line", json_integer(c->origin_line[i]));
        if (json_object_set_new(keys, config_keys[i].path, k) != 0)
            goto fail;
    }
    if (json_object_set_new(root, "file", c->file[0] != '\0' ? json_text(c->file) : json_null()) ||
        json_object_set(root, "keys", keys) != 0)
        goto fail;
    result = json_dumpf(root, f, JSON_INDENT(2)) == 0 && fputc('\n', f) != EOF ? 0 : -EIO;
fail:
    json_decref(keys);
    json_decref(root);
    return result;
}

/* --- the sample --------------------------------------------------------------------------------
 */

/* Each line of text as a comment; what is too long is broken at a space. */
static void print_comment(FILE *f, uint32_t depth, const char *text)
{
    const size_t width = 92 - 2 * (size_t)depth;

    assert(depth < 8);
    while (*text != '\0') {
        size_t bytes = strcspn(text, "\n");

        if (bytes > width)
            for (bytes = width; bytes > 1 && text[bytes] != ' '; bytes--)
                ;
        fprintf(f, "%*s# %.*s\n", (int)depth * 2, "", (int)bytes, text);
        text += bytes + (text[bytes] == '\n' || text[bytes] == ' ');
    }
}

static void print_help(FILE *f, uint32_t depth, const struct config_key *key)
{
    char low[32], high[32], choices[128], text[CONFIG_VALUE_BYTES];

    config_number_text(key, key->min, low, sizeof low);
    config_number_text(key, key->max, high, sizeof high);
    if (key->type == TYPE_NUMBER || key->type == TYPE_SIZE) {
        snprintf(text, sizeof text, "%s Allowed: %s to %s.", key->help, low, high);
    } else if (key->type == TYPE_CHOICE) {
        config_choices_text(key, choices, sizeof choices);
        snprintf(text, sizeof text, "%s Allowed: %s.", key->help, choices);
    } else {
        snprintf(text, sizeof text, "%s", key->help);
    }
    print_comment(f, depth, text);
}

/* The groups of path that the key before it was not in. Returns the depth of the key itself. */
static uint32_t print_groups(FILE *f, const char *before, const char *path)
{
    uint32_t depth = 0;
    bool same = true;

    for (const char *dot; (dot = strchr(path, '.')) != NULL; depth++) {
        size_t bytes = (size_t)(dot - path) + 1;

        same = same && strncmp(before, path, bytes) == 0;
        if (!same)
            fprintf(f, "%s%*s%.*s:\n", depth == 0 ? "\n" : "", (int)depth * 2, "", (int)bytes - 1,
                    path);
        before += same ? bytes : 0;
        path += bytes;
    }
    if (depth == 0)
        fputc('\n', f);
    return depth;
}

static int print_sample(FILE *f)
{
    const char *before = "";

    fprintf(f,
            "# sluiced.yaml - every key of a node's configuration, at its default.\n"
            "#\n"
            "# What is left out stays at its default. Sizes take KiB, MiB and GiB. `sluice config "
            "show` prints\n# what is in effect and where it comes from.\n");
    for (uint32_t i = 0; i < config_keys_n; i++) {
        const struct config_key *key = &config_keys[i];
        uint32_t depth = print_groups(f, before, key->path);
        const char *dot = strrchr(key->path, '.');

        print_help(f, depth, key);
        fprintf(f, "%*s%s: %s\n", (int)depth * 2, "", dot != NULL ? dot + 1 : key->path,
                *key->value_default != '\0' ? key->value_default : "\"\"");
        before = key->path;
    }
    return ferror(f) ? -EIO : 0;
}

int config_print(const struct config *c, enum config_format format, FILE *f)
{
    assert(f != NULL && config_keys_n <= CONFIG_KEYS_MAX);
    if (format == CONFIG_JSON)
        return print_json(c, f);
    return format == CONFIG_SAMPLE ? print_sample(f) : print_text(c, f);
}
