/*
 * admin_connection.h - one connection of the admin server; for serve/admin*.c and its fuzzer only.
 *
 * Bytes come in with connection_read(), requests are answered into the output buffer by
 * connection_work(), and connection_flush() writes it out. Only read and flush touch the socket.
 *
 * Thread:  the server's.
 * Memory:  both buffers are allocated with the connection.
 */
#ifndef SLUICE_SERVE_ADMIN_CONNECTION_H
#define SLUICE_SERVE_ADMIN_CONNECTION_H

#include <assert.h>

#include "cluster/block.h"
#include "serve/admin.h"

#define ADMIN_UID_NOBODY UINT32_MAX

/* Nothing more is produced for a connection with so much output waiting ... */
#define ADMIN_OUT_HIGH_BYTES (256u * 1024u)
/* ... and so no single piece of work overflows this. */
#define ADMIN_OUT_BYTES (ADMIN_OUT_HIGH_BYTES + ADMIN_RESPONSE_BYTES_MAX + ADMIN_DELIMITER_MAX)
#define ADMIN_IN_BYTES  (ADMIN_REQUEST_BYTES_MAX + ADMIN_DELIMITER_MAX)
/* What an event in a response takes beside its stored bytes: enrichment and five heads. */
#define ADMIN_EVENT_EXTRA 152u

/* A tail works through whole blocks. */
_Static_assert(BLOCK_PAYLOAD_MAX + BLOCK_EVENTS_MAX * (ADMIN_EVENT_EXTRA - 40u) <=
                   ADMIN_OUT_BYTES - ADMIN_OUT_HIGH_BYTES,
               "a block's descriptors, 40 bytes each, are not sent");

/* What a connection waits for, which says how long it may. */
enum connection_state { CONNECTION_IDLE, CONNECTION_REQUEST, CONNECTION_OUTPUT, CONNECTION_TAIL };

struct admin_tap {
    bool on;
    uint64_t next_ns; /* when the source is asked for samples again; monotonic */
    uint64_t left;    /* samples to send; UINT64_MAX: no limit */
};

struct admin_tail {
    bool on;
    uint64_t next;    /* index to read */
    uint64_t last;    /* UINT64_MAX: follows */
    uint64_t sent;    /* events */
    uint64_t history; /* of the log, when it began */
    uint32_t symbol_hash;
    size_t source_bytes, symbol_bytes;
    sluice_v1_TailRequest request;
};

struct admin_connection {
    int fd;                     /* -1: none (fuzzer) */
    struct tls *tls;            /* NULL: by the socket */
    uid_t uid;                  /* by the socket; else nobody's */
    enum certificate_role role; /* over TLS, once it is ready */
    char name[CERTIFICATE_NAME_BYTES];
    enum connection_state state;
    uint64_t since_ns; /* when state began, or its last output was taken; monotonic */
    bool eof;          /* the peer sends no more */
    bool closing;      /* close when the output is out */
    bool broken;       /* close now */
    size_t in_bytes, out_at, out_bytes; /* out: [out_at, out_bytes) waits */
    struct admin_tail tail;
    struct admin_tap tap;
    struct admin_operation *operation; /* whose end it waits for; NULL: none */
    uint8_t *in, *out;
};

#define ADMIN_OPERATIONS_MAX 8u

struct admin_operation;

/* What serve/admin.c shares with the files that answer. */
struct admin_answerer {
    struct admin_source source;
    struct wake *wake; /* the server's, when an operation has ended */
    struct admin_operation *operation[ADMIN_OPERATIONS_MAX]; /* NULL: a free place */
    struct admin_connection *tap; /* the one that has the tap; NULL: nobody */
    union {
        sluice_v1_StatusResponse status;
        sluice_v1_LedgerResponse ledger;
        sluice_v1_XdpStatusResponse xdp_status;
        sluice_v1_PolicyTestResponse policy_test;
        sluice_v1_TapSample tap_sample;
    } scratch;
};

/* Takes fd. Returns 0 or -ENOMEM (fd then stays the caller's). */
int connection_open(struct admin_connection **ret, int fd, uid_t uid, uint64_t now_ns);
void connection_close(struct admin_connection *c);

static inline size_t connection_pending(const struct admin_connection *c)
{
    return c->out_bytes - c->out_at;
}

