/*
 * read_json.c - see read_json.h.
 *
 * jansson makes doubles of numbers. Before it reads a line, every number outside of strings is
 * therefore put into a string that begins with U+0001, which no text of an event may contain.
 */
#include "cli/read_json.h"

#include <errno.h>
#include <jansson.h>
#include <stdlib.h>
#include <string.h>

#define NUMBER_MARK '\1'

static bool begins_number(char c) { return c == '-' || (c >= '0' && c <= '9'); }

static bool in_number(char c)
{
    return begins_number(c) || c == '+' || c == '.' || c == 'e' || c == 'E';
}

/* Returns how many bytes. A number of one digit and its comma become ten bytes. */
static size_t numbers_mark(char *ret, const char *line, size_t bytes)
{
    char *at = ret;
    bool in_string = false;

    for (size_t i = 0; i < bytes; i++) {
        if (!in_string && begins_number(line[i])) {
            at = stpcpy(at, "\"\\u0001");
            for (; i < bytes && in_number(line[i]); i++)
                *at++ = line[i];
            *at++ = '"';
            i--;
            continue;
        }
        if (in_string && line[i] == '\\' && i + 1 < bytes)
            *at++ = line[i++];
        else if (line[i] == '"')
            in_string = !in_string;
        *at++ = line[i];
    }
    return (size_t)(at - ret);
}

static int wrong_kind(struct form *f, const char *name, const char *wanted)
{
    return form_fail(f, "%s: is not %s", name, wanted);
}

static int field_take(struct form *f, const struct form_field *field, void *message,
                      const json_t *value)
{
    bool text_wanted = field->kind == FORM_STRING || field->kind == FORM_BYTES;

    if (field->kind == FORM_BOOL) {
        if (!json_is_boolean(value))
            return wrong_kind(f, field->name, "true or false");
        return form_set(f, field, message, json_is_true(value) ? "1" : "0", 1);
    }
    if (!json_is_string(value))
        return wrong_kind(f, field->name, text_wanted ? "a string" : "a number or a string");
    const char *text = json_string_value(value);
    size_t bytes = json_string_length(value);
    bool number = *text == NUMBER_MARK;

    if (number && text_wanted)
        return wrong_kind(f, field->name, "a string");
    return form_set(f, field, message, text + number, bytes - number);
}

static int fields_take(struct form *f, const struct form_message *m, void *message, json_t *object);

static int levels_take(struct form *f, const char *name, json_t *list)
{
    pb_size_t side =
        strcmp(name, "bids") == 0 ? sluice_v1_OrderBook_bids_tag : sluice_v1_OrderBook_asks_tag;
    json_t *entry;
    size_t i;

    if (!json_is_array(list))
        return wrong_kind(f, name, "a list of levels");
    json_array_foreach(list, i, entry)
    {
        sluice_v1_Level *level = form_level_add(f, side);

        if (!level)
            return -EINVAL;
        *level = (sluice_v1_Level)sluice_v1_Level_init_zero;
        if (fields_take(f, &form_level, level, entry) < 0)
            return -EINVAL;
    }
    return 0;
}

/* Depth is bounded by the messages: only an order book has messages in it, and levels have none. */
static int fields_take(struct form *f, const struct form_message *m, void *message, json_t *object)
{
    const char *name;
    json_t *value;

    if (!json_is_object(object))
        return wrong_kind(f, m->name, "an object");
    json_object_foreach(object, name, value)
    {
        const struct form_field *field = form_find(m, name);
        int rc;

        if (!field)
            return form_fail(f, "%s has no field \"%.40s\"", m->name, name);
        if (json_is_null(value))
            continue;
        if (field->kind == FORM_MESSAGE)
            rc = levels_take(f, field->name, value);
        else
            rc = field_take(f, field, message, value);
        if (rc < 0)
            return rc;
    }
    return 0;
}

