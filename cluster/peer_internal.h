/*
 * peer_internal.h - what the files of peer.h share.
 */
#ifndef SLUICE_CLUSTER_PEER_INTERNAL_H
#define SLUICE_CLUSTER_PEER_INTERNAL_H

#include "base/clock.h"
#include "base/report.h"
#include "cluster/handshake.h"
#include "cluster/peer.h"
#include "cluster/peer_decoder.h"

#define PEER_HOST_BYTES  256u
#define PEER_STAGE_BYTES (64u << 10)
#define PEER_SMALL_BYTES 80u /* a frame that needs no memory of its own */
#define PEER_OUT_MAX     (2u * CLUSTER_MEMBERS_MAX + PEER_IN_MAX + PEER_CALLS_MAX)

/* --- peer_link.c --- */

/* A connected, or connecting, socket in the loop. Its memory outlives link_close() until the loop
 * has seen it. */
struct peer_link {
    int fd;
    struct tls *tls; /* NULL: plain */
    uv_poll_t poll;
    int events;
    void (*ready)(struct peer_link *l, int events);
    void *owner;
    char address[INET6_ADDRSTRLEN + 8]; /* of the other side */
};

/* Takes fd, also on failure. Returns NULL when there is no memory. */
struct peer_link *link_new(struct peers *p, int fd, bool server,
                           void (*ready)(struct peer_link *l, int events), void *owner);
/* Finds out the address of the other side. */
void link_peer(struct peer_link *l);
void link_close(struct peer_link *l);
void link_poll(struct peer_link *l, int events);
/* 0: done. -EAGAIN, and the link polls for what it needs. */
int link_handshake(struct peer_link *l);
ssize_t link_read(struct peer_link *l, void *buf, size_t n); /* 0: the end */
ssize_t link_writev(struct peer_link *l, const struct iovec *iov, int n);
/* What an error of one of these means. */
const char *link_error(const struct peer_link *l, ssize_t e);
/* After the TLS handshake: is it the node with this id? node 0: any node. Returns NULL or what is
 * wrong. */
const char *link_identity(const struct peer_link *l, uint16_t node);
/* Has the other side's certificate run out since? */
bool link_expired(const struct peer_link *l, const struct cluster *c);
/* Of numbers only; 0 or -EINVAL. */
int link_address(const char *host, uint16_t port, struct sockaddr_storage *ret, socklen_t *ret_n);
/* HOST:PORT, [IPv6]:PORT. Returns 0 or -EINVAL. */
int link_split(const char *address, char ret_host[PEER_HOST_BYTES], uint16_t *ret_port);

/* --- peer_out.c --- */

/* Something that waits for the connection. */
struct peer_item {
    uint64_t term;                /* of entries: the leader's */
    struct raft_append_entries a; /* entries; n_entries > 0 */
    uint8_t *bytes;               /* a frame: NULL, it is in small */
    uint32_t n;                   /* 0: entries */
    _Alignas(8) uint8_t small[PEER_SMALL_BYTES];
};

enum out_state { OUT_IDLE, OUT_RESOLVING, OUT_CONNECTING, OUT_TLS, OUT_HELLO, OUT_UP };

struct peer_out {
    struct peers *p;
    struct handshake_known known;
    char host[PEER_HOST_BYTES];
    uint16_t port;
    uint16_t version;    /* of the protocol, once it is up */
    uint64_t epoch;      /* that it is of, by what it has said last; 0: nothing yet */
    bool member;         /* of the configuration */
    bool introduced;     /* not a member that we know of, but it says HELLO to us */
    uint64_t superseded; /* the last process of it whose connection another process's has ended */
    uint64_t call;       /* dialled for this call alone; UINT64_MAX: which is over; 0: not */
    uint8_t *first;      /* that call's frame, until it is sent */
    size_t first_n;
    enum out_state state;
    struct peer_link *link;
    struct resolving *resolving;
    struct peer_decoder decoder; /* answers */
    uint64_t dial_ns, deadline_ns, backoff_ms, up_ns, stuck_ns, ping_ns;
    struct peer_item *item; /* circular, PEER_QUEUE_MAX */
    uint32_t item_head, items;
    size_t bytes;  /* of frames that have memory of their own */
    uint8_t *rest; /* of a frame that was written in part */
    size_t rest_at, rest_n, rest_cap;
    char said[HANDSHAKE_SENTENCE_MAX + 1]; /* the last complaint */
    struct report_limit report;
};

