/*
 * reply.c - what a frame of the server says: welcome, receipt, error, pong.
 *
 * A receipt is believed only if it adds up: every position is one of the batch and named once, and
 * the counts are those of the events. One that does not ends the connection, and the request is sent
 * again: to report it would be to guess.
 * Thread:  the client's.
 * Memory:  the outcomes of the largest batch so far.
 */
#include "client/internal.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include <pb_decode.h>

#include "base/clock.h"
#include "proto/wire.pb.h"

/* What the callbacks of one receipt's decoding fill in. */
struct expansion {
    struct sluice_outcome *outcome;
    uint8_t (*id)[CLIENT_ASSIGNED_ID_MAX];
    uint32_t events, duplicates, refused;
};

static int nonsense(struct sluice_client *c, const char *what)
{
    client_say(c, 0, "%s: sent %s that makes no sense", c->connection.peer, what);
    return -EBADMSG;
}

/* --- receipts ------------------------------------------------------------------------------- */

static bool on_exception(pb_istream_t *in, const pb_field_t *field, void **arg)
{
    struct expansion *x = *arg;
    sluice_v1_Exception e = sluice_v1_Exception_init_zero;

    if (!pb_decode(in, sluice_v1_Exception_fields, &e) || e.position >= x->events ||
        e.reason == sluice_v1_Reason_REASON_NONE)
        return false;
    struct sluice_outcome *o = &x->outcome[e.position];

    if (o->reason != sluice_v1_Reason_REASON_NONE)
        return false;
    o->reason = (uint32_t)e.reason;
    if (o->reason == sluice_v1_Reason_DUPLICATE) {
        if (!e.has_first || e.first.index == 0)
            return false;
        o->index = e.first.index;
        o->slot = e.first.slot;
        x->duplicates++;
    } else {
        x->refused++;
    }
    return true;
}

static bool on_assigned(pb_istream_t *in, const pb_field_t *field, void **arg)
{
    struct expansion *x = *arg;
    sluice_v1_AssignedId a = sluice_v1_AssignedId_init_zero;

    if (!pb_decode(in, sluice_v1_AssignedId_fields, &a) || a.position >= x->events ||
        x->outcome[a.position].id || a.id.size == 0)
        return false;
    memcpy(x->id[a.position], a.id.bytes, a.id.size);
    x->outcome[a.position].id = x->id[a.position];
    x->outcome[a.position].id_bytes = a.id.size;
    return true;
}

static int outcomes_grow(struct sluice_client *c, size_t events)
{
    if (events <= c->outcomes_max)
        return 0;
    struct sluice_outcome *outcome = realloc(c->outcome, events * sizeof(*outcome));

    if (!outcome)
        return -ENOMEM;
    c->outcome = outcome;
    void *id = realloc(c->outcome_id, events * sizeof(*c->outcome_id));

    if (!id)
        return -ENOMEM;
    c->outcome_id = id;
    c->outcomes_max = events;
    return 0;
}

/* Accepted events have consecutive slots in the batch's order. */
static void accepted_place(struct expansion *x, const sluice_v1_Receipt *receipt)
{
    uint32_t slot = receipt->first_slot;

    for (uint32_t i = 0; i < x->events; i++) {
        if (x->outcome[i].reason != sluice_v1_Reason_REASON_NONE)
            continue;
        x->outcome[i].index = receipt->index;
        x->outcome[i].slot = slot++;
    }
}

static bool adds_up(const struct expansion *x, const sluice_v1_Receipt *receipt)
{
    return !receipt->truncated && receipt->duplicates == x->duplicates &&
           receipt->refused == x->refused &&
           (uint64_t)receipt->accepted + x->duplicates + x->refused == x->events &&
           (receipt->accepted == 0 || receipt->index != 0);
}

static int receipt_take(struct sluice_client *c, const uint8_t *data, size_t bytes)
{
    sluice_v1_Receipt receipt = sluice_v1_Receipt_init_zero;
    pb_istream_t in = pb_istream_from_buffer(data, bytes);

    if (!pb_decode(&in, sluice_v1_Receipt_fields, &receipt))
        return nonsense(c, "a receipt");
    c->connection.useful = true;
    struct request *r = client_find(c, receipt.request);

    /* On this connection the server cannot have seen what was sent only on an earlier one. */
    if (!r || r->connection != c->connection.number) {
        pthread_mutex_lock(&c->mutex);
        c->stats.receipts_unknown++;
        pthread_mutex_unlock(&c->mutex);
        return 0;
    }
    if (outcomes_grow(c, r->events) < 0) {
        client_say(c, 0, "no memory for a receipt");
        return -ENOMEM;
    }
    struct expansion x = { .outcome = c->outcome, .id = c->outcome_id, .events = r->events };

    memset(c->outcome, 0, r->events * sizeof(*c->outcome));
    receipt.exceptions = (pb_callback_t){ .funcs.decode = on_exception, .arg = &x };
    receipt.assigned = (pb_callback_t){ .funcs.decode = on_assigned, .arg = &x };
    in = pb_istream_from_buffer(data, bytes);
    if (!pb_decode_ex(&in, sluice_v1_Receipt_fields, &receipt, PB_DECODE_NOINIT) ||
        !adds_up(&x, &receipt))
        return nonsense(c, "a receipt");
    accepted_place(&x, &receipt);
    struct sluice_receipt out = { .epoch = receipt.epoch,
                                  .term = receipt.term,
                                  .outcomes = r->events,
                                  .outcome = c->outcome };

    client_complete(c, r, &out);
    return 0;
}

