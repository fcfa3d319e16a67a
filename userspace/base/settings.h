/*
 * settings.h - the replicated settings: what every node must agree on to admit events alike.
 *
 *   type.<name>          64..127          gives a custom event type a name
 *   class.<type>         0..3             0 is dropped last when there is too much; trade 0, quote
 *                                         1, orderbook 2, custom types 3
 *   admit.<type>         accept           accept
 *                        drop
 *                        sample N         one in N is taken; N 2..1000000
 *                        rate N burst B   N events a second, B at once; each 1..10000000; without
 *                                         "burst B" a tenth of N, and at least 1
 *   skew.past_ms         0..31622400000   604800000 (7 days): an older event is refused
 *   skew.future_ms       0..86400000      5000
 *   event.bytes_max      256..65535       16384
 *   durability.<type>    quorum           its events are receipted when they are durable in the
 *                                         active region, or later, if their producer asks for that
 *                        region           never before they are durable in both
 *   region.unreachable   wait             what is not confirmed by the other region in time is told
 *                                         to be sent again
 *                        fail             the same, and while that region is known to be out of
 *                                         reach, at once, before it is taken
 *                        degrade          it is receipted as durable in the active region alone
 *   region.wait_ms       10..60000        2000: how long "in time" is
 *   region.stop_after_s  0..86400         0: while the other region is out of reach, the active one
 *                                         goes on; else it takes nothing more after so long
 *   ingest.paused        0 | 1            0: 1: no node takes events, for as long as an operator
 * says source.<network>     allow | deny     not listed limit.source_per_s   0..10000000      0:
 * datagrams a second of one source; 0 is no limit limit.source_burst   1..10000000      1000
 *   limit.syn_per_s      0..1000000       0: TCP connections (SYN) a second of one source
 *   limit.syn_burst      1..1000000       100
 *   shadow.<key>         as <key>         changes to class, admit, source and limit that are not in
 *                                         force, but can be tried beside what is; shadow.source
 *                                         also takes none: as if not listed
 *   shadow               promote          puts all of these in force at once
 *                        discard          drops them
 *
 * <type> is trade, quote, orderbook, a name from type.<name>, or a number 64..127. <network> is an
 * IPv4 or IPv6 address with or without /bits; of those that hold a source the one with most bits
 * counts, and an IPv6 network holds no IPv4 source. At most SETTINGS_SOURCES_MAX networks are
 * listed, those of the shadow included.
 *
 * An empty value takes a setting back to its default, and one of the shadow out of it; taking back
 * type.<name> leaves the number's class and admit.
 *
 * Thread:  plain data: copy it to hand it over. Pure and deterministic: the same settings in the
 *          same order give the same bytes on every node.
 * Memory:  the caller's; some 18 KB.
 * Errors:  -EINVAL and a sentence, without a final dot.
 */
#ifndef SLUICE_BASE_SETTINGS_H
#define SLUICE_BASE_SETTINGS_H

#include <stdbool.h>
#include <stdint.h>

#define SETTINGS_TYPES       128u
#define SETTINGS_CUSTOM_MIN  64u
#define SETTINGS_NAME_BYTES  32u /* of a type, with its NUL */
#define SETTINGS_KEY_BYTES   64u /* Setting.key of proto/entry.options, with its NUL */
#define SETTINGS_VALUE_BYTES 128u
#define SETTINGS_ERROR_BYTES 448u
#define SETTINGS_CLASSES     4u
#define SETTINGS_SOURCES_MAX 256u
#define SETTINGS_LIMITS      4u

enum settings_durability { SETTINGS_QUORUM, SETTINGS_REGION };
enum settings_unreachable { SETTINGS_REGION_WAIT, SETTINGS_REGION_FAIL, SETTINGS_REGION_DEGRADE };
enum settings_action { SETTINGS_ACCEPT, SETTINGS_DROP, SETTINGS_SAMPLE, SETTINGS_RATE };
enum settings_source_verdict { SETTINGS_SOURCE_NONE, SETTINGS_SOURCE_ALLOW, SETTINGS_SOURCE_DENY };

struct settings_admit {
    uint8_t action; /* enum settings_action */
    uint8_t class;
    uint8_t zero[2];
    uint32_t number; /* SAMPLE: one in number; RATE: events a second */
    uint32_t burst;  /* RATE: events */
};

