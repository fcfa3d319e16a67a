/*
 * settings.h - the replicated settings: what every node must agree on to admit events alike.
 *
 *   type.<name>      64..127          gives a custom event type a name
 *   class.<type>     0..3             0 is dropped last when there is too much; trade 0, quote 1,
 *                                     orderbook 2, custom types 3
 *   admit.<type>     accept | drop    accept
 *   skew.past_ms     0..31622400000   604800000 (7 days): an older event is refused
 *   skew.future_ms   0..86400000      5000
 *   event.bytes_max  256..65535       16384
 *
 * <type> is trade, quote, orderbook, a name from type.<name>, or a number 64..127. An empty value
 * takes a setting back to its default; taking back type.<name> leaves the number's class and admit.
 *
 * Thread:  plain data: copy it to hand it over. Pure and deterministic: the same settings in the
 *          same order give the same bytes on every node.
 * Memory:  the caller's.
 * Errors:  -EINVAL and a sentence, without a final dot.
 */
#ifndef SLUICE_BASE_SETTINGS_H
#define SLUICE_BASE_SETTINGS_H

#include <stdint.h>

#define SETTINGS_TYPES       128u
#define SETTINGS_CUSTOM_MIN  64u
#define SETTINGS_NAME_BYTES  32u /* of a type, with its NUL */
#define SETTINGS_KEY_BYTES   64u /* Setting.key of proto/entry.options, with its NUL */
#define SETTINGS_VALUE_BYTES 128u
#define SETTINGS_ERROR_BYTES 256u
#define SETTINGS_CLASSES     4u

struct settings {
    uint8_t known[SETTINGS_TYPES];    /* 1: built in, or named */
    uint8_t admitted[SETTINGS_TYPES]; /* 1: accept; an unknown type is never taken */
    uint8_t class[SETTINGS_TYPES];
    char name[SETTINGS_TYPES][SETTINGS_NAME_BYTES];
    uint64_t skew_past_ms;
    uint64_t skew_future_ms;
    uint32_t event_bytes_max;
    uint32_t zero;
};
_Static_assert(sizeof(struct settings) == 128 * (3 + 32) + 24, "no padding: compared as bytes");

void settings_init(struct settings *s);

/* Would this change be taken, given s? Returns 0, or -EINVAL and a sentence. */
int settings_check(const struct settings *s, const char *key, const char *value,
                   char error[SETTINGS_ERROR_BYTES]);

/* Makes the change. Returns 0, or -EINVAL and then changes nothing. */
int settings_apply(struct settings *s, const char *key, const char *value);

/* One line of `sluice config list`. */
struct setting_line {
    char key[SETTINGS_KEY_BYTES];
    char value[SETTINGS_VALUE_BYTES];
    char value_default[SETTINGS_VALUE_BYTES]; /* "" for type.<name> */
};

/* Calls line() for every known key, in the order of the table above, then by type number: at most
 * 201 lines. Applied in that order to fresh settings, the lines make the same settings again. */
void settings_list(const struct settings *s,
                   void (*line)(void *arg, const struct setting_line *line), void *arg);

/* The number of a type by its name or its digits; -ENOENT when it is none that s knows. */
int settings_type(const struct settings *s, const char *name);

#endif