/* --- the other frames ----------------------------------------------------------------------- */

static int welcome_take(struct sluice_client *c, const uint8_t *data, size_t bytes)
{
    sluice_v1_Welcome welcome = sluice_v1_Welcome_init_zero;
    pb_istream_t in = pb_istream_from_buffer(data, bytes);

    if (c->connection.welcome || !pb_decode(&in, sluice_v1_Welcome_fields, &welcome))
        return nonsense(c, "a welcome");
    if (welcome.protocol != 1) {
        client_say(c, 0, "%s: speaks protocol %u, this library speaks 1", c->connection.peer,
                   welcome.protocol);
        return -EPROTO;
    }
    pthread_mutex_lock(&c->mutex);
    /* 0: the server does not say. */
    c->frame_bytes_max = welcome.frame_bytes_max ? welcome.frame_bytes_max : CLIENT_FRAME_BYTES_MAX;
    c->batch_events_max = welcome.batch_events_max ? welcome.batch_events_max : UINT32_MAX;
    pthread_cond_broadcast(&c->room); /* who waits with a batch that is too large now may know */
    pthread_mutex_unlock(&c->mutex);
    c->connection.welcome = true;
    return 0;
}

/* An error that a new connection would only meet again ends the client. */
static int error_status(sluice_v1_ErrorCode code)
{
    switch (code) {
    case sluice_v1_ErrorCode_ERROR_UNAUTHENTICATED:
        return -EACCES;
    case sluice_v1_ErrorCode_ERROR_MALFORMED_FRAME:
    case sluice_v1_ErrorCode_ERROR_FRAME_TOO_LARGE:
    case sluice_v1_ErrorCode_ERROR_HELLO_EXPECTED:
    case sluice_v1_ErrorCode_ERROR_PROTOCOL_VERSION:
        return -EPROTO;
    default:
        return -ECONNABORTED;
    }
}

static int error_take(struct sluice_client *c, const uint8_t *data, size_t bytes)
{
    sluice_v1_Error error = sluice_v1_Error_init_zero;
    pb_istream_t in = pb_istream_from_buffer(data, bytes);

    if (!pb_decode(&in, sluice_v1_Error_fields, &error))
        return nonsense(c, "an error");
    int status = error_status(error.code);

    client_say(c, 0, "%s: %s (error %d)", c->connection.peer,
               error.message[0] ? error.message : "an error without words", (int)error.code);
    return error.closing || status != -ECONNABORTED ? status : 0;
}

static int pong_take(struct sluice_client *c, const uint8_t *data, size_t bytes)
{
    sluice_v1_Pong pong = sluice_v1_Pong_init_zero;
    pb_istream_t in = pb_istream_from_buffer(data, bytes);

    if (!pb_decode(&in, sluice_v1_Pong_fields, &pong))
        return nonsense(c, "a pong");
    if (pong.nonce == c->connection.ping_nonce) {
        c->connection.ping_waits = false;
        c->connection.useful = true;
    }
    return 0;
}

int reply_take(struct sluice_client *c, const uint8_t *frame, size_t bytes)
{
    pb_istream_t in = pb_istream_from_buffer(frame, bytes);
    pb_wire_type_t wire_type;
    uint32_t tag, length;
    bool eof;

    if (!pb_decode_tag(&in, &wire_type, &tag, &eof))
        return nonsense(c, "a frame");
    if (wire_type != PB_WT_STRING)
        return nonsense(c, "a frame");
    if (!pb_decode_varint32(&in, &length) || length != in.bytes_left)
        return nonsense(c, "a frame");
    const uint8_t *data = frame + bytes - length;

    if (!c->connection.welcome && tag != sluice_v1_ServerFrame_welcome_tag &&
        tag != sluice_v1_ServerFrame_error_tag)
        return nonsense(c, "a frame before its welcome");
    switch (tag) {
    case sluice_v1_ServerFrame_welcome_tag:
        return welcome_take(c, data, length);
    case sluice_v1_ServerFrame_receipt_tag:
        return receipt_take(c, data, length);
    case sluice_v1_ServerFrame_error_tag:
        return error_take(c, data, length);
    case sluice_v1_ServerFrame_pong_tag:
        return pong_take(c, data, length);
    default:
        return 0; /* of a newer server */
    }
}
