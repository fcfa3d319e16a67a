/*
 * send.h - `sluice send`, and what its parts share.
 *
 * send.c         options, the loop that paces, the summary
 * send_events.c  where events come from: JSON lines, CSV, the generator
 * send_tcp.c     libsluice
 * send_udp.c     datagrams, sendmmsg
 */
#ifndef SLUICE_CLI_SEND_H
#define SLUICE_CLI_SEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include "base/tls.h"
#include "cli/event_form.h"
#include "cli/generate.h"
#include "cli/histogram.h"
#include "cli/read_csv.h"
#include "cli/read_json.h"

#define SEND_BATCH_EVENTS_MAX 1000u
#define SEND_BATCH_BYTES_MAX                                                                       \
    61440u /* of events; the frame that servers take by default is 64 KiB */
#define SEND_EVENT_BYTES_MAX 24576u
#define SEND_REASONS         128u
#define SEND_ID_BYTES_MAX    64u

enum send_exit {
    SEND_OK = 0,
    SEND_SOME_REFUSED = 1,
    SEND_USAGE = 2,
    SEND_UNREACHABLE = 3,
    SEND_BAD_INPUT = 4,
};

enum send_from { SEND_FROM_NONE, SEND_FROM_JSON, SEND_FROM_CSV, SEND_FROM_GENERATOR };

struct send_options {
    enum send_from from;
    const char *file;
    struct generate_options generate;
    uint64_t count, start; /* count 0: all */
    const char *address, *source, *producer, *receipts_file, *token_file;
    struct tls_files tls; /* TCP; all of them, or NULL */
    bool udp, udp_receipts, now, allow_missing_ids, skip_bad, json_summary, quiet, text_ids;
    double rate; /* events a second; 0: as fast as it goes */
    uint32_t batch, datagram_bytes, requests_in_flight;
    double connect_timeout_s, give_up_s, wait_s, retry_s;
    int durability; /* enum sluice_durability; TCP */
};

struct send_totals {
    uint64_t events, batches, bytes; /* given to the client or the socket */
    uint64_t answered, accepted, duplicates, refused, unanswered, unsent;
    uint64_t truncated; /* UDP receipts that only counted */
    uint64_t degraded;  /* of accepted and duplicates: not durable in the other region */
    uint64_t lines_bad;
    uint64_t by_reason[SEND_REASONS]; /* larger ones count in the last */
    struct histogram latency_ns;      /* of batches */
};

/* A batch being filled: serialized events one after the other, and their ids. */
struct send_batch {
    size_t n, bytes;
    const void *event[SEND_BATCH_EVENTS_MAX];
    size_t event_bytes[SEND_BATCH_EVENTS_MAX];
    uint8_t id_bytes[SEND_BATCH_EVENTS_MAX];
    uint8_t id[SEND_BATCH_EVENTS_MAX][SEND_ID_BYTES_MAX];
    uint64_t due_ns; /* monotonic: when it should leave */
    uint8_t data[SEND_BATCH_BYTES_MAX + SEND_EVENT_BYTES_MAX];
};

/* --- send_events.c --- */
struct send_events {
    const struct send_options *options;
    FILE *file;
    struct form form;
    struct read_json json;
    struct read_csv csv;
    struct generate *generate;
    uint64_t next;
    char error[512];
};
/* 0, or an enum send_exit after saying why on stderr. send_events_close() is due in any case. */
int send_events_open(struct send_events *e, const struct send_options *o);
void send_events_close(struct send_events *e);
/* Appends one event: 1; 0: no more; -EINVAL: a bad line, e->error; another error, e->error. */
int send_events_next(struct send_events *e, struct send_batch *batch);

/* --- the two ways; both return 0 or an enum send_exit after saying why on stderr --- */
struct send_tcp;
int send_tcp_open(struct send_tcp **ret, const struct send_options *o);
int send_tcp_batch(struct send_tcp *t, const struct send_batch *batch);
/* Waits for what has no receipt yet and closes the connection; then the totals are final. */
int send_tcp_finish(struct send_tcp *t);
void send_tcp_totals(struct send_tcp *t, struct send_totals *ret);
void send_tcp_close(struct send_tcp *t);

struct send_udp;
int send_udp_open(struct send_udp **ret, const struct send_options *o);
int send_udp_batch(struct send_udp *u, const struct send_batch *batch);
/* Sends what is held back to fill a sendmmsg(). */
int send_udp_flush(struct send_udp *u);
int send_udp_finish(struct send_udp *u);
void send_udp_totals(struct send_udp *u, struct send_totals *ret);
void send_udp_close(struct send_udp *u);

/* True after the first interrupt: stop sending, say what happened. */
bool send_is_interrupted(void);

int send_main(int argc, char **argv);

#endif
