/*
 * read_json.h - JSON lines as events: one object a line, in protobuf's JSON mapping.
 *
 * Field names in lowerCamelCase or snake_case. Numbers are taken as they are written, never by way
 * of a double (event_form.h says how prices become integers). "enrichment" is skipped, so what
 * `sluice tail --json` prints can be sent again; any other unknown name is an error. Empty lines
 * are skipped. Thread:  one reader, one thread. Memory:  six times JSON_LINE_BYTES_MAX, and what
 * jansson takes for one line. Errors:  -EINVAL with read_json.error, which names the line; the next
 * call goes on behind it.
 */
#ifndef SLUICE_CLI_READ_JSON_H
#define SLUICE_CLI_READ_JSON_H

#include <stdio.h>

#include "cli/event_form.h"

#define JSON_LINE_BYTES_MAX 262144u

struct read_json {
    FILE *in; /* borrowed */
    char *line, *marked;
    uint64_t line_number;
    char error[FORM_ERROR_BYTES_MAX + 64];
};

int read_json_init(struct read_json *r, FILE *in);
void read_json_fini(struct read_json *r);
/* 1: an event is in f; 0: the end; -EINVAL: see above; -EIO. */
int read_json_next(struct read_json *r, struct form *f);

/* One line. marked has 6 * bytes + 16 bytes of room. 0, or -EINVAL and f->error. */
int read_json_parse(struct form *f, const char *line, size_t bytes, char *marked);

#endif
