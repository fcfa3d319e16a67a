/*
 * reply.c - what a frame of the server says: welcome, receipt, error, pong.
 *
 * A receipt is believed only if it adds up: every position is one of the batch and named once, and
 * the counts are those of the events. One that does not ends the connection, and the request is
 * sent again: to report it would be to guess. Thread:  the client's. Memory:  the outcomes of the
 * largest batch so far.
 */
#include "client/internal.h"

#include <assert.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/frame.h"
#include "base/utf8.h"

static int nonsense(struct sluice_client *c, const char *what)
{
    client_say(c, 0, "%s: sent %s that makes no sense", c->connection.peer, what);
    return -EBADMSG;
}

/* --- receipts ------------------------------------------------------------------------------- */

static int outcomes_grow(struct sluice_client *c, size_t events)
{
    if (events <= c->outcomes_max)
        return 0;
    struct sluice_outcome *outcome = realloc(c->outcome, events * sizeof(*outcome));

    if (!outcome)
        return -ENOMEM;
    c->outcome = outcome;
    c->outcomes_max = events;
    return 0;
}

/* A batch that the server refused whole has one exception, which stands for every event. */
static bool refused_whole(struct sluice_outcome *outcome, uint32_t events,
                          const struct receipt *receipt)
{
    struct receipt_exception e;
    size_t at = 0;

    if (receipt->exceptions != 1 || receipt->refused != events ||
        !receipt_next_exception(receipt, &at, &e) || e.position != 0 ||
        (e.reason != sluice_v1_Reason_BATCH_TOO_LARGE &&
         e.reason != sluice_v1_Reason_REGION_UNREACHABLE) ||
        receipt->accepted + receipt->duplicates > 0)
        return false;
    for (uint32_t i = 0; i < events; i++)
        outcome[i].reason = e.reason;
    return true;
}

/* False if the exceptions are not those of a batch of that many events. */
static bool exceptions_place(struct sluice_outcome *outcome, uint32_t events,
                             const struct receipt *receipt)
{
    struct receipt_exception e;
    uint32_t duplicates = 0, refused = 0;
    size_t at = 0;

    while (receipt_next_exception(receipt, &at, &e)) {
        if (e.position >= events || e.reason == sluice_v1_Reason_REASON_NONE ||
            outcome[e.position].reason != sluice_v1_Reason_REASON_NONE)
            return false;
        outcome[e.position].reason = e.reason;
        if (e.reason != sluice_v1_Reason_DUPLICATE) {
            refused++;
            continue;
        }
        if (e.first_index == 0)
            return false;
        outcome[e.position].index = e.first_index;
        outcome[e.position].slot = e.first_slot;
        duplicates++;
    }
    return !receipt->truncated && receipt->duplicates == duplicates &&
           receipt->refused == refused &&
           (uint64_t)receipt->accepted + duplicates + refused == events &&
           (receipt->accepted == 0 || receipt->index != 0) &&
           receipt->durability <= sluice_v1_Durability_DEGRADED;
}

static bool ids_place(struct sluice_outcome *outcome, uint32_t events,
                      const struct receipt *receipt)
{
    struct receipt_assigned a;
    size_t at = 0;

    while (receipt_next_assigned(receipt, &at, &a)) {
        if (a.position >= events || outcome[a.position].id || a.id_bytes == 0)
            return false;
        outcome[a.position].id = a.id;
        outcome[a.position].id_bytes = a.id_bytes;
    }
    return true;
}

/* Accepted events have consecutive slots in the batch's order. */
static void accepted_place(struct sluice_outcome *outcome, uint32_t events,
                           const struct receipt *receipt)
{
    uint32_t slot = receipt->first_slot;

    for (uint32_t i = 0; i < events; i++) {
        if (outcome[i].reason != sluice_v1_Reason_REASON_NONE)
            continue;
        outcome[i].index = receipt->index;
        outcome[i].slot = slot++;
    }
}

