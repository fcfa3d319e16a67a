/*
 * config_table.h - the table of config keys, private to config*.c.
 */
#ifndef SLUICE_BASE_CONFIG_TABLE_H
#define SLUICE_BASE_CONFIG_TABLE_H

#include "base/config.h"
#include "base/yaml.h"

enum config_type {
    TYPE_NUMBER,     /* uint32_t */
    TYPE_SIZE,       /* uint64_t, in bytes; KiB, MiB and GiB are understood */
    TYPE_BOOL,       /* bool */
    TYPE_NAME,       /* char[]: [A-Za-z0-9._-], not empty */
    TYPE_PATH,       /* char[] */
    TYPE_CHOICE,     /* uint32_t: an enumeration, 0 for the first of its choices */
    TYPE_ENDPOINT,   /* struct config_endpoint: ADDRESS:PORT, or empty */
    TYPE_ADDRESSES,  /* struct config_addresses */
    TYPE_NETWORKS,   /* struct config_networks */
    TYPE_UIDS,       /* struct config_uids */
    TYPE_INTERFACES, /* struct config_interfaces */
    TYPE_CALENDARS,  /* struct calendar_set *, built by config_calendar.c */
};

struct config_key {
    const char *path;
    enum config_type type;
    uint32_t offset, bytes;
    const char *const *choices; /* CHOICE: their names, and NULL behind the last */
    uint64_t min, max;          /* NUMBER, SIZE */
    const char *value_default;  /* as it would stand in the file */
    const char *help;           /* sentences; lines end with \n */
};

extern const struct config_key config_keys[];
extern const uint32_t config_keys_n;

/* Fills in "file:line:column: sentence" and returns -EINVAL. */
__attribute__((format(printf, 5, 6))) int config_refuse(char error[CONFIG_ERROR_BYTES],
                                                        const char *file, uint32_t line,
                                                        uint32_t column, const char *format, ...);

/* config_value.c: one scalar or list, checked and stored. Returns 0 or -EINVAL. */
int config_value_set(struct config *c, const struct config_key *key, const struct yaml_node *n,
                     const char *file, char error[CONFIG_ERROR_BYTES]);

/* The value as it would stand in the file. */
void config_value_text(const struct config *c, const struct config_key *key,
                       char ret_text[CONFIG_VALUE_BYTES]);

/* A number as it would stand in the file: 65536 of a size is 64KiB. */
void config_number_text(const struct config_key *key, uint64_t number, char *ret_text,
                        size_t ret_bytes);

/* "a, b or c": the choices of a TYPE_CHOICE. */
void config_choices_text(const struct config_key *key, char *ret_text, size_t ret_bytes);

uint32_t config_count_items(const struct config *c, const struct config_key *key);

/* Item i of a list, without quotes. */
void config_item_text(const struct config *c, const struct config_key *key, uint32_t i,
                      char ret_text[CONFIG_ITEM_BYTES]);

/* config_calendar.c */
int config_calendars_set(struct calendar_set *set, const struct yaml_node *n, const char *file,
                         char error[CONFIG_ERROR_BYTES]);

/* Changes of one character (insert, remove, replace, swap neighbours) from a to b. */
uint32_t config_distance(const char *a, const char *b);

#endif