static int attributes_take(struct form *f, json_t *object)
{
    const char *key;
    json_t *value;

    if (!json_is_object(object))
        return wrong_kind(f, "attributes", "an object");
    json_object_foreach(object, key, value)
    {
        const char *text = json_string_value(value);

        if (!text || *text == NUMBER_MARK)
            return form_fail(f, "attributes: \"%.40s\" is not a string", key);
        if (form_attribute_add(f, key, text) < 0)
            return -EINVAL;
    }
    return 0;
}

static int event_take(struct form *f, json_t *object)
{
    const char *name;
    json_t *value;

    if (!json_is_object(object))
        return form_fail(f, "not a JSON object");
    json_object_foreach(object, name, value)
    {
        const struct form_field *field = form_find(&form_event, name);
        pb_size_t tag = form_detail_tag(name);
        int rc = 0;

        if (json_is_null(value) || strcmp(name, "enrichment") == 0)
            continue;
        if (field) {
            rc = field_take(f, field, &f->event, value);
        } else if (tag) {
            void *detail = form_detail_begin(f, tag);

            rc = detail ? fields_take(f, form_detail(tag), detail, value) : -EINVAL;
        } else if (strcmp(name, "attributes") == 0) {
            rc = attributes_take(f, value);
        } else {
            rc = form_fail(f, "an event has no field \"%.40s\"", name);
        }
        if (rc < 0)
            return rc;
    }
    return form_finish(f);
}

int read_json_parse(struct form *f, const char *line, size_t bytes, char *marked)
{
    json_error_t error;

    form_reset(f);
    bytes = numbers_mark(marked, line, bytes);
    json_t *root = json_loadb(marked, bytes, JSON_REJECT_DUPLICATES, &error);

    if (!root)
        return form_fail(f, "not JSON: %s", error.text);
    int rc = event_take(f, root);

    json_decref(root);
    return rc;
}

/* --- lines ---------------------------------------------------------------------------------- */

int read_json_init(struct read_json *r, FILE *in)
{
    *r = (struct read_json){ .in = in,
                             .line = malloc(JSON_LINE_BYTES_MAX),
                             .marked = malloc(6 * (size_t)JSON_LINE_BYTES_MAX + 16) };
    if (r->line && r->marked)
        return 0;
    read_json_fini(r);
    return -ENOMEM;
}

void read_json_fini(struct read_json *r)
{
    free(r->line);
    free(r->marked);
    r->line = r->marked = NULL;
}

/* 1: a line is there, *ret_bytes of it without its end; a longer one is read to its end and told by
 * *ret_bytes == JSON_LINE_BYTES_MAX. 0: no more. */
static int line_read(struct read_json *r, size_t *ret_bytes)
{
    size_t n = 0;
    int c;

    while ((c = getc_unlocked(r->in)) != EOF && c != '\n')
        if (n < JSON_LINE_BYTES_MAX)
            r->line[n++] = (char)c;
    if (c == EOF && ferror(r->in))
        return -EIO;
    if (c == EOF && n == 0)
        return 0;
    r->line_number++;
    *ret_bytes = n;
    return 1;
}

static bool is_blank(const char *line, size_t bytes)
{
    for (size_t i = 0; i < bytes; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
            return false;
    return true;
}

int read_json_next(struct read_json *r, struct form *f)
{
    size_t bytes;
    int rc;

    do {
        rc = line_read(r, &bytes);
        if (rc <= 0)
            return rc;
    } while (is_blank(r->line, bytes));
    form_reset(f);
    if (bytes == JSON_LINE_BYTES_MAX)
        rc = form_fail(f, "longer than %u bytes", JSON_LINE_BYTES_MAX - 1);
    else
        rc = read_json_parse(f, r->line, bytes, r->marked);
    if (rc == 0)
        return 1;
    snprintf(r->error, sizeof(r->error), "line %llu: %s", (unsigned long long)r->line_number,
             f->error);
    return rc;
}