/* Is there room for the answer of another piece of work? */
static inline bool connection_has_room(const struct admin_connection *c)
{
    return connection_pending(c) < ADMIN_OUT_HIGH_BYTES;
}

/* Is it known who it is? */
static inline bool connection_is_known(const struct admin_connection *c)
{
    return c->tls == NULL || tls_is_ready(c->tls);
}

/* Would connection_work() do anything now? commit: the source's commit index. */
bool connection_runnable(const struct admin_connection *c, uint64_t commit, uint64_t now_ns);

/* Does it want to read? */
static inline bool connection_wants_input(const struct admin_connection *c)
{
    return !c->eof && !c->closing && !c->tail.on && !c->tap.on && c->operation == NULL &&
           c->in_bytes < ADMIN_IN_BYTES && connection_has_room(c);
}

/* Reads what there is, at most the room in the buffer. */
void connection_read(struct admin_connection *c);

/* One request, or a piece of the tail or tap. Returns the number of things done. */
int connection_work(struct admin_answerer *a, struct admin_connection *c, uint64_t now_ns);

/* Writes what the socket takes. */
void connection_flush(struct admin_connection *c, uint64_t now_ns);

/* Works out the state, and since when it holds. */
void connection_update(struct admin_connection *c, uint64_t now_ns);

/* Answers with an error; fatal: and closes afterwards. */
void connection_fail(struct admin_connection *c, int code, bool fatal, const char *format, ...)
    __attribute__((format(printf, 4, 5)));

/* Sends the response of so many bytes at admin_reserve()'s place, or says that it does not fit. */
void connection_answer(struct admin_connection *c, int64_t bytes);

/* Where the next response goes: makes room for ADMIN_OUT_BYTES - ADMIN_OUT_HIGH_BYTES bytes. */
uint8_t *admin_reserve(struct admin_connection *c, size_t *ret_cap);
static inline void connection_commit(struct admin_connection *c, size_t bytes)
{
    c->out_bytes += bytes;
    assert(c->out_bytes <= ADMIN_OUT_BYTES);
}

/* serve/admin_remote.c */
/* A socket that listens, or a negative errno with a sentence. */
int remote_listen(const struct in6_addr *ip, uint16_t port, char error[ADMIN_OPEN_ERROR_BYTES]);
/* Puts TLS on a connection that was accepted. 0 or a negative errno. */
int remote_begin(struct admin_connection *c, struct tls_context *tls);
/* Ends a connection whose client's certificate has run out: nothing more is given or taken. */
void remote_expire(struct admin_answerer *a, struct admin_connection *c);
/* A step of the handshake; a connection that fails is broken. */
void remote_handshake(struct admin_connection *c);
/* May it ask for this? */
bool remote_may(const struct admin_connection *c, uint32_t which);

/* serve/admin_operation.c */
void operation_begin(struct admin_answerer *a, struct admin_connection *c,
                     const struct admin_request *request);
/* Of a connection that waits. */
bool operation_has_ended(const struct admin_connection *c);
int operation_work(struct admin_answerer *a, struct admin_connection *c);
/* Before c is closed; nothing if it does not wait. */
void operation_leave(struct admin_connection *c);
/* Frees those that have ended, and that nobody waits for. */
void operations_reap(struct admin_answerer *a);
/* Waits for all, when no connection does any more. */
void operations_end(struct admin_answerer *a);

/* serve/admin_tail.c */
void tail_begin(struct admin_answerer *a, struct admin_connection *c,
                const sluice_v1_TailRequest *request);
int tail_work(struct admin_answerer *a, struct admin_connection *c);
void get_answer(struct admin_answerer *a, struct admin_connection *c,
                const sluice_v1_GetRequest *request);

/* serve/admin_xdp.c */
void xdp_status_answer(struct admin_answerer *a, struct admin_connection *c, bool sources);
void policy_test_answer(struct admin_answerer *a, struct admin_connection *c,
                        const sluice_v1_PolicyTestRequest *request);
void tap_begin(struct admin_answerer *a, struct admin_connection *c,
               const sluice_v1_TapRequest *request, uint64_t now_ns);
int tap_work(struct admin_answerer *a, struct admin_connection *c, uint64_t now_ns);
/* Before c is closed; nothing if it has no tap. */
void tap_stop(struct admin_answerer *a, struct admin_connection *c);

#endif