struct peer_out *out_new(struct peers *p);
void out_free(struct peer_out *o);
/* Closes the connection, and forgets what waits. error: one sentence; NULL: nobody needs to know.
 */
void out_lost(struct peer_out *o, const char *error);
int out_turn(struct peer_out *o, uint64_t now_ns); /* the work done, or a final error */
uint64_t out_deadline_ns(const struct peer_out *o);
/* Returns 0, or -EAGAIN: no room. n 0: entries. */
int out_frame(struct peer_out *o, const void *frame, size_t n);
int out_entries(struct peer_out *o, const struct raft_append_entries *a);
/* A frame whose memory, of malloc(), it takes over if it returns 0. */
int out_frame_owned(struct peer_out *o, uint8_t *frame, size_t n);

/* --- peer_in.c --- */

enum in_state { IN_TLS, IN_HELLO, IN_UP };

struct peer_in {
    struct peers *p;
    struct peer_link *link;
    enum in_state state;
    struct peer_decoder decoder;
    uint64_t number; /* of ours, never used twice */
    uint64_t deadline_ns;
    uint64_t epoch; /* of what came last */
    uint16_t node;  /* once it has been welcomed */
    bool calls_only;
    uint64_t process, connection;
    bool readable;
    bool waits; /* a message that there is no room for yet */
    const struct peer_message *message;
    struct raft_message raft;
    struct proposal *entry[PEER_ENTRIES_MAX];
    unsigned entries, taken;
    uint8_t *stage;
    size_t stage_at, stage_n;
    uint8_t *answer; /* what is to go back, and could not go yet */
    size_t answer_at, answer_n, answer_cap;
};

void in_accept(struct peers *p, int fd);
void in_close(struct peer_in *in, const char *error); /* frees it */
int in_turn(struct peer_in *in, uint64_t now_ns);
void in_answer(struct peer_in *in, const void *frame, size_t n);

/* --- peer_call.c --- */

struct peer_call {
    uint64_t id; /* 0: free */
    struct peer_out *to;
    uint64_t deadline_ns;
    peer_call_done done;
    void *arg;
};

void call_answered(struct peers *p, const struct peer_out *from, const void *body, size_t bytes);
void call_lost(struct peers *p, const struct peer_out *to); /* its connection is gone */
void call_refused(struct peers *p, const struct peer_out *to);
void call_turn(struct peers *p, uint64_t now_ns);
void call_received(struct peer_in *in, const void *body, size_t bytes);

/* --- peer.c --- */

struct peers {
    struct cluster *c;
    uv_loop_t *loop;
    int fd; /* listens */
    uv_poll_t listen;
    uint64_t accept_ns; /* until then nothing is accepted; 0: it is */
    struct report_limit accept_report;
    bool closing;
    char advertise[HANDSHAKE_ADDRESS_MAX + 1];
    uint64_t process, connection, in_number;
    struct peer_out *out[PEER_OUT_MAX];
    struct peer_in *in[PEER_IN_MAX];
    struct peer_call call[PEER_CALLS_MAX];
    uint64_t call_id;
    struct peer_packer packer;                 /* for the other region */
    uint64_t seen_committed, seen_uncommitted; /* of the configuration that out[] is of */
    bool seen_closed;
    int final; /* an error that came up in a callback */
};

struct handshake_self peers_self(const struct peers *p);
struct peer_out *peers_out(const struct peers *p, uint16_t node); /* member or introduced */
/* A node that we did not know of can be dialled at this address. */
void peers_introduced(struct peers *p, const struct hello *h);

#endif
