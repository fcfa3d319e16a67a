/*
 * read_csv.c - see read_csv.h.
 */
#include "cli/read_csv.h"

#include <errno.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#define ATTRIBUTE_PREFIX "attributes."
#define ROW_ROOM         (CSV_ROW_BYTES_MAX + CSV_COLUMNS_MAX + 1) /* each cell is terminated */

__attribute__((format(printf, 2, 3))) static int csv_fail(struct read_csv *r, const char *format,
                                                          ...)
{
    va_list args;
    int n =
        snprintf(r->error, sizeof(r->error), "line %llu", (unsigned long long)r->row_line_number);

    va_start(args, format);
    vsnprintf(r->error + n, sizeof(r->error) - (size_t)n, format, args);
    va_end(args);
    return -EINVAL;
}

/* --- rows ----------------------------------------------------------------------------------- */

static int next_char(struct read_csv *r)
{
    int c = getc_unlocked(r->in);

    if (c == '\r') { /* CRLF is one end of line; a lone CR is text */
        int after = getc_unlocked(r->in);

        if (after == '\n')
            c = '\n';
        else if (after != EOF)
            ungetc(after, r->in);
    }
    r->line_number += c == '\n';
    return c;
}

/* After a row that cannot be: to the end of its line. */
static void row_skip(struct read_csv *r, int c)
{
    while (c != '\n' && c != EOF)
        c = next_char(r);
}

/* Everything between the quotes. Returns the character behind the closing one. */
static int quoted_read(struct read_csv *r, size_t *n)
{
    for (;;) {
        int c = next_char(r);

        if (c == EOF)
            return csv_fail(r, ", column %u: a quote without its end", r->cells + 1);
        if (c == '"') {
            c = next_char(r);
            if (c != '"')
                return c == EOF ? '\n' : c;
        }
        if (*n >= CSV_ROW_BYTES_MAX) {
            row_skip(r, c);
            return csv_fail(r, ": longer than %u bytes", CSV_ROW_BYTES_MAX);
        }
        r->row[(*n)++] = (char)c;
    }
}

/* One cell to its end. Returns the character that ended it: ',', '\n' or EOF. */
static int cell_read(struct read_csv *r, size_t *n)
{
    int c = next_char(r);

    if (c == '"') {
        c = quoted_read(r, n);
        if (c >= 0 && c != ',' && c != '\n') {
            row_skip(r, c);
            return csv_fail(r, ", column %u: text behind a closing quote", r->cells + 1);
        }
    } else {
        for (; c != ',' && c != '\n' && c != EOF; c = next_char(r)) {
            if (*n >= CSV_ROW_BYTES_MAX) {
                row_skip(r, c);
                return csv_fail(r, ": longer than %u bytes", CSV_ROW_BYTES_MAX);
            }
            r->row[(*n)++] = (char)c;
        }
    }
    return c;
}

/* 1: a row, 0: the end, or an error. */
static int row_read(struct read_csv *r)
{
    size_t n = 0;
    int c = ',';

    r->cells = 0;
    r->row_line_number = r->line_number;
    while (c == ',') {
        if (r->cells == CSV_COLUMNS_MAX) {
            row_skip(r, ',');
            return csv_fail(r, ": more than %u cells", CSV_COLUMNS_MAX);
        }
        r->cell[r->cells] = (uint32_t)n;
        c = cell_read(r, &n);
        if (c < -1)
            return c;
        r->row[n++] = '\0';
        r->cells++;
        r->cell[r->cells] = (uint32_t)n;
    }
    if (c == EOF && ferror(r->in))
        return -EIO;
    return c == EOF && r->cells == 1 && n == 1 ? 0 : 1;
}

static size_t cell_bytes(const struct read_csv *r, unsigned i)
{
    return r->cell[i + 1] - r->cell[i] - 1;
}

static bool row_is_blank(const struct read_csv *r)
{
    return r->cells == 1 && cell_bytes(r, 0) == 0;
}

/* --- header --------------------------------------------------------------------------------- */

static bool is_column(const char *name)
{
    if (strncmp(name, ATTRIBUTE_PREFIX, strlen(ATTRIBUTE_PREFIX)) == 0 ||
        form_find(&form_event, name))
        return true;
    for (pb_size_t tag = sluice_v1_Event_trade_tag; tag <= sluice_v1_Event_custom_tag; tag++)
        if (form_find(form_detail(tag), name))
            return true;
    return false;
}

