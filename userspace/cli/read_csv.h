/*
 * read_csv.h - CSV (RFC 4180) as events: the first line names the columns.
 *
 * Columns are the fields of an event and of its detail by their names in event.proto (snake_case or
 * lowerCamelCase): type, source, id, timestamp, symbol, price, size, bid_price, ...; of an order
 * book `bids` and `asks`, each "PRICE:SIZE[:ORDERS]" by spaces; "attributes.KEY" for attributes.
 * The type decides which detail a row has. An empty cell is a field that is not there. Bytes are
 * text unless they begin with "hex:" or "base64:". Thread:  one reader, one thread. Memory:
 * CSV_ROW_BYTES_MAX, and the columns. Errors:  -EINVAL with read_csv.error, which names line and
 * column; the next call goes on with the row behind it.
 */
#ifndef SLUICE_CLI_READ_CSV_H
#define SLUICE_CLI_READ_CSV_H

#include <stdio.h>

#include "cli/event_form.h"

#define CSV_COLUMNS_MAX   64u
#define CSV_ROW_BYTES_MAX 262144u

struct read_csv {
    FILE *in;                           /* borrowed */
    char *row;                          /* cells, each terminated */
    uint32_t cell[CSV_COLUMNS_MAX + 1]; /* where each begins; the last: the end */
    unsigned cells;
    unsigned columns, type_column;
    char *name[CSV_COLUMNS_MAX];
    uint64_t line_number;     /* being read */
    uint64_t row_line_number; /* where the row began */
    char error[FORM_ERROR_BYTES_MAX + 128];
};

/* Reads the header. -EINVAL: error says what is wrong with it; read_csv_fini() is due all the same.
 */
int read_csv_init(struct read_csv *r, FILE *in);
void read_csv_fini(struct read_csv *r);
/* 1: an event is in f; 0: the end; -EINVAL: see above; -EIO. */
int read_csv_next(struct read_csv *r, struct form *f);

#endif
