/*
 * columns.h - aligned columns for people: texts to the left, numbers to the right.
 *
 * Fill it cell by cell, row by row; columns_print() knows the widths by then. On a terminal numbers
 * get thousands separators.
 *
 * Thread:  one.
 * Memory:  one string a cell; columns_fini() frees them. When memory runs out, the cell is empty.
 * Limits:  COLUMNS_MAX columns, COLUMNS_ROWS_MAX rows; more are a mistake of the caller.
 */
#ifndef SLUICE_CLI_COLUMNS_H
#define SLUICE_CLI_COLUMNS_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define COLUMNS_MAX      16u
#define COLUMNS_ROWS_MAX 1024u

struct columns {
    unsigned columns, cells; /* cells filled */
    bool separators;
    bool right[COLUMNS_MAX];
    char *cell[COLUMNS_MAX * COLUMNS_ROWS_MAX];
};

/* align: one letter a column, 'l' or 'r'. separators: thousands separators in numbers. */
void columns_init(struct columns *t, const char *align, bool separators);
void columns_fini(struct columns *t);

void columns_text(struct columns *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void columns_number(struct columns *t, uint64_t n);

/* Prints and empties it. indent: spaces before every row. */
void columns_print(struct columns *t, FILE *f, unsigned indent);

/* 1234567 as "1,234,567" (or without separators); ret has 27 bytes or more. */
#define COLUMNS_NUMBER_BYTES 32u
const char *columns_number_text(char ret[COLUMNS_NUMBER_BYTES], uint64_t n, bool separators);

#endif
