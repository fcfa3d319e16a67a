/*
 * sluice.h - libsluice: send events to Sluice over TCP and learn what became of each.
 *
 * A client owns one thread, which connects, sends, receives receipts, and after a broken connection
 * connects again (with back-off, through the given addresses in turn) and sends again what has no
 * receipt yet, with the same ids: Sluice answers what it already has as a duplicate, so nothing is
 * lost and nothing is there twice. Events without an id cannot be recognised that way; the client
 * refuses them unless options.allow_missing_ids is set.
 *
 * Events that the server cannot take now (NOT_LEADER, OVERLOADED, STOPPING, PAUSED), or that are
 * not durable in the other region in time (REGION_UNREACHABLE), are sent again, after a pause,
 * until retry_ms_max has passed since they were first sent; only then the refusal is reported. So
 * while a cluster elects, nobody is told of it. What of such a batch was decided before is reported
 * as it was decided then. With retry_ms_max = 0 every receipt is passed on as the server gave it,
 * for who knows better whether an old quote is still worth sending. DISK_FULL and STAGE_TIMEOUT are
 * reported in any case: they are transient, too (sluice_reason_is_transient()), but ask for more
 * patience. To try again, send the same bytes with the same id in a new batch; that never makes a
 * second copy.
 *
 * With ca, cert and key the connection is mutual TLS 1.3: the server must be a node with a
 * certificate of that CA, whatever its host is called, and ours must be a producer's, an admin's or
 * a node's.
 *
 * What ends in a new connection, and nobody has to know of: a connection that is refused, breaks,
 * stays silent for receipt_timeout_ms or sends what is not protocol, and a server that has too many
 * connections or is stopping. What ends the client for good: an error frame that says that the
 * token, the certificate or the protocol is wrong (-EACCES, -EPROTO), or that at none of the
 * addresses one side takes the other's certificate (-EACCES); all that waits gets its callback with
 * that status, and so does every later sluice_send().
 *
 * Functions return 0 or a negative errno. They may be called from any number of threads at once,
 * sluice_send() and sluice_stats() also from the callbacks, where sluice_send() never waits.
 * C and C++. Link with -lsluice -lprotobuf-nanopb -lssl -lcrypto -lpthread.
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

/* Where events are durable. Numbers are sluice.v1.Durability. */
enum sluice_durability {
    SLUICE_TYPES_FLOOR = 0, /* as the settings say for the events' types */
    SLUICE_QUORUM = 1,      /* on a majority of the active region's nodes */
    SLUICE_REGION = 2,      /* on a majority of the other region's, too: survives the loss of
                             * either */
    SLUICE_DEGRADED = 3,    /* in receipts: as SLUICE_QUORUM, where more was wanted; the other
                             * region did not confirm, and the settings say to go on */
};

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
    int status; /* 0: decided by the server, outcomes are valid. Else there are no outcomes, and
                 * what was sent before (attempts > 0) may or may not have been accepted:
                 * -ECANCELED: closed before an answer came; -EPROTO, -EACCES: the client was
                 * refused for good; -EMSGSIZE: more than the server now connected takes */
    uint64_t epoch, term;
    int durability; /* enum sluice_durability: of what is accepted or a duplicate; 0: nothing is */
    size_t outcomes;
    const struct sluice_outcome *outcome; /* by position in the batch; valid during the callback */
    uint64_t latency_ns;                  /* from the first time it was sent */
    uint32_t attempts;                    /* times it was sent */
};

/* Once for every batch that sluice_send() took, in the order of the answers. Runs on the client's
 * thread, which sends and receives nothing meanwhile; must not call sluice_close() or
 * sluice_flush(). */
typedef void (*sluice_receipt_fn)(void *arg, const struct sluice_receipt *receipt);
/* Connected, lost, refused; one sentence. May be NULL. On the client's thread, except for what
 * sluice_open() has to say of the files for TLS. */
typedef void (*sluice_state_fn)(void *arg, int connected, const char *sentence);

struct sluice_options {
    const char *addresses;       /* "host:port[,...]"; IPv6 in brackets; default 127.0.0.1:7400 */
    const char *producer;        /* at most 64 bytes; may be NULL */
    const uint8_t *token;        /* may be NULL */
    size_t token_bytes;          /* at most 512 */
    const char *ca, *cert, *key; /* PEM files, as `sluice cert` makes them: all three, or no TLS */
    uint32_t requests_in_flight_max; /* default 64; sluice_send() then waits or says -EAGAIN */
    uint64_t bytes_in_flight_max;    /* default 16 MiB */
    uint32_t connect_timeout_ms;     /* default 3000 */
    uint32_t receipt_timeout_ms;     /* no receipt for so long while one is due, or one request
                                      * four times so long: connect again; default 10000 */
    uint32_t backoff_ms_max;         /* default 2000 */
    uint32_t retry_ms_max;           /* default 30000; 0: refusals are reported at once */
    int durability;                  /* enum sluice_durability, but for DEGRADED: what receipts wait
                                      * for; default: the types' floors */
    int allow_missing_ids;
    sluice_receipt_fn on_receipt;
    sluice_state_fn on_state;
    void *arg;
};

/* Fills in the defaults. */
void sluice_options_init(struct sluice_options *o);

/* Starts the client's thread; does not wait for the connection. Copies what options points to.
 * -EINVAL: an address, a length or a durability that cannot be, no on_receipt, or some of ca, cert
 * and key alone. What is wrong with those files is told to on_state first; they are read here,
 * once. */
int sluice_open(struct sluice_client **ret, const struct sluice_options *options);

/* Queues a batch: n (>= 1) serialized sluice.v1.Event messages. Copies them. Waits while the limits
 * in flight are reached, at most timeout_ms (-1: for ever; -EAGAIN when there is still no room,
 * with 0 at once). ret_request may be NULL. -EMSGSIZE: larger than a frame, a batch or
 * bytes_in_flight_max may be; -EINVAL: not an Event, or one without type, source or id; -ECANCELED:
 * being closed; -EACCES, -EPROTO: see above. The callback may run before this returns. */
int sluice_send(struct sluice_client *c, const void *const *event, const size_t *event_bytes,
                size_t n, void *user, int timeout_ms, uint64_t *ret_request);

/* Waits until everything sent has been answered and its callback has returned. 0, -ETIMEDOUT,
 * -ECANCELED (being closed), or -EDEADLK when called from a callback. */
int sluice_flush(struct sluice_client *c, int timeout_ms);

struct sluice_stats {
    uint64_t requests, receipts, events_accepted, events_duplicate, events_refused;
    uint64_t connects, disconnects, resent, in_flight, bytes_sent;
    uint64_t receipts_unknown; /* for no request that waits: ignored */
};
void sluice_stats(struct sluice_client *c, struct sluice_stats *ret);

/* The name of a reason as sluice.v1.Reason spells it ("ID_CONFLICT"); "UNKNOWN" for a newer one. */
const char *sluice_reason_name(uint32_t reason);
/* 1 if the same event may be accepted when it is sent again later. */
int sluice_reason_is_transient(uint32_t reason);

/* Ends the thread. What has no receipt yet gets its callback with -ECANCELED, callers that wait
 * return it. May take as long as a name look-up or a callback that is running. Safe on NULL. */
void sluice_close(struct sluice_client *c);

#ifdef __cplusplus
}
#endif

#endif
