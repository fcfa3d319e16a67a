/*
 * sluice.h - libsluice: send events to Sluice over TCP and learn what became of each.
 *
 * A client owns one thread, which connects, sends, receives receipts, and after a broken connection
 * connects again (with back-off, through the given addresses in turn) and sends again what has no
 * receipt yet, with the same ids: Sluice answers what it already has as a duplicate, so nothing is
 * lost and nothing is there twice. Events without an id cannot be recognised that way; the client
 * refuses them unless options.allow_missing_ids is set.
 *
 * Functions return 0 or a negative errno. C and C++.
 */
#ifndef SLUICE_H
#define SLUICE_H

#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#define SLUICE_VERSION "0.1.0"

struct sluice_client;

/* What became of one event of a batch. Numbers are sluice.v1.Reason; 0 is accepted. */
struct sluice_outcome {
    uint32_t reason; /* 0 accepted, 100 duplicate (index/slot are the first one's), else refused */
    uint32_t slot;
    uint64_t index;    /* log index of its block; 0 when refused */
    const uint8_t *id; /* the id that was assigned, or NULL; valid during the callback */
    size_t id_bytes;
};

struct sluice_receipt {
    uint64_t request; /* what sluice_send() returned */
    void *user;       /* what was given to sluice_send() */
    int status;       /* 0: decided by the server, outcomes are valid; -ECANCELED: closed before an
                       * answer came (fate unknown); -EPROTO, -EACCES, ...: refused for good */
    uint64_t epoch, term;
    size_t outcomes;
    const struct sluice_outcome *outcome; /* by position in the batch; valid during the callback */
    uint64_t latency_ns;                  /* from the first time it was sent */
    uint32_t attempts;                    /* times it was sent */
};

/* Runs on the client's thread; must not call sluice_close(). */
typedef void (*sluice_receipt_fn)(void *arg, const struct sluice_receipt *receipt);
/* Connected, lost, refused; one sentence. May be NULL. */
typedef void (*sluice_state_fn)(void *arg, int connected, const char *sentence);

struct sluice_options {
    const char
        *addresses;       /* "host:port[,host:port...]"; IPv6 in brackets; default 127.0.0.1:7400 */
    const char *producer; /* at most 64 bytes; may be NULL */
    const uint8_t *token; /* may be NULL */
    size_t token_bytes;
    uint32_t requests_in_flight_max; /* default 64; sluice_send() then waits or says -EAGAIN */
    uint64_t bytes_in_flight_max;    /* default 16 MiB */
    uint32_t connect_timeout_ms;     /* default 3000 */
    uint32_t receipt_timeout_ms;     /* no receipt for so long: connect again; default 10000 */
    uint32_t backoff_ms_max;         /* default 2000 */
    int allow_missing_ids;
    sluice_receipt_fn on_receipt;
    sluice_state_fn on_state;
    void *arg;
};

/* Fills in the defaults. */
void sluice_options_init(struct sluice_options *o);

/* Starts the client's thread; does not wait for the connection. Copies what options points to. */
int sluice_open(struct sluice_client **ret, const struct sluice_options *options);

/* Queues a batch: n serialized sluice.v1.Event messages. Copies them. Waits while the limits in
 * flight are reached, at most timeout_ms (-1: for ever, 0: -EAGAIN at once). ret_request may be
 * NULL. -EMSGSIZE: larger than a frame or batch may be; -EINVAL: an event without type or source,
 * or without id. */
int sluice_send(struct sluice_client *c, const void *const *event, const size_t *event_bytes,
                size_t n, void *user, int timeout_ms, uint64_t *ret_request);

/* Waits until everything sent has been answered. 0, or -ETIMEDOUT. */
int sluice_flush(struct sluice_client *c, int timeout_ms);

struct sluice_stats {
    uint64_t requests, receipts, events_accepted, events_duplicate, events_refused;
    uint64_t connects, disconnects, resent, in_flight, bytes_sent;
};
void sluice_stats(struct sluice_client *c, struct sluice_stats *ret);

/* Ends the thread. What has no receipt yet gets its callback with -ECANCELED. Safe on NULL. */
void sluice_close(struct sluice_client *c);

#ifdef __cplusplus
}
#endif

#endif