static int receipt_take(struct sluice_client *c, const struct frame *f)
{
    struct receipt receipt;

    if (frame_get_receipt(&receipt, f->body, f->body_bytes) < 0)
        return nonsense(c, "a receipt");
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
    memset(c->outcome, 0, r->events * sizeof(*c->outcome));
    if ((!refused_whole(c->outcome, r->events, &receipt) &&
         !exceptions_place(c->outcome, r->events, &receipt)) ||
        !ids_place(c->outcome, r->events, &receipt))
        return nonsense(c, "a receipt");
    accepted_place(c->outcome, r->events, &receipt);

    int rc = retry_stray(c, c->outcome, r->events);

    if (retry_later(c, r, receipt.durability)) {
        c->connection.answered_ns = clock_monotonic_ns();
        return rc;
    }
    struct sluice_receipt out = {
        .epoch = receipt.epoch,
        .term = receipt.term,
        .durability = (int)retry_durability(r, receipt.durability),
        .outcomes = r->events,
        .outcome = c->outcome,
    };

    c->connection.useful = true;
    client_complete(c, r, &out);
    c->connection.answered_ns = clock_monotonic_ns(); /* after the callback: its time is ours */
    return rc;
}

/* --- the other frames ----------------------------------------------------------------------- */

static int welcome_take(struct sluice_client *c, const struct frame *f)
{
    sluice_v1_Welcome welcome;

    if (c->connection.welcome || frame_get_welcome(&welcome, f) < 0)
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
    case sluice_v1_ErrorCode_ERROR_NOT_PERMITTED:
        return -EACCES;
    case sluice_v1_ErrorCode_ERROR_MALFORMED_FRAME:
    case sluice_v1_ErrorCode_ERROR_FRAME_TOO_LARGE:
    case sluice_v1_ErrorCode_ERROR_HELLO_EXPECTED:
    case sluice_v1_ErrorCode_ERROR_PROTOCOL_VERSION:
    case sluice_v1_ErrorCode_ERROR_TLS_REQUIRED:
        return -EPROTO;
    default:
        return -ECONNABORTED;
    }
}

/* The sentence may end on a terminal, which control characters would command. */
static void controls_replace(char *text)
{
    size_t left = strlen(text), n;

    for (; left > 0; text += n, left -= n) {
        n = utf8_bytes(text, left);
        assert(n > 0); /* frame_get_error() checked it */
        if (utf8_is_control(text, n))
            memset(text, '?', n);
    }
}

static int error_take(struct sluice_client *c, const struct frame *f)
{
    sluice_v1_Error error;

    if (frame_get_error(&error, f) < 0)
        return nonsense(c, "an error");
    int status = error_status(error.code);

    controls_replace(error.message);
    client_say(c, 0, "%s: %s (error %d)", c->connection.peer,
               error.message[0] ? error.message : "an error without words", (int)error.code);
    return error.closing || status != -ECONNABORTED ? status : 0;
}

static int pong_take(struct sluice_client *c, const struct frame *f)
{
    uint64_t nonce;

    if (frame_get_pong(&nonce, f) < 0)
        return nonsense(c, "a pong");
    if (nonce == c->connection.ping_nonce) {
        c->connection.ping_waits = false;
        c->connection.useful = true;
    }
    return 0;
}

int reply_take(struct sluice_client *c, const struct frame *f)
{
    if (!c->connection.welcome && f->kind != SERVER_WELCOME && f->kind != SERVER_ERROR)
        return nonsense(c, "a frame before its welcome");
    switch (f->kind) {
    case SERVER_WELCOME:
        return welcome_take(c, f);
    case SERVER_RECEIPT:
        return receipt_take(c, f);
    case SERVER_ERROR:
        return error_take(c, f);
    case SERVER_PONG:
        return pong_take(c, f);
    default:
        return nonsense(c, "a frame");
    }
}