struct settings_source {
    uint8_t ip[16];  /* IPv4 as a mapped address */
    uint8_t bits;    /* of the 128 */
    uint8_t verdict; /* enum settings_source_verdict */
    uint8_t zero[2];
};

/* What is applied before and after an event is decoded, by the kernel's program and the workers. */
struct settings_policy {
    struct settings_admit type[SETTINGS_TYPES];
    uint32_t source_per_s, source_burst; /* datagrams of one source; 0: no limit */
    uint32_t syn_per_s, syn_burst;       /* TCP connections (SYN) of one source; 0: no limit */
    uint32_t sources; /* source[0..sources), sorted by (ip, bits), no two alike */
    struct settings_source source[SETTINGS_SOURCES_MAX];
};

/* The shadow: changes to a policy. Whatever is not set is zero. */
struct settings_overlay {
    uint8_t admit[SETTINGS_TYPES]; /* 1: set, in value.type[].action, number and burst */
    uint8_t class[SETTINGS_TYPES]; /* 1: set, in value.type[].class */
    uint8_t limit[SETTINGS_LIMITS];
    struct settings_policy value; /* a source of verdict NONE is to be as if not listed */
};

struct settings {
    uint8_t known[SETTINGS_TYPES];      /* 1: built in, or named; an unknown type is never taken */
    uint8_t durability[SETTINGS_TYPES]; /* enum settings_durability: its floor */
    char name[SETTINGS_TYPES][SETTINGS_NAME_BYTES];
    uint64_t skew_past_ms;
    uint64_t skew_future_ms;
    uint32_t event_bytes_max;
    uint32_t region_unreachable; /* enum settings_unreachable */
    uint32_t region_wait_ms;
    uint32_t region_stop_after_s; /* 0: never */
    uint32_t ingest_paused;       /* 1: nothing is taken */
    struct settings_policy policy;
    struct settings_overlay shadow;
};
_Static_assert(sizeof(struct settings_admit) == 12 && sizeof(struct settings_source) == 20 &&
                   sizeof(struct settings_policy) ==
                       SETTINGS_TYPES * 12 + 20 + SETTINGS_SOURCES_MAX * 20 &&
                   sizeof(struct settings_overlay) ==
                       2 * SETTINGS_TYPES + SETTINGS_LIMITS + sizeof(struct settings_policy) &&
                   sizeof(struct settings) == SETTINGS_TYPES * (2 + SETTINGS_NAME_BYTES) + 36 +
                                                  sizeof(struct settings_policy) +
                                                  sizeof(struct settings_overlay),
               "no padding: compared as bytes");

void settings_init(struct settings *s);

/* Would this change be taken, given s? Returns 0, or -EINVAL and a sentence. */
int settings_check(const struct settings *s, const char *key, const char *value,
                   char error[SETTINGS_ERROR_BYTES]);

/* Makes the change. Returns 0, or -EINVAL and then changes nothing. */
int settings_apply(struct settings *s, const char *key, const char *value);

/* The policy as it would be with the shadow's changes; false when the shadow has none. */
bool settings_shadow(const struct settings *s, struct settings_policy *ret);

/* One line of `sluice config list`. */
struct setting_line {
    char key[SETTINGS_KEY_BYTES];
    char value[SETTINGS_VALUE_BYTES];
    char value_default[SETTINGS_VALUE_BYTES]; /* "" where there is a line only for what is set */
};

/* 67 types: the built-in ones and those from SETTINGS_CUSTOM_MIN on. A network may be both in force
 * and in the shadow. */
#define SETTINGS_TYPES_SET (3u + SETTINGS_TYPES - SETTINGS_CUSTOM_MIN)
#define SETTINGS_LINES_MAX                                                                         \
    ((SETTINGS_TYPES - SETTINGS_CUSTOM_MIN) + 7u + SETTINGS_TYPES_SET +                            \
     2u * (2u * SETTINGS_TYPES_SET + SETTINGS_LIMITS + SETTINGS_SOURCES_MAX))

/* Calls line() for every known key, in the order of the table above, then by type number or
 * network: at most SETTINGS_LINES_MAX lines. Custom types without a name are listed when off their
 * defaults, of sources and of the shadow only what is set. Applied in that order to fresh settings,
 * the lines make the same settings again. */
void settings_list(const struct settings *s,
                   void (*line)(void *arg, const struct setting_line *line), void *arg);

/* The number of a type by its name or its digits; -ENOENT when it is none that s knows. */
int settings_type(const struct settings *s, const char *name);

#endif
