/*
 * peer.h - connections to the other nodes: whom to dial, whom to let in, what is sent and received.
 *
 * Each node dials every other and sends on the connections that it has dialled; it listens on those
 * that it was dialled on. So a connection carries one node's messages, in order, and what is lost
 * is lost from some point on, with the connection. The other way there are answers only: to the
 * HELLO (handshake.h), and to CALLs.
 *
 *   peer.c      the table of nodes; in and out of the cluster thread's loop
 *   peer_link.c one connection: socket, TLS, readiness
 *   peer_out.c  a node that is dialled: its queue, and when to dial it again
 *   peer_in.c   a node that has dialled us: HELLO, then its messages, into the engine or node.c
 *   peer_call.c CALLs and their answers
 *
 * Thread:  the cluster thread's, but for what says otherwise.
 * Memory:  the queue to a node holds heads; of entries it says which. Their bytes are taken from
 *          the log (memory, or for one who lags behind its files) when the connection takes them;
 *          what it took half of is copied. So a slow or dead node costs PEER_QUEUE_MAX heads,
 *          PEER_QUEUE_BYTES_MAX of posts, and one frame.
 * Limits:  below. A connection that breaks a rule is closed, with one sentence in the log; dialling
 *          it again waits longer each time.
 */
#ifndef SLUICE_CLUSTER_PEER_H
#define SLUICE_CLUSTER_PEER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <uv.h>

#include "base/tls.h"
#include "cluster/internal.h"

#define PEER_QUEUE_MAX       4096u
#define PEER_QUEUE_BYTES_MAX (8u << 20)   /* of posts and calls */
#define PEER_FRAME_BYTES     (512u << 10) /* of entries in one frame, unless one is larger */
#define PEER_PING_MS         1000u        /* between two, where nothing else is said */
#define PEER_HELLO_MS        3000u        /* from the first byte to the WELCOME */
#define PEER_BACKOFF_MS_MIN  20u
#define PEER_BACKOFF_MS_MAX  1000u
#define PEER_IN_MAX          32u        /* connections of others, with or without a HELLO */
#define PEER_READ_BYTES      (1u << 20) /* from one connection before the next one's turn */
#define PEER_CALLS_MAX       64u

struct peers;

/* Borrows config's strings and c. Listens. error is one sentence. */
int peers_open(struct peers **ret, struct cluster *c, char error[LOG_ERROR_BYTES]);
/* The loop must run once more until it is empty; then peers_free(). */
void peers_close(struct peers *p);
void peers_free(struct peers *p);

/* Returns the work done, or a negative errno, which is final. */
int peers_turn(struct peers *p, uint64_t now_ns);
uint64_t peers_deadline_ns(const struct peers *p);

/* For struct node_environment; arg is the struct peers. */
int peers_send(void *arg, const struct raft_message *m);
int peers_post(void *arg, const struct node_post *p);

/* Is there a connection to it, and since when (monotonic, 0: there is none) ? */
uint64_t peers_connected_ns(const struct peers *p, uint16_t node);

/* The node's log was closed and opened again: its members may be others. p may be NULL. */
void peers_reopened(struct peers *p);

/* --- calls --- */

/* Why there is no connection to this node, as far as that is known: borrowed, "" at least. */
const char *peers_said(const struct peers *p, uint16_t node);

/* Without an answer it is not known whether it was done. */
struct peer_answer {
    bool there; /* false: status is this node's, and body says in words why */
    int status; /* negative errno, or 0 */
    const void *body;
    size_t bytes;
};
typedef void (*peer_call_done)(void *arg, const struct peer_answer *a);
/* Asks a node, one of the cluster or at an address (HOST:PORT) that is dialled for this. body is
 * copied. done is called once, within timeout_ns, unless an error is returned: -ENOENT (no such
 * node), -EBUSY (PEER_CALLS_MAX are under way), -EINVAL (the address), -ENOMEM. */
int peers_call(struct peers *p, uint16_t node, const char *address, const void *body, size_t bytes,
               uint64_t timeout_ns, peer_call_done done, void *arg);

/* Who has called: may be gone when the answer is there. */
struct peer_caller {
    uint64_t connection, id;
    uint16_t node;
    bool member; /* of this cluster, and by a connection of it */
};
void peers_reply(struct peers *p, const struct peer_caller *to, int status, const void *body,
                 size_t bytes);
/* node_call.c's; body is borrowed. The answer may come later. */
void node_called(struct cluster *c, const struct peer_caller *from, const void *body, size_t bytes);

#endif
