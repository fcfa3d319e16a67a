/*
 * admin.h - the admin server: what the CLI asks (proto/admin.proto), over a Unix stream socket and,
 * for other machines, over mutual TLS.
 *
 * The socket belongs to the daemon's user alone, and the peer's credentials are checked again when
 * it is accepted. Over TLS an admin may ask for all, a reader only what reads (remote_may()), and
 * others get a sentence for each request. It knows the daemon only through struct admin_source.
 *
 * Thread:  one, poll(); struct admin_source's functions run on it and may wait for other threads.
 *          A turn does a bounded piece of work for each connection: one request, a few records of
 *          its tail, or a few samples of its tap.
 * Memory:  per connection an input buffer of one request and an output buffer of ADMIN_OUT_BYTES.
 * Limits:  connections_max, of which half may come over TLS, so that the socket always has room; of
 *          those whoever is not known yet gives its place to the next. Request and response sizes
 * of base/admin_frame.h. A connection whose output is not read is not worked for: a slow tail is
 * paused and continues where it was, the log holds what it has not seen. A slow tap loses samples.
 * One tap at a time. Errors:  bad input gets one AdminResponse with a sentence, then the connection
 * is closed.
 */
#ifndef SLUICE_SERVE_ADMIN_H
#define SLUICE_SERVE_ADMIN_H

#include <netinet/in.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/types.h>

#include "base/admin_frame.h"
#include "base/tls.h"
#include "base/wake.h"
#include "cluster/log.h"
#include "proto/admin.pb.h"

#define ADMIN_OPEN_ERROR_BYTES 256u
#define ADMIN_CONNECTIONS_MAX  1024u

/* A committed record. The payload is the source's, until the next read(). */
struct admin_record {
    struct log_record record;
    const void *payload;
};

struct admin_place {
    uint64_t index;
    uint32_t slot;
};

/* Takes one setting; nonzero ends the listing. */
typedef int (*admin_setting_fn)(void *arg, const sluice_v1_SettingEntry *entry);

/* Who asks. */
struct admin_asker {
    uint32_t uid;                      /* by the socket; else nobody's */
    char name[CERTIFICATE_NAME_BYTES]; /* over TLS; else "" */
};

union admin_operation_answer {
    sluice_v1_ClusterStatusResponse status;
    sluice_v1_ClusterDone done;
    sluice_v1_ReadPoint read_point;
    sluice_v1_SettingEntry setting;
};

/* What the server asks the daemon; on the server's thread, but operate(). Every function must be
 * there. */
struct admin_source {
    void *arg;

    /* Fill in a zeroed message. */
    void (*status)(void *arg, sluice_v1_StatusResponse *ret);
    void (*ledger)(void *arg, sluice_v1_LedgerResponse *ret);

    /* Where is the event (source, id)? 0, -ENOENT, or another negative errno. */
    int (*find)(void *arg, const char *source, const void *id, size_t id_bytes,
                struct admin_place *ret);

    /* The record at index, checked. 0; -EAGAIN above the commit index, -ENOENT below the first
     * index, another negative errno when it cannot be read. */
    int (*read)(void *arg, uint64_t index, struct admin_record *ret);
    uint64_t (*first_index)(void *arg);
    uint64_t (*commit_index)(void *arg);
    /* Another number once what was read may be in the log no more (cluster_history()). */
    uint64_t (*history)(void *arg);

    /* From watch() on, w is woken whenever the commit index moves. 0 or a negative errno. */
    int (*watch)(void *arg, struct wake *w);
    void (*unwatch)(void *arg, struct wake *w);

    /* Calls each() for every setting in force, or for every change, oldest first. Returns 0, a
     * negative errno, or what each() returned. */
    int (*settings)(void *arg, bool history, admin_setting_fn each, void *each_arg);

    /* Writes the effective configuration as text or JSON. 0 or a negative errno. */
    int (*config)(void *arg, bool json, FILE *f);

    /* Fills in a zeroed message; the sources, which may take long, only when asked. */
    void (*xdp_status)(void *arg, bool sources, sluice_v1_XdpStatusResponse *ret);
    /* What would become of the datagram; request->from is any text. Fills in a zeroed message: 0,
     * or a negative errno with a sentence in error. */
    int (*policy_test)(void *arg, const sluice_v1_PolicyTestRequest *request,
                       sluice_v1_PolicyTestResponse *ret, char error[ADMIN_ERROR_BYTES]);

    /* Begins to sample; never while a tap is open. The reasons are any texts. 0, or a negative
     * errno with a sentence in error; then there is nothing to stop. */
    int (*tap_start)(void *arg, const sluice_v1_TapRequest *request, char error[ADMIN_ERROR_BYTES]);
    /* Fills in a zeroed message, without waiting: 1; 0: there is none now; a negative errno: the
     * tap cannot go on, and is stopped. */
    int (*tap_next)(void *arg, sluice_v1_TapSample *ret);
    void (*tap_stop)(void *arg);

    /* What may take long, since it asks other nodes: setting_set, cluster_status, cluster_init,
     * cluster_change, read_point. On a thread of its own, several at a time. Fills in the request's
     * member of a zeroed answer: 0, or a negative errno with a sentence in error. */
    int (*operate)(void *arg, const struct admin_request *request, const struct admin_asker *asker,
                   union admin_operation_answer *ret, char error[ADMIN_ERROR_BYTES]);
};

struct admin_config {
    const char *path;
    /* May this uid administer? */
    bool (*allows)(void *arg, uid_t uid);
    void *allows_arg;
    bool shared;              /* allows() admits uids beside root and ours: mode 0666, not 0600 */
    unsigned connections_max; /* 0: 32 */
    uint32_t request_ms_max;  /* a request that has begun must be complete by then; 0: 5000 */
    uint32_t output_ms_max;   /* nothing read for so long: closed (a tap, not a tail); 0: 30000 */
    uint32_t idle_ms_max;     /* without a request; 0: 300000 */
    struct tls_context *tls;  /* NULL: the socket alone. Borrowed until admin_close() */
    struct in6_addr ip;       /* where TLS is listened for; IPv4 as a mapped address */
    uint16_t port;            /* 0: any, see admin_port() */
};

struct admin;

/* Binds the socket. A socket that a dead daemon has left is removed when nobody answers on it.
 * Copies config and source. Returns 0 or a negative errno (-EADDRINUSE: a daemon answers there;
 * -EEXIST: path is something else than a socket) with a sentence. */
int admin_open(struct admin **ret, const struct admin_config *config,
               const struct admin_source *source, char error[ADMIN_OPEN_ERROR_BYTES]);

/* Starts the thread. 0 or a negative errno. */
int admin_start(struct admin *a);

/* One turn of the thread, for whoever has not started it: waits at most timeout_ms (-1: until
 * something happens). Returns the number of things done. */
int admin_do_work(struct admin *a, int timeout_ms);

/* Ends the thread, closes all connections, removes the socket. Waits for operate() to return. Safe
 * on NULL. */
void admin_close(struct admin *a);

/* Where TLS is listened for; 0: nowhere. */
uint16_t admin_port(const struct admin *a);

/* Any thread. */
unsigned admin_connections(const struct admin *a);

#endif
