/*
 * node_call.h - what an operator asks of a node, or one node of another: the messages of
 * proto/node.proto, and who answers them. The cluster thread's, but for what cluster.h offers.
 */
#ifndef SLUICE_CLUSTER_NODE_CALL_H
#define SLUICE_CLUSTER_NODE_CALL_H

#include "cluster/internal.h"
#include "cluster/peer.h"

/* Reads a REPLY's body. Returns status, or -EBADMSG when the body cannot be read. Without one, as
 * with an answer that never came, ret's sentence says why. */
int node_reply_decode(sluice_v1_NodeReply *ret, const struct peer_answer *a);

/* For a CALL. Returns its bytes. */
size_t node_request_encode(const sluice_v1_NodeRequest *request,
                           uint8_t ret[sluice_v1_NodeRequest_size]);

/* The n members m, as a message has them; those of no address it leaves out. */
void node_tell_members(const struct member *m, int n, sluice_v1_Member ret[CLUSTER_MEMBERS_MAX],
                       pb_size_t *ret_n);

/* A member's address (member.h): where the operator says that it is (HOST:PORT), and the rest as it
 * says itself. False: that is no place. */
bool node_address(const char *place, const sluice_v1_NodeStatus *s,
                  char ret[sizeof((sluice_v1_Member *)0)->address]);

/* Before the thread ends: whoever still waits is told. */
void node_calls_end(struct cluster *c);

/* Who is to be answered. */
struct node_caller {
    struct cluster *c;
    struct ask *ask; /* NULL: remote */
    struct peer_caller remote;
};

void node_answer(const struct node_caller *to, int status, const sluice_v1_NodeReply *reply);
void node_refuse(const struct node_caller *to, int status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* What a node at a place says of itself makes it a member, whose role is for the caller to give.
 * Returns NULL or what is wrong. */
const char *node_newcomer(const struct cluster *c, uint32_t node, const char *place,
                          const sluice_v1_NodeStatus *s, struct member *ret);
#define NEWCOMER_NS_MAX (5 * NS_PER_S) /* that it has to say so */

/* node_call_recovery.c */
void node_do_recovery(const struct node_caller *to, const sluice_v1_NodeRequest *request);

#endif
