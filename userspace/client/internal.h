/*
 * internal.h - what the files of libsluice share; no part of its interface.
 *
 * client.c   the functions of sluice.h and the requests that wait, under one mutex
 * connect.c  one connection after the other: addresses, Hello and Welcome, back-off
 * serve.c    the traffic of one connection: requests out, frames in, time-outs
 * reply.c    what a frame of the server says
 * retry.c    requests that are sent again later, since the server cannot take them now
 *
 * A request is in the list, oldest first, from sluice_send() until its answer; or, while it waits
 * to be sent again, in another. Only the client's thread takes requests out, so it may read a
 * request's bytes without the mutex.
 */
#ifndef SLUICE_CLIENT_INTERNAL_H
#define SLUICE_CLIENT_INTERNAL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/frame.h"
#include "base/tls.h"
#include "client/sluice.h"

#define CLIENT_ADDRESSES_MAX   16u
#define CLIENT_HOST_BYTES_MAX  256u
#define CLIENT_PRODUCER_MAX    64u
#define CLIENT_TOKEN_BYTES_MAX 512u
#define CLIENT_REQUESTS_MAX    65536u
#define CLIENT_FRAME_BYTES_MAX (1u << 30) /* until a server has said less */
#define CLIENT_INPUT_BYTES_MIN 65536u
#define CLIENT_INPUT_BYTES_MAX (8u << 20)
#define CLIENT_SENTENCE_MAX    512u
#define CLIENT_PING_IDLE_MS    5000u

struct address {
    char host[CLIENT_HOST_BYTES_MAX];
    char port[8];
};

struct request {
    struct request *next, *prev, *hash_next;
    uint64_t number;
    void *user;
    uint64_t first_sent_ns, sent_ns;
    uint64_t connection; /* on which it was completely sent last */
    uint32_t attempts, events;
    size_t bytes;
    bool waiting; /* in the other list, until: */
    uint64_t due_ns;
    unsigned retries;
    uint32_t durability;         /* of what was decided of it before; 0: nothing was */
    struct sluice_outcome *kept; /* what was decided of it before, or NULL; 32 bytes an event */
    const uint8_t *frame;        /* in data: the header grows backwards from the events */
    uint8_t data[];
};

/* The thread's own. */
struct connection {
    int fd;            /* -1: none */
    struct tls *tls;   /* NULL: plaintext */
    uint64_t stray_ns; /* since when the server knows no leader; 0: it does */
    uint64_t number;
    uint64_t read_ns, written_ns, answered_ns, ping_ns;
    bool ping_waits;
    bool welcome;
    bool useful; /* it has given an answer: the next back-off starts anew */
    uint64_t ping_nonce;
    size_t offset; /* bytes sent of the first unsent request */
    uint8_t *input;
    size_t input_bytes, input_max;
    uint8_t control[64]; /* a ping being sent */
    size_t control_bytes, control_offset;
    char peer[CLIENT_HOST_BYTES_MAX + 16];
};

struct sluice_client {
    /* Constant after sluice_open(). */
    struct sluice_options options;
    struct address address[CLIENT_ADDRESSES_MAX];
    unsigned addresses;
    char producer[CLIENT_PRODUCER_MAX + 1];
    uint8_t token[CLIENT_TOKEN_BYTES_MAX];
    struct tls_context *tls; /* NULL: plaintext */
    pthread_t thread;
    int wake_fd;

    /* Under the mutex. */
    pthread_mutex_t mutex;
    pthread_cond_t room; /* a request was answered, or the client ends */
    struct request *head, *tail, *unsent;
    struct request *waiting;
    struct request **bucket;
    uint32_t buckets; /* a power of two */
    uint32_t requests;
    uint64_t bytes;
    uint64_t request_last;
    uint32_t waiters;
    bool calling; /* a callback runs */
    bool asleep;  /* the thread must be woken for a new request */
    bool closing;
    int failed; /* for good */
    uint32_t frame_bytes_max, batch_events_max;
    struct sluice_stats stats;

    /* The thread's own. */
    struct connection connection;
    struct sluice_outcome *outcome; /* of the receipt being passed on */
    size_t outcomes_max;
    unsigned next_address;
    unsigned failures; /* in a row */
    unsigned refusals; /* of certificates, in a row */
    uint64_t random;
};

/* client.c: requests. All take the mutex themselves. */
struct request *client_find(struct sluice_client *c, uint64_t number);
/* Takes r out of the list, passes the receipt on and frees r. What the receipt says of request,
 * user, latency and attempts is filled in here. */
void client_complete(struct sluice_client *c, struct request *r, struct sluice_receipt *receipt);
/* r waits until due_ns, and then is as if it had just been given. */
void client_put_off(struct sluice_client *c, struct request *r, uint64_t due_ns);
/* Takes back what is due. */
void client_resume(struct sluice_client *c, uint64_t now_ns);
/* When something is due, or UINT64_MAX. */
uint64_t client_due_ns(struct sluice_client *c);
/* Completes all requests with status. */
void client_complete_all(struct sluice_client *c, int status);
bool client_is_closing(struct sluice_client *c);
void client_say(struct sluice_client *c, int connected, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* client.c: pieces for the thread. Waits for events on fd (may be -1) or a wake-up until
 * deadline_ns (monotonic). Returns revents of fd, 0 after a wake-up or at the deadline. */
int client_poll(struct sluice_client *c, int fd, short events, uint64_t deadline_ns);

/* connect.c */
int connect_parse(struct sluice_client *c, const char *addresses);
void *connect_thread(void *arg);
uint64_t client_random(struct sluice_client *c);

/* serve.c: until the connection ends. -EACCES, -EPROTO: for good; else a reason to connect again,
 * which has been said. */
int serve_run(struct sluice_client *c);
/* Hello and Welcome. The same results; 0 when welcome. */
int serve_greet(struct sluice_client *c, uint64_t deadline_ns);

/* Says what TLS has to say; the result as serve_run()'s. */
int serve_tls_lost(struct sluice_client *c, int rc);

/* retry.c: is r to be sent again, as c->outcome says? (durability: what was reached.) Then it is
 * put off. Else c->outcome is what is to be reported, with what was decided before. */
bool retry_later(struct sluice_client *c, struct request *r, uint32_t durability);
/* What is true of all of r, whose last receipt says this. */
uint32_t retry_durability(const struct request *r, uint32_t durability);
/* After a receipt: 0, or an error when a server has known no leader for too long, which has been
 * said, and there are others. */
int retry_stray(struct sluice_client *c, const struct sluice_outcome *outcome, uint32_t events);

/* reply.c: acts on one frame of the server. 0, or as serve_run(). */
int reply_take(struct sluice_client *c, const struct frame *f);

#endif
