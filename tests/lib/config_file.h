/*
 * config_file.h - config files made in a test: taken, refused at a place, printed.
 */
#ifndef SLUICE_TESTS_CONFIG_FILE_H
#define SLUICE_TESTS_CONFIG_FILE_H

#include "base/config.h"

/* Parses text as "f.yaml", which must be good; c needs config_fini(). */
void config_file_takes(struct config *c, const char *text);

/* Refused, with exactly this beginning, and with that in the sentence. */
void config_file_refuses(const char *text, const char *place, const char *says);

/* What config_print() writes; the caller frees it. */
char *config_file_printed(const struct config *c, enum config_format format);

/* The key a.b with the value 1 as a file: "a: {b: 1}". */
void config_file_nest(char *text, size_t bytes, const char *path, const char *value);

#endif
