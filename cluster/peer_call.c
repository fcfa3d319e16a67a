/*
 * peer_call.c - CALLs: a request to another node, and its answer on the same connection. The
 * cluster thread's.
 *
 *   CALL   | id u64 | bytes u32 | zero u32 | bytes | zeros to 8 |
 *   REPLY  | id u64 | status i32 | bytes u32 | bytes | zeros to 8 |
 *
 * What is in them is node_call.c's. The id is the caller's. An answer may come when nobody waits
 * for it any more, and is dropped then.
 */
#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "cluster/peer_internal.h"

struct wire_call {
    uint64_t id;
    uint32_t bytes;
    uint32_t zero;
};

struct wire_reply {
    uint64_t id;
    int32_t status;
    uint32_t bytes;
};
_Static_assert(sizeof(struct wire_call) == 16 && sizeof(struct wire_reply) == 16, "sent");

/* A frame of malloc(). */
static uint8_t *call_frame(struct peers *p, enum peer_type type, const void *head, const void *body,
                           size_t bytes, size_t *ret_n)
{
    size_t padded = (bytes + 7) & ~(size_t)7;
    uint8_t *frame = calloc(1, PEER_HEADER_BYTES + sizeof(struct wire_call) + padded);

    if (frame == NULL)
        return NULL;
    memcpy(frame + PEER_HEADER_BYTES, head, sizeof(struct wire_call));
    if (bytes > 0)
        memcpy(frame + PEER_HEADER_BYTES + sizeof(struct wire_call), body, bytes);
    peer_frame_put(frame, type, p->c->state.term >> CLUSTER_EPOCH_SHIFT,
                   (uint32_t)(sizeof(struct wire_call) + padded), 0);
    *ret_n = PEER_HEADER_BYTES + sizeof(struct wire_call) + padded;
    return frame;
}

static void call_end(struct peer_call *call, const struct peer_answer *a)
{
    struct peer_call ended = *call;

    assert(call->id != 0 && a->status <= 0);
    call->id = 0;
    /* What was dialled for this call alone is closed by the next turn: this may be its own. */
    if (ended.to != NULL && ended.to->call == ended.id)
        ended.to->call = UINT64_MAX;
    ended.done(ended.arg, a);
}

static void call_failed(struct peer_call *call, int status, const struct peer_out *to)
{
    call_end(call, &(struct peer_answer){ false, status, to->said, strlen(to->said) });
}

static struct peer_out *call_dial(struct peers *p, uint16_t node, const char *address, uint64_t id)
{
    for (unsigned i = 0; i < PEER_OUT_MAX; i++) {
        struct peer_out *o;

        if (p->out[i] != NULL)
            continue;
        o = out_new(p);
        if (o == NULL || link_split(address, o->host, &o->port) < 0) {
            if (o != NULL)
                out_free(o);
            return NULL;
        }
        o->known = (struct handshake_known){ .node = node };
        o->call = id;
        p->out[i] = o;
        return o;
    }
    return NULL;
}

const char *peers_said(const struct peers *p, uint16_t node)
{
    const struct peer_out *o = peers_out(p, node);

    return o != NULL ? o->said : "";
}

int peers_call(struct peers *p, uint16_t node, const char *address, const void *body, size_t bytes,
               uint64_t timeout_ns, peer_call_done done, void *arg)
{
    struct wire_call head = { .id = p->call_id + 1, .bytes = (uint32_t)bytes };
    struct peer_call *call = NULL;
    struct peer_out *o;
    uint8_t *frame;
    size_t n;

    assert(bytes <= PEER_POST_MAX - sizeof head);
    if (p->closing)
        return -ESHUTDOWN;
    for (unsigned i = 0; i < PEER_CALLS_MAX && call == NULL; i++) {
        if (p->call[i].id == 0)
            call = &p->call[i];
    }
    if (call == NULL)
        return -EBUSY;
    o = address == NULL ? peers_out(p, node) : call_dial(p, node, address, head.id);
    if (o == NULL)
        return address == NULL ? -ENOENT : -EINVAL;
    frame = call_frame(p, PEER_CALL, &head, body, bytes, &n);
    if (frame == NULL)
        return -ENOMEM;
    if (address != NULL) {
        o->first = frame; /* when it is connected */
        o->first_n = n;
    } else if (out_frame_owned(o, frame, n) < 0) {
        free(frame);
        return -ENOTCONN;
    }
    *call = (struct peer_call){ head.id, o, node_now_ns(p->c) + timeout_ns, done, arg };
    p->call_id = head.id;
    return 0;
}

void call_answered(struct peers *p, const struct peer_out *from, const void *body, size_t bytes)
{
    const struct wire_reply *head = body;

    if (bytes < sizeof *head || head->bytes > bytes - sizeof *head || head->id == 0 ||
        head->status > 0)
        return;
    for (unsigned i = 0; i < PEER_CALLS_MAX; i++) {
        struct peer_call *call = &p->call[i];

        if (call->id == head->id && call->to == from) {
            call_end(call, &(struct peer_answer){ true, head->status, head + 1, head->bytes });
            return;
        }
    }
}

void call_lost(struct peers *p, const struct peer_out *to)
{
    for (unsigned i = 0; i < PEER_CALLS_MAX; i++) {
        struct peer_call *call = &p->call[i];

        /* One that was dialled for its sake is dialled again, until the time is over. */
        if (call->id != 0 && call->to == to && to->call == 0)
            call_failed(call, -ENOTCONN, to);
    }
}

/* A node that was dialled for a call does not take it, and will not. */
void call_refused(struct peers *p, const struct peer_out *to)
{
    for (unsigned i = 0; i < PEER_CALLS_MAX; i++) {
        struct peer_call *call = &p->call[i];

        if (call->id != 0 && call->to == to)
            call_failed(call, -ENOTCONN, to);
    }
}

void call_turn(struct peers *p, uint64_t now_ns)
{
    for (unsigned i = 0; i < PEER_CALLS_MAX; i++) {
        struct peer_call *call = &p->call[i];

        if (call->id != 0 && now_ns >= call->deadline_ns)
            call_failed(call, -ETIMEDOUT, call->to);
    }
}

/* --- the other side -----------------------------------------------------------------------------
 */

void call_received(struct peer_in *in, const void *body, size_t bytes)
{
    const struct wire_call *head = body;
    const struct peer_out *o = peers_out(in->p, in->node);
    struct peer_caller from = {
        .connection = in->number,
        .node = in->node,
        .member = !in->calls_only && o != NULL && o->member,
    };

    if (bytes < sizeof *head || head->bytes > bytes - sizeof *head || head->id == 0)
        return; /* nobody can be answered */
    from.id = head->id;
    node_called(in->p->c, &from, head + 1, head->bytes);
}

void peers_reply(struct peers *p, const struct peer_caller *to, int status, const void *body,
                 size_t bytes)
{
    struct wire_reply head = { to->id, status, (uint32_t)bytes };

    assert(status <= 0 && bytes <= PEER_POST_MAX - sizeof head);
    for (unsigned i = 0; i < PEER_IN_MAX; i++) {
        struct peer_in *in = p->in[i];
        uint8_t *frame;
        size_t n;

        if (in == NULL || in->number != to->connection)
            continue;
        frame = call_frame(p, PEER_REPLY, &head, body, bytes, &n);
        if (frame != NULL)
            in_answer(in, frame, n);
        free(frame);
        return;
    }
}
