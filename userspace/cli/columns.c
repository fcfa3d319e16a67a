/*
 * columns.c - see columns.h.
 */
#include "cli/columns.h"

#include <assert.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

void columns_init(struct columns *t, const char *align, bool separators)
{
    unsigned i;

    memset(t, 0, sizeof *t);
    t->columns = (unsigned)strlen(align);
    assert(t->columns > 0 && t->columns <= COLUMNS_MAX);
    t->separators = separators;
    for (i = 0; i < t->columns; i++)
        t->right[i] = align[i] == 'r';
}

void columns_fini(struct columns *t)
{
    unsigned i;

    for (i = 0; i < t->cells; i++)
        free(t->cell[i]);
    t->cells = 0;
}

void columns_text(struct columns *t, const char *format, ...)
{
    char *text = NULL;
    va_list args;

    assert(t->cells < t->columns * COLUMNS_ROWS_MAX);
    va_start(args, format);
    if (vasprintf(&text, format, args) < 0)
        text = NULL;
    va_end(args);
    t->cell[t->cells++] = text;
}

const char *columns_number_text(char ret[COLUMNS_NUMBER_BYTES], uint64_t n, bool separators)
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

void columns_number(struct columns *t, uint64_t n)
{
    char text[COLUMNS_NUMBER_BYTES];

    columns_text(t, "%s", columns_number_text(text, n, t->separators));
}

/* Characters, not bytes: continuation bytes of UTF-8 take no room. */
static unsigned text_width(const char *text)
{
    unsigned n = 0;

    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static const char *cell_text(const struct columns *t, unsigned i)
{
    return t->cell[i] ? t->cell[i] : "";
}

void columns_print(struct columns *t, FILE *f, unsigned indent)
{
    unsigned width[COLUMNS_MAX] = { 0 }, i;
    int gap = 0;

    assert(t->cells % t->columns == 0);
    for (i = 0; i < t->cells; i++) {
        unsigned n = text_width(cell_text(t, i)), *w = &width[i % t->columns];

        *w = n > *w ? n : *w;
    }
    for (i = 0; i < t->cells; i++) {
        unsigned column = i % t->columns;
        int pad = (int)(width[column] - text_width(cell_text(t, i)));

        if (column == 0)
            gap = (int)indent;
        if (*cell_text(t, i) != '\0') { /* so nothing but the newline follows the last text */
            fprintf(f, "%*s%s", gap + (t->right[column] ? pad : 0), "", cell_text(t, i));
            gap = t->right[column] ? 0 : pad;
        } else {
            gap += pad;
        }
        gap += 2;
        if (column + 1 == t->columns)
            fputc('\n', f);
    }
    columns_fini(t);
}
