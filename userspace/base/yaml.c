/*
 * yaml.c - libfyaml's events into a flat array of nodes.
 *
 * Events, not libfyaml's documents: the limits then hold while the file is read, and no alias is
 * ever followed.
 */
#include "base/yaml.h"
#include "base/utf8.h"

#include <assert.h>
#include <errno.h>
#include <libfyaml.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct reader {
    struct yaml_doc *doc;
    const char *file;
    char *error;
    struct yaml_node *open[YAML_DEPTH_MAX]; /* the collections that we are in */
    uint32_t depth;
    const char *name; /* the key that waits for its value */
    uint32_t name_line, name_column;
    uint32_t documents;
};

__attribute__((format(printf, 4, 5))) static int refuse(struct reader *r, uint32_t line,
                                                        uint32_t column, const char *format, ...)
{
    va_list args;
    int n = snprintf(r->error, YAML_ERROR_BYTES, "%.200s:%u:%u: ", r->file, line, column);

    assert(n > 0 && (size_t)n < YAML_ERROR_BYTES);
    va_start(args, format);
    vsnprintf(r->error + n, YAML_ERROR_BYTES - (size_t)n, format, args);
    va_end(args);
    return -EINVAL;
}

/* Copies a scalar's text to where it stays. Returns NULL for control characters or no UTF-8. */
static const char *keep_text(struct yaml_doc *d, const char *text, size_t bytes)
{
    char *at = d->text + d->text_bytes;

    assert(d->text_bytes <= d->text_bytes_max);
    if (bytes + 1 > d->text_bytes_max - d->text_bytes)
        return NULL;
    for (size_t i = 0, n; i < bytes; i += n) {
        n = utf8_bytes(text + i, bytes - i);
        if (n == 0 || utf8_is_control(text + i, n)) /* escapes can make either */
            return NULL;
    }
    if (bytes > 0)
        memcpy(at, text, bytes);
    at[bytes] = '\0';
    d->text_bytes += bytes + 1;
    return at;
}

static int take_key(struct reader *r, const char *text, uint32_t line, uint32_t column)
{
    const struct yaml_node *seen = yaml_child(r->open[r->depth - 1], text);

    if (seen != NULL)
        return refuse(r, line, column, "\"%.100s\" is given twice; the first one is on line %u",
                      text, seen->name_line);
    assert(r->name == NULL);
    r->name = text;
    r->name_line = line;
    r->name_column = column;
    return 0;
}

static int take_node(struct reader *r, enum yaml_type type, const char *text, bool plain,
                     uint32_t line, uint32_t column)
{
    struct yaml_node *parent = r->depth > 0 ? r->open[r->depth - 1] : NULL;
    struct yaml_doc *d = r->doc;
    struct yaml_node *n;

    assert(r->depth <= YAML_DEPTH_MAX && d->nodes <= d->nodes_max);
    assert(parent == NULL || parent->type != YAML_SCALAR);
    if (parent != NULL && parent->type == YAML_MAPPING && r->name == NULL) {
        if (type != YAML_SCALAR)
            return refuse(r, line, column, "a key must be plain text");
        return take_key(r, text, line, column);
    }
    if (d->nodes == d->nodes_max)
        return refuse(r, line, column, "the file has more than %u values", d->nodes_max);
    n = &d->node[d->nodes++];
    *n = (struct yaml_node){ .type = type, .plain = plain, .line = line, .column = column };
    n->text = text;
    n->name = r->name;
    n->name_line = r->name_line;
    n->name_column = r->name_column;
    r->name = NULL;
    if (parent != NULL) {
        if (parent->last != NULL)
            parent->last->next = n;
        else
            parent->first = n;
        parent->last = n;
    }
    if (type == YAML_SCALAR)
        return 0;
    if (r->depth == YAML_DEPTH_MAX)
        return refuse(r, line, column, "nested deeper than %u levels", YAML_DEPTH_MAX);
    r->open[r->depth++] = n;
    return 0;
}

