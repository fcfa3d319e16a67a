/*
 * table.c - see table.h.
 */
#include "cli/table.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void table_init(struct table *t, const char *align, bool separators)
{
    unsigned i;

    memset(t, 0, sizeof *t);
    t->columns = (unsigned)strlen(align);
    assert(t->columns > 0 && t->columns <= TABLE_COLUMNS_MAX);
    t->separators = separators;
    for (i = 0; i < t->columns; i++)
        t->right[i] = align[i] == 'r';
}

void table_fini(struct table *t)
{
    unsigned i;

    for (i = 0; i < t->cells; i++)
        free(t->cell[i]);
    t->cells = 0;
}

void table_text(struct table *t, const char *format, ...)
{
    char *text = NULL;
    va_list args;

    assert(t->cells < t->columns * TABLE_ROWS_MAX);
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        text = NULL;
    va_end(args);
    t->cell[t->cells++] = text;
}

const char *table_number_text(char ret[TABLE_NUMBER_BYTES], uint64_t n, bool separators)
{
    char digits[24];
    size_t length = (size_t)snprintf(digits, sizeof digits, "%" PRIu64, n), i, to = 0;

    for (i = 0; i < length; i++) {
        if (separators && i > 0 && (length - i) % 3 == 0)
            ret[to++] = ',';
        ret[to++] = digits[i];
    }
    ret[to] = '\0';
    return ret;
}

void table_number(struct table *t, uint64_t n)
{
    char text[TABLE_NUMBER_BYTES];

    table_text(t, "%s", table_number_text(text, n, t->separators));
}

/* Characters, not bytes: continuation bytes of UTF-8 take no room. */
static unsigned text_width(const char *text)
{
    unsigned n = 0;

    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static const char *cell_text(const struct table *t, unsigned i)
{
    return t->cell[i] ? t->cell[i] : "";
}

void table_print(struct table *t, FILE *f, unsigned indent)
{
    unsigned width[TABLE_COLUMNS_MAX] = { 0 }, i;

    assert(t->cells % t->columns == 0);
    for (i = 0; i < t->cells; i++) {
        unsigned n = text_width(cell_text(t, i)), *w = &width[i % t->columns];

        *w = n > *w ? n : *w;
    }
    for (i = 0; i < t->cells; i++) {
        unsigned column = i % t->columns, last = column + 1 == t->columns;
        int pad = (int)(width[column] - text_width(cell_text(t, i)));

        if (column == 0)
            fprintf(f, "%*s", (int)indent, "");
        if (t->right[column])
            fprintf(f, "%*s", pad, "");
        fputs(cell_text(t, i), f);
        if (!t->right[column] && !last)
            fprintf(f, "%*s", pad, "");
        fputs(last ? "\n" : "  ", f);
    }
    table_fini(t);
}
