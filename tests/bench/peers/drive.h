/*
 * drive.h - one load for the programs that Sluice is compared with: messages on several
 * connections, so many of them in flight at most, each to be answered; a closed loop, or an open
 * one. What tests/lib/lane.h is for Sluice; the messages here are numbered and may be answered in
 * any order.
 *
 * Output, and nothing else on stdout, one line: `events/s messages p50-us p99-us`; of a closed loop
 * the times are those from the sending.
 *
 * Thread:  one.
 * Errors:  a sentence on stderr, and exit(1). A message that is not answered in a while is one.
 */
#ifndef SLUICE_TESTS_DRIVE_H
#define SLUICE_TESTS_DRIVE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define DRIVE_CONNECTIONS_MAX 64u

struct drive_options {
    bool paced;
    unsigned connections, window; /* messages in flight on each */
    unsigned events;              /* of DRIVE_EVENT_BYTES in a message */
    double seconds;
    uint64_t per_s; /* messages, of all connections; paced */
    uint16_t port[3];
};

#define DRIVE_EVENT_BYTES 128u

struct drive_connection {
    int fd;
    void *state;                  /* the program's */
    uint64_t sent, low, answered; /* how many; below `low` all are answered */
    uint64_t *due_ns;             /* [window] */
    bool *done;                   /* [window] */
    uint8_t *out, *in;
    size_t out_at, out_n, out_cap, in_n;
};

struct drive_program {
    /* Appends message number n of this connection to what is to be sent, by drive_put(). */
    void (*put)(struct drive_connection *c, uint64_t n);
    /* Takes whole answers from the front of data, calls drive_answered() for each, returns the
     * bytes taken. */
    size_t (*take)(struct drive_connection *c, const uint8_t *data, size_t bytes);
};

__attribute__((noreturn, format(printf, 1, 2))) void drive_fail(const char *format, ...);
/* rate|latency PORT PORT PORT CONNECTIONS WINDOW EVENTS SECONDS [PER_S] */
void drive_options(struct drive_options *ret, int argc, char **argv);
/* A connected socket. */
int drive_dial(uint16_t port);
/* Random bytes, which do not compress, for an event. */
void drive_payload(uint8_t *buf, size_t bytes);

void drive_put(struct drive_connection *c, const void *data, size_t bytes);
void drive_answered(struct drive_connection *c, uint64_t n);
/* Runs the load over connections whose fd and state are set; returns the messages answered, which
 * are all that were sent, and prints the line. */
uint64_t drive_run(const struct drive_options *o, const struct drive_program *p,
                   struct drive_connection *c);

#endif