static int take_scalar(struct reader *r, struct fy_event *e, uint32_t line, uint32_t column)
{
    size_t bytes = 0;
    const char *raw = fy_token_get_text(e->scalar.value, &bytes);
    const char *text = keep_text(r->doc, raw, raw == NULL ? 0 : bytes);
    enum fy_scalar_style style = fy_token_scalar_style(e->scalar.value);
    bool quoted = style == FYSS_SINGLE_QUOTED || style == FYSS_DOUBLE_QUOTED;

    column -= quoted && column > 1; /* libfyaml's mark is behind the quote */
    if (text == NULL)
        return refuse(r, line, column, "control characters are not allowed in values");
    return take_node(r, YAML_SCALAR, text, style == FYSS_PLAIN, line, column);
}

static int take_event(struct reader *r, struct fy_event *e)
{
    const struct fy_mark *mark = fy_event_start_mark(e);
    /* A value that was left out has no mark: its key stands for it. */
    uint32_t line = mark != NULL ? (uint32_t)mark->line + 1 : r->name != NULL ? r->name_line : 1;
    uint32_t column = mark != NULL      ? (uint32_t)mark->column + 1
                      : r->name != NULL ? r->name_column
                                        : 1;
    const struct fy_token *anchor = NULL, *tag = NULL;

    if (e->type == FYET_SCALAR) {
        anchor = e->scalar.anchor;
        tag = e->scalar.tag;
    } else if (e->type == FYET_SEQUENCE_START) {
        anchor = e->sequence_start.anchor;
        tag = e->sequence_start.tag;
    } else if (e->type == FYET_MAPPING_START) {
        anchor = e->mapping_start.anchor;
        tag = e->mapping_start.tag;
    }
    if (anchor != NULL || e->type == FYET_ALIAS)
        return refuse(r, line, column, "anchors (&) and aliases (*) are not supported");
    if (tag != NULL)
        return refuse(r, line, column, "tags (!) are not supported");
    switch (e->type) {
    case FYET_DOCUMENT_START:
        if (++r->documents > 1)
            return refuse(r, line, column, "the file holds more than one document");
        return 0;
    case FYET_SCALAR:
        return take_scalar(r, e, line, column);
    case FYET_SEQUENCE_START:
        return take_node(r, YAML_SEQUENCE, "", false, line, column);
    case FYET_MAPPING_START:
        return take_node(r, YAML_MAPPING, "", false, line, column);
    case FYET_SEQUENCE_END:
    case FYET_MAPPING_END:
        assert(r->depth > 0);
        r->depth--;
        return 0;
    default:
        return 0;
    }
}

/* libfyaml's own complaint, at the place that it names. */
static int refuse_syntax(struct reader *r, struct fy_diag *diag)
{
    void *iterator = NULL;
    const struct fy_diag_error *e = fy_diag_errors_iterate(diag, &iterator);

    if (e == NULL || e->msg == NULL)
        return refuse(r, 1, 1, "not valid YAML");
    return refuse(r, e->line > 0 ? (uint32_t)e->line : 1, e->column > 0 ? (uint32_t)e->column : 1,
                  "not valid YAML: %.200s", e->msg);
}

static int read_events(struct reader *r, struct fy_parser *p, struct fy_diag *diag)
{
    struct fy_event *e;
    int error = 0;

    while (error == 0 && (e = fy_parser_parse(p)) != NULL) {
        bool end = e->type == FYET_STREAM_END;

        error = take_event(r, e);
        fy_parser_event_free(p, e);
        if (end)
            return error;
    }
    return error != 0 ? error : refuse_syntax(r, diag);
}

/* Is the ? at text the mark of an explicit key? before: what is not blank before it on its line, or
 * 0. */
static bool is_explicit_key(const char *text, size_t bytes, char before)
{
    return *text == '?' && (before == 0 || strchr("-[{,", before) != NULL) &&
           (bytes == 1 || strchr(" \t\r\n", text[1]) != NULL);
}

/* Before libfyaml sees them: 0.7.12 never returns from a directive that is not UTF-8, and writes to
 * where nothing is after some explicit keys with tabs behind them. */