static int header_take(struct read_csv *r)
{
    bool has_type = false;

    for (unsigned i = 0; i < r->cells; i++) {
        const char *name = r->row + r->cell[i];

        if (i == 0 && strncmp(name, "\xef\xbb\xbf", 3) == 0)
            name += 3; /* spreadsheets begin with a byte order mark */
        if (!is_column(name))
            return csv_fail(r, ", column %u: \"%.40s\" is no field of an event", i + 1, name);
        for (unsigned j = 0; j < i; j++)
            if (strcmp(r->name[j], name) == 0)
                return csv_fail(r, ", column %u: \"%.40s\" is there twice", i + 1, name);
        r->name[i] = strdup(name);
        if (!r->name[i])
            return -ENOMEM;
        r->columns = i + 1;
        if (strcmp(name, "type") == 0) {
            r->type_column = i;
            has_type = true;
        }
    }
    return has_type ? 0 : csv_fail(r, ": no column \"type\"");
}

int read_csv_init(struct read_csv *r, FILE *in)
{
    *r = (struct read_csv){ .in = in, .line_number = 1, .row = malloc(ROW_ROOM) };
    if (!r->row)
        return -ENOMEM;
    int rc = row_read(r);

    if (rc < 0)
        return rc;
    if (rc == 0 || row_is_blank(r))
        return csv_fail(r, ": no header, which names the columns");
    return header_take(r);
}

void read_csv_fini(struct read_csv *r)
{
    for (unsigned i = 0; i < r->columns; i++)
        free(r->name[i]);
    r->columns = 0;
    free(r->row);
    r->row = NULL;
}

/* --- cells ---------------------------------------------------------------------------------- */

/* PRICE:SIZE[:ORDERS], by spaces. */
static int levels_take(struct form *f, pb_size_t side, const char *text)
{
    while (*(text += strspn(text, " "))) {
        size_t bytes = strcspn(text, " "), used = 0;
        sluice_v1_Level *level = form_level_add(f, side);

        if (!level)
            return -EINVAL;
        *level = (sluice_v1_Level)sluice_v1_Level_init_zero;
        for (size_t i = 0; i < form_level.fields && used <= bytes; i++) {
            size_t part = 0;

            while (used + part < bytes && text[used + part] != ':')
                part++;
            if (form_set(f, &form_level.field[i], level, text + used, part) < 0)
                return -EINVAL;
            used += part + 1;
        }
        if (used <= bytes || !memchr(text, ':', bytes))
            return form_fail(f, "a level is PRICE:SIZE[:ORDERS], not \"%.*s\"",
                             (int)(bytes < 40 ? bytes : 40), text);
        text += bytes;
    }
    return 0;
}

static int cell_take(struct read_csv *r, struct form *f, unsigned i)
{
    const char *name = r->name[i], *text = r->row + r->cell[i];
    size_t bytes = cell_bytes(r, i);
    const struct form_field *field = form_find(&form_event, name);

    if (field)
        return form_set(f, field, &f->event, text, bytes);
    if (strlen(text) != bytes)
        return form_fail(f, "has a NUL in it");
    if (strncmp(name, ATTRIBUTE_PREFIX, strlen(ATTRIBUTE_PREFIX)) == 0)
        return form_attribute_add(f, name + strlen(ATTRIBUTE_PREFIX), text);

    pb_size_t tag = form_detail_of_type((unsigned)f->event.type);
    const struct form_message *m = form_detail(tag);

    field = m ? form_find(m, name) : NULL;
    if (!field)
        return form_fail(f, "an event of this type has no such field");
    void *detail = form_detail_begin(f, tag);

    if (field->kind == FORM_MESSAGE)
        return levels_take(f,
                           strcmp(name, "bids") == 0 ? sluice_v1_OrderBook_bids_tag
                                                     : sluice_v1_OrderBook_asks_tag,
                           text);
    return form_set(f, field, detail, text, bytes);
}

static int row_take(struct read_csv *r, struct form *f)
{
    if (r->cells != r->columns)
        return csv_fail(r, ": %u cells, the header has %u", r->cells, r->columns);
    form_reset(f);
    f->text_ids = true;
    /* The type first: it says what the other columns mean. */
    for (unsigned pass = 0; pass < 2; pass++)
        for (unsigned i = 0; i < r->columns; i++) {
            if ((i == r->type_column) != (pass == 0) || cell_bytes(r, i) == 0)
                continue;
            if (cell_take(r, f, i) < 0)
                return csv_fail(r, ", column %u (%s): %s", i + 1, r->name[i], f->error);
        }
    return form_finish(f) < 0 ? csv_fail(r, ": %s", f->error) : 0;
}

int read_csv_next(struct read_csv *r, struct form *f)
{
    int rc;

    do {
        rc = row_read(r);
        if (rc <= 0)
            return rc;
    } while (row_is_blank(r));
    rc = row_take(r, f);
    return rc < 0 ? rc : 1;
}
