/*
 * generate.h - market data that looks like market data.
 *
 * Symbols whose prices wander, quotes around the price, trades at bid or ask, order books below and
 * above; venues, sale conditions, sequence numbers, now and then attributes. Event n is a function
 * of the options and n alone (its time too, when options.time_from_ns is set), so that a run can be
 * repeated from any n with the same bytes under the same ids.
 * Thread:  one generator, one thread.
 * Memory:  one decoded event; nothing is allocated per event.
 * Errors:  -EINVAL: options that cannot be; -EMSGSIZE: an event cannot have options.event_bytes.
 */
#ifndef SLUICE_CLI_GENERATE_H
#define SLUICE_CLI_GENERATE_H

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define GENERATE_EVENT_BYTES_MAX 16600u /* a custom event with the longest body */
#define GENERATE_SYMBOLS_MAX     10000u
#define GENERATE_ID_BYTES_MAX    40u

struct generate_options {
    const char *source; /* at most 64 bytes */
    uint64_t seed;
    uint64_t run;          /* part of every id: "<run in hex>-<n>" */
    uint64_t time_from_ns; /* 0: now; else event n is at time_from_ns + n microseconds */
    uint32_t event_bytes;  /* 0: as they come; else every event is exactly so long */
    uint32_t symbols;      /* 1 to GENERATE_SYMBOLS_MAX */
    uint32_t trades, quotes, books, customs; /* the mix, as shares of their sum */
    uint32_t custom_type;                    /* 64 to 127 */
    int without_ids;
};

/* The defaults: source "generate", 100 symbols, 30 trades to 60 quotes to 10 books. */
void generate_options_init(struct generate_options *o);
/* Reads "trade:3,quote:6,book:1,custom:1" into o's mix; what is not named gets no share. */
int generate_parse_mix(struct generate_options *o, const char *text);

struct generate;

int generate_open(struct generate **ret, const struct generate_options *options);
void generate_close(struct generate *g);
/* Event n, serialized: how many bytes. buf has GENERATE_EVENT_BYTES_MAX bytes of room. */
ssize_t generate_event(struct generate *g, uint64_t n, uint8_t *buf);
/* The id of event n, terminated; returns its length. */
size_t generate_id(const struct generate *g, uint64_t n, char ret[GENERATE_ID_BYTES_MAX]);

#endif