static int check_bytes(struct reader *r, const char *text, size_t bytes)
{
    uint32_t line = 1, column = 1;
    char before = 0;

    if (bytes > YAML_BYTES_MAX) {
        refuse(r, 1, 1, "the file is larger than %u KiB", YAML_BYTES_MAX / 1024);
        return -EFBIG;
    }
    for (size_t i = 0, n; i < bytes; i += n) {
        char c = text[i];

        n = utf8_bytes(text + i, bytes - i);
        if (n == 0)
            return refuse(r, line, column, "the file is not UTF-8 here");
        if (utf8_is_control(text + i, n) && c != '\n' && c != '\r' && c != '\t')
            return refuse(r, line, column, "the file holds the control character U+%04X",
                          (unsigned char)text[i + n - 1]);
        if (c == '%' && column == 1)
            return refuse(r, line, column, "directives (%%) are not supported");
        if (is_explicit_key(text + i, bytes - i, before))
            return refuse(r, line, column, "explicit keys (?) are not supported");
        /* A # begins a comment at the line's start or behind a blank. */
        if (c == '\n')
            before = 0;
        else if (c == '#' && before != 0 && text[i - 1] != ' ' && text[i - 1] != '\t')
            before = 'x';
        else if (before != '#' && c != ' ' && c != '\t')
            before = c;
        line += c == '\n';
        column = c == '\n' ? 1 : column + 1;
    }
    return 0;
}

int yaml_parse(struct yaml_doc *doc, const char *file, const char *text, size_t bytes,
               char error[YAML_ERROR_BYTES])
{
    struct reader r = { .doc = doc, .file = file, .error = error };
    struct fy_diag *diag = NULL;
    struct fy_parser *p = NULL;
    struct fy_diag_cfg diag_config;
    int result;

    *doc = (struct yaml_doc){ .nodes_max = YAML_NODES_MAX };
    error[0] = '\0';
    result = check_bytes(&r, text, bytes);
    if (result != 0)
        return result;
    if (bytes == 0)
        return 0;
    if (bytes + 1 < doc->nodes_max)
        doc->nodes_max = (uint32_t)bytes + 1;
    /* An escape of two characters stands for up to four bytes. */
    doc->text_bytes_max = 2 * bytes + 4 * (size_t)doc->nodes_max;
    doc->node = calloc(doc->nodes_max, sizeof *doc->node);
    doc->text = malloc(doc->text_bytes_max);
    fy_diag_cfg_default(&diag_config);
    diag = fy_diag_create(&diag_config);
    if (doc->node == NULL || doc->text == NULL || diag == NULL)
        goto no_memory;
    fy_diag_set_collect_errors(diag, true);
    p = fy_parser_create(&(struct fy_parse_cfg){
        .flags = FYPCF_QUIET | FYPCF_DEFAULT_VERSION_1_2 | FYPCF_JSON_NONE, .diag = diag });
    if (p == NULL || fy_parser_set_string(p, text, bytes) != 0)
        goto no_memory;
    result = read_events(&r, p, diag);
    goto done;
no_memory:
    snprintf(error, YAML_ERROR_BYTES, "%.200s: out of memory", file);
    result = -ENOMEM;
done:
    if (p != NULL)
        fy_parser_destroy(p);
    if (diag != NULL)
        fy_diag_destroy(diag);
    return result;
}

void yaml_fini(struct yaml_doc *doc)
{
    free(doc->node);
    free(doc->text);
    *doc = (struct yaml_doc){ 0 };
}

bool yaml_is_null(const struct yaml_node *n)
{
    return n->type == YAML_SCALAR && n->plain &&
           (n->text[0] == '\0' || strcmp(n->text, "~") == 0 || strcmp(n->text, "null") == 0);
}

const struct yaml_node *yaml_child(const struct yaml_node *mapping, const char *name)
{
    assert(mapping->type == YAML_MAPPING);
    for (const struct yaml_node *n = mapping->first; n != NULL; n = n->next)
        if (strcmp(n->name, name) == 0)
            return n;
    return NULL;
}

const char *yaml_type_name(const struct yaml_node *n)
{
    if (n->type == YAML_SEQUENCE)
        return "a list";
    if (n->type == YAML_MAPPING)
        return "a group of keys";
    return yaml_is_null(n) ? "nothing" : n->plain ? "a plain value" : "quoted text";
}
