/*
 * table.h - aligned columns for people: texts to the left, numbers to the right.
 *
 * Fill it cell by cell, row by row; table_print() knows the widths by then. On a terminal numbers
 * get thousands separators.
 *
 * Thread:  one.
 * Memory:  one string a cell; table_fini() frees them. When memory runs out, the cell is empty.
 * Limits:  TABLE_COLUMNS_MAX columns, TABLE_ROWS_MAX rows; more are a mistake of the caller.
 */
#ifndef SLUICE_CLI_TABLE_H
#define SLUICE_CLI_TABLE_H

#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>

#define TABLE_COLUMNS_MAX 12u
#define TABLE_ROWS_MAX    1024u

struct table {
    unsigned columns, cells; /* cells filled */
    bool separators;
    bool right[TABLE_COLUMNS_MAX];
    char *cell[TABLE_COLUMNS_MAX * TABLE_ROWS_MAX];
};

/* align: one letter a column, 'l' or 'r'. separators: thousands separators in numbers. */
void table_init(struct table *t, const char *align, bool separators);
void table_fini(struct table *t);

void table_text(struct table *t, const char *format, ...) __attribute__((format(printf, 2, 3)));
void table_number(struct table *t, uint64_t n);

/* Prints and empties it. indent: spaces before every row. */
void table_print(struct table *t, FILE *f, unsigned indent);

/* 1234567 as "1,234,567" (or without separators); ret has 27 bytes or more. */
#define TABLE_NUMBER_BYTES 32u
const char *table_number_text(char ret[TABLE_NUMBER_BYTES], uint64_t n, bool separators);

#endif
