/*
 * settings_rig.h - changes settings and says what was expected of it, and lists them.
 */
#ifndef SLUICE_TESTS_LIB_SETTINGS_RIG_H
#define SLUICE_TESTS_LIB_SETTINGS_RIG_H

#include "base/settings.h"

struct settings_lines {
    uint32_t n;
    struct setting_line at[SETTINGS_LINES_MAX];
};

void settings_takes(struct settings *s, const char *key, const char *value);

/* Refused by check and by apply, with a sentence, and nothing changes. */
void settings_refuses(struct settings *s, const char *key, const char *value, const char *says);

/* Until the next call. */
const struct settings_lines *settings_lines(const struct settings *s);

/* The value of a line; NULL when the key is not listed. */
const char *settings_listed(const struct settings *s, const char *key);

/* The lines make the same settings again; also without those that say the default, as a checkpoint
 * leaves them out. */
void settings_rebuild(const struct settings *s);

#endif
